//! The cache of compiled kernels: objects by the content of what they were made from.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The most bytes that are kept; older entries go first.
const LIMIT: u64 = 512 << 20;

/// A folder with one file per object. An entry holds its own digest, so that damage is noticed.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// A cache in this folder, which is made when something is stored.
    pub fn new(folder: PathBuf) -> Cache {
        Cache { folder }
    }
    /// The folder that is used unless another is named: `planish/kernels` in the user's folder of caches.
    pub fn default_folder() -> Option<PathBuf> {
        let absolute = |v: &str| std::env::var_os(v).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(base.join("planish/kernels"))
    }
    /// As `--cache-dir` says: a folder, `none`, or the default.
    pub fn from_option(option: Option<&Path>) -> Option<Cache> {
        match option {
            Some(p) if p.as_os_str() == "none" => None,
            Some(p) => Some(Cache::new(p.to_owned())),
            None => Cache::default_folder().map(Cache::new),
        }
    }
    /// The key of what these bytes, this version and this code generator make.
    pub fn key(kind: &str, request: &[u8]) -> String {
        let mut h = Sha256::new();
        h.update(kind.as_bytes());
        h.update([0]);
        h.update(env!("CARGO_PKG_VERSION").as_bytes());
        h.update([0]);
        h.update(build_id());
        h.update(request);
        hex(&h.finalize())
    }
    /// The object stored under a key, if it is there and undamaged.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.folder.join(key);
        let bytes = std::fs::read(&path).ok()?;
        let (digest, object) = bytes.split_at_checked(32)?;
        if Sha256::digest(object)[..] != *digest {
            return None;
        }
        // The time of change is the time of last use.
        if let Ok(file) = std::fs::File::options().append(true).open(&path) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(object.to_vec())
    }
    /// Stores an object. A cache that cannot be written is merely of no use.
    pub fn put(&self, key: &str, object: &[u8]) {
        if std::fs::create_dir_all(&self.folder).is_err() {
            return;
        }
        let path = self.folder.join(key);
        let temporary = crate::interrupt::Temporary::new(crate::files::beside(&path));
        let contents = [&Sha256::digest(object)[..], object].concat();
        if std::fs::write(temporary.path(), contents).is_ok()
            && std::fs::rename(temporary.path(), &path).is_ok()
        {
            temporary.keep();
        }
    }
    /// Removes the entries that were used least recently until the limit is kept.
    pub fn trim(&self) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        let mut all: Vec<(SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter_map(|e| {
                let m = e.metadata().ok()?;
                Some((m.modified().ok()?, m.len(), e.path()))
            })
            .collect();
        let mut total: u64 = all.iter().map(|e| e.1).sum();
        all.sort();
        for (_, len, path) in all {
            if total <= LIMIT {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                total -= len;
            }
        }
    }
}

/// What tells builds of the compiler apart: its own size and time of change. A rebuilt compiler makes other objects.
fn build_id() -> Vec<u8> {
    use std::os::unix::fs::MetadataExt;
    let own = std::env::current_exe().and_then(std::fs::metadata);
    own.map_or_else(|_| Vec::new(), |m| format!("{}:{}:{}", m.len(), m.mtime(), m.mtime_nsec()).into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_noticed() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let cache = Cache::new(dir.path().join("deep"));
        let key = Cache::key("llvm", b"request");
        assert_eq!(cache.get(&key), None);
        cache.put(&key, b"object");
        assert_eq!(cache.get(&key), Some(b"object".to_vec()));
        assert_ne!(key, Cache::key("llvm", b"request2"));
        let path = dir.path().join("deep").join(&key);
        let mut bytes = std::fs::read(&path)?;
        *bytes.last_mut().ok_or("empty")? ^= 1;
        std::fs::write(&path, bytes)?;
        assert_eq!(cache.get(&key), None);
        Ok(())
    }
}
