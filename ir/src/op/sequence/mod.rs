//! Sequences and optionals. A symbolic dim inside a container says nothing but that the axis exists: items may differ.

mod optional;
mod rank;
mod tensors;

pub use optional::{Optional, OptionalGet, OptionalHas};
pub use tensors::{ConcatSequence, SplitSequence};

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::{EvalCx, InferCx, MANY, OpDef};
use crate::tensor::{Tensor, Value};
use crate::types::{TensorType, Type};
use std::sync::Arc;

crate::op_struct! {
    /// A sequence of the operands in order (ONNX SequenceConstruct, SequenceEmpty), whose items are tensors of one dtype.
    Sequence {
        /// The dtype of the items.
        item: DType,
    }
}

crate::op_struct! {
    /// Item number operand 1 (i64 or i32 scalar; negative: from the end) of the sequence that is operand 0.
    SequenceAt {}
}

crate::op_struct! {
    /// The sequence (operand 0) with an item (operand 1) put before position operand 2 (omitted: at the end; negative: from the end).
    SequenceInsert {}
}

crate::op_struct! {
    /// The sequence (operand 0) without item number operand 1 (omitted: the last; negative: from the end).
    SequenceErase {}
}

crate::op_struct! {
    /// The number of items of a sequence, an i64 scalar.
    SequenceLength {}
}

/// The type of the items of operand `i`, a sequence.
pub(super) fn item_type<'a>(cx: &InferCx<'a>, i: usize) -> Result<&'a Arc<Type>, Diag> {
    match cx.value_ty(i)? {
        Type::Sequence(t) => Ok(t),
        t => Err(Diag::error(
            "type-mismatch",
            format!("operand {i} is {}, not a sequence", t.display(cx.symbols)),
        )),
    }
}

/// A type for items of both types; `None` when they cannot be in one sequence. Known dims that differ become symbols,
/// which are taken from `known` if it has any there.
pub(in crate::op) fn either(cx: &mut InferCx<'_>, a: &Type, b: &Type, known: Option<&Type>) -> Option<Type> {
    match (a, b) {
        (Type::Tensor(x), Type::Tensor(y)) if x.dtype == y.dtype => {
            let shape = match (&x.shape, &y.shape) {
                (Some(p), Some(q)) if p.len() == q.len() => {
                    let known = match known {
                        Some(Type::Tensor(TensorType { shape: Some(k), .. })) if k.len() == p.len() => {
                            Some(k)
                        }
                        _ => None,
                    };
                    let dims = p.iter().zip(q).enumerate().map(|(i, (m, n))| {
                        if m == n || n.as_const().is_some() && m.as_const().is_none() {
                            return m.clone();
                        }
                        if n.as_const().is_none() {
                            return n.clone();
                        }
                        let before = known.and_then(|k| k[i].as_const().is_none().then(|| k[i].clone()));
                        before.unwrap_or_else(|| Dim::from(cx.symbols.fresh(0, None)))
                    });
                    Some(dims.collect())
                }
                _ => None,
            };
            Some(TensorType { dtype: x.dtype, shape, quant: None }.into())
        }
        (Type::Sequence(x), Type::Sequence(y)) => Some(Type::Sequence(Arc::new(either(cx, x, y, None)?))),
        (Type::Optional(x), Type::Optional(y)) => Some(Type::Optional(Arc::new(either(cx, x, y, None)?))),
        (Type::Map(k, x), Type::Map(l, y)) if k == l => {
            Some(Type::Map(*k, Arc::new(either(cx, x, y, None)?)))
        }
        _ => None,
    }
}

/// The type of a value taken out of a container as result 0: its unknown dims become dims that the data decide.
pub(super) fn opened(cx: &mut InferCx<'_>, item: &Type) -> Type {
    match item {
        Type::Tensor(t) => {
            let shape = t.shape.as_ref().map(|s| {
                let dim = |(i, d): (usize, &Dim)| match d.as_const() {
                    Some(_) => d.clone(),
                    None => cx.fresh(0, i, 0, None),
                };
                s.iter().enumerate().map(dim).collect()
            });
            TensorType { dtype: t.dtype, shape, quant: None }.into()
        }
        other => other.clone(),
    }
}

fn known_item(cx: &InferCx<'_>) -> Option<Type> {
    match &cx.known_outputs().first()?.ty {
        Type::Sequence(t) => Some((**t).clone()),
        _ => None,
    }
}

fn check_position(cx: &InferCx<'_>, i: usize) -> Result<(), Diag> {
    if cx.has(i) {
        cx.expect_dtype(i, |d| matches!(d, DType::I32 | DType::I64), "an index")?;
    }
    Ok(())
}

