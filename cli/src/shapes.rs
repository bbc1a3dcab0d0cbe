//! SHAPES: dims fixed from outside, with `--shape NAME:1x3x224x224` and `--set SYMBOL=8`.

use crate::failure::{Failure, Result};
use planish_onnx::proto::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use planish_onnx::proto::{ModelProto, TensorShapeProto, ValueInfoProto, type_proto};
use std::collections::{BTreeMap, BTreeSet};

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Shapes")]
pub struct ShapeArgs {
    /// The dims of an input (split at the last `:`)
    #[arg(long, value_name = "NAME:1x3x224x224")]
    pub shape: Vec<String>,
    /// The value of a symbol: a number, a range `1..32`, or several values `1,8`; `batch` is axis 0 of all inputs
    #[arg(long, value_name = "SYMBOL=8")]
    pub set: Vec<String>,
}

/// What a symbol is set to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Setting {
    /// One value.
    One(i64),
    /// Both ends included.
    Range(i64, i64),
    /// A variant for each.
    Many(Vec<i64>),
    /// Free, but one of these, ascending.
    Among(Vec<i64>),
}

/// Parsed options.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shapes {
    /// Dims by input name; `None` leaves a dim as it is.
    pub shapes: BTreeMap<String, Vec<Option<i64>>>,
    /// Settings by symbol.
    pub set: BTreeMap<String, Setting>,
}

