//! Text tests: one file holds what to do, the graph, and what must come of it.
//!
//! Lines of the head, before the graph (`;` starts a comment of the text format, so the whole file parses):
//!
//! ```text
//! ; run: fold-constants,prune-magnitude{sparsity=0.5}
//! ; expect: metric weights-zeroed == 2
//! ; expect: remark prune-skipped            some remark has this id
//! ; expect: remark prune-skipped bias       and its text contains the rest of the line
//! ; expect: no remark prune-skipped
//! ; expect: nodes <= 3                      constants not counted
//! ; expect: ops matmul == 1                 nodes of one operation
//! ```
//!
//! In a test of the verifier `; error: ID` stands at the end of the line to blame, and further words are part of the
//! message.

use std::path::{Path, PathBuf};

/// How two numbers must compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compare {
    /// `==`
    Equal,
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
}

impl Compare {
    fn parse(word: &str) -> Option<Compare> {
        match word {
            "==" => Some(Compare::Equal),
            "<=" => Some(Compare::AtMost),
            ">=" => Some(Compare::AtLeast),
            _ => None,
        }
    }
    /// Whether `a` compares to `b` in this way; equality is up to rounding of the written number.
    pub fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Compare::Equal => (a - b).abs() <= 1e-6 * b.abs().max(1.0),
            Compare::AtMost => a <= b,
            Compare::AtLeast => a >= b,
        }
    }
}

/// One expectation of the head.
#[derive(Clone, PartialEq, Debug)]
pub enum Expect {
    /// A metric of the passes.
    Metric(String, Compare, f64),
    /// A remark with this id whose text contains the words.
    Remark(String, String),
    /// No remark with this id.
    NoRemark(String),
    /// The number of nodes.
    Nodes(Compare, f64),
    /// The number of nodes of one operation.
    Ops(String, Compare, f64),
}

/// A diagnostic that must point at a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpectError {
    /// Line number from 1.
    pub line: usize,
    /// Id of the diagnostic.
    pub id: String,
    /// Text that its message contains.
    pub text: String,
}

/// A text test.
#[derive(Clone, PartialEq, Debug)]
pub struct TextTest {
    /// The file.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
    /// The passes to run, in the grammar of `--passes`; empty: none.
    pub run: String,
    /// What must hold afterwards.
    pub expect: Vec<Expect>,
    /// What must be found wrong.
    pub errors: Vec<ExpectError>,
}

fn expectation(text: &str) -> Option<Expect> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str| word.parse::<f64>().ok();
    match words.as_slice() {
        ["metric", name, op, value] => {
            Some(Expect::Metric((*name).to_owned(), Compare::parse(op)?, number(value)?))
        }
        ["remark", id, rest @ ..] => Some(Expect::Remark((*id).to_owned(), rest.join(" "))),
        ["no", "remark", id] => Some(Expect::NoRemark((*id).to_owned())),
        ["nodes", op, value] => Some(Expect::Nodes(Compare::parse(op)?, number(value)?)),
        ["ops", name, op, value] => {
            Some(Expect::Ops((*name).to_owned(), Compare::parse(op)?, number(value)?))
        }
        _ => None,
    }
}

impl TextTest {
    /// Reads the head of a test; an error names the line that cannot be understood.
    pub fn parse(path: &Path, text: &str) -> Result<TextTest, String> {
        let mut test = TextTest {
            path: path.to_owned(),
            text: text.to_owned(),
            run: String::new(),
            expect: Vec::new(),
            errors: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let bad = || format!("{}:{}: cannot be understood: {line}", path.display(), index + 1);
            if let Some(passes) = line.strip_prefix("; run:") {
                if !test.run.is_empty() {
                    test.run.push(',');
                }
                test.run.push_str(passes.trim());
            } else if let Some(what) = line.strip_prefix("; expect:") {
                test.expect.push(expectation(what).ok_or_else(bad)?);
            } else if let Some((_, what)) = line.split_once("; error:") {
                let (id, text) = what.trim().split_once(' ').unwrap_or((what.trim(), ""));
                if id.is_empty() {
                    return Err(bad());
                }
                let (id, text) = (id.to_owned(), text.trim().to_owned());
                test.errors.push(ExpectError { line: index + 1, id, text });
            }
        }
        Ok(test)
    }
}

/// The folder of this crate, which holds the test files.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` with this extension, sorted. None is an error: a suite that finds no test passes nothing.
pub fn discover(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in folder.read_dir()? {
            let path = entry?.path();
            if path.is_dir() {
                walk(&path, extension, found)?;
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(folder, extension, &mut found).map_err(|error| format!("{}: {error}", folder.display()))?;
    if found.is_empty() {
        return Err(format!("no *.{extension} below {}", folder.display()));
    }
    found.sort();
    Ok(found)
}

/// The tests below a folder, read.
pub fn load(folder: &Path) -> Result<Vec<TextTest>, String> {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        TextTest::parse(&path, &text)
    };
    discover(folder, "pir")?.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let text = "; run: a{k=1}\n; run: b\n; expect: metric zeroed == 2\n; expect: remark x-y some text\n\
                    ; expect: no remark z\n; expect: nodes <= 3\ngraph {\n  v1 = add v0, v9   ; error: undefined-value v9\n}\n";
        let test = TextTest::parse(Path::new("t.pir"), text);
        let test = test.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(test.run, "a{k=1},b");
        let want = [
            Expect::Metric("zeroed".into(), Compare::Equal, 2.0),
            Expect::Remark("x-y".into(), "some text".into()),
            Expect::NoRemark("z".into()),
            Expect::Nodes(Compare::AtMost, 3.0),
        ];
        assert_eq!(test.expect, want);
        assert_eq!(test.errors, [ExpectError { line: 8, id: "undefined-value".into(), text: "v9".into() }]);
    }

    #[test]
    fn an_unknown_expectation_is_an_error() {
        assert!(TextTest::parse(Path::new("t.pir"), "; expect: miracles\n").is_err());
    }

    #[test]
    fn finding_nothing_is_an_error() {
        assert!(discover(&folder().join("src"), "pir").is_err());
        assert!(discover(&folder().join("absent"), "pir").is_err());
        assert!(discover(&folder().join("src"), "rs").is_ok());
    }
}
