//! Attention in one kernel: a unit takes some queries, and for one block of keys after the other makes their scores, weighs them and adds
//! the weighted values. The scores never leave the first-level cache.
//!
//! The softmax goes along with the blocks (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"; as in Dao et al.
//! 2022, "FlashAttention", algorithm 1): a row keeps the largest score and the sum of weights so far, and where a block brings a larger
//! score, what was added before is scaled down. Where all keys fit one block nothing is scaled.

mod kernel;
#[cfg(test)]
mod tests;

use super::div_up;
use super::operands::transposed;
use crate::kernel::{Access, Elem};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::Launch;
use kernel::Job;
use planish_ir::graph::Use;
use planish_ir::op::attention::Attention;
use planish_ir::op::views::Transpose;
use planish_ir::{Diag, Dim, Graph, NodeId, Op, ValueId};

/// Queries of a unit, at most.
const ROWS: i64 = 32;
/// Keys of a block, at most.
const KEYS: i64 = 128;
/// Keys of a block are a multiple of this, the lanes of the widest vector.
const LANES: i64 = 16;

/// The matrices of an operand or of the result: where they lie along the batch axes of the result, and how far apart rows are.
struct Matrices {
    memory: Opnd,
    batch: Vec<Dim>,
    row: Dim,
}

impl Matrices {
    /// Of dims `dims` with strides `strides`, broadcast to `axes` batch axes.
    fn new(memory: Opnd, dims: &[Dim], strides: &[Dim], axes: usize) -> Matrices {
        let lead = dims.len() - 2;
        let along = |i: usize| match (i + lead).checked_sub(axes) {
            Some(j) if !dims[j].is(1) => strides[j].clone(),
            _ => Dim::Const(0),
        };
        let row = if dims[lead].is(1) { Dim::Const(0) } else { strides[lead].clone() };
        Matrices { memory, batch: (0..axes).map(along).collect(), row }
    }
}

/// Whether rows stay rows.
fn moves_rows(op: &Transpose) -> bool {
    op.perm.len() > 1 && op.perm.last() == Some(&(op.perm.len() - 1))
}

/// What the transposition that makes `v` reads, if attention can read what it reads: it moves whole rows, and only attention reads it.
fn read_through(g: &Graph, v: ValueId) -> Option<(ValueId, &Transpose)> {
    let n = g.def_node(v)?;
    let Op::Transpose(op) = &g.node(n).op else { return None };
    let reader = |u: &Use| match u {
        Use::Node(user, i) => {
            matches!(g.node(*user).op, Op::Attention(_))
                && matches!(i, 0 | 2)
                && g.node(*user).region == g.node(n).region
        }
        Use::Result(..) => false,
    };
    let x = g.node(n).inputs.first().copied().flatten()?;
    (moves_rows(op) && g.uses(v).iter().all(reader) && writer(g, x).is_none()).then_some((x, op))
}

/// The transposition that alone reads `y`, the result of attention, and can be written in its stead.
fn written_through(g: &Graph, n: NodeId, y: ValueId) -> Option<(ValueId, &Transpose)> {
    let [Use::Node(user, 0)] = g.uses(y) else { return None };
    let Op::Transpose(op) = &g.node(*user).op else { return None };
    (moves_rows(op) && g.node(*user).region == g.node(n).region).then(|| (g.node(*user).outputs[0], op))
}

/// Whether the transposition `n` has no kernel of its own, since attention reads or writes through it.
pub(in crate::lower) fn takes_transpose(g: &Graph, n: NodeId) -> bool {
    let read =
        g.node(n).outputs.first().is_some_and(|y| !g.uses(*y).is_empty() && read_through(g, *y).is_some());
    let x = g.node(n).inputs.first().copied().flatten();
    read || x.is_some_and(|x| writer(g, x).is_some())
}

/// The attention that makes `x` and writes through the transposition that reads it.
fn writer(g: &Graph, x: ValueId) -> Option<NodeId> {
    let n = g.def_node(x)?;
    (matches!(g.node(n).op, Op::Attention(_)) && written_through(g, n, x).is_some()).then_some(n)
}

/// Operand `i`, read through a transposition where possible.
fn operand(cx: &mut LowerCx<'_>, i: usize, axes: usize) -> Result<Matrices, Diag> {
    let v = cx.input_value(i)?;
    let (_, dims) = cx.tensor_type(v)?;
    let g = cx.graph;
    if let Some((x, op)) = read_through(g, v) {
        let memory = cx.memory_of(x)?;
        let from = memory.strides();
        let strides: Vec<Dim> = op.perm.iter().map(|p| from[*p].clone()).collect();
        return Ok(Matrices::new(memory, &dims, &strides, axes));
    }
    let memory = cx.memory_of(v)?;
    let strides = memory.strides();
    Ok(Matrices::new(memory, &dims, &strides, axes))
}

