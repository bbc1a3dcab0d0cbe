//! What a person or a script sees: data on stdout, diagnostics and progress on stderr. Nothing else in the workspace
//! prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use planish_ir::{Diag, Loc, Severity};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Form of printed data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For scripts: objects with `schema` and `version`.
    Json,
}

/// Options that every verb takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct UiArgs {
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Say more on stderr; twice for details
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
}

/// Where a command prints.
#[derive(Clone, Debug, Default)]
pub struct Ui {
    /// No progress, no warnings.
    pub quiet: bool,
    /// 0, 1 or 2.
    pub verbose: u8,
}

impl Ui {
    /// As the options say.
    pub fn new(args: &UiArgs) -> Ui {
        Ui { quiet: args.quiet, verbose: args.verbose }
    }
    /// A line of data.
    pub fn out(&self, text: impl AsRef<str>) {
        out(text.as_ref());
    }
    /// An object of data.
    pub fn json(&self, value: &Value) {
        out(&format!("{value:#}"));
    }
    /// A line for people.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", printable(text.as_ref()));
        }
    }
    /// A line for people who want to know more.
    pub fn detail(&self, text: impl AsRef<str>) {
        if self.verbose > 0 && !self.quiet {
            eprintln!("{}", printable(text.as_ref()));
        }
    }
    /// A finding, on stderr.
    pub fn diag(&self, diag: &Diag) {
        let shown = match diag.severity {
            Severity::Error => true,
            Severity::Warning => !self.quiet,
            Severity::Remark | Severity::Note => self.verbose > 0 && !self.quiet,
        };
        if shown {
            eprintln!("{}", printable(&diag.to_string()));
        }
    }
    /// Findings, at most a screenful of each severity.
    pub fn diags(&self, diags: &[Diag]) {
        const MOST: usize = 50;
        for severity in [Severity::Error, Severity::Warning, Severity::Remark, Severity::Note] {
            let these: Vec<&Diag> = diags.iter().filter(|d| d.severity == severity).collect();
            these.iter().take(MOST).for_each(|d| self.diag(d));
            if these.len() > MOST && (severity == Severity::Error || !self.quiet) {
                eprintln!("... and {} more (--format json lists all)", these.len() - MOST);
            }
        }
    }
    /// Progress of something that has `total` parts.
    pub fn progress(&self, what: &str, total: u64) -> Progress {
        if self.quiet {
            return Progress::None;
        }
        if std::io::stderr().is_terminal() {
            let style = indicatif::ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {elapsed}");
            let bar = indicatif::ProgressBar::new(total).with_message(what.to_owned());
            if let Ok(style) = style {
                bar.set_style(style);
            }
            return Progress::Bar(bar);
        }
        Progress::Lines { what: what.to_owned(), total, state: Mutex::new((0, Instant::now())) }
    }
}

/// Progress: a bar on a terminal, else a plain line every 10 seconds.
pub enum Progress {
    /// Silent.
    None,
    /// A terminal.
    Bar(indicatif::ProgressBar),
    /// A log file: parts done, and when it was said last.
    Lines {
        /// What is being done.
        what: String,
        /// Parts in all.
        total: u64,
        /// Parts done and when a line was printed last.
        state: Mutex<(u64, Instant)>,
    },
}

impl Progress {
    /// One more part is done.
    pub fn step(&self) {
        self.step_saying(String::new);
    }
    /// One more part is done, and how it stands, which is asked for where it is shown.
    pub fn step_saying(&self, text: impl FnOnce() -> String) {
        match self {
            Progress::None => {}
            Progress::Bar(bar) => {
                bar.inc(1);
                let text = text();
                if !text.is_empty() {
                    bar.set_message(text);
                }
            }
            Progress::Lines { what, total, state } => {
                let Ok(mut state) = state.lock() else { return };
                state.0 += 1;
                if state.1.elapsed() >= Duration::from_secs(10) {
                    state.1 = Instant::now();
                    let text = text();
                    let comma = if text.is_empty() { "" } else { ", " };
                    eprintln!("{what}: {}/{total}{comma}{text}", state.0);
                }
            }
        }
    }
    /// All is done; the bar goes away.
    pub fn finish(self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Writes a line to stdout; a reader that went away ends the process quietly, as for any other filter.
fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let done = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    if done.is_err() {
        std::process::exit(i32::from(crate::exit::Exit::Ok.code()));
    }
}

/// Text with control characters escaped, so that names from a file cannot drive a terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A finding for scripts.
pub fn diag_json(diag: &Diag) -> Value {
    let severity = match diag.severity {
        Severity::Note => "note",
        Severity::Remark => "remark",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let (node, op, opset) = place(&diag.at);
    let mut v = json!({
        "id": diag.id, "severity": severity, "message": diag.message, "node": node, "op": op, "opset": opset,
    });
    if let Some(map) = v.as_object_mut() {
        if !diag.labels.is_empty() {
            let labels: Vec<Value> =
                diag.labels.iter().map(|(at, text)| json!({"at": at.label(), "text": text})).collect();
            map.insert("labels".into(), labels.into());
        }
        if !diag.notes.is_empty() {
            map.insert("notes".into(), json!(diag.notes));
        }
    }
    v
}

fn place(at: &Loc) -> (Value, Value, Value) {
    match at {
        Loc::None => (Value::Null, Value::Null, Value::Null),
        Loc::Onnx { node, op, opset } => (json!(**node), json!(**op), json!(opset)),
        Loc::Fused(parts) => parts.first().map_or((Value::Null, Value::Null, Value::Null), place),
        other => (json!(other.label()), Value::Null, Value::Null),
    }
}

/// An object with its schema and version first.
pub fn schema(name: &str, fields: Value) -> Value {
    let mut out = serde_json::Map::new();
    out.insert("schema".into(), json!(name));
    out.insert("version".into(), json!(1));
    if let Value::Object(map) = fields {
        out.extend(map);
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_names_are_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\n");
    }

    #[test]
    fn the_schema_comes_first() {
        assert_eq!(
            schema("planish.x", json!({"a": 1})).to_string(),
            r#"{"schema":"planish.x","version":1,"a":1}"#
        );
    }
}
