//! See [`RouteExperts`].

use crate::cost::routed_speedup;
use crate::experts::{Experts, Weights, divisible, floats, product};
use crate::{Options, Pass, PassCx, PassMeta, declare_pass, options::OptionMeta, util};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::scatter::Reduction;
use planish_ir::op::softmax::SoftmaxKind;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, Dim, Editor, Graph, NodeId, Op, ValueId};

declare_pass! {
    /// Makes a gate of a trained mixture of experts, so that only the experts that a row goes to are computed for it (Shazeer et al. 2017). What is looked for is what
    /// `insert-gates:kind=mixture` and `determinize` leave: two products with the weights of all experts side by side, and between them an activation and
    /// the weights of a softmax, which are zero for all experts but those that a top-k has chosen.
    ///
    /// # Preserves
    /// All outputs up to rounding; experts that were not chosen, and that gave infinity or NaN times zero, give nothing.
    ///
    /// # Declines
    /// A remark `gate-skipped` for mixtures whose inner values are used elsewhere, and for those that the model of costs predicts a speed-up below `gain` for;
    /// where the number of rows is not known, 1, 16 and 256 rows must not be slower than that.
    ///
    /// # Example
    /// 8 experts of which each row goes to 2 become `gate{granularity=routed, k=2}`, whose region has one pair of products.
    pub struct RouteExperts { gain: f64 } = {
        name: "route-experts",
        kind: Exact,
        options: [OptionMeta {
            name: "gain",
            default: "1.1",
            doc: "mixtures whose predicted speed-up is below this stay",
        }]
    }
}

/// Numbers of rows that stand for those that are not known.
const ROWS: [f64; 3] = [1.0, 16.0, 256.0];

impl RouteExperts {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let gain: f64 = o.get(Self::META.options, "gain")?;
        if gain.is_nan() || gain < 0.0 {
            return Err(Diag::error("pass-option", format!("gain is not negative, not {gain}")));
        }
        Ok(RouteExperts { gain })
    }
}

impl Pass for RouteExperts {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for n in ed.graph().nodes_in(ed.graph().root()).collect::<Vec<_>>() {
            if !ed.graph().is_live(n) {
                continue;
            }
            let Some(m) = find(ed.graph(), n) else { continue };
            let g = ed.graph();
            let name = g.describe(n);
            let [experts, d, units, o] = m.sizes();
            let macs = (experts * units * (d + o)) as f64;
            let of = |rows: f64| routed_speedup(rows, macs, 0.0, [experts, m.active]);
            let speedup = match m.rows.as_const() {
                Some(rows) => of(rows as f64),
                None => ROWS.into_iter().map(of).fold(f64::INFINITY, f64::min),
            };
            let why = if m.inner.iter().any(|v| util::only_user(g, *v).is_none()) {
                Some("a value within it is used elsewhere".to_owned())
            } else if speedup < self.gain {
                Some(format!("a speed-up of {speedup:.2} is predicted, below {}", self.gain))
            } else {
                None
            };
            if let Some(why) = why {
                cx.remark(g, n, "gate-skipped", format!("{name}: left alone, {why}"));
                continue;
            }
            let text = format!(
                "{name}: {} of {experts} experts are computed for a row, a speed-up of {speedup:.2} is predicted",
                m.active
            );
            cx.remark(g, n, "gate-done", text);
            cx.add("layers-gated", 1.0);
            cx.add("row-macs-before", macs);
            cx.add("row-macs-after", macs * m.active as f64 / experts as f64);
            let last = g.def_node(m.y).unwrap_or(n);
            let all = m.experts(g)?;
            ed.before(last);
            let y = all.gate(ed, m.weights, m.x, m.active)?;
            if ed.graph().ty(y) != ed.graph().ty(m.y) {
                return Err(Diag::error("type-mismatch", "a gate has another type than what it replaces"));
            }
            ed.replace(m.y, y);
            util::remove(ed, m.y)?;
        }
        Ok(())
    }
}

