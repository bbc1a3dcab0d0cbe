//! Recipes for operations that move elements.

use super::values::any_shape;
use super::{Domain, Item, Quality, Smith};
use planish_ir::DType;

/// A tensor of any type, for operations that do not look at the elements.
pub(crate) fn anything(s: &mut Smith, ok: impl Fn(&Item) -> bool) -> Item {
    let dtype = match s.rng.below(8) {
        0 => DType::Str,
        1 => s.rng.choose(DType::ALL),
        _ => super::elementwise::number_type(s),
    };
    s.some(&[dtype], ok, any_shape)
}

pub(crate) fn same(item: &Item) -> Quality {
    Quality { exact: item.exact, size: item.size }
}

/// A shape with as many elements: dims are split and merged, and ones put in.
pub(crate) fn refactored(s: &mut Smith, shape: &[usize]) -> Vec<usize> {
    let mut out: Vec<usize> = Vec::new();
    for d in shape {
        let divisors: Vec<usize> = (2..*d).filter(|k| d % k == 0).collect();
        match s.rng.below(4) {
            0 if !out.is_empty() => {
                if let Some(last) = out.last_mut() {
                    *last *= d;
                }
            }
            1 if !divisors.is_empty() => {
                let k = s.rng.choose(&divisors);
                out.extend([k, d / k]);
            }
            2 if out.len() < 4 => out.extend([1, *d]),
            _ => out.push(*d),
        }
    }
    out
}

pub(crate) fn reshape(s: &mut Smith) -> Option<Item> {
    let x = anything(s, |_| true);
    let target = refactored(s, &x.shape);
    let mut spec: Vec<i64> = target.iter().map(|d| *d as i64).collect();
    let allow_zero = target.contains(&0) || s.rng.one_in(4);
    if !target.is_empty() && !target.contains(&0) && s.rng.one_in(2) {
        let hole = s.rng.below(spec.len());
        spec[hole] = -1;
    }
    let spec = s.ints(&spec);
    let quality = same(&x);
    s.emit1("reshape", &[("allow_zero", allow_zero.to_string())], &[&x, &spec], quality)
}

/// A list of numbers as a field.
pub(crate) fn list(values: &[usize]) -> String {
    format!("[{}]", values.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))
}

fn has_axis(item: &Item) -> bool {
    item.rank() > 0
}

/// A tensor with at least one axis, and one of its axes.
fn with_axis(s: &mut Smith) -> Option<(Item, usize)> {
    let x = anything(s, has_axis);
    if x.rank() == 0 {
        return None;
    }
    let axis = s.rng.below(x.rank());
    Some((x, axis))
}

pub(crate) fn dims(s: &mut Smith) -> Option<Item> {
    let x = anything(s, |_| true);
    let end = if s.rng.one_in(2) { "none".to_owned() } else { s.rng.range(-4, 4).to_string() };
    let fields = [("start", s.rng.range(-2, 2).to_string()), ("end", end)];
    s.emit1("shape", &fields, &[&x], Quality { exact: true, size: 64.0 })
}

pub(crate) fn squeeze(s: &mut Smith) -> Option<Item> {
    let x = anything(s, |item| item.shape.contains(&1));
    let axes: Vec<usize> = (0..x.rank()).filter(|i| x.shape[*i] == 1 && s.rng.one_in(2)).collect();
    s.emit1("squeeze", &[("axes", list(&axes))], &[&x], same(&x))
}

pub(crate) fn unsqueeze(s: &mut Smith) -> Option<Item> {
    let x = anything(s, |item| item.rank() < 4);
    let rank = x.rank() + 1 + s.rng.below(2);
    let mut axes: Vec<usize> = (0..rank - x.rank()).map(|_| s.rng.below(rank)).collect();
    axes.sort_unstable();
    axes.dedup();
    s.emit1("unsqueeze", &[("axes", list(&axes))], &[&x], same(&x))
}

