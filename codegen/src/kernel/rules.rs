//! The one type rule of each instruction, used by the builder and by the verifier.

use super::func::{Kernel, ParamKind};
use super::inst::{BinOp, Frag, Inst, Op, Special, UnOp};
use super::types::{Buf, Elem, Space, Ty, Val};

fn need(ok: bool, why: impl Fn() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(why()) }
}

/// Whether `op` is defined on lanes of `e`.
pub(crate) fn bin_allows(op: BinOp, e: Elem) -> bool {
    if op.is_float() { e.is_arith_float() } else { e.is_wide_int() || (e == Elem::I1 && op.is_bitwise()) }
}

/// Whether `op` is defined on lanes of `e`.
pub(crate) fn un_allows(op: UnOp, e: Elem) -> bool {
    match op {
        UnOp::Not => e.is_int(),
        _ if op.is_float() => e.is_arith_float(),
        _ => e.is_wide_int(),
    }
}

/// Types of operands, results and buffers of `inst`; nested blocks only by their parameters and results. Values must be in
/// the value table (the caller checks), buffers need not be.
pub(crate) fn check(k: &Kernel, inst: &Inst) -> Result<(), String> {
    let ty = |v: Val| k.ty(v);
    let outs: Vec<Ty> = inst.outs.iter().map(|&v| ty(v)).collect();
    let one = || match outs[..] {
        [t] => Ok(t),
        _ => Err(format!("defines {} values, not 1", outs.len())),
    };
    let none = || need(outs.is_empty(), || format!("defines {} values, not 0", outs.len()));
    let same = |what: &str, a: Ty, b: Ty| need(a == b, || format!("{what} has type {a}, needs {b}"));
    let buf = |b: Buf, read: bool, write: bool| -> Result<Elem, String> {
        let elem = k.buf_elem(b).ok_or_else(|| format!("{b:?} is no buffer"))?;
        if let Buf::Param(i) = b
            && let ParamKind::Buffer { access, .. } = k.params[usize::from(i)].kind
        {
            need((!read || access.reads()) && (!write || access.writes()), || {
                format!("buffer %{} is declared {}", k.buf_name(b), access.name())
            })?;
        }
        Ok(elem)
    };
    let index = |v: Val| same("index", ty(v), Ty::I64);
    let masked = |t: Ty, m: Val| same("mask", ty(m), t.with_elem(Elem::I1));
    let align = |e: Elem, align: u32| {
        need(align.is_power_of_two() && align as usize >= e.bytes() && align <= 4096, || {
            format!("alignment {align} is no power of two of at least the element's {} bytes", e.bytes())
        })
    };
    let carried = |what: &str, vals: &[Val], to: &[Ty]| {
        need(vals.len() == to.len() && vals.iter().zip(to).all(|(&v, &t)| ty(v) == t), || {
            let f: Vec<String> = vals.iter().map(|&v| ty(v).to_string()).collect();
            let t: Vec<String> = to.iter().map(Ty::to_string).collect();
            format!("{what} have types ({}), need ({})", f.join(", "), t.join(", "))
        })
    };

    match &inst.op {
        Op::Const(bits) => {
            let t = one()?;
            need(bits.len() == 1 || bits.len() == usize::from(t.lanes), || {
                format!("{} lane constants for {t}", bits.len())
            })?;
            need(bits.iter().all(|b| b & !t.elem.mask() == 0), || format!("constant has more bits than {t}"))
        }
        Op::Param(i) => {
            same("scalar parameter", one()?, Ty::I64)?;
            need(k.params.get(usize::from(*i)).is_some_and(|p| p.kind == ParamKind::Scalar), || {
                format!("parameter {i} is no scalar")
            })
        }
        Op::Special(s) => {
            same("launch value", one()?, Ty::I64)?;
            match s {
                Special::RangeLo | Special::RangeHi => Ok(()),
                Special::ThreadId(d) | Special::BlockId(d) | Special::BlockDim(d) | Special::GridDim(d) => {
                    need(*d < 3, || format!("dimension {d} is not 0, 1 or 2"))
                }
            }
        }
        Op::Splat(v) => same("splat operand", ty(*v), one()?.with_lanes(1)),
        Op::Iota => need(one()?.elem.is_wide_int(), || "iota needs integer lanes".into()),
        Op::Unary(o, a) => {
            same("operand", ty(*a), one()?)?;
            need(un_allows(*o, ty(*a).elem), || format!("{} is not defined on {}", o.name(), ty(*a)))
        }
        Op::Binary(o, a, b) => {
            same("left operand", ty(*a), one()?)?;
            same("right operand", ty(*b), one()?)?;
            need(bin_allows(*o, ty(*a).elem), || format!("{} is not defined on {}", o.name(), ty(*a)))
        }
        Op::Fma(a, b, c) => {
            for v in [a, b, c] {
                same("operand", ty(*v), one()?)?;
            }
            need(one()?.elem.is_arith_float(), || "fma needs f32 or f64".into())
        }
        Op::Cmp(o, a, b) => {
            let t = ty(*a);
            same("right operand", ty(*b), t)?;
            same("comparison", one()?, t.with_elem(Elem::I1))?;
            let ok = if o.is_float() { t.elem.is_arith_float() } else { t.elem.is_wide_int() };
            need(ok, || format!("comparison {} is not defined on {t}", o.name()))
        }
        Op::Select(c, a, b) => {
            let t = one()?;
            same("second operand", ty(*a), t)?;
            same("third operand", ty(*b), t)?;
            let c = ty(*c);
            need(c == Ty::BOOL || c == t.with_elem(Elem::I1), || format!("select of {t} by {c}"))
        }
        Op::Cast(o, a) => {
            let (f, t) = (ty(*a), one()?);
            need(o.allows(f, t), || format!("no {} from {f} to {t}", o.name()))
        }
        Op::Dot4 { acc, a, b, .. } => {
            let t = one()?;
            need(t.elem == Elem::I32 && t.lanes <= Ty::MAX_LANES / 4, || format!("dot4 into {t}"))?;
            same("accumulator", ty(*acc), t)?;
            for v in [a, b] {
                same("byte operand", ty(*v), Ty::vec(Elem::I8, t.lanes * 4))?;
            }
            Ok(())
        }
        Op::Dot2Bf16 { acc, a, b } => {
            let t = one()?;
            need(t.elem == Elem::F32 && t.lanes <= Ty::MAX_LANES / 2, || format!("dot2 into {t}"))?;
            same("accumulator", ty(*acc), t)?;
            for v in [a, b] {
                same("bf16 operand", ty(*v), Ty::vec(Elem::BF16, t.lanes * 2))?;
            }
            Ok(())
        }
        Op::Shuffle(a, b, mask) => {
            let t = one()?;
            let from = ty(*a);
            same("second vector", ty(*b), from)?;
            need(t.elem == from.elem && mask.len() == usize::from(t.lanes), || {
                format!("shuffle of {from} with {} lanes into {t}", mask.len())
            })?;
            need(mask.iter().all(|&m| m < from.lanes * 2), || format!("shuffle mask beyond two {from}"))
        }
        Op::Extract(a, i) => {
            same("extracted lane", one()?, ty(*a).with_lanes(1))?;
            need(*i < ty(*a).lanes, || format!("lane {i} of {}", ty(*a)))
        }
        Op::Insert(a, s, i) => {
            same("vector", ty(*a), one()?)?;
            same("lane", ty(*s), one()?.with_lanes(1))?;
            need(*i < ty(*a).lanes, || format!("lane {i} of {}", ty(*a)))
        }
        Op::Reduce(o, a) => {
            same("reduction", one()?, ty(*a).with_lanes(1))?;
            need(o.is_reduction() && bin_allows(*o, ty(*a).elem), || {
                format!("no reduction {} of {}", o.name(), ty(*a))
            })
        }
        Op::Load { buf: b, idx, align: al, mask } => {
            let t = one()?;
            let e = buf(*b, true, false)?;
            need(e == t.elem, || format!("load of {t} from a buffer of {e}"))?;
            index(*idx)?;
            align(e, *al)?;
            mask.map_or(Ok(()), |(m, p)| masked(t, m).and_then(|()| same("pass-through", ty(p), t)))
        }
        Op::Store { buf: b, idx, val, align: al, mask } => {
            none()?;
            let e = buf(*b, false, true)?;
            let t = ty(*val);
            need(e == t.elem, || format!("store of {t} to a buffer of {e}"))?;
            index(*idx)?;
            align(e, *al)?;
            mask.map_or(Ok(()), |m| masked(t, m))
        }
        Op::Gather { buf: b, idx, mask } => {
            let t = one()?;
            let e = buf(*b, true, false)?;
            need(e == t.elem, || format!("gather of {t} from a buffer of {e}"))?;
            let it = ty(*idx);
            need(it.lanes == t.lanes && matches!(it.elem, Elem::I32 | Elem::I64), || {
                format!("gather of {t} with indices {it}")
            })?;
            mask.map_or(Ok(()), |(m, p)| masked(t, m).and_then(|()| same("pass-through", ty(p), t)))
        }
        Op::Scatter { buf: b, idx, val, mask } => {
            none()?;
            let e = buf(*b, false, true)?;
            let t = ty(*val);
            need(e == t.elem, || format!("scatter of {t} to a buffer of {e}"))?;
            let it = ty(*idx);
            need(it.lanes == t.lanes && matches!(it.elem, Elem::I32 | Elem::I64), || {
                format!("scatter of {t} with indices {it}")
            })?;
            mask.map_or(Ok(()), |m| masked(t, m))
        }
        Op::Prefetch { buf: b, idx } => {
            none()?;
            buf(*b, false, false)?;
            index(*idx)
        }
        Op::ErrorIf { cond, .. } => {
            none()?;
            same("condition", ty(*cond), Ty::BOOL)
        }
        Op::For { lo, hi, step, init, body, .. } => {
            for v in [lo, hi, step] {
                same("loop bound", ty(*v), Ty::I64)?;
            }
            carried("initial values", init, &outs)?;
            let mut params = vec![Ty::I64];
            params.extend(&outs);
            carried("loop parameters", &body.params, &params)?;
            carried("carried values", &body.yields, &outs)
        }
        Op::If { cond, then, other } => {
            same("condition", ty(*cond), Ty::BOOL)?;
            need(then.params.is_empty() && other.params.is_empty(), || "an arm has parameters".into())?;
            carried("results of the first arm", &then.yields, &outs)?;
            carried("results of the second arm", &other.yields, &outs)
        }
        Op::While { init, cond, body } => {
            carried("initial values", init, &outs)?;
            carried("condition parameters", &cond.params, &outs)?;
            carried("condition", &cond.yields, &[Ty::BOOL])?;
            carried("loop parameters", &body.params, &outs)?;
            carried("carried values", &body.yields, &outs)
        }
        Op::Barrier | Op::CopyCommit | Op::CopyWait(_) => none(),
        Op::ShuffleXor(a, mask) => {
            same("operand", ty(*a), one()?)?;
            need(ty(*a).is_scalar() && ty(*a).elem.bits() == 32, || {
                format!("shuffle_xor of {}, needs a 32-bit scalar", ty(*a))
            })?;
            need(*mask < 32, || format!("lane mask {mask} of a warp of 32"))
        }
        Op::CopyAsync { dst, dst_idx, src, src_idx, bytes } => {
            none()?;
            index(*dst_idx)?;
            index(*src_idx)?;
            let (d, s) = (buf(*dst, false, true)?, buf(*src, true, false)?);
            let shared = matches!(dst, Buf::Local(i) if k.locals[usize::from(*i)].space == Space::Shared);
            need(d == s && shared && matches!(src, Buf::Param(_)), || {
                "copy_async goes from a parameter to a shared array of the same element".into()
            })?;
            need(matches!(bytes, 4 | 8 | 16), || format!("copy_async of {bytes} bytes"))
        }
        Op::FragLoad { frag, buf: b, idx, stride } => {
            let t = one()?;
            index(*idx)?;
            index(*stride)?;
            let e = buf(*b, true, false)?;
            need(e == t.elem && frag_ty(*frag, t), || format!("fragment {frag:?} of type {t} from {e}"))
        }
        Op::FragStore { buf: b, idx, stride, val } => {
            none()?;
            index(*idx)?;
            index(*stride)?;
            let e = buf(*b, false, true)?;
            need(e == ty(*val).elem && frag_ty(Frag::C, ty(*val)), || {
                format!("fragment store of {} to {e}", ty(*val))
            })
        }
        Op::Mma { a, b, c } => {
            let t = one()?;
            same("accumulator", ty(*c), t)?;
            need(
                frag_ty(Frag::C, t)
                    && frag_ty(Frag::A, ty(*a))
                    && frag_ty(Frag::B, ty(*b))
                    && ty(*a).elem == ty(*b).elem
                    && (ty(*a).elem == Elem::I8) == (t.elem == Elem::I32),
                || format!("mma of {} and {} into {t}", ty(*a), ty(*b)),
            )
        }
    }
}

fn frag_ty(frag: Frag, t: Ty) -> bool {
    let elem = match frag {
        Frag::A | Frag::B => matches!(t.elem, Elem::F16 | Elem::BF16 | Elem::F32 | Elem::I8),
        Frag::C => matches!(t.elem, Elem::F32 | Elem::I32),
    };
    elem && t.lanes == frag.lanes(t.elem)
}
