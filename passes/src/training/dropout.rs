//! Dropout: elements of what layers take that are left out of a step, others in every step.

use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::random::Random;
use planish_ir::{Diag, Editor, Graph, NodeId, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Shares of the elements that layers take that are zero in a step, each drawn by itself; the others are divided by the share that is left, so that a
/// model is used as it is behind its training (Srivastava et al., *Dropout*, 2014). Layers are products, convolutions and recurrent layers with weights that are trained;
/// of a recurrent layer it is what the steps read, not its state.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dropout {
    /// Of what no layer has computed yet.
    pub inputs: f64,
    /// Of what layers have computed.
    pub hidden: f64,
}

/// Which operand of a node is data and which one weights.
fn operands(op: &Op) -> &'static [[usize; 2]] {
    match op {
        Op::MatMul(_) => &[[0, 1], [1, 0]],
        Op::Conv(_) | Op::ConvTranspose(_) | Op::Recurrent(_) | Op::SkimRecurrent(_) => &[[0, 1]],
        _ => &[],
    }
}

/// What layers take, by node and operand, and whether a layer has computed it.
fn taken(g: &Graph, parameters: &BTreeSet<ValueId>) -> Vec<(NodeId, usize, bool)> {
    let mut fed: BTreeSet<ValueId> = g.inputs().iter().copied().collect();
    let mut learned = parameters.clone();
    let mut out = Vec::new();
    for n in g.nodes_in(g.root()) {
        let node = g.node(n);
        let reads = |of: &BTreeSet<ValueId>| node.inputs.iter().flatten().any(|v| of.contains(v));
        let (from_inputs, from_parameters) = (reads(&fed), reads(&learned));
        let operand = |i: usize| node.inputs.get(i).copied().flatten();
        for [data, weights] in operands(&node.op) {
            let (Some(x), Some(w)) = (operand(*data), operand(*weights)) else { continue };
            if fed.contains(&x) && learned.contains(&w) && !fed.contains(&w) {
                out.push((n, *data, learned.contains(&x)));
            }
        }
        let results = node.outputs.iter().copied();
        if from_inputs {
            fed.extend(results.clone());
        }
        if from_parameters {
            learned.extend(results);
        }
    }
    out
}

