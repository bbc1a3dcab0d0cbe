//! The image of a compiled model: what an artifact holds beside the runtime.
//!
//! It consists of two blocks, each placed at a multiple of 4096: *data* (header, plan, kernel tables, weights) and
//! *code* (one position-independent blob per instruction set). All numbers are little-endian. The header is
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `PLNIMAGE` |
//! | 8..12 | version |
//! | 12..16 | architecture: 1 x86-64, 2 aarch64 |
//! | 16..32 | plan: offset, length |
//! | 32..48 | weights: offset (a multiple of 4096), length |
//! | 48..56 | number of kernels |
//! | 56..64 | number of variants |
//! | 64.. | variants, smallest instruction set first: instruction set, offset and length in *code*, length of text, offset in *data* of the kernels' offsets (u32 each) |
use crate::cpu::Isa;
use crate::error::{Result, fail};
use crate::exec::{Keep, Program};
use crate::kernel::{Code, KernelFn};
use crate::plan::Plan;
use alloc::string::String;
use alloc::vec::Vec;

/// The first bytes of the data block.
pub const IMAGE_MAGIC: [u8; 8] = *b"PLNIMAGE";
/// The version this code reads and writes.
pub const IMAGE_VERSION: u32 = 1;
/// Alignment of both blocks, of the weights and of each variant.
pub const PAGE: usize = 4096;
const HEADER: usize = 64;
const VARIANT: usize = 40;

/// An architecture of code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Arch {
    /// x86-64.
    X86_64 = 1,
    /// aarch64.
    Aarch64 = 2,
}

impl Arch {
    /// That of this process, if it is one of them.
    pub const HOST: Option<Arch> = if cfg!(target_arch = "x86_64") {
        Some(Arch::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Arch::Aarch64)
    } else {
        None
    };
}

/// Code for one instruction set, to be put into an image.
#[derive(Clone, Debug)]
pub struct Variant<'a> {
    /// What the code needs.
    pub isa: Isa,
    /// Text, then read-only data.
    pub code: &'a [u8],
    /// Bytes of text.
    pub text_len: usize,
    /// Offset of each kernel of the plan.
    pub entries: Vec<u32>,
}

/// An image without its weights, which follow `head`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// The data block up to the weights; its length is a multiple of 4096.
    pub head: Vec<u8>,
    /// The code block; its length is a multiple of 4096.
    pub code: Vec<u8>,
}

/// Where the kernels of one variant are in the code block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entries {
    /// What the code needs.
    pub isa: Isa,
    /// The end of the text.
    pub end: u64,
    /// The start of each kernel of the plan.
    pub starts: Vec<u64>,
}

impl Parts {
    /// The places of all kernels, as the tables in `head` say.
    pub fn entries(&self) -> Vec<Entries> {
        let (kernels, variants) = (u64_at(&self.head, 48).unwrap_or(0), u64_at(&self.head, 56).unwrap_or(0));
        let one = |i: usize| {
            let word = |k: usize| u64_at(&self.head, HEADER + i * VARIANT + 8 * k);
            let (isa, at, text, table) = (Isa::from_code(word(0)? as u32)?, word(1)?, word(3)?, word(4)?);
            let start = |k: usize| Some((at + u32_at(&self.head, table + 4 * k)? as usize) as u64);
            Some(Entries {
                isa,
                end: (at + text) as u64,
                starts: (0..kernels).map(start).collect::<Option<_>>()?,
            })
        };
        (0..variants).filter_map(one).collect()
    }
}

