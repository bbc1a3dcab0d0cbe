//! Runs on the interpreter.

use super::{Calibrate, Cover, Samples};
use planish_ir::{Diag, Editor, Engine, Graph, Interpreter, PrepareOptions, Tensor, Value, ValueId};

/// Runs graphs on samples in memory with the interpreter, whatever kind of samples is asked for: for tests and small graphs.
#[derive(Clone, Debug, Default)]
pub struct Interpreted {
    /// The inputs of each sample.
    pub samples: Vec<Vec<Value>>,
    /// Their labels.
    pub labels: Option<Vec<Vec<i64>>>,
}

impl Calibrate for Interpreted {
    fn ranges(
        &self,
        graph: &Graph,
        values: &[ValueId],
        samples: Samples,
        cover: Cover,
    ) -> Result<Vec<[f64; 2]>, Diag> {
        let mut seen: Vec<Vec<f64>> = vec![Vec::new(); values.len()];
        self.stream(graph, values, samples, &mut |tensors| {
            for (all, t) in seen.iter_mut().zip(tensors) {
                all.extend(t.to_f64().into_iter().filter(|v| v.is_finite()));
            }
            Ok(())
        })?;
        let range = |mut v: Vec<f64>| {
            v.sort_by(f64::total_cmp);
            let outside = match cover {
                Cover::All => 0.0,
                Cover::Percent(p) => v.len() as f64 * (1.0 - p / 100.0) / 2.0,
            };
            let at = (outside as usize).min(v.len() / 2);
            match (v.get(at), v.len().checked_sub(at + 1).and_then(|i| v.get(i))) {
                (Some(low), Some(high)) => [*low, *high],
                _ => [0.0, 0.0],
            }
        };
        Ok(seen.into_iter().map(range).collect())
    }
    fn stream(
        &self,
        graph: &Graph,
        values: &[ValueId],
        _: Samples,
        visit: &mut dyn FnMut(&[&Tensor]) -> Result<(), Diag>,
    ) -> Result<(), Diag> {
        let mut watched = graph.clone();
        let outputs = watched.outputs().len();
        let mut ed = Editor::new(&mut watched);
        values.iter().for_each(|v| ed.output(*v, None));
        let program =
            Interpreter.prepare(&watched, &PrepareOptions::default()).map_err(|mut d| d.swap_remove(0))?;
        for sample in &self.samples {
            let inputs: Vec<Option<Value>> = sample.iter().cloned().map(Some).collect();
            let run = program.session()?.run(&inputs)?;
            let seen = run.values.iter().skip(outputs).map(Value::tensor);
            visit(&seen.collect::<Result<Vec<_>, _>>()?)?;
        }
        Ok(())
    }
    fn labels(&self, _: Samples) -> Result<Option<Vec<Vec<i64>>>, Diag> {
        Ok(self.labels.clone())
    }
}
