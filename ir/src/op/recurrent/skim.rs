//! A recurrent layer that skims (Seo et al., *Neural Speed Reading via Skim-RNN*, 2018).

mod captures;
mod parts;
#[cfg(test)]
mod tests;

pub use captures::{Captures, CellParts};
pub use parts::without_skims;

use super::{Activation, Cell, Direction, Recurrent, Step, expect_shape};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::conv::expect_dim;
use crate::op::gradient::GradCx;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value, elem_count};
use crate::types::Type;

crate::op_struct! {
    /// A recurrent layer (GRU or LSTM, forward, with its usual activations) that decides at each step whether its big cell reads the input or a small cell skims it, which changes the first H' units of the state only. Operands: `x` \[T, B, I\]; `w` \[1, G H, I\] and `r` \[1, G H, H\] of the big cell, `w'` \[1, G H', I\] and `r'` \[1, G H', H'\] of the small one, where G is the number of gates and H' at most H; the predictor \[I + H, 2\], whose products with x and the last h are the scores of reading and of skimming; optional biases of all three, \[1, 2 G H\], \[1, 2 G H'\], \[2\]; optional first h \[1, B, H\] and, for LSTM, first c; optional `theta`, one float, in place of the field; optional `noise` \[T, B, 2\], numbers between 0 and 1; optional `temperature`, one float, in place of the field. A row skims where its probability of skimming, the second element of the softmax of its scores, is above `theta`: never at 1. With noise u nothing is decided: the state is the mean of what both cells give, weighted by softmax((score - log(-log u)) / temperature), which has a gradient (training). Results: all h \[T, 1, B, H\], the last h \[1, B, H\], for LSTM the last c, and the probabilities of skimming \[T, B\].
    SkimRecurrent {
        /// Which cell: `gru` or `lstm`.
        cell: Cell,
        /// GRU: whether the reset gate scales what the recurrence gives (with its bias), not what goes in.
        linear_before_reset: bool,
        /// A row skims where its probability of skimming is above this.
        theta: f64,
        /// What noisy scores are divided by.
        temperature: f64,
    }
}

/// Sizes of a layer.
struct Sizes {
    steps: usize,
    batch: usize,
    inputs: usize,
    /// Units of the big and of the small cell.
    units: [usize; 2],
}

impl SkimRecurrent {
    /// The first operand of the parameters of the big and of the small cell: `w`, then `r`.
    pub const CELLS: [usize; 2] = [1, 3];
    /// The predictor.
    pub const PREDICTOR: usize = 5;
    /// The biases of the big and of the small cell, and of the predictor.
    pub const BIASES: [usize; 3] = [6, 7, 8];
    /// The first h and the first c.
    pub const FIRST: [usize; 2] = [9, 10];
    /// The operand in place of the field `theta`.
    pub const THETA: usize = 11;
    /// The noise.
    pub const NOISE: usize = 12;
    /// What noise is kept between, so that its logarithms are finite, also in f32.
    pub const BOUNDS: (f64, f64) = (1e-20, 1.0 - f32::EPSILON as f64);
    /// The operand in place of the field `temperature`.
    pub const TEMPERATURE: usize = 13;

    /// The layer of one cell that does not skim.
    pub fn plain(&self) -> Recurrent {
        let activations = match self.cell {
            Cell::Rnn => vec![Activation::Tanh],
            Cell::Gru => vec![Activation::Sigmoid, Activation::Tanh],
            Cell::Lstm => vec![Activation::Sigmoid, Activation::Tanh, Activation::Tanh],
        };
        let parameters = vec![0.0; activations.len()];
        Recurrent {
            cell: self.cell,
            direction: Direction::Forward,
            activations,
            alpha: parameters.clone(),
            beta: parameters,
            clip: None,
            linear_before_reset: self.linear_before_reset,
            input_forget: false,
        }
    }
    /// Which result the probabilities are.
    pub fn probabilities(&self) -> usize {
        1 + self.states()
    }
    /// How many states there are: h, and c of an LSTM.
    pub fn states(&self) -> usize {
        if self.cell == Cell::Lstm { 2 } else { 1 }
    }
    fn check_fields(&self) -> Result<(), Diag> {
        if self.cell == Cell::Rnn {
            return Err(Diag::error("field-range", "only a GRU or an LSTM skims"));
        }
        if self.theta.is_nan() {
            return Err(Diag::error("field-range", "theta must be a number"));
        }
        if self.temperature.is_nan() || self.temperature <= 0.0 {
            return Err(Diag::error("field-range", "the temperature must be above 0"));
        }
        Ok(())
    }
    /// The dims T, B, I, H and H'.
    fn sizes(&self, dims: [&[Dim]; 6]) -> Result<[Dim; 5], Diag> {
        let [x, w, r, small_w, small_r, predictor] = dims;
        let plain = self.plain();
        let [t, b, i, h] = plain.sizes(x, w, r)?;
        let [.., small] = plain.sizes(x, small_w, small_r)?;
        if let (Some(h), Some(small)) = (h.as_const(), small.as_const())
            && small > h
        {
            let text = format!("a small cell of {small} units beside a big one of {h}");
            return Err(Diag::error("shape-mismatch", text));
        }
        let [rows, columns] = predictor else {
            return Err(Diag::error("shape-mismatch", "the predictor is a matrix"));
        };
        expect_dim(rows, &i.add(&h), "the number of rows of the predictor")?;
        expect_dim(columns, &2.into(), "the number of columns of the predictor")?;
        Ok([t, b, i, h, small])
    }
}