/// Lays out an image for weights of `weights_len` bytes.
///
/// # Errors
/// A variant has another number of kernels than the plan, or a kernel outside its text.
pub fn build(plan: &Plan, weights_len: u64, arch: Arch, variants: &[Variant<'_>]) -> Result<Parts> {
    let kernels = plan.kernels.len();
    let mut sorted: Vec<&Variant<'_>> = variants.iter().collect();
    sorted.sort_by_key(|v| v.isa);
    let plan_bytes = plan.encode();
    let tables_at = (HEADER + VARIANT * sorted.len() + plan_bytes.len()).next_multiple_of(8);
    let weights_at = (tables_at + 4 * kernels * sorted.len()).next_multiple_of(PAGE);
    let mut head = Vec::with_capacity(weights_at);
    head.extend_from_slice(&IMAGE_MAGIC);
    head.extend_from_slice(&IMAGE_VERSION.to_le_bytes());
    head.extend_from_slice(&(arch as u32).to_le_bytes());
    let plan_at = (HEADER + VARIANT * sorted.len()) as u64;
    for word in [
        plan_at,
        plan_bytes.len() as u64,
        weights_at as u64,
        weights_len,
        kernels as u64,
        sorted.len() as u64,
    ] {
        head.extend_from_slice(&word.to_le_bytes());
    }
    let mut code: Vec<u8> = Vec::new();
    for (i, v) in sorted.iter().enumerate() {
        if v.entries.len() != kernels {
            fail!(Program, "{} kernels of {} for {}", v.entries.len(), kernels, v.isa.name());
        }
        if v.text_len > v.code.len() || v.entries.iter().any(|&e| e as usize >= v.text_len) {
            fail!(Program, "a kernel for {} is outside its code", v.isa.name());
        }
        let table = (tables_at + 4 * kernels * i) as u64;
        for word in [v.isa as u64, code.len() as u64, v.code.len() as u64, v.text_len as u64, table] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        code.extend_from_slice(v.code);
        code.resize(code.len().next_multiple_of(PAGE), 0);
    }
    head.extend_from_slice(&plan_bytes);
    head.resize(tables_at, 0);
    for v in &sorted {
        v.entries.iter().for_each(|e| head.extend_from_slice(&e.to_le_bytes()));
    }
    head.resize(weights_at, 0);
    Ok(Parts { head, code })
}

/// An image in memory.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    data: &'a [u8],
    code: &'a [u8],
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(b.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
}

impl<'a> Image<'a> {
    /// The image in two blocks.
    pub fn new(data: &'a [u8], code: &'a [u8]) -> Result<Image<'a>> {
        if data.get(..8) != Some(&IMAGE_MAGIC) {
            fail!(Program, "the model data are damaged");
        }
        match u32_at(data, 8) {
            Some(IMAGE_VERSION) => {}
            v => fail!(Program, "the model data have version {}, not {IMAGE_VERSION}", v.unwrap_or(0)),
        }
        match (u32_at(data, 12), Arch::HOST) {
            (Some(a), Some(host)) if a == host as u32 => Ok(Image { data, code }),
            _ => fail!(Machine, "the model is compiled for another kind of processor"),
        }
    }

    /// An image of nothing: everything asked of it is an error.
    pub(crate) const fn empty() -> Image<'a> {
        Image { data: &[], code: &[] }
    }

    fn range(&self, at: usize) -> Option<&'a [u8]> {
        let (offset, len) = (u64_at(self.data, at)?, u64_at(self.data, at + 8)?);
        self.data.get(offset..offset.checked_add(len)?)
    }

    /// The plan.
    pub fn plan(&self) -> Result<Plan> {
        let Some(bytes) = self.range(16) else { fail!(Program, "the model data are damaged") };
        match Plan::decode(bytes) {
            Ok(p) => Ok(p),
            Err(e) => fail!(Program, "{e}"),
        }
    }

    /// The weights.
    pub fn weights(&self) -> Result<&'a [u8]> {
        match self.range(32) {
            Some(w) if (w.as_ptr() as usize).is_multiple_of(64) || w.is_empty() => Ok(w),
            _ => fail!(Program, "the weights are damaged"),
        }
    }

    /// The code block.
    pub fn code(&self) -> &'a [u8] {
        self.code
    }

    /// Bytes of code, all variants together.
    pub fn code_len(&self) -> usize {
        self.code.len()
    }

    fn variant(&self, i: usize) -> Option<(Isa, &'a [u8], usize, usize)> {
        let at = HEADER + i * VARIANT;
        let isa = Isa::from_code(u64_at(self.data, at)? as u32)?;
        let (offset, len) = (u64_at(self.data, at + 8)?, u64_at(self.data, at + 16)?);
        let code = self.code.get(offset..offset.checked_add(len)?)?;
        let text = u64_at(self.data, at + 24)?;
        (text <= len).then_some((isa, code, text, u64_at(self.data, at + 32)?))
    }

    /// The instruction sets there is code for, smallest first.
    pub fn variants(&self) -> Vec<Isa> {
        let n = u64_at(self.data, 56).unwrap_or(0).min(Isa::ALL.len());
        (0..n).filter_map(|i| self.variant(i)).map(|v| v.0).collect()
    }

    /// The kernels of the largest variant that `isa` can run.
    ///
    /// # Safety
    /// The code block is mapped executable and holds kernels at the offsets the tables name; it stays for as long
    /// as the functions are called.
    pub unsafe fn kernels(&self, isa: Isa) -> Result<(Isa, Vec<KernelFn>)> {
        let n = u64_at(self.data, 56).unwrap_or(0).min(Isa::ALL.len());
        let best = (0..n).filter_map(|i| self.variant(i)).filter(|v| v.0 <= isa).max_by_key(|v| v.0);
        let Some((found, code, text, table)) = best else {
            let names: Vec<&str> = self.variants().iter().map(|v| v.name()).collect();
            let names: String = names.join(", ");
            fail!(Machine, "this processor ({}) can run none of the code variants: {names}", isa.name())
        };
        let mut out = Vec::new();
        for k in 0..u64_at(self.data, 48).unwrap_or(0) {
            match u32_at(self.data, table.saturating_add(4 * k)) {
                Some(e) if (e as usize) < text => {
                    // SAFETY: the offset is inside the code, and the caller vouches for what is there.
                    out.push(unsafe {
                        core::mem::transmute::<*const u8, KernelFn>(code.as_ptr().add(e as usize))
                    });
                }
                _ => fail!(Program, "the table of kernels is damaged"),
            }
        }
        Ok((found, out))
    }

    /// The program, with the best variant for `isa`. `keep` is held for as long as the program lives.
    ///
    /// # Safety
    /// As for [`Image::kernels`]; both blocks stay for as long as the program lives, which `keep` may ensure.
    pub unsafe fn program(&self, isa: Isa, keep: Keep) -> Result<(Isa, Program)> {
        let plan = self.plan()?;
        let weights = self.weights()?;
        // SAFETY: the caller vouches for the code.
        let (found, f) = unsafe { self.kernels(isa)? };
        // SAFETY: as above; the weights are aligned, and the caller says that they stay.
        let p = unsafe { Program::new(plan, Code::Native(f), weights.as_ptr(), weights.len(), keep)? };
        Ok((found, p))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::plan::KernelDecl;
    use alloc::vec;

    fn plan() -> Plan {
        let k = |n: &str| KernelDecl { name: n.into(), params: 0, nodes: vec![], flops: None, bytes: None };
        Plan { kernels: vec![k("a"), k("b")], ..Plan::default() }
    }

    fn image() -> (Vec<u8>, Vec<u8>) {
        let code = [0xc3u8; 100];
        let v = |isa, entries| Variant { isa, code: &code, text_len: 64, entries };
        let arch = Arch::HOST.expect("known");
        let parts = build(&plan(), 5, arch, &[v(Isa::Avx512, vec![0, 63]), v(Isa::Base, vec![1, 2])])
            .expect("builds");
        let base = Entries { isa: Isa::Base, end: 64, starts: vec![1, 2] };
        let page = PAGE as u64;
        let wide = Entries { isa: Isa::Avx512, end: page + 64, starts: vec![page, page + 63] };
        assert_eq!(parts.entries(), [base, wide]);
        let mut data = parts.head;
        data.extend_from_slice(b"12345");
        (data, parts.code)
    }

    #[test]
    fn parts_are_found_again() {
        let (data, code) = image();
        let i = Image::new(&data, &code).expect("image");
        assert_eq!(i.plan().expect("plan"), plan());
        assert_eq!(i.range(32), Some(&b"12345"[..]));
        assert_eq!(i.variants(), [Isa::Base, Isa::Avx512]);
        assert_eq!(code.len(), 2 * PAGE);
        // SAFETY: nothing is called.
        unsafe {
            let (isa, f) = i.kernels(Isa::Avx2).expect("base");
            assert_eq!((isa, f[1] as usize - code.as_ptr() as usize), (Isa::Base, 2));
            let (isa, f) = i.kernels(Isa::Avx512Bf16).expect("avx512");
            assert_eq!((isa, f[1] as usize - code.as_ptr() as usize), (Isa::Avx512, PAGE + 63));
        }
    }

    #[test]
    fn damage_is_an_error() {
        let (data, code) = image();
        let whole = Image::new(&data, &code).expect("image");
        let head = whole.range(32).expect("weights").as_ptr() as usize - data.as_ptr() as usize;
        for n in (0..head.min(300)).chain([data.len() - 1]) {
            if let Ok(i) = Image::new(&data[..n], &code) {
                assert!(i.range(32).is_none());
            }
        }
        for at in 0..HEADER + 2 * VARIANT {
            let mut b = data.clone();
            b[at] ^= 0xff;
            if let Ok(i) = Image::new(&b, &code) {
                let _ = (i.plan(), i.weights(), i.variants());
                // SAFETY: nothing is called.
                let _ = unsafe { i.kernels(Isa::Avx512Bf16) };
            }
        }
        let mut other = data.clone();
        other[12] = 9;
        assert_eq!(Image::new(&other, &code).expect_err("arch").kind, ErrorKind::Machine);
    }

    #[test]
    fn a_processor_without_the_features_is_told_so() {
        let code = [0xc3u8; 8];
        let v = Variant { isa: Isa::Avx512, code: &code, text_len: 8, entries: vec![0, 0] };
        let parts = build(&plan(), 0, Arch::HOST.expect("known"), &[v]).expect("builds");
        let i = Image::new(&parts.head, &parts.code).expect("image");
        // SAFETY: nothing is called.
        let e = unsafe { i.kernels(Isa::Avx2) }.expect_err("too small");
        assert_eq!(e.kind, ErrorKind::Machine);
        assert!(e.message.contains("avx512"));
        let v = Variant { isa: Isa::Base, code: &code, text_len: 8, entries: vec![0, 8] };
        assert!(build(&plan(), 0, Arch::X86_64, &[v]).is_err());
    }
}
