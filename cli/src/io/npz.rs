//! NumPy's `.npz`: a ZIP archive of `.npy` files.

use super::npy::Array;
use super::spill;
use crate::failure::{Failure, Result};
use planish_ir::{DType, Tensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

/// The arrays of an archive by key. `wanted` gives the type that the model declares for a key. Elements are read when they are asked
/// for: from the archive where it stores them as they are, from a temporary file where it compresses them.
pub fn open(path: &Path, wanted: &dyn Fn(&str) -> Option<DType>) -> Result<BTreeMap<String, Array>> {
    let bad = |e: String| Failure::new("npz-malformed", e);
    let file = Arc::new(File::open(path).map_err(|e| Failure::file(path, e))?);
    let mut archive = zip::ZipArchive::new(BufReader::new(&*file)).map_err(|e| bad(e.to_string()))?;
    let mut out = BTreeMap::new();
    let mut left = spill::MOST;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| bad(e.to_string()))?;
        let name = entry.name().map_err(|e| bad(e.to_string()))?.to_string();
        let Some(key) = name.strip_suffix(".npy") else { continue };
        let size = entry.size();
        let about = |f: Failure| f.about(format!("{key:?}"));
        let array = match (entry.compression(), entry.data_start()) {
            (zip::CompressionMethod::Stored, Some(at)) if !entry.encrypted() => {
                Array::open(file.clone(), at, size, wanted(key)).map_err(about)?
            }
            _ => {
                left = left
                    .checked_sub(size)
                    .ok_or_else(|| bad(format!("the archive expands to more than {} bytes", spill::MOST)))?;
                let expanded = spill::exactly(&mut entry, size, "npz-malformed").map_err(about)?;
                Array::open(expanded, 0, size, wanted(key)).map_err(about)?
            }
        };
        out.insert(key.to_owned(), array);
    }
    Ok(out)
}

/// All arrays of an archive, in memory.
pub fn read(path: &Path, wanted: &dyn Fn(&str) -> Option<DType>) -> Result<BTreeMap<String, Tensor>> {
    let arrays = open(path, wanted)?.into_iter();
    arrays
        .map(|(key, array)| Ok((key.clone(), array.read().map_err(|f| f.about(format!("{key:?}")))?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::npy;
    use std::io::{Cursor, Write};
    use zip::CompressionMethod::{Deflated, Stored};

    fn archive(entries: &[(&str, &[u8], zip::CompressionMethod)]) -> zip::result::ZipResult<Vec<u8>> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (key, bytes, method) in entries {
            let options = zip::write::SimpleFileOptions::default().compression_method(*method);
            zip.start_file(*key, options)?;
            zip.write_all(bytes)?;
        }
        Ok(zip.finish()?.into_inner())
    }

    #[test]
    fn arrays_by_key() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let t = Tensor::f32s(&[2], &[1.0, 2.0])?;
        let file = npy::write(&t);
        let bytes = archive(&[
            ("a/b.npy", &file, Deflated),
            ("label.npy", &file, Stored),
            ("note.txt", b"x", Stored),
        ])?;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.npz");
        std::fs::write(&path, &bytes)?;
        let all = read(&path, &|_| None).map_err(|f| f.message())?;
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a/b", "label"]);
        assert!(all.values().all(|v| *v == t));
        let arrays = open(&path, &|_| None).map_err(|f| f.message())?;
        for array in arrays.values() {
            assert_eq!(array.row(1).map_err(|f| f.message())?.to_f64(), [2.0]);
        }
        std::fs::write(&path, &bytes[..40])?;
        assert!(read(&path, &|_| None).is_err());
        Ok(())
    }

    #[test]
    fn archives_that_lie_are_refused() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.npz");
        // A header that says more than there is, in an entry of a million zeros.
        let mut lies = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, ), }  \n".to_vec();
        lies.resize(1 << 20, 0);
        for method in [Stored, Deflated] {
            std::fs::write(&path, archive(&[("x.npy", &lies, method)])?)?;
            assert_eq!(open(&path, &|_| None).err().map(|f| f.diags[0].id), Some("npy-malformed"));
        }
        // An entry whose directory declares another size than it has.
        let mut bytes = archive(&[("x.npy", &lies, Deflated)])?;
        let at = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").ok_or("no directory")? + 24;
        for size in [u32::MAX - 1, 8] {
            bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
            std::fs::write(&path, &bytes)?;
            assert_eq!(open(&path, &|_| None).err().map(|f| f.diags[0].id), Some("npz-malformed"), "{size}");
        }
        Ok(())
    }
}
