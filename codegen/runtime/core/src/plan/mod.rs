//! The plan: the host side of a compiled model, as data.
//!
//! A plan says what memory a model needs and in which order its kernels run. It holds no code and no weights: kernels
//! are numbers into a table of functions that an engine supplies, weights are ranges of one block of bytes.
//!
//! # Memory
//! A [`Slot`] is a tensor or an object. Slots are global to the plan; a loop body reuses its slots in each iteration.
//! Elements below 8 bits and `bool` take one byte each; tensors are dense and row-major, without padding, unless the
//! lowering gives an arena slot more bytes than its dims need.
//!
//! # Order and meaning
//! Steps of a block run in order. Between two steps that bind symbols ([`Step::Bind`], [`Step::Let`], [`Step::Call`],
//! [`Step::Loop`], [`Step::If`]) all expressions keep their values, so the executor resolves such a straight line
//! once and keeps it for as long as the symbols it uses have the same values.
mod codec;
mod display;
mod expr;
mod validate;

use crate::dtype::DType;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

pub use codec::{DecodeError, PLAN_MAGIC, PLAN_VERSION};
pub use expr::{BinOp, EvalError, Expr, ExprPool, Exprs};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in the plan's table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )* };
}

ids! {
    /// A symbol: an integer known when inputs are bound or while the plan runs.
    SymId, "$";
    /// An expression over symbols.
    ExprId, "e";
    /// A tensor or object.
    SlotId, "s";
    /// A list of steps.
    BlockId, "b";
    /// A kernel.
    KernelId, "k";
    /// A message for the user. The error code a kernel stores in its context is the index + 1.
    ErrorId, "err";
    /// A counter that a run reports.
    CounterId, "c";
}

impl ErrorId {
    /// The number a kernel stores in the error word of its context to raise this error.
    pub const fn code(self) -> i32 {
        self.0 as i32 + 1
    }
}

/// A compiled model without its code and weights.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Where the model came from.
    pub meta: Meta,
    /// Symbols.
    pub symbols: Vec<Symbol>,
    /// Expressions; operands come before their users. Build them with [`ExprPool`].
    pub exprs: Vec<Expr>,
    /// Tensors and objects.
    pub slots: Vec<Slot>,
    /// Inputs, in graph order.
    pub inputs: Vec<Port>,
    /// Outputs, in graph order.
    pub outputs: Vec<Port>,
    /// `(output, input)` pairs: the output of a run is the input of the next.
    pub states: Vec<(u32, u32)>,
    /// Blocks. Each is used once: as the entry or as a body of one `If` or `Loop`.
    pub blocks: Vec<Block>,
    /// The block a run executes.
    pub entry: BlockId,
    /// Kernels.
    pub kernels: Vec<KernelDecl>,
    /// Messages of errors that kernels and steps raise.
    pub errors: Vec<String>,
    /// Names of counters.
    pub counters: Vec<String>,
}

impl Default for Plan {
    /// An empty plan: no inputs, no outputs, one empty block.
    fn default() -> Self {
        Plan {
            meta: Meta::default(),
            symbols: Vec::new(),
            exprs: Vec::new(),
            slots: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            states: Vec::new(),
            blocks: alloc::vec![Block::default()],
            entry: BlockId(0),
            kernels: Vec::new(),
            errors: Vec::new(),
            counters: Vec::new(),
        }
    }
}

/// Provenance, for `--describe` and reports.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Meta {
    /// Name of the model.
    pub name: String,
    /// Hash of the model file, as text.
    pub model_hash: String,
    /// Hash of the recipe, as text.
    pub recipe_hash: String,
    /// Tool and version that made the plan.
    pub tool: String,
    /// Precision of the arithmetic, such as `f32`.
    pub precision: String,
    /// Lossy steps that were applied, one a line.
    pub lossy: Vec<String>,
    /// Further `(key, value)` pairs.
    pub extra: Vec<(String, String)>,
}

/// A symbol and the range of its values, both ends included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbol {
    /// Name, for people and for `--set`.
    pub name: String,
    /// Smallest value; the executor rejects a smaller one.
    pub min: i64,
    /// Largest value; `i64::MAX` where there is no bound.
    pub max: i64,
    /// The values it may have, ascending, where it may not have all between `min` and `max`; else empty.
    pub values: Vec<i64>,
}

impl Symbol {
    /// Whether the symbol may have this value.
    pub fn allows(&self, v: i64) -> bool {
        self.min <= v && v <= self.max && (self.values.is_empty() || self.values.contains(&v))
    }

