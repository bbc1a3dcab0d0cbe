//! Matrices in blocks of which only some are kept.

use super::{Constant, Encoding};
use crate::diag::Diag;
use crate::dtype::DType;
use crate::tensor::{Tensor, elem_count};

/// How a constant is stored that is a matrix from inputs to outputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Inputs x outputs: all axes but the last are inputs.
    Kn,
    /// Outputs x inputs: all axes but the first are inputs, which makes weights of a convolution (outputs, inputs, kernel) a matrix.
    Nk,
    /// Outputs x inputs: all axes but the last are outputs, which makes weights of a recurrent layer (directions, rows, inputs) a matrix.
    Rows,
}

impl Order {
    /// All of them, with their names in text.
    pub const ALL: [(Order, &str); 3] = [(Order::Kn, "kn"), (Order::Nk, "nk"), (Order::Rows, "rows")];
    /// Whether outputs come before inputs.
    pub fn transposed(self) -> bool {
        self != Order::Kn
    }
}

impl From<bool> for Order {
    /// That of a product's right operand, which may be transposed.
    fn from(transposed: bool) -> Order {
        if transposed { Order::Nk } else { Order::Kn }
    }
}

/// A constant seen as a matrix from `k` inputs to `n` outputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Matrix {
    /// Inputs.
    pub k: usize,
    /// Outputs.
    pub n: usize,
    /// Whether it is stored as outputs x inputs.
    pub transposed: bool,
}

impl Matrix {
    /// Of a constant of this shape; none without axes or if the count of elements overflows.
    pub fn new(shape: &[usize], order: impl Into<Order>) -> Option<Matrix> {
        let order = order.into();
        let last = shape.len().checked_sub(1)?;
        let (rows, columns) = shape.split_at(if order == Order::Nk { 1 } else { last });
        let transposed = order.transposed();
        let (rows, columns) = (elem_count(rows).ok()?, elem_count(columns).ok()?);
        rows.checked_mul(columns)?;
        let (k, n) = if transposed { (columns, rows) } else { (rows, columns) };
        Some(Matrix { k, n, transposed })
    }
    /// Where the element from input `k` to output `n` is stored.
    pub fn at(&self, k: usize, n: usize) -> usize {
        if self.transposed { n * self.k + k } else { k * self.n + n }
    }
    /// Blocks along the inputs and along the outputs; those at the edges may be partial.
    pub fn grid(&self, block: [u32; 2]) -> [usize; 2] {
        [self.k.div_ceil(block[0].max(1) as usize), self.n.div_ceil(block[1].max(1) as usize)]
    }
    /// Calls `f` with the number of the block, row-major in the grid, and the place of every element, in the order of storage.
    pub fn each(&self, block: [u32; 2], mut f: impl FnMut(usize, usize)) {
        let across = self.grid(block)[1];
        let (bk, bn) = (block[0].max(1) as usize, block[1].max(1) as usize);
        let (rows, columns) = if self.transposed { (self.n, self.k) } else { (self.k, self.n) };
        for r in 0..rows {
            for c in 0..columns {
                let (k, n) = if self.transposed { (c, r) } else { (r, c) };
                f(k / bk * across + n / bn, r * columns + c);
            }
        }
    }
}

impl Matrix {
    /// The elements of the blocks at these numbers, row-major in the grid, of a tensor of numbers of as many elements: block by block, each
    /// row-major in k x n, as a vector; zero beyond the edges. Fails for numbers beyond the grid.
    pub fn blocks(&self, t: &Tensor, block: [u32; 2], index: &[u32]) -> Result<Tensor, Diag> {
        let bad = |why: &str| Diag::error("constant-malformed", why);
        let [down, across] = self.grid(block);
        if t.len() != self.k * self.n || index.iter().any(|at| *at as usize >= down * across) {
            return Err(bad("block index beyond the tensor"));
        }
        let (bytes, size) = (t.bytes(), t.dtype().size());
        let (bk, bn) = (block[0] as usize, block[1] as usize);
        let mut values = vec![0u8; index.len() * bk * bn * size];
        for (from, to) in index.iter().zip(values.chunks_exact_mut((bk * bn * size).max(1))) {
            let (k0, n0) = (*from as usize / across * bk, *from as usize % across * bn);
            for k in k0..(k0 + bk).min(self.k) {
                for n in n0..(n0 + bn).min(self.n) {
                    let (i, j) = (self.at(k, n) * size, ((k - k0) * bn + n - n0) * size);
                    to[j..j + size].copy_from_slice(&bytes[i..i + size]);
                }
            }
        }
        Tensor::from_bytes(t.dtype(), vec![index.len() * bk * bn], values.into())
    }
}

