//! Every operation on every element type, at a given lane count.

use super::{Case, Input, Rng, special_values, values};
use crate::kernel::Builder;
use crate::kernel::inst::{BinOp, CastOp, CmpOp, UnOp};
use crate::kernel::rules::{bin_allows, un_allows};
use crate::kernel::types::{Buf, Elem, Ty, Val};

/// Collects results of one element type, one section each.
struct Sections {
    kernel: String,
    elem: Elem,
    lanes: u16,
    names: Vec<String>,
}

/// Builds a kernel that loops over `n` vectors of the inputs and writes each result to a section of its own.
fn sections(
    s: &mut Sections,
    inputs: &[(Elem, usize)],
    n: usize,
    make: impl FnOnce(&mut Builder, &[Val], &mut dyn FnMut(&mut Builder, &str, Val)),
) -> Case {
    let lanes = i64::from(s.lanes);
    let mut b = Builder::cpu(&s.kernel);
    let ins: Vec<Buf> = inputs.iter().enumerate().map(|(i, (e, _))| b.input(&format!("in{i}"), *e)).collect();
    let out = b.output("out", s.elem);
    let mut names = Vec::new();
    b.parallel_for(|b, i| {
        let at = b.mul(i, lanes);
        let vals: Vec<Val> = ins.iter().map(|&x| b.load(x, at, s.lanes)).collect();
        let mut emit = |b: &mut Builder, name: &str, v: Val| {
            let width = i64::from(b.ty(v).lanes);
            // Sections are as wide as the widest result so that narrower ones fit.
            let base = b.add(at, names.len() as i64 * n as i64 * lanes);
            assert!(width <= lanes, "{name} is wider than a section");
            b.store(out, base, v);
            names.push(name.to_string());
        };
        make(b, &vals, &mut emit);
    });
    let total = n * usize::from(s.lanes);
    let mut rng = Rng(0x5EED ^ total as u64);
    let mut args: Vec<Input> =
        inputs.iter().map(|(e, phase)| Input::Bytes(values(*e, total, *phase, &mut rng))).collect();
    args.push(Input::Bytes(vec![0; names.len() * total * s.elem.bytes()]));
    s.names.clone_from(&names);
    Case {
        kernel: b.finish(),
        inputs: args,
        lo: 0,
        hi: n as i64,
        sections: names.into_iter().map(|name| (name, total)).collect(),
        tolerance: 0.0,
    }
}

fn new(kernel: String, elem: Elem, lanes: u16) -> Sections {
    Sections { kernel, elem, lanes, names: Vec::new() }
}

fn count(e: Elem, lanes: u16) -> usize {
    let pairs = special_values(e).len().pow(2);
    (pairs + 64).div_ceil(usize::from(lanes)).max(3)
}

/// One case per element type and kind of operation, with vectors of `lanes` lanes (1 for scalars).
pub fn cases(lanes: u16) -> Vec<Case> {
    let mut out = Vec::new();
    for e in Elem::ALL {
        out.extend(arithmetic(e, lanes));
        out.extend(comparisons(e, lanes));
        out.extend(casts(e, lanes));
        out.push(moves(e, lanes));
    }
    out.extend(dots(lanes));
    out
}

fn arithmetic(e: Elem, lanes: u16) -> Option<Case> {
    let uns: Vec<UnOp> = UnOp::ALL.into_iter().filter(|o| un_allows(*o, e)).collect();
    let bins: Vec<BinOp> = BinOp::ALL.into_iter().filter(|o| bin_allows(*o, e)).collect();
    if uns.is_empty() && bins.is_empty() {
        return None;
    }
    let mut s = new(format!("arith_{e}x{lanes}"), e, lanes);
    Some(sections(&mut s, &[(e, 0), (e, 1), (e, 0)], count(e, lanes), |b, v, emit| {
        for o in uns {
            let r = b.unary(o, v[0]);
            emit(b, o.name(), r);
        }
        for o in &bins {
            let r = b.bin(*o, v[0], v[1]);
            emit(b, o.name(), r);
            if o.is_reduction() {
                let r = b.reduce(*o, v[0]);
                let r = b.splat(r, lanes);
                emit(b, &format!("reduce {}", o.name()), r);
            }
        }
        if e.is_arith_float() {
            let r = b.fma(v[0], v[1], v[2]);
            emit(b, "fma", r);
        } else if e.is_wide_int() {
            // Constant divisors and shift amounts take other paths.
            for c in [0, 1, -1, 2, 7, 10, 64] {
                for o in
                    [BinOp::SDiv, BinOp::UDiv, BinOp::SRem, BinOp::URem, BinOp::Shl, BinOp::LShr, BinOp::AShr]
                {
                    let r = b.bin(o, v[0], c);
                    emit(b, &format!("{} by {c}", o.name()), r);
                }
            }
        }
    }))
}

