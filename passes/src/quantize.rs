//! See [`Quantize`].

use crate::calibrate::{Cover, Samples};
use crate::options::OptionMeta;
use crate::weights::{self, Selection, Target};
use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::graph::Use;
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::cast::Cast;
use planish_ir::op::pool::PoolKind;
use planish_ir::op::quant::{self, Dequantize, DynamicQuantize, MatMulInteger};
use planish_ir::{Constant, DType, Diag, Editor, Graph, Matrix, NodeId, Op, Tensor, ValueId};
use std::collections::BTreeMap;

declare_pass! {
    /// Stores operands of matrix products and convolutions in 8 bits.
    ///
    /// Weights get a symmetric scale for each output: the largest magnitude becomes 127 (63 with `bits=7`). The other operand becomes unsigned bytes, with one
    /// scale and zero point: with `mode=static` those of the range that its values had on samples (`range=minmax`: of all of them,
    /// `range=percentile`: without the outermost), with `mode=dynamic` those of the range in each run. Static quantisation is written as
    /// pairs of `quantize` and `dequantize` around the product, as other tools write it; `fuse-quantised` makes a product of integers of that. Additions, pooling and what only moves elements read the bytes of such an operand too, if nothing else reads it.
    /// Convolutions are quantised with `mode=static` only.
    ///
    /// # Preserves
    /// Shapes and types of all values that stay.
    ///
    /// # Declines
    /// A remark `quantize-skipped` for every layer that is left alone, with the reason; `quantize-done` for every one that is not, with the ratio of signal to noise of its weights.
    ///
    /// # Example
    /// `v2 = matmul v0, c1` becomes `v2 = matmul (dequantize (quantize v0)), (dequantize c3)` with `c3` in i8.
    pub struct Quantize {
        dynamic: bool,
        most: f64,
        cover: Cover,
        samples: Samples,
        which: Selection,
    } = {
        name: "quantize",
        kind: Lossy,
        options: [
            OptionMeta { name: "dtype", default: "i8", doc: "what weights are stored as: `i8`" },
            OptionMeta { name: "bits", default: "8", doc: "bits of weights, 7 or 8; with 7 sums of two products fit 16 bits, which processors without dot products of bytes multiply in half of the instructions" },
            OptionMeta { name: "mode", default: "static", doc: "`static`: ranges from samples; `dynamic`: ranges found in each run" },
            OptionMeta { name: "range", default: "minmax", doc: "of static ranges: `minmax` or `percentile`" },
            OptionMeta { name: "percentile", default: "99.99", doc: "percent of the values that `range=percentile` covers, 50 to 100" },
            OptionMeta { name: "samples", default: "data", doc: "`data`: those of --data; `synthetic`: made up, for measurements of speed" },
            weights::INCLUDE,
            weights::EXCLUDE,
            weights::OPS,
            weights::FIRST,
        ]
    }
}

/// Products to fewer outputs gain less than quantising their other operand costs.
const FEW_OUTPUTS: usize = 16;
/// Convolutions with shorter sums gain less than quantising their input costs.
const FEW_TERMS: usize = 16;

impl Quantize {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let m = Self::META.options;
        o.one_of(m, "dtype", &[("i8", ())])?;
        let percent: f64 = o.get(m, "percentile")?;
        if !(50.0..=100.0).contains(&percent) {
            return Err(Diag::error("pass-option", "percentile is from 50 to 100"));
        }
        let cover =
            o.one_of(m, "range", &[("minmax", Cover::All), ("percentile", Cover::Percent(percent))])?;
        let samples = o.one_of(m, "samples", Samples::WORDS)?;
        let dynamic = o.one_of(m, "mode", &[("static", false), ("dynamic", true)])?;
        let most = o.one_of(m, "bits", &[("8", 127.0), ("7", 63.0)])?;
        Ok(Quantize { dynamic, most, cover, samples, which: Selection::new(o, m)? })
    }
}

