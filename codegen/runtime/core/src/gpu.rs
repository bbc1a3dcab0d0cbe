//! The code block of a program for GPUs: what a driver is given instead of machine code of this processor.
//!
//! All numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `PLNGPU\0\x01` |
//! | 8..12 | number of kernels |
//! | 12..16 | number of images |
//! | 16..20 | least compute capability, times ten |
//! | 20..24 | zero |
//! | 24.. | threads of a block of each kernel, u32, in the order of the plan |
//! | then | images: kind (u32: 1 PTX text, 2 cubin), compute capability times ten (u32; of a cubin the only one it runs on), offset and length (u64) |
//! | then | the images; a PTX text ends with a zero byte, which counts |
use crate::error::{Result, fail};
use crate::image::PAGE;
use alloc::vec::Vec;

/// The first bytes of the block.
pub const GPU_MAGIC: [u8; 8] = *b"PLNGPU\0\x01";
const HEADER: usize = 24;
const ENTRY: usize = 24;

/// A form of the kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Form {
    /// Text, which a driver compiles for any processor that is new enough.
    Ptx = 1,
    /// Machine code for one processor.
    Cubin = 2,
}

/// All kernels in one form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpuImage<'a> {
    /// Form.
    pub form: Form,
    /// Compute capability times ten.
    pub sm: u32,
    /// The bytes; a text with a zero byte at its end.
    pub bytes: &'a [u8],
}

/// The kernels of a program for GPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GpuCode<'a> {
    /// Least compute capability, times ten.
    pub sm: u32,
    /// Threads of a block of each kernel of the plan.
    pub threads: Vec<u32>,
    /// The kernels, in the order in which they are to be tried.
    pub images: Vec<GpuImage<'a>>,
}

impl<'a> GpuCode<'a> {
    /// The block; its length is a multiple of 4096.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = GPU_MAGIC.to_vec();
        for n in [self.threads.len() as u32, self.images.len() as u32, self.sm, 0] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        self.threads.iter().for_each(|t| out.extend_from_slice(&t.to_le_bytes()));
        let mut at = HEADER + 4 * self.threads.len() + ENTRY * self.images.len();
        for i in &self.images {
            at = at.next_multiple_of(16);
            out.extend_from_slice(&(i.form as u32).to_le_bytes());
            out.extend_from_slice(&i.sm.to_le_bytes());
            out.extend_from_slice(&(at as u64).to_le_bytes());
            out.extend_from_slice(&(i.bytes.len() as u64).to_le_bytes());
            at += i.bytes.len();
        }
        for i in &self.images {
            out.resize(out.len().next_multiple_of(16), 0);
            out.extend_from_slice(i.bytes);
        }
        out.resize(out.len().next_multiple_of(PAGE), 0);
        out
    }

    /// Reads a block.
    pub fn decode(block: &'a [u8]) -> Result<GpuCode<'a>> {
        let Some(code) = Self::parse(block) else { fail!(Program, "the kernels for GPUs are damaged") };
        Ok(code)
    }

    fn parse(b: &'a [u8]) -> Option<GpuCode<'a>> {
        let word = |at: usize| Some(u32::from_le_bytes(b.get(at..at.checked_add(4)?)?.try_into().ok()?));
        let wide = |at: usize| {
            usize::try_from(u64::from_le_bytes(b.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
        };
        if b.get(..8)? != GPU_MAGIC {
            return None;
        }
        let (kernels, images) = (word(8)? as usize, word(12)? as usize);
        let tables = HEADER.checked_add(kernels.checked_mul(4)?)?;
        if tables.checked_add(images.checked_mul(ENTRY)?)? > b.len() {
            return None;
        }
        let threads = (0..kernels).map(|k| word(HEADER + 4 * k).filter(|t| (1..=1024).contains(t)));
        let image = |i: usize| {
            let at = tables + ENTRY * i;
            let form = match word(at)? {
                1 => Form::Ptx,
                2 => Form::Cubin,
                _ => return None,
            };
            let (from, len) = (wide(at + 8)?, wide(at + 16)?);
            let bytes = b.get(from..from.checked_add(len)?)?;
            if form == Form::Ptx && bytes.last() != Some(&0) {
                return None;
            }
            Some(GpuImage { form, sm: word(at + 4)?, bytes })
        };
        Some(GpuCode {
            sm: word(16)?,
            threads: threads.collect::<Option<_>>()?,
            images: (0..images).map(image).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn blocks_are_read_as_written_and_damage_is_an_error() {
        let ptx = GpuImage { form: Form::Ptx, sm: 80, bytes: b".version 8.0\0" };
        let cubin = GpuImage { form: Form::Cubin, sm: 90, bytes: &[7; 100] };
        let code = GpuCode { sm: 80, threads: vec![128, 256, 1], images: vec![cubin, ptx] };
        let block = code.encode();
        assert_eq!(block.len(), PAGE);
        assert_eq!(GpuCode::decode(&block).expect("whole"), code);
        for n in 0..200 {
            assert!(GpuCode::decode(&block[..n.min(150)]).is_err());
            let mut b = block.clone();
            b[n] ^= 0xff;
            // Whatever is read of it is inside the block.
            let _ = GpuCode::decode(&b);
        }
        let open = GpuImage { bytes: b"text", ..ptx };
        assert!(GpuCode::decode(&GpuCode { images: vec![open], ..code }.encode()).is_err());
    }
}
