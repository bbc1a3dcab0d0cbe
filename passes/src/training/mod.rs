//! A step of training as a graph: what the model says of a batch, the loss, its gradients, and parameters and optimiser state that go from one
//! step to the next.
//!
//! The step is a graph like any other, so every engine runs it, and passes work on it. Its inputs are those of the model, then `target` and
//! `rate` (the learning rate, a number of the type of the first output), if the model draws random numbers `seed` (i64, to be another one in every step), then one for
//! each parameter and each part of the state of regularisers and optimiser; its outputs those of the model, then
//! `loss`, then what these parameters and this state are after the step (`NAME.next`), which the graph pairs with the inputs as its state.

mod dropout;
mod evaluation;
pub(crate) mod exits;
mod gates;
#[cfg(test)]
mod gates_tests;
mod inference;
#[cfg(test)]
mod inference_tests;
mod loss;
pub mod mixture;
#[cfg(test)]
mod mixture_tests;
mod noise;
mod optimizer;
mod parameters;
mod prune;
mod schedule;
pub(crate) mod skim;
mod stored;
#[cfg(test)]
mod tests;
mod work;

pub use dropout::Dropout;
pub use evaluation::{Evaluation, evaluation};
pub use exits::{EXIT, WEIGHT as EXIT_WEIGHT};
pub use gates::Sparsity;
pub use inference::{determinized, draws, finished, inferred, thresholds};
pub use loss::{GroupLasso, Loss, soft_scores};
pub use optimizer::{Optimizer, Rule};
pub(crate) use parameters::is_table;
pub use parameters::{name_parameters, with_values};
pub use prune::{Prune, Pruner, Ramp};
pub use schedule::{Annealing, Schedule, Shape};
pub use stored::{StoredBlocks, stored_blocks};
pub use work::{Work, work};

use crate::recompute::recompute;
use planish_ir::graph::StatePair;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::gradient::sweep;
use planish_ir::{Constant, Diag, Editor, Graph, Loc, NodeId, Tensor, Type, Value, ValueId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A value that training changes.
#[derive(Clone, PartialEq, Debug)]
pub struct Variable {
    /// Name of the input of the step.
    pub name: String,
    /// The constant of the model that it stands for, a value there; none for state of regularisers and of the optimiser, and masks.
    pub constant: Option<ValueId>,
    /// What it begins with.
    pub start: Tensor,
}

/// What a step does.
#[derive(Clone, PartialEq, Debug)]
pub struct Recipe {
    /// What it makes small.
    pub loss: Loss,
    /// How parameters change.
    pub optimizer: Optimizer,
    /// What is added to the loss for weights in blocks.
    pub lasso: Option<GroupLasso>,
    /// Whether parameters of two axes or more have a mask, a variable `NAME.mask` that they are multiplied with after every step. The step leaves masks as they are;
    /// who runs it changes them between steps.
    pub masks: bool,
    /// How many stochastic gates are to be on.
    pub sparsity: Option<Sparsity>,
    /// Outputs of the model, numbers, that are added to the loss, and what they are multiplied by.
    pub terms: Vec<(String, f64)>,
    /// What the learning rate is multiplied by for parameters whose names begin so; the first that fits counts. Gaters that learn by
    /// `reinforce` need a hundredth or so.
    pub factors: Vec<(String, f64)>,
    /// The most bytes of forward values in memory at once on the way back, as far as [`recompute`](crate::recompute::recompute) comes below; none: no limit.
    pub recompute: Option<u64>,
    /// Whether the temperature of Gumbel gates is an input, behind `seed`, in place of the constants that they have.
    pub anneal: bool,
    /// What the mean of `-ln p` over all steps is multiplied by that is added to the loss, p being the probability that a layer skims the step.
    pub skim: f64,
    /// What the loss of the scores of a head half way is multiplied by, the output [`EXIT`] of the model if it has one, that is added to the loss.
    pub exit: f64,
    /// What is left out of steps at random.
    pub dropout: Option<Dropout>,
}

impl Recipe {
    /// A loss and an optimiser, nothing else.
    pub fn new(loss: Loss, optimizer: Optimizer) -> Recipe {
        let (terms, factors) = (Vec::new(), Vec::new());
        Recipe {
            loss,
            optimizer,
            lasso: None,
            masks: false,
            sparsity: None,
            terms,
            factors,
            recompute: None,
            anneal: false,
            skim: 0.0,
            exit: exits::WEIGHT,
            dropout: None,
        }
    }
    /// What the learning rate of a parameter is multiplied by.
    fn factor(&self, name: &str) -> f64 {
        self.factors.iter().find(|(start, _)| name.starts_with(start.as_str())).map_or(1.0, |(_, f)| *f)
    }
}

/// A step, and what is needed to run it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The graph.
    pub graph: Graph,
    /// Number of inputs of the model, which come first.
    pub inputs: usize,
    /// Number of outputs of the model, which come first; the loss comes after them.
    pub outputs: usize,
    /// Which input is `seed`; none if the model draws nothing.
    pub seed: Option<usize>,
    /// Which input is `temperature`; none unless it was asked for and the model has Gumbel gates.
    pub temperature: Option<usize>,
    /// Parameters, then state: the last inputs, see [`Step::variables_from`], and the outputs behind the loss.
    pub variables: Vec<Variable>,
}

