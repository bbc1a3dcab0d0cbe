//! A linear classifier on what a network has computed half way.

use crate::insert_gates::linear::{Reservoir, Split, minimise};
use planish_ir::{Diag, Dim, Tensor};

/// What the classifier sees of a value: all of it, or the mean of each channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Features {
    Flat {
        size: usize,
    },
    /// Means over these axes.
    Pooled {
        axes: Vec<usize>,
        size: usize,
    },
}

/// The most features.
pub(super) const MOST_FEATURES: usize = 2048;
/// The most rows that are fitted to or measured on.
const MOST_ROWS: usize = 20_000;
/// Bytes that these rows may take.
const MOST_BYTES: usize = 256 << 20;
/// The penalty of a squared coefficient.
const PENALTY: f64 = 1e-4;
/// The most steps of the fit.
const STEPS: usize = 150;

impl Features {
    /// `kind`: `flat`, `pooled`, or `auto`: flat if there are few enough. An error says why there are none.
    pub(super) fn of(dims: &[Dim], kind: &str) -> Result<Features, String> {
        let fixed: Option<Vec<usize>> =
            dims.iter().skip(1).map(|d| usize::try_from(d.as_const()?).ok()).collect();
        let fixed = fixed.ok_or("the sizes of the value are not known")?;
        let all: usize = fixed.iter().product();
        let axes: Vec<usize> = match fixed.len() {
            0 | 1 => Vec::new(),
            2 => vec![1],
            n => (2..=n).collect(),
        };
        let pooled: usize = (1..=fixed.len()).filter(|a| !axes.contains(a)).map(|a| fixed[a - 1]).product();
        let flat = match kind {
            "flat" => true,
            "pooled" => false,
            _ => all <= MOST_FEATURES,
        };
        let size = if flat { all } else { pooled };
        if size == 0 || size > MOST_FEATURES {
            return Err(format!("the head would have {size} features, more than {MOST_FEATURES} or none"));
        }
        Ok(if flat || axes.is_empty() { Features::Flat { size } } else { Features::Pooled { axes, size } })
    }
    pub(super) fn size(&self) -> usize {
        match self {
            Features::Flat { size } | Features::Pooled { size, .. } => *size,
        }
    }
    /// Of each row of a tensor.
    fn read(&self, t: &Tensor) -> Vec<Vec<f32>> {
        let rows = t.shape().first().copied().unwrap_or(0);
        let values = t.to_f64();
        let each = values.len().checked_div(rows).unwrap_or(0);
        let row = |r: usize| &values[r * each..(r + 1) * each];
        let (size, axes) = match self {
            Features::Flat { .. } => {
                return (0..rows).map(|r| row(r).iter().map(|v| *v as f32).collect()).collect();
            }
            Features::Pooled { axes, size } => (*size, axes),
        };
        // Either the last axes go, or the one after the batch.
        let last = axes.last().is_some_and(|a| a + 1 == t.rank());
        let over = each.checked_div(size).unwrap_or(0).max(1);
        let mean = |x: &[f64], c: usize| {
            let at = |i: usize| if last { c * over + i } else { i * size + c };
            ((0..over).map(|i| x[at(i)]).sum::<f64>() / over as f64) as f32
        };
        (0..rows).map(|r| (0..size).map(|c| mean(row(r), c)).collect()).collect()
    }
}

/// A row with what it should be.
#[derive(Clone, Debug)]
struct Row {
    x: Vec<f32>,
    /// The class it is to be given.
    target: usize,
    /// The class that the whole model gives.
    model: usize,
    sample: u64,
    row: u64,
}

/// Rows of samples.
#[derive(Debug)]
pub(super) struct Rows {
    features: Features,
    classes: usize,
    kept: Reservoir<Row>,
    samples: u64,
    /// Rows whose label is no class.
    strange: u64,
}

/// A fitted classifier.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// Features x classes.
    pub(super) weights: Vec<f64>,
    pub(super) bias: Vec<f64>,
    /// What it was measured on, see [`Head::at`].
    measured: Vec<Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    confidence: f64,
    right: bool,
    model_right: bool,
}

/// What leaving at a confidence does to rows that nothing was fitted to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Outcome {
    /// The part that leaves.
    pub(super) exits: f64,
    /// The part that is given the right class.
    pub(super) right: f64,
    /// The part that the whole model gives the right class.
    pub(super) model_right: f64,
    pub(super) rows: usize,
}

