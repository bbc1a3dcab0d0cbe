//! Programs whose kernels run on an NVIDIA GPU: the first one that the driver lists (`CUDA_VISIBLE_DEVICES` is the driver's own
//! way to choose).
//!
//! All work goes to one stream in the order of the plan. Tensors live on the GPU; inputs are uploaded and outputs downloaded by
//! each run, weights once. Kernels store errors in a word on the GPU, which is read where a straight line of launches ends.
mod driver;

use crate::app;
use crate::files::Result;
use driver::Driver;
use planish_rt::gpu::{Form, GpuCode, GpuImage};
use planish_rt::image::Image;
use planish_rt::{Code, Ctx, Device, Error, ErrorKind, HostKernels, Plan, Program};
use std::ffi::{CString, c_int, c_void};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];
/// `CU_JIT_ERROR_LOG_BUFFER` and `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`.
const LOG: [c_int; 2] = [5, 6];
/// Work of the stream does not wait for that of others.
const NON_BLOCKING: u32 = 1;

/// Runs the program with the model in `image` and the arguments `argv`, the program's name first. The exit code.
///
/// # Safety
/// The image stays for as long as the process lives.
pub unsafe fn main(image: Result<Image<'static>>, argv: &[String]) -> i32 {
    app::main_with(image, argv, |image| {
        let plan = image.plan()?;
        let weights = image.weights()?;
        let gpu = Arc::new(Gpu::open(&plan, &GpuCode::decode(image.code())?)?);
        // SAFETY: the weights are part of the image and aligned, and the caller says that they stay.
        unsafe { Program::new(plan, Code::Host(gpu), weights.as_ptr(), weights.len(), None) }
    })
}

/// A GPU with the kernels of a program.
struct Gpu {
    memory: Arc<Stream>,
    /// Function and threads of a block of each kernel.
    kernels: Vec<(*mut c_void, u32)>,
    /// The error word.
    error: u64,
    /// Why the last launch failed.
    failed: Mutex<Option<Error>>,
}

// SAFETY: functions of the driver may be called from any thread that has the context, which `Stream::enter` sets.
unsafe impl Send for Gpu {}
// SAFETY: as above; nothing is changed after it was made.
unsafe impl Sync for Gpu {}

/// Memory and the order of work.
struct Stream {
    driver: Driver,
    context: *mut c_void,
    stream: *mut c_void,
}

// SAFETY: as for `Gpu`.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

fn machine(message: String) -> Error {
    Error::new(ErrorKind::Machine, message)
}

