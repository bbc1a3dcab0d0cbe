//! Reports: what was measured and done, as one JSON object whose schema is published (`docs/reference/report.schema.json`).
//!
//! The types here are the schema: it is generated from them, and reading a report is reading them.

#[cfg(test)]
pub(crate) mod examples;
pub mod machine;
pub mod markdown;
pub mod model;
pub mod verdicts;

use crate::bench::Latency;
use crate::bench::judge::{Clock, Outcome};
use crate::failure::{Failure, Result};
use machine::Machine;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The version of the form.
pub const VERSION: u32 = 1;

/// What `bench`, `compile` and `optimize` write with `--report`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// `planish.report`.
    pub schema: String,
    /// 1.
    pub version: u32,
    /// The tool that wrote it, with its version.
    pub tool: String,
    /// The command that wrote it.
    pub command: Command,
    /// Where it was written.
    pub machine: Machine,
    /// The inputs of the measurement; none where nothing was measured.
    #[serde(default)]
    pub inputs: Option<Inputs>,
    /// The models that were compiled or optimised.
    #[serde(default)]
    pub models: Vec<Model>,
    /// What was measured, one entry for each thing, setting of symbols, and number of threads.
    #[serde(default)]
    pub results: Vec<Measured>,
    /// The ratios of what was measured in turns.
    #[serde(default)]
    pub pairs: Vec<Paired>,
    /// Budgets, each with what came of it.
    #[serde(default)]
    pub budgets: Vec<Budget>,
    /// The exit code of the command.
    pub exit: u8,
    /// `latency_ms.median` of the only result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_ms: Option<f64>,
    /// `latency_ms.p10` of the only result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p10_ms: Option<f64>,
    /// `latency_ms.p90` of the only result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90_ms: Option<f64>,
}

/// The command that wrote a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// `planish bench`.
    Bench,
    /// `planish compile`.
    Compile,
    /// `planish optimize`.
    Optimize,
}

/// Where inputs come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Inputs {
    /// From files.
    Given,
    /// Made up, as the graph allows.
    Synthetic,
}

/// A model and what was made of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// What it is called in the report.
    pub name: String,
    /// The file.
    pub path: String,
    /// `sha256:` and the hash of the file.
    pub hash: String,
    /// Everything that decides the result: the text of a recipe file, which `--recipe` repeats.
    pub recipe: String,
    /// `sha256:` and the hash of the recipe.
    pub recipe_hash: String,
    /// Sizes in bytes.
    pub sizes: Sizes,
    /// The files written.
    #[serde(default)]
    pub files: Vec<File>,
    /// The passes that ran, repetitions added up.
    pub passes: Vec<Pass>,
    /// Those of them that change results on purpose, as written.
    #[serde(default)]
    pub lossy: Vec<String>,
    /// The nodes with weights, and other nodes that a pass has remarked on.
    pub layers: Vec<Layer>,
    /// Remarks and warnings about the model as a whole.
    #[serde(default)]
    pub remarks: Vec<Remark>,
    /// The comparison with the interpreter, or why there was none.
    #[serde(default)]
    pub check: Option<Check>,
    /// How much accuracy it has kept.
    #[serde(default)]
    pub accuracy: Option<Accuracy>,
    /// Seconds that it took to make.
    pub seconds: f64,
}

/// Sizes in bytes; those that are not known are null.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Sizes {
    /// The file of the model, without external data.
    pub model: Option<u64>,
    /// The weights in the artifact.
    pub weights: Option<u64>,
    /// The code of all variants.
    pub code: Option<u64>,
    /// The executable, or else the largest file written.
    pub artifact: Option<u64>,
}

/// A file that was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// Its kind, as `--emit` names it.
    pub kind: String,
    /// Where it is.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// What a pass did.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Pass {
    /// The pass as written, with options.
    pub pass: String,
    /// How often it changed something.
    pub edits: u64,
    /// Milliseconds that it took.
    pub ms: f64,
    /// Its metrics.
    pub metrics: BTreeMap<String, f64>,
}

