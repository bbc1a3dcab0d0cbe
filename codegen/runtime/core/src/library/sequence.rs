//! Functions on sequences and optionals.
use super::elems::{around, dims, pick};
use super::strings::join;
use super::{Input, Values, attr, axis_attr, flag_tensor, ints, items_of, object, one, position};
use crate::error::{Result, fail};
use crate::object::{Object, Tensor};
use crate::plan::Call;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

pub(super) fn construct(_: &Call, mut args: Vec<Input>) -> Values {
    let items = (0..args.len()).map(|i| object(&mut args, i)).collect::<Result<_>>()?;
    one(Object::Sequence(items))
}

pub(super) fn insert(_: &Call, mut args: Vec<Input>) -> Values {
    let mut s = items_of(&mut args, 0)?;
    let value = object(&mut args, 1)?;
    let at = if args.len() > 2 { position(&mut args, 2, s.len(), s.len() + 1)? } else { s.len() };
    s.insert(at, value);
    one(Object::Sequence(s))
}

pub(super) fn erase(_: &Call, mut args: Vec<Input>) -> Values {
    let mut s = items_of(&mut args, 0)?;
    let at = match args.len() {
        0 | 1 if s.is_empty() => fail!(Data, "an element of an empty sequence is erased"),
        0 | 1 => s.len() - 1,
        _ => position(&mut args, 1, s.len(), s.len())?,
    };
    s.remove(at);
    one(Object::Sequence(s))
}

pub(super) fn at(_: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let Object::Sequence(s) = &*o else { fail!(Program, "argument 0 is no sequence") };
    let at = position(&mut args, 1, s.len(), s.len())?;
    Ok(vec![s[at].clone()])
}

pub(super) fn length(_: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let Object::Sequence(s) = &*o else { fail!(Program, "argument 0 is no sequence") };
    one(Object::Tensor(Tensor::of_i64(vec![], &[s.len() as i64])))
}

pub(super) fn optional(_: &Call, mut args: Vec<Input>) -> Values {
    let value = if args.is_empty() { None } else { Some(object(&mut args, 0)?) };
    one(Object::Optional(value))
}

pub(super) fn get(_: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    match &*o {
        Object::Optional(Some(v)) => Ok(vec![v.clone()]),
        Object::Optional(None) => fail!(Data, "the value of an empty optional is needed"),
        _ => Ok(vec![o]),
    }
}

pub(super) fn has(_: &Call, mut args: Vec<Input>) -> Values {
    let has = !args.is_empty() && !matches!(&*object(&mut args, 0)?, Object::Optional(None));
    one(flag_tensor(vec![], core::iter::once(has)))
}

pub(super) fn concat(c: &Call, mut args: Vec<Input>) -> Values {
    let items = items_of(&mut args, 0)?;
    let new = attr(c, 1)? != 0;
    let Some(first) = items.first() else { fail!(Data, "an empty sequence has nothing to concatenate") };
    let axis = axis_attr(c, 0, dims(first)?.len() + usize::from(new))?;
    if !new {
        return one(join(&items, axis)?);
    }
    let widened = items.into_iter().map(|o| {
        let mut shape = dims(&o)?.to_vec();
        if axis > shape.len() {
            fail!(Data, "items of different ranks cannot be concatenated");
        }
        shape.insert(axis, 1);
        Ok(Arc::new(match Arc::unwrap_or_clone(o) {
            Object::Tensor(t) => Object::Tensor(Tensor { dims: shape, ..t }),
            Object::Strings { data, .. } => Object::Strings { dims: shape, data },
            other => other,
        }))
    });
    one(join(&widened.collect::<Result<Vec<_>>>()?, axis)?)
}

pub(super) fn split(c: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let shape = dims(&o)?.to_vec();
    let axis = axis_attr(c, 0, shape.len())?;
    let (before, n, after) = around(&shape, axis)?;
    let sized = args.len() > 1;
    let scalar = match args.get(1) {
        Some(Input::Object(s)) => dims(s)?.is_empty(),
        _ => true,
    };
    let sizes: Vec<usize> = if sized {
        let given =
            ints(&mut args, 1)?.into_iter().map(|v| usize::try_from(v).ok()).collect::<Option<Vec<_>>>();
        let Some(given) = given else { fail!(Data, "a size is negative") };
        match given[..] {
            [0] if scalar => fail!(Data, "pieces of size 0"),
            [k] if scalar => (0..n.div_ceil(k)).map(|i| (n - i * k).min(k)).collect(),
            _ => given,
        }
    } else {
        vec![1; n]
    };
    if sizes.iter().try_fold(0usize, |s, v| s.checked_add(*v)) != Some(n) {
        fail!(Data, "sizes {sizes:?} do not add up to {n}");
    }
    let drop_axis = !sized && attr(c, 1)? == 0;
    let (mut items, mut start) = (Vec::with_capacity(sizes.len()), 0);
    for size in sizes {
        let at: Vec<usize> =
            (0..before).flat_map(|b| (b * n + start) * after..(b * n + start + size) * after).collect();
        let mut shape = shape.clone();
        shape[axis] = size as i64;
        if drop_axis {
            shape.remove(axis);
        }
        items.push(Arc::new(pick(&o, shape, &at)?));
        start += size;
    }
    one(Object::Sequence(items))
}