    /// The values it may have, for people: `N = 1, 8`.
    pub fn allowed(&self) -> String {
        let values: Vec<String> = self.values.iter().map(|v| alloc::format!("{v}")).collect();
        alloc::format!("{} = {}", self.name, values.join(", "))
    }
}

/// A tensor or object of the plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// What it holds.
    pub kind: SlotKind,
    /// Where it is kept.
    pub place: Place,
}

/// What a slot holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SlotKind {
    /// A dense row-major tensor of a numeric type.
    Tensor {
        /// Element type; not `String`.
        dtype: DType,
        /// Dims; an empty list is a scalar.
        dims: Vec<ExprId>,
    },
    /// A string tensor, sequence, optional or map. It has no address: only `Call`, `Move`, `Copy` and `Loop` use it.
    Object,
}

/// Where a slot is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// The caller's buffer of an input. Kernels must not write it.
    Input(u32),
    /// The buffer of an output: the caller's if its size is known before the run, else the session's.
    Output(u32),
    /// A range of the weights. `offset` is a multiple of 64.
    Weights {
        /// Bytes from the start of the weights.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// A part of the arena, live from the start of step `first` to the end of step `last` in one numbering of all
    /// steps of all blocks that the lowering chooses. What must survive an iteration of a loop is live throughout
    /// the loop. Two arena slots whose ranges share a number never overlap in memory. Addresses are multiples of 64.
    Arena {
        /// Size; at least the bytes of the dims. It must depend on symbols of inputs only (an upper bound for a
        /// data-dependent tensor).
        bytes: ExprId,
        /// First step.
        first: u32,
        /// Last step, included.
        last: u32,
    },
    /// A buffer of its own, whose size depends on data. It grows before the step that uses it and is reused across
    /// runs. Addresses are multiples of 64.
    Heap,
    /// Part of another tensor slot.
    Alias {
        /// The slot it is part of; may be an alias too.
        slot: SlotId,
        /// Bytes from its start.
        byte_offset: ExprId,
    },
    /// An object.
    Object,
}

/// The type of an input or output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValueType {
    /// A tensor. The dims are those of the port, at the top level; inside a container they are not stated.
    Tensor(DType),
    /// A sequence.
    Sequence(Box<ValueType>),
    /// An optional.
    Optional(Box<ValueType>),
    /// A map.
    Map(DType, Box<ValueType>),
}

impl ValueType {
    /// Whether a value of this type is a tensor of bytes (and not an object).
    pub fn is_dense(&self) -> bool {
        matches!(self, ValueType::Tensor(d) if *d != DType::String)
    }
}

/// An input or output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Type.
    pub ty: ValueType,
    /// Dims of a tensor. An input dim that is exactly a symbol binds it; all other dims are checked. `None` where
    /// the type is no tensor, or a string tensor whose shape is not checked.
    pub dims: Option<Vec<ExprId>>,
    /// The slot it is.
    pub slot: SlotId,
}

/// A list of steps.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Block {
    /// Steps, in order.
    pub steps: Vec<Step>,
}

/// A kernel: `extern "C" fn(args: *const u64, lo: i64, hi: i64, ctx: *mut Ctx)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelDecl {
    /// Symbol name.
    pub name: String,
    /// Number of 8-byte words in `args`.
    pub params: u32,
    /// Names of the graph nodes it computes.
    pub nodes: Vec<String>,
    /// Floating point (or integer multiply) operations of one launch, if known.
    pub flops: Option<ExprId>,
    /// Bytes one launch reads and writes, if known.
    pub bytes: Option<ExprId>,
}

/// An argument of a launch or a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// The address of a tensor slot (calls may name an object slot).
    Slot(SlotId),
    /// The value of an expression; also bit patterns and null pointers.
    Scalar(ExprId),
}

/// A scalar that a step reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// The first element of an integer or bool tensor.
    Slot(SlotId),
    /// An expression.
    Expr(ExprId),
}

