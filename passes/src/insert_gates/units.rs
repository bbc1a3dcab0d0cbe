//! Hidden units with gates that a small net computes and training makes sparse.

use super::linear::Mix;
use crate::options::OptionMeta;
use crate::weights::Selection;
use crate::{Options, PassCx, util};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::random::{Random, unit};
use planish_ir::op::stochastic::{Estimator, GateKind, StochasticGate};
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, Editor, Graph, NodeId, Op, Tensor, ValueId};

/// The options of `kind=units`.
#[derive(Clone, Debug)]
pub(crate) struct Units {
    gate: Option<StochasticGate>,
    gater: usize,
    bias: f64,
    temperature: f64,
    linear: bool,
    seed: u64,
    which: Selection,
}

/// A layer whose units get gates.
struct Layer {
    product: NodeId,
    x: ValueId,
    w: ValueId,
    /// What the units give before and behind their activation.
    before: ValueId,
    behind: ValueId,
    /// The product that takes what they give.
    next: NodeId,
    inputs: usize,
    units: usize,
}

/// The names of units, and what they are; none: the sigmoid itself.
fn kinds() -> [(&'static str, Option<StochasticGate>); 10] {
    let binary = |e| Some(StochasticGate::binary(e));
    let soft = |kind| Some(StochasticGate::new(kind));
    let plain = StochasticGate { sd: 0.0, ..StochasticGate::new(GateKind::Gaussian) };
    let gumbel = StochasticGate::new(GateKind::Sigmoid);
    let hard = StochasticGate { estimator: Estimator::StraightThrough, ..gumbel.clone() };
    [
        ("straight-through", binary(Estimator::Identity)),
        ("sigmoid-deriv", binary(Estimator::SigmoidDeriv)),
        ("masked", binary(Estimator::Masked)),
        ("reinforce", binary(Estimator::Reinforce)),
        ("smooth", soft(GateKind::Smooth)),
        ("noisy-rectifier", soft(GateKind::Gaussian)),
        ("rectifier", Some(plain)),
        ("gumbel", Some(gumbel)),
        ("gumbel-hard", Some(hard)),
        ("sigmoid", None),
    ]
}

impl Units {
    pub(super) fn new(o: &Options, m: &[OptionMeta], which: Selection) -> Result<Units, Diag> {
        let bad = |text: &str| Diag::error("pass-option", text);
        let all = kinds();
        let words: Vec<(&str, usize)> = all.iter().enumerate().map(|(i, (name, _))| (*name, i)).collect();
        let gate = all[o.one_of(m, "unit", &words)?].1.clone();
        let gater: usize = o.get(m, "gater")?;
        let (bias, temperature): (f64, f64) = (o.get(m, "bias")?, o.get(m, "temperature")?);
        if !(1..=1 << 16).contains(&gater) || !bias.is_finite() {
            return Err(bad("gater is from 1 to 65536, bias a number"));
        }
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(bad("a temperature is above 0"));
        }
        let linear = o.one_of(m, "linear", &[("true", true), ("false", false)])?;
        Ok(Units { gate, gater, bias, temperature, linear, seed: o.get(m, "seed")?, which })
    }

    pub(super) fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let mut mix = Mix::new(self.seed);
        for n in ed.graph().nodes_in(ed.graph().root()).collect::<Vec<_>>() {
            if ed.graph().node(n).op.weight_input().is_none() {
                continue;
            }
            let g = ed.graph();
            let name = g.describe(n);
            let why = match self.which.keeps(&name, g.node(n).op.name(), false) {
                Some(why) => Err(why),
                None => layer(g, n),
            };
            match why {
                Err(why) => cx.remark(ed.graph(), n, "gate-skipped", format!("{name}: left alone, {why}")),
                Ok(l) => {
                    let text = format!(
                        "{name}: {} units get gates of a net of {} units: {} multiply-adds decide about {}",
                        l.units,
                        self.gater,
                        (l.inputs + l.units) * self.gater,
                        l.inputs * l.units
                    );
                    self.gated(ed, &l, &mut mix)?;
                    cx.remark(ed.graph(), n, "gate-done", text);
                    cx.add("layers-gated", 1.0);
                }
            }
        }
        Ok(())
    }

    fn gated(&self, ed: &mut Editor<'_>, l: &Layer, mix: &mut Mix) -> Result<(), Diag> {
        let name = match ed.graph().value(l.w).name.as_deref() {
            Some(name) => name.to_owned(),
            None => ed.graph().describe(l.product),
        };
        let at = if self.linear { l.before } else { l.behind };
        ed.before(l.next);
        let dtype = ed.graph().dtype(l.x).unwrap_or(DType::F32);
        let mut b = Build::new(ed, "gated units");
        let first = (6.0 / (l.inputs + self.gater) as f64).sqrt();
        // Four times as wide, because what it feeds is a sigmoid (Glorot and Bengio 2010).
        let second = 4.0 * (6.0 / (self.gater + l.units) as f64).sqrt();
        let y =
            full(&mut b, &format!("{name}.gater1"), l.x, [l.inputs, self.gater], dtype, (first, 0.0), mix)?;
        let y = b.unary(UnaryKind::Tanh, y)?;
        let a = full(
            &mut b,
            &format!("{name}.gater2"),
            y,
            [self.gater, l.units],
            dtype,
            (second, self.bias),
            mix,
        )?;
        let h = match &self.gate {
            None => b.unary(UnaryKind::Sigmoid, a)?,
            Some(gate) => {
                let shape = b.shape(a)?;
                let noise = Random { dtype, normal: false, a: 0.0, b: 1.0, seed: None };
                let noise = b.ed.node1(noise, &[shape])?;
                let mut operands = vec![a, noise];
                if gate.is_gumbel() {
                    operands.push(b.ed.constant(Tensor::scalar(dtype, self.temperature)?)?);
                }
                b.ed.node1(gate.clone(), &operands)?
            }
        };
        let gated = b.mul(at, h)?;
        let next = ed.graph().node(l.next);
        let (op, inputs) = (next.op.clone(), next.inputs.clone());
        let inputs: Vec<_> =
            inputs.into_iter().map(|v| if v == Some(l.behind) { Some(gated) } else { v }).collect();
        ed.rewrite(l.next, op, &inputs)?;
        Ok(())
    }
}

