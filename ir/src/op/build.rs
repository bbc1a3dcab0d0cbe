//! Nodes by the function they compute, for code that makes many of them.

use crate::constant::Constant;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::editor::Editor;
use crate::graph::ValueId;
use crate::op::binary::{Binary, BinaryKind};
use crate::op::cast::Cast;
use crate::op::concat::{Concat, Pad, PadMode};
use crate::op::matmul::MatMul;
use crate::op::reduce::{Reduce, ReduceKind};
use crate::op::reshape::Reshape;
use crate::op::scatter::{Reduction, ScatterElements};
use crate::op::unary::{Unary, UnaryKind};
use crate::op::views::{Expand, Shape, Squeeze, Transpose, Unsqueeze};
use crate::op::where_::Where;
use crate::tensor::Tensor;
use crate::types::Type;
use std::ops::Range;

/// Makes nodes. Errors name what they are made for.
pub struct Build<'e, 'g> {
    /// New nodes go where this says.
    pub ed: &'e mut Editor<'g>,
    what: &'static str,
}

impl<'e, 'g> Build<'e, 'g> {
    /// Nodes where an editor stands, made for `what`.
    pub fn new(ed: &'e mut Editor<'g>, what: &'static str) -> Self {
        Build { ed, what }
    }
    /// What the nodes are made for.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl Build<'_, '_> {
    /// The dims of a value.
    pub fn dims(&self, v: ValueId) -> Result<Vec<Dim>, Diag> {
        let dims = self.ed.graph().dims(v).map(<[Dim]>::to_vec);
        dims.ok_or_else(|| {
            Diag::error(
                "unsupported-gradient",
                format!("the rank of an operand of `{}` is unknown", self.what),
            )
        })
    }
    /// The dims of a value as numbers.
    pub fn known_dims(&self, v: ValueId) -> Result<Vec<i64>, Diag> {
        let dims: Option<Vec<i64>> = self.dims(v)?.iter().map(Dim::as_const).collect();
        dims.ok_or_else(|| {
            Diag::error(
                "unsupported-gradient",
                format!("the shape of an operand of `{}` is not fixed", self.what),
            )
        })
    }
    /// The element type of a value.
    pub fn dtype(&self, v: ValueId) -> Result<DType, Diag> {
        self.ed.graph().dtype(v).ok_or_else(|| Diag::error("dtype-mismatch", "not a tensor"))
    }
    /// The integers that a value holds, if that is known.
    pub fn ints(&self, v: ValueId) -> Option<Vec<i64>> {
        self.ed.graph().as_const(v)?.1.decode().ok()?.to_i64().ok()
    }

