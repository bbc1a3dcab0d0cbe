//! Constants in the text format: type, encoding, elements.

use super::{read_quoted, write_quoted};
use crate::attr::split_top;
use crate::constant::{Constant, Encoding, Order};
use crate::dtype::DType;
use crate::tensor::{Elems, Tensor, elem_count};
use bytes::Bytes;
use std::fmt::Write;

/// Up to this many elements print as numbers, more as hexadecimal bytes.
const LISTED: usize = 64;

pub(super) fn print(c: &Constant, elide: Option<usize>, out: &mut String) {
    let dims: Vec<String> = c.shape.iter().map(usize::to_string).collect();
    let _ = write!(out, "{}[{}] ", c.dtype, dims.join(","));
    if elide.is_some_and(|max| c.len() > max) && !matches!(c.encoding, Encoding::Splat(_)) {
        let _ = write!(out, "#{:016x} nnz={}/{}", c.content_hash(), c.nonzeros(), c.len());
        return;
    }
    match &c.encoding {
        Encoding::Dense(t) => elems(t, out),
        Encoding::Splat(b) => {
            out.push_str("splat ");
            hex(b, out);
        }
        Encoding::Packed4(b) => {
            out.push_str("packed4 ");
            hex(b, out);
        }
        Encoding::Codebook { codes, centroids } => {
            out.push_str("codebook ");
            hex(codes, out);
            out.push(' ');
            elems(centroids, out);
        }
        Encoding::NOfM { n, m, index, values } => {
            let _ = write!(out, "nofm {n} {m} ");
            hex(index, out);
            out.push(' ');
            elems(values, out);
        }
        Encoding::BlockSparse { block, order, index, values } => {
            let name = Order::ALL.iter().find(|o| o.0 == *order).map_or("", |o| o.1);
            let _ = write!(out, "blocks {}x{} {name} [", block[0], block[1]);
            let list: Vec<String> = index.iter().map(u32::to_string).collect();
            let _ = write!(out, "{}] ", list.join(","));
            elems(values, out);
        }
    }
}

fn hex(b: &[u8], out: &mut String) {
    out.push_str("0x");
    for x in b {
        let _ = write!(out, "{x:02x}");
    }
}

/// A list of elements if it reads back to the same bytes, else hexadecimal.
fn elems(t: &Tensor, out: &mut String) {
    let mut text = String::from("[");
    match t.elems() {
        Elems::S(v) => {
            for (i, s) in v.iter().enumerate() {
                text.push_str(if i > 0 { ", " } else { "" });
                write_quoted(s, &mut text);
            }
        }
        e if e.len() > LISTED => return hex(t.bytes(), out),
        Elems::F(v) => {
            for (i, x) in v.iter().enumerate() {
                let sep = if i > 0 { ", " } else { "" };
                let _ = match t.dtype() {
                    DType::F64 => write!(text, "{sep}{x:?}"),
                    _ => write!(text, "{sep}{:?}", *x as f32),
                };
            }
        }
        Elems::I(v) => {
            let list: Vec<String> = v.iter().map(i128::to_string).collect();
            text.push_str(&list.join(", "));
        }
    }
    text.push(']');
    match read_elems(t.dtype(), t.shape().to_vec(), &text) {
        Some(back) if back == *t => out.push_str(&text),
        _ => hex(t.bytes(), out),
    }
}

fn read_hex(text: &str) -> Option<Bytes> {
    let digits = text.strip_prefix("0x")?;
    let pair = |i: usize| u8::from_str_radix(digits.get(i..i + 2)?, 16).ok();
    if digits.len() % 2 != 0 {
        return None;
    }
    (0..digits.len()).step_by(2).map(pair).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

fn read_elems(dtype: DType, shape: Vec<usize>, text: &str) -> Option<Tensor> {
    if text.starts_with("0x") {
        return Tensor::from_bytes(dtype, shape, read_hex(text)?).ok();
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let items = split_top(inner, ',').into_iter().map(str::trim);
    let elems = match dtype {
        DType::Str => Elems::S(items.map(read_quoted).collect::<Option<_>>()?),
        d if d.is_float() => Elems::F(items.map(|t| t.parse().ok()).collect::<Option<_>>()?),
        d => {
            let v: Vec<i128> = items.map(|t| t.parse().ok()).collect::<Option<_>>()?;
            let (lo, hi) = d.int_range()?;
            if v.iter().any(|x| *x < lo || *x > hi) {
                return None;
            }
            Elems::I(v)
        }
    };
    Tensor::from_elems(dtype, shape, elems).ok()
}

/// Reads what [`print`] wrote. `words` are the space-separated parts outside brackets and quotes.
pub(super) fn read(words: &[&str]) -> Option<Constant> {
    let (ty, rest) = words.split_first()?;
    let (dtype, dims) = ty.strip_suffix(']')?.split_once('[')?;
    let dtype = DType::parse(dtype)?;
    let shape: Vec<usize> =
        split_top(dims, ',').iter().map(|d| d.trim().parse().ok()).collect::<Option<_>>()?;
    let count = elem_count(&shape).ok()?;
    let values = |t: &str, n: usize| read_elems(dtype, vec![n], t);
    let guess_len = |t: &str| {
        if t.starts_with("0x") {
            (t.len() - 2) / 2 / dtype.size().max(1)
        } else {
            split_top(t.trim_matches(['[', ']']), ',').len()
        }
    };
    let encoding = match rest {
        [list] => Encoding::Dense(read_elems(dtype, shape.clone(), list)?),
        ["splat", v] => {
            let b = read_hex(v)?;
            if b.len() != dtype.size() {
                return None;
            }
            Encoding::Splat(b)
        }
        ["packed4", v] => Encoding::Packed4(read_hex(v)?),
        ["codebook", codes, table] => {
            let codes = read_hex(codes)?;
            if codes.len() != count {
                return None;
            }
            Encoding::Codebook { codes, centroids: values(table, guess_len(table))? }
        }
        ["nofm", n, m, index, v] => Encoding::NOfM {
            n: n.parse().ok()?,
            m: m.parse().ok()?,
            index: read_hex(index)?.to_vec(),
            values: values(v, guess_len(v))?,
        },
        ["blocks", size, order, index, v] => {
            let (k, n) = size.split_once('x')?;
            let list = index.strip_prefix('[')?.strip_suffix(']')?;
            Encoding::BlockSparse {
                block: [k.parse().ok()?, n.parse().ok()?],
                order: Order::ALL.iter().find(|o| o.1 == *order)?.0,
                index: split_top(list, ',')
                    .iter()
                    .map(|t| t.trim())
                    .filter(|t| !t.is_empty())
                    .map(|t| t.parse().ok())
                    .collect::<Option<_>>()?,
                values: values(v, guess_len(v))?,
            }
        }
        _ => return None,
    };
    Some(Constant { dtype, shape, encoding })
}