/// Why weights are not quantised, if they are not.
pub(crate) fn declined(ed: &Editor<'_>, t: &Target, users: &[NodeId], dynamic: bool) -> Option<String> {
    let g = ed.graph();
    if t.values.dtype() != DType::F32 {
        return Some("its weights are no f32".into());
    }
    for n in users {
        if g.node(*n).region != g.root() {
            return Some("it is in a region".into());
        }
        if util::operand(g, *n, 0).and_then(|x| g.dtype(x)) != Some(DType::F32) {
            return Some("its other operand is not f32".into());
        }
    }
    if matches!(g.node(t.node).op, Op::Conv(_)) {
        return users.iter().find_map(|n| declined_conv(g, *n, t.values.shape(), dynamic));
    }
    let Ok(lies) = weights::lies_transposed(g, t.node) else {
        return Some("there is no kernel for 8-bit weights of it".into());
    };
    for n in users {
        if !matches!(g.node(*n).op, Op::MatMul(_)) || weights::lies_transposed(g, *n) != Ok(lies) {
            return Some("there is no kernel for 8-bit weights of it".into());
        }
    }
    if t.values.rank() != 2 {
        return Some("its weights are no matrix".into());
    }
    let n = Matrix::new(t.values.shape(), lies)?.n;
    (n < FEW_OUTPUTS).then(|| format!("it has {n} outputs, fewer than {FEW_OUTPUTS}"))
}

/// Why the weights of a convolution are not quantised, if they are not.
fn declined_conv(g: &Graph, n: NodeId, shape: &[usize], dynamic: bool) -> Option<String> {
    let Op::Conv(op) = &g.node(n).op else {
        return Some("its weights are not only those of convolutions".into());
    };
    if dynamic {
        return Some("convolutions take ranges from samples, not from each run".into());
    }
    let [outputs, inputs, ref kernel @ ..] = *shape else { return Some("its weights have no axes".into()) };
    if !(1..=2).contains(&kernel.len()) {
        return Some(format!("it has {} spatial axes, not 1 or 2", kernel.len()));
    }
    if outputs < FEW_OUTPUTS {
        return Some(format!("it has {outputs} outputs, fewer than {FEW_OUTPUTS}"));
    }
    let groups = usize::try_from(op.groups).unwrap_or(1).max(1);
    let depthwise = groups > 1 && inputs == 1 && outputs == groups;
    let (each, block) = (outputs / groups, FEW_OUTPUTS);
    if groups > 1 && !depthwise && !(each.is_multiple_of(block) && inputs.is_multiple_of(block)) {
        return Some(format!("its groups of {inputs} inputs and {each} outputs are no multiples of {block}"));
    }
    let terms = inputs * kernel.iter().product::<usize>();
    (!depthwise && terms < FEW_TERMS).then(|| format!("its sums have {terms} terms, fewer than {FEW_TERMS}"))
}

/// Weights in 8 bits.
struct Stored {
    /// As they were stored.
    w: Tensor,
    /// As inputs x outputs.
    straight: Tensor,
    scales: Tensor,
    /// The axis of the outputs.
    axis: i64,
    /// Signal to noise, dB.
    snr: f64,
}

/// Symmetric, with a scale for each output; the largest magnitude becomes `limit`.
fn stored(t: &Tensor, m: &Matrix, limit: f64) -> Result<Stored, Diag> {
    let values = t.to_f64();
    let mut most = vec![0f64; m.n];
    for k in 0..m.k {
        for (n, most) in most.iter_mut().enumerate() {
            *most = most.max(values[m.at(k, n)].abs());
        }
    }
    let scales: Vec<f64> = most
        .iter()
        .map(|x| if *x > 0.0 && x.is_finite() { f64::from((x / limit) as f32) } else { 1.0 })
        .collect();
    let mut w = vec![0u8; values.len()];
    let mut straight = vec![0u8; values.len()];
    let (mut signal, mut noise) = (0.0, 0.0);
    for k in 0..m.k {
        for (n, scale) in scales.iter().enumerate() {
            let x = values[m.at(k, n)];
            let q = if x.is_nan() { 0.0 } else { (x / scale).round_ties_even().clamp(-limit, limit) };
            let byte = (q as i8).cast_unsigned();
            w[m.at(k, n)] = byte;
            straight[k * m.n + n] = byte;
            signal += x * x;
            noise += (x - q * scale).powi(2);
        }
    }
    Ok(Stored {
        w: Tensor::from_bytes(DType::I8, t.shape().to_vec(), w.into())?,
        straight: Tensor::from_bytes(DType::I8, vec![m.k, m.n], straight.into())?,
        scales: Tensor::floats(DType::F32, &[m.n], scales)?,
        axis: if m.transposed { 0 } else { 1 },
        snr: 10.0 * (signal / noise.max(f64::MIN_POSITIVE)).log10(),
    })
}