/// A node of the model, and what was done to it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Layer {
    /// Its name in the model.
    pub node: String,
    /// Its operation, none where it was merged with others.
    #[serde(default)]
    pub op: Option<String>,
    /// The form of its weights in the result, such as `f32 768x768, blocks 1x16, 10.0% kept`.
    #[serde(default)]
    pub weights: Option<String>,
    /// Bytes of its weights in that form.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// What passes said about it: what they declined, and why.
    pub remarks: Vec<Remark>,
}

/// What a pass or check has said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Remark {
    /// Its id, which `planish explain` documents.
    pub id: String,
    /// note, remark, warning or error.
    pub severity: String,
    /// The text.
    pub message: String,
}

/// The comparison with the interpreter.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// equal, different or not-checked.
    pub verdict: String,
    /// The largest difference as a part of what is allowed, where it was compared.
    #[serde(default)]
    pub worst: Option<f64>,
    /// What it was compared on, or why it was not.
    #[serde(default)]
    pub detail: Option<String>,
}

/// How much accuracy a result has kept.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Accuracy {
    /// What was measured, such as `top1`.
    pub metric: String,
    /// Whether it was measured on labels, or stands for that.
    pub class: Evidence,
    /// The model before, as a part of 1.
    pub before: f64,
    /// The result, as a part of 1.
    pub after: f64,
    /// Samples judged.
    pub samples: u64,
    /// Lower bound of the 95% interval of `after`.
    #[serde(default)]
    pub low: Option<f64>,
    /// Upper bound.
    #[serde(default)]
    pub high: Option<f64>,
}

/// What stands behind a figure of accuracy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Labels.
    Measured,
    /// Agreement with the model before.
    Proxy,
}

/// What was measured of one thing: the object that `--bench --json` prints, and more.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// `planish.bench`.
    pub schema: String,
    /// 1.
    pub version: u32,
    /// What it is called.
    pub name: String,
    /// What was measured.
    pub kind: Kind,
    /// The setting of symbols, such as `batch=8`; empty without a sweep.
    pub set: String,
    /// Threads.
    pub threads: usize,
    /// What it says its arithmetic is.
    pub precision: String,
    /// The version of the runtime, if it is not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Latencies in milliseconds.
    pub latency_ms: Latency,
    /// Processor time of a run, all threads together; 0 where it is not known.
    pub cpu_ms: f64,
    /// The first run of a process.
    pub first_ms: f64,
    /// Recorded runs.
    pub runs: u64,
    /// Turns.
    pub rounds: usize,
    /// Runs in a second, one after the other.
    pub throughput_per_s: f64,
    /// From the start of a program to its end with one inference, the file being in memory; of programs.
    #[serde(default)]
    pub cold_start_ms: Option<f64>,
    /// The most memory that a process held.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// The size of the program.
    #[serde(default)]
    pub program_bytes: Option<u64>,
    /// The median latency of each turn.
    #[serde(default)]
    pub turns_ms: Vec<f64>,
    /// The processor time of a run in each turn.
    #[serde(default)]
    pub turns_cpu_ms: Vec<f64>,
    /// `latency_ms.median`.
    pub median_ms: f64,
    /// `latency_ms.p10`.
    pub p10_ms: f64,
    /// `latency_ms.p90`.
    pub p90_ms: f64,
    /// With `--profile`, the kernels, slowest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Vec<Kernel>>,
    /// Milliseconds of a run inside of kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounted_ms: Option<f64>,
    /// Milliseconds of a run outside of kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unaccounted_ms: Option<f64>,
    /// What the machine can do, as measured beside the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peaks: Option<Peaks>,
}

/// Kinds of things that are measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A program of ours.
    Program,
    /// ONNX Runtime on a model.
    Onnxruntime,
    /// A command.
    Command,
}

