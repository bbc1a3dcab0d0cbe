//! Quantisation by the range of a tensor.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value};
use crate::types::Type;

crate::op_struct! {
    /// Spreads the range of x (f32), extended to 0, over u8 (ONNX `DynamicQuantizeLinear`). Results: the elements (u8, the shape of x), their scale (f32, rank 0) and their zero point (u8, rank 0). scale = (max - min) / 255, or 1 if all elements are 0; zero point = round(-min / scale) limited to 0..255; elements as by `quantize`. NaN does not count for the range.
    DynamicQuantize {}
}

impl OpDef for DynamicQuantize {
    const NAME: &'static str = "dynamic-quantize";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d == DType::F32, "f32")?;
        let mut elements = cx.ty(0)?.clone();
        elements.dtype = DType::U8;
        elements.quant = None;
        let scalar = |d| Type::tensor(d, Vec::new()).into();
        Ok(vec![Type::from(elements).into(), scalar(DType::F32), scalar(DType::U8)])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let v: Vec<f32> = x.to_f64().into_iter().map(|v| v as f32).collect();
        let low = v.iter().fold(0f32, |low, v| if *v < low { *v } else { low });
        let high = v.iter().fold(0f32, |high, v| if *v > high { *v } else { high });
        let range = high - low;
        let scale = if range == 0.0 { 1.0 } else { range / 255.0 };
        let zero = -(low / scale);
        let zero = if zero > 0.0 { zero.min(255.0).round_ties_even() } else { 0.0 };
        let elements = v.iter().map(|v| {
            let q = v / scale;
            let q = if q.is_nan() { 0.0 } else { q.round_ties_even() };
            i128::from((q + zero).clamp(0.0, 255.0) as u8)
        });
        let elements = Tensor::from_elems(DType::U8, x.shape().to_vec(), Elems::I(elements.collect()))?;
        let zero = Tensor::ints(DType::U8, &[], vec![i128::from(zero as u8)])?;
        Ok(vec![elements.into(), Tensor::f32s(&[], &[scale])?.into(), zero.into()])
    }
}
