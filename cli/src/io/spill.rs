//! Compressed data as a file that can be read in any order: what it expands to goes into a file without a name, not into memory.

use crate::failure::{Failure, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

/// The most bytes that the data of one command may expand to.
pub const MOST: u64 = 16 << 30;

/// Writes what a reader gives, exactly `len` bytes of it. `id` is the id of the failure.
pub fn exactly(from: &mut dyn Read, len: u64, id: &'static str) -> Result<Arc<File>> {
    if len > MOST {
        return Err(Failure::new(id, format!("it expands to {len} bytes; {MOST} are the most")));
    }
    let failed = |e: std::io::Error| Failure::new(id, e.to_string());
    let mut file =
        tempfile::tempfile().map_err(|e| Failure::new("file-io", format!("no temporary file: {e}")))?;
    let mut buffer = vec![0; 1 << 16];
    let mut left = len;
    loop {
        let got = match from.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        if got == 0 {
            break;
        }
        left = left.checked_sub(got as u64).ok_or_else(|| {
            Failure::new(id, format!("it expands to more than the {len} bytes that it declares"))
        })?;
        let written = file.write_all(&buffer[..got]);
        written.map_err(|e| Failure::new("file-io", format!("a temporary file: {e}")))?;
    }
    if left > 0 {
        return Err(Failure::new(id, format!("it is cut short: {left} of {len} bytes are missing")));
    }
    Ok(Arc::new(file))
}
