//! Constants and their encodings. The pool shares equal constants, and payloads may be memory-mapped.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::tensor::{Elems, Tensor, elem_count, strides};
use bytes::Bytes;

mod blocks;
pub use blocks::{Matrix, Order};

crate::entity!(
    /// A constant of a graph.
    ConstId, "c"
);

/// How the elements of a constant are stored. Every encoding can be decoded.
#[derive(Clone, PartialEq, Debug)]
pub enum Encoding {
    /// All elements, as [`Tensor`] stores them.
    Dense(Tensor),
    /// One element for all, as its bytes.
    Splat(Bytes),
    /// Blocks of a [matrix](Matrix); zero elsewhere. Blocks are written k x n: inputs x outputs of the logical matrix.
    BlockSparse {
        /// Block size, k x n.
        block: [u32; 2],
        /// Which axes are inputs and outputs.
        order: Order,
        /// Row-major positions of the kept blocks in the block grid, ascending.
        index: Vec<u32>,
        /// The kept blocks one after another, each row-major in k x n.
        values: Tensor,
    },
    /// `n` of every `m` neighbours along the last axis are kept.
    NOfM {
        /// Kept.
        n: u8,
        /// Out of.
        m: u8,
        /// Position within the group of each kept element.
        index: Vec<u8>,
        /// The kept elements.
        values: Tensor,
    },
    /// An index into `centroids` for every element.
    Codebook {
        /// One byte per element.
        codes: Bytes,
        /// The values, a vector.
        centroids: Tensor,
    },
    /// Two 4-bit integers a byte, the first in the low half.
    Packed4(Bytes),
}

/// A constant tensor.
#[derive(Clone, PartialEq, Debug)]
pub struct Constant {
    /// Element type.
    pub dtype: DType,
    /// Dims.
    pub shape: Vec<usize>,
    /// Stored elements.
    pub encoding: Encoding,
}

impl From<Tensor> for Constant {
    fn from(t: Tensor) -> Constant {
        Constant { dtype: t.dtype(), shape: t.shape().to_vec(), encoding: Encoding::Dense(t) }
    }
}

