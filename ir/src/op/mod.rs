//! The operations: one closed enum, one table. Each operation states its fields, its shape rule (`infer`), its
//! meaning (`eval`) and facts about it, in a file of its own or of its family.
//!
//! To add one, see `docs/adding-an-op.md`.

use crate::attr::Attrs;
use crate::diag::Diag;
use crate::graph::{Fact, ValueId};
use crate::op::gradient::GradCx;
use crate::tensor::Value;

mod eval;
mod infer;

pub mod attention;
pub mod barrier;
pub mod binary;
pub mod blocks;
pub mod build;
pub mod cast;
pub mod col2im;
pub mod composites;
pub mod concat;
pub mod control;
pub mod conv;
pub mod conv_transpose;
pub mod detach;
pub mod einsum;
pub mod fused;
pub mod gated_matmul;
pub mod gather;
pub mod generate;
pub mod gradient;
pub mod konst;
pub mod layer_norm;
pub mod lrn;
pub mod matmul;
pub mod ml;
pub mod pool;
pub mod quant;
pub mod random;
pub mod recurrent;
pub mod reduce;
pub mod require;
pub mod reshape;
pub mod resize;
pub mod scatter;
pub mod select;
pub mod sequence;
pub mod signal;
pub mod slice;
pub mod softmax;
pub mod sort;
pub mod stochastic;
pub mod strings;
pub mod unary;
mod util;
pub mod views;
pub mod vision;
pub mod where_;
pub mod window;

#[cfg(test)]
pub(crate) mod checked;
#[cfg(test)]
pub(crate) mod probe;

pub use eval::{EvalCx, EvalEnv};
pub use infer::{InferCx, broadcast_dim, broadcast_shapes, normalize_axes, normalize_axis};
pub use konst::Const;

/// What an operation does besides computing its results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effects {
    /// Nothing: equal operands give equal results, and unused results may vanish.
    None,
    /// Draws random numbers: may vanish, must not be merged.
    Random,
    /// May end the run: must not vanish.
    Stops,
}

/// An operation: its fields with everything that follows from them.
pub trait OpDef: Attrs + Clone + PartialEq + std::fmt::Debug {
    /// Name in the text format, kebab-case.
    const NAME: &'static str;
    /// The fewest and the most operands. Operands from the fewest on may be omitted.
    const INPUTS: (usize, usize);
    /// How many regions it holds.
    const REGIONS: usize = 0;
    /// The types of the results. The only shape rule of the operation; it also validates the operands and fields.
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag>;
    /// The results: reference semantics, slow and obvious.
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag>;
    /// The rule of differentiation: [gives](GradCx::give) the gradients of the operands that are floats.
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        Err(cx.no_rule(""))
    }
    /// Effects of a node with these operands.
    fn effects(&self, _: &[Option<ValueId>]) -> Effects {
        Effects::None
    }
    /// Whether each element of the one result depends on one element of each (broadcast) operand only.
    fn is_elementwise(&self) -> bool {
        false
    }
    /// The index of the operand that holds trained weights, if the operation has one by nature.
    fn weight_input(&self) -> Option<usize> {
        None
    }
    /// The indices of all operands that are trained matrices.
    fn weight_inputs(&self) -> Vec<usize> {
        self.weight_input().into_iter().collect()
    }
}

/// Operands without an upper limit.
pub const MANY: usize = usize::MAX;

macro_rules! op_table {
    ($($variant:ident => $path:path,)*) => {
        /// An operation. Closed: every consumer matches all of them.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Op { $(#[allow(missing_docs)] $variant($path),)* }
        $(impl From<$path> for Op {
            fn from(op: $path) -> Op {
                Op::$variant(op)
            }
        })*
        impl Op {
            /// Name and documentation of every operation.
            pub fn table() -> Vec<(&'static str, &'static [&'static str])> {
                vec![$((<$path as OpDef>::NAME, <$path as Attrs>::DOC),)*]
            }
            /// Name in the text format.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$variant(_) => <$path as OpDef>::NAME,)* }
            }
            /// The fewest and the most operands.
            pub fn arity(&self) -> (usize, usize) {
                match self { $(Op::$variant(_) => <$path as OpDef>::INPUTS,)* }
            }
            /// How many regions it holds.
            pub fn regions(&self) -> usize {
                match self { $(Op::$variant(_) => <$path as OpDef>::REGIONS,)* }
            }
            pub(crate) fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
                match self { $(Op::$variant(op) => op.gradient(cx),)* }
            }
            pub(crate) fn effects(&self, inputs: &[Option<ValueId>]) -> Effects {
                match self { $(Op::$variant(op) => op.effects(inputs),)* }
            }
            /// Whether each element of its one result depends on one element of each (broadcast) operand only.
            pub fn is_elementwise(&self) -> bool {
                match self { $(Op::$variant(op) => op.is_elementwise(),)* }
            }
            /// The operand that holds trained weights.
            pub fn weight_input(&self) -> Option<usize> {
                match self { $(Op::$variant(op) => op.weight_input(),)* }
            }
            /// The operands that are trained matrices.
            pub fn weight_inputs(&self) -> Vec<usize> {
                match self { $(Op::$variant(op) => op.weight_inputs(),)* }
            }
            /// Appends its fields.
            pub fn write_attrs(&self, out: &mut String) {
                match self { $(Op::$variant(op) => op.write_attrs(out),)* }
            }
            /// The operation with this name and these fields.
            pub fn read(name: &str, mut pairs: Vec<(String, String)>) -> Result<Op, String> {
                let op = match name {
                    $(<$path as OpDef>::NAME => Op::$variant(<$path as Attrs>::read_attrs(&mut pairs)?),)*
                    _ => return Err(format!("no operation is called `{name}`")),
                };
                match pairs.first() {
                    Some((n, _)) => Err(format!("`{name}` has no field `{n}`")),
                    None => Ok(op),
                }
            }
            pub(crate) fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
                match self { $(Op::$variant(op) => op.infer(cx),)* }
            }
            /// Computes the results.
            pub fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
                match self { $(Op::$variant(op) => op.eval(cx),)* }
            }
        }
    };
}

