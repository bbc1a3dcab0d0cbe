//! Convolution of all channels of a group with all: a tile of positions times a few vectors of output channels in registers.

use super::bytes::{self, Bytes};
use super::window::{self, Source, Stored};
use super::{BLOCK, FEW, MOST, Operands, Plan2, UNITS, WEIGHT_BYTES, WeightsOf, packed, packed_blocks};
use crate::kernel::{Buf, Builder, Elem, TargetSpec, Ty, Val};
use crate::lower::contraction::div_up;
use crate::lower::contraction::epilogue::{Channels, Epilogue};
use crate::lower::contraction::sparse;
use crate::lower::contraction::tile::{Tile, in_pieces};
use crate::lower::cx::LowerCx;
use crate::lower::layout::channel_mask;
use planish_ir::{Diag, Dim};

/// Steps that weights are read ahead.
const AHEAD: i64 = 48;
/// Bytes of weights from which on they are read ahead.
const FAR: i64 = 512 << 10;
/// Bytes of the weights of a tile's vectors, at most, if those of the next are read ahead.
const SLAB: i64 = 256 << 10;
/// Positions of one unit where no window is needed, at most.
const POSITIONS: i64 = 224;

pub(super) fn emit(
    cx: &mut LowerCx<'_>,
    p: Plan2,
    o: Operands,
    w: &WeightsOf<'_>,
    mut e: Epilogue,
) -> Result<(), Diag> {
    let few = p.cg < FEW;
    let x = if few { cx.memory_of(o.x)? } else { cx.blocked(o.x)? };
    let (weights, lists) = match w {
        WeightsOf::Dense(w) => (packed(cx, &p, w), None),
        WeightsOf::Bytes(w) => (bytes::packed(cx, &p, w), None),
        WeightsOf::Blocks(x) => {
            let (lists, height) = packed_blocks(cx, &p, x);
            (lists.values.clone(), Some((lists, height)))
        }
    };
    // Of all elements of the weights so many are there.
    let (kept, all) = match &lists {
        Some((lists, height)) => (lists.count * height, div_up(p.mg, BLOCK) * p.k()),
        None => (1, 1),
    };
    let window = p.window;
    // Tiles of positions: rows and columns of them. Without a window all positions are one row.
    let (rows, columns) = match &window {
        Some(t) => (p.output[0].ceil_div(&t.out[0].into()), p.output[1].ceil_div(&t.out[1].into())),
        None => (Dim::Const(1), p.positions().ceil_div(&line(&p).into())),
    };
    let tiles = rows.mul(&columns);
    let places = tiles.mul(&p.batch);
    // Blocks of output channels of one unit: few enough for the cache, and for all threads to have work.
    // A batch that is not known may be a single image.
    let known = places.as_const().or_else(|| tiles.as_const());
    let least = known.map_or(1, |n| div_up(UNITS, (n * p.groups).max(1)));
    let by_bytes = (WEIGHT_BYTES / (p.k() * BLOCK * p.size())).max(1);
    let parts = div_up(p.blocks(), by_bytes).max(least).min(div_up(p.blocks(), p.wide()));
    let per = div_up(div_up(p.blocks(), parts), p.wide()) * p.wide();
    let parts = div_up(p.blocks(), per);

    let flops = Dim::product(&o.out).mul(&(2 * div_up(p.k() * kept, all.max(1))).into());
    let label = match (&lists, &window) {
        (_, Some(_)) if p.bytes => "conv_integer",
        (_, None) if p.bytes => "conv1x1_integer",
        (Some(_), Some(_)) => "conv_sparse",
        (Some(_), None) => "conv1x1_sparse",
        (None, Some(_)) => "conv",
        (None, None) => "conv1x1",
    };
    let mut l = e.launch(label, &x, &weights, o.bias.as_ref());
    if let Some((lists, _)) = &lists {
        l = l.read(&lists.starts).read(&lists.index);
    }
    if let Some(zero) = &o.zero {
        l = l.read(zero);
    }
    let (has_zero, x_type) = (o.zero.is_some(), x.dtype);
    let height = lists.as_ref().map(|x| x.1);
    let has_bias = o.bias.is_some();
    let l = p.dims(l).dim(&p.batch).dim(&rows).dim(&columns);
    let units = places.mul(&(p.groups * parts).into());
    let positions = window.map_or(line(&p), |t| t.out[0] * t.out[1]);
    let l = l.extent(units).cost(div_up(positions * per * p.k() * kept, all.max(1))).flops(flops);
    cx.launch(l, move |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let z = p.sizes(k, 0);
        let (batch, rows, columns) = (k.dim(6), k.dim(7), k.dim(8));
        let epi = e.handles(k);
        let (x, w) = (k.buf(0), k.buf(1));
        let bias = has_bias.then(|| k.buf(2));
        let lists = height.map(|height| Lists { starts: k.buf(e.end()), index: k.buf(e.end() + 1), height });
        let target = k.target.clone();
        let zero = has_zero.then(|| k.buf(e.end()));
        let b = &mut k.b;
        let bytes = p.bytes.then(|| Bytes::new(b, &target, (x_type, p.pairs), zero));
        let elem = if p.bytes { Elem::I8 } else { Elem::F32 };
        let local = window.map(|t| b.local("window", elem, t.len() as u32));
        let stored = match &bytes {
            Some(bytes) => Stored::Bytes { zero: bytes.zero },
            None => Stored::F32,
        };
        let line_len = line(&p);
        let total = b.mul(z.output[0], z.output[1]);
        b.parallel_for(|b, unit| {
            let (rest, tile_column) = b.div_rem(unit, columns);
            let (rest, tile_row) = b.div_rem(rest, rows);
            let (rest, n) = b.div_rem(rest, batch);
            let (g, part) = b.div_rem(rest, parts);
            let blocks_in = div_up(p.cg, BLOCK);
            let plane = b.mul(z.input[0], z.input[1]);
            // Where the group's channels of the image begin.
            let first = b.at(g, n, p.groups);
            let image = if few { b.mul(first, p.cg) } else { b.mul(first, blocks_in * BLOCK) };
            let base = b.mul(image, plane);
            let source = match (&window, local) {
                (Some(t), Some(local)) => {
                    let at = [b.mul(tile_row, t.out[0]), b.mul(tile_column, t.out[1])];
                    let s = Source { x, base, blocked: !few, lanes, stored };
                    window::fill(b, &p, t, &z, &s, local, at);
                    let rows = b.sub(z.output[0], at[0]);
                    let columns = b.sub(z.output[1], at[1]);
                    Reads {
                        buf: local,
                        first: b.i64(0),
                        block: b.i64(t.window[0] * t.window[1] * t.width),
                        row: t.step[0] * t.window[1] * t.width,
                        tap: [p.dilations[0] * t.window[1] * t.width, p.dilations[1] * t.width],
                        step: t.step[1] * t.width,
                        rows: b.smin(rows, t.out[0]),
                        height: t.out[0],
                        columns: b.smin(columns, t.out[1]),
                        width: p.output[1].as_const().filter(|w| w % t.out[1] == 0).map(|_| t.out[1]),
                        place: b.at(at[1], at[0], z.output[1]),
                        row_place: z.output[1],
                    }
                }
                _ => {
                    let at = b.mul(tile_column, line_len);
                    let left = b.sub(total, at);
                    Reads {
                        buf: x,
                        first: b.at(base, at, if few { 1 } else { BLOCK }),
                        block: b.mul(plane, BLOCK),
                        row: 0,
                        tap: [0, 0],
                        step: if few { 1 } else { BLOCK },
                        rows: b.i64(1),
                        height: 1,
                        columns: b.smin(left, line_len),
                        width: p.positions().as_const().filter(|n| n % line_len == 0).map(|_| line_len),
                        place: at,
                        row_place: b.i64(0),
                    }
                }
            };
            let first_block = b.mul(part, per);
            let left = b.sub(p.blocks(), first_block);
            let count = if p.blocks() % per == 0 { b.i64(per) } else { b.smin(left, per) };
            let out_block = b.mul(first, p.blocks());
            let job = Job {
                p: &p,
                e: &e,
                epi: &epi,
                w,
                bias,
                lanes,
                target: &target,
                few,
                plane,
                total,
                ahead: lists.is_none() && p.k() * p.mg * p.groups * p.size() > FAR,
                bytes,
                lists,
                to: None,
            };
            job.vectors(b, &source, (g, first_block, count), out_block);
        });
    })
}

