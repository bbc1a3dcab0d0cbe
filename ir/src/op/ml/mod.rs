//! Operations of classical models: trees, label encoders, maps.

mod maps;
mod tree;

pub use maps::{CastMap, DictVectorize, ZipMap};
pub use tree::{Aggregate, TreeEnsemble};

use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value};
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// Each element of operand 0 looked up in the keys, a vector of the same dtype (operand 1), and replaced by the value at that place (operand 2, a vector as long); operand 3, one value, where there is none. Of equal keys the first counts; NaN equals NaN.
    LabelEncode {}
}

impl OpDef for LabelEncode {
    const NAME: &'static str = "label-encode";
    const INPUTS: (usize, usize) = (4, 4);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let (from, to) = (cx.dtype(0)?, cx.dtype(2)?);
        cx.expect_dtype(1, |d| d == from, "the type of what is looked up")?;
        cx.expect_dtype(3, |d| d == to, "the type of the values")?;
        let (k, v) = (cx.dims(1)?, cx.dims(2)?);
        match (k, v) {
            ([k], [v]) if k.as_const().zip(v.as_const()).is_none_or(|(a, b)| a == b) => {}
            _ => return Err(Diag::error("shape-mismatch", "keys and values must be vectors of one length")),
        }
        if cx.dims(3)?.iter().any(|d| d.as_const().is_some_and(|d| d != 1)) {
            return Err(Diag::error("shape-mismatch", "one default is needed"));
        }
        let shape = cx.ty(0)?.shape.clone();
        Ok(vec![Type::from(TensorType { dtype: to, shape, quant: None }).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, keys, values, default) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?, cx.tensor(3)?);
        if keys.len() != values.len() || default.len() != 1 {
            return Err(Diag::error("shape-mismatch", "keys, values and default do not fit"));
        }
        let places: Vec<Option<usize>> = match (x.elems(), keys.elems()) {
            (Elems::F(x), Elems::F(k)) => {
                let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
                x.iter().map(|v| k.iter().position(|k| same(*k, *v))).collect()
            }
            (Elems::I(x), Elems::I(k)) => x.iter().map(|v| k.iter().position(|k| k == v)).collect(),
            (Elems::S(x), Elems::S(k)) => x.iter().map(|v| k.iter().position(|k| k == v)).collect(),
            _ => return Err(Diag::error("dtype-mismatch", "keys are of another kind")),
        };
        let out = match (values.elems(), default.elems()) {
            (Elems::F(v), Elems::F(d)) => Elems::F(places.iter().map(|p| p.map_or(d[0], |p| v[p])).collect()),
            (Elems::I(v), Elems::I(d)) => Elems::I(places.iter().map(|p| p.map_or(d[0], |p| v[p])).collect()),
            (Elems::S(v), Elems::S(d)) => {
                Elems::S(places.iter().map(|p| p.map_or(&d[0], |p| &v[p]).clone()).collect())
            }
            _ => return Err(Diag::error("dtype-mismatch", "the default is of another kind")),
        };
        Ok(vec![Tensor::from_elems(values.dtype(), x.shape().to_vec(), out)?.into()])
    }
}

/// Whether trees and their kind compute on this type.
fn is_feature(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F64)
}

#[cfg(test)]
mod tests;
