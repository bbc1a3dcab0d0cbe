//! Options of passes: named texts with typed access.

use planish_ir::Diag;
use std::collections::BTreeMap;

/// The declaration of an option.
#[derive(Debug)]
pub struct OptionMeta {
    /// Name.
    pub name: &'static str,
    /// Default, as it would be written.
    pub default: &'static str,
    /// One line.
    pub doc: &'static str,
}

/// The options given to a pass.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    given: BTreeMap<String, String>,
}

impl Options {
    /// Adds an option.
    pub fn set(&mut self, name: &str, value: &str) {
        self.given.insert(name.to_owned(), value.to_owned());
    }
    /// The options that were given, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.given.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
    /// The text of an option: given or default.
    pub fn text<'a>(&'a self, metas: &'a [OptionMeta], name: &str) -> &'a str {
        let default = metas.iter().find(|m| m.name == name).map_or("", |m| m.default);
        self.given.get(name).map_or(default, String::as_str)
    }
    /// An option that is any readable value.
    pub fn get<T: std::str::FromStr>(&self, metas: &[OptionMeta], name: &str) -> Result<T, Diag> {
        let text = self.text(metas, name);
        text.parse().map_err(|_| Diag::error("pass-option", format!("option `{name}` cannot be `{text}`")))
    }
    /// An option that is one of some words: what stands for the word.
    pub fn one_of<T: Copy>(&self, metas: &[OptionMeta], name: &str, words: &[(&str, T)]) -> Result<T, Diag> {
        let text = self.text(metas, name);
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let known = match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        };
        Err(Diag::error("pass-option", format!("{name} cannot be `{text}`, only {known}")))
    }
    /// An option that may be absent: an empty text or `none`.
    pub fn optional<T: std::str::FromStr>(
        &self,
        metas: &[OptionMeta],
        name: &str,
    ) -> Result<Option<T>, Diag> {
        match self.text(metas, name) {
            "" | "none" => Ok(None),
            _ => self.get(metas, name).map(Some),
        }
    }
    /// A list separated by `|`; empty for an empty text.
    pub fn list(&self, metas: &[OptionMeta], name: &str) -> Vec<String> {
        self.text(metas, name).split('|').filter(|t| !t.is_empty()).map(str::to_owned).collect()
    }
    /// An error if an option was given that is not declared.
    pub fn check(&self, pass: &str, metas: &[OptionMeta]) -> Result<(), Diag> {
        for name in self.given.keys() {
            if !metas.iter().any(|m| m.name == name) {
                let known: Vec<&str> = metas.iter().map(|m| m.name).collect();
                let text = if known.is_empty() {
                    "it has none".to_owned()
                } else {
                    format!("it has {}", known.join(", "))
                };
                return Err(Diag::error("pass-option", format!("`{pass}` has no option `{name}`; {text}")));
            }
        }
        Ok(())
    }
}
