//! One result per element.

use super::Grid;
use crate::kernel::{Buf, Builder, Elem, Kernel, Val};

/// Threads of a block.
pub const THREADS: u32 = 256;

/// `out[i] = f(in0[i], in1[i], ..)` for `i < n`; parameters: the inputs, `out`, `n`. Any grid works (grid-stride loop); see
/// [`grid`].
pub fn elementwise(
    name: &str,
    inputs: &[Elem],
    output: Elem,
    f: impl FnOnce(&mut Builder, &[Val]) -> Val,
) -> Kernel {
    let mut b = Builder::simt(name, [THREADS, 1, 1]);
    let ins: Vec<Buf> = inputs.iter().enumerate().map(|(i, e)| b.input(&format!("in{i}"), *e)).collect();
    let out = b.output("out", output);
    let n = b.scalar("n");
    b.grid_for(n, |b, i| {
        let vals: Vec<Val> = ins.iter().map(|&x| b.load(x, i, 1)).collect();
        let v = f(b, &vals);
        b.store(out, i, v);
    });
    b.finish()
}

/// One element per thread, up to 65535 blocks.
pub fn grid(n: u64) -> Grid {
    let blocks = n.div_ceil(u64::from(THREADS)).clamp(1, 65535);
    [blocks as u32, 1, 1]
}
