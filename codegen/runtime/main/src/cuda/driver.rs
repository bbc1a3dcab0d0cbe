//! The few functions of NVIDIA's driver that programs use, found at run time. Nothing of CUDA is linked: a program starts
//! without a driver and says so.
use crate::files::Result;
use planish_rt::{Error, ErrorKind};
use std::ffi::{CStr, c_char, c_int, c_void};

/// The library that a driver installs.
const LIBRARY: &CStr = c"libcuda.so.1";
const RTLD_NOW: c_int = 2;

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

/// A result of the driver; 0 is success.
pub(super) type Status = c_int;

macro_rules! driver {
    ($($field:ident = $symbol:literal: fn($($arg:ty),*);)+) => {
        /// Functions of the driver.
        pub(super) struct Driver {
            $(pub(super) $field: unsafe extern "C" fn($($arg),*) -> Status,)+
        }

        impl Driver {
            /// Loads the driver.
            pub(super) fn load() -> Result<Driver> {
                // SAFETY: a library's name; loading it runs its initialisers, as its users intend.
                let library = unsafe { dlopen(LIBRARY.as_ptr(), RTLD_NOW) };
                if library.is_null() {
                    return Err(missing(&format!("this program runs on an NVIDIA GPU, and there is no driver: {}", reason())));
                }
                $(
                    // SAFETY: the library is loaded and never unloaded.
                    let $field = unsafe { dlsym(library, concat!($symbol, "\0").as_ptr().cast()) };
                    if $field.is_null() {
                        return Err(missing(&format!("the driver of the GPU is too old: it has no {}", $symbol)));
                    }
                )+
                // SAFETY: these are the functions of those names, whose types the driver's interface fixes.
                unsafe {
                    Ok(Driver { $($field: std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) -> Status>($field),)+ })
                }
            }
        }
    };
}

driver! {
    init = "cuInit": fn(u32);
    device_get = "cuDeviceGet": fn(*mut c_int, c_int);
    device_attribute = "cuDeviceGetAttribute": fn(*mut c_int, c_int, c_int);
    context_retain = "cuDevicePrimaryCtxRetain": fn(*mut *mut c_void, c_int);
    context_set = "cuCtxSetCurrent": fn(*mut c_void);
    module_load = "cuModuleLoadDataEx": fn(*mut *mut c_void, *const c_void, u32, *mut c_int, *mut *mut c_void);
    module_function = "cuModuleGetFunction": fn(*mut *mut c_void, *mut c_void, *const c_char);
    alloc = "cuMemAlloc_v2": fn(*mut u64, usize);
    free = "cuMemFree_v2": fn(u64);
    upload = "cuMemcpyHtoDAsync_v2": fn(u64, *const c_void, usize, *mut c_void);
    download = "cuMemcpyDtoHAsync_v2": fn(*mut c_void, u64, usize, *mut c_void);
    copy = "cuMemcpyDtoDAsync_v2": fn(u64, u64, usize, *mut c_void);
    stream_create = "cuStreamCreate": fn(*mut *mut c_void, u32);
    stream_wait = "cuStreamSynchronize": fn(*mut c_void);
    launch = "cuLaunchKernel": fn(*mut c_void, u32, u32, u32, u32, u32, u32, u32, *mut c_void, *mut *mut c_void, *mut *mut c_void);
    error_string = "cuGetErrorString": fn(Status, *mut *const c_char);
}

fn missing(message: &str) -> Error {
    Error::new(ErrorKind::Machine, message)
}

/// What the loader says of the last failure.
fn reason() -> String {
    // SAFETY: the text is valid until the next call of the loader.
    let text = unsafe { dlerror() };
    if text.is_null() {
        return "libcuda.so.1 cannot be loaded".into();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl Driver {
    /// An error of this kind unless the driver succeeded.
    pub(super) fn check(&self, status: Status, kind: ErrorKind, doing: &str) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: the driver writes the address of a text of its own.
        let known = unsafe { (self.error_string)(status, &raw mut text) } == 0 && !text.is_null();
        let said = if known {
            // SAFETY: the driver gave the address of a text that ends with a zero.
            unsafe { CStr::from_ptr(text) }.to_string_lossy()
        } else {
            "no reason given".into()
        };
        Err(Error::new(kind, format!("the GPU driver failed {doing}: {said} ({status})")))
    }
}
