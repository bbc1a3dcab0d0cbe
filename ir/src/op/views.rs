//! Shapes as data, and other shapes for the same bytes.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::util::{fact, moved, size_of};
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value};
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// The dims of a tensor from axis `start` up to axis `end` (negative ones count from the end, both are clamped) as a vector of i64. ONNX `Shape`.
    Shape {
        /// First axis.
        start: i64,
        /// Axis after the last one; none means all.
        end: Option<i64>,
    }
}

impl Shape {
    fn range(&self, rank: usize) -> std::ops::Range<usize> {
        let r = rank as i64;
        let clamp = |v: i64| (if v < 0 { v.saturating_add(r) } else { v }).clamp(0, r) as usize;
        let (a, b) = (clamp(self.start), self.end.map_or(rank, clamp));
        a..b.max(a)
    }
}

impl OpDef for Shape {
    const NAME: &'static str = "shape";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let Some(dims) = &cx.ty(0)?.shape else {
            let n = cx.fresh(0, 0, 0, None);
            return Ok(vec![fact(DType::I64, vec![n])]);
        };
        let content = dims[self.range(dims.len())].to_vec();
        let ty = Type::tensor(DType::I64, vec![Dim::from(content.len())]);
        Ok(vec![Fact { ty, content: Some(content) }])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let s = cx.tensor(0)?.shape();
        let v: Vec<i64> = s[self.range(s.len())].iter().map(|d| *d as i64).collect();
        Ok(vec![Tensor::vec_i64(&v).into()])
    }
}

crate::op_struct! {
    /// The tensor without these axes, which must have size 1. ONNX `Squeeze`.
    Squeeze {
        /// Axes of the operand, ascending.
        axes: Vec<usize>,
    }
}

fn ascending(axes: &[usize], rank: usize) -> Result<(), Diag> {
    if axes.windows(2).any(|w| w[0] >= w[1]) || axes.last().is_some_and(|a| *a >= rank) {
        return Err(Diag::error("axis-out-of-range", format!("axes {axes:?} of a tensor of rank {rank}")));
    }
    Ok(())
}

