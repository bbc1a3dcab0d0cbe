//! Element-wise operations: one loop nest over the result, operands broadcast, any expression of scalar operations.

use super::cx::{LowerCx, Opnd};
use super::elem::{compute_elem, convert, load, store};
use super::launch::{KernelCx, Launch};
use super::layout::lower_chain;
use super::nest::span;
use super::quantised;
use crate::kernel::{Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::math;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, Dim, Op, ValueId};

/// How an operand's index follows the collapsed result axes: for each of them its stride in elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Access {
    /// One stride for each collapsed axis; `None` means that only run time tells whether the axis is broadcast, and
    /// then the entry of `dynamic` says with which operand dim it is decided.
    strides: Vec<Dim>,
    dynamic: Vec<Option<Dim>>,
}

/// The result's axes with neighbours merged wherever all operands run through them alike.
#[derive(Clone, Debug)]
pub(super) struct Nest {
    /// Collapsed dims, outermost first; never empty.
    pub(super) dims: Vec<Dim>,
    /// One for each operand.
    pub(super) access: Vec<Access>,
}

/// Collapses the axes of a result and its broadcast operands.
pub(super) fn collapse(out: &[Dim], operands: &[&[Dim]]) -> Nest {
    let one = Dim::Const(1);
    let rank = out.len();
    // For each operand and axis: full (runs along), broadcast, or decided at run time.
    #[derive(Clone, PartialEq)]
    enum Kind {
        Full,
        Broadcast,
        Dynamic(Dim),
    }
    let kinds: Vec<Vec<Kind>> = operands
        .iter()
        .map(|dims| {
            (0..rank)
                .map(|i| match (i + dims.len()).checked_sub(rank).map(|k| &dims[k]) {
                    None => Kind::Broadcast,
                    Some(d) if *d == out[i] => Kind::Full,
                    Some(d) if d.is(1) => Kind::Broadcast,
                    Some(d) => Kind::Dynamic(d.clone()),
                })
                .collect()
        })
        .collect();
    let mut dims: Vec<Dim> = Vec::new();
    let mut merged: Vec<Vec<(Kind, Dim)>> = vec![Vec::new(); operands.len()];
    for i in 0..rank {
        if out[i].is(1) {
            continue;
        }
        let joins = !dims.is_empty()
            && kinds.iter().zip(&merged).all(|(k, m)| {
                let last = m.last().map(|(k, _)| k);
                !matches!(k[i], Kind::Dynamic(_)) && last == Some(&k[i])
            });
        let size = out[i].clone();
        if joins {
            if let Some(d) = dims.last_mut() {
                *d = d.mul(&size);
            }
        } else {
            dims.push(size.clone());
        }
        for (k, m) in kinds.iter().zip(&mut merged) {
            let own = match &k[i] {
                Kind::Full => size.clone(),
                Kind::Broadcast => one.clone(),
                Kind::Dynamic(d) => d.clone(),
            };
            match m.last_mut() {
                Some((_, total)) if joins => *total = total.mul(&own),
                _ => m.push((k[i].clone(), own)),
            }
        }
    }
    if dims.is_empty() {
        dims.push(one.clone());
        merged.iter_mut().for_each(|m| m.push((Kind::Broadcast, one.clone())));
    }
    let access = merged
        .into_iter()
        .map(|m| {
            let mut stride = one.clone();
            let (mut strides, mut dynamic) = (vec![one.clone(); m.len()], vec![None; m.len()]);
            for (axis, (kind, own)) in m.into_iter().enumerate().rev() {
                strides[axis] = if kind == Kind::Broadcast { Dim::Const(0) } else { stride.clone() };
                if let Kind::Dynamic(d) = kind {
                    dynamic[axis] = Some(d);
                }
                stride = stride.mul(&own);
            }
            Access { strides, dynamic }
        })
        .collect();
    Nest { dims, access }
}

/// A scalar expression over operands: gets their values (compute elements, all with the same number of lanes) and
/// gives those of the results.
pub(super) type Expr<'e> = dyn Fn(&mut Builder, &[Val]) -> Vec<Val> + 'e;

