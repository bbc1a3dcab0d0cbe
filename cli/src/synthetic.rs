//! Inputs made up for checks and measurements. They respect what the graph says: indices stay inside the axis that
//! they select from, masks keep everything, lengths are not longer than an axis. They are called synthetic wherever
//! a result depends on them.

use crate::failure::{Failure, Result};
use planish_ir::graph::Use;
use planish_ir::tensor::elem_count;
use planish_ir::{DType, Elems, Graph, SymId, Tensor, Type, Value, ValueId};
use std::collections::BTreeMap;

/// A repeatable stream of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream for a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// A number in `0..n`; 0 if `n` is.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64 }
    }
    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Sizes for symbols that nobody has set, tried in this order: what one model refuses another needs.
pub const SIZES: [i64; 4] = [16, 64, 224, 1];

/// Size of the axes of items of containers.
const ITEM_SIZE: i64 = 3;

/// A value for every symbol of the inputs: 1 for those on axis 0, `size` for others, within their ranges.
pub fn symbols(graph: &Graph, size: i64) -> BTreeMap<SymId, i64> {
    let mut out = BTreeMap::new();
    for v in graph.inputs() {
        for (axis, d) in graph.dims(*v).into_iter().flatten().enumerate() {
            for s in d.symbols() {
                let symbol = graph.symbols.get(s);
                let wanted = if axis == 0 { 1 } else { size };
                let value = wanted.max(symbol.min).min(symbol.max.unwrap_or(i64::MAX));
                out.entry(s).or_insert(value);
            }
        }
    }
    out
}

/// Inputs for these values of the symbols.
pub fn inputs(graph: &Graph, symbols: &BTreeMap<SymId, i64>, seed: u64) -> Result<Vec<Value>> {
    let mut random = Random::new(seed);
    let mut out = Vec::new();
    for (i, v) in graph.inputs().iter().enumerate() {
        out.push(value(graph, *v, graph.input_name(i), graph.ty(*v), symbols, &mut random)?);
    }
    Ok(out)
}

fn value(
    graph: &Graph,
    v: ValueId,
    name: &str,
    ty: &Type,
    symbols: &BTreeMap<SymId, i64>,
    random: &mut Random,
) -> Result<Value> {
    match ty {
        Type::Tensor(t) => {
            let unknown = || {
                let text = format!("no synthetic value for the input {name:?}: its shape is not known");
                Failure::new("synthetic-input", text)
            };
            let dims = t.shape.as_ref().ok_or_else(unknown)?;
            let shape: Option<Vec<usize>> = dims
                .iter()
                .map(|d| d.eval(&|s| symbols.get(&s).copied()).and_then(|d| usize::try_from(d).ok()))
                .collect();
            let shape = shape.ok_or_else(unknown)?;
            let count = elem_count(&shape)?;
            if count.saturating_mul(t.dtype.size().max(1)) > 1 << 30 {
                return Err(unknown());
            }
            Ok(Value::Tensor(tensor(graph, v, name, t.dtype, shape, count, symbols, random)?))
        }
        Type::Sequence(item) => {
            let symbols = &with_items(item, symbols);
            let items = vec![
                value(graph, v, name, item, symbols, random)?,
                value(graph, v, name, item, symbols, random)?,
            ];
            Ok(Value::Sequence(item.clone(), items))
        }
        Type::Optional(item) => {
            let symbols = &with_items(item, symbols);
            let inner = value(graph, v, name, item, symbols, random)?;
            Ok(Value::Optional(item.clone(), Some(Box::new(inner))))
        }
        Type::Map(..) => {
            Err(Failure::new("synthetic-input", format!("no synthetic value for the map {name:?}")))
        }
    }
}

/// Sizes for dims that only items of a container have.
fn with_items(item: &Type, symbols: &BTreeMap<SymId, i64>) -> BTreeMap<SymId, i64> {
    let mut all = symbols.clone();
    let dims = item.as_tensor().and_then(|t| t.shape.as_ref());
    for s in dims.into_iter().flatten().flat_map(|d| d.symbols()) {
        all.entry(s).or_insert(ITEM_SIZE);
    }
    all
}

