//! See [`FakeQuantize`].

use crate::calibrate::{Cover, Samples};
use crate::options::OptionMeta;
use crate::quantize::{before_readers, declined, keep_bytes};
use crate::weights::{self, Selection, Target};
use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::graph::Use;
use planish_ir::op::quant;
use planish_ir::{Constant, DType, Diag, Editor, Matrix, NodeId, Op, Tensor, ValueId};
use std::collections::{BTreeMap, BTreeSet};

declare_pass! {
    /// Rounds operands of matrix products and convolutions as quantisation will, so that training makes up for it and learns the steps
    /// (Esser et al. 2020, "Learned Step Size Quantization"). `quantize-trained` makes stored integers of them, as `planish train` does when it has trained.
    ///
    /// Weights get a signed step for each output, a constant `W.scale` that begins where their squared error is least. The other operand gets one step,
    /// `X.scale`, signed if it was negative on samples, that covers the range of its values there. Additions, pooling and what only moves
    /// elements read the rounded operand too, if nothing else reads it.
    ///
    /// # Preserves
    /// Shapes and types of all values that stay.
    ///
    /// # Declines
    /// As `quantize` with `mode=static`: a remark `quantize-skipped` for every layer that is left alone, with the reason; `quantize-done` for every one that is not, with the
    /// ratio of signal to noise of its weights.
    ///
    /// # Example
    /// `v2 = matmul v0, c1` becomes `v2 = matmul (fake-quantize v0, s0), (fake-quantize c1, s1)`.
    pub struct FakeQuantize { bits: usize, cover: Cover, samples: Samples, which: Selection } = {
        name: "fake-quantize",
        kind: Lossy,
        options: [
            OptionMeta { name: "bits", default: "8", doc: "bits of stored integers, 2 to 8" },
            OptionMeta { name: "range", default: "minmax", doc: "of the other operand: `minmax` or `percentile`" },
            OptionMeta { name: "percentile", default: "99.99", doc: "percent of the values that `range=percentile` covers, 50 to 100" },
            OptionMeta { name: "samples", default: "data", doc: "`data`: those of --data; `synthetic`: made up, for measurements of speed" },
            weights::INCLUDE,
            weights::EXCLUDE,
            weights::OPS,
            weights::FIRST,
        ]
    }
}

impl FakeQuantize {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let m = Self::META.options;
        let (bits, percent): (usize, f64) = (o.get(m, "bits")?, o.get(m, "percentile")?);
        if !(2..=8).contains(&bits) {
            return Err(Diag::error("pass-option", "bits is from 2 to 8"));
        }
        if !(50.0..=100.0).contains(&percent) {
            return Err(Diag::error("pass-option", "percentile is from 50 to 100"));
        }
        let cover =
            o.one_of(m, "range", &[("minmax", Cover::All), ("percentile", Cover::Percent(percent))])?;
        let samples = o.one_of(m, "samples", Samples::WORDS)?;
        Ok(FakeQuantize { bits, cover, samples, which: Selection::new(o, m)? })
    }
    fn op(&self, signed: bool, axis: i64, batch: bool) -> quant::FakeQuantize {
        quant::FakeQuantize { bits: self.bits, signed, axis, batch }
    }
}

/// Parts of the largest magnitude that the largest stored integer is tried to stand for, in twentieths.
const PARTS: std::ops::RangeInclusive<u32> = 4..=20;

/// Where the steps of weights begin, one for each output, and the ratio of signal to noise in dB.
fn steps(w: &[f64], m: &Matrix, [low, high]: [f64; 2]) -> (Vec<f64>, f64) {
    let largest = |n: usize| (0..m.k).map(|k| w[m.at(k, n)].abs()).fold(0.0, f64::max);
    let whole = f64::from((w.iter().map(|w| w.abs()).fold(0.0, f64::max) / high) as f32);
    let usable = |s: f64| s > 0.0 && s.is_finite();
    let (mut signal, mut noise) = (0.0, 0.0);
    let mut of = |n: usize| {
        let most = largest(n);
        let error = |s: f64| {
            let one = |k: usize| {
                let x = w[m.at(k, n)];
                (x - (x / s).round_ties_even().clamp(low, high) * s).powi(2)
            };
            (0..m.k).map(one).sum::<f64>()
        };
        let tried = PARTS.map(|p| f64::from((most * f64::from(p) / 20.0 / high) as f32));
        let best = tried.filter(|s| usable(*s)).map(|s| (error(s), s)).min_by(|a, b| a.0.total_cmp(&b.0));
        signal += (0..m.k).map(|k| w[m.at(k, n)].powi(2)).sum::<f64>();
        noise += best.map_or(0.0, |b| b.0);
        // Weights that are all zero may grow, to about what the others are.
        best.map_or(if usable(whole) { whole } else { 1.0 }, |b| b.1)
    };
    let steps = (0..m.n).map(&mut of).collect();
    (steps, 10.0 * (signal / noise.max(f64::MIN_POSITIVE)).log10())
}

