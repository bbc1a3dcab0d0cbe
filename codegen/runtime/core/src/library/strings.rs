//! Functions on strings, and the moves of elements that tensors of strings need.
use super::elems::{Elems, Wide, around, broadcast, broadcast_dims, dims, pick};
use super::{Input, Values, attr, flag_tensor, object, one};
use crate::dtype::DType;
use crate::error::{Result, fail};
use crate::object::{Object, Tensor, elements};
use crate::plan::Call;
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

fn strings(o: &Object) -> Result<&[String]> {
    match o {
        Object::Strings { data, .. } => Ok(data),
        _ => fail!(Data, "a tensor of strings is needed"),
    }
}

pub(super) fn constant(c: &Call, _: Vec<Input>) -> Values {
    if elements(&c.attrs) != Some(c.sattrs.len() as u64) {
        fail!(Program, "{} strings for the shape {:?}", c.sattrs.len(), c.attrs);
    }
    one(Object::Strings { dims: c.attrs.clone(), data: c.sattrs.clone() })
}

pub(super) fn concat(_: &Call, mut args: Vec<Input>) -> Values {
    let (a, b) = (object(&mut args, 0)?, object(&mut args, 1)?);
    let shape = broadcast_dims(dims(&a)?, dims(&b)?)?;
    let (x, y) = (strings(&a)?, strings(&b)?);
    let (p, q) = (broadcast(dims(&a)?, &shape)?, broadcast(dims(&b)?, &shape)?);
    let data = p.iter().zip(&q).map(|(&i, &j)| format!("{}{}", x[i], y[j])).collect();
    one(Object::Strings { dims: shape, data })
}

pub(super) fn matches(c: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let malformed =
        || crate::error::Error::new(crate::error::ErrorKind::Program, "the automaton is malformed");
    let (&[states, start, classes], rest) = c.attrs.split_first_chunk::<3>().ok_or_else(malformed)?;
    let (class_of, rest) = rest.split_first_chunk::<256>().ok_or_else(malformed)?;
    let table_len = usize::try_from(states.checked_mul(classes).ok_or_else(malformed)?);
    let (next, accepts) = rest.split_at_checked(table_len.map_err(|_| malformed())?).ok_or_else(malformed)?;
    let accepted = |s: &str| -> Option<bool> {
        let mut state = start;
        for byte in s.bytes() {
            let class = class_of[usize::from(byte)];
            if !(0..classes).contains(&class) {
                return None;
            }
            state = *next.get(usize::try_from(state.checked_mul(classes)?.checked_add(class)?).ok()?)?;
            if state < 0 {
                return Some(false);
            }
        }
        Some(*accepts.get(usize::try_from(state).ok()?)? != 0)
    };
    let found = strings(&o)?.iter().map(|s| accepted(s).ok_or_else(malformed)).collect::<Result<Vec<_>>>()?;
    one(flag_tensor(dims(&o)?.to_vec(), found.into_iter()))
}

/// At most `cuts` cuts; without a delimiter at runs of white space, of which those at the ends make no pieces.
fn cut<'a>(s: &'a str, delimiter: &str, cuts: usize) -> Vec<&'a str> {
    if s.is_empty() {
        return Vec::new();
    }
    if !delimiter.is_empty() {
        return s.splitn(cuts.saturating_add(1), delimiter).collect();
    }
    let (mut out, mut rest) = (Vec::new(), s.trim());
    while !rest.is_empty() {
        match rest.split_once(char::is_whitespace) {
            Some((word, tail)) if out.len() < cuts => {
                out.push(word);
                rest = tail.trim_start();
            }
            _ => {
                out.push(rest);
                break;
            }
        }
    }
    out
}

pub(super) fn split(c: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let cuts = usize::try_from(attr(c, 0)?).unwrap_or(usize::MAX);
    let delimiter = c.sattrs.first().map_or("", String::as_str);
    let pieces: Vec<Vec<&str>> = strings(&o)?.iter().map(|s| cut(s, delimiter, cuts)).collect();
    let width = pieces.iter().map(Vec::len).max().unwrap_or(0);
    let counts: Vec<i64> = pieces.iter().map(|p| p.len() as i64).collect();
    let mut shape = dims(&o)?.to_vec();
    let counts = Object::Tensor(Tensor::of_i64(shape.clone(), &counts));
    shape.push(width as i64);
    let fill =
        |p: &Vec<&str>| (0..width).map(|i| p.get(i).map_or(String::new(), |s| (*s).to_owned())).collect();
    let data = pieces.iter().flat_map(|p| -> Vec<String> { fill(p) }).collect();
    Ok(vec![Arc::new(Object::Strings { dims: shape, data }), Arc::new(counts)])
}

