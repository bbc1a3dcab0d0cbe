//! Planted compiler bugs: changes of lowered kernels that stand for mistakes in a builder or an emitter. The random
//! graphs must notice them. Bugs live here and not in the compiler, so nothing of them can leak into a release.

use crate::rng::Rng;
use planish_codegen::kernel::{BinOp, Block, CastOp, CmpOp, Elem, Inst, Kernel, Op, Ty, UnOp, Val};

macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $bug:ident,)*) => {
        /// A kind of mistake.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug { $($(#[doc = $doc])* $bug,)* }
        impl Bug {
            /// Every kind.
            pub const ALL: &'static [Bug] = &[$(Bug::$bug,)*];
        }
    };
}

bugs! {
    /// An index is multiplied by one more than the stride.
    WrongStride,
    /// A load begins one element late.
    WrongOffset,
    /// The second term of a floating-point sum is forgotten.
    DroppedBias,
    /// A loop ends one iteration early.
    ShortLoop,
    /// A loop begins one iteration late.
    LateLoop,
    /// A loop advances twice as far as it does work.
    WideStep,
    /// A masked access touches all lanes.
    MissingMask,
    /// The operands of a subtraction, division or comparison are exchanged.
    SwappedOperands,
    /// A comparison excludes or includes equality wrongly.
    WrongPredicate,
    /// A selection takes the other side.
    WrongSelect,
    /// An accumulator starts from 1 rather than from 0 or the least value.
    WrongStart,
    /// A product is stored over the accumulator rather than added.
    LostAccumulator,
    /// A result is not stored.
    SkippedStore,
    /// Signed numbers are read as unsigned.
    WrongSign,
    /// A minimum where a maximum belongs.
    MaxForMin,
    /// Rounding towards zero where it should be down, up, or to nearest.
    WrongRounding,
}

/// Plants a bug at one place of the kernel that `rng` chooses; false when it has none.
pub fn plant(kernel: &mut Kernel, bug: Bug, rng: &mut Rng) -> bool {
    let sites = visit(kernel, bug, usize::MAX);
    sites > 0 && {
        let site = rng.below(sites);
        visit(kernel, bug, site);
        true
    }
}

/// Counts the places where the bug fits, and plants it at number `site`.
fn visit(kernel: &mut Kernel, bug: Bug, site: usize) -> usize {
    let mut body = std::mem::take(&mut kernel.body);
    let mut walk = Walk { vals: &mut kernel.vals, bug, site, seen: 0 };
    walk.block(&mut body);
    let seen = walk.seen;
    kernel.body = body;
    seen
}

struct Walk<'k> {
    vals: &'k mut Vec<Ty>,
    bug: Bug,
    site: usize,
    seen: usize,
}

/// What a bug makes of an instruction.
enum Change {
    /// This instead, after instructions that it needs.
    Replace(Vec<Inst>, Op),
    /// Nothing; uses of its result take this value.
    Forward(Val),
    /// Nothing.
    Remove,
}

