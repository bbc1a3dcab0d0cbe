//! See [`Recognize`].

mod attention;
mod gated;
mod gates;
mod skim;

use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::graph::Use;
use planish_ir::op::binary::BinaryKind as B;
use planish_ir::op::layer_norm::LayerNorm;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::unary::{Unary, UnaryKind as U};
use planish_ir::{Diag, Editor, Graph, NodeId, Op, ValueId};

declare_pass! {
    /// Recognises composites that exporters write out, and puts one operation in their place: gelu (with erf, and its tanh approximation),
    /// hard-swish, mish, softsign, softmax, layer normalisation, root-mean-square normalisation, scaled dot-product attention, products
    /// whose inputs near zero were put to zero, and gates in the parts that they are written as to ONNX: loops over experts, branches on rows,
    /// branches on a confidence; and recurrent layers that skim, in the loops that they are written as to ONNX.
    ///
    /// # Preserves
    /// All outputs up to rounding (relative 1e-5 in f32): one rounding instead of several.
    ///
    /// # Declines
    /// A pattern whose inner values are used elsewhere stays, with the remark `pattern-shared`.
    ///
    /// # Example
    /// `x * 0.5 * (1 + erf(x / sqrt(2)))` becomes `unary{kind=gelu} x`.
    pub struct Recognize {} = { name: "recognize", kind: Exact, options: [] }
}

impl Recognize {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(Recognize {})
    }
}

impl Pass for Recognize {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for (_, nodes) in util::regions(ed.graph()) {
            for n in nodes.into_iter().rev() {
                if !ed.graph().is_live(n) {
                    continue;
                }
                // Before the gates that stand in such a loop.
                if skim::recognise(ed, n)? {
                    cx.add("skim-recurrent", 1.0);
                    continue;
                }
                if let Some(name) = gates::recognise(ed, n)? {
                    cx.add(name, 1.0);
                    continue;
                }
                let g = ed.graph();
                let Some(found) = find(g, n) else { continue };
                if let Some(shared) = shared(g, n, &found) {
                    cx.remark(
                        g,
                        n,
                        "pattern-shared",
                        format!("{}: `{}` is used elsewhere", found.name, g.describe(shared)),
                    );
                    continue;
                }
                let y = g.node(n).outputs[0];
                ed.before(n);
                let new = ed.node(found.op, &found.inputs)?[0];
                if ed.graph().ty(new) != ed.graph().ty(y) {
                    continue;
                }
                ed.replace(y, new);
                cx.add(found.name, 1.0);
                // The nodes of the pattern are dead now; eliminate-dead removes them.
            }
        }
        Ok(())
    }
}

/// A composite that was found: what replaces it, and the nodes it covers.
struct Found {
    name: &'static str,
    op: Op,
    inputs: Vec<Option<ValueId>>,
    covers: Vec<NodeId>,
}

/// A covered node whose result something outside uses.
fn shared(g: &Graph, root: NodeId, f: &Found) -> Option<NodeId> {
    f.covers.iter().copied().find(|c| {
        let inside = |u: &Use| matches!(u, Use::Node(m, _) if *m == root || f.covers.contains(m));
        *c != root && !g.uses(g.node(*c).outputs[0]).iter().all(inside)
    })
}

fn find(g: &Graph, n: NodeId) -> Option<Found> {
    gelu(g, n)
        .or_else(|| hard_swish(g, n))
        .or_else(|| mish(g, n))
        .or_else(|| softsign(g, n))
        .or_else(|| attention::softmax(g, n))
        .or_else(|| attention::attention(g, n))
        .or_else(|| norm(g, n))
        .or_else(|| gated::product(g, n))
}

/// The node that defines a value as this binary operation, with its operands.
fn binary(g: &Graph, v: ValueId, kind: B) -> Option<(NodeId, ValueId, ValueId)> {
    let n = g.def_node(v)?;
    match &g.node(n).op {
        Op::Binary(b) if b.kind == kind => Some((n, util::operand(g, n, 0)?, util::operand(g, n, 1)?)),
        _ => None,
    }
}

