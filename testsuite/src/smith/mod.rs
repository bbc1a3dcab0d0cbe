//! Random valid graphs. A [`Sketch`] is a seed and a list of steps; building it runs one recipe per step, each of
//! which adds operations whose operands it picks from what is there, or makes. Dropping steps leaves a valid graph, so
//! a failure shrinks by dropping steps.
//!
//! Floating-point inputs hold quarters of small integers, and every value knows whether all engines must compute it
//! alike to the bit (`exact`) and how large it can be (`size`). Operations that jump (rounding, comparing, sorting, conversion
//! to integers) take exact values only, so that an honest difference in the last bit never becomes a large one.

use crate::rng::Rng;
use planish_ir::text;
use planish_ir::{DType, Dim, Editor, Graph, Op, RegionId, SymId, Tensor, Type, Value, ValueId};
use std::collections::BTreeMap;

mod arrays;
mod choose;
mod compare;
mod control;
mod dense;
mod elementwise;
mod extremes;
mod patterns;
mod quantised;
mod recipes;
mod special;
mod values;

pub use compare::{Tolerance, compare, tolerance};
pub use recipes::{RECIPES, Recipe};
pub use values::Domain;

/// What a random graph is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sketch {
    /// Decides symbols and input values.
    pub seed: u64,
    /// One recipe each: its number among [`RECIPES`] and the seed of its choices.
    pub steps: Vec<(usize, u64)>,
}

/// A random graph with inputs to run it on.
#[derive(Clone, Debug)]
pub struct Built {
    /// The graph.
    pub graph: Graph,
    /// A value for every input.
    pub inputs: Vec<Tensor>,
    /// For every output, whether all engines must agree on it to the bit.
    pub exact: Vec<bool>,
}

/// A tensor of the graph under construction.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) v: ValueId,
    pub(crate) dtype: DType,
    /// The dims under the binding of the symbols.
    pub(crate) shape: Vec<usize>,
    pub(crate) exact: bool,
    /// A bound on the absolute value of the elements.
    pub(crate) size: f64,
}

impl Item {
    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What is known of the results of an operation beyond their types.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    pub(crate) exact: bool,
    pub(crate) size: f64,
}

/// Values above this are not computed with any further.
const LARGE: f64 = 1e6;
/// The most elements of one tensor.
const MAX_LEN: usize = 4096;

/// A graph under construction.
pub(crate) struct Smith<'g> {
    pub(crate) ed: Editor<'g>,
    pub(crate) rng: Rng,
    pub(crate) pool: Vec<Item>,
    inputs: Vec<Tensor>,
    /// Values that become outputs although the pool does not hold them.
    ends: Vec<(ValueId, bool)>,
    bound: BTreeMap<SymId, i64>,
    symbols: Vec<(SymId, usize)>,
    /// Whether a region was made that no node holds.
    pub(crate) abandoned: bool,
    /// How many regions surround the operations that are being added.
    depth: usize,
}

/// The sketches of a test run, short ones among them: `PLANISH_TEST_GRAPHS` many (300 when it is not set), from seed
/// `PLANISH_TEST_SEED` on.
pub fn sketches() -> impl Iterator<Item = Sketch> {
    let setting = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (count, first) = (setting("PLANISH_TEST_GRAPHS", 300), setting("PLANISH_TEST_SEED", 1));
    (first..first + count).map(|seed| Sketch::random(seed, 1 + Rng::new(seed).below(14)))
}

/// Random values for the inputs of a graph, symbols bound to small numbers; inputs that are no tensors have none.
pub fn inputs_for(graph: &Graph, seed: u64) -> Vec<Value> {
    let mut rng = Rng::new(seed);
    let bound: BTreeMap<SymId, i64> =
        graph.symbols.iter().map(|(id, s)| (id, s.min.max(2) + (seed % 3) as i64)).collect();
    let mut values_of = |v: &ValueId| {
        let ty = graph.ty(*v).as_tensor()?;
        let dims = ty.shape.as_ref()?.iter();
        let shape: Option<Vec<usize>> =
            dims.map(|d| usize::try_from(d.eval(&|s| bound.get(&s).copied())?).ok()).collect();
        Some(values::random_tensor(&mut rng, ty.dtype, &shape?, Domain::Any).into())
    };
    graph.inputs().iter().filter_map(&mut values_of).collect()
}

