//! The outputs of a run: files, and comparison with expected ones.
use crate::files::{self, Result, encode_name, input, within};
use crate::{npy, pb};
use planish_rt::plan::ValueType;
use planish_rt::{DType, Object, Tensor};
use std::path::Path;
use std::sync::Arc;

/// Name and type of an output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutputPort {
    /// Name.
    pub name: String,
    /// Type.
    pub ty: ValueType,
}

/// Writes `output_<i>.npy` for tensors, with `pb` also `output_<i>.pb`, with `named` `NAME.npy`. What is no tensor is
/// always written as `output_<i>.pb`.
pub fn write(dir: &Path, ports: &[OutputPort], values: &[Arc<Object>], pb: bool, named: bool) -> Result<()> {
    std::fs::create_dir_all(dir).or_else(|e| input(format!("{}: {e}", dir.display())))?;
    for (i, (port, value)) in ports.iter().zip(values).enumerate() {
        let array = npy::write(value);
        if let Some(bytes) = &array {
            files::write(&dir.join(format!("output_{i}.npy")), bytes)?;
            if named {
                files::write(&dir.join(encode_name(&port.name) + ".npy"), bytes)?;
            }
        }
        if pb || array.is_none() {
            files::write(&dir.join(format!("output_{i}.pb")), &pb::write(value, &port.ty, &port.name))?;
        }
    }
    Ok(())
}

/// One line about a value.
pub fn summary(value: &Object) -> String {
    match value {
        Object::Tensor(t) => {
            let head = format!("{}{:?}", t.dtype, t.dims);
            let Some(v) = floats(t) else { return head };
            let finite: Vec<f64> = v.iter().copied().filter(|x| x.is_finite()).collect();
            let odd = v.len() - finite.len();
            if finite.is_empty() {
                return if odd > 0 { format!("{head} {odd} not finite") } else { head };
            }
            let (lo, hi) = finite.iter().fold((f64::MAX, f64::MIN), |(l, h), &x| (l.min(x), h.max(x)));
            let mean = finite.iter().sum::<f64>() / finite.len() as f64;
            let odd = if odd > 0 { format!(", {odd} not finite") } else { String::new() };
            format!("{head} min {lo:.6} max {hi:.6} mean {mean:.6}{odd}")
        }
        Object::Strings { dims, data } => {
            format!("string{dims:?} {:?}", data.iter().take(4).collect::<Vec<_>>())
        }
        Object::Sequence(v) => format!("sequence of {}", v.len()),
        Object::Optional(Some(v)) => format!("optional {}", summary(v)),
        Object::Optional(None) => String::from("optional, empty"),
        Object::Map { keys, .. } => format!("map, keys {}", summary(keys)),
    }
}

/// The elements of a tensor of floats that can be compared with a tolerance.
fn floats(t: &Tensor) -> Option<Vec<f64>> {
    let word = |c: &[u8]| u16::from_le_bytes([c[0], c[1]]);
    Some(match t.dtype {
        DType::F32 => {
            t.data.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]).into()).collect()
        }
        DType::F64 => {
            let of = |c: &[u8]| f64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]);
            t.data.chunks_exact(8).map(of).collect()
        }
        DType::BF16 => {
            t.data.chunks_exact(2).map(|c| f32::from_bits(u32::from(word(c)) << 16).into()).collect()
        }
        DType::F16 => t.data.chunks_exact(2).map(|c| half(word(c))).collect(),
        _ => return None,
    })
}

fn half(h: u16) -> f64 {
    let (exponent, fraction) = (i32::from(h >> 10 & 31), f64::from(h & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1024.0 + fraction) * 2f64.powi(e - 25),
    };
    if h >> 15 == 1 { -size } else { size }
}

/// Allowed difference: `|got - want| <= atol + rtol * |want|`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tolerance {
    /// Relative part.
    pub rtol: f64,
    /// Absolute part.
    pub atol: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Tolerance { rtol: 1e-3, atol: 1e-4 }
    }
}

