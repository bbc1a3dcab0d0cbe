//! Kernels with inputs for comparing a back end with the interpreter: every operation on telling values ([`ops`]), and random
//! programs ([`random`]). The back ends' test suites run them.

pub mod functions;
pub mod memory;
pub mod ops;
pub mod random;

use super::backend::Backend;
use super::func::{Kernel, KernelModule, ParamKind};
use super::interp::{Arg, run_cpu};
use super::native::Native;
use super::target::TargetSpec;
use super::types::Elem;
use std::collections::BTreeMap;

/// One argument of a case.
#[derive(Clone, Debug)]
pub enum Input {
    /// Bytes of a buffer, before the run.
    Bytes(Vec<u8>),
    Scalar(i64),
}

/// A kernel, its arguments and its range.
#[derive(Clone, Debug)]
pub struct Case {
    pub kernel: Kernel,
    pub inputs: Vec<Input>,
    pub lo: i64,
    pub hi: i64,
    /// What each part of the last argument holds: name and number of elements, for messages.
    pub sections: Vec<(String, usize)>,
    /// Largest relative error of f32 results; 0 compares bits (NaN patterns aside).
    pub tolerance: f32,
}

/// The kernels of cases, each once.
pub fn module_of(cases: &[Case]) -> KernelModule {
    let mut kernels = BTreeMap::new();
    for c in cases {
        kernels.entry(c.kernel.name.clone()).or_insert_with(|| c.kernel.clone());
    }
    KernelModule { kernels: kernels.into_values().collect() }
}

/// Compiles the kernels of cases, and where the target runs here compares every case with the interpreter.
///
/// # Panics
/// When the back end refuses, gives other bytes the second time, or a case differs; the message lists all that do.
pub fn check_backend(backend: &dyn Backend, cases: &[Case], target: &TargetSpec) {
    assert!(!cases.is_empty());
    let module = module_of(cases);
    let object = backend.emit(&module, target).unwrap_or_else(|e| panic!("{}: {e}", target.name));
    assert_eq!(backend.emit(&module, target).as_ref(), Ok(&object), "same input, same bytes");
    if !target.runs_here() {
        return;
    }
    let native = Native::load(&[object]).expect("links and loads");
    let mut wrong = Vec::new();
    for c in cases {
        // SAFETY: the cases are made for their kernels, the interpreter has bounds-checked them, and the target runs here.
        let r = c.compare(|k, args, lo, hi| unsafe { native.run(&k.name, args, lo, hi) });
        wrong.extend(r.err());
    }
    let heads: Vec<&str> = wrong.iter().filter_map(|w| w.lines().next()).collect();
    assert!(
        wrong.is_empty(),
        "{}: {} of {} cases\n{heads:#?}\n{}",
        target.name,
        wrong.len(),
        cases.len(),
        wrong[0]
    );
}

/// Bytes before and after each buffer that a kernel must leave alone.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xC3;

/// A buffer with guards, its payload aligned to 64 bytes.
struct Guarded {
    words: Vec<[u8; 64]>,
    len: usize,
}

#[repr(C, align(64))]
struct Line([u8; 64]);

impl Guarded {
    fn new(bytes: &[u8]) -> Guarded {
        let lines = bytes.len().div_ceil(64) + 3;
        let mut words = vec![[GUARD_BYTE; 64]; lines];
        let at = Self::offset(&words);
        words.as_flattened_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        Guarded { words, len: bytes.len() }
    }

    /// Where the payload begins: the first multiple of 64 with a guard before it.
    fn offset(words: &[[u8; 64]]) -> usize {
        let start = words.as_ptr() as usize + GUARD;
        GUARD + start.next_multiple_of(align_of::<Line>()) - start
    }

    fn arg(&mut self) -> Arg {
        let at = Self::offset(&self.words);
        Arg::Buf(self.words.as_flattened_mut()[at..].as_mut_ptr(), self.len)
    }

    /// The payload, or where a guard was overwritten.
    fn payload(&self) -> Result<&[u8], String> {
        let at = Self::offset(&self.words);
        let all = self.words.as_flattened();
        let outside = (0..at).chain(at + self.len..all.len());
        for i in outside {
            if all[i] != GUARD_BYTE {
                return Err(format!("byte {} outside the buffer was written", i as i64 - at as i64));
            }
        }
        Ok(&all[at..at + self.len])
    }
}

