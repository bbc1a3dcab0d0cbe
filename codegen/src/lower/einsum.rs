//! Sums of products by index letters: one result at a time, for what is no matrix product.

use super::cx::{LowerCx, Opnd};
use super::elem::{convert, load, store};
use super::launch::Launch;
use super::nest::{for_indices, over};
use crate::kernel::{Buf, Builder, CmpOp, Ty, Val};
use planish_ir::op::einsum::{Einsum, EinsumSpec};
use planish_ir::{DType, Diag, Dim};

pub(super) fn lower_einsum(cx: &mut LowerCx<'_>, op: &Einsum) -> Result<(), Diag> {
    let n = cx.node().inputs.len();
    let ins: Vec<Opnd> = (0..n).map(|i| cx.input(i)).collect::<Result<_, _>>()?;
    let ranks: Vec<usize> = ins.iter().map(|x| x.dims.len()).collect();
    let spec = EinsumSpec::parse(&op.equation, &ranks)?;
    let y = cx.output(0)?;
    // The size of every index: a broadcast one is 1 in some operands.
    let mut sizes = vec![Dim::Const(1); spec.count];
    for (x, term) in ins.iter().zip(&spec.inputs) {
        for (d, i) in x.dims.iter().zip(term) {
            if sizes[*i].is(1) {
                sizes[*i] = d.clone();
            } else if !d.is(1) && sizes[*i] != *d {
                // Equal, or one of them is 1.
                let (one, s) = (Dim::Const(1), &sizes[*i]);
                let clash = d.sub(&one).mul(&s.sub(&one)).mul(&d.sub(s));
                let larger = s.larger(d);
                cx.require_equal(&clash, &Dim::Const(0), "an index has two sizes");
                sizes[*i] = larger;
            }
        }
    }
    let summed: Vec<usize> = (0..spec.count).filter(|i| !spec.output.contains(i)).collect();
    let mut steps: Vec<Dim> = Vec::new();
    for (x, term) in ins.iter().zip(&spec.inputs) {
        let st = x.strides();
        let mut all = vec![Dim::Const(0); spec.count];
        for ((d, s), i) in x.dims.iter().zip(st).zip(term) {
            if !d.is(1) {
                all[*i] = all[*i].add(&s);
            }
        }
        steps.extend(all);
    }
    let (count, rank, dtype) = (spec.count, spec.output.len(), y.dtype);
    let work = summed.iter().fold(Dim::Const(2), |w, i| w.mul(&sizes[*i]));
    let mut l = ins.iter().fold(Launch::new("einsum"), |l, x| l.read(x)).write(&y);
    l = l.dims(&sizes).dims(&steps);
    let outer = spec.output.clone();
    // Dims that may be 1 at run time although the index is longer.
    let checks: Vec<(usize, usize, Dim)> = ins
        .iter()
        .zip(&spec.inputs)
        .enumerate()
        .flat_map(|(t, (x, term))| term.iter().zip(&x.dims).map(move |(i, d)| (t, *i, d.clone())))
        .filter(|(_, i, d)| d.as_const().is_none() && sizes[*i] != *d)
        .collect();
    let check_dims: Vec<Dim> = checks.iter().map(|c| c.2.clone()).collect();
    l = l.dims(&check_dims).flops(y.elems().mul(&work));
    let at = count + steps.len() + checks.len();
    let mut l = over(cx.chunk(), l, &y.dims, 1);
    if let Some(w) = work.as_const() {
        l = l.cost(w.saturating_mul(4));
    }
    cx.launch(l, move |k| {
        let bufs: Vec<Buf> = (0..n).map(|i| k.buf(i)).collect();
        let y = k.buf(n);
        let sizes = k.dims(0, count);
        let mut steps: Vec<Vec<Val>> = (0..n).map(|t| k.dims(count + t * count, count)).collect();
        for (c, (t, i, _)) in checks.iter().enumerate() {
            let d = k.dim(count + n * count + c);
            let single = k.b.cmp(CmpOp::Eq, d, 1);
            steps[*t][*i] = k.b.select(single, 0, steps[*t][*i]);
        }
        for_indices(k, at, rank, |b, index, flat| {
            let base: Vec<Val> = steps
                .iter()
                .map(|s| {
                    let st: Vec<Val> = outer.iter().map(|i| s[*i]).collect();
                    super::nest::offset(b, index, &st)
                })
                .collect();
            let wide = if dtype.is_float() { DType::F64 } else { dtype };
            let zero = b.zero(Ty::scalar(super::elem::compute_elem(wide)));
            let nest = Sum { bufs: &bufs, steps: &steps, dtype, wide };
            let v = nest.run(b, &summed, &sizes, base, zero);
            let v = convert(b, v, wide, dtype);
            store(b, dtype, y, flat, v, None);
        });
    })
}

struct Sum<'a> {
    bufs: &'a [Buf],
    steps: &'a [Vec<Val>],
    dtype: DType,
    wide: DType,
}

impl Sum<'_> {
    /// Adds the products over all values of the remaining indices.
    fn run(&self, b: &mut Builder, left: &[usize], sizes: &[Val], at: Vec<Val>, acc: Val) -> Val {
        let Some((i, left)) = left.split_first() else {
            let mut product: Option<Val> = None;
            for (buf, p) in self.bufs.iter().zip(&at) {
                let v = load(b, self.dtype, *buf, *p, 1, None);
                let v = convert(b, v, self.dtype, self.wide);
                product = Some(match product {
                    None => v,
                    Some(x) if self.wide == DType::F64 => b.fmul(x, v),
                    Some(x) => b.mul(x, v),
                });
            }
            return match product {
                Some(p) if self.wide == DType::F64 => b.fadd(acc, p),
                Some(p) => b.add(acc, p),
                None => acc,
            };
        };
        b.for_(0, sizes[*i], 1, &[acc], |b, j, now| {
            let next = at.iter().zip(self.steps).map(|(p, s)| b.at(*p, j, s[*i])).collect();
            vec![self.run(b, left, sizes, next, now[0])]
        })[0]
    }
}
