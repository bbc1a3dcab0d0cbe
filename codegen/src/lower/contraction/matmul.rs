//! Matrix products.

mod ahead;
mod tiles;

use super::epilogue::Epilogue;
use super::operands::{self, Groups, Panel, pack_blocks, panel_width, transposed};
use super::tile::{balanced, max_vectors};
use super::{div_up, f32_bytes};
use crate::kernel::{Buf, Builder, CmpOp, Elem, TargetSpec, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::compute_elem;
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::nest::decode;
use planish_ir::op::matmul::MatMul;
use planish_ir::{DType, Diag, Dim, ValueId};

/// Rows of one unit of the parallel axis: where neither operand is copied, and at most where the left one is, and where both are.
const ROWS: i64 = 64;
const GROUPED_ROWS: i64 = 66;
const PANEL_ROWS: i64 = 264;
/// Rows from which on a product has the time to read ahead.
const MANY_ROWS: i64 = 28;
/// Bytes of the right operand from which on it is read ahead.
const FAR: i64 = 512 << 10;
/// Elements of a line of the cache.
const LINE: i64 = 16;
/// Steps between which a tile reads some of the next block of the right operand ahead.
const STEPS: i64 = 16;
/// Columns of a block where the right operand is not packed.
const COLUMNS: i64 = 48;
/// Columns of a packed block of which a tile of few registers takes all.
const NARROW: i64 = 16;
/// Sizes of which products fit into 64 bits.
const HUGE: i64 = 1 << 28;
/// Columns of a result from which on it pays to copy the left operand.
const MANY_COLUMNS: i64 = 192;

/// The operands of a matrix product.
pub(in crate::lower) struct Operands {
    pub(in crate::lower) a: Opnd,
    /// Dims of the right operand.
    pub(in crate::lower) b: Vec<Dim>,
    pub(in crate::lower) b_type: DType,
    /// Value of the right operand. It gets memory only where it is not packed.
    pub(in crate::lower) b_value: ValueId,
    /// Dims of the result.
    pub(in crate::lower) out: Vec<Dim>,
}

impl Operands {
    /// Those of the product that is lowered, and its result with nothing behind it.
    pub(super) fn of(cx: &mut LowerCx<'_>) -> Result<(Operands, Epilogue), Diag> {
        let a = cx.input(0)?;
        let b_value = cx.input_value(1)?;
        let (b_type, b) = cx.tensor_type(b_value)?;
        let y = cx.output(0)?;
        let out = y.dims.clone();
        Ok((Operands { a, b, b_type, b_value, out }, Epilogue::none(y)))
    }
}

pub(in crate::lower) fn lower_matmul(cx: &mut LowerCx<'_>, op: &MatMul) -> Result<(), Diag> {
    let (operands, e) = Operands::of(cx)?;
    emit(cx, op, operands, e)
}

/// Columns of a packed block: the widest of the sizes that pad least.
fn block_width(n: i64) -> i64 {
    let padded = |w: i64| div_up(n, w) * w;
    [48, 64, 32, 16].into_iter().min_by_key(|w| padded(*w)).unwrap_or(16)
}

/// The right operand in blocks of columns, if it is one constant matrix of f32, or an expert's of a stack of them.
fn pack(cx: &mut LowerCx<'_>, op: &MatMul, o: &Operands, narrow: bool) -> Result<Option<(Opnd, i64)>, Diag> {
    let rank = o.b.len();
    if o.b[..rank - 2].iter().any(|d| !d.is(1)) || o.a.dtype != DType::F32 {
        return Ok(None);
    }
    let stack = cx.stacked.get(&o.b_value).cloned();
    let found = match &stack {
        Some(s) => cx.f32_elements(cx.graph.constant(s.constant))?,
        None => cx.f32_constant(o.b_value)?,
    };
    let Some(v) = found else {
        return Ok(None);
    };
    let dim = |i: usize| o.b[i].as_const().unwrap_or(0);
    let (k, n) = if op.trans_b { (dim(rank - 1), dim(rank - 2)) } else { (dim(rank - 2), dim(rank - 1)) };
    let width = if narrow { NARROW } else { block_width(n) };
    let blocks = div_up(n, width);
    let parts = stack.as_ref().map_or(1, |s| s.parts);
    let size = (blocks * k * width) as usize;
    let part = |p: usize| pack_blocks(&v[p * (k * n) as usize..], (k, n), op.trans_b, width, k);
    let packed: Vec<f32> = (0..parts).flat_map(part).collect();
    let dims = [Dim::from(packed.len())];
    let mut data = cx.weight(DType::F32, &dims, f32_bytes(&packed));
    if let Some(s) = stack {
        let at = s.number.mul(&Dim::from(4 * size));
        data.slot = cx.view(&data, DType::F32, &[Dim::from(size)], &at);
        data.dims = vec![Dim::from(size)];
    }
    Ok(Some((data, width)))
}

/// Emits a product with what follows it.
pub(in crate::lower) fn emit(
    cx: &mut LowerCx<'_>,
    op: &MatMul,
    mut o: Operands,
    mut e: Epilogue,
) -> Result<(), Diag> {
    let rank = o.out.len();
    let (m, n) = (o.out[rank - 2].clone(), o.out[rank - 1].clone());
    let ar = o.a.dims.len();
    let k_dim = if op.trans_a { o.a.dims[ar - 2].clone() } else { o.a.dims[ar - 1].clone() };
    let br = o.b.len();
    let kb = if op.trans_b { o.b[br - 1].clone() } else { o.b[br - 2].clone() };
    cx.require_equal(&k_dim, &kb, "the inner dims of a matrix product differ");
    let lead = &o.out[..rank - 2];
    cx.require_broadcast(&o.a.dims[..ar - 2], lead);
    cx.require_broadcast(&o.b[..br - 2], lead);
    if cx.simt() {
        return super::simt::emit(cx, op, &o, e);
    }
    if let Some(x) = super::sparse::takes(cx, op, &o) {
        return super::sparse::emit(cx, &o, &x, e);
    }
    let sides = copied(cx, &o, [&m, &n, &k_dim], op);
    let packed = pack(cx, op, &o, sides.is_some())?;
    // With one packed matrix all rows of the left operand are rows of one product.
    let flat = packed.is_some() && !op.trans_a;
    let panel = sides.filter(|_| packed.is_none()).and_then(|(g, _)| panel_width(g.k));
    let b_buf = match &packed {
        Some((data, _)) => data.clone(),
        None => {
            let b = cx.memory_of(o.b_value)?;
            let b = if op.trans_b && panel.is_none() { transposed(cx, &b)? } else { b };
            o.b.clone_from(&b.dims);
            b
        }
    };
    let batch: Vec<Dim> = if flat { Vec::new() } else { o.out[..rank - 2].to_vec() };
    let m = if flat { Dim::product(&o.out[..rank - 1]) } else { m };
    let nb = batch.len();
    let a_batch = batch_dims(&o.a.dims, nb);
    let left = match sides {
        Some((groups, _)) => Left::Groups(groups),
        None if op.trans_a => Left::Columns,
        None => Left::Rows,
    };
    let a_buf = match sides {
        Some((groups, _)) => operands::grouped(cx, &o.a, &Dim::product(&a_batch), groups, op.trans_a)?,
        None => o.a.clone(),
    };
    let width = packed.as_ref().map(|p| p.1).or(panel).unwrap_or(COLUMNS);
    let chunk = match (sides, panel) {
        (None, _) => ROWS,
        (Some((groups, _)), None) => GROUPED_ROWS / groups.rows * groups.rows,
        (Some((groups, _)), Some(_)) => PANEL_ROWS / groups.rows * groups.rows,
    };
    let blocks = n.ceil_div(&width.into());
    let chunks = m.ceil_div(&chunk.into());
    let batches = Dim::product(&batch);
    let flops = Dim::product(&o.out).mul(&k_dim).mul(&2.into());
    let mut l = Launch::new("matmul").read(&a_buf).read(&b_buf);
    l = e.bufs(l, 2);
    l = l.dim(&m).dim(&n).dim(&k_dim).dim(&blocks).dim(&chunks).dims(&batch);
    l = l.dims(&a_batch).dims(&batch_dims(&o.b, nb));
    let cost = m.smaller(&chunk.into()).mul(&k_dim).mul(&(width / 16).into());
    l = l.extent(batches.mul(&blocks).mul(&chunks)).cost(cost).flops(flops);
    let (a_type, b_type) = (o.a.dtype, o.b_type);
    let far =
        o.b.iter().try_fold(4, |n: i64, d| n.checked_mul(d.as_const()?)).is_some_and(|bytes| bytes > FAR);
    // The next unit of several chunks of rows takes the same block.
    let once = packed.is_some() || panel.is_some() && chunks.is(1);
    let ahead = m.as_const().filter(|m| *m >= MANY_ROWS && once && far);
    let streams = sides.is_some_and(|(groups, n)| groups.m * n > FAR / 4) && e.follows_all();
    let packed = packed.is_some();
    let trans_b = op.trans_b;
    let known = (m.as_const(), n.as_const());
    cx.launch(l, move |k| {
        let elem = compute_elem(a_type);
        let lanes = k.lanes(elem);
        let epi = e.handles(k);
        let dims = k.dims(0, 5);
        let batch = k.dims(5, nb);
        let (ad, bd) = if flat { (vec![], vec![]) } else { (k.dims(5 + nb, nb), k.dims(5 + 2 * nb, nb)) };
        let nv = tile_vectors(k.target, width, lanes, known.0);
        let right = match (packed, panel, sides) {
            (true, ..) => Right::Blocks,
            (_, Some(_), Some((groups, n))) => {
                let piece = nv as i64 * i64::from(lanes);
                Right::Panel { panel: Panel::new(k, groups.k, width, piece), n, trans: trans_b }
            }
            _ => Right::Rows,
        };
        let job = Job {
            a: k.buf(0),
            b: k.buf(1),
            a_type,
            b_type,
            elem,
            lanes,
            left,
            right,
            nv,
            width,
            chunk,
            ahead,
            streams,
            m: dims[0],
            n: dims[1],
            k: dims[2],
            e: &e,
            epi: &epi,
            target: k.target.clone(),
        };
        units(k, &job, (dims[3], dims[4]), &batch, &ad, &bd, known);
    })
}

/// The groups of the left operand and the columns of the right one of a product of f32 that is large enough to [copy](operands) its
/// operands. Constant columns are read as one stream as they are packed for many registers.
fn copied(cx: &LowerCx<'_>, o: &Operands, [m, n, k]: [&Dim; 3], op: &MatMul) -> Option<(Groups, i64)> {
    let targets = &cx.options.targets;
    let rows = operands::group_rows(targets)?;
    let few = targets.iter().any(|t| t.registers < 32);
    if o.a.dtype != DType::F32 || o.b_type != DType::F32 || cx.stacked.contains_key(&o.b_value) {
        return None;
    }
    let is_packed = o.b[..o.b.len() - 2].iter().all(|d| d.is(1)) && cx.packs(o.b_value);
    let m = match (is_packed, op.trans_a) {
        (true, true) => return None,
        (true, false) if !few => return None,
        (true, false) => Dim::product(&o.out[..o.out.len() - 1]).as_const()?,
        (false, _) => m.as_const()?,
    };
    let (n, k) = (n.as_const()?, k.as_const()?);
    let large = m >= MANY_ROWS && n >= MANY_COLUMNS && k >= STEPS && [m, n, k].iter().all(|d| *d < HUGE);
    // With many registers a product whose matrices stay near loses up to a tenth by it.
    let far = few || n * k.max(m) >= FAR / 2;
    (large && far && (is_packed || panel_width(k).is_some())).then_some((Groups { m, k, rows }, n))
}

/// How tiles read the left operand.
#[derive(Clone, Copy)]
enum Left {
    Rows,
    Columns,
    Groups(Groups),
}

/// How tiles read the right operand.
#[derive(Clone, Copy)]
enum Right {
    Rows,
    /// Packed blocks of columns.
    Blocks,
    /// What a unit has copied first from `n` columns.
    Panel {
        panel: Panel,
        n: i64,
        trans: bool,
    },
}

/// What all tiles of a kernel share.
struct Job<'j> {
    a: Buf,
    b: Buf,
    a_type: DType,
    b_type: DType,
    elem: Elem,
    lanes: u16,
    left: Left,
    right: Right,
    /// Vectors of a tile.
    nv: usize,
    /// Columns and rows of a unit.
    width: i64,
    chunk: i64,
    /// Rows of the product, if its blocks are read ahead.
    ahead: Option<i64>,
    /// Whether tiles ask for what the next one finishes its sums with.
    streams: bool,
    m: Val,
    n: Val,
    k: Val,
    e: &'j Epilogue,
    epi: &'j [Buf],
    target: TargetSpec,
}

