//! Blocks of an image added up: each element of the image gathers what the blocks hold of it.

use crate::kernel::{CmpOp, Ty, Val};
use crate::lower::cx::LowerCx;
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::nest::decode;
use planish_ir::dim::SymOrigin;
use planish_ir::op::col2im::Col2Im;
use planish_ir::{DType, Diag, Dim};

pub(in crate::lower) fn lower_col2im(cx: &mut LowerCx<'_>, op: &Col2Im) -> Result<(), Diag> {
    let (x, image, block) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let axes = op.strides.len();
    let shape = cx.output_type(0)?.1;
    let (zero, most) = (Dim::Const(0), Dim::Const(1 << 31));
    let free = |cx: &LowerCx<'_>, d: &Dim| {
        d.as_symbol().is_some_and(|s| cx.graph.symbols.get(s).origin == SymOrigin::Data)
            && !x.dims.contains(d)
    };
    if cx.ints(1).is_none() {
        for a in 0..axes {
            if free(cx, &shape[a + 2]) {
                cx.bind(&shape[a + 2], &image, a as u32, &zero, &most, "a dim of the image is out of range")?;
            }
        }
    }
    if cx.ints(2).is_none() && free(cx, &shape[1]) {
        let count = cx.temp(DType::I64, &[1.into()]);
        let l = Launch::new("col2im_channels").read(&block).write(&count).dim(&x.dims[1]);
        cx.launch(l, |k| {
            let (block, to, rows) = (k.buf(0), k.buf(1), k.dim(0));
            k.b.parallel_for(|b, _| {
                let mut size = b.i64(1);
                for a in 0..axes {
                    let d = b.load(block, a as i64, 1);
                    size = b.mul(size, d);
                }
                let n = b.sdiv(rows, size);
                let whole = b.mul(n, size);
                // A block size that does not divide the rows gives no channels at all, which the range rejects.
                let fits = b.cmp(CmpOp::Eq, whole, rows);
                let n = b.select(fits, n, -1);
                b.store(to, 0, n);
            });
        })?;
        cx.bind(&shape[1], &count, 0, &zero, &most, "the size of a block does not divide the rows")?;
    }
    let y = cx.output(0)?;
    let error = cx.error("the columns do not fit the image and its blocks");
    let l = Launch::new("col2im")
        .read(&x)
        .read(&block)
        .write(&y)
        .raises(error)
        .dim(&x.dims[1])
        .dim(&x.dims[2])
        .dims(&y.dims)
        .extent(y.elems())
        .cost(64);
    cx.launch(l, |k| kernel(k, op, x.dtype))
}

/// One step of the parallel axis is one element of the image.
fn kernel(k: &mut KernelCx<'_>, op: &Col2Im, d: DType) {
    let axes = op.strides.len();
    let (x, block, y) = (k.buf(0), k.buf(1), k.buf(2));
    let (rows, columns) = (k.dim(0), k.dim(1));
    let dims = k.dims(2, axes + 2);
    let error = k.error(0);
    k.b.parallel_for(|b, unit| {
        let at = decode(b, unit, &dims);
        let blocks: Vec<Val> = (0..axes).map(|a| b.load(block, a as i64, 1)).collect();
        let (mut counts, mut size, mut total) = (Vec::new(), b.i64(1), b.i64(1));
        for a in 0..axes {
            let reach = b.sub(blocks[a], 1);
            let reach = b.mul(reach, op.dilations[a]);
            let room = b.add(dims[a + 2], op.pads[a] + op.pads[a + axes] - 1);
            let room = b.sub(room, reach);
            let some = b.cmp(CmpOp::Sge, room, 0);
            let n = b.sdiv(room, op.strides[a]);
            let n = b.add(n, 1);
            let n = b.select(some, n, 0);
            total = b.mul(total, n);
            size = b.mul(size, blocks[a]);
            counts.push(n);
        }
        // Nothing is read where the operands contradict each other.
        let have = b.mul(size, dims[1]);
        let (wrong_rows, wrong_blocks) = (b.cmp(CmpOp::Ne, have, rows), b.cmp(CmpOp::Ne, total, columns));
        let wrong = b.or(wrong_rows, wrong_blocks);
        b.error_if(wrong, error);
        let elements = b.select(wrong, 0, size);
        let plane = b.at(at[1], at[0], dims[1]);
        let zero = b.zero(Ty::vec(compute_elem(d), 1));
        let sum = b.for_(0, elements, 1, &[zero], |b, e, acc| {
            let index = decode(b, e, &blocks);
            let (mut column, mut ok) = (b.i64(0), b.cmp(CmpOp::Sge, e, 0));
            for a in 0..axes {
                let back = b.mul(index[a], op.dilations[a]);
                let from = b.add(at[a + 2], op.pads[a]);
                let from = b.sub(from, back);
                let p = b.sdiv(from, op.strides[a]);
                let whole = b.mul(p, op.strides[a]);
                let (exact, sound) = (b.cmp(CmpOp::Eq, whole, from), b.cmp(CmpOp::Sge, from, 0));
                let below = b.cmp(CmpOp::Slt, p, counts[a]);
                for c in [exact, sound, below] {
                    ok = b.and(ok, c);
                }
                column = b.at(p, column, counts[a]);
            }
            b.if_(
                ok,
                |b| {
                    let row = b.at(e, plane, size);
                    let from = b.at(column, row, columns);
                    let v = load(b, d, x, from, 1, None);
                    vec![b.fadd(acc[0], v)]
                },
                |_| acc.to_vec(),
            )
        })[0];
        store(b, d, y, unit, sum, None);
    });
}
