//! Views: operations that only rename elements.

use super::cx::LowerCx;
use planish_ir::{Diag, Dim};

/// The result is a view of the first operand. Dims that come from a shape operand known only at run time are bound
/// and checked first.
pub(super) fn lower_reshape(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let (_, dims) = cx.output_type(0)?;
    if cx.ints(1).is_none() {
        let spec = cx.input(1)?;
        bind_target(cx, &x.dims, &dims, &spec)?;
    }
    cx.require_equal(
        &Dim::product(&x.dims),
        &Dim::product(&dims),
        "the shapes have different numbers of elements",
    );
    cx.alias(0, &x)
}

/// Resolves 0 and -1 of a run-time shape with a kernel and binds the result's dims.
pub(super) fn bind_target(
    cx: &mut LowerCx<'_>,
    from: &[Dim],
    to: &[Dim],
    spec: &super::Opnd,
) -> Result<(), Diag> {
    use crate::kernel::CmpOp;
    use planish_ir::{DType, Op};
    let rank = to.len();
    let allow_zero = matches!(cx.op(), Op::Reshape(r) if r.allow_zero);
    let out = cx.temp(DType::I64, &[Dim::from(rank)]);
    let known = from.to_vec();
    cx.launch(super::Launch::new("reshape_dims").read(spec).write(&out).dims(&known), move |k| {
        let (spec, out) = (k.buf(0), k.buf(1));
        let have = k.dims(0, known.len());
        k.b.parallel_for(|b, _| {
            let mut total = b.i64(1);
            for d in &have {
                total = b.mul(total, *d);
            }
            let mut rest = b.i64(1);
            let mut dims = Vec::new();
            for i in 0..rank {
                let d = b.load(spec, i as i64, 1);
                let d = match have.get(i) {
                    Some(h) if !allow_zero => {
                        let zero = b.cmp(CmpOp::Eq, d, 0);
                        b.select(zero, *h, d)
                    }
                    _ => d,
                };
                let hole = b.cmp(CmpOp::Eq, d, -1);
                let factor = b.select(hole, 1, d);
                rest = b.mul(rest, factor);
                dims.push((d, hole));
            }
            let missing = b.sdiv(total, rest);
            for (i, (d, hole)) in dims.into_iter().enumerate() {
                let d = b.select(hole, missing, d);
                b.store(out, i as i64, d);
            }
        });
    })?;
    for (i, d) in to.iter().enumerate() {
        cx.bind(
            d,
            &out,
            i as u32,
            &Dim::Const(0),
            &Dim::Const(1 << 40),
            "a dim of the new shape is out of range",
        )?;
    }
    Ok(())
}