    /// A number in the element type of a value.
    pub fn number(&mut self, x: f64, like: ValueId) -> Result<ValueId, Diag> {
        let t = Tensor::scalar(self.dtype(like)?, x)?;
        self.ed.constant(t)
    }
    /// A vector of integers.
    pub fn vector(&mut self, v: &[i64]) -> Result<ValueId, Diag> {
        self.ed.constant(Tensor::vec_i64(v))
    }
    /// Zeros of the shape and type of a value.
    pub fn zeros(&mut self, like: ValueId) -> Result<ValueId, Diag> {
        self.filled(0.0, like)
    }
    /// A number everywhere in the shape and type of a value.
    pub fn filled(&mut self, x: f64, like: ValueId) -> Result<ValueId, Diag> {
        match self.known_dims(like) {
            Ok(dims) => self.splat(x, &dims, like),
            Err(_) => {
                let number = self.number(x, like)?;
                self.like(number, like)
            }
        }
    }
    /// A number everywhere in a shape, in the element type of a value.
    pub fn splat(&mut self, x: f64, dims: &[i64], like: ValueId) -> Result<ValueId, Diag> {
        let number = Tensor::scalar(self.dtype(like)?, x)?;
        let shape = dims.iter().map(|d| *d as usize).collect();
        self.ed.constant(Constant::splat(&number, shape)?)
    }
    /// An element-wise function.
    pub fn unary(&mut self, kind: UnaryKind, x: ValueId) -> Result<ValueId, Diag> {
        self.ed.node1(Unary { kind }, &[x])
    }
    /// An element-wise function of two values.
    pub fn binary(&mut self, kind: BinaryKind, a: ValueId, b: ValueId) -> Result<ValueId, Diag> {
        self.ed.node1(Binary { kind }, &[a, b])
    }
    /// A product.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Diag> {
        self.binary(BinaryKind::Mul, a, b)
    }
    /// A product with a number.
    pub fn scale(&mut self, x: f64, v: ValueId) -> Result<ValueId, Diag> {
        let x = self.number(x, v)?;
        self.mul(v, x)
    }
    /// A sum with a number.
    pub fn plus(&mut self, x: f64, v: ValueId) -> Result<ValueId, Diag> {
        let x = self.number(x, v)?;
        self.binary(BinaryKind::Add, v, x)
    }
    /// 1 - v.
    pub fn one_less(&mut self, v: ValueId) -> Result<ValueId, Diag> {
        let one = self.number(1.0, v)?;
        self.binary(BinaryKind::Sub, one, v)
    }
    /// A comparison with a number.
    pub fn compare(&mut self, kind: BinaryKind, v: ValueId, x: f64) -> Result<ValueId, Diag> {
        let x = self.number(x, v)?;
        self.binary(kind, v, x)
    }
    /// `v` where a bool is `when`, else 0.
    pub fn only(&mut self, c: ValueId, when: bool, v: ValueId) -> Result<ValueId, Diag> {
        let zero = self.number(0.0, v)?;
        let [a, b] = if when { [v, zero] } else { [zero, v] };
        self.ed.node1(Where {}, &[c, a, b])
    }
    /// Another element type.
    pub fn cast(&mut self, v: ValueId, to: DType) -> Result<ValueId, Diag> {
        if self.dtype(v)? == to { Ok(v) } else { self.ed.node1(Cast { to, saturate: true }, &[v]) }
    }
    /// The shape of a value as a vector of i64.
    pub fn shape(&mut self, v: ValueId) -> Result<ValueId, Diag> {
        match self.known_dims(v) {
            Ok(dims) => self.vector(&dims),
            Err(_) => self.ed.node1(Shape { start: 0, end: None }, &[v]),
        }
    }
    /// Vectors of i64 one after another.
    pub fn join(&mut self, parts: &[ValueId]) -> Result<ValueId, Diag> {
        let known: Option<Vec<Vec<i64>>> = parts.iter().map(|v| self.ints(*v)).collect();
        match known {
            Some(parts) => self.vector(&parts.concat()),
            None => self
                .ed
                .node(Concat { axis: 0 }, &parts.iter().copied().map(Some).collect::<Vec<_>>())
                .map(|v| v[0]),
        }
    }
    /// The product of vectors of integers, element by element.
    pub fn product(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Diag> {
        match (self.ints(a), self.ints(b)) {
            (Some(a), Some(b)) => self.vector(&a.iter().zip(&b).map(|(a, b)| a * b).collect::<Vec<_>>()),
            _ => self.mul(a, b),
        }
    }
    /// The sizes of the axes of a value in a range, as a vector of i64.
    pub fn sizes(&mut self, v: ValueId, axes: Range<usize>) -> Result<ValueId, Diag> {
        let known: Option<Vec<i64>> = self.dims(v)?[axes.clone()].iter().map(Dim::as_const).collect();
        match known {
            Some(sizes) => self.vector(&sizes),
            None => {
                let op = Shape { start: axes.start as i64, end: Some(axes.end as i64) };
                self.ed.node1(op, &[v])
            }
        }
    }
    /// `v` with the dims that it is known to have.
    pub fn with_dims(&mut self, v: ValueId, dims: Vec<Dim>) -> Result<ValueId, Diag> {
        if self.dims(v)? != dims {
            let dtype = self.dtype(v)?;
            self.ed.set_fact(v, Type::tensor(dtype, dims).into());
        }
        Ok(v)
    }
    /// The product of `v` with a constant matrix `[from, to]` along an axis.
    pub fn along(&mut self, v: ValueId, axis: usize, matrix: Tensor) -> Result<ValueId, Diag> {
        let rank = self.dims(v)?.len();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(axis, rank - 1);
        let matrix = self.ed.constant(matrix)?;
        let v = if axis + 1 == rank { v } else { self.transpose(v, &perm)? };
        let v = if rank == 1 { self.unsqueeze(v, &[0])? } else { v };
        let v = self.ed.node1(MatMul { trans_a: false, trans_b: false }, &[v, matrix])?;
        let v = if rank == 1 { self.ed.node1(Squeeze { axes: vec![0] }, &[v])? } else { v };
        if axis + 1 == rank { Ok(v) } else { self.transpose(v, &perm) }
    }
    /// `v` moved by `by` places along an axis: towards its beginning, or its end if that is negative; zeros come in.
    pub fn moved(&mut self, v: ValueId, axis: usize, by: i64) -> Result<ValueId, Diag> {
        let rank = self.dims(v)?.len();
        let mut pads = vec![0; 2 * rank];
        (pads[axis], pads[axis + rank]) = (-by, by);
        let pads = self.vector(&pads)?;
        self.ed.node1(Pad { mode: PadMode::Constant }, &[v, pads])
    }
    /// The elements of `v` in the shape of another value.
    pub fn reshape_like(&mut self, v: ValueId, like: ValueId) -> Result<ValueId, Diag> {
        let shape = self.shape(like)?;
        self.ed.node1(Reshape { allow_zero: true }, &[v, shape])
    }
    /// The elements of `v` in a shape in which one dim may be -1.
    pub fn reshape(&mut self, v: ValueId, shape: &[i64]) -> Result<ValueId, Diag> {
        let allow_zero = !shape.contains(&-1);
        let shape = self.vector(shape)?;
        self.ed.node1(Reshape { allow_zero }, &[v, shape])
    }
    /// `v` broadcast to the shape of another value.
    pub fn like(&mut self, v: ValueId, like: ValueId) -> Result<ValueId, Diag> {
        if self.dims(v)? == self.dims(like)? {
            return Ok(v);
        }
        let shape = self.shape(like)?;
        self.ed.node1(Expand {}, &[v, shape])
    }
    /// Axes in another order.
    pub fn transpose(&mut self, v: ValueId, perm: &[usize]) -> Result<ValueId, Diag> {
        self.ed.node1(Transpose { perm: perm.to_vec() }, &[v])
    }
    /// New axes of size 1, at these places of the result.
    pub fn unsqueeze(&mut self, v: ValueId, axes: &[usize]) -> Result<ValueId, Diag> {
        if axes.is_empty() { Ok(v) } else { self.ed.node1(Unsqueeze { axes: axes.to_vec() }, &[v]) }
    }
    /// A reduction.
    pub fn reduce(
        &mut self,
        kind: ReduceKind,
        v: ValueId,
        axes: &[usize],
        keepdims: bool,
    ) -> Result<ValueId, Diag> {
        if axes.is_empty() && kind == ReduceKind::Sum {
            return Ok(v);
        }
        self.ed.node1(Reduce { kind, axes: Some(axes.to_vec()), keepdims, noop_empty: true }, &[v])
    }
    /// The number of elements along some axes of a value, in its element type.
    pub fn count(&mut self, v: ValueId, axes: &[usize]) -> Result<ValueId, Diag> {
        let dims = self.dims(v)?;
        let known: Option<i64> = axes.iter().map(|a| dims.get(*a).and_then(Dim::as_const)).product();
        if let Some(n) = known {
            return self.number(n as f64, v);
        }
        let one = self.number(1.0, v)?;
        let ones = self.like(one, v)?;
        let all = self.reduce(ReduceKind::Sum, ones, axes, true)?;
        // All elements are the count; the largest of them has no axes.
        let rest: Vec<usize> = (0..dims.len()).collect();
        self.reduce(ReduceKind::Max, all, &rest, false)
    }

    /// What was broadcast from the shape of `like` to that of `v` summed again.
    pub fn sum_to(&mut self, v: ValueId, like: ValueId) -> Result<ValueId, Diag> {
        let (from, to) = (self.dims(v)?, self.dims(like)?);
        if from == to {
            return Ok(v);
        }
        let Some(more) = from.len().checked_sub(to.len()) else { return self.like(v, like) };
        let mut axes: Vec<usize> = (0..more).collect();
        for (k, (a, b)) in from[more..].iter().zip(&to).enumerate() {
            match (a == b, b.is(1)) {
                (true, _) => {}
                (false, true) => axes.push(more + k),
                (false, false) if a.is(1) => {}
                (false, false) => {
                    let text = format!(
                        "whether an operand of `{}` is broadcast along axis {k} is not known",
                        self.what
                    );
                    return Err(Diag::error("unsupported-gradient", text));
                }
            }
        }
        let sum = self.reduce(ReduceKind::Sum, v, &axes, true)?;
        let lead: Vec<usize> = (0..more).collect();
        let sum = if more > 0 { self.ed.node1(Squeeze { axes: lead }, &[sum])? } else { sum };
        self.like(sum, like)
    }
    /// Zeros in the shape of `like` with the slices of `v` along `axis` added at the indices of a vector.
    pub fn scatter_add(
        &mut self,
        v: ValueId,
        axis: usize,
        index: ValueId,
        like: ValueId,
    ) -> Result<ValueId, Diag> {
        let zeros = self.zeros(like)?;
        let rank = self.dims(v)?.len();
        let others: Vec<usize> = (0..rank).filter(|a| *a != axis).collect();
        let index = self.unsqueeze(index, &others)?;
        let index = self.like(index, v)?;
        self.ed.node1(ScatterElements { axis, reduction: Reduction::Add }, &[zeros, index, v])
    }
    /// The same with known places along an axis of `n` elements; the other dims are those of `v`.
    pub fn scatter_axis(&mut self, v: ValueId, axis: usize, places: &[i64], n: i64) -> Result<ValueId, Diag> {
        let mut dims = self.known_dims(v)?;
        dims[axis] = n;
        let like = self.splat(0.0, &dims, v)?;
        let places = self.vector(places)?;
        self.scatter_add(v, axis, places, like)
    }
    /// The elements of a vector added at the places of another in `n` zeros.
    pub fn scatter_flat(&mut self, v: ValueId, places: ValueId, n: i64) -> Result<ValueId, Diag> {
        let zeros = self.splat(0.0, &[n], v)?;
        self.ed.node1(ScatterElements { axis: 0, reduction: Reduction::Add }, &[zeros, places, v])
    }
    /// The size of a value along an axis, as a vector of one i64.
    pub fn size(&mut self, v: ValueId, axis: usize) -> Result<ValueId, Diag> {
        self.sizes(v, axis..axis + 1)
    }
}
