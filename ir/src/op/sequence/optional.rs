//! Values that may be absent.

use super::opened;
use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value};
use crate::types::Type;
use std::sync::Arc;

crate::op_struct! {
    /// The operand as an optional, or an absent one without operand.
    Optional {
        /// The type of what is absent.
        item: Type,
    }
}

crate::op_struct! {
    /// What an optional holds; an error when it is absent.
    OptionalGet {}
}

crate::op_struct! {
    /// Whether an optional holds something, a bool scalar.
    OptionalHas {}
}

fn held<'a>(cx: &InferCx<'a>) -> Result<&'a Arc<Type>, Diag> {
    match cx.value_ty(0)? {
        Type::Optional(t) => Ok(t),
        t => Err(Diag::error("type-mismatch", format!("{} is no optional", t.display(cx.symbols)))),
    }
}

impl OpDef for Optional {
    const NAME: &'static str = "optional";
    const INPUTS: (usize, usize) = (0, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let item = if cx.has(0) { cx.value_ty(0)?.clone() } else { self.item.clone() };
        Ok(vec![Type::Optional(Arc::new(item)).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let held = if cx.has(0) { Some(Box::new(cx.take(0)?)) } else { None };
        let ty = held.as_ref().map_or_else(|| self.item.clone(), |v| v.ty());
        Ok(vec![Value::Optional(Arc::new(ty), held)])
    }
}

impl OpDef for OptionalGet {
    const NAME: &'static str = "optional-get";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let item = held(cx)?.clone();
        Ok(vec![opened(cx, &item).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        match cx.take(0)? {
            Value::Optional(_, Some(v)) => Ok(vec![*v]),
            Value::Optional(_, None) => Err(Diag::error("optional-absent", "the optional holds nothing")),
            _ => Err(Diag::error("type-mismatch", "an optional is needed here")),
        }
    }
}

impl OpDef for OptionalHas {
    const NAME: &'static str = "optional-has";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        held(cx)?;
        Ok(vec![Type::tensor(DType::Bool, Vec::new()).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let there = matches!(cx.take(0)?, Value::Optional(_, Some(_)));
        Ok(vec![Tensor::ints(DType::Bool, &[], vec![there.into()])?.into()])
    }
}
