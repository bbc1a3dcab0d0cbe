//! The few parts of 64-bit little-endian ELF programs that the composer reads and writes.

/// Bytes of a program header.
pub(super) const HEADER: usize = 56;
pub(super) const PT_LOAD: u32 = 1;
pub(super) const PT_DYNAMIC: u32 = 2;
pub(super) const PT_NOTE: u32 = 4;
pub(super) const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
pub(super) const PT_GNU_PROPERTY: u32 = 0x6474_e553;
pub(super) const PF_X: u32 = 1;
pub(super) const PF_R: u32 = 4;

/// Machines, as the header of a file names them.
pub(super) const EM_X86_64: u64 = 62;
pub(super) const EM_AARCH64: u64 = 183;

/// A program header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) file_len: u64,
    pub(super) memory_len: u64,
    pub(super) align: u64,
}

/// An integer of `N` bytes; `None` beyond the end.
pub(super) fn int<const N: usize>(b: &[u8], at: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..N].copy_from_slice(b.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(word))
}

/// The program headers of a position-independent program for `machine`, and where they are.
pub(super) fn segments(b: &[u8], machine: u64) -> Option<(usize, Vec<Segment>)> {
    const ET_EXEC: u64 = 2;
    const ET_DYN: u64 = 3;
    // A program for another machine may be linked to a fixed place; one for x86-64 must be movable.
    let kind = int::<2>(b, 16)?;
    let fits = kind == ET_DYN || (kind == ET_EXEC && machine != EM_X86_64);
    if !b.starts_with(b"\x7fELF\x02\x01\x01") || !fits || int::<2>(b, 18)? != machine {
        return None;
    }
    let (at, size, count) = (int::<8>(b, 32)? as usize, int::<2>(b, 54)?, int::<2>(b, 56)? as usize);
    if size as usize != HEADER {
        return None;
    }
    let one = |i: usize| {
        let h = b.get(at.checked_add(i * HEADER)?..at.checked_add((i + 1) * HEADER)?)?;
        Some(Segment {
            kind: int::<4>(h, 0)? as u32,
            flags: int::<4>(h, 4)? as u32,
            offset: int::<8>(h, 8)?,
            address: int::<8>(h, 16)?,
            file_len: int::<8>(h, 32)?,
            memory_len: int::<8>(h, 40)?,
            align: int::<8>(h, 48)?,
        })
    };
    Some((at, (0..count).map(one).collect::<Option<_>>()?))
}

impl Segment {
    pub(super) fn bytes(&self) -> [u8; HEADER] {
        let mut b = [0; HEADER];
        b[..4].copy_from_slice(&self.kind.to_le_bytes());
        b[4..8].copy_from_slice(&self.flags.to_le_bytes());
        let words = [self.offset, self.address, self.address, self.file_len, self.memory_len, self.align];
        for (i, w) in words.iter().enumerate() {
            b[8 + 8 * i..16 + 8 * i].copy_from_slice(&w.to_le_bytes());
        }
        b
    }
}

/// Bytes of a symbol, and of a section header.
pub(super) const SYMBOL: usize = 24;
pub(super) const SECTION: usize = 64;
pub(super) const SHT_PROGBITS: u32 = 1;
pub(super) const SHT_SYMTAB: u32 = 2;
pub(super) const SHT_STRTAB: u32 = 3;
pub(super) const SHT_DYNAMIC: u32 = 6;
pub(super) const SHF_WRITE: u64 = 1;
pub(super) const SHF_ALLOC: u64 = 2;
pub(super) const SHF_EXECINSTR: u64 = 4;

/// A part of a file that a section names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) len: u64,
    pub(super) align: u64,
}

/// A section.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Section {
    pub(super) kind: u32,
    pub(super) flags: u64,
    pub(super) range: Range,
    pub(super) link: u32,
    pub(super) info: u32,
    pub(super) entry: u64,
}

impl Section {
    /// The header; `name` is a place in the section of names.
    pub(super) fn bytes(&self, name: u32) -> [u8; SECTION] {
        let mut b = [0; SECTION];
        b[..4].copy_from_slice(&name.to_le_bytes());
        b[4..8].copy_from_slice(&self.kind.to_le_bytes());
        let r = self.range;
        for (i, w) in [self.flags, r.address, r.offset, r.len].iter().enumerate() {
            b[8 + 8 * i..16 + 8 * i].copy_from_slice(&w.to_le_bytes());
        }
        b[40..44].copy_from_slice(&self.link.to_le_bytes());
        b[44..48].copy_from_slice(&self.info.to_le_bytes());
        b[48..56].copy_from_slice(&r.align.to_le_bytes());
        b[56..64].copy_from_slice(&self.entry.to_le_bytes());
        b
    }
}

/// A function that only this file sees; the symbol number 0, which means none, if `section` is 0.
pub(super) fn symbol(name: u32, section: u16, address: u64, size: u64) -> [u8; SYMBOL] {
    const STT_FUNC: u8 = 2;
    let mut b = [0; SYMBOL];
    b[..4].copy_from_slice(&name.to_le_bytes());
    b[4] = if section == 0 { 0 } else { STT_FUNC };
    b[6..8].copy_from_slice(&section.to_le_bytes());
    b[8..16].copy_from_slice(&address.to_le_bytes());
    b[16..24].copy_from_slice(&size.to_le_bytes());
    b
}
