//! NumPy's `.npy` files.
use crate::files::{Result, input};
use planish_rt::object::{dense_bytes, elements};
use planish_rt::{DType, Object, Tensor};

/// The array in the bytes of a file, as a value of element type `want`.
///
/// Types NumPy does not have (bfloat16, float8, int4 ...) are read from the raw types of the same size that
/// `ml_dtypes` writes. Little and big endian, C and Fortran order are accepted; Python objects are not.
pub fn read(bytes: &[u8], want: DType) -> Result<Object> {
    let head = header(bytes)?;
    let Some(n) = elements(&head.dims).and_then(|n| usize::try_from(n).ok()) else {
        return input(format!("the shape {:?} is not possible", head.dims));
    };
    let (kind, size) = (head.kind, head.size);
    if want == DType::String {
        if kind != b'U' && kind != b'S' {
            return input(format!("strings are needed, not {}{size}", kind as char));
        }
        return strings(&head, n);
    }
    let fits = match want {
        DType::F16 | DType::F32 | DType::F64 => kind == b'f',
        DType::Complex64 | DType::Complex128 => kind == b'c',
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => kind == b'i',
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => kind == b'u',
        DType::Bool => kind == b'b',
        DType::BF16 => matches!(kind, b'V' | b'u' | b'i'),
        _ => matches!(kind, b'V' | b'u' | b'i' | b'f'),
    };
    if !fits || size != want.size() {
        return input(format!("the array is of type {}{size}, but {want} is needed", kind as char));
    }
    let Some(total) = dense_bytes(want, &head.dims).and_then(|b| usize::try_from(b).ok()) else {
        return input(format!("the shape {:?} is too large", head.dims));
    };
    let Some(raw) = head.data.get(..total) else {
        return input(format!(
            "the array of shape {:?} needs {total} bytes, the file has {}",
            head.dims,
            head.data.len()
        ));
    };
    let mut data = if head.fortran { to_row_major(raw, &head.dims, size) } else { raw.to_vec() };
    if head.big_endian {
        let part = if kind == b'c' { size / 2 } else { size };
        data.chunks_exact_mut(part.max(1)).for_each(<[u8]>::reverse);
    }
    Ok(Object::Tensor(Tensor { dtype: want, dims: head.dims, data }))
}

struct Header<'a> {
    kind: u8,
    size: usize,
    big_endian: bool,
    fortran: bool,
    dims: Vec<i64>,
    data: &'a [u8],
}

/// The part of the text of the header behind a key.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let at = text.find(&format!("'{key}'"))?;
    let rest = text[at + key.len() + 2..].trim_start();
    Some(rest.strip_prefix(':')?.trim_start())
}

fn header(bytes: &[u8]) -> Result<Header<'_>> {
    let parse = || {
        let rest = bytes.strip_prefix(b"\x93NUMPY")?;
        let (len, at): (usize, usize) = match rest.first()? {
            1 => (u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?) as usize, 4),
            2 | 3 => (u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize, 6),
            _ => return None,
        };
        let text = std::str::from_utf8(rest.get(at..at.checked_add(len)?)?).ok()?;
        let descr = field(text, "descr")?.strip_prefix('\'')?;
        let descr = &descr[..descr.find('\'')?];
        let (order, ty) = descr.split_at_checked(1)?;
        let (order, ty) = if "<>|=".contains(order) { (order, ty) } else { ("<", descr) };
        let (kind, size) = ty.split_at_checked(1)?;
        let shape = field(text, "shape")?.strip_prefix('(')?;
        let shape = &shape[..shape.find(')')?];
        let dims: Option<Vec<i64>> =
            shape.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| s.parse().ok()).collect();
        Some(Header {
            kind: kind.as_bytes()[0],
            // A bool is `?` or `b1`.
            size: if kind == "?" { 1 } else { size.parse().ok()? },
            big_endian: order == ">",
            fortran: field(text, "fortran_order")?.starts_with("True"),
            dims: dims?,
            data: &rest[at + len..],
        })
    };
    match parse() {
        Some(mut h) => {
            if h.kind == b'?' {
                h.kind = b'b';
            }
            Ok(h)
        }
        None => input("not a .npy file of numbers or strings"),
    }
}

/// Elements in row-major order from elements in column-major order.
fn to_row_major(raw: &[u8], dims: &[i64], size: usize) -> Vec<u8> {
    let n = raw.len() / size.max(1);
    let mut out = Vec::with_capacity(raw.len());
    let mut at = vec![0i64; dims.len()];
    for _ in 0..n {
        let mut from = 0i64;
        for (i, d) in at.iter().zip(dims).rev() {
            from = from * d + i;
        }
        out.extend_from_slice(&raw[from as usize * size..(from as usize + 1) * size]);
        for k in (0..dims.len()).rev() {
            at[k] += 1;
            if at[k] < dims[k] {
                break;
            }
            at[k] = 0;
        }
    }
    out
}

