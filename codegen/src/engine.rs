//! Lowered modules as engines: values of the graph to values of the runtime and back, and the kernel interpreter as a
//! source of kernels. Engines that compile differ from [`KernelInterpreter`] only in the [`Code`] they supply.

use crate::kernel::interp::{self, Arg as InterpArg};
use crate::kernel::{Class, KernelModule, ParamKind, TargetSpec};
use crate::lower::{LowerOptions, Module, lower};
use crate::simt::per_thread;
use planish_ir::graph::Def;
use planish_ir::tensor::MapKeys;
use planish_ir::{
    Diag, Editor, Engine, Graph, PrepareOptions, Program, RunResult, Session, Tensor, Type, Value, ValueId,
};
use planish_rt::exec::{self, Desc, OutputView, SessionOptions};
use planish_rt::kernel::{Code, Ctx, HostKernels};
use planish_rt::object::{Object, Tensor as RtTensor};
use planish_rt::pool::Pool;
use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Runs lowered modules with the kernel interpreter: the reference for back ends.
#[derive(Clone, Debug)]
pub struct KernelInterpreter {
    /// The target that kernels are lowered for.
    pub target: TargetSpec,
}

impl Default for KernelInterpreter {
    fn default() -> Self {
        KernelInterpreter { target: TargetSpec::generic128() }
    }
}

impl Engine for KernelInterpreter {
    fn name(&self) -> &'static str {
        "kinterp"
    }
    fn prepare(&self, graph: &Graph, options: &PrepareOptions) -> Result<Box<dyn Program>, Vec<Diag>> {
        let graph = tapped(graph, &options.taps).map_err(|d| vec![d])?;
        let lowering = LowerOptions { targets: vec![self.target.clone()], ..LowerOptions::default() };
        let module = lower(&graph, &lowering)?;
        ModuleProgram::interpreted(&graph, module, options)
            .map(|p| Box::new(p) as Box<dyn Program>)
            .map_err(|d| vec![d])
    }
}

/// The graph with the values to be reported as its last outputs: what runs is compiled from it, and passes keep them.
pub fn tapped<'g>(graph: &'g Graph, taps: &[ValueId]) -> Result<Cow<'g, Graph>, Diag> {
    if taps.is_empty() {
        return Ok(Cow::Borrowed(graph));
    }
    let mut out = graph.clone();
    for v in taps {
        let region = match graph.value(*v).def {
            Def::Node(n, _) => graph.node(n).region,
            Def::Param(region, _) => region,
        };
        if region != graph.root() {
            return Err(Diag::error("tap-missing", format!("{v} is no value of the root region")));
        }
        Editor::new(&mut out).output(*v, None);
    }
    Ok(Cow::Owned(out))
}

struct Interpreted {
    kernels: KernelModule,
    messages: i32,
}

impl HostKernels for Interpreted {
    unsafe fn launch(&self, kernel: u32, args: &[u64], sizes: &[u64], lo: i64, hi: i64, ctx: &Ctx) {
        let k = &self.kernels.kernels[kernel as usize];
        let mut args: Vec<InterpArg> = k
            .params
            .iter()
            .zip(args.iter().zip(sizes))
            .map(|(p, (a, n))| match p.kind {
                ParamKind::Buffer { .. } => InterpArg::Buf(*a as *mut u8, *n as usize),
                ParamKind::Scalar => InterpArg::Scalar(a.cast_signed()),
            })
            .collect();
        let ran = if let Class::Simt { block } = k.class {
            let mut error = [0i32];
            args.extend([InterpArg::Scalar(lo), InterpArg::Scalar(hi), InterpArg::slice(&mut error)]);
            let threads = block.iter().product();
            let Some(grid) = per_thread::grid((hi - lo).max(0).cast_unsigned(), threads) else {
                panic!("{} blocks of {}", hi - lo, k.name)
            };
            // SAFETY: the caller promises that addresses are valid for their sizes, and the error word lives here.
            unsafe { interp::run_simt(k, &args, grid) }.map(|()| error[0])
        } else {
            // SAFETY: the caller promises that addresses are valid for their sizes.
            unsafe { interp::run_cpu(k, &args, lo, hi) }
        };
        let code = match ran {
            Ok(code) => code,
            // An access outside a buffer is a bug of the lowering: no message of the plan stands for it.
            Err(trap) => panic!("{trap}\n{k}"),
        };
        debug_assert!(code <= self.messages);
        if code != 0 {
            ctx.error.store(code, Ordering::Relaxed);
        }
    }

