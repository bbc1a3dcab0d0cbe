//! Products that leave out inputs near zero.

use crate::calibrate::Samples;
use crate::options::OptionMeta;
use crate::weights::Selection;
use crate::{Options, PassCx, util};
use planish_ir::op::gated_matmul::GatedMatMul;
use planish_ir::{DType, Diag, Dim, Editor, Graph, NodeId, Op, Tensor, ValueId};
use std::collections::BTreeMap;

/// The options of `kind=activation`.
#[derive(Clone, Debug)]
pub(crate) struct Activation {
    quantile: f64,
    block: usize,
    samples: Samples,
    which: Selection,
}

/// A layer that may be gated.
struct Layer {
    node: NodeId,
    x: ValueId,
    w: ValueId,
    k: usize,
    n: usize,
    trans_b: bool,
    /// Rows, if their number is known.
    rows: Option<i64>,
}

/// Magnitudes by the upper bits of their representation: bins of a relative width of 1/128 at most, whatever their range.
struct Magnitudes {
    bins: Vec<u64>,
    total: u64,
}

/// Bits of a magnitude that its bin does not tell.
const LOW_BITS: u32 = 16;

impl Magnitudes {
    fn new() -> Magnitudes {
        Magnitudes { bins: vec![0; 1 << (31 - LOW_BITS)], total: 0 }
    }
    fn add(&mut self, x: f64) {
        let bits = (x as f32).abs().to_bits();
        self.bins[(bits >> LOW_BITS) as usize] += 1;
        self.total += 1;
    }
    /// The least edge of bins with at least this share of the magnitudes below it. Not less than the least normal number, so that zeros are
    /// always below.
    fn threshold(&self, share: f64) -> f32 {
        let want = (share * self.total as f64).ceil() as u64;
        let mut seen = 0;
        let below = self.bins.iter().position(|n| {
            let there = seen >= want;
            seen += n;
            there
        });
        let at = below.unwrap_or(self.bins.len()) as u32;
        f32::from_bits((at << LOW_BITS).min(f32::INFINITY.to_bits())).max(f32::MIN_POSITIVE)
    }
}

impl Activation {
    pub(super) fn new(
        o: &Options,
        m: &[OptionMeta],
        samples: Samples,
        which: Selection,
    ) -> Result<Activation, Diag> {
        let quantile: f64 = o.get(m, "quantile")?;
        if !(0.0..1.0).contains(&quantile) {
            return Err(Diag::error("pass-option", "quantile is from 0 to below 1"));
        }
        let block: usize = o.get(m, "block")?;
        if !(1..=64).contains(&block) {
            return Err(Diag::error("pass-option", "block is from 1 to 64"));
        }
        Ok(Activation { quantile, block, samples, which })
    }

