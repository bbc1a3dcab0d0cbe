//! Loads, stores, masks, gathers and scatters, with sizes that leave tails.

use super::{Case, Input, Rng, values};
use crate::kernel::types::{Elem, Ty};
use crate::kernel::{Builder, CmpOp};

/// Copies of `size` elements in vectors of `lanes`, by masked loads and stores, gathers and scatters.
pub fn cases(lanes: u16, sizes: &[usize]) -> Vec<Case> {
    let mut out = Vec::new();
    for e in Elem::ALL {
        let kernel = copies(e, lanes);
        for &n in sizes {
            let mut rng = Rng(n as u64);
            let src = values(e, n, 0, &mut rng);
            let index: Vec<u8> =
                (0..n).flat_map(|_| ((rng.next_u64() % n.max(1) as u64) as u32).to_le_bytes()).collect();
            let flags: Vec<u8> = (0..n).map(|_| (rng.next_u64() & 1) as u8).collect();
            out.push(Case {
                kernel: kernel.clone(),
                inputs: vec![
                    Input::Bytes(src),
                    Input::Bytes(index),
                    Input::Bytes(flags),
                    Input::Scalar(n as i64),
                    Input::Bytes(vec![0x5A; 5 * n * e.bytes()]),
                ],
                lo: 0,
                hi: 1,
                sections: ["copy", "flagged", "gather", "gather flagged", "scatter flagged"]
                    .map(|s| (s.to_string(), n))
                    .into(),
                tolerance: 0.0,
            });
        }
    }
    out
}

fn copies(e: Elem, lanes: u16) -> crate::kernel::Kernel {
    let mut b = Builder::cpu(&format!("mem_{e}x{lanes}"));
    let src = b.input("src", e);
    let index = b.input("index", Elem::I32);
    let flags = b.input("flags", Elem::I1);
    let n = b.scalar("n");
    let out = b.output("out", e);
    let ty = Ty::vec(e, lanes);
    b.parallel_for(|b, _| {
        b.for_lanes(0, n, lanes, |b, i, mask| {
            let all = b.int(Ty::vec(Elem::I1, lanes), 1);
            let inside = mask.unwrap_or(all);
            let v = b.load_opt(src, i, lanes, mask);
            b.store_opt(out, i, v, mask);
            let flag = b.load_opt(flags, i, lanes, mask);
            let both = b.and(flag, inside);
            let section = |b: &mut Builder, k: i64| {
                let base = b.mul(n, k);
                b.add(base, i)
            };
            let pass = b.const_bits(ty, 1);
            let v = b.load_masked(src, i, both, pass);
            let at = section(b, 1);
            b.store_masked(out, at, v, inside);
            let idx = b.load_opt(index, i, lanes, mask);
            let v = match mask {
                None => b.gather(src, idx),
                Some(m) => b.gather_masked(src, idx, m, pass),
            };
            let at = section(b, 2);
            b.store_opt(out, at, v, mask);
            let wide = b.sext(idx, Elem::I64);
            let v = b.gather_masked(src, wide, both, pass);
            let at = section(b, 3);
            b.store_masked(out, at, v, inside);
            let base = b.mul(n, 4);
            let to = b.add(wide, base);
            b.prefetch(src, i);
            b.scatter(out, to, v, Some(both));
        });
    });
    b.finish()
}

/// Stores of narrowed values under masks that are constants. Elements outside the mask keep what they had.
pub fn narrowed(lanes: u16) -> Vec<Case> {
    let pairs = [
        (Elem::I64, Elem::I8),
        (Elem::I64, Elem::I32),
        (Elem::I32, Elem::I8),
        (Elem::I32, Elem::I16),
        (Elem::I32, Elem::I1),
        (Elem::I16, Elem::I8),
        (Elem::F64, Elem::F32),
        (Elem::F32, Elem::F16),
        (Elem::F32, Elem::BF16),
    ];
    let mut out = Vec::new();
    for (wide, narrow) in pairs {
        for (low, high) in [(0, 0), (0, 1), (0, 2), (1, 2), (lanes - 1, lanes), (0, lanes)] {
            let mut b = Builder::cpu(&format!("narrow_{wide}_{narrow}x{lanes}_{low}_{high}"));
            let src = b.input("src", wide);
            let dst = b.output("dst", narrow);
            b.parallel_for(|b, i| {
                let v = b.load_opt(src, i, lanes, None);
                let v = if wide.is_float() { b.fptrunc(v, narrow) } else { b.trunc(v, narrow) };
                let iota = b.iota(Ty::vec(Elem::I32, lanes));
                let (low, high) = (
                    b.int(Ty::vec(Elem::I32, lanes), i64::from(low)),
                    b.int(Ty::vec(Elem::I32, lanes), i64::from(high)),
                );
                let (above, below) = (b.cmp(CmpOp::Sge, iota, low), b.cmp(CmpOp::Slt, iota, high));
                let mask = b.and(above, below);
                b.store_masked(dst, i, v, mask);
            });
            let n = usize::from(lanes);
            out.push(Case {
                kernel: b.finish(),
                inputs: vec![
                    Input::Bytes(values(wide, n, 0, &mut Rng(n as u64))),
                    Input::Bytes(vec![1; n * narrow.bytes()]),
                ],
                lo: 0,
                hi: 1,
                sections: vec![("stored".to_string(), n)],
                tolerance: 0.0,
            });
        }
    }
    out
}