/// Emits the loop nest of element-wise results: all of `outs` have the dims of the first.
pub(super) fn emit(
    cx: &mut LowerCx<'_>,
    label: &str,
    ins: &[Opnd],
    outs: &[Opnd],
    cost: i64,
    expr: &Expr<'_>,
) -> Result<(), Diag> {
    let Some(first) = outs.first() else { return Ok(()) };
    let shapes: Vec<&[Dim]> = ins.iter().map(|x| x.dims.as_slice()).collect();
    shapes.iter().for_each(|dims| cx.require_broadcast(dims, &first.dims));
    let nest = collapse(&first.dims, &shapes);
    let mut l = Launch::new(label);
    for x in ins {
        l = l.read(x);
    }
    for y in outs {
        l = l.write(y);
    }
    // Dims: the collapsed ones, then for each operand its strides and run-time dims.
    l = l.dims(&nest.dims);
    for a in &nest.access {
        l = l.dims(&a.strides);
        for d in a.dynamic.iter().flatten() {
            l = l.dim(d);
        }
    }
    let rank = nest.dims.len();
    let inner = nest.dims[rank - 1].clone();
    let chunks = inner.ceil_div(&cx.chunk().into());
    let rows = Dim::product(&nest.dims[..rank - 1]);
    let elems = Dim::product(&first.dims);
    let flops = elems.mul(&cost.into());
    let part = inner.smaller(&cx.chunk().into());
    let l = l.extent(rows.mul(&chunks)).cost(part.mul(&cost.into())).flops(flops).dim(&chunks);
    let (in_types, out_types): (Vec<DType>, Vec<DType>) =
        (ins.iter().map(|x| x.dtype).collect(), outs.iter().map(|y| y.dtype).collect());
    cx.launch(l, |k| kernel(k, &nest, &in_types, &out_types, expr))
}

fn kernel(k: &mut KernelCx<'_>, nest: &Nest, ins: &[DType], outs: &[DType], expr: &Expr<'_>) {
    let rank = nest.dims.len();
    let widest =
        ins.iter().chain(outs).map(|d| compute_elem(*d)).max_by_key(|e| e.bits()).unwrap_or(Elem::F32);
    let lanes = k.lanes(widest);
    let in_bufs: Vec<Buf> = (0..ins.len()).map(|i| k.buf(i)).collect();
    let out_bufs: Vec<Buf> = (0..outs.len()).map(|i| k.buf(ins.len() + i)).collect();
    let dims = k.dims(0, rank);
    let mut at = rank;
    let mut strides: Vec<Vec<Val>> = Vec::new();
    let mut run_time: Vec<Vec<Option<Val>>> = Vec::new();
    for a in &nest.access {
        strides.push(k.dims(at, rank));
        at += rank;
        run_time.push(
            a.dynamic
                .iter()
                .map(|d| {
                    d.as_ref().map(|_| {
                        at += 1;
                        k.dim(at - 1)
                    })
                })
                .collect(),
        );
    }
    let chunks = k.dim(at);
    let size = k.chunk();
    let b = &mut k.b;
    // An axis of size 1 at run time does not move.
    for (s, r) in strides.iter_mut().zip(&run_time) {
        for (s, r) in s.iter_mut().zip(r) {
            if let Some(d) = r {
                let single = b.cmp(CmpOp::Eq, *d, 1);
                *s = b.select(single, 0, *s);
            }
        }
    }
    b.parallel_for(|b, unit| {
        let (row, chunk) = b.div_rem(unit, chunks);
        // Offsets of the row in every operand.
        let mut offsets: Vec<Val> = (0..ins.len()).map(|_| b.i64(0)).collect();
        let mut rest = row;
        for axis in (0..rank - 1).rev() {
            let i = if axis == 0 {
                rest
            } else {
                let (q, i) = b.div_rem(rest, dims[axis]);
                rest = q;
                i
            };
            for (o, s) in offsets.iter_mut().zip(&strides) {
                *o = b.at(*o, i, s[axis]);
            }
        }
        let inner = dims[rank - 1];
        let base = b.mul(row, inner);
        let (lo, hi) = span(b, chunk, size, inner);
        b.for_lanes(lo, hi, lanes, |b, i, mask| {
            let mut vals = Vec::with_capacity(ins.len());
            for (n, d) in ins.iter().enumerate() {
                let step = strides[n][rank - 1];
                vals.push(match b.known_int(step) {
                    Some(1) => {
                        let idx = b.add(offsets[n], i);
                        load(b, *d, in_bufs[n], idx, lanes, mask)
                    }
                    Some(0) => {
                        let v = load(b, *d, in_bufs[n], offsets[n], 1, None);
                        b.splat(v, lanes)
                    }
                    _ => strided(b, *d, in_bufs[n], offsets[n], i, step, lanes, mask),
                });
            }
            let results = expr(b, &vals);
            let at = b.add(base, i);
            for ((v, d), buf) in results.into_iter().zip(outs).zip(&out_bufs) {
                store(b, *d, *buf, at, v, mask);
            }
        });
    });
}

