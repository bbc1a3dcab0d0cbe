//! Gates: regions whose work is skipped in part, as data decide.

use super::parts::expand_gate;
use super::{check_params, expect_flag, flag, types};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::gradient::copy_region;
use crate::op::{EvalCx, InferCx, MANY, OpDef, normalize_axis};
use crate::tensor::{Elems, Tensor, Value, elem_count};
use crate::types::Type;

crate::attr_enum! {
    /// What a gate decides about.
    Granularity {
        /// The whole region at once; operand 0 is a bool scalar.
        Whole = "whole",
        /// Each index of an axis; operand 0 is a bool vector as long as the axis.
        Rows = "rows",
        /// Groups of neighbours on an axis; operand 0 has one bool for each group, the last of which may be smaller.
        Blocks = "blocks",
        /// Each row goes to some of many experts; operand 0 holds the weights, floats, rows x experts.
        Routed = "routed",
    }
}

crate::attr_enum! {
    /// What stands in for skipped work.
    Fallback {
        /// Zero.
        Zero = "zero",
        /// The gated operand itself.
        Identity = "identity",
        /// The second region, run on what was skipped.
        Region = "region",
    }
}

crate::op_struct! {
    /// Runs its first region only on the part of the gated operand (operand 1) that operand 0 selects, and gives the results put back in place. The region takes the selected part (rows compacted along the axis in order), then all further operands as captures, and gives one tensor with as many rows. `routed`: the region takes the number of the expert (i64 scalar) before the rows that go to it; each row goes to the `k` experts of greatest weight (ties: the lower number), and its result is the sum of their results times their weights. The second region is empty unless the fallback is `region`.
    Gate {
        /// What is decided about.
        granularity: Granularity,
        /// The axis of rows and blocks, of operand and result alike.
        axis: i64,
        /// Rows in a block.
        block: usize,
        /// Experts for each row.
        k: usize,
        /// What stands in for skipped work; `routed` skips nothing and has none.
        fallback: Fallback,
    }
}

impl Gate {
    fn check_fields(&self) -> Result<(), Diag> {
        let bad = |why: &str| Err(Diag::error("field-invalid", format!("gate: {why}")));
        match self.granularity {
            Granularity::Blocks if self.block == 0 => bad("blocks of 0 rows"),
            Granularity::Routed if self.k == 0 => bad("routed to 0 experts"),
            Granularity::Routed if self.axis != 0 => bad("routing is along axis 0"),
            Granularity::Routed if self.fallback != Fallback::Zero => bad("routing has no fallback"),
            _ => Ok(()),
        }
    }
}

