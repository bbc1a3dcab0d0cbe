//! Files as shared bytes. The only module of this crate with `unsafe` code.
#![allow(unsafe_code)]

use crate::error::OnnxError;
use bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How file contents get into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Access {
    /// Map the file; pages are loaded when touched. A file truncated by another process meanwhile raises SIGBUS.
    #[default]
    Map,
    /// Read a private copy.
    Read,
}

/// The contents of the regular file at `path`, at most `limit` bytes.
pub fn open(path: &Path, access: Access, limit: u64) -> Result<Bytes, OnnxError> {
    let shown = path.display();
    let file = File::open(path).map_err(|e| OnnxError::new("file-open", format!("{shown}: {e}")))?;
    let meta = file.metadata().map_err(|e| OnnxError::new("file-open", format!("{shown}: {e}")))?;
    if meta.is_dir() {
        return Err(OnnxError::new("file-open", format!("{shown}: is a directory")));
    }
    if !meta.is_file() {
        // A pipe has no size to map: it is read, up to the limit.
        return read(file, limit).map_err(|e| e.about(shown));
    }
    contents(&file, meta.len(), access, limit).map_err(|e| e.about(shown))
}

/// The first `size` bytes of `file` (its size by `fstat`), mapped or read from the start.
pub fn contents(file: &File, size: u64, access: Access, limit: u64) -> Result<Bytes, OnnxError> {
    if size > limit {
        return Err(too_large(limit));
    }
    if size == 0 {
        return Ok(Bytes::new());
    }
    let len = usize::try_from(size).map_err(|_| too_large(limit))?;
    match access {
        Access::Map => {
            // SAFETY: the mapping is private and read-only. Another process that changes or truncates the file while it
            // is mapped breaks the promise that bytes do not change; this hazard is documented, and `Access::Read`
            // avoids it.
            let map = unsafe { memmap2::MmapOptions::new().len(len).map(file) };
            let map = map.map_err(|e| OnnxError::new("file-read", format!("cannot map: {e}")))?;
            Ok(Bytes::from_owner(map))
        }
        Access::Read => {
            let data = read(file, size)?;
            if data.len() != len {
                return Err(OnnxError::new("file-read", "the file changed while it was read"));
            }
            Ok(data)
        }
    }
}

fn read(file: impl Read, limit: u64) -> Result<Bytes, OnnxError> {
    let mut data = Vec::new();
    let got = file.take(limit.saturating_add(1)).read_to_end(&mut data);
    got.map_err(|e| OnnxError::new("file-read", e.to_string()))?;
    if data.len() as u64 > limit {
        return Err(too_large(limit));
    }
    Ok(data.into())
}

fn too_large(limit: u64) -> OnnxError {
    OnnxError::new("limit-file-size", format!("larger than the limit of {limit} bytes"))
}
