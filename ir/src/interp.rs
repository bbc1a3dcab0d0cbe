//! The reference interpreter: runs [`crate::op::OpDef::eval`] node by node. Shares no code with lowering.

use crate::constant::{ConstId, Constant};
use crate::diag::Diag;
use crate::dim::SymId;
use crate::engine::{Engine, PrepareOptions, Program, RunResult, Session, bind_inputs};
use crate::graph::{Fact, Graph, NodeId, RegionId, ValueId};
use crate::op::{EvalCx, EvalEnv};
use crate::tensor::{Tensor, Value};
use crate::types::{TensorType, Type};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The interpreter as an engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interpreter;

impl Engine for Interpreter {
    fn name(&self) -> &'static str {
        "interp"
    }
    fn prepare(&self, graph: &Graph, options: &PrepareOptions) -> Result<Box<dyn Program>, Vec<Diag>> {
        Ok(Box::new(InterpProgram { graph: Arc::new(graph.clone()), options: options.clone() }))
    }
}

struct InterpProgram {
    graph: Arc<Graph>,
    options: PrepareOptions,
}

impl Program for InterpProgram {
    fn session(&self) -> Result<Box<dyn Session>, Diag> {
        Ok(Box::new(InterpSession {
            graph: self.graph.clone(),
            options: self.options.clone(),
            state: BTreeMap::new(),
            seed: self.options.seed,
        }))
    }
}

struct InterpSession {
    graph: Arc<Graph>,
    options: PrepareOptions,
    state: BTreeMap<u32, Value>,
    seed: u64,
}

impl Session for InterpSession {
    fn run(&mut self, inputs: &[Option<Value>]) -> Result<RunResult, Diag> {
        let g = self.graph.clone();
        let mut args = Vec::new();
        for i in 0..g.inputs().len().max(inputs.len()) {
            let given = inputs.get(i).cloned().flatten();
            match given.or_else(|| self.state.get(&(i as u32)).cloned()) {
                Some(v) => args.push(v),
                None => args.push(initial_state(&g, i, inputs)?),
            }
        }
        let symbols = bind_inputs(&g, &args.iter().collect::<Vec<_>>())?;
        let mut run = Run {
            graph: &g,
            symbols,
            options: &self.options,
            counters: BTreeMap::new(),
            steps: 0,
            random: self.seed,
            taps: HashMap::new(),
        };
        let values = run.region(g.root(), args)?;
        self.seed = run.random;
        let mut taps = Vec::new();
        for t in &self.options.taps {
            taps.push(
                run.taps
                    .remove(t)
                    .ok_or_else(|| Diag::error("tap-missing", format!("{t} was not computed")))?,
            );
        }
        let counters = run.counters;
        for s in &g.states {
            self.state.insert(s.input, values[s.output as usize].clone());
        }
        Ok(RunResult { values, counters, taps })
    }
    fn state(&self, input: usize) -> Result<Option<Value>, Diag> {
        Ok(self.state.get(&(input as u32)).cloned())
    }
    fn reset(&mut self) {
        self.state.clear();
        self.seed = self.options.seed;
    }
}

/// Zeros for a state input of `g` that nobody has given. Its dims follow from the other inputs. Where they do not say, a
/// dim is 0 if each run makes it longer, as in a cache, else 1, as near as its range allows.
pub fn initial_state(g: &Graph, i: usize, inputs: &[Option<Value>]) -> Result<Value, Diag> {
    let missing = || Diag::error("input-missing", format!("input #{i} is not given"));
    if !g.states.iter().any(|s| s.input as usize == i) {
        return Err(missing());
    }
    let ty = g.ty(*g.inputs().get(i).ok_or_else(missing)?).as_tensor().ok_or_else(missing)?.clone();
    let mut bound = BTreeMap::new();
    for (v, value) in g.inputs().iter().zip(inputs) {
        if let (Some(Value::Tensor(t)), Some(dims)) = (value, g.dims(*v)) {
            for (d, n) in dims.iter().zip(t.shape()) {
                d.as_symbol().map(|s| bound.insert(s, *n as i64));
            }
        }
    }
    let output =
        g.states.iter().find(|s| s.input as usize == i).and_then(|s| g.outputs().get(s.output as usize));
    let next = output.and_then(|v| g.dims(*v)).unwrap_or(&[]);
    let grows = |s: SymId| next.iter().any(|d| d.as_symbol() != Some(s) && d.symbols().contains(&s));
    let first = |s: SymId| {
        let (symbol, guess) = (g.symbols.get(s), i64::from(!grows(s)));
        symbol.max.map_or(guess, |max| guess.min(max)).max(symbol.min)
    };
    let shape: Option<Vec<usize>> = ty
        .dims()?
        .iter()
        .map(|d| d.eval(&|s| bound.get(&s).copied().or(Some(first(s)))).and_then(|v| usize::try_from(v).ok()))
        .collect();
    let zero = Tensor::scalar(ty.dtype, 0.0)?;
    Ok(Constant::splat(&zero, shape.ok_or_else(missing)?)?.decode()?.into())
}

/// Evaluates one node on concrete operands, for constant folding. Nodes with regions work too.
pub fn eval_node(
    graph: &Graph,
    node: NodeId,
    inputs: Vec<Option<Value>>,
    max_steps: u64,
) -> Result<Vec<Value>, Diag> {
    let options = PrepareOptions { max_steps: Some(max_steps), ..PrepareOptions::default() };
    let mut run = Run {
        graph,
        symbols: BTreeMap::new(),
        options: &options,
        counters: BTreeMap::new(),
        steps: 0,
        random: 0,
        taps: HashMap::new(),
    };
    run.node(node, inputs)
}

