//! Control flow: operations that hold regions.

mod gate;
mod gradient;
mod parts;
mod types;

pub use gate::{Fallback, Gate, Granularity};
pub(crate) use parts::{counted, region_for, turn};
pub use parts::{expand_gates, transplant, without_gates};

use crate::diag::Diag;
use crate::dim::{Dim, SymId};
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::{EvalCx, InferCx, MANY, OpDef};
use crate::tensor::{Tensor, Value, elem_count};
use crate::types::{TensorType, Type};
use std::collections::BTreeSet;

crate::op_struct! {
    /// Runs the first region where the bool scalar (operand 0) is true, else the second. Both take all further operands as their parameters and have results of the same kinds, which are the results.
    If {}
}

crate::op_struct! {
    /// Runs its region again and again. Operands: the largest number of iterations (i64 scalar; omitted: no limit), whether to start at all (bool scalar; omitted: yes), the initial carried values, then captures. The region takes the iteration number (i64 scalar), the carried values and the captures; it gives, if `conditional`, whether to go on (bool scalar), then the carried values of the next iteration, then the scan values. Results: the last carried values, then each scan value of all iterations stacked along a new axis 0.
    Loop {
        /// How many values go from one iteration to the next.
        carried: usize,
        /// How many values of every iteration are stacked.
        scans: usize,
        /// Whether the region decides if there is a next iteration.
        conditional: bool,
    }
}

/// An error unless the facts of region `k`'s parameters from `first` on can take operands `from..`.
fn check_params(cx: &InferCx<'_>, k: usize, first: usize, from: usize) -> Result<(), Diag> {
    let params = cx.region_params(k);
    if params.len() != first + cx.len().saturating_sub(from) {
        return Err(Diag::error(
            "arity",
            format!("region {k} has {} parameters for {} operands", params.len(), cx.len()),
        ));
    }
    for (i, p) in params.iter().enumerate().skip(first) {
        let v = cx.value_ty(from + i - first)?;
        if !v.fits(&p.ty) {
            return Err(Diag::error(
                "type-mismatch",
                format!(
                    "parameter {i} of region {k} is {}, but operand {} is {}",
                    p.ty.display(cx.symbols),
                    from + i - first,
                    v.display(cx.symbols)
                ),
            ));
        }
    }
    Ok(())
}

fn expect_flag(cx: &InferCx<'_>, ty: &Type, what: &str) -> Result<(), Diag> {
    let one = |t: &TensorType| {
        t.dtype == DType::Bool
            && t.shape
                .as_ref()
                .is_none_or(|s| s.len() <= 1 && s.iter().all(|d| d.as_const().is_none_or(|d| d == 1)))
    };
    if ty.as_tensor().is_some_and(one) {
        return Ok(());
    }
    Err(Diag::error("dtype-mismatch", format!("{what} is {}, not one bool", ty.display(cx.symbols))))
}

/// The one bool a value holds.
fn flag(v: &Value) -> Result<bool, Diag> {
    match v.tensor()?.to_i64()?.as_slice() {
        [x] => Ok(*x != 0),
        other => {
            Err(Diag::error("shape-mismatch", format!("{} values where one bool is needed", other.len())))
        }
    }
}

impl OpDef for If {
    const NAME: &'static str = "if";
    const INPUTS: (usize, usize) = (1, MANY);
    const REGIONS: usize = 2;
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        expect_flag(cx, cx.value_ty(0)?, "the condition")?;
        check_params(cx, 0, 0, 1)?;
        check_params(cx, 1, 0, 1)?;
        let (a, b) = (cx.region_results(0), cx.region_results(1));
        if a.len() != b.len() {
            return Err(Diag::error(
                "arity",
                format!("the branches give {} and {} results", a.len(), b.len()),
            ));
        }
        let outer = types::outer_symbols(cx, 1)?;
        let pairs: Vec<(Fact, Fact)> = a.into_iter().cloned().zip(b.into_iter().cloned()).collect();
        pairs
            .into_iter()
            .enumerate()
            .map(|(i, (x, y))| {
                let ty = types::merge(cx, i, &outer, &x.ty, &y.ty)?;
                let content = if x.content == y.content { x.content } else { None };
                let content = content.filter(|c| c.iter().all(|d| types::is_outer(d, &outer)));
                Ok(Fact { ty, content })
            })
            .collect()
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        If::rule(cx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let taken = usize::from(!flag(cx.value(0)?)?);
        cx.env.count("if.regions", 1);
        let args = (1..cx.inputs.len()).map(|i| cx.take(i)).collect::<Result<Vec<_>, _>>()?;
        cx.env.run_region(taken, args)
    }
}

impl Loop {
    /// The number of iterations, if it follows from the operands alone.
    fn iterations(&self, cx: &InferCx<'_>) -> Option<Dim> {
        if self.conditional || (cx.has(1) && cx.const_ints(1)? != [1]) {
            return None;
        }
        let n = cx.has(0).then(|| cx.ints(0))??.first()?.clone();
        let certain = n.bounds(cx.symbols).0.is_some_and(|low| low >= 0);
        Some(if certain { n } else { n.larger(&Dim::Const(0)) })
    }
}

