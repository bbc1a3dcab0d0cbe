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
    let more = || format!("it expands to more than the {len} bytes that it declares");
    let (file, left) = copied(from, len, id, &more)?;
    if left > 0 {
        return Err(Failure::new(id, format!("it is cut short: {left} of {len} bytes are missing")));
    }
    Ok(file)
}

/// Writes all that a reader gives, at most `most` bytes. `id` is the id of the failure.
pub fn all(from: &mut dyn Read, most: u64, id: &'static str) -> Result<Arc<File>> {
    let more = || format!("it expands to more than {most} bytes, which are the most");
    Ok(copied(from, most, id, &more)?.0)
}

/// The file, and how many bytes fewer than `most` it has; `more` says what it means if there are more.
fn copied(
    from: &mut dyn Read,
    most: u64,
    id: &'static str,
    more: &dyn Fn() -> String,
) -> Result<(Arc<File>, u64)> {
    let mut file =
        tempfile::tempfile().map_err(|e| Failure::new("file-io", format!("no temporary file: {e}")))?;
    let mut buffer = vec![0; 1 << 16];
    let mut left = most;
    loop {
        let got = match from.read(&mut buffer) {
            Ok(0) => return Ok((Arc::new(file), left)),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::new(id, e.to_string())),
        };
        left = left.checked_sub(got as u64).ok_or_else(|| Failure::new(id, more()))?;
        let written = file.write_all(&buffer[..got]);
        written.map_err(|e| Failure::new("file-io", format!("a temporary file: {e}")))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_size_has_a_limit() {
        let len = |most: u64| all(&mut &[7u8; 100][..], most, "csv-malformed").map(|f| f.metadata());
        assert!(matches!(len(100), Ok(Ok(m)) if m.len() == 100));
        let said = len(99).err().map(|f| f.message()).unwrap_or_default();
        assert!(said.contains("csv-malformed") && said.contains("more than 99 bytes"), "{said}");
    }
}
