//! The C interface; `planish.h` beside this crate says what each function does.
use crate::cpu;
use crate::describe;
use crate::dtype::DType;
use crate::error::{ErrorKind, Result, fail};
use crate::exec::{Desc, OutputView, Program, Session, SessionOptions};
use crate::image::Image;
use crate::plan::ValueType;
use crate::pool::{Pool, PoolHandle};
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ffi::c_char;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// The text of `planish.h`.
pub const HEADER: &str = include_str!("../planish.h");
/// Version of the interface.
pub const ABI_VERSION: u32 = 1;

/// What an artifact tells the runtime about its model. It lies in writable data of the artifact.
#[repr(C)]
#[derive(Debug)]
pub struct ModelDescriptor {
    /// The table, once it is made; null in the file.
    pub table: AtomicPtr<Model>,
    /// The data block of the image.
    pub data: *const u8,
    /// Its length.
    pub data_len: usize,
    /// The code block of the image.
    pub code: *const u8,
    /// Its length.
    pub code_len: usize,
}

// SAFETY: the blocks are constant data of the artifact; the table is published through an atomic.
unsafe impl Sync for ModelDescriptor {}

/// `planish_shape`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// ONNX code, 0 for none.
    pub dtype: i32,
    /// Number of dims.
    pub rank: u32,
    /// Dims.
    pub dims: *const i64,
}

/// `planish_buffer`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Address.
    pub data: *mut u8,
    /// Length.
    pub bytes: usize,
}

/// `planish_options`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of the caller's structure.
    pub size: u32,
    /// Threads without a pool.
    pub threads: i32,
    /// Pool.
    pub pool: *mut PoolHandle,
    /// Loop iterations.
    pub max_steps: u64,
    /// Bytes.
    pub max_memory: u64,
}

type Status = i32;

/// `planish_model`, followed by what only the runtime reads.
#[repr(C)]
#[derive(Debug)]
pub struct Model {
    /// [`ABI_VERSION`].
    pub abi: u32,
    /// Size of the public part.
    pub size: u32,
    /// Name.
    pub name: *const c_char,
    /// Number of inputs.
    pub inputs: u32,
    /// Number of outputs.
    pub outputs: u32,
    /// See `planish.h`.
    pub describe: unsafe extern "C" fn(*const Model, *mut c_char, usize) -> usize,
    /// See `planish.h`.
    pub pool_create: extern "C" fn(i32) -> *mut PoolHandle,
    /// See `planish.h`.
    pub pool_destroy: unsafe extern "C" fn(*mut PoolHandle),
    /// See `planish.h`.
    pub create:
        unsafe extern "C" fn(*const Model, *const Options, *mut *mut Handle, *mut c_char, usize) -> Status,
    /// See `planish.h`.
    pub bind: unsafe extern "C" fn(*mut Handle, *const Shape, usize, *mut c_char, usize) -> Status,
    /// See `planish.h`.
    pub output_shape: unsafe extern "C" fn(*const Handle, u32, *mut Shape) -> Status,
    /// See `planish.h`.
    pub run: unsafe extern "C" fn(
        *mut Handle,
        *const Buffer,
        usize,
        *mut Buffer,
        usize,
        *mut c_char,
        usize,
    ) -> Status,
    /// See `planish.h`.
    pub add_state: unsafe extern "C" fn(*mut Handle, u32, u32, *mut c_char, usize) -> Status,
    /// See `planish.h`.
    pub reset: unsafe extern "C" fn(*mut Handle),
    /// See `planish.h`.
    pub destroy: unsafe extern "C" fn(*mut Handle),
    image: Image<'static>,
    /// The program, once the first session made it.
    program: AtomicPtr<Program>,
}

/// `planish_session`.
#[derive(Debug)]
pub struct Handle {
    session: Session,
}

const PUBLIC_SIZE: usize = core::mem::offset_of!(Model, image);

/// The table of the model that a descriptor names; made by the first call.
///
/// # Safety
/// The descriptor names blocks as [`Image::program`] needs them, for as long as the process uses the model.
#[cfg_attr(planish_standalone, unsafe(no_mangle))]
pub unsafe extern "C" fn planish_rt_model_v1(d: *const ModelDescriptor) -> *const Model {
    // SAFETY: the caller passes a descriptor that lives as long as its artifact.
    let d = unsafe { &*d };
    let old = d.table.load(Ordering::Acquire);
    if !old.is_null() {
        return old;
    }
    // SAFETY: the descriptor's blocks are as long as it says.
    let (data, code) = unsafe {
        (core::slice::from_raw_parts(d.data, d.data_len), core::slice::from_raw_parts(d.code, d.code_len))
    };
    let image = Image::new(data, code).unwrap_or_else(|_| Image::empty());
    let plan = image.plan().unwrap_or_default();
    let name = CString::new(plan.meta.name.replace('\0', "")).unwrap_or_default();
    let table = Box::into_raw(Box::new(Model {
        abi: ABI_VERSION,
        size: PUBLIC_SIZE as u32,
        name: name.into_raw(),
        inputs: plan.inputs.len() as u32,
        outputs: plan.outputs.len() as u32,
        describe: model_describe,
        pool_create,
        pool_destroy,
        create,
        bind,
        output_shape,
        run,
        add_state,
        reset,
        destroy,
        image,
        program: AtomicPtr::new(ptr::null_mut()),
    }));
    match d.table.compare_exchange(ptr::null_mut(), table, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => table,
        Err(first) => {
            // SAFETY: this table was not published: name and table are ours to free.
            unsafe {
                drop(CString::from_raw((*table).name.cast_mut()));
                drop(Box::from_raw(table));
            }
            first
        }
    }
}

