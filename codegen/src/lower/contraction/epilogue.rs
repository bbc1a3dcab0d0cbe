//! What happens to sums before they are stored: element-wise operations of a fused group, on registers.

use crate::kernel::{Buf, Builder, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::elementwise::{literal, number, scalar_op};
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::layout;
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
#[derive(Clone)]
struct Step {
    op: Op,
    inputs: Vec<ValueId>,
    output: ValueId,
}

/// The operations after a contraction, with their extra operands.
#[derive(Clone)]
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
        Epilogue { outs: vec![out], ..Epilogue::unplaced() }
    }
    /// Nothing follows, and where the sums go is not known yet.
    pub(super) fn unplaced() -> Epilogue {
        Epilogue {
            anchor: None,
            steps: Vec::new(),
            extras: Vec::new(),
            literals: Vec::new(),
            results: Vec::new(),
            types: HashMap::new(),
            outs: Vec::new(),
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
                // Operands without the leading axes of size 1 have their channels elsewhere.
                let short = in_blocks && x_dims.len() < dims.len();
                let single = dims.iter().skip(2).all(|d| d.is(1));
                let (x, follows) = match (in_blocks, short) {
                    (false, _) => (cx.memory_of(outer)?, follows),
                    (true, false) => (cx.blocked(outer)?, follows),
                    (true, true) if single => (cx.memory_of(outer)?, Follows::Channel),
                    (true, true) => {
                        let x = cx.memory_of(outer)?.with_dims(dims.clone());
                        (layout::to_blocked(cx, &x)?, follows)
                    }
                };
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

    /// The number of buffers of the launch up to and including those of the epilogue.
    pub(super) fn end(&self) -> usize {
        self.first + self.extras.len() + self.outs.len()
    }
    /// Whether one result at most comes of each sum.
    pub(super) fn has_one_result(&self) -> bool {
        self.results.len() <= 1
    }
    /// Whether an operand differs from position to position.
    pub(super) fn follows_positions(&self) -> bool {
        self.extras.iter().any(|(_, _, f)| !matches!(f, Follows::Channel | Follows::Nothing))
    }

    /// Whether an operand has an element for each of the results.
    pub(super) fn follows_all(&self) -> bool {
        self.extras.iter().any(|(_, _, f)| *f == Follows::All)
    }
    /// Asks for the line of element `index` of the results and of the operands that have as many elements.
    pub(super) fn prefetch(&self, b: &mut Builder, bufs: &[Buf], index: Val) {
        for (i, (_, _, follows)) in self.extras.iter().enumerate() {
            if *follows == Follows::All {
                b.prefetch(bufs[i], index);
            }
        }
        for buf in &bufs[self.extras.len()..] {
            b.prefetch(*buf, index);
        }
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
        self.finish_with(b, bufs, sum, index, None, &|b, x, buf, follows| match follows {
            Follows::All => load(b, x, buf, index, b.ty(sum).lanes, None),
            _ => along_channels(b, x, buf, b.ty(sum).lanes, follows, at),
        });
    }
    /// What one vector of sums whose lanes are channels becomes, where that does not depend on the position.
    pub(super) fn channels(&self, b: &mut Builder, bufs: &[Buf], sum: Val, at: &Channels) -> Val {
        let lanes = b.ty(sum).lanes;
        let results = self
            .results_of(b, bufs, sum, &|b, x, buf, follows| along_channels(b, x, buf, lanes, follows, at));
        results.first().copied().unwrap_or(sum)
    }
    fn finish_with(
        &self,
        b: &mut Builder,
        bufs: &[Buf],
        sum: Val,
        index: Val,
        mask: Option<Val>,
        operand: &Operand<'_>,
    ) {
        let results = self.results_of(b, bufs, sum, operand);
        for (i, (value, out)) in results.into_iter().zip(&self.outs).enumerate() {
            debug_assert_eq!(b.ty(value).elem, compute_elem(out.dtype));
            store(b, out.dtype, bufs[self.extras.len() + i], index, value, mask);
        }
    }
    /// What becomes of one vector of sums. `operand` loads an extra operand.
    fn results_of(&self, b: &mut Builder, bufs: &[Buf], sum: Val, operand: &Operand<'_>) -> Vec<Val> {
        let lanes = b.ty(sum).lanes;
        let Some(anchor) = self.anchor else { return vec![sum] };
        let mut env: HashMap<ValueId, Val> = HashMap::from([(anchor, sum)]);
        for (i, (v, x, follows)) in self.extras.iter().enumerate() {
            let value = operand(b, x.dtype, bufs[i], *follows);
            env.insert(*v, value);
        }
        for (v, x) in &self.literals {
            let x = literal(b, Ty::vec(compute_elem(self.types[v]), lanes), *x);
            env.insert(*v, x);
        }
        self.evaluate(b, &mut env);
        self.results.iter().map(|v| env[v]).collect()
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

/// Loads an extra operand for a vector of sums.
type Operand<'o> = dyn Fn(&mut Builder, DType, Buf, Follows) -> Val + 'o;

/// An operand that does not depend on the position, for a vector of channels.
fn along_channels(b: &mut Builder, x: DType, buf: Buf, lanes: u16, follows: Follows, at: &Channels) -> Val {
    if follows == Follows::Channel {
        return load(b, x, buf, at.first, lanes, at.mask);
    }
    let s = load(b, x, buf, 0, 1, None);
    b.splat(s, lanes)
}
