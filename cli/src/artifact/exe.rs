//! Executables, made without a linker.
//!
//! An executable is the launcher, a static position-independent program that is embedded in this one, with the model
//! appended as two segments of its own: *data* (plan and weights), readable, and *code*, readable and executable. The
//! system maps them with the program, so starting costs nothing that grows with the weights. The launcher finds them
//! through a descriptor in its own data whose fields are filled in here.
use super::elf::{
    self, EM_AARCH64, EM_X86_64, HEADER, PF_R, PF_X, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_PROPERTY, PT_LOAD,
    PT_NOTE, Range, Section, Segment, int,
};
use super::symbols::{self, KernelSymbol};
use planish_rt::gpu::GPU_MAGIC;
use planish_rt::image::{Arch, PAGE, Parts};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

/// The launcher for the machine this program was built for; empty where executables cannot be made.
pub static LAUNCHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher"));

/// The launcher of programs for GPUs.
static LAUNCHER_GPU: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher-gpu"));

static LAUNCHER_AARCH64: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher-aarch64"));

/// The launcher for a processor; empty where executables for it cannot be made.
pub fn launcher(arch: Arch) -> &'static [u8] {
    match arch {
        _ if Some(arch) == Arch::HOST => LAUNCHER,
        Arch::Aarch64 => LAUNCHER_AARCH64,
        Arch::X86_64 => &[],
    }
}

/// The launcher of programs that are driven by this machine's processor and run on a GPU; empty where there can be none.
pub fn gpu_launcher() -> &'static [u8] {
    LAUNCHER_GPU
}

/// The first bytes of the launcher's descriptor. Written in two parts, so that they stand whole in the launcher only.
const MAGIC: [&[u8]; 2] = [b"planish\0", b"launch\x01\n"];

