//! Scaled dot-product attention, whole, and what it is made of.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::editor::Editor;
use crate::graph::{Fact, Graph, NodeId, ValueId};
use crate::op::binary::{Binary, BinaryKind, broadcast_positions};
use crate::op::gradient::GradCx;
use crate::op::matmul::{MatMul, matmul};
use crate::op::softmax::{Softmax, SoftmaxKind};
use crate::op::util::expect_equal;
use crate::op::{EvalCx, InferCx, Op, OpDef, broadcast_shapes};
use crate::tensor::{Tensor, Value};
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// `softmax(scale * q k + mask) v` over matrices in the last two axes: q is `[.., l, d]`, k `[.., d, s]` or with `trans_k` `[.., s, d]`, v `[.., s, e]`, the result `[.., l, e]`; the axes before are broadcast. The optional fourth operand is added to the scores `[.., l, s]` and broadcast to them. Floats of one dtype; sums are formed in f64 and rounded once. Vaswani et al. 2017, "Attention Is All You Need", equation 1; ONNX `Attention` is more general and is imported in parts.
    Attention {
        /// What the products of queries and keys are multiplied by.
        scale: f64,
        /// Whether the second operand is `[.., s, d]`.
        trans_k: bool,
    }
}

impl OpDef for Attention {
    const NAME: &'static str = "attention";
    const INPUTS: (usize, usize) = (3, 4);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_float(), "a float")?;
        cx.expect_same_dtype(0)?;
        let parts = |i: usize| match cx.dims(i)? {
            [batch @ .., r, c] => Ok((batch, r, c)),
            _ => Err(Diag::error("shape-mismatch", format!("operand {i} needs two axes"))),
        };
        let (batch_q, l, d) = parts(0)?;
        let (batch_k, r, c) = parts(1)?;
        let (dk, s) = if self.trans_k { (c, r) } else { (r, c) };
        let (batch_v, sv, e) = parts(2)?;
        expect_equal(d, dk, "the sizes of queries and keys")?;
        expect_equal(s, sv, "the numbers of keys and values")?;
        let (l, e, s) = (l.clone(), e.clone(), s.clone());
        let (batch_q, batch_k, batch_v) = (batch_q.to_vec(), batch_k.to_vec(), batch_v.to_vec());
        let mut scores = broadcast_shapes(&batch_q, &batch_k, cx.symbols)?;
        scores.extend([l.clone(), s]);
        if cx.has(3) {
            let mask = cx.dims(3)?.to_vec();
            let lead = scores.len().checked_sub(mask.len());
            let fits = lead.is_some_and(|lead| {
                mask.iter()
                    .zip(&scores[lead..])
                    .all(|(m, d)| m.is(1) || m.as_const().zip(d.as_const()).is_none_or(|(m, d)| m == d))
            });
            if !fits {
                return Err(Diag::error("shape-mismatch", "the mask does not fit the scores"));
            }
        }
        scores.truncate(scores.len() - 2);
        let mut dims = broadcast_shapes(&scores, &batch_v, cx.symbols)?;
        dims.extend([l, e]);
        Ok(vec![Fact { ty: TensorType::new(dtype, dims).into(), content: None }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.through(|cx| {
            let inputs = cx.inputs().to_vec();
            Ok(vec![self.parts(cx.ed, &inputs)?])
        })
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (q, k, v) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let wide = |t: &Tensor| Tensor::floats(crate::DType::F64, t.shape(), t.to_f64());
        let scores = matmul(&wide(q)?, &wide(k)?, false, self.trans_k)?;
        let mut x = scores.to_f64();
        x.iter_mut().for_each(|x| *x *= self.scale);
        if let Some(mask) = cx.opt_tensor(3)? {
            let (at, m) = (broadcast_positions(mask.shape(), scores.shape())?, mask.to_f64());
            x.iter_mut().zip(at).for_each(|(x, i)| *x += m[i]);
        }
        let keys = scores.shape().last().copied().unwrap_or(0);
        for row in x.chunks_exact_mut(keys.max(1)) {
            Softmax { kind: SoftmaxKind::Softmax, axis: 0 }.row(row);
        }
        let weights = Tensor::floats(crate::DType::F64, scores.shape(), x)?;
        let y = matmul(&weights, &wide(v)?, false, false)?;
        Ok(vec![Tensor::floats(q.dtype(), y.shape(), y.to_f64())?.into()])
    }
}