/// Positions of one unit where no window is needed: all, or equal parts of them if these would be many, or units few.
fn line(p: &Plan2) -> i64 {
    let Some(n) = p.positions().as_const().filter(|n| *n > 0) else { return POSITIONS / 2 };
    let others = div_up(p.blocks(), p.wide()) * p.groups * p.batch.as_const().unwrap_or(1).max(1);
    let few = div_up(UNITS, others.max(1)).min(div_up(n, MOST as i64));
    let least = div_up(n, POSITIONS);
    // Only parts of equal size have tiles of known size.
    let parts = (few.max(least)..=2 * few).find(|parts| n % parts == 0).unwrap_or(least);
    div_up(n, parts)
}

/// Where a unit reads the input and puts its results.
pub(super) struct Reads {
    pub(super) buf: Buf,
    /// Element of the first position of the tile, first block.
    pub(super) first: Val,
    /// Elements from one block of channels to the next.
    pub(super) block: Val,
    /// Elements from one row of results to the next.
    pub(super) row: i64,
    /// Elements from one row and column of the kernel to the next.
    pub(super) tap: [i64; 2],
    /// Elements from one position to the next.
    pub(super) step: i64,
    pub(super) rows: Val,
    pub(super) columns: Val,
    /// Rows at most.
    pub(super) height: i64,
    /// The number of columns where it is known.
    pub(super) width: Option<i64>,
    /// Position of the result where the tile begins, and from one row to the next.
    pub(super) place: Val,
    pub(super) row_place: Val,
}

