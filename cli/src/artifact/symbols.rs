//! Names of kernels for tools that look at machine code: `nm`, `perf`, debuggers.

use super::elf::{self, Range, Section};
use planish_rt::image::Parts;
use planish_rt::plan::Plan;

/// A kernel in the code block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelSymbol {
    /// The name of the kernel, a point, and the instruction set it is for.
    pub name: String,
    /// Where it begins in the code block.
    pub offset: u64,
    /// Bytes until the next one.
    pub size: u64,
}

/// All kernels of an image, by place.
pub fn kernel_symbols(plan: &Plan, parts: &Parts) -> Vec<KernelSymbol> {
    let mut out = Vec::new();
    for variant in parts.entries() {
        let mut places: Vec<(u64, &str)> =
            variant.starts.iter().copied().zip(plan.kernels.iter().map(|k| k.name.as_str())).collect();
        places.sort_unstable();
        for (i, (offset, name)) in places.iter().enumerate() {
            let next = places[i..].iter().map(|p| p.0).find(|at| at > offset).unwrap_or(variant.end);
            let name = format!("{name}.{}", variant.isa.name());
            out.push(KernelSymbol { name, offset: *offset, size: next.saturating_sub(*offset) });
        }
    }
    out
}

/// What stands at the end of a program that names its kernels: symbols, strings, section headers.
#[derive(Debug)]
pub(super) struct Tables {
    /// To be put at the place given.
    pub(super) bytes: Vec<u8>,
    /// Where in the file the section headers are.
    pub(super) headers_at: u64,
    /// Bytes of one.
    pub(super) header_len: u16,
    /// Their number.
    pub(super) count: u16,
    /// The section of their names.
    pub(super) names: u16,
}

