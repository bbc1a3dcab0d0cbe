//! Where samples come from, and reading one of them.

use super::Sample;
use super::table::Table;
use crate::failure::{Failure, Result};
use crate::inputs::{self, Port, Signature};
use crate::io::npy::Array;
use crate::io::picture::{self, Picture};
use crate::preprocess::Resolved;
use planish_ir::{DType, Tensor, Value};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Samples that lie together. With state they are one sequence.
#[derive(Debug)]
pub(super) enum Source {
    /// In memory.
    Memory(Vec<Sample>),
    /// A folder each.
    Folders { folders: Vec<(String, PathBuf)>, signature: Signature, pictures: Option<Resolved> },
    /// Arrays.
    Arrays(Box<Arrays>),
    /// A picture each.
    Pictures { files: Vec<PictureFile>, resolved: Resolved, inputs: usize },
    /// A row each.
    Table(Box<Table>),
}

/// Arrays for inputs, by position.
#[derive(Debug)]
pub(super) struct Arrays {
    /// The files they are in.
    pub(super) files: Vec<PathBuf>,
    /// Each with whether its first axis counts samples.
    pub(super) inputs: Vec<(usize, Array, bool)>,
    pub(super) labels: Option<(Array, bool)>,
    /// How many samples.
    pub(super) count: usize,
    /// Whether the first axis counts samples.
    pub(super) axis: bool,
    pub(super) signature: Signature,
    pub(super) pictures: Option<Resolved>,
}

#[derive(Debug)]
pub(super) struct PictureFile {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) label: Option<i64>,
}

impl Source {
    pub(super) fn len(&self) -> usize {
        match self {
            Source::Memory(samples) => samples.len(),
            Source::Folders { folders, .. } => folders.len(),
            Source::Arrays(a) => a.count,
            Source::Pictures { files, .. } => files.len(),
            Source::Table(t) => t.len(),
        }
    }
    /// Whether all samples have one size.
    pub(super) fn uniform(&self) -> bool {
        match self {
            Source::Memory(_) | Source::Folders { .. } => false,
            Source::Arrays(_) | Source::Table(_) => true,
            // Those that have not are refused when they are read.
            Source::Pictures { .. } => true,
        }
    }
    pub(super) fn sample(&self, k: usize) -> Result<Sample> {
        match self {
            Source::Memory(samples) => Ok(samples[k].clone()),
            Source::Folders { folders, signature, pictures } => {
                let (name, path) = &folders[k];
                let of = |f: Failure| if name.is_empty() { f } else { f.about(name) };
                one_folder(name, path, signature, pictures.as_ref()).map_err(of)
            }
            Source::Arrays(a) => a.sample(k),
            Source::Table(t) => t.sample(k),
            Source::Pictures { files, resolved, inputs } => {
                let f = &files[k];
                let mut values = vec![None; *inputs];
                let picture = picture::open(&f.path)?;
                values[resolved.at] = Some(Value::Tensor(resolved.tensor(picture)?));
                Ok(Sample { name: f.name.clone(), values, labels: f.label.map(|l| vec![l]) })
            }
        }
    }
    /// Adds the contents of all files to a digest.
    pub(super) fn digest(&self, h: &mut Sha256) -> Result<()> {
        let mut file = |name: &str, path: &Path| -> Result<()> {
            let failed = |e| Failure::file(path, e);
            let mut reader = File::open(path).map_err(failed)?;
            let len = reader.metadata().map_err(failed)?.len();
            h.update(format!("{name}\0{len}\0").as_bytes());
            let mut buffer = vec![0; 1 << 16];
            loop {
                match reader.read(&mut buffer).map_err(failed)? {
                    0 => return Ok(()),
                    n => h.update(&buffer[..n]),
                }
            }
        };
        match self {
            Source::Memory(samples) => {
                for v in samples.iter().flat_map(|s| s.values.iter().flatten()) {
                    h.update(format!("{v:?}").as_bytes());
                }
                Ok(())
            }
            Source::Folders { folders, .. } => folders.iter().try_for_each(|(name, path)| {
                let mut names: Vec<PathBuf> = std::fs::read_dir(path)
                    .map_err(|e| Failure::file(path, e))?
                    .flatten()
                    .map(|e| e.path())
                    .filter(|p| p.is_file())
                    .collect();
                names.sort();
                names.iter().try_for_each(|p| {
                    let own = p.file_name().unwrap_or_default().to_string_lossy();
                    file(&format!("{name}/{own}"), p)
                })
            }),
            Source::Arrays(a) => a.files.iter().try_for_each(|p| file("", p)),
            Source::Pictures { files, .. } => files.iter().try_for_each(|f| file(&f.name, &f.path)),
            Source::Table(t) => {
                file("", t.path())?;
                t.digest(h);
                Ok(())
            }
        }
    }
}

