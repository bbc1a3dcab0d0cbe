//! Inputs of a model from files: the INPUTS section of the command line.

use crate::failure::{Failure, Result};
use crate::io::{npy, npz};
use crate::percent;
use bytes::Bytes;
use planish_ir::dim::Symbols;
use planish_ir::{DType, Graph, Tensor, Type, Value};
use planish_onnx::Limits;
use planish_onnx::scan::Root;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where inputs come from.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Inputs")]
pub struct InputArgs {
    /// One input from a file: .npy, ONNX tensor .pb, or raw little-endian elements (split at the first `=@`)
    #[arg(long = "input", value_name = "NAME=@FILE")]
    pub input: Vec<String>,
    /// A folder with NAME.npy, or input_<i>.pb/.npy, or subfolders test_data_set_*; or an .npz file
    #[arg(long, value_name = "DIR|FILE.npz")]
    pub inputs: Option<PathBuf>,
    /// The first axis of the arrays of the .npz counts samples
    #[arg(long)]
    pub samples_axis: bool,
}

/// What a model takes, in order.
#[derive(Clone, Debug)]
pub struct Signature {
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
    /// Names of dims.
    pub symbols: Symbols,
}

/// One input or output.
#[derive(Clone, Debug)]
pub struct Port {
    /// Name, which may be empty.
    pub name: String,
    /// Type.
    pub ty: Type,
}

impl Signature {
    /// The signature of a graph.
    pub fn of(graph: &Graph) -> Signature {
        let port = |name: &str, v| Port { name: name.to_owned(), ty: graph.ty(v).clone() };
        let inputs = graph.inputs().iter().enumerate().map(|(i, v)| port(graph.input_name(i), *v));
        let outputs = graph.outputs().iter().enumerate().map(|(i, v)| port(graph.output_name(i), *v));
        Signature { inputs: inputs.collect(), outputs: outputs.collect(), symbols: graph.symbols.clone() }
    }
    /// Position of the input with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|p| p.name == name)
    }
    fn dtype(&self, name: &str) -> Option<DType> {
        Some(self.inputs.get(self.find(name)?)?.ty.as_tensor()?.dtype)
    }
}

/// The inputs of one inference. Inputs that are not given are `None`.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The name of its folder below the folder given, empty for a lone sample.
    pub name: String,
    /// By position.
    pub values: Vec<Option<Value>>,
}

/// Reads all inputs that the options name.
pub fn read(args: &InputArgs, signature: &Signature) -> Result<Vec<Sample>> {
    let mut samples = match &args.inputs {
        None => vec![Sample { name: String::new(), values: vec![None; signature.inputs.len()] }],
        Some(path) => samples(path, "--inputs", signature, args.samples_axis)?,
    };
    for text in &args.input {
        let (name, file) = text
            .split_once("=@")
            .ok_or_else(|| Failure::usage(format!("--input {text:?} has no `=@`: NAME=@FILE is needed")))?;
        let at = signature.find(name).ok_or_else(|| unknown(name, signature))?;
        let value = file_value(Path::new(file), &signature.inputs[at]).map_err(|f| f.about(file))?;
        for sample in &mut samples {
            sample.values[at] = Some(value.clone());
        }
    }
    Ok(samples)
}

/// The samples of a folder or an `.npz` file, which `option` named.
pub fn samples(path: &Path, option: &str, signature: &Signature, samples_axis: bool) -> Result<Vec<Sample>> {
    if path.is_dir() {
        folder(path, signature)
    } else if path.extension().is_some_and(|e| e == "npz") {
        archive(path, signature, samples_axis)
    } else {
        Err(Failure::usage(format!("{option} {}: neither a folder nor an .npz file", path.display())))
    }
}

/// An input that the model does not have.
pub(crate) fn unknown(name: &str, signature: &Signature) -> Failure {
    let names: Vec<String> = signature.inputs.iter().map(|p| format!("{:?}", p.name)).collect();
    Failure::new(
        "input-unknown",
        format!("the model has no input {name:?}; its inputs are {}", names.join(", ")),
    )
}

fn open(path: &Path) -> Result<Bytes> {
    Ok(planish_onnx::map::open(path, planish_onnx::map::Access::Read, 64 << 30)?)
}

