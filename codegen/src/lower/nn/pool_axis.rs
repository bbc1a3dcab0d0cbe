//! One axis of pooling: where windows lie.

use crate::kernel::{Builder, Val};
use crate::lower::cx::Opnd;
use crate::lower::launch::{KernelCx, Launch};
use planish_ir::Dim;
use planish_ir::op::pool::Pool;

/// A launch that reads `x` and writes `y`, one of its units being a row of positions along the last spatial axis. Its dims are what
/// [`Axis::read`] reads of every axis.
pub(in crate::lower) fn launch(op: &Pool, x: &Opnd, y: &Opnd) -> Launch {
    let rank = op.kernel.len();
    let window: i64 = op.kernel.iter().fold(1, |n, k| n.saturating_mul(*k));
    let mut l = Launch::new("pool").read(x).write(y);
    for axis in 0..rank {
        let (begin, end) = op.windows().padding(axis, &x.dims[axis + 2], &op.kernel[axis].into());
        l = l.dim(&x.dims[axis + 2]).dim(&y.dims[axis + 2]).dim(&begin).dim(&end);
    }
    let cost = y.dims[rank + 1].mul(&window.into());
    l.extent(Dim::product(&y.dims[..rank + 1])).cost(cost).flops(y.elems().mul(&window.into()))
}

/// One spatial axis.
#[derive(Clone, Copy)]
pub(in crate::lower) struct Axis {
    pub(in crate::lower) input: Val,
    pub(in crate::lower) out: Val,
    pub(in crate::lower) begin: Val,
    pub(in crate::lower) end: Val,
    pub(in crate::lower) kernel: i64,
    pub(in crate::lower) stride: i64,
    pub(in crate::lower) dilation: i64,
}

impl Axis {
    /// Axis `a` of a launch that begins with input, result and padding of every axis.
    pub(in crate::lower) fn read(k: &KernelCx<'_>, op: &Pool, a: usize) -> Axis {
        Axis {
            input: k.dim(4 * a),
            out: k.dim(4 * a + 1),
            begin: k.dim(4 * a + 2),
            end: k.dim(4 * a + 3),
            kernel: op.kernel[a],
            stride: op.strides[a],
            dilation: op.dilations[a],
        }
    }
    /// Where the window at `position` begins in the input.
    pub(in crate::lower) fn start(&self, b: &mut Builder, position: Val) -> Val {
        let start = b.mul(position, self.stride);
        b.sub(start, self.begin)
    }
    /// The first element of the window at `start` that is not before 0.
    pub(in crate::lower) fn first(&self, b: &mut Builder, start: Val) -> Val {
        let before = b.sub(0, start);
        let before = b.smax(before, 0);
        b.ceil_div(before, self.dilation)
    }
    /// One past the last element of the window at `start` that is below `limit`.
    pub(in crate::lower) fn last(&self, b: &mut Builder, start: Val, limit: Val) -> Val {
        let room = b.sub(limit, start);
        let room = b.smax(room, 0);
        let count = b.ceil_div(room, self.dilation);
        b.smin(count, self.kernel)
    }
    /// The part of the window at `position` that lies in the input.
    pub(in crate::lower) fn span(&self, b: &mut Builder, op: &Pool, position: Val) -> Span {
        let start = self.start(b, position);
        let first = self.first(b, start);
        let last = self.last(b, start, self.input);
        let counted = if op.count_include_pad {
            let limit = b.add(self.input, self.end);
            self.last(b, start, limit)
        } else {
            let n = b.sub(last, first);
            b.smax(n, 0)
        };
        Span { start, first, last, counted }
    }
}

/// The part of a window along one axis that lies in the input.
pub(in crate::lower) struct Span {
    /// Input position of the window's first element, which may be outside.
    pub(in crate::lower) start: Val,
    /// The first element of the window that is inside, and one past the last.
    pub(in crate::lower) first: Val,
    pub(in crate::lower) last: Val,
    /// Elements that an average counts.
    pub(in crate::lower) counted: Val,
}
