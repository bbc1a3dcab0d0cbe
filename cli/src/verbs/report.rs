//! `planish report`: renders a report.

use crate::exit::Exit;
use crate::failure::Result;
use crate::report::{Report, markdown};
use crate::ui::Ui;
use std::path::PathBuf;

/// Render a report that bench, compile or optimize wrote
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The report
    #[arg(value_name = "R.json")]
    pub report: PathBuf,
    /// Form: Markdown for a comment on a pull request, or JSON
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Form,
}

/// Forms of a rendered report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Form {
    /// Markdown of less than 65,000 bytes: tables, details folded.
    #[default]
    Md,
    /// The report itself, checked.
    Json,
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let report = Report::read(&args.report)?;
    match args.format {
        Form::Md => ui.out(markdown::render(&report).trim_end()),
        Form::Json => ui.json(&report.json()?),
    }
    Ok(Exit::Ok)
}