/// All experts on every row, times their weights.
struct Mixture {
    x: ValueId,
    /// Of the experts, rows x experts: at most `active` in a row are not 0.
    weights: ValueId,
    y: ValueId,
    experts: usize,
    active: usize,
    rows: Dim,
    function: UnaryKind,
    up: Weights,
    bias: Option<Vec<f32>>,
    down: Weights,
    /// Experts x outputs.
    shift: Option<Weights>,
    /// Values of which only the experts need anything.
    inner: Vec<ValueId>,
}

impl Mixture {
    /// Experts, inputs, hidden units of each, outputs.
    fn sizes(&self) -> [usize; 4] {
        [self.experts, self.up.m.k, self.up.m.n / self.experts.max(1), self.down.m.n]
    }
    fn experts(&self, g: &Graph) -> Result<Experts, Diag> {
        let [experts, d, units, _] = self.sizes();
        let up = self.up.values(g)?;
        let of = |e: usize, i: usize, j: usize| up[i * experts * units + e * units + j];
        let all = (0..experts).flat_map(|e| (0..d).flat_map(move |i| (0..units).map(move |j| (e, i, j))));
        Ok(Experts {
            sizes: self.sizes(),
            function: self.function,
            up: all.map(|(e, i, j)| of(e, i, j)).collect(),
            bias: self.bias.clone(),
            down: self.down.values(g)?,
            shift: self.shift.map(|w| w.values(g)).transpose()?,
        })
    }
}

/// The mixture whose second product is `n`.
fn find(g: &Graph, n: NodeId) -> Option<Mixture> {
    let (wide, down) = product(g, n)?;
    // Units of experts times weights, as rows of all units.
    let scaled = reshaped(g, wide)?;
    let m = g.def_node(scaled)?;
    let (a, b) = operands(g, m, BinaryKind::Mul)?;
    let [_, experts, units] = g.dims(scaled)? else { return None };
    let count = |d: &Dim| d.as_const().and_then(|d| usize::try_from(d).ok());
    let (experts, units) = (count(experts)?, count(units)?);
    let (hidden, column, weights) = [(a, b), (b, a)].into_iter().find_map(|(hidden, column)| {
        let weights = column_of(g, column, experts)?;
        (g.dims(hidden)? == g.dims(scaled)?).then_some((hidden, column, weights))
    })?;
    let active = chosen(g, weights)?;
    let mut inner = vec![wide, scaled, column];
    let (sum, function) = activated(g, hidden, &mut inner)?;
    inner.push(sum);
    let (first, bias) = biased(g, sum, &mut inner)?;
    let (x, up) = product(g, g.def_node(first)?)?;
    let all = experts.checked_mul(units)?;
    let fits = up.m.n == all && down.m.k == all && bias.as_ref().is_none_or(|b| b.len() == all);
    let floats = [x, weights, first, g.node(n).outputs[0]].iter().all(|v| g.dtype(*v) == Some(DType::F32));
    let rows = g.dims(x)?.first()?.clone();
    if !fits || !floats || g.dims(x)?.len() != 2 {
        return None;
    }
    let mut y = g.node(n).outputs[0];
    let mut shift = None;
    if let Some((sum, own)) = shifted(g, y, weights) {
        inner.push(y);
        inner.push(own.1);
        (y, shift) = (sum, Some(own.0));
    }
    Some(Mixture { x, weights, y, experts, active, rows, function, up, bias, down, shift, inner })
}

/// What a reshape makes a value of.
fn reshaped(g: &Graph, v: ValueId) -> Option<ValueId> {
    let n = g.def_node(v)?;
    matches!(g.node(n).op, Op::Reshape(_) | Op::Flatten(_)).then(|| util::operand(g, n, 0))?
}