fn unary(g: &Graph, v: ValueId, kind: U) -> Option<(NodeId, ValueId)> {
    let n = g.def_node(v)?;
    match &g.node(n).op {
        Op::Unary(u) if u.kind == kind => Some((n, util::operand(g, n, 0)?)),
        _ => None,
    }
}

fn near(g: &Graph, v: ValueId, want: f64) -> bool {
    util::splat_value(g, v).is_some_and(|x| (x - want).abs() <= 1e-3 * want.abs())
}

/// Operands of a commutative operation with the constant one second.
fn with_constant(g: &Graph, v: ValueId, kind: B, want: f64) -> Option<(NodeId, ValueId)> {
    let (n, a, b) = binary(g, v, kind)?;
    if near(g, b, want) {
        Some((n, a))
    } else if near(g, a, want) {
        Some((n, b))
    } else {
        None
    }
}

/// A product of any nesting as its factors, with the nodes of the multiplications.
fn factors(g: &Graph, v: ValueId, depth: usize, nodes: &mut Vec<NodeId>, out: &mut Vec<ValueId>) {
    match binary(g, v, B::Mul) {
        Some((n, a, b)) if depth > 0 => {
            nodes.push(n);
            factors(g, a, depth - 1, nodes, out);
            factors(g, b, depth - 1, nodes, out);
        }
        _ => out.push(v),
    }
}

/// `x * 0.5 * (1 + erf(x / sqrt 2))` and `x * 0.5 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, factors in any order.
fn gelu(g: &Graph, n: NodeId) -> Option<Found> {
    let y = *g.node(n).outputs.first()?;
    let (mut covers, mut parts) = (Vec::new(), Vec::new());
    factors(g, y, 2, &mut covers, &mut parts);
    let half = parts.iter().position(|v| near(g, *v, 0.5))?;
    parts.remove(half);
    let [a, b] = parts[..] else { return None };
    for (x, gate) in [(a, b), (b, a)] {
        let Some((add, inner)) = with_constant(g, gate, B::Add, 1.0) else { continue };
        if let Some((e, scaled)) = unary(g, inner, U::Erf) {
            let by = with_constant(g, scaled, B::Mul, std::f64::consts::FRAC_1_SQRT_2).or_else(|| {
                binary(g, scaled, B::Div)
                    .filter(|d| near(g, d.2, std::f64::consts::SQRT_2))
                    .map(|d| (d.0, d.1))
            });
            if let Some((s, source)) = by
                && source == x
            {
                covers.extend([add, e, s]);
                return Some(Found {
                    name: "gelu",
                    op: Unary { kind: U::Gelu }.into(),
                    inputs: vec![Some(x)],
                    covers,
                });
            }
        }
        if let Some((t, scaled)) = unary(g, inner, U::Tanh)
            && let Some((s, sum)) = with_constant(g, scaled, B::Mul, (2.0 / std::f64::consts::PI).sqrt())
            && let Some((p, u, v)) = binary(g, sum, B::Add)
        {
            let cube = if u == x {
                v
            } else if v == x {
                u
            } else {
                continue;
            };
            let mut nodes = Vec::new();
            if is_cube(g, cube, x, &mut nodes) {
                covers.extend([add, t, s, p]);
                covers.extend(nodes);
                return Some(Found {
                    name: "gelu-tanh",
                    op: Unary { kind: U::GeluTanh }.into(),
                    inputs: vec![Some(x)],
                    covers,
                });
            }
        }
    }
    None
}