pub(super) fn normalize(c: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let (case, sensitive) = (attr(c, 0)?, attr(c, 1)? != 0);
    let fold = |s: &str| if sensitive { s.to_owned() } else { s.to_lowercase() };
    let stop: Vec<String> = c.sattrs.iter().map(|s| fold(s)).collect();
    let change = |s: &String| match case {
        1 => s.to_lowercase(),
        2 => s.to_uppercase(),
        _ => s.clone(),
    };
    let mut data: Vec<String> =
        strings(&o)?.iter().filter(|s| !stop.contains(&fold(s))).map(change).collect();
    if data.is_empty() {
        data.push(String::new());
    }
    let n = data.len() as i64;
    one(Object::Strings { dims: if dims(&o)?.len() == 2 { vec![1, n] } else { vec![n] }, data })
}

pub(super) fn equal(_: &Call, mut args: Vec<Input>) -> Values {
    let (a, b) = (object(&mut args, 0)?, object(&mut args, 1)?);
    let shape = broadcast_dims(dims(&a)?, dims(&b)?)?;
    let (p, q) = (broadcast(dims(&a)?, &shape)?, broadcast(dims(&b)?, &shape)?);
    let (x, y) = (strings(&a)?, strings(&b)?);
    one(flag_tensor(shape, p.iter().zip(&q).map(|(&i, &j)| x[i] == y[j])))
}

pub(super) fn choose(_: &Call, mut args: Vec<Input>) -> Values {
    let (c, a, b) = (ints_of(&mut args, 0)?, object(&mut args, 1)?, object(&mut args, 2)?);
    let shape = broadcast_dims(&broadcast_dims(&c.0, dims(&a)?)?, dims(&b)?)?;
    let (r, p, q) = (broadcast(&c.0, &shape)?, broadcast(dims(&a)?, &shape)?, broadcast(dims(&b)?, &shape)?);
    let (x, y) = (strings(&a)?, strings(&b)?);
    let data = (0..r.len()).map(|k| if c.1[r[k]] != 0 { x[p[k]].clone() } else { y[q[k]].clone() }).collect();
    one(Object::Strings { dims: shape, data })
}

fn ints_of(args: &mut [Input], i: usize) -> Result<(Vec<i64>, Vec<i64>)> {
    let o = object(args, i)?;
    let shape = dims(&o)?.to_vec();
    match Elems::of(&o)? {
        Elems::Ints(v) => Ok((shape, v.into_iter().map(|x| x as i64).collect())),
        _ => fail!(Data, "integers are needed"),
    }
}

pub(super) fn take(_: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let (shape, at) = ints_of(&mut args, 1)?;
    // Negative positions count from the end.
    let n = elements(dims(&o)?).and_then(|n| i64::try_from(n).ok()).unwrap_or(0);
    let place = |p: i64| usize::try_from(if p < 0 { p.saturating_add(n) } else { p }).unwrap_or(usize::MAX);
    let at: Vec<usize> = at.into_iter().map(place).collect();
    one(pick(&o, shape, &at)?)
}

pub(super) fn reshape(_: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let mut shape = Vec::new();
    for a in &args[1..] {
        match a {
            Input::Scalar(d) => shape.push(*d),
            Input::Object(_) => fail!(Program, "a dim must be a number"),
        }
    }
    let n = elements(dims(&o)?).unwrap_or(0);
    let all: Vec<usize> = (0..n as usize).collect();
    one(pick(&o, shape, &all)?)
}

