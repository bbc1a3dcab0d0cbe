//! Regions of images: pooling of regions, and the choice among overlapping boxes.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::binary::BinaryKind;
use crate::op::conv::expect_dim;
use crate::op::gather::Gather;
use crate::op::gradient::GradCx;
use crate::op::matmul::MatMul;
use crate::op::reduce::ReduceKind;
use crate::op::unary::UnaryKind;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value, elem_count};
use crate::types::Type;

crate::op_struct! {
    /// Pooling of regions at fractional places (ONNX RoiAlign). Operands: `x` \[N, C, H, W\], regions \[R, 4\] (x1, y1, x2, y2), the batch index of each, i64 \[R\]. Each of height x width bins samples points that are interpolated from four neighbours, and takes their mean, or the largest weighted neighbour with `max`. Result: \[R, C, height, width\].
    RoiAlign {
        /// Whether the largest weighted neighbour is taken, else the mean.
        max: bool,
        /// Bins along the height.
        height: i64,
        /// Bins along the width.
        width: i64,
        /// Points of a bin along each axis; 0 means as many as the bin has pixels, rounded up.
        sampling: i64,
        /// Scale from regions to pixels.
        scale: f64,
        /// Whether places are moved by half a pixel, and regions smaller than one pixel stay as they are.
        half_pixel: bool,
    }
}

crate::op_struct! {
    /// Maxima of bins of whole pixels (ONNX MaxRoiPool). Operands: `x` \[N, C, H, W\], regions \[R, 5\] (batch index, x1, y1, x2, y2). Result: \[R, C, height, width\], 0 for an empty bin.
    MaxRoiPool {
        /// Bins along the height.
        height: i64,
        /// Bins along the width.
        width: i64,
        /// Scale from regions to pixels.
        scale: f64,
    }
}

crate::op_struct! {
    /// Boxes that no better box of their class covers (ONNX NonMaxSuppression). Operands: boxes \[B, N, 4\], scores \[B, C, N\], and optionally the most boxes of a class (i64; none are kept without it), the largest intersection over union (f32, 0), the least score (f32, minus infinity). Result: i64 \[K, 3\], batch, class and box.
    NonMaxSuppression {
        /// Whether boxes are centre and size (x, y, w, h), else two corners (y, x, y, x).
        centered: bool,
    }
}

fn pooled(cx: &InferCx<'_>, columns: i64, bins: [i64; 2]) -> Result<Vec<Fact>, Diag> {
    let dtype = cx.expect_dtype(0, |d| d.is_float(), "a float")?;
    cx.expect_dtype(1, |d| d == dtype, dtype.name())?;
    let ([_, c, _, _], [r, n]) = (cx.dims(0)?, cx.dims(1)?) else {
        return Err(Diag::error("shape-mismatch", "an image batch and a matrix of regions are needed"));
    };
    expect_dim(n, &columns.into(), "the number of columns of the regions")?;
    if !bins.iter().all(|b| (1..=1 << 20).contains(b)) {
        return Err(Diag::error("field-range", format!("{bins:?} bins")));
    }
    Ok(vec![Type::tensor(dtype, vec![r.clone(), c.clone(), bins[0].into(), bins[1].into()]).into()])
}

fn batch_index(v: f64, n: usize) -> Result<usize, Diag> {
    if v >= 0.0 && v < n as f64 {
        return Ok(v as usize);
    }
    Err(Diag::error("index-out-of-range", format!("batch index {v} of {n}")))
}

