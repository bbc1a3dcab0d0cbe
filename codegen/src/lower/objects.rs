//! Sequences and optionals: calls of the runtime library.

use super::cx::LowerCx;
use planish_ir::dim::SymOrigin;
use planish_ir::{DType, Diag, Type};
use planish_rt::library;
use planish_rt::plan::{Arg, Call, Step};

/// A call with all operands, in order, and all results.
fn call(cx: &mut LowerCx<'_>, func: u16) -> Result<(), Diag> {
    let mut args = Vec::new();
    for i in 0..cx.node().inputs.len() {
        if cx.has(i) {
            let v = cx.input_value(i)?;
            args.push(Arg::Slot(cx.slot(v)?));
        }
    }
    let (mut outs, mut out_syms) = (Vec::new(), Vec::new());
    for k in 0..cx.node().outputs.len() {
        let v = cx.output_value(k)?;
        let tensor = matches!(cx.graph.ty(v), Type::Tensor(t) if t.dtype != DType::Str);
        if !tensor {
            outs.push(cx.output_object(k)?);
            continue;
        }
        let y = cx.output(k)?;
        for s in y.dims.iter().filter_map(|d| d.as_symbol()) {
            if cx.graph.symbols.get(s).origin == SymOrigin::Data {
                let s = cx.sym(s);
                if !out_syms.contains(&s) {
                    out_syms.push(s);
                }
            }
        }
        outs.push(y.slot);
    }
    let error = cx.error(&format!("`{}` failed", library::name(func)));
    let call =
        Call { func, args, outs, out_syms, attrs: Vec::new(), fattrs: Vec::new(), sattrs: Vec::new(), error };
    cx.step(Step::Call(Box::new(call)));
    Ok(())
}

pub(super) fn lower_sequence(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    call(cx, library::SEQ_CONSTRUCT)
}

pub(super) fn lower_at(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    call(cx, library::SEQ_AT)
}

pub(super) fn lower_insert(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    call(cx, library::SEQ_INSERT)
}

pub(super) fn lower_erase(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    call(cx, library::SEQ_ERASE)
}

pub(super) fn lower_length(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    call(cx, library::SEQ_LENGTH)
}

pub(super) fn lower_optional(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    call(cx, library::OPT_NEW)
}

pub(super) fn lower_get(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    call(cx, library::OPT_GET)
}

pub(super) fn lower_has(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    call(cx, library::OPT_HAS)
}