/// Operand `i` as a position below `count`, and the number 0 from the end if it is omitted.
fn position(cx: &EvalCx<'_>, i: usize, count: usize, default: usize) -> Result<usize, Diag> {
    if !cx.has(i) {
        return Ok(default);
    }
    let given = cx.ints(i)?;
    let [p] = given.as_slice() else {
        return Err(Diag::error("shape-mismatch", "a position is one integer"));
    };
    let at = if *p < 0 { p.saturating_add(count as i64) } else { *p };
    usize::try_from(at).ok().filter(|a| *a < count).ok_or_else(|| {
        Diag::error("index-out-of-range", format!("position {p} in a sequence of {count} places"))
    })
}

/// The items of operand `i`.
pub(super) fn take_items(cx: &mut EvalCx<'_>, i: usize) -> Result<(Arc<Type>, Vec<Value>), Diag> {
    match cx.take(i)? {
        Value::Sequence(t, v) => Ok((t, v)),
        _ => Err(Diag::error("type-mismatch", "a sequence is needed here")),
    }
}

/// A sequence value; its item type is the dtype alone.
pub(super) fn sequence_of(ty: Arc<Type>, items: Vec<Value>) -> Vec<Value> {
    vec![Value::Sequence(ty, items)]
}

impl OpDef for Sequence {
    const NAME: &'static str = "sequence";
    const INPUTS: (usize, usize) = (0, MANY);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let known = known_item(cx);
        let mut item: Option<Type> = None;
        for i in 0..cx.len() {
            cx.expect_dtype(i, |d| d == self.item, self.item.name())?;
            let t = Type::from(cx.ty(i)?.clone());
            item = Some(match item {
                None => t,
                Some(so_far) => either(cx, &so_far, &t, known.as_ref())
                    .ok_or_else(|| Diag::error("type-mismatch", "items of different types"))?,
            });
        }
        let item = item.unwrap_or_else(|| TensorType::unranked(self.item).into());
        Ok(vec![Type::Sequence(Arc::new(item)).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let items = (0..cx.inputs.len()).map(|i| cx.take(i)).collect::<Result<Vec<_>, _>>()?;
        Ok(sequence_of(Arc::new(TensorType::unranked(self.item).into()), items))
    }
}

impl OpDef for SequenceAt {
    const NAME: &'static str = "sequence-at";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        check_position(cx, 1)?;
        let item = item_type(cx, 0)?.clone();
        if let Type::Tensor(TensorType { dtype, shape: None, .. }) = &*item
            && let Some(rank) = rank::item_rank(cx, 0)
        {
            let dims = (0..rank).map(|axis| cx.fresh(0, axis, 0, None)).collect();
            return Ok(vec![Type::tensor(*dtype, dims).into()]);
        }
        Ok(vec![opened(cx, &item).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (_, mut items) = take_items(cx, 0)?;
        let at = position(cx, 1, items.len(), 0)?;
        Ok(vec![items.swap_remove(at)])
    }
}

impl OpDef for SequenceInsert {
    const NAME: &'static str = "sequence-insert";
    const INPUTS: (usize, usize) = (2, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        check_position(cx, 2)?;
        let (item, new) = (item_type(cx, 0)?.clone(), cx.value_ty(1)?.clone());
        let known = known_item(cx);
        let both = either(cx, &item, &new, known.as_ref())
            .ok_or_else(|| Diag::error("type-mismatch", "the new item is of another type"))?;
        Ok(vec![Type::Sequence(Arc::new(both)).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (ty, mut items) = take_items(cx, 0)?;
        let places = items.len() + 1;
        // A negative position counts from the end of the items, not of the places.
        let at = match cx.has(2) && cx.ints(2)?.first().is_some_and(|p| *p < 0) {
            true => position(cx, 2, items.len(), 0)?,
            false => position(cx, 2, places, items.len())?,
        };
        items.insert(at, cx.take(1)?);
        Ok(sequence_of(ty, items))
    }
}

impl OpDef for SequenceErase {
    const NAME: &'static str = "sequence-erase";
    const INPUTS: (usize, usize) = (1, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        check_position(cx, 1)?;
        Ok(vec![Type::Sequence(item_type(cx, 0)?.clone()).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (ty, mut items) = take_items(cx, 0)?;
        let last = items.len().checked_sub(1);
        let last = last.ok_or_else(|| Diag::error("index-out-of-range", "an empty sequence has no item"))?;
        items.remove(position(cx, 1, items.len(), last)?);
        Ok(sequence_of(ty, items))
    }
}

impl OpDef for SequenceLength {
    const NAME: &'static str = "sequence-length";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        item_type(cx, 0)?;
        Ok(vec![Type::tensor(DType::I64, Vec::new()).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (_, items) = take_items(cx, 0)?;
        Ok(vec![Tensor::scalar_i64(items.len() as i64).into()])
    }
}

#[cfg(test)]
mod tests;
