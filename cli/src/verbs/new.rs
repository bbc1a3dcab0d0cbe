//! `planish new`: a net with random weights, to be trained.

use crate::exit::Exit;
use crate::failure::Result;
use crate::files::Writer;
use crate::train::arch;
use crate::ui::Ui;
use crate::units::show_bytes;
use std::path::PathBuf;

/// Write a net with random weights, to be trained
#[derive(Debug, clap::Args)]
pub struct Args {
    /// mlp:784-300-100-10, cnn:1x28x28-32c3-p2-64c3-p2-128-10 (32c3: 32 channels, kernel 3x3; p2: largest of 2x2), lstm:28x28-128-10 or gru:.. (steps x
    /// features, recurrent layers, classes), lstm:400x20000e100-128-2 (numbers of tokens below 20000, 100 features each)
    #[arg(long, value_name = "KIND:SIZES")]
    pub arch: String,
    /// The net
    #[arg(short, long, value_name = "OUT.onnx")]
    pub output: PathBuf,
    /// Inputs are pixels, 0 to 255; the net scales them to 0 to 1 itself
    #[arg(long)]
    pub pixels: bool,
    /// Decides the weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Replace a file that planish did not write
    #[arg(long)]
    pub force: bool,
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let writer = Writer::new(args.force);
    writer.check(&args.output)?;
    let graph = arch::make(&args.arch, args.pixels, args.seed)?;
    let bytes = crate::export::write(&graph, &args.output, &writer)?;
    ui.out(format!("{}: {}, {}", args.output.display(), args.arch, show_bytes(bytes)));
    Ok(Exit::Ok)
}
