//! What is known of the results of a method: accuracy on labels, nearness to the dense program, or nothing.

use super::{Candidate, Found};
use crate::bench::thing;
use crate::failure::Result;
use crate::{emit, inputs};
use planish_ir::{Elems, Graph, Tensor, Value};
use serde_json::{Map, Value as Json, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// How good the evidence is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Accuracy on samples with labels.
    Measured,
    /// Nearness of the outputs to those of the dense program.
    Proxy,
    /// Nothing is known.
    None,
}

impl Class {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Measured => "measured",
            Class::Proxy => "proxy",
            Class::None => "none",
        }
    }
}

/// What is known of the results of a method.
#[derive(Clone, PartialEq, Debug)]
pub struct Evidence {
    /// How good it is.
    pub class: Class,
    /// Samples that were compared.
    pub samples: usize,
    /// Whether they were made up.
    pub synthetic: bool,
    /// Power of the dense outputs to that of the difference, in decibels; infinite if there is none.
    pub snr_db: Option<f64>,
    /// The part of rows of the first output whose largest element is the same one.
    pub agreement: Option<f64>,
    /// Accuracy of the dense program and of this one.
    pub accuracy: Option<(f64, f64)>,
}

impl Evidence {
    /// Nothing is known.
    pub fn none() -> Evidence {
        Evidence {
            class: Class::None,
            samples: 0,
            synthetic: false,
            snr_db: None,
            agreement: None,
            accuracy: None,
        }
    }
    /// For people.
    pub fn text(&self) -> String {
        let mut parts = Vec::new();
        if let Some((dense, this)) = self.accuracy {
            parts.push(format!("accuracy {:.2}% (dense {:.2}%)", 100.0 * this, 100.0 * dense));
        }
        if let Some(db) = self.snr_db {
            parts.push(if db.is_finite() { format!("{db:.1} dB") } else { "equal outputs".into() });
        }
        if let Some(a) = self.agreement {
            parts.push(format!("argmax {:.1}% the same", 100.0 * a));
        }
        let kind = if self.synthetic { "synthetic inputs" } else { "samples" };
        if self.class == Class::None {
            return "none".into();
        }
        format!("{}: {} on {} {kind}", self.class.name(), parts.join(", "), self.samples)
    }
    /// For scripts.
    pub fn json(&self) -> Json {
        // Infinity is no number in JSON.
        let db = self.snr_db.map(|d| if d.is_finite() { json!(d) } else { json!("inf") });
        json!({
            "class": self.class.name(), "samples": self.samples, "synthetic": self.synthetic, "snr_db": db,
            "argmax_agreement": self.agreement, "accuracy": self.accuracy.map(|a| a.1),
            "accuracy_dense": self.accuracy.map(|a| a.0),
        })
    }
}

/// Sums over samples.
#[derive(Clone, Debug, Default)]
struct Sums {
    samples: usize,
    signal: f64,
    noise: f64,
    rows: usize,
    same: usize,
    /// Samples with a label, and how often the dense program and this one were right.
    labelled: usize,
    right: [usize; 2],
}

impl Sums {
    fn add(&mut self, dense: &[Value], other: &[Value], label: Option<&Tensor>) -> Result<()> {
        self.samples += 1;
        for (i, (d, o)) in dense.iter().zip(other).enumerate() {
            let (Ok(d), Ok(o)) = (d.tensor(), o.tensor()) else { continue };
            if d.shape() != o.shape() {
                continue;
            }
            if let (Elems::F(x), Elems::F(y)) = (d.elems(), o.elems()) {
                for (x, y) in x.iter().zip(&y).filter(|(x, y)| x.is_finite() && y.is_finite()) {
                    self.signal += x * x;
                    self.noise += (x - y) * (x - y);
                }
            }
            if i == 0 {
                let (a, b) = (argmax(d), argmax(o));
                self.rows += a.len();
                self.same += a.iter().zip(&b).filter(|(a, b)| a == b).count();
                if let Some(label) = label.map(Tensor::to_i64).transpose()? {
                    let right =
                        |of: &[usize]| of.iter().zip(&label).filter(|(a, l)| **a as i64 == **l).count();
                    let count = label.len().min(a.len());
                    self.labelled += count;
                    self.right[0] += right(&a);
                    self.right[1] += right(&b);
                }
            }
        }
        Ok(())
    }
    fn evidence(&self, synthetic: bool) -> Evidence {
        let part = |n: usize, of: usize| (of > 0).then(|| n as f64 / of as f64);
        let snr_db = (self.signal > 0.0).then(|| 10.0 * (self.signal / self.noise).log10());
        let accuracy = part(self.right[0], self.labelled).zip(part(self.right[1], self.labelled));
        let agreement = part(self.same, self.rows);
        let class = match (accuracy, snr_db.or(agreement)) {
            _ if self.samples == 0 => Class::None,
            (Some(_), _) => Class::Measured,
            (None, Some(_)) => Class::Proxy,
            (None, None) => Class::None,
        };
        Evidence { class, samples: self.samples, synthetic, snr_db, agreement, accuracy }
    }
}