/// Why no executable could be made.
#[derive(Debug)]
pub enum ExeError {
    /// There is no launcher for this target.
    NoLauncher,
    /// The launcher is not of the form that is needed: a bug.
    Launcher(&'static str),
    /// The weights written are not as many as announced: a bug.
    Weights {
        /// Bytes announced.
        expected: u64,
        /// Bytes written.
        written: u64,
    },
    /// The file could not be written.
    Io(io::Error),
}

impl fmt::Display for ExeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExeError::NoLauncher => f.write_str(
                "this planish was built without the launcher of executables for that processor; for aarch64, \
                 `rustup target add aarch64-unknown-linux-musl` before planish is built",
            ),
            ExeError::Launcher(why) => write!(f, "the embedded launcher is not usable: {why}"),
            ExeError::Weights { expected, written } => {
                write!(f, "{written} bytes of weights instead of {expected}")
            }
            ExeError::Io(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for ExeError {}

impl From<io::Error> for ExeError {
    fn from(e: io::Error) -> Self {
        ExeError::Io(e)
    }
}

/// Where the parts of an executable go.
struct Layout {
    /// The launcher with its headers and descriptor filled in.
    launcher: Vec<u8>,
    data_at: u64,
    code_at: u64,
    /// What follows the code, and where.
    tail: Option<(u64, Vec<u8>)>,
}

fn lay_out(
    launcher: &[u8],
    parts: &Parts,
    weights_len: u64,
    kernels: &[KernelSymbol],
) -> Result<Layout, ExeError> {
    if launcher.is_empty() {
        return Err(ExeError::NoLauncher);
    }
    let for_x86 = elf::segments(launcher, EM_X86_64);
    let (page, found) = match for_x86 {
        Some(found) => (PAGE as u64, Some(found)),
        None => (1 << 16, elf::segments(launcher, EM_AARCH64)),
    };
    let Some((headers_at, old)) = found else {
        return Err(ExeError::Launcher("no program for x86-64 or aarch64"));
    };
    let end = old.iter().filter(|s| s.kind == PT_LOAD).map(|s| s.address.saturating_add(s.memory_len)).max();
    let Some(end) = end.filter(|&e| e < 1 << 40) else { return Err(ExeError::Launcher("no segments")) };
    let data_len = parts.head.len() as u64 + weights_len;
    let data_at = (launcher.len() as u64).next_multiple_of(page);
    let code_at = (data_at + data_len).next_multiple_of(page);
    let data_address = end.next_multiple_of(page);
    let code_address = (data_address + data_len).next_multiple_of(page);
    let new = |flags, offset, address, len| Segment {
        kind: PT_LOAD,
        flags,
        offset,
        address,
        file_len: len,
        memory_len: len,
        align: page,
    };
    let data = new(PF_R, data_at, data_address, data_len);
    // Kernels for GPUs are data here.
    let flags = if parts.code.starts_with(&GPU_MAGIC) { PF_R } else { PF_R | PF_X };
    let code = new(flags, code_at, code_address, parts.code.len() as u64);
    // The new segments take the room of entries that only tools and unwinding read; the order by address is kept.
    let unused = |s: &&Segment| !matches!(s.kind, PT_NOTE | PT_GNU_PROPERTY | PT_GNU_EH_FRAME);
    let mut segments: Vec<Segment> = old.iter().filter(unused).copied().collect();
    let last = segments.iter().rposition(|s| s.kind == PT_LOAD).map_or(0, |i| i + 1);
    let added = [data, code].into_iter().filter(|s| s.file_len > 0);
    segments.splice(last..last, added);
    if segments.len() > old.len() {
        return Err(ExeError::Launcher("no room for two segments"));
    }
    let mut out = launcher.to_vec();
    for (i, s) in segments.iter().enumerate() {
        out[headers_at + i * HEADER..headers_at + (i + 1) * HEADER].copy_from_slice(&s.bytes());
    }
    out[headers_at + segments.len() * HEADER..headers_at + old.len() * HEADER].fill(0);
    out[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
    // Without section headers no tool takes the appended segments for rubbish behind the last section.
    out[40..48].fill(0);
    out[60..64].fill(0);
    let code_len = parts.code.len() as u64;
    let mut tail = None;
    if !kernels.is_empty() {
        let at = code_at + code_len.next_multiple_of(8);
        let tables = symbols::tables(kernels, &sections(&old, &data, &code), at);
        out[40..48].copy_from_slice(&tables.headers_at.to_le_bytes());
        out[58..60].copy_from_slice(&tables.header_len.to_le_bytes());
        out[60..62].copy_from_slice(&tables.count.to_le_bytes());
        out[62..64].copy_from_slice(&tables.names.to_le_bytes());
        tail = Some((at, tables.bytes));
    }
    fill_descriptor(&mut out, &segments, data_address, data_len, code_address, code_len)?;
    Ok(Layout { launcher: out, data_at, code_at, tail })
}

/// The segments that tools look for, as sections; code of the model is the last.
fn sections(launcher: &[Segment], data: &Segment, code: &Segment) -> Vec<(&'static str, Section)> {
    let section = |s: &Segment, kind, flags, entry| {
        let range = Range { offset: s.offset, address: s.address, len: s.file_len, align: s.align };
        Section { kind, flags, range, entry, ..Section::default() }
    };
    let program = |s: &Segment| section(s, elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_EXECINSTR, 0);
    let mut out = Vec::new();
    if let Some(text) = launcher.iter().find(|s| s.kind == PT_LOAD && s.flags & PF_X != 0) {
        out.push((".text", program(text)));
    }
    if let Some(dynamic) = launcher.iter().find(|s| s.kind == PT_DYNAMIC) {
        out.push((".dynamic", section(dynamic, elf::SHT_DYNAMIC, elf::SHF_ALLOC | elf::SHF_WRITE, 16)));
    }
    out.push((".planish.data", section(data, elf::SHT_PROGBITS, elf::SHF_ALLOC, 0)));
    out.push((".planish.code", program(code)));
    out
}

fn fill_descriptor(
    out: &mut [u8],
    segments: &[Segment],
    data_address: u64,
    data_len: u64,
    code_address: u64,
    code_len: u64,
) -> Result<(), ExeError> {
    let magic = MAGIC.concat();
    let mut hits = out.windows(magic.len()).enumerate().filter(|(_, w)| *w == magic).map(|(i, _)| i);
    let (Some(at), None) = (hits.next(), hits.next()) else {
        return Err(ExeError::Launcher("the descriptor does not stand in it once"));
    };
    let home = segments.iter().find(|s| {
        s.kind == PT_LOAD && s.offset <= at as u64 && (at as u64) < s.offset.saturating_add(s.file_len)
    });
    let Some(home) = home.filter(|_| int::<8>(out, at + 40).is_some()) else {
        return Err(ExeError::Launcher("the descriptor is in no segment"));
    };
    let address = home.address + (at as u64 - home.offset);
    let words = [data_address.wrapping_sub(address), data_len, code_address.wrapping_sub(address), code_len];
    for (i, w) in words.iter().enumerate() {
        out[at + 16 + 8 * i..at + 24 + 8 * i].copy_from_slice(&w.to_le_bytes());
    }
    Ok(())
}

/// Writes an executable. `weights` writes exactly `weights_len` bytes.
pub fn compose<W: Write>(
    out: &mut W,
    launcher: &[u8],
    parts: &Parts,
    weights_len: u64,
    weights: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ExeError> {
    compose_with(out, launcher, parts, &[], weights_len, weights)
}

/// Writes an executable with a table of symbols that names these kernels.
pub fn compose_with<W: Write>(
    out: &mut W,
    launcher: &[u8],
    parts: &Parts,
    kernels: &[KernelSymbol],
    weights_len: u64,
    weights: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ExeError> {
    let l = lay_out(launcher, parts, weights_len, kernels)?;
    let mut out = Counting { out, written: 0 };
    out.write_all(&l.launcher)?;
    out.pad_to(l.data_at)?;
    out.write_all(&parts.head)?;
    let before = out.written;
    weights(&mut out)?;
    let written = out.written - before;
    if written != weights_len {
        return Err(ExeError::Weights { expected: weights_len, written });
    }
    out.pad_to(l.code_at)?;
    out.write_all(&parts.code)?;
    if let Some((at, bytes)) = l.tail {
        out.pad_to(at)?;
        out.write_all(&bytes)?;
    }
    out.flush()?;
    Ok(())
}

struct Counting<'a, W> {
    out: &'a mut W,
    written: u64,
}

impl<W: Write> Counting<'_, W> {
    fn pad_to(&mut self, at: u64) -> io::Result<()> {
        while self.written < at {
            let n = (at - self.written).min(PAGE as u64) as usize;
            self.write_all(&[0; PAGE][..n])?;
        }
        Ok(())
    }
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, b: &[u8]) -> io::Result<usize> {
        let n = self.out.write(b)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes an executable to a file that is complete or not there: under another name first, then renamed.
pub fn write_file(
    path: &Path,
    parts: &Parts,
    weights_len: u64,
    weights: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ExeError> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".planish-").tempfile_in(dir)?;
    let mut out = io::BufWriter::with_capacity(1 << 20, file.as_file_mut());
    compose(&mut out, LAUNCHER, parts, weights_len, weights)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755))?;
    }
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
#[path = "exe_tests.rs"]
pub(in crate::artifact) mod tests;
