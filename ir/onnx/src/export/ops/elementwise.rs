//! Functions of single elements.

use super::plain;
use crate::export::attr;
use crate::export::cx::ExportCx;
use planish_ir::graph::Node;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::cast::Cast;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag};

pub(super) fn unary(cx: &mut ExportCx<'_>, node: &Node, kind: UnaryKind) -> Result<(), Diag> {
    use UnaryKind::*;
    let mut attributes = Vec::new();
    let op = match kind {
        Neg => "Neg",
        Abs => "Abs",
        Sqrt => "Sqrt",
        Reciprocal => "Reciprocal",
        Exp => "Exp",
        Log => "Log",
        Sin => "Sin",
        Cos => "Cos",
        Tan => "Tan",
        Asin => "Asin",
        Acos => "Acos",
        Atan => "Atan",
        Sinh => "Sinh",
        Cosh => "Cosh",
        Tanh => "Tanh",
        Asinh => "Asinh",
        Acosh => "Acosh",
        Atanh => "Atanh",
        Erf => "Erf",
        Sigmoid => "Sigmoid",
        Relu => "Relu",
        Softplus => "Softplus",
        Softsign => "Softsign",
        Mish => "Mish",
        HardSwish => "HardSwish",
        Gelu => "Gelu",
        GeluTanh => {
            attributes.push(attr::string("approximate", "tanh"));
            "Gelu"
        }
        Floor => "Floor",
        Ceil => "Ceil",
        Round => "Round",
        Sign => "Sign",
        Not => "Not",
        BitNot => "BitwiseNot",
        IsNan => "IsNaN",
        IsInf | IsPosInf | IsNegInf => {
            attributes.push(attr::flag("detect_negative", kind != IsPosInf));
            attributes.push(attr::flag("detect_positive", kind != IsNegInf));
            "IsInf"
        }
    };
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    cx.push(op, inputs, outputs, attributes);
    Ok(())
}

pub(super) fn binary(cx: &mut ExportCx<'_>, node: &Node, kind: BinaryKind) -> Result<(), Diag> {
    use BinaryKind::*;
    let mut attributes = Vec::new();
    let dtype = node.inputs.first().copied().flatten().and_then(|v| cx.graph.dtype(v));
    let op = match kind {
        Add => "Add",
        Sub => "Sub",
        Mul => "Mul",
        Div => "Div",
        Pow => "Pow",
        Mod if dtype.is_some_and(DType::is_float) => return float_mod(cx, node),
        Mod => "Mod",
        Fmod => {
            attributes.push(attr::flag("fmod", true));
            "Mod"
        }
        Min => "Min",
        Max => "Max",
        PRelu => return prelu(cx, node),
        And => "And",
        Or => "Or",
        Xor => "Xor",
        BitAnd => "BitwiseAnd",
        BitOr => "BitwiseOr",
        BitXor => "BitwiseXor",
        ShiftLeft | ShiftRight => {
            attributes.push(attr::string("direction", if kind == ShiftLeft { "LEFT" } else { "RIGHT" }));
            if dtype.is_some_and(DType::is_signed_int) {
                cx.needs(28);
            }
            "BitShift"
        }
        Equal => "Equal",
        Less => "Less",
        LessEqual => "LessOrEqual",
        Greater => "Greater",
        GreaterEqual => "GreaterOrEqual",
    };
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    cx.push(op, inputs, outputs, attributes);
    Ok(())
}

/// The remainder with the sign of the divisor exists for integers only: the remainder `r` with the sign of the
/// dividend, plus the divisor where that is not 0 and has the other sign.
fn float_mod(cx: &mut ExportCx<'_>, node: &Node) -> Result<(), Diag> {
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    let [_, b] = inputs.as_slice() else { return Err(Diag::error("arity", "two operands are needed")) };
    let b = b.clone();
    let dtype = node.inputs.first().copied().flatten().and_then(|v| cx.graph.dtype(v)).unwrap_or(DType::F32);
    let zero = cx.scalar(dtype, 0.0)?;
    let r = cx.temp("Mod", inputs, vec![attr::flag("fmod", true)]);
    let below = cx.temp("Less", vec![r.clone(), zero.clone()], Vec::new());
    let divisor_below = cx.temp("Less", vec![b.clone(), zero.clone()], Vec::new());
    let other_sign = cx.temp("Xor", vec![below, divisor_below], Vec::new());
    let exact = cx.temp("Equal", vec![r.clone(), zero], Vec::new());
    let rest = cx.temp("Not", vec![exact], Vec::new());
    let wrong = cx.temp("And", vec![other_sign, rest], Vec::new());
    let moved = cx.temp("Add", vec![r.clone(), b], Vec::new());
    cx.push("Where", vec![wrong, moved, r], outputs, Vec::new());
    Ok(())
}

/// `PRelu` where the slope is broadcast to x alone; in general `where(x < 0, x * slope, x)`.
fn prelu(cx: &mut ExportCx<'_>, node: &Node) -> Result<(), Diag> {
    let dims = |i: usize| cx.graph.dims(node.inputs.get(i).copied().flatten()?).map(<[_]>::to_vec);
    let one_way = match (dims(0), dims(1)) {
        (Some(x), Some(slope)) => {
            slope.len() <= x.len() && slope.iter().rev().zip(x.iter().rev()).all(|(s, x)| s.is(1) || s == x)
        }
        _ => false,
    };
    if one_way {
        return plain(cx, node, "PRelu");
    }
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    let x = inputs.first().cloned().unwrap_or_default();
    let dtype = node.inputs.first().copied().flatten().and_then(|v| cx.graph.dtype(v)).unwrap_or(DType::F32);
    let zero = cx.scalar(dtype, 0.0)?;
    let negative = cx.temp("Less", vec![x.clone(), zero], Vec::new());
    let scaled = cx.temp("Mul", inputs, Vec::new());
    cx.push("Where", vec![negative, scaled, x], outputs, Vec::new());
    Ok(())
}

pub(super) fn cast(cx: &mut ExportCx<'_>, node: &Node, op: &Cast) -> Result<(), Diag> {
    let mut attributes = vec![attr::int("to", op.to.onnx().into())];
    if !op.saturate {
        attributes.push(attr::flag("saturate", false));
    }
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    cx.push("Cast", inputs, outputs, attributes);
    Ok(())
}
