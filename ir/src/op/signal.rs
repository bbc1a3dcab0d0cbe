//! Fourier transforms and what goes with them. Complex numbers are pairs along a last axis of size 2.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::util::{expect_equal, fact, is_index, larger, scalar_f64, scalar_i64, size_of, split_at_axis};
use crate::op::{EvalCx, InferCx, OpDef, cast, normalize_axis};
use crate::tensor::{Elems, Tensor, Value, elem_count};
use std::f64::consts::TAU;

mod gradient;

crate::op_struct! {
    /// The discrete Fourier transform along an axis of `[.., n, .., 1 or 2]`, whose last axis holds a real or a complex number. Operands: x; optionally the length, to which the axis is cut or padded with 0; optionally the axis, by default the last but one. The inverse divides by the length. ONNX `DFT`.
    Dft {
        /// Whether it is the inverse.
        inverse: bool,
        /// Only the first length / 2 + 1 bins are given (forward), or are needed for a real result (inverse).
        onesided: bool,
    }
}

fn expect_single(cx: &InferCx<'_>, i: usize, what: &str) -> Result<(), Diag> {
    expect_equal(&Dim::product(cx.dims(i)?), &Dim::Const(1), what)
}

fn dft_axis(axis: i64, rank: usize) -> Result<usize, Diag> {
    let a = normalize_axis(axis, rank)?;
    if a + 1 == rank {
        return Err(Diag::error("axis-out-of-range", "the last axis holds the parts of a number"));
    }
    Ok(a)
}

impl OpDef for Dft {
    const NAME: &'static str = "dft";
    const INPUTS: (usize, usize) = (1, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, DType::is_float, "a float")?;
        let mut dims = cx.dims(0)?.to_vec();
        for i in 1..cx.len() {
            if cx.has(i) {
                cx.expect_dtype(i, is_index, "i32 or i64")?;
                expect_single(cx, i, "length and axis")?;
            }
        }
        match dims.last().map(Dim::as_const) {
            Some(None | Some(1 | 2)) if dims.len() > 1 => {}
            _ => return Err(Diag::error("shape-mismatch", "the last axis must have size 1 or 2")),
        }
        let last = dims.len() - 1;
        dims[last] = Dim::Const(if self.inverse && self.onesided { 1 } else { 2 });
        let axis = match (cx.has(2), cx.const_ints(2).as_deref()) {
            (false, _) => Some(dft_axis(-2, dims.len())?),
            (true, Some([a])) => Some(dft_axis(*a, dims.len())?),
            _ => None,
        };
        let Some(axis) = axis else {
            for (a, d) in dims.iter_mut().enumerate().take(last) {
                *d = cx.fresh(0, a, 0, None);
            }
            return Ok(vec![fact(dtype, dims)]);
        };
        let length = match (cx.has(1), cx.ints(1).as_deref()) {
            (true, Some([n])) => Some(n.clone()),
            (true, _) => None,
            (false, _) if self.inverse && self.onesided => {
                let n = dims[axis].sub(&Dim::Const(1)).mul(&Dim::Const(2));
                Some(larger(&n, &Dim::Const(0), cx.symbols))
            }
            (false, _) => Some(dims[axis].clone()),
        };
        if length.as_ref().and_then(Dim::as_const).is_some_and(|n| n < 0) {
            return Err(Diag::error("shape-mismatch", "the length is negative"));
        }
        dims[axis] = match length {
            Some(n) if self.onesided && !self.inverse => n.floor_div(&Dim::Const(2)).add(&Dim::Const(1)),
            Some(n) => n,
            None => cx.fresh(0, axis, 0, None),
        };
        Ok(vec![fact(dtype, dims)])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        self.backward(cx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let axis = if cx.has(2) { scalar_i64(cx.tensor(2)?, "the axis")? } else { -2 };
        let axis = dft_axis(axis, x.rank())?;
        let parts = x.shape()[x.rank() - 1];
        if parts != 1 && parts != 2 {
            return Err(Diag::error("shape-mismatch", "the last axis must have size 1 or 2"));
        }
        let (before, n, rest) = split_at_axis(x.shape(), axis);
        let after = rest / parts;
        let real_result = self.inverse && self.onesided;
        let len = if cx.has(1) {
            size_of(scalar_i64(cx.tensor(1)?, "the length")?)?
        } else if real_result {
            2 * n.saturating_sub(1)
        } else {
            n
        };
        let bins = if self.onesided && !self.inverse { len / 2 + 1 } else { len };
        let out_parts = if real_result { 1 } else { 2 };
        let mut shape = x.shape().to_vec();
        shape[axis] = bins;
        shape[x.rank() - 1] = out_parts;
        let v = x.to_f64();
        let mut out = vec![0.0; elem_count(&shape)?];
        for b in 0..before {
            for a in 0..after {
                let at = |i: usize| {
                    let p = ((b * n + i) * after + a) * parts;
                    (v[p], if parts == 2 { v[p + 1] } else { 0.0 })
                };
                let line: Vec<(f64, f64)> = if real_result {
                    hermitian(n, len, at)
                } else {
                    (0..len).map(|i| if i < n { at(i) } else { (0.0, 0.0) }).collect()
                };
                for k in 0..bins {
                    let (re, im) = bin(&line, k, self.inverse);
                    let p = ((b * bins + k) * after + a) * out_parts;
                    out[p] = re;
                    if out_parts == 2 {
                        out[p + 1] = im;
                    }
                }
            }
        }
        Ok(vec![Tensor::floats(x.dtype(), &shape, out)?.into()])
    }
}

