//! Recipes for operations with regions. Bodies are short and keep the shape of what they work on.

use super::elementwise::{float_type, holds_exactly, number_type};
use super::values::{any_shape, shape};
use super::{Domain, Item, Quality, Smith};
use planish_ir::graph::Fact;
use planish_ir::op::Op;
use planish_ir::{DType, Dim, RegionId, Type, ValueId};

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
/// the type of `x`.
fn body(s: &mut Smith, r: RegionId, x: &Item, captures: &[Item]) -> Option<Item> {
    s.ed.at_end(r);
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
    let root = s.ed.graph().root();
    s.ed.at_end(root);
    let Ok(results) = s.ed.node_with_regions(op, operands, regions) else { return abandon(s) };
    s.join(&results, quality).into_iter().next()
}

/// Ends the work on a body that came to nothing.
fn abandon<T>(s: &mut Smith) -> Option<T> {
    let root = s.ed.graph().root();
    s.ed.at_end(root);
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
        let Some(end) = body(s, r, &params[0], &params) else { return abandon(s) };
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
    let Some(end) = body(s, r, &params[1], &params[2..]) else { return abandon(s) };
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
        dims[axis] = Dim::from(s.ed.graph_mut().symbols.fresh(0, None));
    }
    let mut regions = Vec::new();
    let mut quality = Quality { exact: x.exact, size: x.size };
    for _ in 0..2 {
        let r = s.ed.new_region();
        regions.push(r);
        if regions.len() == 2 && fallback != "region" {
            break;
        }
        if granularity == "routed" {
            s.ed.param(r, Type::tensor(DType::I64, Vec::new()).into());
        }
        let v = s.ed.param(r, ty.clone().into());
        let Some(end) = body(s, r, &Item { v, ..x.clone() }, &[]) else { return abandon(s) };
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