/// Makes the step of a model whose first output is trained. `trains` says by name which constants of floats are parameters.
///
/// # Errors
/// `unsupported-gradient` where an operation has no rule, `train-malformed` where the loss does not fit the output or nothing is trained.
pub fn step(model: &Graph, recipe: &Recipe, trains: &dyn Fn(&str) -> bool) -> Result<Step, Diag> {
    let Recipe { loss, optimizer, lasso, masks, sparsity, recompute: budget, .. } = recipe;
    let mut graph = model.clone();
    let (inputs, outputs) = (graph.inputs().len(), graph.outputs().len());
    let head = exits::output(&graph);
    let mut ed = Editor::new(&mut graph);
    let y = ed.graph().outputs().first().copied().ok_or_else(|| malformed("the model has no output"))?;
    let parameters = parameters(&ed, trains)?;
    ed.set_loc(Loc::None);
    let target = loss.target(ed.graph(), y)?;
    let target = ed.input("target", target);
    let dtype = ed.graph().dtype(y).ok_or_else(|| malformed("the output is no tensor"))?;
    let rate = ed.input("rate", Type::tensor(dtype, Vec::new()));
    if let Some(dropout) = recipe.dropout {
        dropout::added(&mut ed, &parameters.iter().map(|p| p.1).collect(), dropout)?;
    }
    skim::noisy(&mut ed)?;
    let seed = noise::seeded(&mut ed)?.map(|_| inputs + 2);
    let tempered = if recipe.anneal { noise::tempered(&mut ed, dtype)? } else { None };
    let temperature = tempered.map(|_| inputs + 2 + usize::from(seed.is_some()));
    let mut variables = Vec::new();
    let mut values = Vec::new();
    for (name, v, constant) in parameters {
        let start = constant.decode()?;
        let input = ed.input(&name, Type::from(start.ty()));
        ed.replace(v, input);
        values.push(input);
        variables.push(Variable { name, constant: Some(v), start });
    }
    ed.at_end(ed.graph().root());
    // An output may have been a parameter itself.
    let y = ed.graph().outputs()[0];
    let gates = gates::gates(&ed);
    let mut state = Vec::new();
    let mut b = Build::new(&mut ed, "loss");
    let elements = loss.elements(&mut b, y, target)?;
    let mut lost = loss::mean(&mut b, elements)?;
    for (name, factor) in &recipe.terms {
        lost = term(&mut b, lost, name, outputs, *factor)?;
    }
    if let Some(sparsity) = sparsity {
        lost = sparsity.added(&mut Build::new(&mut ed, "sparsity"), lost, &gates, &mut state)?;
    }
    if let Some(at) = head.filter(|_| recipe.exit != 0.0) {
        let mut b = Build::new(&mut ed, "early exit");
        let scores = b.ed.graph().outputs()[at];
        let own = loss.elements(&mut b, scores, target)?;
        let own = loss::mean(&mut b, own)?;
        let own = b.scale(recipe.exit, own)?;
        lost = b.binary(BinaryKind::Add, lost, own)?;
    }
    if recipe.skim != 0.0 {
        lost = skim::paid(&mut Build::new(&mut ed, "skim"), lost, recipe.skim)?;
    }
    let drawn = gates::reinforced(&mut Build::new(&mut ed, "reinforce"), elements, &gates, &mut state)?;
    if let Some(lasso) = lasso {
        lost = lasso.added(&mut Build::new(&mut ed, "group lasso"), lost, &values)?;
    }
    let nodes: Vec<NodeId> = ed.graph().nodes_in(ed.graph().root()).collect();
    let one = ed.constant(Tensor::scalar(dtype, 1.0)?)?;
    let seeds: Vec<(ValueId, ValueId)> = [(lost, one)].into_iter().chain(drawn).collect();
    let gradients = sweep(&mut ed, &nodes, &seeds, &values)?;
    ed.set_loc(Loc::None);
    ed.output(lost, Some("loss"));
    let factors: Vec<f64> = variables.iter().map(|v| recipe.factor(&v.name)).collect();
    let (new, further) = optimizer.update(&mut ed, &variables, &values, &gradients, rate, &factors)?;
    state.extend(further);
    let (new, kept) = if *masks { masked(&mut ed, &variables, new)? } else { (new, Vec::new()) };
    for (v, variable) in new.into_iter().zip(&variables) {
        ed.output(v, Some(&format!("{}.next", variable.name)));
    }
    for (variable, next) in state.into_iter().chain(kept) {
        ed.output(next, Some(&format!("{}.next", variable.name)));
        variables.push(variable);
    }
    let first = inputs + 2 + usize::from(seed.is_some()) + usize::from(temperature.is_some());
    for i in 0..variables.len() {
        let pair = StatePair { output: (outputs + 1 + i) as u32, input: (first + i) as u32 };
        ed.graph_mut().states.push(pair);
    }
    if let Some(budget) = budget {
        recompute(&mut ed, &nodes, *budget)?;
    }
    Ok(Step { graph, inputs, outputs, seed, temperature, variables })
}