/// The `len` bins of a real signal from its first `len / 2 + 1`, of which `n` are given.
fn hermitian(n: usize, len: usize, at: impl Fn(usize) -> (f64, f64)) -> Vec<(f64, f64)> {
    let half = |i: usize| if i < n { at(i) } else { (0.0, 0.0) };
    let full = |i: usize| {
        if i == 0 || 2 * i == len {
            (half(i).0, 0.0)
        } else if 2 * i < len {
            half(i)
        } else {
            let (re, im) = half(len - i);
            (re, -im)
        }
    };
    (0..len).map(full).collect()
}

/// Bin `k` of the transform of a line.
fn bin(line: &[(f64, f64)], k: usize, inverse: bool) -> (f64, f64) {
    let n = line.len();
    let (mut re, mut im) = (0.0, 0.0);
    for (i, (x, y)) in line.iter().enumerate() {
        let turn = (i as u128 * k as u128 % n as u128) as f64 / n as f64;
        let (s, c) = (TAU * if inverse { turn } else { -turn }).sin_cos();
        re += x * c - y * s;
        im += x * s + y * c;
    }
    if inverse { (re / n as f64, im / n as f64) } else { (re, im) }
}

crate::op_struct! {
    /// Fourier transforms of overlapping frames of `[batch, length, 1 or 2]`: `[batch, frames, bins, 2]`. Operands: signal; step between frames; optionally the window each frame is multiplied with; optionally the length of a frame, by default that of the window or of the signal. ONNX `STFT`.
    Stft {
        /// Whether only the first length / 2 + 1 bins are given.
        onesided: bool,
    }
}

