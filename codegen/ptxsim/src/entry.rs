//! Modules and their entries.

use crate::fault::ParseError;
use crate::op::Inst;
use crate::parse;

/// A parsed text.
#[derive(Clone, PartialEq, Debug)]
pub struct Module {
    /// PTX version times ten.
    pub version: u16,
    /// As in `sm_80`.
    pub target: String,
    pub entries: Vec<Entry>,
}

impl Module {
    /// Reads a text. Whatever is not interpreted is an error here, not when it is reached.
    pub fn parse(text: &str) -> Result<Module, ParseError> {
        parse::module(text)
    }

    /// The kernel of this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }
}

/// One parameter, eight bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Param {
    pub(crate) name: String,
    /// Whether it is declared as an address of global memory, and of what alignment.
    pub(crate) pointer: Option<u32>,
}

/// A kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Its symbol.
    pub name: String,
    /// Threads of a block along x, y and z: `.reqntid`.
    pub block: [u32; 3],
    pub(crate) params: Vec<Param>,
    pub(crate) registers: u32,
    pub(crate) shared_bytes: usize,
    pub(crate) local_bytes: usize,
    pub(crate) insts: Vec<Inst>,
}

impl Entry {
    /// The number of parameters.
    pub fn params(&self) -> usize {
        self.params.len()
    }

    /// Bytes of shared memory of a block.
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }
}