/// A loss and a multiple of one of the outputs of the model, which are the first ones.
fn term(
    b: &mut Build<'_, '_>,
    loss: ValueId,
    name: &str,
    outputs: usize,
    factor: f64,
) -> Result<ValueId, Diag> {
    let g = b.ed.graph();
    let at = (0..outputs).find(|i| g.output_name(*i) == name);
    let v = at
        .map(|i| g.outputs()[i])
        .filter(|v| g.dtype(*v).is_some_and(|d| d.is_float()) && g.dims(*v).is_some_and(<[_]>::is_empty));
    let v = v.ok_or_else(|| malformed(format!("there is no output `{name}` that is one number")))?;
    let to = b.dtype(loss)?;
    let v = b.cast(v, to)?;
    let v = b.scale(factor, v)?;
    b.binary(BinaryKind::Add, loss, v)
}

/// A variable with what it is after the step.
type Next = (Variable, ValueId);

/// Parameters of two axes or more times masks, which are variables that stay.
fn masked(
    ed: &mut Editor<'_>,
    variables: &[Variable],
    new: Vec<ValueId>,
) -> Result<(Vec<ValueId>, Vec<Next>), Diag> {
    let (mut out, mut masks) = (Vec::new(), Vec::new());
    for (variable, w) in variables.iter().zip(new) {
        if variable.start.rank() < 2 {
            out.push(w);
            continue;
        }
        let name = format!("{}.mask", variable.name);
        let start = &variable.start;
        let ones = Tensor::floats(start.dtype(), start.shape(), vec![1.0; start.len()])?;
        let mask = ed.input(&name, Type::from(ones.ty()));
        out.push(Build::new(ed, "mask").mul(w, mask)?);
        masks.push((Variable { name, constant: None, start: ones }, mask));
    }
    Ok((out, masks))
}

/// Name, value and constant of what is trained.
fn parameters(
    ed: &Editor<'_>,
    trains: &dyn Fn(&str) -> bool,
) -> Result<Vec<(String, ValueId, Arc<Constant>)>, Diag> {
    let g = ed.graph();
    let mut out = Vec::new();
    let mut names = BTreeSet::new();
    for n in g.nodes_in(g.root()) {
        let Some(v) = g.node(n).outputs.first().copied() else { continue };
        let (Some((_, c)), Some(name)) = (g.as_const(v), g.value(v).name.as_deref()) else { continue };
        if c.dtype.is_float() && trains(name) && names.insert(name.to_owned()) {
            out.push((name.to_owned(), v, Arc::clone(c)));
        }
    }
    if out.is_empty() {
        Err(malformed("no constant of floats that has a name is to be trained"))
    } else {
        Ok(out)
    }
}

impl Step {
    /// The inputs of the first step: those of the model, the target and the rate, the seed if the model draws anything, then what all
    /// variables begin with.
    pub fn first(&self, batch: Vec<Value>, target: Value, rate: Value, seed: i64) -> Vec<Value> {
        let start = self.variables.iter().map(|v| Value::from(v.start.clone()));
        let seed = self.seed.map(|_| Value::from(Tensor::scalar_i64(seed)));
        batch.into_iter().chain([target, rate]).chain(seed).chain(start).collect()
    }
    /// Which input is the first variable; all behind it are variables.
    pub fn variables_from(&self) -> usize {
        self.inputs + 2 + usize::from(self.seed.is_some()) + usize::from(self.temperature.is_some())
    }
    /// Position among the inputs of the step of a variable.
    pub fn variable_input(&self, variable: usize) -> usize {
        self.variables_from() + variable
    }
    /// The variables after a step, of its results.
    pub fn variables_after<'r>(&self, results: &'r [Value]) -> &'r [Value] {
        &results[self.outputs + 1..]
    }
    /// The model with the values that its parameters have by now, in the order of [`Step::variables`].
    pub fn trained(&self, model: &Graph, values: &[Value]) -> Result<Graph, Diag> {
        let mut graph = model.clone();
        for (variable, value) in self.variables.iter().zip(values) {
            let Some(old) = variable.constant else { continue };
            parameters::replace(&mut graph, old, value.tensor()?.clone().into(), &variable.name)?;
        }
        Ok(graph)
    }
}

fn malformed(text: impl Into<String>) -> Diag {
    Diag::error("train-malformed", text)
}
