//! What a path of `--data` is.

use super::source::{Arrays, PictureFile, Source};
use crate::failure::{Failure, Result};
use crate::inputs::{self, Signature};
use crate::io::npy::Array;
use crate::io::{idx, npz, picture};
use crate::preprocess::{Channels, Preprocess, Resolved};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What samples are for.
pub(super) struct Cx<'a> {
    pub(super) signature: &'a Signature,
    pub(super) preprocess: Option<&'a Resolved>,
    pub(super) axis: bool,
}

/// The sources that a path stands for, in an order that depends on names only.
pub(super) fn sources(path: &Path, option: &str, cx: &Cx<'_>) -> Result<Vec<Source>> {
    let about = |f: Failure| f.about(path.display());
    if path.is_dir() {
        return folder(path, cx);
    }
    let has = |end: &str| path.extension().is_some_and(|e| e == end);
    if idx::is_named(path) {
        return Ok(vec![idx_file(path, cx).map_err(about)?]);
    }
    if has("npz") {
        return Ok(vec![archive(path, cx).map_err(about)?]);
    }
    if has("npy") {
        return Ok(vec![array(path, cx).map_err(about)?]);
    }
    let text = format!(
        "{option} {}: neither a folder nor an .npz, .npy, IDX (..-ubyte, .idx, or with .gz) or CSV (.csv, .csv.gz) file",
        path.display()
    );
    Err(Failure::usage(text))
}

/// Names in a folder, numbers at their ends in the order of numbers.
fn names(path: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(path).map_err(|e| Failure::file(path, e))?;
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    // Numbers at the end of a name count as such, before an extension too.
    names.sort_by_cached_key(|n| {
        (inputs::name_order(n.rsplit_once('.').map_or(n, |(stem, _)| stem)), n.clone())
    });
    Ok(names)
}

fn folder(path: &Path, cx: &Cx<'_>) -> Result<Vec<Source>> {
    let all = names(path)?;
    let signature = cx.signature.clone();
    let pictures = cx.preprocess.cloned();
    let sets: Vec<(String, PathBuf)> = all
        .iter()
        .filter(|n| n.starts_with("test_data_set_") && path.join(n).is_dir())
        .map(|n| (n.clone(), path.join(n)))
        .collect();
    if !sets.is_empty() {
        return Ok(vec![Source::Folders { folders: sets, signature, pictures }]);
    }
    let values =
        inputs::one_folder(path, cx.signature, &|_, _, _| Ok(planish_ir::Tensor::vec_i64(&[]).into()))?;
    if values.iter().any(Option::is_some) {
        return Ok(vec![Source::Folders {
            folders: vec![(String::new(), path.to_owned())],
            signature,
            pictures,
        }]);
    }
    let files = picture_files(path, &all)?;
    if !files.is_empty() {
        let resolved = match cx.preprocess {
            Some(r) => r.clone(),
            None => Preprocess::default().resolve(cx.signature).map_err(|f| f.about(path.display()))?,
        };
        return Ok(vec![Source::Pictures { files, resolved, inputs: cx.signature.inputs.len() }]);
    }
    let archives: Vec<PathBuf> =
        all.iter().filter(|n| n.ends_with(".npz")).map(|n| path.join(n)).filter(|p| p.is_file()).collect();
    if !archives.is_empty() {
        return archives.iter().map(|p| archive(p, cx).map_err(|f| f.about(p.display()))).collect();
    }
    let idx: Vec<&String> =
        all.iter().filter(|n| idx::is_named(Path::new(n)) && n.contains("images")).collect();
    match idx[..] {
        [] => {}
        [one] => return Ok(vec![idx_file(&path.join(one), cx).map_err(|f| f.about(one))?]),
        _ => {
            let text = format!("{} holds several IDX files of pictures; name one of them", path.display());
            return Err(Failure::usage(text));
        }
    }
    // Says what is missing.
    Ok(vec![Source::Folders { folders: vec![(String::new(), path.to_owned())], signature, pictures }])
}

/// The pictures of a folder, or those of its subfolders, whose names are classes: numbers where all are, else their places in the order.
fn picture_files(path: &Path, all: &[String]) -> Result<Vec<PictureFile>> {
    let one = |folder: &Path, prefix: &str, names: &[String], label: Option<i64>| -> Vec<PictureFile> {
        names
            .iter()
            .map(|n| (format!("{prefix}{n}"), folder.join(n)))
            .filter(|(_, p)| picture::is_named(p) && p.is_file())
            .map(|(name, path)| PictureFile { name, path, label })
            .collect()
    };
    let direct = one(path, "", all, None);
    if !direct.is_empty() {
        return Ok(direct);
    }
    let mut classes: Vec<(String, Vec<PictureFile>)> = Vec::new();
    for n in all {
        let sub = path.join(n);
        if sub.is_dir() {
            let files = one(&sub, &format!("{n}/"), &names(&sub)?, None);
            if !files.is_empty() {
                classes.push((n.clone(), files));
            }
        }
    }
    let numbers: Option<Vec<i64>> = classes.iter().map(|(n, _)| n.parse().ok()).collect();
    let mut out = Vec::new();
    for (place, (_, files)) in classes.into_iter().enumerate() {
        let label = numbers.as_ref().map_or(place as i64, |n| n[place]);
        out.extend(files.into_iter().map(|f| PictureFile { label: Some(label), ..f }));
    }
    Ok(out)
}

