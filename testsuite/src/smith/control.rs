//! Recipes for operations with regions. Bodies are short and keep the shape of what they work on.

use super::elementwise::{float_type, holds_exactly, number_type};
use super::values::{any_shape, shape};
use super::{Domain, Item, Quality, Smith};
use planish_ir::graph::Fact;
use planish_ir::op::Op;
use planish_ir::{DType, RegionId, Tensor, Type, ValueId};

/// A region whose parameters have the types of these values.
fn region(s: &mut Smith, params: &[&Item]) -> (RegionId, Vec<Item>) {
    let r = s.ed.new_region();
    let inner = params
        .iter()
        .map(|item| {
            let fact = Fact::from(s.ed.graph().ty(item.v).clone());
            Item { v: s.ed.param(r, fact), ..(*item).clone() }
        })
        .collect();
    (r, inner)
}

fn text(kind: &str) -> Vec<(&'static str, String)> {
    vec![("kind", kind.to_owned())]
}

/// Adds one to three operations on `x` to the region, which may use the captures that have its type. The result has
/// the type of `x`. `depth`: how many regions this one is within, itself included.
fn body(s: &mut Smith, r: RegionId, x: &Item, captures: &[Item], depth: usize) -> Option<Item> {
    s.enter(r, depth);
    let mut last = x.clone();
    for _ in 0..1 + s.rng.below(3) {
        let alike: Vec<&Item> =
            captures.iter().filter(|c| c.dtype == x.dtype && c.shape == x.shape).collect();
        last = match s.rng.pick(&alike).copied() {
            Some(c) if s.rng.one_in(2) => {
                let kind = s.rng.choose(&["add", "sub", "min", "max"]);
                let size = last.size + c.size;
                let exact = last.exact && c.exact && holds_exactly(x.dtype, size);
                inner(s, "binary", &text(kind), &[&last, c], Quality { exact, size })?
            }
            _ if depth < 3 && last.exact && last.len() > 0 && s.rng.one_in(6) => nested(s, r, &last, depth)?,
            _ if x.dtype.is_float() && s.rng.one_in(3) => {
                let kind = s.rng.choose(&["tanh", "sigmoid", "softsign"]);
                inner(s, "unary", &text(kind), &[&last], Quality { exact: false, size: 1.0 })?
            }
            _ => {
                let kind = s.rng.choose(&["neg", "abs", "relu"]);
                let quality = Quality { exact: last.exact, size: last.size };
                inner(s, "unary", &text(kind), &[&last], quality)?
            }
        };
    }
    Some(last)
}

/// A branch on the sign of the largest element, inside another region.
fn nested(s: &mut Smith, r: RegionId, x: &Item, depth: usize) -> Option<Item> {
    let fields = [
        ("kind", "max".to_owned()),
        ("axes", "none".to_owned()),
        ("keepdims", "false".to_owned()),
        ("noop_empty", "false".to_owned()),
    ];
    let top = inner(s, "reduce", &fields, &[x], Quality { exact: true, size: x.size })?;
    let v = s.constant(Tensor::scalar(x.dtype, 1.0).ok()?);
    let zero = Item { v, dtype: x.dtype, shape: Vec::new(), exact: true, size: 1.0 };
    let condition = inner(s, "binary", &text("less"), &[&top, &zero], Quality { exact: true, size: 1.0 })?;
    let mut regions = Vec::new();
    let mut quality = Quality { exact: true, size: 0.0 };
    for _ in 0..2 {
        let (sub, params) = region(s, &[x]);
        let end = body(s, sub, &params[0], &[], depth + 1)?;
        s.ed.result(sub, end.v);
        quality = Quality { exact: quality.exact && end.exact, size: quality.size.max(end.size) };
        regions.push(sub);
    }
    s.enter(r, depth);
    let results = s.ed.node_with_regions(op("if", &[]), &[Some(condition.v), Some(x.v)], regions).ok()?;
    Some(Item { v: *results.first()?, exact: quality.exact, size: quality.size, ..x.clone() })
}

/// An operation of a body: its result stays out of the pool.
fn inner(
    s: &mut Smith,
    name: &str,
    fields: &[(&str, String)],
    operands: &[&Item],
    quality: Quality,
) -> Option<Item> {
    let before = s.pool.len();
    let made = s.emit1(name, fields, operands, quality);
    s.pool.truncate(before);
    made
}

fn finish(
    s: &mut Smith,
    op: Op,
    operands: &[Option<ValueId>],
    regions: Vec<RegionId>,
    quality: Quality,
) -> Option<Item> {
    s.leave();
    let Ok(results) = s.ed.node_with_regions(op, operands, regions) else { return abandon(s) };
    s.join(&results, quality).into_iter().next()
}

/// Ends the work on a body that came to nothing.
fn abandon<T>(s: &mut Smith) -> Option<T> {
    s.leave();
    s.abandoned = true;
    None
}

fn op(name: &str, fields: &[(&str, String)]) -> Op {
    let pairs = fields.iter().map(|(field, text)| ((*field).to_owned(), text.clone())).collect();
    Op::read(name, pairs).unwrap_or_else(|why| panic!("the recipe of {name} is wrong: {why}"))
}

