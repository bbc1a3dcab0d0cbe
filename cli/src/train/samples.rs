//! Samples as training takes them: rows of all inputs and of what they are compared with, in memory where they fit, else read when a batch needs
//! them.

use crate::data::{Data, Sample};
use crate::failure::{Failure, Result};
use planish_ir::op::random::{stream, unit};
use planish_ir::{DType, Tensor, Value};

/// Rows of one tensor.
#[derive(Clone, Debug)]
struct Column {
    dtype: DType,
    /// Without the axis of rows.
    dims: Vec<usize>,
    data: Vec<u8>,
}

impl Column {
    fn unit(&self) -> usize {
        self.dims.iter().product::<usize>() * self.dtype.size()
    }
    /// Adds the rows of a tensor; how many.
    fn push(&mut self, t: &Tensor) -> Result<usize> {
        let Some((rows, dims)) = t.shape().split_first() else { return Err(mixed()) };
        if t.dtype() != self.dtype || *dims != self.dims[..] {
            return Err(mixed());
        }
        self.data.extend_from_slice(t.bytes());
        Ok(*rows)
    }
    fn like(t: &Tensor) -> Column {
        Column { dtype: t.dtype(), dims: t.shape().get(1..).unwrap_or_default().to_vec(), data: Vec::new() }
    }
    fn batch(&self, rows: &[usize]) -> Result<Tensor> {
        let unit = self.unit();
        let mut bytes = Vec::with_capacity(unit * rows.len());
        rows.iter().for_each(|r| bytes.extend_from_slice(&self.data[r * unit..(r + 1) * unit]));
        let shape = std::iter::once(rows.len()).chain(self.dims.iter().copied()).collect();
        Ok(Tensor::from_bytes(self.dtype, shape, bytes.into())?)
    }
}

fn mixed() -> Failure {
    Failure::new("train-samples", "samples have different sizes: a batch needs equal ones")
}

/// What samples are compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Their classes, so many for each row.
    Classes(usize),
    /// The last of the values that they hold.
    Values,
    /// Nothing.
    Nothing,
}

/// Rows.
#[derive(Clone, Debug)]
pub struct Samples {
    data: Data,
    target: Target,
    /// In memory: inputs by position, then the target.
    columns: Option<Vec<Column>>,
    count: usize,
}

/// Targets by rows that come from elsewhere, such as from a teacher.
#[derive(Clone, Debug)]
pub struct Targets(Column);

impl Targets {
    /// None yet; all of the type and size of a batch without its first axis.
    pub fn like(batch: &Tensor) -> Targets {
        Targets(Column::like(batch))
    }
    /// Adds rows.
    pub fn push(&mut self, batch: &Tensor) -> Result<()> {
        self.0.push(batch).map(|_| ())
    }
    /// Those of some rows.
    pub fn batch(&self, rows: &[usize]) -> Result<Tensor> {
        self.0.batch(rows)
    }
}

