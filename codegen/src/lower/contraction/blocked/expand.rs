//! A convolution 1x1 to many channels and the convolution of every channel with itself that alone reads it, in one launch: rows of
//! the wide tensor are made in a ring of a few rows and never leave the cache.

use super::depthwise::{self, Part};
use super::direct::{Job, Reads};
use super::window::zeros;
use super::{BLOCK, FEW, Operands, Plan2, div_up, packed, plan};
use crate::kernel::{CmpOp, Elem, Val};
use crate::lower::contraction::epilogue::Epilogue;
use crate::lower::cx::{LowerCx, Opnd};
use planish_ir::graph::{Def, Use};
use planish_ir::op::fused::follows_contraction;
use planish_ir::{DType, Diag, Dim, NodeId, Op, ValueId};

/// Bytes of the wide tensor from which on it pays not to write it: it and the input no longer fit a second-level cache.
const WIDE_BYTES: i64 = 512 << 10;
/// Bytes of the ring, at most.
const RING_BYTES: i64 = 128 << 10;
/// Units of work of a launch, about. Each makes the rows at the edge of its band again.
const UNITS: i64 = 6;
/// Rows of a band, at least.
const BAND: i64 = 8;

/// Multiply-adds for an element of the wide tensor that making rows again may cost, at most: what moving an element to memory and
/// back costs. Networks whose rows are few and whose input is deep lose by more.
const AGAIN: i64 = 8;

/// A convolution whose only reader computes it.
pub(in crate::lower) struct Deferred {
    p: Plan2,
    w: ValueId,
    x: ValueId,
    bias: Option<Opnd>,
    e: Epilogue,
    node: Option<NodeId>,
}

/// The rows of the wide tensor that a row of the result needs, for the blocks of one unit.
#[derive(Clone, Copy)]
struct Ring {
    blocks: i64,
    rows: i64,
    /// Positions of a row, padding included.
    width: i64,
}

impl Ring {
    /// For the depthwise convolution `p` after a convolution that does `blocks` blocks together.
    fn of(p: &Plan2, blocks: i64) -> Option<Ring> {
        let reach = |a: usize| (p.kernel[a] - 1) * p.dilations[a] + 1;
        let used = (p.output[1].as_const()? - 1) * p.strides[1] + reach(1);
        let width = used.max(p.pads[1].as_const()? + p.input[1].as_const()?);
        let ring = Ring { blocks, rows: reach(0), width };
        (ring.len().checked_mul(4)? <= RING_BYTES).then_some(ring)
    }
    /// The number of bands that the rows of the result are cut into, and the rows of one.
    fn bands(&self, p: &Plan2, height: i64) -> (i64, i64) {
        let parts = div_up(div_up(p.groups, BLOCK), self.blocks);
        let n = p.batch.as_const().unwrap_or(1).max(1);
        let bands = div_up(UNITS, n.saturating_mul(parts)).min(div_up(height, BAND));
        let band = div_up(height, bands);
        (div_up(height, band), band)
    }
    fn len(&self) -> i64 {
        self.blocks * self.rows * self.width * BLOCK
    }
}

/// The dims along the spatial axes, where all are known and none is empty.
fn known(p: &Plan2) -> Option<[i64; 4]> {
    let d = [&p.input[0], &p.input[1], &p.output[0], &p.output[1]].map(Dim::as_const);
    let d = [d[0]?, d[1]?, d[2]?, d[3]?];
    (d.iter().all(|d| *d > 0) && p.pads.iter().all(|p| p.as_const().is_some_and(|p| p >= 0))).then_some(d)
}

/// Leaves the convolution `p` with result `y` to the one that reads it, if that can compute it and gains. Gives back what it does not
/// take.
pub(super) fn defer(
    cx: &mut LowerCx<'_>,
    y: ValueId,
    p: Plan2,
    o: Operands,
    e: Epilogue,
) -> Option<(Plan2, Operands, Epilogue)> {
    if !(pays(&p) && e.has_one_result() && !e.follows_positions() && read_by(cx, y, &p)) {
        return Some((p, o, e));
    }
    let node = cx.node_id();
    cx.deferred.insert(y, Deferred { p, w: o.w, x: o.x, bias: o.bias, e, node });
    None
}

fn pays(p: &Plan2) -> bool {
    let Some([_, _, height, width]) = known(p) else { return false };
    let bytes = height.saturating_mul(width).saturating_mul(p.blocks() * BLOCK * 4);
    p.groups == 1 && !p.sparse && p.in_place() && p.cg >= FEW && bytes >= WIDE_BYTES
}

