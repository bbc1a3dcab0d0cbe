//! Matrix products that leave out inputs near zero.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::binary::BinaryKind;
use crate::op::gradient::GradCx;
use crate::op::matmul::MatMul;
use crate::op::unary::UnaryKind;
use crate::op::util::expect_equal;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value, elem_count};
use crate::types::TensorType;

crate::op_struct! {
    /// A product `[.., m, k] x [k, n] -> [.., m, n]` of f32 whose first operand is gated: elements of smaller magnitude than `threshold` (rounded to f32) count as 0, NaN does not. Of at most 4 rows (those of all leading axes together), every row's inputs are looked at in blocks of `block` neighbours, and a block of zeros is left out: it adds nothing, whatever the weights. More rows are multiplied in full. Counters: `gate.blocks` and `gate.skipped-blocks`. Sums in f64, rounded once. ONNX `Abs`, `Less`, `Where`, `MatMul`.
    GatedMatMul {
        /// Elements of smaller magnitude count as 0; not negative.
        threshold: f64,
        /// Inputs in a block, the last of which may be smaller.
        block: usize,
        /// Whether the second operand is `[n, k]`.
        trans_b: bool,
    }
}

impl GatedMatMul {
    /// The most rows of which blocks are left out.
    pub const FEW_ROWS: usize = 4;

    /// The threshold as elements are compared with it.
    pub fn bound(&self) -> f32 {
        self.threshold as f32
    }
    fn check_fields(&self) -> Result<(), Diag> {
        let bad = |why: &str| Err(Diag::error("field-invalid", format!("gated-matmul: {why}")));
        if self.block == 0 {
            return bad("blocks of 0 inputs");
        }
        if self.threshold.is_nan() || self.threshold < 0.0 {
            return bad("the threshold is negative or no number");
        }
        Ok(())
    }
    /// Inputs and outputs of the weights.
    fn sides<T: Clone>(&self, w: &[T]) -> Result<(T, T), Diag> {
        match w {
            [a, b] if self.trans_b => Ok((b.clone(), a.clone())),
            [a, b] => Ok((a.clone(), b.clone())),
            _ => Err(Diag::error("shape-mismatch", "the weights of a gated product are one matrix")),
        }
    }
}

