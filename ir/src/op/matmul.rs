//! Matrix products.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::graph::ValueId;
use crate::op::binary::{broadcast_concrete, broadcast_positions};
use crate::op::gather::Gather;
use crate::op::gradient::GradCx;
use crate::op::util::expect_equal;
use crate::op::{EvalCx, InferCx, OpDef, broadcast_shapes};
use crate::tensor::{Elems, Tensor, Value, elem_count};
use crate::types::TensorType;

crate::op_struct! {
    /// Products of the matrices in the last two axes of both operands; the axes before are broadcast. `[.., m, k] x [.., k, n] -> [.., m, n]`, each operand with its last two axes swapped before if its flag says so. Floats are summed in f64 and rounded once, integers wrap. ONNX `MatMul` (ranks below 2 are made up by `unsqueeze`), `Gemm`.
    MatMul {
        /// Whether the first operand is `[.., k, m]`.
        trans_a: bool,
        /// Whether the second operand is `[.., n, k]`.
        trans_b: bool,
    }
}

impl MatMul {
    fn split<T: Clone>(dims: &[T], trans: bool) -> Result<(&[T], T, T), Diag> {
        match dims {
            [batch @ .., r, c] if trans => Ok((batch, c.clone(), r.clone())),
            [batch @ .., r, c] => Ok((batch, r.clone(), c.clone())),
            _ => Err(Diag::error("shape-mismatch", "a matrix product needs two axes")),
        }
    }
}

impl OpDef for MatMul {
    const NAME: &'static str = "matmul";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_int() || d.is_float(), "a number")?;
        cx.expect_same_dtype(0)?;
        let (batch_a, m, ka) = MatMul::split(cx.dims(0)?, self.trans_a)?;
        let (batch_b, kb, n) = MatMul::split(cx.dims(1)?, self.trans_b)?;
        expect_equal(&ka, &kb, "inner dims of a matrix product")?;
        let mut dims: Vec<Dim> = broadcast_shapes(batch_a, batch_b, cx.symbols)?;
        dims.extend([m, n]);
        Ok(vec![Fact { ty: TensorType::new(dtype, dims).into(), content: None }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, a, b) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?);
        let product =
            |cx: &mut GradCx<'_, '_>, (a, trans_a): (ValueId, bool), (b, trans_b): (ValueId, bool)| {
                cx.ed.node1(MatMul { trans_a, trans_b }, &[a, b])
            };
        if cx.wants(0) {
            let da = match self.trans_a {
                false => product(cx, (dy, false), (b, !self.trans_b))?,
                true => product(cx, (b, self.trans_b), (dy, true))?,
            };
            cx.give(0, da)?;
        }
        if cx.wants(1) {
            let db = match self.trans_b {
                false => product(cx, (a, !self.trans_a), (dy, false))?,
                true => product(cx, (dy, true), (a, self.trans_a))?,
            };
            cx.give(1, db)?;
        }
        Ok(())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        Ok(vec![matmul(cx.tensor(0)?, cx.tensor(1)?, self.trans_a, self.trans_b)?.into()])
    }
    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }
}

/// The product, see [`MatMul`].
pub fn matmul(a: &Tensor, b: &Tensor, trans_a: bool, trans_b: bool) -> Result<Tensor, Diag> {
    let (batch_a, m, k) = MatMul::split(a.shape(), trans_a)?;
    let (batch_b, kb, n) = MatMul::split(b.shape(), trans_b)?;
    if k != kb || a.dtype() != b.dtype() {
        return Err(Diag::error("shape-mismatch", format!("inner dims {k} and {kb} of a matrix product")));
    }
    let batch = broadcast_concrete(batch_a, batch_b)?;
    let (pa, pb) = (broadcast_positions(batch_a, &batch)?, broadcast_positions(batch_b, &batch)?);
    let mut shape = batch;
    shape.extend([m, n]);
    let count = elem_count(&shape)?;
    let at_a = |i: usize, l: usize| if trans_a { l * m + i } else { i * k + l };
    let at_b = |l: usize, j: usize| if trans_b { j * k + l } else { l * n + j };
    let elems = match (a.elems(), b.elems()) {
        (Elems::F(x), Elems::F(y)) => {
            let mut out = vec![0.0; count];
            for (t, (ta, tb)) in pa.iter().zip(&pb).enumerate() {
                for i in 0..m {
                    let row = &mut out[(t * m + i) * n..][..n];
                    for l in 0..k {
                        let v = x[ta * m * k + at_a(i, l)];
                        for (j, o) in row.iter_mut().enumerate() {
                            *o += v * y[tb * k * n + at_b(l, j)];
                        }
                    }
                }
            }
            Elems::F(out)
        }
        (Elems::I(x), Elems::I(y)) => {
            let mut out = vec![0i128; count];
            for (t, (ta, tb)) in pa.iter().zip(&pb).enumerate() {
                for (at, o) in out[t * m * n..][..m * n].iter_mut().enumerate() {
                    let (i, j) = (at / n, at % n);
                    let dot =
                        |l: usize| (x[ta * m * k + at_a(i, l)] as i64, y[tb * k * n + at_b(l, j)] as i64);
                    // The low 64 bits decide the wrapped result.
                    let sum = (0..k).map(dot).fold(0i64, |s, (p, q)| s.wrapping_add(p.wrapping_mul(q)));
                    *o = sum.into();
                }
            }
            Elems::I(out)
        }
        _ => return Err(Diag::error("dtype-mismatch", "operands of different kinds")),
    };
    Tensor::from_elems(a.dtype(), shape, elems)
}

