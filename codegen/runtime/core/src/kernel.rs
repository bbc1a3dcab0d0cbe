//! How kernels are called.
use crate::device::Device;
use crate::error::Result;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicI32;

/// What a kernel gets beside its arguments. The error word comes first; kernels store an error code there
/// (see [`crate::plan::ErrorId::code`]) and return or go on with clamped values.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Ctx {
    /// 0, or the code of an error.
    pub error: AtomicI32,
    /// Zero; kernels must not use it.
    pub reserved: [u32; 15],
}

/// A kernel in machine code. `args` holds one word per parameter (an address or an i64), `lo..hi` is the part of the
/// parallel axis to do.
pub type KernelFn = unsafe extern "C" fn(args: *const u64, lo: i64, hi: i64, ctx: *mut Ctx);

/// Kernels that are not machine code in this process: interpreters and simulators.
pub trait HostKernels: Send + Sync {
    /// Runs a kernel over `lo..hi`. `sizes[i]` is the number of bytes that may be touched at the address `args[i]`,
    /// or 0 where the argument is a scalar.
    ///
    /// # Safety
    /// Addresses in `args` are valid for `sizes` bytes, aligned to the elements they hold, and not used by others
    /// during the call except as the kernel's declaration says.
    unsafe fn launch(&self, kernel: u32, args: &[u64], sizes: &[u64], lo: i64, hi: i64, ctx: &Ctx);

    /// Whether parts of one launch may run on several threads.
    fn parallel(&self) -> bool {
        false
    }

    /// The device that the kernels run on, if their memory is not that of this process. Tensors are there then, and addresses
    /// in `args` are the device's.
    fn device(&self) -> Option<Arc<dyn Device>> {
        None
    }

    /// A run begins: nothing has gone wrong yet.
    fn begin(&self) -> Result<()> {
        Ok(())
    }

    /// After a straight line of launches: stores the error code of a kernel in `ctx` if launches did not, and reports what
    /// went wrong with the launches themselves.
    fn settle(&self, ctx: &Ctx) -> Result<()> {
        let _ = ctx;
        Ok(())
    }
}

/// Where the kernels of a program come from.
#[derive(Clone)]
pub enum Code {
    /// Functions, one for each kernel of the plan.
    Native(Vec<KernelFn>),
    /// A table that runs them.
    Host(Arc<dyn HostKernels>),
}
