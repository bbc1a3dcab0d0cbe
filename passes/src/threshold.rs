//! Thresholds of gates: a number, or an input of the model that stands for it.

use planish_ir::op::cast::Cast;
use planish_ir::{DType, Diag, Editor, Type, ValueId};
use std::fmt;
use std::str::FromStr;

/// What decides whether a gate is on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Threshold {
    /// This number.
    At(f64),
    /// The input [`Threshold::NAME`] of the model, a float of 32 bits: who runs it chooses between speed and accuracy.
    Input,
}

impl Threshold {
    /// What the input is called.
    pub const NAME: &'static str = "threshold";

    /// The number as a value of an element type, new nodes where the editor stands. The model gets the input if it does not have it yet.
    ///
    /// # Errors
    /// `pass-option` where an input of that name is something else.
    pub(crate) fn value(self, ed: &mut Editor<'_>, dtype: DType) -> Result<ValueId, Diag> {
        let number = match self {
            Threshold::At(x) => return ed.constant(planish_ir::Tensor::scalar(dtype, x)?),
            Threshold::Input => input(ed)?,
        };
        let own = ed.graph().dtype(number) == Some(dtype);
        if own { Ok(number) } else { ed.node1(Cast { to: dtype, saturate: true }, &[number]) }
    }
}

/// The input, which is added if it is missing.
fn input(ed: &mut Editor<'_>) -> Result<ValueId, Diag> {
    let ty = Type::tensor(DType::F32, Vec::new());
    let g = ed.graph();
    let called = |v: &&ValueId| g.value(**v).name.as_deref() == Some(Threshold::NAME);
    match g.inputs().iter().find(called) {
        Some(v) if *g.ty(*v) == ty => Ok(*v),
        Some(v) => {
            let text = format!(
                "the model has an input `{}` already, {}, which cannot be a threshold",
                Threshold::NAME,
                g.ty(*v).display(&g.symbols)
            );
            Err(Diag::error("pass-option", text))
        }
        None => Ok(ed.input(Threshold::NAME, ty)),
    }
}

impl FromStr for Threshold {
    type Err = std::num::ParseFloatError;
    fn from_str(text: &str) -> Result<Threshold, Self::Err> {
        if text == "input" { Ok(Threshold::Input) } else { text.parse().map(Threshold::At) }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threshold::At(x) => write!(f, "{x}"),
            Threshold::Input => f.write_str("input"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_ir::Graph;

    #[test]
    fn there_is_one_input_and_no_other_takes_its_place() -> Result<(), Diag> {
        let mut graph = Graph::new("m");
        let mut ed = Editor::new(&mut graph);
        let first = Threshold::Input.value(&mut ed, DType::F32)?;
        assert_eq!(Threshold::Input.value(&mut ed, DType::F32)?, first);
        ed.at_end(ed.graph().root());
        let wide = Threshold::Input.value(&mut ed, DType::F64)?;
        assert_eq!((ed.graph().dtype(wide), ed.graph().inputs()), (Some(DType::F64), &[first][..]));
        let mut graph = Graph::new("m");
        let mut ed = Editor::new(&mut graph);
        ed.input("threshold", Type::tensor(DType::I64, Vec::new()));
        assert_eq!(Threshold::Input.value(&mut ed, DType::F32).map_err(|d| d.id), Err("pass-option"));
        Ok(())
    }

    #[test]
    fn texts_are_read_back() {
        for t in [Threshold::At(0.25), Threshold::Input] {
            assert_eq!(t.to_string().parse(), Ok(t));
        }
        assert!("much".parse::<Threshold>().is_err());
    }
}
