//! NumPy's `.npy`: versions 1 to 3, numbers of either byte order, C and Fortran order, text.

use crate::failure::{Failure, Result};
use bytes::Bytes;
use planish_ir::tensor::{elem_count, strides};
use planish_ir::{DType, Tensor};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

fn bad(why: impl Into<String>) -> Failure {
    Failure::new("npy-malformed", why)
}

/// Reads a file. `wanted` is the type that the model declares: it decides between types that NumPy writes as opaque
/// bytes (bfloat16, 8-bit and smaller floats) or as wider integers (4- and 2-bit integers).
pub fn read(file: &Bytes, wanted: Option<DType>) -> Result<Tensor> {
    let (start, end) = header_at(file)?;
    let header = file.get(start..end).ok_or_else(|| bad("the file is cut short"))?;
    let header = Header::parse(header)?;
    let data = file.slice(end..);
    let tensor = decode(&header, data, wanted)?;
    if header.fortran { from_fortran(&tensor) } else { Ok(tensor) }
}

/// Where the header lies, from the first bytes of a file.
fn header_at(file: &[u8]) -> Result<(usize, usize)> {
    let head = file.get(..10).filter(|h| h.starts_with(MAGIC)).ok_or_else(|| bad("not an .npy file"))?;
    let (start, len) = match head[6] {
        1 => (10, usize::from(u16::from_le_bytes([head[8], head[9]]))),
        2 | 3 => {
            let b = file.get(8..12).ok_or_else(|| bad("the file is cut short"))?;
            (12, u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
        }
        v => return Err(bad(format!("version {v} is not known"))),
    };
    Ok((start, start + len))
}

/// The longest header of an array that is read in parts.
const LONGEST_HEADER: usize = 1 << 20;

/// An array in a file whose elements are read when they are asked for: whole, or a position of the first axis at a time.
#[derive(Clone, Debug)]
pub struct Array {
    file: Arc<File>,
    /// Where the elements begin.
    at: u64,
    /// How many bytes they take.
    bytes: u64,
    header: Header,
    wanted: Option<DType>,
}

impl Array {
    /// The array that lies in `len` bytes of a file from `at`. Only its header is read.
    pub fn open(file: Arc<File>, at: u64, len: u64, wanted: Option<DType>) -> Result<Array> {
        let prefix = |n: usize| -> Result<Vec<u8>> {
            let mut buffer = vec![0; n.min(usize::try_from(len).unwrap_or(usize::MAX))];
            file.read_exact_at(&mut buffer, at).map_err(|e| bad(e.to_string()))?;
            Ok(buffer)
        };
        let (start, end) = header_at(&prefix(12)?)?;
        if end > LONGEST_HEADER || end as u64 > len {
            return Err(bad(format!("a header of {} bytes in a file of {len}", end - start)));
        }
        let header = Header::parse(&prefix(end)?[start..])?;
        Array::with_header(file, at + end as u64, len - end as u64, header, wanted)
    }
    /// Elements without a header of their own: unsigned bytes, or big-endian numbers (`descr` as NumPy writes it).
    pub fn raw(file: Arc<File>, at: u64, len: u64, descr: &str, shape: Vec<usize>) -> Result<Array> {
        let header = Header { descr: descr.to_owned(), fortran: false, shape };
        Array::with_header(file, at, len, header, None)
    }
    fn with_header(
        file: Arc<File>,
        at: u64,
        len: u64,
        header: Header,
        wanted: Option<DType>,
    ) -> Result<Array> {
        let unit = header.unit()?;
        let bytes = elem_count(&header.shape)?.checked_mul(unit).ok_or_else(|| bad("too large"))? as u64;
        if bytes > len {
            return Err(bad(format!("{len} bytes of data where {bytes} are needed")));
        }
        Ok(Array { file, at, bytes, header, wanted })
    }
    /// Its dims.
    pub fn shape(&self) -> &[usize] {
        &self.header.shape
    }
    /// Whether elements are unsigned bytes.
    pub fn is_u8(&self) -> bool {
        self.header.descr.trim_start_matches(['|', '<', '>', '=']) == "u1"
    }
    /// All of it.
    pub fn read(&self) -> Result<Tensor> {
        let tensor = decode(&self.header, self.part(0, self.bytes)?, self.wanted)?;
        if self.header.fortran { from_fortran(&tensor) } else { Ok(tensor) }
    }
    /// Position `k` of the first axis, without that axis. Nothing else is read unless the first axis is the innermost in the file.
    pub fn row(&self, k: usize) -> Result<Tensor> {
        let Some((n, rest)) = self.header.shape.split_first().filter(|(n, _)| k < **n) else {
            return Err(bad(format!("no position {k} on the first axis of {:?}", self.header.shape)));
        };
        if self.header.fortran && self.header.shape.len() > 1 {
            let all = self.read()?;
            let unit = all.bytes().len() / n;
            if all.dtype() == DType::Str {
                let unit = all.len() / n;
                let strings = all.strings()[k * unit..(k + 1) * unit].to_vec();
                return Ok(Tensor::from_strings(rest.to_vec(), strings)?);
            }
            let bytes = all.bytes().slice(k * unit..(k + 1) * unit);
            return Ok(Tensor::from_bytes(all.dtype(), rest.to_vec(), bytes)?);
        }
        let unit = self.bytes / *n as u64;
        let header = Header { shape: rest.to_vec(), ..self.header.clone() };
        decode(&header, self.part(k as u64 * unit, unit)?, self.wanted)
    }
    fn part(&self, from: u64, len: u64) -> Result<Bytes> {
        let mut buffer = vec![0; usize::try_from(len).map_err(|_| bad("too large"))?];
        let done = self.file.read_exact_at(&mut buffer, self.at + from);
        done.map_err(|e| bad(format!("the file changed while it was read: {e}")))?;
        Ok(buffer.into())
    }
}

#[derive(Clone, Debug)]
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// The header is a Python dictionary with three known keys and values without nesting.
    fn parse(text: &[u8]) -> Result<Header> {
        let text = std::str::from_utf8(text).map_err(|_| bad("the header is not text"))?;
        let after = |key: &str| -> Result<&str> {
            let at = [format!("'{key}'"), format!("\"{key}\"")]
                .iter()
                .find_map(|k| text.find(k.as_str()).map(|at| at + k.len()))
                .ok_or_else(|| bad(format!("the header has no {key:?}")))?;
            Ok(text[at..].trim_start().strip_prefix(':').ok_or_else(|| bad("malformed header"))?.trim_start())
        };
        let descr = after("descr")?;
        let quote = descr.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let quote = quote.ok_or_else(|| bad("arrays of records are not supported"))?;
        let descr = descr[1..].split(quote).next().unwrap_or("").to_owned();
        let fortran = match after("fortran_order")? {
            v if v.starts_with("False") => false,
            v if v.starts_with("True") => true,
            _ => return Err(bad("malformed fortran_order")),
        };
        let shape = after("shape")?.strip_prefix('(').and_then(|s| s.split(')').next());
        let shape = shape.ok_or_else(|| bad("malformed shape"))?;
        let dims = shape.split(',').map(|d| d.trim().trim_end_matches('L')).filter(|d| !d.is_empty());
        let dims: Option<Vec<usize>> = dims.map(|d| d.parse().ok()).collect();
        Ok(Header { descr, fortran, shape: dims.ok_or_else(|| bad("malformed shape"))? })
    }
    /// Bytes of an element.
    fn unit(&self) -> Result<usize> {
        let unknown = || bad(format!("element type {:?} is not supported", self.descr));
        let kind = self.descr.trim_start_matches(['<', '>', '|', '=']);
        let (letter, width) = kind.split_at_checked(1).ok_or_else(unknown)?;
        let width: usize = width.parse().map_err(|_| unknown())?;
        let scale = if letter == "U" { 4 } else { 1 };
        width.checked_mul(scale).ok_or_else(unknown)
    }
}

