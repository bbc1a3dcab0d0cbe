//! See [`ClusterWeights`].

mod kmeans;
#[cfg(test)]
mod tests;

use crate::compressed::Encoder;
use crate::options::OptionMeta;
use crate::weights::{self, Selection, Target};
use crate::{Options, Pass, PassCx, PassMeta, declare_pass};
use kmeans::Init;
use planish_ir::op::concat::Concat;
use planish_ir::op::gather::Gather;
use planish_ir::{ConstId, Constant, DType, Diag, Editor, Graph, NodeId, Op, Tensor};
use std::collections::BTreeMap;

declare_pass! {
    /// Lets the weights of a tensor share 2^bits values, found by k-means (Han, Mao and Dally 2016, "Deep Compression").
    ///
    /// Zeros stay zeros and are in no cluster. The weights W become a `gather` from zero and the centroids, a constant `W.centroids`: training changes
    /// the centroids, each by the sum of the gradients of its weights, and zeros stay. Constants are folded as ever, so a compiled model has plain weights.
    ///
    /// # Preserves
    /// Shapes and types of all values that stay, and zeros among weights.
    ///
    /// # Declines
    /// A remark `cluster-skipped` for every tensor that is left alone, with the reason; `cluster-done` for every one that is not, with what is left of it and its size in
    /// bytes: dense, without zeros (P), with shared values (P+Q) and with Huffman codes (P+Q+H), each with the bits of gaps between weights that make it smallest.
    /// The metrics `bytes-dense`, `bytes-pruned`, `bytes-clustered` and `bytes-huffman` are sums over the model: every other constant of floats (biases,
    /// tensors left alone) counts in all four with its dense size, once however many nodes take it; constants of other types do not count.
    ///
    /// # Example
    /// `c1 = const f32[4] [0.0, 1.1, 0.9, -2.0]` at `bits=1` becomes `gather{axis=0} (concat{axis=0} [0.0], [-2.0, 1.0]), [0, 2, 2, 1]`.
    pub struct ClusterWeights { bits: u32, init: Init, which: Selection } = {
        name: "cluster-weights",
        kind: Lossy,
        options: [
            OptionMeta { name: "bits", default: "6", doc: "bits of the number of a shared value, 1 to 12" },
            OptionMeta { name: "init", default: "linear", doc: "where centroids begin: `linear`: at equal distances between the least and the largest weight, `density`: with equally many weights around each, `random`: at weights that are drawn" },
            OptionMeta { name: "seed", default: "0", doc: "of `init=random`" },
            weights::INCLUDE,
            weights::EXCLUDE,
            weights::OPS,
            weights::FIRST,
        ]
    }
}

/// Sizes of a tensor in bytes.
struct Sizes {
    dense: usize,
    /// Without zeros.
    pruned: usize,
    /// With shared values.
    clustered: usize,
    /// With Huffman codes.
    huffman: usize,
    /// Bits of gaps of the last two.
    gap_bits: [u32; 2],
}

/// Weights as centroids.
struct Clustered {
    /// 0 for zero, else a centroid, counted from 1.
    indices: Tensor,
    centroids: Tensor,
    kept: usize,
    /// Rounds of k-means.
    rounds: usize,
    /// The root of the mean square of what a weight that is not zero changed by.
    error: f64,
    sizes: Sizes,
}

impl ClusterWeights {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let m = Self::META.options;
        let bits: u32 = o.get(m, "bits")?;
        if !(1..=12).contains(&bits) {
            return Err(Diag::error("pass-option", "bits is from 1 to 12"));
        }
        let words = [
            ("linear", Init::Linear),
            ("density", Init::Density),
            ("random", Init::Random(o.get(m, "seed")?)),
        ];
        let init = o.one_of(m, "init", &words)?;
        Ok(ClusterWeights { bits, init, which: Selection::new(o, m)? })
    }

    /// The weights as centroids, or why they stay.
    fn clustered(&self, t: &Tensor) -> Result<Result<Clustered, String>, Diag> {
        let values = t.to_f64();
        if let Some(x) = values.iter().find(|x| !x.is_finite()) {
            return Ok(Err(format!("one of its weights is {x}")));
        }
        let numbers: Vec<f64> = values.iter().copied().filter(|x| *x != 0.0).collect();
        let k = 1 << self.bits;
        if numbers.len() < k {
            return Ok(Err(format!("{} weights are not zero, fewer than {k}", numbers.len())));
        }
        let found = kmeans::clusters(&numbers, k, self.init);
        let index = |x: &f64| if *x == 0.0 { 0 } else { kmeans::nearest(&found.centroids, *x) as i128 + 1 };
        let indices = Tensor::ints(DType::I32, t.shape(), values.iter().map(index).collect())?;
        let centroids = Tensor::floats(t.dtype(), &[k], found.centroids)?;
        let shared = Encoder::shared(&indices, &centroids, false)?;
        let coded = Encoder::shared(&indices, &centroids, true)?;
        let (gaps, clustered) = shared.smallest()?;
        let (coded_gaps, huffman) = coded.smallest()?;
        let sizes = Sizes {
            dense: t.bytes().len(),
            pruned: Encoder::values(t)?.smallest()?.1,
            clustered,
            huffman,
            gap_bits: [gaps, coded_gaps],
        };
        let rounded = centroids.to_f64();
        let square = |(x, i): (&f64, i64)| if i == 0 { 0.0 } else { (x - rounded[i as usize - 1]).powi(2) };
        let squares: f64 = values.iter().zip(indices.to_i64()?).map(square).sum();
        let (kept, rounds) = (numbers.len(), found.rounds);
        let error = (squares / kept as f64).sqrt();
        Ok(Ok(Clustered { indices, centroids, kept, rounds, error, sizes }))
    }
}

