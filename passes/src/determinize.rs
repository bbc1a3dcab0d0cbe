//! See [`Determinize`].

use crate::options::OptionMeta;
use crate::training::skim;
use crate::{Options, Pass, PassCx, PassMeta, Threshold, declare_pass, util};
use planish_ir::op::Effects;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::stochastic::{GateKind, StochasticGate};
use planish_ir::op::unary::UnaryKind;
use planish_ir::{Diag, Editor, Graph, NodeId, Op, ValueId};

declare_pass! {
    /// Replaces what draws in training by what inference uses, and removes the noise (Bengio, Leonard and Courville 2013, section 5: gates at test time
    /// compare with a threshold that was chosen on samples).
    ///
    /// With `a` what comes into a stochastic gate and s the sigmoid: binary gates and hard Gumbel sigmoids become 1 where s(a) is above the threshold (0.5),
    /// else 0; smooth gates s(a) where that is above it (0), else 0; rectifiers max(0, a) where that is above it (0), else 0;
    /// soft Gumbel sigmoids s(a); hard Gumbel softmaxes 1 at the first maximum of a, else 0; soft ones the softmax of a. Temperatures count as 1. Scores of a top-k to which
    /// normal noise of mean 0 was added, times what it is multiplied by, become those without: the routers of mixtures. Recurrent layers that skim draw nothing;
    /// a threshold that is given becomes their `theta`.
    ///
    /// With `threshold=input` the model gets an input `threshold`, a float that all gates and layers compare with in every run.
    ///
    /// # Preserves
    /// Shapes and dtypes; results are the same in every run. Gradients that are taken later are those of what is there then, mostly zero.
    ///
    /// # Declines
    /// Random numbers that neither a stochastic gate nor such a top-k takes stay: remark `determinize-skipped`, also where there is nothing to do.
    ///
    /// # Example
    /// `v2 = stochastic-gate{kind=gumbel-softmax, estimator=straight-through, sd=1.0} v0, v1` becomes `v2 = softmax{kind=hardmax, axis=1} v0`.
    pub struct Determinize { threshold: Option<Threshold> } = {
        name: "determinize",
        kind: Lossy,
        options: [OptionMeta {
            name: "threshold",
            default: "none",
            doc: "what decides whether a gate is on, a number or `input`; by default 0.5 for gates of 0 and 1, 0 for others",
        }]
    }
}

impl Determinize {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let threshold = o.optional::<Threshold>(Self::META.options, "threshold")?;
        if matches!(threshold, Some(Threshold::At(t)) if !(t.is_finite() && t >= 0.0)) {
            return Err(Diag::error(
                "pass-option",
                "determinize: a threshold is a number that is not negative",
            ));
        }
        Ok(Determinize { threshold })
    }

    /// What stands for a gate.
    fn gate(&self, b: &mut Build<'_, '_>, op: &StochasticGate, a: ValueId) -> Result<ValueId, Diag> {
        let smooth = |b: &mut Build<'_, '_>, v: ValueId| match self.threshold {
            // Both are at least 0, and 0 where they are not above it.
            None | Some(Threshold::At(0.0)) => Ok(v),
            Some(t) => {
                let on = t.below(b, v)?;
                b.only(on, true, v)
            }
        };
        match op.kind {
            GateKind::Softmax => {
                let axis = b.dims(a)?.len().saturating_sub(1);
                let kind = if op.is_hard() { SoftmaxKind::Hardmax } else { SoftmaxKind::Softmax };
                b.ed.node1(Softmax { kind, axis }, &[a])
            }
            GateKind::Gaussian | GateKind::Logistic => {
                let v = b.unary(UnaryKind::Relu, a)?;
                smooth(b, v)
            }
            GateKind::Smooth => {
                let p = b.unary(UnaryKind::Sigmoid, a)?;
                smooth(b, p)
            }
            GateKind::Sigmoid if !op.is_hard() => b.unary(UnaryKind::Sigmoid, a),
            GateKind::Sigmoid | GateKind::Binary => {
                let p = b.unary(UnaryKind::Sigmoid, a)?;
                let on = self.threshold.unwrap_or(Threshold::At(0.5)).below(b, p)?;
                let to = b.dtype(a)?;
                b.cast(on, to)
            }
        }
    }
}

