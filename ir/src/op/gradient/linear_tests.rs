//! Rules of resampling, transforms, running products, choices and regions of images, against central differences.

use super::tests::{Random, check, check_by, ints};
use crate::diag::Diag;
use crate::dtype::DType;
use crate::op::Op;
use crate::op::col2im::Col2Im;
use crate::op::concat::{Pad, PadMode};
use crate::op::einsum::Einsum;
use crate::op::gated_matmul::GatedMatMul;
use crate::op::gather::GatherNd;
use crate::op::generate::{OneHot, Range};
use crate::op::lrn::Lrn;
use crate::op::matmul::Det;
use crate::op::pool::{Pool, PoolKind};
use crate::op::quant::Dequantize;
use crate::op::reduce::Cumulate;
use crate::op::resize::{Resize, ResizeMode, ResizeNearest, ResizePolicy, ResizeTransform};
use crate::op::scatter::TensorScatter;
use crate::op::select::{Compress, Unique};
use crate::op::signal::{Dft, Stft};
use crate::op::vision::RoiAlign;
use crate::op::window::AutoPad;
use crate::tensor::Tensor;

fn resize(mode: ResizeMode, transform: ResizeTransform, axes: &[usize]) -> Resize {
    Resize {
        mode,
        transform,
        nearest: ResizeNearest::RoundPreferFloor,
        cubic_a: -0.75,
        exclude_outside: false,
        extrapolation: 0.0,
        antialias: false,
        axes: axes.to_vec(),
        policy: ResizePolicy::Stretch,
    }
}

#[test]
fn resampling() -> Result<(), Diag> {
    use ResizeTransform::*;
    let mut r = Random(30_000);
    for mode in [ResizeMode::Nearest, ResizeMode::Linear, ResizeMode::Cubic] {
        for transform in [HalfPixel, HalfPixelSymmetric, PytorchHalfPixel, AlignCorners, Asymmetric] {
            for sizes in [[1, 7], [5, 3], [4, 1]] {
                let (h, w) = (1 + r.below(4), 1 + r.below(5));
                let x = r.some(&[2, h, w])?;
                let mut op = resize(mode, transform, &[1, 2]);
                check(&mut r, op.clone(), &[Some(x.clone()), None, None, ints(&sizes)])?;
                op.antialias = mode != ResizeMode::Nearest;
                op.exclude_outside = true;
                op.axes = vec![2, 0];
                check(&mut r, op, &[Some(x), None, None, ints(&sizes)])?;
            }
        }
        let x = r.some(&[0, 3])?;
        check(&mut r, resize(mode, HalfPixel, &[1]), &[Some(x), None, None, ints(&[5])])?;
    }
    // So long that no matrix stands for the taps.
    let x = r.some(&[2100])?;
    check(&mut r, resize(ResizeMode::Linear, HalfPixel, &[0]), &[Some(x), None, None, ints(&[2000])])
}

#[test]
fn running_products_with_zeros_in_them() -> Result<(), Diag> {
    let mut r = Random(31_000);
    for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
        for n in [0, 1, 2, 5, 8] {
            for zeros in 0..3 {
                let mut v = r.floats(&[2, n, 3], 0.3, 1.7)?.to_f64();
                let count = v.len();
                for _ in 0..zeros.min(count) {
                    let at = r.below(count);
                    v[at] = 0.0;
                }
                let x = Tensor::floats(DType::F64, &[2, n, 3], v)?;
                let op = Cumulate { product: true, exclusive, reverse };
                check(&mut r, op, &[Some(x), Some(Tensor::scalar_i64(-2))])?;
            }
        }
    }
    Ok(())
}

#[test]
fn norms_of_windows_and_of_channels() -> Result<(), Diag> {
    let mut r = Random(32_000);
    for p in 1..4 {
        for ceil_mode in [false, true] {
            let op = Pool {
                kind: PoolKind::Lp,
                kernel: vec![3, 2],
                strides: vec![2, 1],
                dilations: vec![1, 2],
                pads: vec![1, 0, 0, 1],
                auto_pad: AutoPad::Explicit,
                ceil_mode,
                count_include_pad: false,
                p,
                indices: None,
            };
            let x = r.apart(&[2, 1, 5, 4])?;
            check(&mut r, op, &[Some(x)])?;
        }
    }
    for size in [1, 2, 3, 5] {
        for channels in [0, 1, 4] {
            let x = r.some(&[2, channels, 3])?;
            check(&mut r, Lrn { size, alpha: 0.7, beta: 0.75, bias: 1.5 }, &[Some(x)])?;
        }
    }
    Ok(())
}

