//! Accuracy against `f64`, through the kernel interpreter.

use crate::kernel::interp::{self, Arg};
use crate::kernel::{Builder, Elem, Val};

/// Runs a function of one f32 over inputs, 4 lanes at a time.
fn run(f: impl Fn(&mut Builder, Val) -> Val, x: &[f32]) -> Vec<f32> {
    let mut b = Builder::cpu("k");
    let (xb, yb) = (b.input("x", Elem::F32), b.output("y", Elem::F32));
    b.parallel_for(|b, i| {
        let at = b.mul(i, 4);
        let v = b.load(xb, at, 4);
        let r = f(b, v);
        b.store(yb, at, r);
    });
    let k = b.finish();
    let mut x = x.to_vec();
    x.resize(x.len().next_multiple_of(4), 1.0);
    let mut y = vec![0f32; x.len()];
    let n = (x.len() / 4) as i64;
    let args = [Arg::slice(&mut x), Arg::slice(&mut y)];
    // SAFETY: both buffers outlive the call and hold 4 n elements.
    unsafe { interp::run_cpu(&k, &args, 0, n) }.unwrap_or_else(|t| panic!("{t:?}"));
    y
}

fn ulps(got: f32, want: f64) -> f64 {
    if want.is_nan() {
        return if got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let w = want as f32;
    if got == w {
        return 0.0;
    }
    let step = f64::from(f32::from_bits(w.abs().to_bits() + 1)) - f64::from(w.abs());
    (f64::from(got) - want).abs() / step
}

fn inputs(lo: f32, hi: f32) -> Vec<f32> {
    let mut v = vec![
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1.0,
        -1.0,
        1e-40,
        -1e-40,
        f32::MAX,
        f32::MIN,
    ];
    let mut s = 12345u64;
    for _ in 0..4000 {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        v.push(lo + (hi - lo) * ((s >> 40) as f32 / (1u64 << 24) as f32));
    }
    v
}

fn check(name: &str, f: fn(&mut Builder, Val) -> Val, want: fn(f64) -> f64, range: (f32, f32), bound: f64) {
    let x = inputs(range.0, range.1);
    let y = run(f, &x);
    for (x, y) in x.iter().zip(y) {
        let w = want(f64::from(*x));
        // Results in the subnormal range of f32 are judged by absolute error.
        let e = if w.abs() < 1.2e-38 { (f64::from(y) - w).abs() / 1e-44 } else { ulps(y, w) };
        assert!(e <= bound || (w.abs() < 1.2e-38 && e < 4.0), "{name}({x:e}) = {y:e}, not {w:e}: {e} ulp");
    }
}

#[test]
fn functions_are_within_their_bounds() {
    check("exp", super::exp, f64::exp, (-100.0, 90.0), 2.0);
    check("exp", super::exp, f64::exp, (-1.0, 1.0), 2.0);
    check("log", super::log, f64::ln, (0.0, 4.0), 2.0);
    check("log", super::log, f64::ln, (0.0, 1e30), 2.0);
    check("tanh", super::tanh, f64::tanh, (-10.0, 10.0), 4.0);
    check("tanh", super::tanh, f64::tanh, (-0.7, 0.7), 4.0);
    check("erf", super::erf, planish_ir::op::unary::erf, (-5.0, 5.0), 4.0);
    check("sigmoid", super::sigmoid, |x| 1.0 / (1.0 + (-x).exp()), (-80.0, 80.0), 4.0);
    for (name, f, want, lo, hi) in [
        ("sin", super::sin as fn(&mut Builder, Val) -> Val, f64::sin as fn(f64) -> f64, -100.0, 100.0),
        ("cos", super::cos, f64::cos, -100.0, 100.0),
        ("tan", super::tan, f64::tan, -100.0, 100.0),
        ("asin", super::asin, f64::asin, -1.0, 1.0),
        ("acos", super::acos, f64::acos, -1.0, 1.0),
        ("atan", super::atan, f64::atan, -100.0, 100.0),
        ("sinh", super::sinh, f64::sinh, -80.0, 80.0),
        ("cosh", super::cosh, f64::cosh, -80.0, 80.0),
        ("asinh", super::asinh, f64::asinh, -1000.0, 1000.0),
        ("acosh", super::acosh, f64::acosh, 1.0, 1000.0),
        ("atanh", super::atanh, f64::atanh, -1.0, 1.0),
    ] {
        let x: Vec<f32> = inputs(lo, hi).into_iter().filter(|v| !v.is_finite() || v.abs() < 1e30).collect();
        let y = run(f, &x);
        for (x, y) in x.iter().zip(y) {
            if x.is_infinite() && matches!(name, "sin" | "cos" | "tan") {
                continue;
            }
            let w = want(f64::from(*x));
            let e = if w.abs() < 1e-37 { (f64::from(y) - w).abs() / 1e-44 } else { ulps(y, w) };
            assert!(e <= 1.5, "{name}({x:e}) = {y:e}, not {w:e}: {e} ulp");
        }
    }
}

#[test]
fn constant_powers_agree_with_general_ones() {
    for quarters in -12..=16 {
        let p = f64::from(quarters) / 4.0;
        let mut x = inputs(0.0, 4.0);
        x.extend(inputs(-1e3, 1e3));
        // Every exponent, subnormal ones included.
        x.extend((0..=254u32).flat_map(|e| [0x12345, 0x7ffff, 1].map(|m| f32::from_bits((e << 23) | m))));
        x.extend([f32::from_bits(1), f32::MIN_POSITIVE, -f32::MIN_POSITIVE]);
        let y = run(
            |b, x| {
                let p = b.float(b.ty(x), p);
                super::pow(b, x, p)
            },
            &x,
        );
        for (x, y) in x.iter().zip(y) {
            let w = f64::from(*x).powf(p);
            assert!(w != 0.0 || y.to_bits() == (w as f32).to_bits(), "{x:e} ^ {p} = {y:e}, not {w:e}");
            let e = ulps(y, w);
            assert!(e <= 4.0, "{x:e} ^ {p} = {y:e}, not {w:e}: {e} ulp");
        }
    }
}

#[test]
fn approximations_are_near_where_they_are_asked_for() {
    fn fast(f: fn(&mut Builder, Val) -> Val) -> impl Fn(&mut Builder, Val) -> Val {
        move |b, x| {
            b.set_fast_math(true);
            f(b, x)
        }
    }
    for (name, f, want) in [
        ("exp", super::exp as fn(&mut Builder, Val) -> Val, f64::exp as fn(f64) -> f64),
        ("tanh", super::tanh, f64::tanh),
        ("sigmoid", super::sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        ("softplus", super::softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
    ] {
        let mut x: Vec<f32> = [1.0, 30.0, 100.0].iter().flat_map(|r| inputs(-r, *r)).collect();
        x.extend(
            (0..=255u32).flat_map(|e| [0, 0x8000_0000].map(|s| f32::from_bits(s | (e << 23) | 0x2ffff))),
        );
        let (y, exact) = (run(fast(f), &x), run(f, &x));
        let differ = y.iter().zip(&exact).filter(|(a, b)| a.is_finite() && a != b).count();
        assert!(differ > 100, "{name} is no approximation");
        for (x, y) in x.iter().zip(y) {
            let w = want(f64::from(*x));
            let near = (f64::from(y) - w).abs() <= 2e-6 * w.abs();
            let small = w.abs() < 1.3e-38 && y.abs() <= 1.3e-38;
            let large = w > 2.3e38 && y == f32::INFINITY;
            assert!(near || small || large || (w.is_nan() && y.is_nan()), "{name}({x:e}) = {y:e}, not {w:e}");
        }
    }
}
