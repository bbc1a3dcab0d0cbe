//! Math functions of f32 against f64, in units in the last place, over all exponents. The back ends' test suites run
//! [`check_functions`]; `cargo run -p planish-llvm --example every-float` takes all 2^32 numbers.

use super::Rng;
use crate::kernel::Builder;
use crate::kernel::backend::Backend;
use crate::kernel::func::{Kernel, KernelModule};
use crate::kernel::interp::Arg;
use crate::kernel::native::Native;
use crate::kernel::target::TargetSpec;
use crate::kernel::types::{Elem, Val};
use crate::math;

/// A function of one number.
pub struct Function {
    /// Letters, digits and underscores.
    pub name: &'static str,
    build: fn(&mut Builder, Val) -> Val,
    /// The function in f64.
    pub want: fn(f64) -> f64,
    /// The largest error allowed, in units in the last place of the result.
    pub bound: f64,
}

/// `x ^ y` for an exponent known at compile time.
fn power(b: &mut Builder, x: Val, y: f64) -> Val {
    let y = b.float(b.ty(x), y);
    math::pow(b, x, y)
}

fn rsqrt(b: &mut Builder, x: Val) -> Val {
    let root = b.sqrt(x);
    let one = b.float(b.ty(x), 1.0);
    b.fdiv(one, root)
}

fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

/// The functions that a bound is stated for.
pub fn functions() -> Vec<Function> {
    type Build = fn(&mut Builder, Val) -> Val;
    type Want = fn(f64) -> f64;
    let list: [(&'static str, Build, Want, f64); 24] = [
        ("exp", math::exp, f64::exp, 2.0),
        ("log", math::log, f64::ln, 2.0),
        ("sigmoid", math::sigmoid, sigmoid, 2.0),
        ("tanh", math::tanh, f64::tanh, 4.0),
        ("erf", math::erf, planish_ir::op::unary::erf, 4.0),
        ("sin", math::sin, f64::sin, 2.0),
        ("cos", math::cos, f64::cos, 2.0),
        ("tan", math::tan, f64::tan, 2.0),
        ("rsqrt", rsqrt, |x| 1.0 / x.sqrt(), 2.0),
        ("asin", math::asin, f64::asin, 2.0),
        ("acos", math::acos, f64::acos, 2.0),
        ("atan", math::atan, f64::atan, 2.0),
        ("sinh", math::sinh, f64::sinh, 2.0),
        ("cosh", math::cosh, f64::cosh, 2.0),
        ("asinh", math::asinh, f64::asinh, 2.0),
        ("acosh", math::acosh, f64::acosh, 2.0),
        ("atanh", math::atanh, f64::atanh, 2.0),
        ("softplus", math::softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), 2.0),
        ("pow_small", |b, x| power(b, x, 0.013), |x| x.powf(f64::from(0.013f32)), 4.0),
        ("pow_root", |b, x| power(b, x, 0.4), |x| x.powf(f64::from(0.4f32)), 4.0),
        ("pow_quarters", |b, x| power(b, x, -0.75), |x| x.powf(-0.75), 4.0),
        ("pow_odd", |b, x| power(b, x, 7.0), |x| x.powf(7.0), 4.0),
        ("pow_even", |b, x| power(b, x, -6.0), |x| x.powf(-6.0), 4.0),
        ("pow_large", |b, x| power(b, x, 1e4), |x| x.powf(1e4), 4.0),
    ];
    list.map(|(name, build, want, bound)| Function { name, build, want, bound }).into()
}

impl Function {
    /// The function on vectors of `lanes`, one vector a unit: input, then result.
    pub fn kernel(&self, lanes: u16) -> Kernel {
        let mut b = Builder::cpu(&format!("{}_{lanes}", self.name));
        let (x, y) = (b.input("x", Elem::F32), b.output("y", Elem::F32));
        b.parallel_for(|b, unit| {
            let at = b.mul(unit, i64::from(lanes));
            let v = b.load(x, at, lanes);
            let v = (self.build)(b, v);
            b.store(y, at, v);
        });
        b.finish()
    }
    /// What is wrong with results, if anything is beyond the bound: the worst one.
    pub fn judge(&self, x: &[f32], y: &[f32], want: &[f64]) -> Worst {
        let mut worst = Worst { error: 0.0, text: String::new() };
        for ((x, y), w) in x.iter().zip(y).zip(want) {
            let error = error_in_ulps(*y, *w);
            if error > worst.error {
                worst =
                    Worst { error, text: format!("{}({x:e}) = {y:e}, not {w:e}: {error:.3} ulp", self.name) };
            }
        }
        worst
    }
}

/// The largest error found.
pub struct Worst {
    /// In units in the last place.
    pub error: f64,
    /// Where.
    pub text: String,
}