impl Constant {
    /// A constant with one value everywhere, in O(1) bytes. `value` must hold exactly one element that is no string.
    pub fn splat(value: &Tensor, shape: Vec<usize>) -> Result<Constant, Diag> {
        if value.len() != 1 || value.dtype() == DType::Str {
            return Err(Diag::error("constant-malformed", "a splat needs one value that is no string"));
        }
        elem_count(&shape)?;
        Ok(Constant { dtype: value.dtype(), shape, encoding: Encoding::Splat(value.bytes().clone()) })
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes of the payload as stored.
    pub fn stored_bytes(&self) -> usize {
        match &self.encoding {
            Encoding::Dense(t) => t.bytes().len() + t.strings().iter().map(String::len).sum::<usize>(),
            Encoding::Splat(b) | Encoding::Packed4(b) => b.len(),
            Encoding::BlockSparse { index, values, .. } => index.len() * 4 + values.bytes().len(),
            Encoding::NOfM { index, values, .. } => index.len() + values.bytes().len(),
            Encoding::Codebook { codes, centroids } => codes.len() + centroids.bytes().len(),
        }
    }
    /// The one value of a splat, as a scalar.
    pub fn as_splat(&self) -> Option<Tensor> {
        match &self.encoding {
            Encoding::Splat(b) => Tensor::from_bytes(self.dtype, Vec::new(), b.clone()).ok(),
            Encoding::Dense(t) if t.len() == 1 => t.reshaped(&[]).ok(),
            _ => None,
        }
    }
    /// The dense tensor. Fails on a malformed encoding and when the element count overflows.
    pub fn decode(&self) -> Result<Tensor, Diag> {
        let bad = |why: &str| Diag::error("constant-malformed", why);
        let size = self.dtype.size();
        let bytes: Bytes = match &self.encoding {
            Encoding::Dense(t) => return t.reshaped(&self.shape),
            Encoding::Splat(b) => b.repeat(elem_count(&self.shape)?).into(),
            Encoding::Packed4(b) => {
                let n = elem_count(&self.shape)?;
                if b.len() != n.div_ceil(2) {
                    return Err(bad("packed data of another length"));
                }
                let signed = self.dtype == DType::I4;
                let nibble = |i: usize| {
                    let v = (b[i / 2] >> (4 * (i % 2))) & 15;
                    if signed { (((v << 4) as i8) >> 4) as u8 } else { v }
                };
                (0..n).map(nibble).collect::<Vec<u8>>().into()
            }
            Encoding::Codebook { codes, centroids } => {
                let table = centroids.bytes();
                let mut out = Vec::with_capacity(codes.len() * size);
                for c in codes {
                    let at = usize::from(*c) * size;
                    out.extend_from_slice(
                        table.get(at..at + size).ok_or_else(|| bad("code beyond the codebook"))?,
                    );
                }
                out.into()
            }
            Encoding::NOfM { n, m, index, values } => {
                let mut out = vec![0u8; elem_count(&self.shape)? * size];
                for (i, (p, v)) in index.iter().zip(values.bytes().chunks_exact(size)).enumerate() {
                    let at = (i / usize::from(*n).max(1)) * usize::from(*m) + usize::from(*p);
                    let slot = out
                        .get_mut(at * size..(at + 1) * size)
                        .ok_or_else(|| bad("index beyond the tensor"))?;
                    slot.copy_from_slice(v);
                }
                out.into()
            }
            Encoding::BlockSparse { block, order, index, values } => {
                blocks::decode(self, *block, *order, index, values)?.into()
            }
        };
        Tensor::from_bytes(self.dtype, self.shape.clone(), bytes)
    }
    /// The elements of a small constant, decoded; none when it has more than `limit`.
    pub fn small(&self, limit: usize) -> Option<Tensor> {
        (elem_count(&self.shape).ok()? <= limit).then(|| self.decode().ok()).flatten()
    }
    /// The same elements under another shape, keeping encodings that do not depend on the shape.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Constant, Diag> {
        if elem_count(&shape)? != self.len() {
            return Err(Diag::error("shape-mismatch", format!("{:?} cannot become {shape:?}", self.shape)));
        }
        match &self.encoding {
            Encoding::BlockSparse { .. } | Encoding::NOfM { .. } => {
                Ok(self.decode()?.reshaped(&shape)?.into())
            }
            Encoding::Dense(t) => Ok(t.reshaped(&shape)?.into()),
            e => Ok(Constant { dtype: self.dtype, shape, encoding: e.clone() }),
        }
    }
    /// The count of elements that are not zero.
    pub fn nonzeros(&self) -> usize {
        match (&self.encoding, self.decode()) {
            (Encoding::Splat(b), _) => {
                if b.iter().all(|x| *x == 0) {
                    0
                } else {
                    self.len()
                }
            }
            (_, Ok(t)) => match t.elems() {
                Elems::F(v) => v.iter().filter(|x| **x != 0.0).count(),
                Elems::I(v) => v.iter().filter(|x| **x != 0).count(),
                Elems::S(v) => v.len(),
            },
            (_, Err(_)) => 0,
        }
    }
    /// A hash of type, shape and payload that does not depend on anything else (FNV-1a over the encoding).
    pub fn content_hash(&self) -> u64 {
        let mut h = Fnv::default();
        h.write(&[self.dtype as u8]);
        for d in strides(&self.shape).iter().chain(&self.shape) {
            h.write(&(*d as u64).to_le_bytes());
        }
        let tensor = |h: &mut Fnv, t: &Tensor| {
            h.write(t.bytes());
            for s in t.strings() {
                h.write(&(s.len() as u64).to_le_bytes());
                h.write(s.as_bytes());
            }
        };
        match &self.encoding {
            Encoding::Dense(t) => tensor(&mut h, t),
            Encoding::Splat(b) => {
                h.write(b"splat");
                h.write(b);
            }
            Encoding::Packed4(b) => {
                h.write(b"packed4");
                h.write(b);
            }
            Encoding::BlockSparse { block, order, index, values } => {
                h.write(b"blocks");
                h.write(&[*order as u8]);
                for i in block.iter().chain(index) {
                    h.write(&i.to_le_bytes());
                }
                tensor(&mut h, values);
            }
            Encoding::NOfM { n, m, index, values } => {
                h.write(&[*n, *m]);
                h.write(index);
                tensor(&mut h, values);
            }
            Encoding::Codebook { codes, centroids } => {
                h.write(b"codebook");
                h.write(codes);
                tensor(&mut h, centroids);
            }
        }
        h.0
    }
}

/// FNV-1a over 8-byte words; stable across versions and machines.
struct Fnv(u64);
impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}
impl Fnv {
    fn write(&mut self, b: &[u8]) {
        let mut chunks = b.chunks_exact(8);
        for c in &mut chunks {
            let w = u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]);
            self.0 = (self.0 ^ w).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        }
        for x in chunks.remainder() {
            self.0 = (self.0 ^ u64::from(*x)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_decode() -> Result<(), Diag> {
        let one = Tensor::scalar(DType::F32, 2.0)?;
        assert_eq!(Constant::splat(&one, vec![2, 2])?.decode()?.to_f64(), [2.0; 4]);
        let packed = Constant {
            dtype: DType::I4,
            shape: vec![3],
            encoding: Encoding::Packed4(vec![0x1f, 0x07].into()),
        };
        assert_eq!(packed.decode()?.to_i64()?, [-1, 1, 7]);
        let blocks = |order| Constant {
            dtype: DType::F32,
            shape: vec![2, 4],
            encoding: Encoding::BlockSparse {
                block: [1, 2],
                order,
                index: vec![1],
                values: Tensor::f32s(&[2], &[5.0, 6.0]).unwrap_or_else(|e| panic!("{e}")),
            },
        };
        assert_eq!(blocks(Order::Kn).decode()?.to_f64(), [0.0, 0.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0]);
        for order in [Order::Nk, Order::Rows] {
            assert_eq!(blocks(order).decode()?.to_f64(), [0.0, 5.0, 0.0, 0.0, 0.0, 6.0, 0.0, 0.0]);
        }
        Ok(())
    }
}
