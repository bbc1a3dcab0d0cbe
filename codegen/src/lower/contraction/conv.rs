//! Convolution as a product of packed weights with planes or panels of the input.

use super::epilogue::{Epilogue, Place};
use super::panel::{self, Geometry};
use super::tile::{Tile, balanced, max_rows, max_vectors};
use super::{blocked, depthwise, div_up, f32_bytes};
use crate::kernel::{Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load};
use crate::lower::launch::{KernelCx, Launch};
use planish_ir::op::conv::Conv;
use planish_ir::{DType, Diag, Dim, ValueId};

/// Positions of one unit of the parallel axis; panels are as wide.
const WIDTH: i64 = 48;
/// Most rows of a panel.
const PANEL_ROWS: i64 = 1024;
/// Rows of a block of packed weights, at most.
const PACK: i64 = 8;

/// The operands of a convolution.
pub(super) struct Operands {
    pub(super) x: Opnd,
    /// Dims of the weights.
    pub(super) w: Vec<Dim>,
    pub(super) w_type: DType,
    pub(super) bias: Option<Opnd>,
    pub(super) weights: Weighed,
    /// Dims of the result.
    pub(super) out: Vec<Dim>,
}

/// Where weights are.
pub(super) enum Weighed {
    /// A value, which gets memory only where it is not packed.
    Value(ValueId),
    /// Memory that the plan fills.
    Memory(Opnd),
}

impl Weighed {
    /// The weights in memory.
    pub(super) fn memory(&self, cx: &mut LowerCx<'_>) -> Result<Opnd, Diag> {
        match self {
            Weighed::Value(v) => cx.memory_of(*v),
            Weighed::Memory(w) => Ok(w.clone()),
        }
    }
}

/// What is known of a convolution at compile time.
pub(super) struct Shape {
    pub(super) groups: i64,
    /// Output channels of a group.
    pub(super) mg: i64,
    /// Input channels of a group.
    pub(super) cg: i64,
    pub(super) kernel: Vec<i64>,
    pub(super) strides: Vec<i64>,
    pub(super) dilations: Vec<i64>,
    pub(super) pads: Vec<Dim>,
}

impl Shape {
    /// Of an input with dims `x` and weights with dims `w`.
    pub(super) fn of(op: &Conv, x: &[Dim], w: &[Dim]) -> Result<Shape, Diag> {
        let known = |d: &Dim, what: &str| {
            d.as_const().ok_or_else(|| {
                Diag::unsupported(format!("a convolution whose {what} is known only at run time"))
            })
        };
        let kernel = w[2..].iter().map(|d| known(d, "kernel size")).collect::<Result<Vec<_>, _>>()?;
        let m = known(&w[0], "number of output channels")?;
        let windows = op.windows();
        let pads = (0..kernel.len()).map(|a| windows.padding(a, &x[a + 2], &w[a + 2]).0).collect();
        Ok(Shape {
            groups: op.groups,
            mg: m / op.groups,
            cg: known(&w[1], "number of input channels")?,
            kernel,
            strides: op.strides.clone(),
            dilations: op.dilations.clone(),
            pads,
        })
    }
    pub(super) fn kk(&self) -> i64 {
        self.kernel.iter().product()
    }
    /// Steps of the sum.
    pub(super) fn k(&self) -> i64 {
        self.cg * self.kk()
    }
    fn is_pointwise(&self) -> bool {
        let ones = |v: &[i64]| v.iter().all(|x| *x == 1);
        ones(&self.kernel) && ones(&self.strides) && self.pads.iter().all(|p| p.is(0))
    }
    /// Appends the run-time sizes to a launch: input, output and padding of each spatial axis.
    pub(super) fn dims(&self, l: Launch, o: &Operands) -> Launch {
        l.dims(&o.x.dims[2..]).dims(&o.out[2..]).dims(&self.pads)
    }
    /// Reads what [`Shape::dims`] appended, from dim `at`.
    pub(super) fn geometry(&self, k: &KernelCx<'_>, at: usize) -> Geometry {
        let r = self.kernel.len();
        Geometry {
            input: k.dims(at, r),
            output: k.dims(at + r, r),
            pads: k.dims(at + 2 * r, r),
            kernel: self.kernel.clone(),
            strides: self.strides.clone(),
            dilations: self.dilations.clone(),
        }
    }
}