/// Where the largest element of each row along the last axis is; none where rows are single elements or no floats.
fn argmax(t: &Tensor) -> Vec<usize> {
    let width = t.shape().last().copied().unwrap_or(1);
    let Elems::F(x) = t.elems() else { return Vec::new() };
    if width < 2 {
        return Vec::new();
    }
    let largest = |row: &[f64]| {
        (0..row.len()).fold(0, |best, i| if row[i] > row[best] || row[best].is_nan() { i } else { best })
    };
    x.chunks_exact(width).map(largest).collect()
}

/// Compares the candidates with the dense program on as many samples as there is time for, at least one.
pub(super) fn judge(
    dense: &mut Candidate,
    found: &mut [Found],
    (inputs, labels): (&[Vec<Option<Value>>], &[Tensor]),
    synthetic: bool,
    last: Instant,
) -> Result<()> {
    let mut sums = vec![Sums::default(); found.len()];
    for (k, sample) in inputs.iter().enumerate() {
        if k > 0 && Instant::now() > last {
            break;
        }
        let want = dense.run(sample)?;
        for (f, sums) in found.iter_mut().zip(&mut sums) {
            let Some(c) = &mut f.candidate else { continue };
            sums.add(&want, &c.run(sample)?, labels.get(k))?;
        }
    }
    for (f, sums) in found.iter_mut().zip(&sums) {
        f.evidence = sums.evidence(synthetic);
    }
    Ok(())
}

/// The profile of the dense program: `kernels` and the time outside of them; none where it prints none, or where an input is no tensor.
pub(super) fn profile(
    fused: &Graph,
    values: &[&Value],
    threads: usize,
    work: &Path,
) -> Result<Option<Map<String, Json>>> {
    if values.iter().any(|v| v.tensor().is_err()) {
        return Ok(None);
    }
    let (program, folder) = (work.join("dense"), work.join("inputs"));
    emit::host_executable(fused, &program)?;
    inputs::store(values.iter().copied(), &folder)?;
    let mut args = vec!["--threads".to_owned(), threads.to_string()];
    args.extend(["--inputs".into(), folder.display().to_string()]);
    Ok(Some(thing::profile(&program, &args, Duration::from_millis(300))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_compared() -> Result<()> {
        let t = |v: &[f32]| Tensor::f32s(&[2, 2], v).map(Value::from);
        let (dense, other) = (t(&[1.0, 0.0, 0.0, 2.0])?, t(&[1.0, 0.0, 0.5, 0.0])?);
        let mut s = Sums::default();
        s.add(std::slice::from_ref(&dense), &[other], None)?;
        let e = s.evidence(false);
        assert_eq!((e.class, e.agreement, e.accuracy), (Class::Proxy, Some(0.5), None));
        assert!(e.snr_db.is_some_and(|d| (d - 10.0 * (5.0f64 / 4.25).log10()).abs() < 1e-9), "{e:?}");
        let mut s = Sums::default();
        let labels = Tensor::ints(planish_ir::DType::I64, &[2], vec![0, 0])?;
        s.add(std::slice::from_ref(&dense), std::slice::from_ref(&dense), Some(&labels))?;
        let e = s.evidence(false);
        assert_eq!((e.class, e.accuracy), (Class::Measured, Some((0.5, 0.5))));
        assert!(e.text().contains("accuracy 50.00% (dense 50.00%), equal outputs"), "{}", e.text());
        assert_eq!(e.json()["snr_db"], "inf");
        assert_eq!(Sums::default().evidence(true).class, Class::None);
        Ok(())
    }

    #[test]
    fn the_largest_of_a_row_is_found() -> Result<()> {
        let t = Tensor::f32s(&[2, 3], &[1.0, 3.0, 2.0, f32::NAN, 0.0, 1.0])?;
        assert_eq!(argmax(&t), [1, 2]);
        assert!(argmax(&Tensor::f32s(&[3, 1], &[1.0; 3])?).is_empty());
        Ok(())
    }
}