impl Shapes {
    /// Reads the options.
    pub fn parse(args: &ShapeArgs) -> Result<Shapes> {
        let mut out = Shapes::default();
        for text in &args.shape {
            let (name, dims) = text.rsplit_once(':').ok_or_else(|| {
                Failure::usage(format!("--shape {text:?} has no `:`: NAME:1x3x224 is needed"))
            })?;
            let dim = |d: &str| match d {
                "?" | "-1" => Some(None),
                d => d.parse::<i64>().ok().filter(|v| *v >= 0).map(Some),
            };
            let dims: Option<Vec<Option<i64>>> =
                if dims.is_empty() { Some(Vec::new()) } else { dims.split('x').map(dim).collect() };
            let dims = dims.ok_or_else(|| {
                Failure::usage(format!("--shape {text:?}: dims are numbers with `x` between them"))
            })?;
            if out.shapes.insert(name.to_owned(), dims).is_some() {
                return Err(Failure::usage(format!("--shape names {name:?} twice")));
            }
        }
        for text in &args.set {
            let (name, value) = text
                .rsplit_once('=')
                .ok_or_else(|| Failure::usage(format!("--set {text:?} has no `=`: SYMBOL=8 is needed")))?;
            let setting = setting(value).ok_or_else(|| {
                Failure::usage(format!(
                    "--set {text:?}: {value:?} is no number, no range 1..32 and no list 1,8"
                ))
            })?;
            if out.set.insert(name.to_owned(), setting).is_some() {
                return Err(Failure::usage(format!("--set names {name:?} twice")));
            }
        }
        Ok(out)
    }
    /// The names of the symbols that have several values, in the order of [`Shapes::variants`].
    pub fn several(&self) -> Vec<&str> {
        let many = self.set.iter().filter(|(_, s)| matches!(s, Setting::Many(_)));
        many.map(|(n, _)| n.as_str()).collect()
    }
    /// The number of [`Shapes::variants`].
    pub fn count(&self) -> usize {
        let of = |s: &Setting| if let Setting::Many(v) = s { v.len() } else { 1 };
        self.set.values().map(of).fold(1, usize::saturating_mul)
    }
    /// The same with several values in ascending order, each once.
    #[must_use]
    pub fn ordered(mut self) -> Shapes {
        for s in self.set.values_mut() {
            if let Setting::Many(v) = s {
                v.sort_unstable();
                v.dedup();
            }
        }
        self
    }
    /// The same with symbols of several values left free: they may have only these.
    #[must_use]
    pub fn freed(mut self) -> Shapes {
        for s in self.set.values_mut() {
            if let Setting::Many(v) = s {
                *s = Setting::Among(std::mem::take(v));
            }
        }
        self
    }
    /// Every combination of the symbols that have several values, in order, each with its label (`batch=1`); one
    /// entry with an empty label if none has.
    pub fn variants(&self) -> Vec<(String, Shapes)> {
        let mut out = vec![(String::new(), self.clone())];
        for (name, setting) in &self.set {
            let Setting::Many(values) = setting else { continue };
            let mut next = Vec::new();
            for (label, shapes) in &out {
                for v in values {
                    let mut shapes = shapes.clone();
                    shapes.set.insert(name.clone(), Setting::One(*v));
                    let comma = if label.is_empty() { "" } else { "," };
                    next.push((format!("{label}{comma}{name}={v}"), shapes));
                }
            }
            out = next;
        }
        out
    }
    /// Fixes dims in a model before it is imported. Ranges are left to [`Shapes::ranges`].
    pub fn apply(&self, model: &mut ModelProto) -> Result<()> {
        if let Some((name, _)) = self.set.iter().find(|(_, s)| matches!(s, Setting::Many(_))) {
            let text = format!("--set {name} gives several values, which only `compile` and `bench` take");
            return Err(Failure::usage(text));
        }
        let Some(graph) = &mut model.graph else { return Ok(()) };
        let constants: BTreeSet<String> = graph.initializer.iter().map(|t| t.name().to_owned()).collect();
        let mut inputs: Vec<&mut ValueInfoProto> =
            graph.input.iter_mut().filter(|i| !constants.contains(i.name())).collect();
        let names: Vec<String> = inputs.iter().map(|i| format!("{:?}", i.name())).collect();
        for (name, dims) in &self.shapes {
            let input = inputs.iter_mut().find(|i| i.name() == name).ok_or_else(|| {
                let text = format!("the model has no input {name:?}; its inputs are {}", names.join(", "));
                Failure::new("input-unknown", text)
            })?;
            reshape(input, dims)?;
        }
        let symbols = symbols_of(&inputs);
        let mut fixed = self.fixed();
        if let Some(v) = fixed.get("batch").copied()
            && !symbols.contains("batch")
        {
            fixed.remove("batch");
            let mut used = false;
            for input in &inputs {
                if let Some(Some(first)) = dim_names(input).into_iter().next() {
                    used = true;
                    if *fixed.entry(first.clone()).or_insert(v) != v {
                        return Err(Failure::usage(format!(
                            "batch={v} contradicts {first}={}",
                            fixed[&first]
                        )));
                    }
                }
            }
            if !used {
                return Err(no_batch());
            }
        }
        if matches!(self.set.get("batch"), Some(Setting::Among(_))) && !symbols.contains("batch") {
            join_first_axes(&mut inputs)?;
        }
        for name in self.set.keys().filter(|n| *n != "batch" || symbols.contains("batch")) {
            if !symbols.contains(name) {
                let known: Vec<&str> = symbols.iter().map(String::as_str).collect();
                let text = format!("the model has no symbol {name:?}; its symbols are {}", known.join(", "));
                return Err(Failure::new("symbol-unknown", text));
            }
        }
        for input in &mut inputs {
            let names = dim_names(input);
            let Some(shape) = shape_of(input) else { continue };
            for (dim, name) in shape.dim.iter_mut().zip(names) {
                if let Some(v) = name.and_then(|n| fixed.get(&n)) {
                    dim.value = Some(DimValue::DimValue(*v));
                }
            }
        }
        Ok(())
    }
    fn fixed(&self) -> BTreeMap<String, i64> {
        let one = |(n, s): (&String, &Setting)| match s {
            Setting::One(v) => Some((n.clone(), *v)),
            _ => None,
        };
        self.set.iter().filter_map(one).collect()
    }
    /// The ranges given, also those of lists of values.
    pub fn ranges(&self) -> impl Iterator<Item = (&str, i64, i64)> {
        self.set.iter().filter_map(|(n, s)| match s {
            Setting::Range(a, b) => Some((n.as_str(), *a, *b)),
            Setting::Among(v) => Some((n.as_str(), *v.first()?, *v.last()?)),
            _ => None,
        })
    }
}

fn setting(text: &str) -> Option<Setting> {
    let number = |t: &str| t.trim().parse::<i64>().ok().filter(|v| *v >= 0);
    if let Some((a, b)) = text.split_once("..") {
        let (a, b) = (number(a)?, number(b)?);
        return (a <= b).then_some(Setting::Range(a, b));
    }
    if text.contains(',') {
        return Some(Setting::Many(text.split(',').map(number).collect::<Option<Vec<i64>>>()?));
    }
    number(text).map(Setting::One)
}