fn decode(h: &Header, data: Bytes, wanted: Option<DType>) -> Result<Tensor> {
    use DType::*;
    let unknown = || bad(format!("element type {:?} is not supported", h.descr));
    let mut chars = h.descr.chars();
    let order = chars.next().ok_or_else(unknown)?;
    let kind = chars.next().ok_or_else(unknown)?;
    let width: usize = chars.as_str().parse().map_err(|_| unknown())?;
    let swap = match order {
        '<' | '|' => false,
        '=' => cfg!(target_endian = "big"),
        '>' => true,
        _ => return Err(unknown()),
    };
    let narrow = |bits: &[DType]| wanted.filter(|w| bits.contains(w));
    let dtype = match (kind, width) {
        ('f', 2) => F16,
        ('f', 4) => F32,
        ('f', 8) => F64,
        ('b', 1) => Bool,
        ('i', 1) => narrow(&[I4, I2]).unwrap_or(I8),
        ('u', 1) => narrow(&[U4, U2]).unwrap_or(U8),
        ('i', 2) => I16,
        ('i', 4) => I32,
        ('i', 8) => I64,
        ('u', 2) => narrow(&[BF16]).unwrap_or(U16),
        ('u', 4) => U32,
        ('u', 8) => U64,
        ('V', 2) => narrow(&[BF16, F16]).unwrap_or(BF16),
        ('V', 1) => wanted.filter(|w| w.size() == 1 && *w != Bool).ok_or_else(unknown)?,
        ('U', _) | ('S', _) => return text(h, &data, kind, width, swap),
        ('O', _) => {
            return Err(bad(
                "arrays of Python objects are not read (they hold code); save text as a fixed-width type",
            ));
        }
        _ => return Err(unknown()),
    };
    let count = elem_count(&h.shape)?;
    let len = count.checked_mul(width).ok_or_else(|| bad("too large"))?;
    if data.len() < len {
        return Err(bad(format!("{} bytes of data where {len} are needed", data.len())));
    }
    let mut data = data.slice(..len);
    if swap && width > 1 {
        let mut v = data.to_vec();
        v.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        data = v.into();
    }
    if dtype == Bool && data.iter().any(|b| *b > 1) {
        data = data.iter().map(|b| u8::from(*b != 0)).collect::<Vec<u8>>().into();
    }
    if let Some((low, high)) = dtype.int_range().filter(|_| dtype.bits() < 8)
        && data.iter().any(|b| {
            let v = if dtype.is_signed_int() { i128::from(*b as i8) } else { i128::from(*b) };
            v < low || v > high
        })
    {
        return Err(bad(format!("a value is out of the range of {dtype}")));
    }
    Ok(Tensor::from_bytes(dtype, h.shape.clone(), data)?)
}

