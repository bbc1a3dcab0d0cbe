//! What every CPU object must look like.

use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use planish_codegen::kernel::EmitError;

/// Fails on an undefined symbol (a hidden library call), on writable or uninitialised data, and on unwind tables.
pub fn lint_object(bytes: &[u8]) -> Result<(), EmitError> {
    let file = object::File::parse(bytes).map_err(|e| EmitError::new(format!("object file: {e}")))?;
    let mut bad: Vec<String> = file
        .symbols()
        .filter(|s| s.is_undefined())
        .filter_map(|s| s.name().ok().filter(|n| !n.is_empty()).map(|n| format!("undefined symbol {n}")))
        .collect();
    for s in file.sections() {
        let name = s.name().unwrap_or("?");
        let writable =
            matches!(s.kind(), SectionKind::Data | SectionKind::UninitializedData | SectionKind::Tls);
        if s.size() > 0 && (writable || name == ".eh_frame") {
            bad.push(format!("section {name} of {} bytes", s.size()));
        }
    }
    bad.sort();
    bad.dedup();
    if bad.is_empty() { Ok(()) } else { Err(EmitError::new(format!("object has {}", bad.join(", ")))) }
}

/// Number of instructions that touch the stack inside innermost loops, by function, of x86-64 assembly text as
/// [`crate::assembly`] gives it: registers that were spilled where it costs most. A loop is what lies between a label and the
/// last jump back to it.
pub fn stack_in_inner_loops(assembly: &str) -> Vec<(String, usize)> {
    let mut out: Vec<(String, usize)> = Vec::new();
    let lines: Vec<&str> = assembly.lines().map(str::trim).collect();
    let mut labels = std::collections::BTreeMap::new();
    let mut loops: Vec<(usize, usize)> = Vec::new();
    let mut starts = Vec::new();
    for (i, l) in lines.iter().enumerate() {
        if let Some(label) = l.strip_suffix(':') {
            labels.insert(label, i);
            if !label.starts_with('.') {
                starts.push((i, label));
            }
        } else if l.starts_with('j')
            && let Some(target) = l.split_whitespace().last()
            && let Some(&to) = labels.get(target)
        {
            loops.push((to, i));
        }
    }
    for (n, (start, name)) in starts.iter().enumerate() {
        let end = starts.get(n + 1).map_or(lines.len(), |s| s.0);
        let inside = |l: &(usize, usize)| l.0 > *start && l.1 < end;
        let mine: Vec<(usize, usize)> = loops.iter().copied().filter(inside).collect();
        // Blocks may be laid out so that a loop begins inside another one and ends behind it.
        let innermost = mine
            .iter()
            .filter(|a| !mine.iter().any(|b| (a.0 < b.0 && b.0 <= a.1) || (a.0 == b.0 && a.1 < b.1)));
        // Without a frame, %rbp is a register like others.
        let frame = lines[*start..end].iter().any(|l| l.ends_with("%rsp, %rbp"));
        let touches = |l: &&&str| l.contains("(%rsp") || (frame && l.contains("(%rbp"));
        let count = innermost.map(|&(a, b)| lines[a..=b].iter().filter(touches).count()).sum();
        out.push(((*name).to_string(), count));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Llvm, assembly};
    use planish_codegen::kernel::{Backend, Builder, Elem, Kernel, KernelModule, TargetSpec, Ty, Val};

    /// A K loop with `rows * 3` vector accumulators.
    fn tile(rows: i64) -> Kernel {
        let mut b = Builder::cpu(&format!("tile_{rows}"));
        let (a, w, c) = (b.input("a", Elem::F32), b.input("w", Elem::F32), b.output("c", Elem::F32));
        let n = b.scalar("n");
        let zero = b.zero(Ty::vec(Elem::F32, 16));
        let init = vec![zero; rows as usize * 3];
        let acc = b.for_(0, n, 1, &init, |b, k, acc| {
            let panel: Vec<Val> = (0..3)
                .map(|j| {
                    let at = b.at(j * 16, k, 48);
                    b.load(w, at, 16)
                })
                .collect();
            let mut next = Vec::new();
            for i in 0..rows {
                let at = b.at(k, i, n);
                let x = b.load(a, at, 1);
                next.extend((0..3).map(|j| b.fma(x, panel[j], acc[i as usize * 3 + j])));
            }
            next
        });
        for (i, v) in acc.into_iter().enumerate() {
            b.store(c, i as i64 * 16, v);
        }
        b.finish()
    }

    #[test]
    fn finds_spills_in_a_tile_that_is_too_large() {
        let m = KernelModule { kernels: vec![tile(8), tile(16)] };
        let text = assembly(&m, &TargetSpec::x86_64_v4()).unwrap();
        let found = stack_in_inner_loops(&text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], ("tile_8".to_string(), 0), "{text}");
        assert!(found[1].0 == "tile_16" && found[1].1 > 10, "{found:?}");
    }

    #[test]
    fn refuses_an_object_with_an_undefined_symbol() {
        let m = KernelModule { kernels: vec![tile(2)] };
        let good = Llvm.emit(&m, &TargetSpec::x86_64_v3()).unwrap();
        assert_eq!(lint_object(&good.bytes), Ok(()));
        let mut obj = object::write::Object::new(
            object::BinaryFormat::Elf,
            object::Architecture::X86_64,
            object::Endianness::Little,
        );
        obj.add_symbol(object::write::Symbol {
            name: b"memset".to_vec(),
            value: 0,
            size: 0,
            kind: object::SymbolKind::Text,
            scope: object::SymbolScope::Unknown,
            weak: false,
            section: object::write::SymbolSection::Undefined,
            flags: object::SymbolFlags::None,
        });
        let e = lint_object(&obj.write().unwrap()).unwrap_err();
        assert_eq!(e.to_string(), "object has undefined symbol memset");
        assert!(lint_object(b"garbage").is_err());
    }
}
