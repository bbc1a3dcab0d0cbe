//! Tensors made from few numbers, and triangles.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::concat::Concat;
use crate::op::gradient::GradCx;
use crate::op::reduce::{Cumulate, ReduceKind};
use crate::op::util::{fact, larger, moved, pick, scalar_f64, scalar_i64};
use crate::op::{EvalCx, InferCx, OpDef, concat};
use crate::tensor::{Elems, Tensor, Value, elem_count};

crate::op_struct! {
    /// The numbers from the first operand up to the second, which is not among them, by steps of the third. All are scalars. Element `i` is start + i * step. ONNX `Range`.
    Range {}
}

/// How many numbers a range has.
fn range_len(start: f64, limit: f64, step: f64) -> Result<usize, Diag> {
    let n = ((limit - start) / step).ceil();
    if step == 0.0 || n.is_nan() || n > 1e15 {
        return Err(Diag::error("range-malformed", format!("{start}..{limit} by {step}")));
    }
    Ok(n.max(0.0) as usize)
}

/// The same on integers, without rounding.
fn range_len_int(start: i128, limit: i128, step: i128) -> Result<usize, Diag> {
    if step == 0 {
        return Err(Diag::error("range-malformed", "a step cannot be 0"));
    }
    let (span, step) = if step > 0 { (limit - start, step) } else { (start - limit, -step) };
    let n = if span <= 0 { 0 } else { (span - 1) / step + 1 };
    usize::try_from(n).map_err(|_| Diag::error("tensor-too-large", "the range is too long"))
}

impl OpDef for Range {
    const NAME: &'static str = "range";
    const INPUTS: (usize, usize) = (3, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_int() || d.is_float(), "a number")?;
        cx.expect_same_dtype(0)?;
        for i in 0..3 {
            if cx.dims(i)?.iter().any(|d| d.as_const().is_some_and(|d| d != 1)) {
                return Err(Diag::error("shape-mismatch", "start, limit and step must be scalars"));
            }
        }
        let one = |i| cx.ints(i).filter(|v| v.len() == 1).map(|v| v[0].clone());
        let mut content = None;
        let mut len = None;
        if let (Some(start), Some(limit), Some(step)) = (one(0), one(1), one(2))
            && let Some(k) = step.as_const()
        {
            if k == 0 {
                return Err(Diag::error("range-malformed", "a step cannot be 0"));
            }
            let span = if k > 0 { limit.sub(&start) } else { start.sub(&limit) };
            let n = larger(&span, &Dim::Const(0), cx.symbols).ceil_div(&Dim::Const(k.saturating_abs()));
            if let Some(n) = n.as_const().filter(|n| *n <= 128) {
                content = Some((0..n).map(|i| start.add(&step.mul(&Dim::Const(i)))).collect());
            }
            len = Some(n);
        } else if dtype.is_float()
            && let (Some(a), Some(b), Some(c)) =
                (cx.const_tensor(0, 1), cx.const_tensor(1, 1), cx.const_tensor(2, 1))
        {
            let [a, b, c] = [scalar_f64(&a, "start")?, scalar_f64(&b, "limit")?, scalar_f64(&c, "step")?];
            len = Some(Dim::from(range_len(a, b, c)?));
        }
        let n = len.unwrap_or_else(|| cx.fresh(0, 0, 0, None));
        let mut out = fact(dtype, vec![n]);
        out.content = content.filter(|_| matches!(dtype, DType::I64 | DType::I32));
        Ok(vec![out])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let dy = cx.only_seed()?;
        // Where it ends changes how many numbers there are, not the numbers.
        for (i, factor) in [(0, None), (2, Some(()))] {
            let mut d = dy;
            if factor.is_some() {
                let ones = cx.filled(1.0, dy)?;
                let axis = cx.ed.constant(Tensor::scalar_i64(0))?;
                let steps = Cumulate { product: false, exclusive: true, reverse: false };
                let steps = cx.ed.node1(steps, &[ones, axis])?;
                d = cx.mul(dy, steps)?;
            }
            let d = cx.reduce(ReduceKind::Sum, d, &[0], false)?;
            let operand = cx.input(i)?;
            let d = cx.reshape_like(d, operand)?;
            cx.give(i, d)?;
        }
        Ok(())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let t = [cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?];
        let d = t[0].dtype();
        let one = || Diag::error("shape-mismatch", "start, limit and step must be scalars");
        if t.iter().any(|t| t.len() != 1) {
            return Err(one());
        }
        let e = match (t[0].elems(), t[1].elems(), t[2].elems()) {
            (Elems::F(a), Elems::F(b), Elems::F(c)) => {
                let n = range_len(a[0], b[0], c[0])?;
                elem_count(&[n])?;
                Elems::F((0..n).map(|i| a[0] + i as f64 * c[0]).collect())
            }
            (Elems::I(a), Elems::I(b), Elems::I(c)) => {
                let n = range_len_int(a[0], b[0], c[0])?;
                elem_count(&[n])?;
                Elems::I((0..n as i128).map(|i| a[0] + i * c[0]).collect())
            }
            _ => return Err(Diag::error("dtype-mismatch", "a range needs numbers")),
        };
        Ok(vec![Tensor::from_elems(d, vec![e.len()], e)?.into()])
    }
}