impl OpDef for Loop {
    const NAME: &'static str = "loop";
    const INPUTS: (usize, usize) = (0, MANY);
    const REGIONS: usize = 1;
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        if cx.has(0) {
            cx.expect_dtype(0, |d| d == DType::I64, "i64")?;
        }
        if cx.has(1) {
            expect_flag(cx, cx.value_ty(1)?, "the condition")?;
        }
        let captures = 2usize
            .checked_add(self.carried)
            .filter(|n| *n <= cx.len())
            .ok_or_else(|| Diag::error("arity", "too few operands for the carried values"))?;
        check_params(cx, 0, 1, 2)?;
        let results: Vec<Fact> = cx.region_results(0).into_iter().cloned().collect();
        let params: Vec<Type> = cx.region_params(0).into_iter().map(|f| f.ty.clone()).collect();
        let first = usize::from(self.conditional);
        if first.checked_add(self.carried).and_then(|n| n.checked_add(self.scans)) != Some(results.len()) {
            return Err(Diag::error("arity", format!("the region gives {} results", results.len())));
        }
        if self.conditional {
            expect_flag(cx, &results[0].ty, "the region's first result")?;
        }
        let iterations = self.iterations(cx);
        let limit = if cx.has(0) { cx.const_ints(0).and_then(|v| v.first().copied()) } else { None };
        let outer = types::outer_symbols(cx, 2)?;
        let mut out = Vec::new();
        for k in 0..self.carried {
            let (initial, next) = (cx.value_ty(2 + k)?.clone(), &results[first + k].ty);
            if !next.fits(&params[1 + k]) {
                return Err(Diag::error(
                    "type-mismatch",
                    format!(
                        "carried value {k} is {} in the loop, but becomes {}",
                        params[1 + k].display(cx.symbols),
                        next.display(cx.symbols)
                    ),
                ));
            }
            let next = types::merge(cx, k, &outer, next, &params[1 + k])?;
            out.push(types::merge(cx, k, &outer, &initial, &next)?.into());
        }
        debug_assert!(captures >= 2);
        for k in 0..self.scans {
            let at = self.carried + k;
            let Type::Tensor(t) = &results[first + at].ty else {
                return Err(Diag::error("type-mismatch", "a scan value must be a tensor"));
            };
            let count = match &iterations {
                Some(n) => n.clone(),
                None => cx.fresh(at, 0, 0, limit.map(|l| l.max(0))),
            };
            let shape = t.shape.as_ref().map(|s| {
                let mut dims = vec![count];
                for (axis, d) in s.iter().enumerate() {
                    dims.push(if types::is_outer(d, &outer) {
                        d.clone()
                    } else {
                        cx.fresh(at, axis + 1, 0, None)
                    });
                }
                dims
            });
            out.push(Type::from(TensorType { dtype: t.dtype, shape, quant: None }).into());
        }
        Ok(out)
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        self.rule(cx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let limit = if cx.has(0) { cx.ints(0)?.first().copied() } else { None };
        let mut go = if cx.has(1) { flag(cx.value(1)?)? } else { true };
        let mut carried = (2..2 + self.carried).map(|i| cx.take(i)).collect::<Result<Vec<_>, _>>()?;
        let captures =
            (2 + self.carried..cx.inputs.len()).map(|i| cx.take(i)).collect::<Result<Vec<_>, _>>()?;
        let mut stacks: Vec<Vec<Tensor>> = vec![Vec::new(); self.scans];
        let mut i = 0i64;
        while go && limit.is_none_or(|l| i < l) {
            cx.env.step()?;
            cx.env.count("loop.iterations", 1);
            let mut args = vec![Tensor::scalar_i64(i).into()];
            args.append(&mut carried);
            args.extend(captures.iter().cloned());
            let mut out = cx.env.run_region(0, args)?.into_iter();
            let short = || Diag::error("arity", "the region gave too few results");
            if self.conditional {
                go = flag(&out.next().ok_or_else(short)?)?;
            }
            carried = out.by_ref().take(self.carried).collect();
            for s in &mut stacks {
                match out.next().ok_or_else(short)? {
                    Value::Tensor(t) => s.push(t),
                    _ => return Err(Diag::error("type-mismatch", "a scan value must be a tensor")),
                }
            }
            i += 1;
        }
        let mut out = carried;
        for (k, s) in stacks.into_iter().enumerate() {
            out.push(stack(cx, self.carried + k, &s)?.into());
        }
        Ok(out)
    }
}

/// The tensors stacked along a new axis 0. With none, the dims are those known of result `index`, and 0 where not.
fn stack(cx: &EvalCx<'_>, index: usize, items: &[Tensor]) -> Result<Tensor, Diag> {
    let Some(first) = items.first() else {
        let fact = cx.env.out_fact(index);
        let ty = fact.as_ref().and_then(|f| f.ty.as_tensor());
        let ty = ty.ok_or_else(|| Diag::error("internal-eval", "the type of a scan result is not known"))?;
        let known = |d: &Dim| d.as_const().and_then(|v| usize::try_from(v).ok()).unwrap_or(0);
        let mut shape: Vec<usize> = ty.shape.iter().flatten().map(known).collect();
        shape.first_mut().into_iter().for_each(|d| *d = 0);
        if shape.is_empty() {
            shape.push(0);
        }
        if ty.dtype == DType::Str {
            return Tensor::from_strings(shape, Vec::new());
        }
        return Tensor::from_bytes(ty.dtype, shape, Vec::new().into());
    };
    let mut shape = vec![items.len()];
    shape.extend(first.shape());
    elem_count(&shape)?;
    if items.iter().any(|t| t.shape() != first.shape() || t.dtype() != first.dtype()) {
        return Err(Diag::error("shape-mismatch", "a scan value changed its shape between iterations"));
    }
    if first.dtype() == DType::Str {
        return Tensor::from_strings(shape, items.iter().flat_map(|t| t.strings().to_vec()).collect());
    }
    let bytes: Vec<u8> = items.iter().flat_map(|t| t.bytes().iter().copied()).collect();
    Tensor::from_bytes(first.dtype(), shape, bytes.into())
}

/// The symbols that mean the same inside and outside of a region.
type Outer = BTreeSet<SymId>;

#[cfg(test)]
mod tests;
