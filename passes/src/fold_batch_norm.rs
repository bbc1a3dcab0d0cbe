//! See [`FoldBatchNorm`].

use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::graph::Use;
use planish_ir::op::binary::BinaryKind;
use planish_ir::{Constant, DType, Diag, Editor, NodeId, Op, Tensor, ValueId};

declare_pass! {
    /// Folds a factor or a summand per output channel, which is what a batch normalisation at inference is, into the weights and the bias of the convolution or matrix product before it.
    ///
    /// # Preserves
    /// All outputs up to rounding: a factor is applied to weights instead of sums (relative 1e-6 per sum in f32).
    ///
    /// # Declines
    /// Weights that are no constant, or are used elsewhere, or a result that is used elsewhere: remark `batch-norm-kept`.
    ///
    /// # Example
    /// `v2 = conv v0, w  v3 = binary{kind=mul} v2, s` becomes `v3 = conv v0, w * s`.
    pub struct FoldBatchNorm {} = { name: "fold-batch-norm", kind: Exact, options: [] }
}

impl FoldBatchNorm {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(FoldBatchNorm {})
    }
}

impl Pass for FoldBatchNorm {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for (_, nodes) in util::regions(ed.graph()) {
            for n in nodes {
                if ed.graph().is_live(n) && matches!(ed.graph().node(n).op, Op::Conv(_) | Op::MatMul(_)) {
                    while fold_one(ed, n, cx)? {
                        cx.add("nodes-folded", 1.0);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Folds the one user of a contraction, if it is a factor or summand per channel.
fn fold_one(ed: &mut Editor<'_>, n: NodeId, cx: &mut PassCx) -> Result<bool, Diag> {
    let g = ed.graph();
    let y = g.node(n).outputs[0];
    let Some(user) = util::only_user(g, y) else {
        remark_shared(ed, n, cx);
        return Ok(false);
    };
    let Some((kind, values)) = applied(ed, n, user) else { return Ok(false) };
    let is_conv = matches!(g.node(n).op, Op::Conv(_));
    let Some(w) = util::operand(g, n, 1) else { return Ok(false) };
    let weights = util::constant(g, w).filter(|c| c.dtype == DType::F32).cloned();
    let Some(weights) = weights else {
        cx.remark(g, n, "batch-norm-kept", "the weights are no constant of f32");
        return Ok(false);
    };
    let bias = util::operand(g, n, 2);
    let old_bias = match bias {
        None => vec![0.0; values.len()],
        Some(v) => match util::constant(g, v).map(|c| c.decode()).transpose()? {
            Some(t) => t.to_f64(),
            None => {
                cx.remark(g, n, "batch-norm-kept", "the bias is no constant");
                return Ok(false);
            }
        },
    };
    let factor = |c: usize| match kind {
        BinaryKind::Mul => values[c],
        BinaryKind::Div => 1.0 / values[c],
        _ => 1.0,
    };
    let summand = |c: usize| match kind {
        BinaryKind::Add => values[c],
        BinaryKind::Sub => -values[c],
        _ => 0.0,
    };
    let new_bias: Vec<f64> = (0..values.len()).map(|c| old_bias[c] * factor(c) + summand(c)).collect();
    let mut inputs = g.node(n).inputs.clone();
    let op = g.node(n).op.clone();
    ed.before(n);
    if matches!(kind, BinaryKind::Mul | BinaryKind::Div) {
        let t = weights.decode()?;
        let scaled = scale(&op, &t, &factor)?;
        inputs[1] = Some(ed.constant(Constant::from(scaled))?);
    }
    if is_conv && (bias.is_some() || matches!(kind, BinaryKind::Add | BinaryKind::Sub)) {
        let t = Tensor::floats(DType::F32, &[values.len()], new_bias)?;
        let b = ed.constant(Constant::from(t))?;
        inputs.resize(3, None);
        inputs[2] = Some(b);
    }
    ed.rewrite(n, op, &inputs)?;
    let out = ed.graph().node(user).outputs[0];
    ed.replace(out, y);
    ed.erase(user)?;
    Ok(true)
}

/// What `user` does to the result of the contraction `n`, if that can go into its weights or bias: the operation and its
/// other operand for each channel.
fn applied(ed: &Editor<'_>, n: NodeId, user: NodeId) -> Option<(BinaryKind, Vec<f64>)> {
    let g = ed.graph();
    let y = g.node(n).outputs[0];
    let Op::Binary(b) = &g.node(user).op else { return None };
    let (p, q) = (util::operand(g, user, 0)?, util::operand(g, user, 1)?);
    let (other, swapped) = if p == y { (q, false) } else { (p, true) };
    if other == y || g.dtype(y) != Some(DType::F32) || g.ty(g.node(user).outputs[0]) != g.ty(y) {
        return None;
    }
    let is_conv = matches!(g.node(n).op, Op::Conv(_));
    let foldable = match b.kind {
        BinaryKind::Mul => true,
        BinaryKind::Div => !swapped,
        // A summand of a matrix product is an epilogue already; only factors are worth folding there.
        BinaryKind::Add => is_conv,
        BinaryKind::Sub => is_conv && !swapped,
        _ => false,
    };
    let values = foldable.then(|| per_channel(ed, n, other)).flatten()?;
    Some((b.kind, values))
}

/// Says of a contraction with several users that one of them would have been folded.
fn remark_shared(ed: &Editor<'_>, n: NodeId, cx: &mut PassCx) {
    let g = ed.graph();
    let users = g.uses(g.node(n).outputs[0]);
    if users.iter().any(|u| matches!(u, Use::Node(m, _) if applied(ed, n, *m).is_some())) {
        cx.remark(g, n, "batch-norm-kept", format!("the result has {} users", users.len()));
    }
}

/// The value for each channel of the contraction `n` that a constant holds, if it varies along the channel axis only.
fn per_channel(ed: &Editor<'_>, n: NodeId, v: ValueId) -> Option<Vec<f64>> {
    let g = ed.graph();
    let dims = g.dims(g.node(n).outputs[0])?;
    let axis = if matches!(g.node(n).op, Op::Conv(_)) { 1 } else { dims.len() - 1 };
    let channels = usize::try_from(dims[axis].as_const()?).ok()?;
    let c = util::constant(g, v)?;
    let lead = dims.len().checked_sub(c.shape.len())?;
    let only = c.shape.iter().enumerate().all(|(i, d)| *d == 1 || (i + lead == axis && *d == channels));
    let t = only.then(|| c.decode().ok())??.to_f64();
    Some(if t.len() == channels { t } else { vec![*t.first()?; channels] })
}

/// Weights with every output channel multiplied by its factor.
fn scale(op: &Op, t: &Tensor, factor: &dyn Fn(usize) -> f64) -> Result<Tensor, Diag> {
    let mut v = t.to_f64();
    let shape = t.shape().to_vec();
    match op {
        Op::Conv(_) => {
            let per = v.len() / shape[0].max(1);
            for (i, x) in v.iter_mut().enumerate() {
                *x *= factor(i / per.max(1));
            }
        }
        Op::MatMul(m) => {
            let rank = shape.len();
            let (rows, cols) = (shape[rank - 2], shape[rank - 1]);
            for (i, x) in v.iter_mut().enumerate() {
                *x *= factor(if m.trans_b { i / cols % rows } else { i % cols });
            }
        }
        _ => {}
    }
    Tensor::floats(DType::F32, &shape, v)
}
