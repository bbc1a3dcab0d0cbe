//! Machine code made in this process.
use crate::error::{Result, fail};
use crate::kernel::KernelFn;
use crate::sys::{Executable, Pages};

/// A position-independent blob of code, mapped readable and executable (and never writable at the same time).
#[derive(Debug)]
pub struct LoadedCode {
    memory: Executable,
    text_len: usize,
}

impl LoadedCode {
    /// Copies `bytes`, of which the first `text_len` are code, to a page of their own and makes it executable.
    pub fn new(bytes: &[u8], text_len: usize) -> Result<LoadedCode> {
        if text_len > bytes.len() {
            fail!(Program, "{text_len} bytes of code in a blob of {}", bytes.len());
        }
        let Some(mut pages) = Pages::new(bytes.len()) else { fail!(Memory, "no memory for code") };
        pages.bytes()[..bytes.len()].copy_from_slice(bytes);
        match pages.make_executable() {
            Some(memory) => Ok(LoadedCode { memory, text_len }),
            None => fail!(Machine, "the system does not allow code made at run time"),
        }
    }

    /// The kernel at `offset`. It must not be called after `self` is dropped.
    ///
    /// # Safety
    /// A kernel begins there.
    pub unsafe fn kernel(&self, offset: usize) -> Result<KernelFn> {
        if offset >= self.text_len {
            fail!(Program, "a kernel at {offset} in {} bytes of code", self.text_len);
        }
        // SAFETY: the offset is inside the mapping, and the caller says that a kernel begins there.
        Ok(unsafe { core::mem::transmute::<*const u8, KernelFn>(self.memory.ptr().add(offset)) })
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::Ctx;

    #[test]
    fn code_runs_from_memory() {
        // mov rax, [rdi]; mov [rax], rsi; ret
        let code = [0x48, 0x8b, 0x07, 0x48, 0x89, 0x30, 0xc3, 0];
        let l = LoadedCode::new(&code, 7).expect("loads");
        let mut out = 0i64;
        let args = [&raw mut out as u64];
        // SAFETY: the code above is a kernel that stores `lo` to its first argument.
        unsafe { l.kernel(0).expect("inside")(args.as_ptr(), 42, 43, &mut Ctx::default()) };
        assert_eq!(out, 42);
        // SAFETY: refused before anything is called.
        assert!(unsafe { l.kernel(7) }.is_err());
        assert!(LoadedCode::new(&code, 9).is_err());
    }
}