/// The dims of an operand along the `axes` batch axes of the result, 1 where it has none: they tell where it is broadcast.
pub(super) fn batch_dims(x: &[Dim], axes: usize) -> Vec<Dim> {
    let lead = x.len() - 2;
    (0..axes).map(|i| (i + lead).checked_sub(axes).map_or(1.into(), |j| x[j].clone())).collect()
}

/// Offset of a batch in an operand whose batch dims may be 1.
pub(super) fn batch_offset(b: &mut Builder, coords: &[Val], dims: &[Val], matrix: Val) -> Val {
    let mut at = b.i64(0);
    for (c, d) in coords.iter().zip(dims) {
        let single = b.cmp(CmpOp::Eq, *d, 1);
        let c = b.select(single, 0, *c);
        let t = b.mul(at, *d);
        at = b.add(t, c);
    }
    b.mul(at, matrix)
}

/// The loop over batches, blocks of columns and chunks of rows.
fn units(
    k: &mut KernelCx<'_>,
    job: &Job<'_>,
    (blocks, chunks): (Val, Val),
    batch: &[Val],
    ad: &[Val],
    bd: &[Val],
    known: (Option<i64>, Option<i64>),
) {
    k.b.parallel_for(|b, unit| {
        let (rest, chunk) = b.div_rem(unit, chunks);
        let (which, block) = b.div_rem(rest, blocks);
        let coords = decode(b, which, batch);
        let a_size = match job.left {
            Left::Groups(groups) => b.i64(groups.size()),
            Left::Rows | Left::Columns => b.mul(job.m, job.k),
        };
        let a0 = batch_offset(b, &coords, ad, a_size);
        let b_size = b.mul(job.k, job.n);
        let b0 = match job.right {
            Right::Blocks => {
                let steps = b.mul(block, job.k);
                b.mul(steps, job.width)
            }
            Right::Rows => {
                let at = batch_offset(b, &coords, bd, b_size);
                b.at(at, block, job.width)
            }
            Right::Panel { .. } => b.i64(0),
        };
        let c_size = b.mul(job.m, job.n);
        let c0 = b.mul(which, c_size);
        let m0 = b.mul(chunk, job.chunk);
        let rows = b.sub(job.m, m0);
        let rows = b.smin(rows, job.chunk);
        let n0 = b.mul(block, job.width);
        let columns = b.sub(job.n, n0);
        let columns = b.smin(columns, job.width);
        let mut matrix = b.i64(0);
        if let Right::Panel { panel, n, trans } = job.right {
            let from = batch_offset(b, &coords, bd, b_size);
            matrix = from;
            if trans {
                let from = b.at(from, n0, job.k);
                panel.fill_transposed(b, (job.b, from), columns, job.lanes);
            } else {
                let from = b.add(from, n0);
                panel.fill(b, (job.b, from), n, columns, (job.width, job.lanes));
            }
        }
        let at = Corner { a0, b0, panel: matrix, c0, m0, n0 };
        job.tiles(b, &at, rows, columns, known);
    });
}

