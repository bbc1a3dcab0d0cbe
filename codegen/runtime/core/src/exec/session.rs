//! Sessions: binding inputs, running, reading outputs.
use super::Program;
use super::segment::{Moved, Resolved};
use crate::arena::{Layout, Want};
use crate::cpu::FlushGuard;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result, fail};
use crate::kernel::{Code, Ctx};
use crate::mem::Buf;
use crate::object::{Object, Tensor, dense_bytes};
use crate::plan::{Exprs, Port, SlotId, ValueType};
use crate::pool::Pool;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ptr;

/// Layouts of the arena that a session remembers.
pub(super) const LAYOUTS: usize = 8;

/// How a session behaves.
#[derive(Clone)]
pub struct SessionOptions {
    /// Threads; `None` runs everything on the calling thread.
    pub pool: Option<Arc<Pool>>,
    /// Loop iterations a run may do, over all loops.
    pub max_steps: u64,
    /// Bytes that the arena or a buffer may take.
    pub max_memory: usize,
    /// Whether time per kernel is measured.
    pub profile: bool,
    /// Where the stream of random numbers begins.
    pub seed: u64,
}

impl SessionOptions {
    /// A seed that is another one in each session and process.
    pub fn any_seed() -> u64 {
        static SESSIONS: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
        let n = SESSIONS.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        let place = core::ptr::from_ref(&n).addr() as u64;
        crate::sys::now_ns() ^ place.rotate_left(32) ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            pool: None,
            max_steps: 100_000_000,
            max_memory: isize::MAX as usize,
            profile: false,
            seed: 0,
        }
    }
}

/// Type and shape of a dense input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Desc {
    /// Element type.
    pub dtype: DType,
    /// Dims.
    pub dims: Vec<i64>,
}

/// Time spent in a kernel since the session began or [`Session::reset_profile`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct KernelTime {
    /// Launches.
    pub calls: u64,
    /// Nanoseconds of wall time.
    pub ns: u64,
    /// Bytes of the tensors read or written, all launches together; each tensor counts once a launch.
    pub bytes: u64,
    /// Those of them that are weights.
    pub weights: u64,
}

/// An output after a run.
#[derive(Debug)]
pub enum OutputView<'a> {
    /// A dense tensor; the bytes are valid until the session runs again or is dropped.
    Dense {
        /// Element type.
        dtype: DType,
        /// Dims.
        dims: &'a [i64],
        /// Elements.
        data: &'a [u8],
    },
    /// Anything else.
    Object(&'a Arc<Object>),
}

pub(super) struct InputState {
    pub(super) ptr: *const u8,
    pub(super) bytes: usize,
    pub(super) external: Option<(*const u8, usize)>,
    /// The input on a device.
    pub(super) staged: Buf,
    pub(super) object: Option<Arc<Object>>,
    pub(super) dims: Vec<i64>,
}

pub(super) struct OutputState {
    pub(super) ptr: *mut u8,
    pub(super) capacity: usize,
    pub(super) external: Option<(*mut u8, usize)>,
    pub(super) own: Buf,
    /// The result of a device in this process.
    pub(super) fetched: Buf,
    pub(super) dims: Vec<i64>,
    /// Where the result of the last run is.
    pub(super) result: *const u8,
    pub(super) bytes: usize,
}

pub(super) struct State {
    pub(super) output: usize,
    pub(super) input: usize,
    /// What the next run reads.
    pub(super) buf: Buf,
    pub(super) object: Option<Arc<Object>>,
    pub(super) dims: Option<Vec<i64>>,
}

/// The memory and the state of one caller of a program. Not shared between threads; may move between them.
pub struct Session {
    program: Arc<Program>,
    pub(super) options: SessionOptions,
    pub(super) pool: Option<Arc<Pool>>,
    pub(super) exprs: Exprs,
    pub(super) inputs: Vec<InputState>,
    pub(super) outputs: Vec<OutputState>,
    given: Option<Vec<Option<Desc>>>,
    pub(super) arena: Buf,
    pub(super) offsets: Vec<usize>,
    pub(super) arena_bytes: Vec<usize>,
    pub(super) layouts: Vec<(Vec<Want>, Arc<Layout>)>,
    pub(super) heaps: Vec<Buf>,
    pub(super) objects: Vec<Option<Arc<Object>>>,
    pub(super) segments: Vec<Resolved>,
    /// Changes when addresses other than those of the arena change.
    pub(super) pointers: u64,
    /// Changes when everything has to be resolved again.
    pub(super) layout: u64,
    pub(super) states: Vec<State>,
    pub(super) counters: Vec<u64>,
    pub(super) steps_left: u64,
    /// The state of the random stream.
    pub(super) random: u64,
    pub(super) ctx: Ctx,
    times: Vec<KernelTime>,
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Session({:?})", self.program.plan.meta.name)
    }
}