impl Constant {
    /// The blocks of a tensor of numbers that hold anything but zeros. Fails for strings and types smaller than a byte.
    pub fn in_blocks(t: &Tensor, block: [u32; 2], order: impl Into<Order>) -> Result<Constant, Diag> {
        let bad = |why: &str| Diag::error("constant-malformed", why);
        let order = order.into();
        let m = Matrix::new(t.shape(), order).ok_or_else(|| bad("no matrix"))?;
        if t.dtype() == DType::Str || block.contains(&0) {
            return Err(bad("only numbers can be in blocks, and none is empty"));
        }
        let (bytes, size) = (t.bytes(), t.dtype().size());
        // Minus zero is a zero as well.
        let zero = |b: &[u8]| match (t.dtype().is_float(), b.split_last()) {
            (true, Some((last, rest))) => rest.iter().all(|x| *x == 0) && last & 0x7f == 0,
            _ => b.iter().all(|x| *x == 0),
        };
        let [down, across] = m.grid(block);
        let mut kept = vec![false; down * across];
        m.each(block, |at, i| kept[at] |= !zero(&bytes[i * size..(i + 1) * size]));
        let index: Vec<u32> = (0..kept.len()).filter(|i| kept[*i]).map(|i| i as u32).collect();
        let values = m.blocks(t, block, &index)?;
        let encoding = Encoding::BlockSparse { block, order, index, values };
        Ok(Constant { dtype: t.dtype(), shape: t.shape().to_vec(), encoding })
    }
}

/// The bytes of all elements.
pub(super) fn decode(
    c: &Constant,
    block: [u32; 2],
    order: Order,
    index: &[u32],
    values: &Tensor,
) -> Result<Vec<u8>, Diag> {
    let bad = || Diag::error("constant-malformed", "block index beyond the tensor");
    let size = c.dtype.size();
    let m = Matrix::new(&c.shape, order).ok_or_else(bad)?;
    let across = m.grid(block)[1].max(1);
    let (bk, bn) = (block[0] as usize, block[1] as usize);
    let mut out = vec![0u8; elem_count(&c.shape)? * size];
    let mut source = values.bytes().chunks_exact(size);
    for at in index {
        let (k0, n0) = (*at as usize / across * bk, *at as usize % across * bn);
        for k in k0..k0 + bk {
            for n in n0..n0 + bn {
                let v = source.next().ok_or_else(bad)?;
                if k < m.k && n < m.n {
                    let i = m.at(k, n) * size;
                    out.get_mut(i..i + size).ok_or_else(bad)?.copy_from_slice(v);
                }
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_decode_to_what_they_were_made_of() -> Result<(), Diag> {
        let value = |i: usize| if (i / 3) % 4 == 1 { i as f32 } else { -0.0 };
        for shape in [vec![5, 7], vec![3, 2, 4], vec![0, 3], vec![6, 3, 1, 1], vec![2, 3, 3, 3]] {
            let n: usize = shape.iter().product();
            let t = Tensor::f32s(&shape, &(0..n).map(value).collect::<Vec<_>>())?;
            for block in [[1, 2], [4, 3], [2, 16], [32, 32]] {
                for (order, _) in Order::ALL {
                    let c = Constant::in_blocks(&t, block, order)?;
                    assert_eq!(c.decode()?.to_f64(), t.to_f64(), "{shape:?} {block:?} {order:?}");
                    assert!(c.stored_bytes() > 0 || n == 0);
                }
            }
        }
        assert!(Constant::in_blocks(&Tensor::f32s(&[2, 2], &[0.0; 4])?, [0, 2], Order::Kn).is_err());
        let zeros = Constant::in_blocks(&Tensor::f32s(&[4, 4], &[0.0; 16])?, [1, 4], Order::Kn)?;
        assert_eq!(zeros.stored_bytes(), 0);
        Ok(())
    }
}
