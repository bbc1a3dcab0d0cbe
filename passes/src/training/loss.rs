//! What training makes small.

use super::malformed;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::concat::{Pad, PadMode, Split};
use planish_ir::op::gather::GatherElements;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, Dim, Editor, Graph, Loc, Op, Type, ValueId};

/// The loss of a batch: the mean over all but the last axis, that of classes or features.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Loss {
    /// Cross-entropy of the scores with classes (i64, the shape of the scores without the last axis). Scores are logits; a softmax that ends the
    /// model is seen through.
    CrossEntropy,
    /// Cross-entropy of the softmax of the scores at a temperature with probabilities, times the square of the temperature, so that
    /// its gradients stay as large at any (Hinton et al., *Distilling the Knowledge in a Neural Network*, 2015).
    SoftTargets {
        /// What scores are divided by.
        temperature: f64,
    },
    /// Distillation: `1 - w` times [soft targets](Loss::SoftTargets) and `w` times cross-entropy with classes. Targets have twice as many columns as
    /// the scores: what a teacher says at the temperature, then probabilities of the classes (a one for the right one).
    Distill {
        /// What scores are divided by for the first part.
        temperature: f64,
        /// w.
        hard: f64,
    },
    /// Kullback-Leibler divergence of the softmax of the scores from probabilities: the same gradients as soft targets at temperature 1.
    Divergence,
    /// Mean of the squares of the differences from values of the shape of the output.
    MeanSquare,
}

impl Loss {
    /// The type of what outputs are compared with.
    pub(super) fn target(self, g: &Graph, y: ValueId) -> Result<Type, Diag> {
        let ty = g.ty(y).as_tensor().filter(|t| t.dtype.is_float());
        let ty = ty.ok_or_else(|| malformed("the first output is no tensor of floats"))?;
        match self {
            Loss::CrossEntropy => {
                let dims = ty.dims()?;
                let Some((_, batch)) = dims.split_last() else {
                    return Err(malformed("scores have an axis of classes"));
                };
                Ok(Type::tensor(DType::I64, batch.to_vec()))
            }
            Loss::Distill { .. } => {
                let mut dims = ty.dims()?.to_vec();
                let last = dims.last_mut().ok_or_else(|| malformed("scores have an axis of classes"))?;
                *last = last.mul(&Dim::Const(2));
                Ok(Type::tensor(ty.dtype, dims))
            }
            _ => Ok(Type::from(ty.clone())),
        }
    }

    /// The losses of elements, whose mean is the loss; the first axis is that of examples.
    pub(super) fn elements(
        self,
        b: &mut Build<'_, '_>,
        y: ValueId,
        target: ValueId,
    ) -> Result<ValueId, Diag> {
        let rank = b.dims(y)?.len();
        let last = rank.checked_sub(1);
        let last = || last.ok_or_else(|| malformed("scores have an axis of classes"));
        match self {
            Loss::MeanSquare => {
                let apart = b.binary(BinaryKind::Sub, y, target)?;
                b.mul(apart, apart)
            }
            Loss::CrossEntropy => {
                let last = last()?;
                let logs = log_softmax(b, y, 1.0)?;
                let class = b.unsqueeze(target, &[last])?;
                let said = b.ed.node1(GatherElements { axis: last }, &[logs, class])?;
                b.unary(UnaryKind::Neg, said)
            }
            Loss::SoftTargets { temperature } => {
                if !(temperature.is_finite() && temperature > 0.0) {
                    return Err(malformed("a temperature is above 0"));
                }
                let logs = log_softmax(b, y, temperature)?;
                let part = b.mul(target, logs)?;
                let sum = b.reduce(ReduceKind::Sum, part, &[last()?], false)?;
                b.scale(-temperature * temperature, sum)
            }
            Loss::Distill { temperature, hard } => {
                if !(0.0..=1.0).contains(&hard) {
                    return Err(malformed("the weight of classes is from 0 to 1"));
                }
                let parts = b.ed.node(Split { axis: last()?, parts: 2 }, &[Some(target)])?;
                let soft = Loss::SoftTargets { temperature }.elements(b, y, parts[0])?;
                let sharp = Loss::SoftTargets { temperature: 1.0 }.elements(b, y, parts[1])?;
                let (soft, sharp) = (b.scale(1.0 - hard, soft)?, b.scale(hard, sharp)?);
                b.binary(BinaryKind::Add, soft, sharp)
            }
            Loss::Divergence => {
                let logs = log_softmax(b, y, 1.0)?;
                // 0 ln 0 is 0.
                let some = b.compare(BinaryKind::Greater, target, 0.0)?;
                let one = b.number(1.0, target)?;
                let safe = b.ed.node1(planish_ir::op::where_::Where {}, &[some, target, one])?;
                let own = b.unary(UnaryKind::Log, safe)?;
                let apart = b.binary(BinaryKind::Sub, own, logs)?;
                let part = b.mul(target, apart)?;
                b.reduce(ReduceKind::Sum, part, &[last()?], false)
            }
        }
    }
}