impl Reads {
    /// Elements from a position to the one that comes `i` later in the rows of the tile.
    fn offset(&self, i: i64) -> i64 {
        match self.width {
            Some(w) if w > 0 => i / w * self.row + i % w * self.step,
            _ => i * self.step,
        }
    }
}

/// How weights are read ahead.
enum Ahead {
    No,
    /// Those of a few steps later.
    Steps,
    /// Those of the next vectors: so many lines of the cache for every block of channels at every place of the kernel.
    Next {
        lines: i64,
    },
}

/// Lists of inputs, see [`packed_blocks`].
#[derive(Clone, Copy)]
pub(super) struct Lists {
    starts: Buf,
    index: Buf,
    height: i64,
}

/// What all tiles of a kernel share.
pub(super) struct Job<'j> {
    pub(super) p: &'j Plan2,
    pub(super) e: &'j Epilogue,
    pub(super) epi: &'j [Buf],
    pub(super) w: Buf,
    pub(super) bias: Option<Buf>,
    pub(super) lanes: u16,
    pub(super) target: &'j TargetSpec,
    pub(super) few: bool,
    pub(super) plane: Val,
    /// Positions of a block of the result.
    pub(super) total: Val,
    /// Whether the weights are read ahead: there are more than a cache near the core holds.
    pub(super) ahead: bool,
    /// The inputs of every block of output channels, where that is not all of them.
    pub(super) lists: Option<Lists>,
    /// How stored integers are multiplied, where the input is such.
    pub(super) bytes: Option<Bytes>,
    /// Where sums go, in blocks of `total` positions, after what follows them; else the results of the epilogue.
    pub(super) to: Option<Buf>,
}

/// Vectors of output channels of a register tile.
struct Columns {
    /// Element of the packed weights of each vector.
    weights: Vec<Val>,
    /// Element of the result of each vector's first position.
    out: Vec<Val>,
    places: Vec<Channels>,
    bias: Vec<Val>,
    /// Element of the packed weights of the next vectors.
    next: Val,
    /// Where the list of inputs begins and ends, and the first lane of the vectors in a block.
    list: Option<[Val; 3]>,
}

