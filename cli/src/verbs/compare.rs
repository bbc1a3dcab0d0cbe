//! `planish compare`: judges one report against another.

use crate::bench::judge::Outcome;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::report::Report;
use crate::report::verdicts::{self, Changes, Limits, points};
use crate::ui::{Format, Ui, printable, schema};
use crate::units::show_bytes;
use planish_ir::Diag;
use serde_json::json;
use std::path::PathBuf;

/// Judge a report against an older one: sizes, accuracy, and speed measured at different times
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The older report
    #[arg(value_name = "OLD.json")]
    pub old: PathBuf,
    /// The newer report
    #[arg(value_name = "NEW.json")]
    pub new: PathBuf,
    /// Fail with 1 when an artifact has grown by more
    #[arg(long, value_parser = crate::units::percent, value_name = "5%")]
    pub max_size: Option<f64>,
    /// Fail with 1 when more points of accuracy are lost
    #[arg(long, value_parser = crate::units::points, value_name = "0.5pt")]
    pub max_accuracy_drop: Option<f64>,
    /// Fail with 1 when the whole interval of a speed is slower by more; `bench` measures in pairs and tells more
    #[arg(long, value_parser = crate::units::percent, value_name = "3%")]
    pub max_regression: Option<f64>,
    /// A budget that nothing in the reports decides is a warning
    #[arg(long)]
    pub inconclusive_ok: bool,
    /// Form of the result on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let (old, new) = (Report::read(&args.old)?, Report::read(&args.new)?);
    let limits =
        Limits { size: args.max_size, accuracy: args.max_accuracy_drop, regression: args.max_regression };
    let changes = verdicts::compare(&old, &new, limits);
    if !changes.same_machine && !changes.speeds.is_empty() {
        let text =
            "the reports are from machines with different fingerprints; their speeds are not comparable";
        ui.diag(&Diag::warning("machines-differ", text));
    }
    // Separate runs show a regression only where the interval leaves no doubt; that they leave doubt is no failure.
    let (unpaired, decided): (Vec<_>, Vec<_>) = changes
        .budgets
        .iter()
        .cloned()
        .partition(|b| b.budget == "max-regression" && b.outcome == Outcome::Undecided);
    super::bench::verdict(&unpaired, true, ui);
    let exit = super::bench::verdict(&decided, args.inconclusive_ok, ui);
    match args.format {
        Format::Json => {
            let value =
                serde_json::to_value(&changes).map_err(|e| Failure::new("internal-report", e.to_string()))?;
            let mut out = schema(
                "planish.compare",
                json!({
                    "old": args.old.display().to_string(),
                    "new": args.new.display().to_string(),
                    "exit": exit.code(),
                }),
            );
            for (key, value) in value.as_object().into_iter().flatten() {
                out[key] = value.clone();
            }
            ui.json(&out);
        }
        Format::Text => text(&changes).iter().for_each(|l| ui.out(printable(l))),
    }
    Ok(exit)
}

/// The changes as lines.
fn text(c: &Changes) -> Vec<String> {
    let mut out = Vec::new();
    for s in &c.sizes {
        let (a, b) = (show_bytes(s.old), show_bytes(s.new));
        out.push(format!("{:<28} {:<10} {a} -> {b} ({:+.1}%)", s.name, s.what, s.change * 100.0));
    }
    for a in &c.accuracies {
        let (old, new) = (100.0 * a.old, 100.0 * a.new);
        out.push(format!(
            "{:<28} {:<10} {old:.2}% -> {new:.2}% ({} lost)",
            a.name,
            a.metric,
            points(a.drop_points)
        ));
    }
    for s in &c.speeds {
        let interval = match (s.low, s.high) {
            (Some(low), Some(high)) => format!("{low:.3}..{high:.3}"),
            _ => "unknown".into(),
        };
        out.push(format!(
            "{:<28} {} threads: {:.4} -> {:.4} ms: {:.3} times as fast, unpaired, 95% interval {interval}: {}",
            s.name, s.threads, s.old_ms, s.new_ms, s.ratio, s.verdict
        ));
    }
    out.extend(c.gone.iter().map(|n| format!("{n:<28} only in the old report")));
    out.extend(c.added.iter().map(|n| format!("{n:<28} only in the new report")));
    for b in &c.budgets {
        out.push(format!("{} {} {}: {} {}", b.budget, b.limit, b.subject, b.found, b.outcome.words()));
    }
    if out.is_empty() {
        out.push("nothing in the two reports has the same name".into());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples;

    #[test]
    fn changes_are_listed_and_judged() {
        let old = examples::report();
        let mut new = examples::report();
        new.models[0].sizes.artifact = Some(770_000);
        if let Some(a) = &mut new.models[0].accuracy {
            a.after = 0.979;
        }
        new.results[0] = examples::measured("old", 2.2);
        new.results[1].name = "other".into();
        let limits = Limits { size: Some(0.05), accuracy: Some(0.5), regression: Some(0.03) };
        let changes = verdicts::compare(&old, &new, limits);
        let outcomes: Vec<Outcome> = changes.budgets.iter().map(|b| b.outcome).collect();
        let wanted = [Outcome::Violated, Outcome::Kept, Outcome::Violated, Outcome::Violated];
        assert_eq!(outcomes, wanted, "{changes:?}");
        insta::assert_snapshot!(text(&changes).join("\n"));
        let same = verdicts::compare(&old, &old, limits);
        assert!(same.budgets.iter().all(|b| b.outcome == Outcome::Kept), "{same:?}");
        assert!(same.gone.is_empty() && same.added.is_empty() && same.same_machine);
    }

    #[test]
    fn what_the_reports_lack_is_not_decided() {
        let mut bare = examples::report();
        bare.models.clear();
        bare.results.clear();
        let limits = Limits { size: Some(0.05), accuracy: Some(0.5), regression: Some(0.03) };
        let changes = verdicts::compare(&bare, &bare, limits);
        let outcomes: Vec<Outcome> = changes.budgets.iter().map(|b| b.outcome).collect();
        assert_eq!(outcomes, [Outcome::Undecided; 3]);
        // Few turns have no interval, and a doubt is no violation.
        let (mut old, mut new) = (examples::report(), examples::report());
        old.results[0].turns_ms.truncate(2);
        new.results[0] = examples::measured("old", 4.0);
        let limits = Limits { regression: Some(0.03), ..Limits::default() };
        let changes = verdicts::compare(&old, &new, limits);
        assert_eq!(changes.budgets[0].outcome, Outcome::Undecided);
        assert_eq!(changes.speeds[0].low, None);
    }
}
