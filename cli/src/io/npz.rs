//! NumPy's `.npz`: a ZIP archive of `.npy` files.

use super::npy;
use crate::failure::{Failure, Result};
use bytes::Bytes;
use planish_ir::{DType, Tensor};
use std::collections::BTreeMap;
use std::io::{Cursor, Read};

/// The most bytes that one archive may expand to.
const MOST: u64 = 64 << 30;

/// All arrays of an archive by key. `wanted` gives the type that the model declares for a key.
pub fn read(file: &Bytes, wanted: &dyn Fn(&str) -> Option<DType>) -> Result<BTreeMap<String, Tensor>> {
    let bad = |e: String| Failure::new("npz-malformed", e);
    let mut archive = zip::ZipArchive::new(Cursor::new(file)).map_err(|e| bad(e.to_string()))?;
    let mut out = BTreeMap::new();
    let mut left = MOST;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| bad(e.to_string()))?;
        let name = entry.name().map_err(|e| bad(e.to_string()))?.to_string();
        let Some(key) = name.strip_suffix(".npy") else { continue };
        let mut data = Vec::new();
        let got = entry.by_ref().take(left.saturating_add(1)).read_to_end(&mut data);
        got.map_err(|e| bad(format!("{key:?}: {e}")))?;
        left = left
            .checked_sub(data.len() as u64)
            .ok_or_else(|| bad(format!("the archive expands to more than {MOST} bytes")))?;
        let tensor = npy::read(&data.into(), wanted(key)).map_err(|f| f.about(format!("{key:?}")))?;
        out.insert(key.to_owned(), tensor);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn arrays_by_key() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let t = Tensor::f32s(&[2], &[1.0, 2.0])?;
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for key in ["a/b.npy", "label.npy", "note.txt"] {
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(key, options)?;
            zip.write_all(&npy::write(&t))?;
        }
        let bytes: Bytes = zip.finish()?.into_inner().into();
        let all = read(&bytes, &|_| None).map_err(|f| f.message())?;
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a/b", "label"]);
        assert_eq!(all["a/b"], t);
        assert!(read(&bytes.slice(..40), &|_| None).is_err());
        Ok(())
    }
}