/// Lowers a convolution that stands alone.
pub(in crate::lower) fn lower_conv(cx: &mut LowerCx<'_>, op: &Conv) -> Result<(), Diag> {
    let (x_value, w_value) = (cx.input_value(0)?, cx.input_value(1)?);
    let (_, out) = cx.output_type(0)?;
    let bias = cx.opt_input(2)?;
    if let Some(p) = blocked::plan(cx, op, x_value, w_value, &out, cx.lies_blocked(x_value)) {
        let o = blocked::Operands { x: x_value, w: w_value, bias, zero: None, w_zero: None, out };
        return blocked::emit(cx, p, o, Epilogue::unplaced());
    }
    let x = cx.input(0)?;
    let (w_type, w) = cx.tensor_type(w_value)?;
    let y = cx.output(0)?;
    let weights = Weighed::Value(w_value);
    emit(cx, op, Operands { x, w, w_type, bias, weights, out }, Epilogue::none(y))
}

/// Emits a convolution with what follows it.
pub(super) fn emit(cx: &mut LowerCx<'_>, op: &Conv, o: Operands, e: Epilogue) -> Result<(), Diag> {
    let channels = o.w[1].mul(&op.groups.into());
    require_channels(cx, &o.x.dims, (&o.w[0], &channels), o.bias.as_ref());
    let s = Shape::of(op, &o.x.dims, &o.w)?;
    if s.mg == 0 {
        return Ok(());
    }
    if s.kk() == 0 {
        return Err(Diag::error("shape-mismatch", "the window of a convolution has an axis of size 0"));
    }
    if cx.simt() || (s.groups > 1 && (s.mg < 4 || (s.k() < 16 && !s.is_pointwise()))) || s.kk() > PANEL_ROWS {
        return depthwise::emit(cx, &s, o, e);
    }
    product(cx, &s, o, e)
}

/// Raises an error at run time unless the input and the bias have the channels (output, input) that the weights are for.
pub(super) fn require_channels(
    cx: &mut LowerCx<'_>,
    x: &[Dim],
    (outputs, inputs): (&Dim, &Dim),
    bias: Option<&Opnd>,
) {
    cx.require_equal(inputs, &x[1], "the weights are for another number of channels");
    if let Some(bias) = bias {
        cx.require_equal(&bias.elems(), outputs, "the bias has another number of channels");
    }
}

/// How the weights are read.
struct Weights {
    data: Opnd,
    /// Rows of a block where packed.
    packed: Option<i64>,
}

fn weights(cx: &mut LowerCx<'_>, s: &Shape, o: &Operands) -> Result<Weights, Diag> {
    let packs = match &o.weights {
        Weighed::Value(v) => cx.f32_constant(*v)?,
        Weighed::Memory(_) => None,
    };
    let Some(v) = packs else {
        return Ok(Weights { data: o.weights.memory(cx)?, packed: None });
    };
    let blocks = div_up(s.mg, PACK);
    let rows = div_up(s.mg, blocks);
    let (mg, k) = (s.mg as usize, s.k() as usize);
    let mut packed = vec![0f32; s.groups as usize * blocks as usize * k * rows as usize];
    for g in 0..s.groups as usize {
        for m in 0..mg {
            let (block, r) = (m / rows as usize, m % rows as usize);
            let to = ((g * blocks as usize + block) * k) * rows as usize + r;
            let from = (g * mg + m) * k;
            for i in 0..k {
                packed[to + i * rows as usize] = v[from + i];
            }
        }
    }
    let dims = [Dim::from(packed.len())];
    Ok(Weights { data: cx.weight(DType::F32, &dims, f32_bytes(&packed)), packed: Some(rows) })
}