/// Loads elements `offset + (i + lane) * step`.
#[allow(clippy::too_many_arguments)]
fn strided(
    b: &mut Builder,
    d: DType,
    buf: Buf,
    offset: Val,
    i: Val,
    step: Val,
    lanes: u16,
    mask: Option<Val>,
) -> Val {
    let iota = b.iota(crate::kernel::Ty::vec(Elem::I64, lanes));
    let i = b.splat(i, lanes);
    let pos = b.add(i, iota);
    let step = b.splat(step, lanes);
    let pos = b.mul(pos, step);
    let offset = b.splat(offset, lanes);
    let pos = b.add(pos, offset);
    let v = match mask {
        None => b.gather(buf, pos),
        Some(m) => {
            let zero = b.zero(crate::kernel::Ty::vec(b.elem(buf), lanes));
            b.gather_masked(buf, pos, m, zero)
        }
    };
    super::elem::widen(b, d, v)
}

/// The number that a value is, if it is a constant of one element of f32, f64 or 8 bits; back ends compare with known bounds in
/// fewer operations.
pub(super) fn number(cx: &LowerCx<'_>, v: ValueId) -> Option<f64> {
    let literal = |d| matches!(d, DType::F32 | DType::F64 | DType::U8 | DType::I8);
    let c = cx.constant(v).filter(|c| literal(c.dtype) && c.len() == 1)?;
    c.small(1)?.to_f64().first().copied().filter(|x| !x.is_nan())
}

/// A [`number`] as a value of its [`compute_elem`].
pub(super) fn literal(b: &mut Builder, ty: Ty, number: f64) -> Val {
    if ty.elem.is_float() { b.float(ty, number) } else { b.int(ty, number as i64) }
}

/// Operands that are numbers known at compile time: kernels hold them instead of reading them.
pub(super) struct Numbers(Vec<Option<(Elem, f64)>>);

impl Numbers {
    /// Those among operands, all but one at most.
    pub(super) fn new(cx: &LowerCx<'_>, values: &[ValueId]) -> Numbers {
        let elem = |v| cx.graph.dtype(v).map_or(Elem::F32, compute_elem);
        let mut numbers: Vec<_> = values.iter().map(|v| number(cx, *v).map(|n| (elem(*v), n))).collect();
        if numbers.iter().all(Option::is_some)
            && let Some(first) = numbers.first_mut()
        {
            // Lanes are counted by an operand in memory.
            *first = None;
        }
        Numbers(numbers)
    }
    /// The operands that are read.
    pub(super) fn others<T: Copy>(&self, all: &[T]) -> Vec<T> {
        all.iter().zip(&self.0).filter(|(_, n)| n.is_none()).map(|(v, _)| *v).collect()
    }
    /// All operands, from those that were read.
    fn put_back(&self, b: &mut Builder, read: &[Val]) -> Vec<Val> {
        let lanes = read.first().map_or(1, |v| b.ty(*v).lanes);
        let mut read = read.iter();
        let each = |n: &Option<(Elem, f64)>| match n {
            Some((elem, n)) => Some(literal(b, Ty::vec(*elem, lanes), *n)),
            None => read.next().copied(),
        };
        self.0.iter().filter_map(each).collect()
    }
}

