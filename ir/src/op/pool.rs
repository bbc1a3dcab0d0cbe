//! Pooling over windows.

use crate::constant::Constant;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::binary::BinaryKind;
use crate::op::conv::{back, is_number, padding, spatial_rank};
use crate::op::gradient::GradCx;
use crate::op::reshape::Reshape;
use crate::op::unary::UnaryKind;
use crate::op::window::{AutoPad, Windows, for_each_index};
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value, elem_count};
use crate::types::Type;

crate::attr_enum! {
    /// What becomes of the elements of a window.
    PoolKind {
        /// The largest; NaN if one is NaN.
        Max = "max",
        /// The mean.
        Average = "average",
        /// The p-norm.
        Lp = "lp",
    }
}

crate::attr_enum! {
    /// In which order elements of the spatial axes are counted.
    IndexOrder {
        /// The last axis fastest.
        RowMajor = "row-major",
        /// The first spatial axis fastest.
        ColumnMajor = "column-major",
    }
}

crate::op_struct! {
    /// Pooling (ONNX MaxPool, AveragePool, LpPool) of `x` \[N, C, spatial...\]: \[N, C, positions...\]. Padding is never the largest, adds 0 to a norm, and counts in a mean only with `count_include_pad`. With `indices` (max only) a second i64 result holds where each maximum is in the whole input, counted over N, C and then the spatial axes in the given order.
    Pool {
        /// What becomes of a window.
        kind: PoolKind,
        /// Size of the window along each spatial axis.
        kernel: Vec<i64>,
        /// Step along each spatial axis.
        strides: Vec<i64>,
        /// Distance of neighbouring elements of the window along each spatial axis.
        dilations: Vec<i64>,
        /// Padding: the beginnings of all spatial axes, then the ends.
        pads: Vec<i64>,
        /// How the padding is given.
        auto_pad: AutoPad,
        /// Whether a last window may reach beyond the padding.
        ceil_mode: bool,
        /// Whether padding counts in a mean.
        count_include_pad: bool,
        /// The p of a p-norm.
        p: i64,
        /// Whether and how the place of the maximum is a second result.
        indices: Option<IndexOrder>,
    }
}

impl Pool {
    /// The window fields.
    pub fn windows(&self) -> Windows<'_> {
        Windows {
            auto_pad: self.auto_pad,
            strides: &self.strides,
            dilations: &self.dilations,
            pads: &self.pads,
        }
    }
    fn shape(&self, x: &[Dim]) -> Result<Vec<Dim>, Diag> {
        let rank = spatial_rank(x)?;
        self.windows().check(rank)?;
        if self.kernel.len() != rank || !self.kernel.iter().all(|k| (1..=i64::from(i32::MAX)).contains(k)) {
            return Err(Diag::error("field-range", format!("a window {:?} over {rank} axes", self.kernel)));
        }
        if self.p < 1 {
            return Err(Diag::error("field-range", format!("the {}-norm", self.p)));
        }
        let mut out = vec![x[0].clone(), x[1].clone()];
        for axis in 0..rank {
            out.push(self.windows().positions(
                axis,
                &x[axis + 2],
                &self.kernel[axis].into(),
                self.ceil_mode,
            )?);
        }
        Ok(out)
    }
}

impl Pool {
    /// Every position of `v` added to all elements of its window over `x`.
    fn spread(&self, cx: &mut GradCx<'_, '_>, v: ValueId, x: ValueId) -> Result<ValueId, Diag> {
        let rank = self.kernel.len();
        let (images, channels, space) = (cx.size(v, 0)?, cx.size(v, 1)?, cx.sizes(v, 2..rank + 2)?);
        let planes = cx.product(images, channels)?;
        let one = cx.vector(&[1])?;
        let shape = cx.join(&[planes, one, space])?;
        let v = cx.ed.node1(Reshape { allow_zero: true }, &[v, shape])?;
        let window = [1, 1].into_iter().chain(self.kernel.iter().map(|k| *k as usize)).collect();
        let window = Constant::splat(&Tensor::scalar(cx.dtype(x)?, 1.0)?, window)?;
        let window = cx.ed.constant(window)?;
        let pads = padding(cx, &self.windows(), x, &self.kernel)?;
        let all = back(cx, (v, window, x), (&self.windows(), &pads), 1)?;
        cx.reshape_like(all, x)
    }
    /// By how much the sums of windows over `x` are divided, in a shape that is broadcast to that of the result.
    fn counts(&self, cx: &mut GradCx<'_, '_>, x: ValueId) -> Result<ValueId, Diag> {
        let space: Option<Vec<usize>> =
            cx.dims(x)?[2..].iter().map(|d| d.as_const().and_then(|n| usize::try_from(n).ok())).collect();
        let kernel: Vec<usize> = self.kernel.iter().map(|k| *k as usize).collect();
        let whole = self.auto_pad == AutoPad::Explicit && !self.ceil_mode;
        if let Some(space) = space {
            let placed = self.windows().place(&space, &kernel, self.ceil_mode)?;
            let mut counts = Vec::new();
            for_each_index(&placed.out, |index| {
                let padded = self.count_include_pad;
                let taken =
                    if padded { placed.padded_size(index) as f64 } else { placed.taps(index).len() as f64 };
                counts.push(taken);
                Ok(())
            })?;
            let counts = Tensor::floats(cx.dtype(x)?, &placed.out, counts)?;
            return cx.ed.constant(counts);
        }
        if whole && (self.count_include_pad || self.pads.iter().all(|p| *p == 0)) {
            return cx.number(kernel.iter().product::<usize>() as f64, x);
        }
        if self.count_include_pad {
            return Err(cx.no_rule("with padding that counts up to a size that is not fixed"));
        }
        let ones = cx.filled(1.0, x)?;
        cx.ed.node1(Pool { kind: PoolKind::Lp, p: 1, ..self.clone() }, &[ones])
    }
}