fn strings(head: &Header<'_>, n: usize) -> Result<Object> {
    let size = if head.kind == b'U' { head.size.saturating_mul(4) } else { head.size };
    let raw = match n.checked_mul(size).and_then(|b| head.data.get(..b)) {
        Some(raw) if !head.fortran || head.dims.len() < 2 => raw,
        Some(_) => return input("strings in Fortran order"),
        None => return input("the file is too short"),
    };
    let text = |item: &[u8]| -> String {
        if head.kind == b'S' {
            let end = item.iter().rposition(|&b| b != 0).map_or(0, |e| e + 1);
            return String::from_utf8_lossy(&item[..end]).into_owned();
        }
        let words = item.chunks_exact(4).map(|c| {
            let c = [c[0], c[1], c[2], c[3]];
            if head.big_endian { u32::from_be_bytes(c) } else { u32::from_le_bytes(c) }
        });
        let all: String = words.map(|w| char::from_u32(w).unwrap_or('\u{fffd}')).collect();
        all.trim_end_matches('\0').to_owned()
    };
    let data = match size {
        0 => vec![String::new(); n],
        _ => raw.chunks_exact(size).map(text).collect(),
    };
    Ok(Object::Strings { dims: head.dims.clone(), data })
}

/// The `.npy` file of a tensor of numbers or strings; `None` for another value.
pub fn write(value: &Object) -> Option<Vec<u8>> {
    let (descr, dims, data) = match value {
        Object::Tensor(t) => (descr(t.dtype), &t.dims, t.data.clone()),
        Object::Strings { dims, data } => {
            let longest = data.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
            let mut raw = Vec::with_capacity(longest * 4 * data.len());
            for s in data {
                let padded = s.chars().map(u32::from).chain(std::iter::repeat(0)).take(longest);
                padded.for_each(|c| raw.extend_from_slice(&c.to_le_bytes()));
            }
            (format!("<U{longest}"), dims, raw)
        }
        _ => return None,
    };
    let list: Vec<String> = dims.iter().map(i64::to_string).collect();
    let shape = if list.len() == 1 { format!("({},)", list[0]) } else { format!("({})", list.join(", ")) };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // The data begin at a multiple of 64.
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&data);
    Some(out)
}

fn descr(d: DType) -> String {
    let kind = match d {
        DType::F16 | DType::F32 | DType::F64 => 'f',
        DType::Complex64 | DType::Complex128 => 'c',
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => 'i',
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => 'u',
        DType::Bool => 'b',
        _ => 'V',
    };
    format!("{}{kind}{}", if d.size() == 1 || kind == 'V' { '|' } else { '<' }, d.size())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut b = b"\x93NUMPY\x01\x00".to_vec();
        b.extend_from_slice(&(header.len() as u16).to_le_bytes());
        b.extend_from_slice(header.as_bytes());
        b.extend_from_slice(data);
        b
    }

    #[test]
    fn arrays_round_trip() {
        for &d in DType::ALL.iter().filter(|d| **d != DType::String) {
            for dims in [vec![], vec![3], vec![2, 0], vec![1, 2, 2]] {
                let n = dense_bytes(d, &dims).expect("small") as usize;
                let data = (0..n).map(|i| i as u8).collect();
                let o = Object::Tensor(Tensor { dtype: d, dims, data });
                assert_eq!(read(&write(&o).expect("a tensor"), d), Ok(o));
            }
        }
        let s = Object::Strings { dims: vec![2], data: vec!["ä".into(), "".into()] };
        assert_eq!(read(&write(&s).expect("strings"), DType::String), Ok(s));
    }

    #[test]
    fn orders_are_converted() {
        let f = file(
            "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n",
            &[0, 0, 0, 3, 0, 1, 0, 4, 0, 2, 0, 5],
        );
        let Ok(Object::Tensor(t)) = read(&f, DType::I16) else { panic!("reads") };
        assert_eq!(t.data, [0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
    }

    #[test]
    fn damage_is_an_error() {
        let good = file("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", &[0; 8]);
        for n in 0..good.len() {
            assert!(read(&good[..n], DType::F32).is_err());
        }
        assert!(read(&good, DType::I32).is_err());
        for shape in ["(-1,)", "(4611686018427387904,)", "(1e9,)", "(2"] {
            let f =
                file(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n"), &[0; 8]);
            assert!(read(&f, DType::F32).is_err(), "{shape}");
        }
        assert!(
            read(&file("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", &[]), DType::F32).is_err()
        );
    }
}
