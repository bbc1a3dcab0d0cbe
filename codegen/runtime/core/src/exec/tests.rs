use super::*;
use crate::kernel::{Ctx, KernelFn};
use crate::library;
use crate::object::{Object, Tensor};
use crate::plan::*;
use crate::pool::Pool;
use crate::{DType, ErrorKind};
use alloc::boxed::Box;
use alloc::string::String;
use core::sync::atomic::Ordering;

mod far;
mod loops;

/// `y[i] = a[i] + b[i]` for f32.
unsafe extern "C" fn add(args: *const u64, lo: i64, hi: i64, _: *mut Ctx) {
    for i in lo as usize..hi as usize {
        // SAFETY: the plans below pass three f32 tensors of at least `hi` elements.
        unsafe {
            let (a, b, y) = (*args as *const f32, *args.add(1) as *const f32, *args.add(2) as *mut f32);
            *y.add(i) = *a.add(i) + *b.add(i);
        }
    }
}

/// Writes the scalar `args[1]` to the i64 at `args[0]`.
unsafe extern "C" fn store(args: *const u64, _: i64, _: i64, _: *mut Ctx) {
    // SAFETY: the plans below pass the address of an i64.
    unsafe { *(*args as *mut u64) = *args.add(1) }
}

/// Raises error `args[0]`.
unsafe extern "C" fn raise(args: *const u64, _: i64, _: i64, ctx: *mut Ctx) {
    // SAFETY: the executor passes its context.
    unsafe { (*ctx).error.store(*args as i32, Ordering::Relaxed) }
}

const ADD: KernelId = KernelId(0);
const STORE: KernelId = KernelId(1);
const RAISE: KernelId = KernelId(2);

#[derive(Default)]
struct Maker {
    plan: Plan,
    pool: ExprPool,
    step: u32,
    /// Whether tensors are on a device.
    far: bool,
}

impl Maker {
    fn new() -> Maker {
        let mut m = Maker::default();
        for (name, params) in [("add", 3), ("store", 2), ("raise", 1)] {
            m.plan.kernels.push(KernelDecl {
                name: name.into(),
                params,
                nodes: vec![],
                flops: None,
                bytes: None,
            });
        }
        m.plan.errors.push("that is wrong".into());
        m
    }

    fn sym(&mut self, name: &str, min: i64, max: i64) -> (SymId, ExprId) {
        let id = SymId(self.plan.symbols.len() as u32);
        self.plan.symbols.push(Symbol { name: name.into(), min, max, values: vec![] });
        (id, self.pool.sym(id))
    }

    fn c(&mut self, v: i64) -> ExprId {
        self.pool.constant(v)
    }

    fn slot(&mut self, dtype: DType, dims: &[ExprId], place: Place) -> SlotId {
        self.plan.slots.push(Slot { kind: SlotKind::Tensor { dtype, dims: dims.to_vec() }, place });
        SlotId(self.plan.slots.len() as u32 - 1)
    }

    fn object(&mut self, place: Place) -> SlotId {
        self.plan.slots.push(Slot { kind: SlotKind::Object, place });
        SlotId(self.plan.slots.len() as u32 - 1)
    }

    fn input(&mut self, name: &str, dtype: DType, dims: &[ExprId]) -> SlotId {
        let slot = self.slot(dtype, dims, Place::Input(self.plan.inputs.len() as u32));
        let dims = Some(dims.to_vec());
        self.plan.inputs.push(Port { name: name.into(), ty: ValueType::Tensor(dtype), dims, slot });
        slot
    }

    fn output(&mut self, name: &str, dtype: DType, dims: &[ExprId]) -> SlotId {
        let slot = self.slot(dtype, dims, Place::Output(self.plan.outputs.len() as u32));
        let dims = Some(dims.to_vec());
        self.plan.outputs.push(Port { name: name.into(), ty: ValueType::Tensor(dtype), dims, slot });
        slot
    }

    fn arena(&mut self, dims: &[ExprId]) -> SlotId {
        let four = self.c(4);
        let n = self.pool.product(dims);
        let bytes = self.pool.bin(BinOp::Mul, n, four);
        self.step += 1;
        self.slot(DType::F32, dims, Place::Arena { bytes, first: self.step, last: self.step + 1 })
    }

    fn add(&mut self, a: SlotId, b: SlotId, y: SlotId, n: ExprId) -> Step {
        let grain = self.c(1);
        Step::Launch {
            kernel: ADD,
            args: vec![Arg::Slot(a), Arg::Slot(b), Arg::Slot(y)],
            extent: n,
            grain,
            round: None,
        }
    }