impl Pass for Determinize {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let mut done = 0;
        for n in ed.graph().all_nodes() {
            if !ed.graph().is_live(n) {
                continue;
            }
            let node = ed.graph().node(n);
            match node.op.clone() {
                Op::StochasticGate(op) => {
                    let (inputs, h) = (node.inputs.clone(), node.outputs[0]);
                    let Some(a) = inputs.first().copied().flatten() else { continue };
                    ed.before(n);
                    let new = self.gate(&mut Build::new(ed, "determinize"), &op, a)?;
                    let declared = ed.graph().value(h).fact.clone();
                    ed.set_fact(new, declared);
                    if let Some(name) = ed.graph().value(h).name.clone() {
                        ed.set_name(new, &name);
                    }
                    ed.replace(h, new);
                    ed.erase(n)?;
                    for v in inputs.into_iter().skip(1).flatten() {
                        util::remove(ed, v)?;
                    }
                    cx.add("gates-determinized", 1.0);
                }
                Op::TopK(_) => {
                    let Some((noisy, clean)) = util::operand(ed.graph(), n, 0)
                        .and_then(|v| Some((v, without_noise(ed.graph(), v)?)))
                    else {
                        continue;
                    };
                    ed.replace(noisy, clean);
                    util::remove(ed, noisy)?;
                    cx.add("routers-determinized", 1.0);
                }
                _ => continue,
            }
            done += 1;
        }
        if let Some(t) = self.threshold {
            let layers = skim::set_theta(ed, t)?;
            if layers > 0 {
                cx.add("skim-thresholds", layers as f64);
            }
            done += layers;
        }
        let g = ed.graph();
        let draws =
            |n: &NodeId| g.node(*n).effects() == Effects::Random || matches!(g.node(*n).op, Op::Random(_));
        let left: Vec<NodeId> = g.all_nodes().into_iter().filter(draws).collect();
        for n in &left {
            cx.remark(
                g,
                *n,
                "determinize-skipped",
                "random numbers that no stochastic gate and no router takes",
            );
        }
        if done == 0 && left.is_empty() {
            cx.remark_at(planish_ir::Loc::None, "determinize-skipped", "nothing draws random numbers");
        }
        Ok(())
    }
}

