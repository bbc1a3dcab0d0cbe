//! The second operand of a product of stored integers, packed at compile time.
//!
//! Signed bytes `[n / width][k / 4][width][4]`, zeros where there is nothing: a vector of 32-bit lanes holds four
//! neighbours along k of as many columns, as instructions for dot products of four bytes want them. Unsigned elements
//! have 128 taken away. Zero points are taken off the elements of every column that still fits into bytes then; the
//! columns for which it does not keep theirs.

use super::product::Sides;
use crate::lower::cx::{LowerCx, Opnd};
use bytes::Bytes;
use planish_ir::{DType, Diag, Dim, Encoding, Matrix, Order, ValueId};

/// Neighbours along k in one lane.
pub(super) const GROUP: usize = 4;

/// A packed operand.
pub(super) struct Packed {
    /// The signed bytes.
    pub(super) data: Opnd,
    /// Sum of every column of `data`, i32.
    pub(super) sums: Opnd,
    /// What remains to be taken off the elements of every column, i32; none if nothing does.
    pub(super) zeros: Option<Opnd>,
    /// Columns of a block, a multiple of 16.
    pub(super) width: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    /// Which groups along k there are for each block of columns, where that is not all of them.
    pub(super) lists: Option<Lists>,
}

/// Groups along k of every block of columns: where the list of each begins (and the last one ends), and the groups. `data` holds
/// only these.
#[derive(Clone)]
pub(super) struct Lists {
    pub(super) starts: Opnd,
    pub(super) index: Opnd,
    /// Groups of all lists.
    pub(super) count: usize,
}

/// The second operand where it is kept in blocks of 4 x 16 signed bytes without zero points.
pub(super) fn pack_blocks(cx: &mut LowerCx<'_>, s: &Sides) -> Option<Packed> {
    let c = cx.constant(s.b)?;
    let Encoding::BlockSparse { block: [4, 16], order: Order::Kn, index, values } = &c.encoding else {
        return None;
    };
    let m = Matrix::new(&c.shape, Order::Kn)?;
    let whole = c.shape.len() == 2 && m.k.is_multiple_of(GROUP) && s.k().as_const() == Some(m.k as i64);
    if c.dtype != DType::I8 || cx.dry || !whole || s.b_zero().is_some() || m.n == 0 {
        return None;
    }
    const WIDTH: usize = 16;
    let strips = m.n.div_ceil(WIDTH);
    let mut lists: Vec<Vec<(i32, &[u8])>> = vec![Vec::new(); strips];
    for (at, v) in index.iter().zip(values.bytes().chunks_exact(GROUP * WIDTH)) {
        lists[*at as usize % strips].push(((*at as usize / strips) as i32, v));
    }
    let (mut starts, mut groups, mut data) = (vec![0i32], Vec::new(), Vec::new());
    let mut sums = vec![0i32; strips * WIDTH];
    for (list, sums) in lists.iter().zip(sums.chunks_exact_mut(WIDTH)) {
        for (group, v) in list {
            groups.push(*group);
            for (j, sum) in sums.iter_mut().enumerate() {
                for t in 0..GROUP {
                    let x = v[t * WIDTH + j];
                    data.push(x);
                    *sum += i32::from(x.cast_signed());
                }
            }
        }
        starts.push(groups.len() as i32);
    }
    let mut ints = |v: &[i32]| cx.weight(DType::I32, &[Dim::from(v.len())], i32_bytes(v));
    let lists = Lists { starts: ints(&starts), index: ints(&groups), count: groups.len() };
    let sums = ints(&sums);
    let data = cx.weight(DType::I8, &[Dim::from(data.len())], data.into());
    Some(Packed { data, sums, zeros: None, width: WIDTH, k: m.k, n: m.n, lists: Some(lists) })
}

/// Columns of a block: the widest of the sizes that pad least.
fn block_width(n: usize) -> usize {
    [64, 48, 32, 16].into_iter().min_by_key(|w| n.next_multiple_of(*w)).unwrap_or(16)
}

