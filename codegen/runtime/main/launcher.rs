//! The program that executables start as. The composer appends the model as segments of its own and writes where
//! they are into `DESCRIPTOR`.
#[cfg(target_feature = "crt-static")]
use planish_main::app;
#[cfg(not(target_feature = "crt-static"))]
use planish_main::cuda as app;
use planish_rt::image::Image;

/// Where the model is, relative to the address of this object, which the composer finds by its first bytes.
#[repr(C, align(64))]
struct Descriptor {
    magic: [u8; 16],
    data_offset: i64,
    data_len: u64,
    code_offset: i64,
    code_len: u64,
}

#[used]
static DESCRIPTOR: Descriptor =
    Descriptor { magic: *b"planish\0launch\x01\n", data_offset: 0, data_len: 0, code_offset: 0, code_len: 0 };

fn main() {
    let at = &raw const DESCRIPTOR;
    // SAFETY: a volatile read, because the composer changes the object after it was compiled.
    let d = unsafe { at.read_volatile() };
    let block = |offset: i64, len: u64| {
        // SAFETY: the composer wrote the places and lengths of segments that are mapped for as long as the process
        // lives; without it both lengths are 0.
        unsafe { std::slice::from_raw_parts(at.cast::<u8>().offset(offset as isize), len as usize) }
    };
    let image = Image::new(block(d.data_offset, d.data_len), block(d.code_offset, d.code_len));
    let argv: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    // SAFETY: the code segment is mapped executable and holds what the composer was given for this plan.
    let code = unsafe { app::main(image, &argv) };
    std::process::exit(code);
}
