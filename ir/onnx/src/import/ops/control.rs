//! Control flow.

use super::Made;
use crate::import::table::{Entry, onnx};
use crate::import::{Formal, ImportCx, OnnxNode, SubGraph};
use crate::proto::GraphProto;
use planish_ir::Dim;
use planish_ir::graph::Fact;
use planish_ir::op::control::{If, Loop};
use planish_ir::op::require::Require;
use planish_ir::op::sequence::{Optional, OptionalGet};
use planish_ir::{DType, Diag, SymId, Tensor, TensorType, Type, ValueId};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) const OPS: &[Entry] = &[onnx("If", branch), onnx("Loop", iterate)];

/// The value of a condition that follows from constants and dims.
fn known_flag(cx: &ImportCx<'_, '_>, v: ValueId) -> Option<bool> {
    if let Some(t) = cx.const_tensor(v, 1) {
        return t.to_i64().ok()?.first().map(|v| *v != 0);
    }
    match cx.const_ints(v)?[..] {
        [flag] => Some(flag != 0),
        _ => None,
    }
}

/// One bool: without its axes of size 1.
fn flag(cx: &mut ImportCx<'_, '_>, v: ValueId) -> Result<ValueId, Diag> {
    if cx.rank(v).is_ok_and(|r| r > 0) { cx.reshape(v, &[]) } else { Ok(v) }
}

/// A branch that is known to be taken is built in place; the other one is not looked at then.
fn branch<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let condition = node.input(0)?;
    let (yes, no) = (node.graph("then_branch")?, node.graph("else_branch")?);
    if let Some(taken) = known_flag(cx, condition) {
        return cx.inline(node, if taken { yes } else { no }, &[]);
    }
    if let Some(taken) = cx.assumed(node) {
        let which = if taken { "then" } else { "else" };
        let text = format!("If: what follows fits the {which} branch only, which is assumed to be taken");
        cx.report(Diag::warning("assumed-branch", text).at(node.loc.clone()));
        let made = cx.inline(node, if taken { yes } else { no }, &[])?;
        let condition = flag(cx, condition)?;
        let other = if taken { "else" } else { "then" };
        let message = format!("the {other} branch would be taken, which does not fit what follows");
        let mut guard = |v| cx.op(Require { expected: taken, message: message.clone() }, &[condition, v]);
        return made.into_iter().map(&mut guard).collect();
    }
    let condition = flag(cx, condition)?;
    let (made, captured) = cx.subgraphs(node, &[(yes, Vec::new()), (no, Vec::new())])?;
    if made.iter().any(|m| m.outputs.len() < node.outputs.len()) {
        return Err(node.error("subgraph-arity", "a branch has fewer outputs than the node"));
    }
    if let [a, b] = &made[..] {
        let rank = |cx: &ImportCx<'_, '_>, v: ValueId| cx.rank(v).ok();
        if a.outputs.iter().zip(&b.outputs).any(|(a, b)| rank(cx, *a) != rank(cx, *b)) {
            cx.branch_is_open(node);
        }
    }
    for m in &made {
        for v in m.outputs.iter().take(node.outputs.len()) {
            cx.ed.result(m.region, *v);
        }
    }
    let inputs: Vec<_> = std::iter::once(condition).chain(captured).map(Some).collect();
    cx.ed.node_with_regions(If {}, &inputs, made.iter().map(|m| m.region).collect())
}

/// Attempts to find types of the carried values that hold in every iteration: each attempt may learn of a dim that
/// changes. Nested loops multiply, so only outer ones try; the others take all dims as changing.
const ATTEMPTS: usize = 4;
const NESTING_WITH_ATTEMPTS: usize = 2;

fn iterate<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let body = node.graph("body")?;
    let initial = (2..node.inputs.len()).map(|i| node.input(i)).collect::<Result<Vec<_>, _>>()?;
    let attempts = if cx.nesting() < NESTING_WITH_ATTEMPTS { ATTEMPTS } else { 0 };
    let mut types: Vec<Type> = initial.iter().map(|v| cx.ty(*v).clone()).collect();
    let mut varying = Varying::default();
    let mut body_made = None;
    // After all dims, ranks may turn out to change as well.
    for attempt in 0..attempts + 3 {
        if attempt == attempts {
            types = types.iter().map(|t| varying.all(cx, t)).collect();
        }
        let findings = cx.findings();
        match loop_body(cx, node, body, &types) {
            Ok((made, captured)) => {
                let next: Vec<Type> =
                    made.outputs.iter().skip(1).take(types.len()).map(|v| cx.ty(*v).clone()).collect();
                let mut wider = Vec::new();
                for (ty, next) in types.iter().zip(&next) {
                    wider.push(varying.merge(cx, node, ty, next)?);
                }
                if wider == types {
                    body_made = Some((made, captured));
                    break;
                }
                types = wider;
                cx.discard(&[made])?;
                cx.forget_since(findings);
            }
            // The types of the first iteration may be what the body cannot be built with.
            Err(e) => {
                let wider: Vec<Type> = types.iter().map(|t| varying.all(cx, t)).collect();
                if wider == types {
                    return Err(e);
                }
                types = wider;
                cx.forget_since(findings);
            }
        }
    }
    let Some((mut made, captured)) = body_made else {
        return Err(node.unsupported("the types of the carried values do not settle"));
    };
    let carried = initial.len();
    if made.outputs.len() < 1 + carried {
        return Err(node.error("subgraph-arity", "the loop body has too few outputs"));
    }
    let scans = made.outputs.len() - 1 - carried;
    // What enters as an optional may be given on as what it holds; such a result is no optional.
    let outer = cx.ed.region();
    cx.ed.at_end(made.region);
    let mut held = vec![false; carried];
    for ((v, ty), held) in made.outputs.iter_mut().skip(1).zip(&types).zip(&mut held) {
        if let Type::Optional(item) = ty
            && !matches!(cx.ty(*v), Type::Optional(_))
        {
            *v = cx.op(Optional { item: (**item).clone() }, &[*v])?;
            *held = true;
        }
    }
    cx.ed.at_end(outer);
    // Without a condition operand the condition that the body computes is ignored.
    let conditional = node.opt(1).is_some() && known_flag(cx, made.outputs[0]) != Some(true);
    for v in made.outputs.iter().skip(usize::from(!conditional)) {
        cx.ed.result(made.region, *v);
    }
    let mut inputs = vec![node.opt(0), node.opt(1).filter(|v| known_flag(cx, *v) != Some(true))];
    inputs.extend(initial.into_iter().chain(captured).map(Some));
    let mut results =
        cx.ed.node_with_regions(Loop { carried, scans, conditional }, &inputs, vec![made.region])?;
    for (v, held) in results.iter_mut().zip(held) {
        if held {
            *v = cx.op(OptionalGet {}, &[*v])?;
        }
    }
    Ok(results)
}

