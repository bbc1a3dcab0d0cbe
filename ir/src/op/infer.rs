//! What `infer` sees of a node, and rules that many operations share.

use crate::constant::Constant;
use crate::diag::Diag;
use crate::dim::{Dim, Symbols};
use crate::dtype::DType;
use crate::entity::PrimaryMap;
use crate::graph::{Def, Fact, Graph, Node, NodeId, Region, RegionId, ValueData, ValueId};
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};
use crate::{ConstId, Loc};
use std::sync::Arc;

/// The operands of a node, as far as its shape rule may know them.
pub struct InferCx<'a> {
    /// The symbols; shape rules may add new ones through [`InferCx::fresh`].
    pub symbols: &'a mut Symbols,
    nodes: &'a PrimaryMap<NodeId, Node>,
    values: &'a PrimaryMap<ValueId, ValueData>,
    regions: &'a PrimaryMap<RegionId, Region>,
    consts: &'a PrimaryMap<ConstId, Option<Arc<Constant>>>,
    inputs: &'a [Option<ValueId>],
    own_regions: &'a [RegionId],
    outputs: &'a [ValueId],
}

/// The largest integer tensor whose content is followed through shape arithmetic.
pub(crate) const MAX_CONTENT: usize = 128;

impl<'a> InferCx<'a> {
    /// For a node with these operands and regions; `outputs` are its results when it has some already.
    pub fn new(
        graph: &'a mut Graph,
        inputs: &'a [Option<ValueId>],
        regions: &'a [RegionId],
        outputs: &'a [ValueId],
    ) -> InferCx<'a> {
        InferCx {
            symbols: &mut graph.symbols,
            nodes: &graph.nodes,
            values: &graph.values,
            regions: &graph.regions,
            consts: &graph.consts,
            inputs,
            own_regions: regions,
            outputs,
        }
    }
    /// For checking a node without changing the graph; new symbols go to `symbols`, a copy.
    pub(crate) fn check(graph: &'a Graph, symbols: &'a mut Symbols, node: NodeId) -> InferCx<'a> {
        let n = &graph.nodes[node];
        InferCx {
            symbols,
            nodes: &graph.nodes,
            values: &graph.values,
            regions: &graph.regions,
            consts: &graph.consts,
            inputs: &n.inputs,
            own_regions: &n.regions,
            outputs: &n.outputs,
        }
    }
    /// Checks arity and infers.
    pub fn run(&mut self, op: &Op) -> Result<Vec<Fact>, Diag> {
        let (min, max) = op.arity();
        if self.inputs.len() < min || self.inputs.len() > max {
            let many = if max == usize::MAX { "or more".to_owned() } else { format!("to {max}") };
            return Err(Diag::error(
                "arity",
                format!("`{}` takes {min} {many} operands, not {}", op.name(), self.inputs.len()),
            ));
        }
        if let Some(i) = self.inputs.iter().take(min).position(Option::is_none) {
            return Err(Diag::error("arity", format!("`{}` needs operand {i}", op.name())));
        }
        if self.own_regions.len() != op.regions() {
            return Err(Diag::error("arity", format!("`{}` holds {} regions", op.name(), op.regions())));
        }
        op.infer(self)
    }
    /// How many operands there are, omitted ones included.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }
    /// Whether there are no operands.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }
    /// Whether operand `i` is given.
    pub fn has(&self, i: usize) -> bool {
        matches!(self.inputs.get(i), Some(Some(_)))
    }
    fn input(&self, i: usize) -> Result<&'a ValueData, Diag> {
        let v = self.inputs.get(i).copied().flatten();
        v.map(|v| &self.values[v]).ok_or_else(|| Diag::error("arity", format!("operand {i} is missing")))
    }
    /// The value that is operand `i`, if it is given.
    pub(crate) fn operand(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }
    /// What defines a value.
    pub(crate) fn def_of(&self, v: ValueId) -> Def {
        self.values[v].def
    }
    /// The type of a value.
    pub(crate) fn ty_of(&self, v: ValueId) -> &'a Type {
        &self.values[v].fact.ty
    }
    /// A node.
    pub(crate) fn node_of(&self, n: NodeId) -> &'a Node {
        &self.nodes[n]
    }
    /// A region.
    pub(crate) fn region_of(&self, r: RegionId) -> &'a Region {
        &self.regions[r]
    }
    /// Everything known of operand `i`.
    pub fn fact(&self, i: usize) -> Result<&'a Fact, Diag> {
        Ok(&self.input(i)?.fact)
    }
    /// The type of operand `i`.
    pub fn value_ty(&self, i: usize) -> Result<&'a Type, Diag> {
        Ok(&self.input(i)?.fact.ty)
    }
    /// The type of operand `i`, which must be a tensor.
    pub fn ty(&self, i: usize) -> Result<&'a TensorType, Diag> {
        self.value_ty(i)?
            .as_tensor()
            .ok_or_else(|| Diag::error("type-mismatch", format!("operand {i} must be a tensor")))
    }
    /// The dtype of operand `i`, which must be a tensor.
    pub fn dtype(&self, i: usize) -> Result<DType, Diag> {
        Ok(self.ty(i)?.dtype)
    }
    /// The dims of operand `i`, which must be a tensor of known rank.
    pub fn dims(&self, i: usize) -> Result<&'a [Dim], Diag> {
        self.ty(i)?.dims()
    }
    /// A constant operand, if it has at most `limit` elements.
    pub fn const_tensor(&self, i: usize, limit: usize) -> Option<Tensor> {
        let Def::Node(n, _) = self.input(i).ok()?.def else { return None };
        let Op::Const(c) = &self.nodes[n].op else { return None };
        self.consts.get(c.id)?.as_ref()?.small(limit)
    }
    /// The constant a value of the graph's pool has.
    pub fn constant(&self, id: ConstId) -> Option<&'a Arc<Constant>> {
        self.consts.get(id)?.as_ref()
    }
    /// The integers of operand `i` (rank 0 or 1), as far as they follow from constants and dims.
    pub fn ints(&self, i: usize) -> Option<Vec<Dim>> {
        let v = self.input(i).ok()?;
        if let Some(c) = &v.fact.content {
            return Some(c.clone());
        }
        let t = self.const_tensor(i, MAX_CONTENT)?;
        if t.rank() > 1 || !(t.dtype().is_int() || t.dtype() == DType::Bool) {
            return None;
        }
        Some(t.to_i64().ok()?.into_iter().map(Dim::from).collect())
    }
    /// The integers of operand `i`, if all are known numbers.
    pub fn const_ints(&self, i: usize) -> Option<Vec<i64>> {
        self.ints(i)?.iter().map(Dim::as_const).collect()
    }
    /// A dim that only the data decide: the one that the result has already, or a new symbol in this range.
    pub fn fresh(&mut self, output: usize, axis: usize, min: i64, max: Option<i64>) -> Dim {
        let known = self.outputs.get(output).and_then(|v| match &self.values[*v].fact.ty {
            Type::Tensor(t) => t.shape.as_ref()?.get(axis).cloned(),
            _ => None,
        });
        known.unwrap_or_else(|| Dim::from(self.symbols.fresh(min, max)))
    }
    /// What the node's results are known to be already; empty for a new node.
    pub fn known_outputs(&self) -> Vec<&'a Fact> {
        self.outputs.iter().map(|v| &self.values[*v].fact).collect()
    }
    /// The facts of the parameters of the node's region `k`.
    pub fn region_params(&self, k: usize) -> Vec<&'a Fact> {
        let Some(r) = self.own_regions.get(k) else { return Vec::new() };
        self.regions[*r].params.iter().map(|v| &self.values[*v].fact).collect()
    }
    /// The facts of the results of the node's region `k`.
    pub fn region_results(&self, k: usize) -> Vec<&'a Fact> {
        let Some(r) = self.own_regions.get(k) else { return Vec::new() };
        self.regions[*r].results.iter().map(|v| &self.values[*v].fact).collect()
    }
    /// An error unless operand `i` has one of these dtypes.
    pub fn expect_dtype(&self, i: usize, ok: impl Fn(DType) -> bool, what: &str) -> Result<DType, Diag> {
        let d = self.dtype(i)?;
        if ok(d) {
            Ok(d)
        } else {
            Err(Diag::error("dtype-mismatch", format!("operand {i} is {d}, not {what}")))
        }
    }
    /// An error unless all given operands from `from` on have the dtype of operand `from`.
    pub fn expect_same_dtype(&self, from: usize) -> Result<DType, Diag> {
        let d = self.dtype(from)?;
        for i in from..self.inputs.len() {
            if self.has(i) && self.dtype(i)? != d {
                return Err(Diag::error(
                    "dtype-mismatch",
                    format!("operands {from} and {i} must have one dtype, not {d} and {}", self.dtype(i)?),
                ));
            }
        }
        Ok(d)
    }
    /// The broadcast shape of all given operands; `None` when the rank of one is unknown.
    pub fn broadcast_all(&self) -> Result<Option<Vec<Dim>>, Diag> {
        let mut out: Vec<Dim> = Vec::new();
        for i in 0..self.inputs.len() {
            if self.has(i) {
                let Some(shape) = &self.ty(i)?.shape else { return Ok(None) };
                out = broadcast_shapes(&out, shape, self.symbols)?;
            }
        }
        Ok(Some(out))
    }
}