#[test]
fn gated_products() -> Result<(), Diag> {
    let mut r = Random(33_000);
    for (rows, trans_b) in [(1, false), (3, true), (6, false), (0, false)] {
        // Numbers whose differences f32 holds; none is near the threshold.
        let mut some = |shape: &[usize]| -> Result<Tensor, Diag> {
            let v = r.some(shape)?.to_f64().into_iter().map(|v| (v * 8.0).round() / 8.0 + 0.0625).collect();
            Tensor::floats(DType::F32, shape, v)
        };
        let (x, w) = (some(&[rows, 5])?, some(if trans_b { &[3, 5] } else { &[5, 3] })?);
        let op = GatedMatMul { threshold: 0.5, block: 2, trans_b };
        check_by(&mut r, Op::from(op), &[Some(x), Some(w)], (1.0 / 64.0, 1e-5))?;
    }
    Ok(())
}

#[test]
fn choices_and_vectors() -> Result<(), Diag> {
    let mut r = Random(34_000);
    let bools = |v: &[i128]| Tensor::ints(DType::Bool, &[v.len()], v.to_vec()).map(Some);
    let x = r.apart(&[3, 4])?;
    for c in [[1, 0, 1], [0, 0, 0], [1, 1, 1]] {
        check(&mut r, Compress { axis: Some(0) }, &[Some(x.clone()), bools(&c)?])?;
        check(&mut r, Compress { axis: None }, &[Some(x.clone()), bools(&c)?])?;
        check(&mut r, Compress { axis: Some(1) }, &[Some(x.clone()), bools(&c)?])?;
    }
    for (axis, sorted) in [(None, true), (Some(0), true), (Some(1), false)] {
        check(&mut r, Unique { axis, sorted }, &[Some(x.clone())])?;
    }
    let at = Tensor::ints(DType::I64, &[2, 3], vec![0, 2, -1, 5, 1, 1])?;
    for axis in 0..3 {
        let values = r.some(&[2])?;
        check(&mut r, OneHot { axis }, &[Some(at.clone()), ints(&[3]), Some(values)])?;
    }
    for (a, b, c) in [(0.3, 4.1, 0.5), (2.0, -1.9, -0.7), (1.0, 0.5, 1.0)] {
        let one = |v: f64| Tensor::scalar(DType::F64, v).map(Some);
        check(&mut r, Range {}, &[one(a)?, one(b)?, one(c)?])?;
    }
    for (circular, starts) in [(false, Some([0, 2])), (true, Some([3, 1])), (false, None)] {
        let (cache, new) = (r.some(&[2, 4, 2])?, r.some(&[2, 2, 2])?);
        let starts = starts.and_then(|s| ints(&s));
        check(&mut r, TensorScatter { axis: 1, circular }, &[Some(cache), Some(new), starts])?;
    }
    let at = Tensor::ints(DType::I64, &[3, 2, 1], vec![0, 1, 1, 1, 3, -1])?;
    check(&mut r, GatherNd { batch_dims: 1 }, &[Some(x), Some(at)])?;
    let x = r.some(&[2, 2, 3])?;
    let at = Tensor::ints(DType::I64, &[2, 2, 1], vec![0, 1, 2, 0])?;
    check(&mut r, GatherNd { batch_dims: 2 }, &[Some(x.clone()), Some(at)])?;
    let value = Tensor::scalar(DType::F64, 0.5)?;
    let pads = ints(&[1, 0, -1, 2]);
    check(&mut r, Pad { mode: PadMode::Constant }, &[Some(x), pads, Some(value), ints(&[0, 2])])
}