    fn store(&mut self, s: SlotId, v: ExprId) -> Step {
        let one = self.c(1);
        Step::Launch {
            kernel: STORE,
            args: vec![Arg::Slot(s), Arg::Scalar(v)],
            extent: one,
            grain: one,
            round: None,
        }
    }

    fn session_with(mut self, steps: Vec<Step>, options: SessionOptions) -> Session {
        self.plan.exprs = self.pool.finish();
        self.plan.blocks[0].steps = steps;
        let functions = vec![add as KernelFn, store, raise];
        let code = if self.far { far::code(functions) } else { Code::Native(functions) };
        let plan = Plan::decode(&self.plan.encode()).expect("valid plan");
        // SAFETY: no weights; the kernels match their declarations.
        let program = unsafe { Program::new(plan, code, core::ptr::null(), 0, None) }.expect("program");
        Session::new(Arc::new(program), options)
    }

    fn session(self, steps: Vec<Step>) -> Session {
        self.session_with(steps, SessionOptions::default())
    }
}

fn f32s(dims: &[i64], v: &[f32]) -> Option<Arc<Object>> {
    let data = v.iter().flat_map(|x| x.to_le_bytes()).collect();
    Some(Arc::new(Object::Tensor(Tensor { dtype: DType::F32, dims: dims.to_vec(), data })))
}

fn i64s(dims: &[i64], v: &[i64]) -> Option<Arc<Object>> {
    Some(Arc::new(Object::Tensor(Tensor::of_i64(dims.to_vec(), v))))
}

/// `t = x + x; y = t + x` over `n` elements.
fn triple() -> (Maker, Vec<Step>) {
    let mut m = Maker::new();
    let (_, n) = m.sym("n", 1, 1000);
    let x = m.input("x", DType::F32, &[n]);
    let y = m.output("y", DType::F32, &[n]);
    let t = m.arena(&[n]);
    let steps = vec![m.add(x, x, t, n), m.add(t, x, y, n)];
    (m, steps)
}

#[test]
fn runs_straight_lines_at_several_shapes() {
    let (m, steps) = triple();
    let mut s = m.session(steps);
    for n in [1i64, 5, 1000, 2] {
        let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let y: Vec<f32> = x.iter().map(|v| v * 3.0).collect();
        assert_eq!(s.run_values(&[f32s(&[n], &x)]).expect("runs"), [f32s(&[n], &y).expect("some")]);
    }
}

#[test]
fn threads_give_the_same_bits() {
    for threads in [2, 4] {
        let (m, steps) = triple();
        let options =
            SessionOptions { pool: Some(Arc::new(Pool::new(threads))), profile: true, ..Default::default() };
        let mut s = m.session_with(steps, options);
        let x: Vec<f32> = (0..1000).map(|i| i as f32 * 0.1).collect();
        let y: Vec<f32> = x.iter().map(|v| v + v + v).collect();
        for _ in 0..50 {
            assert_eq!(s.run_values(&[f32s(&[1000], &x)]).expect("runs"), [f32s(&[1000], &y).expect("some")]);
        }
        assert_eq!(s.profile()[0].calls, 100);
    }
}

#[test]
fn inputs_are_checked_before_anything_runs() {
    let (m, steps) = triple();
    let mut s = m.session(steps);
    let cases = [
        (vec![], "0 inputs are given"),
        (vec![None], "is missing"),
        (vec![i64s(&[1], &[1])], "must be of type f32, not i64"),
        (vec![f32s(&[1, 1], &[1.0])], "has rank 2, not 1"),
        (vec![f32s(&[0], &[])], "outside the range 1..=1000"),
        (vec![f32s(&[-4], &[])], "negative dim -4"),
    ];
    for (inputs, message) in cases {
        let e = s.run_values(&inputs).expect_err(message);
        assert_eq!(e.kind, ErrorKind::Input);
        assert!(e.message.contains(message), "{e}");
        assert_eq!(s.arena_len(), 0);
    }
    s.bind(&[Some(Desc { dtype: DType::F32, dims: vec![2] })]).expect("binds");
    let x = [1f32, 2.0];
    // SAFETY: the buffers below are as long as stated.
    unsafe {
        assert_eq!(s.set_input(0, x.as_ptr().cast(), 4).expect_err("short").kind, ErrorKind::Input);
        let mut y = [0f32; 2];
        assert_eq!(s.set_output(0, y.as_mut_ptr().cast(), 7).expect_err("short").kind, ErrorKind::Buffer);
        assert!(s.run().is_err());
        s.set_input(0, x.as_ptr().cast(), 8).expect("fits");
        s.set_output(0, y.as_mut_ptr().cast(), 8).expect("fits");
        s.run().expect("runs");
        assert_eq!(y, [3.0, 6.0]);
    }
}