impl OpDef for GatedMatMul {
    const NAME: &'static str = "gated-matmul";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        self.check_fields()?;
        let dtype = cx.expect_dtype(0, |d| d == DType::F32, "f32")?;
        cx.expect_same_dtype(0)?;
        let (kw, n) = self.sides(cx.dims(1)?)?;
        let [lead @ .., m, k] = cx.dims(0)? else {
            return Err(Diag::error("shape-mismatch", "a matrix product needs two axes"));
        };
        expect_equal(k, &kw, "inner dims of a matrix product")?;
        let mut dims: Vec<Dim> = lead.to_vec();
        dims.extend([m.clone(), n]);
        Ok(vec![Fact { ty: TensorType::new(dtype, dims).into(), content: None }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.through(|cx| {
            let (x, w) = (cx.input(0)?, cx.input(1)?);
            let size = cx.unary(UnaryKind::Abs, x)?;
            let small = cx.compare(BinaryKind::Less, size, f64::from(self.bound()))?;
            let x = cx.only(small, false, x)?;
            Ok(vec![cx.ed.node1(MatMul { trans_a: false, trans_b: self.trans_b }, &[x, w])?])
        })
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, w) = (cx.tensor(0)?.clone(), cx.tensor(1)?.clone());
        let (k, n) = self.sides(w.shape())?;
        let Some((last, lead)) =
            x.shape().split_last().filter(|(last, lead)| **last == k && !lead.is_empty())
        else {
            return Err(Diag::error("shape-mismatch", format!("{:?} for weights of {k} inputs", x.shape())));
        };
        let rows = elem_count(lead)?;
        let bound = f64::from(self.bound());
        let values: Vec<f64> = x.to_f64().iter().map(|v| if v.abs() < bound { 0.0 } else { *v }).collect();
        let weights = w.to_f64();
        let few = rows <= GatedMatMul::FEW_ROWS;
        let mut shape = lead.to_vec();
        shape.push(n);
        let mut out = vec![0.0; elem_count(&shape)?];
        let (mut executed, mut skipped) = (0, 0);
        for r in 0..rows {
            let row = &values[r * last..][..k];
            let sums = &mut out[r * n..][..n];
            for (block, inputs) in row.chunks(self.block).enumerate() {
                if few && inputs.iter().all(|v| *v == 0.0) {
                    skipped += 1;
                    continue;
                }
                executed += 1;
                for (i, v) in inputs.iter().enumerate() {
                    let i = block * self.block + i;
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum += v * weights[if self.trans_b { j * k + i } else { i * n + j }];
                    }
                }
            }
        }
        cx.env.count("gate.blocks", executed);
        cx.env.count("gate.skipped-blocks", skipped);
        Ok(vec![Tensor::floats(x.dtype(), &shape, out)?.into()])
    }
    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, run};
    use crate::{interp, text};

    #[test]
    fn inputs_below_the_threshold_count_as_zero() {
        let w = f(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let wt = f(&[2, 3], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        let x = f(&[2, 3], &[0.5, -1.0, 0.25, -0.5, 0.0, 2.0]);
        let want = f(&[2, 2], &[-2.5, -3.0, 9.5, 11.0]);
        for (trans_b, w) in [(false, w), (true, wt)] {
            let op = GatedMatMul { threshold: 0.5, block: 1, trans_b };
            assert_eq!(run(op, &[x.clone(), w]), want);
        }
        let empty = GatedMatMul { threshold: 0.0, block: 2, trans_b: false };
        assert_eq!(run(empty.clone(), &[f(&[1, 0], &[]), f(&[0, 2], &[])]), f(&[1, 2], &[0.0, 0.0]));
        assert_eq!(run(empty.clone(), &[f(&[0, 1], &[]), f(&[1, 2], &[1.0, 1.0])]).shape(), [0, 2]);
        assert_eq!(fails(empty, &[f(&[1, 2], &[1.0, 1.0]), f(&[1, 1], &[1.0])]), "shape-mismatch");
        let bad = GatedMatMul { threshold: -1.0, block: 1, trans_b: false };
        assert_eq!(fails(bad, &[f(&[1, 1], &[1.0]), f(&[1, 1], &[1.0])]), "field-invalid");
    }

    /// A block that is left out adds nothing even to infinite weights; with many rows none is left out.
    #[test]
    fn blocks_of_zeros_are_counted_and_left_out() -> Result<(), Diag> {
        let text = |rows: usize| {
            format!(
                "planish-ir 1
                graph @\"g\"(v0: f32[{rows},3]) {{
                  v1 = const f32[3,1] [1.0, 2.0, inf]
                  v2 = gated-matmul{{threshold=0.0, block=2, trans_b=false}} v0, v1 : f32[{rows},1]
                  return v2
                }}"
            )
        };
        let x = f(&[1, 3], &[0.0, 3.0, -0.0]);
        let few = interp::run(&text::parse(&text(1))?, vec![x.into()])?;
        assert_eq!(few.values[0].tensor()?.to_f64(), [6.0]);
        assert_eq!((few.counters["gate.blocks"], few.counters["gate.skipped-blocks"]), (1, 1));
        let many = interp::run(&text::parse(&text(5))?, vec![f(&[5, 3], &[0.0; 15]).into()])?;
        assert!(many.values[0].tensor()?.to_f64().iter().all(|v| v.is_nan()));
        assert_eq!((many.counters["gate.blocks"], many.counters["gate.skipped-blocks"]), (10, 0));
        Ok(())
    }
}
