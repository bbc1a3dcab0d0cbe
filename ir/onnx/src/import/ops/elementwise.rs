//! Functions of single elements: activations, arithmetic, comparison, logic, conversion.

use super::Made;
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::cast::Cast;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, ValueId};

pub(super) const OPS: &[Entry] = &[
    onnx("Abs", unary),
    onnx("Acos", unary),
    onnx("Acosh", unary),
    onnx("Add", binary),
    onnx("And", binary),
    onnx("Asin", unary),
    onnx("Asinh", unary),
    onnx("Atan", unary),
    onnx("Atanh", unary),
    onnx("BitShift", bit_shift),
    onnx("BitwiseAnd", binary),
    onnx("BitwiseNot", unary),
    onnx("BitwiseOr", binary),
    onnx("BitwiseXor", binary),
    onnx("Cast", cast),
    onnx("CastLike", cast_like),
    onnx("Ceil", unary),
    onnx("Celu", celu),
    onnx("Clip", clip),
    onnx("Cos", unary),
    onnx("Cosh", unary),
    onnx("Div", binary),
    onnx("Elu", elu),
    onnx("Equal", binary),
    onnx("Erf", unary),
    onnx("Exp", unary),
    onnx("Floor", unary),
    onnx("Gelu", gelu),
    onnx("Greater", binary),
    onnx("GreaterOrEqual", binary),
    onnx("HardSigmoid", hard_sigmoid),
    onnx("HardSwish", unary),
    onnx("IsInf", is_inf),
    onnx("IsNaN", unary),
    onnx("LeakyRelu", leaky_relu),
    onnx("Less", binary),
    onnx("LessOrEqual", binary),
    onnx("Log", unary),
    onnx("Max", variadic),
    onnx("Mean", mean),
    onnx("Min", variadic),
    onnx("Mish", unary),
    onnx("Mod", modulo),
    onnx("Mul", binary),
    onnx("Neg", unary),
    onnx("Not", unary),
    onnx("Or", binary),
    onnx("PRelu", prelu),
    onnx("Pow", binary),
    onnx("Reciprocal", unary),
    onnx("Relu", unary),
    onnx("Round", unary),
    onnx("Selu", selu),
    onnx("Shrink", shrink),
    onnx("Sigmoid", unary),
    onnx("Sign", unary),
    onnx("Sin", unary),
    onnx("Sinh", unary),
    onnx("Softplus", unary),
    onnx("Softsign", unary),
    onnx("Sqrt", unary),
    onnx("Sub", binary),
    onnx("Sum", variadic),
    onnx("Swish", swish),
    onnx("Tan", unary),
    onnx("Tanh", unary),
    onnx("ThresholdedRelu", thresholded_relu),
    onnx("Where", select),
    onnx("Xor", binary),
];

fn unary(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    use UnaryKind::*;
    let kind = match node.op_type {
        "Abs" => Abs,
        "Acos" => Acos,
        "Acosh" => Acosh,
        "Asin" => Asin,
        "Asinh" => Asinh,
        "Atan" => Atan,
        "Atanh" => Atanh,
        "BitwiseNot" => BitNot,
        "Ceil" => Ceil,
        "Cos" => Cos,
        "Cosh" => Cosh,
        "Erf" => Erf,
        "Exp" => Exp,
        "Floor" => Floor,
        "HardSwish" => HardSwish,
        "IsNaN" => IsNan,
        "Log" => Log,
        "Mish" => Mish,
        "Neg" => Neg,
        "Not" => Not,
        "Reciprocal" => Reciprocal,
        "Relu" => Relu,
        "Round" => Round,
        "Sigmoid" => Sigmoid,
        "Sign" => Sign,
        "Sin" => Sin,
        "Sinh" => Sinh,
        "Softplus" => Softplus,
        "Softsign" => Softsign,
        "Sqrt" => Sqrt,
        "Tan" => Tan,
        "Tanh" => Tanh,
        _ => return Err(node.unsupported("no such function of one element")),
    };
    // An attribute of the first operator set versions, without an effect on the result.
    node.ignore(&["consumed_inputs"]);
    Ok(vec![cx.unary(kind, node.input(0)?)?])
}