impl Job<'_> {
    /// All vectors of the blocks `first..first + count` of a group.
    pub(super) fn vectors(
        &self,
        b: &mut Builder,
        r: &Reads,
        (group, first, count): (Val, Val, Val),
        out_block: Val,
    ) {
        let start = b.mul(first, BLOCK / i64::from(self.lanes));
        let group_block = b.mul(group, self.p.blocks());
        self.p.for_vectors(b, self.target, self.lanes, count, |b, v, nv| {
            let v = b.add(start, v);
            let c = self.columns(b, v, nv, (group, group_block), out_block);
            let most = self.p.most(self.target, nv);
            // Rows that are done together: whole rows of the result, one after the other in memory.
            let together = match r.width {
                Some(w) if w > 0 && self.p.output[1].is(w) => (most as i64 / w).max(1),
                _ => 1,
            };
            let pieces = match r.width {
                Some(w) if together > 1 => Some((div_up(r.height, together), w * together)),
                Some(w) => Some((r.height * div_up(w, most as i64), div_up(w, div_up(w, most as i64)))),
                None => None,
            };
            let slab = nv as i64 * i64::from(self.lanes) * self.p.k() * self.p.size();
            let ahead = match pieces {
                _ if !self.ahead => Ahead::No,
                Some((n, _)) if slab <= SLAB => {
                    Ahead::Next { lines: div_up(slab / 64, n * div_up(self.p.k(), BLOCK)) }
                }
                _ => Ahead::Steps,
            };
            let whole = if together > 1 {
                let n = b.sdiv(r.rows, together);
                b.mul(n, together)
            } else {
                b.i64(0)
            };
            if together > 1 {
                b.loop_(0, whole, together, |b, row| {
                    let from = b.at(r.first, row, r.row);
                    let place = b.at(r.place, row, r.row_place);
                    let piece = b.div_const(row, together);
                    let width = r.width.unwrap_or(1);
                    self.tile(b, r, (from, place, piece), (together * width) as usize, &c, &ahead);
                });
            }
            b.loop_(whole, r.rows, 1, |b, row| self.row(b, r, row, &c, &ahead));
        });
    }

    fn columns(
        &self,
        b: &mut Builder,
        v: Val,
        nv: usize,
        (group, group_block): (Val, Val),
        out_block: Val,
    ) -> Columns {
        let p = self.p;
        let lanes = i64::from(self.lanes);
        let mut c =
            Columns { weights: vec![], out: vec![], places: vec![], bias: vec![], next: v, list: None };
        for i in 0..nv {
            let at = b.add(v, i as i64);
            let channel = b.mul(at, lanes);
            let (block, off) = (b.div_const(channel, BLOCK), b.and(channel, BLOCK - 1));
            let packed = b.add(group_block, block);
            let packed = b.mul(packed, p.padded_k() * BLOCK);
            let lane = if p.bytes { b.mul(off, bytes::GROUP) } else { off };
            c.weights.push(b.add(packed, lane));
            let out = b.add(out_block, block);
            let out = b.mul(out, self.total);
            let out = b.mul(out, BLOCK);
            c.out.push(b.add(out, off));
            let channels = b.i64(p.mg);
            let mask = channel_mask(b, self.lanes, channel, channels);
            let first = b.at(channel, group, p.mg);
            c.bias.push(match (&self.bytes, self.bias) {
                (Some(bytes), sums) => bytes.start(b, sums, (first, mask), self.lanes),
                (None, Some(buf)) => b.load_opt(buf, first, self.lanes, mask),
                (None, None) => b.zero(Ty::vec(Elem::F32, self.lanes)),
            });
            c.places.push(Channels { first, mask });
        }
        if let Some(lists) = self.lists {
            let channel = b.mul(v, lanes);
            let (block, lane) = (b.div_const(channel, BLOCK), b.and(channel, BLOCK - 1));
            let (from, to) = sparse::list(b, lists.starts, block);
            c.list = Some([from, to, lane]);
        }
        let blocks = div_up(nv as i64 * lanes, BLOCK);
        c.next = b.add(c.weights[0], blocks * p.padded_k() * BLOCK);
        c
    }

    /// The positions of one row of the tile.
    fn row(&self, b: &mut Builder, r: &Reads, row: Val, c: &Columns, ahead: &Ahead) {
        let most = self.p.most(self.target, c.weights.len());
        let from = b.at(r.first, row, r.row);
        let place = b.at(r.place, row, r.row_place);
        let of_row = r.width.map_or(1, |w| div_up(w, most as i64));
        in_pieces(b, r.columns, r.width, most, |b, column, size| {
            let from = b.at(from, column, r.step);
            let place = b.add(place, column);
            let piece = b.div_const(column, size as i64);
            let piece = b.at(piece, row, of_row);
            self.tile(b, r, (from, place, piece), size, c, ahead);
        });
    }

    /// `size` neighbouring positions: their sums over all steps, then what follows.
    fn tile(
        &self,
        b: &mut Builder,
        r: &Reads,
        (from, place, piece): (Val, Val, Val),
        size: usize,
        c: &Columns,
        ahead: &Ahead,
    ) {
        let p = self.p;
        let nv = c.weights.len();
        let mut acc: Vec<Val> = (0..size).flat_map(|_| c.bias.clone()).collect();
        let taps = |b: &mut Builder, block: Val, width: i64, acc: &[Val]| -> Vec<Val> {
            let from = b.at(from, block, r.block);
            let k = b.mul(block, BLOCK * p.kk());
            let rows = |b: &mut Builder, ky: Val, acc: &[Val]| {
                let from = b.at(from, ky, r.tap[0]);
                let columns = |b: &mut Builder, kx: Val, acc: &[Val]| {
                    let from = b.at(from, kx, r.tap[1]);
                    let t = b.at(kx, ky, p.kernel[1]);
                    let k = b.at(k, t, width);
                    let k = b.mul(k, BLOCK);
                    let starts: Vec<Val> = c.weights.iter().map(|w| b.add(*w, k)).collect();
                    if let Ahead::Next { lines } = ahead {
                        let turn = b.at(block, piece, div_up(p.cg, BLOCK));
                        let turn = b.at(t, turn, p.kk());
                        let elems = 64 / p.size();
                        let line = b.mul(turn, *lines * elems);
                        let line = b.add(line, c.next);
                        for i in 0..*lines {
                            let line = b.add(line, i * elems);
                            b.prefetch(self.w, line);
                        }
                    }
                    let near = matches!(ahead, Ahead::Steps);
                    self.steps(b, r, from, &starts, width, (size, near), acc)
                };
                b.for_(0, p.kernel[1], 1, acc, columns)
            };
            b.for_(0, p.kernel[0], 1, acc, rows)
        };
        if let (Some(lists), Some(list)) = (&self.lists, c.list) {
            acc = self.listed(b, r, from, (lists, list), (size, nv), &acc);
        } else if self.few {
            let block = b.i64(0);
            acc = taps(b, block, p.padded(p.cg), &acc);
        } else {
            let (whole, rest) = (p.cg / BLOCK, p.cg % BLOCK);
            acc = b.for_(0, whole, 1, &acc, |b, block, acc| taps(b, block, BLOCK, acc));
            if rest > 0 {
                let block = b.i64(whole);
                acc = taps(b, block, p.padded(rest), &acc);
            }
        }
        for i in 0..size {
            let at = b.add(place, i as i64);
            for (v, channels) in c.places.iter().enumerate() {
                let index = b.at(c.out[v], at, BLOCK);
                let sum = acc[i * nv + v];
                match self.to {
                    Some(buf) => {
                        let sum = self.e.channels(b, self.epi, sum, channels);
                        b.store(buf, index, sum);
                    }
                    None => self.e.finish_channels(b, self.epi, sum, index, channels),
                }
            }
        }
    }

    /// The inputs of a list.
    fn listed(
        &self,
        b: &mut Builder,
        r: &Reads,
        from: Val,
        (lists, [begin, end, lane]): (&Lists, [Val; 3]),
        (size, nv): (usize, usize),
        acc: &[Val],
    ) -> Vec<Val> {
        b.for_(begin, end, 1, acc, |b, at, acc| {
            let k = b.load(lists.index, at, 1);
            let mut k = b.sext(k, Elem::I64);
            if self.p.window.is_none() {
                let (block, channel) = (b.div_const(k, BLOCK), b.and(k, BLOCK - 1));
                k = b.at(channel, block, r.block);
            }
            let from = b.add(from, k);
            let first = b.at(lane, at, lists.height * BLOCK);
            let x = |b: &mut Builder, i: Val, position: usize| {
                let at = b.add(from, i);
                let at = b.add(at, r.offset(position as i64));
                b.load(r.buf, at, 1)
            };
            sparse::inputs(b, lists.height, (self.w, first, BLOCK), (size, nv, self.lanes), acc, &x)
        })
    }

    /// The channels of one block at one place of the kernel.
    #[allow(clippy::too_many_arguments)]
    fn steps(
        &self,
        b: &mut Builder,
        r: &Reads,
        from: Val,
        weights: &[Val],
        width: i64,
        (size, near): (usize, bool),
        acc: &[Val],
    ) -> Vec<Val> {
        if let Some(bytes) = &self.bytes {
            let near = near.then_some(AHEAD * BLOCK * bytes::GROUP);
            let x: Vec<Val> = (0..size).map(|i| b.add(from, r.offset(i as i64))).collect();
            return bytes.steps(b, (r.buf, &x), (self.w, weights), width, near, acc);
        }
        // Few channels that are read in place lie a plane apart.
        let apart = self.few && self.p.window.is_none();
        let a = |b: &mut Builder, k: Val, i: usize| {
            let at = if apart { b.at(from, k, self.plane) } else { b.add(from, k) };
            let at = b.add(at, r.offset(i as i64));
            b.load(r.buf, at, 1)
        };
        let bv = |b: &mut Builder, k: Val, v: usize| {
            let at = b.at(weights[v], k, BLOCK);
            if near && v as i64 * i64::from(self.lanes) % BLOCK == 0 {
                let next = b.add(at, AHEAD * BLOCK);
                b.prefetch(self.w, next);
            }
            b.load(self.w, at, self.lanes)
        };
        let zero = b.i64(0);
        let hi = b.i64(width);
        let tile = Tile {
            rows: size,
            nv: weights.len(),
            lanes: self.lanes,
            elem: Elem::F32,
            k: (zero, hi),
            a: &a,
            b: &bv,
        };
        tile.emit(b, Some(acc.to_vec()))
    }
}
