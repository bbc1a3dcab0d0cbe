//! Functions whose results depend on an order or on which elements there are.
use super::elems::{Elems, around, dims, pick};
use super::{Input, Values, attr, ints, object, one};
use crate::error::{Result, fail};
use crate::object::{Object, Tensor};
use crate::plan::Call;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

fn axis_of(c: &Call, i: usize, rank: usize) -> Result<Option<usize>> {
    match attr(c, i)? {
        a if a < 0 => Ok(None),
        a if (a as usize) < rank => Ok(Some(a as usize)),
        a => fail!(Data, "axis {a} of a tensor of rank {rank}"),
    }
}

/// The value as a vector, if no axis is given.
fn along(o: Arc<Object>, axis: Option<usize>) -> Result<(Arc<Object>, usize)> {
    if let Some(a) = axis {
        return Ok((o, a));
    }
    let flat = match Arc::unwrap_or_clone(o) {
        Object::Tensor(t) => Object::Tensor(Tensor { dims: vec![t.len() as i64], ..t }),
        Object::Strings { data, .. } => Object::Strings { dims: vec![data.len() as i64], data },
        _ => fail!(Data, "a tensor is needed"),
    };
    Ok((Arc::new(flat), 0))
}

fn list(v: Vec<i64>) -> Arc<Object> {
    Arc::new(Object::Tensor(Tensor::of_i64(vec![v.len() as i64], &v)))
}

pub(super) fn shape_of(_: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    Ok(vec![list(dims(&o)?.to_vec())])
}

/// The executor draws by itself: it has the stream.
pub(super) fn random(_: &Call, _: Vec<Input>) -> Values {
    fail!(Program, "random numbers come from a session")
}

pub(super) fn nonzero(_: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let at: Vec<i64> = match Elems::of(&o)? {
        Elems::Floats(v) => (0..v.len()).filter(|&i| v[i] != 0.0).map(|i| i as i64).collect(),
        Elems::Ints(v) => (0..v.len()).filter(|&i| v[i] != 0).map(|i| i as i64).collect(),
        Elems::Strings(_) => fail!(Data, "strings are not compared with 0"),
    };
    let shape = dims(&o)?;
    let mut out = Vec::with_capacity(at.len() * shape.len());
    for k in 0..shape.len() {
        let step: i64 = shape[k + 1..].iter().product();
        out.extend(at.iter().map(|p| p / step % shape[k]));
    }
    one(Object::Tensor(Tensor::of_i64(vec![shape.len() as i64, at.len() as i64], &out)))
}

pub(super) fn top_k(c: &Call, mut args: Vec<Input>) -> Values {
    let (o, k) = (object(&mut args, 0)?, ints(&mut args, 1)?);
    let shape = dims(&o)?;
    let Some(axis) = axis_of(c, 0, shape.len())? else { fail!(Data, "an axis is needed") };
    let (before, n, after) = around(shape, axis)?;
    let k = match k.first().and_then(|&k| usize::try_from(k).ok()) {
        Some(k) if k <= n => k,
        _ => fail!(Data, "the {k:?} best of an axis of size {n}"),
    };
    let largest = attr(c, 1)? != 0;
    let e = Elems::of(&o)?;
    let mut positions = vec![0usize; before * k * after];
    let mut index = vec![0i64; before * k * after];
    let mut order: Vec<usize> = Vec::with_capacity(n);
    for b in 0..before {
        for a in 0..after {
            let at = |i: usize| (b * n + i) * after + a;
            let better = |i: &usize, j: &usize| {
                let o = e.compare(at(*i), at(*j));
                (if largest { o.reverse() } else { o }).then(i.cmp(j))
            };
            order.clear();
            order.extend(0..n);
            if k > 0 && k < n {
                order.select_nth_unstable_by(k - 1, better);
            }
            order[..k].sort_unstable_by(better);
            for (r, &i) in order[..k].iter().enumerate() {
                let to = (b * k + r) * after + a;
                (positions[to], index[to]) = (at(i), i as i64);
            }
        }
    }
    let mut shape = shape.to_vec();
    shape[axis] = k as i64;
    let values = pick(&o, shape.clone(), &positions)?;
    Ok(vec![Arc::new(values), Arc::new(Object::Tensor(Tensor::of_i64(shape, &index)))])
}

pub(super) fn unique(c: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let axis = axis_of(c, 0, dims(&o)?.len())?;
    let (o, axis) = along(o, axis)?;
    let shape = dims(&o)?;
    let (before, n, after) = around(shape, axis)?;
    let e = Elems::of(&o)?;
    let compare = |a: usize, b: usize| {
        let pairs = (0..before).flat_map(|i| (0..after).map(move |j| (i, j)));
        let mut orders = pairs.map(|(i, j)| e.compare((i * n + a) * after + j, (i * n + b) * after + j));
        orders.find(|o| *o != Ordering::Equal).unwrap_or(Ordering::Equal)
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_unstable_by(|&a, &b| compare(a, b).then(a.cmp(&b)));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match groups.last_mut() {
            Some(g) if compare(g[0], i) == Ordering::Equal => g.push(i),
            _ => groups.push(vec![i]),
        }
    }
    if attr(c, 1)? == 0 {
        groups.sort_unstable_by_key(|g| g[0]);
    }
    let mut inverse = vec![0; n];
    for (g, members) in groups.iter().enumerate() {
        members.iter().for_each(|&m| inverse[m] = g as i64);
    }
    let firsts: Vec<usize> = groups.iter().map(|g| g[0]).collect();
    let counts = groups.iter().map(|g| g.len() as i64).collect();
    let values = slices(&o, shape, axis, &firsts)?;
    let firsts = firsts.into_iter().map(|f| f as i64).collect();
    Ok(vec![Arc::new(values), list(firsts), list(inverse), list(counts)])
}

