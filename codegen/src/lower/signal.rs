//! Determinants, Fourier transforms and random numbers.

use super::cx::LowerCx;
use super::elem::{convert, load, store};
use super::launch::{CHUNK, Launch};
use super::nest::span;
use crate::kernel::{Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::math;
use planish_ir::op::normalize_axis;
use planish_ir::op::random::{Random, stream};
use planish_ir::op::signal::{Dft, SignalWindow, Stft, WindowKind};
use planish_ir::{DType, Diag, Dim};

/// Elimination with the largest pivot of each column, in 64 bits, on a copy.
pub(super) fn lower_det(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let y = cx.output(0)?;
    let rank = x.dims.len();
    let n = x.dims[rank - 1].clone();
    cx.require_equal(&x.dims[rank - 2], &n, "a determinant needs a square matrix");
    let d = x.dtype;
    let copy = cx.temp(DType::F64, &x.dims);
    let work = n.mul(&n).mul(&n);
    let l = Launch::new("det").read(&x).write(&y).update(&copy).dim(&n).extent(y.elems()).cost(work);
    cx.launch(l, move |k| {
        let (x, y, m, n) = (k.buf(0), k.buf(1), k.buf(2), k.dim(0));
        k.b.parallel_for(|b, unit| {
            let area = b.mul(n, n);
            let base = b.mul(unit, area);
            b.loop_(0, area, 1, |b, i| {
                let at = b.add(base, i);
                let v = load(b, d, x, at, 1, None);
                let v = convert(b, v, d, DType::F64);
                b.store(m, at, v);
            });
            let one = b.float(Ty::F64, 1.0);
            let det = b.for_(0, n, 1, &[one], |b, c, now| vec![eliminate(b, m, base, n, c, now[0])]);
            let v = convert(b, det[0], DType::F64, d);
            store(b, d, y, unit, v, None);
        });
    })
}

/// Clears column `c` below the diagonal; gives `det` times the pivot.
fn eliminate(b: &mut Builder, m: Buf, base: Val, n: Val, c: Val, det: Val) -> Val {
    let at = move |b: &mut Builder, r: Val, j: Val| {
        let p = b.mul(r, n);
        let p = b.add(p, j);
        b.add(base, p)
    };
    let first = b.float(Ty::F64, -1.0);
    let best = b.for_(c, n, 1, &[first, c], |b, r, now| {
        let p = at(b, r, c);
        let v = b.load(m, p, 1);
        let v = b.fabs(v);
        let more = b.cmp(CmpOp::FGt, v, now[0]);
        vec![b.select(more, v, now[0]), b.select(more, r, now[1])]
    });
    let pivot_row = best[1];
    let swap = b.cmp(CmpOp::Ne, pivot_row, c);
    b.when(swap, |b| {
        b.loop_(0, n, 1, |b, j| {
            let (p, q) = (at(b, pivot_row, j), at(b, c, j));
            let (v, w) = (b.load(m, p, 1), b.load(m, q, 1));
            b.store(m, p, w);
            b.store(m, q, v);
        });
    });
    let flipped = b.fneg(det);
    let det = b.select(swap, flipped, det);
    let p = at(b, c, c);
    let pivot = b.load(m, p, 1);
    let some = b.cmp(CmpOp::FNe, pivot, 0.0);
    b.when(some, |b| {
        let below = b.add(c, 1);
        b.loop_(below, n, 1, |b, r| {
            let p = at(b, r, c);
            let v = b.load(m, p, 1);
            let f = b.fdiv(v, pivot);
            b.loop_(c, n, 1, |b, j| {
                let (p, q) = (at(b, r, j), at(b, c, j));
                let (v, w) = (b.load(m, p, 1), b.load(m, q, 1));
                let t = b.fmul(f, w);
                let v = b.fsub(v, t);
                b.store(m, p, v);
            });
        });
    });
    b.fmul(det, pivot)
}

/// One bin of a transform: the sum of `element(i)` turned by `i * k / n`, forward or backward, in 64 bits.
fn bin(
    b: &mut Builder,
    n: Val,
    k: Val,
    inverse: bool,
    element: &dyn Fn(&mut Builder, Val) -> (Val, Val),
) -> (Val, Val) {
    let zero = b.float(Ty::F64, 0.0);
    let size = b.sitofp(n, Elem::F64);
    // The turn is kept as an integer, so that angles stay small.
    let start = b.i64(0);
    let sum = b.for_(0, n, 1, &[zero, zero, start], |b, i, now| {
        let (re, im) = element(b, i);
        let t = b.sitofp(now[2], Elem::F64);
        let t = b.fdiv(t, size);
        let t = b.fmul(t, if inverse { std::f64::consts::TAU } else { -std::f64::consts::TAU });
        let (s, c) = (math::sin(b, t), math::cos(b, t));
        let (rc, is) = (b.fmul(re, c), b.fmul(im, s));
        let (rs, ic) = (b.fmul(re, s), b.fmul(im, c));
        let (dr, di) = (b.fsub(rc, is), b.fadd(rs, ic));
        let turn = b.add(now[2], k);
        let beyond = b.cmp(CmpOp::Sge, turn, n);
        let less = b.sub(turn, n);
        let turn = b.select(beyond, less, turn);
        vec![b.fadd(now[0], dr), b.fadd(now[1], di), turn]
    });
    if !inverse {
        return (sum[0], sum[1]);
    }
    (b.fdiv(sum[0], size), b.fdiv(sum[1], size))
}

pub(super) fn lower_dft(cx: &mut LowerCx<'_>, op: &Dft) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let (_, out) = cx.output_type(0)?;
    let rank = x.dims.len();
    let axis = match (cx.has(2), cx.const_ints(2).as_deref()) {
        (false, _) => rank - 2,
        (true, Some([a])) => normalize_axis(*a, rank)?,
        _ => return Err(Diag::unsupported("the axis of a transform must be known")),
    };
    let real_result = op.inverse && op.onesided;
    let length = match (cx.has(1), cx.ints(1).as_deref()) {
        (true, Some([n])) => n.clone(),
        (true, _) => return Err(Diag::unsupported("the length of a transform must be known")),
        (false, _) if real_result => {
            x.dims[axis].sub(&Dim::Const(1)).mul(&Dim::Const(2)).larger(&Dim::Const(0))
        }
        (false, _) => x.dims[axis].clone(),
    };
    let Some(parts) = x.dims[rank - 1].as_const() else {
        return Err(Diag::unsupported("whether numbers are complex must be known"));
    };
    let y = cx.output(0)?;
    let (n, bins) = (x.dims[axis].clone(), out[axis].clone());
    let after = Dim::product(&x.dims[axis + 1..rank - 1]);
    let before = Dim::product(&x.dims[..axis]);
    let (d, inverse) = (x.dtype, op.inverse);
    let l = Launch::new("dft").read(&x).write(&y).dim(&n).dim(&bins).dim(&after).dim(&length);
    let l = l.extent(before.mul(&bins).mul(&after)).cost(length.mul(&Dim::Const(80)));
    cx.launch(l, move |k| {
        let (x, y) = (k.buf(0), k.buf(1));
        let (n, bins, after, len) = (k.dim(0), k.dim(1), k.dim(2), k.dim(3));
        k.b.parallel_for(|b, unit| {
            // unit = (outer * bins + bin) * after + a
            let (row, a) = b.div_rem(unit, after);
            let (o, which) = b.div_rem(row, bins);
            let element = |b: &mut Builder, i: Val| {
                // Of a half spectrum, the other half is the conjugate.
                let back = b.sub(len, i);
                let double = b.add(i, i);
                let upper = b.cmp(CmpOp::Sgt, double, len);
                let at = if real_result { b.select(upper, back, i) } else { i };
                let inside = b.cmp(CmpOp::Slt, at, n);
                let got = b.if_(
                    inside,
                    |b| {
                        let p = b.mul(o, n);
                        let p = b.add(p, at);
                        let p = b.mul(p, after);
                        let p = b.add(p, a);
                        let p = b.mul(p, parts);
                        let re = load(b, d, x, p, 1, None);
                        let re = convert(b, re, d, DType::F64);
                        if parts == 1 {
                            let zero = b.float(Ty::F64, 0.0);
                            return vec![re, zero];
                        }
                        let q = b.add(p, 1);
                        let im = load(b, d, x, q, 1, None);
                        vec![re, convert(b, im, d, DType::F64)]
                    },
                    |b| {
                        let zero = b.float(Ty::F64, 0.0);
                        vec![zero, zero]
                    },
                );
                if !real_result {
                    return (got[0], got[1]);
                }
                let conjugate = b.fneg(got[1]);
                let im = b.select(upper, conjugate, got[1]);
                // The first and the middle bin of a real signal are real.
                let first = b.cmp(CmpOp::Eq, i, 0);
                let middle = b.cmp(CmpOp::Eq, double, len);
                let real = b.or(first, middle);
                let zero = b.float(Ty::F64, 0.0);
                (got[0], b.select(real, zero, im))
            };
            let (re, im) = bin(b, len, which, inverse, &element);
            let re = convert(b, re, DType::F64, d);
            if real_result {
                return store(b, d, y, unit, re, None);
            }
            let to = b.add(unit, unit);
            store(b, d, y, to, re, None);
            let im = convert(b, im, DType::F64, d);
            let to = b.add(to, 1);
            store(b, d, y, to, im, None);
        });
    })
}

pub(super) fn lower_stft(cx: &mut LowerCx<'_>, _: &Stft) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let window = cx.opt_input(2)?;
    let one = |cx: &LowerCx<'_>, i: usize| cx.ints(i).filter(|v| v.len() == 1).map(|v| v[0].clone());
    let length = match (cx.has(3), &window) {
        (true, _) => one(cx, 3),
        (false, Some(w)) => Some(w.dims[0].clone()),
        (false, None) => Some(x.dims[1].clone()),
    };
    let (Some(step), Some(length), Some(parts)) = (one(cx, 1), length, x.dims[2].as_const()) else {
        return Err(Diag::unsupported("step, frame length and kind of number must be known"));
    };
    if !(1..=2).contains(&parts) {
        return Err(Diag::error("shape-mismatch", format!("numbers of {parts} parts")));
    }
    let y = cx.output(0)?;
    let (frames, bins, n) = (y.dims[1].clone(), y.dims[2].clone(), x.dims[1].clone());
    let width = window.as_ref().map_or(Dim::Const(0), |w| w.dims[0].clone());
    let d = x.dtype;
    let mut l = Launch::new("stft").read(&x).write(&y);
    l = window.iter().fold(l, |l, w| l.read(w));
    l = l.dims(&[n, frames.clone(), bins.clone(), step, length.clone(), width]);
    let l = l.extent(y.dims[0].mul(&frames).mul(&bins)).cost(length.mul(&Dim::Const(80)));
    let windowed = window.is_some();
    cx.launch(l, move |k| {
        let (x, y) = (k.buf(0), k.buf(1));
        let window = windowed.then(|| k.buf(2));
        let [n, frames, bins, step, len, width] = [0, 1, 2, 3, 4, 5].map(|i| k.dim(i));
        k.b.parallel_for(|b, unit| {
            let (row, which) = b.div_rem(unit, bins);
            let (o, frame) = b.div_rem(row, frames);
            let base = b.mul(o, n);
            let base = b.at(base, frame, step);
            let element = |b: &mut Builder, i: Val| {
                let p = b.add(base, i);
                let p = b.mul(p, parts);
                let v = load(b, d, x, p, 1, None);
                let mut re = convert(b, v, d, DType::F64);
                let mut im = b.float(Ty::F64, 0.0);
                if parts == 2 {
                    let q = b.add(p, 1);
                    let v = load(b, d, x, q, 1, None);
                    im = convert(b, v, d, DType::F64);
                }
                if let Some(w) = window {
                    let inside = b.cmp(CmpOp::Slt, i, width);
                    let f = b.if_(
                        inside,
                        |b| {
                            let f = load(b, d, w, i, 1, None);
                            vec![convert(b, f, d, DType::F64)]
                        },
                        |b| vec![b.float(Ty::F64, 0.0)],
                    );
                    re = b.fmul(re, f[0]);
                    im = b.fmul(im, f[0]);
                }
                (re, im)
            };
            let (re, im) = bin(b, len, which, false, &element);
            let to = b.add(unit, unit);
            let re = convert(b, re, DType::F64, d);
            store(b, d, y, to, re, None);
            let to = b.add(to, 1);
            let im = convert(b, im, DType::F64, d);
            store(b, d, y, to, im, None);
        });
    })
}

pub(super) fn lower_window(cx: &mut LowerCx<'_>, op: &SignalWindow) -> Result<(), Diag> {
    let size = cx.input(0)?;
    let (d, dims) = cx.output_type(0)?;
    if super::movement::is_fresh(cx, &dims[0]) {
        cx.bind(&dims[0], &size, 0, &Dim::Const(0), &Dim::Const(1 << 40), "the size is out of range")?;
    }
    let y = cx.output(0)?;
    let n = y.elems();
    let (kind, periodic) = (op.kind, op.periodic);
    let l = Launch::new("window").write(&y).dim(&n).extent(n.ceil_div(&CHUNK.into())).cost(100 * CHUNK);
    cx.launch(l, move |k| {
        let (y, n) = (k.buf(0), k.dim(0));
        k.b.parallel_for(|b, chunk| {
            let period = if periodic { n } else { b.sub(n, 1) };
            let single = b.cmp(CmpOp::Sle, period, 0);
            let period = b.smax(period, 1);
            let period = b.sitofp(period, Elem::F64);
            let (lo, hi) = span(b, chunk, CHUNK, n);
            b.loop_(lo, hi, 1, |b, i| {
                let t = b.sitofp(i, Elem::F64);
                let t = b.fdiv(t, period);
                let t = b.fmul(t, std::f64::consts::TAU);
                let c = math::cos(b, t);
                let v = match kind {
                    WindowKind::Blackman => {
                        let t = b.fadd(t, t);
                        let c2 = math::cos(b, t);
                        let v = b.fmul(c2, 0.08);
                        let v = b.fma(c, -0.5, v);
                        b.fadd(v, 0.42)
                    }
                    WindowKind::Hamming => b.fma(c, -21.0 / 46.0, 25.0 / 46.0),
                    WindowKind::Hann => b.fma(c, -0.5, 0.5),
                };
                let v = b.select(single, 1.0, v);
                let v = convert(b, v, DType::F64, d);
                store(b, d, y, i, v, None);
            });
        });
    })
}

/// Number `i` of the stream that `base` begins, as the graph operation defines it.
fn stream_val(b: &mut Builder, base: Val, i: Val) -> Val {
    let n = b.add(i, 1);
    let z = b.mul(n, 0x9e37_79b9_7f4a_7c15_u64.cast_signed());
    let z = b.add(base, z);
    let mix = |b: &mut Builder, z: Val, by: i64, factor: u64| {
        let s = b.lshr(z, by);
        let z = b.xor(z, s);
        b.mul(z, factor.cast_signed())
    };
    let z = mix(b, z, 30, 0xbf58_476d_1ce4_e5b9);
    let z = mix(b, z, 27, 0x94d0_49bb_1331_11eb);
    let s = b.lshr(z, 31);
    b.xor(z, s)
}

/// A number in `0..1`.
fn unit_val(b: &mut Builder, base: Val, i: Val) -> Val {
    let bits = stream_val(b, base, i);
    let bits = b.lshr(bits, 11);
    let v = b.sitofp(bits, Elem::F64);
    b.fmul(v, 1.0 / 9_007_199_254_740_992.0)
}

/// The number that the stream of a node begins with: that of its seed, or one that the session draws when it runs.
fn stream_base(cx: &mut LowerCx<'_>, seed: Option<i64>) -> Dim {
    match seed {
        Some(seed) => Dim::Const(stream(seed.cast_unsigned(), 0).cast_signed()),
        None => cx.drawn(),
    }
}

pub(super) fn lower_random(cx: &mut LowerCx<'_>, op: &Random) -> Result<(), Diag> {
    let (d, dims) = cx.output_type(0)?;
    if cx.ints(0).is_none() {
        let spec = cx.input(0)?;
        for (a, dim) in dims.iter().enumerate() {
            let what = "a dim is out of range";
            cx.bind(dim, &spec, a as u32, &Dim::Const(0), &Dim::Const(1 << 40), what)?;
        }
    }
    let given = cx.opt_input(1)?;
    let y = cx.output(0)?;
    let n = y.elems();
    let own = op.seed.unwrap_or(0);
    let (normal, low, high) = (op.normal, op.a, op.b);
    let mut l = Launch::new("random").write(&y).dim(&n);
    l = match &given {
        Some(seed) => l.read(seed),
        None => l.dim(&stream_base(cx, op.seed)),
    };
    let given = given.is_some();
    let l = l.extent(n.ceil_div(&CHUNK.into())).cost(40 * CHUNK);
    cx.launch(l, move |k| {
        let (y, n) = (k.buf(0), k.dim(0));
        let base = if given { Err(k.buf(1)) } else { Ok(k.dim(1)) };
        k.b.parallel_for(|b, chunk| {
            let base = base.unwrap_or_else(|seed| {
                let (zero, own) = (b.i64(0), b.i64(own));
                let seed = load(b, DType::I64, seed, zero, 1, None);
                stream_val(b, seed, own)
            });
            let (lo, hi) = span(b, chunk, CHUNK, n);
            b.loop_(lo, hi, 1, |b, i| {
                let v = if normal {
                    let first = b.add(i, i);
                    let second = b.add(first, 1);
                    let (u, v) = (unit_val(b, base, first), unit_val(b, base, second));
                    let u = b.fneg(u);
                    let u = b.fadd(u, 1.0);
                    let r = math::log(b, u);
                    let r = b.fmul(r, -2.0);
                    let r = b.sqrt(r);
                    let t = b.fmul(v, std::f64::consts::TAU);
                    let c = math::cos(b, t);
                    let v = b.fmul(r, c);
                    b.fma(v, high, low)
                } else {
                    let u = unit_val(b, base, i);
                    b.fma(u, high - low, low)
                };
                let v = convert(b, v, DType::F64, d);
                store(b, d, y, i, v, None);
            });
        });
    })
}

/// Draws by running through the classes, after their largest logit and the sum of their weights.
pub(super) fn lower_multinomial(cx: &mut LowerCx<'_>, seed: Option<i64>) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let y = cx.output(0)?;
    let (classes, samples) = (x.dims[1].clone(), y.dims[1].clone());
    let base = stream_base(cx, seed);
    let (d, out) = (x.dtype, y.dtype);
    let error = cx.error("there must be a class");
    let l =
        Launch::new("multinomial").read(&x).write(&y).dim(&classes).dim(&samples).dim(&base).raises(error);
    let l = l.extent(y.elems()).cost(classes.mul(&Dim::Const(60)));
    cx.launch(l, move |k| {
        let (x, y, classes, samples, error) = (k.buf(0), k.buf(1), k.dim(0), k.dim(1), k.error(0));
        let start = k.dim(2);
        k.b.parallel_for(|b, unit| {
            let none = b.cmp(CmpOp::Sle, classes, 0);
            b.error_if(none, error);
            let row = b.sdiv(unit, samples);
            let first = b.mul(row, classes);
            let logit = |b: &mut Builder, c: Val| {
                let at = b.add(first, c);
                let v = load(b, d, x, at, 1, None);
                convert(b, v, d, DType::F64)
            };
            let low = b.float(Ty::F64, f64::NEG_INFINITY);
            let zero = b.float(Ty::F64, 0.0);
            let max = b.for_(0, classes, 1, &[low], |b, c, now| {
                let v = logit(b, c);
                vec![b.fmaxnum(now[0], v)]
            })[0];
            let weight = |b: &mut Builder, c: Val| {
                let v = logit(b, c);
                let v = b.fsub(v, max);
                math::exp(b, v)
            };
            let sum = b.for_(0, classes, 1, &[zero], |b, c, now| {
                let w = weight(b, c);
                vec![b.fadd(now[0], w)]
            })[0];
            let u = unit_val(b, start, unit);
            let left = b.fmul(u, sum);
            let (zero_class, last) = (b.i64(0), b.sub(classes, 1));
            let open = b.int(Ty::BOOL, 1);
            let found = b.for_(0, last, 1, &[left, zero_class, open], |b, c, now| {
                let w = weight(b, c);
                let over = b.cmp(CmpOp::FGe, now[0], w);
                let go = b.and(now[2], over);
                let less = b.fsub(now[0], w);
                let next = b.add(c, 1);
                vec![b.select(go, less, now[0]), b.select(go, next, now[1]), go]
            });
            let v = convert(b, found[1], DType::I64, out);
            store(b, out, y, unit, v, None);
        });
    })
}