fn product(cx: &mut LowerCx<'_>, s: &Shape, o: Operands, mut e: Epilogue) -> Result<(), Diag> {
    let w = weights(cx, s, &o)?;
    let positions = Dim::product(&o.out[2..]);
    let tiles = positions.ceil_div(&WIDTH.into());
    let pointwise = s.is_pointwise();
    // Channels of a panel, and how many panels a sum takes.
    let per_panel = (PANEL_ROWS / s.kk()).clamp(1, s.cg.max(1));
    let panels = if pointwise { 1 } else { div_up(s.cg, per_panel).max(1) };
    let per_panel = div_up(s.cg, panels).max(1);
    let elem_type = compute_dtype(o.x.dtype);
    let sums = (panels > 1).then(|| cx.temp(elem_type, &o.out));

    let flops = Dim::product(&o.out).mul(&(2 * s.k()).into());
    let mut l = Launch::new(if pointwise { "conv1x1" } else { "conv" }).read(&o.x).read(&w.data);
    if let Some(bias) = &o.bias {
        l = l.read(bias);
    }
    if let Some(sums) = &sums {
        l = l.update(sums);
    }
    let first = 2 + usize::from(o.bias.is_some()) + usize::from(sums.is_some());
    l = e.bufs(l, first);
    l = s.dims(l, &o).dim(&tiles);
    let units = o.out[0].mul(&s.groups.into()).mul(&tiles);
    l = l.extent(units).cost(s.mg * s.k() * WIDTH / 16).flops(flops);
    let x_type = o.x.dtype;
    let w_type = o.w_type;
    let has_bias = o.bias.is_some();
    let has_sums = sums.is_some();
    let (k_total, cg, mg, groups, kk) = (s.k(), s.cg, s.mg, s.groups, s.kk());
    cx.launch(l, move |k| {
        let elem = compute_elem(x_type);
        let lanes = k.lanes(elem);
        let (x, wbuf) = (k.buf(0), k.buf(1));
        let bias = has_bias.then(|| k.buf(2));
        let sums = has_sums.then(|| k.buf(2 + usize::from(has_bias)));
        let epi = e.handles(k);
        let geo = s.geometry(k, 0);
        let tiles = k.dim(3 * s.kernel.len());
        let target = k.target.clone();
        let b = &mut k.b;
        let panel = (!pointwise).then(|| b.local("panel", elem, (per_panel * kk * WIDTH) as u32));
        let total = geo.positions(b);
        let plane = geo.plane(b);
        let nv = max_vectors(&target).min((WIDTH / i64::from(lanes)) as usize).max(1);
        let job =
            Job { e: &e, epi: &epi, bias, sums, w: wbuf, w_type, packed: w.packed, k_total, mg, elem, lanes };
        b.parallel_for(|b, unit| {
            let (row, t) = b.div_rem(unit, tiles);
            let (_, g) = b.div_rem(row, groups);
            let p0 = b.mul(t, WIDTH);
            let count = b.sub(total, p0);
            let count = b.smin(count, WIDTH);
            // Element of the input where the group's first channel begins.
            let channel = b.mul(row, cg);
            let base = b.mul(channel, plane);
            let unit = Unit { g, first_channel: b.mul(row, mg), p0, count, total };
            if let Some(panel) = panel {
                b.loop_(0, panels, 1, |b, j| {
                    let c0 = b.mul(j, per_panel);
                    let left = b.sub(cg, c0);
                    let channels = b.smin(left, per_panel);
                    let from = b.at(base, c0, plane);
                    panel::fill(b, &geo, (x_type, x, from), panel, WIDTH, channels, (p0, count), lanes);
                    let steps = b.mul(channels, kk);
                    let k0 = b.mul(c0, kk);
                    let is_first = b.cmp(CmpOp::Eq, j, 0);
                    let is_last = b.cmp(CmpOp::Eq, j, panels - 1);
                    let read = |b: &mut Builder, kk: Val, col: Val, mask: Option<Val>| {
                        let at = b.at(col, kk, WIDTH);
                        b.load_opt(panel, at, lanes, mask)
                    };
                    job.tiles(b, &target, nv, &unit, (k0, steps), (is_first, is_last), &read);
                });
            } else {
                let steps = b.i64(k_total);
                let zero = b.i64(0);
                let yes = b.cmp(CmpOp::Eq, zero, 0);
                let start = b.add(base, p0);
                let read = |b: &mut Builder, kk: Val, col: Val, mask: Option<Val>| {
                    let at = b.at(start, kk, plane);
                    let at = b.add(at, col);
                    load(b, x_type, x, at, lanes, mask)
                };
                job.tiles(b, &target, nv, &unit, (zero, steps), (yes, yes), &read);
            }
        });
    })
}