/// The tables for a program, to be put at `at`, a multiple of 8. `parts` are sections of what is before, the last of them
/// the code block.
pub(super) fn tables(symbols: &[KernelSymbol], parts: &[(&'static str, Section)], at: u64) -> Tables {
    let code_section = parts.len() as u16;
    let code_address = parts.last().map_or(0, |(_, s)| s.range.address);
    let mut entries = elf::symbol(0, 0, 0, 0).to_vec();
    let mut strings = vec![0];
    for s in symbols {
        let name = strings.len() as u32;
        strings.extend_from_slice(s.name.as_bytes());
        strings.push(0);
        entries.extend_from_slice(&elf::symbol(name, code_section, code_address + s.offset, s.size));
    }
    let own = [".symtab", ".strtab", ".shstrtab"];
    let (mut names, mut name_at) = (Vec::new(), Vec::new());
    for name in [""].into_iter().chain(parts.iter().map(|p| p.0)).chain(own) {
        name_at.push(names.len() as u32);
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    let mut bytes = Vec::new();
    let mut put = |part: &[u8]| {
        let offset = at + bytes.len() as u64;
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Range { offset, address: 0, len: part.len() as u64, align: 8 }
    };
    let (symbols_at, strings_at, names_at) = (put(&entries), put(&strings), put(&names));
    let headers_at = at + bytes.len() as u64;
    let symbols = Section {
        kind: elf::SHT_SYMTAB,
        range: symbols_at,
        link: u32::from(code_section) + 2,
        // One more than the number of the last local symbol.
        info: (entries.len() / elf::SYMBOL) as u32,
        entry: elf::SYMBOL as u64,
        ..Section::default()
    };
    let table = |range| Section { kind: elf::SHT_STRTAB, range, ..Section::default() };
    // The launcher needs no library: its dynamic section names nothing, for which any table of strings will do.
    let part = |(_, s): &(_, Section)| match s.kind {
        elf::SHT_DYNAMIC => Section { link: symbols.link, ..*s },
        _ => *s,
    };
    let all = [Section::default()].into_iter().chain(parts.iter().map(part));
    for (section, name) in all.chain([symbols, table(strings_at), table(names_at)]).zip(&name_at) {
        bytes.extend_from_slice(&section.bytes(*name));
    }
    let count = name_at.len() as u16;
    Tables { bytes, headers_at, header_len: elf::SECTION as u16, count, names: count - 1 }
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::artifact::exe::{LAUNCHER, compose, compose_with};
    use crate::artifact::object::model_object;
    use object::{Object, ObjectSection, ObjectSymbol};
    use planish_rt::cpu::Isa;
    use planish_rt::image::{self, Arch, PAGE, Variant};
    use planish_rt::plan::KernelDecl;
    use std::io::Write;

    /// Two kernels for two instruction sets: bytes that say which they are.
    fn image() -> (Plan, Parts) {
        let kernel =
            |n: &str| KernelDecl { name: n.into(), params: 0, nodes: vec![], flops: None, bytes: None };
        let plan = Plan { kernels: vec![kernel("k_b_0"), kernel("k_a_0")], ..Plan::default() };
        let (narrow, wide) = ([[1u8; 32], [2; 32]].concat(), [[3u8; 48], [4; 48]].concat());
        let narrow = Variant { isa: Isa::Base, code: &narrow, text_len: 64, entries: vec![0, 32] };
        let wide = Variant { isa: Isa::Avx512, code: &wide, text_len: 80, entries: vec![48, 0] };
        let parts = image::build(&plan, 100, Arch::X86_64, &[wide, narrow]).expect("builds");
        (plan, parts)
    }

    /// What the symbols of each name must be: size and first byte.
    const EXPECTED: [(&str, u64, u8); 4] =
        [("k_a_0.avx512", 48, 3), ("k_a_0.base", 32, 2), ("k_b_0.avx512", 32, 4), ("k_b_0.base", 32, 1)];

    /// Names of the kernels in a file, each with its size and the byte that stands at its address.
    fn found(file: &[u8]) -> Vec<(String, u64, u8)> {
        let file = object::File::parse(file).expect("an object");
        let mut out = Vec::new();
        for s in file.symbols().filter(|s| s.name().is_ok_and(|n| n.starts_with("k_"))) {
            assert_eq!((s.kind(), s.is_local()), (object::SymbolKind::Text, true));
            let section = file.section_by_index(s.section_index().expect("a section")).expect("it is there");
            assert_eq!(section.name(), Ok(".planish.code"));
            let at = s.address() - section.address();
            let byte = section.data().expect("data")[at as usize];
            out.push((s.name().expect("a name").to_owned(), s.size(), byte));
        }
        out.sort();
        out
    }

    fn weights(out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&[7; 100])
    }

    #[test]
    fn symbols_stand_at_the_kernels_of_each_variant() {
        let (plan, parts) = image();
        let kernels = kernel_symbols(&plan, &parts);
        let offsets: Vec<u64> = kernels.iter().map(|k| k.offset).collect();
        assert_eq!(offsets, [0, 32, PAGE as u64, PAGE as u64 + 48]);
        let expected: Vec<_> =
            EXPECTED.iter().map(|(n, size, byte)| ((*n).to_owned(), *size, *byte)).collect();
        let mut exe = Vec::new();
        compose_with(&mut exe, LAUNCHER, &parts, &kernels, 100, weights).expect("composes");
        assert_eq!(found(&exe), expected);
        let object = model_object("m", Arch::X86_64, &parts, &kernels, &[7; 100]).expect("object");
        assert_eq!(found(&object), expected);
    }

    #[test]
    fn an_executable_with_symbols_is_one_without_and_tables_behind() {
        let (plan, parts) = image();
        let (mut plain, mut named) = (Vec::new(), Vec::new());
        compose(&mut plain, LAUNCHER, &parts, 100, weights).expect("composes");
        let kernels = kernel_symbols(&plan, &parts);
        compose_with(&mut named, LAUNCHER, &parts, &kernels, 100, weights).expect("composes");
        // Where the section headers are, how long one is, how many there are and which has their names.
        for field in [40..48, 58..60, 60..62, 62..64] {
            plain[field.clone()].copy_from_slice(&named[field]);
        }
        assert!(named.len() > plain.len() && named[..plain.len()] == plain);
    }
}
