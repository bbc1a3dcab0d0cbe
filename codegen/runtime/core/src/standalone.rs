//! The runtime without `std`: memory from `malloc`, and an end to the process where a Rust program would panic.
use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;

unsafe extern "C" {
    fn malloc(n: usize) -> *mut c_void;
    fn calloc(n: usize, size: usize) -> *mut c_void;
    fn realloc(p: *mut c_void, n: usize) -> *mut c_void;
    fn posix_memalign(p: *mut *mut c_void, align: usize, n: usize) -> i32;
    fn free(p: *mut c_void);
    fn abort() -> !;
}

/// What `malloc` aligns to on all 64-bit systems.
const NATURAL: usize = 16;

struct Malloc;

#[global_allocator]
static MALLOC: Malloc = Malloc;

// SAFETY: all blocks come from the C library, which `free` and `realloc` take back; larger alignments than its own are
// asked for explicitly and never passed to `realloc`.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        if l.align() <= NATURAL {
            // SAFETY: any size may be asked for.
            return unsafe { malloc(l.size()) }.cast();
        }
        let mut p = core::ptr::null_mut();
        // SAFETY: the alignment is a power of two above the size of a pointer.
        let failed = unsafe { posix_memalign(&mut p, l.align(), l.size()) } != 0;
        if failed { core::ptr::null_mut() } else { p.cast() }
    }

    unsafe fn alloc_zeroed(&self, l: Layout) -> *mut u8 {
        if l.align() <= NATURAL {
            // SAFETY: as above.
            return unsafe { calloc(l.size(), 1) }.cast();
        }
        // SAFETY: the block has the size of the layout.
        unsafe {
            let p = self.alloc(l);
            if !p.is_null() {
                p.write_bytes(0, l.size());
            }
            p
        }
    }

    unsafe fn dealloc(&self, p: *mut u8, _: Layout) {
        // SAFETY: the block came from the C library.
        unsafe { free(p.cast()) }
    }

    unsafe fn realloc(&self, p: *mut u8, l: Layout, n: usize) -> *mut u8 {
        if l.align() <= NATURAL {
            // SAFETY: the block came from `malloc`.
            return unsafe { realloc(p.cast(), n) }.cast();
        }
        // SAFETY: a new block of the same alignment, to which the smaller of both sizes is copied.
        unsafe {
            let q = self.alloc(Layout::from_size_align_unchecked(n, l.align()));
            if !q.is_null() {
                core::ptr::copy_nonoverlapping(p, q, l.size().min(n));
                self.dealloc(p, l);
            }
            q
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends the process.
    unsafe { abort() }
}

/// Where the compiled parts of `alloc` refer to unwinding, which cannot happen here. The build renames their
/// references `_Unwind_Resume` and `rust_eh_personality` to these, so that the object needs no unwinder.
#[unsafe(no_mangle)]
extern "C" fn planish_unwind() -> ! {
    // SAFETY: ends the process.
    unsafe { abort() }
}

/// See [`planish_unwind`].
#[unsafe(no_mangle)]
extern "C" fn planish_personality() -> ! {
    // SAFETY: ends the process.
    unsafe { abort() }
}
