//! Errors of the protobuf layer.

use std::fmt;

/// A rejected file: a stable kebab-case id and one line of text that is useful alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxError {
    /// Stable identifier such as `limit-graph-depth` or `external-escape`.
    pub id: &'static str,
    /// What is wrong, in one line; names from the file are escaped.
    pub message: String,
}

impl OnnxError {
    /// An error with id `id`.
    pub fn new(id: &'static str, message: impl Into<String>) -> Self {
        OnnxError { id, message: message.into() }
    }

    /// The same error, its message prefixed with what it is about.
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.message = format!("{subject}: {}", self.message);
        self
    }
}

impl fmt::Display for OnnxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.id)
    }
}

impl std::error::Error for OnnxError {}

/// A name from a file, quoted, with control characters escaped and cut to a readable length.
pub fn quoted(name: &str) -> String {
    const LONGEST: usize = 120;
    match name.char_indices().nth(LONGEST) {
        None => format!("{name:?}"),
        Some((cut, _)) => format!("{:?}...", &name[..cut]),
    }
}