/// The operands of a binary operation of this kind.
fn operands(g: &Graph, n: NodeId, kind: BinaryKind) -> Option<(ValueId, ValueId)> {
    match &g.node(n).op {
        Op::Binary(b) if b.kind == kind => Some((util::operand(g, n, 0)?, util::operand(g, n, 1)?)),
        _ => None,
    }
}

/// The matrix, rows x experts, that has become rows x experts x 1.
fn column_of(g: &Graph, v: ValueId, experts: usize) -> Option<ValueId> {
    let n = g.def_node(v)?;
    if !matches!(g.node(n).op, Op::Reshape(_) | Op::Unsqueeze(_)) {
        return None;
    }
    let from = util::operand(g, n, 0)?;
    let ([_, e, one], [_, of]) = (g.dims(v)?, g.dims(from)?) else { return None };
    let e64 = i64::try_from(experts).ok()?;
    (e.is(e64) && one.is(1) && of.is(e64)).then_some(from)
}

/// How many weights of a row may not be 0: those of a softmax, put where a top-k says.
fn chosen(g: &Graph, weights: ValueId) -> Option<usize> {
    let n = g.def_node(weights)?;
    let Op::ScatterElements(op) = &g.node(n).op else { return None };
    let [none, mut at, soft] = [0, 1, 2].map(|i| util::operand(g, n, i));
    if op.axis != 1 || op.reduction != Reduction::None || !util::is_zero(g, none?) {
        return None;
    }
    let soft = g.def_node(soft?)?;
    if !matches!(&g.node(soft).op, Op::Softmax(s) if s.kind == SoftmaxKind::Softmax && s.axis == 1) {
        return None;
    }
    let k = g.dims(at?)?.get(1)?.as_const()?;
    if let Some(n) = at.and_then(|v| g.def_node(v)).filter(|n| matches!(g.node(*n).op, Op::Slice(_))) {
        at = util::operand(g, n, 0);
    }
    let top = at.and_then(|v| g.def_node(v))?;
    let which =
        matches!(&g.node(top).op, Op::TopK(t) if t.axis == 1) && at == g.node(top).outputs.get(1).copied();
    which.then(|| usize::try_from(k).ok().filter(|k| *k > 0))?
}

/// What an activation makes hidden units of, and the activation; views may stand on both of its sides.
fn activated(g: &Graph, hidden: ValueId, inner: &mut Vec<ValueId>) -> Option<(ValueId, UnaryKind)> {
    let (mut v, mut function) = (hidden, None);
    loop {
        let n = g.def_node(v)?;
        match &g.node(n).op {
            Op::Reshape(_) => {}
            Op::Unary(u) if function.is_none() && divisible(u.kind) => function = Some(u.kind),
            _ => return Some((v, function?)),
        }
        inner.push(v);
        v = util::operand(g, n, 0)?;
    }
}

/// The product that biases are added to, and the biases.
fn biased(g: &Graph, v: ValueId, inner: &mut Vec<ValueId>) -> Option<(ValueId, Option<Vec<f32>>)> {
    let Some((a, b)) = operands(g, g.def_node(v)?, BinaryKind::Add) else { return Some((v, None)) };
    let (product, bias) = if g.as_const(a).is_some() { (b, a) } else { (a, b) };
    let c = util::constant(g, bias)?;
    let vector = c.shape.last().is_some_and(|n| *n == c.len());
    inner.push(product);
    vector.then(|| Some((product, Some(floats(&c.decode().ok()?)))))?
}

/// The sum of what experts give and of their weights times a matrix: the sum, the matrix and that product.
fn shifted(g: &Graph, y: ValueId, weights: ValueId) -> Option<(ValueId, (Weights, ValueId))> {
    let n = util::only_user(g, y)?;
    let (a, b) = operands(g, n, BinaryKind::Add)?;
    let other = if a == y { b } else { a };
    let (from, w) = product(g, g.def_node(other)?)?;
    (from == weights).then(|| (g.node(n).outputs[0], (w, other)))
}