fn text(h: &Header, data: &Bytes, kind: char, width: usize, swap: bool) -> Result<Tensor> {
    let count = elem_count(&h.shape)?;
    let size = if kind == 'U' { width.checked_mul(4) } else { Some(width) };
    let len = size.and_then(|s| s.checked_mul(count)).ok_or_else(|| bad("too large"))?;
    let data = data.get(..len).ok_or_else(|| bad("the file is cut short"))?;
    let size = size.unwrap_or(0);
    let mut out = Vec::new();
    if count > 1 << 28 {
        return Err(bad("too many strings"));
    }
    for i in 0..count {
        let item = &data[i * size..(i + 1) * size];
        let mut s = String::new();
        if kind == 'U' {
            for c in item.chunks_exact(4) {
                let c = [c[0], c[1], c[2], c[3]];
                let code = if swap { u32::from_be_bytes(c) } else { u32::from_le_bytes(c) };
                s.push(char::from_u32(code).ok_or_else(|| bad("a string holds an invalid character"))?);
            }
        } else {
            s.push_str(std::str::from_utf8(item).map_err(|_| bad("a string is not UTF-8"))?);
        }
        s.truncate(s.trim_end_matches('\0').len());
        out.push(s);
    }
    Ok(Tensor::from_strings(h.shape.clone(), out)?)
}