/// The slices with these numbers along an axis.
fn slices(o: &Object, shape: &[i64], axis: usize, which: &[usize]) -> Result<Object> {
    let (before, n, after) = around(shape, axis)?;
    let mut positions = Vec::with_capacity(before * which.len() * after);
    for b in 0..before {
        for &w in which {
            positions.extend((0..after).map(|a| (b * n + w) * after + a));
        }
    }
    let mut shape = shape.to_vec();
    shape[axis] = which.len() as i64;
    pick(o, shape, &positions)
}

pub(super) fn compress(c: &Call, mut args: Vec<Input>) -> Values {
    let (o, cond) = (object(&mut args, 0)?, ints(&mut args, 1)?);
    let axis = axis_of(c, 0, dims(&o)?.len())?;
    let (o, axis) = along(o, axis)?;
    let shape = dims(&o)?;
    let (_, n, _) = around(shape, axis)?;
    let which: Vec<usize> = (0..cond.len()).filter(|&i| cond[i] != 0).collect();
    if which.last().is_some_and(|&w| w >= n) {
        fail!(Data, "the condition is longer than the axis of size {n}");
    }
    one(slices(&o, shape, axis, &which)?)
}

/// A number that may be absent or a tensor of one element.
fn number(args: &mut [Input], i: usize, default: f64) -> Result<f64> {
    if i >= args.len() {
        return Ok(default);
    }
    Ok(match Elems::of(&*object(args, i)?)? {
        Elems::Floats(v) => v.first().copied().unwrap_or(default),
        Elems::Ints(v) => v.first().map_or(default, |&x| x as i64 as f64),
        Elems::Strings(_) => fail!(Data, "a number is needed"),
    })
}

pub(super) fn nms(c: &Call, mut args: Vec<Input>) -> Values {
    let (boxes, scores) = (object(&mut args, 0)?, object(&mut args, 1)?);
    let most = number(&mut args, 2, 0.0)?;
    let overlap = number(&mut args, 3, 0.0)?;
    let least = number(&mut args, 4, f64::NEG_INFINITY)?;
    let (&[batches, n, 4], &[batches2, classes, n2]) = (dims(&boxes)?, dims(&scores)?) else {
        fail!(Data, "boxes of shape {:?} and scores of shape {:?}", dims(&boxes)?, dims(&scores)?)
    };
    if batches != batches2 || n != n2 {
        fail!(Data, "boxes of shape {:?} and scores of shape {:?}", dims(&boxes)?, dims(&scores)?);
    }
    let (Elems::Floats(b), Elems::Floats(s)) = (Elems::of(&boxes)?, Elems::of(&scores)?) else {
        fail!(Data, "boxes and scores must be floats")
    };
    let centered = attr(c, 0)? != 0;
    let (n, classes) = (n as usize, classes as usize);
    // Corners with the smaller coordinate first, in the single precision of the inputs.
    let corners = |i: usize| {
        let v = [b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]].map(|x| x as f32);
        if centered {
            let [x, y, w, h] = v;
            [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]
        } else {
            let [y1, x1, y2, x2] = v;
            [y1.min(y2), x1.min(x2), y1.max(y2), x1.max(x2)]
        }
    };
    let ratio = |p: [f32; 4], q: [f32; 4]| {
        let width = p[2].min(q[2]) - p[0].max(q[0]);
        let height = p[3].min(q[3]) - p[1].max(q[1]);
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        let common = width * height;
        let area = |r: [f32; 4]| (r[2] - r[0]) * (r[3] - r[1]);
        let union = area(p) + area(q) - common;
        if union <= 0.0 { 0.0 } else { common / union }
    };
    let mut out: Vec<i64> = Vec::new();
    for batch in 0..batches as usize {
        for class in 0..classes {
            let score = |i: usize| s[(batch * classes + class) * n + i];
            let mut order: Vec<usize> = (0..n).filter(|&i| score(i) > least).collect();
            order
                .sort_by(|&i, &j| score(j).partial_cmp(&score(i)).unwrap_or(Ordering::Equal).then(i.cmp(&j)));
            let mut kept: Vec<[f32; 4]> = Vec::new();
            for i in order {
                if kept.len() as f64 >= most {
                    break;
                }
                let r = corners(batch * n + i);
                if kept.iter().all(|&k| f64::from(ratio(k, r)) <= overlap) {
                    kept.push(r);
                    out.extend([batch as i64, class as i64, i as i64]);
                }
            }
        }
    }
    one(Object::Tensor(Tensor::of_i64(vec![(out.len() / 3) as i64, 3], &out)))
}
