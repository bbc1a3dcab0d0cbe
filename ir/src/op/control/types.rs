//! How types of regions become types of results.

use super::Outer;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::op::InferCx;
use crate::op::sequence::either;
use crate::types::{TensorType, Type};
use std::sync::Arc;

/// The symbols in what is known of operands `from..`: those that mean something outside of the region.
pub(super) fn outer_symbols(cx: &InferCx<'_>, from: usize) -> Result<Outer, Diag> {
    let mut out = Outer::new();
    for i in 0..cx.len() {
        if cx.has(i) {
            let fact = cx.fact(i)?;
            if i >= from {
                type_symbols(&fact.ty, &mut out);
            }
            fact.content.iter().flatten().for_each(|d| out.extend(d.symbols()));
        }
    }
    Ok(out)
}

fn type_symbols(ty: &Type, out: &mut Outer) {
    match ty {
        Type::Tensor(t) => t.shape.iter().flatten().for_each(|d| out.extend(d.symbols())),
        Type::Sequence(t) | Type::Optional(t) | Type::Map(_, t) => type_symbols(t, out),
    }
}

/// Whether a dim says the same outside of the region.
pub(super) fn is_outer(d: &Dim, outer: &Outer) -> bool {
    d.symbols().iter().all(|s| outer.contains(s))
}

/// A type that holds for both, as result `index`: dims that differ or that only the region knows are decided by data.
pub(super) fn merge(
    cx: &mut InferCx<'_>,
    index: usize,
    outer: &Outer,
    a: &Type,
    b: &Type,
) -> Result<Type, Diag> {
    Ok(match (a, b) {
        (Type::Tensor(x), Type::Tensor(y)) if x.dtype == y.dtype => {
            let shape = match (&x.shape, &y.shape) {
                (Some(p), Some(q)) if p.len() == q.len() => {
                    let mut dims = Vec::with_capacity(p.len());
                    for (axis, (m, n)) in p.iter().zip(q).enumerate() {
                        dims.push(if m == n && is_outer(m, outer) {
                            m.clone()
                        } else {
                            let ((ml, mh), (nl, nh)) = (m.bounds(cx.symbols), n.bounds(cx.symbols));
                            let low = ml.zip(nl).map_or(0, |(x, y)| x.min(y).max(0));
                            cx.fresh(index, axis, low, mh.zip(nh).map(|(x, y)| x.max(y)))
                        });
                    }
                    Some(dims)
                }
                _ => None,
            };
            TensorType { dtype: x.dtype, shape, quant: x.quant.clone().filter(|_| x.quant == y.quant) }.into()
        }
        _ => {
            let known = cx.known_outputs().get(index).map(|f| f.ty.clone());
            let known = match &known {
                Some(Type::Sequence(t) | Type::Optional(t) | Type::Map(_, t)) => Some(&**t),
                _ => None,
            };
            let both = match (a, b) {
                (Type::Sequence(x), Type::Sequence(y)) => {
                    either(cx, x, y, known).map(|t| Type::Sequence(Arc::new(t)))
                }
                (Type::Optional(x), Type::Optional(y)) => {
                    either(cx, x, y, known).map(|t| Type::Optional(Arc::new(t)))
                }
                _ => either(cx, a, b, known),
            };
            let text = || format!("result {index} is {} or {}", a.display(cx.symbols), b.display(cx.symbols));
            return both.ok_or_else(|| Diag::error("type-mismatch", text()));
        }
    })
}