impl OpDef for Gate {
    const NAME: &'static str = "gate";
    const INPUTS: (usize, usize) = (2, MANY);
    const REGIONS: usize = 2;
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        self.check_fields()?;
        let x = cx.ty(1)?.clone();
        let axis = match self.granularity {
            Granularity::Whole => None,
            _ => Some(normalize_axis(self.axis, x.dims()?.len())?),
        };
        let control = cx.ty(0)?;
        let rows = axis.map(|a| x.dims().map(|d| d[a].clone())).transpose()?;
        let clash = |a: &Dim, b: &Dim| a.as_const().zip(b.as_const()).is_some_and(|(a, b)| a != b);
        match (self.granularity, control.dtype, &rows) {
            (Granularity::Whole, ..) => expect_flag(cx, cx.value_ty(0)?, "the gate")?,
            (Granularity::Routed, d, Some(rows)) => match control.dims()? {
                [n, _] if d.is_float() && !clash(n, rows) => {}
                _ => return Err(Diag::error("shape-mismatch", "routing weights are floats, rows x experts")),
            },
            (g, d, Some(rows)) => {
                let want = match g {
                    Granularity::Blocks => rows.ceil_div(&Dim::from(self.block)),
                    _ => rows.clone(),
                };
                match control.dims()? {
                    [n] if d == DType::Bool && !clash(n, &want) => {}
                    _ => {
                        return Err(Diag::error(
                            "shape-mismatch",
                            "the gate needs one bool per row or block",
                        ));
                    }
                }
            }
            _ => {}
        }
        check_params(cx, 0, usize::from(self.granularity == Granularity::Routed), 1).or_else(|d| {
            // The compacted rows are fewer than the operand's.
            if axis.is_some() && cx.region_params(0).len() >= cx.len() - 1 { Ok(()) } else { Err(d) }
        })?;
        let outer = types::outer_symbols(cx, 1)?;
        let result = |cx: &InferCx<'_>, r: usize| {
            match cx.region_results(r).as_slice() {
                [f] => f.ty.as_tensor().cloned().ok_or(()),
                _ => Err(()),
            }
            .map_err(|()| Diag::error("arity", "a region of a gate gives one tensor"))
        };
        let mut ty = result(cx, 0)?;
        if let (Some(a), Some(rows), Some(s)) = (axis, rows, &mut ty.shape) {
            *s.get_mut(a).ok_or_else(|| Diag::error("axis-out-of-range", "the result has no such axis"))? =
                rows;
        }
        let other = match self.fallback {
            Fallback::Zero => Type::from(ty.clone()),
            Fallback::Identity => Type::from(x),
            Fallback::Region => {
                let mut t = result(cx, 1)?;
                if let (Some(a), Some(s), Some(mine)) = (axis, &mut t.shape, &ty.shape)
                    && let (Some(d), Some(m)) = (s.get_mut(a), mine.get(a))
                {
                    *d = m.clone();
                }
                Type::from(t)
            }
        };
        let mine = Type::from(ty);
        if !mine.fits(&other) {
            return Err(Diag::error(
                "type-mismatch",
                format!("the gate gives {} or {}", mine.display(cx.symbols), other.display(cx.symbols)),
            ));
        }
        Ok(vec![types::merge(cx, 0, &outer, &mine, &other)?.into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.through(|cx| {
            // The parts take the nodes of the regions.
            let node = cx.ed.graph().node(cx.node()).clone();
            let regions =
                node.regions.iter().map(|r| copy_region(cx.ed, *r)).collect::<Result<Vec<_>, _>>()?;
            let copy = cx.ed.node_with_regions(self.clone(), &node.inputs, regions)?;
            let copy =
                cx.ed.graph().def_node(copy[0]).ok_or_else(|| Diag::error("arity", "a gate is a node"))?;
            Ok(vec![expand_gate(cx.ed, copy, self)?])
        })
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let captures = (2..cx.inputs.len()).map(|i| cx.take(i)).collect::<Result<Vec<_>, _>>()?;
        let x = cx.tensor(1)?.clone();
        let out = match self.granularity {
            Granularity::Whole => self.whole(cx, &x, captures)?,
            Granularity::Routed => self.routed(cx, &x, &captures)?,
            Granularity::Rows | Granularity::Blocks => self.rows(cx, &x, &captures)?,
        };
        Ok(vec![out])
    }
}

