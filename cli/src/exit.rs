//! Exit codes, all in one place.

use planish_ir::{Diag, Severity};

/// How a command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Everything asked for was done.
    Ok,
    /// A budget was violated, or nothing was gained under one.
    Budget,
    /// Bad usage or a bad input file.
    Usage,
    /// The model uses something that is not supported.
    Unsupported,
    /// Numbers differ.
    Mismatch,
    /// A measurement decided nothing.
    Inconclusive,
    /// This machine cannot run it.
    Machine,
    /// A bug of ours.
    Bug,
    /// Interrupted from outside.
    Interrupted,
}

/// When several findings compete, the earliest of these is reported.
const ORDER: [Exit; 9] = [
    Exit::Interrupted,
    Exit::Bug,
    Exit::Usage,
    Exit::Unsupported,
    Exit::Machine,
    Exit::Mismatch,
    Exit::Budget,
    Exit::Inconclusive,
    Exit::Ok,
];

impl Exit {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Budget => 1,
            Exit::Usage => 2,
            Exit::Unsupported => 3,
            Exit::Mismatch => 4,
            Exit::Inconclusive => 5,
            Exit::Machine => 6,
            Exit::Bug => 101,
            Exit::Interrupted => 130,
        }
    }
    /// The meaning of a number that a process of ours ended with.
    pub fn from_code(code: i32) -> Option<Exit> {
        ORDER.into_iter().find(|e| i32::from(e.code()) == code)
    }
    /// The one that counts when both happened.
    #[must_use]
    pub fn and(self, other: Exit) -> Exit {
        ORDER.into_iter().find(|e| *e == self || *e == other).unwrap_or(self)
    }
    /// What one finding means; findings below an error mean nothing.
    pub fn of(diag: &Diag) -> Exit {
        if diag.severity != Severity::Error {
            return Exit::Ok;
        }
        let id = diag.id;
        let starts = |p: &str| id == p || id.strip_prefix(p).is_some_and(|r| r.starts_with('-'));
        if starts("unsupported") {
            Exit::Unsupported
        } else if starts("internal") {
            Exit::Bug
        } else if starts("machine") {
            Exit::Machine
        } else if starts("mismatch") {
            Exit::Mismatch
        } else if starts("budget") {
            Exit::Budget
        } else if starts("inconclusive") {
            Exit::Inconclusive
        } else if id == "interrupted" {
            Exit::Interrupted
        } else {
            Exit::Usage
        }
    }
    /// What several findings mean together.
    pub fn of_all<'a>(diags: impl IntoIterator<Item = &'a Diag>) -> Exit {
        diags.into_iter().fold(Exit::Ok, |e, d| e.and(Exit::of(d)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_finding_decides() {
        let of =
            |ids: &[&'static str]| Exit::of_all(&ids.iter().map(|i| Diag::error(i, "")).collect::<Vec<_>>());
        assert_eq!(of(&["mismatch", "unsupported-op"]).code(), 3);
        assert_eq!(of(&["unsupported-op", "internal-eval", "arity"]).code(), 101);
        assert_eq!(of(&["budget-speed", "inconclusive"]).code(), 1);
        assert_eq!(of(&["mismatch", "machine-cpu"]).code(), 6);
        assert_eq!(of(&["input-mismatch"]).code(), 2);
        assert_eq!(Exit::of(&Diag::warning("unsupported", "")), Exit::Ok);
    }
}
