//! Random programs: nested control, carried values, memory, everything reproducible from a seed.

use super::{Case, Input, Rng, values};
use crate::kernel::build::Builder;
use crate::kernel::inst::{BinOp, CastOp, CmpOp, UnOp};
use crate::kernel::rules::{bin_allows, un_allows};
use crate::kernel::types::{Buf, Elem, Ty, Val};

/// Elements of each buffer; a power of two, so that an index is made safe by a bit mask.
const LEN: i64 = 64;
const ELEMS: [Elem; 6] = [Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F32, Elem::F64];

struct Gen {
    rng: Rng,
    lanes: u16,
    bufs: Vec<(Elem, Buf)>,
    budget: usize,
}

/// Values in scope.
type Pool = Vec<Val>;

/// The program of a seed, with vectors of `lanes` lanes.
pub fn case(seed: u64, lanes: u16) -> Case {
    let mut rng = Rng(seed);
    let mut b = Builder::cpu(&format!("random_{seed}x{lanes}"));
    let bufs: Vec<(Elem, Buf)> = ELEMS.iter().map(|&e| (e, b.inout(&format!("m_{e}"), e))).collect();
    let s = b.scalar("s");
    let s_value = (rng.next_u64() >> 40).cast_signed() % 1000;
    let inputs: Vec<Input> = ELEMS
        .iter()
        .map(|&e| Input::Bytes(values(e, LEN as usize, 0, &mut rng)))
        .chain([Input::Scalar(s_value)])
        .collect();
    let mut g = Gen { rng, lanes, bufs, budget: 60 };
    b.parallel_for(|b, i| {
        let mut pool = vec![s, i];
        for k in 0..ELEMS.len() {
            let (_, buf) = g.bufs[k];
            pool.push(b.load(buf, 0, lanes));
            pool.push(b.load(buf, 3, 1));
        }
        g.statements(b, &mut pool, 0);
        // Everything that is left in scope becomes visible.
        for v in pool {
            let t = b.ty(v);
            if t.elem == Elem::I1 {
                let any = b.any(v);
                b.error_if(any, 3);
            } else if let Some(&(_, buf)) = g.bufs.iter().find(|(e, _)| *e == t.elem) {
                let at = (g.rng.below((LEN - i64::from(t.lanes)) as usize + 1)) as i64;
                b.store(buf, at, v);
            }
        }
    });
    Case { kernel: b.finish(), inputs, lo: 0, hi: 2, sections: vec![], tolerance: 0.0 }
}

impl Gen {
    fn of(&mut self, b: &Builder, pool: &Pool, want: impl Fn(Ty) -> bool) -> Option<Val> {
        let fit: Vec<Val> = pool.iter().copied().filter(|&v| want(b.ty(v))).collect();
        (!fit.is_empty()).then(|| *self.rng.pick(&fit))
    }

    /// An in-bounds first index for an access of `lanes` elements.
    fn index(&mut self, b: &mut Builder, pool: &Pool, lanes: u16) -> Val {
        let room = LEN - i64::from(lanes);
        let v = self.of(b, pool, |t| t == Ty::I64);
        match v {
            Some(v) => {
                let low = b.and(v, LEN - 1);
                b.smin(low, room)
            }
            None => b.i64(room),
        }
    }

    fn statements(&mut self, b: &mut Builder, pool: &mut Pool, depth: usize) {
        let n = 4 + self.rng.below(8);
        for _ in 0..n {
            if self.budget == 0 {
                return;
            }
            self.budget -= 1;
            self.statement(b, pool, depth);
        }
    }