fn shape_of(input: &mut ValueInfoProto) -> Option<&mut TensorShapeProto> {
    match input.r#type.as_mut()?.value.as_mut()? {
        type_proto::Value::TensorType(t) => t.shape.as_mut(),
        _ => None,
    }
}

/// The name of each dim of an input: its symbol, or none for a number.
fn dim_names(input: &ValueInfoProto) -> Vec<Option<String>> {
    let Some(type_proto::Value::TensorType(t)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Vec::new();
    };
    let own = |axis: usize| Some(format!("{}.{axis}", input.name()));
    let name = |(axis, d): (usize, &Dimension)| match &d.value {
        None | Some(DimValue::DimValue(-1)) => own(axis),
        Some(DimValue::DimValue(_)) => None,
        Some(DimValue::DimParam(p)) => match p.trim() {
            "" | "?" | "-1" => own(axis),
            p => Some(p.to_owned()),
        },
    };
    t.shape.iter().flat_map(|s| s.dim.iter().enumerate().map(name)).collect()
}

fn no_batch() -> Failure {
    Failure::new("symbol-unknown", "no input has a free axis 0 for --set batch")
}

/// Makes the free first axes of all inputs one symbol: they have the same value.
fn join_first_axes(inputs: &mut [&mut ValueInfoProto]) -> Result<()> {
    let first: BTreeSet<String> =
        inputs.iter().filter_map(|i| dim_names(i).into_iter().next().flatten()).collect();
    match first.len() {
        0 => return Err(no_batch()),
        1 => return Ok(()),
        _ => {}
    }
    for input in inputs {
        let names = dim_names(input);
        let Some(shape) = shape_of(input) else { continue };
        for (dim, name) in shape.dim.iter_mut().zip(names) {
            if name.is_some_and(|n| first.contains(&n)) {
                dim.value = Some(DimValue::DimParam("batch".into()));
            }
        }
    }
    Ok(())
}

fn symbols_of(inputs: &[&mut ValueInfoProto]) -> BTreeSet<String> {
    inputs.iter().flat_map(|i| dim_names(i)).flatten().collect()
}

