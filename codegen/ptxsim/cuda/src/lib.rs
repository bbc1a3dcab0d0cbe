//! A stand-in for NVIDIA's driver library on top of the PTX interpreter: programs for GPUs run with it where there is none.
//!
//! It has the functions that our programs use and no others. Modules are PTX text only; machine code is refused as made for another
//! GPU, as a driver would. Memory knows which of its bytes were written: whoever downloads others gets an error, and so does every
//! launch that the interpreter stops; what it found goes to stderr. Streams are in order and done at once.
//!
//! `PLANISH_CUDA_SM` sets the compute capability that the GPU claims (`80` if not set), `PLANISH_CUDA_COUNT=1` makes the library
//! print at exit how many launches, thread instructions, bytes uploaded and allocations there were.
#![allow(unsafe_code)]

use planish_ptxsim::{Entry, Fault, Limits, Memory, Module};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const OUT_OF_MEMORY: c_int = 2;
const NOT_INITIALISED: c_int = 3;
const NO_BINARY: c_int = 209;
const INVALID_PTX: c_int = 218;
const NOT_FOUND: c_int = 500;
const LAUNCH_FAILED: c_int = 719;

const ERRORS: [(c_int, &CStr); 8] = [
    (SUCCESS, c"no error"),
    (INVALID_VALUE, c"invalid argument"),
    (OUT_OF_MEMORY, c"out of memory"),
    (NOT_INITIALISED, c"initialization error"),
    (NO_BINARY, c"no kernel image is available for execution on the device"),
    (INVALID_PTX, c"a PTX JIT compilation failed"),
    (NOT_FOUND, c"named symbol not found"),
    (LAUNCH_FAILED, c"unspecified launch failure"),
];

const MAJOR: c_int = 75;
const MINOR: c_int = 76;
const JIT_LOG: c_int = 5;
const JIT_LOG_BYTES: c_int = 6;

#[derive(Default)]
struct Device {
    started: bool,
    memory: Memory,
    modules: Vec<Module>,
    /// Functions by their handle: an index plus one.
    functions: Vec<Entry>,
    launches: BTreeMap<String, u64>,
    threads: u64,
    uploaded: u64,
    allocations: u64,
}

fn device() -> MutexGuard<'static, Device> {
    static DEVICE: OnceLock<Mutex<Device>> = OnceLock::new();
    DEVICE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(fault: &Fault) {
    let _ = writeln!(std::io::stderr(), "ptxsim: {:?}: {fault}", fault.kind);
}

fn done(result: Result<(), Fault>) -> c_int {
    match result {
        Ok(()) => SUCCESS,
        Err(f) => {
            report(&f);
            LAUNCH_FAILED
        }
    }
}

extern "C" fn print_counts() {
    let d = device();
    let launches: u64 = d.launches.values().sum();
    let _ = writeln!(
        std::io::stderr(),
        "ptxsim: {launches} launches, {} thread instructions, {} bytes uploaded, {} allocations",
        d.threads,
        d.uploaded,
        d.allocations
    );
}

unsafe extern "C" {
    fn atexit(f: extern "C" fn()) -> c_int;
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: u32) -> c_int {
    let mut d = device();
    if !d.started && std::env::var_os("PLANISH_CUDA_COUNT").is_some() {
        // SAFETY: the function lives as long as the library, which is never unloaded.
        unsafe { atexit(print_counts) };
    }
    d.started = true;
    SUCCESS
}

/// # Safety
/// `device` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device_out: *mut c_int, ordinal: c_int) -> c_int {
    if !device().started {
        return NOT_INITIALISED;
    }
    if ordinal != 0 {
        return INVALID_VALUE;
    }
    // SAFETY: the caller gives the place.
    unsafe { device_out.write(0) };
    SUCCESS
}

fn capability() -> c_int {
    std::env::var("PLANISH_CUDA_SM").ok().and_then(|v| v.parse().ok()).unwrap_or(80)
}

/// # Safety
/// `value` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) -> c_int {
    let found = match attribute {
        MAJOR => capability() / 10,
        MINOR => capability() % 10,
        _ => return INVALID_VALUE,
    };
    // SAFETY: the caller gives the place.
    unsafe { value.write(found) };
    SUCCESS
}