/// The row-major tensor of one whose data is column-major.
fn from_fortran(t: &Tensor) -> Result<Tensor> {
    let shape = t.shape().to_vec();
    let row = strides(&shape);
    let mut column = vec![1usize; shape.len()];
    for i in 1..shape.len() {
        column[i] = column[i - 1] * shape[i - 1];
    }
    let source =
        |i: usize| -> usize { shape.iter().zip(&row).zip(&column).map(|((d, r), c)| (i / r) % d * c).sum() };
    if t.dtype() == DType::Str {
        let strings = (0..t.len()).map(|i| t.strings()[source(i)].clone()).collect();
        return Ok(Tensor::from_strings(shape, strings)?);
    }
    let size = t.dtype().size();
    let mut out = Vec::with_capacity(t.bytes().len());
    for i in 0..t.len() {
        let at = source(i) * size;
        out.extend_from_slice(&t.bytes()[at..at + size]);
    }
    Ok(Tensor::from_bytes(t.dtype(), shape, out.into())?)
}

/// The bytes of a version 1 (or 3, for text beyond Latin-1) file. Types that NumPy lacks become what `ml_dtypes` makes
/// of them: opaque bytes for floats, one byte per element for small integers.
pub fn write(t: &Tensor) -> Vec<u8> {
    use DType::*;
    let mut strings = Vec::new();
    let descr = match t.dtype() {
        F32 => "<f4".to_owned(),
        F64 => "<f8".to_owned(),
        F16 => "<f2".to_owned(),
        BF16 => "<V2".to_owned(),
        Bool => "|b1".to_owned(),
        I8 | I4 | I2 => "|i1".to_owned(),
        U8 | U4 | U2 => "|u1".to_owned(),
        I16 => "<i2".to_owned(),
        U16 => "<u2".to_owned(),
        I32 => "<i4".to_owned(),
        U32 => "<u4".to_owned(),
        I64 => "<i8".to_owned(),
        U64 => "<u8".to_owned(),
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1 => "|V1".to_owned(),
        Str => {
            let width = t.strings().iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
            for s in t.strings() {
                let before = strings.len();
                s.chars().for_each(|c| strings.extend_from_slice(&u32::from(c).to_le_bytes()));
                strings.resize(before + 4 * width, 0);
            }
            format!("<U{width}")
        }
    };
    let dims = match t.shape() {
        [d] => format!("({d},)"),
        dims => format!("({})", dims.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {dims}, }}");
    let long = header.len() > 60_000;
    let fixed = if long { 12 } else { 10 };
    while (fixed + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut out = Vec::with_capacity(fixed + header.len() + t.bytes().len() + strings.len());
    out.extend_from_slice(MAGIC);
    if long {
        out.extend_from_slice(&[2, 0]);
        out.extend_from_slice(&(header.len() as u32).to_le_bytes());
    } else {
        out.extend_from_slice(&[1, 0]);
        out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    }
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(if t.dtype() == Str { &strings } else { t.bytes() });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Bytes {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut f = MAGIC.to_vec();
        f.extend_from_slice(&[1, 0]);
        f.extend_from_slice(&(header.len() as u16).to_le_bytes());
        f.extend_from_slice(header.as_bytes());
        f.extend_from_slice(data);
        f.into()
    }

    fn fine<T>(r: Result<T>) -> T {
        r.unwrap_or_else(|f| panic!("{}", f.message()))
    }

    #[test]
    fn reads_what_it_writes() {
        for dtype in DType::ALL.iter().copied().filter(|d| *d != DType::Str) {
            let bytes = vec![1u8; 6 * dtype.size()];
            let t = fine(Tensor::from_bytes(dtype, vec![2, 3], bytes.into()).map_err(Failure::from));
            assert_eq!(fine(read(&write(&t).into(), Some(dtype))), t, "{dtype}");
        }
        let t =
            fine(Tensor::from_strings(vec![2], vec!["a".into(), "größe 字".into()]).map_err(Failure::from));
        assert_eq!(fine(read(&write(&t).into(), None)), t);
        let scalar = fine(Tensor::scalar(DType::F32, 2.5).map_err(Failure::from));
        assert_eq!(fine(read(&write(&scalar).into(), None)), scalar);
    }

    #[test]
    fn byte_order_and_fortran_order_are_undone() {
        let t = fine(read(&file(">i2", "False", "(2,)", &[0, 1, 1, 0]), None));
        assert_eq!(t.to_i64().ok(), Some(vec![1, 256]));
        let t = fine(read(&file("|u1", "True", "(2, 3)", &[1, 4, 2, 5, 3, 6]), None));
        assert_eq!(t.to_i64().ok(), Some(vec![1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn parts_of_a_file_are_read_by_themselves() -> std::result::Result<(), Box<dyn std::error::Error>> {
        use std::io::Write;
        let mut on_disk = tempfile::tempfile()?;
        let plain = file("<i2", "False", "(3, 2)", &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
        let fortran = file("|u1", "True", "(2, 3)", &[1, 4, 2, 5, 3, 6]);
        let text = file("|S2", "False", "(2,)", b"abc\0");
        for part in [&plain, &fortran, &text] {
            on_disk.write_all(part)?;
        }
        let on_disk = Arc::new(on_disk);
        let (a, b) = (plain.len() as u64, fortran.len() as u64);
        let open = |at, len| Array::open(on_disk.clone(), at, len, None);
        let array = fine(open(0, a));
        assert_eq!((array.shape(), array.is_u8()), (&[3, 2][..], false));
        assert_eq!(fine(array.row(1)).to_i64()?, [3, 4]);
        assert_eq!(fine(array.read()), fine(read(&plain, None)));
        assert!(array.row(3).is_err());
        let array = fine(open(a, b));
        assert!(array.is_u8());
        assert_eq!(fine(array.row(1)).to_i64()?, [4, 5, 6]);
        assert_eq!(fine(fine(open(a + b, text.len() as u64)).row(1)).strings(), ["c"]);
        // One byte less than the header says, and elements that would take more memory than there is.
        assert!(open(0, a - 1).is_err());
        assert!(Array::raw(on_disk.clone(), 0, 10, "|u1", vec![1 << 40, 1 << 40]).is_err());
        assert!(Array::raw(on_disk, 0, 10, "|u1", vec![1 << 40]).is_err());
        Ok(())
    }

    #[test]
    fn damaged_files_are_refused() {
        let huge = file("<f4", "False", "(4294967296, 4294967296, 4)", &[]);
        for bytes in [
            Bytes::from_static(b""),
            Bytes::from_static(b"\x93NUMPY\x01\x00\xff\xff"),
            file("<f4", "False", "(2,)", &[0; 7]),
            file("<f4", "Maybe", "(2,)", &[0; 8]),
            file("<f4", "False", "(-2,)", &[0; 8]),
            file("|O", "False", "(1,)", &[0; 8]),
            file("<U4", "False", "(1,)", &[0xff; 16]),
            file("é", "False", "(1,)", &[0; 8]),
            huge,
        ] {
            assert!(read(&bytes, None).is_err(), "{bytes:?}");
        }
        assert!(read(&file("|i1", "False", "(1,)", &[8]), Some(DType::I4)).is_err());
    }
}