impl Rows {
    pub(super) fn new(features: Features, classes: usize, seed: u64) -> Rows {
        let most = MOST_ROWS.min(MOST_BYTES / 4 / features.size().max(1)).max(16);
        Rows { features, classes, kept: Reservoir::new(most, seed), samples: 0, strange: 0 }
    }
    /// Adds the rows of a sample: the value, the model's output, and labels if there are any.
    pub(super) fn add(
        &mut self,
        value: &Tensor,
        output: &Tensor,
        labels: Option<&[i64]>,
    ) -> Result<(), Diag> {
        let scores = output.to_f64();
        let x = self.features.read(value);
        if scores.len() != x.len() * self.classes || labels.is_some_and(|l| l.len() != x.len()) {
            let text = format!(
                "a sample has {} rows, {} scores of {} classes and {} labels",
                x.len(),
                scores.len(),
                self.classes,
                labels.map_or(0, <[i64]>::len)
            );
            return Err(Diag::error("calibration-missing", text));
        }
        for (row, (x, scores)) in x.into_iter().zip(scores.chunks_exact(self.classes)).enumerate() {
            let model = largest(scores);
            let target = match labels {
                None => Some(model),
                Some(l) => usize::try_from(l[row]).ok().filter(|l| *l < self.classes),
            };
            match target {
                Some(target) if x.iter().all(|v| v.is_finite()) => {
                    let (sample, row) = (self.samples, row as u64);
                    self.kept.offer(|| Row { x, target, model, sample, row });
                }
                _ => self.strange += 1,
            }
        }
        self.samples += 1;
        Ok(())
    }
    /// Multinomial logistic regression with a squared penalty; an error says why there is none.
    pub(super) fn fit(self) -> Result<Head, String> {
        let (f, c) = (self.features.size(), self.classes);
        let split = Split { samples: self.samples };
        let held = |r: &Row| split.held_out(r.sample, r.row);
        let (held, fit): (Vec<Row>, Vec<Row>) = self.kept.rows.into_iter().partition(held);
        if fit.is_empty() || held.is_empty() {
            return Err(format!(
                "{} rows to fit to, {} to measure on, {} without a usable label or value",
                fit.len(),
                held.len(),
                self.strange
            ));
        }
        // Features are scaled, not shifted, so that zeros stay zeros.
        let mut squares = vec![0.0; f];
        for r in &fit {
            squares.iter_mut().zip(&r.x).for_each(|(s, v)| *s += f64::from(*v).powi(2));
        }
        let scale: Vec<f64> = squares
            .iter()
            .map(|s| (s / fit.len() as f64).sqrt())
            .map(|s| if s > 0.0 { 1.0 / s } else { 0.0 })
            .collect();
        let rows: Vec<(Vec<(u32, f32)>, usize)> = fit
            .iter()
            .map(|r| {
                let some = r.x.iter().enumerate().filter(|(_, v)| **v != 0.0);
                let scaled = some.map(|(i, v)| (i as u32, (f64::from(*v) * scale[i]) as f32));
                (scaled.collect(), r.target)
            })
            .collect();
        let solved = minimise(vec![0.0; (f + 1) * c], STEPS, |w, gradient| loss(&rows, c, w, gradient));
        let (mut weights, bias) = (solved[..f * c].to_vec(), solved[f * c..].to_vec());
        weights.chunks_exact_mut(c).zip(&scale).for_each(|(w, s)| w.iter_mut().for_each(|w| *w *= s));
        if weights.iter().chain(&bias).any(|v| !v.is_finite()) {
            return Err("the fit gives no finite coefficients".into());
        }
        let mut head = Head { weights, bias, measured: Vec::new() };
        head.measured = held
            .iter()
            .map(|r| {
                let scores = head.scores(&r.x);
                let best = largest(&scores);
                let total: f64 = scores.iter().map(|s| (s - scores[best]).exp()).sum();
                Measured {
                    confidence: 1.0 / total,
                    right: best == r.target,
                    model_right: r.model == r.target,
                }
            })
            .collect();
        Ok(head)
    }
}

impl Head {
    fn scores(&self, x: &[f32]) -> Vec<f64> {
        let mut s = self.bias.clone();
        for (v, w) in x.iter().zip(self.weights.chunks_exact(s.len().max(1))) {
            s.iter_mut().zip(w).for_each(|(s, w)| *s += f64::from(*v) * w);
        }
        s
    }
    /// What leaving above a confidence does.
    pub(super) fn at(&self, threshold: f64) -> Outcome {
        let rows = self.measured.len();
        let part = |n: usize| n as f64 / rows.max(1) as f64;
        let leaves = |m: &&Measured| m.confidence > threshold;
        let right = |m: &&Measured| if leaves(m) { m.right } else { m.model_right };
        Outcome {
            exits: part(self.measured.iter().filter(leaves).count()),
            right: part(self.measured.iter().filter(right).count()),
            model_right: part(self.measured.iter().filter(|m| m.model_right).count()),
            rows,
        }
    }
}