/// The four neighbours of a place with their weights; none outside.
fn neighbours(y: f64, x: f64, h: usize, w: usize) -> Option<[(usize, f64); 4]> {
    if y < -1.0 || y > h as f64 || x < -1.0 || x > w as f64 || h == 0 || w == 0 || y.is_nan() || x.is_nan() {
        return None;
    }
    let split = |v: f64, n: usize| {
        let v = v.max(0.0);
        let low = v as usize;
        if low >= n - 1 { (n - 1, n - 1, 0.0) } else { (low, low + 1, v - low as f64) }
    };
    let ((y0, y1, ly), (x0, x1, lx)) = (split(y, h), split(x, w));
    Some([
        (y0 * w + x0, (1.0 - ly) * (1.0 - lx)),
        (y0 * w + x1, (1.0 - ly) * lx),
        (y1 * w + x0, ly * (1.0 - lx)),
        (y1 * w + x1, ly * lx),
    ])
}

impl RoiAlign {
    /// The weights \[R, bins, n\] of the `n` pixels along an axis in each bin of regions between these bounds: interpolation goes along
    /// one axis after the other.
    fn weights(
        &self,
        cx: &mut GradCx<'_, '_>,
        (low, high): (ValueId, ValueId),
        bins: i64,
        n: i64,
    ) -> Result<ValueId, Diag> {
        let mut size = cx.binary(BinaryKind::Sub, high, low)?;
        if !self.half_pixel {
            size = cx.compare(BinaryKind::Max, size, 1.0)?;
        }
        let bin = cx.scale(1.0 / bins as f64, size)?;
        let points = self.sampling;
        let place = |i: i64| (i / points) as f64 + ((i % points) as f64 + 0.5) / points as f64;
        let inner = (0..bins * points).map(place).collect();
        let inner = Tensor::floats(cx.dtype(low)?, &[bins as usize, points as usize, 1], inner)?;
        let inner = cx.ed.constant(inner)?;
        let (low, bin) = (cx.unsqueeze(low, &[1, 2, 3])?, cx.unsqueeze(bin, &[1, 2, 3])?);
        let inner = cx.mul(bin, inner)?;
        let place = cx.binary(BinaryKind::Add, low, inner)?;
        let after = cx.compare(BinaryKind::GreaterEqual, place, -1.0)?;
        let before = cx.compare(BinaryKind::LessEqual, place, n as f64)?;
        let inside = cx.binary(BinaryKind::And, after, before)?;
        let place = cx.compare(BinaryKind::Max, place, 0.0)?;
        let place = cx.compare(BinaryKind::Min, place, n as f64 - 1.0)?;
        let pixels = Tensor::floats(cx.dtype(place)?, &[n as usize], (0..n).map(|i| i as f64).collect())?;
        let pixels = cx.ed.constant(pixels)?;
        let far = cx.binary(BinaryKind::Sub, place, pixels)?;
        let far = cx.unary(UnaryKind::Abs, far)?;
        let near = cx.one_less(far)?;
        let near = cx.unary(UnaryKind::Relu, near)?;
        let near = cx.only(inside, true, near)?;
        cx.reduce(ReduceKind::Mean, near, &[2], false)
    }
}

