//! Linking relocatable objects into one flat, position-independent blob.
//!
//! The input is what LLVM emits for kernels: ELF relocatable objects whose code refers to nothing but itself. The
//! output is [`CodeImage`]: all text, then all read-only data, with the references between them resolved. It can be
//! put at any address that is a multiple of 4096. Everything that would need a loader is an error: undefined
//! symbols, absolute addresses, writable data.
use object::elf;
use object::read::elf::{ElfFile64, FileHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};
use std::collections::BTreeMap;
use std::fmt;

/// Linked code.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CodeImage {
    /// Text, then read-only data. Starts at a multiple of 4096.
    pub bytes: Vec<u8>,
    /// Bytes of text.
    pub text_len: usize,
    /// Offsets of the global functions by name.
    pub symbols: BTreeMap<String, u32>,
}

/// Why objects cannot be linked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkError {
    /// The bytes are no ELF object for this purpose.
    Object(String),
    /// A symbol is used but not defined: a call of a library function that the code generator must not emit.
    Undefined(String),
    /// A symbol is defined twice.
    Duplicate(String),
    /// A reference that is not relative to the place it stands at, or that does not reach.
    Relocation {
        /// Section that holds the reference.
        section: String,
        /// Offset in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Data that would have to be writable.
    Writable(String),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Object(why) => write!(f, "not a usable object: {why}"),
            LinkError::Undefined(name) => write!(f, "the code refers to {name:?}, which is not in it"),
            LinkError::Duplicate(name) => write!(f, "{name:?} is defined twice"),
            LinkError::Relocation { section, offset, what } => write!(f, "{section}+{offset:#x}: {what}"),
            LinkError::Writable(name) => write!(f, "section {name} is writable"),
        }
    }
}

impl std::error::Error for LinkError {}

type File<'a> = ElfFile64<'a, Endianness>;

/// Sections of one object that go into the image, as (index, text?), and where they are put.
struct Placed<'a> {
    file: File<'a>,
    at: BTreeMap<usize, u64>,
}

/// Links objects for one architecture, in the order given.
pub fn link(objects: &[&[u8]]) -> Result<CodeImage, LinkError> {
    let mut files = Vec::with_capacity(objects.len());
    for bytes in objects {
        let file = File::parse(*bytes).map_err(|e| LinkError::Object(e.to_string()))?;
        let header = file.elf_header();
        let (kind, machine) = (header.e_type(Endianness::Little), header.e_machine(Endianness::Little));
        if kind != elf::ET_REL || !header.is_little_endian() {
            return Err(LinkError::Object("not a little-endian relocatable file".into()));
        }
        if machine != elf::EM_X86_64 && machine != elf::EM_AARCH64 {
            return Err(LinkError::Object(format!("machine {}", machine.0)));
        }
        files.push(Placed { file, at: BTreeMap::new() });
    }
    let mut image = CodeImage::default();
    for text in [true, false] {
        for p in &mut files {
            place(p, text, &mut image.bytes)?;
        }
        if text {
            // Data start a cache line of their own.
            image.bytes.resize(image.bytes.len().next_multiple_of(64), 0);
            image.text_len = image.bytes.len();
        }
    }
    let mut globals: BTreeMap<String, u64> = BTreeMap::new();
    for p in &files {
        for s in p.file.symbols().filter(|s| s.is_global() && s.is_definition()) {
            let Some(at) = s.section_index().and_then(|i| p.at.get(&i.0)) else { continue };
            let name = s.name().map_err(|e| LinkError::Object(e.to_string()))?.to_owned();
            let address = at + s.address();
            if s.kind() == object::SymbolKind::Text {
                let offset = u32::try_from(address).map_err(|_| LinkError::Object("too large".into()))?;
                image.symbols.insert(name.clone(), offset);
            }
            if globals.insert(name.clone(), address).is_some() {
                return Err(LinkError::Duplicate(name));
            }
        }
    }
    for p in &files {
        relocate(p, &globals, &mut image.bytes)?;
    }
    Ok(image)
}