fn reshape(input: &mut ValueInfoProto, dims: &[Option<i64>]) -> Result<()> {
    let name = input.name().to_owned();
    let mut ty = input.r#type.as_mut();
    let tensor = loop {
        ty = match ty.and_then(|t| t.value.as_mut()) {
            Some(type_proto::Value::TensorType(t)) => break t,
            Some(type_proto::Value::SequenceType(s)) => s.elem_type.as_deref_mut(),
            Some(type_proto::Value::OptionalType(o)) => o.elem_type.as_deref_mut(),
            _ => return Err(Failure::usage(format!("--shape: the input {name:?} holds no tensor"))),
        };
    };
    let shape =
        tensor.shape.get_or_insert_with(|| TensorShapeProto { dim: vec![Dimension::default(); dims.len()] });
    if shape.dim.len() != dims.len() {
        let text = format!("--shape gives {} dims to {name:?}, which has {}", dims.len(), shape.dim.len());
        return Err(Failure::new("input-mismatch", text));
    }
    for (axis, (dim, wanted)) in shape.dim.iter_mut().zip(dims).enumerate() {
        let Some(v) = wanted else { continue };
        if let Some(DimValue::DimValue(have)) = &dim.value
            && *have >= 0
            && have != v
        {
            let text = format!("--shape sets axis {axis} of {name:?} to {v}, but the model says {have}");
            return Err(Failure::new("input-mismatch", text));
        }
        dim.value = Some(DimValue::DimValue(*v));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_onnx::proto::{GraphProto, TypeProto};

    fn model(inputs: &[(&str, &[&str])]) -> ModelProto {
        let dim = |d: &&str| Dimension {
            value: match d.parse::<i64>() {
                Ok(v) => Some(DimValue::DimValue(v)),
                Err(_) => Some(DimValue::DimParam((*d).to_owned())),
            },
            ..Dimension::default()
        };
        let input = |(name, dims): &(&str, &[&str])| ValueInfoProto {
            name: Some((*name).to_owned()),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                    elem_type: Some(1),
                    shape: Some(TensorShapeProto { dim: dims.iter().map(dim).collect() }),
                })),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        };
        let graph = GraphProto { input: inputs.iter().map(input).collect(), ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    fn applied(
        m: &ModelProto,
        shape: &[&str],
        set: &[&str],
    ) -> std::result::Result<Vec<String>, &'static str> {
        let own = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect();
        let shapes =
            Shapes::parse(&ShapeArgs { shape: own(shape), set: own(set) }).map_err(|f| f.diags[0].id)?;
        let mut m = m.clone();
        shapes.apply(&mut m).map_err(|f| f.diags[0].id)?;
        let shown = |i: &ValueInfoProto| {
            let mut i = i.clone();
            let dims = shape_of(&mut i).map(|s| s.dim.clone()).unwrap_or_default();
            let one = |d: &Dimension| match &d.value {
                Some(DimValue::DimValue(v)) => v.to_string(),
                Some(DimValue::DimParam(p)) => p.clone(),
                None => "?".into(),
            };
            dims.iter().map(one).collect::<Vec<_>>().join("x")
        };
        Ok(m.graph.iter().flat_map(|g| &g.input).map(shown).collect())
    }

    #[test]
    fn symbols_are_fixed_by_name_axis_or_batch() {
        let m = model(&[("x:0", &["N", "3", "-1"]), ("y", &["N", "?"])]);
        let ok = |v: &[&str]| Ok(v.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(applied(&m, &[], &["N=2"]), ok(&["2x3x-1", "2x?"]));
        assert_eq!(applied(&m, &[], &["x:0.2=5"]), ok(&["Nx3x5", "Nx?"]));
        assert_eq!(applied(&m, &[], &["batch=4"]), ok(&["4x3x-1", "4x?"]));
        assert_eq!(applied(&m, &["x:0:1x3x7"], &[]), ok(&["1x3x7", "Nx?"]));
        assert_eq!(applied(&m, &["x:0:1x4x7"], &[]), Err("input-mismatch"));
        assert_eq!(applied(&m, &["q:1"], &[]), Err("input-unknown"));
        assert_eq!(applied(&m, &[], &["M=1"]), Err("symbol-unknown"));
        assert_eq!(applied(&m, &[], &["M"]), Err("usage"));
    }

    #[test]
    fn several_values_make_variants() {
        let args =
            ShapeArgs { shape: Vec::new(), set: vec!["batch=1,8".into(), "n=2".into(), "m=3..4".into()] };
        let shapes = Shapes::parse(&args).unwrap_or_else(|f| panic!("{}", f.message()));
        let labels: Vec<String> = shapes.variants().into_iter().map(|(l, _)| l).collect();
        assert_eq!(labels, ["batch=1", "batch=8"]);
        assert_eq!(shapes.ranges().collect::<Vec<_>>(), [("m", 3, 4)]);
        assert_eq!((shapes.several(), shapes.count()), (vec!["batch"], 2));
        let free = shapes.ordered().freed();
        assert_eq!(free.ranges().collect::<Vec<_>>(), [("batch", 1, 8), ("m", 3, 4)]);
        assert_eq!((free.several(), free.count()), (Vec::new(), 1));
    }

    #[test]
    fn several_values_of_the_batch_join_the_first_axes() {
        let free = |m: &ModelProto| {
            let args = ShapeArgs { shape: Vec::new(), set: vec!["batch=8,1,8".into()] };
            let shapes = Shapes::parse(&args).map_err(|f| f.diags[0].id)?.ordered().freed();
            let mut m = m.clone();
            shapes.apply(&mut m).map_err(|f| f.diags[0].id)?;
            let mut inputs = m.graph.map(|g| g.input).unwrap_or_default();
            Ok::<_, &'static str>(symbols_of(&inputs.iter_mut().collect::<Vec<_>>()))
        };
        let names = |v: &[&str]| Ok(v.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>());
        assert_eq!(free(&model(&[("x", &["N", "3", "M"]), ("y", &["N", "4"])])), names(&["M", "N"]));
        assert_eq!(free(&model(&[("x", &["?", "N"]), ("y", &["N", "4"])])), names(&["batch"]));
        assert_eq!(free(&model(&[("x", &["3", "N"])])), Err("symbol-unknown"));
    }
}