/// The size of a broadcast axis. Of two different symbols either may be 1 at run time, so it is their maximum unless
/// their ranges decide.
pub fn broadcast_dim(a: &Dim, b: &Dim, symbols: &Symbols) -> Result<Dim, Diag> {
    match (a.as_const(), b.as_const()) {
        _ if a == b => Ok(a.clone()),
        (Some(1), _) => Ok(b.clone()),
        (_, Some(1)) => Ok(a.clone()),
        (Some(x), Some(y)) => {
            Err(Diag::error("shape-mismatch", format!("axes of size {x} and {y} cannot be broadcast")))
        }
        (Some(_), None) => Ok(a.clone()),
        (None, Some(_)) => Ok(b.clone()),
        (None, None) => {
            let big = |d: &Dim| d.bounds(symbols).0.is_some_and(|l| l > 1);
            Ok(if big(a) {
                a.clone()
            } else if big(b) {
                b.clone()
            } else {
                a.larger(b)
            })
        }
    }
}

/// The broadcast of two shapes, aligned at the last axis.
pub fn broadcast_shapes(a: &[Dim], b: &[Dim], symbols: &Symbols) -> Result<Vec<Dim>, Diag> {
    let rank = a.len().max(b.len());
    let one = Dim::Const(1);
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map_or(one.clone(), |k| s[k].clone());
    (0..rank).map(|i| broadcast_dim(&at(a, i), &at(b, i), symbols)).collect()
}

/// A possibly negative axis as an index below `rank`.
pub fn normalize_axis(axis: i64, rank: usize) -> Result<usize, Diag> {
    let r = rank as i64;
    let a = if axis < 0 { axis.saturating_add(r) } else { axis };
    usize::try_from(a).ok().filter(|a| *a < rank).ok_or_else(|| {
        Diag::error("axis-out-of-range", format!("axis {axis} is not within -{rank}..{rank}")).at(Loc::None)
    })
}

/// Possibly negative axes as sorted indices below `rank`; a repeated one is an error.
pub fn normalize_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, Diag> {
    let mut out = axes.iter().map(|a| normalize_axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
    out.sort_unstable();
    if out.windows(2).any(|w| w[0] == w[1]) {
        return Err(Diag::error("axis-repeated", format!("an axis occurs twice in {axes:?}")));
    }
    Ok(out)
}
