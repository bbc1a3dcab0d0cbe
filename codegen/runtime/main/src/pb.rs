//! ONNX values in protobuf files: `TensorProto`, `SequenceProto`, `OptionalProto`, `MapProto`.
use crate::files::{Result, input};
use planish_rt::object::elements;
use planish_rt::plan::ValueType;
use planish_rt::{DType, Object, Tensor};
use std::sync::Arc;

/// A field of a message.
enum Field<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// 32 or 64 bits.
    Fixed(&'a [u8]),
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut v = 0;
        for shift in (0..64).step_by(7) {
            let (&b, rest) = self.0.split_first()?;
            self.0 = rest;
            v |= u64::from(b & 0x7f) << shift;
            if b & 0x80 == 0 {
                return Some(v);
            }
        }
        None
    }

    fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(usize::try_from(n).ok()?)?;
        self.0 = rest;
        Some(head)
    }

    /// The next field with its number; `Some(None)` at the end.
    #[allow(clippy::type_complexity)]
    fn next(&mut self) -> Option<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let f = match tag & 7 {
            0 => Field::Int(self.varint()?),
            1 => Field::Fixed(self.take(8)?),
            2 => {
                let n = self.varint()?;
                Field::Bytes(self.take(n)?)
            }
            5 => Field::Fixed(self.take(4)?),
            _ => return None,
        };
        Some(Some((tag >> 3, f)))
    }
}

fn malformed<T>() -> Result<T> {
    input("not an ONNX value in protobuf form")
}

/// Calls `f` for each field of a message.
fn each<'a>(bytes: &'a [u8], mut f: impl FnMut(u64, Field<'a>) -> Result<()>) -> Result<()> {
    let mut fields = Fields(bytes);
    loop {
        match fields.next() {
            Some(Some((n, v))) => f(n, v)?,
            Some(None) => return Ok(()),
            None => return malformed(),
        }
    }
}

/// Appends the integers of a repeated field, packed or not.
fn ints(f: Field<'_>, out: &mut Vec<u64>) -> Result<()> {
    match f {
        Field::Int(v) => out.push(v),
        Field::Bytes(b) => {
            let mut r = Fields(b);
            while !r.0.is_empty() {
                match r.varint() {
                    Some(v) => out.push(v),
                    None => return malformed(),
                }
            }
        }
        Field::Fixed(_) => return malformed(),
    }
    Ok(())
}

/// The value of type `ty` in the bytes of a file.
pub fn read(bytes: &[u8], ty: &ValueType) -> Result<Object> {
    match ty {
        ValueType::Tensor(d) => tensor(bytes, Some(*d)),
        ValueType::Sequence(item) => sequence(bytes, item),
        ValueType::Optional(item) => optional(bytes, item),
        ValueType::Map(k, v) => map(bytes, *k, v),
    }
}

