//! Products of matrices of stored integers: what is asked for, and which kernel does it.

use super::{packing, plain, simt, tile};
use crate::lower::contraction::Epilogue;
use crate::lower::cx::{LowerCx, Opnd};
use planish_ir::{DType, Diag, Dim, ValueId};

/// The operands of a product. The second one and zero points get memory only where they are not packed.
pub(in crate::lower) struct Operands {
    pub(in crate::lower) a: Opnd,
    /// The second operand.
    pub(in crate::lower) b: ValueId,
    /// Zero points of both.
    pub(in crate::lower) zeros: [Option<ValueId>; 2],
    /// Dims of the result.
    pub(in crate::lower) out: Vec<Dim>,
}

/// Operands with what is known of their types.
pub(super) struct Sides {
    pub(super) a: Opnd,
    pub(super) b: ValueId,
    pub(super) b_type: DType,
    pub(super) b_dims: Vec<Dim>,
    zero_values: [Option<ValueId>; 2],
    pub(super) zero_dims: [Option<Vec<Dim>>; 2],
    pub(super) out: Vec<Dim>,
}

impl Sides {
    fn new(cx: &LowerCx<'_>, o: Operands) -> Result<Sides, Diag> {
        let (b_type, b_dims) = cx.tensor_type(o.b)?;
        let mut zero_dims = [None, None];
        for (to, z) in zero_dims.iter_mut().zip(o.zeros) {
            *to = z.map(|z| cx.tensor_type(z)).transpose()?.map(|(_, dims)| dims);
        }
        Ok(Sides { a: o.a, b: o.b, b_type, b_dims, zero_values: o.zeros, zero_dims, out: o.out })
    }
    /// Rows of a matrix of the result.
    pub(super) fn m(&self) -> Dim {
        self.out[self.out.len() - 2].clone()
    }
    /// Columns of the result.
    pub(super) fn n(&self) -> Dim {
        self.out[self.out.len() - 1].clone()
    }
    /// Length of the sums.
    pub(super) fn k(&self) -> Dim {
        self.a.dims[self.a.dims.len() - 1].clone()
    }
    /// The zero points in memory.
    pub(super) fn zeros(&self, cx: &mut LowerCx<'_>) -> Result<[Option<Opnd>; 2], Diag> {
        let [a, b] = self.zero_values;
        Ok([a.map(|z| cx.memory_of(z)).transpose()?, b.map(|z| cx.memory_of(z)).transpose()?])
    }
    /// Whether each of the zero points varies along the rows (columns), with leading axes of its own, or is one for all.
    pub(super) fn zeros_vary(&self, zeros: &[Option<Opnd>; 2]) -> [bool; 2] {
        [0, 1].map(|i| {
            zeros[i].as_ref().is_some_and(|z| {
                let at = z.dims.len().checked_sub(2 - i);
                at.is_some_and(|at| !z.dims[at].is(1))
            })
        })
    }
    /// The zero point of the first operand in memory.
    pub(super) fn a_zero(&self, cx: &mut LowerCx<'_>) -> Result<Option<Opnd>, Diag> {
        self.zero_values[0].map(|z| cx.memory_of(z)).transpose()
    }
    /// The value that is the zero point of the second operand.
    pub(super) fn b_zero(&self) -> Option<ValueId> {
        self.zero_values[1]
    }
    /// Relations of dims that kernels rely on.
    fn require(&self, cx: &mut LowerCx<'_>) {
        let lead = &self.out[..self.out.len() - 2];
        let (ar, br) = (self.a.dims.len(), self.b_dims.len());
        cx.require_equal(&self.k(), &self.b_dims[br - 2], "the inner sizes of a product differ");
        cx.require_broadcast(&self.a.dims[..ar - 2], lead);
        cx.require_broadcast(&self.b_dims[..br - 2], lead);
        for (i, z) in self.zero_dims.iter().enumerate().filter_map(|(i, z)| Some((i, z.as_ref()?))) {
            let what = "there must be one zero point, or one for each row or column";
            let at = z.len().checked_sub(if i == 0 { 2 } else { 1 });
            match at.map(|at| &z[at]).filter(|d| !d.is(1)) {
                Some(d) => cx.require_equal(d, &if i == 0 { self.m() } else { self.n() }, what),
                None => cx.require_equal(&Dim::product(&z[at.unwrap_or(0)..]), &1.into(), what),
            }
            cx.require_broadcast(&z[..z.len().saturating_sub(2)], lead);
        }
    }
}

pub(in crate::lower) fn lower_matmul_integer(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let zero = |i: usize| cx.node().inputs.get(i).copied().flatten();
    let zeros = [zero(2), zero(3)];
    let (a, b) = (cx.input(0)?, cx.input_value(1)?);
    let y = cx.output(0)?;
    let out = y.dims.clone();
    emit(cx, Operands { a, b, zeros, out }, Epilogue::none(y))
}

/// Emits a product with what follows it.
pub(in crate::lower) fn emit(cx: &mut LowerCx<'_>, o: Operands, e: Epilogue) -> Result<(), Diag> {
    let s = Sides::new(cx, o)?;
    s.require(cx);
    let packed = if cx.simt() || !tile::rows_are_flat(&s) {
        None
    } else {
        match packing::pack_blocks(cx, &s) {
            Some(p) => Some(p),
            None => packing::pack(cx, &s)?,
        }
    };
    match packed {
        Some(p) => tile::emit(cx, &s, &p, e),
        None => {
            let w = cx.memory_of(s.b)?;
            if cx.simt() && simt::takes(&s) {
                return simt::emit(cx, &s, &w, e);
            }
            plain::emit(cx, &s, &w, e)
        }
    }
}