/// Writes the message of an error and returns its status.
///
/// # Safety
/// `error` is null or valid for writes of `len` bytes.
unsafe fn report(outcome: Result<()>, error: *mut c_char, len: usize) -> Status {
    let (status, message) = match &outcome {
        Ok(()) => (0, ""),
        Err(e) => (e.kind as Status, e.message.as_str()),
    };
    if !error.is_null() && len > 0 {
        let mut n = message.len().min(len - 1);
        while !message.is_char_boundary(n) {
            n -= 1;
        }
        // SAFETY: `n` bytes and the final zero fit `len`.
        unsafe {
            ptr::copy_nonoverlapping(message.as_ptr(), error.cast(), n);
            error.add(n).write(0);
        }
    }
    status
}

unsafe extern "C" fn model_describe(m: *const Model, out: *mut c_char, capacity: usize) -> usize {
    // SAFETY: the table came from `planish_rt_model_v1`.
    let image = unsafe { &(*m).image };
    let text = image.plan().map(|p| describe::json(&p, image)).unwrap_or_default();
    if !out.is_null() && capacity > 0 {
        let n = text.len().min(capacity - 1);
        // SAFETY: the caller's buffer has `capacity` bytes.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), out.cast(), n);
            out.add(n).write(0);
        }
    }
    text.len() + 1
}

extern "C" fn pool_create(threads: i32) -> *mut PoolHandle {
    let n = usize::try_from(threads).ok().filter(|&n| n > 0).unwrap_or_else(|| cpu::cores().threads());
    PoolHandle::create(n)
}

unsafe extern "C" fn pool_destroy(p: *mut PoolHandle) {
    if !p.is_null() {
        // SAFETY: the handle came from `pool_create`, perhaps that of another artifact, and no session uses it.
        unsafe { ((*p).destroy)(p) };
    }
}

fn program(m: &Model) -> Result<Arc<Program>> {
    let mut at = m.program.load(Ordering::Acquire);
    if at.is_null() {
        // SAFETY: the descriptor's blocks stay for as long as the artifact is loaded.
        let (_, p) = unsafe { m.image.program(cpu::detect(), None)? };
        let made = Arc::into_raw(Arc::new(p)).cast_mut();
        match m.program.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => at = made,
            Err(first) => {
                // SAFETY: the pointer came from `into_raw` just now and was not published.
                drop(unsafe { Arc::from_raw(made) });
                at = first;
            }
        }
    }
    // SAFETY: the table holds one count for ever; this adds one for the caller.
    unsafe {
        Arc::increment_strong_count(at);
        Ok(Arc::from_raw(at))
    }
}

unsafe fn open(m: *const Model, options: *const Options, out: *mut *mut Handle) -> Result<()> {
    if m.is_null() || out.is_null() {
        fail!(Input, "no model or no place for the session");
    }
    let mut settings = SessionOptions { seed: SessionOptions::any_seed(), ..SessionOptions::default() };
    if !options.is_null() {
        // SAFETY: the caller passes options of at least this version.
        let o = unsafe { *options };
        if (o.size as usize) < size_of::<Options>() {
            fail!(Input, "options.size is {}, not {}", o.size, size_of::<Options>());
        }
        settings.pool = if !o.pool.is_null() {
            // SAFETY: the pool outlives the session.
            Some(Arc::new(unsafe { Pool::foreign(o.pool)? }))
        } else if o.threads > 1 {
            Some(Arc::new(Pool::new(o.threads as usize)))
        } else {
            None
        };
        if o.max_steps > 0 {
            settings.max_steps = o.max_steps;
        }
        if o.max_memory > 0 {
            settings.max_memory = usize::try_from(o.max_memory).unwrap_or(usize::MAX);
        }
    }
    // SAFETY: `m` is a table and `out` valid for a write.
    unsafe {
        let session = Session::new(program(&*m)?, settings);
        out.write(Box::into_raw(Box::new(Handle { session })));
    }
    Ok(())
}

unsafe extern "C" fn create(
    m: *const Model,
    options: *const Options,
    out: *mut *mut Handle,
    error: *mut c_char,
    error_len: usize,
) -> Status {
    // SAFETY: the caller keeps the contract of `planish.h`.
    unsafe { report(open(m, options, out), error, error_len) }
}

/// A slice from C, where null stands for none.
///
/// # Safety
/// `p` is null or valid for reads of `n` items.
unsafe fn items<'a, T>(p: *const T, n: usize) -> &'a [T] {
    // SAFETY: as stated.
    if p.is_null() || n == 0 { &[] } else { unsafe { core::slice::from_raw_parts(p, n) } }
}