/// Wraps an expression over all operands as one over those that are read.
pub(super) fn reading<'e>(
    numbers: &'e Numbers,
    expr: &'e Expr<'e>,
) -> impl Fn(&mut Builder, &[Val]) -> Vec<Val> + 'e {
    |b, read| {
        let all = numbers.put_back(b, read);
        expr(b, &all)
    }
}

/// Lowers a node that is one element-wise operation.
pub(super) fn lower_single(cx: &mut LowerCx<'_>, op: &Op) -> Result<(), Diag> {
    let n = cx.node().inputs.len();
    let values: Vec<ValueId> = (0..n).map(|i| cx.input_value(i)).collect::<Result<_, _>>()?;
    let types: Vec<DType> = values.iter().map(|v| Ok(cx.tensor_type(*v)?.0)).collect::<Result<_, Diag>>()?;
    let (out, _) = cx.output_type(0)?;
    let numbers = Numbers::new(cx, &values);
    let expr = |b: &mut Builder, v: &[Val]| vec![scalar_op(b, op, v, &types, out)];
    let expr = reading(&numbers, &expr);
    let values = numbers.others(&values);
    if lower_chain(cx, op_label(op), &values, op_cost(op), &expr)? {
        return Ok(());
    }
    let ins: Vec<Opnd> = values.iter().map(|v| cx.memory_of(*v)).collect::<Result<_, _>>()?;
    let y = cx.output(0)?;
    emit(cx, op_label(op), &ins, &[y], op_cost(op), &expr)
}

/// A short word for the kernel's name.
pub(super) fn op_label(op: &Op) -> &'static str {
    match op {
        Op::Unary(_) => "unary",
        Op::Binary(_) => "binary",
        Op::Where(_) => "where",
        Op::Cast(_) => "cast",
        _ => "elementwise",
    }
}

/// About how many basic operations an element takes.
pub(super) fn op_cost(op: &Op) -> i64 {
    use UnaryKind as U;
    match op {
        Op::Unary(u) => match u.kind {
            U::Exp
            | U::Log
            | U::Sigmoid
            | U::Tanh
            | U::Erf
            | U::Gelu
            | U::GeluTanh
            | U::Mish
            | U::Softplus => 20,
            U::Sin
            | U::Cos
            | U::Tan
            | U::Asin
            | U::Acos
            | U::Atan
            | U::Sinh
            | U::Cosh
            | U::Asinh
            | U::Acosh
            | U::Atanh => 40,
            U::Sqrt | U::Reciprocal | U::Softsign => 5,
            _ => 1,
        },
        Op::Binary(x) => match x.kind {
            BinaryKind::Pow => 60,
            BinaryKind::Div | BinaryKind::Mod | BinaryKind::Fmod => 5,
            _ => 1,
        },
        Op::Quantize(_) => 8,
        Op::Dequantize(_) => 3,
        _ => 1,
    }
}

/// One element-wise operation on compute elements: `types` are the dtypes of the operands, `out` that of the result.
/// Covers exactly the operations that [`follows_contraction`](planish_ir::op::fused::follows_contraction) accepts.
pub fn scalar_op(b: &mut Builder, op: &Op, v: &[Val], types: &[DType], out: DType) -> Val {
    match op {
        Op::Unary(u) => unary(b, u.kind, v[0], types[0]),
        Op::Binary(x) => binary(b, x.kind, v[0], v[1], types),
        Op::Where(_) => b.select(v[0], v[1], v[2]),
        Op::Cast(c) => {
            let r = convert(b, v[0], types[0], out);
            if c.saturate { super::elem::saturate(b, out, r) } else { r }
        }
        Op::Quantize(q) => quantised::quantized(b, q, v, types),
        Op::Dequantize(_) => quantised::dequantized(b, v, types, out),
        _ => unreachable!("not element-wise: {}", op.name()),
    }
}

