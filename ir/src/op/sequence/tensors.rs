//! From tensors to sequences along an axis, and back.

use super::{item_type, rank, sequence_of, take_items};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::{EvalCx, InferCx, OpDef, normalize_axis};
use crate::tensor::{Elems, Tensor, Value, elem_count};
use crate::types::{TensorType, Type};
use std::sync::Arc;

crate::op_struct! {
    /// The items of a sequence of tensors joined along an axis (ONNX ConcatFromSequence).
    ConcatSequence {
        /// The axis of the result.
        axis: i64,
        /// Whether the axis is a new one rather than one of the items.
        new_axis: bool,
    }
}

crate::op_struct! {
    /// A tensor (operand 0) cut into a sequence along an axis (ONNX SplitToSequence). Operand 1: the sizes of the pieces, or one size (scalar) of all but perhaps the last; omitted: 1.
    SplitSequence {
        /// The axis of the operand.
        axis: i64,
        /// Whether pieces keep the axis; only without operand 1.
        keepdims: bool,
    }
}

impl OpDef for ConcatSequence {
    const NAME: &'static str = "concat-sequence";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let item = item_type(cx, 0)?;
        let t = item.as_tensor().ok_or_else(|| Diag::error("type-mismatch", "items must be tensors"))?;
        let known = t.shape.as_deref();
        let Some(rank) = known.map(<[Dim]>::len).or_else(|| rank::item_rank(cx, 0)) else {
            return Ok(vec![Type::from(TensorType::unranked(t.dtype)).into()]);
        };
        let axis = normalize_axis(self.axis, rank + usize::from(self.new_axis))?;
        let mut dims = Vec::new();
        for out in 0..rank + usize::from(self.new_axis) {
            let from = if self.new_axis && out > axis { out - 1 } else { out };
            dims.push(match known.and_then(|s| s.get(from)) {
                Some(d) if out != axis && d.as_const().is_some() => d.clone(),
                _ => cx.fresh(0, out, 0, None),
            });
        }
        Ok(vec![Type::tensor(t.dtype, dims).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (_, items) = take_items(cx, 0)?;
        let items = items.iter().map(Value::tensor).collect::<Result<Vec<_>, _>>()?;
        let first = items.first().ok_or_else(|| {
            Diag::error("index-out-of-range", "an empty sequence has nothing to concatenate")
        })?;
        let axis = normalize_axis(self.axis, first.rank() + usize::from(self.new_axis))?;
        let view = |t: &Tensor| {
            let mut s = t.shape().to_vec();
            if self.new_axis {
                s.insert(axis, 1);
            }
            s
        };
        let mut shape = view(first);
        shape[axis] = 0;
        for t in &items {
            let s = view(t);
            let fits = s.len() == shape.len()
                && t.dtype() == first.dtype()
                && s.iter().zip(&shape).enumerate().all(|(i, (a, b))| i == axis || a == b);
            if !fits {
                return Err(Diag::error(
                    "shape-mismatch",
                    "items of different shapes cannot be concatenated",
                ));
            }
            shape[axis] = shape[axis].saturating_add(s[axis]);
        }
        elem_count(&shape)?;
        let outer: usize = shape[..axis].iter().product();
        let inner: usize = shape[axis + 1..].iter().product();
        let mut out = match first.elems() {
            Elems::F(_) => Elems::F(Vec::new()),
            Elems::I(_) => Elems::I(Vec::new()),
            Elems::S(_) => Elems::S(Vec::new()),
        };
        let all: Vec<(usize, Elems)> = items.iter().map(|t| (view(t)[axis] * inner, t.elems())).collect();
        for o in 0..outer {
            for (n, e) in &all {
                match (&mut out, e) {
                    (Elems::F(a), Elems::F(b)) => a.extend(&b[o * n..(o + 1) * n]),
                    (Elems::I(a), Elems::I(b)) => a.extend(&b[o * n..(o + 1) * n]),
                    (Elems::S(a), Elems::S(b)) => a.extend_from_slice(&b[o * n..(o + 1) * n]),
                    _ => return Err(Diag::error("dtype-mismatch", "items of different kinds")),
                }
            }
        }
        Ok(vec![Tensor::from_elems(first.dtype(), shape, out)?.into()])
    }
}

impl OpDef for SplitSequence {
    const NAME: &'static str = "split-sequence";
    const INPUTS: (usize, usize) = (1, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let t = cx.ty(0)?.clone();
        let axis = normalize_axis(self.axis, t.dims()?.len())?;
        let mut dims = t.dims()?.to_vec();
        if !cx.has(1) {
            if self.keepdims {
                dims[axis] = Dim::Const(1);
            } else {
                dims.remove(axis);
            }
        } else {
            cx.expect_dtype(1, |d| matches!(d, DType::I32 | DType::I64), "sizes")?;
            let rank = cx.dims(1)?.len();
            if rank > 1 {
                return Err(Diag::error("shape-mismatch", "sizes are a scalar or a vector"));
            }
            let sizes = cx.const_ints(1);
            let same = sizes.as_ref().and_then(|s| {
                let first = *s.first()?;
                let whole = rank == 1 || dims[axis].as_const().is_some_and(|d| first > 0 && d % first == 0);
                (whole && s.iter().all(|v| *v == first)).then_some(first)
            });
            dims[axis] = match same {
                Some(n) if n >= 0 => n.into(),
                _ => {
                    let known = match cx.known_outputs().first().map(|f| &f.ty) {
                        Some(Type::Sequence(t)) => t.as_tensor().and_then(|t| t.shape.as_ref()?.get(axis)),
                        _ => None,
                    };
                    match known {
                        Some(d) => d.clone(),
                        None => Dim::from(cx.symbols.fresh(0, None)),
                    }
                }
            };
        }
        let item = Type::from(TensorType { dtype: t.dtype, shape: Some(dims), quant: None });
        Ok(vec![Type::Sequence(Arc::new(item)).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let axis = normalize_axis(self.axis, x.rank())?;
        let n = x.shape()[axis];
        let bad = |why: String| Diag::error("shape-mismatch", why);
        let sizes: Vec<usize> = match cx.opt_tensor(1)? {
            None => vec![1; n],
            Some(t) => {
                let given: Option<Vec<usize>> =
                    t.to_i64()?.into_iter().map(|v| usize::try_from(v).ok()).collect();
                let given = given.ok_or_else(|| bad("a size is negative".into()))?;
                match (t.rank(), given.as_slice()) {
                    (0, [0]) => return Err(bad("pieces of size 0".into())),
                    (0, [k]) => (0..n.div_ceil(*k)).map(|i| (n - i * k).min(*k)).collect(),
                    _ => given,
                }
            }
        };
        if sizes.iter().try_fold(0usize, |s, v| s.checked_add(*v)) != Some(n) {
            return Err(bad(format!("sizes {sizes:?} do not add up to {n}")));
        }
        let outer: usize = x.shape()[..axis].iter().product();
        let inner: usize = x.shape()[axis + 1..].iter().product();
        let elems = x.elems();
        let (mut items, mut start) = (Vec::new(), 0);
        for size in sizes {
            let mut shape = x.shape().to_vec();
            shape[axis] = size;
            let at = (0..outer).flat_map(|o| {
                let from = (o * n + start) * inner;
                from..from + size * inner
            });
            if !self.keepdims && !cx.has(1) {
                shape.remove(axis);
            }
            items.push(Tensor::from_elems(x.dtype(), shape, elems.pick(at))?.into());
            start += size;
        }
        Ok(sequence_of(Arc::new(TensorType::unranked(x.dtype()).into()), items))
    }
}
