//! Manifests (`planish.toml`): models with their shapes, data, recipes and budgets, for `check`, `compile` and `bench`.
//!
//! Every key of a model means what the option of that name means; paths are relative to the folder of the manifest. A `.toml`
//! file in place of a model is a manifest.

use crate::bench::judge::{Limit, Outcome};
use crate::failure::{Failure, Result};
use crate::report::{self, verdicts};
use crate::units;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A manifest.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Version of the form: 1.
    pub version: u32,
    /// The models.
    #[serde(rename = "model")]
    pub models: Vec<Entry>,
    /// The folder that paths are relative to.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// A model.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Entry {
    /// What it is called in tables, reports and file names; that of the file if it is not given.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// As `--set`.
    pub set: Vec<String>,
    /// As `--shape`.
    pub shape: Vec<String>,
    /// As `--data` of `compile`.
    pub data: Option<PathBuf>,
    /// As `--inputs` of `bench`.
    pub inputs: Option<PathBuf>,
    /// As `--recipe`.
    pub recipe: Option<PathBuf>,
    /// As `--passes`.
    pub passes: Option<String>,
    /// As `-O`.
    pub level: Option<u8>,
    /// As `--emit`.
    pub emit: Vec<String>,
    /// As `--cpu`.
    pub cpu: Vec<String>,
    /// As `--target`.
    pub target: Option<String>,
    /// What `bench` measures it against: `dense` (the same model without recipe and passes), `ort` (ONNX Runtime), or the path
    /// of a model or program.
    pub base: Vec<String>,
    /// As `--threads` of `bench`.
    pub threads: Vec<u32>,
    /// As `--duration` of `bench`.
    pub duration: Option<String>,
    /// What it is held to.
    pub budget: Budget,
}

/// What a model is held to, each with its unit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Budget {
    /// How much slower than each base it may be: `3%`.
    pub max_regression: Option<String>,
    /// How many times as fast as each base it must be: `1.5x`.
    pub min_speedup: Option<String>,
    /// The most bytes of the artifact (`20M`), or how much larger than the model file it may be (`5%`).
    pub max_size: Option<String>,
    /// The most points of accuracy that it may lose: `0.5pt`.
    pub max_accuracy_drop: Option<String>,
}

/// A limit of the size of an artifact.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Size {
    /// In bytes.
    Bytes(u64),
    /// Growth over the model file, as a part.
    Growth(f64),
}

fn malformed(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new("manifest-malformed", format!("{}: {why}", path.display()))
}

/// Whether a path in place of a model is a manifest.
pub fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "toml")
}

impl Manifest {
    /// Reads a manifest and checks what can be checked without the models.
    pub fn read(path: &Path) -> Result<Manifest> {
        let text = std::fs::read_to_string(path).map_err(|e| Failure::file(path, e))?;
        let mut manifest: Manifest = toml::from_str(&text).map_err(|e| malformed(path, e))?;
        if manifest.version != 1 {
            return Err(malformed(path, format!("version {} is not known", manifest.version)));
        }
        if manifest.models.is_empty() {
            return Err(malformed(path, "there is no [[model]]"));
        }
        manifest.folder = crate::files::parent(path).to_owned();
        let mut names = BTreeSet::new();
        for entry in &mut manifest.models {
            if entry.path.as_os_str().is_empty() {
                return Err(malformed(path, "a [[model]] has no path"));
            }
            if entry.name.is_empty() {
                entry.name =
                    entry.path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
            }
            if crate::percent::encode(&entry.name) != entry.name || entry.name.is_empty() {
                let text = format!("the name {:?} is no file name", entry.name);
                return Err(malformed(path, text));
            }
            if !names.insert(entry.name.clone()) {
                return Err(malformed(path, format!("two models are called {:?}", entry.name)));
            }
            let known = entry.check();
            known.map_err(|why| malformed(path, format!("{}: {why}", entry.name)))?;
        }
        Ok(manifest)
    }