fn unary(b: &mut Builder, kind: UnaryKind, x: Val, d: DType) -> Val {
    use UnaryKind as U;
    let ty = b.ty(x);
    if !ty.elem.is_float() {
        let zero = if kind == U::Not { x } else { b.zero(ty) };
        return match kind {
            U::Not | U::BitNot => b.not(x),
            U::Neg => b.neg(x),
            U::Abs | U::Sign | U::Relu if d.is_unsigned_int() => match kind {
                U::Sign => {
                    let one = b.int(ty, 1);
                    let some = b.cmp(CmpOp::Ne, x, zero);
                    b.select(some, one, zero)
                }
                _ => x,
            },
            U::Abs => {
                let n = b.neg(x);
                let below = b.cmp(CmpOp::Slt, x, zero);
                b.select(below, n, x)
            }
            U::Sign => {
                let (one, minus) = (b.int(ty, 1), b.int(ty, -1));
                let above = b.cmp(CmpOp::Sgt, x, zero);
                let below = b.cmp(CmpOp::Slt, x, zero);
                let r = b.select(above, one, zero);
                b.select(below, minus, r)
            }
            U::Relu => b.smax(x, zero),
            _ => x,
        };
    }
    match kind {
        U::Neg => b.fneg(x),
        U::Abs => b.fabs(x),
        U::Sqrt => b.sqrt(x),
        U::Reciprocal => {
            let one = b.float(ty, 1.0);
            b.fdiv(one, x)
        }
        U::Exp => math::exp(b, x),
        U::Log => math::log(b, x),
        U::Sin => math::sin(b, x),
        U::Cos => math::cos(b, x),
        U::Tan => math::tan(b, x),
        U::Asin => math::asin(b, x),
        U::Acos => math::acos(b, x),
        U::Atan => math::atan(b, x),
        U::Sinh => math::sinh(b, x),
        U::Cosh => math::cosh(b, x),
        U::Tanh => math::tanh(b, x),
        U::Asinh => math::asinh(b, x),
        U::Acosh => math::acosh(b, x),
        U::Atanh => math::atanh(b, x),
        U::Erf => math::erf(b, x),
        U::Sigmoid => math::sigmoid(b, x),
        U::Softplus => math::softplus(b, x),
        U::Gelu => math::gelu(b, x),
        U::GeluTanh => math::gelu_tanh(b, x),
        U::Relu => {
            let zero = b.zero(ty);
            let below = b.cmp(CmpOp::FLt, x, zero);
            b.select(below, zero, x)
        }
        U::Softsign => {
            let a = b.fabs(x);
            let a = b.fadd(a, 1.0);
            b.fdiv(x, a)
        }
        U::Mish => {
            let s = math::softplus(b, x);
            let t = math::tanh(b, s);
            b.fmul(x, t)
        }
        U::HardSwish => {
            let t = b.fma(x, 1.0 / 6.0, 0.5);
            let t = b.fmax(t, 0.0);
            let t = b.fmin(t, 1.0);
            b.fmul(x, t)
        }
        U::Floor => b.floor(x),
        U::Ceil => b.ceil(x),
        U::Round => b.round_even(x),
        U::Sign => {
            let (one, minus) = (b.float(ty, 1.0), b.float(ty, -1.0));
            let above = b.cmp(CmpOp::FGt, x, 0.0);
            let below = b.cmp(CmpOp::FLt, x, 0.0);
            let r = b.select(above, one, x);
            b.select(below, minus, r)
        }
        U::IsNan => math::is_nan(b, x),
        U::IsInf => {
            let a = b.fabs(x);
            b.cmp(CmpOp::FEq, a, f64::INFINITY)
        }
        U::IsPosInf => b.cmp(CmpOp::FEq, x, f64::INFINITY),
        U::IsNegInf => b.cmp(CmpOp::FEq, x, f64::NEG_INFINITY),
        U::Not | U::BitNot => x,
    }
}