impl Gate {
    fn whole(&self, cx: &mut EvalCx<'_>, x: &Tensor, captures: Vec<Value>) -> Result<Value, Diag> {
        let open = flag(cx.value(0)?)?;
        let mut args = vec![Value::from(x.clone())];
        args.extend(captures);
        if open {
            cx.env.count("gate.regions", 1);
            return one(cx.env.run_region(0, args)?);
        }
        cx.env.count("gate.skipped-regions", 1);
        match self.fallback {
            Fallback::Identity => Ok(x.clone().into()),
            Fallback::Region => one(cx.env.run_region(1, args)?),
            Fallback::Zero => {
                let fact = cx.env.out_fact(0);
                let ty = fact.as_ref().and_then(|f| f.ty.as_tensor());
                // A dim that is symbolic in the type of the result is the operand's at the same place.
                let dim = |(i, d): (usize, &Dim)| {
                    d.as_const().and_then(|v| usize::try_from(v).ok()).or_else(|| x.shape().get(i).copied())
                };
                let shape = ty.and_then(|t| t.shape.as_ref()?.iter().enumerate().map(dim).collect());
                match (ty, shape) {
                    (Some(t), Some(s)) => Ok(zeros(t.dtype, s)?.into()),
                    _ => Err(Diag::unsupported("the shape of the zeros of a skipped gate is not known")),
                }
            }
        }
    }
    fn rows(&self, cx: &mut EvalCx<'_>, x: &Tensor, captures: &[Value]) -> Result<Value, Diag> {
        let axis = normalize_axis(self.axis, x.rank())?;
        let n = x.shape()[axis];
        let size = if self.granularity == Granularity::Blocks { self.block.max(1) } else { 1 };
        let mask = cx.ints(0)?;
        if mask.len() != n.div_ceil(size) {
            return Err(Diag::error("shape-mismatch", format!("{} gates for {n} rows", mask.len())));
        }
        let picked = |want: bool| (0..n).filter(|i| (mask[i / size] != 0) == want).collect::<Vec<_>>();
        let (on, off) = (picked(true), picked(false));
        let executed = mask.iter().filter(|m| **m != 0).count() as u64;
        cx.env.count("gate.rows", on.len() as u64);
        cx.env.count("gate.skipped-rows", off.len() as u64);
        if self.granularity == Granularity::Blocks {
            cx.env.count("gate.blocks", executed);
            cx.env.count("gate.skipped-blocks", mask.len() as u64 - executed);
        }
        let empty = without_rows(cx, axis);
        let mut run = |region: usize, rows: &[usize]| -> Result<Value, Diag> {
            let mut args = vec![Value::from(take_rows(x, axis, rows)?)];
            args.extend(captures.iter().cloned());
            one(cx.env.run_region(region, args)?)
        };
        // Without rows nothing runs, unless only the region tells the other dims of the result.
        let computed = match empty.filter(|_| on.is_empty()) {
            Some(none) => none.into(),
            None => run(0, &on)?,
        };
        let y = computed.tensor()?;
        let mut shape = y.shape().to_vec();
        match shape.get_mut(axis) {
            Some(d) if *d == on.len() => *d = n,
            _ => return Err(Diag::error("shape-mismatch", "the region changed the number of rows")),
        }
        let mut out = zeros(y.dtype(), shape)?;
        match self.fallback {
            Fallback::Zero => {}
            Fallback::Identity => out = x.clone(),
            Fallback::Region if off.is_empty() => {}
            Fallback::Region => {
                let other = run(1, &off)?;
                out = put_rows(&out, axis, &off, other.tensor()?)?;
            }
        }
        if !on.is_empty() {
            cx.env.count("gate.regions", 1);
        }
        Ok(put_rows(&out, axis, &on, y)?.into())
    }
    fn routed(&self, cx: &mut EvalCx<'_>, x: &Tensor, captures: &[Value]) -> Result<Value, Diag> {
        let weights = cx.tensor(0)?.clone();
        let [rows, experts] = *weights.shape() else {
            return Err(Diag::error("shape-mismatch", "routing weights are rows x experts"));
        };
        if x.shape().first() != Some(&rows) {
            return Err(Diag::error("shape-mismatch", format!("{rows} rows of weights for {:?}", x.shape())));
        }
        let w = weights.to_f64();
        let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); experts];
        for r in 0..rows {
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by(|a, b| w[r * experts + b].total_cmp(&w[r * experts + a]).then(a.cmp(b)));
            for e in order.into_iter().take(self.k) {
                chosen[e].push(r);
            }
        }
        let mut sum: Option<(DType, Vec<usize>, Vec<f64>)> = None;
        for (e, rows_of) in chosen.iter().enumerate() {
            if rows_of.is_empty() && (e > 0 || rows > 0) {
                continue;
            }
            if !rows_of.is_empty() {
                cx.env.count("gate.regions", 1);
                cx.env.count("gate.rows", rows_of.len() as u64);
            }
            let y = match without_rows(cx, 0).filter(|_| rows_of.is_empty()) {
                Some(none) => none,
                None => {
                    let mut args: Vec<Value> =
                        vec![Tensor::scalar_i64(e as i64).into(), take_rows(x, 0, rows_of)?.into()];
                    args.extend(captures.iter().cloned());
                    one(cx.env.run_region(0, args)?)?.tensor()?.clone()
                }
            };
            if y.shape().first() != Some(&rows_of.len()) {
                return Err(Diag::error("shape-mismatch", "the region changed the number of rows"));
            }
            let mut shape = y.shape().to_vec();
            shape[0] = rows;
            let count = elem_count(&shape)?;
            let (_, total, acc) = sum.get_or_insert_with(|| (y.dtype(), shape.clone(), vec![0.0; count]));
            if *total != shape {
                return Err(Diag::error("shape-mismatch", "experts give results of different shapes"));
            }
            let width = count.checked_div(rows).unwrap_or(0);
            for (i, r) in rows_of.iter().enumerate() {
                for (j, v) in y.to_f64().iter().skip(i * width).take(width).enumerate() {
                    acc[r * width + j] += v * w[r * experts + e];
                }
            }
        }
        let (d, shape, acc) = sum.ok_or_else(|| Diag::error("shape-mismatch", "there are no experts"))?;
        Ok(Tensor::floats(d, &shape, acc)?.into())
    }
}