    fn parallel(&self) -> bool {
        true
    }
}

/// A module with code for its kernels.
pub struct ModuleProgram {
    program: Arc<exec::Program>,
    pool: Option<Arc<Pool>>,
    options: PrepareOptions,
    input_types: Vec<Type>,
    output_types: Vec<Type>,
}

impl ModuleProgram {
    /// Joins a module, code for its kernels (in the order of the plan), and its weights. `graph` is what was lowered; its last
    /// outputs are the taps of `options` ([`tapped`]). `keep` is kept alive as long as the code may be called.
    pub fn new(
        graph: &Graph,
        module: Module,
        code: Code,
        weights: Vec<u8>,
        keep: Box<dyn Any + Send + Sync>,
        options: &PrepareOptions,
    ) -> Result<ModuleProgram, Diag> {
        let len = weights.len();
        let (weights, ptr) = align64(weights);
        let keep: Arc<dyn Any + Send + Sync> = Arc::new((keep, weights));
        // SAFETY: `keep` owns the bytes and whatever the code lives in; the plan and the code come from one module.
        let program = unsafe { exec::Program::new(module.plan, code, ptr, len, Some(keep)) };
        let program = Arc::new(program.map_err(rt_error)?);
        let pool = (options.threads > 1).then(|| Arc::new(Pool::new(options.threads)));
        let types = |list: &[planish_ir::ValueId]| list.iter().map(|v| graph.ty(*v).clone()).collect();
        Ok(ModuleProgram {
            program,
            pool,
            options: options.clone(),
            input_types: types(graph.inputs()),
            output_types: types(graph.outputs()),
        })
    }
}

impl ModuleProgram {
    /// A module whose first variant's kernels are interpreted as they are, so that tests may change them first.
    pub fn interpreted(
        graph: &Graph,
        module: Module,
        options: &PrepareOptions,
    ) -> Result<ModuleProgram, Diag> {
        let kernels = module.variants[0].kernels.clone();
        let code = Code::Host(Arc::new(Interpreted { kernels, messages: module.plan.errors.len() as i32 }));
        let weights = module.weights.to_vec();
        ModuleProgram::new(graph, module, code, weights, Box::new(()), options)
    }
}

/// The bytes moved so that the first has an address that is a multiple of 64, and that address.
fn align64(mut bytes: Vec<u8>) -> (Vec<u8>, *const u8) {
    let len = bytes.len();
    bytes.resize(len + 64, 0);
    let start = bytes.as_ptr().align_offset(64);
    bytes.copy_within(..len, start);
    let ptr = bytes[start..].as_ptr();
    (bytes, ptr)
}

impl Program for ModuleProgram {
    fn session(&self) -> Result<Box<dyn Session>, Diag> {
        let options = SessionOptions {
            pool: self.pool.clone(),
            seed: self.options.seed,
            max_steps: self.options.max_steps.unwrap_or(u64::MAX),
            max_memory: self.options.max_memory.map_or(isize::MAX as usize, |m| m as usize),
            profile: false,
        };
        Ok(Box::new(ModuleSession {
            session: exec::Session::new(self.program.clone(), options),
            program: self.program.clone(),
            taps: self.options.taps.len(),
            input_types: self.input_types.clone(),
            output_types: self.output_types.clone(),
            bound: None,
        }))
    }
}

struct ModuleSession {
    session: exec::Session,
    program: Arc<exec::Program>,
    /// So many of the last outputs were asked for beside those of the model.
    taps: usize,
    input_types: Vec<Type>,
    output_types: Vec<Type>,
    /// What the shapes of the session are bound to, where [`Session::run_for`] did that.
    bound: Option<Vec<Option<Desc>>>,
}