    /// A path of the manifest as seen from here.
    pub fn at(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// The arguments of `compile` for a model, but for the output.
    pub fn arguments(&self, entry: &Entry) -> Vec<String> {
        let mut out =
            vec![self.at(&entry.path).display().to_string(), "--name".into(), identifier(&entry.name)];
        let mut add = |option: &str, value: String| out.extend([option.to_owned(), value]);
        entry.set.iter().for_each(|v| add("--set", v.clone()));
        entry.shape.iter().for_each(|v| add("--shape", v.clone()));
        if let Some(data) = &entry.data {
            add("--data", self.at(data).display().to_string());
        }
        if let Some(recipe) = &entry.recipe {
            add("--recipe", self.at(recipe).display().to_string());
        }
        if let Some(passes) = &entry.passes {
            add("--passes", passes.clone());
        }
        if let Some(level) = entry.level {
            out.push(format!("-O{level}"));
        }
        out
    }
}

/// A name as an identifier, as symbols have them.
fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

impl Entry {
    /// Reads everything that has a unit.
    fn check(&self) -> std::result::Result<(), String> {
        self.time()?;
        self.limits()?;
        self.size()?;
        self.accuracy()?;
        let speed = self.budget.max_regression.is_some() || self.budget.min_speedup.is_some();
        if speed && self.base.is_empty() {
            return Err("a budget on speed needs a base".into());
        }
        if self.threads.contains(&0) {
            return Err("threads are at least 1".into());
        }
        Ok(())
    }
    /// How long `bench` measures it.
    pub fn time(&self) -> std::result::Result<Option<Duration>, String> {
        self.duration.as_deref().map(units::duration).transpose()
    }
    /// The limits on speed.
    pub fn limits(&self) -> std::result::Result<Vec<Limit>, String> {
        let most = self.budget.max_regression.as_deref().map(units::percent).transpose()?;
        let least = self.budget.min_speedup.as_deref().map(units::factor).transpose()?;
        Ok(most.map(Limit::Regression).into_iter().chain(least.map(Limit::Speedup)).collect())
    }
    /// The limit on size.
    pub fn size(&self) -> std::result::Result<Option<Size>, String> {
        let Some(text) = &self.budget.max_size else { return Ok(None) };
        if text.ends_with('%') {
            return units::percent(text).map(|p| Some(Size::Growth(p)));
        }
        if text.ends_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("max-size {text:?} needs a unit: 500K, 20M, or 5%"));
        }
        units::bytes(text).map(|n| Some(Size::Bytes(n)))
    }
    /// The limit on lost accuracy, in points.
    pub fn accuracy(&self) -> std::result::Result<Option<f64>, String> {
        self.budget.max_accuracy_drop.as_deref().map(units::points).transpose()
    }
    /// Judges the budgets that need no measurement of time.
    pub fn judge(&self, model: &report::Model) -> std::result::Result<Vec<report::Budget>, String> {
        let mut out = Vec::new();
        let mut add = |budget: &str, limit: String, found: String, outcome: Outcome| {
            let (budget, subject) = (budget.to_owned(), self.name.clone());
            out.push(report::Budget { budget, subject, limit, found, outcome });
        };
        let when = |bad: bool| if bad { Outcome::Violated } else { Outcome::Kept };
        match (self.size()?, model.sizes.artifact, model.sizes.model) {
            (Some(Size::Bytes(most)), Some(n), _) => {
                add("max-size", units::show_bytes(most), units::show_bytes(n), when(n > most));
            }
            (Some(Size::Growth(most)), Some(n), Some(base)) => {
                let change = n as f64 / base.max(1) as f64 - 1.0;
                add("max-size", verdicts::percent(most), verdicts::percent(change), when(change > most));
            }
            (Some(_), ..) => {
                let text = self.budget.max_size.clone().unwrap_or_default();
                add("max-size", text, String::new(), Outcome::Undecided);
            }
            (None, ..) => {}
        }
        if let Some(most) = self.accuracy()? {
            match &model.accuracy {
                Some(a) => {
                    let lost = 100.0 * (a.before - a.after);
                    let (limit, found) = (verdicts::points(most), verdicts::points(lost));
                    add("max-accuracy-drop", limit, found, when(lost > most + 1e-9));
                }
                // Passes that are exact lose nothing.
                None if model.lossy.is_empty() => {
                    let (limit, found) = (verdicts::points(most), verdicts::points(0.0));
                    add("max-accuracy-drop", limit, found, Outcome::Kept);
                }
                None => add("max-accuracy-drop", verdicts::points(most), String::new(), Outcome::Undecided),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Manifest, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = dir.path().join("planish.toml");
        std::fs::write(&path, text).map_err(|e| e.to_string())?;
        Manifest::read(&path).map_err(|f| f.message())
    }

    #[test]
    fn keys_become_the_options_of_their_names() -> std::result::Result<(), String> {
        let m = read(
            "version = 1\n[[model]]\npath = 'a/net-1.onnx'\nset = ['batch=1']\nlevel = 3\npasses = 'quantize'\n\
             base = ['ort']\n[model.budget]\nmin-speedup = '1.5x'\nmax-size = '5%'\n",
        )?;
        let args = m.arguments(&m.models[0]);
        assert!(args[0].ends_with("a/net-1.onnx") && args[0].starts_with('/'), "{args:?}");
        assert_eq!(args[1..], ["--name", "net_1", "--set", "batch=1", "--passes", "quantize", "-O3"]);
        assert_eq!(m.models[0].limits(), Ok(vec![Limit::Speedup(1.5)]));
        assert_eq!(m.models[0].size(), Ok(Some(Size::Growth(0.05))));
        Ok(())
    }

    #[test]
    fn mistakes_are_named() {
        let one = "version = 1\n[[model]]\npath = 'm.onnx'\n";
        for (text, word) in [
            ("version = 2\n[[model]]\npath = 'm'\n", "version 2"),
            ("version = 1\nmodel = []\n", "no [[model]]"),
            ("version = 1\n[[model]]\nname = 'x'\n", "no path"),
            ("version = 1\n[[model]]\npath = 'm'\nspeed = 1\n", "speed"),
            ("version = 1\n[[model]]\npath = 'm'\nname = 'a/b'\n", "no file name"),
            (&format!("{one}[[model]]\npath = 'd/m.onnx'\n"), "two models"),
            (&format!("{one}base = ['ort']\nbudget.max-regression = '3'\n"), "percentage"),
            (&format!("{one}budget.max-regression = '3%'\n"), "needs a base"),
            (&format!("{one}budget.max-size = '3'\n"), "needs a unit"),
            (&format!("{one}budget.max-accuracy-drop = '1%'\n"), "points"),
            (&format!("{one}duration = '5'\n"), "unit"),
        ] {
            let said = read(text).err().unwrap_or_default();
            assert!(said.contains(word) && said.contains("manifest-malformed"), "{text}: {said}");
        }
    }

    #[test]
    fn sizes_and_accuracy_are_judged() {
        let model = crate::report::examples::model("m");
        let of = |size: &str, drop: &str| {
            let budget = Budget {
                max_size: Some(size.into()),
                max_accuracy_drop: Some(drop.into()),
                ..Budget::default()
            };
            let judged = Entry { budget, ..Entry::default() }.judge(&model).unwrap_or_default();
            judged.iter().map(|b| b.outcome).collect::<Vec<_>>()
        };
        assert_eq!(of("1M", "0.5pt"), [Outcome::Kept; 2]);
        assert_eq!(of("500K", "0.4pt"), [Outcome::Violated; 2]);
        assert_eq!(of("-40%", "1pt"), [Outcome::Violated, Outcome::Kept]);
        assert_eq!(of("-20%", "1pt"), [Outcome::Kept; 2]);
    }
}
