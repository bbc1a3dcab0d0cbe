use super::*;
use crate::op::probe::{eval_op, ramp};
use crate::{Editor, Graph};

fn resize(mode: ResizeMode, transform: ResizeTransform, axes: &[usize]) -> Resize {
    Resize {
        mode,
        transform,
        nearest: ResizeNearest::RoundPreferFloor,
        cubic_a: -0.75,
        exclude_outside: false,
        extrapolation: 10.0,
        antialias: false,
        axes: axes.into(),
        policy: ResizePolicy::Stretch,
    }
}

fn near(t: &Tensor, want: &[f64]) -> bool {
    t.len() == want.len() && t.to_f64().iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn linear_in_every_coordinate_system() -> Result<(), Diag> {
    use ResizeTransform::*;
    let x = ramp(&[2, 4], 1.0, 1.0)?;
    let scales = Tensor::f32s(&[1], &[0.5])?;
    let sizes = Tensor::vec_i64(&[2]);
    for (transform, want) in [
        (HalfPixel, [1.5, 3.5]),
        (AlignCorners, [1.0, 4.0]),
        (Asymmetric, [1.0, 3.0]),
        (PytorchHalfPixel, [1.5, 3.5]),
    ] {
        let op = resize(ResizeMode::Linear, transform, &[1]);
        let y = eval_op(op.clone(), &[Some(x.clone()), None, Some(scales.clone()), None])?;
        assert!(
            near(&y[0], &[want[0], want[1], want[0] + 4.0, want[1] + 4.0]),
            "{transform:?} {:?}",
            y[0].to_f64()
        );
        assert_eq!(eval_op(op, &[Some(x.clone()), None, None, Some(sizes.clone())])?, y);
    }
    let roi = Tensor::f32s(&[2], &[0.5, 1.5])?;
    let op = resize(ResizeMode::Linear, CropAndResize, &[1]);
    let y = eval_op(op, &[Some(x), Some(roi), None, Some(sizes)])?;
    assert!(near(&y[0], &[2.5, 10.0, 6.5, 10.0]));
    Ok(())
}

#[test]
fn nearest_and_cubic() -> Result<(), Diag> {
    let x = ramp(&[4], 1.0, 1.0)?;
    let sizes = Tensor::vec_i64(&[8]);
    let y = eval_op(
        resize(ResizeMode::Nearest, ResizeTransform::Asymmetric, &[0]),
        &[Some(x.clone()), None, None, Some(sizes.clone())],
    )?;
    assert!(near(&y[0], &[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]));
    // As the reference implementation of ONNX gives.
    let y = eval_op(
        resize(ResizeMode::Cubic, ResizeTransform::HalfPixel, &[0]),
        &[Some(x.clone()), None, None, Some(sizes)],
    )?;
    let want = [0.89453125, 1.19140625, 1.66796875, 2.296875, 2.703125, 3.33203125, 3.80859375, 4.10546875];
    assert!(near(&y[0], &want), "{:?}", y[0].to_f64());
    let mut op = resize(ResizeMode::Linear, ResizeTransform::HalfPixel, &[0]);
    op.antialias = true;
    let y = eval_op(op, &[Some(x), None, Some(Tensor::f32s(&[1], &[0.5])?), None])?;
    assert!(near(&y[0], &[1.625, 3.375]), "{:?}", y[0].to_f64());
    Ok(())
}

#[test]
fn one_scale_for_all_axes() -> Result<(), Diag> {
    let x = ramp(&[2, 4], 1.0, 1.0)?;
    let mut op = resize(ResizeMode::Nearest, ResizeTransform::HalfPixel, &[0, 1]);
    op.policy = ResizePolicy::NotLarger;
    let sizes = Tensor::vec_i64(&[7, 8]);
    let y = eval_op(op.clone(), &[Some(x.clone()), None, None, Some(sizes.clone())])?;
    assert_eq!(y[0].shape(), [4, 8]);
    op.policy = ResizePolicy::NotSmaller;
    assert_eq!(eval_op(op, &[Some(x), None, None, Some(sizes)])?[0].shape(), [7, 14]);
    Ok(())
}

#[test]
fn symbolic_sizes_follow_simple_scales() -> Result<(), Diag> {
    let mut g = Graph::new("t");
    let n = Dim::from(g.symbols.named("N"));
    let mut ed = Editor::new(&mut g);
    let x = ed.input("x", Type::tensor(DType::F32, vec![n.clone()]));
    for (scale, want) in [(2.0, n.mul(&2.into())), (0.7, n.mul(&7.into()).floor_div(&10.into()))] {
        let s = ed.constant(Tensor::f32s(&[1], &[scale])?)?;
        let op = resize(ResizeMode::Nearest, ResizeTransform::Asymmetric, &[0]);
        let y = ed.node(op, &[Some(x), None, Some(s), None])?[0];
        assert_eq!(ed.graph().dims(y), Some(&[want][..]));
    }
    Ok(())
}
