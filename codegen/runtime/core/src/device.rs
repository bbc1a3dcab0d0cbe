//! Memory that kernels use and this process cannot address: that of a GPU.
use crate::error::Result;
use alloc::sync::Arc;

/// Memory of a device. Addresses are the device's own; what is done here happens in order with the launches of the table of
/// kernels that gave it.
pub trait Device: Send + Sync {
    /// `bytes` bytes, not zeroed, at a multiple of 64.
    fn alloc(&self, bytes: usize) -> Result<u64>;
    /// Gives back what [`Device::alloc`] gave.
    fn free(&self, at: u64);
    /// Writes bytes of this process to the device. They may change as soon as the call returns.
    fn upload(&self, to: u64, from: &[u8]) -> Result<()>;
    /// Reads bytes of the device after everything asked of it so far.
    fn download(&self, to: &mut [u8], from: u64) -> Result<()>;
    /// Copies inside the device; the ranges may overlap.
    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()>;
}

/// Where the tensors of a plan are: in this process, or on a device.
#[derive(Clone, Default)]
pub(crate) struct Home(pub(crate) Option<Arc<dyn Device>>);

impl core::fmt::Debug for Home {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.0.is_some() { "device" } else { "process" })
    }
}

impl Home {
    /// Copies between tensors; the ranges may overlap.
    ///
    /// # Safety
    /// Both are addresses of this home that hold `bytes` bytes.
    pub(crate) unsafe fn copy(&self, to: *mut u8, from: *const u8, bytes: usize) -> Result<()> {
        match &self.0 {
            Some(d) if bytes > 0 => d.copy(to as u64, from as u64, bytes),
            Some(_) => Ok(()),
            None => {
                // SAFETY: the caller vouches for both ranges.
                unsafe { core::ptr::copy(from, to, bytes) };
                Ok(())
            }
        }
    }

    /// Writes to a tensor.
    ///
    /// # Safety
    /// `to` is an address of this home that holds the bytes.
    pub(crate) unsafe fn write(&self, to: *mut u8, from: &[u8]) -> Result<()> {
        match &self.0 {
            Some(d) if !from.is_empty() => d.upload(to as u64, from),
            Some(_) => Ok(()),
            None => {
                // SAFETY: the caller vouches for the range, and a borrowed slice is not part of a tensor.
                unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
                Ok(())
            }
        }
    }

    /// Reads from a tensor.
    ///
    /// # Safety
    /// As for [`Home::write`].
    pub(crate) unsafe fn read(&self, to: &mut [u8], from: *const u8) -> Result<()> {
        match &self.0 {
            Some(d) if !to.is_empty() => d.download(to, from as u64),
            Some(_) => Ok(()),
            None => {
                // SAFETY: as in `write`.
                unsafe { core::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
                Ok(())
            }
        }
    }
}