impl Case {
    fn args(&self) -> Vec<Option<Guarded>> {
        self.inputs
            .iter()
            .map(|i| match i {
                Input::Bytes(b) => Some(Guarded::new(b)),
                Input::Scalar(_) => None,
            })
            .collect()
    }

    fn words(&self, bufs: &mut [Option<Guarded>]) -> Vec<Arg> {
        bufs.iter_mut()
            .zip(&self.inputs)
            .map(|(b, i)| match (b, i) {
                (Some(g), _) => g.arg(),
                (None, Input::Scalar(v)) => Arg::Scalar(*v),
                (None, Input::Bytes(_)) => Arg::Scalar(0),
            })
            .collect()
    }

    /// Runs the kernel with the interpreter and with `run` and compares error word, buffers and guards.
    pub fn compare(
        &self,
        run: impl FnOnce(&Kernel, &[Arg], i64, i64) -> Result<i32, String>,
    ) -> Result<(), String> {
        let fail = |m: String| Err(format!("{}: {m}\n{}", self.kernel.name, self.kernel));
        let (mut want, mut got) = (self.args(), self.args());
        let args = self.words(&mut want);
        // SAFETY: the buffers are live and of the stated length.
        let want_error = match unsafe { run_cpu(&self.kernel, &args, self.lo, self.hi) } {
            Ok(e) => e,
            Err(t) => return fail(format!("the interpreter refuses the case: {t}")),
        };
        let args = self.words(&mut got);
        let got_error = match run(&self.kernel, &args, self.lo, self.hi) {
            Ok(e) => e,
            Err(e) => return fail(e),
        };
        if got_error != want_error {
            return fail(format!("error word {got_error}, the interpreter has {want_error}"));
        }
        for (i, p) in self.kernel.params.iter().enumerate() {
            let ParamKind::Buffer { elem, .. } = p.kind else { continue };
            let (Some(w), Some(g)) = (&want[i], &got[i]) else { continue };
            match (w.payload(), g.payload()) {
                (Ok(w), Ok(g)) => {
                    if let Some(at) = first_difference(elem, w, g, self.tolerance) {
                        let last = i + 1 == self.kernel.params.len();
                        let place = if last { self.section(at) } else { String::new() };
                        let show = |b: &[u8]| lane(elem, b, at);
                        return fail(format!(
                            "%{}[{at}]{place} is {:#x}, the interpreter has {:#x}",
                            p.name,
                            show(g),
                            show(w)
                        ));
                    }
                }
                (_, Err(e)) | (Err(e), _) => return fail(format!("%{}: {e}", p.name)),
            }
        }
        Ok(())
    }

    fn section(&self, at: usize) -> String {
        let mut first = 0;
        for (name, n) in &self.sections {
            if at < first + n {
                return format!(" ({name}, element {})", at - first);
            }
            first += n;
        }
        String::new()
    }
}

fn lane(e: Elem, bytes: &[u8], i: usize) -> u64 {
    let n = e.bytes();
    let mut raw = [0u8; 8];
    raw[..n].copy_from_slice(&bytes[i * n..(i + 1) * n]);
    u64::from_le_bytes(raw)
}

fn is_nan(e: Elem, bits: u64) -> bool {
    let (exp, man) = match e {
        Elem::F16 => (0x7C00, 0x03FF),
        Elem::BF16 => (0x7F80, 0x007F),
        Elem::F32 => (0x7F80_0000, 0x007F_FFFF),
        Elem::F64 => (0x7FF0_0000_0000_0000, 0x000F_FFFF_FFFF_FFFF),
        _ => return false,
    };
    bits & exp == exp && bits & man != 0
}

fn first_difference(e: Elem, want: &[u8], got: &[u8], tolerance: f32) -> Option<usize> {
    (0..want.len() / e.bytes()).find(|&i| {
        let (w, g) = (lane(e, want, i), lane(e, got, i));
        if w == g || (is_nan(e, w) && is_nan(e, g)) {
            return false;
        }
        if tolerance > 0.0 && e == Elem::F32 {
            let (w, g) = (f32::from_bits(w as u32), f32::from_bits(g as u32));
            // Written so that a NaN on one side is a difference.
            let close = (w - g).abs() <= tolerance * w.abs().max(1e-30);
            return !close;
        }
        true
    })
}

