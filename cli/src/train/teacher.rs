//! What teachers say of samples, computed once.

use super::Make;
use super::samples::{Samples, Targets};
use crate::engine::{self, cache::Cache};
use crate::failure::{Failure, Result};
use crate::ui::Ui;
use planish_ir::{DType, Graph, PrepareOptions, Tensor, Value};
use planish_passes::training::soft_scores;

/// How the probabilities of several teachers become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Mean {
    /// The mean of the probabilities
    #[default]
    Arithmetic,
    /// Proportional to the product of the probabilities, each to the power of one over the number of teachers
    Geometric,
}

/// Rows of a batch.
const BATCH: usize = 256;

/// What teachers are asked.
pub struct Asked<'a> {
    /// What scores are divided by before the softmax.
    pub temperature: f64,
    /// How the probabilities of several teachers become one.
    pub mean: Mean,
    /// What the samples are.
    pub digest: &'a str,
    /// What runs the teachers, and with how many threads.
    pub engine: (&'a str, usize),
    /// Where what they said is kept.
    pub cache: Option<&'a Cache>,
}

/// A teacher: what makes it, what it is, and the rows of a batch if it takes no other number.
pub type Teacher<'a> = (&'a Make<'a>, String, Option<usize>);

/// Probabilities of all teachers, one row for each row of the samples.
pub fn probabilities(
    teachers: &[Teacher<'_>],
    asked: &Asked<'_>,
    samples: &Samples,
    ui: &Ui,
) -> Result<Tensor> {
    let Asked { temperature, mean, digest, engine, cache } = *asked;
    let mut all: Vec<Tensor> = Vec::new();
    for (make, key, fixed) in teachers {
        let key = Cache::key("teacher", format!("{key} {digest} {temperature} {}", samples.len()).as_bytes());
        let kept = cache.and_then(|c| c.get(&key)).and_then(|bytes| read(&bytes, samples.len()));
        let said = match kept {
            Some(t) => t,
            None => {
                let t = one((*make, *fixed), temperature, samples, engine, ui)?;
                if let Some(c) = cache {
                    c.put(&key, t.bytes());
                }
                t
            }
        };
        if all.first().is_some_and(|a| a.shape() != said.shape()) {
            return Err(Failure::new("train-malformed", "teachers have different numbers of classes"));
        }
        all.push(said);
    }
    let Some(first) = all.first() else { return Err(Failure::usage("there is no teacher")) };
    if all.len() == 1 {
        return Ok(first.clone());
    }
    let (shape, classes) = (first.shape().to_vec(), *first.shape().last().unwrap_or(&1));
    let mut sum = vec![0.0; first.len()];
    for t in &all {
        for (s, p) in sum.iter_mut().zip(t.to_f64()) {
            *s += match mean {
                Mean::Arithmetic => p,
                // The logarithm of a probability that is too small for f32.
                Mean::Geometric => p.max(1e-38).ln(),
            } / all.len() as f64;
        }
    }
    if mean == Mean::Geometric {
        for row in sum.chunks_mut(classes.max(1)) {
            row.iter_mut().for_each(|x| *x = x.exp());
            let total: f64 = row.iter().sum();
            row.iter_mut().for_each(|x| *x /= total);
        }
    }
    Ok(Tensor::floats(DType::F32, &shape, sum)?)
}

/// What was kept: rows of f32.
fn read(bytes: &[u8], rows: usize) -> Option<Tensor> {
    let classes = (bytes.len() / 4).checked_div(rows).filter(|c| c * rows * 4 == bytes.len())?;
    Tensor::from_bytes(DType::F32, vec![rows, classes], bytes.to_vec().into()).ok()
}

fn one(
    (make, fixed): (&Make<'_>, Option<usize>),
    temperature: f64,
    samples: &Samples,
    engine: (&str, usize),
    ui: &Ui,
) -> Result<Tensor> {
    let size = fixed.unwrap_or(BATCH);
    let progress = ui.progress("teacher", samples.len().div_ceil(size) as u64);
    let rows: Vec<usize> = (0..samples.len()).collect();
    let (mut values, mut classes) = (Vec::new(), 0);
    let mut session: Option<(usize, Box<dyn planish_ir::Session>, usize, usize)> = None;
    for part in rows.chunks(size) {
        if session.as_ref().is_none_or(|(n, ..)| *n != part.len()) {
            let graph: Graph = make(Some(part.len()))?;
            let soft = soft_scores(&graph, temperature)?;
            let options = PrepareOptions { threads: engine.1, ..PrepareOptions::default() };
            let made = engine::prepare(engine.0, &soft, &options)?.session()?;
            session = Some((part.len(), made, graph.inputs().len(), graph.outputs().len()));
        }
        let Some((_, run, inputs, output)) = &mut session else { continue };
        let mut batch = samples.batch(part)?;
        batch.truncate(*inputs);
        let batch: Vec<Option<Value>> = batch.into_iter().map(Some).collect();
        let said = run.run_for(&batch, &[*output])?;
        let said = said[0].tensor()?;
        classes = said.len() / part.len().max(1);
        values.extend(said.to_f64());
        progress.step();
    }
    progress.finish();
    Ok(Tensor::floats(DType::F32, &[samples.len(), classes], values)?)
}

/// What a student is compared with: probabilities of teachers and, unless classes count for nothing, those of the classes behind them. `dims` are those of
/// the student's scores without the axis of rows.
pub fn targets(soft: &Tensor, samples: &Samples, dims: &[usize], hard: bool) -> Result<Targets> {
    let classes = *dims.last().unwrap_or(&0);
    if soft.len() != samples.len() * dims.iter().product::<usize>() {
        return Err(Failure::new("train-malformed", "teacher and student have different numbers of scores"));
    }
    let said = soft.to_f64();
    let each = dims.iter().product::<usize>().max(1);
    let mut shape = dims.to_vec();
    if let (true, Some(last)) = (hard, shape.last_mut()) {
        *last *= 2;
    }
    shape.insert(0, 1);
    let mut out: Option<Targets> = None;
    for (row, soft) in said.chunks(each).enumerate() {
        let mut values = Vec::with_capacity(2 * each);
        if hard {
            let batch = samples.batch(&[row])?;
            let labels =
                batch.last().map(|v| v.tensor().and_then(Tensor::to_i64)).transpose()?.unwrap_or_default();
            for (soft, label) in soft.chunks(classes.max(1)).zip(labels) {
                let right = usize::try_from(label).ok().filter(|l| *l < classes);
                let right = right
                    .ok_or_else(|| Failure::new("train-samples", format!("there is no class {label}")))?;
                values.extend_from_slice(soft);
                values.extend((0..classes).map(|c| f64::from(u8::from(c == right))));
            }
        } else {
            values.extend_from_slice(soft);
        }
        let t = Tensor::floats(DType::F32, &shape, values)?;
        out.get_or_insert_with(|| Targets::like(&t)).push(&t)?;
    }
    out.ok_or_else(|| Failure::new("train-samples", "there are no samples to train on"))
}
