//! A report as Markdown, for a comment on a pull request.
//!
//! Names and remarks come from models, so all such text stands in code spans: it is shown as it is, mentions nobody and is no
//! HTML. The whole is shorter than what such comments may be; what is left out is counted, and is in the JSON.

use super::{Budget, Measured, Model, Paired, Report};
use crate::bench::judge::{Clock, Outcome};
use crate::units::show_bytes;
use std::fmt::Write;

/// The most bytes of a comment.
pub const MOST: usize = 64_000;

/// The most bytes of the tables that are not folded.
const SUMMARY: usize = 24_000;

/// The most bytes of a cell.
const CELL: usize = 160;

/// Text as a code span that neither breaks a table nor ends early.
fn code(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut out = String::from("`");
    for c in text.chars() {
        if out.len() > CELL {
            out.push('…');
            break;
        }
        match c {
            '`' => out.push('\''),
            '|' => out.push_str("\\|"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('`');
    out
}

/// A table that takes at most `room` bytes; the rows that do not fit are counted.
fn table(head: &str, rows: &[String], room: usize) -> String {
    let columns = head.matches('|').count().saturating_sub(1);
    let mut out = format!("{head}\n|{}\n", "---|".repeat(columns));
    for (i, row) in rows.iter().enumerate() {
        if out.len() + row.len() + 64 > room {
            let _ = write!(out, "\n{} more rows are in the JSON.\n", rows.len() - i);
            break;
        }
        out.push_str(row);
        out.push('\n');
    }
    out.push('\n');
    out
}

/// A folded part.
fn fold(title: &str, body: &str) -> String {
    format!("<details><summary>{title}</summary>\n\n{body}</details>\n\n")
}

/// The report as Markdown of at most [`MOST`] bytes.
pub fn render(r: &Report) -> String {
    let mut out = String::from("### Planish\n\n");
    let mut open: Vec<String> = Vec::new();
    if !r.budgets.is_empty() {
        let rows: Vec<String> = r.budgets.iter().map(budget).collect();
        let bad = r.budgets.iter().filter(|b| b.outcome == Outcome::Violated).count();
        let undecided = r.budgets.iter().filter(|b| b.outcome == Outcome::Undecided).count();
        let kept = rows.len() - bad - undecided;
        let _ = writeln!(out, "**Budgets: {kept} kept, {bad} violated, {undecided} not decided**\n");
        open.push(table("| budget | of | limit | found | |", &rows, SUMMARY / 4));
    }
    if !r.pairs.is_empty() {
        let rows: Vec<String> = r.pairs.iter().map(pair).collect();
        let head = "| | against | threads | times as fast | 95% interval | detectable | verdict |";
        open.push(table(head, &rows, SUMMARY / 4));
    }
    if !r.results.is_empty() {
        let rows: Vec<String> = r.results.iter().map(measured).collect();
        let head = "| | threads | median ms | p10 | p90 | p99 | runs/s | first ms | cold start ms | memory | program |";
        open.push(table(head, &rows, SUMMARY / 4));
    }
    if !r.models.is_empty() {
        let rows: Vec<String> = r.models.iter().map(model).collect();
        let head = "| model | file | artifact | weights | code | check | accuracy | lossy passes |";
        open.push(table(head, &rows, SUMMARY / 4));
    }
    if open.is_empty() {
        out.push_str("The report is empty.\n\n");
    }
    open.iter().for_each(|t| out.push_str(t));
    let machine = machine(r);
    let parts = parts(r);
    for (i, (title, make)) in parts.iter().enumerate() {
        let left = MOST.saturating_sub(out.len() + machine.len());
        let room = (left / (parts.len() - i)).saturating_sub(title.len() + 64);
        if room < 512 {
            let _ = writeln!(out, "{} more parts are in the JSON.\n", parts.len() - i);
            break;
        }
        out.push_str(&fold(title, &make(room)));
    }
    out.push_str(&machine);
    out
}

/// The folded parts: a title, and what makes the body in so many bytes.
fn parts(r: &Report) -> Vec<(String, Box<dyn Fn(usize) -> String + '_>)> {
    let mut parts: Vec<(String, Box<dyn Fn(usize) -> String + '_>)> = Vec::new();
    for m in &r.models {
        let name = html(&m.name);
        if !m.layers.is_empty() {
            parts.push((format!("{name}: {} layers", m.layers.len()), Box::new(|room| layers(m, room))));
        }
        let edits = m.passes.iter().filter(|p| p.edits > 0).count();
        let title = format!("{name}: {} passes, {edits} of them changed something", m.passes.len());
        parts.push((title, Box::new(|room| passes(m, room))));
        if !m.remarks.is_empty() {
            let rows = || m.remarks.iter().map(|d| format!("| {} | {} |", code(&d.id), code(&d.message)));
            parts.push((
                format!("{name}: {} remarks", m.remarks.len()),
                Box::new(move |room| table("| id | remark |", &rows().collect::<Vec<_>>(), room)),
            ));
        }
    }
    for m in &r.results {
        let Some(kernels) = &m.kernels else { continue };
        let title = format!("{} ({} threads): {} kernels", html(&m.name), m.threads, kernels.len());
        parts.push((title, Box::new(|room| kernel_table(m, room))));
    }
    parts
}

/// Text in a title, which is HTML.
fn html(text: &str) -> String {
    let text: String = text.chars().take(CELL).filter(|c| !c.is_control()).collect();
    format!("<code>{}</code>", text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

fn number(v: Option<f64>) -> String {
    match v {
        None => "-".into(),
        Some(v) if v.abs() >= 100.0 => format!("{v:.0}"),
        Some(v) if v.abs() >= 1.0 => format!("{v:.2}"),
        Some(v) => format!("{v:.4}"),
    }
}

fn bytes(v: Option<u64>) -> String {
    v.map_or_else(|| "-".into(), show_bytes)
}

fn budget(b: &Budget) -> String {
    let outcome = match b.outcome {
        Outcome::Violated => "**violated**",
        other => other.words(),
    };
    let found = if b.found.is_empty() { "-" } else { &b.found };
    format!("| {} | {} | {} | {found} | {outcome} |", b.budget, code(&b.subject), b.limit)
}

fn pair(p: &Paired) -> String {
    let set = if p.set.is_empty() { String::new() } else { format!(" {}", code(&p.set)) };
    let clock = match p.clock {
        Clock::Wall => "",
        Clock::Processor => " of processor time",
    };
    let again = if p.remeasured { ", measured twice" } else { "" };
    let bound = |v: Option<f64>| v.map_or_else(|| "?".into(), |v| format!("{v:.3}"));
    let detectable = p.detectable.map_or_else(|| "-".into(), |d| format!("{:.1}%", d * 100.0));
    format!(
        "| {}{set} | {} | {} | {:.3} | {} to {}{clock} | {detectable} | {}{again} |",
        code(&p.other),
        code(&p.base),
        p.threads,
        p.ratio,
        bound(p.low),
        bound(p.high),
        p.verdict
    )
}

fn measured(m: &Measured) -> String {
    let set = if m.set.is_empty() { String::new() } else { format!(" {}", code(&m.set)) };
    let l = &m.latency_ms;
    format!(
        "| {}{set} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        code(&m.name),
        m.threads,
        number(Some(l.median)),
        number(Some(l.p10)),
        number(Some(l.p90)),
        number(Some(l.p99)),
        number(Some(m.throughput_per_s)),
        number(Some(m.first_ms)),
        number(m.cold_start_ms),
        bytes(m.memory_bytes),
        bytes(m.program_bytes)
    )
}

fn model(m: &Model) -> String {
    let accuracy = m.accuracy.as_ref().map_or_else(
        || "-".to_owned(),
        |a| {
            let class = match a.class {
                super::Evidence::Measured => "",
                super::Evidence::Proxy => " (proxy)",
            };
            format!("{} {:.2}%, was {:.2}%{class}", a.metric, 100.0 * a.after, 100.0 * a.before)
        },
    );
    let check = m.check.as_ref().map_or("-", |c| c.verdict.as_str());
    let lossy: Vec<String> = m.lossy.iter().map(|l| code(l)).collect();
    format!(
        "| {} | {} | {} | {} | {} | {check} | {accuracy} | {} |",
        code(&m.name),
        bytes(m.sizes.model),
        bytes(m.sizes.artifact),
        bytes(m.sizes.weights),
        bytes(m.sizes.code),
        if lossy.is_empty() { "none".into() } else { lossy.join(" ") }
    )
}

fn layers(m: &Model, room: usize) -> String {
    let row = |l: &super::Layer| {
        let remarks: Vec<String> = l.remarks.iter().take(3).map(|d| code(&d.message)).collect();
        let op = l.op.as_deref().unwrap_or("");
        format!(
            "| {} | {op} | {} | {} | {} |",
            code(&l.node),
            l.weights.as_deref().unwrap_or(""),
            bytes(l.bytes),
            remarks.join("<br>")
        )
    };
    table(
        "| layer | operation | weights | bytes | remarks |",
        &m.layers.iter().map(row).collect::<Vec<_>>(),
        room,
    )
}

fn passes(m: &Model, room: usize) -> String {
    let row = |p: &super::Pass| {
        let metrics: Vec<String> =
            p.metrics.iter().map(|(k, v)| format!("{k} {}", number(Some(*v)))).collect();
        format!("| {} | {} | {:.1} | {} |", code(&p.pass), p.edits, p.ms, metrics.join(", "))
    };
    let recipe: String = m.recipe.replace("```", "'''").chars().take(4000).collect();
    let recipe = format!("Recipe:\n\n```toml\n{}\n```\n\n", recipe.trim_end());
    if recipe.len() * 2 > room {
        return table("| pass | edits | ms | metrics |", &m.passes.iter().map(row).collect::<Vec<_>>(), room);
    }
    let rows: Vec<String> = m.passes.iter().map(row).collect();
    table("| pass | edits | ms | metrics |", &rows, room - recipe.len()) + &recipe
}

fn kernel_table(m: &Measured, room: usize) -> String {
    let kernels = m.kernels.as_deref().unwrap_or_default();
    let total: f64 = kernels.iter().map(|k| k.us * k.calls as f64).sum();
    let row = |k: &super::Kernel| {
        format!(
            "| {} | {:.1} | {} | {} | {} | {} | {} | {} |",
            code(&k.name),
            100.0 * k.us * k.calls as f64 / total.max(f64::MIN_POSITIVE),
            number(Some(k.us)),
            number(k.gflops),
            number(Some(k.gbs)),
            k.percent_of_peak.map_or_else(|| "-".into(), |p| format!("{p:.0}")),
            k.limit.as_deref().unwrap_or("-"),
            code(&k.nodes.join(" "))
        )
    };
    let head = "| kernel | % of time | us | GFLOP/s | GB/s | % of peak | limit | nodes |";
    let foot = format!(
        "In kernels {} ms of a run, elsewhere {} ms.\n\n",
        number(m.accounted_ms),
        number(m.unaccounted_ms)
    );
    table(head, &kernels.iter().map(row).collect::<Vec<_>>(), room.saturating_sub(foot.len())) + &foot
}

fn machine(r: &Report) -> String {
    let m = &r.machine;
    let inputs = match r.inputs {
        Some(super::Inputs::Given) => "; inputs given",
        Some(super::Inputs::Synthetic) => "; inputs made up",
        None => "",
    };
    let load = m.load.map_or_else(String::new, |l| format!(", load {l:.1}"));
    let kind = if m.virtual_machine { ", virtual" } else { "" };
    format!(
        "<sub>{}; {} cores, {}{kind}{load}; {}; machine {}{inputs}; {}</sub>\n",
        html(&m.cpu),
        m.cores,
        m.isa,
        html(&m.system),
        html(&m.fingerprint),
        html(&r.tool)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples;

    #[test]
    fn a_report_is_tables_and_folded_parts() {
        insta::assert_snapshot!(render(&examples::report()));
    }

    #[test]
    fn names_of_models_cannot_do_anything() {
        assert_eq!(code("a|b`<img src=x>@team\n"), "`a\\|b'<img src=x>@team `");
        assert_eq!(html("<b>&"), "<code>&lt;b&gt;&amp;</code>");
        let mut report = examples::report();
        report.models[0].name = "</details><script>`|\n# x @everyone".into();
        let text = render(&report);
        assert!(!text.contains("\n# x") && !text.contains("<summary></details>"), "{text}");
    }

    #[test]
    fn the_largest_report_fits_a_comment() {
        let mut report = examples::report();
        let layer = report.models[0].layers[0].clone();
        let mut big = report.models[0].clone();
        big.layers = vec![layer; 3000];
        report.models = vec![big; 40];
        report.results = vec![report.results[0].clone(); 500];
        report.pairs = vec![report.pairs[0].clone(); 500];
        report.budgets = vec![report.budgets[0].clone(); 500];
        let text = render(&report);
        assert!(text.len() <= MOST && text.len() > MOST / 4, "{} bytes", text.len());
        assert!(text.contains("more rows are in the JSON"));
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
        report.models.clear();
        report.results.clear();
        report.pairs.clear();
        report.budgets.clear();
        assert!(render(&report).contains("The report is empty"));
    }
}