struct Run<'g> {
    graph: &'g Graph,
    /// The symbols that the inputs bind, and those in the dims of operands that nodes have had.
    symbols: BTreeMap<SymId, i64>,
    options: &'g PrepareOptions,
    counters: BTreeMap<String, u64>,
    steps: u64,
    random: u64,
    taps: HashMap<ValueId, Value>,
}

impl Run<'_> {
    fn region(&mut self, r: RegionId, args: Vec<Value>) -> Result<Vec<Value>, Diag> {
        let g = self.graph;
        let region = g.region(r);
        if args.len() != region.params.len() {
            return Err(Diag::error(
                "arity",
                format!("{r} takes {} values, not {}", region.params.len(), args.len()),
            ));
        }
        let mut env: HashMap<ValueId, (Value, usize)> = HashMap::new();
        for (p, v) in region.params.iter().zip(args) {
            self.tap(*p, &v);
            env.insert(*p, (v, g.uses(*p).len()));
        }
        for n in g.nodes_in(r) {
            let node = g.node(n);
            let mut inputs = Vec::with_capacity(node.inputs.len());
            for v in &node.inputs {
                inputs.push(match v {
                    None => None,
                    Some(v) => Some(fetch(&mut env, *v)?),
                });
            }
            let outputs = self.node(n, inputs).map_err(|d| d.at(node.loc.clone()))?;
            for (v, value) in node.outputs.iter().zip(outputs) {
                self.tap(*v, &value);
                let uses = g.uses(*v).len();
                if uses > 0 {
                    env.insert(*v, (value, uses));
                }
            }
        }
        region.results.iter().map(|v| fetch(&mut env, *v)).collect()
    }
    fn tap(&mut self, v: ValueId, value: &Value) {
        if self.options.taps.contains(&v) {
            self.taps.insert(v, value.clone());
        }
    }
    fn node(&mut self, n: NodeId, inputs: Vec<Option<Value>>) -> Result<Vec<Value>, Diag> {
        let node = self.graph.node(n);
        for (v, value) in node.inputs.iter().zip(&inputs) {
            let (Some(v), Some(Value::Tensor(t))) = (v, value) else { continue };
            for (d, size) in self.graph.dims(*v).unwrap_or_default().iter().zip(t.shape()) {
                if let Some(s) = d.as_symbol() {
                    self.symbols.insert(s, *size as i64);
                }
            }
        }
        let mut env = NodeEnv { run: self, node: n };
        let outputs = node.op.eval(&mut EvalCx { inputs, env: &mut env })?;
        if outputs.len() != node.outputs.len() {
            return Err(Diag::error(
                "internal-eval",
                format!("`{}` gave {} results, not {}", node.op.name(), outputs.len(), node.outputs.len()),
            ));
        }
        Ok(outputs)
    }
}

/// The value, taken out of the environment by its last user.
fn fetch(env: &mut HashMap<ValueId, (Value, usize)>, v: ValueId) -> Result<Value, Diag> {
    let gone = || Diag::error("internal-eval", format!("{v} is not available"));
    let (value, uses) = env.get_mut(&v).ok_or_else(gone)?;
    *uses -= 1;
    if *uses == 0 { env.remove(&v).map(|(v, _)| v).ok_or_else(gone) } else { Ok(value.clone()) }
}

struct NodeEnv<'r, 'g> {
    run: &'r mut Run<'g>,
    node: NodeId,
}

impl EvalEnv for NodeEnv<'_, '_> {
    fn constant(&self, id: ConstId) -> Result<Arc<Constant>, Diag> {
        let c = self.run.graph.find_constant(id).cloned();
        c.ok_or_else(|| Diag::error("constant-missing", format!("no constant {id}")))
    }
    fn run_region(&mut self, index: usize, args: Vec<Value>) -> Result<Vec<Value>, Diag> {
        let node = self.run.graph.node(self.node);
        let r = node.regions.get(index).ok_or_else(|| Diag::error("arity", format!("no region {index}")))?;
        self.run.region(*r, args)
    }
    fn count(&mut self, counter: &str, amount: u64) {
        *self.run.counters.entry(counter.to_owned()).or_insert(0) += amount;
    }
    fn step(&mut self) -> Result<(), Diag> {
        self.run.steps += 1;
        match self.run.options.max_steps {
            Some(max) if self.run.steps > max => {
                Err(Diag::error("step-limit", format!("more than {max} loop iterations (--max-steps)")))
            }
            _ => Ok(()),
        }
    }
    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.run.random = self.run.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.run.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn out_fact(&self, index: usize) -> Option<Fact> {
        let node = self.run.graph.node(self.node);
        let mut fact = node.outputs.get(index).map(|v| self.run.graph.value(*v).fact.clone())?;
        if let Type::Tensor(TensorType { shape: Some(shape), .. }) = &mut fact.ty {
            for d in shape {
                if let Some(v) = d.eval(&|s| self.run.symbols.get(&s).copied()) {
                    *d = v.into();
                }
            }
        }
        Some(fact)
    }
}

/// Runs a graph once with the interpreter: a convenience for tests and checks.
pub fn run(graph: &Graph, inputs: Vec<Value>) -> Result<RunResult, Diag> {
    let inputs: Vec<_> = inputs.into_iter().map(Some).collect();
    let program = Interpreter.prepare(graph, &PrepareOptions::default()).map_err(first)?;
    program.session()?.run(&inputs)
}

fn first(mut v: Vec<Diag>) -> Diag {
    if v.is_empty() { Diag::error("internal-eval", "no reason given") } else { v.swap_remove(0) }
}
