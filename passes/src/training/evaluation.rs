//! What a model says of a batch, and the loss, with parameters as inputs: for numbers on samples that training does not see.

use super::{Loss, malformed, parameters};
use planish_ir::op::build::Build;
use planish_ir::{Diag, Editor, Graph, Loc, Type};

/// The graph and its signature.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The graph. Inputs: those of the model, `target`, the parameters. Outputs: those of the model, `loss`.
    pub graph: Graph,
    /// Number of inputs of the model.
    pub inputs: usize,
    /// Number of outputs of the model.
    pub outputs: usize,
    /// Names of the parameters: the first variables of the step of the same model.
    pub parameters: Vec<String>,
}

/// Makes the graph for the parameters that [`super::step`] would train.
///
/// # Errors
/// As [`super::step`].
pub fn evaluation(model: &Graph, loss: &Loss, trains: &dyn Fn(&str) -> bool) -> Result<Evaluation, Diag> {
    let mut graph = model.clone();
    let (inputs, outputs) = (graph.inputs().len(), graph.outputs().len());
    let mut ed = Editor::new(&mut graph);
    let y = ed.graph().outputs().first().copied().ok_or_else(|| malformed("the model has no output"))?;
    ed.set_loc(Loc::None);
    let target = loss.target(ed.graph(), y)?;
    let target = ed.input("target", target);
    let mut names = Vec::new();
    for (name, v, constant) in parameters(&ed, trains)? {
        let ty = Type::tensor(constant.dtype, constant.shape.iter().map(|d| (*d).into()).collect());
        let input = ed.input(&name, ty);
        ed.replace(v, input);
        names.push(name);
    }
    ed.at_end(ed.graph().root());
    let y = ed.graph().outputs()[0];
    let mut b = Build::new(&mut ed, "loss");
    let elements = loss.elements(&mut b, y, target)?;
    let lost = super::loss::mean(&mut b, elements)?;
    ed.output(lost, Some("loss"));
    Ok(Evaluation { graph, inputs, outputs, parameters: names })
}