impl OpDef for Stft {
    const NAME: &'static str = "stft";
    const INPUTS: (usize, usize) = (2, 4);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, DType::is_float, "a float")?;
        let [batch, n, _] = cx.dims(0)? else {
            return Err(Diag::error("shape-mismatch", "a signal has the axes batch, length and part"));
        };
        for i in [1, 3] {
            if cx.has(i) {
                cx.expect_dtype(i, is_index, "i32 or i64")?;
                expect_single(cx, i, "step and length")?;
            }
        }
        let window = if cx.has(2) { Some(cx.dims(2)?) } else { None };
        if cx.has(2) && (cx.dtype(2)? != dtype || window.is_some_and(|w| w.len() != 1)) {
            return Err(Diag::error("shape-mismatch", "the window must be a vector of the signal's type"));
        }
        let one = |i: usize| cx.ints(i).filter(|v| v.len() == 1).map(|v| v[0].clone());
        let len = match (cx.has(3), window) {
            (true, _) => one(3),
            (false, Some(w)) => Some(w[0].clone()),
            (false, None) => Some(n.clone()),
        };
        let step = one(1);
        for v in [&step, &len].into_iter().flatten().filter_map(Dim::as_const) {
            if v <= 0 {
                return Err(Diag::error("shape-mismatch", "step and frame length must be positive"));
            }
        }
        let bins = match &len {
            Some(l) if self.onesided => l.floor_div(&Dim::Const(2)).add(&Dim::Const(1)),
            Some(l) => l.clone(),
            None => cx.fresh(0, 2, 0, None),
        };
        let frames = match (&len, &step) {
            (Some(l), Some(s)) => {
                let f = n.sub(l).floor_div(s).add(&Dim::Const(1));
                larger(&f, &Dim::Const(0), cx.symbols)
            }
            _ => cx.fresh(0, 1, 0, None),
        };
        Ok(vec![fact(dtype, vec![batch.clone(), frames, bins, Dim::Const(2)])])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        self.backward(cx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let [batch, n, parts] = *x.shape() else {
            return Err(Diag::error("shape-mismatch", "a signal has the axes batch, length and part"));
        };
        let step = size_of(scalar_i64(cx.tensor(1)?, "the step")?)?;
        let window = cx.opt_tensor(2)?.map(Tensor::to_f64);
        let len = match (cx.opt_tensor(3)?, &window) {
            (Some(l), _) => size_of(scalar_i64(l, "the length")?)?,
            (None, Some(w)) => w.len(),
            (None, None) => n,
        };
        if step == 0 || len == 0 || !(1..=2).contains(&parts) {
            return Err(Diag::error("shape-mismatch", "step and frame length must be positive"));
        }
        let frames = if n >= len { (n - len) / step + 1 } else { 0 };
        let bins = if self.onesided { len / 2 + 1 } else { len };
        let shape = [batch, frames, bins, 2];
        let mut out = Vec::with_capacity(elem_count(&shape)?);
        let v = x.to_f64();
        for b in 0..batch {
            for f in 0..frames {
                let at = |i: usize| {
                    let w = window.as_ref().map_or(1.0, |w| w.get(i).copied().unwrap_or(0.0));
                    let p = (b * n + f * step + i) * parts;
                    (v[p] * w, if parts == 2 { v[p + 1] * w } else { 0.0 })
                };
                let line: Vec<_> = (0..len).map(at).collect();
                for k in 0..bins {
                    let (re, im) = bin(&line, k, false);
                    out.extend([re, im]);
                }
            }
        }
        Ok(vec![Tensor::floats(x.dtype(), &shape, out)?.into()])
    }
}

crate::attr_enum! {
    /// The shape of a window of N elements, with M = N if periodic, else N - 1.
    WindowKind {
        /// 0.42 - 0.5 cos(2 pi n / M) + 0.08 cos(4 pi n / M).
        Blackman = "blackman",
        /// 25/46 - 21/46 cos(2 pi n / M).
        Hamming = "hamming",
        /// 0.5 - 0.5 cos(2 pi n / M).
        Hann = "hann",
    }
}

crate::op_struct! {
    /// A window for signals, as long as the operand says. One that is not periodic and has one element is 1. ONNX `BlackmanWindow`, `HammingWindow`, `HannWindow`.
    SignalWindow {
        /// Its shape.
        kind: WindowKind,
        /// Whether it is one period of a longer one.
        periodic: bool,
        /// The dtype of the result.
        dtype: DType,
    }
}