fn comparisons(e: Elem, lanes: u16) -> Option<Case> {
    let float = e.is_arith_float();
    if !float && !e.is_wide_int() {
        return None;
    }
    let mut s = new(format!("cmp_{e}x{lanes}"), e, lanes);
    Some(sections(&mut s, &[(e, 0), (e, 1)], count(e, lanes), |b, v, emit| {
        for o in CmpOp::ALL.into_iter().filter(|o| o.is_float() == float) {
            let c = b.cmp(o, v[0], v[1]);
            let r = b.select(c, v[0], v[1]);
            emit(b, o.name(), r);
            let any = b.any(c);
            let all = b.all(c);
            let odd = b.reduce(BinOp::Xor, c);
            let r = b.select(any, v[1], v[0]);
            let r = b.select(all, v[0], r);
            let zero = b.zero(Ty::vec(e, lanes));
            let r = b.select(odd, r, zero);
            emit(b, &format!("any, all, parity of {}", o.name()), r);
        }
    }))
}

fn casts(from: Elem, lanes: u16) -> Vec<Case> {
    let mut out = Vec::new();
    for to in Elem::ALL {
        let (f, t) = (Ty::vec(from, lanes), Ty::vec(to, lanes));
        let ops: Vec<CastOp> = CastOp::ALL
            .into_iter()
            .filter(|o| o.allows(f, t) && (from != to || *o != CastOp::Bitcast))
            .collect();
        if ops.is_empty() {
            continue;
        }
        // All patterns of a 16-bit float.
        let n = if matches!(from, Elem::F16 | Elem::BF16) {
            65536 / usize::from(lanes)
        } else {
            count(from, lanes)
        };
        let mut s = new(format!("cast_{from}_{to}x{lanes}"), to, lanes);
        let mut case = sections(&mut s, &[(from, 0)], n, |b, v, emit| {
            for o in ops {
                let r = if o == CastOp::Bitcast { b.bitcast(v[0], t) } else { b.cast(o, v[0], to) };
                emit(b, o.name(), r);
            }
        });
        if matches!(from, Elem::F16 | Elem::BF16) {
            let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            case.inputs[0] = Input::Bytes(all);
        }
        out.push(case);
    }
    if from == Elem::F64 {
        for to in [Elem::F16, Elem::BF16] {
            let mut s = new(format!("narrow_{from}_{to}x{lanes}"), to, lanes);
            out.push(sections(&mut s, &[(from, 0)], count(from, lanes), |b, v, emit| {
                let r = b.float_to(v[0], to);
                emit(b, "float_to", r);
            }));
        }
    }
    out
}

/// Shuffles, lanes, splats, constants.
fn moves(e: Elem, lanes: u16) -> Case {
    let mut s = new(format!("move_{e}x{lanes}"), e, lanes);
    sections(&mut s, &[(e, 0), (e, 1)], count(e, lanes).min(40), |b, v, emit| {
        let n = lanes;
        let rev: Vec<u16> = (0..n).rev().collect();
        let zip: Vec<u16> = (0..n).map(|i| i / 2 + (i % 2) * n).collect();
        let odd: Vec<u16> = (0..n).map(|i| (i * 7 + 3) % (2 * n)).collect();
        for (name, mask) in [("reverse", rev), ("zip", zip), ("mixed", odd)] {
            let r = b.shuffle(v[0], v[1], &mask);
            emit(b, name, r);
        }
        if n > 1 {
            let low = b.slice(v[0], 0, n / 2);
            let high = b.slice(v[1], n / 2, n / 2);
            let r = b.concat(high, low);
            emit(b, "concat of halves", r);
        }
        let last = b.extract(v[1], n - 1);
        let r = b.insert(v[0], last, n / 2);
        emit(b, "insert last in the middle", r);
        let r = b.splat(last, n);
        emit(b, "splat", r);
        let specials = special_values(e);
        let lanes_of: Vec<u64> =
            (0..usize::from(n)).map(|i| specials[(i * 5 + 1) % specials.len()]).collect();
        let r = b.const_lanes(e, &lanes_of);
        let r = b.shuffle(r, v[0], &(0..n).map(|i| if i % 3 == 2 { n + i } else { i }).collect::<Vec<_>>());
        emit(b, "constants", r);
        if e.is_wide_int() {
            let i = b.iota(Ty::vec(e, n));
            let r = b.add(i, v[0]);
            emit(b, "iota", r);
        }
    })
}