unsafe fn bind_shapes(h: *mut Handle, shapes: &[Shape]) -> Result<()> {
    let mut descs = Vec::with_capacity(shapes.len());
    for s in shapes {
        if s.dtype == 0 {
            descs.push(None);
            continue;
        }
        let Some(dtype) = u32::try_from(s.dtype).ok().and_then(DType::from_code) else {
            fail!(Input, "element type {} is unknown", s.dtype)
        };
        if s.rank > 64 {
            fail!(Input, "rank {} is too large", s.rank);
        }
        // SAFETY: the caller's shape has as many dims as it says.
        let dims = unsafe { items(s.dims, s.rank as usize) }.to_vec();
        descs.push(Some(Desc { dtype, dims }));
    }
    // SAFETY: the session is the caller's, and used by this thread only.
    unsafe { (*h).session.bind(&descs) }
}

unsafe extern "C" fn bind(
    h: *mut Handle,
    shapes: *const Shape,
    n: usize,
    error: *mut c_char,
    error_len: usize,
) -> Status {
    // SAFETY: the caller keeps the contract of `planish.h`.
    unsafe { report(bind_shapes(h, items(shapes, n)), error, error_len) }
}

unsafe extern "C" fn output_shape(h: *const Handle, o: u32, out: *mut Shape) -> Status {
    // SAFETY: the session is the caller's; `out` is valid for a write.
    let s = unsafe { &(*h).session };
    match (s.output_dims(o as usize), s.program().plan().outputs.get(o as usize).map(|p| &p.ty)) {
        (Some(dims), Some(ValueType::Tensor(d))) => {
            let shape = Shape { dtype: d.code() as i32, rank: dims.len() as u32, dims: dims.as_ptr() };
            // SAFETY: as above.
            unsafe { out.write(shape) };
            0
        }
        _ => ErrorKind::Input as Status,
    }
}

unsafe fn run_once(s: &mut Session, inputs: &[Buffer], outputs: &mut [Buffer]) -> Result<()> {
    let (want_in, want_out) = (s.program().plan().inputs.len(), s.program().plan().outputs.len());
    if inputs.len() != want_in || outputs.len() != want_out {
        fail!(
            Input,
            "{} inputs and {} outputs are given, the model has {want_in} and {want_out}",
            inputs.len(),
            outputs.len()
        );
    }
    s.clear_buffers();
    for (i, b) in inputs.iter().enumerate() {
        // An empty tensor may have no address.
        if !b.data.is_null() || (b.bytes == 0 && !s.is_state(i)) {
            let data =
                if b.data.is_null() { ptr::NonNull::<u64>::dangling().as_ptr().cast() } else { b.data };
            // SAFETY: the caller's buffer is as long as it says, for the run below; it is forgotten afterwards.
            unsafe { s.set_input(i, data, b.bytes)? };
        }
    }
    for (o, b) in outputs.iter().enumerate() {
        if !b.data.is_null() {
            // SAFETY: as above.
            unsafe { s.set_output(o, b.data, b.bytes)? };
        }
    }
    s.run()?;
    for (o, b) in outputs.iter_mut().enumerate() {
        match s.output(o) {
            Some(OutputView::Dense { data, .. }) => {
                b.bytes = data.len();
                if b.data.is_null() {
                    b.data = data.as_ptr().cast_mut();
                }
            }
            _ => fail!(Input, "the output {:?} is no dense tensor", s.program().plan().outputs[o].name),
        }
    }
    Ok(())
}

unsafe extern "C" fn run(
    h: *mut Handle,
    inputs: *const Buffer,
    n_in: usize,
    outputs: *mut Buffer,
    n_out: usize,
    error: *mut c_char,
    error_len: usize,
) -> Status {
    // SAFETY: the caller keeps the contract of `planish.h`: the session is used by this thread only, and the arrays
    // are as long as stated.
    unsafe {
        let outs: &mut [Buffer] = if outputs.is_null() || n_out == 0 {
            &mut []
        } else {
            core::slice::from_raw_parts_mut(outputs, n_out)
        };
        let s = &mut (*h).session;
        let outcome = run_once(s, items(inputs, n_in), outs);
        s.clear_buffers();
        report(outcome, error, error_len)
    }
}

unsafe extern "C" fn add_state(
    h: *mut Handle,
    o: u32,
    i: u32,
    error: *mut c_char,
    error_len: usize,
) -> Status {
    // SAFETY: the session is the caller's, and used by this thread only.
    unsafe { report((*h).session.add_state(o as usize, i as usize), error, error_len) }
}

unsafe extern "C" fn reset(h: *mut Handle) {
    // SAFETY: as above.
    unsafe { (*h).session.reset() }
}

unsafe extern "C" fn destroy(h: *mut Handle) {
    if !h.is_null() {
        // SAFETY: the handle came from `create` and is not used afterwards.
        drop(unsafe { Box::from_raw(h) });
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