// SAFETY: raw pointers inside are to buffers the session owns, and to buffers of the caller, who promises in
// `set_input` and `set_output` that they stay valid wherever the session runs.
unsafe impl Send for Session {}

impl Session {
    /// A session. Its memory is taken when shapes are bound.
    pub fn new(program: Arc<Program>, options: SessionOptions) -> Session {
        let plan = &program.plan;
        let input = |_: &Port| InputState {
            ptr: ptr::null(),
            bytes: 0,
            external: None,
            staged: Buf::at(&program.memory),
            object: None,
            dims: Vec::new(),
        };
        let output = |_: &Port| OutputState {
            ptr: ptr::null_mut(),
            capacity: 0,
            external: None,
            own: Buf::at(&program.memory),
            fetched: Buf::default(),
            dims: Vec::new(),
            result: ptr::null(),
            bytes: 0,
        };
        let mut s = Session {
            pool: options.pool.clone(),
            exprs: Exprs::new(&plan.exprs, plan.symbols.len()),
            inputs: plan.inputs.iter().map(input).collect(),
            outputs: plan.outputs.iter().map(output).collect(),
            given: None,
            arena: Buf::at(&program.memory),
            offsets: vec![0; program.arena.len()],
            arena_bytes: vec![0; program.arena.len()],
            layouts: Vec::new(),
            heaps: (0..program.heaps).map(|_| Buf::at(&program.memory)).collect(),
            objects: vec![None; plan.slots.len()],
            segments: program.segments.iter().map(|_| Resolved::default()).collect(),
            pointers: 1,
            layout: 1,
            states: Vec::new(),
            counters: vec![0; plan.counters.len()],
            steps_left: 0,
            random: options.seed,
            ctx: Ctx::default(),
            times: vec![KernelTime::default(); if options.profile { plan.kernels.len() } else { 0 }],
            options,
            program: program.clone(),
        };
        for &(o, i) in &plan.states {
            s.push_state(o as usize, i as usize);
        }
        s
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    fn push_state(&mut self, output: usize, input: usize) {
        self.states.retain(|s| s.input != input);
        self.states.push(State { output, input, buf: Buf::default(), object: None, dims: None });
        self.given = None;
    }

    /// Feeds an output of each run to an input of the next, beside the pairs the model declares.
    pub fn add_state(&mut self, output: usize, input: usize) -> Result<()> {
        let plan = &self.program.plan;
        let (Some(o), Some(i)) = (plan.outputs.get(output), plan.inputs.get(input)) else {
            fail!(Input, "no output {output} or no input {input}")
        };
        if o.ty != i.ty {
            fail!(Input, "the output {:?} is {}, but the input {:?} is {}", o.name, o.ty, i.name, i.ty);
        }
        self.push_state(output, input);
        Ok(())
    }

    /// Whether an input is fed by the session where the caller gives none.
    pub fn is_state(&self, input: usize) -> bool {
        self.states.iter().any(|s| s.input == input)
    }

    /// Makes the state zero again.
    pub fn reset(&mut self) {
        for s in &mut self.states {
            (s.dims, s.object) = (None, None);
        }
        self.random = self.options.seed;
    }

    /// Binds the types and shapes of inputs, one for each input of the model: `None` for an object, and for a state
    /// that the session feeds. Everything is checked before memory is taken. Inputs and outputs set before are
    /// forgotten.
    pub fn bind(&mut self, descs: &[Option<Desc>]) -> Result<()> {
        let p = self.program.clone();
        if descs.len() != p.plan.inputs.len() {
            fail!(Input, "{} inputs are given, the model has {}", descs.len(), p.plan.inputs.len());
        }
        for i in &mut self.inputs {
            (i.external, i.object) = (None, None);
        }
        for o in &mut self.outputs {
            o.external = None;
        }
        self.given = None;
        self.bind_dims(&p, descs, false)?;
        self.given = Some(descs.to_vec());
        Ok(())
    }

    /// Bytes of the arena.
    pub fn arena_len(&self) -> usize {
        self.arena.capacity()
    }

    /// Gives the bytes of a dense input.
    ///
    /// # Safety
    /// `data` is valid for reads of `bytes` and not written while the session runs, until it is set again or shapes
    /// are bound again.
    pub unsafe fn set_input(&mut self, i: usize, data: *const u8, bytes: usize) -> Result<()> {
        let port = self.port(i)?;
        if self.given.is_none() {
            fail!(Input, "shapes are not bound");
        }
        if !port.ty.is_dense() {
            fail!(Input, "the input {:?} is {}, not a tensor of bytes", port.name, port.ty);
        }
        if bytes != self.inputs[i].bytes {
            fail!(Input, "the input {:?} has {bytes} bytes instead of {}", port.name, self.inputs[i].bytes);
        }
        self.inputs[i].external = Some((data, bytes));
        Ok(())
    }

    fn port(&self, i: usize) -> Result<&Port> {
        match self.program.plan.inputs.get(i) {
            Some(p) => Ok(p),
            None => fail!(Input, "there is no input {i}"),
        }
    }

    /// Gives an input that is no dense tensor.
    pub fn set_input_object(&mut self, i: usize, value: Arc<Object>) -> Result<()> {
        let port = self.port(i)?;
        if port.ty.is_dense() || !value.is(&port.ty) {
            fail!(Input, "the input {:?} must be {}", port.name, port.ty);
        }
        if let (Some(dims), Some(want)) = (value.dims(), &port.dims)
            && dims.len() != want.len()
        {
            fail!(Input, "the input {:?} has rank {}, not {}", port.name, dims.len(), want.len());
        }
        self.inputs[i].object = Some(value);
        Ok(())
    }

    /// Gives the buffer an output is written to. Without one the session keeps the output.
    ///
    /// # Safety
    /// `data` is valid for reads and writes of `capacity` bytes, not used by others while the session runs, aligned
    /// to its elements, until it is set again or shapes are bound again.
    pub unsafe fn set_output(&mut self, o: usize, data: *mut u8, capacity: usize) -> Result<()> {
        let plan = &self.program.plan;
        let Some(port) = plan.outputs.get(o) else { fail!(Input, "there is no output {o}") };
        if !port.ty.is_dense() {
            fail!(Input, "the output {:?} is {}, not a tensor of bytes", port.name, port.ty);
        }
        if let (true, ValueType::Tensor(d)) =
            (self.program.known_outputs[o] && self.given.is_some(), &port.ty)
        {
            let need = dense_bytes(*d, &self.outputs[o].dims).unwrap_or(u64::MAX);
            if need > capacity as u64 {
                fail!(Buffer, "the output {:?} needs {need} bytes, the buffer has {capacity}", port.name);
            }
        }
        self.outputs[o].external = Some((data, capacity));
        Ok(())
    }

    /// Forgets the buffers of inputs and outputs; shapes stay bound.
    pub fn clear_buffers(&mut self) {
        self.inputs.iter_mut().for_each(|i| i.external = None);
        self.outputs.iter_mut().for_each(|o| o.external = None);
    }

    /// The dims of an output: known after binding for most, after a run for all dense ones.
    pub fn output_dims(&self, o: usize) -> Option<&[i64]> {
        let p = &self.program;
        let known = p.known_outputs.get(o)? | !self.outputs[o].result.is_null();
        (known && self.given.is_some() && p.plan.outputs[o].ty.is_dense()).then_some(&self.outputs[o].dims)
    }

    /// Runs the model once.
    pub fn run(&mut self) -> Result<()> {
        let p = self.program.clone();
        let Some(given) = self.given.take() else { fail!(Input, "shapes are not bound") };
        let outcome = self.prepare(&p, &given);
        self.given = Some(given);
        outcome?;
        if let Code::Host(table) = &p.code {
            table.begin()?;
        }
        let flush = FlushGuard::new();
        let outcome = self.run_block(&p, p.plan.entry);
        drop(flush);
        outcome?;
        self.finish(&p)
    }

    /// Gives the start of a state: what the next run reads, until it writes its own.
    pub fn set_state(&mut self, input: usize, value: &Tensor) -> Result<()> {
        let port = self.port(input)?.clone();
        check_desc(&port, &Desc { dtype: value.dtype, dims: value.dims.clone() })?;
        let Some(s) = self.states.iter_mut().find(|s| s.input == input) else {
            fail!(Input, "the input {:?} is no state", port.name)
        };
        s.buf.reserve(value.data.len())?;
        // SAFETY: the buffer holds as many bytes.
        unsafe { ptr::copy_nonoverlapping(value.data.as_ptr(), s.buf.ptr(), value.data.len()) };
        s.dims = Some(value.dims.clone());
        Ok(())
    }

    /// What the next run reads as a state that holds a dense tensor; `None` where it starts as zero.
    pub fn state(&self, input: usize) -> Option<OutputView<'_>> {
        let ValueType::Tensor(dtype) = self.program.plan.inputs.get(input)?.ty else { return None };
        let s = self.states.iter().find(|s| s.input == input)?;
        let dims = s.dims.as_ref()?;
        let bytes = dense_bytes(dtype, dims)? as usize;
        // SAFETY: a state with dims holds as many bytes.
        let data = unsafe { core::slice::from_raw_parts(s.buf.ptr().cast_const(), bytes) };
        Some(OutputView::Dense { dtype, dims, data })
    }