crate::op_struct! {
    /// A matrix of the operand's shape with ones on a diagonal and zeros elsewhere. ONNX `EyeLike`.
    EyeLike {
        /// The dtype of the result.
        dtype: DType,
        /// Which diagonal: 0 is the main one, positive ones are above.
        k: i64,
    }
}

impl OpDef for EyeLike {
    const NAME: &'static str = "eye-like";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dims = cx.dims(0)?;
        if dims.len() != 2 || self.dtype == DType::Str {
            return Err(Diag::error("shape-mismatch", "an identity has two axes and numbers"));
        }
        Ok(vec![fact(self.dtype, dims.to_vec())])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let shape = cx.tensor(0)?.shape().to_vec();
        let [rows, cols] = shape[..] else {
            return Err(Diag::error("shape-mismatch", "an identity has two axes"));
        };
        elem_count(&shape)?;
        let table = concat::concat(
            &[
                &Tensor::scalar(self.dtype, 0.0)?.reshaped(&[1])?,
                &Tensor::scalar(self.dtype, 1.0)?.reshaped(&[1])?,
            ],
            0,
        )?;
        let on = |r: usize, c: usize| c as i128 - r as i128 == i128::from(self.k);
        let pos: Vec<usize> = (0..rows * cols).map(|i| usize::from(on(i / cols, i % cols))).collect();
        Ok(vec![pick(&table, shape, &pos)?.into()])
    }
}

crate::op_struct! {
    /// The upper or the lower triangle of the matrices in the last two axes; other elements are 0. The second operand shifts the diagonal, positive ones upwards. ONNX `Trilu`.
    Trilu {
        /// Whether elements on and above the diagonal are kept, else on and below.
        upper: bool,
    }
}

