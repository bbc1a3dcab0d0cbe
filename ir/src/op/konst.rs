//! Constants as nodes.

use crate::attr::{AttrValue, Attrs};
use crate::constant::ConstId;
use crate::diag::Diag;
use crate::entity::Entity;
use crate::graph::Fact;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::Value;
use crate::types::{TensorType, Type};

/// A constant of the pool.
#[derive(Clone, PartialEq, Debug)]
pub struct Const {
    /// Which.
    pub id: ConstId,
}

/// In the text format the payload stands in place of the field, so the parser makes this operation by itself.
impl Attrs for Const {
    const DOC: &'static [&'static str] = &[" A constant of the pool."];
    fn write_attrs(&self, out: &mut String) {
        (self.id.index() as i64).write(out);
    }
    fn read_attrs(_: &mut Vec<(String, String)>) -> Result<Self, String> {
        Err("a constant has no fields".into())
    }
}

impl OpDef for Const {
    const NAME: &'static str = "const";
    const INPUTS: (usize, usize) = (0, 0);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let c = cx
            .constant(self.id)
            .ok_or_else(|| Diag::error("constant-missing", format!("no constant {}", self.id)))?;
        Ok(vec![Type::from(TensorType::fixed(c.dtype, &c.shape)).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        Ok(vec![cx.env.constant(self.id)?.decode()?.into()])
    }
}
