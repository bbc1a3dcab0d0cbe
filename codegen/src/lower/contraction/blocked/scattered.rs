//! Convolutions 1x1 in place whose weights have scattered zeros: [`scattered`] on positions instead of rows.

use super::{BLOCK, Operands, Plan2, UNITS};
use crate::kernel::{Buf, Builder, Elem, Val};
use crate::lower::contraction::div_up;
use crate::lower::contraction::epilogue::{Channels, Epilogue};
use crate::lower::contraction::scattered::{self, Job, Local, ROWS, STRIP};
use crate::lower::contraction::sparse::Blocks;
use crate::lower::cx::LowerCx;
use crate::lower::layout::{channel_mask, transposed};
use planish_ir::{Diag, Dim};

/// Bytes of the input next to the sums, at most.
const PANEL_BYTES: i64 = 256 << 10;

/// Positions of a panel: what a unit of work reads; none if even the fewest take too much memory.
pub(super) fn width(p: &Plan2) -> Option<i64> {
    let channels = div_up(p.cg, BLOCK) * BLOCK;
    let fits = (PANEL_BYTES / 4 / channels / BLOCK * BLOCK).min(ROWS);
    (fits > 0).then_some(fits)
}

pub(super) fn emit(
    cx: &mut LowerCx<'_>,
    p: Plan2,
    o: Operands,
    w: &Blocks,
    mut e: Epilogue,
) -> Result<(), Diag> {
    let width = width(&p).ok_or_else(|| Diag::error("internal-lower", "too many channels for a panel"))?;
    let x = cx.blocked(o.x)?;
    let lists = scattered::packed(cx, w, |k| k as i64 * width);
    let list_width = w.block[1] as i64;
    let positions = p.positions();
    let chunks = positions.ceil_div(&width.into());
    let places = chunks.mul(&p.batch);
    // A panel serves many strips, but all threads shall have work.
    let known = places.as_const().or_else(|| chunks.as_const());
    let parts = known.map_or(1, |n| div_up(UNITS, n.max(1))).min(p.blocks());
    let per = div_up(p.blocks(), parts);
    let parts = div_up(p.blocks(), per);

    let kept = lists.count * list_width;
    let flops = Dim::product(&o.out).mul(&div_up(2 * kept, p.mg.max(1)).into());
    let mut l = e.launch("conv1x1_scattered", &x, &lists.values, o.bias.as_ref());
    l = l.read(&lists.starts).read(&lists.index);
    let work = div_up(kept, parts) * (width / BLOCK) + div_up(p.cg, BLOCK) * width;
    let l = l
        .dim(&positions)
        .dim(&p.batch)
        .dim(&chunks)
        .extent(places.mul(&parts.into()))
        .cost(work)
        .flops(flops);
    let has_bias = o.bias.is_some();
    let whole = positions.as_const().filter(|n| n % width == 0 || *n <= width);
    let known = whole.map(|n| div_up(n.min(width), BLOCK));
    cx.launch(l, move |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let (total, batch, chunks) = (k.dim(0), k.dim(1), k.dim(2));
        let epi = e.handles(k);
        let (x, values) = (k.buf(0), k.buf(1));
        let bias = has_bias.then(|| k.buf(2));
        let lists = [k.buf(e.end()), k.buf(e.end() + 1), values];
        let target = k.target.clone();
        let local = Local::new(k, STRIP);
        let b = &mut k.b;
        let in_blocks = div_up(p.cg, BLOCK);
        let panel = b.local("panel", Elem::F32, (in_blocks * BLOCK * width) as u32);
        let group = b.i64(BLOCK);
        let job = Job::new((panel, group, lists), list_width, (lanes, &target, local));
        b.parallel_for(|b, unit| {
            let (rest, chunk) = b.div_rem(unit, chunks);
            let (part, n) = b.div_rem(rest, batch);
            let p0 = b.mul(chunk, width);
            let left = b.sub(total, p0);
            let count = b.smin(left, width);
            let groups = b.ceil_div(count, BLOCK);
            let image = b.mul(n, in_blocks);
            fill(b, (x, image, total), panel, (in_blocks, width), (p0, groups), lanes);
            let from = b.mul(part, per);
            let to = b.add(from, per);
            let to = b.smin(to, p.blocks());
            b.loop_(from, to, 1, |b, strip| {
                let zero = b.i64(0);
                let block = b.at(strip, n, p.blocks());
                let out = b.at(p0, block, total);
                let channels = b.mul(strip, BLOCK);
                job.strip(b, strip, (zero, count), (groups, known), |b, row, at, sum| {
                    let first = b.add(channels, at);
                    let all = b.i64(p.mg);
                    let mask = channel_mask(b, lanes, first, all);
                    let sum = match bias {
                        Some(buf) => {
                            let bias = b.load_opt(buf, first, lanes, mask);
                            b.fadd(sum, bias)
                        }
                        None => sum,
                    };
                    let index = b.add(out, row);
                    let index = b.mul(index, BLOCK);
                    let index = b.add(index, at);
                    e.finish_channels(b, &epi, sum, index, &Channels { first, mask });
                });
            });
        });
    })
}

/// Copies the positions from `p0` on of all channels of an image, so that positions are neighbours. Those beyond the last are
/// copies of it.
fn fill(
    b: &mut Builder,
    (x, image, total): (Buf, Val, Val),
    panel: Buf,
    (blocks, width): (i64, i64),
    (p0, groups): (Val, Val),
    lanes: u16,
) {
    let last = b.sub(total, 1);
    let step = i64::from(lanes);
    b.loop_(0, blocks, 1, |b, block| {
        let plane = b.add(image, block);
        let plane = b.mul(plane, total);
        b.loop_(0, groups, 1, |b, g| {
            let first = b.mul(g, BLOCK);
            let per = BLOCK / step;
            for (part, square) in (0..per * per).map(|i| (i % per, i / per)) {
                let rows = (0..step)
                    .map(|i| {
                        let at = b.add(first, square * step + i);
                        let at = b.add(at, p0);
                        let at = b.smin(at, last);
                        let at = b.add(at, plane);
                        let at = b.mul(at, BLOCK);
                        let at = b.add(at, part * step);
                        b.load(x, at, lanes)
                    })
                    .collect();
                for (c, v) in (0..).zip(transposed(b, rows)) {
                    let channel = b.mul(block, BLOCK);
                    let channel = b.add(channel, part * step + c);
                    let to = b.at(first, channel, width);
                    let to = b.add(to, square * step);
                    b.store(panel, to, v);
                }
            }
        });
    });
}
