//! Sequences, optionals, maps and strings: calls of the runtime library.

use super::cx::LowerCx;
use super::{automaton, strings};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::select::Unique;
use planish_ir::op::strings::{CaseChange, RegexMatch, TfIdfMode};
use planish_ir::{DType, Diag, Dim, Op, Type};
use planish_rt::library;
use planish_rt::plan::{Arg, Call, Step};

/// Attributes of a call.
#[derive(Default)]
struct Attrs {
    ints: Vec<i64>,
    floats: Vec<f64>,
    strings: Vec<String>,
}

/// Integer attributes.
fn ints(ints: &[i64]) -> Attrs {
    Attrs { ints: ints.to_vec(), ..Attrs::default() }
}

/// A call with all operands, in order, and all results.
fn call(cx: &mut LowerCx<'_>, func: u16, attrs: Attrs) -> Result<(), Diag> {
    let n = cx.node().inputs.len();
    call_with(cx, func, 0..n, &[], attrs)
}

/// A call with some operands, then scalars, and all results.
fn call_with(
    cx: &mut LowerCx<'_>,
    func: u16,
    operands: std::ops::Range<usize>,
    scalars: &[Dim],
    attrs: Attrs,
) -> Result<(), Diag> {
    let mut args = Vec::new();
    for i in operands {
        if cx.has(i) {
            let v = cx.input_value(i)?;
            args.push(Arg::Slot(cx.slot(v)?));
        }
    }
    for d in scalars {
        let e = cx.expr(d);
        args.push(Arg::Scalar(e));
    }
    let (mut outs, mut out_syms) = (Vec::new(), Vec::new());
    for k in 0..cx.node().outputs.len() {
        let v = cx.output_value(k)?;
        let tensor = matches!(cx.graph.ty(v), Type::Tensor(t) if t.dtype != DType::Str);
        // Those of a string tensor are bound after the call.
        let own = if tensor { strings::own_symbols(cx, v) } else { Vec::new() };
        for s in own {
            let s = cx.sym(s);
            if !out_syms.contains(&s) {
                out_syms.push(s);
            }
        }
        outs.push(if tensor { cx.output(k)?.slot } else { cx.output_object(k)? });
    }
    let error = cx.error(&format!("`{}` failed", library::name(func)));
    let call = Call {
        func,
        args,
        outs,
        out_syms,
        attrs: attrs.ints,
        fattrs: attrs.floats,
        sattrs: attrs.strings,
        error,
    };
    cx.step(Step::Call(Box::new(call)));
    for k in 0..cx.node().outputs.len() {
        if cx.graph.dtype(cx.output_value(k)?) == Some(DType::Str) {
            strings::bind_result(cx, k)?;
        }
    }
    Ok(())
}

/// Lowers a node that works on containers or strings; none if it is no such node.
pub(super) fn lower_object(cx: &mut LowerCx<'_>, op: &Op) -> Option<Result<(), Diag>> {
    let plain = Attrs::default;
    Some(match op {
        Op::Sequence(_) => call(cx, library::SEQ_CONSTRUCT, plain()),
        Op::SequenceAt(_) => call(cx, library::SEQ_AT, plain()),
        Op::SequenceInsert(_) => call(cx, library::SEQ_INSERT, plain()),
        Op::SequenceErase(_) => call(cx, library::SEQ_ERASE, plain()),
        Op::SequenceLength(_) => call(cx, library::SEQ_LENGTH, plain()),
        Op::ConcatSequence(o) => call(cx, library::SEQ_CONCAT, ints(&[o.axis, o.new_axis.into()])),
        Op::SplitSequence(o) => call(cx, library::SEQ_SPLIT, ints(&[o.axis, o.keepdims.into()])),
        Op::Optional(_) => call(cx, library::OPT_NEW, plain()),
        Op::OptionalGet(_) => call(cx, library::OPT_GET, plain()),
        Op::OptionalHas(_) => call(cx, library::OPT_HAS, plain()),
        Op::StringConcat(_) => call(cx, library::STR_CONCAT, plain()),
        Op::StringSplit(o) => {
            let cuts = ints(&[o.maxsplit.unwrap_or(-1)]);
            let strings = if o.delimiter.is_empty() { Vec::new() } else { vec![o.delimiter.clone()] };
            call(cx, library::STR_SPLIT, Attrs { strings, ..cuts })
        }
        Op::StringNormalize(o) => {
            let case = match o.case {
                CaseChange::Keep => 0,
                CaseChange::Lower => 1,
                CaseChange::Upper => 2,
            };
            let flags = ints(&[case, o.case_sensitive.into()]);
            call(cx, library::STR_NORMALIZE, Attrs { strings: o.stopwords.clone(), ..flags })
        }
        Op::TfIdf(o) => {
            let mode = match o.mode {
                TfIdfMode::Tf => 0,
                TfIdfMode::Idf => 1,
                TfIdfMode::TfIdf => 2,
            };
            let mut list = vec![mode, o.min_gram, o.max_gram, o.max_skip, o.starts.len() as i64];
            list.extend(o.starts.iter().chain(&o.columns));
            call(cx, library::TF_IDF, Attrs { floats: o.weights.clone(), ..ints(&list) })
        }
        Op::LabelEncode(_) => call(cx, library::LABEL_ENCODE, plain()),
        Op::ZipMap(_) => call(cx, library::ZIP_MAP, plain()),
        Op::DictVectorize(_) => call(cx, library::DICT_VECTORIZE, plain()),
        Op::CastMap(o) => match cx.input_value(0).map(|v| cx.graph.ty(v).clone()) {
            Ok(Type::Map(_, t)) if t.as_tensor().is_some_and(|t| t.dtype == o.to) => {
                call(cx, library::MAP_VALUES, ints(&[o.width.unwrap_or(-1)]))
            }
            _ => Err(Diag::unsupported("a map whose values change their type")),
        },
        Op::RegexMatch(o) => lower_regex(cx, o),
        Op::Unique(o) => lower_unique(cx, o),
        _ if touches_strings(cx) => lower_strings(cx, op),
        _ => return None,
    })
}

