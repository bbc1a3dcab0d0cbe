//! External tensor data: regular files below one folder, and nothing else.
//!
//! A location in a model is opened by the kernel relative to the folder (`openat2` with `RESOLVE_BENEATH`), never
//! compared as a string, so that `..`, absolute paths, symbolic links and magic links cannot leave it. The opened
//! descriptor is then examined: it must be a regular file with a single hard link.

use crate::error::{OnnxError, quoted};
use crate::limits::Limits;
use crate::map::{self, Access};
use crate::proto::{StringStringEntryProto, TensorProto, tensor_proto::DataLocation};
use bytes::Bytes;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// Where external data may come from and how it is read.
#[derive(Clone, Debug, Default)]
pub struct ExternalOptions {
    /// A folder named by the user. Symbolic links that stay below it are then followed (model caches consist of them);
    /// models given as bytes can only use external data with it.
    pub root: Option<PathBuf>,
    /// Accept files with more than one hard link.
    pub allow_hardlinks: bool,
    /// How contents get into memory.
    pub access: Access,
}

/// Resolver of the external data of one model; each file is opened once.
#[derive(Debug)]
pub struct ExternalData {
    folder: Option<Folder>,
    allow_hardlinks: bool,
    access: Access,
    max_bytes: u64,
    files: BTreeMap<String, OpenFile>,
}

#[derive(Debug)]
struct Folder {
    /// Nothing outside is ever opened.
    root: OwnedFd,
    /// The model's folder below `root`.
    prefix: PathBuf,
    follow_links: bool,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    size: u64,
    mapped: Option<Bytes>,
}

/// The region of a file that a tensor names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Region {
    location: String,
    offset: u64,
    length: Option<u64>,
}

impl ExternalData {
    /// A resolver for the model file at `model`, or for a model given as bytes (`None`).
    ///
    /// The root is `options.root` or else the folder of the model. With a root given and the model below it, locations
    /// are relative to the model's folder; otherwise they are relative to the root.
    pub fn new(model: Option<&Path>, options: &ExternalOptions, limits: &Limits) -> Result<Self, OnnxError> {
        let parent = model.map(|m| match m.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        });
        let folder = match (&options.root, parent) {
            (None, None) => None,
            (None, Some(parent)) => {
                Some(Folder { root: open_folder(&parent)?, prefix: PathBuf::new(), follow_links: false })
            }
            (Some(root), parent) => {
                let below = parent.and_then(|p| {
                    let full = std::fs::canonicalize(p).ok()?;
                    let root = std::fs::canonicalize(root).ok()?;
                    Some(full.strip_prefix(root).ok()?.to_path_buf())
                });
                Some(Folder {
                    root: open_folder(root)?,
                    prefix: below.unwrap_or_default(),
                    follow_links: true,
                })
            }
        };
        Ok(ExternalData {
            folder,
            allow_hardlinks: options.allow_hardlinks,
            access: options.access,
            max_bytes: limits.tensor_bytes,
            files: BTreeMap::new(),
        })
    }

    /// A resolver that refuses everything.
    pub fn none() -> Self {
        ExternalData {
            folder: None,
            allow_hardlinks: false,
            access: Access::Read,
            max_bytes: 0,
            files: BTreeMap::new(),
        }
    }

    /// The bytes of `tensor`, whose contents take `expected` bytes. Without a `length` the rest of the file is checked
    /// to hold that many and the first `expected` bytes are used.
    pub fn load(&mut self, tensor: &TensorProto, expected: u64) -> Result<Bytes, OnnxError> {
        let region = parse_region(&tensor.external_data)?;
        let shown = quoted(&region.location);
        if let Some(length) = region.length
            && length != expected
        {
            let text =
                format!("external data {shown}: length {length} where the shape needs {expected} bytes");
            return Err(OnnxError::new("external-length", text));
        }
        if expected > self.max_bytes {
            let text = format!("external data {shown}: larger than the limit of {} bytes", self.max_bytes);
            return Err(OnnxError::new("limit-tensor-bytes", text));
        }
        let access = self.access;
        let file = self.open(&region.location)?;
        let end = region.offset.checked_add(expected).filter(|end| *end <= file.size);
        let Some(end) = end else {
            let text = format!(
                "external data {shown}: {expected} bytes at offset {} do not fit into the file of {} bytes",
                region.offset, file.size
            );
            return Err(OnnxError::new("external-out-of-range", text));
        };
        if expected == 0 {
            return Ok(Bytes::new());
        }
        match access {
            Access::Map => {
                let whole = match &file.mapped {
                    Some(bytes) => bytes.clone(),
                    None => {
                        let bytes = map::contents(&file.file, file.size, Access::Map, u64::MAX)?;
                        file.mapped.insert(bytes).clone()
                    }
                };
                Ok(whole.slice(region.offset as usize..end as usize))
            }
            Access::Read => {
                use std::os::unix::fs::FileExt;
                let len = usize::try_from(expected).unwrap_or(usize::MAX);
                let mut data = Vec::new();
                data.try_reserve_exact(len).map_err(|_| {
                    OnnxError::new("limit-memory", format!("external data {shown}: no memory"))
                })?;
                data.resize(len, 0);
                let got = file.file.read_exact_at(&mut data, region.offset);
                got.map_err(|e| OnnxError::new("file-read", format!("external data {shown}: {e}")))?;
                Ok(data.into())
            }
        }
    }

    fn open(&mut self, location: &str) -> Result<&mut OpenFile, OnnxError> {
        if !self.files.contains_key(location) {
            let file = self.open_new(location)?;
            self.files.insert(location.to_string(), file);
        }
        self.files.get_mut(location).ok_or_else(|| OnnxError::new("external-open", "lost an open file"))
    }

    fn open_new(&self, location: &str) -> Result<OpenFile, OnnxError> {
        let shown = quoted(location);
        let Some(folder) = &self.folder else {
            let text = format!("external data {shown}: a model given as bytes needs an external root folder");
            return Err(OnnxError::new("external-no-root", text));
        };
        check_location(location)?;
        let path = folder.prefix.join(location);
        let fd = open_beneath(folder, &path).map_err(|e| {
            let (id, text) = match e {
                Errno::XDEV => ("external-escape", "leaves the folder of the model".to_string()),
                Errno::LOOP => ("external-symlink", "is or passes through a symbolic link".to_string()),
                Errno::NOENT | Errno::NOTDIR => ("external-missing", "no such file".to_string()),
                other => ("external-open", other.to_string()),
            };
            OnnxError::new(id, format!("external data {shown}: {text}"))
        })?;
        let stat = rustix::fs::fstat(&fd)
            .map_err(|e| OnnxError::new("external-open", format!("external data {shown}: {e}")))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(OnnxError::new(
                "external-not-a-file",
                format!("external data {shown}: not a regular file"),
            ));
        }
        if stat.st_nlink != 1 && !self.allow_hardlinks {
            let text = format!(
                "external data {shown}: has {} hard links, so it may be another's file",
                stat.st_nlink
            );
            return Err(OnnxError::new("external-hard-link", text));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(OpenFile { file: File::from(fd), size, mapped: None })
    }
}

