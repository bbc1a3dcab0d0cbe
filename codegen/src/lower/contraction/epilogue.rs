//! What happens to sums before they are stored: element-wise operations of a fused group, on registers.

use crate::kernel::{Buf, Builder, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::elementwise::{number, scalar_op};
use crate::lower::launch::{KernelCx, Launch};
use planish_ir::op::fused::{Follows, follows};
use planish_ir::{DType, Diag, NodeId, Op, RegionId, ValueId};
use std::collections::HashMap;

/// A place in the result: where a vector of sums goes.
pub(in crate::lower) struct Place {
    /// Element index in the result.
    pub(in crate::lower) index: Val,
    /// Channel (axis 1 of a convolution's result).
    pub(in crate::lower) channel: Val,
    /// Index along the last axis of the first lane; meaningful for matrix products.
    pub(in crate::lower) last: Val,
}

/// Channels along the lanes of a vector of sums.
pub(super) struct Channels {
    /// The first.
    pub(super) first: Val,
    /// Lanes with a channel, where that may not be all.
    pub(super) mask: Option<Val>,
}

/// One element-wise operation.
struct Step {
    op: Op,
    inputs: Vec<ValueId>,
    output: ValueId,
}

/// The operations after a contraction, with their extra operands.
pub(in crate::lower) struct Epilogue {
    /// The node whose result the sums are; none when nothing follows.
    anchor: Option<ValueId>,
    steps: Vec<Step>,
    extras: Vec<(ValueId, Opnd, Follows)>,
    /// Constants of one element.
    literals: Vec<(ValueId, f64)>,
    results: Vec<ValueId>,
    types: HashMap<ValueId, DType>,
    /// The results' memory.
    pub(super) outs: Vec<Opnd>,
    /// Position of the first extra operand and first result among the launch's buffers.
    first: usize,
}

impl Epilogue {
    /// Nothing follows: the sums are stored as they are.
    pub(in crate::lower) fn none(out: Opnd) -> Epilogue {
        Epilogue {
            anchor: None,
            steps: Vec::new(),
            extras: Vec::new(),
            literals: Vec::new(),
            results: Vec::new(),
            types: HashMap::new(),
            outs: vec![out],
            first: 0,
        }
    }

    /// The nodes of a fused region after its contraction `anchor`, whose result has `dims`.
    /// `channel_axis` is the axis that [`Place::channel`] counts. With `blocked`, results and operands of their dims lie in blocks of
    /// channels.
    pub(super) fn of_region(
        cx: &mut LowerCx<'_>,
        region: RegionId,
        anchor: NodeId,
        captures: &HashMap<ValueId, ValueId>,
        channel_axis: Option<usize>,
        blocked: bool,
        outs: Vec<Opnd>,
    ) -> Result<Epilogue, Diag> {
        let g = cx.graph;
        let anchor_value = g.node(anchor).outputs[0];
        let (dtype, dims) = cx.tensor_type(anchor_value)?;
        let mut e = Epilogue {
            anchor: Some(anchor_value),
            steps: Vec::new(),
            extras: Vec::new(),
            literals: Vec::new(),
            results: g.region(region).results.clone(),
            types: HashMap::from([(anchor_value, dtype)]),
            outs,
            first: 0,
        };
        for n in g.nodes_in(region) {
            let node = g.node(n);
            if n == anchor || matches!(node.op, Op::Const(_)) {
                continue;
            }
            for v in node.inputs.iter().flatten() {
                if e.types.contains_key(v) {
                    continue;
                }
                let outer = captures.get(v).copied().unwrap_or(*v);
                let (x_type, x_dims) = cx.tensor_type(outer)?;
                if let Some(x) = number(cx, outer) {
                    e.types.insert(*v, x_type);
                    e.literals.push((*v, x));
                    continue;
                }
                let follows = follows(&x_dims, &dims, channel_axis).ok_or_else(|| {
                    Diag::error("internal-lower", "a fused operand follows no axis of the contraction")
                })?;
                let in_blocks = blocked && follows == Follows::All;
                let x = if in_blocks { cx.blocked(outer)? } else { cx.memory_of(outer)? };
                e.types.insert(*v, x.dtype);
                e.extras.push((*v, x, follows));
            }
            let output = node.outputs[0];
            let (d, _) = cx.tensor_type(output)?;
            e.types.insert(output, d);
            e.steps.push(Step {
                op: node.op.clone(),
                inputs: node.inputs.iter().flatten().copied().collect(),
                output,
            });
        }
        Ok(e)
    }

    /// A launch whose buffers are input, weights, bias if there is one, and those of the epilogue.
    pub(super) fn launch(&mut self, label: &str, x: &Opnd, w: &Opnd, bias: Option<&Opnd>) -> Launch {
        let mut l = Launch::new(label).read(x).read(w);
        if let Some(bias) = bias {
            l = l.read(bias);
        }
        self.bufs(l, 2 + usize::from(bias.is_some()))
    }
    /// Adds the extra operands and the results to a launch that has `first` buffers so far.
    pub(in crate::lower) fn bufs(&mut self, mut l: Launch, first: usize) -> Launch {
        self.first = first;
        for (_, x, _) in &self.extras {
            l = l.read(x);
        }
        for y in &self.outs {
            l = l.write(y);
        }
        l
    }
    /// All buffers of the epilogue, as the kernel sees them.
    pub(in crate::lower) fn handles(&self, k: &KernelCx<'_>) -> Vec<Buf> {
        (0..self.extras.len() + self.outs.len()).map(|i| k.buf(self.first + i)).collect()
    }

    /// Finishes one vector of sums and stores it. `bufs` comes from [`Epilogue::handles`].
    pub(in crate::lower) fn finish(
        &self,
        b: &mut Builder,
        bufs: &[Buf],
        sum: Val,
        at: &Place,
        mask: Option<Val>,
    ) {
        let lanes = b.ty(sum).lanes;
        self.finish_with(b, bufs, sum, at.index, mask, &|b, x, buf, follows| match follows {
            Follows::Nothing => {
                let s = load(b, x, buf, 0, 1, None);
                b.splat(s, lanes)
            }
            Follows::Channel => {
                let s = load(b, x, buf, at.channel, 1, None);
                b.splat(s, lanes)
            }
            Follows::Last => load(b, x, buf, at.last, lanes, mask),
            Follows::All => load(b, x, buf, at.index, lanes, mask),
        });
    }
    /// [`Epilogue::finish`] of sums whose lanes are channels of a block, at element `index` of the blocked result.
    pub(super) fn finish_channels(&self, b: &mut Builder, bufs: &[Buf], sum: Val, index: Val, at: &Channels) {
        let lanes = b.ty(sum).lanes;
        self.finish_with(b, bufs, sum, index, None, &|b, x, buf, follows| match follows {
            Follows::Channel => load(b, x, buf, at.first, lanes, at.mask),
            Follows::All => load(b, x, buf, index, lanes, None),
            Follows::Nothing | Follows::Last => {
                let s = load(b, x, buf, 0, 1, None);
                b.splat(s, lanes)
            }
        });
    }
    fn finish_with(
        &self,
        b: &mut Builder,
        bufs: &[Buf],
        sum: Val,
        index: Val,
        mask: Option<Val>,
        operand: &dyn Fn(&mut Builder, DType, Buf, Follows) -> Val,
    ) {
        let lanes = b.ty(sum).lanes;
        let Some(anchor) = self.anchor else {
            return store(b, self.outs[0].dtype, bufs[0], index, sum, mask);
        };
        let mut env: HashMap<ValueId, Val> = HashMap::from([(anchor, sum)]);
        for (i, (v, x, follows)) in self.extras.iter().enumerate() {
            let value = operand(b, x.dtype, bufs[i], *follows);
            env.insert(*v, value);
        }
        for (v, x) in &self.literals {
            let x = b.float(Ty::vec(compute_elem(self.types[v]), lanes), *x);
            env.insert(*v, x);
        }
        self.evaluate(b, &mut env);
        for (i, (v, out)) in self.results.iter().zip(&self.outs).enumerate() {
            let value = env[v];
            debug_assert_eq!(b.ty(value), Ty::vec(compute_elem(out.dtype), lanes));
            store(b, out.dtype, bufs[self.extras.len() + i], index, value, mask);
        }
    }
    fn evaluate(&self, b: &mut Builder, env: &mut HashMap<ValueId, Val>) {
        for s in &self.steps {
            let vals: Vec<Val> = s.inputs.iter().map(|v| env[v]).collect();
            let types: Vec<DType> = s.inputs.iter().map(|v| self.types[v]).collect();
            let r = scalar_op(b, &s.op, &vals, &types, self.types[&s.output]);
            env.insert(s.output, r);
        }
    }
}