impl OpDef for Pool {
    const NAME: &'static str = "pool";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let max = self.kind == PoolKind::Max;
        let dtype = cx.expect_dtype(0, |d| d.is_float() || max && is_number(d), "a type that is pooled")?;
        if self.indices.is_some() && !max {
            return Err(Diag::error("field-range", "only a maximum has a place"));
        }
        let out = self.shape(cx.dims(0)?)?;
        let mut facts = vec![Type::tensor(dtype, out.clone()).into()];
        if self.indices.is_some() {
            facts.push(Type::tensor(DType::I64, out).into());
        }
        Ok(facts)
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x) = (cx.only_seed()?, cx.input(0)?);
        let dx = match self.kind {
            PoolKind::Lp => {
                let (y, p) = (cx.output(0), self.p as f64);
                let (mut share, mut mine) = (dy, cx.unary(UnaryKind::Sign, x)?);
                if self.p > 1 {
                    // 0 where all elements of a window are.
                    let none = cx.compare(BinaryKind::Equal, y, 0.0)?;
                    let norm = cx.compare(BinaryKind::Pow, y, p - 1.0)?;
                    share = cx.binary(BinaryKind::Div, dy, norm)?;
                    share = cx.only(none, false, share)?;
                    let size = cx.unary(UnaryKind::Abs, x)?;
                    let size = cx.compare(BinaryKind::Pow, size, p - 1.0)?;
                    mine = cx.mul(mine, size)?;
                }
                let all = self.spread(cx, share, x)?;
                cx.mul(mine, all)?
            }
            PoolKind::Max => {
                let order = Some(IndexOrder::RowMajor);
                let at = match self.indices == order {
                    true => cx.output(1),
                    false => cx.ed.node(Pool { indices: order, ..self.clone() }, &[Some(x)])?[1],
                };
                let (at, flat) = (cx.reshape(at, &[-1])?, cx.reshape(dy, &[-1])?);
                match cx.known_dims(x) {
                    Ok(dims) => cx.scatter_flat(flat, at, dims.iter().product())?,
                    Err(_) => {
                        let like = cx.reshape(x, &[-1])?;
                        cx.scatter_add(flat, 0, at, like)?
                    }
                }
            }
            PoolKind::Average => {
                let counts = self.counts(cx, x)?;
                let share = cx.binary(BinaryKind::Div, dy, counts)?;
                self.spread(cx, share, x)?
            }
        };
        let dx = cx.reshape_like(dx, x)?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let dims: Vec<Dim> = x.shape().iter().map(|d| Dim::from(*d)).collect();
        self.shape(&dims)?;
        let kernel: Vec<usize> = self.kernel.iter().map(|k| *k as usize).collect();
        let space = &x.shape()[2..];
        let placed = self.windows().place(space, &kernel, self.ceil_mode)?;
        let planes = x.shape()[0] * x.shape()[1];
        let mut shape = x.shape()[..2].to_vec();
        shape.extend(&placed.out);
        let total = elem_count(&shape)?;
        let positions = elem_count(&placed.out)?;
        let plane: usize = space.iter().product();
        let lowest = x.dtype().int_range().map_or(0, |r| r.0);
        let elems = x.elems();
        let mut floats = vec![0.0; if matches!(elems, Elems::F(_)) { total } else { 0 }];
        let mut ints = vec![0; if matches!(elems, Elems::I(_)) { total } else { 0 }];
        let mut places = vec![0i128; if self.indices.is_some() { total } else { 0 }];
        let mut position = 0;
        for_each_index(&placed.out, |index| {
            let taps = placed.taps(index);
            let padded = placed.padded_size(index);
            for n in 0..planes {
                let at = n * positions + position;
                let mut best = None;
                match &elems {
                    Elems::F(v) => {
                        let v = &v[n * plane..][..plane];
                        let taken = taps.iter().map(|(_, i)| v[*i]);
                        floats[at] = match self.kind {
                            PoolKind::Max => {
                                let mut max = f64::NEG_INFINITY;
                                for (_, i) in &taps {
                                    if best.is_none() || v[*i] > max || v[*i].is_nan() && !max.is_nan() {
                                        (best, max) = (Some(*i), v[*i]);
                                    }
                                }
                                max
                            }
                            PoolKind::Average => {
                                let count =
                                    if self.count_include_pad { padded as f64 } else { taps.len() as f64 };
                                taken.sum::<f64>() / count
                            }
                            PoolKind::Lp => {
                                let p = self.p as f64;
                                taken.map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p)
                            }
                        };
                    }
                    Elems::I(v) => {
                        let v = &v[n * plane..][..plane];
                        let mut max = lowest;
                        for (_, i) in &taps {
                            if best.is_none() || v[*i] > max {
                                (best, max) = (Some(*i), v[*i]);
                            }
                        }
                        ints[at] = max;
                    }
                    Elems::S(_) => return Err(Diag::error("dtype-mismatch", "strings cannot be pooled")),
                }
                if let Some(order) = self.indices {
                    let i = reorder(best.unwrap_or(0), space, order);
                    places[at] = (n * plane + i) as i128;
                }
            }
            position += 1;
            Ok(())
        })?;
        let y = if floats.is_empty() && !ints.is_empty() || matches!(elems, Elems::I(_)) {
            Elems::I(ints)
        } else {
            Elems::F(floats)
        };
        let mut out = vec![Tensor::from_elems(x.dtype(), shape.clone(), y)?.into()];
        if self.indices.is_some() {
            out.push(Tensor::ints(DType::I64, &shape, places)?.into());
        }
        Ok(out)
    }
}