/// Joins values along an axis.
pub(super) fn join(items: &[Arc<Object>], axis: usize) -> Result<Object> {
    let Some(first) = items.first() else { fail!(Data, "nothing to concatenate") };
    let mut shape = dims(first)?.to_vec();
    let (before, ..) = around(&shape, axis)?;
    shape[axis] = 0;
    let mut parts = Vec::with_capacity(items.len());
    for o in items {
        let d = dims(o)?;
        let fits =
            d.len() == shape.len() && d.iter().zip(&shape).enumerate().all(|(k, (a, b))| k == axis || a == b);
        let same = match (&**first, &**o) {
            (Object::Tensor(a), Object::Tensor(b)) => a.dtype == b.dtype,
            (Object::Strings { .. }, Object::Strings { .. }) => true,
            _ => false,
        };
        if !fits || !same {
            fail!(Data, "items of different shapes or types cannot be concatenated");
        }
        shape[axis] += d[axis];
        let (_, n, after) = around(d, axis)?;
        parts.push(n * after);
    }
    match &**first {
        Object::Strings { .. } => {
            let mut data = Vec::new();
            for b in 0..before {
                for (o, &n) in items.iter().zip(&parts) {
                    data.extend_from_slice(&strings(o)?[b * n..(b + 1) * n]);
                }
            }
            Ok(Object::Strings { dims: shape, data })
        }
        Object::Tensor(t) => {
            let size = t.dtype.size();
            let mut data = Vec::new();
            for b in 0..before {
                for (o, &n) in items.iter().zip(&parts) {
                    if let Object::Tensor(t) = &**o {
                        data.extend_from_slice(&t.data[b * n * size..(b + 1) * n * size]);
                    }
                }
            }
            Ok(Object::Tensor(Tensor { dtype: t.dtype, dims: shape, data }))
        }
        _ => fail!(Data, "a tensor is needed"),
    }
}

pub(super) fn concat_axis(c: &Call, mut args: Vec<Input>) -> Values {
    let items = (0..args.len()).map(|i| object(&mut args, i)).collect::<Result<Vec<_>>>()?;
    let Ok(axis) = usize::try_from(attr(c, 0)?) else { fail!(Program, "a negative axis") };
    one(join(&items, axis)?)
}

/// A float as ONNX prints it: the shortest decimal that reads back, NaN and INF in words.
fn print(f: f64, single: bool) -> String {
    if f.is_nan() {
        return "NaN".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "INF".into() } else { "-INF".into() };
    }
    let text = if single { (f as f32).to_string() } else { f.to_string() };
    if text.len() > 17 { format!("{f:e}") } else { text }
}

pub(super) fn cast(c: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let Some(to) = u32::try_from(attr(c, 0)?).ok().and_then(DType::from_code) else {
        fail!(Program, "an unknown element type")
    };
    let shape = dims(&o)?.to_vec();
    if to == DType::String {
        let (single, boolean) = match &*o {
            Object::Tensor(t) => (t.dtype != DType::F64, t.dtype == DType::Bool),
            _ => (false, false),
        };
        let data = match Elems::of(&o)? {
            Elems::Floats(v) => v.into_iter().map(|f| print(f, single)).collect(),
            Elems::Ints(v) if boolean => v.into_iter().map(|i| (i != 0).to_string()).collect(),
            Elems::Ints(v) => v.into_iter().map(super::elems::show).collect(),
            Elems::Strings(v) => v,
        };
        return one(Object::Strings { dims: shape, data });
    }
    let mut data = Vec::new();
    for s in strings(&o)? {
        match parse(s.trim(), to) {
            Some(bytes) => data.extend_from_slice(&bytes),
            None => fail!(Data, "the string {s:?} is no {to}"),
        }
    }
    one(Object::Tensor(Tensor { dtype: to, dims: shape, data }))
}

/// The bytes of a number in a string.
fn parse(s: &str, to: DType) -> Option<Vec<u8>> {
    macro_rules! int {
        ($t:ty) => {
            (super::elems::parse(s)? as $t).to_le_bytes().to_vec()
        };
    }
    Some(match to {
        DType::F32 => s.parse::<f32>().ok()?.to_le_bytes().to_vec(),
        DType::F64 => s.parse::<f64>().ok()?.to_le_bytes().to_vec(),
        DType::Bool => vec![!matches!(s, "" | "0" | "false" | "False") as u8],
        DType::I8 => int!(i8),
        DType::U8 => int!(u8),
        DType::I16 => int!(i16),
        DType::U16 => int!(u16),
        DType::I32 => int!(i32),
        DType::U32 => int!(u32),
        DType::I64 => int!(i64),
        DType::U64 => int!(u64),
        _ => return None,
    })
}