/// The bytes of a constant of 8-bit integers.
fn constant(cx: &LowerCx<'_>, v: ValueId) -> Result<Option<Bytes>, Diag> {
    match cx.constant(v) {
        Some(c) if !cx.dry && matches!(c.dtype, DType::U8 | DType::I8) => {
            Ok(Some(c.decode()?.bytes().clone()))
        }
        _ => Ok(None),
    }
}

fn i32_bytes(v: &[i32]) -> Bytes {
    v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
}

/// The second operand packed, if it and its zero points are constants and it is one matrix.
pub(super) fn pack(cx: &mut LowerCx<'_>, s: &Sides) -> Result<Option<Packed>, Diag> {
    let rank = s.b_dims.len();
    let one_matrix = s.b_dims[..rank - 2].iter().all(|d| d.is(1));
    let (Some(k), Some(n)) = (s.b_dims[rank - 2].as_const(), s.b_dims[rank - 1].as_const()) else {
        return Ok(None);
    };
    let (k, n) = (k as usize, n as usize);
    if !one_matrix || k == 0 || n == 0 || s.k().as_const() != Some(k as i64) {
        return Ok(None);
    }
    let Some(b) = constant(cx, s.b)? else { return Ok(None) };
    let zero = match s.b_zero() {
        None => None,
        Some(z) => match constant(cx, z)? {
            Some(z) => Some(z),
            None => return Ok(None),
        },
    };
    let unsigned = s.b_type == DType::U8;
    let signed = |x: u8| i32::from((if unsigned { x ^ 0x80 } else { x }).cast_signed());
    let none = if unsigned { -128 } else { 0 };
    let mut zeros: Vec<i32> = match &zero {
        None => vec![none; n],
        Some(z) if z.len() == 1 => vec![signed(z[0]); n],
        Some(z) if z.len() == n => z.iter().map(|z| signed(*z)).collect(),
        Some(_) => return Ok(None),
    };
    let (mut low, mut high) = (vec![i8::MAX; n], vec![i8::MIN; n]);
    for row in b.chunks_exact(n) {
        for ((low, high), x) in low.iter_mut().zip(&mut high).zip(row) {
            let x = signed(*x) as i8;
            *low = x.min(*low);
            *high = x.max(*high);
        }
    }
    let range = i32::from(i8::MIN)..=i32::from(i8::MAX);
    let mut taken = vec![0; n];
    for (j, z) in zeros.iter_mut().enumerate() {
        if range.contains(&(i32::from(low[j]) - *z)) && range.contains(&(i32::from(high[j]) - *z)) {
            taken[j] = std::mem::take(z);
        }
    }
    let width = block_width(n);
    let (blocks, groups) = (n.div_ceil(width), k.div_ceil(GROUP));
    let mut packed = vec![0u8; blocks * groups * width * GROUP];
    let mut sums = vec![0i32; blocks * width];
    for (i, row) in b.chunks_exact(n).enumerate() {
        let (group, t) = (i / GROUP, i % GROUP);
        for (j, x) in row.iter().enumerate() {
            let (block, c) = (j / width, j % width);
            let x = signed(*x) - taken[j];
            packed[((block * groups + group) * width + c) * GROUP + t] = (x as i8).cast_unsigned();
            sums[j] = sums[j].wrapping_add(x);
        }
    }
    let count = Dim::from(blocks * width);
    zeros.resize(blocks * width, 0);
    let zeros = zeros
        .iter()
        .any(|z| *z != 0)
        .then(|| cx.weight(DType::I32, std::slice::from_ref(&count), i32_bytes(&zeros)));
    let data = cx.weight(DType::I8, &[Dim::from(packed.len())], packed.into());
    let sums = cx.weight(DType::I32, &[count], i32_bytes(&sums));
    Ok(Some(Packed { data, sums, zeros, width, k, n, lists: None }))
}