/// A product with weights and a bias, both trained.
fn full(
    b: &mut Build<'_, '_>,
    name: &str,
    x: ValueId,
    [inputs, outputs]: [usize; 2],
    dtype: DType,
    (bound, bias): (f64, f64),
    mix: &mut Mix,
) -> Result<ValueId, Diag> {
    let draws = (0..inputs * outputs).map(|_| (unit(mix.next()) * 2.0 - 1.0) * bound).collect();
    let w = b.ed.constant(Tensor::floats(dtype, &[inputs, outputs], draws)?)?;
    b.ed.set_name(w, &format!("{name}.weight"));
    let shift = b.ed.constant(Tensor::floats(dtype, &[outputs], vec![bias; outputs])?)?;
    b.ed.set_name(shift, &format!("{name}.bias"));
    let product = b.ed.node1(MatMul { trans_a: false, trans_b: false }, &[x, w])?;
    b.binary(BinaryKind::Add, product, shift)
}

/// The hidden layer that begins with a product, or why there is none.
fn layer(g: &Graph, n: NodeId) -> Result<Layer, &'static str> {
    let Op::MatMul(op) = &g.node(n).op else { return Err("only matrix products have units") };
    let (Some(x), Some(w)) = (util::operand(g, n, 0), util::operand(g, n, 1)) else {
        return Err("an operand is missing");
    };
    let Some((_, c)) = g.as_const(w) else { return Err("its weights are no constant") };
    let [rows, columns] = c.shape[..] else { return Err("its weights are no matrix") };
    if op.trans_a || g.dims(x).map(<[_]>::len) != Some(2) {
        return Err("its inputs are no rows");
    }
    let (inputs, units) = if op.trans_b { (columns, rows) } else { (rows, columns) };
    let only = |v: ValueId| match g.uses(v) {
        [planish_ir::graph::Use::Node(n, _)] => Some(*n),
        _ => None,
    };
    let mut before = g.node(n).outputs[0];
    if let Some(next) = only(before)
        && matches!(&g.node(next).op, Op::Binary(b) if b.kind == BinaryKind::Add)
        && g.node(next).inputs.iter().flatten().any(|v| g.as_const(*v).is_some())
    {
        before = g.node(next).outputs[0];
    }
    let mut behind = before;
    if let Some(next) = only(before)
        && matches!(g.node(next).op, Op::Unary(_))
    {
        behind = g.node(next).outputs[0];
    }
    let next = only(behind).filter(|n| matches!(g.node(*n).op, Op::MatMul(_)));
    let next = next.ok_or("what it gives does not go to one product only")?;
    Ok(Layer { product: n, x, w, before, behind, next, inputs, units })
}