/// The dtype of sums.
fn compute_dtype(d: DType) -> DType {
    if d.is_float() && d != DType::F64 { DType::F32 } else { d }
}

/// What all tiles of a kernel share.
struct Job<'j> {
    e: &'j Epilogue,
    epi: &'j [Buf],
    bias: Option<Buf>,
    sums: Option<Buf>,
    w: Buf,
    w_type: DType,
    packed: Option<i64>,
    k_total: i64,
    mg: i64,
    elem: Elem,
    lanes: u16,
}

/// One unit of the parallel axis.
struct Unit {
    g: Val,
    /// Index of the group's first output channel, batch included.
    first_channel: Val,
    p0: Val,
    count: Val,
    total: Val,
}

/// Reads a vector of B: step, column within the tile, mask.
type ReadB<'r> = dyn Fn(&mut Builder, Val, Val, Option<Val>) -> Val + 'r;

impl Job<'_> {
    /// All tiles of the unit's positions, whole ones with `nv` vectors, the rest one vector at a time.
    #[allow(clippy::too_many_arguments)]
    fn tiles(
        &self,
        b: &mut Builder,
        target: &crate::kernel::TargetSpec,
        nv: usize,
        u: &Unit,
        k: (Val, Val),
        ends: (Val, Val),
        read: &ReadB<'_>,
    ) {
        let lanes = i64::from(self.lanes);
        let step = nv as i64 * lanes;
        let rows = self.packed.unwrap_or(PACK.min(self.mg));
        let blocks = div_up(self.mg, rows);
        b.loop_(0, blocks, 1, |b, block| {
            let whole = b.sdiv(u.count, step);
            let end = b.mul(whole, step);
            b.loop_(0, end, step, |b, col| {
                self.rows(b, target, nv, u, block, rows, col, None, k, ends, read)
            });
            b.loop_(end, u.count, lanes, |b, col| {
                let left = b.sub(u.count, col);
                let mask = b.mask_below(self.lanes, left);
                self.rows(b, target, 1, u, block, rows, col, Some(mask), k, ends, read);
            });
        });
    }
    /// All rows of a block for some columns, cut to what the registers hold.
    #[allow(clippy::too_many_arguments)]
    fn rows(
        &self,
        b: &mut Builder,
        target: &crate::kernel::TargetSpec,
        nv: usize,
        u: &Unit,
        block: Val,
        rows: i64,
        col: Val,
        mask: Option<Val>,
        (k0, steps): (Val, Val),
        (is_first, is_last): (Val, Val),
        read: &ReadB<'_>,
    ) {
        let mut r0 = 0usize;
        for piece in balanced(rows as usize, max_rows(target, nv)) {
            let a = |b: &mut Builder, k: Val, r: usize| {
                let k = b.add(k0, k);
                let idx = match self.packed {
                    Some(rows) => {
                        let blocks = div_up(self.mg, rows);
                        let t = b.mul(u.g, blocks);
                        let t = b.add(t, block);
                        let t = b.mul(t, self.k_total);
                        let t = b.add(t, k);
                        let t = b.mul(t, rows);
                        b.add(t, (r0 + r) as i64)
                    }
                    None => {
                        // Rows beyond the last repeat it; they are not stored.
                        let m = b.mul(block, rows);
                        let m = b.add(m, (r0 + r) as i64);
                        let m = b.smin(m, self.mg - 1);
                        let g = b.mul(u.g, self.mg);
                        let m = b.add(g, m);
                        let m = b.mul(m, self.k_total);
                        b.add(m, k)
                    }
                };
                load(b, self.w_type, self.w, idx, 1, None)
            };
            let bv = |b: &mut Builder, k: Val, v: usize| {
                let c = b.add(col, v as i64 * i64::from(self.lanes));
                read(b, k, c, mask)
            };
            let index = |b: &mut Builder, r: usize, v: usize| {
                let m = b.mul(block, rows);
                let m = b.add(m, (r0 + r) as i64);
                let channel = b.add(u.first_channel, m);
                let row = b.mul(channel, u.total);
                let p = b.add(u.p0, col);
                let p = b.add(p, v as i64 * i64::from(self.lanes));
                (m, b.add(row, p), p)
            };
            let ty = Ty::vec(self.elem, self.lanes);
            let zero = b.zero(ty);
            let init = self.sums.map(|sums| {
                b.if_(
                    is_first,
                    |_| vec![zero; piece * nv],
                    |b| {
                        let mut v = Vec::new();
                        for r in 0..piece {
                            for c in 0..nv {
                                let (m, at, _) = index(b, r, c);
                                let exists = b.cmp(CmpOp::Slt, m, self.mg);
                                let lanes = b.splat(exists, self.lanes);
                                let mask = match mask {
                                    Some(x) => b.and(x, lanes),
                                    None => lanes,
                                };
                                v.push(b.load_masked(sums, at, mask, zero));
                            }
                        }
                        v
                    },
                )
            });
            let zero_k = b.i64(0);
            let tile = Tile {
                rows: piece,
                nv,
                lanes: self.lanes,
                elem: self.elem,
                k: (zero_k, steps),
                a: &a,
                b: &bv,
            };
            let sums = tile.emit(b, init);
            for r in 0..piece {
                let partial = self.mg % rows != 0 && (r0 + r) as i64 >= self.mg % rows;
                let (m, _, _) = index(b, r, 0);
                let exists = if partial { b.cmp(CmpOp::Slt, m, self.mg) } else { b.int(Ty::BOOL, 1) };
                b.when(exists, |b| {
                    let finish = |b: &mut Builder| {
                        let g = b.mul(u.g, self.mg);
                        let channel = b.add(g, m);
                        let bias = self.bias.map(|buf| {
                            let s = load(b, self.w_type, buf, channel, 1, None);
                            b.splat(s, self.lanes)
                        });
                        for c in 0..nv {
                            let (_, at, p) = index(b, r, c);
                            let mut sum = sums[r * nv + c];
                            if let Some(bias) = bias {
                                sum = if self.elem.is_float() { b.fadd(sum, bias) } else { b.add(sum, bias) };
                            }
                            self.e.finish(b, self.epi, sum, &Place { index: at, channel, last: p }, mask);
                        }
                    };
                    match self.sums {
                        None => finish(b),
                        Some(buf) => {
                            b.if_(
                                is_last,
                                |b| {
                                    finish(b);
                                    vec![]
                                },
                                |b| {
                                    for c in 0..nv {
                                        let (_, at, _) = index(b, r, c);
                                        b.store_opt(buf, at, sums[r * nv + c], mask);
                                    }
                                    vec![]
                                },
                            );
                        }
                    }
                });
            }
            r0 += piece;
        }
    }
}