/// The value in a file, by its extension: `.npy`, `.pb`, anything else is raw.
pub fn file_value(path: &Path, port: &Port) -> Result<Value> {
    let bytes = open(path)?;
    let dtype = port.ty.as_tensor().map(|t| t.dtype);
    match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => Ok(Value::Tensor(npy::read(&bytes, dtype)?)),
        Some("pb") => pb_value(&bytes, &port.ty),
        _ => raw_value(bytes, &port.ty),
    }
}

/// The value in the bytes of an ONNX value file.
pub fn pb_value(bytes: &Bytes, ty: &Type) -> Result<Value> {
    let root = match ty {
        Type::Tensor(_) => Root::Tensor,
        Type::Sequence(_) => Root::Sequence,
        Type::Optional(_) => Root::Optional,
        Type::Map(..) => Root::Map,
    };
    let limits = Limits::default();
    match planish_onnx::value::decode_value(root, bytes, &limits) {
        Ok(value) => Ok(value.into_value(Some(ty))?),
        // Test data holds the bare value of an optional input too.
        Err(e) => {
            if let Type::Optional(inner) = ty {
                let value = pb_value(bytes, inner)?;
                return Ok(Value::Optional(inner.clone(), Some(Box::new(value))));
            }
            Err(e.into())
        }
    }
}

/// Elements without a header. At most one dim may be free; it follows from the size.
fn raw_value(bytes: Bytes, ty: &Type) -> Result<Value> {
    let bad = |why: String| Failure::new("raw-input", why);
    let ty = ty.as_tensor().filter(|t| t.dtype != DType::Str);
    let ty = ty.ok_or_else(|| bad("only tensors of numbers can be raw".into()))?;
    let dims = ty.dims()?;
    let fixed: Vec<Option<usize>> =
        dims.iter().map(|d| d.as_const().and_then(|v| usize::try_from(v).ok())).collect();
    let known: Vec<usize> = fixed.iter().flatten().copied().collect();
    let unit = planish_ir::tensor::byte_len(ty.dtype, &known)?;
    let free = fixed.iter().filter(|d| d.is_none()).count();
    let shape = match free {
        0 => known,
        1 if unit > 0 && bytes.len().is_multiple_of(unit) => {
            fixed.iter().map(|d| d.unwrap_or(bytes.len() / unit)).collect()
        }
        1 => return Err(bad(format!("{} bytes are no multiple of {unit}", bytes.len()))),
        _ => return Err(bad("several dims are free: use .npy, or fix them with --set or --shape".into())),
    };
    Ok(Value::Tensor(Tensor::from_bytes(ty.dtype, shape, bytes)?))
}

/// The samples of a folder.
pub fn folder(path: &Path, signature: &Signature) -> Result<Vec<Sample>> {
    let entries = std::fs::read_dir(path).map_err(|e| Failure::file(path, e))?;
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort_by_cached_key(|n| name_order(n));
    let mut samples = Vec::new();
    for name in &names {
        let sub = path.join(name);
        if name.starts_with("test_data_set_") && sub.is_dir() {
            samples.push(Sample { name: name.clone(), values: one_folder(&sub, signature, &read_file)? });
        }
    }
    if samples.is_empty() {
        samples.push(Sample { name: String::new(), values: one_folder(path, signature, &read_file)? });
    }
    Ok(samples)
}

fn read_file(_: usize, file: &Path, port: &Port) -> Result<Value> {
    file_value(file, port)
}

/// The order of names: by letters, numbers at the end by their value.
pub(crate) fn name_order(name: &str) -> (String, u64) {
    let start = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (start.to_owned(), name[start.len()..].parse().unwrap_or(0))
}