#[allow(clippy::too_many_arguments)]
fn tensor(
    graph: &Graph,
    v: ValueId,
    name: &str,
    dtype: DType,
    shape: Vec<usize>,
    count: usize,
    symbols: &BTreeMap<SymId, i64>,
    random: &mut Random,
) -> Result<Tensor> {
    if dtype == DType::Str {
        let words = (0..count).map(|_| format!("w{}", random.below(100))).collect();
        return Ok(Tensor::from_strings(shape, words)?);
    }
    if dtype.is_float() {
        let values = (0..count).map(|_| random.unit() * 2.0 - 1.0).collect();
        return Ok(Tensor::from_elems(dtype, shape, Elems::F(values))?);
    }
    let lower = name.to_ascii_lowercase();
    let mut make: Box<dyn FnMut(usize) -> i128> = if let Some(n) = index_bound(graph, v, symbols) {
        let n = n.max(1) as u64;
        Box::new(move |_| i128::from(random.below(n)))
    } else if lower.contains("mask") {
        Box::new(|_| 1)
    } else if lower.contains("len") {
        let longest = symbols.values().copied().max().unwrap_or(1);
        Box::new(move |_| i128::from(longest))
    } else if lower.contains("type") || lower.contains("segment") {
        Box::new(|_| 0)
    } else if dtype == DType::Bool {
        Box::new(move |_| i128::from(random.below(2)))
    } else if dtype.size() == 1 && count > 16 {
        let (low, high) = dtype.int_range().unwrap_or((0, 1));
        Box::new(move |_| low + i128::from(random.below((high - low + 1) as u64)))
    } else if count > 4 {
        Box::new(move |_| i128::from(random.below(8)))
    } else {
        Box::new(|_| 1)
    };
    let values = (0..count).map(&mut make).collect();
    Ok(Tensor::from_elems(dtype, shape, Elems::I(values))?)
}

/// The size of the axis that a value selects from, if it reaches a gather as an index: the smallest one.
fn index_bound(graph: &Graph, start: ValueId, symbols: &BTreeMap<SymId, i64>) -> Option<i64> {
    let mut bound: Option<i64> = None;
    let mut work = vec![start];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(v) = work.pop() {
        if seen.len() > 200 || !seen.insert(v) {
            continue;
        }
        for u in graph.uses(v) {
            let Use::Node(n, operand) = *u else { continue };
            let node = graph.node(n);
            let name = node.op.name();
            if name.starts_with("gather") && operand == 1 {
                let dims = node.inputs.first().copied().flatten().and_then(|d| graph.dims(d));
                let axis = axis_of(&node.op).unwrap_or(0);
                let size = dims.and_then(|d| {
                    let at = if axis < 0 { axis + d.len() as i64 } else { axis };
                    d.get(usize::try_from(at).ok()?)?.eval(&|s| symbols.get(&s).copied())
                });
                if let Some(size) = size {
                    bound = Some(bound.map_or(size, |b| b.min(size)));
                }
            } else if operand == 0 && passes_values(name) {
                work.extend(&node.outputs);
            }
        }
    }
    bound
}

fn passes_values(op: &str) -> bool {
    ["cast", "reshape", "squeeze", "unsqueeze", "slice", "transpose", "expand", "identity", "flatten"]
        .contains(&op)
}

/// The field `axis` of an operation, by its text.
fn axis_of(op: &planish_ir::Op) -> Option<i64> {
    let mut text = String::new();
    op.write_attrs(&mut text);
    let at = text.find("axis")?;
    let rest = text[at + 4..].trim_start_matches(['=', ' ']);
    let end = rest.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_even_and_repeatable() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            let x = a.below(10);
            assert_eq!(x, b.below(10));
            counts[x as usize] += 1;
        }
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
        assert!((0..1000).all(|_| (0.0..1.0).contains(&a.unit())));
    }

    #[test]
    fn free_dims_get_sizes() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let text = "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[N,3,H]) {\n  return v0 \"y\"\n}\n";
        let graph = match planish_ir::text::parse(text) {
            Ok(g) => g,
            Err(e) => return Err(e.to_string().into()),
        };
        let got = inputs(&graph, &symbols(&graph, 16), 1).map_err(|f| f.message())?;
        assert_eq!(got[0].tensor()?.shape(), [1, 3, 16]);
        assert!(got[0].tensor()?.to_f64().iter().all(|x| (-1.0..1.0).contains(x)));
        Ok(())
    }
}