#[test]
fn symbols_must_agree_between_inputs() {
    let mut m = Maker::new();
    let (_, n) = m.sym("n", 0, i64::MAX);
    let two = m.c(2);
    let nn = m.pool.bin(BinOp::Mul, n, two);
    m.input("a", DType::F32, &[n]);
    m.input("b", DType::F32, &[n]);
    m.input("c", DType::F32, &[nn]);
    let mut s = m.session(vec![]);
    let run = |s: &mut Session, a: i64, b: i64, c: i64| {
        s.bind(&[a, b, c].map(|d| Some(Desc { dtype: DType::F32, dims: vec![d] })))
    };
    run(&mut s, 3, 3, 6).expect("agrees");
    assert!(run(&mut s, 3, 4, 6).expect_err("b").message.contains("\"n\" is 3 in another place"));
    assert!(run(&mut s, 3, 3, 5).expect_err("c").message.contains("n * 2 = 6 is needed"));
    assert!(run(&mut s, i64::MAX, i64::MAX, 5).is_err());
}

#[test]
fn kernel_errors_become_messages() {
    let mut m = Maker::new();
    let code = m.c(1);
    let one = m.c(1);
    let step =
        Step::Launch { kernel: RAISE, args: vec![Arg::Scalar(code)], extent: one, grain: one, round: None };
    let mut s = m.session(vec![step]);
    for _ in 0..2 {
        let e = s.run_values(&[]).expect_err("raised");
        assert_eq!((e.kind, e.message.as_str()), (ErrorKind::Data, "that is wrong"));
    }
}

#[test]
fn conditions_and_data_dependent_sizes() {
    // n = data[0]; y has n elements (an owned output whose size is known after the run only); branch on the flag.
    let mut m = Maker::new();
    let (_, len) = m.sym("len", 1, 100);
    let (n, ne) = m.sym("n", 0, 100);
    let x = m.input("x", DType::F32, &[len]);
    let count = m.input("count", DType::I32, &[]);
    let flag = m.input("flag", DType::Bool, &[]);
    let y = m.output("y", DType::F32, &[ne]);
    let t = m.slot(DType::F32, &[ne], Place::Heap);
    let (zero, one) = (m.c(0), m.c(1));
    let first = m.add(x, x, t, ne);
    let twice = m.add(t, t, y, ne);
    m.plan.blocks.push(Block { steps: vec![twice] });
    m.plan.blocks.push(Block { steps: vec![Step::Copy { dst: y, src: t }] });
    m.plan.counters.push("taken".into());
    let steps = vec![
        Step::Bind { sym: n, slot: count, index: 0, min: zero, max: len, error: ErrorId(0) },
        first,
        Step::If { cond: Value::Slot(flag), then_: BlockId(1), else_: BlockId(2) },
        Step::Count { counter: CounterId(0), value: Value::Expr(one) },
    ];
    let mut s = m.session(steps);
    let b = |v: bool| {
        Some(Arc::new(Object::Tensor(Tensor { dtype: DType::Bool, dims: vec![], data: vec![v as u8] })))
    };
    let c = |v: i32| {
        Some(Arc::new(Object::Tensor(Tensor {
            dtype: DType::I32,
            dims: vec![],
            data: v.to_le_bytes().to_vec(),
        })))
    };
    let x = f32s(&[4], &[1.0, 2.0, 3.0, 4.0]);
    for (n, flag, want) in [
        (3, true, vec![4.0, 8.0, 12.0]),
        (1, false, vec![2.0]),
        (4, false, vec![2.0, 4.0, 6.0, 8.0]),
        (0, true, vec![]),
    ] {
        let got = s.run_values(&[x.clone(), c(n), b(flag)]).expect("runs");
        assert_eq!(got, [f32s(&[n as i64], &want).expect("some")]);
        assert_eq!(s.counters(), [1]);
    }
    let e = s.run_values(&[x, c(5), b(true)]).expect_err("too many");
    assert!(e.message.starts_with("that is wrong (the value is 5"), "{e}");
}

#[test]
fn states_flow_from_run_to_run() {
    // y = x + s; s' = y.
    let mut m = Maker::new();
    let (_, n) = m.sym("n", 1, 10);
    let x = m.input("x", DType::F32, &[n]);
    let st = m.input("s", DType::F32, &[n]);
    let y = m.output("y", DType::F32, &[n]);
    m.plan.states.push((0, 1));
    let steps = vec![m.add(x, st, y, n)];
    let mut s = m.session(steps);
    let one = f32s(&[2], &[1.0, 2.0]);
    for k in 1..4 {
        let out = s.run_values(&[one.clone(), None]).expect("runs");
        assert_eq!(out, [f32s(&[2], &[k as f32, 2.0 * k as f32]).expect("some")]);
    }
    s.reset();
    assert_eq!(s.run_values(&[one.clone(), None]).expect("runs"), [one.clone().expect("some")]);
    let start = f32s(&[2], &[10.0, 10.0]);
    assert_eq!(
        s.run_values(&[one.clone(), start]).expect("runs"),
        [f32s(&[2], &[11.0, 12.0]).expect("some")]
    );
    assert_eq!(s.run_values(&[one, None]).expect("runs"), [f32s(&[2], &[12.0, 14.0]).expect("some")]);
}