impl SignalWindow {
    /// Element `i` of `n`.
    pub fn element(&self, i: usize, n: usize) -> f64 {
        let m = if self.periodic { n } else { n - 1 };
        if m == 0 {
            return 1.0;
        }
        let t = TAU * i as f64 / m as f64;
        match self.kind {
            WindowKind::Blackman => 0.42 - 0.5 * t.cos() + 0.08 * (2.0 * t).cos(),
            WindowKind::Hamming => 25.0 / 46.0 - 21.0 / 46.0 * t.cos(),
            WindowKind::Hann => (t / 2.0).sin().powi(2),
        }
    }
}

impl OpDef for SignalWindow {
    const NAME: &'static str = "signal-window";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, is_index, "i32 or i64")?;
        expect_single(cx, 0, "the size")?;
        if self.dtype == DType::Str {
            return Err(Diag::error("dtype-mismatch", "a window has numbers"));
        }
        let n = match cx.ints(0).as_deref() {
            Some([n]) => n.clone(),
            _ => cx.fresh(0, 0, 0, None),
        };
        if n.as_const().is_some_and(|n| n < 0) {
            return Err(Diag::error("shape-mismatch", "the size is negative"));
        }
        Ok(vec![fact(self.dtype, vec![n])])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let n = size_of(scalar_i64(cx.tensor(0)?, "the size")?)?;
        elem_count(&[n])?;
        let v = (0..n).map(|i| self.element(i, n)).collect();
        Ok(vec![cast::cast(&Tensor::floats(DType::F64, &[n], v)?, self.dtype, true)?.into()])
    }
}

crate::op_struct! {
    /// The matrix `[dft_length / 2 + 1, bins]` that turns a spectrum into mel bands. Operands, all scalars: the number of bins, the length of the transform, the sample rate (integers), the lower and the upper edge in hertz (floats). ONNX `MelWeightMatrix`.
    MelWeights {
        /// The dtype of the result.
        dtype: DType,
    }
}