    fn statement(&mut self, b: &mut Builder, pool: &mut Pool, depth: usize) {
        let Some(x) = self.of(b, pool, |t| t.elem != Elem::I1) else { return };
        let t = b.ty(x);
        let y = self.of(b, pool, |u| u == t).unwrap_or(x);
        match self.rng.below(if depth < 3 { 16 } else { 13 }) {
            0..=3 => {
                let ops: Vec<BinOp> = BinOp::ALL.into_iter().filter(|o| bin_allows(*o, t.elem)).collect();
                let o = *self.rng.pick(&ops);
                pool.push(b.bin(o, x, y));
            }
            4 => {
                let ops: Vec<UnOp> = UnOp::ALL.into_iter().filter(|o| un_allows(*o, t.elem)).collect();
                let o = *self.rng.pick(&ops);
                pool.push(b.unary(o, x));
            }
            5 => {
                let float = t.elem.is_float();
                let ops: Vec<CmpOp> = CmpOp::ALL.into_iter().filter(|o| o.is_float() == float).collect();
                let o = *self.rng.pick(&ops);
                pool.push(b.cmp(o, x, y));
            }
            6 => {
                if let Some(c) =
                    self.of(b, pool, |u| u.elem == Elem::I1 && (u.is_scalar() || u.lanes == t.lanes))
                {
                    pool.push(b.select(c, x, y));
                }
            }
            7 => {
                let to = *self.rng.pick(&ELEMS);
                let ops: Vec<CastOp> = CastOp::ALL
                    .into_iter()
                    .filter(|o| *o != CastOp::Bitcast && o.allows(t, t.with_elem(to)))
                    .collect();
                if !ops.is_empty() {
                    let o = *self.rng.pick(&ops);
                    pool.push(b.cast(o, x, to));
                }
            }
            8 => {
                let mask: Vec<u16> =
                    (0..t.lanes).map(|_| self.rng.below(2 * usize::from(t.lanes)) as u16).collect();
                pool.push(b.shuffle(x, y, &mask));
                let lane = self.rng.below(t.lanes.into()) as u16;
                let s = b.extract(x, lane);
                pool.push(b.splat(s, self.lanes));
                pool.push(s);
            }
            9 => {
                // Reassociation changes nothing for integers; float trees are defined.
                let ops: Vec<BinOp> =
                    BinOp::ALL.into_iter().filter(|o| o.is_reduction() && bin_allows(*o, t.elem)).collect();
                let o = *self.rng.pick(&ops);
                pool.push(b.reduce(o, x));
            }
            10 => {
                let (_, buf) = self.bufs[self.rng.below(self.bufs.len())];
                let lanes = if self.rng.below(2) == 0 { 1 } else { self.lanes };
                let at = self.index(b, pool, lanes);
                pool.push(b.load(buf, at, lanes));
            }
            11 => {
                let buf = self.bufs.iter().find(|(e, _)| *e == t.elem).map(|p| p.1);
                let mask = self.of(b, pool, |u| u == t.with_elem(Elem::I1));
                if let Some(buf) = buf {
                    let at = self.index(b, pool, t.lanes);
                    b.store_opt(buf, at, x, mask);
                }
            }
            12 => {
                if let Some(c) = self.of(b, pool, |u| u == Ty::BOOL) {
                    let both = self.of(b, pool, |u| u == Ty::BOOL).unwrap_or(c);
                    let c = b.xor(c, both);
                    b.error_if(c, 1 + self.rng.below(9) as i32);
                }
            }
            13 => {
                let trip = self.rng.below(5) as i64;
                let step = 1 + self.rng.below(3) as i64;
                let lo = self.of(b, pool, |u| u == Ty::I64);
                let lo = match lo {
                    Some(v) => b.and(v, 15),
                    None => b.i64(0),
                };
                let hi = b.add(lo, trip);
                let init = vec![x, y];
                let outer = pool.clone();
                let r = b.for_(lo, hi, step, &init, |b, i, c| {
                    let mut pool = outer;
                    pool.push(i);
                    pool.extend(c);
                    self.statements(b, &mut pool, depth + 1);
                    self.last_two(b, &pool, t)
                });
                pool.extend(r);
            }
            14 => {
                if let Some(c) = self.of(b, pool, |u| u == Ty::BOOL) {
                    let (p1, p2) = (pool.clone(), pool.clone());
                    let cell = std::cell::RefCell::new(self);
                    let arm = |b: &mut Builder, mut p: Pool| {
                        let mut g = cell.borrow_mut();
                        g.statements(b, &mut p, depth + 1);
                        g.last_two(b, &p, t)
                    };
                    let r = b.if_(c, |b| arm(b, p1), |b| arm(b, p2));
                    pool.extend(r);
                }
            }
            _ => {
                let limit = self.rng.below(4) as i64;
                let zero = b.i64(0);
                let outer = pool.clone();
                let r = b.while_(
                    &[zero, x],
                    |b, c| b.cmp(CmpOp::Slt, c[0], limit),
                    |b, c| {
                        let mut p = outer;
                        p.extend(c);
                        self.statements(b, &mut p, depth + 1);
                        let next = b.add(c[0], 1);
                        let v = self.last_two(b, &p, t);
                        vec![next, v[0]]
                    },
                );
                pool.push(r[1]);
            }
        }
    }

    /// The newest values of type `t`; there is always one, as the block got one.
    fn last_two(&mut self, b: &Builder, pool: &Pool, t: Ty) -> Vec<Val> {
        let fit: Vec<Val> = pool.iter().copied().rev().filter(|&v| b.ty(v) == t).collect();
        vec![fit[0], fit[fit.len() / 2]]
    }
}
