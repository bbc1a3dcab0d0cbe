//! Recurrent layers.

pub mod skim;
mod steps;

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::conv::expect_dim;
use crate::op::gradient::GradCx;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value, elem_count};
use crate::types::Type;

crate::attr_enum! {
    /// Which cell.
    Cell {
        /// `h' = f(x W + b + h R + c)`.
        Rnn = "rnn",
        /// Gated recurrent unit: gates z (update), r (reset), h (hidden).
        Gru = "gru",
        /// Long short-term memory: gates i (input), o (output), f (forget), c (cell).
        Lstm = "lstm",
    }
}

crate::attr_enum! {
    /// In which order the steps of a sequence are taken.
    Direction {
        /// From the first to the last.
        Forward = "forward",
        /// From the last (of each sequence's own length) to the first.
        Reverse = "reverse",
        /// Both, with weights of their own: direction 0 is forward, 1 reverse.
        Both = "both",
    }
}

crate::attr_enum! {
    /// An activation, `a` and `b` being its parameters.
    Activation {
        /// max(x, 0).
        Relu = "relu",
        /// tanh(x).
        Tanh = "tanh",
        /// 1 / (1 + e^-x).
        Sigmoid = "sigmoid",
        /// a x + b.
        Affine = "affine",
        /// x where x >= 0, else a x.
        LeakyRelu = "leaky-relu",
        /// x where x > a, else 0.
        ThresholdedRelu = "thresholded-relu",
        /// a tanh(b x).
        ScaledTanh = "scaled-tanh",
        /// min(max(a x + b, 0), 1).
        HardSigmoid = "hard-sigmoid",
        /// x where x >= 0, else a (e^x - 1).
        Elu = "elu",
        /// x / (1 + |x|).
        Softsign = "softsign",
        /// ln(1 + e^x).
        Softplus = "softplus",
    }
}

impl Activation {
    /// The parameters when a model gives none.
    pub fn defaults(self) -> (f64, f64) {
        match self {
            Activation::LeakyRelu => (0.01, 0.0),
            Activation::ThresholdedRelu | Activation::Elu => (1.0, 0.0),
            Activation::HardSigmoid => (0.2, 0.5),
            Activation::Affine => (1.0, 0.0),
            Activation::ScaledTanh => (1.0, 1.0),
            _ => (0.0, 0.0),
        }
    }
    /// The function.
    pub fn apply(self, x: f64, a: f64, b: f64) -> f64 {
        match self {
            Activation::Relu => x.max(0.0),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Affine => a * x + b,
            Activation::LeakyRelu => {
                if x >= 0.0 {
                    x
                } else {
                    a * x
                }
            }
            Activation::ThresholdedRelu => {
                if x > a {
                    x
                } else {
                    0.0
                }
            }
            Activation::ScaledTanh => a * (b * x).tanh(),
            Activation::HardSigmoid => (a * x + b).clamp(0.0, 1.0),
            Activation::Elu => {
                if x >= 0.0 {
                    x
                } else {
                    a * x.exp_m1()
                }
            }
            Activation::Softsign => x / (1.0 + x.abs()),
            Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        }
    }
}

crate::op_struct! {
    /// A recurrent layer (ONNX RNN, GRU, LSTM). Operands: `x` \[T, B, I\], `w` \[D, G H, I\], `r` \[D, G H, H\], optional bias \[D, 2 G H\] (of `w`, then of `r`), optional lengths i32 \[B\], optional first h \[D, B, H\], and for LSTM optional first c \[D, B, H\] and peepholes \[D, 3 H\] (i, o, f), where D is the number of directions and G that of gates. Results: all h \[T, D, B, H\] (0 behind the end of a sequence), the last h \[D, B, H\], and for LSTM the last c.
    Recurrent {
        /// Which cell.
        cell: Cell,
        /// Order of the steps.
        direction: Direction,
        /// Activations: per direction f (RNN), f g (GRU), f g h (LSTM).
        activations: Vec<Activation>,
        /// First parameter of each activation.
        alpha: Vec<f64>,
        /// Second parameter of each activation.
        beta: Vec<f64>,
        /// The arguments of activations are kept within plus and minus this.
        clip: Option<f64>,
        /// GRU: whether the reset gate scales what the recurrence gives (with its bias), not what goes in.
        linear_before_reset: bool,
        /// LSTM: whether the forget gate is 1 minus the input gate.
        input_forget: bool,
    }
}

