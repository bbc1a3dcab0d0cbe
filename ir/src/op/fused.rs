//! Groups of operations that become one kernel.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::gradient::{GradCx, copy};
use crate::op::{EvalCx, InferCx, MANY, Op, OpDef};
use crate::tensor::Value;
use std::collections::BTreeMap;

crate::op_struct! {
    /// Runs its region once, on its operands. A group for one kernel: at most one contraction (convolution or matrix product), which then comes first, and element-wise operations after it, all with the dims of the first result.
    Fused {}
}

impl OpDef for Fused {
    const NAME: &'static str = "fused";
    const INPUTS: (usize, usize) = (0, MANY);
    const REGIONS: usize = 1;
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let params = cx.region_params(0);
        if params.len() != cx.len() {
            return Err(Diag::error(
                "arity",
                format!("{} operands for {} parameters", cx.len(), params.len()),
            ));
        }
        for (i, p) in params.into_iter().enumerate() {
            if !cx.value_ty(i)?.fits(&p.ty) {
                return Err(Diag::error("type-mismatch", format!("operand {i} does not fit its parameter")));
            }
        }
        Ok(cx.region_results(0).into_iter().cloned().collect())
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.through(|cx| {
            let region = cx.ed.graph().node(cx.node()).regions[0];
            let params = cx.ed.graph().region(region).params.clone();
            let given = cx.inputs().to_vec();
            let mut map: BTreeMap<ValueId, ValueId> =
                params.into_iter().zip(given).filter_map(|(p, v)| Some((p, v?))).collect();
            copy(cx.ed, region, &mut map)?;
            let results = cx.ed.graph().region(region).results.clone();
            Ok(results.into_iter().map(|v| map.get(&v).copied().unwrap_or(v)).collect())
        })
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let args = (0..cx.inputs.len()).map(|i| cx.take(i)).collect::<Result<Vec<_>, _>>()?;
        cx.env.run_region(0, args)
    }
}

/// Whether an operation may follow the contraction of a group: element-wise ones, and conversions from and to stored integers of 8 bits with
/// one scale.
pub fn follows_contraction(op: &Op) -> bool {
    let byte = |d: DType| matches!(d, DType::U8 | DType::I8);
    match op {
        Op::Quantize(q) => q.block == 0 && byte(q.to) && q.precision == DType::F32,
        Op::Dequantize(q) => q.block == 0 && q.to == DType::F32,
        op => op.is_elementwise(),
    }
}

/// How an operand of an element-wise operation after a contraction follows the contraction's result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follows {
    /// One element for all.
    Nothing,
    /// One element per channel.
    Channel,
    /// One element per index of the last axis.
    Last,
    /// An element for each.
    All,
}

/// How dims follow the dims `out` of a contraction's result; `None` if in no way that a fused group allows. The channels are
/// `channel_axis` of a convolution's result; a matrix product has none and may follow the last axis instead.
pub fn follows(x: &[Dim], out: &[Dim], channel_axis: Option<usize>) -> Option<Follows> {
    let lead = out.len().checked_sub(x.len())?;
    let ones = |skip: Option<usize>| x.iter().enumerate().all(|(i, d)| d.is(1) || skip == Some(i + lead));
    if ones(None) {
        return Some(Follows::Nothing);
    }
    if x == &out[lead..] && out[..lead].iter().all(|d| d.is(1)) {
        return Some(Follows::All);
    }
    if let Some(c) = channel_axis {
        return (ones(Some(c)) && c >= lead && x[c - lead] == out[c]).then_some(Follows::Channel);
    }
    (ones(Some(out.len() - 1)) && x.last() == out.last()).then_some(Follows::Last)
}