/// Appends the text or the read-only data of an object.
fn place(p: &mut Placed<'_>, text: bool, bytes: &mut Vec<u8>) -> Result<(), LinkError> {
    for s in p.file.sections() {
        let object::SectionFlags::Elf { sh_flags, .. } = s.flags() else { continue };
        let name = s.name().unwrap_or("?");
        let unwanted =
            name.starts_with(".eh_frame") || name.starts_with(".note") || name.starts_with(".llvm");
        if sh_flags.0 & elf::SHF_ALLOC.0 == 0 || s.size() == 0 || unwanted {
            continue;
        }
        if sh_flags.0 & elf::SHF_EXECINSTR.0 != 0 {
            if !text {
                continue;
            }
        } else if sh_flags.0 & elf::SHF_WRITE.0 != 0 {
            return Err(LinkError::Writable(name.into()));
        } else if text {
            continue;
        }
        let align = s.align().max(1);
        if !align.is_power_of_two() || align > 4096 {
            return Err(LinkError::Object(format!("section {name} is aligned to {align}")));
        }
        bytes.resize(bytes.len().next_multiple_of(align as usize), if text { 0xcc } else { 0 });
        p.at.insert(s.index().0, bytes.len() as u64);
        bytes.extend_from_slice(s.data().map_err(|e| LinkError::Object(e.to_string()))?);
    }
    Ok(())
}

fn relocate(p: &Placed<'_>, globals: &BTreeMap<String, u64>, bytes: &mut [u8]) -> Result<(), LinkError> {
    let x86 = p.file.elf_header().e_machine(Endianness::Little) == elf::EM_X86_64;
    for s in p.file.sections() {
        let Some(&base) = p.at.get(&s.index().0) else { continue };
        for (offset, r) in s.relocations() {
            let fail = |what: String| LinkError::Relocation {
                section: s.name().unwrap_or("?").into(),
                offset,
                what,
            };
            let RelocationFlags::Elf { r_type } = r.flags() else {
                return Err(fail("unknown relocation".into()));
            };
            let target = match r.target() {
                RelocationTarget::Symbol(i) => {
                    let sym = p.file.symbol_by_index(i).map_err(|e| LinkError::Object(e.to_string()))?;
                    let name = sym.name().unwrap_or("?");
                    match sym.section_index() {
                        Some(k) => match p.at.get(&k.0) {
                            Some(at) => at + sym.address(),
                            None => {
                                return Err(fail(format!(
                                    "a reference to {name:?}, which is no code or data"
                                )));
                            }
                        },
                        None => *globals.get(name).ok_or_else(|| LinkError::Undefined(name.into()))?,
                    }
                }
                other => return Err(fail(format!("a reference to {other:?}"))),
            };
            let place = base + offset;
            let value = (target as i64).wrapping_add(r.addend());
            let Some(field) = bytes.get_mut(place as usize..) else {
                return Err(fail("outside its section".into()));
            };
            let done = if x86 {
                patch_x86(r_type, place, value, field)
            } else {
                patch_arm(r_type, place, value, field)
            };
            done.map_err(fail)?;
        }
    }
    Ok(())
}

fn put<const N: usize>(field: &mut [u8], value: [u8; N]) -> Result<(), String> {
    field.get_mut(..N).ok_or("outside its section")?.copy_from_slice(&value);
    Ok(())
}

fn narrow(v: i64) -> Result<[u8; 4], String> {
    i32::try_from(v).map(i32::to_le_bytes).map_err(|_| format!("{v} does not reach in 32 bits"))
}

fn patch_x86(kind: elf::RelocationType, place: u64, value: i64, field: &mut [u8]) -> Result<(), String> {
    let relative = value.wrapping_sub(place as i64);
    match kind {
        elf::R_X86_64_NONE => Ok(()),
        elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => put(field, narrow(relative)?),
        elf::R_X86_64_PC64 => put(field, relative.to_le_bytes()),
        other => Err(format!("relocation type {} is not relative to its place", other.0)),
    }
}