/// The type and the shape of a tensor of bytes, as the runtime has it.
fn desc(v: &Value) -> Option<Desc> {
    let Value::Tensor(t) = v else { return None };
    let dims = t.shape().iter().map(|d| *d as i64).collect();
    (t.dtype() != planish_ir::DType::Str).then(|| Desc { dtype: crate::lower::rt_dtype(t.dtype()), dims })
}

impl Session for ModuleSession {
    fn run(&mut self, inputs: &[Option<Value>]) -> Result<RunResult, Diag> {
        self.bound = None;
        if inputs.len() != self.input_types.len() {
            let text = format!("{} inputs given, the model has {}", inputs.len(), self.input_types.len());
            return Err(Diag::error("input-mismatch", text));
        }
        let objects: Vec<Option<Arc<Object>>> =
            inputs.iter().map(|v| v.as_ref().map(to_object).transpose()).collect::<Result<_, _>>()?;
        let out = self.session.run_values(&objects).map_err(rt_error)?;
        let mut values = out
            .iter()
            .zip(&self.output_types)
            .map(|(o, t)| from_object(o, t))
            .collect::<Result<Vec<_>, _>>()?;
        let names = self.program.plan().counters.iter().cloned();
        let counters: BTreeMap<String, u64> = names.zip(self.session.counters().iter().copied()).collect();
        let taps = values.split_off(values.len().saturating_sub(self.taps));
        Ok(RunResult { values, counters, taps })
    }
    fn run_for(&mut self, inputs: &[Option<Value>], outputs: &[usize]) -> Result<Vec<Value>, Diag> {
        let descs: Vec<Option<Desc>> = inputs.iter().map(|v| v.as_ref().and_then(desc)).collect();
        let dense = descs.iter().zip(inputs).all(|(d, v)| d.is_some() == v.is_some());
        if !dense || inputs.len() != self.input_types.len() {
            return planish_ir::engine::pick(self.run(inputs)?.values, outputs);
        }
        if self.bound.as_ref() != Some(&descs) {
            self.session.bind(&descs).map_err(rt_error)?;
            self.bound = Some(descs);
        }
        for (i, v) in inputs.iter().enumerate() {
            let Some(Value::Tensor(t)) = v else { continue };
            let data = t.bytes();
            // SAFETY: `inputs` outlives the run below, and the addresses are forgotten after it.
            unsafe { self.session.set_input(i, data.as_ptr(), data.len()) }.map_err(rt_error)?;
        }
        let ran = self.session.run().map_err(rt_error);
        self.session.clear_buffers();
        ran?;
        let one = |o: &usize| match (self.session.output(*o), self.output_types.get(*o)) {
            (Some(view), Some(ty)) => from_view(view, ty),
            _ => Err(Diag::error("internal-run", format!("there is no output {o}"))),
        };
        outputs.iter().map(one).collect()
    }
    fn state(&self, input: usize) -> Result<Option<Value>, Diag> {
        let Some(ty) = self.input_types.get(input) else { return Ok(None) };
        self.session.state(input).map(|view| from_view(view, ty)).transpose()
    }
    fn reset(&mut self) {
        self.session.reset();
    }
}

/// An error of the runtime as a diagnostic.
pub fn rt_error(e: planish_rt::error::Error) -> Diag {
    Diag::error("run-failed", e.to_string())
}

/// A value for the runtime.
pub fn to_object(v: &Value) -> Result<Arc<Object>, Diag> {
    let dims = |t: &Tensor| t.shape().iter().map(|d| *d as i64).collect::<Vec<i64>>();
    let o = match v {
        Value::Tensor(t) if t.dtype() == planish_ir::DType::Str => {
            Object::Strings { dims: dims(t), data: t.strings().to_vec() }
        }
        Value::Tensor(t) => Object::Tensor(RtTensor {
            dtype: crate::lower::rt_dtype(t.dtype()),
            dims: dims(t),
            data: t.bytes().to_vec(),
        }),
        Value::Sequence(_, items) => Object::Sequence(items.iter().map(to_object).collect::<Result<_, _>>()?),
        Value::Optional(_, v) => Object::Optional(v.as_deref().map(to_object).transpose()?),
        Value::Map(m) => map_object(m)?,
    };
    Ok(Arc::new(o))
}