pub(super) fn label_encode(_: &Call, mut args: Vec<Input>) -> Values {
    let [x, keys, values, default] = [0, 1, 2, 3].map(|i| object(&mut args, i));
    let (x, keys, values, default) = (x?, keys?, values?, default?);
    let (from, table) = (Elems::of(&x)?, Elems::of(&keys)?);
    let n = table.len();
    if elements(dims(&values)?) != Some(n as u64) || elements(dims(&default)?) != Some(1) {
        fail!(Data, "keys, values and default of a label encoder do not fit");
    }
    // The default stands behind the values, for what has no key.
    let flat = |o: &Arc<Object>, n: usize| pick(o, vec![n as i64], &(0..n).collect::<Vec<_>>()).map(Arc::new);
    let all = join(&[flat(&values, n)?, flat(&default, 1)?], 0)?;
    let at: Vec<usize> =
        (0..from.len()).map(|i| (0..n).find(|&k| from.same(i, &table, k)).unwrap_or(n)).collect();
    one(pick(&all, dims(&x)?.to_vec(), &at)?)
}

/// An item of a sequence whose n-grams are counted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Int(Wide),
    Text(String),
}

fn items(o: &Object) -> Result<Vec<Item>> {
    Ok(match Elems::of(o)? {
        Elems::Ints(v) => v.into_iter().map(Item::Int).collect(),
        Elems::Strings(v) => v.into_iter().map(Item::Text).collect(),
        Elems::Floats(_) => fail!(Data, "integers or strings are needed"),
    })
}

pub(super) fn tf_idf(c: &Call, mut args: Vec<Input>) -> Values {
    let (x, pool) = (object(&mut args, 0)?, object(&mut args, 1)?);
    let (mode, shortest, longest, skip) = (attr(c, 0)?, attr(c, 1)?, attr(c, 2)?, attr(c, 3)?);
    let count = attr(c, 4)?.max(0) as usize;
    let (starts, columns) = match (c.attrs.get(5..5 + count), c.attrs.get(5 + count..)) {
        (Some(s), Some(c)) => (s, c),
        _ => fail!(Program, "attributes of n-grams are missing"),
    };
    let pool = items(&pool)?;
    let mut grams: BTreeMap<&[Item], usize> = BTreeMap::new();
    let mut number = 0;
    for (i, &start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).copied().unwrap_or(pool.len() as i64);
        let Some(part) = pool.get(start.max(0) as usize..end.max(0) as usize) else {
            fail!(Data, "the pool of n-grams does not fit its starts")
        };
        for gram in part.chunks(i + 1) {
            grams.entry(gram).or_insert(number);
            number += 1;
        }
    }
    if number != columns.len() || (!c.fattrs.is_empty() && c.fattrs.len() != number) {
        fail!(Data, "{number} n-grams, but {} columns and {} weights", columns.len(), c.fattrs.len());
    }
    let width = columns.iter().max().map_or(0, |&m| m.max(-1) + 1) as usize;
    let shape = dims(&x)?;
    let (rows, length) = match *shape {
        [n, c] => (n as usize, c as usize),
        [c] => (1, c as usize),
        _ => (1, 1),
    };
    let x = items(&x)?;
    let mut out = vec![0f32; rows * width];
    for r in 0..rows {
        let row = &x[r * length..(r + 1) * length];
        let mut counts = vec![0u64; number];
        for n in shortest.max(1)..=longest.min(length as i64) {
            let n = n as usize;
            // A single item has no neighbours, so it is counted once however many may be left out.
            let strides = if n == 1 { 1 } else { skip.clamp(0, length as i64) as usize + 1 };
            for step in 1..=strides {
                for from in 0..length.saturating_sub((n - 1) * step) {
                    let gram: Vec<Item> = (0..n).map(|k| row[from + k * step].clone()).collect();
                    if let Some(&g) = grams.get(gram.as_slice()) {
                        counts[g] += 1;
                    }
                }
            }
        }
        for (g, &count) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            let w = c.fattrs.get(g).copied().unwrap_or(1.0);
            let Ok(column) = usize::try_from(columns[g]) else { fail!(Data, "a negative column") };
            out[r * width + column] += match mode {
                0 => count as f32,
                1 => w as f32,
                _ => (count as f64 * w) as f32,
            };
        }
    }
    let dims = if shape.len() == 2 { vec![rows as i64, width as i64] } else { vec![width as i64] };
    let data = out.iter().flat_map(|v| v.to_le_bytes()).collect();
    one(Object::Tensor(Tensor { dtype: DType::F32, dims, data }))
}
