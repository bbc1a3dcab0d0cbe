//! Interruption: a signal removes what is half-written and ends the process with 130.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

static TEMPORARY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file or folder that is removed when this is dropped or the process is interrupted.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// Watches over `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Temporary {
        if let Ok(mut all) = TEMPORARY.lock() {
            all.insert(path.clone());
        }
        Temporary(path)
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// Lets go of it without removing it (it has been renamed).
    pub fn keep(mut self) {
        if let Ok(mut all) = TEMPORARY.lock() {
            all.remove(&self.0);
        }
        self.0 = PathBuf::new();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        remove(&self.0);
        if let Ok(mut all) = TEMPORARY.lock() {
            all.remove(&self.0);
        }
    }
}

fn remove(path: &Path) {
    // Nothing can be done about a failure, and the path may never have been made.
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}

/// Installs the handler of SIGINT.
pub fn install() {
    // Without a handler the default action ends the process, which leaves temporary files behind but harms nothing.
    let _ = ctrlc::set_handler(|| {
        if let Ok(all) = TEMPORARY.lock() {
            all.iter().for_each(|p| remove(p));
        }
        std::process::exit(i32::from(crate::exit::Exit::Interrupted.code()));
    });
}
