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
