//! Recipes for operations that generate, sort, count and choose elements, and for values that are no tensors.

use super::arrays::{anything, same};
use super::elementwise::number_type;
use super::values::{any_shape, shape};
use super::{Domain, Item, Quality, Smith};
use planish_ir::{DType, ValueId};

pub(crate) fn range(s: &mut Smith) -> Option<Item> {
    let dtype = s.rng.choose(&[DType::I64, DType::I32, DType::F32]);
    let (start, count, step) = (s.rng.range(-3, 3), s.rng.range(0, 9), s.rng.choose(&[1, 2, -1]));
    let scalar = |s: &mut Smith, v: i64| {
        let tensor = planish_ir::Tensor::scalar(dtype, v as f64).ok()?;
        let v = s.constant(tensor);
        Some(Item { v, dtype, shape: Vec::new(), exact: true, size: 0.0 })
    };
    let operands = [scalar(s, start)?, scalar(s, start + count * step)?, scalar(s, step)?];
    s.emit1("range", &[], &[&operands[0], &operands[1], &operands[2]], Quality { exact: true, size: 24.0 })
}

pub(crate) fn eye_like(s: &mut Smith) -> Option<Item> {
    let dims = shape(&mut s.rng, 2);
    let x = s.get(DType::F32, &dims, Domain::Any);
    let dtype = number_type(s);
    let fields = [("dtype", dtype.name().to_owned()), ("k", s.rng.range(-2, 2).to_string())];
    s.emit1("eye-like", &fields, &[&x], Quality { exact: true, size: 1.0 })
}

pub(crate) fn trilu(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let x = s.some(&[dtype], |item| item.rank() >= 2, |rng| shape(rng, 2));
    let shift = s.rng.range(-2, 3);
    let shift = s.int(shift);
    let quality = same(&x);
    let fields = [("upper", s.rng.one_in(2).to_string())];
    if s.rng.one_in(2) {
        return s.emit("trilu", &fields, &[Some(&x)], quality)?.into_iter().next();
    }
    s.emit1("trilu", &fields, &[&x, &shift], quality)
}

pub(crate) fn one_hot(s: &mut Smith) -> Option<Item> {
    let rank = s.rng.below(3);
    let dims = shape(&mut s.rng, rank);
    let depth = 1 + s.rng.below(6) as i64;
    let index = s.fresh(DType::I64, &dims, Domain::Between(-depth, depth));
    let dtype = number_type(s);
    let values = s.get(dtype, &[2], Domain::Any);
    let axis = s.rng.below(rank + 1);
    let depth = s.int(depth);
    let quality = same(&values);
    s.emit1("one-hot", &[("axis", axis.to_string())], &[&index, &depth, &values], quality)
}

pub(crate) fn top_k(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let x = s.some(&[dtype], |item| item.exact && item.rank() > 0, |rng| shape(rng, 2));
    if x.rank() == 0 {
        return None;
    }
    let axis = s.rng.below(x.rank());
    let k = s.rng.below(x.shape[axis] + 1) as i64;
    let k = s.ints(&[k]);
    let fields = [("axis", axis.to_string()), ("largest", s.rng.one_in(2).to_string())];
    let quality = Quality { exact: true, size: x.size.max(64.0) };
    s.emit1("top-k", &fields, &[&x, &k], quality)
}

pub(crate) fn arg_reduce(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let x = s.some(
        &[dtype],
        |item| item.exact && item.rank() > 0 && item.len() > 0,
        |rng| vec![1 + rng.below(9)],
    );
    let axis = s.rng.below(x.rank());
    if x.rank() == 0 || x.len() == 0 {
        return None;
    }
    let fields = [
        ("largest", s.rng.one_in(2).to_string()),
        ("axis", axis.to_string()),
        ("keepdims", s.rng.one_in(2).to_string()),
        ("last", s.rng.one_in(3).to_string()),
    ];
    s.emit1("arg-reduce", &fields, &[&x], Quality { exact: true, size: 64.0 })
}

