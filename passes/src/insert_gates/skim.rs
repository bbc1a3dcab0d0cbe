//! Recurrent layers that skim.

use crate::options::OptionMeta;
use crate::weights::Selection;
use crate::{Options, PassCx, util};
use planish_ir::op::random::{stream, unit};
use planish_ir::op::recurrent::skim::SkimRecurrent;
use planish_ir::op::recurrent::{Cell, Direction, Recurrent};
use planish_ir::{DType, Diag, Dim, Editor, Graph, NodeId, Op, Tensor, ValueId};

/// The options of `kind=skim`.
#[derive(Clone, Debug)]
pub(crate) struct Skim {
    small: usize,
    theta: f64,
    seed: u64,
    which: Selection,
}

/// A layer that may skim.
struct Layer {
    op: SkimRecurrent,
    dtype: DType,
    /// Inputs and units.
    inputs: usize,
    units: usize,
}

/// What scores are divided by in training, unless the layer gets another number.
const TEMPERATURE: f64 = 0.5;

impl Skim {
    pub(super) fn new(o: &Options, m: &[OptionMeta], which: Selection) -> Result<Skim, Diag> {
        let theta: f64 = o.get(m, "theta")?;
        if !(0.0..=1.0).contains(&theta) {
            return Err(Diag::error("pass-option", "theta is from 0 to 1"));
        }
        Ok(Skim { small: o.get(m, "small")?, theta, seed: o.get(m, "seed")?, which })
    }

    pub(super) fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for (k, n) in ed.graph().all_nodes().into_iter().enumerate() {
            let g = ed.graph();
            let node = g.node(n);
            if node.op.weight_input().is_none() {
                continue;
            }
            let found = match self.which.keeps(&g.describe(n), node.op.name(), false) {
                Some(why) => Err(why.to_owned()),
                None => self.layer(g, n),
            };
            match found {
                Ok(l) => self.gate(ed, cx, n, &l, k as u64)?,
                Err(why) => {
                    cx.remark(g, n, "gate-skipped", format!("{}: left alone, {why}", g.describe(n)));
                }
            }
        }
        Ok(())
    }

    /// A node as a layer, or why it cannot skim.
    fn layer(&self, g: &Graph, n: NodeId) -> Result<Layer, String> {
        let Op::Recurrent(op) = &g.node(n).op else { return Err("only recurrent layers skim".into()) };
        if op.cell == Cell::Rnn {
            return Err("only a GRU or an LSTM skims".into());
        }
        let skim = SkimRecurrent {
            cell: op.cell,
            linear_before_reset: op.linear_before_reset,
            theta: self.theta,
            temperature: TEMPERATURE,
        };
        if op.direction != Direction::Forward {
            return Err("it does not go forward only".into());
        }
        if !usual(op, &skim.plain()) {
            return Err("its activations are not the usual ones".into());
        }
        for (i, what) in [(4, "lengths"), (7, "peepholes")] {
            if util::operand(g, n, i).is_some() {
                return Err(format!("it has {what}"));
            }
        }
        let dims = |i: usize| {
            let dims = util::operand(g, n, i).and_then(|v| g.dims(v)).unwrap_or_default();
            dims.last().and_then(Dim::as_const).and_then(|d| usize::try_from(d).ok())
        };
        let x = util::operand(g, n, 0).and_then(|v| g.dtype(v));
        let (Some(inputs), Some(units), Some(dtype)) = (dims(1), dims(2), x) else {
            return Err("the sizes of its weights are not known".into());
        };
        if units <= self.small {
            return Err(format!("a small cell of {} units beside {units} saves nothing", self.small));
        }
        Ok(Layer { op: skim, dtype, inputs, units })
    }

    fn gate(
        &self,
        ed: &mut Editor<'_>,
        cx: &mut PassCx,
        n: NodeId,
        l: &Layer,
        number: u64,
    ) -> Result<(), Diag> {
        let node = ed.graph().node(n).clone();
        let name = ed.graph().describe(n);
        let given = |i: usize| node.inputs.get(i).copied().flatten();
        let rows = l.op.plain().gates() * self.small;
        ed.before(n);
        let mut drawn = 0u64;
        let mut fresh = |ed: &mut Editor<'_>, shape: &[usize], units: usize| -> Result<ValueId, Diag> {
            let count: usize = shape.iter().product();
            let bound = 1.0 / (units.max(1) as f64).sqrt();
            let values = (0..count)
                .map(|_| {
                    drawn += 1;
                    (2.0 * unit(stream(self.seed.wrapping_add(number), drawn)) - 1.0) * bound
                })
                .collect();
            ed.constant(Tensor::floats(l.dtype, shape, values)?)
        };
        let seen = l.inputs + l.units;
        let w = fresh(ed, &[1, rows, l.inputs], self.small)?;
        let r = fresh(ed, &[1, rows, self.small], self.small)?;
        let predictor = fresh(ed, &[seen, 2], seen)?;
        let bias = given(3).map(|_| fresh(ed, &[1, 2 * rows], self.small)).transpose()?;
        let scores = fresh(ed, &[2], seen)?;
        let mut inputs = vec![
            given(0),
            given(1),
            given(2),
            Some(w),
            Some(r),
            Some(predictor),
            given(3),
            bias,
            Some(scores),
        ];
        inputs.extend([given(5), given(6)]);
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        let made = ed.node(l.op.clone(), &inputs)?;
        for (old, new) in node.outputs.iter().zip(&made) {
            ed.replace(*old, *new);
        }
        ed.erase(n)?;
        let new = ed.graph().def_node(made[0]).unwrap_or(n);
        let (big, small) = (l.units * seen, self.small * (l.inputs + self.small));
        let share = (l.op.plain().gates() * small + 2 * seen) as f64 / (l.op.plain().gates() * big) as f64;
        let text = format!(
            "{name}: a small cell of {} units beside {}; a step that skims takes {:.1}% of the arithmetic of one that reads; \
             it has to be trained",
            self.small,
            l.units,
            share * 100.0
        );
        cx.remark(ed.graph(), new, "gate-done", text);
        cx.add("layers-gated", 1.0);
        Ok(())
    }
}

/// Whether a layer does what the layer without options does, whatever parameters its activations do not read.
fn usual(op: &Recurrent, plain: &Recurrent) -> bool {
    op.activations == plain.activations && op.clip.is_none() && !op.input_forget
}

#[cfg(test)]
mod tests {
    use crate::insert_gates::InsertGates;
    use crate::options::Options;

    #[test]
    fn options_of_other_kinds_and_numbers_out_of_range_are_refused() {
        let refused = |pairs: &[(&str, &str)]| {
            let mut o = Options::default();
            pairs.iter().for_each(|(name, value)| o.set(name, value));
            InsertGates::new(&o).map(|_| ()).map_err(|d| d.id)
        };
        assert_eq!(refused(&[("kind", "skim")]), Ok(()));
        assert_eq!(refused(&[("kind", "skim"), ("small", "0"), ("theta", "1")]), Ok(()));
        for pairs in [
            [("kind", "skim"), ("theta", "1.5")],
            [("kind", "skim"), ("theta", "nan")],
            [("kind", "skim"), ("small", "-1")],
            [("kind", "skim"), ("quantile", "0.3")],
            [("kind", "moe"), ("small", "7")],
        ] {
            assert_eq!(refused(&pairs), Err("pass-option"), "{pairs:?}");
        }
    }
}