/// Scale and zero point of unsigned bytes for a range, which is widened to hold 0.
fn scale([low, high]: [f64; 2]) -> (f64, i128) {
    let (low, high) = (low.min(0.0), high.max(0.0));
    let step = f64::from(((high - low) / 255.0) as f32);
    if step <= 0.0 || !step.is_finite() {
        return (1.0, 0);
    }
    (step, (-low / step).round_ties_even().clamp(0.0, 255.0) as i128)
}

impl Pass for Quantize {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let mut work: Vec<(Target, Vec<NodeId>)> = Vec::new();
        for t in self.which.targets(ed, cx, "quantize-skipped")? {
            let users = weights::users(ed.graph(), t.id).unwrap_or_default();
            match declined(ed, &t, &users, self.dynamic) {
                Some(why) => {
                    let text = format!("{}: left alone, {why}", t.name);
                    cx.remark_at(t.loc, "quantize-skipped", text);
                }
                None => work.push((t, users)),
            }
        }
        let left = |ed: &Editor<'_>, n: NodeId| {
            util::operand(ed.graph(), n, 0).ok_or_else(|| Diag::error("arity", "a product without operands"))
        };
        let mut inputs: BTreeMap<ValueId, usize> = BTreeMap::new();
        for n in work.iter().flat_map(|(_, users)| users) {
            let next = inputs.len();
            inputs.entry(left(ed, *n)?).or_insert(next);
        }
        let mut values: Vec<ValueId> = inputs.keys().copied().collect();
        values.sort_by_key(|v| inputs[v]);
        let ranges = match (&cx.calibrate, self.dynamic || values.is_empty()) {
            (_, true) => Vec::new(),
            (Some(c), _) => c.clone().ranges(ed.graph(), &values, self.samples, self.cover)?,
            (None, _) => {
                return Err(Diag::error("calibration-missing", "static quantisation needs samples (--data)"));
            }
        };
        let order: BTreeMap<NodeId, usize> =
            ed.graph().nodes_in(ed.graph().root()).enumerate().map(|(i, n)| (n, i)).collect();
        let mut jobs: Vec<(usize, NodeId, usize)> = Vec::new();
        let mut all: Vec<Stored> = Vec::new();
        for (t, users) in work {
            // Weights of convolutions lie as outputs x all that a sum runs over.
            let conv = matches!(ed.graph().node(t.node).op, Op::Conv(_));
            let lies = conv || weights::lies_transposed(ed.graph(), t.node).unwrap_or(false);
            let matrix = Matrix::new(t.values.shape(), lies)
                .ok_or_else(|| Diag::error("constant-malformed", "weights are no matrix"))?;
            let s = stored(&t.values, &matrix, self.most)?;
            let text = format!("{}: weights in i8, signal to noise {:.1} dB", t.name, s.snr);
            cx.remark_at(t.loc, "quantize-done", text);
            cx.add("weights-quantized", 1.0);
            jobs.extend(users.into_iter().map(|n| (order.get(&n).copied().unwrap_or(0), n, all.len())));
            all.push(s);
        }
        // What several products share is made before the first of them.
        jobs.sort_unstable();
        let mut made: BTreeMap<ValueId, Vec<ValueId>> = BTreeMap::new();
        for (_, n, at) in jobs {
            let s = &all[at];
            let x = left(ed, n)?;
            let y = ed.graph().node(n).outputs[0];
            ed.before(n);
            if self.dynamic {
                let q = match made.get(&x) {
                    Some(q) => q.clone(),
                    None => made.entry(x).or_insert(ed.node(DynamicQuantize {}, &[Some(x)])?).clone(),
                };
                let w = ed.constant(Constant::from(s.straight.clone()))?;
                let sums = ed.node(MatMulInteger {}, &[Some(q[0]), Some(w), Some(q[2])])?[0];
                let sums = ed.node1(Cast { to: DType::F32, saturate: true }, &[sums])?;
                let scales = ed.constant(Constant::from(s.scales.clone()))?;
                let scales = ed.node1(Binary { kind: BinaryKind::Mul }, &[q[1], scales])?;
                let out = ed.node1(Binary { kind: BinaryKind::Mul }, &[sums, scales])?;
                ed.replace(y, out);
                ed.erase(n)?;
                continue;
            }
            let input = match made.get(&x) {
                Some(v) => v[0],
                None => {
                    before_readers(ed, x, &order);
                    let back = bytes(ed, x, ranges[inputs[&x]])?;
                    ed.before(n);
                    made.insert(x, vec![back]);
                    back
                }
            };
            let w = ed.constant(Constant::from(s.w.clone()))?;
            let scales = ed.constant(Constant::from(s.scales.clone()))?;
            let w = ed.node1(Dequantize { axis: s.axis, block: 0, to: DType::F32 }, &[w, scales])?;
            let node = ed.graph().node(n).clone();
            let mut operands = node.inputs;
            operands[..2].copy_from_slice(&[Some(input), Some(w)]);
            ed.rewrite(n, node.op, &operands)?;
        }
        for (x, back) in made {
            let g = ed.graph();
            let quantized = g.def_node(back[0]).and_then(|d| g.def_node(util::operand(g, d, 0)?));
            if let Some(q) = quantized.filter(|_| !self.dynamic) {
                keep_bytes(ed, x, q, back[0]);
            }
        }
        Ok(())
    }
}

