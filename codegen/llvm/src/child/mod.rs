//! LLVM in a child process.
//!
//! A fatal error inside LLVM ends the process it happens in, so a compiler that must survive it starts children: copies of its own
//! executable (or of `planish-codegen-child`) with a hidden argument, which call [`serve`]. [`Pool`] keeps `jobs` of them and
//! deals out modules; what comes back depends on the modules only.
//!
//! Both directions carry frames: a little-endian `u32` length, then that many bytes. A request is a form byte, the target's
//! encoding as a nested frame and the module's encoding; a reply is a status byte and object bytes, or an error's kernel (may
//! be empty) as a nested frame and its message.

mod pool;
mod serve;

pub use pool::{ChildLlvm, Limits, Pool, partition};
pub use serve::{serve, serve_stdio};

use planish_codegen::kernel::wire::{decode_module, decode_target, encode_module, encode_target};
use planish_codegen::kernel::{EmitError, KernelModule, ObjectBytes, TargetSpec};
use std::io::{self, Read, Write};

/// Longest frame that is accepted.
const MAX_FRAME: u32 = 1 << 30;

fn write_frame(w: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let len = u32::try_from(len)
        .ok()
        .filter(|l| *l <= MAX_FRAME)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "frame too long"))?;
    w.write_all(&len.to_le_bytes())?;
    for p in parts {
        w.write_all(p)?;
    }
    w.flush()
}

/// The next frame; `None` at the end of the stream.
fn read_frame(r: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0u8; 4];
    let mut got = 0;
    while got < 4 {
        match r.read(&mut len[got..])? {
            0 if got == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => got += n,
        }
    }
    let len = u32::from_le_bytes(len);
    if len > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    // `take` and not `vec![0; len]`: memory grows with what arrives.
    let mut body = Vec::new();
    r.take(u64::from(len)).read_to_end(&mut body)?;
    if body.len() < len as usize { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(body)) }
}

fn nested(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u32).to_le_bytes().to_vec();
    out.extend(bytes);
    out
}

fn split_nested(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_at_checked(4)?;
    rest.split_at_checked(u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize)
}

/// Bytes of a request; they are also the reproducer of a crash.
pub fn encode_request(module: &KernelModule, target: &TargetSpec) -> Vec<u8> {
    let mut out = nested(&encode_target(target));
    out.extend(encode_module(module));
    out
}

/// The module and target of a request.
pub fn decode_request(bytes: &[u8]) -> Result<(KernelModule, TargetSpec), EmitError> {
    let (target, module) = split_nested(bytes).ok_or_else(|| EmitError::new("the request ends early"))?;
    let target = decode_target(target).map_err(|e| EmitError::new(format!("target: {e}")))?;
    let module = decode_module(module).map_err(|e| EmitError::new(format!("module: {e}")))?;
    Ok((module, target))
}

fn encode_reply(r: &Result<ObjectBytes, EmitError>) -> Vec<u8> {
    match r {
        Ok(o) => [&[0u8], &o.bytes[..]].concat(),
        Err(e) => {
            let kernel = nested(e.kernel.as_deref().unwrap_or("").as_bytes());
            [&[1u8], &kernel[..], e.message.as_bytes()].concat()
        }
    }
}

fn decode_reply(bytes: Vec<u8>) -> Result<ObjectBytes, EmitError> {
    let broken = || EmitError::new("the code generator's reply is broken");
    match bytes.first() {
        Some(0) => Ok(ObjectBytes { bytes: bytes[1..].to_vec() }),
        Some(1) => {
            let (kernel, message) = split_nested(&bytes[1..]).ok_or_else(broken)?;
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            let mut e = EmitError::new(text(message));
            e.kernel = Some(text(kernel)).filter(|k| !k.is_empty());
            Err(e)
        }
        _ => Err(broken()),
    }
}
