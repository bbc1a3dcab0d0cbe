//! See [`FoldConstants`].

use crate::fuse_quantised;
use crate::options::OptionMeta;
use crate::{Options, Pass, PassCx, PassMeta, declare_pass, training, util};
use planish_ir::op::Effects;
use planish_ir::tensor::{Tensor, Value, byte_len};
use planish_ir::{Constant, DType, Diag, Editor, Graph, NodeId, Op, Type, ValueId, interp};

declare_pass! {
    /// Computes nodes whose operands are all constants, with the interpreter. Small integer tensors whose elements follow
    /// from dims become constants too. Constants that a region captures move into it. Values that are the same everywhere
    /// stay one value (a splat) however large the tensor is. Weights rounded for training keep their steps, for `quantize-trained`.
    ///
    /// # Preserves
    /// All outputs, up to the rounding of the interpreter, which is at least as exact as any engine.
    ///
    /// # Declines
    /// A result of more than `max-bytes` bytes, or a sum of more than `max-work` products, is not computed: remark `fold-too-large`.
    /// With `tables=false` tables stay that are put together of constants and read by gathers, as `cluster-weights` makes them: their parts
    /// are trained.
    ///
    /// # Example
    /// `v1 = const f32[] [2.0]  v2 = unary{kind=neg} v1` becomes `v2 = const f32[] [-2.0]`.
    pub struct FoldConstants { max_bytes: usize, max_work: usize, tables: bool } = {
        name: "fold-constants",
        kind: Exact,
        options: [
            OptionMeta { name: "max-bytes", default: "67108864", doc: "largest result that is computed, in bytes" },
            OptionMeta { name: "max-work", default: "100000000", doc: "most products of one contraction that is computed" },
            OptionMeta { name: "tables", default: "true", doc: "whether tables for gathers are put together" },
        ]
    }
}

impl FoldConstants {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let m = Self::META.options;
        Ok(FoldConstants {
            max_bytes: o.get(m, "max-bytes")?,
            max_work: o.get(m, "max-work")?,
            tables: o.get(m, "tables")?,
        })
    }
}

/// A loop that is folded may do this many iterations.
const MAX_STEPS: u64 = 100_000;

impl Pass for FoldConstants {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for (_, nodes) in util::regions(ed.graph()) {
            for n in nodes {
                if !ed.graph().is_live(n) || matches!(ed.graph().node(n).op, Op::Const(_)) {
                    continue;
                }
                if let Some(made) = self.fold(ed.graph(), n, cx) {
                    replace(ed, n, made)?;
                    cx.add("nodes-folded", 1.0);
                } else {
                    sink(ed, n)?;
                    // Operands may have become constants that the shape rule can use.
                    ed.reinfer(n)?;
                }
            }
        }
        Ok(())
    }
}

impl FoldConstants {
    /// The constants that the results of a node are, if they can be known.
    fn fold(&self, g: &Graph, n: NodeId, cx: &mut PassCx) -> Option<Vec<Constant>> {
        let node = g.node(n);
        let waits = matches!(node.op, Op::FakeQuantize(_)) || fuse_quantised::multiplies_integers(g, n);
        let table = !self.tables && matches!(node.op, Op::Concat(_)) && training::is_table(g, n);
        if node.effects() != Effects::None || waits || table {
            return None;
        }
        if let [v] = node.outputs.as_slice()
            && let Some(c) = content(g, *v)
        {
            return Some(vec![c]);
        }
        let constants: Option<Vec<_>> =
            node.inputs.iter().flatten().map(|v| util::constant(g, *v).cloned()).collect();
        let constants = constants.filter(|c| !c.is_empty() || node.op.arity().0 == 0)?;
        if !node.regions.is_empty() && !matches!(node.op, Op::If(_) | Op::Loop(_)) {
            return None;
        }
        if let Some(c) = splat(g, n) {
            return Some(vec![c]);
        }
        let sizes: Option<Vec<usize>> = node
            .outputs
            .iter()
            .map(|v| match g.ty(*v) {
                Type::Tensor(t) => byte_len(t.dtype, &t.fixed_dims()?).ok(),
                _ => None,
            })
            .collect();
        let bytes: usize = sizes?.iter().sum();
        let read: usize = constants.iter().map(|c| c.len() * c.dtype.size().max(1)).sum();
        let work = work(g, n);
        if bytes > self.max_bytes || read > 4 * self.max_bytes || work > self.max_work {
            cx.remark(
                g,
                n,
                "fold-too-large",
                format!("not computed: {bytes} bytes of results, {work} products"),
            );
            return None;
        }
        let values: Option<Vec<Option<Value>>> = node
            .inputs
            .iter()
            .map(|v| match v {
                None => Some(None),
                Some(v) => Some(Some(util::constant(g, *v)?.decode().ok()?.into())),
            })
            .collect();
        let results = match interp::eval_node(g, n, values?, MAX_STEPS) {
            Ok(r) => r,
            Err(d) => {
                cx.remark(g, n, "fold-failed", format!("not computed: {}", d.message));
                return None;
            }
        };
        results
            .into_iter()
            .map(|v| match v {
                Value::Tensor(t) => Some(Constant::from(t)),
                _ => None,
            })
            .collect()
    }
}

