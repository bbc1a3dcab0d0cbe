//! Checkpoints: variables of a training in a safetensors file, with where it stands as its metadata.

use super::Standing;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use planish_ir::{DType, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::collections::HashMap;
use std::path::Path;

/// What a checkpoint holds.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Tensors by name, in the order of the step's variables; behind them those of the best epoch, as `best:NAME`.
    pub tensors: Vec<(String, Tensor)>,
    /// Where the training stands.
    pub standing: Standing,
    /// A digest of everything that decides the course of the training.
    pub course: String,
}

/// What the metadata hold; one entry, because a map of several has no order.
const KEY: &str = "planish.train";

fn malformed(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new("checkpoint-malformed", format!("{}: {why}", path.display()))
}

impl Checkpoint {
    /// Writes it; the file there is replaced as a whole.
    pub fn write(&self, path: &Path, writer: &Writer) -> Result<()> {
        let about = serde_json::to_string(&(&self.course, &self.standing));
        let about = about.map_err(|e| Failure::new("internal-train", e.to_string()))?;
        let metadata = HashMap::from([(KEY.to_owned(), about)]);
        let mut views = Vec::new();
        for (name, t) in &self.tensors {
            let view = TensorView::new(known(t.dtype()).ok_or_else(internal)?, t.shape().to_vec(), t.bytes());
            views.push((name.as_str(), view.map_err(|e| Failure::new("internal-train", e.to_string()))?));
        }
        let bytes =
            serialize(views, Some(metadata)).map_err(|e| Failure::new("internal-train", e.to_string()))?;
        writer.write(path, &bytes)
    }
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Checkpoint> {
        let bytes = std::fs::read(path).map_err(|e| Failure::file(path, e))?;
        let (_, head) = SafeTensors::read_metadata(&bytes).map_err(|e| malformed(path, e))?;
        let metadata = head.metadata().clone().unwrap_or_default();
        let about = metadata.get(KEY).ok_or_else(|| malformed(path, "not a checkpoint of planish train"))?;
        let (course, standing) = serde_json::from_str(about).map_err(|e| malformed(path, e))?;
        let all = SafeTensors::deserialize(&bytes).map_err(|e| malformed(path, e))?;
        let mut tensors = Vec::new();
        for (name, view) in all.iter() {
            let dtype = [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I64]
                .into_iter()
                .find(|d| known(*d) == Some(view.dtype()))
                .ok_or_else(|| malformed(path, format!("{name}: type {:?} is not known", view.dtype())))?;
            let t = Tensor::from_bytes(dtype, view.shape().to_vec(), view.data().to_vec().into())?;
            tensors.push((name.to_owned(), t));
        }
        Ok(Checkpoint { tensors, standing, course })
    }
    /// The tensor of a name.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }
}

fn internal() -> Failure {
    Failure::new("internal-train", "a variable of a type that checkpoints do not have")
}

fn known(d: DType) -> Option<Dtype> {
    Some(match d {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read_as_it_was_written() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("c.safetensors");
        let tensors = vec![
            ("w".to_owned(), Tensor::f32s(&[2, 1], &[1.5, -0.0])?),
            ("power".to_owned(), Tensor::scalar(DType::F64, 0.25)?),
        ];
        let standing = Standing { epoch: 3, ..Standing::default() };
        let made = Checkpoint { tensors, standing, course: "ab".into() };
        made.write(&path, &Writer::new(false)).map_err(|f| f.message())?;
        let first = std::fs::read(&path)?;
        made.write(&path, &Writer::new(true)).map_err(|f| f.message())?;
        assert_eq!(first, std::fs::read(&path)?);
        let back = Checkpoint::read(&path).map_err(|f| f.message())?;
        assert_eq!((back.standing.epoch, back.course.as_str()), (3, "ab"));
        for (name, t) in &made.tensors {
            assert_eq!(back.find(name), Some(t));
        }
        for wrong in
            [&first[..first.len() - 3], b"", b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"\x02\0\0\0\0\0\0\0{}"]
        {
            std::fs::write(&path, wrong)?;
            let id = Checkpoint::read(&path).err().map(|f| f.diags[0].id);
            assert_eq!(id, Some("checkpoint-malformed"));
        }
        Ok(())
    }
}