impl Sketch {
    /// A sketch of `len` steps.
    pub fn random(seed: u64, len: usize) -> Sketch {
        let mut rng = Rng::new(seed);
        Sketch { seed, steps: (0..len).map(|_| (rng.below(RECIPES.len()), rng.bits())).collect() }
    }

    /// The graph. Steps whose recipe finds nothing to do add nothing.
    pub fn build(&self) -> Built {
        let mut graph = Graph::new("random");
        let (inputs, exact, abandoned) = Smith::new(&mut graph, self.seed).run(&self.steps);
        if abandoned {
            // Regions that no node holds do not survive the text.
            let text = text::print(&graph);
            graph =
                text::parse(&text).unwrap_or_else(|why| panic!("a printed graph is not read: {why}\n{text}"));
        }
        Built { graph, inputs, exact }
    }

    /// The smallest sketch found that still fails, by dropping ever fewer steps at a time.
    pub fn shrink(&self, fails: &dyn Fn(&Sketch) -> bool) -> Sketch {
        let mut best = self.clone();
        let mut chunk = best.steps.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            let before = best.steps.len();
            while at < best.steps.len() {
                let mut smaller = best.clone();
                smaller.steps.drain(at..(at + chunk).min(smaller.steps.len()));
                if fails(&smaller) {
                    best = smaller;
                } else {
                    at += chunk;
                }
            }
            if chunk == 1 && best.steps.len() == before {
                return best;
            }
            chunk = (chunk / 2).max(1);
        }
    }
}