impl Gpu {
    /// Loads the driver and the kernels.
    fn open(plan: &Plan, code: &GpuCode<'_>) -> Result<Gpu> {
        if code.threads.len() != plan.kernels.len() {
            return Err(Error::new(
                ErrorKind::Program,
                format!("the code has {} kernels, the plan {}", code.threads.len(), plan.kernels.len()),
            ));
        }
        let driver = Driver::load()?;
        let check = |status, doing: &str| driver.check(status, ErrorKind::Machine, doing);
        let mut device = 0;
        let (mut context, mut stream) = (std::ptr::null_mut(), std::ptr::null_mut());
        let mut capability = [0; 2];
        // SAFETY: the driver writes to the places given, which live here.
        unsafe {
            check((driver.init)(0), "to start")?;
            check((driver.device_get)(&raw mut device, 0), "to find a GPU")?;
            for (to, attribute) in capability.iter_mut().zip(CAPABILITY) {
                check((driver.device_attribute)(to, attribute, device), "to describe the GPU")?;
            }
            check((driver.context_retain)(&raw mut context, device), "to open the GPU")?;
            check((driver.context_set)(context), "to open the GPU")?;
            check((driver.stream_create)(&raw mut stream, NON_BLOCKING), "to make a stream")?;
        }
        let sm = (capability[0] * 10 + capability[1]).cast_unsigned();
        if sm < code.sm {
            return Err(machine(format!(
                "this GPU is sm_{sm}, and the program needs sm_{} or later",
                code.sm
            )));
        }
        let fits = |i: &&GpuImage<'_>| match i.form {
            Form::Cubin => i.sm == sm,
            Form::Ptx => i.sm <= sm,
        };
        let mut module = Err(machine(format!("the program has no kernels for sm_{sm}")));
        for i in code.images.iter().filter(fits) {
            module = load(&driver, i);
            if module.is_ok() {
                break;
            }
        }
        let module = module?;
        let mut kernels = Vec::with_capacity(plan.kernels.len());
        for (k, threads) in plan.kernels.iter().zip(&code.threads) {
            let name = CString::new(k.name.as_str()).unwrap_or_default();
            let mut f = std::ptr::null_mut();
            // SAFETY: the module is loaded; the name lives through the call.
            let status = unsafe { (driver.module_function)(&raw mut f, module, name.as_ptr()) };
            driver.check(status, ErrorKind::Program, &format!("to find the kernel {}", k.name))?;
            kernels.push((f, *threads));
        }
        let memory = Arc::new(Stream { driver, context, stream });
        let error = memory.alloc(4)?;
        Ok(Gpu { memory, kernels, error, failed: Mutex::new(None) })
    }

    fn run(&self, kernel: u32, args: &[u64], lo: i64, hi: i64) -> Result<()> {
        let (function, threads) = self.kernels[kernel as usize];
        let extent = hi.saturating_sub(lo).max(0).cast_unsigned();
        let blocks = extent.div_ceil(threads.into()).max(1);
        if blocks > i32::MAX as u64 {
            return Err(Error::new(ErrorKind::Memory, format!("{extent} threads are more than a grid has")));
        }
        let mut words = args.to_vec();
        words.extend([lo.cast_unsigned(), hi.cast_unsigned(), self.error]);
        let mut places: Vec<*mut c_void> = words.iter_mut().map(|w| (w as *mut u64).cast()).collect();
        let m = &self.memory;
        m.enter()?;
        // SAFETY: the kernel takes one word of eight bytes for each argument of the plan and these three; the driver copies
        // them before it returns.
        let status = unsafe {
            (m.driver.launch)(
                function,
                blocks as u32,
                1,
                1,
                threads,
                1,
                1,
                0,
                m.stream,
                places.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        m.driver.check(status, ErrorKind::Program, "to launch a kernel")
    }
}

/// The kernels of an image.
fn load(driver: &Driver, image: &GpuImage<'_>) -> Result<*mut c_void> {
    let mut log = vec![0u8; 4096];
    let mut options = LOG;
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), log.len() as *mut c_void];
    let mut module = std::ptr::null_mut();
    // SAFETY: a text ends with a zero byte, as its reader checked, and machine code says itself how long it is; the log has the
    // length that is given.
    let status = unsafe {
        (driver.module_load)(
            &raw mut module,
            image.bytes.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    driver.check(status, ErrorKind::Machine, "to load the kernels").map_err(|mut e| {
        let text = String::from_utf8_lossy(&log);
        let text = text.trim_end_matches('\0').trim();
        if !text.is_empty() {
            e.message = format!("{}: {text}", e.message);
        }
        e
    })?;
    Ok(module)
}

impl Stream {
    /// Makes the context that of this thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained for as long as the process lives.
        let status = unsafe { (self.driver.context_set)(self.context) };
        self.driver.check(status, ErrorKind::Program, "to enter the context")
    }

    fn wait(&self) -> Result<()> {
        // SAFETY: the stream lives as long as the process.
        let status = unsafe { (self.driver.stream_wait)(self.stream) };
        self.driver.check(status, ErrorKind::Program, "to run the kernels")
    }
}

impl Device for Stream {
    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        let mut at = 0;
        // SAFETY: the driver writes an address.
        let status = unsafe { (self.driver.alloc)(&raw mut at, bytes.max(1)) };
        self.driver.check(status, ErrorKind::Memory, &format!("to give {bytes} bytes of memory"))?;
        Ok(at)
    }

    fn free(&self, at: u64) {
        // What cannot be given back goes with the process.
        // SAFETY: the address came from `alloc`; work that uses it was asked for before and is waited for by the driver.
        let _ = self.enter().map(|()| unsafe { (self.driver.free)(at) });
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the bytes are there until the stream has read them, which `wait` ensures.
        let status = unsafe { (self.driver.upload)(to, from.as_ptr().cast(), from.len(), self.stream) };
        self.driver.check(status, ErrorKind::Program, "to copy to the GPU")?;
        self.wait()
    }

    fn download(&self, to: &mut [u8], from: u64) -> Result<()> {
        self.enter()?;
        // SAFETY: as in `upload`.
        let status = unsafe { (self.driver.download)(to.as_mut_ptr().cast(), from, to.len(), self.stream) };
        self.driver.check(status, ErrorKind::Program, "to copy from the GPU")?;
        self.wait()
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: both ranges belong to buffers of the program.
        let status = unsafe { (self.driver.copy)(to, from, bytes, self.stream) };
        self.driver.check(status, ErrorKind::Program, "to copy on the GPU")
    }
}

impl HostKernels for Gpu {
    unsafe fn launch(&self, kernel: u32, args: &[u64], _: &[u64], lo: i64, hi: i64, _: &Ctx) {
        if let Err(e) = self.run(kernel, args, lo, hi) {
            // Reported where the straight line ends.
            if let Ok(mut slot) = self.failed.lock() {
                slot.get_or_insert(e);
            }
        }
    }

    fn device(&self) -> Option<Arc<dyn Device>> {
        Some(self.memory.clone())
    }

    fn begin(&self) -> Result<()> {
        self.memory.upload(self.error, &[0; 4])
    }

    fn settle(&self, ctx: &Ctx) -> Result<()> {
        if let Some(e) = self.failed.lock().ok().and_then(|mut f| f.take()) {
            return Err(e);
        }
        let mut word = [0; 4];
        self.memory.download(&mut word, self.error)?;
        ctx.error.store(i32::from_le_bytes(word), Ordering::Relaxed);
        Ok(())
    }
}
