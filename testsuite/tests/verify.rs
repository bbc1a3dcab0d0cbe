//! `verify/*.pir`: graphs that must be rejected, with `; error: ID words` on the line to blame.

use planish_ir::{Diag, Loc, text::parse, verify::verify};
use planish_testsuite::text::{TextTest, folder, load};

/// All findings of parsing, or else of verifying.
fn findings(text: &str) -> Vec<Diag> {
    match parse(text) {
        Ok(graph) => verify(&graph),
        Err(diag) => vec![diag],
    }
}

/// The lines (from 1) that a location blames; empty when it has no place in the text.
fn lines(loc: &Loc, text: &str) -> Vec<usize> {
    let named = |name: &str| {
        let mark = format!("@\"{name}\"");
        text.lines().enumerate().filter(|(_, line)| line.contains(&mark)).map(|(i, _)| i + 1).collect()
    };
    match loc {
        Loc::Text { start, .. } => {
            vec![text.get(..*start).map_or(0, |before| before.matches('\n').count() + 1)]
        }
        Loc::Name(name) | Loc::Onnx { node: name, .. } => named(name),
        Loc::Fused(parts) => parts.iter().flat_map(|part| lines(part, text)).collect(),
        Loc::None => Vec::new(),
    }
}

fn check(test: &TextTest) -> Result<(), String> {
    if test.errors.is_empty() {
        return Err("no line has `; error:`".into());
    }
    let found = findings(&test.text);
    let shown = found.iter().map(Diag::to_string).collect::<Vec<_>>().join("\n  ");
    for want in &test.errors {
        let hit = found.iter().any(|diag| {
            let at = lines(&diag.at, &test.text);
            diag.id == want.id && diag.message.contains(&want.text) && at.contains(&want.line)
        });
        if !hit {
            return Err(format!("line {}: no {} {}; found:\n  {shown}", want.line, want.id, want.text));
        }
    }
    if found.len() != test.errors.len() {
        return Err(format!("{} findings, {} expected:\n  {shown}", found.len(), test.errors.len()));
    }
    Ok(())
}

#[test]
fn every_bad_graph_is_blamed_where_it_stands() {
    let tests = load(&folder().join("verify")).unwrap_or_else(|why| panic!("{why}"));
    let failures: Vec<String> = tests
        .iter()
        .filter_map(|test| check(test).err().map(|why| format!("{}: {why}", test.path.display())))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