impl<'g> Smith<'g> {
    fn new(graph: &'g mut Graph, seed: u64) -> Smith<'g> {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let mut ed = Editor::new(graph);
        let mut symbols = Vec::new();
        let mut bound = BTreeMap::new();
        for name in ["n", "m"] {
            if rng.one_in(2) {
                let id = ed.graph_mut().symbols.named(name);
                let value = values::small_dim(&mut rng);
                symbols.push((id, value));
                bound.insert(id, value as i64);
            }
        }
        Smith {
            ed,
            rng,
            pool: Vec::new(),
            inputs: Vec::new(),
            ends: Vec::new(),
            bound,
            symbols,
            abandoned: false,
            depth: 0,
        }
    }

    /// Runs the steps, then makes every unused value an output.
    fn run(mut self, steps: &[(usize, u64)]) -> (Vec<Tensor>, Vec<bool>, bool) {
        for (recipe, seed) in steps {
            self.rng = Rng::new(*seed);
            self.depth = 0;
            let _ = (RECIPES[recipe % RECIPES.len()].make)(&mut self);
        }
        let unused =
            |v: &ValueId| self.ed.graph().uses(*v).is_empty() && self.ed.graph().def_node(*v).is_some();
        let mut ends: Vec<(ValueId, bool)> =
            self.pool.iter().map(|item| (item.v, item.exact)).chain(self.ends.iter().copied()).collect();
        ends.retain(|(v, _)| unused(v));
        ends.sort();
        ends.dedup();
        if ends.is_empty() {
            ends.extend(self.pool.last().map(|item| (item.v, item.exact)));
        }
        let root = self.ed.graph().root();
        for (v, _) in &ends {
            self.ed.result(root, *v);
        }
        (self.inputs, ends.into_iter().map(|(_, exact)| exact).collect(), self.abandoned)
    }

    /// Adds an operation, given by its name and fields in the text format. Every result joins the pool; operands or
    /// fields that the operation rejects add nothing.
    pub(crate) fn emit(
        &mut self,
        name: &str,
        fields: &[(&str, String)],
        operands: &[Option<&Item>],
        quality: Quality,
    ) -> Option<Vec<Item>> {
        if !quality.size.is_finite() || quality.size > LARGE {
            return None;
        }
        let values: Vec<Option<ValueId>> = operands.iter().map(|item| item.map(|item| item.v)).collect();
        let results = self.emit_values(name, fields, &values)?;
        Some(self.join(&results, quality))
    }

    /// Adds an operation whose results stay out of the pool; `None` when it rejects the operands.
    pub(crate) fn emit_values(
        &mut self,
        name: &str,
        fields: &[(&str, String)],
        operands: &[Option<ValueId>],
    ) -> Option<Vec<ValueId>> {
        let pairs = fields.iter().map(|(field, text)| ((*field).to_owned(), text.clone())).collect();
        let op = match Op::read(name, pairs) {
            Ok(op) => op,
            Err(why) => panic!("the recipe of {name} is wrong: {why}"),
        };
        self.ed.node(op, operands).ok()
    }

    /// Makes a value an output unless something uses it.
    pub(crate) fn output(&mut self, item: &Item) {
        self.ends.push((item.v, item.exact));
    }

    /// Makes values outputs.
    pub(crate) fn only_outputs(&mut self, results: &[ValueId], exact: bool) {
        self.ends.extend(results.iter().map(|v| (*v, exact)));
    }

    /// Puts tensors into the pool, or among the outputs when they are large or no tensors.
    pub(crate) fn keep(&mut self, results: &[ValueId], quality: Quality) {
        self.join(results, quality);
    }

    /// From now on, operations are added to a region inside `depth` - 1 others.
    pub(crate) fn enter(&mut self, region: RegionId, depth: usize) {
        self.ed.at_end(region);
        self.depth = depth;
    }

    /// From now on, operations are added to the graph itself.
    pub(crate) fn leave(&mut self) {
        let root = self.ed.graph().root();
        self.enter(root, 0);
    }

    /// A symbol that stands for this size while the graph is made.
    pub(crate) fn unknown(&mut self, size: usize) -> Dim {
        let symbol = self.ed.graph_mut().symbols.fresh(0, None);
        self.bound.insert(symbol, size as i64);
        Dim::from(symbol)
    }

    fn in_root(&self) -> bool {
        self.depth == 0
    }

    /// [`Smith::emit`] with one result and no omitted operands.
    pub(crate) fn emit1(
        &mut self,
        name: &str,
        fields: &[(&str, String)],
        operands: &[&Item],
        quality: Quality,
    ) -> Option<Item> {
        let operands: Vec<Option<&Item>> = operands.iter().map(|item| Some(*item)).collect();
        self.emit(name, fields, &operands, quality)?.into_iter().next()
    }

    /// Puts the tensors among `results` into the pool, and what cannot be there among the outputs.
    pub(crate) fn join(&mut self, results: &[ValueId], quality: Quality) -> Vec<Item> {
        let mut items = Vec::new();
        for v in results {
            match self.item(*v, quality) {
                Some(item) => {
                    if item.len() <= MAX_LEN {
                        self.pool.push(item.clone());
                    } else if self.in_root() {
                        self.ends.push((*v, quality.exact));
                    }
                    items.push(item);
                }
                None if self.in_root() => self.ends.push((*v, quality.exact)),
                None => {}
            }
        }
        items
    }

    pub(crate) fn item(&mut self, v: ValueId, quality: Quality) -> Option<Item> {
        let ty = self.ed.graph().ty(v).as_tensor()?.clone();
        let shape = match self.shape(v) {
            Some(shape) => shape,
            None if self.in_root() => {
                self.learn(v)?;
                self.shape(v)?
            }
            None => return None,
        };
        Some(Item { v, dtype: ty.dtype, shape, exact: quality.exact, size: quality.size })
    }

    fn shape(&self, v: ValueId) -> Option<Vec<usize>> {
        let dims = self.ed.graph().ty(v).as_tensor()?.shape.as_ref()?.iter();
        dims.map(|dim| dim.eval(&|s| self.bound.get(&s).copied()).and_then(|d| usize::try_from(d).ok()))
            .collect()
    }

    /// Runs the graph as far as this value to learn the dims that only the data decide.
    fn learn(&mut self, v: ValueId) -> Option<()> {
        let mut graph = self.ed.graph().clone();
        let root = graph.root();
        Editor::new(&mut graph).result(root, v);
        let inputs = self.inputs.iter().map(|tensor| Value::from(tensor.clone())).collect();
        let result = planish_ir::interp::run(&graph, inputs).ok()?;
        let Value::Tensor(tensor) = result.values.last()? else { return None };
        let dims = self.ed.graph().ty(v).as_tensor()?.shape.clone()?;
        for (dim, size) in dims.iter().zip(tensor.shape()) {
            if let Some(symbol) = dim.as_symbol() {
                self.bound.insert(symbol, *size as i64);
            }
        }
        Some(())
    }

    /// A tensor of the pool that fits, or a fresh one of this type.
    pub(crate) fn get(&mut self, dtype: DType, shape: &[usize], domain: Domain) -> Item {
        let fits: Vec<usize> = (0..self.pool.len())
            .filter(|i| {
                let item = &self.pool[*i];
                item.dtype == dtype && item.shape == shape && domain.holds(item)
            })
            .collect();
        match self.rng.pick(&fits).copied() {
            Some(i) if !self.rng.one_in(3) => self.pool[i].clone(),
            _ => self.fresh(dtype, shape, domain),
        }
    }

    /// A tensor of the pool for which `ok` holds, or a fresh one with random dims.
    pub(crate) fn some(
        &mut self,
        dtypes: &[DType],
        ok: impl Fn(&Item) -> bool,
        shape: impl FnOnce(&mut Rng) -> Vec<usize>,
    ) -> Item {
        let fits: Vec<usize> = (0..self.pool.len())
            .filter(|i| dtypes.contains(&self.pool[*i].dtype) && ok(&self.pool[*i]))
            .collect();
        if let Some(i) = self.rng.pick(&fits).copied()
            && !self.rng.one_in(4)
        {
            return self.pool[i].clone();
        }
        let dtype = self.rng.choose(dtypes);
        let shape = shape(&mut self.rng);
        self.fresh(dtype, &shape, Domain::Any)
    }

    /// A new input or constant.
    pub(crate) fn fresh(&mut self, dtype: DType, shape: &[usize], domain: Domain) -> Item {
        let tensor = values::random_tensor(&mut self.rng, dtype, shape, domain);
        let quality = Quality { exact: true, size: domain.size() };
        let v = if self.rng.one_in(2) { self.add_input(&tensor) } else { self.constant(tensor.clone()) };
        let item = Item { v, dtype, shape: shape.to_vec(), exact: quality.exact, size: quality.size };
        self.pool.push(item.clone());
        item
    }

    /// A constant outside the pool, for operands such as axes and shapes.
    pub(crate) fn constant(&mut self, tensor: Tensor) -> ValueId {
        match self.ed.constant(tensor) {
            Ok(v) => v,
            Err(why) => panic!("a constant was rejected: {why}"),
        }
    }

    /// A constant of the pool's kind, for weights.
    pub(crate) fn fresh_constant(&mut self, dtype: DType, shape: &[usize], domain: Domain) -> Item {
        let tensor = values::random_tensor(&mut self.rng, dtype, shape, domain);
        let v = self.constant(tensor);
        Item { v, dtype, shape: shape.to_vec(), exact: true, size: domain.size() }
    }

    /// A tensor outside the pool, as an input or a constant.
    pub(crate) fn outside(&mut self, tensor: Tensor) -> Item {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let v = if self.rng.one_in(2) { self.add_input(&tensor) } else { self.constant(tensor) };
        Item { v, dtype, shape, exact: true, size: 0.0 }
    }

    /// A vector of i64 as an operand such as axes and dims: a constant, but now and then known only at run time.
    pub(crate) fn ints(&mut self, values: &[i64]) -> Item {
        self.whole(Tensor::vec_i64(values))
    }

    /// A scalar i64 as an operand, as in [`Smith::ints`].
    pub(crate) fn int(&mut self, value: i64) -> Item {
        self.whole(Tensor::scalar_i64(value))
    }

    fn whole(&mut self, tensor: Tensor) -> Item {
        let shape = tensor.shape().to_vec();
        let v = if self.in_root() && self.rng.one_in(8) {
            let ty = Type::tensor(DType::I64, shape.iter().map(|d| Dim::from(*d)).collect::<Vec<_>>());
            self.input(tensor, ty)
        } else {
            self.constant(tensor)
        };
        Item { v, dtype: DType::I64, shape, exact: true, size: 0.0 }
    }

    fn input(&mut self, tensor: Tensor, ty: Type) -> ValueId {
        let v = self.ed.input(&format!("x{}", self.inputs.len()), ty);
        self.inputs.push(tensor);
        v
    }

    /// An input, some of whose dims are symbols that are bound to the dim.
    fn add_input(&mut self, tensor: &Tensor) -> ValueId {
        let mut dims = Vec::new();
        for size in tensor.shape() {
            let symbol = self.symbols.iter().find(|(_, value)| value == size).map(|(id, _)| *id);
            dims.push(match symbol {
                Some(id) if !self.rng.one_in(3) => Dim::from(id),
                _ => Dim::from(*size),
            });
        }
        self.input(tensor.clone(), Type::tensor(tensor.dtype(), dims))
    }
}