fn dots(lanes: u16) -> Vec<Case> {
    if lanes < 4 {
        return vec![];
    }
    let n = 400;
    let acc_lanes = lanes / 4;
    let mut out = Vec::new();
    let mut b = Builder::cpu(&format!("dot4_x{lanes}"));
    let (x, y) = (b.input("x", Elem::I8), b.input("y", Elem::I8));
    let (z, r) = (b.input("z", Elem::I32), b.output("r", Elem::I32));
    let section = n as i64 * i64::from(acc_lanes);
    b.parallel_for(|b, i| {
        let at = b.mul(i, i64::from(lanes));
        let (a, w) = (b.load(x, at, lanes), b.load(y, at, lanes));
        let at = b.mul(i, i64::from(acc_lanes));
        let acc = b.load(z, at, acc_lanes);
        let u = b.dot4_u8s8(acc, a, w);
        b.store(r, at, u);
        let s = b.dot4_s8s8(acc, a, w);
        let at = b.add(at, section);
        b.store(r, at, s);
        let p = b.dot4_u8s8_pairs(acc, a, w);
        let at = b.add(at, section);
        b.store(r, at, p);
    });
    let mut rng = Rng(77);
    let bytes = n * usize::from(lanes);
    out.push(Case {
        kernel: b.finish(),
        inputs: vec![
            Input::Bytes(values(Elem::I8, bytes, 0, &mut rng)),
            Input::Bytes(values(Elem::I8, bytes, 1, &mut rng)),
            Input::Bytes(values(Elem::I32, bytes / 4, 0, &mut rng)),
            Input::Bytes(vec![0; bytes * 3]),
        ],
        lo: 0,
        hi: n as i64,
        sections: ["u8s8", "s8s8", "u8s8_pairs"].map(|n| (n.into(), bytes / 4)).into(),
        tolerance: 0.0,
    });

    let acc_lanes = lanes / 2;
    let mut b = Builder::cpu(&format!("dot2_x{lanes}"));
    let (x, y) = (b.input("x", Elem::BF16), b.input("y", Elem::BF16));
    let (z, r) = (b.input("z", Elem::F32), b.output("r", Elem::F32));
    b.parallel_for(|b, i| {
        let at = b.mul(i, i64::from(lanes));
        let (a, w) = (b.load(x, at, lanes), b.load(y, at, lanes));
        let at = b.mul(i, i64::from(acc_lanes));
        let acc = b.load(z, at, acc_lanes);
        let v = b.dot2_bf16(acc, a, w);
        b.store(r, at, v);
    });
    let elems = n * usize::from(lanes);
    // Positive normal numbers: no cancellation, no subnormals, so that orders differ by rounding only.
    let mut pairs = || -> Vec<u8> {
        (0..elems).flat_map(|_| (0x3E80 + (rng.next_u64() % 0x300) as u16).to_le_bytes()).collect()
    };
    let (x, y) = (pairs(), pairs());
    let z: Vec<u8> = (0..elems / 2).flat_map(|i| (i as f32 * 0.25).to_le_bytes()).collect();
    out.push(Case {
        kernel: b.finish(),
        inputs: vec![Input::Bytes(x), Input::Bytes(y), Input::Bytes(z), Input::Bytes(vec![0; elems * 2])],
        lo: 0,
        hi: n as i64,
        sections: vec![],
        tolerance: 3e-7,
    });
    out
}
