//! Diagnostics as plain data. Only the command line renders them.

use std::fmt;
use std::sync::Arc;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Background that helps to act on another finding.
    Note,
    /// What a pass did or declined, with the number that decided.
    Remark,
    /// Suspicious, yet the result is right.
    Warning,
    /// The input cannot be used.
    Error,
}

/// Where a finding, a node or a value comes from. Names are for people and never identify anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Loc {
    /// Unknown.
    #[default]
    None,
    /// A node of an ONNX model: name (or the name of its first output), operator type with domain, and opset.
    Onnx { node: Arc<str>, op: Arc<str>, opset: i64 },
    /// A place in a text: byte range.
    Text { start: usize, end: usize },
    /// A name without more.
    Name(Arc<str>),
    /// The result of merging nodes that had these locations.
    Fused(Arc<[Loc]>),
}

impl Loc {
    /// A location that is only a name.
    pub fn name(name: &str) -> Loc {
        Loc::Name(name.into())
    }
    /// The location of something made from both; unknown ones and repetitions vanish.
    pub fn fuse(locs: impl IntoIterator<Item = Loc>) -> Loc {
        let mut all: Vec<Loc> = Vec::new();
        for loc in locs {
            let parts: Vec<Loc> = match loc {
                Loc::None => continue,
                Loc::Fused(parts) => parts.to_vec(),
                other => vec![other],
            };
            for p in parts {
                if !all.contains(&p) {
                    all.push(p);
                }
            }
        }
        match all.len() {
            0 => Loc::None,
            1 => all.swap_remove(0),
            _ => Loc::Fused(all.into()),
        }
    }
    /// The shortest name a person would recognise, empty when unknown.
    pub fn label(&self) -> String {
        match self {
            Loc::None => String::new(),
            Loc::Onnx { node, .. } => node.to_string(),
            Loc::Text { start, end } => format!("{start}..{end}"),
            Loc::Name(n) => n.to_string(),
            Loc::Fused(parts) => parts.iter().map(Loc::label).collect::<Vec<_>>().join("+"),
        }
    }
}

/// One finding. `message` can be read alone; `id` is a kebab slug that `planish explain` documents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diag {
    /// Kebab slug.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// One line.
    pub message: String,
    /// What it is about.
    pub at: Loc,
    /// Other places that matter, with a word on each.
    pub labels: Vec<(Loc, String)>,
    /// Further lines.
    pub notes: Vec<String>,
}

impl Diag {
    /// A finding of the given severity.
    pub fn new(severity: Severity, id: &'static str, message: impl Into<String>) -> Diag {
        Diag { id, severity, message: message.into(), at: Loc::None, labels: Vec::new(), notes: Vec::new() }
    }
    /// An error.
    pub fn error(id: &'static str, message: impl Into<String>) -> Diag {
        Diag::new(Severity::Error, id, message)
    }
    /// A warning.
    pub fn warning(id: &'static str, message: impl Into<String>) -> Diag {
        Diag::new(Severity::Warning, id, message)
    }
    /// A remark.
    pub fn remark(id: &'static str, message: impl Into<String>) -> Diag {
        Diag::new(Severity::Remark, id, message)
    }
    /// An operation, type or shape that is valid but not supported (exit code 3).
    pub fn unsupported(message: impl Into<String>) -> Diag {
        Diag::error("unsupported", message)
    }
    /// The same finding at a place, unless it has one.
    #[must_use]
    pub fn at(mut self, at: Loc) -> Diag {
        if self.at == Loc::None {
            self.at = at;
        }
        self
    }
    /// The same finding with one more note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Diag {
        self.notes.push(note.into());
        self
    }
    /// Whether this says "valid, but not supported": ids that begin with `unsupported`.
    pub fn is_unsupported(&self) -> bool {
        self.id.starts_with("unsupported")
    }
}

impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Remark => "remark",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}[{}]: {}", self.id, self.message)?;
        match &self.at {
            Loc::None => {}
            Loc::Onnx { node, op, opset } => write!(f, " (node {node:?}, {op}-{opset})")?,
            other => write!(f, " (at {})", other.label())?,
        }
        for (at, text) in &self.labels {
            write!(f, "\n  {}: {text}", at.label())?;
        }
        for note in &self.notes {
            write!(f, "\n  note: {note}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diag {}