impl Recurrent {
    /// Number of gates.
    pub fn gates(&self) -> usize {
        match self.cell {
            Cell::Rnn => 1,
            Cell::Gru => 3,
            Cell::Lstm => 4,
        }
    }
    /// Number of directions.
    pub fn directions(&self) -> usize {
        if self.direction == Direction::Both { 2 } else { 1 }
    }
    /// Number of activations of one direction.
    pub fn activations_each(&self) -> usize {
        match self.cell {
            Cell::Rnn => 1,
            Cell::Gru => 2,
            Cell::Lstm => 3,
        }
    }
    fn sizes(&self, x: &[Dim], w: &[Dim], r: &[Dim]) -> Result<[Dim; 4], Diag> {
        let ([t, b, i], [wd, wg, wi], [rd, rg, h]) = (x, w, r) else {
            return Err(Diag::error("shape-mismatch", "a recurrent layer takes tensors of rank 3"));
        };
        let d = Dim::from(self.directions());
        let gh = h.mul(&self.gates().into());
        expect_dim(wd, &d, "the number of directions of w")?;
        expect_dim(rd, &d, "the number of directions of r")?;
        expect_dim(wi, i, "the input size of w")?;
        expect_dim(wg, &gh, "the number of rows of w")?;
        expect_dim(rg, &gh, "the number of rows of r")?;
        Ok([t.clone(), b.clone(), i.clone(), h.clone()])
    }
    fn check_fields(&self) -> Result<(), Diag> {
        let want = self.directions() * self.activations_each();
        let lens = [self.activations.len(), self.alpha.len(), self.beta.len()];
        if lens != [want; 3] {
            return Err(Diag::error(
                "field-range",
                format!("{lens:?} activations and parameters, not {want}"),
            ));
        }
        if self.clip.is_some_and(|c| c.is_nan() || c < 0.0) {
            return Err(Diag::error("field-range", "clip must not be negative"));
        }
        Ok(())
    }
}

fn expect_shape(cx: &InferCx<'_>, i: usize, want: &[&Dim]) -> Result<(), Diag> {
    if !cx.has(i) {
        return Ok(());
    }
    let dims = cx.dims(i)?;
    if dims.len() != want.len() {
        return Err(Diag::error("shape-mismatch", format!("operand {i} has rank {}", dims.len())));
    }
    dims.iter().zip(want).try_for_each(|(d, w)| expect_dim(d, w, &format!("a dim of operand {i}")))
}

impl OpDef for Recurrent {
    const NAME: &'static str = "recurrent";
    const INPUTS: (usize, usize) = (3, 8);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        self.check_fields()?;
        let dtype = cx.expect_dtype(0, |d| d.is_float(), "a float")?;
        for i in (1..cx.len()).filter(|i| *i != 4) {
            if cx.has(i) {
                cx.expect_dtype(i, |d| d == dtype, dtype.name())?;
            }
        }
        let [t, b, _, h] = self.sizes(cx.dims(0)?, cx.dims(1)?, cx.dims(2)?)?;
        let d = Dim::from(self.directions());
        expect_shape(cx, 3, &[&d, &h.mul(&(2 * self.gates()).into())])?;
        if cx.has(4) {
            cx.expect_dtype(4, |d| d == DType::I32, "i32")?;
        }
        expect_shape(cx, 4, &[&b])?;
        expect_shape(cx, 5, &[&d, &b, &h])?;
        if self.cell == Cell::Lstm {
            expect_shape(cx, 6, &[&d, &b, &h])?;
            expect_shape(cx, 7, &[&d, &h.mul(&3.into())])?;
        } else if cx.has(6) || cx.has(7) {
            return Err(Diag::error("arity", "only an LSTM has a cell state and peepholes"));
        }
        let last: Fact = Type::tensor(dtype, vec![d.clone(), b.clone(), h.clone()]).into();
        let mut facts = vec![Type::tensor(dtype, vec![t, d, b, h]).into(), last.clone()];
        if self.cell == Cell::Lstm {
            facts.push(last);
        }
        Ok(facts)
    }
    fn weight_inputs(&self) -> Vec<usize> {
        vec![1, 2]
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.through(|cx| self.by_loops(cx))
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        self.check_fields()?;
        let (x, w, r) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let dims = |t: &Tensor| t.shape().iter().map(|d| Dim::from(*d)).collect::<Vec<_>>();
        self.sizes(&dims(x), &dims(w), &dims(r))?;
        let (t, b, i, h) = (x.shape()[0], x.shape()[1], x.shape()[2], r.shape()[2]);
        let (dirs, g) = (self.directions(), self.gates());
        let total = elem_count(&[t, dirs, b, h])?;
        let optional = |k: usize, len: usize| -> Result<Vec<f64>, Diag> {
            match cx.opt_tensor(k)? {
                None => Ok(vec![0.0; len]),
                Some(v) if v.len() == len => Ok(v.to_f64()),
                Some(v) => Err(Diag::error("shape-mismatch", format!("operand {k} is {:?}", v.shape()))),
            }
        };
        let bias = optional(3, dirs * 2 * g * h)?;
        let mut hidden = optional(5, dirs * b * h)?;
        let lstm = self.cell == Cell::Lstm;
        let mut cell = if lstm { optional(6, dirs * b * h)? } else { Vec::new() };
        let peep = if lstm { optional(7, dirs * 3 * h)? } else { Vec::new() };
        let lens = match cx.opt_tensor(4)? {
            Some(l) => l.to_i64()?,
            None => vec![t as i64; b],
        };
        if lens.len() != b || !lens.iter().all(|l| (0..=t as i64).contains(l)) {
            return Err(Diag::error("index-out-of-range", format!("sequence lengths {lens:?} of {t} steps")));
        }
        let (xv, wv, rv) = (x.to_f64(), w.to_f64(), r.to_f64());
        let mut all = vec![0.0; total];
        let each = self.activations_each();
        for d in 0..dirs {
            let reverse = self.direction == Direction::Reverse || d == 1;
            let step = Step {
                op: self,
                h,
                w: &wv[d * g * h * i..][..g * h * i],
                r: &rv[d * g * h * h..][..g * h * h],
                wb: &bias[d * 2 * g * h..][..g * h],
                rb: &bias[(d * 2 + 1) * g * h..][..g * h],
                peep: peep.get(d * 3 * h..).unwrap_or(&[]),
                first: d * each,
            };
            for n in 0..b {
                let at = (d * b + n) * h;
                let mut hs = hidden[at..at + h].to_vec();
                let mut cs = if lstm { cell[at..at + h].to_vec() } else { Vec::new() };
                let len = lens[n] as usize;
                for s in 0..len {
                    let s = if reverse { len - 1 - s } else { s };
                    step.run(&xv[(s * b + n) * i..][..i], &mut hs, &mut cs);
                    all[((s * dirs + d) * b + n) * h..][..h].copy_from_slice(&hs);
                }
                hidden[at..at + h].copy_from_slice(&hs);
                if lstm {
                    cell[at..at + h].copy_from_slice(&cs);
                }
            }
        }
        let mut out = vec![
            Tensor::floats(x.dtype(), &[t, dirs, b, h], all)?.into(),
            Tensor::floats(x.dtype(), &[dirs, b, h], hidden)?.into(),
        ];
        if lstm {
            out.push(Tensor::floats(x.dtype(), &[dirs, b, h], cell)?.into());
        }
        Ok(out)
    }
    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }
}

