//! Libraries: relocatable objects, static archives, shared objects, and the header that declares a model.
//!
//! A model is one object with its image in two sections (data, code), a descriptor of them, and one global function
//! `planish_model_NAME`, which passes the descriptor to the runtime. The runtime is a second object that needs the C
//! library only.
use super::symbols::KernelSymbol;
use object::write::{Object, Relocation, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags,
};
use object::{SymbolKind, SymbolScope, elf};
use planish_rt::abi::HEADER;
use planish_rt::image::{Arch, PAGE, Parts};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::Command;

/// The runtime core for the machine this program was built for; empty where libraries cannot be made.
static RUNTIME: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/runtime.o"));

static RUNTIME_AARCH64: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/runtime-aarch64.o"));

/// The runtime core for a processor.
fn runtime(arch: Arch) -> Result<&'static [u8], LibraryError> {
    let object = match arch {
        _ if Some(arch) == Arch::HOST => RUNTIME,
        Arch::Aarch64 => RUNTIME_AARCH64,
        Arch::X86_64 => &[],
    };
    if object.is_empty() { Err(LibraryError::NoRuntime) } else { Ok(object) }
}

/// Why no library could be made.
#[derive(Debug)]
pub enum LibraryError {
    /// There is no runtime for this target.
    NoRuntime,
    /// The object could not be written: a bug.
    Object(String),
    /// None of the linkers for this target is there.
    NoLinker(Arch),
    /// The linker failed; what it said.
    Linker(String),
    /// A file could not be written.
    Io(io::Error),
}

impl fmt::Display for LibraryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LibraryError::NoRuntime => f.write_str(
                "this planish was built without the runtime of libraries for that processor; for aarch64, \
                 `rustup target add aarch64-unknown-linux-musl` before planish is built",
            ),
            LibraryError::Object(why) => write!(f, "the object could not be made: {why}"),
            LibraryError::NoLinker(arch) => {
                let [compiler, linker] = linkers(*arch);
                write!(f, "a shared object needs `{compiler}` or `{linker}`; neither was found")
            }
            LibraryError::Linker(said) => write!(f, "the linker failed: {said}"),
            LibraryError::Io(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for LibraryError {}

impl From<io::Error> for LibraryError {
    fn from(e: io::Error) -> Self {
        LibraryError::Io(e)
    }
}

/// The name of a model as part of a C identifier: other characters become `_`.
pub fn identifier(name: &str) -> String {
    let out: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if out.is_empty() { String::from("model") } else { out }
}

/// What links shared objects: a C compiler, else a linker that knows all processors.
fn linkers(arch: Arch) -> [&'static str; 2] {
    let compiler = match arch {
        _ if Some(arch) == Arch::HOST => "cc",
        Arch::Aarch64 => "aarch64-linux-gnu-gcc",
        Arch::X86_64 => "x86_64-linux-gnu-gcc",
    };
    [compiler, "ld.lld"]
}

/// The relocatable object of a model. Its global symbol is `planish_model_` and `identifier(name)`; it refers to
/// `planish_rt_model_v1` of the runtime.
///
/// Local symbols name `kernels`.
pub fn model_object(
    name: &str,
    arch: Arch,
    parts: &Parts,
    kernels: &[KernelSymbol],
    weights: &[u8],
) -> Result<Vec<u8>, LibraryError> {
    runtime(arch)?;
    let architecture = match arch {
        Arch::X86_64 => Architecture::X86_64,
        Arch::Aarch64 => Architecture::Aarch64,
    };
    let mut o = Object::new(BinaryFormat::Elf, architecture, Endianness::Little);
    let section = |o: &mut Object<'_>, name: &str, kind, flags: u32| {
        let id = o.add_section(Vec::new(), name.as_bytes().to_vec(), kind);
        o.section_mut(id).flags =
            SectionFlags::Elf { sh_type: elf::SHT_PROGBITS, sh_flags: elf::SectionFlags(u64::from(flags)) };
        id
    };
    let (alloc, exec, write) = (2, 4, 1);
    let data = section(&mut o, ".planish.data", SectionKind::ReadOnlyData, alloc);
    let code = section(&mut o, ".planish.code", SectionKind::Text, alloc | exec);
    let descriptor = section(&mut o, ".data.planish", SectionKind::Data, alloc | write);
    let text = section(&mut o, ".text.planish", SectionKind::Text, alloc | exec);
    section(&mut o, ".note.GNU-stack", SectionKind::Other, 0);
    o.append_section_data(data, &parts.head, PAGE as u64);
    o.append_section_data(data, weights, 1);
    o.append_section_data(code, &parts.code, PAGE as u64);
    for k in kernels {
        let place = SymbolSection::Section(code);
        let named = symbol(&k.name, k.size, SymbolKind::Text, place);
        o.add_symbol(Symbol { value: k.offset, scope: SymbolScope::Compilation, ..named });
    }
    // `ModelDescriptor`: table, data, length, code, length.
    let mut d = vec![0u8; 40];
    d[16..24].copy_from_slice(&((parts.head.len() + weights.len()) as u64).to_le_bytes());
    d[32..40].copy_from_slice(&(parts.code.len() as u64).to_le_bytes());
    o.append_section_data(descriptor, &d, 8);
    // The function passes the address of the descriptor to the runtime.
    let function: [u8; 12] = match arch {
        // lea rdi, [rip + descriptor]; jmp planish_rt_model_v1
        Arch::X86_64 => [0x48, 0x8d, 0x3d, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0],
        // adrp x0, descriptor; add x0, x0, :lo12:descriptor; b planish_rt_model_v1
        Arch::Aarch64 => [0, 0, 0, 0x90, 0, 0, 0, 0x91, 0, 0, 0, 0x14],
    };
    o.append_section_data(text, &function, 16);
    let runtime =
        o.add_symbol(symbol("planish_rt_model_v1", 0, SymbolKind::Unknown, SymbolSection::Undefined));
    let exported = format!("planish_model_{}", identifier(name));
    o.add_symbol(symbol(&exported, 12, SymbolKind::Text, SymbolSection::Section(text)));
    let local = |o: &mut Object<'_>, id| o.section_symbol(id);
    let (data, code, desc) = (local(&mut o, data), local(&mut o, code), local(&mut o, descriptor));
    let relocations = match arch {
        Arch::X86_64 => vec![
            (descriptor, 8, data, 0, elf::R_X86_64_64),
            (descriptor, 24, code, 0, elf::R_X86_64_64),
            (text, 3, desc, -4, elf::R_X86_64_PC32),
            (text, 8, runtime, -4, elf::R_X86_64_PLT32),
        ],
        Arch::Aarch64 => vec![
            (descriptor, 8, data, 0, elf::R_AARCH64_ABS64),
            (descriptor, 24, code, 0, elf::R_AARCH64_ABS64),
            (text, 0, desc, 0, elf::R_AARCH64_ADR_PREL_PG_HI21),
            (text, 4, desc, 0, elf::R_AARCH64_ADD_ABS_LO12_NC),
            (text, 8, runtime, 0, elf::R_AARCH64_JUMP26),
        ],
    };
    for (section, offset, symbol, addend, r_type) in relocations {
        let r = Relocation { offset, symbol, addend, flags: RelocationFlags::Elf { r_type } };
        o.add_relocation(section, r).map_err(|e| LibraryError::Object(e.to_string()))?;
    }
    o.write().map_err(|e| LibraryError::Object(e.to_string()))
}