#[test]
fn states_may_grow() {
    // s' = s with one more element: the smallest start is empty.
    let mut m = Maker::new();
    let (_, n) = m.sym("past", 0, 10);
    let one = m.c(1);
    let more = m.pool.bin(BinOp::Add, n, one);
    let st = m.input("s", DType::F32, &[n]);
    let y = m.output("y", DType::F32, &[more]);
    m.plan.states.push((0, 0));
    let copy = Step::Copy { dst: y, src: st };
    let mut s = m.session(vec![copy]);
    s.bind(&[None]).expect("binds");
    for k in 1..5 {
        s.run().expect("runs");
        assert_eq!(s.output_dims(0), Some(&[k][..]));
    }
}

#[test]
fn states_of_no_known_size_have_one_element() {
    let mut m = Maker::new();
    let (_, n) = m.sym("batch", 0, 10);
    let st = m.input("s", DType::F32, &[n]);
    let y = m.output("y", DType::F32, &[n]);
    m.plan.states.push((0, 0));
    let mut s = m.session(vec![Step::Copy { dst: y, src: st }]);
    assert_eq!(s.run_values(&[None]).expect("runs"), [f32s(&[1], &[0.0]).expect("some")]);
}

#[test]
fn limits_and_inconsistent_programs_are_errors() {
    let (m, steps) = triple();
    let mut s = m.session_with(steps, SessionOptions { max_memory: 100, ..Default::default() });
    let x = vec![0.0; 100];
    assert_eq!(s.run_values(&[f32s(&[100], &x)]).expect_err("limit").kind, ErrorKind::Memory);
    // A part that begins behind the end of its home.
    let mut m = Maker::new();
    let (two, big) = (m.c(2), m.c(100));
    let x = m.input("x", DType::F32, &[two]);
    let y = m.output("y", DType::F32, &[two]);
    let part = m.slot(DType::F32, &[two], Place::Alias { slot: x, byte_offset: big });
    let steps = vec![Step::Copy { dst: y, src: part }];
    let mut s = m.session(steps);
    assert_eq!(s.run_values(&[f32s(&[2], &[0.0; 2])]).expect_err("outside").kind, ErrorKind::Program);
    let m = Maker::new();
    // SAFETY: nothing is read: the program is refused.
    let e = unsafe { Program::new(m.plan, Code::Native(vec![]), core::ptr::null(), 0, None) }
        .err()
        .expect("refused");
    assert!(e.message.contains("0 kernels, the plan 3"), "{e}");
    let _: String = e.message;
}

/// Counts what this thread allocates.
struct Counting;

std::thread_local! {
    static ALLOCATIONS: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl core::alloc::GlobalAlloc for Counting {
    unsafe fn alloc(&self, l: core::alloc::Layout) -> *mut u8 {
        // A thread that is ending has no counter any more.
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { std::alloc::System.alloc(l) }
    }
    unsafe fn dealloc(&self, p: *mut u8, l: core::alloc::Layout) {
        // SAFETY: as the caller promises.
        unsafe { std::alloc::System.dealloc(p, l) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_steady_run_allocates_nothing() {
    let (m, steps) = triple();
    let pool = Some(Arc::new(Pool::new(2)));
    let mut s = m.session_with(steps, SessionOptions { pool, ..Default::default() });
    let x = [1f32; 64];
    let (mut y, mut z) = ([0f32; 64], [0f32; 64]);
    s.bind(&[Some(Desc { dtype: DType::F32, dims: vec![64] })]).expect("binds");
    let mut run = |y: &mut [f32; 64]| {
        // SAFETY: the buffers have 64 elements and live during the run.
        unsafe {
            s.set_input(0, x.as_ptr().cast(), 256).expect("fits");
            s.set_output(0, y.as_mut_ptr().cast(), 256).expect("fits");
        }
        s.run().expect("runs");
    };
    run(&mut y);
    let before = ALLOCATIONS.with(core::cell::Cell::get);
    for _ in 0..10 {
        run(&mut y);
        run(&mut z);
    }
    assert_eq!(ALLOCATIONS.with(core::cell::Cell::get), before);
    assert_eq!((y, z), ([3.0; 64], [3.0; 64]));
}