/// What random numbers are can be compared where their seed is an operand; else only that they are numbers of the right kind.
pub(crate) fn random(s: &mut Smith) -> Option<Item> {
    let dims: Vec<i64> = any_shape(&mut s.rng).iter().map(|d| *d as i64).collect();
    let dims = s.ints(&dims);
    let dtype = s.rng.choose(&[DType::F32, DType::F64, DType::F16]);
    let normal = s.rng.one_in(2);
    let fields = [
        ("dtype", dtype.name().to_owned()),
        ("normal", normal.to_string()),
        ("a", "0.0".to_owned()),
        ("b", "1.0".to_owned()),
        ("seed", if s.rng.one_in(2) { "7" } else { "none" }.to_owned()),
    ];
    if s.rng.one_in(2) {
        let given = s.int(11);
        let size = if normal { 8.0 } else { 1.0 };
        return s.emit1("random", &fields, &[&dims, &given], Quality { exact: false, size });
    }
    let keep = s.pool.len();
    let x = s.emit1("random", &fields, &[&dims], Quality { exact: false, size: 1.0 })?;
    s.pool.truncate(keep);
    s.emit1("unary", &[("kind", "is-nan".to_owned())], &[&x], Quality { exact: true, size: 1.0 })
}

pub(crate) fn multinomial(s: &mut Smith) -> Option<Item> {
    let (rows, classes) = (1 + s.rng.below(3), 1 + s.rng.below(5));
    let x = s.fresh(DType::F32, &[rows, classes], Domain::Any);
    let fields = [
        ("dtype", "i64".to_owned()),
        ("samples", (1 + s.rng.below(4)).to_string()),
        ("seed", if s.rng.one_in(2) { "7" } else { "none" }.to_owned()),
    ];
    let keep = s.pool.len();
    let drawn = s.emit1("multinomial", &fields, &[&x], Quality { exact: false, size: 8.0 })?;
    s.pool.truncate(keep);
    let limit = s.int(classes as i64);
    s.emit1("binary", &[("kind", "less".to_owned())], &[&drawn, &limit], Quality { exact: true, size: 1.0 })
}

/// What comes in and noise are quarters, so that no draw is decided by rounding; a first maximum might be.
pub(crate) fn stochastic_gate(s: &mut Smith) -> Option<Item> {
    let dtype = s.rng.choose(&[DType::F32, DType::F32, DType::F64, DType::F16]);
    let kinds = ["binary", "smooth", "gaussian", "logistic", "gumbel-sigmoid", "gumbel-softmax"];
    let kind = s.rng.choose(&kinds);
    let rank = 1 + s.rng.below(3);
    let dims = shape(&mut s.rng, rank);
    let (a, noise) = (s.get(dtype, &dims, Domain::Exact), s.get(dtype, &dims, Domain::Exact));
    let estimator = if kind == "binary" { "identity" } else { "derivative" };
    let fields = [("kind", kind.to_owned()), ("estimator", estimator.to_owned()), ("sd", "1.0".to_owned())];
    let quality = Quality { exact: kind == "binary", size: 64.0 };
    s.emit1("stochastic-gate", &fields, &[&a, &noise], quality)
}

pub(crate) fn detach(s: &mut Smith) -> Option<Item> {
    let x = anything(s, |_| true);
    let quality = Quality { exact: x.exact, size: x.size };
    s.emit1("detach", &[], &[&x], quality)
}

/// The sum over everything of a tensor whose dims only the data decide.
fn total(s: &mut Smith, v: ValueId, dtype: DType) -> Option<Item> {
    let x = Item { v, dtype, shape: Vec::new(), exact: true, size: 6.0 };
    let fields = [
        ("kind", "max".to_owned()),
        ("axes", "none".to_owned()),
        ("keepdims", "false".to_owned()),
        ("noop_empty", "false".to_owned()),
    ];
    s.emit1("reduce", &fields, &[&x], Quality { exact: true, size: 64.0 })
}

pub(crate) fn non_zero(s: &mut Smith) -> Option<Item> {
    let dtype = if s.rng.one_in(3) { DType::Bool } else { number_type(s) };
    let x = s.some(&[dtype], |item| item.exact, any_shape);
    let results = s.emit_values("non-zero", &[], &[Some(x.v)])?;
    s.keep(&results, Quality { exact: true, size: 64.0 });
    total(s, *results.first()?, DType::I64)
}

