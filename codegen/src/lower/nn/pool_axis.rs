//! One axis of pooling: where windows lie.

use crate::kernel::{Builder, Val};
use crate::lower::launch::KernelCx;
use planish_ir::op::pool::Pool;

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
}