/// Whether only one depthwise convolution reads `y`, the result of `p`, and its rows fit a ring.
fn read_by(cx: &LowerCx<'_>, y: ValueId, p: &Plan2) -> bool {
    let g = cx.graph;
    let [Use::Node(user, 0)] = g.uses(y) else { return false };
    // What `lower_conv` and `lower_fused` will see.
    let (conv, inside) = match &g.node(*user).op {
        Op::Conv(_) => (*user, false),
        Op::Fused(_) => {
            let region = g.node(*user).regions[0];
            let outputs = g.node(*user).outputs.iter().map(|v| cx.tensor_type(*v).ok()).collect::<Vec<_>>();
            let anchor = g
                .nodes_in(region)
                .find(|n| !matches!(g.node(*n).op, Op::Const(_)) && !follows_contraction(&g.node(*n).op));
            let Some(anchor) = anchor else { return false };
            let Ok(made) = cx.tensor_type(g.node(anchor).outputs[0]) else { return false };
            if made.0 != DType::F32 || outputs.iter().any(|t| t.as_ref() != Some(&made)) {
                return false;
            }
            let param = g.region(region).params[0];
            if g.uses(param) != [Use::Node(anchor, 0)] {
                return false;
            }
            (anchor, true)
        }
        _ => return false,
    };
    let Op::Conv(op) = &g.node(conv).op else { return false };
    let Some(mut w) = g.node(conv).inputs.get(1).copied().flatten() else { return false };
    if inside && let Def::Param(_, k) = g.value(w).def {
        let Some(outer) = g.node(*user).inputs.get(k as usize).copied().flatten() else { return false };
        w = outer;
    }
    let Ok((_, out)) = cx.tensor_type(g.node(conv).outputs[0]) else { return false };
    let Some(next) = plan(cx, op, y, w, &out, true) else { return false };
    let (Some([height, _, out_height, _]), Some(ring)) = (known(&next), Ring::of(&next, p.wide())) else {
        return false;
    };
    // Rows that two bands need are made twice.
    let again = (ring.bands(&next, out_height).0 - 1) * (ring.rows - next.strides[0]).max(0);
    let gains = again.saturating_mul(p.cg) <= AGAIN.saturating_mul(height);
    next.depthwise() && next.groups == p.mg && gains
}