pub(crate) fn compress(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let x = s.some(&[dtype], |item| item.rank() > 0 && item.len() > 0, |rng| vec![1 + rng.below(9)]);
    let axis = s.rng.below(x.rank());
    if x.rank() == 0 {
        return None;
    }
    let whole = s.rng.one_in(3);
    let n = if whole { x.len() } else { x.shape[axis] };
    let n = if s.rng.one_in(3) { n / 2 } else { n };
    let mask = s.get(DType::Bool, &[n], Domain::Exact);
    let axis = if whole { "none".to_owned() } else { axis.to_string() };
    let results = s.emit_values("compress", &[("axis", axis)], &[Some(x.v), Some(mask.v)])?;
    s.keep(&results, same(&x));
    let kind = [("kind", "neg".to_owned())];
    let results = s.emit_values("unary", &kind, &[Some(*results.first()?)])?;
    s.keep(&results, same(&x));
    None
}

pub(crate) fn unique(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let x = s.some(&[dtype], |item| item.exact && item.len() > 0, |rng| vec![1 + rng.below(9)]);
    let axis =
        if s.rng.one_in(2) || x.rank() == 0 { "none".to_owned() } else { s.rng.below(x.rank()).to_string() };
    let fields = [("axis", axis), ("sorted", s.rng.one_in(2).to_string())];
    let results = s.emit_values("unique", &fields, &[Some(x.v)])?;
    s.keep(&results, Quality { exact: true, size: x.size.max(64.0) });
    None
}

pub(crate) fn reverse_sequence(s: &mut Smith) -> Option<Item> {
    let x = anything(s, |item| item.rank() >= 2 && item.len() > 0);
    if x.rank() < 2 || x.len() == 0 {
        return None;
    }
    let flip = s.rng.one_in(2);
    let (batch, time) = if flip { (0, 1) } else { (1, 0) };
    let lengths = s.fresh(DType::I64, &[x.shape[batch]], Domain::Between(1, x.shape[time] as i64));
    let fields = [("batch_axis", batch.to_string()), ("time_axis", time.to_string())];
    let quality = same(&x);
    s.emit1("reverse-sequence", &fields, &[&x, &lengths], quality)
}

/// A sequence made, changed and taken apart again.
pub(crate) fn sequence(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let dims = vec![1 + s.rng.below(4), 1 + s.rng.below(4)];
    let items: Vec<Item> = (0..1 + s.rng.below(3)).map(|_| s.get(dtype, &dims, Domain::Any)).collect();
    let quality = Quality {
        exact: items.iter().all(|item| item.exact),
        size: items.iter().fold(0.0, |m, item| item.size.max(m)),
    };
    let operands: Vec<Option<ValueId>> = items.iter().map(|item| Some(item.v)).collect();
    let cut = s.rng.one_in(3);
    let mut list = if cut {
        let axis = s.rng.below(2).to_string();
        let fields = [("axis", axis), ("keepdims", "true".to_owned())];
        *s.emit_values("split-sequence", &fields, &operands[..1])?.first()?
    } else {
        *s.emit_values("sequence", &[("item", dtype.name().to_owned())], &operands)?.first()?
    };
    // Pieces have another shape than what is put in, so that they could not be joined again.
    if !cut && s.rng.one_in(2) {
        let at = s.int(0);
        list = *s.emit_values("sequence-insert", &[], &[Some(list), operands[0], Some(at.v)])?.first()?;
    }
    let length = s.emit_values("sequence-length", &[], &[Some(list)])?;
    s.keep(&length, Quality { exact: true, size: 16.0 });
    if !cut && s.rng.one_in(3) {
        let shorter = *s.emit_values("sequence-insert", &[], &[Some(list), operands[0]])?.first()?;
        list = *s.emit_values("sequence-erase", &[], &[Some(shorter)])?.first()?;
    }
    let results = if s.rng.one_in(2) {
        let at = s.int(-1);
        s.emit_values("sequence-at", &[], &[Some(list), Some(at.v)])?
    } else {
        let fields = [("axis", "0".to_owned()), ("new_axis", "false".to_owned())];
        s.emit_values("concat-sequence", &fields, &[Some(list)])?
    };
    s.keep(&results, quality);
    None
}

pub(crate) fn optional(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let x = s.some(&[dtype], |_| true, any_shape);
    let item = format!("{dtype}[..]");
    let empty = s.rng.one_in(2);
    let operands = if empty { Vec::new() } else { vec![Some(x.v)] };
    let made = *s.emit_values("optional", &[("item", item)], &operands)?.first()?;
    let has = s.emit_values("optional-has", &[], &[Some(made)])?;
    s.keep(&has, Quality { exact: true, size: 1.0 });
    if !empty {
        let got = s.emit_values("optional-get", &[], &[Some(made)])?;
        s.keep(&got, same(&x));
    }
    None
}