// The only list of operations in the workspace, by family.
op_table! {
    Const => konst::Const,
    Unary => unary::Unary,
    Binary => binary::Binary,
    Where => where_::Where,
    Cast => cast::Cast,
    Reshape => reshape::Reshape,
    // Shape and data movement.
    Shape => views::Shape,
    Squeeze => views::Squeeze,
    Unsqueeze => views::Unsqueeze,
    Flatten => views::Flatten,
    BitCast => views::BitCast,
    Transpose => views::Transpose,
    Expand => views::Expand,
    Concat => concat::Concat,
    Split => concat::Split,
    Tile => concat::Tile,
    Pad => concat::Pad,
    Slice => slice::Slice,
    Gather => gather::Gather,
    GatherElements => gather::GatherElements,
    GatherNd => gather::GatherNd,
    ScatterElements => scatter::ScatterElements,
    ScatterNd => scatter::ScatterNd,
    TensorScatter => scatter::TensorScatter,
    Range => generate::Range,
    EyeLike => generate::EyeLike,
    Trilu => generate::Trilu,
    OneHot => generate::OneHot,
    NonZero => select::NonZero,
    Compress => select::Compress,
    Unique => select::Unique,
    ReverseSequence => select::ReverseSequence,
    TopK => sort::TopK,
    ArgReduce => sort::ArgReduce,
    // Reductions and products.
    Reduce => reduce::Reduce,
    Cumulate => reduce::Cumulate,
    MatMul => matmul::MatMul,
    GatedMatMul => gated_matmul::GatedMatMul,
    BlockMatMul => blocks::BlockMatMul,
    BlockOuter => blocks::BlockOuter,
    Det => matmul::Det,
    Einsum => einsum::Einsum,
    // Signals and random numbers.
    Dft => signal::Dft,
    Stft => signal::Stft,
    SignalWindow => signal::SignalWindow,
    MelWeights => signal::MelWeights,
    Random => random::Random,
    Multinomial => random::Multinomial,
    StochasticGate => stochastic::StochasticGate,
    Detach => detach::Detach,
    If => control::If,
    Loop => control::Loop,
    Gate => control::Gate,
    Require => require::Require,
    Barrier => barrier::Barrier,
    Fused => fused::Fused,
    Dequantize => quant::Dequantize,
    Quantize => quant::Quantize,
    FakeQuantize => quant::FakeQuantize,
    DynamicQuantize => quant::DynamicQuantize,
    MatMulInteger => quant::MatMulInteger,
    ConvInteger => quant::ConvInteger,
    Sequence => sequence::Sequence,
    SequenceAt => sequence::SequenceAt,
    SequenceInsert => sequence::SequenceInsert,
    SequenceErase => sequence::SequenceErase,
    SequenceLength => sequence::SequenceLength,
    ConcatSequence => sequence::ConcatSequence,
    SplitSequence => sequence::SplitSequence,
    Optional => sequence::Optional,
    OptionalGet => sequence::OptionalGet,
    OptionalHas => sequence::OptionalHas,
    StringConcat => strings::StringConcat,
    StringSplit => strings::StringSplit,
    StringNormalize => strings::StringNormalize,
    RegexMatch => strings::RegexMatch,
    TfIdf => strings::TfIdf,
    LabelEncode => ml::LabelEncode,
    TreeEnsemble => ml::TreeEnsemble,
    ZipMap => ml::ZipMap,
    DictVectorize => ml::DictVectorize,
    CastMap => ml::CastMap,
    // Convolution, pooling, normalisation, recurrence.
    Conv => conv::Conv,
    ConvTranspose => conv_transpose::ConvTranspose,
    Pool => pool::Pool,
    Softmax => softmax::Softmax,
    LayerNorm => layer_norm::LayerNorm,
    Lrn => lrn::Lrn,
    Attention => attention::Attention,
    Recurrent => recurrent::Recurrent,
    SkimRecurrent => recurrent::skim::SkimRecurrent,
    Resize => resize::Resize,
    Col2Im => col2im::Col2Im,
    RoiAlign => vision::RoiAlign,
    MaxRoiPool => vision::MaxRoiPool,
    NonMaxSuppression => vision::NonMaxSuppression,
}