/// # Safety
/// `context` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, _device: c_int) -> c_int {
    // SAFETY: the caller gives the place.
    unsafe { context.write(std::ptr::dangling_mut::<u64>().cast()) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(_context: *mut c_void) -> c_int {
    if device().started { SUCCESS } else { NOT_INITIALISED }
}

/// # Safety
/// `stream` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut *mut c_void, _flags: u32) -> c_int {
    // SAFETY: the caller gives the place.
    unsafe { stream.write(std::ptr::dangling_mut::<u64>().cast()) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(_stream: *mut c_void) -> c_int {
    SUCCESS
}

/// # Safety
/// `module` is valid for a write, `image` a text with a zero byte at its end or machine code, and there are `count` options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut *mut c_void,
    image: *const c_void,
    count: u32,
    options: *mut c_int,
    values: *mut *mut c_void,
) -> c_int {
    // SAFETY: an image has at least four bytes: a text that is shorter ends with a zero byte, and no more is read.
    let machine_code = unsafe { *image.cast::<u8>() == 0x7F };
    if machine_code {
        return NO_BINARY;
    }
    // SAFETY: the caller gives a text.
    let text = unsafe { CStr::from_ptr(image.cast()) };
    match Module::parse(&text.to_string_lossy()) {
        Ok(m) => {
            let mut d = device();
            d.modules.push(m);
            // SAFETY: the caller gives the place.
            unsafe { module.write(d.modules.len() as *mut c_void) };
            SUCCESS
        }
        Err(e) => {
            let (mut log, mut room) = (std::ptr::null_mut::<u8>(), 0usize);
            for i in 0..count as usize {
                // SAFETY: there are `count` of both.
                let (option, value) = unsafe { (*options.add(i), *values.add(i)) };
                match option {
                    JIT_LOG => log = value.cast(),
                    JIT_LOG_BYTES => room = value as usize,
                    _ => {}
                }
            }
            let message = e.to_string();
            let n = message.len().min(room.saturating_sub(1));
            if !log.is_null() && room > 0 {
                // SAFETY: the caller gives `room` bytes for the log.
                unsafe {
                    std::ptr::copy_nonoverlapping(message.as_ptr(), log, n);
                    log.add(n).write(0);
                }
            }
            INVALID_PTX
        }
    }
}

/// # Safety
/// `function` is valid for a write and `name` a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *mut c_void,
    module: *mut c_void,
    name: *const c_char,
) -> c_int {
    let mut d = device();
    // SAFETY: the caller gives a text.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let entry = (module as usize).checked_sub(1).and_then(|m| d.modules.get(m)?.entry(&name).cloned());
    let Some(entry) = entry else { return NOT_FOUND };
    d.functions.push(entry);
    // SAFETY: the caller gives the place.
    unsafe { function.write(d.functions.len() as *mut c_void) };
    SUCCESS
}

/// # Safety
/// `address` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    let mut d = device();
    if bytes == 0 {
        return INVALID_VALUE;
    }
    d.allocations += 1;
    match d.memory.alloc(bytes) {
        Some(at) => {
            // SAFETY: the caller gives the place.
            unsafe { address.write(at) };
            SUCCESS
        }
        None => OUT_OF_MEMORY,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    if device().memory.free(address) { SUCCESS } else { INVALID_VALUE }
}

/// # Safety
/// `from` holds `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    let mut d = device();
    d.uploaded += bytes as u64;
    // SAFETY: the caller gives the bytes.
    done(d.memory.upload(to, unsafe { std::slice::from_raw_parts(from.cast(), bytes) }))
}

/// # Safety
/// `to` has room for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    // SAFETY: the caller gives the room.
    done(device().memory.download(from, unsafe { std::slice::from_raw_parts_mut(to.cast(), bytes) }))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, _stream: *mut c_void) -> c_int {
    done(device().memory.copy(to, from, bytes))
}

/// # Safety
/// `parameters` has the address of a word of eight bytes for each parameter of the function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    _shared_bytes: u32,
    _stream: *mut c_void,
    parameters: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> c_int {
    let mut d = device();
    let d = &mut *d;
    let Some(entry) = (function as usize).checked_sub(1).and_then(|f| d.functions.get(f)) else {
        return INVALID_VALUE;
    };
    if entry.block.iter().product::<u32>() != block_x * block_y * block_z {
        return INVALID_VALUE;
    }
    let words: Vec<u64> = (0..entry.params())
        // SAFETY: the caller gives a word for each parameter.
        .map(|i| unsafe { *(*parameters.add(i)).cast::<u64>() })
        .collect();
    *d.launches.entry(entry.name.clone()).or_default() += 1;
    match entry.run(&mut d.memory, &words, [grid_x, grid_y, grid_z], Limits::default()) {
        Ok(stats) => {
            d.threads += stats.threads;
            SUCCESS
        }
        Err(f) => {
            report(&f);
            LAUNCH_FAILED
        }
    }
}

/// # Safety
/// `text` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(status: c_int, text: *mut *const c_char) -> c_int {
    match ERRORS.iter().find(|e| e.0 == status) {
        Some(e) => {
            // SAFETY: the caller gives the place.
            unsafe { text.write(e.1.as_ptr()) };
            SUCCESS
        }
        None => INVALID_VALUE,
    }
}
