//! Interruption: a signal removes what is half-written and ends the process with 130.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody watches for signals, and whether one has come since.
static WATCHED: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicBool = AtomicBool::new(false);

/// While this lives, the first SIGINT only says that the work should be ended; a second one ends the process.
#[derive(Debug)]
pub struct Watch(());

impl Watch {
    /// Begins to watch.
    pub fn new() -> Watch {
        STOPPED.store(false, Ordering::SeqCst);
        WATCHED.store(true, Ordering::SeqCst);
        Watch(())
    }
    /// Whether a signal has come.
    pub fn stopped(&self) -> bool {
        STOPPED.load(Ordering::SeqCst)
    }
}

impl Default for Watch {
    fn default() -> Self {
        Watch::new()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.store(false, Ordering::SeqCst);
    }
}

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
        if WATCHED.load(Ordering::SeqCst) && !STOPPED.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Ok(all) = TEMPORARY.lock() {
            all.iter().for_each(|p| remove(p));
        }
        std::process::exit(i32::from(crate::exit::Exit::Interrupted.code()));
    });
}
