//! Activations of recurrent layers.

use crate::kernel::{Builder, CmpOp, Val};
use crate::math;
use planish_ir::op::recurrent::Activation;

pub(super) fn activate(b: &mut Builder, a: Activation, x: Val, alpha: f64, beta: f64) -> Val {
    let ty = b.ty(x);
    let zero = b.zero(ty);
    match a {
        Activation::Relu => b.fmax(x, zero),
        Activation::Tanh => math::tanh(b, x),
        Activation::Sigmoid => math::sigmoid(b, x),
        Activation::Affine => b.fma(x, alpha, beta),
        Activation::LeakyRelu => {
            let low = b.fmul(x, alpha);
            let up = b.cmp(CmpOp::FGe, x, zero);
            b.select(up, x, low)
        }
        Activation::ThresholdedRelu => {
            let up = b.cmp(CmpOp::FGt, x, alpha);
            b.select(up, x, zero)
        }
        Activation::ScaledTanh => {
            let x = b.fmul(x, beta);
            let y = math::tanh(b, x);
            b.fmul(y, alpha)
        }
        Activation::HardSigmoid => {
            let y = b.fma(x, alpha, beta);
            let y = b.fmin(y, 1.0);
            b.fmax(y, zero)
        }
        Activation::Elu => {
            let e = math::exp(b, x);
            let e = b.fsub(e, 1.0);
            let e = b.fmul(e, alpha);
            let up = b.cmp(CmpOp::FGe, x, zero);
            b.select(up, x, e)
        }
        Activation::Softsign => {
            let size = b.fabs(x);
            let size = b.fadd(size, 1.0);
            b.fdiv(x, size)
        }
        Activation::Softplus => math::softplus(b, x),
    }
}