/// The mean of the [losses of elements](Loss::elements), a number.
pub(super) fn mean(b: &mut Build<'_, '_>, elements: ValueId) -> Result<ValueId, Diag> {
    let all: Vec<usize> = (0..b.dims(elements)?.len()).collect();
    b.reduce(ReduceKind::Mean, elements, &all, false)
}

/// The [losses of elements](Loss::elements) as one for each example, a vector whose mean is the loss.
pub(super) fn of_examples(b: &mut Build<'_, '_>, elements: ValueId) -> Result<ValueId, Diag> {
    let rank = b.dims(elements)?.len();
    if rank == 0 {
        return Err(malformed("the loss has no axis of examples, which `reinforce` needs"));
    }
    let inner: Vec<usize> = (1..rank).collect();
    if inner.is_empty() { Ok(elements) } else { b.reduce(ReduceKind::Mean, elements, &inner, false) }
}

/// The model with one more output: the softmax of its first output divided by a temperature, what students learn from.
///
/// # Errors
/// `train-malformed` where the output has no axis of classes or the temperature is not above 0.
pub fn soft_scores(model: &Graph, temperature: f64) -> Result<Graph, Diag> {
    if !(temperature.is_finite() && temperature > 0.0) {
        return Err(malformed("a temperature is above 0"));
    }
    let mut graph = model.clone();
    let y = graph.outputs().first().copied().ok_or_else(|| malformed("the model has no output"))?;
    let mut ed = Editor::new(&mut graph);
    ed.at_end(ed.graph().root());
    ed.set_loc(Loc::None);
    let mut b = Build::new(&mut ed, "teacher");
    let logs = log_softmax(&mut b, y, temperature)?;
    let soft = b.unary(UnaryKind::Exp, logs)?;
    ed.output(soft, Some("soft"));
    Ok(graph)
}

/// The logarithm of the softmax along the last axis of scores divided by a number: of those before a softmax that made `y`.
fn log_softmax(b: &mut Build<'_, '_>, y: ValueId, temperature: f64) -> Result<ValueId, Diag> {
    let axis = b.dims(y)?.len().checked_sub(1).ok_or_else(|| malformed("scores have an axis of classes"))?;
    let g = b.ed.graph();
    let mut scores = y;
    if let Some(n) = g.def_node(y)
        && let Op::Softmax(op) = &g.node(n).op
        && op.axis == axis
        && op.kind != SoftmaxKind::Hardmax
    {
        // Of a logarithm already made the logarithm of the softmax is itself.
        scores = g.node(n).inputs[0].unwrap_or(y);
    }
    if temperature != 1.0 {
        scores = b.scale(1.0 / temperature, scores)?;
    }
    b.ed.node1(Softmax { kind: SoftmaxKind::LogSoftmax, axis }, &[scores])
}

/// Group lasso: a multiple of the sum of the Euclidean norms of the blocks of all parameters of two axes, which draws whole blocks to zero (Yuan and Lin,
/// 2006; for recurrent networks Narang et al., *Block-Sparse Recurrent Neural Networks*, 2017).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GroupLasso {
    /// The multiple.
    pub factor: f64,
    /// Size of the blocks along both axes; blocks at the ends may be smaller.
    pub block: [usize; 2],
}

impl GroupLasso {
    pub(super) fn added(
        self,
        b: &mut Build<'_, '_>,
        loss: ValueId,
        parameters: &[ValueId],
    ) -> Result<ValueId, Diag> {
        if self.block.contains(&0) {
            return Err(malformed("blocks have no axis of size 0"));
        }
        let mut sum = loss;
        for w in parameters {
            let [rows, columns] = b.known_dims(*w)?[..] else { continue };
            let [k, n] = self.block.map(|x| x as i64);
            let (down, across) = ((rows + k - 1) / k, (columns + n - 1) / n);
            let mut whole = *w;
            if (down * k, across * n) != (rows, columns) {
                let pads = b.vector(&[0, 0, down * k - rows, across * n - columns])?;
                whole = b.ed.node1(Pad { mode: PadMode::Constant }, &[whole, pads])?;
            }
            let blocks = b.reshape(whole, &[down, k, across, n])?;
            let norms = b.reduce(ReduceKind::L2, blocks, &[1, 3], false)?;
            let all = b.reduce(ReduceKind::Sum, norms, &[0, 1], false)?;
            let all = b.scale(self.factor, all)?;
            let to = b.dtype(loss)?;
            let all = b.cast(all, to)?;
            sum = b.binary(BinaryKind::Add, sum, all)?;
        }
        Ok(sum)
    }
}