/// Whether a value is `0.044715 * x^3`.
fn is_cube(g: &Graph, v: ValueId, x: ValueId, nodes: &mut Vec<NodeId>) -> bool {
    if let Some((n, p)) = with_constant(g, v, B::Mul, 0.044_715)
        && let Some((m, base, e)) = binary(g, p, B::Pow)
        && base == x
        && near(g, e, 3.0)
    {
        nodes.extend([n, m]);
        return true;
    }
    let mut parts = Vec::new();
    factors(g, v, 3, nodes, &mut parts);
    let constants = parts.iter().filter(|p| near(g, **p, 0.044_715)).count();
    constants == 1 && parts.iter().filter(|p| **p == x).count() == 3 && parts.len() == 4
}

/// `x * clip(x + 3, 0, 6) / 6`, with the clip written as minimum and maximum.
fn hard_swish(g: &Graph, n: NodeId) -> Option<Found> {
    let y = *g.node(n).outputs.first()?;
    let (mut covers, mut parts) = (Vec::new(), Vec::new());
    if let Some((d, p, six)) = binary(g, y, B::Div) {
        if !near(g, six, 6.0) {
            return None;
        }
        covers.push(d);
        factors(g, p, 1, &mut covers, &mut parts);
    } else {
        factors(g, y, 2, &mut covers, &mut parts);
        let sixth = parts.iter().position(|v| near(g, *v, 1.0 / 6.0))?;
        parts.remove(sixth);
    }
    let [a, b] = parts[..] else { return None };
    for (x, clip) in [(a, b), (b, a)] {
        if let Some((hi, v)) = with_constant(g, clip, B::Min, 6.0)
            && let Some((lo, v, zero)) = binary(g, v, B::Max)
            && util::splat_value(g, zero) == Some(0.0)
            && let Some((add, source)) = with_constant(g, v, B::Add, 3.0)
            && source == x
        {
            covers.extend([hi, lo, add]);
            return Some(Found {
                name: "hard-swish",
                op: Unary { kind: U::HardSwish }.into(),
                inputs: vec![Some(x)],
                covers,
            });
        }
    }
    None
}

/// `x / (1 + |x|)`.
fn softsign(g: &Graph, n: NodeId) -> Option<Found> {
    let (d, x, sum) = binary(g, *g.node(n).outputs.first()?, B::Div)?;
    let (add, inner) = with_constant(g, sum, B::Add, 1.0)?;
    let (abs, source) = unary(g, inner, U::Abs)?;
    (source == x).then(|| Found {
        name: "softsign",
        op: Unary { kind: U::Softsign }.into(),
        inputs: vec![Some(x)],
        covers: vec![d, add, abs],
    })
}

/// `x * tanh(softplus(x))`.
fn mish(g: &Graph, n: NodeId) -> Option<Found> {
    let (mul, a, b) = binary(g, *g.node(n).outputs.first()?, B::Mul)?;
    let gate = |x: ValueId, y: ValueId| {
        let (t, inner) = unary(g, y, U::Tanh)?;
        let (s, source) = unary(g, inner, U::Softplus)?;
        (source == x).then_some((x, t, s))
    };
    let (x, t, s) = gate(a, b).or_else(|| gate(b, a))?;
    Some(Found {
        name: "mish",
        op: Unary { kind: U::Mish }.into(),
        inputs: vec![Some(x)],
        covers: vec![mul, t, s],
    })
}

/// A mean over the last axes that keeps them: operand and first axis.
fn mean(g: &Graph, v: ValueId) -> Option<(NodeId, ValueId, usize)> {
    let n = g.def_node(v)?;
    let Op::Reduce(r) = &g.node(n).op else { return None };
    let x = util::operand(g, n, 0)?;
    let rank = g.dims(x)?.len();
    let axes = r.axes.clone()?;
    let trailing = axes.iter().copied().eq(rank - axes.len()..rank);
    (r.kind == ReduceKind::Mean && r.keepdims && trailing && !axes.is_empty())
        .then(|| (n, x, rank - axes.len()))
}

/// `v * v`, or `v ^ 2`.
fn square(g: &Graph, v: ValueId) -> Option<(NodeId, ValueId)> {
    if let Some((n, a, b)) = binary(g, v, B::Mul)
        && a == b
    {
        return Some((n, a));
    }
    binary(g, v, B::Pow).filter(|p| near(g, p.2, 2.0)).map(|p| (p.0, p.1))
}