/// One direction of a layer.
struct Step<'a> {
    op: &'a Recurrent,
    h: usize,
    w: &'a [f64],
    r: &'a [f64],
    wb: &'a [f64],
    rb: &'a [f64],
    peep: &'a [f64],
    first: usize,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Step<'_> {
    fn act(&self, k: usize, x: f64) -> f64 {
        let x = self.op.clip.map_or(x, |c| x.clamp(-c, c));
        let k = self.first + k;
        self.op.activations[k].apply(x, self.op.alpha[k], self.op.beta[k])
    }
    fn of_input(&self, gate: usize, j: usize, x: &[f64]) -> f64 {
        let row = gate * self.h + j;
        dot(&self.w[row * x.len()..][..x.len()], x) + self.wb[row]
    }
    fn of_state(&self, gate: usize, j: usize, hidden: &[f64]) -> f64 {
        let row = gate * self.h + j;
        dot(&self.r[row * self.h..][..self.h], hidden) + self.rb[row]
    }
    fn run(&self, x: &[f64], hidden: &mut [f64], cell: &mut [f64]) {
        let old = hidden.to_vec();
        let both = |gate: usize, j: usize| self.of_input(gate, j, x) + self.of_state(gate, j, &old);
        match self.op.cell {
            Cell::Rnn => {
                for (j, h) in hidden.iter_mut().enumerate() {
                    *h = self.act(0, both(0, j));
                }
            }
            Cell::Gru => {
                let reset: Vec<f64> = (0..self.h).map(|j| self.act(0, both(1, j))).collect();
                let scaled: Vec<f64> = reset.iter().zip(&old).map(|(r, h)| r * h).collect();
                for (j, h) in hidden.iter_mut().enumerate() {
                    let update = self.act(0, both(0, j));
                    let back = if self.op.linear_before_reset {
                        reset[j] * self.of_state(2, j, &old)
                    } else {
                        self.of_state(2, j, &scaled)
                    };
                    let fresh = self.act(1, self.of_input(2, j, x) + back);
                    *h = (1.0 - update) * fresh + update * old[j];
                }
            }
            Cell::Lstm => {
                for (j, h) in hidden.iter_mut().enumerate() {
                    let p = |k: usize| self.peep[k * self.h + j];
                    let input = self.act(0, both(0, j) + p(0) * cell[j]);
                    let forget = if self.op.input_forget {
                        1.0 - input
                    } else {
                        self.act(0, both(2, j) + p(2) * cell[j])
                    };
                    let fresh = self.act(1, both(3, j));
                    cell[j] = forget * cell[j] + input * fresh;
                    let output = self.act(0, both(1, j) + p(1) * cell[j]);
                    // The cell is not clipped on its way out.
                    let k = self.first + 2;
                    *h = output * self.op.activations[k].apply(cell[j], self.op.alpha[k], self.op.beta[k]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::eval_op;

    fn layer(cell: Cell, direction: Direction, activations: &[Activation]) -> Recurrent {
        let dirs = if direction == Direction::Both { 2 } else { 1 };
        Recurrent {
            cell,
            direction,
            activations: activations.repeat(dirs),
            alpha: vec![1.0; activations.len() * dirs],
            beta: vec![0.0; activations.len() * dirs],
            clip: None,
            linear_before_reset: false,
            input_forget: false,
        }
    }

    #[test]
    fn a_linear_rnn_sums_in_both_directions_up_to_the_length() -> Result<(), Diag> {
        let x = Tensor::f32s(&[3, 1, 1], &[1.0, 10.0, 100.0])?;
        let w = Tensor::f32s(&[2, 1, 1], &[1.0, 1.0])?;
        let r = Tensor::f32s(&[2, 1, 1], &[1.0, 2.0])?;
        let len = Tensor::ints(DType::I32, &[1], vec![2])?;
        let op = layer(Cell::Rnn, Direction::Both, &[Activation::Affine]);
        let y = eval_op(op, &[Some(x.clone()), Some(w.clone()), Some(r.clone()), None, Some(len)])?;
        assert_eq!(y[0].to_f64(), [1.0, 21.0, 11.0, 10.0, 0.0, 0.0]);
        assert_eq!(y[1].to_f64(), [11.0, 21.0]);
        let bad = Tensor::ints(DType::I32, &[1], vec![4])?;
        let op = layer(Cell::Rnn, Direction::Both, &[Activation::Affine]);
        let r = eval_op(op, &[Some(x), Some(w), Some(r), None, Some(bad)]);
        assert_eq!(r.map_err(|d| d.id), Err("index-out-of-range"));
        Ok(())
    }

    #[test]
    fn an_lstm_step() -> Result<(), Diag> {
        let x = Tensor::f32s(&[1, 1, 1], &[2.0])?;
        let w = Tensor::f32s(&[1, 4, 1], &[1.0, 0.5, 0.25, 3.0])?;
        let r = Tensor::f32s(&[1, 4, 1], &[0.0; 4])?;
        let c = Tensor::f32s(&[1, 1, 1], &[4.0])?;
        let p = Tensor::f32s(&[1, 3], &[0.0, 0.1, 0.0])?;
        let mut op = layer(Cell::Lstm, Direction::Forward, &[Activation::Affine; 3]);
        let args = [Some(x), Some(w), Some(r), None, None, None, Some(c), Some(p)];
        // i = 2, f = 0.5, c~ = 6, c = 0.5 * 4 + 2 * 6 = 14, o = 1 + 0.1 * 14
        let y = eval_op(op.clone(), &args)?;
        assert_eq!(y[2].to_f64(), [14.0]);
        assert!((y[0].to_f64()[0] - 2.4 * 14.0).abs() < 1e-5);
        op.clip = Some(1.0);
        op.input_forget = true;
        assert_eq!(eval_op(op, &args)?[2].to_f64(), [1.0]);
        Ok(())
    }

    #[test]
    fn a_gru_resets_before_or_behind_its_matrix() -> Result<(), Diag> {
        let x = Tensor::f32s(&[1, 1, 1], &[1.0])?;
        let w = Tensor::f32s(&[1, 3, 1], &[0.25, 0.5, 1.0])?;
        let r = Tensor::f32s(&[1, 3, 1], &[0.0, 0.0, 2.0])?;
        let b = Tensor::f32s(&[1, 6], &[0.0, 0.0, 0.0, 0.0, 0.0, 10.0])?;
        let h = Tensor::f32s(&[1, 1, 1], &[4.0])?;
        let mut op = layer(Cell::Gru, Direction::Forward, &[Activation::Affine; 2]);
        let args = [Some(x), Some(w), Some(r), Some(b), None, Some(h)];
        // z = 0.25, r = 0.5; h~ = 1 + 2 * (0.5 * 4) + 10 = 15
        assert_eq!(eval_op(op.clone(), &args)?[1].to_f64(), [0.75 * 15.0 + 1.0]);
        op.linear_before_reset = true;
        // h~ = 1 + 0.5 * (2 * 4 + 10) = 10
        assert_eq!(eval_op(op, &args)?[1].to_f64(), [0.75 * 10.0 + 1.0]);
        Ok(())
    }
}