fn symbol(name: &str, size: u64, kind: SymbolKind, section: SymbolSection) -> Symbol {
    Symbol {
        name: name.into(),
        value: 0,
        size,
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section,
        flags: SymbolFlags::None,
    }
}

/// A static archive of a model and the runtime. Several may be linked into one program: one runtime serves all.
pub fn static_archive(name: &str, arch: Arch, model: &[u8]) -> Result<Vec<u8>, LibraryError> {
    use ar_archive_writer::{ArchiveKind, DEFAULT_OBJECT_READER, NewArchiveMember, write_archive_to_stream};
    let member =
        |bytes: &[u8], name: String| NewArchiveMember::new(bytes.to_vec(), &DEFAULT_OBJECT_READER, name);
    let members = [
        member(model, format!("planish_model_{}.o", identifier(name))),
        member(runtime(arch)?, "planish_rt.o".into()),
    ];
    let mut out = io::Cursor::new(Vec::new());
    write_archive_to_stream(&mut out, &members, ArchiveKind::Gnu, false, None)?;
    Ok(out.into_inner())
}

/// Links a shared object with a C compiler, or `ld.lld` where there is none, and puts it at `path`. It exports one function
/// and refers to the C library without naming a version of it.
pub fn shared_object(name: &str, arch: Arch, model: &[u8], path: &Path) -> Result<(), LibraryError> {
    let near = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = tempfile::Builder::new().prefix(".planish-").tempdir_in(near)?;
    let file = |n: &str| dir.path().join(n);
    let function = format!("planish_model_{}", identifier(name));
    std::fs::write(file("model.o"), model)?;
    std::fs::write(file("runtime.o"), runtime(arch)?)?;
    std::fs::write(file("exports"), format!("{{ global: {function}; local: *; }};\n"))?;
    let script = file("exports");
    let script = script.display();
    let cc =
        [String::from("-nostdlib"), format!("-Wl,-z,relro,-z,now,--build-id=none,--version-script={script}")];
    let lld = [String::from("-zrelro"), String::from("-znow"), format!("--version-script={script}")];
    for (linker, flags) in linkers(arch).into_iter().zip([&cc[..], &lld[..]]) {
        let mut c = Command::new(linker);
        c.arg("-shared")
            .args(flags)
            .arg("-o")
            .arg(file("out.so"))
            .arg(file("model.o"))
            .arg(file("runtime.o"));
        match c.output() {
            Ok(o) if o.status.success() => {
                std::fs::rename(file("out.so"), path)?;
                return Ok(());
            }
            Ok(o) => return Err(LibraryError::Linker(String::from_utf8_lossy(&o.stderr).trim().to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(LibraryError::NoLinker(arch))
}

/// The C header of a model: the types, and the one function.
pub fn header(name: &str) -> String {
    let id = identifier(name);
    let guard = id.to_ascii_uppercase();
    format!(
        "{HEADER}\n#ifndef PLANISH_MODEL_{guard}_H\n#define PLANISH_MODEL_{guard}_H\n#ifdef __cplusplus\nextern \"C\"\n\
         #endif\nconst planish_model *planish_model_{id}(void);\n#endif\n"
    )
}

/// A Python module that loads the shared object `library` beside it (a file name, no path).
pub fn python(name: &str, library: &OsStr) -> String {
    let quoted = serde_json::Value::String(library.to_string_lossy().into_owned()).to_string();
    include_str!("template.py")
        .replace("@FUNCTION@", &format!("planish_model_{}", identifier(name)))
        .replace("\"@LIBRARY@\"", &quoted)
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
#[path = "object_tests.rs"]
mod tests;