impl Walk<'_> {
    fn block(&mut self, block: &mut Block) {
        let mut i = 0;
        while i < block.insts.len() {
            match &mut block.insts[i].op {
                Op::For { body, .. } => self.block(body),
                Op::If { then, other, .. } => {
                    self.block(then);
                    self.block(other);
                }
                Op::While { cond, body, .. } => {
                    self.block(cond);
                    self.block(body);
                }
                _ => {}
            }
            let before = block.insts[..i].to_vec();
            if let Some(change) = self.change(&before, &block.insts[i]) {
                let here = self.seen == self.site;
                self.seen += 1;
                if here {
                    i = apply(block, i, change);
                }
            }
            i += 1;
        }
    }

    fn new_val(&mut self, ty: Ty) -> Val {
        self.vals.push(ty);
        Val::from_index(self.vals.len() as u32 - 1)
    }

    fn ty(&self, v: Val) -> Ty {
        self.vals[v.index()]
    }

    /// A constant of this type, with the instruction that defines it. The value table only grows at the chosen site.
    fn constant(&mut self, ty: Ty, bits: u64) -> (Inst, Val) {
        let v = if self.seen == self.site { self.new_val(ty) } else { Val::from_index(0) };
        (Inst { outs: vec![v], op: Op::Const(vec![bits]) }, v)
    }

    /// `a op 1` with the instructions that compute it.
    fn with_one(&mut self, op: BinOp, a: Val) -> (Vec<Inst>, Val) {
        let (one, v) = self.constant(Ty::I64, 1);
        let out = if self.seen == self.site { self.new_val(Ty::I64) } else { Val::from_index(0) };
        (vec![one, Inst { outs: vec![out], op: Op::Binary(op, a, v) }], out)
    }

    fn change(&mut self, before: &[Inst], inst: &Inst) -> Option<Change> {
        let replace = |op| Some(Change::Replace(Vec::new(), op));
        let op = &inst.op;
        match self.bug {
            Bug::WrongStride => {
                let Op::Binary(BinOp::Mul, a, b) = op else { return None };
                let stride = number(before, *b)?;
                if self.ty(*b) != Ty::I64 || stride < 2 {
                    return None;
                }
                let (inst, v) = self.constant(Ty::I64, stride + 1);
                Some(Change::Replace(vec![inst], Op::Binary(BinOp::Mul, *a, v)))
            }
            Bug::WrongOffset => {
                let Op::Load { buf, idx, align: _, mask } = op else { return None };
                let (insts, idx) = self.with_one(BinOp::Add, *idx);
                let align = self.ty(*inst.outs.first()?).elem.bytes() as u32;
                Some(Change::Replace(insts, Op::Load { buf: *buf, idx, align, mask: *mask }))
            }
            Bug::DroppedBias => match op {
                Op::Binary(BinOp::FAdd, a, _) => Some(Change::Forward(*a)),
                _ => None,
            },
            Bug::ShortLoop | Bug::LateLoop | Bug::WideStep => {
                let Op::For { axis, lo, hi, step, init, body } = op else { return None };
                let (insts, (lo, hi, step)) = match self.bug {
                    Bug::ShortLoop => {
                        let (insts, hi) = self.with_one(BinOp::Sub, *hi);
                        (insts, (*lo, hi, *step))
                    }
                    Bug::LateLoop => {
                        let (insts, lo) = self.with_one(BinOp::Add, *lo);
                        (insts, (lo, *hi, *step))
                    }
                    _ => {
                        let out = if self.seen == self.site { self.new_val(Ty::I64) } else { *step };
                        let double = Inst { outs: vec![out], op: Op::Binary(BinOp::Add, *step, *step) };
                        (vec![double], (*lo, *hi, out))
                    }
                };
                let (init, body) = (init.clone(), body.clone());
                Some(Change::Replace(insts, Op::For { axis: *axis, lo, hi, step, init, body }))
            }
            Bug::MissingMask => match op.clone() {
                Op::Load { buf, idx, align, mask: Some(_) } => {
                    replace(Op::Load { buf, idx, align, mask: None })
                }
                Op::Store { buf, idx, val, align, mask: Some(_) } => {
                    replace(Op::Store { buf, idx, val, align, mask: None })
                }
                Op::Gather { buf, idx, mask: Some(_) } => replace(Op::Gather { buf, idx, mask: None }),
                Op::Scatter { buf, idx, val, mask: Some(_) } => {
                    replace(Op::Scatter { buf, idx, val, mask: None })
                }
                _ => None,
            },
            Bug::SwappedOperands => match op {
                Op::Binary(o @ (BinOp::Sub | BinOp::FSub | BinOp::FDiv | BinOp::SDiv), a, b) => {
                    replace(Op::Binary(*o, *b, *a))
                }
                Op::Cmp(o, a, b) if !matches!(o, CmpOp::Eq | CmpOp::Ne | CmpOp::FEq | CmpOp::FNe) => {
                    replace(Op::Cmp(*o, *b, *a))
                }
                _ => None,
            },
            Bug::WrongPredicate => {
                let Op::Cmp(o, a, b) = op else { return None };
                use CmpOp::*;
                let other = match o {
                    Slt => Sle,
                    Sle => Slt,
                    Sgt => Sge,
                    Sge => Sgt,
                    Ult => Ule,
                    Ule => Ult,
                    Ugt => Uge,
                    Uge => Ugt,
                    FLt => FLe,
                    FLe => FLt,
                    FGt => FGe,
                    FGe => FGt,
                    Eq => Ne,
                    FEq => FNe,
                    _ => return None,
                };
                replace(Op::Cmp(other, *a, *b))
            }
            Bug::WrongSelect => match op {
                Op::Select(c, a, b) if a != b => replace(Op::Select(*c, *b, *a)),
                _ => None,
            },
            Bug::WrongStart => {
                let Op::For { axis, lo, hi, step, init, body } = op else { return None };
                let at = init.iter().position(|v| number(before, *v).is_some())?;
                let ty = self.ty(init[at]);
                let one = match ty.elem {
                    Elem::F32 => u64::from(1f32.to_bits()),
                    Elem::F64 => 1f64.to_bits(),
                    e if e.is_int() => 1,
                    _ => return None,
                };
                let (inst, v) = self.constant(ty, one);
                let (mut init, body) = (init.clone(), body.clone());
                init[at] = v;
                let changed = Op::For { axis: *axis, lo: *lo, hi: *hi, step: *step, init, body };
                Some(Change::Replace(vec![inst], changed))
            }
            Bug::LostAccumulator => match op {
                Op::Fma(a, b, _) => replace(Op::Binary(BinOp::FMul, *a, *b)),
                _ => None,
            },
            Bug::SkippedStore => match op {
                Op::Store { .. } | Op::Scatter { .. } => Some(Change::Remove),
                _ => None,
            },
            Bug::WrongSign => match op {
                Op::Cast(CastOp::Sext, a) => replace(Op::Cast(CastOp::Zext, *a)),
                Op::Cast(CastOp::SiToFp, a) => replace(Op::Cast(CastOp::UiToFp, *a)),
                Op::Cast(CastOp::FpToSi, a) => replace(Op::Cast(CastOp::FpToUi, *a)),
                _ => None,
            },
            Bug::MaxForMin => {
                let Op::Binary(o, a, b) = op else { return None };
                use BinOp::*;
                let other = match o {
                    SMin => SMax,
                    SMax => SMin,
                    UMin => UMax,
                    UMax => UMin,
                    FMin => FMax,
                    FMax => FMin,
                    FMinNum => FMaxNum,
                    FMaxNum => FMinNum,
                    _ => return None,
                };
                replace(Op::Binary(other, *a, *b))
            }
            Bug::WrongRounding => match op {
                Op::Unary(UnOp::Floor | UnOp::Ceil | UnOp::RoundEven, a) => {
                    replace(Op::Unary(UnOp::Trunc, *a))
                }
                _ => None,
            },
        }
    }
}

