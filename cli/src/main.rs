//! The `planish` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    planish::interrupt::install();
    // Deeply nested models recurse; the pages of the stack are only taken when touched.
    const STACK: usize = 256 << 20;
    let body = || planish::verbs::main(std::env::args_os().collect());
    let code = match std::thread::Builder::new().name("main".into()).stack_size(STACK).spawn(body) {
        Ok(thread) => thread.join().unwrap_or(planish::Exit::Bug.code()),
        Err(_) => body(),
    };
    ExitCode::from(code)
}
