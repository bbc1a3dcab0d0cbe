//! The child's side.

use super::pool::Limits;
use super::{decode_request, encode_reply, read_frame, write_frame};
use crate::Llvm;
use planish_codegen::kernel::Backend;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Read, Write};

/// Answers requests until the input ends.
pub fn serve(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    while let Some(frame) = read_frame(input)? {
        let reply = decode_request(&frame).and_then(|(module, target)| Llvm.emit(&module, &target));
        write_frame(output, &[&encode_reply(&reply)])?;
    }
    Ok(())
}

/// The whole of a child: takes on the limits given as its first frame and serves standard input and output. Gives the exit code.
pub fn serve_stdio() -> u8 {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let limits = match read_frame(&mut input) {
        Ok(Some(f)) => Limits::from_bytes(&f),
        _ => None,
    };
    let Some(limits) = limits else { return 2 };
    if restrict(limits).is_err() {
        return 2;
    }
    match serve(&mut input, &mut output) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// No core dumps, no files, bounded memory and processor time.
fn restrict(limits: Limits) -> io::Result<()> {
    let lower = |what: Resource, to: u64| -> io::Result<()> {
        let old = getrlimit(what);
        let to = old.maximum.map_or(to, |m| m.min(to));
        Ok(setrlimit(what, Rlimit { current: Some(to), maximum: Some(to) })?)
    };
    lower(Resource::Core, 0)?;
    lower(Resource::Fsize, 0)?;
    lower(Resource::As, limits.memory_bytes)?;
    lower(Resource::Cpu, limits.cpu_seconds)
}