fn map_object(m: &MapKeys) -> Result<Object, Diag> {
    let (keys, values): (Object, Vec<&Value>) = match m {
        MapKeys::Int(_, _, map) => {
            let keys: Vec<i64> = map.keys().copied().collect();
            (Object::Tensor(RtTensor::of_i64(vec![keys.len() as i64], &keys)), map.values().collect())
        }
        MapKeys::Str(_, map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            (Object::Strings { dims: vec![keys.len() as i64], data: keys }, map.values().collect())
        }
    };
    let values: Vec<Arc<Object>> = values.into_iter().map(to_object).collect::<Result<_, _>>()?;
    Ok(Object::Map { keys: Arc::new(keys), values: Arc::new(Object::Sequence(values)) })
}

fn from_view(view: OutputView<'_>, ty: &Type) -> Result<Value, Diag> {
    match view {
        OutputView::Dense { dims, data, .. } => {
            let dtype = ty.as_tensor().map(|t| t.dtype);
            let dtype =
                dtype.ok_or_else(|| Diag::error("internal-run", "a tensor where none is declared"))?;
            let shape = dims.iter().map(|d| *d as usize).collect();
            Ok(Tensor::from_bytes(dtype, shape, data.to_vec().into())?.into())
        }
        OutputView::Object(o) => from_object(o, ty),
    }
}

/// A value from the runtime, of the given type.
pub fn from_object(o: &Object, ty: &Type) -> Result<Value, Diag> {
    let shape = |d: &[i64]| d.iter().map(|d| *d as usize).collect::<Vec<usize>>();
    Ok(match (o, ty) {
        (Object::Tensor(t), Type::Tensor(ty)) => {
            Tensor::from_bytes(ty.dtype, shape(&t.dims), t.data.clone().into())?.into()
        }
        (Object::Strings { dims, data }, _) => Tensor::from_strings(shape(dims), data.clone())?.into(),
        (Object::Sequence(items), Type::Sequence(t)) => {
            Value::Sequence(t.clone(), items.iter().map(|i| from_object(i, t)).collect::<Result<_, _>>()?)
        }
        (Object::Optional(v), Type::Optional(t)) => {
            Value::Optional(t.clone(), v.as_ref().map(|v| from_object(v, t)).transpose()?.map(Box::new))
        }
        (Object::Map { keys, values }, Type::Map(k, t)) => {
            let items: Vec<Value> = match &**values {
                Object::Sequence(v) => v.iter().map(|v| from_object(v, t)).collect::<Result<_, _>>()?,
                Object::Tensor(x) => (0..x.len())
                    .map(|i| {
                        let size = x.dtype.size();
                        let part = x.data[i * size..(i + 1) * size].to_vec();
                        let dtype = t.as_tensor().map_or(planish_ir::DType::F32, |t| t.dtype);
                        Ok(Tensor::from_bytes(dtype, Vec::new(), part.into())?.into())
                    })
                    .collect::<Result<_, Diag>>()?,
                _ => return Err(Diag::error("internal-run", "a map without values")),
            };
            Value::Map(match &**keys {
                Object::Strings { data, .. } => {
                    MapKeys::Str(t.clone(), data.iter().cloned().zip(items).collect())
                }
                Object::Tensor(x) => {
                    let ints: Vec<i64> = (0..x.len()).filter_map(|i| x.int(i)).collect();
                    MapKeys::Int(*k, t.clone(), ints.into_iter().zip(items).collect())
                }
                _ => return Err(Diag::error("internal-run", "a map without keys")),
            })
        }
        _ => return Err(Diag::error("internal-run", "a result of another type than declared")),
    })
}