/// The normalised value `d / sqrt(mean(d^2) + epsilon)`: d, epsilon, first axis, nodes.
fn normalised(g: &Graph, v: ValueId) -> Option<(ValueId, f64, usize, Vec<NodeId>)> {
    let mut nodes = Vec::new();
    let (d, root) = if let Some((n, d, s)) = binary(g, v, B::Div) {
        nodes.push(n);
        let (r, inner) = unary(g, s, U::Sqrt)?;
        nodes.push(r);
        (d, inner)
    } else {
        let (n, a, b) = binary(g, v, B::Mul)?;
        nodes.push(n);
        let (d, r) = if unary(g, b, U::Reciprocal).is_some() { (a, b) } else { (b, a) };
        let (r, s) = unary(g, r, U::Reciprocal)?;
        let (q, inner) = unary(g, s, U::Sqrt)?;
        nodes.extend([r, q]);
        (d, inner)
    };
    let (add, a, b) = binary(g, root, B::Add)?;
    let (variance, epsilon) = match (util::splat_value(g, b), util::splat_value(g, a)) {
        (Some(e), _) => (a, e),
        (_, Some(e)) => (b, e),
        _ => return None,
    };
    let (m, sq, axis) = mean(g, variance)?;
    let (s, source) = square(g, sq)?;
    nodes.extend([add, m, s]);
    // Exporters may compute the difference twice; equal values were merged before.
    (source == d).then_some((d, epsilon, axis, nodes))
}

/// Layer normalisation with scale and bias that follow the last axes; without the subtraction of the mean it is the
/// root-mean-square kind.
fn norm(g: &Graph, n: NodeId) -> Option<Found> {
    let y = *g.node(n).outputs.first()?;
    let mut covers = Vec::new();
    let (mut bias, mut scale) = (None, None);
    let mut v = y;
    let follows = |c: ValueId, v: ValueId| {
        let (Some(c), Some(x)) = (g.dims(c), g.dims(v)) else { return false };
        c.len() <= x.len() && c.last() == x.last() && c[..c.len().saturating_sub(1)].iter().all(|d| d.is(1))
    };
    if let Some((add, a, b)) = binary(g, v, B::Add) {
        let (p, q) = if util::constant(g, a).is_some() { (b, a) } else { (a, b) };
        if util::constant(g, q).is_none() || !follows(q, p) {
            return None;
        }
        covers.push(add);
        bias = Some(q);
        v = p;
    }
    if let Some((mul, a, b)) = binary(g, v, B::Mul) {
        let (p, q) = if util::constant(g, a).is_some() { (b, a) } else { (a, b) };
        if util::constant(g, q).is_some() && follows(q, p) {
            covers.push(mul);
            scale = Some(q);
            v = p;
        }
    }
    let (d, epsilon, axis, nodes) = normalised(g, v)?;
    covers.extend(nodes);
    // Scale and bias have one axis; so must the normalised part.
    let rank = g.dims(d)?.len();
    if (scale.is_some() || bias.is_some()) && axis + 1 != rank {
        return None;
    }
    let centred = binary(g, d, B::Sub).and_then(|(s, x, m)| {
        let (m, source, at) = mean(g, m)?;
        (source == x && at == axis).then_some((s, m, x))
    });
    let (x, rms) = match centred {
        Some((s, m, x)) => {
            covers.extend([s, m]);
            (x, false)
        }
        None => (d, true),
    };
    if rms && bias.is_some() {
        return None;
    }
    let name = if rms { "rms-norm" } else { "layer-norm" };
    let op = LayerNorm { axis, epsilon, rms }.into();
    let scale = match (scale, bias) {
        (None, Some(_)) => return None,
        (s, _) => s,
    };
    let mut inputs = vec![Some(x), scale, bias];
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    Some(Found { name, op, inputs, covers })
}
