//! Calibration on the interpreter, with made-up samples.

use crate::smith::inputs_for;
use planish_ir::{Diag, Editor, Elems, Graph, Tensor, Value, ValueId, interp};
use planish_passes::{Calibrate, Cover, Samples};

/// Four random samples, whatever the user would have given.
#[derive(Clone, Copy, Debug)]
pub struct Interpreted;

impl Calibrate for Interpreted {
    /// The least and the largest of all elements.
    fn ranges(
        &self,
        graph: &Graph,
        values: &[ValueId],
        samples: Samples,
        _: Cover,
    ) -> Result<Vec<[f64; 2]>, Diag> {
        let mut found: Vec<Option<[f64; 2]>> = vec![None; values.len()];
        self.stream(graph, values, samples, &mut |seen| {
            for (range, t) in found.iter_mut().zip(seen) {
                let Elems::F(elems) = t.elems() else { continue };
                for x in elems.into_iter().filter(|x| x.is_finite()) {
                    let [low, high] = range.unwrap_or([x, x]);
                    *range = Some([low.min(x), high.max(x)]);
                }
            }
            Ok(())
        })?;
        Ok(found.into_iter().map(|r| r.unwrap_or([0.0, 0.0])).collect())
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
        for v in values {
            ed.output(*v, None);
        }
        for seed in 0..4 {
            let run = interp::run(&watched, inputs_for(graph, seed))?;
            let seen: Vec<&Tensor> =
                run.values.iter().skip(outputs).map(Value::tensor).collect::<Result<_, _>>()?;
            visit(&seen)?;
        }
        Ok(())
    }
}