fn binary(b: &mut Builder, kind: BinaryKind, x: Val, y: Val, types: &[DType]) -> Val {
    use BinaryKind as B;
    let d = types[0];
    let ty = b.ty(x);
    if kind == B::Pow {
        return power(b, x, y, types);
    }
    if ty.elem.is_float() {
        return match kind {
            B::Add => b.fadd(x, y),
            B::Sub => b.fsub(x, y),
            B::Mul => b.fmul(x, y),
            B::Div => b.fdiv(x, y),
            B::Min => b.fmin(x, y),
            // At +0 a comparison decides, for vectors in fewer instructions than a maximum that orders zeros.
            B::Max if ty.lanes > 1 && b.is_zero(y) => {
                let below = b.cmp(CmpOp::FLe, x, y);
                b.select(below, y, x)
            }
            B::Max => b.fmax(x, y),
            B::Fmod | B::Mod => float_mod(b, kind, x, y),
            B::PRelu => {
                let m = b.fmul(x, y);
                let below = b.cmp(CmpOp::FLt, x, 0.0);
                b.select(below, m, x)
            }
            B::Equal => b.cmp(CmpOp::FEq, x, y),
            B::Less => b.cmp(CmpOp::FLt, x, y),
            B::LessEqual => b.cmp(CmpOp::FLe, x, y),
            B::Greater => b.cmp(CmpOp::FGt, x, y),
            B::GreaterEqual => b.cmp(CmpOp::FGe, x, y),
            _ => x,
        };
    }
    let unsigned = d.is_unsigned_int() || d == DType::Bool;
    let pick = |s: CmpOp, u: CmpOp| if unsigned { u } else { s };
    match kind {
        B::Add => b.add(x, y),
        B::Sub => b.sub(x, y),
        B::Mul => b.mul(x, y),
        B::Div => {
            if unsigned {
                b.udiv(x, y)
            } else {
                b.sdiv(x, y)
            }
        }
        B::Mod | B::Fmod => int_mod(b, kind, x, y, unsigned),
        B::Min => {
            if unsigned {
                b.umin(x, y)
            } else {
                b.smin(x, y)
            }
        }
        B::Max => {
            if unsigned {
                b.umax(x, y)
            } else {
                b.smax(x, y)
            }
        }
        B::PRelu => {
            let m = b.mul(x, y);
            let zero = b.zero(ty);
            let below = b.cmp(pick(CmpOp::Slt, CmpOp::Ult), x, zero);
            b.select(below, m, x)
        }
        B::And | B::BitAnd => b.and(x, y),
        B::Or | B::BitOr => b.or(x, y),
        B::Xor | B::BitXor => b.xor(x, y),
        B::ShiftLeft | B::ShiftRight => shift(b, kind, x, y, d),
        B::Equal if d == DType::Bool => {
            let differ = b.xor(x, y);
            b.not(differ)
        }
        B::Equal => b.cmp(CmpOp::Eq, x, y),
        B::Less => b.cmp(pick(CmpOp::Slt, CmpOp::Ult), x, y),
        B::LessEqual => b.cmp(pick(CmpOp::Sle, CmpOp::Ule), x, y),
        B::Greater => b.cmp(pick(CmpOp::Sgt, CmpOp::Ugt), x, y),
        B::GreaterEqual => b.cmp(pick(CmpOp::Sge, CmpOp::Uge), x, y),
        B::Pow => x,
    }
}

