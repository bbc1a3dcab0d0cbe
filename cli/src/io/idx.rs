//! IDX files (MNIST's form), plain or compressed with gzip: two zero bytes, the element type, the number of axes, big-endian
//! sizes, elements.

use super::npy::Array;
use super::spill;
use crate::failure::{Failure, Result};
use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

/// The most axes of an array.
const MOST_AXES: usize = 8;

fn bad(why: impl Into<String>) -> Failure {
    Failure::new("idx-malformed", why)
}

/// Whether a file is named as IDX files are: `..-ubyte` or `.idx`, or either with `.gz`.
pub fn is_named(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.ends_with("-ubyte") || name.ends_with(".idx")
}

/// The array in a file. Elements of a plain file are read when they are asked for; a compressed one is expanded into a temporary file.
pub fn open(path: &Path) -> Result<Array> {
    let file = File::open(path).map_err(|e| Failure::file(path, e))?;
    let size = file.metadata().map_err(|e| Failure::file(path, e))?.len();
    let mut magic = [0; 2];
    let compressed =
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut magic, 0).is_ok() && magic == [0x1f, 0x8b];
    let array = if compressed {
        let mut stream = GzDecoder::new(BufReader::new(&file));
        let head = Head::read(&mut stream)?;
        let file = spill::exactly(&mut stream, head.bytes, "idx-malformed")?;
        Array::raw(file, 0, head.bytes, head.descr, head.shape)
    } else {
        let head = Head::read(&mut &file)?;
        let at = head.len;
        Array::raw(Arc::new(file), at, size.saturating_sub(at), head.descr, head.shape)
    };
    array.map_err(|f| bad(f.diags.first().map_or("", |d| d.message.as_str())))
}

struct Head {
    descr: &'static str,
    shape: Vec<usize>,
    /// Bytes of the head itself.
    len: u64,
    /// Bytes of the elements.
    bytes: u64,
}

impl Head {
    fn read(from: &mut dyn Read) -> Result<Head> {
        let mut exact = |n: usize| -> Result<Vec<u8>> {
            let mut buffer = vec![0; n];
            from.read_exact(&mut buffer).map_err(|e| bad(e.to_string()))?;
            Ok(buffer)
        };
        let magic = exact(4)?;
        if magic[..2] != [0, 0] {
            return Err(bad("not an IDX file"));
        }
        let (descr, unit) = match magic[2] {
            0x08 => ("|u1", 1),
            0x09 => ("|i1", 1),
            0x0b => (">i2", 2),
            0x0c => (">i4", 4),
            0x0d => (">f4", 4),
            0x0e => (">f8", 8),
            other => return Err(bad(format!("element type {other:#04x} is not known"))),
        };
        let axes = usize::from(magic[3]);
        if axes == 0 || axes > MOST_AXES {
            return Err(bad(format!("{axes} axes; 1 to {MOST_AXES} are possible")));
        }
        let dims = exact(4 * axes)?;
        let shape: Vec<usize> =
            dims.chunks_exact(4).map(|d| u32::from_be_bytes([d[0], d[1], d[2], d[3]]) as usize).collect();
        let bytes = shape.iter().try_fold(unit, |n: u64, d| n.checked_mul(*d as u64));
        let bytes = bytes.ok_or_else(|| bad(format!("{shape:?} elements are more than can be addressed")))?;
        Ok(Head { descr, shape, len: 4 + 4 * axes as u64, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn idx(kind: u8, shape: &[u32], data: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, kind, shape.len() as u8];
        shape.iter().for_each(|d| out.extend(d.to_be_bytes()));
        out.extend(data);
        out
    }

    fn gz(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(bytes)?;
        e.finish()
    }

    #[test]
    fn plain_and_compressed_files_hold_the_same() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let file = idx(0x0c, &[2, 2], &[0, 0, 0, 1, 0, 0, 1, 0, 255, 255, 255, 255, 0, 0, 0, 7]);
        for (name, bytes) in [("plain", file.clone()), ("small.gz", gz(&file)?)] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes)?;
            let array = open(&path).map_err(|f| f.message())?;
            assert_eq!(array.shape(), [2, 2]);
            assert_eq!(array.row(1).map_err(|f| f.message())?.to_i64()?, [-1, 7]);
        }
        assert!(is_named(Path::new("a/t10k-images-idx3-ubyte")) && is_named(Path::new("A.IDX.gz")));
        assert!(!is_named(Path::new("a.gz")));
        Ok(())
    }

    #[test]
    fn files_that_lie_about_their_size_are_refused() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let huge = u32::MAX;
        let zeros = vec![0; 1 << 20];
        for bytes in [
            Vec::new(),
            b"\0\0".to_vec(),
            idx(0x08, &[3], &[1, 2]),
            idx(0x07, &[1], &[1]),
            idx(0x08, &[], &[1]),
            idx(0x08, &[1; 9], &[1]),
            idx(0x0e, &[huge, huge, huge], &[1]),
            idx(0x08, &[huge, huge], &[1]),
            gz(&idx(0x08, &[huge, 64], &[1]))?,
            gz(&idx(0x08, &[3], &[1, 2]))?,
            gz(&idx(0x08, &[3], &zeros))?,
            gz(&idx(0x08, &[3], &[1, 2, 3]))?[..20].to_vec(),
        ] {
            let path = dir.path().join("x");
            std::fs::write(&path, &bytes)?;
            let failure =
                open(&path).err().ok_or_else(|| format!("accepted: {:?}", &bytes[..bytes.len().min(20)]))?;
            assert_eq!(failure.diags[0].id, "idx-malformed", "{}", failure.message());
        }
        Ok(())
    }
}