/// Compares values: floats with a tolerance, all else exactly. What differs first, if anything.
pub fn difference(got: &Object, want: &Object, tol: Tolerance) -> Option<String> {
    match (got, want) {
        (Object::Tensor(a), Object::Tensor(b)) => {
            if a.dtype != b.dtype || a.dims != b.dims {
                return Some(format!("{}{:?} instead of {}{:?}", a.dtype, a.dims, b.dtype, b.dims));
            }
            let (Some(x), Some(y)) = (floats(a), floats(b)) else {
                let size = a.dtype.size().max(1);
                let at = a.data.chunks(size).zip(b.data.chunks(size)).position(|(p, q)| p != q)?;
                let show =
                    |t: &Tensor| t.int(at).map_or_else(|| String::from("other bits"), |v| v.to_string());
                return Some(format!("element {at} is {} instead of {}", show(a), show(b)));
            };
            let close = |p: f64, q: f64| {
                p == q || (p.is_nan() && q.is_nan()) || (p - q).abs() <= tol.atol + tol.rtol * q.abs()
            };
            let wrong: Vec<usize> = (0..x.len()).filter(|&i| !close(x[i], y[i])).collect();
            let worst =
                wrong.iter().copied().max_by(|&i, &j| (x[i] - y[i]).abs().total_cmp(&(x[j] - y[j]).abs()))?;
            Some(format!(
                "{} of {} elements differ; element {worst} is {} instead of {}",
                wrong.len(),
                x.len(),
                x[worst],
                y[worst]
            ))
        }
        (Object::Sequence(a), Object::Sequence(b)) => {
            if a.len() != b.len() {
                return Some(format!("a sequence of {} instead of {}", a.len(), b.len()));
            }
            let inner = |(i, (p, q)): (usize, (&Arc<Object>, &Arc<Object>))| {
                difference(p, q, tol).map(|d| format!("item {i}: {d}"))
            };
            a.iter().zip(b).enumerate().find_map(inner)
        }
        (Object::Optional(Some(a)), Object::Optional(Some(b))) => difference(a, b, tol),
        (Object::Map { keys: k, values: v }, Object::Map { keys: l, values: w }) => {
            difference(k, l, tol).or_else(|| difference(v, w, tol))
        }
        _ => (got != want).then(|| format!("{} instead of {}", summary(got), summary(want))),
    }
}

/// Compares outputs with the files of a folder: `output_<i>.pb`, `output_<i>.npy` or `NAME.npy`. The differences,
/// one line each.
pub fn compare(
    dir: &Path,
    ports: &[OutputPort],
    values: &[Arc<Object>],
    tol: Tolerance,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (i, (port, got)) in ports.iter().zip(values).enumerate() {
        let names = [format!("output_{i}.pb"), format!("output_{i}.npy"), encode_name(&port.name) + ".npy"];
        let Some(path) = names.iter().map(|n| dir.join(n)).find(|p| p.exists()) else {
            return input(format!("{}: no expected value for the output {:?}", dir.display(), port.name));
        };
        let bytes = files::read(&path)?;
        let want = match (&port.ty, path.extension().is_some_and(|e| e == "pb")) {
            (ty, true) => pb::read(&bytes, ty),
            (ValueType::Tensor(d), false) => npy::read(&bytes, *d),
            (ty, false) => input(format!("a {ty} cannot be in a .npy file")),
        };
        if let Some(d) = difference(got, &within(&path, want)?, tol) {
            found.push(format!("output {:?}: {d}", port.name));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(v: &[f32]) -> Object {
        let data = v.iter().flat_map(|x| x.to_le_bytes()).collect();
        Object::Tensor(Tensor { dtype: DType::F32, dims: vec![v.len() as i64], data })
    }

    #[test]
    fn differences_are_found() {
        let tol = Tolerance { rtol: 0.01, atol: 0.0 };
        let nan = f32::NAN;
        assert_eq!(
            difference(&f32s(&[100.0, nan, f32::INFINITY]), &f32s(&[100.5, nan, f32::INFINITY]), tol),
            None
        );
        let d = difference(&f32s(&[100.0, 2.0]), &f32s(&[102.0, 9.0]), tol).expect("differs");
        assert!(d.contains("2 of 2") && d.contains("element 1 is 2 instead of 9"), "{d}");
        assert!(difference(&f32s(&[nan]), &f32s(&[1.0]), tol).is_some());
        assert!(difference(&f32s(&[1.0]), &f32s(&[1.0, 2.0]), tol).is_some());
        let i = |v: i64| Object::Tensor(Tensor::of_i64(vec![], &[v]));
        assert_eq!(difference(&i(5), &i(6), tol).expect("differs"), "element 0 is 5 instead of 6");
    }

    #[test]
    fn halves_decode() {
        for (bits, want) in [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f64.powi(-24)), (0x7bff, 65504.0)] {
            assert_eq!(half(bits), want);
        }
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f64::NEG_INFINITY);
    }

    #[test]
    fn written_outputs_compare_equal() {
        let dir = std::env::temp_dir().join(format!("planish-main-{}-outputs", std::process::id()));
        let seq = ValueType::Sequence(Box::new(ValueType::Tensor(DType::F32)));
        let ports = [
            OutputPort { name: "a/b".into(), ty: ValueType::Tensor(DType::F32) },
            OutputPort { name: "s".into(), ty: seq },
        ];
        let values = [Arc::new(f32s(&[1.0])), Arc::new(Object::Sequence(vec![Arc::new(f32s(&[2.0]))]))];
        write(&dir, &ports, &values, false, true).expect("writes");
        assert!(dir.join("a%2Fb.npy").exists() && dir.join("output_1.pb").exists());
        assert_eq!(compare(&dir, &ports, &values, Tolerance::default()), Ok(vec![]));
        let other = [Arc::new(f32s(&[1.5])), values[1].clone()];
        assert_eq!(compare(&dir, &ports, &other, Tolerance::default()).expect("compares").len(), 1);
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
