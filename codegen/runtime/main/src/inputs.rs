//! The inputs of a run, from files.
use crate::files::{self, Result, decode_name, input, within};
use crate::{npy, pb, zip};
use planish_rt::plan::ValueType;
use planish_rt::{DType, Error, ErrorKind, Object, Tensor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What an input must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputPort {
    /// Name.
    pub name: String,
    /// Type.
    pub ty: ValueType,
    /// Dims of a tensor, `None` where any length is allowed.
    pub dims: Option<Vec<Option<i64>>>,
    /// Whether it may be absent: states and optionals.
    pub optional: bool,
}

/// Where inputs come from.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct InputArgs {
    /// `--input NAME=@FILE`.
    pub files: Vec<(String, PathBuf)>,
    /// `--inputs DIR` or an `.npz` file.
    pub from: Option<PathBuf>,
    /// Whether the first axis of arrays in an `.npz` file counts samples.
    pub samples_axis: bool,
}

/// The inputs of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Name of its folder where there are several.
    pub name: Option<String>,
    /// A value for each input; `None` where one is absent that may be.
    pub values: Vec<Option<Arc<Object>>>,
}

/// Splits `NAME=@FILE` at the first `=@`.
pub fn split_input(arg: &str) -> Result<(String, PathBuf)> {
    match arg.split_once("=@") {
        Some((name, file)) if !file.is_empty() => Ok((name.to_owned(), PathBuf::from(file))),
        _ => input(format!("--input needs NAME=@FILE, not {arg:?}")),
    }
}

/// The samples that `args` describe.
pub fn load(args: &InputArgs, ports: &[InputPort]) -> Result<Vec<Sample>> {
    let mut given: Vec<Option<Arc<Object>>> = vec![None; ports.len()];
    for (name, path) in &args.files {
        let Some(i) = ports.iter().position(|p| p.name == *name) else {
            return unknown(name, ports);
        };
        given[i] = Some(Arc::new(read_value(path, &ports[i])?));
    }
    let mut samples = match &args.from {
        None => vec![Sample { name: None, values: vec![None; ports.len()] }],
        Some(path) if path.extension().is_some_and(|e| e == "npz") => npz(path, ports, args.samples_axis)?,
        Some(dir) => folders(dir, ports)?,
    };
    for s in &mut samples {
        for (i, port) in ports.iter().enumerate() {
            if given[i].is_some() {
                s.values[i] = given[i].clone();
            }
            if s.values[i].is_none() && !port.optional {
                let place = s.name.as_ref().map_or(String::new(), |n| format!(" in {n}"));
                return input(format!(
                    "the input {:?} is missing{place}: add --input {0:?}=@FILE",
                    port.name
                ));
            }
        }
    }
    Ok(samples)
}

fn unknown<T>(name: &str, ports: &[InputPort]) -> Result<T> {
    let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
    input(format!("there is no input {name:?}; the inputs are {}", names.join(", ")))
}

/// The value of one file, by its extension: `.npy`, `.pb`, else raw little-endian elements.
pub fn read_value(path: &Path, port: &InputPort) -> Result<Object> {
    let bytes = files::read(path)?;
    let value = match path.extension().and_then(|e| e.to_str()) {
        Some("pb") => pb::read(&bytes, &port.ty),
        Some("npy") => match tensor_type(&port.ty) {
            Some(d) => npy::read(&bytes, d).map(|v| wrap(v, &port.ty)),
            None => input(format!("a {} cannot be in a .npy file", port.ty)),
        },
        _ => raw(bytes, port),
    };
    within(path, value)
}

fn tensor_type(ty: &ValueType) -> Option<DType> {
    match ty {
        ValueType::Tensor(d) => Some(*d),
        ValueType::Optional(t) => tensor_type(t),
        _ => None,
    }
}

fn wrap(v: Object, ty: &ValueType) -> Object {
    match ty {
        ValueType::Optional(t) => Object::Optional(Some(Arc::new(wrap(v, t)))),
        _ => v,
    }
}

fn raw(data: Vec<u8>, port: &InputPort) -> Result<Object> {
    let (ValueType::Tensor(dtype), Some(dims)) = (&port.ty, &port.dims) else {
        return input(format!("a {} cannot be in a raw file", port.ty));
    };
    let size = dtype.size();
    if size == 0 || !data.len().is_multiple_of(size) {
        return input(format!("{} bytes are no whole number of {dtype}", data.len()));
    }
    let have = (data.len() / size) as i64;
    let known = dims.iter().flatten().try_fold(1i64, |n, &d| n.checked_mul(d));
    let free = dims.iter().filter(|d| d.is_none()).count();
    let dims: Vec<i64> = match (free, known) {
        (0, Some(n)) if n == have => dims.iter().flatten().copied().collect(),
        (1, Some(n)) if n > 0 && have % n == 0 => dims.iter().map(|d| d.unwrap_or(have / n)).collect(),
        (0 | 1, _) => return input(format!("{have} elements do not fit the shape of {:?}", port.name)),
        _ => return input(format!("the shape of {:?} has {free} free dims: use a .npy file", port.name)),
    };
    Ok(Object::Tensor(Tensor { dtype: *dtype, dims, data }))
}