/// New nodes go before the first of those in `order` that read a value.
pub(crate) fn before_readers(ed: &mut Editor<'_>, x: ValueId, order: &BTreeMap<NodeId, usize>) {
    let readers = ed.graph().uses(x).iter().filter_map(|u| match u {
        Use::Node(n, _) => Some((*order.get(n)?, *n)),
        Use::Result(..) => None,
    });
    if let Some((_, first)) = readers.min() {
        ed.before(first);
    }
}

/// Lets all that reads `x` but the node `by` read `back`, the value as its bytes stand for it, where nothing but additions, pooling and
/// what moves elements would read it in f32: it is then kept in bytes only.
pub(crate) fn keep_bytes(ed: &mut Editor<'_>, x: ValueId, by: NodeId, back: ValueId) {
    let g = ed.graph();
    let takes = |op: &Op| match op {
        Op::Binary(b) => b.kind == BinaryKind::Add,
        Op::Pool(p) => p.kind == PoolKind::Max && p.indices.is_none(),
        Op::Concat(_) | Op::Resize(_) | Op::Reduce(_) | Op::Transpose(_) => true,
        _ => false,
    };
    let others: Vec<Use> =
        g.uses(x).iter().copied().filter(|u| !matches!(u, Use::Node(n, _) if *n == by)).collect();
    let taken =
        |u: &Use| matches!(u, Use::Node(n, _) if takes(&g.node(*n).op) && g.node(*n).region == g.root());
    if others.iter().all(taken) {
        others.into_iter().for_each(|u| ed.set_use(u, back));
    }
}

/// A value as unsigned bytes of a range and back.
fn bytes(ed: &mut Editor<'_>, x: ValueId, range: [f64; 2]) -> Result<ValueId, Diag> {
    let (step, zero) = scale(range);
    let step = ed.constant(Constant::from(Tensor::floats(DType::F32, &[], vec![step])?))?;
    let zero = ed.constant(Constant::from(Tensor::ints(DType::U8, &[], vec![zero])?))?;
    let op = quant::Quantize { axis: 1, block: 0, to: DType::U8, saturate: true, precision: DType::F32 };
    let q = ed.node1(op, &[x, step, zero])?;
    ed.node1(Dequantize { axis: 1, block: 0, to: DType::F32 }, &[q, step, zero])
}