/// A kernel of a program.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// The nodes of the model that it computes.
    pub nodes: Vec<String>,
    /// Microseconds of a launch.
    pub us: f64,
    /// Launches.
    pub calls: u64,
    /// Operations of a launch, a product and a sum being two; null where they are not counted.
    pub flops: Option<f64>,
    /// Billions of them in a second.
    pub gflops: Option<f64>,
    /// Bytes of the tensors that a launch reads and writes.
    pub bytes: f64,
    /// Those of them that are weights.
    pub weight_bytes: f64,
    /// Billions of bytes in a second.
    pub gbs: f64,
    /// What sets the least time: compute or memory.
    pub limit: Option<String>,
    /// The least time that the machine allows over the time it took.
    pub percent_of_peak: Option<f64>,
}

/// What a machine can do.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Peaks {
    /// The threads of `all`.
    pub threads: usize,
    /// One core.
    pub one: Rates,
    /// As many as there are threads.
    pub all: Rates,
    /// Bytes of the caches, by level.
    pub caches: BTreeMap<String, u64>,
}

/// Rates of arithmetic and of reading.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// Billions of f32 operations in a second.
    pub fp32_gflops: Option<f64>,
    /// Billions of operations on 8-bit integers in a second.
    pub int8_gops: Option<f64>,
    /// Billions of bytes read in a second, by level of memory.
    pub read_gbs: BTreeMap<String, f64>,
}

/// The ratio of two things that were measured in turns.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Paired {
    /// The first thing.
    pub base: String,
    /// The other.
    pub other: String,
    /// Threads of both.
    pub threads: usize,
    /// The setting of symbols.
    pub set: String,
    /// Time of the base over time of the other: above 1, the other is faster.
    pub ratio: f64,
    /// Lower bound of the interval; null where there is none.
    pub low: Option<f64>,
    /// Upper bound.
    pub high: Option<f64>,
    /// The part of such intervals that hold the true ratio.
    pub confidence: f64,
    /// The smallest change, as a part, that would have been found four times in five.
    pub detectable: Option<f64>,
    /// The times that the ratio is of.
    pub clock: Clock,
    /// Turns.
    pub turns: usize,
    /// Whether it was measured a second time, because a budget was not shown to be kept.
    pub remeasured: bool,
    /// faster, slower, "no difference above x% detectable" or inconclusive, about the other.
    pub verdict: String,
}

/// A budget and what came of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// Its name, as the option is called.
    pub budget: String,
    /// What it is about.
    pub subject: String,
    /// The limit, with its unit.
    pub limit: String,
    /// What was found, with its unit; empty where nothing was.
    pub found: String,
    /// What came of it.
    pub outcome: Outcome,
}

impl Report {
    /// An empty report of a command on this machine.
    pub fn new(command: Command) -> Report {
        Report {
            schema: "planish.report".into(),
            version: VERSION,
            tool: format!("planish {}", env!("CARGO_PKG_VERSION")),
            command,
            machine: Machine::here(),
            inputs: None,
            models: Vec::new(),
            results: Vec::new(),
            pairs: Vec::new(),
            budgets: Vec::new(),
            exit: 0,
            median_ms: None,
            p10_ms: None,
            p90_ms: None,
        }
    }

    /// As JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).map_err(|e| Failure::new("internal-report", e.to_string()))
    }

    /// The bytes of a report file.
    pub fn file(&self) -> Result<Vec<u8>> {
        Ok(format!("{:#}\n", self.json()?).into_bytes())
    }

    /// Reads a report file.
    pub fn read(path: &Path) -> Result<Report> {
        let fail = |why: String| Failure::new("report-malformed", format!("{}: {why}", path.display()));
        let text = std::fs::read(path).map_err(|e| Failure::file(path, e))?;
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))?;
        if value["schema"] != "planish.report" {
            return Err(fail(format!("its schema is {}, not \"planish.report\"", value["schema"])));
        }
        if value["version"] != VERSION {
            return Err(fail(format!("version {} is not known", value["version"])));
        }
        serde_json::from_value(value).map_err(|e| fail(e.to_string()))
    }
}

/// The published schema.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Report);
    schema.insert("title".into(), "planish.report".into());
    schema.to_value()
}
