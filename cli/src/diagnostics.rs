//! The documentation of every diagnostic, in `diagnostics.txt`: one line each, `id: text`, sorted.

const TEXT: &str = include_str!("diagnostics.txt");

/// Every id with its documentation, sorted.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    TEXT.lines().filter_map(|l| l.split_once(": "))
}

/// The documentation of an id.
pub fn find(id: &str) -> Option<&'static str> {
    all().find(|(other, _)| *other == id).map(|(_, doc)| doc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    /// Calls whose first string is the id of a diagnostic.
    const MAKERS: [&str; 6] =
        ["Diag::error(", "Diag::warning(", "Diag::remark(", "OnnxError::new(", "Failure::new(", ".error("];

    fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !["target", "testsuite", "xtask"].iter().any(|d| path.ends_with(d)) {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }

    /// The ids that a source file uses.
    fn ids(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        for maker in MAKERS {
            for part in text.split(maker).skip(1) {
                let Some(rest) = part.trim_start().strip_prefix('"') else { continue };
                let Some((id, after)) = rest.split_once('"') else { continue };
                let kebab = !id.is_empty()
                    && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
                if kebab && after.trim_start().starts_with(',') {
                    out.push(id.to_owned());
                }
            }
        }
        out
    }

    #[test]
    fn every_id_is_documented_once_and_sorted() {
        let listed: Vec<&str> = all().map(|(id, _)| id).collect();
        assert!(
            listed.windows(2).all(|w| w[0] < w[1]),
            "not sorted: {:?}",
            listed.windows(2).find(|w| w[0] >= w[1])
        );
        assert_eq!(listed.len(), TEXT.lines().count());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        sources(&root, &mut files);
        assert!(files.len() > 50, "the sources were not found");
        let mut missing: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut seen = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            for id in ids(text.split("#[cfg(test)]").next().unwrap_or("")) {
                seen += 1;
                if find(&id).is_none() {
                    missing.insert(id, file.clone());
                }
            }
        }
        assert!(seen > 100, "the ids were not found");
        assert!(missing.is_empty(), "not in cli/src/diagnostics.txt: {missing:#?}");
    }
}