/// The number that a value defined in `before` is, if it is a constant with one bit pattern.
fn number(before: &[Inst], v: Val) -> Option<u64> {
    let inst = before.iter().rev().find(|inst| inst.outs.contains(&v))?;
    match (&inst.op, inst.outs.as_slice()) {
        (Op::Const(bits), [_]) => bits.first().copied().filter(|b| bits.iter().all(|x| x == b)),
        (Op::Splat(a), _) => number(before, *a),
        _ => None,
    }
}

/// Changes instruction `i`; the index of the last instruction that stands for it.
fn apply(block: &mut Block, i: usize, change: Change) -> usize {
    match change {
        Change::Replace(insts, op) => {
            block.insts[i].op = op;
            let added = insts.len();
            block.insts.splice(i..i, insts);
            i + added
        }
        Change::Forward(v) => {
            if let Some(out) = block.insts[i].outs.first().copied() {
                rename(&mut block.insts[i + 1..], out, v);
                block.yields.iter_mut().filter(|y| **y == out).for_each(|y| *y = v);
            }
            block.insts.remove(i);
            i.saturating_sub(1)
        }
        Change::Remove => {
            block.insts.remove(i);
            i.saturating_sub(1)
        }
    }
}

fn rename_block(block: &mut Block, from: Val, to: Val) {
    rename(&mut block.insts, from, to);
    block.yields.iter_mut().filter(|y| **y == from).for_each(|y| *y = to);
}

/// Makes every use of `from` a use of `to`.
fn rename(insts: &mut [Inst], from: Val, to: Val) {
    for inst in insts {
        for v in operands(&mut inst.op) {
            if *v == from {
                *v = to;
            }
        }
        match &mut inst.op {
            Op::For { body, .. } => rename_block(body, from, to),
            Op::If { then, other, .. } => {
                rename_block(then, from, to);
                rename_block(other, from, to);
            }
            Op::While { cond, body, .. } => {
                rename_block(cond, from, to);
                rename_block(body, from, to);
            }
            _ => {}
        }
    }
}