impl OpDef for MelWeights {
    const NAME: &'static str = "mel-weights";
    const INPUTS: (usize, usize) = (5, 5);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        for i in 0..5 {
            if i < 3 {
                cx.expect_dtype(i, is_index, "i32 or i64")?;
            } else {
                cx.expect_dtype(i, DType::is_float, "a float")?;
            }
            expect_single(cx, i, "each operand")?;
        }
        if self.dtype == DType::Str {
            return Err(Diag::error("dtype-mismatch", "weights are numbers"));
        }
        let one = |i: usize| cx.ints(i).filter(|v| v.len() == 1).map(|v| v[0].clone());
        let (bins, length) = (one(0), one(1));
        if [&bins, &length].into_iter().flatten().filter_map(Dim::as_const).any(|v| v < 0) {
            return Err(Diag::error("shape-mismatch", "a number of bins is negative"));
        }
        let rows = match length {
            Some(l) => l.floor_div(&Dim::Const(2)).add(&Dim::Const(1)),
            None => cx.fresh(0, 0, 0, None),
        };
        let bins = bins.unwrap_or_else(|| cx.fresh(0, 1, 0, None));
        Ok(vec![fact(self.dtype, vec![rows, bins])])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let bins = size_of(scalar_i64(cx.tensor(0)?, "the bins")?)?;
        let length = size_of(scalar_i64(cx.tensor(1)?, "the length")?)?;
        let rate = scalar_i64(cx.tensor(2)?, "the rate")? as f64;
        let (lower, upper) = (scalar_f64(cx.tensor(3)?, "an edge")?, scalar_f64(cx.tensor(4)?, "an edge")?);
        let rows = length / 2 + 1;
        let mut out = vec![0.0; elem_count(&[rows, bins])?];
        let mel = |hz: f64| 2595.0 * (hz / 700.0).ln_1p() / 10f64.ln();
        let step = (mel(upper) - mel(lower)) / (bins + 2) as f64;
        let edge = |i: usize| -> Result<usize, Diag> {
            let hz = 700.0 * ((i as f64 * step + mel(lower)) / 2595.0 * 10f64.ln()).exp_m1();
            let at = ((length as f64 + 1.0) * hz / rate).floor();
            if at >= 0.0 && at <= rows as f64 {
                Ok(at as usize)
            } else {
                Err(Diag::error("index-out-of-range", format!("an edge is bin {at} of {rows}")))
            }
        };
        for i in 0..bins {
            let (lo, mid, hi) = (edge(i)?, edge(i + 1)?, edge(i + 2)?);
            let mut put = |row: usize, v: f64| match out.get_mut(row * bins + i) {
                Some(slot) if row < rows => {
                    *slot = v;
                    Ok(())
                }
                _ => Err(Diag::error("index-out-of-range", format!("an edge is bin {row} of {rows}"))),
            };
            if lo == mid {
                put(mid, 1.0)?;
            } else {
                for j in lo..=mid {
                    put(j, (j - lo) as f64 / (mid - lo) as f64)?;
                }
            }
            for j in mid..hi {
                put(j, (hi - j) as f64 / (hi - mid) as f64)?;
            }
        }
        let m = Tensor::from_elems(DType::F64, vec![rows, bins], Elems::F(out))?;
        Ok(vec![cast::cast(&m, self.dtype, true)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run, try_run};

    fn near(a: &Tensor, want: &[f64]) {
        let got = a.to_f64();
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 1e-5, "{got:?} {want:?}");
        }
    }

    #[test]
    fn transforms_and_inverts() {
        let x = iota(&[1, 4, 1]);
        let forward = Dft { inverse: false, onesided: false };
        let full = run(forward.clone(), std::slice::from_ref(&x));
        near(&full, &[6.0, 0.0, -2.0, 2.0, -2.0, 0.0, -2.0, -2.0]);
        let back = run(Dft { inverse: true, onesided: false }, std::slice::from_ref(&full));
        near(&back, &[0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 3.0, 0.0]);
        let half = run(Dft { inverse: false, onesided: true }, std::slice::from_ref(&x));
        assert_eq!(half.shape(), [1, 3, 2]);
        near(&run(Dft { inverse: true, onesided: true }, &[half]), &[0.0, 1.0, 2.0, 3.0]);
        let padded = try_run(forward.clone(), &[Some(x.clone()), Some(i(&[], &[5])), Some(i(&[], &[1]))]);
        assert_eq!(padded.map(|t| t[0].shape().to_vec()), Ok(vec![1, 5, 2]));
        assert_eq!(fails(forward, &[iota(&[4, 3])]), "shape-mismatch");
    }

    #[test]
    fn frames() {
        let got = try_run(
            Stft { onesided: true },
            &[Some(iota(&[1, 6, 1])), Some(i(&[], &[2])), None, Some(i(&[], &[2]))],
        );
        let got = got.unwrap_or_else(|d| panic!("{d}")).swap_remove(0);
        assert_eq!(got.shape(), [1, 3, 2, 2]);
        near(&got, &[1.0, 0.0, -1.0, 0.0, 5.0, 0.0, -1.0, 0.0, 9.0, 0.0, -1.0, 0.0]);
    }

    #[test]
    fn windows_and_mel() {
        let w = |kind, periodic| run(SignalWindow { kind, periodic, dtype: DType::F32 }, &[i(&[], &[4])]);
        near(&w(WindowKind::Hann, true), &[0.0, 0.5, 1.0, 0.5]);
        near(&w(WindowKind::Hann, false), &[0.0, 0.75, 0.75, 0.0]);
        near(&w(WindowKind::Hamming, true), &[4.0 / 46.0, 25.0 / 46.0, 1.0, 25.0 / 46.0]);
        near(&w(WindowKind::Blackman, true), &[0.0, 0.34, 1.0, 0.34]);
        let mel = run(
            MelWeights { dtype: DType::F32 },
            &[i(&[], &[8]), i(&[], &[16]), i(&[], &[8192]), f(&[], &[0.0]), f(&[], &[4096.0])],
        );
        assert_eq!(mel.shape(), [9, 8]);
        assert_eq!(mel.to_f64()[..2], [1.0, 1.0]);
    }
}