impl Pass for ClusterWeights {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let mut plain = float_constants(ed.graph());
        for t in self.which.targets(ed, cx, "cluster-skipped")? {
            let c = match self.clustered(&t.values)? {
                Ok(c) => c,
                Err(why) => {
                    cx.remark_at(t.loc, "cluster-skipped", format!("{}: left alone, {why}", t.name));
                    continue;
                }
            };
            replace(ed, &t, &c)?;
            plain.remove(&t.id);
            let s = &c.sizes;
            let text = format!(
                "{}: {} of {} weights share {} values of {} bits after {} rounds, root mean square error {:.3e}; {} bytes, {} without zeros, {} with shared values, {} with Huffman codes (gaps of {} and {} bits)",
                t.name,
                c.kept,
                t.values.len(),
                c.centroids.len(),
                self.bits,
                c.rounds,
                c.error,
                s.dense,
                s.pruned,
                s.clustered,
                s.huffman,
                s.gap_bits[0],
                s.gap_bits[1],
            );
            cx.remark_at(t.loc, "cluster-done", text);
            for (metric, amount) in [
                ("tensors-clustered", 1),
                ("weights-kept", c.kept),
                ("bytes-dense", s.dense),
                ("bytes-pruned", s.pruned),
                ("bytes-clustered", s.clustered),
                ("bytes-huffman", s.huffman),
            ] {
                cx.add(metric, amount as f64);
            }
        }
        let bytes: usize = plain.values().sum();
        for metric in ["bytes-dense", "bytes-pruned", "bytes-clustered", "bytes-huffman"] {
            cx.add(metric, bytes as f64);
        }
        Ok(())
    }
}

/// The dense sizes of all constants of floats that nodes have, in bytes.
fn float_constants(g: &Graph) -> BTreeMap<ConstId, usize> {
    let size = |n: NodeId| {
        let Op::Const(c) = &g.node(n).op else { return None };
        let (id, c) = (c.id, g.constant(c.id));
        c.dtype.is_float().then(|| (id, c.shape.iter().product::<usize>() * c.dtype.size()))
    };
    g.all_nodes().into_iter().filter_map(size).collect()
}

/// Puts a gather in the place of weights, everywhere.
fn replace(ed: &mut Editor<'_>, t: &Target, c: &Clustered) -> Result<(), Diag> {
    let is_it = |n: &NodeId| matches!(&ed.graph().node(*n).op, Op::Const(c) if c.id == t.id);
    let nodes: Vec<NodeId> = ed.graph().all_nodes().into_iter().filter(is_it).collect();
    for n in nodes {
        let g = ed.graph();
        let v = g.node(n).outputs[0];
        let own = g.value(v).name.as_deref().map(str::to_owned);
        let operand = g.node(t.node).op.weight_input().unwrap_or_default();
        let name = own.unwrap_or_else(|| format!("{}.{operand}", t.name));
        ed.before(n);
        let zero = ed.constant(Constant::from(Tensor::floats(t.values.dtype(), &[1], vec![0.0])?))?;
        let centroids = ed.constant(Constant::from(c.centroids.clone()))?;
        ed.set_name(centroids, &format!("{name}.centroids"));
        let table = ed.node1(Concat { axis: 0 }, &[zero, centroids])?;
        let indices = ed.constant(Constant::from(c.indices.clone()))?;
        let w = ed.node1(Gather { axis: 0 }, &[table, indices])?;
        ed.replace(v, w);
        ed.erase(n)?;
    }
    Ok(())
}