/// Emits the convolution that was left to its reader, and the depthwise convolution `p` that reads it.
pub(super) fn emit(
    cx: &mut LowerCx<'_>,
    mut d: Deferred,
    p: Plan2,
    o: Operands,
    w: &[f32],
    mut e: Epilogue,
) -> Result<(), Diag> {
    let lost = || Diag::error("internal-lower", "a convolution that was left to its reader has none");
    let [height, width, out_height, out_width] = known(&p).ok_or_else(lost)?;
    let ring = Ring::of(&p, d.p.wide()).ok_or_else(lost)?;
    let pads = [p.pads[0].as_const().ok_or_else(lost)?, p.pads[1].as_const().ok_or_else(lost)?];
    let x = cx.blocked(d.x)?;
    let wide = cx.f32_constant(d.w)?.ok_or_else(lost)?;
    let wide = packed(cx, &d.p, &wide);
    let weights = depthwise::weights(cx, &p, w);
    let parts = div_up(d.p.blocks(), ring.blocks);
    let (bands, band) = ring.bands(&p, out_height);

    let flops = Dim::product(&o.out).mul(&(2 * p.kk()).into());
    let wide_elems = p.batch.mul(&(p.groups * height * width).into());
    let flops = flops.add(&wide_elems.mul(&(2 * d.p.k()).into()));
    let l = e.launch("expand_depthwise", &x, &weights, o.bias.as_ref());
    let (has_bias, wide_bias) = (o.bias.is_some(), d.bias.is_some());
    let mut at = e.end();
    let wide_at = at;
    let mut l = l.read(&wide);
    at += 1;
    if let Some(bias) = &d.bias {
        l = l.read(bias);
        at += 1;
    }
    let l = d.e.bufs(l, at).describes(d.node);
    let units = p.batch.mul(&(parts * bands).into());
    let per = band * out_width * ring.blocks;
    let l = l.extent(units).cost(per * (p.kk() + p.strides[0] * p.strides[1] * d.p.k())).flops(flops);
    cx.launch(l, move |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let (epi, wide_epi) = (e.handles(k), d.e.handles(k));
        let (x, w, wide) = (k.buf(0), k.buf(1), k.buf(wide_at));
        let bias = has_bias.then(|| k.buf(2));
        let wide_bias = wide_bias.then(|| k.buf(wide_at + 1));
        let target = k.target.clone();
        let b = &mut k.b;
        let local = b.local("rows", Elem::F32, ring.len() as u32);
        let row_len = ring.width * BLOCK;
        let job = Job {
            p: &d.p,
            e: &d.e,
            epi: &wide_epi,
            w: wide,
            bias: wide_bias,
            lanes,
            target: &target,
            few: false,
            plane: b.i64(height * width),
            total: b.i64(ring.rows * ring.width),
            ahead: false,
            lists: None,
            bytes: None,
            to: Some(local),
        };
        b.parallel_for(|b, unit| {
            let (rest, at_band) = b.div_rem(unit, bands);
            let (n, part) = b.div_rem(rest, parts);
            let y0 = b.mul(at_band, band);
            let y1 = b.add(y0, band);
            let y1 = b.smin(y1, out_height);
            let first_block = b.mul(part, ring.blocks);
            let left = b.sub(d.p.blocks(), first_block);
            let whole = d.p.blocks() % ring.blocks == 0;
            let count = if whole { b.i64(ring.blocks) } else { b.smin(left, ring.blocks) };
            // What lies beside the rows stays zero.
            b.loop_(0, ring.blocks * ring.rows, 1, |b, row| {
                let to = b.mul(row, row_len);
                zeros(b, local, to, 0, pads[1] * BLOCK, lanes);
                zeros(b, local, to, (pads[1] + width) * BLOCK, row_len, lanes);
            });
            let image = b.mul(n, div_up(d.p.cg, BLOCK) * BLOCK * height * width);
            let begin = b.mul(y0, p.strides[0]);
            let begin = b.sub(begin, pads[0]);
            let place_of = |b: &mut crate::kernel::Builder, row: Val| {
                let at = b.srem(row, ring.rows);
                b.mul(at, ring.width)
            };
            b.for_(y0, y1, 1, &[begin], |b, y, done| {
                let low = b.mul(y, p.strides[0]);
                let low = b.sub(low, pads[0]);
                let high = b.add(low, ring.rows);
                let from = b.smax(done[0], low);
                b.loop_(from, high, 1, |b, r| {
                    let row = b.sub(r, begin);
                    let place = place_of(b, row);
                    let exists = b.cmp(CmpOp::Ult, r, height);
                    b.if_(
                        exists,
                        |b| {
                            let reads = Reads {
                                buf: x,
                                first: b.at(image, r, width * BLOCK),
                                block: b.i64(height * width * BLOCK),
                                row: 0,
                                tap: [0, 0],
                                step: BLOCK,
                                rows: b.i64(1),
                                height: 1,
                                columns: b.i64(width),
                                width: Some(width),
                                place: b.add(place, pads[1]),
                                row_place: b.i64(0),
                            };
                            let group = b.i64(0);
                            let shift = b.neg(first_block);
                            job.vectors(b, &reads, (group, first_block, count), shift);
                            vec![]
                        },
                        |b| {
                            b.loop_(0, count, 1, |b, g| {
                                let to = b.at(place, g, ring.rows * ring.width);
                                let to = b.mul(to, BLOCK);
                                zeros(b, local, to, 0, row_len, lanes);
                            });
                            vec![]
                        },
                    );
                });
                let row = b.sub(low, begin);
                b.loop_(0, count, 1, |b, g| {
                    let block = b.add(first_block, g);
                    let line = b.at(block, n, d.p.blocks());
                    let out = b.at(y, line, out_height);
                    let out = b.mul(out, out_width);
                    let ring_block = b.mul(g, ring.rows * ring.width);
                    for part in 0..BLOCK / i64::from(lanes) {
                        let part = Part::new(b, &p, (local, w, bias), block, part * i64::from(lanes), lanes);
                        let row_of = |b: &mut crate::kernel::Builder, ky: Val| {
                            let at = b.at(row, ky, p.dilations[0]);
                            let at = place_of(b, at);
                            b.add(at, ring_block)
                        };
                        let columns = b.i64(out_width);
                        part.row(b, (&e, &epi), out, (columns, Some(out_width)), p.strides[1], &row_of);
                    }
                });
                vec![high]
            });
        });
    })
}