#[test]
fn determinants_and_diagonals() -> Result<(), Diag> {
    let mut r = Random(35_000);
    for n in 0..5 {
        let x = r.some(&[2, n, n])?;
        check(&mut r, Det {}, &[Some(x)])?;
    }
    let singular = Tensor::floats(DType::F64, &[2, 2], vec![1.0, 2.0, 2.0, 4.0])?;
    check(&mut r, Det {}, &[Some(singular)])?;
    for (equation, shapes) in [
        ("ii->", vec![vec![3, 3]]),
        ("ii->i", vec![vec![3, 3]]),
        ("iji,jk->ik", vec![vec![2, 3, 2], vec![3, 2]]),
        ("iii,i->i", vec![vec![2, 2, 2], vec![2]]),
        ("ii->i", vec![vec![0, 0]]),
    ] {
        let inputs = shapes.iter().map(|s| r.some(s).map(Some)).collect::<Result<Vec<_>, _>>()?;
        check(&mut r, Einsum { equation: equation.into() }, &inputs)?;
    }
    Ok(())
}

#[test]
fn stored_numbers_by_their_scales() -> Result<(), Diag> {
    let mut r = Random(36_000);
    let x = Tensor::ints(DType::I8, &[2, 3], vec![3, -7, 100, -128, 0, 5])?;
    for (shape, zero) in [(vec![], vec![2]), (vec![1], vec![-3]), (vec![3], vec![1, 0, -4])] {
        let scale = r.floats(&shape, 0.2, 1.0)?;
        let zero = Tensor::ints(DType::I8, &shape, zero)?;
        let op = Dequantize { axis: 1, block: 0, to: DType::F64 };
        check(&mut r, op.clone(), &[Some(x.clone()), Some(scale.clone()), Some(zero)])?;
        check(&mut r, op, &[Some(x.clone()), Some(scale)])?;
    }
    Ok(())
}

#[test]
fn transforms() -> Result<(), Diag> {
    let mut r = Random(37_000);
    for (inverse, onesided) in [(false, false), (false, true), (true, false), (true, true)] {
        for parts in [1, 2] {
            for n in [1, 4, 5] {
                let x = r.some(&[2, n, 3, parts])?;
                let axis = Some(Tensor::scalar_i64(1));
                let op = Dft { inverse, onesided };
                check(&mut r, op.clone(), &[Some(x.clone()), None, axis.clone()])?;
                for len in [3, 6] {
                    check(
                        &mut r,
                        op.clone(),
                        &[Some(x.clone()), Some(Tensor::scalar_i64(len)), axis.clone()],
                    )?;
                }
                let x = r.some(&[n, parts])?;
                check(&mut r, op, &[Some(x)])?;
            }
        }
    }
    for (onesided, parts) in [(true, 1), (false, 2)] {
        let (x, window) = (r.some(&[2, 9, parts])?, r.some(&[4])?);
        let step = Some(Tensor::scalar_i64(2));
        check(&mut r, Stft { onesided }, &[Some(x.clone()), step.clone(), Some(window.clone())])?;
        check(
            &mut r,
            Stft { onesided },
            &[Some(x.clone()), step.clone(), None, Some(Tensor::scalar_i64(3))],
        )?;
        check(&mut r, Stft { onesided }, &[Some(x), step, Some(window), Some(Tensor::scalar_i64(5))])?;
    }
    Ok(())
}

#[test]
fn blocks_of_images() -> Result<(), Diag> {
    let mut r = Random(38_000);
    let x = r.some(&[2, 2 * 4, 6])?;
    let op = Col2Im { strides: vec![1, 2], dilations: vec![2, 1], pads: vec![1, 0, 0, 1] };
    check(&mut r, op, &[Some(x), ints(&[4, 4]), ints(&[2, 2])])?;
    let x = r.some(&[0, 2, 3])?;
    check(
        &mut r,
        Col2Im { strides: vec![1], dilations: vec![1], pads: vec![0, 0] },
        &[Some(x), ints(&[4]), ints(&[2])],
    )
}

#[test]
fn regions_of_images() -> Result<(), Diag> {
    let mut r = Random(39_000);
    for (half_pixel, sampling) in [(false, 1), (true, 2), (true, 3)] {
        let x = r.some(&[2, 2, 5, 4])?;
        let rois = Tensor::floats(
            DType::F64,
            &[3, 4],
            vec![0.31, 0.42, 6.13, 7.27, -3.1, 1.23, 4.37, 13.3, 2.11, 2.33, 2.71, 2.92],
        )?;
        let batch = ints(&[0, 1, 0]);
        let op = RoiAlign { max: false, height: 2, width: 3, sampling, scale: 0.5, half_pixel };
        check(&mut r, op, &[Some(x), Some(rois), batch])?;
    }
    Ok(())
}
