//! A step of training as a graph: what the model says of a batch, the loss, its gradients, and parameters and optimiser state that go from one
//! step to the next.
//!
//! The step is a graph like any other, so every engine runs it, and passes work on it. Its inputs are those of the model, then `target` and
//! `rate` (the learning rate, a number of the type of the first output), then one for each parameter and each part of the optimiser's state; its outputs those of the model, then
//! `loss`, then what these parameters and this state are after the step (`NAME.next`), which the graph pairs with the inputs as its state.

mod loss;
mod optimizer;
mod schedule;
#[cfg(test)]
mod tests;

pub use loss::{GroupLasso, Loss};
pub use optimizer::{Optimizer, Rule};
pub use schedule::{Schedule, Shape};

use crate::recompute::recompute;
use planish_ir::graph::StatePair;
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
    /// The constant of the model that it stands for, a value there; none for state of the optimiser and masks.
    pub constant: Option<ValueId>,
    /// What it begins with.
    pub start: Tensor,
}

/// What a step does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Recipe {
    /// What it makes small.
    pub loss: Loss,
    /// How parameters change.
    pub optimizer: Optimizer,
    /// What is added to the loss for weights in blocks.
    pub lasso: Option<GroupLasso>,
    /// Whether parameters of two axes have a mask, a variable `NAME.mask` that they are multiplied with after every step. The step leaves masks as they are;
    /// who runs it changes them between steps.
    pub masks: bool,
    /// The most bytes of forward values in memory at once on the way back, as far as [`recompute`](crate::recompute::recompute) comes below; none: no limit.
    pub recompute: Option<u64>,
}

impl Recipe {
    /// A loss and an optimiser, nothing else.
    pub fn new(loss: Loss, optimizer: Optimizer) -> Recipe {
        Recipe { loss, optimizer, lasso: None, masks: false, recompute: None }
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
    /// Parameters, then state of the optimiser: the inputs behind `rate`, and the outputs behind the loss.
    pub variables: Vec<Variable>,
}

/// Makes the step of a model whose first output is trained. `trains` says by name which constants of floats are parameters.
///
/// # Errors
/// `unsupported-gradient` where an operation has no rule, `train-malformed` where the loss does not fit the output or nothing is trained.
pub fn step(model: &Graph, recipe: &Recipe, trains: &dyn Fn(&str) -> bool) -> Result<Step, Diag> {
    let Recipe { loss, optimizer, lasso, masks, recompute: budget } = recipe;
    let mut graph = model.clone();
    let (inputs, outputs) = (graph.inputs().len(), graph.outputs().len());
    let mut ed = Editor::new(&mut graph);
    let y = ed.graph().outputs().first().copied().ok_or_else(|| malformed("the model has no output"))?;
    let parameters = parameters(&ed, trains)?;
    ed.set_loc(Loc::None);
    let target = loss.target(ed.graph(), y)?;
    let target = ed.input("target", target);
    let dtype = ed.graph().dtype(y).ok_or_else(|| malformed("the output is no tensor"))?;
    let rate = ed.input("rate", Type::tensor(dtype, Vec::new()));
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
    let mut lost = loss.of(&mut Build::new(&mut ed, "loss"), y, target)?;
    if let Some(lasso) = lasso {
        lost = lasso.added(&mut Build::new(&mut ed, "group lasso"), lost, &values)?;
    }
    let nodes: Vec<NodeId> = ed.graph().nodes_in(ed.graph().root()).collect();
    let one = ed.constant(Tensor::scalar(dtype, 1.0)?)?;
    let gradients = sweep(&mut ed, &nodes, &[(lost, one)], &values)?;
    ed.set_loc(Loc::None);
    ed.output(lost, Some("loss"));
    let (new, state) = optimizer.update(&mut ed, &variables, &values, &gradients, rate)?;
    let (new, kept) = if *masks { masked(&mut ed, &variables, new)? } else { (new, Vec::new()) };
    for (v, variable) in new.into_iter().zip(&variables) {
        ed.output(v, Some(&format!("{}.next", variable.name)));
    }
    for (variable, next) in state.into_iter().chain(kept) {
        ed.output(next, Some(&format!("{}.next", variable.name)));
        variables.push(variable);
    }
    for i in 0..variables.len() {
        let pair = StatePair { output: (outputs + 1 + i) as u32, input: (inputs + 2 + i) as u32 };
        ed.graph_mut().states.push(pair);
    }
    if let Some(budget) = budget {
        recompute(&mut ed, &nodes, *budget)?;
    }
    Ok(Step { graph, inputs, outputs, variables })
}

/// A variable with what it is after the step.
type Next = (Variable, ValueId);

/// Parameters of two axes times masks, which are variables that stay.
fn masked(
    ed: &mut Editor<'_>,
    variables: &[Variable],
    new: Vec<ValueId>,
) -> Result<(Vec<ValueId>, Vec<Next>), Diag> {
    let (mut out, mut masks) = (Vec::new(), Vec::new());
    for (variable, w) in variables.iter().zip(new) {
        if variable.start.rank() != 2 {
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
    /// The inputs of the first step: those of the model, the target and the rate, then what all variables begin with.
    pub fn first(&self, batch: Vec<Value>, target: Value, rate: Value) -> Vec<Value> {
        let start = self.variables.iter().map(|v| Value::from(v.start.clone()));
        batch.into_iter().chain([target, rate]).chain(start).collect()
    }
    /// The variables after a step, of its results.
    pub fn variables_after<'r>(&self, results: &'r [Value]) -> &'r [Value] {
        &results[self.outputs + 1..]
    }
    /// The model with the values that its parameters have by now, in the order of [`Step::variables`].
    pub fn trained(&self, model: &Graph, values: &[Value]) -> Result<Graph, Diag> {
        let mut graph = model.clone();
        let mut ed = Editor::new(&mut graph);
        for (variable, value) in self.variables.iter().zip(values) {
            // Equal constants share a payload, so each gets one of its own.
            let Some(old) = variable.constant else { continue };
            let node = ed.graph().def_node(old).ok_or_else(|| malformed("not the model of this step"))?;
            ed.before(node);
            let new = ed.constant(value.tensor()?.clone())?;
            ed.set_name(new, &variable.name);
            ed.replace(old, new);
            ed.erase(node)?;
        }
        Ok(graph)
    }
}

fn malformed(text: impl Into<String>) -> Diag {
    Diag::error("train-malformed", text)
}