/// The entries of a folder, sorted by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = std::fs::read_dir(dir)
        .and_then(|r| r.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>());
    match list {
        Ok(mut v) => {
            v.sort();
            Ok(v)
        }
        Err(e) => input(format!("{}: {e}", dir.display())),
    }
}

fn folders(dir: &Path, ports: &[InputPort]) -> Result<Vec<Sample>> {
    let all = entries(dir)?;
    let number = |p: &Path| p.file_name()?.to_str()?.strip_prefix("test_data_set_")?.parse::<u64>().ok();
    let mut sets: Vec<(u64, &PathBuf)> =
        all.iter().filter(|p| p.is_dir()).filter_map(|p| Some((number(p)?, p))).collect();
    sets.sort();
    if sets.is_empty() {
        return Ok(vec![Sample { name: None, values: folder(&all, ports)? }]);
    }
    let sample = |(n, p): &(u64, &PathBuf)| {
        Ok(Sample { name: Some(format!("test_data_set_{n}")), values: folder(&entries(p)?, ports)? })
    };
    sets.iter().map(sample).collect()
}

fn folder(all: &[PathBuf], ports: &[InputPort]) -> Result<Vec<Option<Arc<Object>>>> {
    let stem = |p: &Path| p.file_stem().and_then(|s| s.to_str()).map(str::to_owned);
    let known = |p: &&PathBuf| p.extension().is_some_and(|e| e == "npy" || e == "pb");
    let find = |i: usize, name: &str| {
        let named =
            |p: &&PathBuf| stem(p).is_some_and(|s| s == name || decode_name(&s).as_deref() == Some(name));
        let numbered = |p: &&PathBuf| stem(p).is_some_and(|s| s == format!("input_{i}"));
        all.iter().filter(known).find(named).or_else(|| all.iter().filter(known).find(numbered))
    };
    ports
        .iter()
        .enumerate()
        .map(|(i, port)| find(i, &port.name).map(|p| read_value(p, port).map(Arc::new)).transpose())
        .collect()
}

fn npz(path: &Path, ports: &[InputPort], samples_axis: bool) -> Result<Vec<Sample>> {
    let members = within(path, zip::members(&files::read(path)?))?;
    let base = |key: &str| key.strip_suffix(".npy").unwrap_or(key).to_owned();
    for (key, _) in &members {
        let key = base(key);
        if key != "label" && !ports.iter().any(|p| p.name == key) {
            return unknown(&key, ports);
        }
    }
    let mut values: Vec<Option<Object>> = Vec::new();
    for port in ports {
        let key = |m: &&(String, Vec<u8>)| base(&m.0) == port.name;
        values.push(match (members.iter().find(key), tensor_type(&port.ty)) {
            (Some((name, bytes)), Some(d)) => {
                let read = npy::read(bytes, d).map(|v| wrap(v, &port.ty));
                Some(within(path, read.map_err(|e| Error::new(e.kind, format!("{name}: {}", e.message))))?)
            }
            _ => None,
        });
    }
    if !samples_axis {
        let values = values.into_iter().map(|v| v.map(Arc::new)).collect();
        return Ok(vec![Sample { name: None, values }]);
    }
    let mut count = None;
    for (v, port) in values.iter().zip(ports) {
        if let Some(first) = v.as_ref().map(|v| v.dims().and_then(|d| d.first().copied())) {
            match (first, count) {
                (None, _) => return input(format!("{}: {:?} has no first axis", path.display(), port.name)),
                (Some(n), Some(c)) if n != c => {
                    return input(format!("{}: {:?} has {n} samples, others {c}", path.display(), port.name));
                }
                (n, _) => count = n,
            }
        }
    }
    let sample = |k: i64| Sample {
        name: Some(format!("test_data_set_{k}")),
        values: values.iter().zip(ports).map(|(v, p)| v.as_ref().map(|v| Arc::new(slice(v, k, p)))).collect(),
    };
    Ok((0..count.unwrap_or(0)).map(sample).collect())
}

/// Element `k` of the first axis. The axis stays, with length 1, where the input has as many axes as the array.
fn slice(v: &Object, k: i64, port: &InputPort) -> Object {
    let dims = v.dims().unwrap_or(&[]);
    let keep = port.dims.as_ref().is_some_and(|d| d.len() == dims.len());
    let mut shape: Vec<i64> = dims[1.min(dims.len())..].to_vec();
    let len = shape.iter().product::<i64>();
    if keep {
        shape.insert(0, 1);
    }
    let range = |size: i64| (k * len * size) as usize..((k + 1) * len * size) as usize;
    match v {
        Object::Tensor(t) => {
            let data = t.data[range(t.dtype.size() as i64)].to_vec();
            Object::Tensor(Tensor { dtype: t.dtype, dims: shape, data })
        }
        Object::Strings { data, .. } => Object::Strings { dims: shape, data: data[range(1)].to_vec() },
        other => other.clone(),
    }
}