/// A row-major index of `space` counted in another order.
fn reorder(mut i: usize, space: &[usize], order: IndexOrder) -> usize {
    if order == IndexOrder::RowMajor {
        return i;
    }
    let (mut out, mut step): (usize, usize) = (0, space.iter().product());
    for d in space.iter().rev() {
        step = step.checked_div(*d).unwrap_or(0);
        out += i % d * step;
        i /= d;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::{eval_op, ramp};

    fn pool(kind: PoolKind, kernel: &[i64], strides: &[i64], pads: &[i64]) -> Pool {
        Pool {
            kind,
            kernel: kernel.into(),
            strides: strides.into(),
            dilations: vec![1; kernel.len()],
            pads: pads.into(),
            auto_pad: AutoPad::Explicit,
            ceil_mode: false,
            count_include_pad: false,
            p: 2,
            indices: None,
        }
    }

    #[test]
    fn maxima_and_their_places() -> Result<(), Diag> {
        let x = ramp(&[1, 2, 2, 3], 12.0, -1.0)?;
        let mut op = pool(PoolKind::Max, &[2, 2], &[1, 1], &[0; 4]);
        op.indices = Some(IndexOrder::RowMajor);
        let y = eval_op(op.clone(), &[Some(x.clone())])?;
        assert_eq!(y[0].to_f64(), [12.0, 11.0, 6.0, 5.0]);
        assert_eq!(y[1].to_f64(), [0.0, 1.0, 6.0, 7.0]);
        op.indices = Some(IndexOrder::ColumnMajor);
        assert_eq!(eval_op(op, &[Some(x)])?[1].to_f64(), [0.0, 2.0, 6.0, 8.0]);
        let x = Tensor::ints(DType::I8, &[1, 1, 3], vec![-5, -7, -6])?;
        assert_eq!(eval_op(pool(PoolKind::Max, &[2], &[2], &[1, 1]), &[Some(x)])?[0].to_f64(), [-5.0, -6.0]);
        Ok(())
    }

    #[test]
    fn padding_counts_only_when_asked() -> Result<(), Diag> {
        let x = ramp(&[1, 1, 4], 1.0, 1.0)?;
        let mut op = pool(PoolKind::Average, &[3], &[2], &[1, 0]);
        assert_eq!(eval_op(op.clone(), &[Some(x.clone())])?[0].to_f64(), [1.5, 3.0]);
        op.count_include_pad = true;
        assert_eq!(eval_op(op.clone(), &[Some(x.clone())])?[0].to_f64(), [1.0, 3.0]);
        op.ceil_mode = true;
        op.strides = vec![3];
        // The last window has two elements; what lies beyond the padding never counts.
        assert_eq!(eval_op(op, &[Some(x)])?[0].to_f64(), [1.0, 3.5]);
        Ok(())
    }

    #[test]
    fn norms_of_windows() -> Result<(), Diag> {
        let x = Tensor::f32s(&[1, 1, 4], &[3.0, -4.0, 5.0, 12.0])?;
        assert_eq!(
            eval_op(pool(PoolKind::Lp, &[2], &[2], &[0, 0]), &[Some(x.clone())])?[0].to_f64(),
            [5.0, 13.0]
        );
        let mut op = pool(PoolKind::Max, &[2], &[2], &[0, 0]);
        op.kernel = vec![i64::MAX];
        assert_eq!(eval_op(op, &[Some(x)]).map_err(|d| d.id), Err("field-range"));
        Ok(())
    }
}
