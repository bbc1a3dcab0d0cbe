//! Whether a convolution is transformed, and how.

use super::super::{BLOCK, Plan2, UNITS};
use super::axis::Axis;
use crate::lower::contraction::div_up;

/// Floating-point operations in the time in which memory gives one byte, roughly.
const FLOPS_PER_BYTE: i64 = 8;
/// Floating-point operations in the time of a vector operation of a transform, roughly.
const FLOPS_PER_OPERATION: i64 = 32;
/// Positions along an axis assumed where the size is not known.
const UNKNOWN: i64 = 28;
/// Bytes that stay in a core's own cache, about.
const CACHE: i64 = 512 << 10;
/// Bytes of the transformed input of a chunk that local memory holds.
const LOCAL: i64 = 384 << 10;
/// Elements of the products of 16 channels that are transformed back together, at most.
const PRODUCTS: i64 = 28 * 36;

/// The transforms of a convolution.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Form {
    pub(super) axes: [Axis; 2],
    /// The transformed input is made by the unit of work that multiplies it: otherwise by a launch of its own.
    pub(super) inside: bool,
    /// Tiles that are multiplied together: rows and columns of them if `inside`, any neighbours otherwise.
    pub(super) chunk: [i64; 2],
}

impl Form {
    /// The form that costs least, if that is less than the sum as it is written costs.
    pub(in super::super) fn of(p: &Plan2) -> Option<Form> {
        let one_by_one = p.strides == [1, 1] && p.dilations == [1, 1] && p.kernel != [1, 1];
        if !one_by_one || p.depthwise() || p.cg < BLOCK || p.mg < BLOCK {
            return None;
        }
        let [h, w] = sizes(p);
        let pairs = p.kk() * p.cg * p.blocks() * BLOCK;
        let direct = together(2 * h * w * pairs, 4 * pairs);
        let down = Axis::candidates(p.kernel[0]);
        let forms = down
            .iter()
            .flat_map(|y| Axis::candidates(p.kernel[1]).into_iter().map(|x| Form::with(p, [*y, x])));
        let (cost, form) = forms.map(|f| (f.cost(p), f)).min_by_key(|(cost, _)| *cost)?;
        (cost * 11 < direct * 10).then_some(form)
    }

    fn with(p: &Plan2, axes: [Axis; 2]) -> Form {
        let mut form = Form { axes, inside: false, chunk: [1, 1] };
        let [down, across] = form.tiles(p);
        // Local memory holds the products; of 14 tiles, as many as the registers hold rows, or multiples.
        let most = (PRODUCTS / form.products() / 14 * 14).max(14);
        let fits = LOCAL / (form.products() * div_up(p.cg, BLOCK) * BLOCK * 4);
        if fits >= 14 {
            let most = most.min(fits / 14 * 14);
            let known = p.output[0].as_const().is_some() && p.output[1].as_const().is_some();
            let columns = if known { div_up(across, div_up(across, most)) } else { 14 };
            let rows = if known && columns == across { (most / across).min(down) } else { 1 };
            let rows = div_up(down, div_up(down, rows));
            let chunks = div_up(down, rows) * div_up(across, columns);
            // Transformed elements are written once and read for every group of output channels; weights are read for every chunk.
            let groups = div_up(p.blocks(), p.wide());
            let input = form.input_bytes(p);
            let apart = if input > 2 * CACHE { input * (1 + groups) } else { 0 };
            let weights = form.weight_bytes(p);
            let together = if weights > CACHE * 5 / 4 { weights * chunks } else { 0 };
            form.inside = (!known || chunks * p.groups >= UNITS) && together <= apart;
            form.chunk = [rows, columns];
        }
        if !form.inside {
            let n = down * across;
            let known = p.positions().as_const().is_some();
            form.chunk = [1, if known { div_up(n, div_up(n, most)) } else { most }];
        }
        form
    }

    /// Products of a tile and a pair of channels.
    pub(super) fn products(&self) -> i64 {
        self.axes.iter().map(|a| a.inputs() as i64).product()
    }
    /// Results of a tile: rows, columns.
    pub(super) fn outputs(&self) -> [i64; 2] {
        self.axes.map(|a| a.outputs() as i64)
    }
    /// Rows and columns of tiles of an image.
    fn tiles(&self, p: &Plan2) -> [i64; 2] {
        let (sizes, outputs) = (sizes(p), self.outputs());
        [0, 1].map(|a| div_up(sizes[a], outputs[a]).max(1))
    }
    /// Bytes of the transformed input of a group and an image.
    fn input_bytes(&self, p: &Plan2) -> i64 {
        self.tiles(p).iter().product::<i64>() * self.products() * div_up(p.cg, BLOCK) * BLOCK * 4
    }
    /// Bytes of the transformed weights of a group.
    fn weight_bytes(&self, p: &Plan2) -> i64 {
        self.products() * p.cg * p.blocks() * BLOCK * 4
    }
    /// The time of a group and an image, as floating-point operations.
    fn cost(&self, p: &Plan2) -> i64 {
        let [n0, n1] = self.axes.map(|a| a.inputs() as i64);
        let [m0, m1] = self.outputs();
        let [down, across] = self.axes.map(Axis::operations);
        let forth = n1 * down + n0 * across + 2 * n0 * n1 + 2 * m0 * m1;
        let back = n1 * down + m0 * across + n0 * n1 + 2 * m0 * m1;
        let vectors = forth * div_up(p.cg, BLOCK) + back * p.blocks();
        let tiles: i64 = self.tiles(p).iter().product();
        let products = 2 * self.products() * p.cg * p.blocks() * BLOCK;
        together(tiles * (products + FLOPS_PER_OPERATION * vectors), self.weight_bytes(p))
    }
}

/// The time, as floating-point operations, of so many while so many bytes of weights are read: most of the shorter one hides behind
/// the longer one.
fn together(flops: i64, bytes: i64) -> i64 {
    let reading = bytes * FLOPS_PER_BYTE;
    flops.max(reading) + flops.min(reading) / 4
}

/// Rows and columns of the result, or what is assumed.
fn sizes(p: &Plan2) -> [i64; 2] {
    [0, 1].map(|a| p.output[a].as_const().unwrap_or(UNKNOWN))
}