pub(crate) fn branch(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let a = s.some(&[dtype], |_| true, any_shape);
    let b = s.get(dtype, &a.shape.clone(), Domain::Any);
    let condition = s.get(DType::Bool, &[], Domain::Exact);
    let mut regions = Vec::new();
    let mut quality = Quality { exact: true, size: 0.0 };
    for _ in 0..2 {
        let (r, params) = region(s, &[&a, &b]);
        let Some(end) = body(s, r, &params[0], &params, 1) else { return abandon(s) };
        s.ed.result(r, end.v);
        quality = Quality { exact: quality.exact && end.exact, size: quality.size.max(end.size) };
        regions.push(r);
    }
    finish(s, op("if", &[]), &[Some(condition.v), Some(a.v), Some(b.v)], regions, quality)
}

pub(crate) fn repeat(s: &mut Smith) -> Option<Item> {
    let dtype = float_type(s);
    let start = s.some(&[dtype], |_| true, any_shape);
    let capture = s.get(dtype, &start.shape.clone(), Domain::Any);
    let trips = s.rng.range(0, 4);
    let (scans, conditional) = (s.rng.below(2), s.rng.one_in(2));
    let limit = s.rng.range(0, 3);
    let trip = s.get(DType::I64, &[], Domain::Between(trips, trips));
    let counter = Item { exact: true, size: 4.0, ..s.int(0) };
    let (r, params) = region(s, &[&counter, &start, &capture]);
    let Some(end) = body(s, r, &params[1], &params[2..], 1) else { return abandon(s) };
    // Errors and sizes grow with every iteration.
    let size = 4.0 * (end.size + start.size + capture.size);
    if conditional {
        let last = s.int(limit);
        let Some(go) =
            inner(s, "binary", &text("less"), &[&params[0], &last], Quality { exact: true, size: 1.0 })
        else {
            return abandon(s);
        };
        s.ed.result(r, go.v);
    }
    s.ed.result(r, end.v);
    if scans == 1 {
        s.ed.result(r, end.v);
    }
    let fields =
        [("carried", "1".into()), ("scans", scans.to_string()), ("conditional", conditional.to_string())];
    let exact = start.exact && capture.exact && end.exact && holds_exactly(dtype, size);
    finish(
        s,
        op("loop", &fields),
        &[Some(trip.v), None, Some(start.v), Some(capture.v)],
        vec![r],
        Quality { exact, size },
    )
}

/// A loop over the rows of a tensor, with a state and a result for every row.
pub(crate) fn scan(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let (rows, rank) = (s.rng.below(6), s.rng.below(3));
    let dims = shape(&mut s.rng, rank);
    let first = s.get(dtype, &dims, Domain::Any);
    let xs = s.get(dtype, &[&[rows], &dims[..]].concat(), Domain::Any);
    let counter = Item { exact: true, size: 4.0, ..s.int(0) };
    let trip = s.int(rows as i64);
    let (r, params) = region(s, &[&counter, &first, &xs]);
    s.enter(r, 1);
    let row = [("axis", "0".to_owned())];
    let quality = Quality { exact: xs.exact, size: xs.size };
    let Some(row) = inner(s, "gather", &row, &[&params[2], &params[0]], quality) else { return abandon(s) };
    let kind = s.rng.choose(&["add", "max", "sub"]);
    let size = first.size + 6.0 * xs.size;
    let exact = first.exact && xs.exact && (kind == "max" || holds_exactly(dtype, size));
    let quality = Quality { exact, size };
    let state = Item { exact, size, ..params[1].clone() };
    let Some(next) = inner(s, "binary", &text(kind), &[&state, &row], quality) else { return abandon(s) };
    s.ed.result(r, next.v);
    s.ed.result(r, next.v);
    let fields = [("carried", "1".into()), ("scans", "1".into()), ("conditional", "false".into())];
    let operands = [Some(trip.v), None, Some(first.v), Some(xs.v)];
    finish(s, op("loop", &fields), &operands, vec![r], quality)
}

/// A loop whose state is longer after every iteration.
pub(crate) fn grow(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let (n, piece, trips) = (s.rng.below(5), s.rng.below(4), s.rng.range(0, 4));
    let (start, piece) = (s.get(dtype, &[n], Domain::Any), s.get(dtype, &[piece], Domain::Any));
    let counter = Item { exact: true, size: 4.0, ..s.int(0) };
    let trip = s.int(trips);
    let length = s.unknown(n);
    let r = s.ed.new_region();
    let counter_ty = s.ed.graph().ty(counter.v).clone();
    s.ed.param(r, counter_ty.into());
    let v = s.ed.param(r, Type::tensor(dtype, vec![length]).into());
    let state = Item { v, ..start.clone() };
    let piece_ty = s.ed.graph().ty(piece.v).clone();
    let v = s.ed.param(r, piece_ty.into());
    let part = Item { v, ..piece.clone() };
    s.enter(r, 1);
    let quality = Quality { exact: start.exact && piece.exact, size: start.size.max(piece.size) };
    let axis = [("axis", "0".to_owned())];
    let parts = if s.rng.one_in(2) { [&state, &part] } else { [&part, &state] };
    let Some(next) = inner(s, "concat", &axis, &parts, quality) else { return abandon(s) };
    s.ed.result(r, next.v);
    let fields = [("carried", "1".into()), ("scans", "0".into()), ("conditional", "false".into())];
    let operands = [Some(trip.v), None, Some(start.v), Some(piece.v)];
    finish(s, op("loop", &fields), &operands, vec![r], quality)
}

