//! Thresholds of gates: a number, or an input of the model that stands for it.

use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::{DType, Diag, Editor, Graph, Type, ValueId};
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

    /// Which input of a model has that name.
    pub fn place(model: &Graph) -> Option<usize> {
        let called = |v: &ValueId| model.value(*v).name.as_deref() == Some(Threshold::NAME);
        model.inputs().iter().position(called)
    }

    /// Where a value is above the threshold; NaN is not. The model gets the input if it does not have it yet.
    ///
    /// # Errors
    /// As [`input`].
    pub(crate) fn below(self, b: &mut Build<'_, '_>, v: ValueId) -> Result<ValueId, Diag> {
        match self {
            Threshold::At(x) => b.compare(BinaryKind::Greater, v, x),
            Threshold::Input => {
                let (t, dtype) = (input(b.ed)?, b.dtype(v)?);
                let t = b.cast(t, dtype)?;
                b.binary(BinaryKind::Greater, v, t)
            }
        }
    }
}

/// The input, which is added if it is missing.
///
/// # Errors
/// `pass-option` where an input of that name is something else.
pub(crate) fn input(ed: &mut Editor<'_>) -> Result<ValueId, Diag> {
    let ty = Type::tensor(DType::F32, Vec::new());
    let g = ed.graph();
    match Threshold::place(g).map(|i| g.inputs()[i]) {
        Some(v) if *g.ty(v) == ty => Ok(v),
        Some(v) => {
            let text = format!(
                "the model has an input `{}` already, {}, which cannot be a threshold",
                Threshold::NAME,
                g.ty(v).display(&g.symbols)
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

    #[test]
    fn there_is_one_input_and_no_other_takes_its_place() -> Result<(), Diag> {
        let mut graph = Graph::new("m");
        let mut ed = Editor::new(&mut graph);
        let wide = ed.input("x", Type::tensor(DType::F64, Vec::new()));
        ed.at_end(ed.graph().root());
        let first = input(&mut ed)?;
        assert_eq!(input(&mut ed)?, first);
        let above = Threshold::Input.below(&mut Build::new(&mut ed, "test"), wide)?;
        assert_eq!((ed.graph().dtype(above), ed.graph().inputs()), (Some(DType::Bool), &[wide, first][..]));
        assert_eq!(Threshold::place(ed.graph()), Some(1));
        let mut graph = Graph::new("m");
        let mut ed = Editor::new(&mut graph);
        ed.input("threshold", Type::tensor(DType::I64, Vec::new()));
        assert_eq!(input(&mut ed).map_err(|d| d.id), Err("pass-option"));
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
