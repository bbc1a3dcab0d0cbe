//! Why a command ended early: one or more findings.

use crate::exit::Exit;
use planish_ir::Diag;
use std::fmt::Display;
use std::path::Path;

/// Findings, at least one of them an error.
#[derive(Clone, Debug)]
pub struct Failure {
    /// All of them.
    pub diags: Vec<Diag>,
}

/// The result of most functions of this crate.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// One error.
    pub fn new(id: &'static str, message: impl Into<String>) -> Failure {
        Diag::error(id, message).into()
    }
    /// Wrong usage of the command line.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new("usage", message)
    }
    /// A file that cannot be read or written.
    pub fn file(path: &Path, why: impl Display) -> Failure {
        Failure::new("file-io", format!("{}: {why}", path.display()))
    }
    /// How the command ends.
    pub fn exit(&self) -> Exit {
        match Exit::of_all(&self.diags) {
            // A failure without an error among its findings would be a contradiction.
            Exit::Ok => Exit::Bug,
            exit => exit,
        }
    }
    /// The first error's message, for one-line answers.
    pub fn message(&self) -> String {
        let first =
            self.diags.iter().find(|d| d.severity == planish_ir::Severity::Error).or(self.diags.first());
        first.map_or_else(String::new, |d| d.to_string())
    }
    /// The same findings, each message prefixed with what it is about.
    #[must_use]
    pub fn about(mut self, subject: impl Display) -> Failure {
        for d in &mut self.diags {
            d.message = format!("{subject}: {}", d.message);
        }
        self
    }
}

impl From<Diag> for Failure {
    fn from(d: Diag) -> Failure {
        Failure { diags: vec![d] }
    }
}
impl From<Vec<Diag>> for Failure {
    fn from(diags: Vec<Diag>) -> Failure {
        Failure { diags }
    }
}
impl From<planish_onnx::OnnxError> for Failure {
    fn from(e: planish_onnx::OnnxError) -> Failure {
        Failure::new(e.id, e.message)
    }
}