fn loop_body<'m>(
    cx: &mut ImportCx<'_, 'm>,
    node: &OnnxNode<'m>,
    body: &'m GraphProto,
    carried: &[Type],
) -> Result<(SubGraph, Vec<ValueId>), Diag> {
    // An iteration runs only if the condition holds.
    let mut formals = vec![
        Formal::Param(Type::tensor(DType::I64, Vec::new()).into()),
        Formal::Constant(Tensor::scalar(DType::Bool, 1.0)?),
    ];
    formals.extend(carried.iter().map(|ty| Formal::Param(Fact::from(ty.clone()))));
    let (mut made, captured) = cx.subgraphs(node, &[(body, formals)])?;
    match made.pop() {
        Some(made) => Ok((made, captured)),
        None => Err(node.error("internal-import", "the loop body is missing")),
    }
}

/// Dims of carried values that change from one iteration to the next.
#[derive(Default)]
struct Varying {
    /// Symbols that were made for such dims.
    own: BTreeSet<SymId>,
}

impl Varying {
    fn dim(&mut self, cx: &mut ImportCx<'_, '_>, dim: &Dim) -> Dim {
        if dim.as_symbol().is_some_and(|s| self.own.contains(&s)) {
            return dim.clone();
        }
        let symbol = cx.ed.graph_mut().symbols.fresh(0, None);
        self.own.insert(symbol);
        Dim::from(symbol)
    }

    /// The type with its rank only.
    fn all(&mut self, cx: &mut ImportCx<'_, '_>, ty: &Type) -> Type {
        match ty {
            Type::Tensor(t) => {
                let shape = t.shape.as_ref().map(|s| s.iter().map(|d| self.dim(cx, d)).collect());
                Type::Tensor(TensorType { dtype: t.dtype, shape, quant: None })
            }
            other => other.clone(),
        }
    }

    /// A type that holds for both.
    fn merge(
        &mut self,
        cx: &mut ImportCx<'_, '_>,
        node: &OnnxNode<'_>,
        a: &Type,
        b: &Type,
    ) -> Result<Type, Diag> {
        let changes = || node.error("type-mismatch", "a carried value changes its type");
        Ok(match (a, b) {
            _ if a == b => a.clone(),
            (Type::Tensor(x), Type::Tensor(y)) if x.dtype == y.dtype => {
                let shape = match (&x.shape, &y.shape) {
                    (Some(p), Some(q)) if p.len() == q.len() => {
                        let pairs = p.iter().zip(q);
                        Some(pairs.map(|(p, q)| if p == q { p.clone() } else { self.dim(cx, p) }).collect())
                    }
                    _ => None,
                };
                Type::Tensor(TensorType { dtype: x.dtype, shape, quant: None })
            }
            (Type::Sequence(x), Type::Sequence(y)) => {
                Type::Sequence(Arc::new(element(x, y).ok_or_else(changes)?))
            }
            (Type::Optional(x), Type::Optional(y)) => {
                Type::Optional(Arc::new(element(x, y).ok_or_else(changes)?))
            }
            (Type::Optional(x), _) => Type::Optional(Arc::new(element(x, b).ok_or_else(changes)?)),
            _ => return Err(changes()),
        })
    }
}

/// A type that holds for the elements of both containers, if there is one.
fn element(a: &Type, b: &Type) -> Option<Type> {
    Some(match (a, b) {
        _ if a == b => a.clone(),
        (Type::Tensor(x), Type::Tensor(y)) if x.dtype == y.dtype => TensorType::unranked(x.dtype).into(),
        (Type::Sequence(x), Type::Sequence(y)) => Type::Sequence(Arc::new(element(x, y)?)),
        (Type::Optional(x), Type::Optional(y)) => Type::Optional(Arc::new(element(x, y)?)),
        _ => return None,
    })
}