/// An error unless operand `i`, if it is given, is one float.
fn expect_number(cx: &InferCx<'_>, i: usize) -> Result<(), Diag> {
    if !cx.has(i) {
        return Ok(());
    }
    cx.expect_dtype(i, DType::is_float, "a float")?;
    match cx.dims(i)? {
        d if d.len() <= 1 && d.iter().all(|d| d.as_const().is_none_or(|n| n == 1)) => Ok(()),
        _ => Err(Diag::error("shape-mismatch", format!("operand {i} must be one number"))),
    }
}

impl OpDef for SkimRecurrent {
    const NAME: &'static str = "skim-recurrent";
    const INPUTS: (usize, usize) = (6, 14);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        self.check_fields()?;
        let dtype = cx.expect_dtype(0, |d| d.is_float(), "a float")?;
        let single = [Self::THETA, Self::TEMPERATURE];
        for i in (1..cx.len()).filter(|i| !single.contains(i)) {
            if cx.has(i) {
                cx.expect_dtype(i, |d| d == dtype, dtype.name())?;
            }
        }
        single.into_iter().try_for_each(|i| expect_number(cx, i))?;
        let dims = [cx.dims(0)?, cx.dims(1)?, cx.dims(2)?, cx.dims(3)?, cx.dims(4)?, cx.dims(5)?];
        let [t, b, _, h, small] = self.sizes(dims)?;
        let twice = Dim::from(2 * self.plain().gates());
        let (one, two) = (Dim::from(1), Dim::from(2));
        expect_shape(cx, 6, &[&one, &h.mul(&twice)])?;
        expect_shape(cx, 7, &[&one, &small.mul(&twice)])?;
        expect_shape(cx, 8, &[&two])?;
        expect_shape(cx, 9, &[&one, &b, &h])?;
        match self.cell {
            Cell::Lstm => expect_shape(cx, 10, &[&one, &b, &h])?,
            _ if cx.has(10) => return Err(Diag::error("arity", "only an LSTM has a cell state")),
            _ => {}
        }
        expect_shape(cx, Self::NOISE, &[&t, &b, &two])?;
        let fact = |dims: &[&Dim]| Fact::from(Type::tensor(dtype, dims.iter().copied().cloned().collect()));
        let mut facts = vec![fact(&[&t, &one, &b, &h])];
        facts.extend((0..self.states()).map(|_| fact(&[&one, &b, &h])));
        facts.push(fact(&[&t, &b]));
        Ok(facts)
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let inputs = cx.inputs().to_vec();
        cx.through(|cx| self.by_parts(cx, &inputs))
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        self.check_fields()?;
        let sizes = self.fixed_sizes(cx)?;
        let out = self.run(cx, &sizes)?;
        let Sizes { steps, batch, units: [h, _], .. } = sizes;
        let dtype = cx.tensor(0)?.dtype();
        let mut results = vec![Tensor::floats(dtype, &[steps, 1, batch, h], out.all)?.into()];
        for state in out.last.into_iter().take(self.states()) {
            results.push(Tensor::floats(dtype, &[1, batch, h], state)?.into());
        }
        results.push(Tensor::floats(dtype, &[steps, batch], out.skims)?.into());
        Ok(results)
    }
    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }
}

/// What a run gives.
struct Out {
    all: Vec<f64>,
    last: [Vec<f64>; 2],
    skims: Vec<f64>,
}

