//! Convolutions of stored integers.

use super::matmul::shifted;
use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::conv::Conv;
use crate::op::window::AutoPad;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value};
use crate::types::Type;

crate::op_struct! {
    /// The convolution of `x - x_zero` \[N, C, spatial...\] with `w - w_zero` \[M, C / groups, kernel...\] in i32, wrapping; what is padded is `x_zero`. Operands: x and w (8-bit integers), x_zero (one element of the type of x) and w_zero (of the type of w: one element, or \[M\]); omitted zero points are 0.
    ConvInteger {
        /// Step along each spatial axis.
        strides: Vec<i64>,
        /// Distance of neighbouring elements of the window along each spatial axis.
        dilations: Vec<i64>,
        /// Padding: the beginnings of all spatial axes, then the ends.
        pads: Vec<i64>,
        /// How the padding is given.
        auto_pad: AutoPad,
        /// Number of groups of channels that see only each other.
        groups: i64,
    }
}

impl From<&Conv> for ConvInteger {
    fn from(c: &Conv) -> ConvInteger {
        ConvInteger {
            strides: c.strides.clone(),
            dilations: c.dilations.clone(),
            pads: c.pads.clone(),
            auto_pad: c.auto_pad,
            groups: c.groups,
        }
    }
}

impl ConvInteger {
    /// The convolution of numbers with these fields.
    pub fn conv(&self) -> Conv {
        Conv {
            strides: self.strides.clone(),
            dilations: self.dilations.clone(),
            pads: self.pads.clone(),
            auto_pad: self.auto_pad,
            groups: self.groups,
        }
    }
    fn check_zero(cx: &InferCx<'_>, of: usize) -> Result<(), Diag> {
        let zero = of + 2;
        if !cx.has(zero) {
            return Ok(());
        }
        if cx.dtype(zero)? != cx.dtype(of)? {
            return Err(Diag::error("dtype-mismatch", format!("operand {zero} must have the type of {of}")));
        }
        let dims = cx.dims(zero)?;
        let one = dims.is_empty() || (dims.len() == 1 && dims[0].is(1));
        let outputs = &cx.dims(1)?[0];
        let clash = |d: &crate::dim::Dim| d.as_const().zip(outputs.as_const()).is_some_and(|(a, b)| a != b);
        if one || (of == 1 && dims.len() == 1 && !clash(&dims[0])) {
            return Ok(());
        }
        Err(Diag::error(
            "shape-mismatch",
            format!("zero points of operand {of}: one, or one for each output"),
        ))
    }
}

impl OpDef for ConvInteger {
    const NAME: &'static str = "conv-integer";
    const INPUTS: (usize, usize) = (2, 4);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        for i in 0..2 {
            cx.expect_dtype(i, |d| matches!(d, DType::U8 | DType::I8), "an 8-bit integer")?;
        }
        let out = self.conv().shape(cx.dims(0)?, cx.dims(1)?)?;
        Self::check_zero(cx, 0)?;
        Self::check_zero(cx, 1)?;
        Ok(vec![Type::tensor(DType::I32, out).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, w) = (cx.tensor(0)?, cx.tensor(1)?);
        let one = |z: &Tensor| Tensor::from_bytes(z.dtype(), vec![], z.bytes().clone());
        let xz = cx.opt_tensor(2)?.map(one).transpose()?;
        let wz = match cx.opt_tensor(3)? {
            None => None,
            Some(z) if z.len() == 1 => Some(one(z)?),
            Some(z) => {
                let mut shape = vec![1; w.shape().len()];
                shape[0] = z.len();
                Some(Tensor::from_bytes(z.dtype(), shape, z.bytes().clone())?)
            }
        };
        let wide = |t: &Tensor, zero: Option<&Tensor>| {
            let v = shifted(t, zero)?.into_iter().map(i128::from).collect();
            Tensor::from_elems(DType::I32, t.shape().to_vec(), Elems::I(v))
        };
        let y = self.conv().compute(&wide(x, xz.as_ref())?, &wide(w, wz.as_ref())?, None)?;
        Ok(vec![y.into()])
    }
    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::eval_op;

    fn op(pads: [i64; 2], groups: i64) -> ConvInteger {
        ConvInteger {
            strides: vec![1],
            dilations: vec![1],
            pads: pads.into(),
            auto_pad: AutoPad::Explicit,
            groups,
        }
    }

    #[test]
    fn zero_points_are_taken_off_and_padded() -> Result<(), Diag> {
        let x = Tensor::ints(DType::U8, &[1, 1, 3], vec![10, 12, 255])?;
        let w = Tensor::ints(DType::I8, &[2, 1, 2], vec![1, -1, -128, 127])?;
        let xz = Tensor::ints(DType::U8, &[], vec![10])?;
        let wz = Tensor::ints(DType::I8, &[2], vec![0, 1])?;
        let given = [Some(x.clone()), Some(w.clone()), Some(xz.clone()), Some(wz)];
        let y = eval_op(op([1, 0], 1), &given)?;
        // 0 0 2 245 after the zero point; weights 1 -1 and -129 126.
        assert_eq!((y[0].dtype(), y[0].shape()), (DType::I32, &[1, 2, 3][..]));
        assert_eq!(y[0].to_f64(), [0.0, -2.0, -243.0, 0.0, 252.0, -258.0 + 30870.0]);
        let y = eval_op(op([0, 0], 1), &[Some(x.clone()), Some(w.clone()), None, None])?;
        assert_eq!(y[0].to_f64(), [-2.0, -243.0, 244.0, 30849.0]);
        let bad = Tensor::ints(DType::U8, &[2], vec![1, 2])?;
        let refused = eval_op(op([0, 0], 1), &[Some(x), Some(w), Some(bad), None]);
        assert_eq!(refused.map_err(|d| d.id), Err("shape-mismatch"));
        Ok(())
    }

    #[test]
    fn nothing_and_groups() -> Result<(), Diag> {
        let x = Tensor::ints(DType::I8, &[0, 2, 1], vec![])?;
        let w = Tensor::ints(DType::U8, &[2, 1, 1], vec![3, 5])?;
        let y = eval_op(op([0, 0], 2), &[Some(x), Some(w.clone()), None, None])?;
        assert_eq!(y[0].shape(), [0, 2, 1]);
        let x = Tensor::ints(DType::I8, &[1, 2, 1], vec![-4, 7])?;
        let wz = Tensor::ints(DType::U8, &[1], vec![1])?;
        let y = eval_op(op([0, 0], 2), &[Some(x), Some(w), None, Some(wz)])?;
        assert_eq!(y[0].to_f64(), [-8.0, 28.0]);
        Ok(())
    }
}