fn largest(scores: &[f64]) -> usize {
    (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}

/// The mean of -ln p(target) plus the penalty, and its gradient. Coefficients: features x classes, then constants.
fn loss(rows: &[(Vec<(u32, f32)>, usize)], classes: usize, w: &[f64], gradient: &mut [f64]) -> f64 {
    let split = w.len() - classes;
    gradient.fill(0.0);
    let mut total = 0.0;
    let part = 1.0 / rows.len().max(1) as f64;
    let mut p = vec![0.0; classes];
    for (x, target) in rows {
        p.copy_from_slice(&w[split..]);
        for (i, v) in x {
            let at = *i as usize * classes;
            p.iter_mut().zip(&w[at..at + classes]).for_each(|(s, w)| *s += f64::from(*v) * w);
        }
        let most = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        total += most - p[*target];
        p.iter_mut().for_each(|s| *s = (*s - most).exp());
        let sum: f64 = p.iter().sum();
        total += sum.ln();
        p.iter_mut().for_each(|s| *s *= part / sum);
        p[*target] -= part;
        for (i, v) in x {
            let at = *i as usize * classes;
            gradient[at..at + classes].iter_mut().zip(&p).for_each(|(g, p)| *g += f64::from(*v) * p);
        }
        gradient[split..].iter_mut().zip(&p).for_each(|(g, p)| *g += p);
    }
    let mut penalty = 0.0;
    for (g, w) in gradient[..split].iter_mut().zip(w) {
        *g += PENALTY * w;
        penalty += w * w;
    }
    total * part + 0.5 * PENALTY * penalty
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize) -> Result<Rows, Diag> {
        let dims: Vec<Dim> = [1, 3].map(|d: usize| Dim::from(d)).to_vec();
        let features = Features::of(&dims, "auto").unwrap_or(Features::Flat { size: 3 });
        let mut rows = Rows::new(features, 3, 0);
        for i in 0..n {
            let mut x = [0.1f32, 0.2, 0.0];
            x[i % 3] += 1.0 + (i % 7) as f32 * 0.1;
            let mut y = [0f32; 3];
            y[i % 3] = 5.0;
            rows.add(&Tensor::f32s(&[1, 3], &x)?, &Tensor::f32s(&[1, 3], &y)?, None)?;
        }
        Ok(rows)
    }

    #[test]
    fn a_head_learns_what_the_model_says() -> Result<(), Diag> {
        let head = rows(200)?.fit().unwrap_or_else(|why| panic!("{why}"));
        let all = head.at(0.0);
        assert_eq!((all.exits, all.right, all.model_right, all.rows), (1.0, 1.0, 1.0, 50));
        assert_eq!(head.at(1.0).exits, 0.0);
        let half = head.at(0.9);
        assert!(half.exits > 0.5, "{half:?}");
        Ok(())
    }

    #[test]
    fn too_few_rows_are_declined() -> Result<(), Diag> {
        assert!(rows(1)?.fit().is_err());
        let mut r = rows(3)?;
        let bad = r.add(&Tensor::f32s(&[1, 3], &[0.; 3])?, &Tensor::f32s(&[1, 2], &[0.; 2])?, None);
        assert!(bad.is_err());
        Ok(())
    }

    #[test]
    fn features_are_bounded() -> Result<(), Diag> {
        let dims = |d: &[usize]| d.iter().map(|d| Dim::from(*d)).collect::<Vec<_>>();
        assert_eq!(Features::of(&dims(&[1, 8, 4, 4]), "auto"), Ok(Features::Flat { size: 128 }));
        let pooled = Features::of(&dims(&[1, 64, 40, 40]), "auto");
        assert_eq!(pooled, Ok(Features::Pooled { axes: vec![2, 3], size: 64 }));
        assert_eq!(
            Features::of(&dims(&[1, 99, 64]), "pooled"),
            Ok(Features::Pooled { axes: vec![1], size: 64 })
        );
        assert!(Features::of(&dims(&[1, 64, 40, 40]), "flat").is_err());
        let t = Tensor::f32s(&[1, 2, 2, 1], &[1., 3., 5., 9.])?;
        let f = Features::Pooled { axes: vec![2, 3], size: 2 };
        assert_eq!(f.read(&t), [[2.0, 7.0]]);
        let t = Tensor::f32s(&[1, 2, 2], &[1., 3., 5., 9.])?;
        assert_eq!(Features::Pooled { axes: vec![1], size: 2 }.read(&t), [[3.0, 6.0]]);
        Ok(())
    }
}
