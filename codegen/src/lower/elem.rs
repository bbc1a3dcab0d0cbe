//! Element types in kernels: how dtypes are stored, in which type they are computed, and every conversion.

use crate::kernel::{Buf, Builder, CmpOp, Elem, Opd, Ty, Val};
use crate::math::narrow;
use planish_ir::DType;

/// The type of a buffer of this dtype. Types narrower than a byte and 8-bit floats take a byte.
pub fn mem_elem(d: DType) -> Elem {
    match d {
        DType::F64 => Elem::F64,
        DType::F32 => Elem::F32,
        DType::F16 => Elem::F16,
        DType::BF16 => Elem::BF16,
        DType::I64 | DType::U64 => Elem::I64,
        DType::I32 | DType::U32 => Elem::I32,
        DType::I16 | DType::U16 => Elem::I16,
        DType::Bool => Elem::I1,
        _ => Elem::I8,
    }
}

/// The type in which this dtype is computed: f32 for all narrower floats, the own type otherwise.
pub fn compute_elem(d: DType) -> Elem {
    match d {
        d if d.is_float() && d != DType::F64 => Elem::F32,
        d => mem_elem(d),
    }
}

/// Loads `lanes` elements and widens them to [`compute_elem`].
pub fn load(b: &mut Builder, d: DType, buf: Buf, idx: impl Into<Opd>, lanes: u16, mask: Option<Val>) -> Val {
    let v = b.load_opt(buf, idx, lanes, mask);
    widen(b, d, v)
}

/// Converts stored elements to [`compute_elem`].
pub(super) fn widen(b: &mut Builder, d: DType, v: Val) -> Val {
    match d {
        DType::F16 | DType::BF16 => b.fpext(v, Elem::F32),
        d if d.is_float() && d.size() == 1 => narrow::decode(b, d, v),
        _ => v,
    }
}

/// Rounds [`compute_elem`] elements to the stored form.
pub(super) fn narrow_to(b: &mut Builder, d: DType, v: Val, saturate: bool) -> Val {
    match d {
        DType::F16 => b.fptrunc(v, Elem::F16),
        DType::BF16 => b.fptrunc(v, Elem::BF16),
        d if d.is_float() && d.size() == 1 => narrow::encode(b, d, v, saturate),
        DType::I4 => {
            let v = b.shl(v, 4);
            b.ashr(v, 4)
        }
        DType::I2 => {
            let v = b.shl(v, 6);
            b.ashr(v, 6)
        }
        DType::U4 => b.and(v, 15),
        DType::U2 => b.and(v, 3),
        _ => v,
    }
}

/// Stores [`compute_elem`] elements, rounded to the dtype. Values beyond the range of an 8-bit float become infinity or NaN
/// where it has them; [`saturate`] first where they should not.
pub fn store(b: &mut Builder, d: DType, buf: Buf, idx: impl Into<Opd>, v: Val, mask: Option<Val>) {
    let v = narrow_to(b, d, v, false);
    b.store_opt(buf, idx, v, mask);
}

/// Clamps compute elements to the finite range of an 8-bit float; no change for other types.
pub fn saturate(b: &mut Builder, d: DType, v: Val) -> Val {
    match narrow::largest(d) {
        Some(top) => {
            let v = b.fmin(v, top);
            b.fmax(v, -top)
        }
        None => v,
    }
}

/// Converts compute elements of one dtype to compute elements of another, as the graph operation `cast` does. The
/// result still has to be stored with [`store`] (or [`narrow_to`] where `saturate` matters).
pub fn convert(b: &mut Builder, v: Val, from: DType, to: DType) -> Val {
    let (ef, et) = (compute_elem(from), compute_elem(to));
    let lanes = b.ty(v).lanes;
    if to == DType::Bool {
        return match from {
            DType::Bool => v,
            _ if ef.is_float() => {
                let zero = b.zero(Ty::vec(ef, lanes));
                b.cmp(CmpOp::FNe, v, zero)
            }
            _ => {
                let zero = b.zero(Ty::vec(ef, lanes));
                b.cmp(CmpOp::Ne, v, zero)
            }
        };
    }
    match (ef.is_float(), et.is_float()) {
        // Rounding to f32 and then again would err where the first rounding makes a tie.
        (true, true) if from == DType::F64 && !matches!(to, DType::F64 | DType::F32 | DType::F8E8M0) => {
            b.round_to_odd(v)
        }
        (true, true) => b.float_to(v, et),
        (true, false) => float_to_int(b, v, to),
        (false, true) => {
            let unsigned = from == DType::Bool || from.is_unsigned_int();
            let v = if from == DType::Bool { b.zext(v, Elem::I32) } else { v };
            if unsigned { b.uitofp(v, et) } else { b.sitofp(v, et) }
        }
        (false, false) => {
            let unsigned = from == DType::Bool || from.is_unsigned_int();
            let v = match ef.bits().cmp(&et.bits()) {
                std::cmp::Ordering::Equal => v,
                std::cmp::Ordering::Greater => b.trunc(v, et),
                std::cmp::Ordering::Less if unsigned => b.zext(v, et),
                std::cmp::Ordering::Less => b.sext(v, et),
            };
            if to.bits() < 8 { narrow_to(b, to, v, true) } else { v }
        }
    }
}

/// Rounds towards 0 and saturates to the range of the integer type (types narrower than a byte wrap); NaN gives 0.
fn float_to_int(b: &mut Builder, v: Val, to: DType) -> Val {
    let elem = mem_elem(to);
    match to {
        DType::I64 | DType::I32 => b.fptosi(v, elem),
        DType::U64 | DType::U32 => b.fptoui(v, elem),
        _ if to.bits() < 8 => {
            let wide = b.fptosi(v, Elem::I32);
            let byte = b.trunc(wide, elem);
            narrow_to(b, to, byte, true)
        }
        _ => {
            let (lo, hi) = to.int_range().unwrap_or((0, 0));
            let wide = b.fptosi(v, Elem::I32);
            let wide = b.smax(wide, lo as i64);
            let wide = b.smin(wide, hi as i64);
            b.trunc(wide, elem)
        }
    }
}