pub(crate) fn flatten(s: &mut Smith) -> Option<Item> {
    let x = anything(s, |_| true);
    let axis = s.rng.below(x.rank() + 1);
    s.emit1("flatten", &[("axis", axis.to_string())], &[&x], same(&x))
}

pub(crate) fn bit_cast(s: &mut Smith) -> Option<Item> {
    let pairs = [
        (DType::F32, DType::I32),
        (DType::I32, DType::U32),
        (DType::F16, DType::U16),
        (DType::I8, DType::U8),
    ];
    let (from, to) = s.rng.choose(&pairs);
    let x = s.some(&[from], |item| item.exact, any_shape);
    // What comes out may be anything, so nothing is computed with it.
    let keep = s.pool.len();
    let y =
        s.emit1("bit-cast", &[("to", to.name().to_owned())], &[&x], Quality { exact: true, size: 0.0 })?;
    s.pool.truncate(keep);
    s.output(&y);
    Some(y)
}

pub(crate) fn transpose(s: &mut Smith) -> Option<Item> {
    let x = anything(s, has_axis);
    let mut perm: Vec<usize> = (0..x.rank()).collect();
    for i in (1..perm.len()).rev() {
        let j = s.rng.below(i + 1);
        perm.swap(i, j);
    }
    s.emit1("transpose", &[("perm", list(&perm))], &[&x], same(&x))
}

pub(crate) fn expand(s: &mut Smith) -> Option<Item> {
    let x = anything(s, |item| item.len() <= 64);
    let mut target: Vec<i64> = x
        .shape
        .iter()
        .map(|d| {
            if *d == 1 {
                s.rng.range(1, 5)
            } else if s.rng.one_in(4) {
                1
            } else {
                *d as i64
            }
        })
        .collect();
    if target.len() < 4 && s.rng.one_in(2) {
        target.insert(0, s.rng.range(0, 4));
    }
    let target = s.ints(&target);
    s.emit1("expand", &[], &[&x, &target], same(&x))
}

pub(crate) fn concat(s: &mut Smith) -> Option<Item> {
    let (x, axis) = with_axis(s)?;
    let mut parts = vec![x.clone()];
    for _ in 0..s.rng.below(3) {
        let mut shape = x.shape.clone();
        shape[axis] = super::values::small_dim(&mut s.rng);
        parts.push(s.get(x.dtype, &shape, Domain::Any));
    }
    let quality =
        Quality { exact: parts.iter().all(|p| p.exact), size: parts.iter().fold(0.0, |m, p| p.size.max(m)) };
    let operands: Vec<&Item> = parts.iter().collect();
    s.emit1("concat", &[("axis", axis.to_string())], &operands, quality)
}

pub(crate) fn split(s: &mut Smith) -> Option<Item> {
    let (x, axis) = with_axis(s)?;
    let parts = 1 + s.rng.below(3);
    let mut sizes = vec![0i64; parts];
    for _ in 0..x.shape[axis] {
        let part = s.rng.below(parts);
        sizes[part] += 1;
    }
    let fields = [("axis", axis.to_string()), ("parts", parts.to_string())];
    let quality = same(&x);
    if s.rng.one_in(3) {
        return s.emit("split", &fields, &[Some(&x)], quality)?.into_iter().next();
    }
    let sizes = s.ints(&sizes);
    s.emit("split", &fields, &[Some(&x), Some(&sizes)], quality)?.into_iter().next()
}

pub(crate) fn tile(s: &mut Smith) -> Option<Item> {
    let x = anything(s, |item| item.len() <= 64);
    let repeats: Vec<i64> = x.shape.iter().map(|_| s.rng.range(0, 3)).collect();
    let repeats = s.ints(&repeats);
    s.emit1("tile", &[], &[&x, &repeats], same(&x))
}