/// A layer whose weights and bias are those of the expert with this number.
fn expert(s: &mut Smith, r: RegionId, number: &Item, x: &Item, experts: usize) -> Option<Item> {
    s.enter(r, 1);
    let width = x.shape[1];
    let first = [("axis", "0".to_owned())];
    let exact = Quality { exact: true, size: 6.0 };
    let stack = s.fresh_constant(DType::F32, &[experts, width, width], Domain::Any);
    let weights = inner(s, "gather", &first, &[&stack, number], exact)?;
    let size = (x.size * 6.0 * width as f64).max(1.0);
    let flags = [("trans_a", "false".to_owned()), ("trans_b", s.rng.one_in(2).to_string())];
    let sums = inner(s, "matmul", &flags, &[x, &weights], Quality { exact: false, size })?;
    let stack = s.fresh_constant(DType::F32, &[experts, width], Domain::Any);
    let bias = inner(s, "gather", &first, &[&stack, number], exact)?;
    inner(s, "binary", &text("add"), &[&sums, &bias], Quality { exact: false, size: size + 6.0 })
}

pub(crate) fn gate(s: &mut Smith) -> Option<Item> {
    let granularity = s.rng.choose(&["whole", "rows", "blocks", "routed"]);
    let fallback =
        if granularity == "routed" { "zero" } else { s.rng.choose(&["zero", "identity", "region"]) };
    let dtype = if granularity == "routed" { DType::F32 } else { float_type(s) };
    let rank = 1 + s.rng.below(3);
    let x = s.some(&[dtype], |item| !item.shape.is_empty(), |rng| shape(rng, rank));
    let axis = if granularity == "routed" { 0 } else { s.rng.below(x.rank()) };
    let block = 1 + s.rng.below(3);
    let k = 1 + s.rng.below(2);
    let rows = x.shape[axis];
    let control = match granularity {
        "whole" => s.get(DType::Bool, &[], Domain::Exact),
        "rows" => s.get(DType::Bool, &[rows], Domain::Exact),
        "blocks" => s.get(DType::Bool, &[rows.div_ceil(block)], Domain::Exact),
        _ => s.get(DType::F32, &[rows, 1 + k], Domain::Exact),
    };
    // The body sees some of the rows: how many is known only at run time.
    let mut ty = s.ed.graph().ty(x.v).clone();
    if let Type::Tensor(t) = &mut ty
        && let Some(dims) = &mut t.shape
        && granularity != "whole"
    {
        dims[axis] = s.unknown(rows);
    }
    let mut regions = Vec::new();
    let mut quality = Quality { exact: x.exact, size: x.size };
    for _ in 0..2 {
        let r = s.ed.new_region();
        regions.push(r);
        if regions.len() == 2 && fallback != "region" {
            break;
        }
        let number =
            (granularity == "routed").then(|| s.ed.param(r, Type::tensor(DType::I64, Vec::new()).into()));
        let v = s.ed.param(r, ty.clone().into());
        let Some(mut end) = body(s, r, &Item { v, ..x.clone() }, &[], 1) else { return abandon(s) };
        if let Some(number) = number.filter(|_| x.rank() == 2 && end.size < 1e3) {
            let number = Item { v: number, ..s.int(0) };
            let Some(made) = expert(s, r, &number, &end, 1 + k) else { return abandon(s) };
            end = made;
        }
        s.ed.result(r, end.v);
        quality = Quality { exact: quality.exact && end.exact, size: quality.size.max(end.size) };
    }
    if granularity == "routed" {
        quality = Quality { exact: false, size: quality.size * 6.0 * k as f64 };
    }
    let fields = [
        ("granularity", granularity.to_owned()),
        ("axis", axis.to_string()),
        ("block", block.to_string()),
        ("k", k.to_string()),
        ("fallback", fallback.to_owned()),
    ];
    finish(s, op("gate", &fields), &[Some(control.v), Some(x.v)], regions, quality)
}

/// A value under a condition that holds.
pub(crate) fn require(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let x = s.some(&[dtype], |_| true, any_shape);
    let expected = s.rng.one_in(2);
    let flag = i64::from(expected);
    let condition = s.fresh(DType::Bool, &[], Domain::Between(flag, flag));
    let fields =
        [("expected", expected.to_string()), ("message", "\"the condition does not hold\"".to_owned())];
    s.emit1("require", &fields, &[&condition, &x], Quality { exact: x.exact, size: x.size })
}

/// A value that passes do not look through.
pub(crate) fn barrier(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let x = s.some(&[dtype], |_| true, any_shape);
    s.emit1("barrier", &[], &[&x], Quality { exact: x.exact, size: x.size })
}
