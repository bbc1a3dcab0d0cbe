//! Operators that read or write elements at places that data decide, and that make tensors from few numbers.

use super::Made;
use super::shape::{as_i64, axis_attr};
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::gather::{Gather, GatherElements, GatherNd};
use planish_ir::op::generate::{EyeLike, OneHot, Range, Trilu};
use planish_ir::op::normalize_axis;
use planish_ir::op::scatter::{Reduction, ScatterElements, ScatterNd, TensorScatter};
use planish_ir::op::select::{Compress, NonZero, ReverseSequence, Unique};
use planish_ir::op::sort::{ArgReduce, TopK};
use planish_ir::{DType, Diag};

pub(super) const OPS: &[Entry] = &[
    onnx("ArgMax", arg_reduce),
    onnx("ArgMin", arg_reduce),
    onnx("Compress", compress),
    onnx("EyeLike", eye_like),
    onnx("Gather", gather),
    onnx("GatherElements", gather_elements),
    onnx("GatherND", gather_nd),
    onnx("NonZero", non_zero),
    onnx("OneHot", one_hot),
    onnx("Range", range),
    onnx("ReverseSequence", reverse_sequence),
    onnx("Scatter", scatter_elements),
    onnx("ScatterElements", scatter_elements),
    onnx("ScatterND", scatter_nd),
    onnx("TensorScatter", tensor_scatter),
    onnx("TopK", top_k),
    onnx("Trilu", trilu),
    onnx("Unique", unique),
];

fn gather(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, at) = (node.input(0)?, node.input(1)?);
    let axis = axis_attr(node, 0, cx.rank(x)?)?;
    Ok(vec![cx.op(Gather { axis }, &[x, at])?])
}

fn gather_elements(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, at) = (node.input(0)?, node.input(1)?);
    let axis = axis_attr(node, 0, cx.rank(x)?)?;
    Ok(vec![cx.op(GatherElements { axis }, &[x, at])?])
}

fn gather_nd(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, at) = (node.input(0)?, node.input(1)?);
    let batch_dims = node.int_in("batch_dims", 0, 0..=64)? as usize;
    Ok(vec![cx.op(GatherNd { batch_dims }, &[x, at])?])
}

fn reduction(node: &OnnxNode<'_>) -> Result<Reduction, Diag> {
    let all = [Reduction::None, Reduction::Add, Reduction::Mul, Reduction::Max, Reduction::Min];
    Ok(all[node.choice("reduction", 0, &["none", "add", "mul", "max", "min"])?])
}

fn scatter_elements(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, at, up) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let axis = axis_attr(node, 0, cx.rank(x)?)?;
    let reduction = reduction(node)?;
    Ok(vec![cx.op(ScatterElements { axis, reduction }, &[x, at, up])?])
}

fn scatter_nd(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, at, up) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let reduction = reduction(node)?;
    Ok(vec![cx.op(ScatterNd { reduction }, &[x, at, up])?])
}

fn tensor_scatter(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, up) = (node.input(0)?, node.input(1)?);
    let axis = axis_attr(node, -2, cx.rank(x)?)?;
    let circular = node.choice("mode", 0, &["linear", "circular"])? == 1;
    let mut operands = vec![Some(x), Some(up)];
    if let Some(at) = node.opt(2) {
        operands.push(Some(as_i64(cx, at)?));
    }
    cx.op_many(TensorScatter { axis, circular }, &operands)
}

fn range(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    // Newer versions may compute in another type than the operands have.
    node.ignore(&["stash_type"]);
    Ok(vec![cx.op(Range {}, &[node.input(0)?, node.input(1)?, node.input(2)?])?])
}

fn eye_like(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let dtype = match node.dtype("dtype")? {
        Some(d) => d,
        None => cx.dtype(x)?,
    };
    Ok(vec![cx.op(EyeLike { dtype, k: node.int_or("k", 0)? }, &[x])?])
}

fn trilu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let upper = node.flag("upper", true)?;
    let mut operands = vec![Some(node.input(0)?)];
    if let Some(k) = node.opt(1) {
        operands.push(Some(as_i64(cx, k)?));
    }
    cx.op_many(Trilu { upper }, &operands)
}

fn one_hot(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, values) = (node.input(0)?, node.input(2)?);
    let depth = as_i64(cx, node.input(1)?)?;
    let axis = axis_attr(node, -1, cx.rank(x)? + 1)?;
    Ok(vec![cx.op(OneHot { axis }, &[x, depth, values])?])
}

fn non_zero(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    Ok(vec![cx.op(NonZero {}, &[node.input(0)?])?])
}

fn opt_axis(cx: &ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Result<Option<usize>, Diag> {
    let rank = cx.rank(node.input(0)?)?;
    node.int("axis")?.map(|a| normalize_axis(a, rank)).transpose()
}

fn compress(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let axis = opt_axis(cx, node)?;
    Ok(vec![cx.op(Compress { axis }, &[node.input(0)?, node.input(1)?])?])
}

fn unique(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let axis = opt_axis(cx, node)?;
    cx.op_many(Unique { axis, sorted: node.flag("sorted", true)? }, &[Some(node.input(0)?)])
}

fn reverse_sequence(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let rank = cx.rank(x)?;
    let batch_axis = normalize_axis(node.int_or("batch_axis", 1)?, rank)?;
    let time_axis = normalize_axis(node.int_or("time_axis", 0)?, rank)?;
    let lens = as_i64(cx, node.input(1)?)?;
    Ok(vec![cx.op(ReverseSequence { batch_axis, time_axis }, &[x, lens])?])
}

fn top_k(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let axis = axis_attr(node, -1, cx.rank(x)?)?;
    let k = if node.opset < 10 {
        let k = node.need_int("k")?;
        cx.const_i64s(&[k])?
    } else {
        as_i64(cx, node.input(1)?)?
    };
    // Results are sorted whether this is asked for or not.
    node.ignore(&["sorted"]);
    let largest = node.flag("largest", true)?;
    cx.op_many(TopK { axis, largest }, &[Some(x), Some(k)])
}

fn arg_reduce(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let mut x = node.input(0)?;
    if cx.dtype(x)? == DType::Bool {
        x = cx.cast(x, DType::U8)?;
    }
    let op = ArgReduce {
        largest: node.op_type == "ArgMax",
        axis: axis_attr(node, 0, cx.rank(x)?)?,
        keepdims: node.flag("keepdims", true)?,
        last: node.flag("select_last_index", false)?,
    };
    Ok(vec![cx.op(op, &[x])?])
}