fn binary(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    use BinaryKind::*;
    let kind = match node.op_type {
        "Add" => Add,
        "And" => And,
        "BitwiseAnd" => BitAnd,
        "BitwiseOr" => BitOr,
        "BitwiseXor" => BitXor,
        "Div" => Div,
        "Equal" => Equal,
        "Greater" => Greater,
        "GreaterOrEqual" => GreaterEqual,
        "Less" => Less,
        "LessOrEqual" => LessEqual,
        "Mul" => Mul,
        "Or" => Or,
        "Pow" => Pow,
        "Sub" => Sub,
        "Xor" => Xor,
        _ => return Err(node.unsupported("no such function of two elements")),
    };
    let (a, b) = aligned(cx, node)?;
    Ok(vec![cx.binary(kind, a, b)?])
}

/// The two operands. Before version 7 the second one was broadcast only with `broadcast`, and `axis` said where its
/// first dim goes.
fn aligned(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Result<(ValueId, ValueId), Diag> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    if node.opset >= 7 {
        return Ok((a, b));
    }
    node.ignore(&["consumed_inputs"]);
    let broadcast = node.flag("broadcast", false)?;
    match node.int("axis")? {
        Some(axis) if broadcast => {
            let (rank_a, rank_b) = (cx.rank(a)?, cx.rank(b)?);
            let axis = if axis < 0 { axis.saturating_add(rank_a as i64) } else { axis };
            let end = usize::try_from(axis).ok().and_then(|axis| axis.checked_add(rank_b));
            let tail = end.and_then(|end| rank_a.checked_sub(end));
            let tail =
                tail.ok_or_else(|| node.error("axis-out-of-range", format!("axis {axis} of broadcast")))?;
            if tail == 0 {
                return Ok((a, b));
            }
            let mut spec = vec![0; rank_b];
            spec.resize(rank_b + tail, 1);
            Ok((a, cx.reshape(b, &spec)?))
        }
        _ => Ok((a, b)),
    }
}

fn variadic(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let kind = match node.op_type {
        "Max" => BinaryKind::Max,
        "Min" => BinaryKind::Min,
        _ => BinaryKind::Add,
    };
    node.ignore(&["consumed_inputs"]);
    let mut total = node.input(0)?;
    for x in node.all_inputs()?.into_iter().skip(1) {
        total = cx.binary(kind, total, x)?;
    }
    Ok(vec![total])
}

fn mean(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let mut out = variadic(cx, node)?;
    for sum in &mut out {
        let count = cx.scalar_like(*sum, node.inputs.len() as f64)?;
        *sum = cx.binary(BinaryKind::Div, *sum, count)?;
    }
    Ok(out)
}

fn modulo(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let fmod = node.flag("fmod", false)?;
    // Older versions define no floating-point remainder with the sign of the divisor.
    if !fmod && node.opset < 28 && cx.dtype(a)?.is_float() {
        return Err(node.error("attribute-range", "floating-point operands need fmod = 1"));
    }
    Ok(vec![cx.binary(if fmod { BinaryKind::Fmod } else { BinaryKind::Mod }, a, b)?])
}

fn bit_shift(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let kind = match node.string("direction")? {
        Some("LEFT") => BinaryKind::ShiftLeft,
        Some("RIGHT") => BinaryKind::ShiftRight,
        _ => return Err(node.error("attribute-range", "direction must be LEFT or RIGHT")),
    };
    Ok(vec![cx.binary(kind, node.input(0)?, node.input(1)?)?])
}

fn select(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    Ok(vec![cx.select(node.input(0)?, node.input(1)?, node.input(2)?)?])
}