/// Whether the contents of `tensor` are in another file.
pub fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

/// Reads the recognised keys; unknown ones have no meaning here and are ignored.
fn parse_region(entries: &[StringStringEntryProto]) -> Result<Region, OnnxError> {
    let (mut location, mut offset, mut length) = (None, None, None);
    for entry in entries {
        let value = entry.value.as_deref().unwrap_or("");
        let repeated = match entry.key.as_deref().unwrap_or("") {
            "location" => location.replace(value.to_string()).is_some(),
            "offset" => offset.replace(number("offset", value)?).is_some(),
            "length" => length.replace(number("length", value)?).is_some(),
            _ => false,
        };
        if repeated {
            return Err(OnnxError::new("external-bad-entry", "external data gives one key twice"));
        }
    }
    let Some(location) = location else {
        return Err(OnnxError::new("external-bad-entry", "external data has no location"));
    };
    Ok(Region { location, offset: offset.unwrap_or(0), length })
}

fn number(key: &str, text: &str) -> Result<u64, OnnxError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = text.parse::<u64>().ok().filter(|v| digits && *v <= i64::MAX as u64);
    value.ok_or_else(|| {
        OnnxError::new(
            "external-bad-entry",
            format!("external data: {key} {} is not a byte count", quoted(text)),
        )
    })
}

/// Refuses what no folder resolves sensibly, before the kernel is asked.
fn check_location(location: &str) -> Result<(), OnnxError> {
    let shown = quoted(location);
    if location.is_empty() || location.contains('\0') || location.ends_with('/') {
        return Err(OnnxError::new(
            "external-bad-entry",
            format!("external data: {shown} is not a file name"),
        ));
    }
    let inside =
        Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !inside {
        let text = format!("external data {shown}: leaves the folder of the model");
        return Err(OnnxError::new("external-escape", text));
    }
    Ok(())
}

const OPEN_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

fn open_folder(path: &Path) -> Result<OwnedFd, OnnxError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|e| OnnxError::new("external-open", format!("{}: {e}", path.display())))
}

fn open_beneath(folder: &Folder, path: &Path) -> Result<OwnedFd, Errno> {
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if !folder.follow_links {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    // EAGAIN: a rename raced with the resolution.
    for _ in 0..16 {
        match rustix::fs::openat2(&folder.root, path, OPEN_FLAGS, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(Errno::NOSYS | Errno::PERM) => return open_by_component(&folder.root, path),
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// For kernels without `openat2`, and where a filter forbids it: one component at a time, no link is followed.
fn open_by_component(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => return Err(Errno::XDEV),
        }
    }
    let (file, folders) = names.split_last().ok_or(Errno::NOENT)?;
    let mut dir: Option<OwnedFd> = None;
    for name in folders {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = rustix::fs::openat(dir.as_ref().unwrap_or(root), *name, flags, Mode::empty())?;
        dir = Some(next);
    }
    rustix::fs::openat(dir.as_ref().unwrap_or(root), *file, OPEN_FLAGS | OFlags::NOFOLLOW, Mode::empty())
}

#[cfg(test)]
mod tests;
