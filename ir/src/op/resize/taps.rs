//! Which elements of an axis make a new one, and with which weights.

use super::{Resize, ResizeMode, ResizeNearest, ResizeTransform};
use crate::diag::Diag;

/// One resampled axis.
#[derive(Clone, Copy, Debug)]
pub struct ResizeAxis {
    /// Old size.
    pub old: usize,
    /// New size.
    pub new: usize,
    /// Scale, which is not always `new / old`.
    pub scale: f64,
    /// Beginning and end of the region of interest.
    pub roi: (f64, f64),
}

impl ResizeAxis {
    /// Whether nothing changes along the axis.
    pub fn is_identity(&self) -> bool {
        self.old == self.new && (self.scale - 1.0).abs() <= 1e-9 && self.roi == (0.0, 1.0)
    }
}

/// What makes one new element.
#[derive(Clone, PartialEq, Debug)]
pub struct Taps {
    /// Index on the old axis, and weight.
    pub weights: Vec<(usize, f64)>,
    /// Whether the place is outside of the axis and the value therefore the extrapolation value.
    pub outside: bool,
}

/// The place on the old axis of new index `i`.
fn place(transform: ResizeTransform, axis: &ResizeAxis, i: f64) -> f64 {
    let old = axis.old as f64;
    let width = axis.scale * old;
    match transform {
        ResizeTransform::AlignCorners if width == 1.0 => 0.0,
        ResizeTransform::AlignCorners => i * (old - 1.0) / (width - 1.0),
        ResizeTransform::Asymmetric => i / axis.scale,
        ResizeTransform::CropAndResize => {
            let (begin, end) = axis.roi;
            begin * (old - 1.0)
                + if width == 1.0 {
                    (end - begin) * (old - 1.0) / 2.0
                } else {
                    i * (end - begin) * (old - 1.0) / (width - 1.0)
                }
        }
        ResizeTransform::PytorchHalfPixel if width == 1.0 => -0.5,
        ResizeTransform::HalfPixel | ResizeTransform::PytorchHalfPixel => (i + 0.5) / axis.scale - 0.5,
        ResizeTransform::HalfPixelSymmetric => {
            // ONNX writes old / 2 * (1 - new / width); this form of it is exact for scales that are powers of two, so
            // that places that are whole numbers stay whole.
            (old - axis.new as f64 / axis.scale) * 0.5 + ((i + 0.5) / axis.scale - 0.5)
        }
    }
}

fn cubic(a: f64, x: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// The weights of the elements from `floor(place) + first` on, for a place with this fraction in (0, 1].
fn kernel(op: &Resize, fraction: f64, scale: f64) -> (i64, Vec<f64>) {
    let scale = if op.antialias { scale.min(1.0) } else { 1.0 };
    let reach = if op.mode == ResizeMode::Cubic { 2.0 } else { 1.0 };
    match op.mode {
        ResizeMode::Nearest => {
            let upper = fraction >= 1.0
                || match op.nearest {
                    ResizeNearest::RoundPreferFloor => fraction > 0.5,
                    ResizeNearest::RoundPreferCeil => fraction >= 0.5,
                    ResizeNearest::Floor => false,
                    ResizeNearest::Ceil => true,
                };
            (i64::from(upper), vec![1.0])
        }
        ResizeMode::Linear | ResizeMode::Cubic => {
            let first = (-reach / scale).floor() as i64 + 1;
            let count = 2 - 2 * first;
            let weigh = |x: f64| match op.mode {
                ResizeMode::Cubic => cubic(op.cubic_a, x),
                _ => (1.0 - x.abs()).clamp(0.0, 1.0),
            };
            let mut w: Vec<f64> =
                (first..first + count).map(|k| weigh((k as f64 - fraction) * scale)).collect();
            if op.antialias {
                let sum: f64 = w.iter().sum();
                w.iter_mut().for_each(|w| *w /= sum);
            }
            (first, w)
        }
    }
}

/// What makes each element of a resampled axis.
pub fn axis_taps(op: &Resize, axis: &ResizeAxis) -> Result<Vec<Taps>, Diag> {
    if !(axis.scale > 0.0 && axis.scale.is_finite()) {
        return if axis.new == 0 {
            Ok(Vec::new())
        } else {
            Err(Diag::error("field-range", format!("an axis cannot be scaled by {}", axis.scale)))
        };
    }
    if op.antialias && axis.scale < 1e-6 {
        return Err(Diag::error("field-range", format!("a scale of {} is too small", axis.scale)));
    }
    let top = axis.old as i64 - 1;
    let one = |i: usize| {
        let at = place(op.transform, axis, i as f64);
        let outside = op.transform == ResizeTransform::CropAndResize && !(0.0..=top as f64).contains(&at);
        let at = at.clamp(-1e15, 1e15);
        // The fraction is in (0, 1], so a whole place belongs to the element on its left.
        let (whole, fraction) =
            if at == at.floor() { (at - 1.0, 1.0) } else { (at.floor(), at - at.floor()) };
        let (first, mut weights) = kernel(op, fraction, axis.scale);
        let first = whole as i64 + first;
        let inside = |k: usize| (0..=top).contains(&(first + k as i64));
        if op.exclude_outside {
            weights.iter_mut().enumerate().filter(|(k, _)| !inside(*k)).for_each(|(_, w)| *w = 0.0);
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().filter(|_| sum != 0.0).for_each(|w| *w /= sum);
        }
        let clamped = |k: usize| (first + k as i64).clamp(0, top.max(0)) as usize;
        Taps { weights: weights.into_iter().enumerate().map(|(k, w)| (clamped(k), w)).collect(), outside }
    };
    Ok((0..axis.new).map(one).collect())
}
