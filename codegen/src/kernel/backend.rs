//! What a code generator offers.

use super::func::KernelModule;
use super::target::TargetSpec;
use std::fmt;

/// One construct of a module that a back end cannot translate for a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsupported {
    pub kernel: String,
    /// The instruction or type, as printed.
    pub construct: String,
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}: {}: {}", self.kernel, self.construct, self.reason)
    }
}

/// Machine code that a back end made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectBytes {
    /// A relocatable ELF object (CPU) or PTX text (`Nvptx`). One global symbol per kernel, of the kernel's name.
    pub bytes: Vec<u8>,
}

/// Why no code came out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmitError {
    /// The kernel to blame, when known.
    pub kernel: Option<String>,
    /// One line, useful alone.
    pub message: String,
    /// How to see it again: a file or a text that reproduces the failure.
    pub reproducer: Option<String>,
}

impl EmitError {
    pub fn new(message: impl Into<String>) -> EmitError {
        EmitError { kernel: None, message: message.into(), reproducer: None }
    }

    pub fn in_kernel(kernel: &str, message: impl Into<String>) -> EmitError {
        EmitError { kernel: Some(kernel.into()), message: message.into(), reproducer: None }
    }
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(k) = &self.kernel {
            write!(f, "kernel {k}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(r) = &self.reproducer {
            write!(f, " (reproducer: {r})")?;
        }
        Ok(())
    }
}

impl std::error::Error for EmitError {}

/// A code generator: kernel IR in, machine code out.
pub trait Backend {
    fn name(&self) -> &'static str;
    /// Everything in `module` that cannot be emitted for `target`; total, and called before [`Backend::emit`].
    fn check(&self, module: &KernelModule, target: &TargetSpec) -> Vec<Unsupported>;
    /// Same input, same bytes.
    fn emit(&self, module: &KernelModule, target: &TargetSpec) -> Result<ObjectBytes, EmitError>;
}