/// Whether an operand or result of the node is a tensor of strings.
fn touches_strings(cx: &LowerCx<'_>) -> bool {
    let node = cx.node();
    node.regions.is_empty()
        && node.inputs.iter().flatten().chain(&node.outputs).any(|v| cx.graph.dtype(*v) == Some(DType::Str))
}

fn lower_strings(cx: &mut LowerCx<'_>, op: &Op) -> Result<(), Diag> {
    let v = cx.output_value(0)?;
    let dims = cx.graph.dims(v).map(<[Dim]>::to_vec);
    match op {
        Op::Const(_) => Ok(()),
        Op::Binary(o) if o.kind == BinaryKind::Equal => call(cx, library::STR_EQUAL, Attrs::default()),
        Op::Where(_) => call(cx, library::STR_WHERE, Attrs::default()),
        Op::Cast(o) => call(cx, library::STR_CAST, ints(&[o.to.onnx().into()])),
        Op::Concat(o) => call(cx, library::CONCAT, ints(&[o.axis as i64])),
        op if strings::moves(cx, op) => strings::lower_moves(cx, op),
        Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Flatten(_) if dims.is_some() => {
            let dims = dims.unwrap_or_default();
            if matches!(op, Op::Reshape(_)) && cx.ints(1).is_none() {
                let from = cx.graph.dims(cx.input_value(0)?).map(<[Dim]>::to_vec);
                let from = from.ok_or_else(|| Diag::unsupported("a tensor of strings of unknown rank"))?;
                let spec = cx.input(1)?;
                super::reshape::bind_target(cx, &from, &dims, &spec)?;
            }
            call_with(cx, library::RESHAPE, 0..1, &dims, Attrs::default())
        }
        other => Err(Diag::error("unsupported-op", format!("`{}` of strings has no kernel", other.name()))),
    }
}

/// The pattern becomes a table, so that programs need no regular expressions.
fn lower_regex(cx: &mut LowerCx<'_>, op: &RegexMatch) -> Result<(), Diag> {
    call(cx, library::STR_MATCH, ints(&automaton::table(op)?))
}

fn lower_unique(cx: &mut LowerCx<'_>, op: &Unique) -> Result<(), Diag> {
    let axis = op.axis.map_or(-1, |a| a as i64);
    call(cx, library::UNIQUE, ints(&[axis, op.sorted.into()]))
}

/// Operands that are omitted before given ones have no place in the call.
pub(super) fn lower_suppression(cx: &mut LowerCx<'_>, centered: bool) -> Result<(), Diag> {
    let given = (0..5).filter(|i| cx.has(*i)).count();
    if (0..given).any(|i| !cx.has(i)) {
        return Err(Diag::unsupported("an omitted operand before a given one"));
    }
    call(cx, library::NON_MAX_SUPPRESSION, ints(&[i64::from(centered)]))
}
