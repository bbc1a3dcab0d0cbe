//! Functions on maps.
use super::elems::{Elems, Wide, dims, pick};
use super::strings::join;
use super::{Input, Values, attr, object, one};
use crate::error::{Result, fail};
use crate::object::{Object, Tensor};
use crate::plan::Call;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

pub(super) fn zip(_: &Call, mut args: Vec<Input>) -> Values {
    let (x, keys) = (object(&mut args, 0)?, object(&mut args, 1)?);
    let (rows, width) = match *dims(&x)? {
        [n, c] => (n as usize, c as usize),
        [c] => (1, c as usize),
        _ => fail!(Data, "a matrix is needed"),
    };
    if *dims(&keys)? != [width as i64] {
        fail!(Data, "keys of shape {:?} for {width} columns", dims(&keys)?);
    }
    let row = |r: usize| {
        let at: Vec<usize> = (r * width..(r + 1) * width).collect();
        let values = Arc::new(pick(&x, vec![width as i64], &at)?);
        Ok(Arc::new(Object::Map { keys: keys.clone(), values }))
    };
    one(Object::Sequence((0..rows).map(row).collect::<Result<_>>()?))
}

/// The keys of a map, and its values as one vector.
fn parts(o: &Object) -> Result<(Elems, Arc<Object>)> {
    let Object::Map { keys, values } = o else { fail!(Data, "a map is needed") };
    let list = match &**values {
        Object::Sequence(items) if !items.is_empty() => {
            let flat =
                items.iter().map(|v| pick(v, vec![1], &[0]).map(Arc::new)).collect::<Result<Vec<_>>>()?;
            Arc::new(join(&flat, 0)?)
        }
        _ => values.clone(),
    };
    Ok((Elems::of(keys)?, list))
}

/// The values at some places as a matrix of one row; 0 or an empty string where there is none.
fn row(values: &Arc<Object>, at: &[Option<usize>]) -> Values {
    let missing = match &**values {
        Object::Tensor(t) => {
            Object::Tensor(Tensor { dtype: t.dtype, dims: vec![1], data: vec![0; t.dtype.size()] })
        }
        Object::Strings { .. } => Object::Strings { dims: vec![1], data: vec![String::new()] },
        _ => fail!(Data, "the values of the map must be scalars of one type"),
    };
    let n = dims(values)?.first().copied().unwrap_or(0) as usize;
    let all = join(&[values.clone(), Arc::new(missing)], 0)?;
    let at: Vec<usize> = at.iter().map(|p| p.unwrap_or(n)).collect();
    one(pick(&all, vec![1, at.len() as i64], &at)?)
}

pub(super) fn vectorize(_: &Call, mut args: Vec<Input>) -> Values {
    let (map, keys) = (object(&mut args, 0)?, object(&mut args, 1)?);
    let (have, values) = parts(&map)?;
    let wanted = Elems::of(&keys)?;
    let at: Vec<Option<usize>> =
        (0..wanted.len()).map(|i| (0..have.len()).find(|&k| wanted.same(i, &have, k))).collect();
    row(&values, &at)
}

pub(super) fn values(c: &Call, mut args: Vec<Input>) -> Values {
    let map = object(&mut args, 0)?;
    let (Elems::Ints(keys), values) = parts(&map)? else { fail!(Data, "a map from integers is needed") };
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&i| keys[i]);
    let at: Vec<Option<usize>> = match attr(c, 0)? {
        w if w < 0 => order.into_iter().map(Some).collect(),
        w => {
            if w > 1 << 30 || keys.iter().any(|&k| k >= Wide::from(w)) {
                fail!(Data, "a key beyond {w} columns");
            }
            let mut at = vec![None; w as usize];
            order.into_iter().filter(|&i| keys[i] >= 0).for_each(|i| at[keys[i] as usize] = Some(i));
            at
        }
    };
    row(&values, &at)
}
