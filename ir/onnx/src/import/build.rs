//! Building blocks for handlers: one IR node each, or a short chain.

use super::ImportCx;
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::cast::Cast;
use planish_ir::op::reshape::Reshape;
use planish_ir::op::unary::{Unary, UnaryKind};
use planish_ir::op::where_::Where;
use planish_ir::{DType, Diag, Dim, Op, Tensor, Type, ValueId};

impl ImportCx<'_, '_> {
    /// A node with one result.
    pub fn op(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, Diag> {
        self.ed.node1(op, inputs)
    }

    /// A node with any number of results; operands may be omitted.
    pub fn op_many(&mut self, op: impl Into<Op>, inputs: &[Option<ValueId>]) -> Result<Vec<ValueId>, Diag> {
        self.ed.node(op, inputs)
    }

    /// An element-wise function of one tensor.
    pub fn unary(&mut self, kind: UnaryKind, x: ValueId) -> Result<ValueId, Diag> {
        self.op(Unary { kind }, &[x])
    }

    /// An element-wise function of two tensors that are broadcast.
    pub fn binary(&mut self, kind: BinaryKind, a: ValueId, b: ValueId) -> Result<ValueId, Diag> {
        self.op(Binary { kind }, &[a, b])
    }

    /// `a` where `condition` is true, else `b`.
    pub fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Result<ValueId, Diag> {
        self.op(Where {}, &[condition, a, b])
    }

    /// `x` converted to `to`; `x` itself where it has that type.
    pub fn cast(&mut self, x: ValueId, to: DType) -> Result<ValueId, Diag> {
        if self.dtype(x)? == to { Ok(x) } else { self.op(Cast { to, saturate: true }, &[x]) }
    }

    /// `x` under the shape that the integers of `spec` list: 0 copies a dim of `x`, one -1 is what remains.
    pub fn reshape(&mut self, x: ValueId, spec: &[i64]) -> Result<ValueId, Diag> {
        let spec = self.const_i64s(spec)?;
        self.op(Reshape { allow_zero: false }, &[x, spec])
    }

    /// A constant tensor.
    pub fn constant(&mut self, tensor: Tensor) -> Result<ValueId, Diag> {
        self.ed.constant(tensor)
    }

    /// A constant vector of i64.
    pub fn const_i64s(&mut self, values: &[i64]) -> Result<ValueId, Diag> {
        self.ed.constant(Tensor::vec_i64(values))
    }

    /// A constant f32 scalar.
    pub fn const_f32(&mut self, value: f32) -> Result<ValueId, Diag> {
        self.const_scalar(DType::F32, value.into())
    }

    /// A constant scalar of any numeric type, rounded to it.
    pub fn const_scalar(&mut self, dtype: DType, value: f64) -> Result<ValueId, Diag> {
        self.ed.constant(Tensor::scalar(dtype, value)?)
    }

    /// A constant scalar of the type of `x`.
    pub fn scalar_like(&mut self, x: ValueId, value: f64) -> Result<ValueId, Diag> {
        let dtype = self.dtype(x)?;
        self.const_scalar(dtype, value)
    }

    /// Element type of a tensor.
    pub fn dtype(&self, x: ValueId) -> Result<DType, Diag> {
        let dtype = self.graph().dtype(x);
        dtype.ok_or_else(|| Diag::error("type-mismatch", "a tensor is needed here"))
    }

    /// Type of a value.
    pub fn ty(&self, x: ValueId) -> &Type {
        self.graph().ty(x)
    }

    /// Dims of a tensor of known rank.
    pub fn dims(&self, x: ValueId) -> Result<Vec<Dim>, Diag> {
        match self.graph().ty(x) {
            Type::Tensor(t) => t.dims().map(<[Dim]>::to_vec),
            _ => Err(Diag::error("type-mismatch", "a tensor is needed here")),
        }
    }

    /// Rank of a tensor.
    pub fn rank(&self, x: ValueId) -> Result<usize, Diag> {
        self.dims(x).map(|d| d.len())
    }

    /// The elements of a constant with at most `limit` of them.
    pub fn const_tensor(&self, x: ValueId, limit: usize) -> Option<Tensor> {
        self.graph().as_const(x)?.1.small(limit)
    }

    /// The integers of `x` (rank 0 or 1), as far as they follow from constants and dims.
    pub fn ints_of(&self, x: ValueId) -> Option<Vec<Dim>> {
        if let Some(content) = &self.graph().value(x).fact.content {
            return Some(content.clone());
        }
        let tensor = self.const_tensor(x, 1 << 16)?;
        if tensor.rank() > 1 {
            return None;
        }
        Some(tensor.to_i64().ok()?.into_iter().map(Dim::from).collect())
    }

    /// The integers of `x`, if all of them are known numbers.
    pub fn const_ints(&self, x: ValueId) -> Option<Vec<i64>> {
        self.ints_of(x)?.iter().map(Dim::as_const).collect()
    }
}
