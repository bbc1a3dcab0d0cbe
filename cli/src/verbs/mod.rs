//! The commands, one module each.

pub mod advise;
pub mod bench;
pub mod check;
pub mod compare;
pub mod compile;
pub mod distill;
pub mod generate;
pub mod inspect;
pub mod many;
pub mod new;
pub mod optimize;
pub mod reduce;
pub mod reference;
pub mod report;
pub mod run;
pub mod train;
pub mod verify;
pub mod worker;

use crate::exit::Exit;
use crate::failure::Result;
use crate::ui::{Ui, UiArgs};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Turns an exported ONNX model into a specialised native program
#[derive(Debug, Parser)]
#[command(name = "planish", version, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    ui: UiArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Check(check::Args),
    Inspect(inspect::Args),
    Optimize(optimize::Args),
    Compile(compile::Args),
    Run(run::Args),
    Bench(bench::Args),
    Compare(compare::Args),
    Report(report::Args),
    Advise(advise::Args),
    Verify(verify::Args),
    Train(train::Args),
    Distill(distill::Args),
    New(new::Args),
    Reduce(reduce::Args),
    Passes(reference::PassesArgs),
    #[command(hide = true, name = "__generate")]
    Generate(generate::Args),
    Ops(reference::OpsArgs),
    Targets(reference::TargetsArgs),
    Explain(reference::ExplainArgs),
    Worker(worker::Args),
}

/// Runs the command line and gives the exit code. A panic, which is a bug of ours, becomes 101.
pub fn main(args: Vec<OsString>) -> u8 {
    #[cfg(feature = "llvm")]
    {
        use crate::engine::codegen::{CODEGEN_ARGUMENT, in_children};
        if args.get(1).is_some_and(|a| a == CODEGEN_ARGUMENT) {
            return planish_llvm::child::serve_stdio();
        }
        if let Ok(exe) = std::env::current_exe() {
            in_children(exe);
        }
    }
    let given: Vec<String> = args.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version go to stdout with 0, everything else to stderr with 2.
            let code = if e.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _ = e.print();
            if e.kind() == clap::error::ErrorKind::UnknownArgument
                && given.iter().any(|a| crate::pipeline::torn(a))
            {
                Ui::default().say("note: the shell seems to have torn a list of passes apart; write --passes '...' with quotes");
            }
            return code.code();
        }
    };
    let ui = Ui::new(&cli.ui);
    let done = catch_unwind(AssertUnwindSafe(|| dispatch(&cli.verb, &ui)));
    match done {
        Ok(Ok(exit)) => exit.code(),
        Ok(Err(failure)) => {
            ui.diags(&failure.diags);
            failure.exit().code()
        }
        Err(_) => {
            ui.say("error[internal-panic]: this is a bug of planish; please report it with the model and the command");
            Exit::Bug.code()
        }
    }
}

fn dispatch(verb: &Verb, ui: &Ui) -> Result<Exit> {
    match verb {
        Verb::Check(args) => check::run(args, ui),
        Verb::Optimize(args) => optimize::run(args, ui),
        Verb::Passes(args) => reference::passes(args, ui),
        Verb::Bench(args) => bench::run(args, ui),
        Verb::Compare(args) => compare::run(args, ui),
        Verb::Report(args) => report::run(args, ui),
        Verb::Advise(args) => advise::run(args, ui),
        Verb::Train(args) => train::run(args, ui),
        Verb::Distill(args) => distill::run(args, ui),
        Verb::New(args) => new::run(args, ui),
        Verb::Verify(args) => verify::run(args, ui),
        Verb::Reduce(args) => reduce::run(args, ui),
        Verb::Generate(args) => generate::run(args),
        Verb::Compile(args) => compile::run(args, ui),
        Verb::Inspect(args) => inspect::run(args, ui),
        Verb::Ops(args) => reference::ops(args, ui),
        Verb::Targets(args) => reference::targets(args, ui),
        Verb::Explain(args) => reference::explain(args, ui),
        Verb::Run(args) => run::run(args, ui),
        Verb::Worker(args) => worker::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
