//! Masks that are the same whenever a kernel runs.

use super::Emitter;
use planish_codegen::kernel::{Block, CastOp, Kernel, Op, Val, int_bin, int_cmp, sext};

/// How many operations deep a mask is looked into.
const DEPTH: usize = 12;

/// The lanes that a mask always selects.
pub(super) enum Fixed {
    None,
    One(u16),
    All,
}

/// The operation that defines each value.
pub(super) fn definitions(k: &Kernel) -> Vec<Option<&Op>> {
    fn walk<'k>(b: &'k Block, defs: &mut [Option<&'k Op>]) {
        for inst in &b.insts {
            if let [out] = inst.outs[..] {
                defs[out.index()] = Some(&inst.op);
            }
            for nested in inst.op.blocks() {
                walk(nested, defs);
            }
        }
    }
    let mut defs = vec![None; k.vals.len()];
    walk(&k.body, &mut defs);
    defs
}

impl Emitter<'_> {
    /// Which lanes a mask selects, when that is a single one or no question at all.
    ///
    /// LLVM 22 stores all bytes of a vector register's lane when it narrows a value and stores it under a constant mask of
    /// one lane (the element before narrowing reaches the store of one element), so such a store must not become a masked
    /// store.
    pub(super) fn fixed_mask(&self, mask: Val) -> Option<Fixed> {
        let lanes = self.lanes_of(mask, DEPTH)?;
        let mut set = (0u16..).zip(&lanes).filter(|(_, bit)| **bit != 0).map(|(i, _)| i);
        match (set.next(), set.next()) {
            (None, _) => Some(Fixed::None),
            (Some(_), _) if lanes.iter().all(|bit| *bit != 0) => Some(Fixed::All),
            (Some(i), None) => Some(Fixed::One(i)),
            _ => None,
        }
    }

    /// The bit pattern of each lane of an integer that is made of constants.
    fn lanes_of(&self, v: Val, depth: usize) -> Option<Vec<u64>> {
        let t = self.ty_of(v);
        if t.elem.is_float() || depth == 0 {
            return None;
        }
        let n = usize::from(t.lanes);
        let (width, low) = (t.elem.bits(), t.elem.mask());
        let of = |v: Val| self.lanes_of(v, depth - 1);
        let each = |a: Val, b: Val, f: &dyn Fn(u64, u64) -> Option<u64>| {
            of(a)?.into_iter().zip(of(b)?).map(|(x, y)| f(x, y)).collect::<Option<Vec<u64>>>()
        };
        match self.defs[v.index()]? {
            Op::Const(bits) => Some(if let [one] = bits[..] { vec![one & low; n] } else { bits.clone() }),
            Op::Iota => Some((0..n as u64).map(|i| i & low).collect()),
            Op::Splat(a) => Some(vec![*of(*a)?.first()?; n]),
            Op::Binary(o, a, b) => each(*a, *b, &|x, y| int_bin(*o, x, y, width)),
            Op::Cast(CastOp::Zext | CastOp::Trunc, a) => Some(of(*a)?.into_iter().map(|x| x & low).collect()),
            Op::Cast(CastOp::Sext, a) => {
                let from = self.ty_of(*a).elem.bits();
                Some(of(*a)?.into_iter().map(|x| sext(x, from).cast_unsigned() & low).collect())
            }
            Op::Cmp(o, a, b) => {
                let from = self.ty_of(*a).elem.bits();
                each(*a, *b, &|x, y| int_cmp(*o, x, y, from).map(u64::from))
            }
            _ => None,
        }
    }
}
