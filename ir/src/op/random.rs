//! Random tensors.
//!
//! Every execution of a node draws one number from the stream of the run (or takes the node's seed) and derives its
//! elements from that number and their positions, so that elements can be computed in any order. With a seed that is an operand
//! elements are a function of that seed, the node's and their positions: noise that a step of training can be given again.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::util::{fact, sizes_of, vector_len};
use crate::op::{Effects, EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value, elem_count};

/// Number `i` of the stream that `base` begins: SplitMix64.
pub fn stream(base: u64, i: u64) -> u64 {
    let mut z = base.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in `0..1` from 53 of its bits.
pub fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
}

fn base(cx: &mut EvalCx<'_>, seed: Option<i64>) -> u64 {
    match seed {
        Some(s) => stream(s as u64, 0),
        None => cx.env.random(),
    }
}

crate::op_struct! {
    /// A tensor of the shape that the first operand lists, with random elements: uniform in `a..b`, or normal with mean `a` and deviation `b`. With the optional second operand, a seed (i64, a scalar), they are a function of it, of the field `seed` (0 if none) and of their positions, and nothing else. ONNX `RandomUniform`, `RandomNormal`, `Bernoulli`, without an operand for the seed.
    Random {
        /// The dtype of the result, a float.
        dtype: DType,
        /// Normal, else uniform.
        normal: bool,
        /// Lower bound or mean.
        a: f64,
        /// Upper bound or standard deviation.
        b: f64,
        /// Makes the elements the same in every run, or those of equal seeds that are operands different from those of other nodes.
        seed: Option<i64>,
    }
}

impl Random {
    /// What [`Random::element`] begins with when a seed is an operand.
    pub fn seeded(&self, operand: i64) -> u64 {
        stream(operand.cast_unsigned(), self.seed.unwrap_or(0).cast_unsigned())
    }
    /// Element `i` of the stream that `base` begins.
    pub fn element(&self, base: u64, i: u64) -> f64 {
        if !self.normal {
            return self.a + (self.b - self.a) * unit(stream(base, i));
        }
        // Box and Muller; 1 - u is never 0.
        let (u, v) = (1.0 - unit(stream(base, 2 * i)), unit(stream(base, 2 * i + 1)));
        self.a + self.b * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

impl OpDef for Random {
    const NAME: &'static str = "random";
    const INPUTS: (usize, usize) = (1, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d == DType::I64, "i64")?;
        if cx.has(1) {
            cx.expect_dtype(1, |d| d == DType::I64, "i64")?;
            if !cx.dims(1)?.is_empty() {
                return Err(Diag::error("shape-mismatch", "a seed is a scalar"));
            }
        }
        if !self.dtype.is_float() {
            return Err(Diag::error("dtype-mismatch", "random numbers are floats"));
        }
        let dims = match cx.ints(0) {
            Some(d) if d.iter().any(|d| d.as_const().is_some_and(|v| v < 0)) => {
                return Err(Diag::error("shape-mismatch", "a dim is negative"));
            }
            Some(d) => d,
            None => {
                let n = vector_len(cx.dims(0)?, "the shape")?;
                (0..n).map(|a| cx.fresh(0, a, 0, None)).collect()
            }
        };
        Ok(vec![fact(self.dtype, dims)])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let shape = sizes_of(&cx.ints(0)?)?;
        let n = elem_count(&shape)? as u64;
        let base = match cx.opt_tensor(1)? {
            Some(seed) => {
                let seed = seed.to_i64()?.first().copied();
                self.seeded(seed.ok_or_else(|| Diag::error("shape-mismatch", "a seed is a scalar"))?)
            }
            None => base(cx, self.seed),
        };
        let v = (0..n).map(|i| self.element(base, i)).collect();
        Ok(vec![Tensor::floats(self.dtype, &shape, v)?.into()])
    }
    fn effects(&self, inputs: &[Option<ValueId>]) -> Effects {
        if inputs.get(1).is_some_and(Option::is_some) { Effects::None } else { Effects::Random }
    }
}

crate::op_struct! {
    /// Samples of classes: for every row of unnormalised log-probabilities `samples` independent draws of a column. ONNX `Multinomial`.
    Multinomial {
        /// The dtype of the result, i32 or i64.
        dtype: DType,
        /// Draws per row.
        samples: usize,
        /// Makes the draws the same in every run.
        seed: Option<i64>,
    }
}

impl OpDef for Multinomial {
    const NAME: &'static str = "multinomial";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, DType::is_float, "a float")?;
        let [rows, classes] = cx.dims(0)? else {
            return Err(Diag::error("shape-mismatch", "rows of classes are needed"));
        };
        if classes.is(0) || !crate::op::util::is_index(self.dtype) {
            return Err(Diag::error("shape-mismatch", "there must be a class, and its index is i32 or i64"));
        }
        Ok(vec![fact(self.dtype, vec![rows.clone(), self.samples.into()])])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let base = base(cx, self.seed);
        let x = cx.tensor(0)?;
        let [rows, classes] = *x.shape() else {
            return Err(Diag::error("shape-mismatch", "rows of classes are needed"));
        };
        if classes == 0 {
            return Err(Diag::error("shape-mismatch", "there must be a class"));
        }
        let shape = [rows, self.samples];
        elem_count(&shape)?;
        let logits = x.to_f64();
        let mut out = Vec::new();
        for r in 0..rows {
            let row = &logits[r * classes..][..classes];
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let p: Vec<f64> = row.iter().map(|v| (v - max).exp()).collect();
            let sum: f64 = p.iter().sum();
            for s in 0..self.samples {
                let mut left = sum * unit(stream(base, (r * self.samples + s) as u64));
                let mut class = 0;
                while class + 1 < classes && left >= p[class] {
                    left -= p[class];
                    class += 1;
                }
                out.push(class as i128);
            }
        }
        Ok(vec![Tensor::from_elems(self.dtype, shape.to_vec(), Elems::I(out))?.into()])
    }
    fn effects(&self, _: &[Option<ValueId>]) -> Effects {
        Effects::Random
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, run};