fn one_folder(name: &str, path: &Path, signature: &Signature, pictures: Option<&Resolved>) -> Result<Sample> {
    let values = inputs::one_folder(path, signature, &|at, file, port| {
        let pixels = pictures.filter(|r| r.at == at && file.extension().is_some_and(|e| e == "npy"));
        let Some(r) = pixels else { return inputs::file_value(file, port) };
        match inputs::file_value(file, port)? {
            Value::Tensor(t) => Ok(Value::Tensor(prepared(t, r, port)?)),
            other => Ok(other),
        }
    })?;
    let labels = path.join("label.npy");
    let labels = match signature.find("label").is_none() && labels.is_file() {
        true => {
            let port = Port { name: "label".into(), ty: planish_ir::TensorType::unranked(DType::I64).into() };
            let read = inputs::file_value(&labels, &port).and_then(|v| classes(v.tensor()?));
            Some(read.map_err(|f| f.about(labels.display()))?)
        }
        false => None,
    };
    Ok(Sample { name: name.to_owned(), values, labels })
}

/// Classes from a tensor of integers, or of floats that are whole numbers.
fn classes(t: &Tensor) -> Result<Vec<i64>> {
    let whole = |x: &f64| x.fract() == 0.0 && x.abs() < 9e15;
    let bad = || Failure::new("label-malformed", "labels must be whole numbers");
    if t.dtype() == DType::Str {
        return Err(bad());
    }
    t.to_f64().iter().map(|x| whole(x).then_some(*x as i64).ok_or_else(bad)).collect()
}

/// Bytes of pixels become what the model takes; anything else is taken as it is.
fn prepared(t: Tensor, r: &Resolved, port: &Port) -> Result<Tensor> {
    if t.dtype() != DType::U8 {
        return Ok(t);
    }
    if Value::Tensor(t.clone()).ty().fits(&port.ty) {
        return Ok(t);
    }
    let (height, width, channels) = match *t.shape() {
        [h, w] => (h, w, 1),
        [h, w, c @ (1 | 3)] | [1, h, w, c @ (1 | 3)] => (h, w, c),
        [1, h, w] => (h, w, 1),
        _ => {
            let text =
                format!("bytes of {:?} are no picture: height, width and 1 or 3 channels are", t.shape());
            return Err(Failure::new("input-mismatch", text));
        }
    };
    r.tensor(Picture { height, width, channels, data: t.bytes().to_vec() })
}

impl Arrays {
    fn sample(&self, k: usize) -> Result<Sample> {
        let mut values = vec![None; self.signature.inputs.len()];
        for (at, array, per_sample) in &self.inputs {
            let port = &self.signature.inputs[*at];
            let about = |f: Failure| f.about(format!("{:?}", port.name));
            let tensor = if *per_sample { array.row(k) } else { array.read() }.map_err(about)?;
            let pixels = self.pictures.as_ref().filter(|r| r.at == *at && array.is_u8());
            let tensor = match pixels {
                Some(r) => prepared(tensor, r, port)?,
                None if *per_sample => with_batch(tensor, array.shape().len(), port)?,
                None => tensor,
            };
            values[*at] = Some(Value::Tensor(tensor));
        }
        let labels = match &self.labels {
            Some((a, true)) => Some(classes(&a.row(k)?)?),
            Some((a, false)) => Some(classes(&a.read()?)?),
            None => None,
        };
        let name = if self.axis { format!("test_data_set_{k}") } else { String::new() };
        Ok(Sample { name, values, labels })
    }
}

/// A position of the first axis keeps that axis, with length 1, where the input has as many axes as the array.
fn with_batch(t: Tensor, axes: usize, port: &Port) -> Result<Tensor> {
    let rank = port.ty.as_tensor().and_then(|ty| ty.shape.as_ref()).map(Vec::len);
    if rank != Some(axes) {
        return Ok(t);
    }
    let shape: Vec<usize> = std::iter::once(1).chain(t.shape().iter().copied()).collect();
    Ok(t.reshaped(&shape)?)
}