fn is_inf(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (negative, positive) = (node.flag("detect_negative", true)?, node.flag("detect_positive", true)?);
    let x = node.input(0)?;
    let kind = match (negative, positive) {
        (true, true) => UnaryKind::IsInf,
        (true, false) => UnaryKind::IsNegInf,
        (false, true) => UnaryKind::IsPosInf,
        (false, false) => {
            // Nothing is detected: false everywhere, which "infinite and not a number" is.
            let (inf, nan) = (cx.unary(UnaryKind::IsInf, x)?, cx.unary(UnaryKind::IsNan, x)?);
            return Ok(vec![cx.binary(BinaryKind::And, inf, nan)?]);
        }
    };
    Ok(vec![cx.unary(kind, x)?])
}

fn gelu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let kind = match node.choice("approximate", 0, &["none", "tanh"])? {
        0 => UnaryKind::Gelu,
        _ => UnaryKind::GeluTanh,
    };
    Ok(vec![cx.unary(kind, node.input(0)?)?])
}

fn clip(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let mut y = x;
    for (i, (name, kind)) in [("min", BinaryKind::Max), ("max", BinaryKind::Min)].into_iter().enumerate() {
        let bound = if node.opset < 11 {
            node.ignore(&["consumed_inputs"]);
            node.float(name)?.map(|v| cx.scalar_like(x, v.into())).transpose()?
        } else {
            match node.opt(i + 1) {
                // A vector of one element would give a scalar operand a rank.
                Some(v) if cx.rank(v).is_ok_and(|r| r > 0) => Some(cx.reshape(v, &[])?),
                other => other,
            }
        };
        if let Some(bound) = bound {
            y = cx.binary(kind, y, bound)?;
        }
    }
    Ok(vec![y])
}

fn leaky_relu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    node.ignore(&["consumed_inputs"]);
    let x = node.input(0)?;
    let slope = cx.scalar_like(x, node.float_or("alpha", 0.01)?.into())?;
    Ok(vec![cx.binary(BinaryKind::PRelu, x, slope)?])
}

fn prelu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    node.ignore(&["consumed_inputs"]);
    let (x, mut slope) = (node.input(0)?, node.input(1)?);
    // Before version 7 a vector of slopes belonged to the channels, axis 1.
    if node.opset < 7 && cx.rank(slope)? == 1 && cx.rank(x)? > 2 {
        let mut spec = vec![0];
        spec.resize(cx.rank(x)? - 1, 1);
        slope = cx.reshape(slope, &spec)?;
    }
    Ok(vec![cx.binary(BinaryKind::PRelu, x, slope)?])
}

/// `a * (e^(x / d) - 1)`
fn scaled_expm1(cx: &mut ImportCx<'_, '_>, x: ValueId, a: f64, d: f64) -> Result<ValueId, Diag> {
    let (scale, one) = (cx.scalar_like(x, a)?, cx.scalar_like(x, 1.0)?);
    let mut e = x;
    if d != 1.0 {
        let divisor = cx.scalar_like(x, d)?;
        e = cx.binary(BinaryKind::Div, e, divisor)?;
    }
    e = cx.unary(UnaryKind::Exp, e)?;
    e = cx.binary(BinaryKind::Sub, e, one)?;
    if a == 1.0 { Ok(e) } else { cx.binary(BinaryKind::Mul, e, scale) }
}

/// `below` where `x` is negative, else `x`.
fn where_negative(cx: &mut ImportCx<'_, '_>, x: ValueId, below: ValueId) -> Result<ValueId, Diag> {
    let zero = cx.scalar_like(x, 0.0)?;
    let negative = cx.binary(BinaryKind::Less, x, zero)?;
    cx.select(negative, below, x)
}

fn elu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    node.ignore(&["consumed_inputs"]);
    let x = node.input(0)?;
    let below = scaled_expm1(cx, x, node.float_or("alpha", 1.0)?.into(), 1.0)?;
    Ok(vec![where_negative(cx, x, below)?])
}

fn celu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let alpha = f64::from(node.float_or("alpha", 1.0)?);
    let below = scaled_expm1(cx, x, alpha, alpha)?;
    Ok(vec![where_negative(cx, x, below)?])
}