crate::op_struct! {
    /// The determinants of the square matrices in the last two axes. ONNX `Det`.
    Det {}
}

impl OpDef for Det {
    const NAME: &'static str = "det";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, DType::is_float, "a float")?;
        let [batch @ .., r, c] = cx.dims(0)? else {
            return Err(Diag::error("shape-mismatch", "a determinant needs two axes"));
        };
        expect_equal(r, c, "the axes of a square matrix")?;
        Ok(vec![Fact { ty: TensorType::new(dtype, batch.to_vec()).into(), content: None }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x) = (cx.only_seed()?, cx.input(0)?);
        let rank = cx.dims(x)?.len();
        let n = cx.dims(x)?[rank - 1].as_const();
        let n = n.ok_or_else(|| cx.no_rule("of matrices whose size is not fixed"))?;
        if n == 0 {
            return Ok(());
        }
        // The gradient of an element is its cofactor, which singular matrices have too.
        let others: Vec<i64> = (0..n).flat_map(|i| (0..n).filter(move |j| *j != i)).collect();
        let others = cx.vector(&others)?;
        let others = cx.reshape(others, &[n, n - 1])?;
        let rows = cx.ed.node1(Gather { axis: rank - 2 }, &[x, others])?;
        let minors = cx.ed.node1(Gather { axis: rank }, &[rows, others])?;
        let perm: Vec<usize> = (0..rank - 2).chain([rank - 2, rank, rank - 1, rank + 1]).collect();
        let minors = cx.transpose(minors, &perm)?;
        let minors = cx.ed.node1(Det {}, &[minors])?;
        let signs = (0..n * n).map(|i| if (i / n + i % n) % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let signs = Tensor::floats(cx.dtype(x)?, &[n as usize, n as usize], signs)?;
        let signs = cx.ed.constant(signs)?;
        let cofactors = cx.mul(minors, signs)?;
        let dy = cx.unsqueeze(dy, &[rank - 2, rank - 1])?;
        let dx = cx.mul(dy, cofactors)?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let [batch @ .., r, c] = x.shape() else {
            return Err(Diag::error("shape-mismatch", "a determinant needs two axes"));
        };
        if r != c {
            return Err(Diag::error("shape-mismatch", "a determinant needs a square matrix"));
        }
        let v = x.to_f64();
        let count = elem_count(batch)?;
        let out = (0..count).map(|t| determinant(&v[t * r * r..][..r * r], *r)).collect();
        Ok(vec![Tensor::floats(x.dtype(), batch, out)?.into()])
    }
}

/// By elimination with the largest pivot of each column.
fn determinant(m: &[f64], n: usize) -> f64 {
    let mut a = m.to_vec();
    let mut det = 1.0;
    for c in 0..n {
        let mut p = c;
        for r in c + 1..n {
            if a[r * n + c].abs() > a[p * n + c].abs() {
                p = r;
            }
        }
        if a[p * n + c] == 0.0 {
            return 0.0;
        }
        if p != c {
            (0..n).for_each(|j| a.swap(p * n + j, c * n + j));
            det = -det;
        }
        det *= a[c * n + c];
        for r in c + 1..n {
            let f = a[r * n + c] / a[c * n + c];
            (c..n).for_each(|j| a[r * n + j] -= f * a[c * n + j]);
        }
    }
    det
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run};

    #[test]
    fn multiplies() {
        let (a, b) = (iota(&[2, 3]), iota(&[3, 2]));
        let plain = MatMul { trans_a: false, trans_b: false };
        assert_eq!(run(plain.clone(), &[a.clone(), b.clone()]), f(&[2, 2], &[10.0, 13.0, 28.0, 40.0]));
        let gram = run(MatMul { trans_a: false, trans_b: true }, &[a.clone(), a.clone()]);
        assert_eq!(gram, f(&[2, 2], &[5.0, 14.0, 14.0, 50.0]));
        let tt = run(MatMul { trans_a: true, trans_b: true }, &[a.clone(), b]);
        assert_eq!(tt.shape(), [3, 3]);
        let batched = run(plain.clone(), &[iota(&[2, 1, 1, 2]), iota(&[3, 2, 1])]);
        assert_eq!(batched.shape(), [2, 3, 1, 1]);
        assert_eq!(batched.to_f64(), [1.0, 3.0, 5.0, 3.0, 13.0, 23.0]);
        assert_eq!(run(plain.clone(), &[iota(&[2, 0]), iota(&[0, 1])]), f(&[2, 1], &[0.0, 0.0]));
        assert_eq!(run(plain.clone(), &[i(&[1, 1], &[i64::MIN]), i(&[1, 1], &[2])]), i(&[1, 1], &[0]));
        assert_eq!(fails(plain.clone(), &[a.clone(), a]), "shape-mismatch");
        assert_eq!(fails(plain, &[iota(&[2]), iota(&[2])]), "shape-mismatch");
    }

    #[test]
    fn determinants() {
        let x = f(&[2, 2, 2], &[0.0, 2.0, 3.0, 4.0, 1.0, 2.0, 2.0, 4.0]);
        assert_eq!(run(Det {}, &[x]), f(&[2], &[-6.0, 0.0]));
        assert_eq!(fails(Det {}, &[iota(&[2, 3])]), "shape-mismatch");
    }
}