/// A step of a block.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Runs a kernel over `0..extent`. The range may be cut at multiples of `grain`, and the parts may run on several
    /// threads, in any order; `grain` should be at least some 5 us of work. Nothing runs if the extent is 0.
    Launch {
        /// Kernel.
        kernel: KernelId,
        /// One word each.
        args: Vec<Arg>,
        /// Length of the parallel axis.
        extent: ExprId,
        /// Smallest part, >= 1.
        grain: ExprId,
        /// The range is done in rounds of so many units (>= 1): a part lies in one round, and begins after all of
        /// the rounds before are done. One call may also do several rounds, in order.
        round: Option<ExprId>,
    },
    /// Binds a symbol to an element of an integer or bool tensor.
    Bind {
        /// Symbol.
        sym: SymId,
        /// Tensor of i8..i64, u8..u64 or bool.
        slot: SlotId,
        /// Element, row-major.
        index: u32,
        /// Smallest value allowed.
        min: ExprId,
        /// Largest value allowed.
        max: ExprId,
        /// Raised for a value outside.
        error: ErrorId,
    },
    /// Binds a symbol to the value of an expression.
    Let {
        /// Symbol.
        sym: SymId,
        /// Value.
        value: ExprId,
    },
    /// Raises an error if the condition is 0.
    Require {
        /// Condition.
        cond: ExprId,
        /// Raised if it does not hold.
        error: ErrorId,
    },
    /// Copies the bytes of a tensor (the count is that of the dims of `src`, which `dst` must hold), or shares an
    /// object.
    Copy {
        /// Destination.
        dst: SlotId,
        /// Source.
        src: SlotId,
    },
    /// Moves an object; `src` is empty afterwards.
    Move {
        /// Destination.
        dst: SlotId,
        /// Source.
        src: SlotId,
    },
    /// Runs one of two blocks. Results are slots that both blocks write.
    If {
        /// Condition.
        cond: Value,
        /// Block run if it is not 0.
        then_: BlockId,
        /// Block run if it is 0.
        else_: BlockId,
    },
    /// A loop.
    Loop(Box<Loop>),
    /// Calls a function of the runtime library.
    Call(Box<Call>),
    /// Adds to a counter.
    Count {
        /// Counter.
        counter: CounterId,
        /// What is added: a number that is not negative. A slot is an i64 tensor, read when the step runs.
        value: Value,
    },
}

/// A loop: ONNX `Loop` and `Scan`.
///
/// Carried values are assigned at the start (`param := init`), together after each iteration (`param := yielded`),
/// and at the end (`result := param`). Where two of these are the same slot nothing is copied.
#[derive(Clone, PartialEq, Debug)]
pub struct Loop {
    /// Number of iterations; no limit if absent.
    pub trip: Option<Value>,
    /// Whether the first iteration runs.
    pub cond: Option<Value>,
    /// Tensor of one i64 that holds the iteration number.
    pub iter: Option<SlotId>,
    /// Symbol that holds the iteration number.
    pub iter_sym: Option<SymId>,
    /// Body.
    pub body: BlockId,
    /// Whether another iteration runs.
    pub body_cond: Option<Value>,
    /// Values carried from one iteration to the next.
    pub carried: Vec<Carried>,
    /// Values collected along a new first axis.
    pub scans: Vec<ScanOut>,
    /// Symbol bound to the number of iterations done, at the end.
    pub count_sym: Option<SymId>,
}

/// A value carried by a loop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Carried {
    /// Value before the first iteration.
    pub init: SlotId,
    /// What the body reads.
    pub param: SlotId,
    /// What the body wrote.
    pub yielded: SlotId,
    /// Value after the loop.
    pub result: SlotId,
    /// Symbols in the dims of `param`, with the axis each is: bound to the dims of `init`, then of `yielded`.
    pub syms: Vec<(SymId, u32)>,
    /// The same for the dims of `result`.
    pub result_syms: Vec<(SymId, u32)>,
}

/// A value collected by a loop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanOut {
    /// A tensor that each iteration writes; its dims must be equal in all iterations.
    pub yielded: SlotId,
    /// The tensor of one more axis, in front: its length is the number of iterations.
    pub result: SlotId,
    /// Symbols in the dims of `result`, with the axis each is. Where no iteration ran, an axis but the first whose
    /// dim is not known then is 0.
    pub result_syms: Vec<(SymId, u32)>,
}

/// A call of the runtime library. See [`crate::library`] for the functions.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    /// Function.
    pub func: u16,
    /// Arguments.
    pub args: Vec<Arg>,
    /// Slots it writes.
    pub outs: Vec<SlotId>,
    /// Symbols it binds: those in the dims of `outs`.
    pub out_syms: Vec<SymId>,
    /// Integer attributes.
    pub attrs: Vec<i64>,
    /// Float attributes.
    pub fattrs: Vec<f64>,
    /// String attributes.
    pub sattrs: Vec<String>,
    /// Raised if the function reports an error without a message of its own.
    pub error: ErrorId,
}

impl Plan {
    /// The total of bytes that the weights of this plan must have at least.
    pub fn weights_len(&self) -> u64 {
        let end = |s: &Slot| match s.place {
            Place::Weights { offset, len } => offset.saturating_add(len),
            _ => 0,
        };
        self.slots.iter().map(end).max().unwrap_or(0)
    }

    /// The input with this name.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|p| p.name == name)
    }

    /// The output with this name.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|p| p.name == name)
    }
}

#[cfg(test)]
mod tests;