pub(crate) fn pad(s: &mut Smith) -> Option<Item> {
    let mode = s.rng.choose(&["constant", "constant", "reflect", "edge", "wrap"]);
    let dtype = super::elementwise::number_type(s);
    let x = s.some(&[dtype], |item| mode == "constant" || item.len() > 0, any_shape);
    let room = |d: usize| if mode == "constant" { 3 } else { (d as i64 - 1).clamp(0, 3) };
    let least = |d: usize| if mode == "constant" && d > 1 { -1 } else { 0 };
    let mut pads = Vec::new();
    for _ in 0..2 {
        pads.extend(x.shape.iter().map(|d| s.rng.range(least(*d).max(-(*d as i64) / 2), room(*d))));
    }
    let pads = s.ints(&pads);
    let value = (mode == "constant" && s.rng.one_in(2)).then(|| s.fresh(dtype, &[], Domain::Any));
    let quality = Quality { exact: x.exact, size: x.size.max(6.0) };
    s.emit("pad", &[("mode", mode.to_owned())], &[Some(&x), Some(&pads), value.as_ref()], quality)?
        .into_iter()
        .next()
}

pub(crate) fn slice(s: &mut Smith) -> Option<Item> {
    let x = anything(s, has_axis);
    let axes: Vec<usize> = (0..x.rank()).filter(|_| s.rng.one_in(2)).collect();
    let (mut starts, mut ends, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for axis in &axes {
        let d = x.shape[*axis] as i64;
        let step = s.rng.choose(&[1, 1, 1, 2, 3, -1, -2]);
        let (lo, hi) = (s.rng.range(-d - 1, d + 1), s.rng.range(-d - 1, d + 1));
        let big = s.rng.one_in(4);
        starts.push(lo);
        ends.push(match (big, step > 0) {
            (true, true) => i64::MAX,
            (true, false) => i64::MIN,
            _ => hi,
        });
        steps.push(step);
    }
    let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
    let (starts, ends, axes, steps) = (s.ints(&starts), s.ints(&ends), s.ints(&axes), s.ints(&steps));
    s.emit1("slice", &[], &[&x, &starts, &ends, &axes, &steps], same(&x))
}

/// A tensor of indices below `n`, negative ones now and then; none when `n` is 0.
fn indices(s: &mut Smith, n: usize, shape: &[usize]) -> Option<Item> {
    let n = n as i64;
    let lo = if s.rng.one_in(3) { -n } else { 0 };
    let dtype = if s.rng.one_in(3) { DType::I32 } else { DType::I64 };
    (n > 0).then(|| s.fresh(dtype, shape, Domain::Between(lo, n - 1)))
}

pub(crate) fn gather(s: &mut Smith) -> Option<Item> {
    let (x, axis) = with_axis(s)?;
    let rank = s.rng.below(3);
    let shape = super::values::shape(&mut s.rng, rank);
    let index = indices(s, x.shape[axis], &shape)?;
    s.emit1("gather", &[("axis", axis.to_string())], &[&x, &index], same(&x))
}

pub(crate) fn gather_elements(s: &mut Smith) -> Option<Item> {
    let (x, axis) = with_axis(s)?;
    let mut shape: Vec<usize> = x.shape.iter().map(|d| s.rng.below(d + 1)).collect();
    shape[axis] = super::values::small_dim(&mut s.rng);
    let index = indices(s, x.shape[axis], &shape)?;
    s.emit1("gather-elements", &[("axis", axis.to_string())], &[&x, &index], same(&x))
}

/// Index tuples into the first `depth` axes after the batch ones, as a constant of shape `lead` + [depth].
fn tuples(s: &mut Smith, x: &Item, batch: usize, depth: usize, lead: &[usize]) -> Option<Item> {
    let count: usize = lead.iter().product();
    let mut values = Vec::new();
    for _ in 0..count {
        for axis in batch..batch + depth {
            let d = x.shape[axis] as i64;
            if d == 0 {
                return None;
            }
            let lo = if s.rng.one_in(3) { -d } else { 0 };
            values.push(i128::from(s.rng.range(lo, d - 1)));
        }
    }
    let mut shape = lead.to_vec();
    shape.push(depth);
    let tensor = planish_ir::Tensor::ints(DType::I64, &shape, values).ok()?;
    let v = s.constant(tensor);
    Some(Item { v, dtype: DType::I64, shape, exact: true, size: 0.0 })
}

pub(crate) fn gather_nd(s: &mut Smith) -> Option<Item> {
    let (x, _) = with_axis(s)?;
    let batch = s.rng.below(x.rank().min(2));
    let depth = 1 + s.rng.below(x.rank() - batch);
    let mut lead = x.shape[..batch].to_vec();
    lead.push(super::values::small_dim(&mut s.rng));
    let index = tuples(s, &x, batch, depth, &lead)?;
    s.emit1("gather-nd", &[("batch_dims", batch.to_string())], &[&x, &index], same(&x))
}

fn reduction(s: &mut Smith, x: &Item) -> (&'static str, Quality) {
    let numeric = x.dtype.is_float() && x.dtype.bits() >= 16 || x.dtype.is_int() && x.dtype.bits() >= 8;
    let kind = if numeric { s.rng.choose(&["none", "add", "mul", "min", "max"]) } else { "none" };
    let rounds = x.dtype.is_float() && matches!(kind, "add" | "mul");
    let size = match kind {
        "add" => 10.0 * (x.size + 6.0),
        "mul" => x.size * 1296.0,
        _ => x.size.max(6.0),
    };
    (kind, Quality { exact: x.exact && !rounds, size })
}

pub(crate) fn scatter_elements(s: &mut Smith) -> Option<Item> {
    let (x, axis) = with_axis(s)?;
    let (kind, quality) = reduction(s, &x);
    // With distinct places per line the order of writing does not matter; equal ones are for `none`, whose order is defined.
    let mut shape: Vec<usize> = x.shape.iter().map(|d| s.rng.below(d + 1)).collect();
    shape[axis] = if kind == "mul" { s.rng.below(3) } else { super::values::small_dim(&mut s.rng).min(8) };
    let index = indices(s, x.shape[axis], &shape)?;
    let updates = s.get(x.dtype, &shape, Domain::Exact);
    if updates.size > 6.0 {
        return None;
    }
    let fields = [("axis", axis.to_string()), ("reduction", kind.to_owned())];
    s.emit1("scatter-elements", &fields, &[&x, &index, &updates], quality)
}

pub(crate) fn scatter_nd(s: &mut Smith) -> Option<Item> {
    let (x, _) = with_axis(s)?;
    let (kind, quality) = reduction(s, &x);
    let depth = 1 + s.rng.below(x.rank());
    let lead = [s.rng.below(4)];
    let index = tuples(s, &x, 0, depth, &lead)?;
    let mut shape = lead.to_vec();
    shape.extend(&x.shape[depth..]);
    let updates = s.get(x.dtype, &shape, Domain::Exact);
    if updates.size > 6.0 {
        return None;
    }
    s.emit1("scatter-nd", &[("reduction", kind.to_owned())], &[&x, &index, &updates], quality)
}

pub(crate) fn tensor_scatter(s: &mut Smith) -> Option<Item> {
    let rank = 2 + s.rng.below(3);
    let dims: Vec<usize> = (0..rank).map(|_| 1 + s.rng.below(5)).collect();
    let cache = s.get(DType::F32, &dims, Domain::Any);
    let axis = 1 + s.rng.below(rank - 1);
    let mut shape = dims.clone();
    shape[axis] = 1 + s.rng.below(dims[axis]);
    let update = s.get(DType::F32, &shape, Domain::Any);
    let room = (dims[axis] - shape[axis]) as i64;
    let circular = s.rng.one_in(2);
    let most = if circular { dims[axis] as i64 - 1 } else { room };
    let at = s.rng.one_in(2).then(|| s.fresh(DType::I64, &[dims[0]], Domain::Between(0, most)));
    let quality = Quality { exact: cache.exact && update.exact, size: cache.size.max(update.size) };
    let fields = [("axis", axis.to_string()), ("circular", circular.to_string())];
    s.emit("tensor-scatter", &fields, &[Some(&cache), Some(&update), at.as_ref()], quality)?
        .into_iter()
        .next()
}