impl SkimRecurrent {
    fn fixed_sizes(&self, cx: &EvalCx<'_>) -> Result<Sizes, Diag> {
        let mut dims = Vec::new();
        for i in 0..6 {
            dims.push(cx.tensor(i)?.shape().iter().map(|d| Dim::from(*d)).collect::<Vec<_>>());
        }
        self.sizes([&dims[0], &dims[1], &dims[2], &dims[3], &dims[4], &dims[5]])?;
        let last = |i: usize| cx.tensor(i).map(|t| t.shape()[2]);
        let x = cx.tensor(0)?.shape();
        Ok(Sizes { steps: x[0], batch: x[1], inputs: x[2], units: [last(2)?, last(4)?] })
    }
    fn run(&self, cx: &mut EvalCx<'_>, sizes: &Sizes) -> Result<Out, Diag> {
        let &Sizes { steps, batch, inputs, units: [h, small] } = sizes;
        let (lstm, gates, plain) = (self.cell == Cell::Lstm, self.plain().gates(), self.plain());
        let given = |i: usize, len: usize| -> Result<Option<Vec<f64>>, Diag> {
            match cx.opt_tensor(i)? {
                None => Ok(None),
                Some(v) if v.len() == len => Ok(Some(v.to_f64())),
                Some(v) => Err(Diag::error("shape-mismatch", format!("operand {i} is {:?}", v.shape()))),
            }
        };
        let or_zero = |i: usize, len: usize| given(i, len).map(|v| v.unwrap_or_else(|| vec![0.0; len]));
        let number = |i: usize, field: f64| given(i, 1).map(|v| v.map_or(field, |v| v[0]));
        let (big_b, small_b) = (or_zero(6, 2 * gates * h)?, or_zero(7, 2 * gates * small)?);
        let scores_b = or_zero(8, 2)?;
        let mut hidden = or_zero(9, batch * h)?;
        let mut cell = if lstm { or_zero(10, batch * h)? } else { Vec::new() };
        let theta = number(Self::THETA, self.theta)?;
        let temperature = number(Self::TEMPERATURE, self.temperature)?;
        let noise = given(Self::NOISE, steps * batch * 2)?;
        elem_count(&[steps, batch, h])?;
        let weights = (0..6).map(|i| Ok(cx.tensor(i)?.to_f64())).collect::<Result<Vec<_>, Diag>>()?;
        let peep = vec![0.0; if lstm { 3 * h } else { 0 }];
        let steps_of = |k: usize, h: usize, bias| {
            let (first, bias): (usize, &[f64]) = (Self::CELLS[k], bias);
            let (wb, rb) = bias.split_at(gates * h);
            Step { op: &plain, h, w: &weights[first], r: &weights[first + 1], wb, rb, peep: &peep, first: 0 }
        };
        let (reads, skims) = (steps_of(0, h, &big_b), steps_of(1, small, &small_b));
        let mut out = Out {
            all: vec![0.0; steps * batch * h],
            skims: vec![0.0; steps * batch],
            last: Default::default(),
        };
        let mut skipped = 0;
        for n in 0..batch {
            let at = n * h..(n + 1) * h;
            let mut hs = hidden[at.clone()].to_vec();
            let mut cs = if lstm { cell[at.clone()].to_vec() } else { Vec::new() };
            for t in 0..steps {
                let place = t * batch + n;
                let x = &weights[0][place * inputs..][..inputs];
                let score = |k: usize| {
                    let of = |first: usize, v: &[f64]| -> f64 {
                        v.iter()
                            .enumerate()
                            .map(|(i, v)| v * weights[Self::PREDICTOR][(first + i) * 2 + k])
                            .sum()
                    };
                    of(0, x) + of(inputs, &hs) + scores_b[k]
                };
                let scores = [score(0), score(1)];
                let above = |by: f64| 1.0 / (1.0 + (-by).exp());
                let p = above(scores[1] - scores[0]);
                out.skims[place] = p;
                match &noise {
                    None if p > theta => {
                        skipped += 1;
                        skims.run(x, &mut hs[..small], cs.get_mut(..small).unwrap_or_default());
                    }
                    None => reads.run(x, &mut hs, &mut cs),
                    Some(u) => {
                        let noisy = |k: usize| {
                            let u = u[place * 2 + k].clamp(Self::BOUNDS.0, Self::BOUNDS.1);
                            scores[k] - (-u.ln()).ln()
                        };
                        let share = above((noisy(1) - noisy(0)) / temperature);
                        let (mut read_h, mut read_c) = (hs.clone(), cs.clone());
                        reads.run(x, &mut read_h, &mut read_c);
                        skims.run(x, &mut hs[..small], cs.get_mut(..small).unwrap_or_default());
                        for (v, read) in hs.iter_mut().zip(read_h).chain(cs.iter_mut().zip(read_c)) {
                            *v = (1.0 - share) * read + share * *v;
                        }
                    }
                }
                out.all[place * h..][..h].copy_from_slice(&hs);
            }
            hidden[at.clone()].copy_from_slice(&hs);
            if lstm {
                cell[at].copy_from_slice(&cs);
            }
        }
        out.last = [hidden, cell];
        if noise.is_none() {
            cx.env.count("skim.steps", (steps * batch) as u64);
            cx.env.count("skim.skipped", skipped);
        }
        Ok(out)
    }
}