impl OpDef for RoiAlign {
    const NAME: &'static str = "roi-align";
    const INPUTS: (usize, usize) = (3, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(2, |d| d == DType::I64, "i64")?;
        if !(0..=1 << 20).contains(&self.sampling) {
            return Err(Diag::error("field-range", format!("{} points", self.sampling)));
        }
        pooled(cx, 4, [self.height, self.width])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        if self.max || self.sampling == 0 {
            return Err(cx.no_rule("of maxima, and with as many points as a bin has pixels,"));
        }
        cx.through(|cx| {
            let (x, rois, batch) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
            let dims = cx.dims(x)?;
            let (Some(h), Some(w)) = (dims[2].as_const(), dims[3].as_const()) else {
                return Err(cx.no_rule("of images whose size is not fixed"));
            };
            let scaled = cx.scale(self.scale, rois)?;
            let places = cx.plus(if self.half_pixel { -0.5 } else { 0.0 }, scaled)?;
            let mut bounds = Vec::new();
            for k in 0..4 {
                let k = cx.ed.constant(Tensor::scalar_i64(k))?;
                bounds.push(cx.ed.node1(Gather { axis: 1 }, &[places, k])?);
            }
            let rows = self.weights(cx, (bounds[1], bounds[3]), self.height, h)?;
            let columns = self.weights(cx, (bounds[0], bounds[2]), self.width, w)?;
            let (rows, columns) = (cx.unsqueeze(rows, &[1])?, cx.unsqueeze(columns, &[1])?);
            let images = cx.ed.node1(Gather { axis: 0 }, &[x, batch])?;
            let part = cx.ed.node1(MatMul { trans_a: false, trans_b: false }, &[rows, images])?;
            Ok(vec![cx.ed.node1(MatMul { trans_a: false, trans_b: true }, &[part, columns])?])
        })
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, rois, batch) = (cx.tensor(0)?, cx.tensor(1)?, cx.ints(2)?);
        let (&[n, c, h, w], &[r, 4]) = (x.shape(), rois.shape()) else {
            return Err(Diag::error(
                "shape-mismatch",
                "an image batch and regions of four columns are needed",
            ));
        };
        if batch.len() != r {
            return Err(Diag::error(
                "shape-mismatch",
                format!("{} batch indices for {r} regions", batch.len()),
            ));
        }
        let (bins_h, bins_w) = (self.height as usize, self.width as usize);
        let shape = [r, c, bins_h, bins_w];
        let mut out = vec![0.0; elem_count(&shape)?];
        let (xv, rv) = (x.to_f64(), rois.to_f64());
        let offset = if self.half_pixel { 0.5 } else { 0.0 };
        for region in 0..r {
            let image = batch_index(batch[region] as f64, n)?;
            let at = |k: usize| rv[region * 4 + k] * self.scale - offset;
            let size = |a: f64, b: f64| if self.half_pixel { b - a } else { (b - a).max(1.0) };
            let (bin_h, bin_w) = (size(at(1), at(3)) / bins_h as f64, size(at(0), at(2)) / bins_w as f64);
            let points = |bin: f64| {
                if self.sampling > 0 { self.sampling } else { bin.ceil().clamp(0.0, 1e6) as i64 }
            };
            let (grid_h, grid_w) = (points(bin_h), points(bin_w));
            for bin in 0..bins_h * bins_w {
                let (ph, pw) = ((bin / bins_w) as f64, (bin % bins_w) as f64);
                for channel in 0..c {
                    let plane = &xv[(image * c + channel) * h * w..][..h * w];
                    let (mut sum, mut best) = (0.0, None::<f64>);
                    for iy in 0..grid_h {
                        let y = at(1) + ph * bin_h + (iy as f64 + 0.5) * bin_h / grid_h as f64;
                        for ix in 0..grid_w {
                            let x = at(0) + pw * bin_w + (ix as f64 + 0.5) * bin_w / grid_w as f64;
                            let parts = neighbours(y, x, h, w)
                                .map_or([0.0; 4], |n| n.map(|(i, weight)| plane[i] * weight));
                            sum += parts.iter().sum::<f64>();
                            let top = parts.into_iter().fold(f64::NEG_INFINITY, f64::max);
                            best = Some(best.map_or(top, |b| b.max(top)));
                        }
                    }
                    let mean = sum / (grid_h * grid_w).max(1) as f64;
                    out[(region * c + channel) * bins_h * bins_w + bin] =
                        if self.max { best.unwrap_or(0.0) } else { mean };
                }
            }
        }
        Ok(vec![Tensor::floats(x.dtype(), &shape, out)?.into()])
    }
}