/// The result of a region that has no rows, if its type tells all other dims.
fn without_rows(cx: &EvalCx<'_>, axis: usize) -> Option<Tensor> {
    let fact = cx.env.out_fact(0)?;
    let ty = fact.ty.as_tensor()?;
    let dim = |(i, d): (usize, &Dim)| if i == axis { Some(0) } else { usize::try_from(d.as_const()?).ok() };
    let shape = ty.shape.as_ref()?.iter().enumerate().map(dim).collect::<Option<Vec<usize>>>()?;
    zeros(ty.dtype, shape).ok()
}

fn one(mut v: Vec<Value>) -> Result<Value, Diag> {
    match v.len() {
        1 => Ok(v.swap_remove(0)),
        n => Err(Diag::error("arity", format!("a region of a gate gave {n} results"))),
    }
}

fn zeros(d: DType, shape: Vec<usize>) -> Result<Tensor, Diag> {
    let n = elem_count(&shape)?;
    let e = match d {
        DType::Str => Elems::S(vec![String::new(); n]),
        d if d.is_float() => Elems::F(vec![0.0; n]),
        _ => Elems::I(vec![0; n]),
    };
    Tensor::from_elems(d, shape, e)
}

/// For each row of `rows` along `axis`, the positions of its elements in a tensor of this shape, in order.
fn positions(shape: &[usize], axis: usize, rows: &[usize]) -> Vec<usize> {
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let n = shape[axis];
    (0..outer)
        .flat_map(|o| rows.iter().map(move |r| (o, *r)))
        .flat_map(|(o, r)| (0..inner).map(move |i| (o * n + r) * inner + i))
        .collect()
}

fn take_rows(x: &Tensor, axis: usize, rows: &[usize]) -> Result<Tensor, Diag> {
    let mut shape = x.shape().to_vec();
    let at = positions(&shape, axis, rows);
    shape[axis] = rows.len();
    Tensor::from_elems(x.dtype(), shape, x.elems().pick(at))
}

fn put_rows(into: &Tensor, axis: usize, rows: &[usize], from: &Tensor) -> Result<Tensor, Diag> {
    let mut want = into.shape().to_vec();
    want[axis] = rows.len();
    if from.shape() != want || from.dtype() != into.dtype() {
        return Err(Diag::error("shape-mismatch", format!("rows of {:?} for {want:?}", from.shape())));
    }
    let at = positions(into.shape(), axis, rows);
    let elems = match (into.elems(), from.elems()) {
        (Elems::F(mut a), Elems::F(b)) => {
            at.into_iter().zip(b).for_each(|(i, v)| a[i] = v);
            Elems::F(a)
        }
        (Elems::I(mut a), Elems::I(b)) => {
            at.into_iter().zip(b).for_each(|(i, v)| a[i] = v);
            Elems::I(a)
        }
        (Elems::S(mut a), Elems::S(b)) => {
            at.into_iter().zip(b).for_each(|(i, v)| a[i] = v);
            Elems::S(a)
        }
        _ => return Err(Diag::error("dtype-mismatch", "rows of different kinds")),
    };
    Tensor::from_elems(into.dtype(), into.shape().to_vec(), elems)
}