/// The constant that a small integer tensor is by its content.
fn content(g: &Graph, v: ValueId) -> Option<Constant> {
    let data = g.value(v);
    let t = data.fact.ty.as_tensor()?;
    let list: Option<Vec<i64>> = data.fact.content.as_ref()?.iter().map(|d| d.as_const()).collect();
    let shape = t.fixed_dims()?;
    let ints = list?.into_iter().map(i128::from).collect();
    Tensor::ints(t.dtype, &shape, ints).ok().map(Constant::from)
}

/// Products of a contraction over constants.
fn work(g: &Graph, n: NodeId) -> usize {
    let node = g.node(n);
    let size =
        |v: Option<ValueId>| v.and_then(|v| util::fixed(g, v)).map_or(1, |d| d.iter().product::<usize>());
    match node.op {
        Op::Conv(_)
        | Op::MatMul(_)
        | Op::ConvTranspose(_)
        | Op::Einsum(_)
        | Op::Recurrent(_)
        | Op::SkimRecurrent(_) => {
            let out = size(node.outputs.first().copied());
            let k = util::operand(g, n, 0)
                .and_then(|v| util::fixed(g, v))
                .and_then(|d| d.last().copied())
                .unwrap_or(1);
            out.saturating_mul(k.max(1))
        }
        _ => 0,
    }
}

/// Element-wise operations and expansions of splats, without touching their elements.
fn splat(g: &Graph, n: NodeId) -> Option<Constant> {
    let node = g.node(n);
    let [out] = node.outputs.as_slice() else { return None };
    let t = g.ty(*out).as_tensor()?;
    let shape = t.fixed_dims()?;
    if shape.iter().product::<usize>() <= 1 || t.dtype == DType::Str {
        return None;
    }
    let scalar = |i: usize| Some(util::constant(g, util::operand(g, n, i)?)?.as_splat()?.into());
    let args: Vec<Option<Value>> = match &node.op {
        op if op.is_elementwise() => {
            (0..node.inputs.len()).map(|i| scalar(i).map(Some)).collect::<Option<_>>()?
        }
        Op::Expand(_)
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Squeeze(_)
        | Op::Unsqueeze(_)
        | Op::Flatten(_)
        | Op::Tile(_)
        | Op::Slice(_) => {
            let Value::Tensor(v) = scalar(0)? else { return None };
            return Constant::splat(&v, shape).ok();
        }
        _ => return None,
    };
    let made = interp::eval_node(g, n, args, 0).ok()?;
    match made.first() {
        Some(Value::Tensor(v)) if v.len() == 1 => Constant::splat(v, shape).ok(),
        _ => None,
    }
}

fn replace(ed: &mut Editor<'_>, n: NodeId, made: Vec<Constant>) -> Result<(), Diag> {
    let outputs = ed.graph().node(n).outputs.clone();
    for (old, c) in outputs.iter().zip(made) {
        if ed.graph().uses(*old).is_empty() {
            continue;
        }
        ed.before(n);
        let new = ed.constant(c)?;
        ed.replace(*old, new);
    }
    ed.erase(n)
}

/// Gives each region of a node its own copy of the constants it captures.
fn sink(ed: &mut Editor<'_>, n: NodeId) -> Result<(), Diag> {
    let node = ed.graph().node(n);
    // The constants of a fused group stay outside, where its lowering packs them.
    let Some(first) = util::captures_from(&node.op).filter(|_| !matches!(node.op, Op::Fused(_))) else {
        return Ok(());
    };
    let (inputs, regions) = (node.inputs.clone(), node.regions.clone());
    for (i, v) in inputs.iter().enumerate().skip(first) {
        let Some(c) = v.and_then(|v| util::constant(ed.graph(), v)).cloned() else { continue };
        for r in &regions {
            let params = &ed.graph().region(*r).params;
            let p = params[params.len() - (inputs.len() - i)];
            if ed.graph().uses(p).is_empty() {
                continue;
            }
            let start = ed.graph().nodes_in(*r).next();
            match start {
                Some(s) => ed.before(s),
                None => ed.at_end(*r),
            }
            let new = ed.constant((*c).clone())?;
            ed.replace(p, new);
        }
    }
    Ok(())
}
