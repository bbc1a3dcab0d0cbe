//! `cargo xtask tidy`: rules of the repository that neither the compiler nor clippy checks.

use crate::shell::{Failure, Result, cargo, files_below, output, root};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which of our crates a crate may depend on, as in ARCHITECTURE.md. `*`: all.
const EDGES: [(&str, &[&str]); 13] = [
    ("planish-ir", &[]),
    ("planish-onnx", &["planish-ir"]),
    ("planish-passes", &["planish-ir"]),
    ("planish-rt", &[]),
    ("planish-main", &["planish-rt"]),
    ("planish-codegen", &["planish-ir", "planish-rt"]),
    ("planish-llvm", &["planish-codegen", "planish-ir"]),
    ("planish-clif", &["planish-codegen", "planish-ir"]),
    ("planish-ptxsim", &[]),
    ("planish-ptxsim-cuda", &["planish-ptxsim"]),
    ("planish", &["*"]),
    ("planish-testsuite", &["*"]),
    ("xtask", &[]),
];

/// Edges that tests alone may have.
const TEST_EDGES: [(&str, &str); 1] = [("planish-llvm", "planish-ptxsim")];

/// Crates that depend on no crate of others at all.
const NO_CRATES: [&str; 2] = ["planish-rt", "planish-main"];

/// Crates of others that may stand in one place only: (start of the name, the crates that may use it).
const ONLY_IN: [(&str, &[&str]); 6] = [
    ("inkwell", &["planish-llvm"]),
    ("llvm-sys", &["planish-llvm"]),
    ("prost", &["planish-onnx"]),
    ("protox", &["planish-onnx"]),
    ("cranelift", &["planish-clif"]),
    ("clap", &["planish"]),
];

/// Folders whose code may print or exit.
const MAY_PRINT: [&str; 6] = [
    "cli/",
    "codegen/llvm/examples/",
    "codegen/ptxsim/examples/",
    "codegen/runtime/main/",
    "testsuite/",
    "xtask/",
];

/// Text that must not stand in a Rust file, with the reason. Written in halves, so that this file passes.
const FORBIDDEN: [(&str, &str); 5] = [
    (concat!("to", "do!("), "is unfinished"),
    (concat!("unimple", "mented!("), "is unfinished"),
    (concat!("#[ig", "nore"), "a test that does not run: assert what happens today instead"),
    (concat!("db", "g!("), "debugging output"),
    (concat!("allow(dead_", "code)"), "unused code: remove it"),
];

/// Places outside the repository that nothing may refer to.
const OUTSIDE: [&str; 1] = [concat!("../sha", "red")];

const MAX_LINES: usize = 700;

/// Prints every finding; fails when there is one.
pub(crate) fn run() -> Result<()> {
    let findings = findings()?;
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        n => Err(Failure::new(format!("{n} findings"))),
    }
}

/// One line per broken rule.
pub(crate) fn findings() -> Result<Vec<String>> {
    let mut found = Vec::new();
    dependencies(&mut found)?;
    let files = repository_files()?;
    for path in &files {
        if let Ok(text) = std::fs::read_to_string(root().join(path)) {
            source_file(path, &text, &mut found);
        }
    }
    passes(&files, &mut found);
    snapshots(&files, &mut found);
    Ok(found)
}

/// Tracked files and those that git would add, relative to the root; all files where there is no git.
fn repository_files() -> Result<Vec<String>> {
    let root = root();
    if root.join(".git").exists() {
        let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
        let text = output(std::process::Command::new("git").args(list).current_dir(&root))?;
        let mut files: Vec<String> =
            text.lines().map(str::to_owned).filter(|path| root.join(path).exists()).collect();
        files.sort();
        files.dedup();
        return Ok(files);
    }
    let relative = |path: PathBuf| path.strip_prefix(&root).map(|path| path.display().to_string()).ok();
    Ok(files_below(&root).into_iter().filter_map(relative).collect())
}

