//! Thread instructions that the interpreter does in a second, on one core: `speed TEXT`, where TEXT is the PTX of a matrix product
//! `c[m,n] = a[m,k] * b[k,n]` with the parameters a, b, c, m, n, k and tiles of 16 x 16, or a snapshot that ends with it.
#![allow(clippy::print_stdout, unsafe_code, reason = "a measurement")]

use planish_ptxsim::{Arg, Limits, Module};

/// Seconds that this thread has been on a processor, which neighbours do not change.
fn busy() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns: f64 = text.split(' ').next().and_then(|w| w.parse().ok()).unwrap_or(f64::NAN);
    ns / 1e9
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("speed TEXT")?;
    let text = std::fs::read_to_string(path)?;
    let text = text.find("//\n// Generated").map_or(&*text, |at| &text[at..]);
    let module = Module::parse(text)?;
    let entry = module.entries.first().ok_or("no entry")?;
    let n = 192usize;
    let (mut a, mut b, mut c) = (vec![1f32; n * n], vec![2f32; n * n], vec![0f32; n * n]);
    let tiles = n.div_ceil(16) as u32;
    for _ in 0..5 {
        let size = Arg::Scalar(n as i64);
        let args = [Arg::slice(&mut a), Arg::slice(&mut b), Arg::out(&mut c), size, size, size];
        let start = busy();
        // SAFETY: the vectors outlive the launch.
        let stats = unsafe { entry.launch(&args, [tiles, tiles, 1], Limits::default()) }?;
        let seconds = busy() - start;
        println!(
            "{} thread instructions in {seconds:.3} s: {:.0} million/s",
            stats.threads,
            stats.threads as f64 / seconds / 1e6
        );
    }
    Ok(())
}