fn open(path: &Path) -> Result<(Arc<File>, u64)> {
    let file = File::open(path).map_err(|e| Failure::file(path, e))?;
    let len = file.metadata().map_err(|e| Failure::file(path, e))?.len();
    Ok((Arc::new(file), len))
}

/// One input's array. Its first axis counts samples with `--samples-axis`.
fn array(path: &Path, cx: &Cx<'_>) -> Result<Source> {
    let [port] = &cx.signature.inputs[..] else {
        let text = format!("the model has {} inputs, an .npy file holds one", cx.signature.inputs.len());
        return Err(Failure::usage(text));
    };
    let (file, len) = open(path)?;
    let array = Array::open(file, 0, len, port.ty.as_tensor().map(|t| t.dtype))?;
    let arrays = BTreeMap::from([(port.name.clone(), array)]);
    from_arrays(vec![path.to_owned()], arrays, cx, cx.axis)
}

fn archive(path: &Path, cx: &Cx<'_>) -> Result<Source> {
    let dtype = |key: &str| {
        let at = cx.signature.find(key)?;
        cx.signature.inputs[at].ty.as_tensor().map(|t| t.dtype)
    };
    from_arrays(vec![path.to_owned()], npz::open(path, &dtype)?, cx, cx.axis)
}

/// Arrays by name. The key `label` is not an input unless the model has one of that name.
fn from_arrays(
    files: Vec<PathBuf>,
    arrays: BTreeMap<String, Array>,
    cx: &Cx<'_>,
    axis: bool,
) -> Result<Source> {
    let mut inputs = Vec::new();
    let mut labels = None;
    let mut first: Option<(String, usize)> = None;
    for (key, array) in arrays {
        let at = cx.signature.find(&key);
        if at.is_none() && key != "label" {
            return Err(inputs::unknown(&key, cx.signature));
        }
        // A scalar has no axis of samples: it is that of each.
        let counts = axis && !array.shape().is_empty();
        if let (true, Some(n)) = (counts, array.shape().first()) {
            match &first {
                Some((other, m)) if m != n => {
                    return Err(Failure::usage(format!("{key:?} holds {n} samples, {other:?} holds {m}")));
                }
                _ => first = Some((key.clone(), *n)),
            }
        }
        match at {
            Some(at) => inputs.push((at, array, counts)),
            None => labels = Some((array, counts)),
        }
    }
    if axis && first.is_none() {
        return Err(Failure::usage("--samples-axis: only scalars, which have no first axis"));
    }
    let count = first.map_or(1, |(_, n)| n);
    let (signature, pictures) = (cx.signature.clone(), cx.preprocess.cloned());
    Ok(Source::Arrays(Box::new(Arrays { files, inputs, labels, count, axis, signature, pictures })))
}

/// Pictures of an IDX file, and the labels beside it: the same name with `labels` for `images` and one axis.
fn idx_file(path: &Path, cx: &Cx<'_>) -> Result<Source> {
    let images = idx::open(path)?;
    let axes = images.shape().len();
    let pictures = match cx.preprocess {
        Some(r) => Some(r.clone()),
        None if images.is_u8() && matches!(axes, 3 | 4) => {
            let mut plain = Preprocess::default();
            // Elements in a row say nothing of height and width; the file does.
            if let ([_, h, w], [port]) = (images.shape(), &cx.signature.inputs[..])
                && port.ty.as_tensor().and_then(|t| t.shape.as_ref()).is_some_and(|dims| dims.len() <= 2)
            {
                (plain.size, plain.channels) = (Some([*h, *w]), Some(Channels::Grey));
            }
            Some(plain.resolve(cx.signature)?)
        }
        None => None,
    };
    let at = match (&pictures, &cx.signature.inputs[..]) {
        (Some(r), _) => r.at,
        (None, [_]) => 0,
        (None, all) => {
            return Err(Failure::usage(format!("the model has {} inputs, an IDX file holds one", all.len())));
        }
    };
    let mut files = vec![path.to_owned()];
    let mut labels = None;
    if let Some(beside) = labels_beside(path) {
        let array = idx::open(&beside).map_err(|f| f.about(beside.display()))?;
        let (have, want) = (array.shape().first().copied(), images.shape().first().copied());
        if have != want {
            let text = format!(
                "{}: {} labels for {} pictures",
                beside.display(),
                have.unwrap_or(0),
                want.unwrap_or(0)
            );
            return Err(Failure::new("idx-malformed", text));
        }
        files.push(beside);
        labels = Some((array, true));
    }
    let count = images.shape().first().copied().unwrap_or(0);
    let (signature, inputs) = (cx.signature.clone(), vec![(at, images, true)]);
    Ok(Source::Arrays(Box::new(Arrays { files, inputs, labels, count, axis: true, signature, pictures })))
}

fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    if !name.contains("images") {
        return None;
    }
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let plain = plain.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
    [plain.clone(), format!("{plain}.gz")].iter().map(|n| path.with_file_name(n)).find(|p| p.is_file())
}