impl OpDef for Squeeze {
    const NAME: &'static str = "squeeze";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let (ty, dims) = (cx.ty(0)?, cx.dims(0)?);
        ascending(&self.axes, dims.len())?;
        for a in &self.axes {
            if let Some(n) = dims[*a].as_const().filter(|n| *n != 1) {
                return Err(Diag::error("shape-mismatch", format!("axis {a} has size {n}, not 1")));
            }
        }
        let keep = dims.iter().enumerate().filter(|(i, _)| !self.axes.contains(i));
        Ok(vec![moved(ty, keep.map(|(_, d)| d.clone()).collect(), || cx.ints(0))?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.give_reshaped()
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        ascending(&self.axes, x.rank())?;
        let keep = x.shape().iter().enumerate().filter(|(i, _)| !self.axes.contains(i));
        let shape: Vec<usize> = keep.map(|(_, d)| *d).collect();
        if self.axes.iter().any(|a| x.shape()[*a] != 1) {
            return Err(Diag::error("shape-mismatch", "an axis to remove has not size 1"));
        }
        Ok(vec![x.reshaped(&shape)?.into()])
    }
}

crate::op_struct! {
    /// The tensor with axes of size 1 put in. ONNX `Unsqueeze`.
    Unsqueeze {
        /// Axes of the result, ascending.
        axes: Vec<usize>,
    }
}

impl Unsqueeze {
    fn insert<T: Clone>(&self, dims: &[T], one: T) -> Result<Vec<T>, Diag> {
        let rank = dims.len() + self.axes.len();
        ascending(&self.axes, rank)?;
        let mut rest = dims.iter();
        let out = (0..rank)
            .map(|i| if self.axes.contains(&i) { one.clone() } else { rest.next().unwrap_or(&one).clone() });
        Ok(out.collect())
    }
}

impl OpDef for Unsqueeze {
    const NAME: &'static str = "unsqueeze";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dims = self.insert(cx.dims(0)?, Dim::Const(1))?;
        Ok(vec![moved(cx.ty(0)?, dims, || cx.ints(0))?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.give_reshaped()
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        Ok(vec![x.reshaped(&self.insert(x.shape(), 1)?)?.into()])
    }
}

crate::op_struct! {
    /// A matrix: the axes before `axis` become rows, the others columns. ONNX `Flatten`.
    Flatten {
        /// First axis of the columns, from 0 to the rank.
        axis: usize,
    }
}

impl OpDef for Flatten {
    const NAME: &'static str = "flatten";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dims = cx.dims(0)?;
        if self.axis > dims.len() {
            return Err(Diag::error(
                "axis-out-of-range",
                format!("axis {} of rank {}", self.axis, dims.len()),
            ));
        }
        let (a, b) = dims.split_at(self.axis);
        Ok(vec![moved(cx.ty(0)?, vec![Dim::product(a), Dim::product(b)], || None)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.give_reshaped()
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        if self.axis > x.rank() {
            return Err(Diag::error("axis-out-of-range", format!("axis {} of rank {}", self.axis, x.rank())));
        }
        let (a, b) = x.shape().split_at(self.axis);
        Ok(vec![x.reshaped(&[a.iter().product(), b.iter().product()])?.into()])
    }
}

crate::op_struct! {
    /// The bytes of a tensor read as another dtype of the same width. ONNX `BitCast`.
    BitCast {
        /// The dtype of the result.
        to: DType,
    }
}

impl BitCast {
    fn check(&self, from: DType) -> Result<(), Diag> {
        if from.bits() != self.to.bits() || from == DType::Str || self.to == DType::Str {
            return Err(Diag::error("dtype-mismatch", format!("{from} and {} differ in width", self.to)));
        }
        Ok(())
    }
}

impl OpDef for BitCast {
    const NAME: &'static str = "bit-cast";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let ty = cx.ty(0)?;
        self.check(ty.dtype)?;
        Ok(vec![Type::from(TensorType { dtype: self.to, shape: ty.shape.clone(), quant: None }).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        self.check(x.dtype())?;
        // Of two types narrower than a byte, one may keep its sign in the high bits.
        if self.to.bits() < 8 && self.to.is_int() {
            let mask = (1u8 << self.to.bits()) - 1;
            let v = x.bytes().iter().map(|b| i128::from(b & mask)).collect();
            return Ok(vec![Tensor::ints(self.to, x.shape(), v)?.into()]);
        }
        Ok(vec![Tensor::from_bytes(self.to, x.shape().to_vec(), x.bytes().clone())?.into()])
    }
}

crate::op_struct! {
    /// The tensor with its axes in another order: axis `i` of the result is axis `perm[i]` of the operand. ONNX `Transpose`.
    Transpose {
        /// A permutation of the axes.
        perm: Vec<usize>,
    }
}

impl Transpose {
    fn check(&self, rank: usize) -> Result<(), Diag> {
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if sorted.iter().copied().eq(0..rank) {
            return Ok(());
        }
        Err(Diag::error("perm-malformed", format!("{:?} is no permutation of {rank} axes", self.perm)))
    }
}

impl OpDef for Transpose {
    const NAME: &'static str = "transpose";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let (mut ty, dims) = (cx.ty(0)?.clone(), cx.dims(0)?);
        self.check(dims.len())?;
        ty.shape = Some(self.perm.iter().map(|p| dims[*p].clone()).collect());
        if let Some(q) = &ty.quant
            && let Some(axis) = q.axis
        {
            let at = self.perm.iter().position(|p| *p == axis as usize);
            let mut q = q.as_ref().clone();
            q.axis = at.map(|a| a as u32);
            ty.quant = Some(q.into());
        }
        let content = if dims.len() <= 1 { cx.ints(0) } else { None };
        Ok(vec![Fact { ty: ty.into(), content }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let dy = cx.only_seed()?;
        let mut back = vec![0; self.perm.len()];
        for (to, from) in self.perm.iter().enumerate() {
            back[*from] = to;
        }
        let dx = cx.transpose(dy, &back)?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        self.check(x.rank())?;
        let st = crate::tensor::strides(x.shape());
        let shape: Vec<usize> = self.perm.iter().map(|p| x.shape()[*p]).collect();
        let st: Vec<usize> = self.perm.iter().map(|p| st[*p]).collect();
        let out = crate::op::util::gather_by(x, shape, |i| Ok(crate::op::util::flat(i, &st)))?;
        Ok(vec![out.into()])
    }
}

crate::op_struct! {
    /// The first operand broadcast against the shape that the second lists, in both directions. ONNX `Expand`, `ConstantOfShape`.
    Expand {}
}

impl OpDef for Expand {
    const NAME: &'static str = "expand";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(1, |d| d == DType::I64, "i64")?;
        let (ty, from) = (cx.ty(0)?, cx.dims(0)?);
        let dims = match cx.ints(1) {
            Some(spec) => {
                if let Some(v) = spec.iter().find_map(Dim::as_const).filter(|v| *v < 0) {
                    return Err(Diag::error("shape-mismatch", format!("a dim cannot be {v}")));
                }
                crate::op::broadcast_shapes(from, &spec, cx.symbols)?
            }
            None => {
                let n = crate::op::util::vector_len(cx.dims(1)?, "the shape")?;
                let rank = n.max(from.len());
                let mut out = Vec::new();
                for axis in 0..rank {
                    let own = (axis + from.len()).checked_sub(rank).map(|k| from[k].clone());
                    out.push(match own {
                        Some(d) if axis + n < rank || d.as_const().is_some_and(|v| v > 1) => d,
                        _ => cx.fresh(0, axis, 0, None),
                    });
                }
                out
            }
        };
        let count = dims.first().map_or(Some(1), Dim::as_const);
        let content = || {
            let c = cx.ints(0)?;
            match (c.as_slice(), count) {
                ([one], Some(n)) if (0..=128).contains(&n) => Some(vec![one.clone(); n as usize]),
                (all, Some(n)) if all.len() as i64 == n => Some(c),
                _ => None,
            }
        };
        Ok(vec![moved(ty, dims.clone(), content)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let dy = cx.only_seed()?;
        cx.give(0, dy)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let spec = cx.ints(1)?.into_iter().map(size_of).collect::<Result<Vec<_>, _>>()?;
        let shape = crate::op::binary::broadcast_concrete(x.shape(), &spec)?;
        let pos = crate::op::binary::broadcast_positions(x.shape(), &shape)?;
        Ok(vec![crate::op::util::pick(x, shape, &pos)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run};

    #[test]
    fn shapes_are_data() {
        let x = iota(&[2, 3, 4]);
        let all = Shape { start: 0, end: None };
        assert_eq!(run(all.clone(), std::slice::from_ref(&x)), i(&[3], &[2, 3, 4]));
        assert_eq!(run(Shape { start: -2, end: Some(-1) }, std::slice::from_ref(&x)), i(&[1], &[3]));
        assert_eq!(run(Shape { start: 2, end: Some(1) }, &[x]), i(&[0], &[]));
        assert_eq!(run(all, &[f(&[], &[1.0])]), i(&[0], &[]));
    }

    #[test]
    fn axes_of_size_one_come_and_go() {
        let x = iota(&[1, 3, 1]);
        assert_eq!(run(Squeeze { axes: vec![0, 2] }, std::slice::from_ref(&x)), iota(&[3]));
        assert_eq!(run(Unsqueeze { axes: vec![0, 2] }, &[iota(&[3])]), x);
        assert_eq!(fails(Squeeze { axes: vec![1] }, std::slice::from_ref(&x)), "shape-mismatch");
        assert_eq!(fails(Unsqueeze { axes: vec![5] }, std::slice::from_ref(&x)), "axis-out-of-range");
        assert_eq!(run(Flatten { axis: 0 }, std::slice::from_ref(&x)), iota(&[1, 3]));
        assert_eq!(run(Flatten { axis: 3 }, &[x]), iota(&[3, 1]));
    }

    #[test]
    fn transposes_and_expands() {
        let x = iota(&[2, 3]);
        assert_eq!(
            run(Transpose { perm: vec![1, 0] }, std::slice::from_ref(&x)),
            f(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0])
        );
        assert_eq!(fails(Transpose { perm: vec![0, 0] }, &[x]), "perm-malformed");
        assert_eq!(
            run(Expand {}, &[f(&[2, 1], &[1.0, 2.0]), i(&[2], &[1, 2])]),
            f(&[2, 2], &[1.0, 1.0, 2.0, 2.0])
        );
        assert_eq!(run(Expand {}, &[i(&[], &[7]), i(&[1], &[3])]), i(&[3], &[7, 7, 7]));
        assert_eq!(fails(Expand {}, &[iota(&[3]), i(&[1], &[-4])]), "shape-mismatch");
        assert_eq!(fails(Expand {}, &[iota(&[1]), i(&[2], &[1 << 40, 1 << 40])]), "tensor-too-large");
    }

    #[test]
    fn bits_stay() {
        let x = f(&[1], &[1.0]);
        let y = run(BitCast { to: DType::I32 }, std::slice::from_ref(&x));
        assert_eq!(y.to_i64().ok(), Some(vec![0x3f80_0000]));
        assert_eq!(fails(BitCast { to: DType::I64 }, &[x]), "dtype-mismatch");
    }
}