impl Attention {
    /// Puts products, a softmax and a product where the editor stands; gives the result.
    pub fn parts(&self, ed: &mut Editor<'_>, inputs: &[Option<ValueId>]) -> Result<ValueId, Diag> {
        let missing = || Diag::error("arity", "attention needs queries, keys and values");
        let given = |i: usize| inputs.get(i).copied().flatten();
        let (Some(q), Some(k), Some(v)) = (given(0), given(1), given(2)) else { return Err(missing()) };
        let mut x = ed.node1(MatMul { trans_a: false, trans_b: self.trans_k }, &[q, k])?;
        if self.scale != 1.0 {
            let dtype = ed.graph().dtype(q).ok_or_else(missing)?;
            let scale = ed.constant(Tensor::scalar(dtype, self.scale)?)?;
            x = ed.node1(Binary { kind: BinaryKind::Mul }, &[x, scale])?;
        }
        if let Some(mask) = given(3) {
            x = ed.node1(Binary { kind: BinaryKind::Add }, &[x, mask])?;
        }
        let axis = ed.graph().dims(x).map_or(0, <[_]>::len).saturating_sub(1);
        let weights = ed.node1(Softmax { kind: SoftmaxKind::Softmax, axis }, &[x])?;
        ed.node1(MatMul { trans_a: false, trans_b: false }, &[weights, v])
    }
}

/// Whether a kernel for CPUs computes an attention as a whole: it is of f32, has keys, and every dim of an operand is known to be 1
/// or to be that of the result.
pub fn has_kernel(g: &Graph, n: NodeId) -> bool {
    let node = g.node(n);
    let Op::Attention(op) = &node.op else { return false };
    let dims = |v: ValueId| match g.ty(v) {
        Type::Tensor(t) => t.shape.clone(),
        _ => None,
    };
    let operand = |i: usize| node.inputs.get(i).copied().flatten().and_then(dims);
    let (Some(y), Some(q), Some(k), Some(v)) = (dims(node.outputs[0]), operand(0), operand(1), operand(2))
    else {
        return false;
    };
    let fits = |own: &[Dim], all: &[Dim]| {
        own.len() <= all.len()
            && own.iter().zip(&all[all.len() - own.len()..]).all(|(d, y)| d.is(1) || d == y)
    };
    let batch = &y[..y.len() - 2];
    let keys = &k[k.len() - if op.trans_k { 2 } else { 1 }];
    let scores = [batch, &[y[y.len() - 2].clone(), keys.clone()]].concat();
    let mask =
        node.inputs.get(3).copied().flatten().is_none() || operand(3).is_some_and(|m| fits(&m, &scores));
    let f32s = node.inputs.iter().flatten().all(|v| g.dtype(*v) == Some(crate::DType::F32));
    f32s && mask && !keys.is(0) && [&q, &k, &v].iter().all(|x| fits(&x[..x.len() - 2], batch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::eval_op;

    #[test]
    fn equal_scores_give_the_mean_and_a_mask_chooses() -> Result<(), Diag> {
        let q = Tensor::f32s(&[1, 2], &[0.0, 0.0])?;
        let k = Tensor::f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
        let v = Tensor::f32s(&[3, 1], &[1.0, 2.0, 6.0])?;
        let op = Attention { scale: 0.5, trans_k: false };
        let run = |op: &Attention, ins: &[&Tensor]| {
            eval_op(op.clone(), &ins.iter().map(|t| Some((*t).clone())).collect::<Vec<_>>())
        };
        assert!((run(&op, &[&q, &k, &v])?[0].to_f64()[0] - 3.0).abs() < 1e-6);
        let mask = Tensor::f32s(&[3], &[f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0])?;
        assert_eq!(run(&op, &[&q, &k, &v, &mask])?[0].to_f64(), [6.0]);
        let kt = Tensor::f32s(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0])?;
        let other = Attention { scale: 0.5, trans_k: true };
        assert_eq!(run(&other, &[&q, &kt, &v])?, run(&op, &[&q, &k, &v])?);
        assert!(run(&op, &[&q, &kt, &v]).is_err());
        Ok(())
    }

    #[test]
    fn no_keys_and_no_queries() -> Result<(), Diag> {
        let op = Attention { scale: 1.0, trans_k: true };
        let t = |shape: &[usize]| Tensor::f32s(shape, &vec![0.0; shape.iter().product()]).map(Some);
        let y = eval_op(op.clone(), &[t(&[2, 0, 4])?, t(&[2, 3, 4])?, t(&[2, 3, 5])?])?;
        assert_eq!(y[0].shape(), [2, 0, 5]);
        let y = eval_op(op, &[t(&[1, 4])?, t(&[0, 4])?, t(&[0, 2])?])?;
        assert_eq!(y[0].to_f64(), [0.0, 0.0]);
        Ok(())
    }
}