/// `x - trunc(x / y) * y`, exact by the remainder of the quotient in f64 for f32 operands of moderate quotient.
fn float_mod(b: &mut Builder, kind: BinaryKind, x: Val, y: Val) -> Val {
    let elem = b.ty(x).elem;
    let (wx, wy) = (b.float_to(x, Elem::F64), b.float_to(y, Elem::F64));
    let q = b.fdiv(wx, wy);
    let q = b.ftrunc(q);
    let n = b.fneg(q);
    let r = b.fma(n, wy, wx);
    // An infinite divisor leaves a finite dividend as it is.
    let ya = b.fabs(wy);
    let inf = b.cmp(CmpOp::FEq, ya, f64::INFINITY);
    let xa = b.fabs(wx);
    let finite = b.cmp(CmpOp::FLt, xa, f64::INFINITY);
    let keep = b.and(inf, finite);
    let r = b.select(keep, wx, r);
    let r = if kind == BinaryKind::Mod {
        let zero = b.cmp(CmpOp::FNe, r, 0.0);
        let rn = b.cmp(CmpOp::FLt, r, 0.0);
        let yn = b.cmp(CmpOp::FLt, wy, 0.0);
        let differ = b.xor(rn, yn);
        let fix = b.and(zero, differ);
        let moved = b.fadd(r, wy);
        b.select(fix, moved, r)
    } else {
        math::copysign(b, r, wx)
    };
    b.float_to(r, elem)
}

fn int_mod(b: &mut Builder, kind: BinaryKind, x: Val, y: Val, unsigned: bool) -> Val {
    let ty = b.ty(x);
    let zero = b.zero(ty);
    let none = b.cmp(CmpOp::Eq, y, zero);
    let r = if unsigned { b.urem(x, y) } else { b.srem(x, y) };
    let r = b.select(none, zero, r);
    if unsigned || kind == BinaryKind::Fmod {
        return r;
    }
    let some = b.cmp(CmpOp::Ne, r, zero);
    let rn = b.cmp(CmpOp::Slt, r, zero);
    let yn = b.cmp(CmpOp::Slt, y, zero);
    let differ = b.xor(rn, yn);
    let fix = b.and(some, differ);
    let moved = b.add(r, y);
    b.select(fix, moved, r)
}

fn shift(b: &mut Builder, kind: BinaryKind, x: Val, y: Val, d: DType) -> Val {
    let ty = b.ty(x);
    let bits = i64::from(ty.elem.bits());
    let inside = b.cmp(CmpOp::Ult, y, bits);
    if kind == BinaryKind::ShiftLeft {
        let s = b.shl(x, y);
        let zero = b.zero(ty);
        return b.select(inside, s, zero);
    }
    if d.is_unsigned_int() {
        let s = b.lshr(x, y);
        let zero = b.zero(ty);
        return b.select(inside, s, zero);
    }
    let s = b.ashr(x, y);
    let all = b.ashr(x, bits - 1);
    b.select(inside, s, all)
}

/// Integer powers by repeated squaring over the bits of the exponent, all others through f64.
fn power(b: &mut Builder, x: Val, y: Val, types: &[DType]) -> Val {
    let (dx, dy) = (types[0], types[1]);
    if dx.is_float() {
        let y = convert(b, y, dy, if dx == DType::F64 { DType::F64 } else { DType::F32 });
        return math::pow(b, x, y);
    }
    if dy.is_float() {
        let (wx, wy) = (convert(b, x, dx, DType::F64), convert(b, y, dy, DType::F64));
        let r = math::pow(b, wx, wy);
        return convert(b, r, DType::F64, dx);
    }
    let ty = b.ty(x);
    let e = convert(b, y, dy, DType::I64);
    let one = b.int(ty, 1);
    let (mut base, mut out) = (x, one);
    for bit in 0..6 {
        let set = b.and(e, 1 << bit);
        let set = b.cmp(CmpOp::Ne, set, 0);
        let more = b.mul(out, base);
        out = b.select(set, more, out);
        base = b.mul(base, base);
    }
    if dy.is_unsigned_int() {
        return out;
    }
    // Negative exponents: 1 and -1 keep their unit, all others round to 0.
    let negative = b.cmp(CmpOp::Slt, e, 0);
    let is_one = b.cmp(CmpOp::Eq, x, one);
    let minus = b.int(ty, -1);
    let is_minus = b.cmp(CmpOp::Eq, x, minus);
    let odd = b.and(e, 1);
    let odd = b.cmp(CmpOp::Ne, odd, 0);
    let unit = b.select(odd, minus, one);
    let zero = b.zero(ty);
    let r = b.select(is_minus, unit, zero);
    let r = b.select(is_one, one, r);
    b.select(negative, r, out)
}