/// Makes up inputs of the given shapes: floats between -1 and 1, the same in every run, and zeros for the rest.
pub fn synthetic(ports: &[InputPort]) -> Result<Vec<Option<Arc<Object>>>> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let mut out = Vec::new();
    for p in ports {
        let dims: Option<Vec<i64>> = p.dims.as_ref().and_then(|d| d.iter().copied().collect());
        out.push(match (&p.ty, dims) {
            _ if p.optional => None,
            (ValueType::Tensor(DType::String), Some(dims)) => {
                let n = planish_rt::object::elements(&dims).filter(|&n| n < 1 << 32);
                let Some(n) = n else { return input(format!("the input {:?} is too large", p.name)) };
                Some(Arc::new(Object::Strings { dims, data: vec![String::from("a"); n as usize] }))
            }
            (ValueType::Tensor(d), Some(dims)) => {
                let mut t = Tensor::zeros(*d, &dims)?;
                match d {
                    DType::F32 => {
                        t.data.chunks_exact_mut(4).for_each(|c| c.copy_from_slice(&next().to_le_bytes()))
                    }
                    DType::F64 => {
                        t.data
                            .chunks_exact_mut(8)
                            .for_each(|c| c.copy_from_slice(&f64::from(next()).to_le_bytes()));
                    }
                    _ => {}
                }
                Some(Arc::new(Object::Tensor(t)))
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Input,
                    format!("the input {:?} must be given: --input", p.name),
                ));
            }
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, dims: &[Option<i64>]) -> InputPort {
        let dims = Some(dims.to_vec());
        InputPort { name: name.into(), ty: ValueType::Tensor(DType::F32), dims, optional: false }
    }

    fn f32s(dims: &[i64], v: &[f32]) -> Object {
        let data = v.iter().flat_map(|x| x.to_le_bytes()).collect();
        Object::Tensor(Tensor { dtype: DType::F32, dims: dims.to_vec(), data })
    }

    fn scratch(name: &str) -> PathBuf {
        let d = std::env::temp_dir().join(format!("planish-main-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&d);
        std::fs::create_dir_all(&d).expect("folder");
        d
    }

    #[test]
    fn folders_are_read_by_name_and_by_number() {
        let d = scratch("folders");
        let (a, b) = (f32s(&[2], &[1.0, 2.0]), f32s(&[1], &[3.0]));
        std::fs::write(d.join("a%2Fb.npy"), npy::write(&a).expect("npy")).expect("written");
        std::fs::write(d.join("input_1.pb"), pb::write(&b, &ValueType::Tensor(DType::F32), ""))
            .expect("written");
        let ports = [port("a/b", &[None]), port("y", &[None])];
        let args = InputArgs { from: Some(d.clone()), ..Default::default() };
        let s = load(&args, &ports).expect("loads");
        assert_eq!(s.len(), 1);
        assert_eq!(s[0].values, [Some(Arc::new(a.clone())), Some(Arc::new(b))]);
        let missing = [port("a/b", &[None]), port("y", &[None]), port("z", &[])];
        assert!(load(&args, &missing).expect_err("missing").message.contains("\"z\" is missing"));
        for k in [10, 2] {
            let set = d.join(format!("test_data_set_{k}"));
            std::fs::create_dir_all(&set).expect("folder");
            std::fs::write(set.join("input_0.npy"), npy::write(&f32s(&[1], &[k as f32])).expect("npy"))
                .expect("written");
        }
        let s = load(&args, &[port("x", &[None])]).expect("loads");
        assert_eq!(
            s.iter().map(|s| s.name.clone().expect("named")).collect::<Vec<_>>(),
            ["test_data_set_2", "test_data_set_10"]
        );
        std::fs::remove_dir_all(&d).expect("removed");
    }

    #[test]
    fn raw_files_take_their_shape_from_the_model() {
        let d = scratch("raw");
        let path = d.join("x.bin");
        std::fs::write(&path, [0u8; 24]).expect("written");
        let read =
            |dims: &[Option<i64>]| read_value(&path, &port("x", dims)).map(|o| o.dims().map(<[i64]>::to_vec));
        assert_eq!(read(&[Some(2), None]), Ok(Some(vec![2, 3])));
        assert_eq!(read(&[Some(6)]), Ok(Some(vec![6])));
        assert!(read(&[Some(5)]).is_err() && read(&[Some(4), None]).is_err() && read(&[None, None]).is_err());
        std::fs::remove_dir_all(&d).expect("removed");
    }

    #[test]
    fn arrays_are_cut_into_samples() {
        let all = f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(slice(&all, 1, &port("x", &[None])), f32s(&[2], &[3.0, 4.0]));
        assert_eq!(slice(&all, 0, &port("x", &[Some(1), Some(2)])), f32s(&[1, 2], &[1.0, 2.0]));
    }

    #[test]
    fn arguments_are_split_at_the_first_mark() {
        assert_eq!(split_input("a=b=@c=@d").expect("splits"), ("a=b".into(), PathBuf::from("c=@d")));
        assert!(split_input("a=b").is_err());
    }
}
