//! The few functions of the C library that the runtime uses, declared by hand.
use core::ffi::{c_char, c_int, c_long, c_void};

#[repr(C)]
struct TimeSpec {
    sec: i64,
    nsec: i64,
}

/// The thread handle of the C library.
pub(crate) type Thread = usize;

unsafe extern "C" {
    fn clock_gettime(clock: c_int, t: *mut TimeSpec) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn pthread_create(
        t: *mut Thread,
        attr: *const c_void,
        start: extern "C" fn(*mut c_void) -> *mut c_void,
        arg: *mut c_void,
    ) -> c_int;
    fn pthread_join(t: Thread, value: *mut *mut c_void) -> c_int;
    fn sched_getaffinity(pid: c_int, len: usize, mask: *mut u64) -> c_int;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn read(fd: c_int, buf: *mut c_void, n: usize) -> isize;
    fn close(fd: c_int) -> c_int;
    fn mmap(at: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    fn mprotect(at: *mut c_void, len: usize, prot: c_int) -> c_int;
    fn munmap(at: *mut c_void, len: usize) -> c_int;
}

fn clock(id: c_int) -> u64 {
    let mut t = TimeSpec { sec: 0, nsec: 0 };
    // SAFETY: the pointer is to a timespec.
    unsafe { clock_gettime(id, &mut t) };
    (t.sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.nsec as u64)
}

/// Nanoseconds of the monotonic clock.
pub fn now_ns() -> u64 {
    clock(1)
}

/// Nanoseconds of processor time of this process, all threads together.
pub fn process_cpu_ns() -> u64 {
    clock(2)
}

/// Nanoseconds of processor time of the calling thread.
pub fn thread_cpu_ns() -> u64 {
    clock(3)
}

#[cfg(target_arch = "x86_64")]
const SYS_FUTEX: c_long = 202;
#[cfg(not(target_arch = "x86_64"))]
const SYS_FUTEX: c_long = 98;
const FUTEX_WAIT_PRIVATE: c_int = 128;
const FUTEX_WAKE_PRIVATE: c_int = 129;

/// Sleeps while `*word == value`, until woken. May wake for no reason.
pub(crate) fn futex_wait(word: &core::sync::atomic::AtomicU32, value: u32) {
    // SAFETY: the word is live for the call; no timeout is given.
    unsafe { syscall(SYS_FUTEX, word.as_ptr(), FUTEX_WAIT_PRIVATE, value, core::ptr::null::<c_void>()) };
}

/// Wakes up to `n` threads that sleep on `word`.
pub(crate) fn futex_wake(word: &core::sync::atomic::AtomicU32, n: i32) {
    // SAFETY: the word is live for the call.
    unsafe { syscall(SYS_FUTEX, word.as_ptr(), FUTEX_WAKE_PRIVATE, n) };
}

/// Starts a thread. `arg` is passed on; `None` if the system refuses.
///
/// # Safety
/// `start` may be called with `arg` on another thread.
pub(crate) unsafe fn spawn(
    start: extern "C" fn(*mut c_void) -> *mut c_void,
    arg: *mut c_void,
) -> Option<Thread> {
    let mut t = 0;
    // SAFETY: default attributes; the caller vouches for `start` and `arg`.
    (unsafe { pthread_create(&mut t, core::ptr::null(), start, arg) } == 0).then_some(t)
}

/// Waits for a thread made by [`spawn`] to end; each is waited for once.
pub(crate) fn join(t: Thread) {
    // SAFETY: the handle came from `pthread_create` and was not joined before.
    unsafe { pthread_join(t, core::ptr::null_mut()) };
}

/// The processors this thread may run on, one bit each; empty if it cannot be told.
pub(crate) fn affinity() -> [u64; 16] {
    let mut mask = [0u64; 16];
    // SAFETY: the mask has the length given.
    if unsafe { sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr()) } != 0 {
        return [0; 16];
    }
    mask
}

/// The first bytes of a file; the number that was read.
pub(crate) fn read_file(path: &core::ffi::CStr, into: &mut [u8]) -> Option<usize> {
    const O_CLOEXEC: c_int = 0o2000000;
    // SAFETY: the path ends with a zero byte.
    let fd = unsafe { open(path.as_ptr(), O_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the buffer has the length given; the descriptor is ours and closed once.
    let n = unsafe { read(fd, into.as_mut_ptr().cast(), into.len()) };
    // SAFETY: as above.
    unsafe { close(fd) };
    usize::try_from(n).ok()
}

const PROT_READ: c_int = 1;
const PROT_WRITE: c_int = 2;
const PROT_EXEC: c_int = 4;
const MAP_PRIVATE_ANONYMOUS: c_int = 0x22;

/// Anonymous memory in whole pages, writable until [`Pages::make_executable`]; never both.
#[derive(Debug)]
pub struct Pages {
    ptr: *mut u8,
    len: usize,
}

// SAFETY: the pages belong to the object; after `make_executable` they are only read.
unsafe impl Send for Pages {}
// SAFETY: as above: `write` needs `&mut`.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps at least `len` bytes of zeros; `None` if the system refuses.
    pub fn new(len: usize) -> Option<Pages> {
        let len = len.max(1).checked_next_multiple_of(4096)?;
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let p =
            unsafe { mmap(core::ptr::null_mut(), len, PROT_READ | PROT_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0) };
        (p as isize != -1).then_some(Pages { ptr: p.cast(), len })
    }

    /// The bytes, to be filled.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is ours, initialised, and writable before `make_executable` consumes the object.
        unsafe { core::slice::from_raw_parts_mut(self.ptr, self.len) }
    }

    /// Makes the pages readable and executable, no longer writable.
    pub fn make_executable(self) -> Option<Executable> {
        // SAFETY: the range is the mapping.
        let ok = unsafe { mprotect(self.ptr.cast(), self.len, PROT_READ | PROT_EXEC) } == 0;
        flush_instructions(self.ptr, self.len);
        ok.then_some(Executable { pages: self })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing uses it afterwards.
        unsafe { munmap(self.ptr.cast(), self.len) };
    }
}

/// Code in memory: readable and executable, not writable.
#[derive(Debug)]
pub struct Executable {
    pages: Pages,
}

impl Executable {
    /// The address of the first byte.
    pub fn ptr(&self) -> *const u8 {
        self.pages.ptr
    }
}

#[cfg(target_arch = "aarch64")]
fn flush_instructions(at: *mut u8, len: usize) {
    unsafe extern "C" {
        fn __clear_cache(from: *mut c_char, to: *mut c_char);
    }
    // SAFETY: the range is mapped.
    unsafe { __clear_cache(at.cast(), at.add(len).cast()) };
}

#[cfg(not(target_arch = "aarch64"))]
fn flush_instructions(_: *mut u8, _: usize) {}
