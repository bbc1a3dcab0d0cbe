//! Reading whole files, and errors with the name of the file.
use planish_rt::{Error, ErrorKind};
use std::path::Path;

/// The result of operations of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error about what the user gave.
pub(crate) fn input<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::Input, message))
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).or_else(|e| input(format!("{}: {e}", path.display())))
}

/// Puts the name of the file before an error.
pub(crate) fn within<T>(path: &Path, r: Result<T>) -> Result<T> {
    r.map_err(|e| Error::new(e.kind, format!("{}: {}", path.display(), e.message)))
}

/// Writes a file under another name and renames it, so that no half of it is ever seen.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let done = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    done.or_else(|e| {
        // What could not be renamed is not left behind; the first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
        input(format!("{}: {e}", path.display()))
    })
}

/// A file name for any name: what cannot stand in one is percent-encoded.
pub fn encode_name(name: &str) -> String {
    let plain = |i: usize, b: u8| b > 0x20 && b != 0x7f && b != b'/' && b != b'%' && !(i == 0 && b == b'.');
    let mut out = Vec::new();
    for (i, b) in name.bytes().enumerate() {
        if plain(i, b) {
            out.push(b);
        } else {
            out.extend_from_slice(format!("%{b:02X}").as_bytes());
        }
    }
    // Only ASCII was replaced, by ASCII.
    String::from_utf8_lossy(&out).into_owned()
}

/// The name behind a file name made by [`encode_name`]; `None` if an escape is malformed.
pub fn decode_name(file: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = file.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let mut hex = || (bytes.next()? as char).to_digit(16);
            out.push((hex()? * 16 + hex()?) as u8);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["x", "a/b:0", "100%", ".hidden", "..", "ä ö", "tab\t", ""] {
            let file = encode_name(name);
            assert!(!file.contains('/') && !file.starts_with('.'), "{file}");
            assert_eq!(decode_name(&file).as_deref(), Some(name));
        }
        assert_eq!(decode_name("a%2"), None);
        assert_eq!(decode_name("a%zz"), None);
    }
}