    #[test]
    fn draws_have_the_right_moments() {
        let shape = i(&[1], &[20_000]);
        for (normal, a, b, mean, var) in [(false, 1.0, 3.0, 2.0, 1.0 / 3.0), (true, -1.0, 2.0, -1.0, 4.0)] {
            let op = Random { dtype: DType::F32, normal, a, b, seed: None };
            let v = run(op, std::slice::from_ref(&shape)).to_f64();
            let m = v.iter().sum::<f64>() / v.len() as f64;
            let s = v.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / v.len() as f64;
            assert!((m - mean).abs() < 0.05 && (s - var).abs() < 0.15, "{normal} {m} {s}");
        }
        let op = Random { dtype: DType::F32, normal: true, a: 0.0, b: 1.0, seed: Some(3) };
        let first = run(op.clone(), &[i(&[1], &[4])]);
        assert_eq!(first, run(op, &[i(&[1], &[4])]));
        let int = Random { dtype: DType::I64, normal: true, a: 0.0, b: 1.0, seed: None };
        assert_eq!(fails(int, &[shape]), "dtype-mismatch");
    }

    #[test]
    fn a_seed_that_is_an_operand_decides_alone() {
        let of = |own: Option<i64>, given: i64| {
            let op = Random { dtype: DType::F64, normal: false, a: 0.0, b: 1.0, seed: own };
            run(op, &[i(&[1], &[3]), i(&[], &[given])]).to_f64()
        };
        let want: Vec<f64> = (0..3).map(|i| unit(stream(stream(5, 2), i))).collect();
        assert_eq!(of(Some(2), 5), want);
        assert_eq!(of(None, -7), of(Some(0), -7));
        assert_ne!(of(Some(2), 6), want);
        assert_ne!(of(Some(3), 5), want);
        let op = Random { dtype: DType::F64, normal: true, a: 0.0, b: 1.0, seed: None };
        assert_eq!(run(op.clone(), &[i(&[2], &[0, 3]), i(&[], &[1])]).shape(), [0, 3]);
        assert_eq!(fails(op.clone(), &[i(&[1], &[3]), i(&[1], &[1])]), "shape-mismatch");
        assert_eq!(fails(op, &[i(&[1], &[3]), f(&[], &[1.0])]), "dtype-mismatch");
    }

    #[test]
    fn samples_follow_the_weights() {
        let op = Multinomial { dtype: DType::I64, samples: 3000, seed: None };
        let v = run(op, &[f(&[1, 3], &[0.0, f32::NEG_INFINITY, 2f32.ln()])]).to_f64();
        let twos = v.iter().filter(|x| **x == 2.0).count();
        assert!(v.iter().all(|x| *x != 1.0) && (1850..2150).contains(&twos), "{twos}");
    }
}
