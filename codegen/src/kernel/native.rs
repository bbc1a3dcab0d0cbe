//! Running compiled kernels in this process: for engines' self-checks and for tests of back ends.

use super::backend::ObjectBytes;
use super::interp::Arg;
use crate::link::{CodeImage, link};
use planish_rt::Ctx;
use planish_rt::loader::LoadedCode;
use std::sync::atomic::Ordering;

/// Linked and loaded kernels.
#[derive(Debug)]
pub struct Native {
    image: CodeImage,
    code: LoadedCode,
}

impl Native {
    /// Links objects of this machine's architecture and makes them executable.
    pub fn load(objects: &[ObjectBytes]) -> Result<Native, String> {
        let parts: Vec<&[u8]> = objects.iter().map(|o| o.bytes.as_slice()).collect();
        let image = link(&parts).map_err(|e| e.to_string())?;
        let code = LoadedCode::new(&image.bytes, image.text_len).map_err(|e| e.to_string())?;
        Ok(Native { image, code })
    }

    /// Calls a CPU kernel by name; gives the error word.
    ///
    /// # Safety
    /// The arguments are those that the kernel's declaration asks for, buffers live and are large enough, and the objects were
    /// made for instruction sets that this machine has.
    pub unsafe fn run(&self, kernel: &str, args: &[Arg], lo: i64, hi: i64) -> Result<i32, String> {
        let offset = self.image.symbols.get(kernel).ok_or_else(|| format!("no kernel {kernel}"))?;
        // SAFETY: the linker found this global function at the offset.
        let f = unsafe { self.code.kernel(*offset as usize) }.map_err(|e| e.to_string())?;
        let words: Vec<u64> = args
            .iter()
            .map(|a| match *a {
                Arg::Buf(ptr, _) => ptr as u64,
                Arg::Scalar(v) => v.cast_unsigned(),
            })
            .collect();
        let mut ctx = Ctx::default();
        // SAFETY: the caller vouches for the arguments.
        unsafe { f(words.as_ptr(), lo, hi, &mut ctx) };
        Ok(ctx.error.load(Ordering::Relaxed))
    }
}