/// Adds it in front of all layers. Layers that take the same value take the same elements of it.
pub(super) fn added(
    ed: &mut Editor<'_>,
    parameters: &BTreeSet<ValueId>,
    dropout: Dropout,
) -> Result<(), Diag> {
    let mut done: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for (n, operand, computed) in taken(ed.graph(), parameters) {
        let share = if computed { dropout.hidden } else { dropout.inputs };
        let node = ed.graph().node(n);
        let (op, mut inputs) = (node.op.clone(), node.inputs.clone());
        let Some(x) = inputs[operand].filter(|_| share > 0.0) else { continue };
        let left = match done.get(&x) {
            Some(left) => *left,
            None => {
                ed.before(n);
                let mut b = Build::new(ed, "dropout");
                let (dtype, shape) = (b.dtype(x)?, b.shape(x)?);
                let drawn = Random { dtype, normal: false, a: 0.0, b: 1.0, seed: None };
                let drawn = b.ed.node1(drawn, &[shape])?;
                let gone = b.compare(BinaryKind::Less, drawn, share)?;
                let scaled = b.scale(1.0 / (1.0 - share), x)?;
                b.only(gone, false, scaled)?
            }
        };
        done.insert(x, left);
        inputs[operand] = Some(left);
        ed.rewrite(n, op, &inputs)?;
    }
    if done.is_empty() {
        return Err(super::malformed(
            "dropout: there is no layer whose weights are trained, or none of that kind",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::{Loss, Optimizer, Recipe, Rule, Step, step};
    use planish_ir::{DType, Tensor, interp, text, verify};

    fn made(model: &str, dropout: Dropout) -> Result<Step, Diag> {
        let rule = Rule::Sgd { momentum: 0.0 };
        let recipe = Recipe {
            dropout: Some(dropout),
            ..Recipe::new(Loss::MeanSquare, Optimizer { rule, ..Optimizer::default() })
        };
        let made = step(&text::parse(model)?, &recipe, &|_| true)?;
        assert_eq!(verify::verify(&made.graph), []);
        Ok(made)
    }

    /// What the model says of ones and what its parameters are after a step with rate 1 against zeros.
    fn ran(step: &Step, shape: &[usize], seed: i64) -> Result<(Vec<f64>, Vec<f64>), Diag> {
        let tensor = |x: f64| Tensor::floats(DType::F64, shape, vec![x; shape.iter().product()]);
        let rate = Tensor::scalar(DType::F64, 1.0)?;
        let inputs = step.first(vec![tensor(1.0)?.into()], tensor(0.0)?.into(), rate.into(), seed);
        let results = interp::run(&step.graph, inputs)?.values;
        let after = step.variables_after(&results)[0].tensor()?.to_f64();
        Ok((results[0].tensor()?.to_f64(), after))
    }

    const ONE: &str =
        "planish-ir 1\ngraph @\"g\"(v0 \"x\": f64[20000,2]) { v1 \"w\" = const f64[2,2] [1.0, 0.0, 0.0, 1.0]
         v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f64[20000,2]\n return v2 \"y\" }";

    #[test]
    fn what_is_left_has_the_mean_of_all() -> Result<(), Diag> {
        let step = made(ONE, Dropout { inputs: 0.2, hidden: 0.0 })?;
        let (y, after) = ran(&step, &[20000, 2], 5)?;
        assert!(y.iter().all(|y| *y == 0.0 || *y == 1.25));
        let gone = y.iter().filter(|y| **y == 0.0).count() as f64 / y.len() as f64;
        // Four standard deviations.
        assert!((gone - 0.2).abs() < 4.0 * (0.16f64 / 40000.0).sqrt(), "{gone}");
        // The gradient of the mean of squares goes through the elements that are left: w - 2 sum(x x w) / 40000.
        for (at, column) in [(0, 0), (3, 1)] {
            let left = y.iter().skip(column).step_by(2).filter(|y| **y != 0.0).count() as f64;
            let want = 1.0 - 2.0 * left * 1.25 * 1.25 / 40000.0;
            assert!((after[at] - want).abs() < 1e-9, "{after:?} {want}");
        }
        assert_eq!(ran(&step, &[20000, 2], 5)?.0, y);
        assert_ne!(ran(&step, &[20000, 2], 6)?.0, y);
        Ok(())
    }

    /// Two layers take the input, and what both give together; a sum with the input goes past both.
    const FORK: &str = "planish-ir 1\ngraph @\"g\"(v0 \"x\": f64[4,2]) {
        v1 \"a\" = const f64[2,2] [1.0, 0.5, 0.25, 1.0]
        v2 \"b\" = const f64[2,2] [1.0, 0.5, 0.25, 1.0]
        v3 \"c\" = const f64[2,2] [1.0, 0.5, 0.25, 1.0]
        v4 = matmul{trans_a=false, trans_b=false} v0, v1 : f64[4,2]
        v5 = matmul{trans_a=false, trans_b=false} v0, v2 : f64[4,2]
        v6 = binary{kind=add} v4, v5 : f64[4,2]
        v7 = matmul{trans_a=false, trans_b=false} v6, v3 : f64[4,2]
        v8 = binary{kind=add} v7, v0 : f64[4,2]\n return v8 \"y\" }";

    #[test]
    fn inputs_and_what_layers_computed_have_their_own_share() -> Result<(), Diag> {
        let drawn = |dropout| -> Result<usize, Diag> {
            let g = made(FORK, dropout)?.graph;
            Ok(g.all_nodes().into_iter().filter(|n| matches!(g.node(*n).op, Op::Random(_))).count())
        };
        assert_eq!(drawn(Dropout { inputs: 0.5, hidden: 0.0 })?, 1);
        assert_eq!(drawn(Dropout { inputs: 0.0, hidden: 0.5 })?, 1);
        assert_eq!(drawn(Dropout { inputs: 0.5, hidden: 0.5 })?, 2);
        // Nothing is left but what goes past the layers.
        let almost = Dropout { inputs: 0.0, hidden: 1.0 - 1e-12 };
        assert_eq!(ran(&made(FORK, almost)?, &[4, 2], 1)?.0, [1.0; 8]);
        Ok(())
    }

    #[test]
    fn without_layers_there_is_nothing_to_leave_out() {
        let model = "planish-ir 1\ngraph @\"g\"(v0 \"x\": f64[1,2]) { v1 \"a\" = const f64[2] [0.0, 0.0]
         v2 = binary{kind=add} v0, v1 : f64[1,2]\n return v2 \"y\" }";
        let made = made(model, Dropout { inputs: 0.5, hidden: 0.5 });
        assert_eq!(made.map(|_| ()).map_err(|d| d.id), Err("train-malformed"));
    }
}
