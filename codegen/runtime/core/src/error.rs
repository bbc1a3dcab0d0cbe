//! Errors of the runtime.
use alloc::string::String;
use core::fmt;

/// What kind of thing went wrong; the discriminant is the status of the C ABI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum ErrorKind {
    /// An input has a wrong type, shape or value, or is missing.
    Input = 1,
    /// A value in the data made an operation impossible, such as an index out of range.
    Data = 2,
    /// The budget of loop iterations is spent.
    Steps = 3,
    /// Memory cannot be had, or is above the limit.
    Memory = 4,
    /// A buffer of the caller is too small.
    Buffer = 5,
    /// This machine cannot run the code.
    Machine = 6,
    /// The program is damaged or inconsistent.
    Program = 7,
}

/// An error with a message for the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// Kind.
    pub kind: ErrorKind,
    /// One line that stands alone.
    pub message: String,
}

impl Error {
    /// An error.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    /// The exit code of a program that stops with this error.
    pub fn exit_code(&self) -> i32 {
        match self.kind {
            ErrorKind::Input | ErrorKind::Data | ErrorKind::Buffer | ErrorKind::Memory => 2,
            ErrorKind::Steps => 1,
            ErrorKind::Machine => 6,
            ErrorKind::Program => 101,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Error {}

/// The result of operations of the runtime.
pub type Result<T> = core::result::Result<T, Error>;

/// Returns early with an error of this kind and message.
macro_rules! fail {
    ($kind:ident, $($arg:tt)*) => {
        return Err($crate::error::Error::new($crate::error::ErrorKind::$kind, alloc::format!($($arg)*)))
    };
}
pub(crate) use fail;