impl Samples {
    /// Reads all samples into memory if they take no more than so many bytes. Else each is one row and is read when it is needed.
    pub fn new(data: &Data, target: Target, most: u64) -> Result<Samples> {
        let first = values(&data.sample(0)?, target)?;
        let mut columns: Vec<Column> = first.iter().map(Column::like).collect();
        let bytes: u64 = columns.iter().map(|c| c.unit() as u64).sum();
        let rows = first.first().and_then(|t| t.shape().first().copied()).unwrap_or(1) as u64;
        if bytes.saturating_mul(rows).saturating_mul(data.len() as u64) > most {
            if rows != 1 {
                return Err(Failure::new(
                    "train-samples",
                    "too many samples for memory: give each a file or a position of its own",
                ));
            }
            return Ok(Samples { data: data.clone(), target, columns: None, count: data.len() });
        }
        let mut count = 0;
        for k in 0..data.len() {
            let sample = data.sample(k)?;
            let all = values(&sample, target).map_err(|f| sample.failed(f))?;
            let rows = all.iter().zip(&mut columns).map(|(t, c)| c.push(t)).collect::<Result<Vec<_>>>();
            let rows = rows.map_err(|f| sample.failed(f))?;
            if rows.iter().any(|r| *r != rows[0]) {
                return Err(sample.failed(mixed()));
            }
            count += rows[0];
        }
        Ok(Samples { data: data.clone(), target, columns: Some(columns), count })
    }
    /// Rows.
    pub fn len(&self) -> usize {
        self.count
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Inputs by position and, unless there is none, the target.
    pub fn batch(&self, rows: &[usize]) -> Result<Vec<Value>> {
        if let Some(columns) = &self.columns {
            return columns.iter().map(|c| Ok(c.batch(rows)?.into())).collect();
        }
        let mut out: Vec<Column> = Vec::new();
        for r in rows {
            let sample = self.data.sample(*r)?;
            let all = values(&sample, self.target).map_err(|f| sample.failed(f))?;
            if out.is_empty() {
                out = all.iter().map(Column::like).collect();
            }
            for (t, c) in all.iter().zip(&mut out) {
                c.push(t).map_err(|f| sample.failed(f))?;
            }
        }
        let every: Vec<usize> = (0..rows.len()).collect();
        out.iter().map(|c| Ok(c.batch(&every)?.into())).collect()
    }
}

/// The tensors of a sample: inputs, then the target.
fn values(sample: &Sample, target: Target) -> Result<Vec<Tensor>> {
    let tensor = |v: &Option<Value>| match v {
        Some(v) => Ok(v.tensor()?.clone()),
        None => Err(Failure::new("train-samples", "a sample leaves an input out")),
    };
    let mut out = sample.values.iter().map(tensor).collect::<Result<Vec<_>>>()?;
    if let Target::Classes(each) = target {
        let labels = sample.labels.as_ref();
        let labels = labels.ok_or_else(|| Failure::new("train-samples", "the samples have no labels"))?;
        let rows = out.first().and_then(|t| t.shape().first().copied()).unwrap_or(1);
        if labels.len() != rows * each {
            let text = format!("{} labels for {rows} rows of {each}", labels.len());
            return Err(Failure::new("train-samples", text));
        }
        let shape = if each == 1 { vec![rows] } else { vec![rows, each] };
        let classes = labels.iter().map(|l| i128::from(*l)).collect();
        out.push(Tensor::ints(DType::I64, &shape, classes)?);
    }
    Ok(out)
}

/// The numbers below `n` in an order that a seed decides (Fisher and Yates).
pub fn order(n: usize, seed: u64) -> Vec<usize> {
    let mut out: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let at = (unit(stream(seed, i as u64)) * (i + 1) as f64) as usize;
        out.swap(i, at.min(i));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(count: usize) -> std::result::Result<Data, planish_ir::Diag> {
        let sample = |k: usize| {
            let x = Tensor::f32s(&[1, 2], &[k as f32, -(k as f32)])?;
            Ok(Sample {
                name: format!("s{k}"),
                values: vec![Some(x.into())],
                labels: Some(vec![k as i64 % 3]),
            })
        };
        Ok(Data::of_samples(
            "memory",
            (0..count).map(sample).collect::<std::result::Result<_, planish_ir::Diag>>()?,
        ))
    }

    #[test]
    fn batches_are_the_same_from_memory_and_from_files() -> std::result::Result<(), Box<dyn std::error::Error>>
    {
        let data = data(5)?;
        let batch = |most| -> std::result::Result<Vec<Value>, String> {
            let samples = Samples::new(&data, Target::Classes(1), most).map_err(|f| f.message())?;
            samples.batch(&[4, 0, 4]).map_err(|f| f.message())
        };
        let (kept, read) = (batch(1 << 20)?, batch(0)?);
        assert_eq!(kept, read);
        assert_eq!(kept[0].tensor()?.to_f64(), [4.0, -4.0, 0.0, 0.0, 4.0, -4.0]);
        assert_eq!(kept[1].tensor()?.to_i64()?, [1, 0, 1]);
        assert!(Samples::new(&data, Target::Classes(2), 1 << 20).is_err());
        Ok(())
    }

    #[test]
    fn an_order_has_everything_once_and_depends_on_the_seed() {
        let (a, b) = (order(100, 1), order(100, 2));
        assert_eq!(a, order(100, 1));
        assert_ne!(a, b);
        for mut o in [a, b] {
            o.sort_unstable();
            assert!(o.into_iter().eq(0..100));
        }
        assert!(order(0, 1).is_empty());
    }
}