/// The distance of a result in units of the last place that f32 has there. Infinite for one NaN of the two, and for a wrong sign of
/// an exact zero.
pub fn error_in_ulps(got: f32, want: f64) -> f64 {
    if want.is_nan() || got.is_nan() {
        return if want.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let rounded = want as f32;
    if got == rounded {
        let lost = want == 0.0 && got.is_sign_negative() != want.is_sign_negative();
        return if lost { f64::INFINITY } else { 0.0 };
    }
    // Infinity stands for the number that would follow the largest.
    let number = |v: f64| if v.is_infinite() { 2f64.powi(128).copysign(v) } else { v };
    let exponent = (want.abs().to_bits() >> 52) as i32 - 1023;
    let step = 2f64.powi(exponent.clamp(-126, 127) - 23);
    (number(f64::from(got)) - number(want)).abs() / step
}

/// Numbers of both signs and every exponent: a few mantissas at the ends and `mantissas` random ones of each, and what lies about
/// the places where functions change their form, end, cross 0, or cancel.
pub fn numbers(mantissas: usize) -> Vec<f32> {
    let mut rng = Rng(7);
    let mut out = Vec::new();
    for head in 0..512u32 {
        for m in [0, 1, 2, 0x3f_ffff, 0x40_0000, 0x7f_fffe, 0x7f_ffff] {
            out.push(f32::from_bits(head << 23 | m));
        }
        out.extend((0..mantissas).map(|_| f32::from_bits(head << 23 | (rng.next_u64() as u32 & 0x7f_ffff))));
    }
    let mut near = |v: f64, reach: u32| {
        for v in [v as f32, -v as f32] {
            let bits = v.to_bits();
            out.extend((bits.saturating_sub(reach)..=bits.saturating_add(reach)).map(f32::from_bits));
        }
    };
    let places = [
        0.5,
        0.625,
        0.65,
        0.927_734_375,
        1.0,
        1.5,
        2.0,
        2.5,
        4.0,
        9.01,
        15.9,
        16.64,
        17.33,
        22.0,
        36.7,
        44.0,
        87.336,
        88.0,
        88.722_84,
        89.0,
        89.416,
        103.278,
        103.972,
        104.0,
        0.5f64.sqrt(),
        2f64.sqrt(),
        2f64.powi(24),
        2f64.powi(31),
        f64::from(f32::MIN_POSITIVE),
    ];
    places.iter().for_each(|v| near(*v, 200));
    for k in (1..3000u32).chain((12..31).map(|e| (1 << e) - 1)) {
        near(f64::from(k) * std::f64::consts::FRAC_PI_2, 2);
    }
    out.resize(out.len().next_multiple_of(64), 1.0);
    out
}

/// Compiled functions.
pub struct Compiled {
    native: Native,
    lanes: u16,
}

impl Compiled {
    /// Compiles functions for a target that runs here, at `lanes` numbers a time.
    pub fn new(
        backend: &dyn Backend,
        target: &TargetSpec,
        list: &[Function],
        lanes: u16,
    ) -> Result<Compiled, String> {
        let kernels = list.iter().map(|f| f.kernel(lanes)).collect();
        let object = backend.emit(&KernelModule { kernels }, target).map_err(|e| e.to_string())?;
        Ok(Compiled { native: Native::load(&[object])?, lanes })
    }
    /// The results of a function. The numbers are a multiple of the lanes.
    pub fn run(&self, f: &Function, x: &mut [f32]) -> Result<Vec<f32>, String> {
        let lanes = usize::from(self.lanes);
        assert_eq!(x.len() % lanes, 0, "whole vectors");
        let mut y = vec![0f32; x.len()];
        let units = (x.len() / lanes) as i64;
        let args = [Arg::slice(x), Arg::slice(&mut y)];
        // SAFETY: both buffers hold as many numbers as the units take, and the target runs here.
        unsafe { self.native.run(&format!("{}_{lanes}", f.name), &args, 0, units) }?;
        Ok(y)
    }
}

/// Compares all functions with f64 on [`numbers`], in vectors of `lanes`.
///
/// # Panics
/// When the back end refuses, or a function is beyond its bound; the message lists all that are.
pub fn check_functions(backend: &dyn Backend, target: &TargetSpec, lanes: u16, mantissas: usize) {
    if !target.runs_here() {
        return;
    }
    let list = functions();
    let compiled =
        Compiled::new(backend, target, &list, lanes).unwrap_or_else(|e| panic!("{}: {e}", target.name));
    let mut x = numbers(mantissas);
    let mut wrong = Vec::new();
    for f in &list {
        let y = compiled.run(f, &mut x).unwrap_or_else(|e| panic!("{}: {e}", f.name));
        let want: Vec<f64> = x.iter().map(|x| (f.want)(f64::from(*x))).collect();
        let worst = f.judge(&x, &y, &want);
        if worst.error > f.bound {
            wrong.push(worst.text);
        }
    }
    assert!(wrong.is_empty(), "{}, {lanes} lanes: {wrong:#?}", target.name);
}
