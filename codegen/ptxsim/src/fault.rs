//! What can go wrong.

use std::fmt;

/// Why a text was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseErrorKind {
    /// No PTX at all.
    Syntax,
    /// An operation, type or modifier that is not interpreted.
    UnknownOpcode,
    /// A directive that is not interpreted.
    UnknownDirective,
    /// A register, variable or label that is not declared.
    UnknownName,
    /// Operands that do not suit the operation.
    Operands,
}

/// A text that was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    pub kind: ParseErrorKind,
    /// Counted from 1.
    pub line: u32,
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

/// What a run was stopped for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Arguments, grid or block do not suit the entry.
    Launch,
    OutOfBounds,
    Misaligned,
    /// Memory is read that nothing was written to.
    Uninitialised,
    /// A result is left or read of which not every byte was written.
    Unwritten,
    /// Two threads of a block touch the same memory between two barriers, or those of two blocks in one launch, and one of them
    /// writes.
    Race,
    /// Not all threads reach a barrier or a warp operation.
    Divergent,
    /// Memory is written that the launch also reads through the read-only path.
    ReadOnly,
    /// More steps than the limit.
    Steps,
}

/// A run that was stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub kernel: String,
    /// Of the instruction, counted from 1; 0 when the launch itself is at fault.
    pub line: u32,
    /// The instruction.
    pub inst: String,
    /// Block and thread in the block, if one thread is to blame.
    pub thread: Option<([u32; 3], u32)>,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}: {}", self.kernel, self.message)?;
        if self.line > 0 {
            write!(f, " at line {} `{}`", self.line, self.inst)?;
        }
        if let Some((block, thread)) = self.thread {
            write!(f, " (block {block:?}, thread {thread})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}