impl OpDef for Trilu {
    const NAME: &'static str = "trilu";
    const INPUTS: (usize, usize) = (1, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dims = cx.dims(0)?;
        if dims.len() < 2 || cx.dtype(0)? == DType::Str {
            return Err(Diag::error("shape-mismatch", "a triangle needs two axes and numbers"));
        }
        if cx.has(1) {
            cx.expect_dtype(1, |d| d == DType::I64, "i64")?;
            crate::op::util::expect_equal(&Dim::product(cx.dims(1)?), &Dim::Const(1), "the diagonal")?;
        }
        Ok(vec![moved(cx.ty(0)?, dims.to_vec(), || None)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.give_by(self.clone())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let k = if cx.has(1) { scalar_i64(cx.tensor(1)?, "the diagonal")? } else { 0 };
        let [.., rows, cols] = *x.shape() else {
            return Err(Diag::error("shape-mismatch", "a triangle needs two axes"));
        };
        let zero = Tensor::scalar(x.dtype(), 0.0)?.reshaped(&[1])?;
        let table = concat::concat(&[&x.reshaped(&[x.len()])?, &zero], 0)?;
        let pos: Vec<usize> = (0..x.len())
            .map(|i| {
                let (r, c) = (i / cols % rows, i % cols);
                let above = c as i128 - r as i128 - i128::from(k);
                if (self.upper && above >= 0) || (!self.upper && above <= 0) { i } else { x.len() }
            })
            .collect();
        Ok(vec![pick(&table, x.shape().to_vec(), &pos)?.into()])
    }
}

crate::op_struct! {
    /// For every index of the first operand a vector along a new axis, as long as the second operand says: the second value of the third operand at the index, the first value elsewhere. Negative indices count from the end; one out of range gives no second value. ONNX `OneHot`.
    OneHot {
        /// The new axis, below the rank of the result.
        axis: usize,
    }
}

impl OpDef for OneHot {
    const NAME: &'static str = "one-hot";
    const INPUTS: (usize, usize) = (3, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d.is_int() || d.is_float(), "a number")?;
        cx.expect_dtype(1, |d| d == DType::I64, "i64")?;
        let mut dims = cx.dims(0)?.to_vec();
        if self.axis > dims.len() {
            return Err(Diag::error(
                "axis-out-of-range",
                format!("axis {} of rank {}", self.axis, dims.len() + 1),
            ));
        }
        crate::op::util::expect_equal(&Dim::product(cx.dims(1)?), &Dim::Const(1), "the depth")?;
        match cx.dims(2)? {
            [two] => crate::op::util::expect_equal(two, &Dim::Const(2), "the values")?,
            _ => return Err(Diag::error("shape-mismatch", "the values must be a vector of two")),
        }
        let depth = match cx.ints(1).as_deref() {
            Some([d]) if d.as_const().is_some_and(|v| v < 0) => {
                return Err(Diag::error("shape-mismatch", "the depth is negative"));
            }
            Some([d]) => d.clone(),
            _ => cx.fresh(0, self.axis, 0, None),
        };
        dims.insert(self.axis, depth);
        Ok(vec![fact(cx.dtype(2)?, dims)])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, values) = (cx.only_seed()?, cx.input(2)?);
        let (index, depth, dtype) = (cx.input(0)?, cx.input(1)?, cx.dtype(values)?);
        let all: Vec<usize> = (0..cx.dims(dy)?.len()).collect();
        let mut sums = Vec::new();
        for values in [[1.0, 0.0], [0.0, 1.0]] {
            let values = cx.ed.constant(Tensor::floats(dtype, &[2], values.to_vec())?)?;
            let here = cx.ed.node1(self.clone(), &[index, depth, values])?;
            let part = cx.mul(dy, here)?;
            let sum = cx.reduce(ReduceKind::Sum, part, &all, false)?;
            sums.push(Some(cx.unsqueeze(sum, &[0])?));
        }
        let d = cx.ed.node(Concat { axis: 0 }, &sums)?;
        cx.give(2, d[0])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, values) = (cx.tensor(0)?, cx.tensor(2)?);
        let depth = crate::op::util::size_of(scalar_i64(cx.tensor(1)?, "the depth")?)?;
        let mut shape = x.shape().to_vec();
        if values.len() != 2 || self.axis > shape.len() {
            return Err(Diag::error("shape-mismatch", "two values and an axis of the result are needed"));
        }
        shape.insert(self.axis, depth);
        let index = x.to_f64();
        let st = crate::tensor::strides(x.shape());
        let out = crate::op::util::gather_by(values, shape, |i| {
            let at = crate::op::util::flat(&i[..self.axis], &st)
                + crate::op::util::flat(&i[self.axis + 1..], &st[self.axis..]);
            let k = index[at].trunc();
            let k = if k < 0.0 { k + depth as f64 } else { k };
            Ok(usize::from(k == i[self.axis] as f64))
        })?;
        Ok(vec![out.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run};

    #[test]
    fn ranges() {
        assert_eq!(run(Range {}, &[i(&[], &[1]), i(&[], &[6]), i(&[], &[2])]), i(&[3], &[1, 3, 5]));
        assert_eq!(run(Range {}, &[i(&[], &[3]), i(&[], &[0]), i(&[], &[-2])]), i(&[2], &[3, 1]));
        assert_eq!(run(Range {}, &[i(&[], &[3]), i(&[], &[0]), i(&[], &[1])]), i(&[0], &[]));
        assert_eq!(run(Range {}, &[f(&[], &[1.0]), f(&[], &[2.0]), f(&[], &[0.25])]).len(), 4);
        assert_eq!(fails(Range {}, &[i(&[], &[3]), i(&[], &[0]), i(&[], &[0])]), "range-malformed");
        let huge = [i(&[], &[i64::MIN]), i(&[], &[i64::MAX]), i(&[], &[1])];
        assert_eq!(fails(Range {}, &huge), "tensor-too-large");
    }

    #[test]
    fn triangles_and_diagonals() {
        let x = f(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(
            run(Trilu { upper: true }, &[x.clone(), i(&[], &[1])]).to_f64(),
            [0.0, 2.0, 3.0, 0.0, 0.0, 6.0]
        );
        assert_eq!(
            run(Trilu { upper: false }, std::slice::from_ref(&x)).to_f64(),
            [1.0, 0.0, 0.0, 4.0, 5.0, 0.0]
        );
        assert_eq!(run(Trilu { upper: true }, &[iota(&[0, 3])]).len(), 0);
        let eye = run(EyeLike { dtype: DType::I64, k: -1 }, &[x]);
        assert_eq!(eye, i(&[2, 3], &[0, 0, 0, 1, 0, 0]));
    }

    #[test]
    fn one_hot_vectors() {
        let out = run(OneHot { axis: 1 }, &[i(&[3], &[0, -1, 7]), i(&[], &[2]), f(&[2], &[5.0, 6.0])]);
        assert_eq!(out, f(&[3, 2], &[6.0, 5.0, 5.0, 6.0, 5.0, 5.0]));
        let out = run(OneHot { axis: 0 }, &[i(&[2], &[0, 1]), i(&[1], &[3]), i(&[2], &[0, 1])]);
        assert_eq!(out, i(&[3, 2], &[1, 0, 0, 1, 0, 0]));
    }
}