/// The operands of an instruction, those of nested blocks left out.
fn operands(op: &mut Op) -> Vec<&mut Val> {
    match op {
        Op::Const(_) | Op::Param(_) | Op::Special(_) | Op::Iota => Vec::new(),
        Op::Barrier | Op::CopyCommit | Op::CopyWait(_) => Vec::new(),
        Op::Splat(a) | Op::Unary(_, a) | Op::Cast(_, a) | Op::Extract(a, _) => vec![a],
        Op::Reduce(_, a) | Op::ShuffleXor(a, _) => vec![a],
        Op::Binary(_, a, b) | Op::Cmp(_, a, b) | Op::Shuffle(a, b, _) | Op::Insert(a, b, _) => vec![a, b],
        Op::Fma(a, b, c) | Op::Select(a, b, c) => vec![a, b, c],
        Op::Dot4 { acc, a, b, .. } | Op::Dot2Bf16 { acc, a, b } => vec![acc, a, b],
        Op::Mma { a, b, c } => vec![a, b, c],
        Op::Load { idx, mask, .. } | Op::Gather { idx, mask, .. } => {
            let mut all = vec![idx];
            if let Some((m, other)) = mask {
                all.extend([m, other]);
            }
            all
        }
        Op::Store { idx, val, mask, .. } | Op::Scatter { idx, val, mask, .. } => {
            let mut all = vec![idx, val];
            all.extend(mask);
            all
        }
        Op::Prefetch { idx, .. } => vec![idx],
        Op::ErrorIf { cond, .. } | Op::If { cond, .. } => vec![cond],
        Op::For { lo, hi, step, init, .. } => [lo, hi, step].into_iter().chain(init).collect(),
        Op::While { init, .. } => init.iter_mut().collect(),
        Op::CopyAsync { dst_idx, src_idx, .. } => vec![dst_idx, src_idx],
        Op::FragLoad { idx, stride, .. } => vec![idx, stride],
        Op::FragStore { idx, stride, val, .. } => vec![idx, stride, val],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_codegen::kernel::{Builder, interp, verify};

    /// y[i] = x[i] - x[i] * 3 + 2 over n elements, with a masked tail.
    fn sample() -> Kernel {
        let mut b = Builder::cpu("sample");
        let x = b.input("x", Elem::F32);
        let y = b.output("y", Elem::F32);
        let n = b.scalar("n");
        b.parallel_for(|b, chunk| {
            let lo = b.mul(chunk, 8);
            let hi = b.add(lo, 8);
            let hi = b.smin(hi, n);
            b.for_lanes(lo, hi, 4, |b, i, mask| {
                let v = b.load_opt(x, i, 4, mask);
                let w = b.fmul(v, 3.0);
                let w = b.fsub(v, w);
                let w = b.fadd(w, 2.0);
                b.store_opt(y, i, w, mask);
            });
        });
        b.finish()
    }

    fn run(kernel: &Kernel) -> Result<Vec<f32>, String> {
        let (n, mut x) = (11i64, (0..11).map(|i| i as f32).collect::<Vec<_>>());
        let mut y = vec![0f32; 11];
        let args = [interp::Arg::slice(&mut x), interp::Arg::slice(&mut y), interp::Arg::Scalar(n)];
        // SAFETY: the arguments cover the slices, which outlive the call.
        let code = unsafe { interp::run_cpu(kernel, &args, 0, 2) }.map_err(|trap| trap.to_string())?;
        if code == 0 { Ok(y) } else { Err(format!("error {code}")) }
    }

    #[test]
    fn planted_bugs_are_valid_and_noticed() {
        let right = run(&sample());
        assert!(right.is_ok(), "{right:?}");
        let mut planted = Vec::new();
        for bug in Bug::ALL {
            let mut kernel = sample();
            if plant(&mut kernel, *bug, &mut Rng::new(1)) {
                assert_eq!(verify(&kernel), [], "{bug:?}\n{kernel}");
                assert_ne!(run(&kernel), right, "{bug:?}\n{kernel}");
                planted.push(*bug);
            }
        }
        for bug in
            [Bug::DroppedBias, Bug::MissingMask, Bug::SwappedOperands, Bug::SkippedStore, Bug::WrongStride]
        {
            assert!(planted.contains(&bug), "{bug:?} fits nowhere in\n{}", sample());
        }
    }
}