impl OpDef for MaxRoiPool {
    const NAME: &'static str = "max-roi-pool";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        pooled(cx, 5, [self.height, self.width])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, rois) = (cx.tensor(0)?, cx.tensor(1)?);
        let (&[n, c, h, w], &[r, 5]) = (x.shape(), rois.shape()) else {
            return Err(Diag::error(
                "shape-mismatch",
                "an image batch and regions of five columns are needed",
            ));
        };
        let (bins_h, bins_w) = (self.height as usize, self.width as usize);
        let shape = [r, c, bins_h, bins_w];
        let mut out = vec![0.0; elem_count(&shape)?];
        let (xv, rv) = (x.to_f64(), rois.to_f64());
        for region in 0..r {
            let image = batch_index(rv[region * 5], n)?;
            let at = |k: usize| (rv[region * 5 + k] * self.scale).round();
            let span = |low: f64, high: f64, bins: usize, bin: usize, n: usize| {
                let size = (high - low + 1.0).max(1.0) / bins as f64;
                let edge = |v: f64| (v + low).clamp(0.0, n as f64) as usize;
                (edge((bin as f64 * size).floor()), edge(((bin + 1) as f64 * size).ceil()))
            };
            for bin in 0..bins_h * bins_w {
                let (y0, y1) = span(at(2), at(4), bins_h, bin / bins_w, h);
                let (x0, x1) = span(at(1), at(3), bins_w, bin % bins_w, w);
                for channel in 0..c {
                    let plane = &xv[(image * c + channel) * h * w..][..h * w];
                    let taken = (y0..y1).flat_map(|y| (x0..x1).map(move |x| plane[y * w + x]));
                    out[(region * c + channel) * bins_h * bins_w + bin] =
                        taken.reduce(f64::max).unwrap_or(0.0);
                }
            }
        }
        Ok(vec![Tensor::floats(x.dtype(), &shape, out)?.into()])
    }
}

impl NonMaxSuppression {
    /// Corners with the smaller coordinate first.
    fn corners(&self, b: &[f64]) -> [f64; 4] {
        if self.centered {
            [b[0] - b[2] / 2.0, b[1] - b[3] / 2.0, b[0] + b[2] / 2.0, b[1] + b[3] / 2.0]
        } else {
            [b[0].min(b[2]), b[1].min(b[3]), b[0].max(b[2]), b[1].max(b[3])]
        }
    }
}

/// Intersection over union.
fn overlap(p: [f64; 4], q: [f64; 4]) -> f64 {
    let (a, b) = (p[2].min(q[2]) - p[0].max(q[0]), p[3].min(q[3]) - p[1].max(q[1]));
    if a <= 0.0 || b <= 0.0 {
        return 0.0;
    }
    let area = |r: [f64; 4]| (r[2] - r[0]) * (r[3] - r[1]);
    let union = area(p) + area(q) - a * b;
    if union <= 0.0 { 0.0 } else { a * b / union }
}