/// Of scores with normal noise of mean 0, times what it is multiplied by: the scores alone.
fn without_noise(g: &Graph, v: ValueId) -> Option<ValueId> {
    let two = |v: ValueId, kind: BinaryKind| {
        let n = g.def_node(v)?;
        let Op::Binary(op) = &g.node(n).op else { return None };
        (op.kind == kind).then_some([util::operand(g, n, 0)?, util::operand(g, n, 1)?])
    };
    let noise = |v: ValueId| {
        let drawn = g.def_node(v).map(|n| &g.node(n).op);
        matches!(drawn, Some(Op::Random(r)) if r.normal && r.a == 0.0)
    };
    let [a, b] = two(v, BinaryKind::Add)?;
    let scaled = |v: ValueId| noise(v) || two(v, BinaryKind::Mul).is_some_and(|p| p.into_iter().any(noise));
    let clean = [(a, b), (b, a)].into_iter().find(|(_, noise)| scaled(*noise)).map(|(clean, _)| clean)?;
    // What is broadcast by the noise has another shape without it.
    (g.ty(clean) == g.ty(v)).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::mixture::{Router, noisy_top_k};
    use crate::training::{Loss, Optimizer, Recipe, step};
    use crate::{Pipeline, TargetFacts, parse_specs};
    use planish_ir::op::random::{stream, unit};
    use planish_ir::{DType, Tensor, Type, interp, text};

    fn after(g: &mut Graph, pass: &str) -> Result<Vec<Diag>, Diag> {
        let mut p = Pipeline::default();
        p.verify_each = true;
        p.specs(&parse_specs(pass)?);
        Ok(p.run(g, &TargetFacts::default(), &mut |_, _| {})?.remarks)
    }

    #[test]
    fn every_kind_becomes_its_rule() -> Result<(), Diag> {
        let a = [-1.0, 0.0, 0.25, 2.0];
        let s = a.map(|a: f64| 1.0 / (1.0 + (-a).exp()));
        let total: f64 = a.iter().map(|a| a.exp()).sum();
        let on = |bar: f64| s.map(|p| f64::from(p > bar)).to_vec();
        let above = |v: [f64; 4], bar: f64| v.map(|x| if x > bar { x } else { 0.0 }).to_vec();
        let positive = a.map(|a| a.max(0.0));
        for (kind, estimator, plain, at) in [
            ("binary", "masked", on(0.5), on(0.55)),
            ("smooth", "derivative", s.to_vec(), above(s, 0.55)),
            ("gaussian", "derivative", positive.to_vec(), above(positive, 0.55)),
            ("logistic", "derivative", positive.to_vec(), above(positive, 0.55)),
            ("gumbel-sigmoid", "straight-through", on(0.5), on(0.55)),
            ("gumbel-sigmoid", "derivative", s.to_vec(), s.to_vec()),
            ("gumbel-softmax", "straight-through", vec![0.0, 0.0, 0.0, 1.0], vec![0.0, 0.0, 0.0, 1.0]),
            (
                "gumbel-softmax",
                "derivative",
                a.map(|a| a.exp() / total).to_vec(),
                a.map(|a| a.exp() / total).to_vec(),
            ),
        ] {
            for (pass, want) in [("determinize", plain), ("determinize{threshold=0.55}", at)] {
                let mut g = text::parse(&format!(
                    "planish-ir 1\ngraph @\"g\"(v0 \"x\": f64[1,4]) {{ v1 = const i64[2] [1, 4]
                     v2 = random{{dtype=f64, normal=false, a=0.0, b=1.0, seed=none}} v1 : f64[1,4]
                     v3 = stochastic-gate{{kind={kind}, estimator={estimator}, sd=1.0}} v0, v2 : f64[1,4]
                     return v3 \"y\" }}"
                ))?;
                assert_eq!(after(&mut g, pass)?, []);
                let drawn = g.all_nodes().into_iter().any(|n| matches!(g.node(n).op, Op::Random(_)));
                assert!(!drawn, "{kind}");
                let x = Tensor::floats(DType::F64, &[1, 4], a.to_vec())?;
                let got = interp::run(&g, vec![x.into()])?.values[0].tensor()?.to_f64();
                let near = got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12);
                assert!(near, "{kind}, {estimator}, {pass}: {got:?}, not {want:?}");
            }
        }
        for bad in ["determinize{threshold=-1}", "determinize{threshold=often}", "determinize{bar=1}"] {
            let mut g = text::parse("planish-ir 1\ngraph @\"g\"(v0 \"x\": f64[1]) { return v0 \"y\" }")?;
            assert_eq!(after(&mut g, bad).map(|_| ()).map_err(|d| d.id), Err("pass-option"), "{bad}");
        }
        Ok(())
    }

    #[test]
    fn routers_lose_their_noise() -> Result<(), Diag> {
        let make = |noisy: bool| -> Result<Graph, Diag> {
            let mut g = Graph::new("router");
            let mut ed = Editor::new(&mut g);
            let x = ed.input("x", Type::from(Tensor::f32s(&[6, 3], &[0.0; 18])?.ty()));
            let draw = |seed, i| unit(stream(seed, i)) as f32 - 0.5;
            let weights = |seed| Tensor::f32s(&[3, 5], &(0..15).map(|i| draw(seed, i)).collect::<Vec<_>>());
            let (w, noise) = (ed.constant(weights(1)?)?, ed.constant(weights(2)?)?);
            let mut b = Build::new(&mut ed, "test");
            let router = Router { weights: w, bias: None, noise: noisy.then_some(noise) };
            let gates = noisy_top_k(&mut b, x, &router, 2)?.gates;
            ed.output(gates, Some("gates"));
            Ok(g)
        };
        let (mut noisy, plain) = (make(true)?, make(false)?);
        let x = Tensor::f32s(&[6, 3], &(0..18).map(|i| unit(stream(3, i)) as f32).collect::<Vec<_>>())?;
        let run = |g: &Graph| interp::run(g, vec![x.clone().into()])?.values[0].tensor().cloned();
        assert_ne!(run(&noisy)?, run(&plain)?);
        assert_eq!(after(&mut noisy, "determinize")?, []);
        assert_eq!(run(&noisy)?, run(&plain)?);
        Ok(())
    }

    /// A trained model says the same as its gates by threshold.
    #[test]
    fn a_trained_model_is_made_deterministic() -> Result<(), Diag> {
        let model = text::parse(
            "planish-ir 1\ngraph @\"g\"(v0 \"x\": f32[4,2]) { v1 \"w\" = const f32[2,3] [0.5, -1.0, 0.2, 0.3, 0.8, -0.6]
             v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[4,3]
             v3 = const i64[2] [4, 3]
             v4 = random{dtype=f32, normal=false, a=0.0, b=1.0, seed=none} v3 : f32[4,3]
             v5 = stochastic-gate{kind=binary, estimator=identity, sd=1.0} v2, v4 : f32[4,3]
             return v5 \"y\" }",
        )?;
        let step = step(&model, &Recipe::new(Loss::MeanSquare, Optimizer::default()), &|_| true)?;
        let x = Tensor::f32s(&[4, 2], &[0.5, 1.0, -1.0, 2.0, 0.1, -0.4, 3.0, 0.2])?;
        let target = Tensor::f32s(&[4, 3], &[1.0; 12])?;
        let rate = Tensor::f32s(&[], &[0.5])?;
        let inputs = step.first(vec![x.clone().into()], target.into(), rate.into(), 1);
        let results = interp::run(&step.graph, inputs)?.values;
        let variables = step.variables_after(&results);
        let mut trained = step.trained(&model, variables)?;
        after(&mut trained, "determinize")?;
        let got = interp::run(&trained, vec![x.clone().into()])?.values[0].tensor()?.to_f64();
        let (x, w) = (x.to_f64(), variables[0].tensor()?.to_f64());
        for (i, h) in got.into_iter().enumerate() {
            let a = x[i / 3 * 2] * w[i % 3] + x[i / 3 * 2 + 1] * w[3 + i % 3];
            assert_eq!(h, f64::from(a > 0.0), "{a}");
        }
        Ok(())
    }
}
