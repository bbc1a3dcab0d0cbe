//! Tensors on a device: its addresses are none of this process, so that whoever uses one here crashes.
use super::*;
use crate::device::Device;
use crate::error::Result;
use crate::kernel::HostKernels;
use crate::mem::Buf;
use core::sync::atomic::{AtomicI32, AtomicUsize};
use std::collections::HashMap;
use std::sync::Mutex;

/// What is added to the addresses of the device's memory.
const FAR: u64 = 1 << 60;

/// Memory of this process under other addresses, which counts what it is asked for.
#[derive(Default)]
struct Memory {
    blocks: Mutex<HashMap<u64, Buf>>,
    taken: AtomicUsize,
    uploaded: AtomicUsize,
}

fn near(at: u64) -> *mut u8 {
    assert!(at >= FAR, "{at:#x} is no address of the device");
    (at - FAR) as *mut u8
}

impl Device for Memory {
    fn alloc(&self, bytes: usize) -> Result<u64> {
        let mut b = Buf::default();
        b.reserve(bytes.max(1))?;
        // What is not written is not zero.
        // SAFETY: the buffer was just made of so many bytes.
        unsafe { b.ptr().write_bytes(0xA5, bytes) };
        let at = b.ptr() as u64 + FAR;
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.blocks.lock().expect("no panic").insert(at, b);
        Ok(at)
    }
    fn free(&self, at: u64) {
        assert!(self.blocks.lock().expect("no panic").remove(&at).is_some());
    }
    fn upload(&self, to: u64, from: &[u8]) -> Result<()> {
        self.uploaded.fetch_add(from.len(), Ordering::Relaxed);
        // SAFETY: the executor writes inside what it was given.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), near(to), from.len()) };
        Ok(())
    }
    fn download(&self, to: &mut [u8], from: u64) -> Result<()> {
        // SAFETY: as above.
        unsafe { core::ptr::copy_nonoverlapping(near(from), to.as_mut_ptr(), to.len()) };
        Ok(())
    }
    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        // SAFETY: as above.
        unsafe { core::ptr::copy(near(from), near(to), bytes) };
        Ok(())
    }
}

struct Kernels {
    functions: Vec<KernelFn>,
    memory: Arc<Memory>,
    error: AtomicI32,
}

impl HostKernels for Kernels {
    unsafe fn launch(&self, kernel: u32, args: &[u64], sizes: &[u64], lo: i64, hi: i64, _: &Ctx) {
        let near: Vec<u64> =
            args.iter().zip(sizes).map(|(a, n)| if *n > 0 { near(*a) as u64 } else { *a }).collect();
        let mut ctx = Ctx::default();
        // SAFETY: the addresses are those of this process now.
        unsafe { self.functions[kernel as usize](near.as_ptr(), lo, hi, &raw mut ctx) };
        self.error.fetch_max(ctx.error.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    fn device(&self) -> Option<Arc<dyn Device>> {
        Some(self.memory.clone())
    }
    fn begin(&self) -> Result<()> {
        self.error.store(0, Ordering::Relaxed);
        Ok(())
    }
    fn settle(&self, ctx: &Ctx) -> Result<()> {
        ctx.error.store(self.error.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(())
    }
}

fn kernels(functions: Vec<KernelFn>) -> Arc<Kernels> {
    Arc::new(Kernels { functions, memory: Arc::default(), error: AtomicI32::new(0) })
}

/// The functions as kernels of such a device.
pub(super) fn code(functions: Vec<KernelFn>) -> Code {
    Code::Host(kernels(functions))
}

#[test]
fn weights_go_up_once_and_memory_is_taken_once() {
    let mut m = Maker::new();
    let (_, n) = m.sym("n", 1, 1000);
    let four = m.c(4);
    let x = m.input("x", DType::F32, &[four]);
    let free = m.input("z", DType::F32, &[n]);
    let w = m.slot(DType::F32, &[four], Place::Weights { offset: 0, len: 16 });
    let y = m.output("y", DType::F32, &[four]);
    let z = m.output("zz", DType::F32, &[n]);
    let t = m.arena(&[n]);
    m.plan.blocks[0].steps = vec![m.add(x, w, y, four), m.add(free, free, t, n), m.add(t, free, z, n)];
    m.plan.exprs = core::mem::take(&mut m.pool).finish();
    let table = kernels(vec![add as KernelFn, store, raise]);
    let memory = table.memory.clone();
    #[repr(align(64))]
    struct Weights([f32; 4]);
    static WEIGHTS: Weights = Weights([1.0, 2.0, 3.0, 4.0]);
    let at = WEIGHTS.0.as_ptr().cast();
    // SAFETY: the weights live for ever; the kernels match their declarations.
    let program = unsafe { Program::new(m.plan, Code::Host(table), at, 16, None) }.expect("program");
    let mut s = Session::new(Arc::new(program), SessionOptions::default());
    let mut run = |n: i64| {
        let z: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let out = s.run_values(&[f32s(&[4], &[1.0; 4]), f32s(&[n], &z)]).expect("runs");
        assert_eq!(out[0], f32s(&[4], &[2.0, 3.0, 4.0, 5.0]).expect("some"));
        let want: Vec<f32> = z.iter().map(|v| v * 3.0).collect();
        assert_eq!(out[1], f32s(&[n], &want).expect("some"));
    };
    run(7);
    let counts = || (memory.taken.load(Ordering::Relaxed), memory.uploaded.load(Ordering::Relaxed));
    let first = counts();
    assert_eq!(first.1, 16 + 16 + 28, "weights and inputs");
    run(7);
    run(7);
    assert_eq!(counts(), (first.0, first.1 + 2 * (16 + 28)));
    run(100);
    drop(s);
    assert_eq!(memory.blocks.lock().expect("no panic").len(), 0, "all memory is given back");
}

#[test]
fn errors_are_found_where_a_straight_line_ends() {
    let mut m = Maker { far: true, ..Maker::new() };
    let one = m.c(1);
    let steps = vec![Step::Launch {
        kernel: RAISE,
        args: vec![Arg::Scalar(one)],
        extent: one,
        grain: one,
        round: None,
    }];
    let mut s = m.session(steps);
    for _ in 0..2 {
        let e = s.run_values(&[]).expect_err("an error");
        assert_eq!((e.kind, e.message.as_str()), (ErrorKind::Data, "that is wrong"));
    }
}