fn selu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    node.ignore(&["consumed_inputs"]);
    let x = node.input(0)?;
    // Before version 6 the defaults had fewer digits.
    let (a, g) = if node.opset < 6 { (1.6732, 1.0507) } else { (1.673_263_2, 1.050_701) };
    let (alpha, gamma) = (node.float_or("alpha", a)?, node.float_or("gamma", g)?);
    let below = scaled_expm1(cx, x, alpha.into(), 1.0)?;
    let y = where_negative(cx, x, below)?;
    let gamma = cx.scalar_like(x, gamma.into())?;
    Ok(vec![cx.binary(BinaryKind::Mul, y, gamma)?])
}

fn hard_sigmoid(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    node.ignore(&["consumed_inputs"]);
    let x = node.input(0)?;
    let (alpha, beta) = (node.float_or("alpha", 0.2)?, node.float_or("beta", 0.5)?);
    let (alpha, beta) = (cx.scalar_like(x, alpha.into())?, cx.scalar_like(x, beta.into())?);
    let (zero, one) = (cx.scalar_like(x, 0.0)?, cx.scalar_like(x, 1.0)?);
    let y = cx.binary(BinaryKind::Mul, x, alpha)?;
    let y = cx.binary(BinaryKind::Add, y, beta)?;
    let y = cx.binary(BinaryKind::Max, y, zero)?;
    Ok(vec![cx.binary(BinaryKind::Min, y, one)?])
}

fn swish(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let alpha = node.float_or("alpha", 1.0)?;
    let mut inner = x;
    if alpha != 1.0 {
        let alpha = cx.scalar_like(x, alpha.into())?;
        inner = cx.binary(BinaryKind::Mul, x, alpha)?;
    }
    let gate = cx.unary(UnaryKind::Sigmoid, inner)?;
    Ok(vec![cx.binary(BinaryKind::Mul, x, gate)?])
}

fn thresholded_relu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let alpha = cx.scalar_like(x, node.float_or("alpha", 1.0)?.into())?;
    let zero = cx.scalar_like(x, 0.0)?;
    let above = cx.binary(BinaryKind::Greater, x, alpha)?;
    Ok(vec![cx.select(above, x, zero)?])
}

fn shrink(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let (bias, lambda) = (node.float_or("bias", 0.0)?, node.float_or("lambd", 0.5)?);
    let (zero, bias) = (cx.scalar_like(x, 0.0)?, cx.scalar_like(x, bias.into())?);
    // Integer elements are compared with the unrounded bound.
    let wide = if cx.dtype(x)?.is_float() { x } else { cx.cast(x, DType::F32)? };
    let (low, high) = (cx.scalar_like(wide, -f64::from(lambda))?, cx.scalar_like(wide, lambda.into())?);
    let below = cx.binary(BinaryKind::Less, wide, low)?;
    let above = cx.binary(BinaryKind::Greater, wide, high)?;
    let (up, down) = (cx.binary(BinaryKind::Add, x, bias)?, cx.binary(BinaryKind::Sub, x, bias)?);
    let y = cx.select(above, down, zero)?;
    Ok(vec![cx.select(below, up, y)?])
}

fn cast(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let to = if node.opset < 6 {
        let name = node.string("to")?.ok_or_else(|| node.missing("to"))?;
        let known = crate::proto::tensor_proto::DataType::from_str_name(name);
        let dtype = known.and_then(|d| DType::from_onnx(d as i32));
        dtype.ok_or_else(|| node.error("attribute-range", format!("{name:?} is no element type")))?
    } else {
        node.dtype("to")?.ok_or_else(|| node.missing("to"))?
    };
    convert(cx, node, to)
}

fn cast_like(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let to = cx.dtype(node.input(1)?)?;
    convert(cx, node, to)
}

fn convert(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>, to: DType) -> Made {
    let saturate = node.flag("saturate", true)?;
    let rounding = node.choice("round_mode", 0, &["up", "down", "nearest"])?;
    let x = node.input(0)?;
    if cx.dtype(x)? == to {
        return Ok(vec![x]);
    }
    if to == DType::F8E8M0 && rounding != 0 {
        return Err(node.unsupported("only round_mode = up is supported"));
    }
    Ok(vec![cx.op(Cast { to, saturate }, &[x])?])
}