/// Where a unit begins.
struct Corner {
    a0: Val,
    b0: Val,
    /// Where the matrix begins that a panel is copied from.
    panel: Val,
    c0: Val,
    m0: Val,
    n0: Val,
}

/// Vectors of a tile in blocks of `width` columns, for `m` rows. A width that is no multiple of the widest tile is cut evenly.
fn tile_vectors(target: &TargetSpec, width: i64, lanes: u16, m: Option<i64>) -> usize {
    let per_block = (width / i64::from(lanes)).max(1) as usize;
    let nv = match m {
        Some(m @ 1..=6) => widest(target, m as usize, per_block),
        _ => max_vectors(target).min(per_block),
    };
    let pieces = balanced(per_block, nv);
    if pieces.iter().all(|p| *p == pieces[0]) { pieces[0] } else { 1 }
}

/// Vectors of a tile of few rows, a divisor of those of a block: as many as the registers hold. What limits these
/// products is reading the right operand, which should be one stream: a block that is read in two passes comes from
/// memory twice.
pub(super) fn widest(target: &TargetSpec, rows: usize, per_block: usize) -> usize {
    let registers = usize::from(target.registers);
    // The vectors of a single row are operands in memory.
    let held = |nv: usize| rows * nv + if rows == 1 { 1 } else { nv } + 1;
    (1..=per_block).rev().find(|nv| per_block.is_multiple_of(*nv) && held(*nv) <= registers).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_take_a_block_in_one_pass_where_registers_hold_it() {
        let (wide, narrow) = (TargetSpec::x86_64_v4(), TargetSpec::x86_64_v3());
        assert_eq!([1, 2, 6].map(|m| widest(&wide, m, 4)), [4, 4, 4]);
        assert_eq!([1, 2, 6].map(|m| widest(&narrow, m, 8)), [8, 4, 2]);
        assert_eq!(widest(&narrow, 6, 3), 1);
    }
}
