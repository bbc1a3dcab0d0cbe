//! Bodies of the fuzz tests: functions of bytes that must return, whatever the bytes are. They run here on seeded
//! mutations of small valid files, and serve as targets of coverage-guided fuzzers as they are.

use crate::rng::Rng;
use planish_ir::verify::verify;
use planish_ir::{Diag, text};
use planish_onnx::{ImportOptions, import_bytes};

/// Imports an ONNX model. What is accepted must verify, and print and parse back to the same text.
pub fn onnx(bytes: &[u8]) -> Result<bool, String> {
    let Ok(imported) = import_bytes(&bytes.to_vec().into(), None, &ImportOptions::default()) else {
        return Ok(false);
    };
    let found = verify(&imported.graph);
    if !found.is_empty() {
        return Err(found.iter().map(Diag::to_string).collect::<Vec<_>>().join("; "));
    }
    let printed = text::print(&imported.graph);
    let again = text::parse(&printed).map_err(|diag| format!("the printed graph is not read: {diag}"))?;
    if text::print(&again) != printed {
        return Err("the printed graph reads as another one".into());
    }
    Ok(true)
}

/// Reads the text format. What is accepted and verifies must print and parse back to the same text.
pub fn pir(bytes: &[u8]) -> Result<bool, String> {
    let Ok(source) = std::str::from_utf8(bytes) else { return Ok(false) };
    let Ok(graph) = text::parse(source) else { return Ok(false) };
    if !verify(&graph).is_empty() {
        return Ok(false);
    }
    let printed = text::print(&graph);
    match text::parse(&printed) {
        Ok(again) if text::print(&again) == printed => Ok(true),
        Ok(_) => Err("the printed graph reads as another one".into()),
        Err(diag) => Err(format!("the printed graph is not read: {diag}")),
    }
}

/// A changed copy of one seed: bytes changed, removed, repeated, put in, or spliced with another seed.
pub fn mutate(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut out = rng.pick(seeds).cloned().unwrap_or_default();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(out.len());
        let len = (1 + rng.below(16)).min(out.len() - at);
        match rng.below(8) {
            0 => {
                out.truncate(at);
            }
            1 => {
                out.drain(at..at + len);
            }
            2 => {
                let part = out[at..at + len].to_vec();
                out.splice(at..at, part);
            }
            3 => {
                let other = rng.pick(seeds).cloned().unwrap_or_default();
                let from = rng.below(other.len());
                out.splice(at.., other[from..].iter().copied());
            }
            // The varints that matter: large lengths, negative numbers, sizes whose products wrap.
            4 => {
                let huge: [&[u8]; 3] =
                    [&[0xff; 9], &[0x80, 0x80, 0x80, 0x80, 0x10], &[0xff, 0xff, 0xff, 0xff, 0x07]];
                let huge = rng.choose(&huge);
                out.splice(at..at + len.min(1), huge.iter().copied());
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte = if rng.one_in(2) { *byte ^ (1 << rng.below(8)) } else { rng.bits() as u8 };
                }
            }
        }
    }
    out
}