/// The inputs whose files a folder holds, each read by `read`, which gets the position of the input.
pub(crate) fn one_folder(
    path: &Path,
    signature: &Signature,
    read: &dyn Fn(usize, &Path, &Port) -> Result<Value>,
) -> Result<Vec<Option<Value>>> {
    let mut values = Vec::with_capacity(signature.inputs.len());
    for (i, port) in signature.inputs.iter().enumerate() {
        let candidates = [
            format!("{}.npy", percent::encode(&port.name)),
            format!("{}.pb", percent::encode(&port.name)),
            format!("input_{i}.pb"),
            format!("input_{i}.npy"),
        ];
        let skip = if port.name.is_empty() { 2 } else { 0 };
        let file = candidates[skip..].iter().map(|c| path.join(c)).find(|p| p.is_file());
        values.push(match file {
            Some(file) => Some(read(i, &file, port).map_err(|f| f.about(file.display()))?),
            None => None,
        });
    }
    Ok(values)
}

/// The samples of an `.npz`. The key `label` is not an input unless the model has one of that name.
fn archive(path: &Path, signature: &Signature, samples_axis: bool) -> Result<Vec<Sample>> {
    let arrays = npz::read(path, &|key| signature.dtype(key)).map_err(|f| f.about(path.display()))?;
    let mut by_input: BTreeMap<usize, Tensor> = BTreeMap::new();
    let mut samples = 1;
    let mut first: Option<(String, usize)> = None;
    for (key, tensor) in arrays {
        let at = signature.find(&key);
        if at.is_none() && key != "label" {
            return Err(unknown(&key, signature).about(path.display()));
        }
        if samples_axis {
            let n = *tensor.shape().first().ok_or_else(|| {
                Failure::usage(format!("--samples-axis: {key:?} is a scalar and has no first axis"))
            })?;
            match &first {
                Some((other, m)) if *m != n => {
                    return Err(Failure::usage(format!("{key:?} holds {n} samples, {other:?} holds {m}")));
                }
                _ => first = Some((key.clone(), n)),
            }
            samples = n;
        }
        if let Some(at) = at {
            by_input.insert(at, tensor);
        }
    }
    let mut out = Vec::new();
    for k in 0..samples {
        let mut values = vec![None; signature.inputs.len()];
        for (at, tensor) in &by_input {
            values[*at] = Some(Value::Tensor(match samples_axis {
                true => row(tensor, k, &signature.inputs[*at])?,
                false => tensor.clone(),
            }));
        }
        let name = if samples_axis { format!("test_data_set_{k}") } else { String::new() };
        out.push(Sample { name, values });
    }
    Ok(out)
}

/// Element `k` of the first axis. The axis stays, with length 1, where the input has as many axes as the array.
fn row(t: &Tensor, k: usize, port: &Port) -> Result<Tensor> {
    let mut shape = t.shape()[1..].to_vec();
    let n: usize = shape.iter().product();
    let rank = port.ty.as_tensor().and_then(|ty| ty.shape.as_ref()).map(Vec::len);
    if rank == Some(t.shape().len()) {
        shape.insert(0, 1);
    }
    if t.dtype() == DType::Str {
        return Ok(Tensor::from_strings(shape, t.strings()[k * n..(k + 1) * n].to_vec())?);
    }
    let n = n * t.dtype().size();
    Ok(Tensor::from_bytes(t.dtype(), shape, t.bytes().slice(k * n..(k + 1) * n))?)
}

/// Names the inputs that a sample lacks and that carry no state.
pub fn missing(sample: &Sample, signature: &Signature, states: &[usize]) -> Option<Failure> {
    let absent: Vec<String> = sample
        .values
        .iter()
        .enumerate()
        .filter(|(i, v)| v.is_none() && !states.contains(i))
        .map(|(i, _)| {
            let p = &signature.inputs[i];
            format!("{:?} ({})", p.name, p.ty.display(&signature.symbols))
        })
        .collect();
    let at = if sample.name.is_empty() { String::new() } else { format!("{}: ", sample.name) };
    (!absent.is_empty())
        .then(|| Failure::new("input-missing", format!("{at}no value for the input {}", absent.join(", "))))
}

/// Writes tensors as `input_<i>.npy` into a folder, which is made if needed.
pub fn store<'v>(values: impl Iterator<Item = &'v Value>, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, e))?;
    for (i, v) in values.enumerate() {
        let path = folder.join(format!("input_{i}.npy"));
        std::fs::write(&path, npy::write(v.tensor()?)).map_err(|e| Failure::file(&path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