    /// An output of the last run; `None` before the first.
    pub fn output(&self, o: usize) -> Option<OutputView<'_>> {
        let port = self.program.plan.outputs.get(o)?;
        let ValueType::Tensor(dtype) = port.ty else { return self.object(port.slot) };
        if dtype == DType::String {
            return self.object(port.slot);
        }
        let out = &self.outputs[o];
        if out.result.is_null() {
            return None;
        }
        // SAFETY: `finish` checked that the result holds `bytes` bytes, which stay until the next run.
        let data = unsafe { core::slice::from_raw_parts(out.result, out.bytes) };
        Some(OutputView::Dense { dtype, dims: &out.dims, data })
    }

    fn object(&self, s: SlotId) -> Option<OutputView<'_>> {
        self.objects[s.index()].as_ref().map(OutputView::Object)
    }

    /// Binds, runs and copies the outputs: one call for tests and tools. `None` stands for a state that the session
    /// feeds.
    pub fn run_values(&mut self, inputs: &[Option<Arc<Object>>]) -> Result<Vec<Arc<Object>>> {
        let descs: Vec<Option<Desc>> = inputs
            .iter()
            .map(|v| match v.as_deref() {
                Some(Object::Tensor(t)) => Some(Desc { dtype: t.dtype, dims: t.dims.clone() }),
                _ => None,
            })
            .collect();
        self.bind(&descs)?;
        for (i, v) in inputs.iter().enumerate() {
            match v.as_deref() {
                // SAFETY: `inputs` outlives the run below, and the next bind forgets the address.
                Some(Object::Tensor(t)) => unsafe { self.set_input(i, t.data.as_ptr(), t.data.len())? },
                Some(_) => {
                    self.set_input_object(i, v.clone().unwrap_or_else(|| Arc::new(Object::Optional(None))))?
                }
                None => {}
            }
        }
        let outcome = self.run();
        for i in &mut self.inputs {
            i.external = None;
        }
        outcome?;
        let copy = |o| match self.output(o) {
            Some(OutputView::Dense { dtype, dims, data }) => {
                Ok(Arc::new(Object::Tensor(Tensor { dtype, dims: dims.to_vec(), data: data.to_vec() })))
            }
            Some(OutputView::Object(v)) => Ok(v.clone()),
            None => Err(Error::new(ErrorKind::Program, "an output was not written")),
        };
        (0..self.outputs.len()).map(copy).collect()
    }

    /// The counters of the last run, in the order of the plan.
    pub fn counters(&self) -> &[u64] {
        &self.counters
    }

    /// Time per kernel; empty unless asked for.
    pub fn profile(&self) -> &[KernelTime] {
        &self.times
    }

    /// The value of an expression under the symbols bound last.
    pub fn value_of(&self, e: crate::plan::ExprId) -> Option<i64> {
        self.exprs.get(e).ok()
    }

    /// Sets the times to zero.
    pub fn reset_profile(&mut self) {
        self.times.fill(KernelTime::default());
    }

    pub(super) fn profile_start(&self) -> u64 {
        if self.times.is_empty() { 0 } else { crate::sys::now_ns() }
    }

    pub(super) fn profile_end(&mut self, kernel: u32, start: u64, moved: Moved) {
        if let Some(t) = self.times.get_mut(kernel as usize) {
            t.calls += 1;
            t.ns += crate::sys::now_ns().saturating_sub(start);
            t.bytes += moved.bytes;
            t.weights += moved.weights;
        }
    }
}

pub(super) fn check_desc(port: &Port, d: &Desc) -> Result<()> {
    let ValueType::Tensor(want) = port.ty else {
        fail!(Input, "the input {:?} must be {}", port.name, port.ty)
    };
    if d.dtype != want {
        fail!(Input, "the input {:?} must be of type {want}, not {}", port.name, d.dtype);
    }
    let rank = port.dims.as_ref().map_or(0, Vec::len);
    if d.dims.len() != rank {
        fail!(Input, "the input {:?} has rank {}, not {rank}", port.name, d.dims.len());
    }
    if let Some(bad) = d.dims.iter().find(|&&x| x < 0) {
        fail!(Input, "the input {:?} has the negative dim {bad}", port.name);
    }
    Ok(())
}