/// A small generator of pseudo-random numbers (splitmix64), equal on every machine.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Lane patterns that tell implementations apart.
pub fn special_values(e: Elem) -> Vec<u64> {
    let f32s = [
        0.0f32,
        1.0,
        -1.0,
        0.5,
        1.5,
        2.5,
        -0.5,
        -1.5,
        -2.5,
        3.0,
        0.1,
        1e-3,
        127.5,
        128.0,
        -128.5,
        255.5,
        256.0,
        32768.0,
        65504.0,
        65520.0,
        1e6,
        8388607.5,
        8388608.0,
        16777216.0,
        2147483520.0,
        2147483648.0,
        -2147483648.0,
        4294967040.0,
        4294967296.0,
        9.223372e18,
        -9.223372e18,
        1.8446744e19,
        1e30,
        3.4028235e38,
        f32::INFINITY,
        f32::NAN,
        1e-38,
        1e-40,
        1e-45,
        6e-8,
        5.96e-8,
        2.98e-8,
    ];
    let bits: Vec<u64> = match e {
        Elem::I1 => return vec![0, 1],
        Elem::F32 => f32s.iter().flat_map(|v| [v.to_bits().into(), (-v).to_bits().into()]).collect(),
        Elem::F64 => {
            let more = [2147483647.0f64, 9007199254740993.0, 1e300, 5e-324, 4294967295.5, f64::MAX];
            f32s.iter()
                .map(|v| f64::from(*v))
                .chain(more)
                .flat_map(|v| [v.to_bits(), (-v).to_bits()])
                .collect()
        }
        Elem::F16 => {
            vec![0, 0x8000, 0x3C00, 0xBC00, 0x3800, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 1, 0x03FF, 0x0400, 0x6400]
        }
        Elem::BF16 => {
            vec![0, 0x8000, 0x3F80, 0xBF80, 0x3F00, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0, 1, 0x007F, 0x0080, 0x4300]
        }
        _ => {
            let top = 1u64 << (e.bits() - 1);
            vec![
                0,
                1,
                2,
                3,
                5,
                7,
                8,
                10,
                31,
                63,
                100,
                top - 1,
                top,
                top + 1,
                u64::MAX,
                u64::MAX - 1,
                u64::MAX - 6,
                0xAA,
            ]
        }
    };
    bits.into_iter().map(|b| b & e.mask()).collect()
}

/// `n` lanes as bytes: every pair of special values meets when two such inputs are made with `phase` 0 and 1, then random bits.
pub fn values(e: Elem, n: usize, phase: usize, rng: &mut Rng) -> Vec<u8> {
    let s = special_values(e);
    let mut out = Vec::with_capacity(n * e.bytes());
    for i in 0..n {
        let bits = if i < s.len() * s.len() {
            s[if phase == 0 { i % s.len() } else { i / s.len() }]
        } else {
            rng.next_u64() & e.mask()
        };
        out.extend(&bits.to_le_bytes()[..e.bytes()]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that does nothing, one that scribbles beside a buffer, and one with another error word must all be noticed.
    #[test]
    fn notices_wrong_runs() {
        let cases = [memory::cases(4, &[17]), ops::cases(4)].concat();
        let random: Vec<Case> = (0..8).map(|s| random::case(s, 8)).collect();
        for c in cases.iter().chain(&random) {
            assert!(c.compare(|_, _, _, _| Ok(0)).is_err(), "{}", c.kernel.name);
            // SAFETY: `compare` passes live buffers.
            let again =
                |k: &Kernel, a: &[Arg], lo, hi| unsafe { run_cpu(k, a, lo, hi) }.map_err(|t| t.to_string());
            c.compare(again).expect("the interpreter agrees with itself");
            let e = c.compare(|k, a, lo, hi| again(k, a, lo, hi).map(|e| e + 1)).unwrap_err();
            assert!(e.contains("error word"), "{e}");
            let scribble = |k: &Kernel, a: &[Arg], lo, hi| {
                if let Some(Arg::Buf(p, n)) = a.iter().find(|a| matches!(a, Arg::Buf(..))) {
                    // SAFETY: there is a guard behind the buffer.
                    unsafe { p.add(*n).write(0) };
                }
                again(k, a, lo, hi)
            };
            let e = c.compare(scribble).unwrap_err();
            assert!(e.contains("outside the buffer was written"), "{e}");
        }
    }
}