    pub(super) fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let layers = self.layers(ed.graph(), cx);
        let mut inputs: BTreeMap<ValueId, usize> = BTreeMap::new();
        let mut values = Vec::new();
        for l in &layers {
            inputs.entry(l.x).or_insert_with(|| {
                values.push(l.x);
                values.len() - 1
            });
        }
        if values.is_empty() {
            return Ok(());
        }
        let Some(calibrate) = cx.calibrate.clone() else {
            return Err(Diag::error("calibration-missing", "thresholds need samples (--data)"));
        };
        let mut seen: Vec<Magnitudes> = values.iter().map(|_| Magnitudes::new()).collect();
        calibrate.stream(ed.graph(), &values, self.samples, &mut |tensors| {
            for (m, t) in seen.iter_mut().zip(tensors) {
                t.to_f64().into_iter().for_each(|x| m.add(x));
            }
            Ok(())
        })?;
        let bounds: Vec<f32> = seen.iter().map(|m| m.threshold(self.quantile)).collect();
        drop(seen);
        // How often a whole block is below the threshold is counted once the thresholds are known.
        let mut blocks = vec![(0u64, 0u64); values.len()];
        calibrate.stream(ed.graph(), &values, self.samples, &mut |tensors| {
            for ((found, bound), t) in blocks.iter_mut().zip(&bounds).zip(tensors) {
                let (empty, all) = self.count(t, *bound);
                *found = (found.0 + empty, found.1 + all);
            }
            Ok(())
        })?;
        let bytes = layers.iter().map(|l| 4 * l.k as u64 * l.n as u64).sum();
        for l in layers {
            let at = inputs[&l.x];
            let (empty, all) = blocks[at];
            let skipped = if all == 0 { 0.0 } else { empty as f64 / all as f64 };
            self.gate(ed, cx, &l, (bounds[at], skipped), bytes)?;
        }
        Ok(())
    }

    /// Blocks below the bound, and all.
    fn count(&self, t: &Tensor, bound: f32) -> (u64, u64) {
        let width = t.shape().last().copied().unwrap_or(1).max(1);
        let (mut empty, mut all) = (0, 0);
        for row in t.to_f64().chunks(width) {
            for block in row.chunks(self.block) {
                all += 1;
                empty += u64::from(block.iter().all(|x| x.abs() < f64::from(bound)));
            }
        }
        (empty, all)
    }

    /// The layers that may be gated; a remark for all others that have weights.
    fn layers(&self, g: &Graph, cx: &mut PassCx) -> Vec<Layer> {
        let mut out = Vec::new();
        let mut first = true;
        for n in g.all_nodes() {
            let node = g.node(n);
            if node.op.weight_input().is_none() {
                continue;
            }
            let is_first = std::mem::replace(&mut first, false);
            let why = match self.which.keeps(&g.describe(n), node.op.name(), is_first) {
                Some(why) => why.to_owned(),
                None => match layer(g, n) {
                    Ok(l) => {
                        out.push(l);
                        continue;
                    }
                    Err(why) => why,
                },
            };
            cx.remark(g, n, "gate-skipped", format!("{}: left alone, {why}", g.describe(n)));
        }
        out
    }

    fn gate(
        &self,
        ed: &mut Editor<'_>,
        cx: &mut PassCx,
        l: &Layer,
        (bound, skipped): (f32, f64),
        bytes: u64,
    ) -> Result<(), Diag> {
        let name = ed.graph().describe(l.node);
        let costs = &cx.facts.gated;
        let (time, most) = (costs.of(l.k, l.n, 1.0 - skipped, bytes), costs.margin);
        let share =
            format!("{:.1}% of its blocks of {} are left out on the samples", skipped * 100.0, self.block);
        if time > most {
            let text = format!(
                "{name}: left alone, {share}: {} x {} weights would take {time:.2} of the dense time, at most {most:.2} pays",
                l.k, l.n
            );
            cx.remark(ed.graph(), l.node, "gate-skipped", text);
            return Ok(());
        }
        let rows = match l.rows {
            Some(_) => String::new(),
            None => format!(", where it has at most {} rows", GatedMatMul::FEW_ROWS),
        };
        let text = format!(
            "{name}: |x| < {bound:e} counts as 0 (quantile {}); {share}, predicted {time:.2} of the dense time{rows}",
            self.quantile
        );
        cx.remark(ed.graph(), l.node, "gate-done", text);
        cx.add("layers-gated", 1.0);
        cx.add("weights-gated", (l.k * l.n) as f64);
        cx.add("weights-left-out", (l.k * l.n) as f64 * skipped);
        let y = ed.graph().node(l.node).outputs[0];
        ed.before(l.node);
        let op = GatedMatMul { threshold: f64::from(bound), block: self.block, trans_b: l.trans_b };
        let new = ed.node1(op, &[l.x, l.w])?;
        ed.replace(y, new);
        ed.erase(l.node)
    }
}

/// A node as a layer, or why it cannot be gated.
fn layer(g: &Graph, n: NodeId) -> Result<Layer, String> {
    let Op::MatMul(op) = &g.node(n).op else { return Err("only matrix products have such kernels".into()) };
    let (Some(x), Some(w)) = (util::operand(g, n, 0), util::operand(g, n, 1)) else {
        return Err("it lacks an operand".into());
    };
    if g.node(n).region != g.root() {
        return Err("it is in a region".into());
    }
    if op.trans_a {
        return Err("its rows lie across".into());
    }
    let weights = util::constant(g, w).filter(|c| c.dtype == DType::F32 && g.dtype(x) == Some(DType::F32));
    let Some([a, b]) = weights.map(|c| c.shape.as_slice()) else {
        return Err("its weights are no constant matrix of f32".into());
    };
    let (k, n_out) = if op.trans_b { (*b, *a) } else { (*a, *b) };
    let Some([lead @ .., _]) = g.dims(x) else { return Err("the rank of its input is not known".into()) };
    let rows = Dim::product(lead);
    let few = GatedMatMul::FEW_ROWS as i64;
    let least = rows.as_const().or(rows.bounds(&g.symbols).0).unwrap_or(0);
    if least > few {
        return Err(format!("it multiplies {least} rows or more; blocks are left out of {few} at most"));
    }
    Ok(Layer { node: n, x, w, k, n: n_out, trans_b: op.trans_b, rows: rows.as_const() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_have_the_share_below_them() {
        let mut m = Magnitudes::new();
        (0..1000).for_each(|i| m.add((f64::from(i) - 500.0) / 100.0));
        for q in [0.1, 0.5, 0.9] {
            let t = f64::from(m.threshold(q));
            assert!((t - 5.0 * q).abs() < 0.05 * q.max(0.5), "{q}: {t}");
        }
        assert_eq!(m.threshold(0.0), f32::MIN_POSITIVE);
        let mut zeros = Magnitudes::new();
        (0..10).for_each(|_| zeros.add(0.0));
        assert_eq!(zeros.threshold(0.9), f32::MIN_POSITIVE);
        zeros.add(f64::NAN);
        zeros.add(f64::INFINITY);
        assert_eq!(zeros.threshold(0.99), f32::INFINITY);
        assert_eq!(Magnitudes::new().threshold(0.5), f32::MIN_POSITIVE);
    }
}
