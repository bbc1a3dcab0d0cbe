//! `--lock` and `--tune`: costs of kernels that were measured on a machine, in a file.

use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::pipeline::Plan;
use crate::tune;
use crate::ui::Ui;
use planish_passes::cost::KernelCost;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LockArgs {
    /// Choose kernels by the costs in this file, which --tune measured, instead of those that come with the tool
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// First measure costs on this machine for so long, and write them to the file of --lock
    #[arg(long, value_name = "30s", requires = "lock", value_parser = crate::units::duration)]
    pub tune: Option<Duration>,
}

/// What the file holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of the form.
    version: u32,
    /// The processor that was measured.
    #[serde(default)]
    cpu: String,
    /// Kernels that skip zeros.
    #[serde(default, rename = "kernel")]
    kernels: Vec<Entry>,
}

/// Time of one kernel as a part of the time of the dense one: `fixed + weight * share of weights kept`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// f32 lanes of the vectors.
    lanes: u32,
    /// Type of the weights.
    dtype: String,
    /// Inputs x outputs.
    block: String,
    /// From so many rows on.
    rows: u64,
    weight: f64,
    fixed: f64,
}

impl Entry {
    fn of(c: &KernelCost) -> Entry {
        let thousandths = |x: f64| (x * 1e3).round() / 1e3;
        Entry {
            lanes: c.lanes,
            dtype: if c.bytes { "i8" } else { "f32" }.into(),
            block: format!("{}x{}", c.block[0], c.block[1]),
            rows: c.rows,
            weight: thousandths(c.weight),
            fixed: thousandths(c.fixed),
        }
    }
    fn cost(&self) -> Option<KernelCost> {
        let (k, n) = self.block.split_once('x')?;
        let bytes = match self.dtype.as_str() {
            "f32" => false,
            "i8" => true,
            _ => return None,
        };
        let part = |x: f64| x.is_finite() && (0.0..=1e6).contains(&x);
        let block = [k.parse().ok()?, n.parse().ok()?];
        (self.lanes > 0 && self.rows > 0 && part(self.weight) && part(self.fixed) && !block.contains(&0))
            .then_some(KernelCost {
                lanes: self.lanes,
                bytes,
                block,
                rows: self.rows,
                weight: self.weight,
                fixed: self.fixed,
            })
    }
}

impl Lock {
    /// A file that holds these costs.
    fn new(costs: &[KernelCost]) -> Lock {
        Lock { version: 1, cpu: processor(), kernels: costs.iter().map(Entry::of).collect() }
    }
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Lock> {
        let text = std::fs::read_to_string(path).map_err(|e| Failure::file(path, e))?;
        let bad = |why: String| Failure::new("lock-malformed", format!("{}: {why}", path.display()));
        let lock: Lock = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if lock.version != 1 {
            return Err(bad(format!("version {} is not known", lock.version)));
        }
        if let Some(e) = lock.kernels.iter().find(|e| e.cost().is_none()) {
            return Err(bad(format!("no kernel has these costs: {} {} {} lanes", e.dtype, e.block, e.lanes)));
        }
        Ok(lock)
    }
    /// The costs.
    pub fn costs(&self) -> Vec<KernelCost> {
        self.kernels.iter().filter_map(Entry::cost).collect()
    }
    /// The file as text.
    fn text(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Failure::new("internal-recipe", e.to_string()))
    }
    /// A hash of all costs. It does not depend on how the file is written.
    pub fn hash(&self) -> String {
        let mut h = Sha256::new();
        for e in &self.kernels {
            h.update(format!("{} {} {} {} {} {}\n", e.lanes, e.dtype, e.block, e.rows, e.weight, e.fixed));
        }
        h.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// The name of the processor, for people.
pub fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    name.map_or(String::new(), |(_, n)| n.trim().to_owned())
}

/// Tells the passes of `plan` what processors with vectors of so many lanes cost: by the file, which is measured first where
/// the options ask for it, or by the table of the tool.
pub fn settle(args: &LockArgs, plan: &mut Plan, lanes: &[u16], writer: &Writer, ui: &Ui) -> Result<()> {
    let Some(path) = &args.lock else {
        if !plan.recipe.lock.is_empty() {
            let text = "the recipe was made with measured costs: name their file with --lock, or measure with --tune";
            return Err(Failure::new("lock-missing", text));
        }
        plan.aim(lanes, None);
        return Ok(());
    };
    let Some(time) = args.tune else {
        plan.aim(lanes, Some(&Lock::read(path)?));
        return Ok(());
    };
    writer.check(path)?;
    let mut costs = tune::measure(time, ui)?;
    // What there was no time for stays as it was measured before on such a processor.
    let before = path.exists().then(|| Lock::read(path)).transpose()?;
    for old in before.filter(|l| l.cpu == processor()).map(|l| l.costs()).unwrap_or_default() {
        let key = |c: &KernelCost| (c.lanes, c.bytes, c.block, c.rows);
        if costs.iter().all(|c| key(c) != key(&old)) {
            costs.push(old);
        }
    }
    costs.sort_by_key(|c| (c.bytes, c.lanes, c.block, c.rows));
    let lock = Lock::new(&costs);
    writer.write(path, lock.text()?.as_bytes())?;
    plan.aim(lanes, Some(&lock));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_reads_what_it_wrote_and_its_hash_is_that_of_its_costs()
    -> std::result::Result<(), Box<dyn std::error::Error>> {
        let cost =
            KernelCost { lanes: 16, bytes: false, block: [1, 16], rows: 64, weight: 1.0625, fixed: 0.0125 };
        let lock = Lock::new(&[cost, KernelCost { bytes: true, block: [4, 16], ..cost }]);
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("l.toml");
        std::fs::write(&path, lock.text().map_err(|f| f.message())?)?;
        let read = Lock::read(&path).map_err(|f| f.message())?;
        assert_eq!(read, lock);
        assert_eq!(read.hash(), lock.hash());
        assert_eq!(read.costs()[0].weight, 1.063);
        let spaced = format!("# measured\n{}", lock.text().map_err(|f| f.message())?);
        std::fs::write(&path, spaced)?;
        assert_eq!(Lock::read(&path).map(|l| l.hash()).ok(), Some(lock.hash()));
        let other = Lock::new(&[KernelCost { weight: 2.0, ..cost }]);
        assert_ne!(other.hash(), lock.hash());
        let good = "version = 1\n[[kernel]]\nlanes = 8\ndtype = \"f32\"\nblock = \"1x1\"\nrows = 16\nweight = 1\nfixed = 0.1\n";
        std::fs::write(&path, good)?;
        assert_eq!(Lock::read(&path).map(|l| l.costs().len()).ok(), Some(1));
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("f32", "f64"),
            ("1x1", "1"),
            ("weight = 1", "weight = nan"),
            ("lanes = 8", "lanes = 0"),
            ("rows", "columns"),
        ] {
            std::fs::write(&path, good.replace(from, to))?;
            assert_eq!(Lock::read(&path).err().map(|f| f.diags[0].id), Some("lock-malformed"), "{to}");
        }
        Ok(())
    }
}