impl OpDef for NonMaxSuppression {
    const NAME: &'static str = "non-max-suppression";
    const INPUTS: (usize, usize) = (2, 5);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d.is_float(), "a float")?;
        cx.expect_dtype(1, |d| d.is_float(), "a float")?;
        let ([b, n, four], [b2, _, n2]) = (cx.dims(0)?, cx.dims(1)?) else {
            return Err(Diag::error("shape-mismatch", "boxes and scores must have rank 3"));
        };
        expect_dim(four, &4.into(), "the number of coordinates")?;
        expect_dim(b2, b, "the batch size of the scores")?;
        expect_dim(n2, n, "the number of scores")?;
        if cx.has(2) {
            cx.expect_dtype(2, |d| d == DType::I64, "i64")?;
        }
        for i in 3..5 {
            if cx.has(i) {
                cx.expect_dtype(i, |d| d.is_float(), "a float")?;
            }
        }
        let found = cx.fresh(0, 0, 0, None);
        Ok(vec![Type::tensor(DType::I64, vec![found, Dim::Const(3)]).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (boxes, scores) = (cx.tensor(0)?, cx.tensor(1)?);
        let number = |i: usize, default: f64| -> Result<f64, Diag> {
            Ok(cx.opt_tensor(i)?.and_then(|t| t.to_f64().first().copied()).unwrap_or(default))
        };
        let (most, limit, least) = (number(2, 0.0)?, number(3, 0.0)?, number(4, f64::NEG_INFINITY)?);
        let (&[b, n, 4], &[b2, c, n2]) = (boxes.shape(), scores.shape()) else {
            return Err(Diag::error("shape-mismatch", "boxes and scores must have rank 3"));
        };
        if (b, n) != (b2, n2) {
            return Err(Diag::error("shape-mismatch", "boxes and scores do not fit"));
        }
        let (bv, sv) = (boxes.to_f64(), scores.to_f64());
        let mut out: Vec<i128> = Vec::new();
        for row in 0..b * c {
            let score = |i: usize| sv[row * n + i];
            let mut order: Vec<usize> = (0..n).filter(|i| score(*i) > least).collect();
            order.sort_by(|i, j| score(*j).total_cmp(&score(*i)).then(i.cmp(j)));
            let mut kept: Vec<[f64; 4]> = Vec::new();
            for i in order {
                if kept.len() as f64 >= most {
                    break;
                }
                let this = self.corners(&bv[(row / c * n + i) * 4..][..4]);
                if kept.iter().all(|k| overlap(*k, this) <= limit) {
                    kept.push(this);
                    out.extend([(row / c) as i128, (row % c) as i128, i as i128]);
                }
            }
        }
        Ok(vec![Tensor::ints(DType::I64, &[out.len() / 3, 3], out)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::{eval_op, ramp};

    #[test]
    fn bins_of_regions() -> Result<(), Diag> {
        let x = ramp(&[1, 1, 4, 4], 0.0, 1.0)?;
        let rois = Tensor::f32s(&[1, 4], &[0.0, 0.0, 4.0, 4.0])?;
        let batch = Tensor::vec_i64(&[0]);
        let mut op = RoiAlign { max: false, height: 2, width: 2, sampling: 2, scale: 1.0, half_pixel: true };
        let y = eval_op(op.clone(), &[Some(x.clone()), Some(rois.clone()), Some(batch)])?;
        // Pixels are sampled at their centres; a bin is the mean of four.
        assert_eq!(y[0].to_f64(), [2.5, 4.5, 10.5, 12.5]);
        op.max = true;
        let far = eval_op(op, &[Some(x.clone()), Some(rois), Some(Tensor::vec_i64(&[1]))]);
        assert_eq!(far.map_err(|d| d.id), Err("index-out-of-range"));
        let rois = Tensor::f32s(&[1, 5], &[0.0, 0.0, 0.0, 3.0, 3.0])?;
        let y = eval_op(MaxRoiPool { height: 2, width: 2, scale: 1.0 }, &[Some(x), Some(rois)])?;
        assert_eq!(y[0].to_f64(), [5.0, 7.0, 13.0, 15.0]);
        Ok(())
    }

    #[test]
    fn covered_boxes_are_dropped() -> Result<(), Diag> {
        let boxes =
            Tensor::f32s(&[1, 3, 4], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, 10.0, 1.0, 11.0])?;
        let scores = Tensor::f32s(&[1, 1, 3], &[0.9, 0.95, 0.5])?;
        let op = NonMaxSuppression { centered: false };
        let run = |most: i64, limit: f32| {
            let limit = Tensor::f32s(&[1], &[limit])?;
            let args =
                [Some(boxes.clone()), Some(scores.clone()), Some(Tensor::vec_i64(&[most])), Some(limit)];
            Ok::<_, Diag>(eval_op(op.clone(), &args)?[0].to_f64())
        };
        assert_eq!(run(3, 0.5)?, [0.0, 0.0, 1.0, 0.0, 0.0, 2.0]);
        assert_eq!(run(1, 0.5)?, [0.0, 0.0, 1.0]);
        assert_eq!(run(3, 0.9)?, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]);
        assert!(run(0, 0.5)?.is_empty());
        Ok(())
    }
}
