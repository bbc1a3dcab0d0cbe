//! Code generator process for programs that use the library and name it as their codegen executable. It is not for people:
//! it reads requests on standard input and writes objects on standard output.

fn main() -> std::process::ExitCode {
    planish_llvm::child::serve_stdio().into()
}