fn patch_arm(kind: elf::RelocationType, place: u64, value: i64, field: &mut [u8]) -> Result<(), String> {
    let relative = value.wrapping_sub(place as i64);
    // `bits` of `value >> shift` at bit `at` of the instruction; the value must fit as a signed number if `checked`.
    let mut insert = |v: i64, shift: u32, bits: u32, at: u32, checked: bool| -> Result<(), String> {
        let half = 1i64 << (bits - 1);
        let scaled = v >> shift;
        if v & ((1 << shift) - 1) != 0 || (checked && !(-half..half).contains(&scaled)) {
            return Err(format!("{v} does not fit its instruction"));
        }
        let old =
            u32::from_le_bytes(field.get(..4).and_then(|b| b.try_into().ok()).ok_or("outside its section")?);
        let mask = ((1u64 << bits) - 1) as u32;
        put(field, (old & !(mask << at) | (scaled as u32 & mask) << at).to_le_bytes())
    };
    // The image starts at a multiple of 4096, so the low 12 bits of an address are those of the offset.
    let low = value & 0xfff;
    match kind {
        elf::R_AARCH64_NONE => Ok(()),
        elf::R_AARCH64_PREL32 => put(field, narrow(relative)?),
        elf::R_AARCH64_PREL64 => put(field, relative.to_le_bytes()),
        elf::R_AARCH64_CALL26 | elf::R_AARCH64_JUMP26 => insert(relative, 2, 26, 0, true),
        elf::R_AARCH64_CONDBR19 | elf::R_AARCH64_LD_PREL_LO19 => insert(relative, 2, 19, 5, true),
        elf::R_AARCH64_TSTBR14 => insert(relative, 2, 14, 5, true),
        elf::R_AARCH64_ADR_PREL_LO21 | elf::R_AARCH64_ADR_PREL_PG_HI21 => {
            let v = if kind == elf::R_AARCH64_ADR_PREL_LO21 {
                relative
            } else {
                (value & !0xfff).wrapping_sub(place as i64 & !0xfff) >> 12
            };
            if !(-(1 << 20)..1 << 20).contains(&v) {
                return Err(format!("{v} does not fit its instruction"));
            }
            insert(v & 3, 0, 2, 29, false)?;
            insert(v >> 2, 0, 19, 5, false)
        }
        elf::R_AARCH64_ADD_ABS_LO12_NC | elf::R_AARCH64_LDST8_ABS_LO12_NC => insert(low, 0, 12, 10, false),
        elf::R_AARCH64_LDST16_ABS_LO12_NC => insert(low, 1, 12, 10, false),
        elf::R_AARCH64_LDST32_ABS_LO12_NC => insert(low, 2, 12, 10, false),
        elf::R_AARCH64_LDST64_ABS_LO12_NC => insert(low, 3, 12, 10, false),
        elf::R_AARCH64_LDST128_ABS_LO12_NC => insert(low, 4, 12, 10, false),
        other => Err(format!("relocation type {} is not relative to its place", other.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::write::{self, Relocation, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

    fn symbol(name: &str, section: SymbolSection, value: u64, kind: SymbolKind) -> Symbol {
        Symbol {
            name: name.into(),
            value,
            size: 0,
            kind,
            scope: SymbolScope::Linkage,
            weak: false,
            section,
            flags: SymbolFlags::None,
        }
    }

    fn reloc(offset: u64, symbol: write::SymbolId, addend: i64, r_type: elf::RelocationType) -> Relocation {
        Relocation { offset, symbol, addend, flags: RelocationFlags::Elf { r_type } }
    }

    /// `mov rax, [rdi]; mov rcx, [rip + data]; mov [rax], rcx; ret`, and data that say `value`.
    fn constant(name: &str, value: u64) -> Vec<u8> {
        let mut o = write::Object::new(BinaryFormat::Elf, Architecture::X86_64, object::Endianness::Little);
        let text = o.section_id(write::StandardSection::Text);
        let data = o.section_id(write::StandardSection::ReadOnlyData);
        let code = [0x48, 0x8b, 0x07, 0x48, 0x8b, 0x0d, 0, 0, 0, 0, 0x48, 0x89, 0x08, 0xc3];
        o.append_section_data(text, &code, 16);
        let at = o.append_section_data(data, &[1u8; 3], 1) + 3;
        o.append_section_data(data, &value.to_le_bytes(), 1);
        o.add_symbol(symbol(name, SymbolSection::Section(text), 0, SymbolKind::Text));
        let local = o.section_symbol(data);
        o.add_relocation(text, reloc(6, local, at as i64 - 4, elf::R_X86_64_PC32)).expect("relocation");
        o.write().expect("object")
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn linked_code_runs() {
        let (a, b) = (constant("a", 0x1111_2222_3333_4444), constant("b", 7));
        let image = link(&[&a, &b]).expect("links");
        assert_eq!(image.symbols.keys().collect::<Vec<_>>(), ["a", "b"]);
        let code = planish_rt::loader::LoadedCode::new(&image.bytes, image.text_len).expect("loads");
        for (name, want) in [("a", 0x1111_2222_3333_4444u64), ("b", 7)] {
            let mut out = 0u64;
            let args = [&raw mut out as u64];
            // SAFETY: the function stores a constant to the address in its first argument.
            unsafe {
                let f = code.kernel(image.symbols[name] as usize).expect("inside");
                f(args.as_ptr(), 0, 1, &mut planish_rt::Ctx::default());
            }
            assert_eq!(out, want, "{name}");
        }
        assert_eq!(link(&[&a, &a]), Err(LinkError::Duplicate("a".into())));
    }

    #[test]
    fn what_needs_a_loader_is_refused() {
        type Build = fn(&mut write::Object<'_>, write::SectionId);
        let cases: [(Build, &str); 4] = [
            (
                |o, text| {
                    let s = o.add_symbol(symbol("memcpy", SymbolSection::Undefined, 0, SymbolKind::Unknown));
                    o.add_relocation(text, reloc(0, s, -4, elf::R_X86_64_PLT32)).expect("relocation");
                },
                "\"memcpy\"",
            ),
            (
                |o, text| {
                    let s = o.section_symbol(text);
                    o.add_relocation(text, reloc(0, s, 0, elf::R_X86_64_64)).expect("relocation");
                },
                "type 1 is not relative",
            ),
            (
                |o, _| {
                    let data = o.section_id(write::StandardSection::Data);
                    o.append_section_data(data, &[0; 8], 8);
                },
                "writable",
            ),
            (
                |o, text| {
                    let meta = o.add_section(vec![], b".comment".to_vec(), SectionKind::OtherString);
                    o.append_section_data(meta, b"x", 1);
                    let s = o.section_symbol(meta);
                    o.add_relocation(text, reloc(0, s, 0, elf::R_X86_64_PC32)).expect("relocation");
                },
                "no code or data",
            ),
        ];
        for (build, message) in cases {
            let mut o =
                write::Object::new(BinaryFormat::Elf, Architecture::X86_64, object::Endianness::Little);
            let text = o.section_id(write::StandardSection::Text);
            o.append_section_data(text, &[0x90; 16], 16);
            build(&mut o, text);
            let e = link(&[&o.write().expect("object")]).expect_err(message).to_string();
            assert!(e.contains(message), "{e}");
        }
        assert!(matches!(link(&[b"nothing"]), Err(LinkError::Object(_))));
        let good = constant("a", 1);
        for n in 0..good.len() {
            let _ = link(&[&good[..n]]);
        }
    }

    #[test]
    fn aarch64_addresses_are_page_relative() {
        let mut o = write::Object::new(BinaryFormat::Elf, Architecture::Aarch64, object::Endianness::Little);
        let text = o.section_id(write::StandardSection::Text);
        let data = o.section_id(write::StandardSection::ReadOnlyData);
        // adrp x0, data; ldr q0, [x0, :lo12:data]; bl other; ret ... other: ret
        let code: [u32; 5] = [0x9000_0000, 0x3dc0_0000, 0x9400_0000, 0xd65f_03c0, 0xd65f_03c0];
        let mut bytes: Vec<u8> = code.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.resize(8192, 0);
        o.append_section_data(text, &bytes, 4096);
        o.append_section_data(data, &[0; 32], 16);
        let s = o.section_symbol(data);
        o.add_relocation(text, reloc(0, s, 16, elf::R_AARCH64_ADR_PREL_PG_HI21)).expect("relocation");
        o.add_relocation(text, reloc(4, s, 16, elf::R_AARCH64_LDST128_ABS_LO12_NC)).expect("relocation");
        let f = o.add_symbol(symbol("other", SymbolSection::Section(text), 16, SymbolKind::Text));
        o.add_relocation(text, reloc(8, f, 0, elf::R_AARCH64_CALL26)).expect("relocation");
        let image = link(&[&o.write().expect("object")]).expect("links");
        let word = |i: usize| u32::from_le_bytes(image.bytes[4 * i..4 * i + 4].try_into().expect("four"));
        // Data begin at 8192: two pages on, 16 bytes in.
        assert_eq!(word(0), 0xd000_0000);
        assert_eq!(word(1), 0x3dc0_0000 | 1 << 10);
        assert_eq!(word(2), 0x9400_0002);
    }
}