/// Rounds weights wherever they are constants.
fn round_weights(
    ed: &mut Editor<'_>,
    t: &Target,
    scales: &Tensor,
    op: &quant::FakeQuantize,
) -> Result<(), Diag> {
    let is_it = |n: &NodeId| matches!(&ed.graph().node(*n).op, Op::Const(c) if c.id == t.id);
    let nodes: Vec<NodeId> = ed.graph().all_nodes().into_iter().filter(is_it).collect();
    for n in nodes {
        let g = ed.graph();
        let (v, operand) = (g.node(n).outputs[0], g.node(t.node).op.weight_input().unwrap_or_default());
        let own = g.value(v).name.as_deref().map(str::to_owned);
        let name = own.unwrap_or_else(|| format!("{}.{operand}", t.name));
        ed.before(n);
        let w = ed.constant(Constant::from(t.values.clone()))?;
        ed.set_name(w, &name);
        let scales = ed.constant(Constant::from(scales.clone()))?;
        ed.set_name(scales, &format!("{name}.scale"));
        let rounded = ed.node1(op.clone(), &[w, scales])?;
        ed.replace(v, rounded);
        ed.erase(n)?;
    }
    Ok(())
}

impl Pass for FakeQuantize {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let mut work: Vec<(Target, Vec<NodeId>)> = Vec::new();
        for t in self.which.targets(ed, cx, "quantize-skipped")? {
            let users = weights::users(ed.graph(), t.id).unwrap_or_default();
            match declined(ed, &t, &users, false) {
                Some(why) => {
                    let text = format!("{}: left alone, {why}", t.name);
                    cx.remark_at(t.loc, "quantize-skipped", text);
                }
                None => work.push((t, users)),
            }
        }
        let g = ed.graph();
        let order: BTreeMap<NodeId, usize> = g.nodes_in(g.root()).enumerate().map(|(i, n)| (n, i)).collect();
        let mut products: Vec<NodeId> = work.iter().flat_map(|(_, users)| users.iter().copied()).collect();
        products.sort_unstable_by_key(|n| order.get(n));
        let mut seen = BTreeSet::new();
        let values: Vec<ValueId> =
            products.iter().filter_map(|n| util::operand(g, *n, 0)).filter(|v| seen.insert(*v)).collect();
        let ranges = match (&cx.calibrate, values.is_empty()) {
            (_, true) => Vec::new(),
            (Some(c), _) => c.clone().ranges(g, &values, self.samples, self.cover)?,
            (None, _) => {
                return Err(Diag::error("calibration-missing", "steps begin by samples (--data)"));
            }
        };
        for (t, _) in &work {
            let conv = matches!(ed.graph().node(t.node).op, Op::Conv(_));
            let lies = conv || weights::lies_transposed(ed.graph(), t.node).unwrap_or(false);
            let matrix = Matrix::new(t.values.shape(), lies)
                .ok_or_else(|| Diag::error("constant-malformed", "weights are no matrix"))?;
            let op = self.op(true, if lies { 0 } else { 1 }, false);
            let (steps, snr) = steps(&t.values.to_f64(), &matrix, op.range());
            round_weights(ed, t, &Tensor::floats(DType::F32, &[matrix.n], steps)?, &op)?;
            let text = format!("{}: weights of {} bits, signal to noise {snr:.1} dB", t.name, self.bits);
            cx.remark_at(t.loc.clone(), "quantize-done", text);
            cx.add("weights-rounded", 1.0);
        }
        for (x, range) in values.into_iter().zip(ranges) {
            let readers: Vec<Use> = ed.graph().uses(x).to_vec();
            let name = ed.graph().value(x).name.as_deref().map(str::to_owned);
            let first = products.iter().copied().find(|n| util::operand(ed.graph(), *n, 0) == Some(x));
            let name = name.or_else(|| Some(format!("{}.0", ed.graph().describe(first?))));
            before_readers(ed, x, &order);
            let op = self.op(range[0] < 0.0, 0, ed.graph().dims(x).is_some_and(|d| d.len() > 1));
            let [low, high] = op.range();
            let step = (range[1] / high).max(if op.signed { range[0] / low } else { 0.0 });
            let step = if step > 0.0 && step.is_finite() { step } else { 1.0 };
            let scale = ed.constant(Constant::from(Tensor::floats(DType::F32, &[], vec![step])?))?;
            ed.set_name(scale, &format!("{}.scale", name.unwrap_or_default()));
            let rounded = ed.node1(op, &[x, scale])?;
            for u in readers {
                if matches!(u, Use::Node(n, 0) if products.contains(&n)) {
                    ed.set_use(u, rounded);
                }
            }
            if let Some(by) = ed.graph().def_node(rounded) {
                keep_bytes(ed, x, by, rounded);
            }
            cx.add("operands-rounded", 1.0);
        }
        Ok(())
    }
}
