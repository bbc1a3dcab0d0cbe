//! What `eval` sees of a node.

use crate::ConstId;
use crate::constant::Constant;
use crate::diag::Diag;
use crate::graph::Fact;
use crate::tensor::{Tensor, Value};
use std::sync::Arc;

/// What the interpreter offers to operations with regions and counters.
pub trait EvalEnv {
    /// A constant of the pool.
    fn constant(&self, id: ConstId) -> Result<Arc<Constant>, Diag>;
    /// Runs the node's region `index`.
    fn run_region(&mut self, index: usize, args: Vec<Value>) -> Result<Vec<Value>, Diag>;
    /// Adds to a counter of executed work.
    fn count(&mut self, counter: &str, amount: u64);
    /// Accounts for one iteration of a loop; an error when the budget is spent.
    fn step(&mut self) -> Result<(), Diag>;
    /// The next number of the random stream of the run.
    fn random(&mut self) -> u64;
    /// What is known of result `index` of the node.
    fn out_fact(&self, index: usize) -> Option<Fact>;
}

/// The operands of a node as values.
pub struct EvalCx<'a> {
    /// Operands; omitted ones are `None`.
    pub inputs: Vec<Option<Value>>,
    /// The interpreter.
    pub env: &'a mut dyn EvalEnv,
}

impl EvalCx<'_> {
    /// Whether operand `i` is given.
    pub fn has(&self, i: usize) -> bool {
        matches!(self.inputs.get(i), Some(Some(_)))
    }
    /// Operand `i`.
    pub fn value(&self, i: usize) -> Result<&Value, Diag> {
        self.inputs
            .get(i)
            .and_then(Option::as_ref)
            .ok_or_else(|| Diag::error("arity", format!("operand {i} is missing")))
    }
    /// Operand `i`, which must be a tensor.
    pub fn tensor(&self, i: usize) -> Result<&Tensor, Diag> {
        self.value(i)?.tensor()
    }
    /// Operand `i`, if it is given.
    pub fn opt_tensor(&self, i: usize) -> Result<Option<&Tensor>, Diag> {
        if self.has(i) { self.tensor(i).map(Some) } else { Ok(None) }
    }
    /// The integers of operand `i`.
    pub fn ints(&self, i: usize) -> Result<Vec<i64>, Diag> {
        self.tensor(i)?.to_i64()
    }
    /// Operand `i` taken out, to be consumed.
    pub fn take(&mut self, i: usize) -> Result<Value, Diag> {
        self.inputs
            .get_mut(i)
            .and_then(Option::take)
            .ok_or_else(|| Diag::error("arity", format!("operand {i} is missing")))
    }
}
