//! The transform of the input.

use super::super::window::{self, Source, Stored};
use super::super::{BLOCK, Plan2, Sizes};
use super::axis::{Axis, both_ways};
use super::{Form, Transformed};
use crate::kernel::{Buf, Builder, Elem, Val};

/// Transforms tiles of the input.
pub(super) struct Forth<'f> {
    p: &'f Plan2,
    f: &'f Form,
    x: Buf,
    lanes: u16,
    window: window::Tile,
    local: Buf,
}

impl<'f> Forth<'f> {
    /// Takes local memory for the window of a chunk of tiles and one block of channels.
    pub(super) fn new(b: &mut Builder, p: &'f Plan2, f: &'f Form, x: Buf, lanes: u16) -> Forth<'f> {
        let out = f.outputs();
        let window = window::Tile::new(p, BLOCK, [f.chunk[0] * out[0], f.chunk[1] * out[1]]);
        let local = b.local("window", Elem::F32, window.len() as u32);
        Forth { p, f, x, lanes, window, local }
    }

    /// Transforms `rows` times `columns` tiles from tile `corner`. They are of block `from`, counted over images, and go to block
    /// `block`, beginning with tile `first`, a row of tiles `apart` from the next.
    pub(super) fn block(
        &self,
        b: &mut Builder,
        z: &Sizes,
        (from, block): (Val, Val),
        corner: [Val; 2],
        (rows, columns): (Val, Val),
        (to, first, apart): (&Transformed, Val, Val),
    ) {
        let (t, f) = (&self.window, self.f);
        let [m0, m1] = f.outputs();
        let [n0, n1] = f.axes.map(|a| a.inputs() as i64);
        let plane = b.mul(z.input[0], z.input[1]);
        let base = b.mul(from, plane);
        let base = b.mul(base, BLOCK);
        let at = [b.mul(corner[0], m0), b.mul(corner[1], m1)];
        let stored = Stored::F32;
        let source = Source { x: self.x, base, blocked: true, lanes: self.lanes, stored };
        window::fill(b, self.p, t, z, &source, self.local, at);
        b.loop_(0, rows, 1, |b, row| {
            let start = b.mul(row, m0 * t.window[1] * BLOCK);
            let tile = b.at(first, row, apart);
            b.loop_(0, columns, 1, |b, column| {
                let start = b.at(start, column, m1 * BLOCK);
                let tile = b.add(tile, column);
                for off in (0..BLOCK).step_by(usize::from(self.lanes)) {
                    let start = b.add(start, off);
                    let mut d = vec![];
                    for i in 0..n0 {
                        for j in 0..n1 {
                            let at = b.add(start, (i * t.window[1] + j) * BLOCK);
                            d.push(b.load(self.local, at, self.lanes));
                        }
                    }
                    for (e, v) in both_ways(b, f.axes, &d, Axis::input).into_iter().enumerate() {
                        let e = b.i64(e as i64);
                        let at = to.at(b, e, block, tile);
                        let at = b.add(at, off);
                        b.store(to.buf, at, v);
                    }
                }
            });
        });
    }
}