/// The result, written through a transposition where possible.
fn result(cx: &mut LowerCx<'_>, axes: usize) -> Result<Matrices, Diag> {
    let (y, (_, dims)) = (cx.output_value(0)?, cx.output_type(0)?);
    let g = cx.graph;
    if let Some((v, op)) = cx.node_id().and_then(|n| written_through(g, n, y)) {
        let memory = cx.own_slot(v)?;
        let to = memory.strides();
        let mut strides = to.clone();
        op.perm.iter().zip(to).for_each(|(p, s)| strides[*p] = s);
        return Ok(Matrices::new(memory, &dims, &strides, axes));
    }
    let memory = cx.output(0)?;
    let strides = memory.strides();
    Ok(Matrices::new(memory, &dims, &strides, axes))
}

/// `n` in equal parts of at most `most`: the size of a part, and of each part if it is known.
fn parts(n: &Dim, most: i64, multiple: i64) -> (i64, Option<i64>) {
    let Some(n) = n.as_const().filter(|n| *n > 0) else { return (most, None) };
    let part = div_up(div_up(n, div_up(n, most)), multiple) * multiple;
    (part, if n <= part { Some(n) } else { (n % part == 0).then_some(part) })
}

pub(in crate::lower) fn lower_attention(cx: &mut LowerCx<'_>, op: &Attention) -> Result<(), Diag> {
    let (_, out) = cx.output_type(0)?;
    let axes = out.len() - 2;
    let (l, e) = (out[axes].clone(), out[axes + 1].clone());
    let q = operand(cx, 0, axes)?;
    let d = cx.tensor_type(cx.input_value(0)?)?.1.pop().unwrap_or(Dim::Const(0));
    let k = if op.trans_k {
        let x = cx.input(1)?;
        let x = transposed(cx, &x)?;
        let (dims, strides) = (x.dims.clone(), x.strides());
        Matrices::new(x, &dims, &strides, axes)
    } else {
        operand(cx, 1, axes)?
    };
    let s = k.memory.dims.last().cloned().unwrap_or(Dim::Const(0));
    let of_keys = cx.tensor_type(cx.input_value(1)?)?.1;
    let of_values = cx.tensor_type(cx.input_value(2)?)?.1;
    let depth = &of_keys[of_keys.len() - if op.trans_k { 1 } else { 2 }];
    cx.require_equal(&d, depth, "the sizes of queries and keys differ");
    cx.require_equal(&s, &of_values[of_values.len() - 2], "the numbers of keys and values differ");
    let v = operand(cx, 2, axes)?;
    let mask = if cx.has(3) {
        let memory = cx.input(3)?;
        // As many axes as scores have; the last one may be 1 as well.
        let mut dims = vec![Dim::Const(1); (axes + 2).saturating_sub(memory.dims.len())];
        dims.extend(memory.dims.iter().cloned());
        let strides = memory.with_dims(dims.clone()).strides();
        let wide = !dims[axes + 1].is(1);
        Some((Matrices::new(memory, &dims, &strides, axes), wide))
    } else {
        None
    };
    let y = result(cx, axes)?;
    let (rows, known_rows) = parts(&l, ROWS, 1);
    let (keys, known_keys) = parts(&s, KEYS, LANES);
    let chunks = l.ceil_div(&rows.into());
    let batch = out[..axes].to_vec();
    let depth = d.add(&e);
    let flops = Dim::product(&batch).mul(&l).mul(&s).mul(&depth).mul(&2.into());
    let cost = s.mul(&depth).mul(&rows.into()).ceil_div(&LANES.into());
    let mut launch = Launch::new("attention").read(&q.memory).read(&k.memory).read(&v.memory);
    launch = launch.raw(&y.memory, Elem::F32, Access::ReadWrite);
    let wide_mask = mask.as_ref().map(|m| m.1);
    let mut matrices = vec![&q, &k, &v, &y];
    if let Some((m, _)) = &mask {
        launch = launch.read(&m.memory);
        matrices.push(m);
    }
    launch = launch.dims(&[l, s.clone(), d, e.clone(), chunks.clone()]).dims(&batch);
    for m in &matrices {
        launch = launch.dims(&m.batch).dim(&m.row);
    }
    launch = launch.extent(Dim::product(&batch).mul(&chunks)).cost(cost).flops(flops);
    let (scale, known_values) = (op.scale, e.as_const());
    let single = s.as_const().is_some_and(|s| s <= keys);
    cx.launch(launch, move |k| {
        let dims = k.dims(0, 5);
        let batch = k.dims(5, axes);
        let strides = |i: usize| k.dims(5 + axes + i * (axes + 1), axes + 1);
        let from = |i: usize| (k.buf(i), strides(i));
        let job = Job {
            q: from(0),
            k: from(1),
            v: from(2),
            y: from(3),
            mask: wide_mask.map(|wide| (k.buf(4), strides(4), wide)),
            scale,
            rows,
            keys,
            known: (known_rows, known_keys, known_values),
            single,
            lanes: k.lanes(Elem::F32).min(LANES as u16),
            target: k.target.clone(),
            s: dims[1],
            d: dims[2],
            e: dims[3],
        };
        job.units(k, dims[0], dims[4], &batch);
    })
}
