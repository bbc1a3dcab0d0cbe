//! See [`QuantizeTrained`].

#[cfg(test)]
mod tests;

use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::normalize_axis;
use planish_ir::op::quant::{Dequantize, FakeQuantize, Quantize};
use planish_ir::{Constant, DType, Diag, Editor, NodeId, Op, Tensor, ValueId};

declare_pass! {
    /// Makes stored integers of values that `fake-quantize` rounded for training: constants become 8-bit integers that are dequantised, all else
    /// is quantised and dequantised, as other tools write it. `fuse-quantised` makes products of integers of that. With fewer than 8
    /// bits values are limited first; they take 8 bits all the same.
    ///
    /// # Preserves
    /// All values, but NaN, which becomes 0.
    ///
    /// # Declines
    /// A remark `quantize-skipped` where the scales are no constant or the values no f32.
    ///
    /// # Example
    /// `fake-quantize{bits=8, signed=true, axis=1, batch=false} c1, s1` becomes `dequantize{axis=1, block=0, to=f32} c2, s1` with `c2` in i8.
    pub struct QuantizeTrained {} = { name: "quantize-trained", kind: Lossy, options: [] }
}

impl QuantizeTrained {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(QuantizeTrained {})
    }
}

impl Pass for QuantizeTrained {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for n in ed.graph().all_nodes() {
            let g = ed.graph();
            let Op::FakeQuantize(op) = g.node(n).op.clone() else { continue };
            let (Some(x), Some(scale)) = (util::operand(g, n, 0), util::operand(g, n, 1)) else { continue };
            let known = util::constant(g, scale).map(|c| c.decode()).transpose()?;
            let why = match &known {
                None => "its scales are no constant",
                Some(s) if s.dtype() != DType::F32 => "its values are no f32",
                Some(s) => {
                    let steps = Tensor::floats(DType::F32, s.shape(), FakeQuantize::steps(s))?;
                    stored(ed, n, &op, x, steps)?;
                    cx.add("values-quantized", 1.0);
                    continue;
                }
            };
            cx.remark(g, n, "quantize-skipped", format!("{}: left alone, {why}", g.describe(n)));
        }
        Ok(())
    }
}

/// Puts stored integers in the place of rounded values.
fn stored(ed: &mut Editor<'_>, n: NodeId, op: &FakeQuantize, x: ValueId, steps: Tensor) -> Result<(), Diag> {
    let y = ed.graph().node(n).outputs[0];
    let known = util::constant(ed.graph(), x).map(|c| c.decode()).transpose()?;
    ed.before(n);
    let to = if op.signed { DType::I8 } else { DType::U8 };
    let back = Dequantize { axis: op.axis, block: 0, to: DType::F32 };
    let scale = ed.constant(Constant::from(steps.clone()))?;
    let new = if let Some(t) = known {
        let of = |q: f64| if q.is_nan() { 0 } else { q as i128 };
        let integers = op.stored(&t, &steps)?.into_iter().map(of).collect();
        let w = ed.constant(Constant::from(Tensor::ints(to, t.shape(), integers)?))?;
        ed.node1(back, &[w, scale])?
    } else {
        let x = if op.bits < 8 { limited(ed, op, x, &steps)? } else { x };
        let zero = Tensor::ints(to, steps.shape(), vec![0; steps.len()])?;
        let zero = ed.constant(Constant::from(zero))?;
        let there = Quantize { axis: op.axis, block: 0, to, saturate: true, precision: DType::F32 };
        let q = ed.node1(there, &[x, scale, zero])?;
        ed.node1(back, &[q, scale, zero])?
    };
    ed.replace(y, new);
    let operands = ed.graph().node(n).inputs.clone();
    ed.erase(n)?;
    for v in operands.into_iter().flatten() {
        let g = ed.graph();
        if let (Some(c), true) = (g.def_node(v), g.as_const(v).is_some() && g.uses(v).is_empty()) {
            ed.erase(c)?;
        }
    }
    Ok(())
}

/// What is within the range of fewer than 8 bits.
fn limited(ed: &mut Editor<'_>, op: &FakeQuantize, x: ValueId, steps: &Tensor) -> Result<ValueId, Diag> {
    let rank =
        ed.graph().dims(x).map(<[_]>::len).ok_or_else(|| Diag::error("unsupported-rank", "fake-quantize"))?;
    let mut shape = steps.shape().to_vec();
    if !shape.is_empty() {
        shape.resize(rank - normalize_axis(op.axis, rank)?, 1);
    }
    let mut x = x;
    for (limit, kind) in op.range().into_iter().zip([BinaryKind::Max, BinaryKind::Min]) {
        let limits = steps.to_f64().into_iter().map(|s| s * limit).collect();
        let limits = ed.constant(Constant::from(Tensor::floats(DType::F32, &shape, limits)?))?;
        x = ed.node1(Binary { kind }, &[x, limits])?;
    }
    Ok(x)
}
