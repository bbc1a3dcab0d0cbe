//! Runs on the interpreter.

use super::{Calibrate, Samples};
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
