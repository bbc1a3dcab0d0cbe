//! Contractions: matrix products and convolutions on register tiles.
//!
//! All of them are `C[m][n] += A(m, k) * B(k, n)` with `n` along vectors: a tile keeps `rows x nv` vectors of C in registers,
//! reads `nv` vectors of B and `rows` scalars of A per step of `k`, and hands the sums to an epilogue. They differ in
//! where A and B come from:
//!
//! | | A (scalars) | B (vectors) |
//! |---|---|---|
//! | matrix product, constant right operand | rows of the left operand | packed blocks `[n / block][k][block]` |
//! | matrix product otherwise | rows (or columns) of the left operand | rows of the right operand |
//! | large matrix product, few registers | [groups](operands) of rows, copied once | packed blocks, or a panel of columns that a unit copies |
//! | matrix product, right operand in [blocks](sparse) of which some are kept | rows of the left operand | the kept blocks |
//! | matrix product, right operand with [scattered] zeros | the kept weights | rows of the left operand |
//! | matrix product and its gradients, blocks of the right operand [as data](stored) | the kept weights | rows of the left operand |
//! | [gated](gated) product of few rows, constant right operand | those that are not near zero, listed | packed strips, those rows only |
//! | convolution 1x1, stride 1 | packed weights `[m / rows][k][rows]` | planes of the input |
//! | convolution otherwise | packed weights | a panel of the unfolded input, made per tile of positions |
//!
//! Convolutions of f32 and of 8-bit integers with constant weights work on [blocked channels](blocked) instead: vectors of output channels.
//!
//! Packing does not depend on the target: weaker targets cut a block into smaller tiles.

mod attention;
mod blocked;
mod conv;
mod conv_integer;
mod depthwise;
mod epilogue;
mod fused;
mod gated;
#[cfg(test)]
mod gated_tests;
mod matmul;
#[cfg(test)]
mod matmul_tests;
mod operands;
mod panel;
mod scattered;
mod simt;
mod sparse;
#[cfg(test)]
mod sparse_tests;
mod stored;
#[cfg(test)]
mod stored_tests;
mod tile;

pub(super) use attention::{lower_attention, takes_transpose};
pub(super) use blocked::Deferred;
pub(super) use conv::lower_conv;
pub(super) use conv_integer::lower_conv_integer;
pub(super) use epilogue::{Epilogue, Place};
pub(super) use fused::lower_fused;
pub(super) use gated::lower_gated_matmul;
pub(super) use matmul::{Operands as Product, emit as product, lower_matmul};
pub(super) use sparse::{Lists, inputs, list, lists};
pub(super) use stored::{lower_block_matmul, lower_block_outer};
pub(super) use tile::in_pieces;

pub(super) fn f32_bytes(v: &[f32]) -> bytes::Bytes {
    v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
}

/// Quotient of two positive numbers rounded up.
fn div_up(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}
