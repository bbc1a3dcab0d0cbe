//! Random dims and element values.

use super::Item;
use crate::rng::Rng;
use planish_ir::{DType, Elems, Tensor};

/// What the elements of a tensor may be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Domain {
    /// Quarters from -3 to 3; integers from -3 to 3 (0 to 6 unsigned).
    Any,
    /// The same, exact even when it comes from the pool.
    Exact,
    /// From 0.25 to 3.25; integers from 1 to 6.
    Positive,
    /// `Positive` with any sign.
    NonZero,
    /// Integers from `.0` to `.1`, both included.
    Between(i64, i64),
}

impl Domain {
    /// A bound on the absolute value.
    pub fn size(self) -> f64 {
        match self {
            Domain::Any | Domain::Exact | Domain::Positive | Domain::NonZero => 6.0,
            Domain::Between(lo, hi) => lo.abs().max(hi.abs()) as f64,
        }
    }
    /// Whether a tensor of the pool is known to be within.
    pub(crate) fn holds(self, item: &Item) -> bool {
        match self {
            Domain::Any => true,
            Domain::Exact => item.exact,
            Domain::Positive | Domain::NonZero | Domain::Between(..) => false,
        }
    }
}

/// A dim from 0 to 9; 0 is rare.
pub(crate) fn small_dim(rng: &mut Rng) -> usize {
    match rng.below(20) {
        0 => 0,
        1..=4 => 1,
        5..=14 => 2 + rng.below(4),
        _ => 6 + rng.below(4),
    }
}

/// A shape of this rank; in one of eight some dim is larger than the vectors of a machine, in some larger than a chunk.
pub(crate) fn shape(rng: &mut Rng, rank: usize) -> Vec<usize> {
    let mut shape: Vec<usize> = (0..rank).map(|_| small_dim(rng)).collect();
    // More than one chunk of work now and then.
    if (rank == 1 || rank == 2) && rng.one_in(12) {
        shape = vec![1; rank];
        let axis = rng.below(rank);
        shape[axis] = 1030 + rng.below(1200);
        return shape;
    }
    if rank > 0 && rank <= 3 && rng.one_in(8) {
        let axis = rng.below(rank);
        shape[axis] = 15 + rng.below(30);
    }
    shape
}

/// A shape of rank 0 to 4.
pub(crate) fn any_shape(rng: &mut Rng) -> Vec<usize> {
    let rank = rng.choose(&[0, 1, 1, 2, 2, 2, 3, 3, 4]);
    shape(rng, rank)
}

/// A shape that broadcasts with `to`: leading dims are dropped and others become 1 now and then.
pub(crate) fn broadcastable(rng: &mut Rng, to: &[usize]) -> Vec<usize> {
    let drop = if rng.one_in(2) { 0 } else { rng.below(to.len() + 1) };
    to[drop..].iter().map(|d| if rng.one_in(4) { 1 } else { *d }).collect()
}

fn float(rng: &mut Rng, dtype: DType, domain: Domain) -> f64 {
    match domain {
        Domain::NonZero => {
            let size = float(rng, dtype, Domain::Positive);
            if rng.one_in(2) && dtype != DType::F8E8M0 { -size } else { size }
        }
        Domain::Between(lo, hi) => rng.range(lo, hi) as f64,
        // The narrow types hold few values: powers of two in all of them, small integers in most.
        _ if dtype == DType::F8E8M0 => rng.choose(&[0.25, 0.5, 1.0, 2.0, 4.0]),
        Domain::Positive if dtype.bits() <= 8 => rng.choose(&[0.5, 1.0, 1.5, 2.0, 3.0]),
        _ if dtype.bits() <= 8 => rng.choose(&[-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]),
        Domain::Positive => rng.range(1, 13) as f64 / 4.0,
        Domain::Any | Domain::Exact => rng.range(-12, 12) as f64 / 4.0,
    }
}

fn int(rng: &mut Rng, dtype: DType, domain: Domain) -> i128 {
    let (lo, hi) = match domain {
        Domain::Between(lo, hi) => (lo, hi),
        Domain::Positive => (1, 6),
        _ if dtype.is_signed_int() => (-3, 3),
        _ => (0, 6),
    };
    let (least, most) = dtype.int_range().unwrap_or((0, 0));
    if domain == Domain::NonZero {
        let size = i128::from(rng.range(1, 6));
        return if rng.one_in(2) && dtype.is_signed_int() { -size } else { size }.clamp(least, most);
    }
    i128::from(rng.range(lo, hi)).clamp(least, most)
}

/// A tensor of this type with elements of the domain.
///
/// # Panics
/// If the tensor cannot be made, which is a mistake in a recipe.
pub(crate) fn random_tensor(rng: &mut Rng, dtype: DType, shape: &[usize], domain: Domain) -> Tensor {
    let len: usize = shape.iter().product();
    let elems = if dtype == DType::Str {
        let words = ["", "a", "ab", "B", "hello", "straße", "a b"];
        Elems::S((0..len).map(|_| rng.choose(&words).to_owned()).collect())
    } else if dtype.is_float() {
        Elems::F((0..len).map(|_| float(rng, dtype, domain)).collect())
    } else {
        Elems::I((0..len).map(|_| int(rng, dtype, domain)).collect())
    };
    match Tensor::from_elems(dtype, shape.to_vec(), elems) {
        Ok(tensor) => tensor,
        Err(why) => panic!("a random tensor of {dtype}{shape:?}: {why}"),
    }
}