fn dependencies(found: &mut Vec<String>) -> Result<()> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let edges: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = edges.get(name) else {
            found.push(format!("{name}: a crate that ARCHITECTURE.md and tidy do not know"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let normal = dependency["kind"].is_null();
            if edges.contains_key(to) {
                let test = !normal && TEST_EDGES.contains(&(name, to));
                if !allowed.contains(&"*") && !allowed.contains(&to) && !test {
                    found.push(format!("{name} -> {to}: this edge is not allowed"));
                }
                continue;
            }
            if NO_CRATES.contains(&name) && normal {
                found
                    .push(format!("{name} -> {to}: this crate is linked into programs and may use no other"));
            }
            for (start, users) in ONLY_IN {
                if to.starts_with(start) && normal && !users.contains(&name) && name != "planish-testsuite" {
                    found.push(format!("{name} -> {to}: only {} may use it", users.join(", ")));
                }
            }
            if name == "planish-ir" && normal && (to == "serde" || to.starts_with("serde_")) {
                found.push(format!("{name} -> {to}: no serde in the core types"));
            }
        }
    }
    Ok(())
}

fn source_file(path: &str, text: &str, found: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        if let Some(place) = OUTSIDE.iter().find(|place| line.contains(**place)) {
            found.push(format!("{path}:{}: refers to {place}, outside the repository", number + 1));
        }
    }
    if path.ends_with("Cargo.toml") && path != "Cargo.toml" && !text.contains("[lints]\nworkspace = true") {
        found.push(format!("{path}: lacks [lints] workspace = true"));
    }
    if !path.ends_with(".rs") {
        return;
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        found.push(format!("{path}: {lines} lines; split files over {MAX_LINES}"));
    }
    for (number, line) in text.lines().enumerate() {
        for (pattern, why) in FORBIDDEN {
            if line.contains(pattern) {
                found.push(format!("{path}:{}: {pattern} {why}", number + 1));
            }
        }
        let prints = line.contains("clippy::print_std") || line.contains("process::exit(");
        if prints && !MAY_PRINT.iter().any(|folder| path.starts_with(folder)) {
            found.push(format!("{path}:{}: only {} may print or exit", number + 1, MAY_PRINT.join(", ")));
        }
    }
}

/// Every pass has all sections in its documentation and at least three text tests.
fn passes(files: &[String], found: &mut Vec<String>) {
    const SECTIONS: [&str; 3] = ["# Preserves", "# Declines", "# Example"];
    for path in files.iter().filter(|path| path.starts_with("passes/src/") && path.ends_with(".rs")) {
        let Ok(text) = std::fs::read_to_string(root().join(path)) else { continue };
        let stem = Path::new(path)
            .file_stem()
            .map(|stem| stem.to_string_lossy().replace('_', "-"))
            .unwrap_or_default();
        if !text.contains(&format!("\"{stem}\"")) || !text.contains("Pass for ") {
            continue;
        }
        for section in SECTIONS {
            if !text.lines().any(|line| line.trim_start_matches(['/', '!', ' ']) == section) {
                found.push(format!("{path}: the pass lacks the section {section}"));
            }
        }
        let folder = format!("testsuite/passes/{stem}/");
        let tests = files.iter().filter(|file| file.starts_with(&folder) && file.ends_with(".pir")).count();
        if tests < 3 {
            found.push(format!("{path}: {tests} text tests in {folder}; a pass has at least 3"));
        }
    }
}

/// A snapshot belongs to a text test beside it, or to a test that the file it names still holds.
fn snapshots(files: &[String], found: &mut Vec<String>) {
    for path in files.iter().filter(|path| path.ends_with(".snap")) {
        let beside = path.replace(".snap", ".pir");
        if files.binary_search(&beside).is_ok() {
            continue;
        }
        let text = std::fs::read_to_string(root().join(path)).unwrap_or_default();
        let source = text.lines().find_map(|line| line.strip_prefix("source: ")).unwrap_or_default();
        let name =
            Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let name = name.rsplit("__").next().unwrap_or_default();
        let name = name.split('@').next().unwrap_or_default();
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
        let used = std::fs::read_to_string(root().join(source))
            .is_ok_and(|code| code.contains(name) || code.contains(stem));
        if !used {
            found.push(format!("{path}: no test uses this snapshot"));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn repository_is_tidy() {
        let findings = super::findings().map_err(|failure| failure.message);
        assert_eq!(findings, Ok(Vec::new()));
    }
}
