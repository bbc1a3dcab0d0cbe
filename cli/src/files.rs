//! Writing files: atomically, and never over something that is not ours without being told to.
//!
//! A file that Planish writes carries an extended attribute with its size and time of change. A file whose attribute
//! is right was written by Planish and is unchanged since, so it may be replaced. On file systems without extended
//! attributes every existing file needs `--force`.

use crate::failure::{Failure, Result};
use crate::interrupt::Temporary;
use std::fs::{self, File, Metadata};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const ATTRIBUTE: &str = "user.planish";

/// What may be written.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    force: bool,
    /// Device and inode of every file that is read.
    inputs: Vec<(u64, u64)>,
}

impl Writer {
    /// With `force`, existing files of others and even inputs are replaced.
    pub fn new(force: bool) -> Writer {
        Writer { force, inputs: Vec::new() }
    }
    /// Names a file that is read, so that it is not overwritten by accident. Folders are entered.
    pub fn protect(&mut self, path: &Path) {
        let Ok(meta) = fs::metadata(path) else { return };
        if meta.is_dir() {
            let Ok(entries) = fs::read_dir(path) else { return };
            for entry in entries.flatten() {
                if let Ok(meta) = entry.metadata() {
                    self.inputs.push((meta.dev(), meta.ino()));
                }
            }
        }
        self.inputs.push((meta.dev(), meta.ino()));
    }
    /// Whether `path` may be written; says why not. Call it before the work, so that a refusal is quick.
    pub fn check(&self, path: &Path) -> Result<()> {
        if path.as_os_str() == "-" || path.as_os_str().is_empty() {
            return Err(Failure::usage("an output must be a file"));
        }
        let Ok(link) = fs::symlink_metadata(path) else { return Ok(()) };
        if link.is_dir() {
            return Err(Failure::new("output-exists", format!("{} is a folder", path.display())));
        }
        if !link.is_file() && !link.is_symlink() {
            // A device or a pipe would be replaced by a file, which nobody can want.
            return Err(Failure::new("output-exists", format!("{} is no regular file", path.display())));
        }
        if self.force {
            return Ok(());
        }
        if let Ok(meta) = fs::metadata(path)
            && self.inputs.contains(&(meta.dev(), meta.ino()))
        {
            let text = format!("{} is an input; --force overwrites it", path.display());
            return Err(Failure::new("output-exists", text));
        }
        if !link.is_file() || !ours(path, &link) {
            let text =
                format!("{} exists and was not written by planish; --force overwrites it", path.display());
            return Err(Failure::new("output-exists", text));
        }
        Ok(())
    }
    /// Writes a file in one step: other processes see the old contents or the new, never a part.
    pub fn write(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.write_with(path, 0o666, |f| f.write_all(contents))
    }
    /// As [`Writer::write`], executable.
    pub fn write_executable(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.write_with(path, 0o777, |f| f.write_all(contents))
    }
    /// As [`Writer::write`], with contents made by a function and the mode given before the umask.
    pub fn write_with(
        &self,
        path: &Path,
        mode: u32,
        fill: impl FnOnce(&mut File) -> std::io::Result<()>,
    ) -> Result<()> {
        self.write_checked(path, mode, fill, |_| Ok(()))
    }
    /// As [`Writer::write_with`]; the finished file is shown to `examine` under a temporary name, and only put into place if
    /// that is satisfied.
    pub fn write_checked(
        &self,
        path: &Path,
        mode: u32,
        fill: impl FnOnce(&mut File) -> std::io::Result<()>,
        examine: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        self.check(path)?;
        let folder = parent(path);
        fs::create_dir_all(folder).map_err(|e| Failure::file(folder, e))?;
        let temporary = Temporary::new(beside(path));
        let written = (|| {
            let mut file = File::options().write(true).create_new(true).mode(mode).open(temporary.path())?;
            fill(&mut file)?;
            file.flush()?;
            mark(&file);
            Ok::<(), std::io::Error>(())
        })();
        written.map_err(|e| Failure::file(path, e))?;
        examine(temporary.path())?;
        // A second look: the target may have appeared while the contents were made.
        self.check(path)?;
        fs::rename(temporary.path(), path).map_err(|e| Failure::file(path, e))?;
        temporary.keep();
        Ok(())
    }
    /// Moves a finished file or folder that was made elsewhere on the same file system into place.
    pub fn adopt(&self, made: Temporary, path: &Path) -> Result<()> {
        self.check(path)?;
        if let Ok(file) = File::open(made.path()) {
            mark(&file);
        }
        fs::rename(made.path(), path).map_err(|e| Failure::file(path, e))?;
        made.keep();
        Ok(())
    }
}

/// The folder of a path, `.` where it names none.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name for a temporary file in the folder of `path`, unique in this process and among processes.
pub fn beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(".planish-{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    parent(path).join(name)
}

fn stamp(meta: &Metadata) -> String {
    format!("1:{}:{}.{:09}", meta.len(), meta.mtime(), meta.mtime_nsec())
}

fn mark(file: &File) {
    // Best effort: without the attribute the file is merely not recognised later.
    if let Ok(meta) = file.metadata() {
        let flags = rustix::fs::XattrFlags::empty();
        let _ = rustix::fs::fsetxattr(file, ATTRIBUTE, stamp(&meta).as_bytes(), flags);
    }
}

fn ours(path: &Path, meta: &Metadata) -> bool {
    let mut buffer = [0u8; 128];
    match rustix::fs::getxattr(path, ATTRIBUTE, &mut buffer[..]) {
        Ok(n) => buffer.get(..n) == Some(stamp(meta).as_bytes()),
        Err(_) => false,
    }
}

/// Whether the file may be executed by somebody.
pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> tempfile::TempDir {
        // The folder of the build is on a disk file system, which has extended attributes.
        tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn replaces_its_own_files_only() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = scratch();
        let path = dir.path().join("deep/er/out.npy");
        let writer = Writer::new(false);
        writer.write(&path, b"one").map_err(|f| f.message())?;
        writer.write(&path, b"two").map_err(|f| f.message())?;
        assert_eq!(fs::read(&path)?, b"two");
        // Somebody edits it: it is theirs now.
        fs::write(&path, b"edited")?;
        let refused = writer.write(&path, b"three").err().map(|f| f.diags[0].id);
        assert_eq!(refused, Some("output-exists"));
        assert_eq!(fs::read(&path)?, b"edited");
        Writer::new(true).write(&path, b"three").map_err(|f| f.message())?;
        assert_eq!(fs::read(&path)?, b"three");
        assert_eq!(fs::read_dir(dir.path().join("deep/er"))?.count(), 1, "no temporary file is left");
        Ok(())
    }

    #[test]
    fn never_overwrites_an_input() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = scratch();
        let path = dir.path().join("in.onnx");
        Writer::new(false).write(&path, b"model").map_err(|f| f.message())?;
        let mut writer = Writer::new(false);
        writer.protect(&path);
        assert!(writer.check(&path).is_err());
        std::os::unix::fs::symlink(&path, dir.path().join("link"))?;
        assert!(writer.check(&dir.path().join("link")).is_err());
        assert!(Writer::new(true).check(Path::new("/dev/null")).is_err(), "devices stay");
        Ok(())
    }

    #[test]
    fn a_failure_leaves_nothing() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = scratch();
        let path = dir.path().join("out");
        let failed = Writer::new(false).write_with(&path, 0o666, |f| {
            f.write_all(b"half")?;
            Err(std::io::Error::other("no more"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(dir.path())?.count(), 0);
        Ok(())
    }
}