fn sequence(bytes: &[u8], item: &ValueType) -> Result<Object> {
    let wanted = element_code(item) + 2;
    let mut items = Vec::new();
    each(bytes, |n, f| {
        match (n, f) {
            (3..=7, Field::Bytes(b)) if n == wanted => items.push(Arc::new(read(b, item)?)),
            (3..=7, Field::Bytes(_)) => return input(format!("a sequence of {item} is needed")),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Object::Sequence(items))
}

fn optional(bytes: &[u8], item: &ValueType) -> Result<Object> {
    let wanted = element_code(item) + 2;
    let mut value = None;
    each(bytes, |n, f| {
        match (n, f) {
            (3..=7, Field::Bytes(b)) if n == wanted => value = Some(Arc::new(read(b, item)?)),
            (3..=7, Field::Bytes(_)) => return input(format!("an optional of {item} is needed")),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Object::Optional(value))
}

fn map(bytes: &[u8], key: DType, value: &ValueType) -> Result<Object> {
    let (mut numbers, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
    each(bytes, |n, f| {
        match (n, f) {
            (3, f) => ints(f, &mut numbers)?,
            (4, Field::Bytes(b)) => names.push(text(b)?),
            (5, Field::Bytes(b)) => {
                let Object::Sequence(v) = sequence(b, value)? else { return malformed() };
                values = v;
            }
            _ => {}
        }
        Ok(())
    })?;
    let keys = if key == DType::String {
        Object::Strings { dims: vec![names.len() as i64], data: names }
    } else {
        let data = numbers.iter().flat_map(|v| v.to_le_bytes()[..key.size().min(8)].to_vec()).collect();
        Object::Tensor(Tensor { dtype: key, dims: vec![numbers.len() as i64], data })
    };
    if keys.dims() != Some(&[values.len() as i64][..]) {
        return input("a map has different numbers of keys and values");
    }
    Ok(Object::Map { keys: Arc::new(keys), values: Arc::new(Object::Sequence(values)) })
}

fn text(b: &[u8]) -> Result<String> {
    match std::str::from_utf8(b) {
        Ok(s) => Ok(s.to_owned()),
        Err(_) => input("a string is not UTF-8"),
    }
}

/// Elements of one type that share a byte.
fn per_byte(d: DType) -> usize {
    match d {
        DType::U4 | DType::I4 | DType::F4E2M1 => 2,
        DType::U2 | DType::I2 => 4,
        _ => 1,
    }
}

/// One element a byte from packed ones, the lowest bits first; signed types are extended.
fn unpack(raw: &[u8], d: DType, n: usize) -> Vec<u8> {
    let each = per_byte(d);
    let bits = 8 / each;
    let one = |i: usize| {
        let v = raw[i / each] >> (bits * (i % each)) & ((1u16 << bits) - 1) as u8;
        if matches!(d, DType::I4 | DType::I2) { ((v << (8 - bits)) as i8 >> (8 - bits)) as u8 } else { v }
    };
    (0..n).map(one).collect()
}

/// The value of a `TensorProto`, of element type `want` if that is given.
pub fn tensor(bytes: &[u8], want: Option<DType>) -> Result<Object> {
    let (mut dims, mut code, mut raw) = (Vec::new(), 0, None);
    let (mut words, mut fixed, mut strings, mut outside) = (Vec::new(), Vec::new(), Vec::new(), false);
    each(bytes, |n, f| {
        match (n, f) {
            (1, f) => ints(f, &mut dims)?,
            (2, Field::Int(v)) => code = v,
            (4 | 10, Field::Bytes(b) | Field::Fixed(b)) => fixed.extend_from_slice(b),
            (5 | 7 | 11, f) => ints(f, &mut words)?,
            (6, Field::Bytes(b)) => strings.push(text(b)?),
            (9, Field::Bytes(b)) => raw = Some(b),
            (14, Field::Int(v)) => outside = v == 1,
            _ => {}
        }
        Ok(())
    })?;
    let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
    let Some(dtype) = u32::try_from(code).ok().and_then(DType::from_code) else {
        return input(format!("element type {code} is unknown"));
    };
    if let Some(w) = want.filter(|w| *w != dtype) {
        return input(format!("the tensor is of type {dtype}, but {w} is needed"));
    }
    if outside {
        return input("the tensor's data are in another file");
    }
    // Data must be in this file, so more elements than 4 a byte (and none without bytes) cannot be right.
    let n =
        elements(&dims).and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= bytes.len().saturating_mul(4));
    let Some(n) = n else { return input(format!("the shape {dims:?} does not fit the file")) };
    let count = |have: usize, need: usize| {
        if have == need {
            Ok(())
        } else {
            input(format!("the shape {dims:?} needs {need} values or bytes, there are {have}"))
        }
    };
    if dtype == DType::String {
        count(strings.len(), n)?;
        return Ok(Object::Strings { dims, data: strings });
    }
    let packed = n.div_ceil(per_byte(dtype));
    let data = match raw {
        Some(raw) => {
            count(raw.len(), packed * dtype.size())?;
            if per_byte(dtype) > 1 { unpack(raw, dtype, n) } else { raw.to_vec() }
        }
        None if !fixed.is_empty()
            || matches!(dtype, DType::F32 | DType::F64 | DType::Complex64 | DType::Complex128) =>
        {
            count(fixed.len(), n * dtype.size())?;
            fixed
        }
        None => {
            count(words.len(), packed)?;
            let bytes: Vec<u8> =
                words.iter().flat_map(|w| w.to_le_bytes()[..dtype.size()].to_vec()).collect();
            if per_byte(dtype) > 1 { unpack(&bytes, dtype, n) } else { bytes }
        }
    };
    Ok(Object::Tensor(Tensor { dtype, dims, data }))
}

fn put_int(out: &mut Vec<u8>, field: u64, mut v: u64) {
    out.push((field << 3) as u8);
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_int(out, field, bytes.len() as u64);
    let at = out.len() - varint_len(bytes.len() as u64) - 1;
    out[at] |= 2;
    out.extend_from_slice(bytes);
}

fn varint_len(v: u64) -> usize {
    (64 - v.leading_zeros()).max(1).div_ceil(7) as usize
}

/// The number of a kind of value in `SequenceProto` and `OptionalProto`; its field is this + 2.
fn element_code(ty: &ValueType) -> u64 {
    match ty {
        ValueType::Tensor(_) => 1,
        ValueType::Sequence(_) => 3,
        ValueType::Map(..) => 4,
        ValueType::Optional(_) => 5,
    }
}

/// The protobuf form of a value of type `ty`; `name` is written where the form has one.
pub fn write(value: &Object, ty: &ValueType, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match (value, ty) {
        (Object::Tensor(t), _) => put_tensor(&mut out, t, name),
        (Object::Strings { dims, data }, _) => {
            dims.iter().for_each(|&d| put_int(&mut out, 1, d as u64));
            put_int(&mut out, 2, u64::from(DType::String.code()));
            data.iter().for_each(|s| put_bytes(&mut out, 6, s.as_bytes()));
            put_bytes(&mut out, 8, name.as_bytes());
        }
        (Object::Sequence(items), ValueType::Sequence(item)) => {
            put_bytes(&mut out, 1, name.as_bytes());
            put_int(&mut out, 2, element_code(item));
            items.iter().for_each(|v| put_bytes(&mut out, element_code(item) + 2, &write(v, item, "")));
        }
        (Object::Optional(v), ValueType::Optional(item)) => {
            put_bytes(&mut out, 1, name.as_bytes());
            put_int(&mut out, 2, element_code(item));
            if let Some(v) = v {
                put_bytes(&mut out, element_code(item) + 2, &write(v, item, ""));
            }
        }
        (Object::Map { keys, values }, ValueType::Map(k, item)) => {
            put_bytes(&mut out, 1, name.as_bytes());
            put_int(&mut out, 2, u64::from(k.code()));
            match &**keys {
                Object::Strings { data, .. } => {
                    data.iter().for_each(|s| put_bytes(&mut out, 4, s.as_bytes()))
                }
                Object::Tensor(t) => {
                    (0..t.len()).filter_map(|i| t.int(i)).for_each(|v| put_int(&mut out, 3, v as u64));
                }
                _ => {}
            }
            let list = ValueType::Sequence(item.clone());
            put_bytes(&mut out, 5, &write(&as_list(values), &list, ""));
        }
        // The executor gives values of the type of the port; an optional that holds a value may be it.
        (v, ValueType::Optional(item)) => {
            put_bytes(&mut out, 1, name.as_bytes());
            put_int(&mut out, 2, element_code(item));
            put_bytes(&mut out, element_code(item) + 2, &write(v, item, ""));
        }
        _ => {}
    }
    out
}

/// The values of a map as a sequence: a tensor of rank 1 is cut into scalars.
fn as_list(values: &Object) -> Object {
    match values {
        Object::Tensor(t) if t.dtype.size() > 0 => {
            let one = |c: &[u8]| {
                Arc::new(Object::Tensor(Tensor { dtype: t.dtype, dims: vec![], data: c.to_vec() }))
            };
            Object::Sequence(t.data.chunks_exact(t.dtype.size()).map(one).collect())
        }
        other => other.clone(),
    }
}

fn put_tensor(out: &mut Vec<u8>, t: &Tensor, name: &str) {
    t.dims.iter().for_each(|&d| put_int(out, 1, d as u64));
    put_int(out, 2, u64::from(t.dtype.code()));
    put_bytes(out, 8, name.as_bytes());
    let each = per_byte(t.dtype);
    if each == 1 {
        put_bytes(out, 9, &t.data);
        return;
    }
    let bits = 8 / each;
    let mask = ((1u16 << bits) - 1) as u8;
    let pack = |c: &[u8]| c.iter().enumerate().fold(0u8, |b, (i, v)| b | (v & mask) << (bits * i));
    put_bytes(out, 9, &t.data.chunks(each).map(pack).collect::<Vec<u8>>());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(v: &[f32]) -> Object {
        let data = v.iter().flat_map(|x| x.to_le_bytes()).collect();
        Object::Tensor(Tensor { dtype: DType::F32, dims: vec![v.len() as i64], data })
    }

    #[test]
    fn values_round_trip() {
        let t = ValueType::Tensor(DType::F32);
        let list = Object::Sequence(vec![Arc::new(f32s(&[1.0])), Arc::new(f32s(&[2.0, 3.0]))]);
        let seq = ValueType::Sequence(Box::new(t.clone()));
        let opt = ValueType::Optional(Box::new(seq.clone()));
        let strings = Object::Strings { dims: vec![1, 2], data: vec!["a".into(), "ü".into()] };
        let keys = Object::Strings { dims: vec![1], data: vec!["k".into()] };
        let map = Object::Map {
            keys: Arc::new(keys),
            values: Arc::new(Object::Sequence(vec![Arc::new(f32s(&[4.0]))])),
        };
        let map_ty = ValueType::Map(DType::String, Box::new(t.clone()));
        let nested = Object::Sequence(vec![Arc::new(map)]);
        let nested_ty = ValueType::Sequence(Box::new(map_ty));
        let cases = [
            (f32s(&[1.5, -2.0]), t),
            (f32s(&[0.0; 200]), ValueType::Tensor(DType::F32)),
            (list.clone(), seq),
            (Object::Optional(None), opt.clone()),
            (Object::Optional(Some(Arc::new(list))), opt),
            (strings, ValueType::Tensor(DType::String)),
            (nested, nested_ty),
        ];
        for (v, ty) in cases {
            let bytes = write(&v, &ty, "n");
            assert_eq!(read(&bytes, &ty).as_ref(), Ok(&v));
            for n in 0..bytes.len() {
                let _ = read(&bytes[..n], &ty);
            }
        }
    }

    #[test]
    fn packed_elements_take_a_byte_each_in_memory() {
        for (d, data) in [
            (DType::I4, vec![0xf9, 7, 0xff]),
            (DType::U4, vec![9, 7, 15]),
            (DType::I2, vec![0xfe, 1, 0, 0xff, 1]),
        ] {
            let t = Object::Tensor(Tensor { dtype: d, dims: vec![data.len() as i64], data });
            let bytes = write(&t, &ValueType::Tensor(d), "");
            assert_eq!(tensor(&bytes, Some(d)), Ok(t));
        }
    }

    #[test]
    fn typed_fields_are_read_and_lies_refused() {
        // dims [2], i32, int32_data packed [1, -1]
        let b = [0x08, 2, 0x10, 6, 0x2a, 11, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        let Ok(Object::Tensor(t)) = tensor(&b, None) else { panic!("reads") };
        assert_eq!((t.int(0), t.int(1)), (Some(1), Some(-1)));
        assert!(tensor(&b, Some(DType::F32)).is_err());
        let mut lie = b;
        lie[1] = 3;
        assert!(tensor(&lie, None).is_err());
        let huge = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x10, 1];
        assert!(tensor(&huge, None).is_err());
    }
}
