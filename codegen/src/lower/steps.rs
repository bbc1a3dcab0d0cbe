//! What steps of a plan name.

use planish_rt::plan::{self, Arg, SlotId, Step};

/// The slots a step names, nested blocks not included.
pub(super) fn step_slots(step: &Step) -> Vec<SlotId> {
    let value = |v: &plan::Value| match v {
        plan::Value::Slot(s) => Some(*s),
        plan::Value::Expr(_) => None,
    };
    let args = |args: &[Arg]| -> Vec<SlotId> {
        args.iter()
            .filter_map(|a| match a {
                Arg::Slot(s) => Some(*s),
                Arg::Scalar(_) => None,
            })
            .collect()
    };
    match step {
        Step::Launch { args: a, .. } => args(a),
        Step::Bind { slot, .. } => vec![*slot],
        Step::Let { .. } | Step::Require { .. } => Vec::new(),
        Step::Count { value: v, .. } => value(v).into_iter().collect(),
        Step::Copy { dst, src } | Step::Move { dst, src } => vec![*dst, *src],
        Step::If { cond, .. } => value(cond).into_iter().collect(),
        Step::Loop(l) => {
            let mut out: Vec<SlotId> = l.iter.into_iter().collect();
            out.extend([&l.trip, &l.cond, &l.body_cond].into_iter().flatten().filter_map(value));
            for c in &l.carried {
                out.extend([c.init, c.param, c.yielded, c.result]);
            }
            for s in &l.scans {
                out.extend([s.yielded, s.result]);
            }
            out
        }
        Step::Call(c) => {
            let mut out = args(&c.args);
            out.extend(&c.outs);
            out
        }
    }
}
