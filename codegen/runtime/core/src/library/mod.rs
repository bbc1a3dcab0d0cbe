//! The runtime library: functions that a plan calls for what is no kernel (strings, sequences, sorting).
//!
//! Functions take values and return values; the executor copies results into the slots of the plan. Numbers are
//! stable within one version of the plan format.
mod elems;
mod maps;
mod select;
mod sequence;
mod strings;

use crate::error::{Result, fail};
use crate::object::{Object, Tensor};
use crate::plan::Call;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// An argument of a function.
#[derive(Clone, Debug)]
pub enum Input {
    /// A number.
    Scalar(i64),
    /// A value.
    Object(Arc<Object>),
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $run:path;)*) => {
        $($(#[$doc])* pub const $name: u16 = $code;)*

        /// Every function, as number and name.
        pub const FUNCTIONS: &[(u16, &str)] = &[$(($code, $text)),*];

        /// Calls a function.
        pub(crate) fn call(c: &Call, args: Vec<Input>) -> Result<Vec<Arc<Object>>> {
            match c.func {
                $($code => $run(c, args),)*
                other => fail!(Program, "there is no function {other} in the runtime library"),
            }
        }
    };
}

functions! {
    /// `(values...) -> sequence` of them.
    SEQ_CONSTRUCT = 1, "seq_construct", sequence::construct;
    /// `(sequence, value[, position]) -> sequence`. Position: an integer tensor or scalar, negative from the end; at
    /// the end if absent.
    SEQ_INSERT = 2, "seq_insert", sequence::insert;
    /// `(sequence[, position]) -> sequence` without the element; the last one if no position is given.
    SEQ_ERASE = 3, "seq_erase", sequence::erase;
    /// `(sequence, position) -> value`.
    SEQ_AT = 4, "seq_at", sequence::at;
    /// `(sequence) -> i64 scalar`.
    SEQ_LENGTH = 5, "seq_length", sequence::length;
    /// `([value]) -> optional`.
    OPT_NEW = 6, "opt_new", sequence::optional;
    /// `(optional) -> value`; the value itself where it is no optional.
    OPT_GET = 7, "opt_get", sequence::get;
    /// `([optional]) -> bool scalar`: whether there is a value.
    OPT_HAS = 8, "opt_has", sequence::has;
    /// `() -> tensor of strings` whose dims are the integer attributes and whose elements the string attributes.
    STR_CONST = 9, "str_const", strings::constant;
    /// `(sequence of tensors) -> tensor`: the items joined. Attributes: axis of the result (negative from the end),
    /// whether it is a new one.
    SEQ_CONCAT = 10, "seq_concat", sequence::concat;
    /// `(tensor[, sizes]) -> sequence`: the tensor cut. Sizes: of the pieces, or a scalar for all but perhaps the last;
    /// 1 if absent. Attributes: axis, whether pieces keep the axis (only without sizes).
    SEQ_SPLIT = 11, "seq_split", sequence::split;
    /// `(tensor of numbers or strings) -> i64 vector`: its dims.
    SHAPE_OF = 12, "shape_of", select::shape_of;
    /// `(tensor) -> i64 [rank, n]`: the indices of the elements that are not 0, in row-major order.
    NON_ZERO = 13, "non_zero", select::nonzero;
    /// `(tensor, k) -> (values, i64 indices)`: the best along an axis, best first, of equal ones the lower index.
    /// NaN is larger than everything. Attributes: axis, 1 for the largest or 0 for the smallest.
    TOP_K = 14, "top_k", select::top_k;
    /// `(tensor) -> (different elements or slices, where each is first, for every original its place, counts)`.
    /// Attributes: axis or -1 for elements, whether they are sorted (else in the order of their first occurrence).
    UNIQUE = 15, "unique", select::unique;
    /// `(tensor, bools) -> tensor`: the slices (axis -1: elements) whose bool is true. Attribute: axis or -1.
    COMPRESS = 16, "compress", select::compress;
    /// `(boxes [b, n, 4], scores [b, c, n][, most[, overlap[, least score]]]) -> i64 [m, 3]`: batch, class and box of
    /// those that non-maximum suppression keeps. Attribute: 1 if boxes are centres and sizes, 0 if corners.
    NON_MAX_SUPPRESSION = 17, "non_max_suppression", select::nms;
    /// `(strings, strings) -> strings`: element-wise, broadcast.
    STR_CONCAT = 20, "str_concat", strings::concat;
    /// `(strings) -> (strings with one more axis, i64 counts)`: cut at the string attribute, or at white space without
    /// one, and filled up with empty strings. Attribute: most cuts, or -1.
    STR_SPLIT = 21, "str_split", strings::split;
    /// `(strings) -> strings` without those that are string attributes. Attributes: 0 keep, 1 lower, 2 upper case;
    /// whether the case matters for what is left out. At least one, perhaps empty, string remains.
    STR_NORMALIZE = 22, "str_normalize", strings::normalize;
    /// `(strings, strings) -> bools`: whether they are equal; broadcast.
    STR_EQUAL = 23, "str_equal", strings::equal;
    /// `(bools, strings, strings) -> strings`: broadcast.
    STR_WHERE = 24, "str_where", strings::choose;
    /// `(tensor, positions) -> tensor` of the shape of the positions: the elements there, counted row-major.
    TAKE = 25, "take", strings::take;
    /// `(tensor, dims as scalars...) -> tensor` with these dims.
    RESHAPE = 26, "reshape", strings::reshape;
    /// `(tensors...) -> tensor`. Attribute: axis.
    CONCAT = 27, "concat", strings::concat_axis;
    /// `(tensor) -> tensor` of the element type that is the attribute; from or to strings.
    STR_CAST = 28, "str_cast", strings::cast;
    /// `(tensor, keys, values, default) -> tensor`: each element replaced by the value of the first key that equals it.
    LABEL_ENCODE = 29, "label_encode", strings::label_encode;
    /// `(integers or strings [c] or [n, c], pool) -> f32`: counts of n-grams. Attributes: 0 counts, 1 weights, 2 their
    /// product; shortest; longest; most items left out; number of starts; starts; columns. Float attributes: weights.
    TF_IDF = 30, "tf_idf", strings::tf_idf;
    /// `(matrix or vector, keys) -> sequence of maps`, one for each row, from the keys to the elements.
    ZIP_MAP = 31, "zip_map", maps::zip;
    /// `(map, keys) -> tensor [1, n]`: the values of these keys, 0 or an empty string where there is none.
    DICT_VECTORIZE = 32, "dict_vectorize", maps::vectorize;
    /// `(map from i64) -> tensor [1, n]`: the values in the order of the keys, or, if the attribute is not negative,
    /// each in the column its key says of so many columns.
    MAP_VALUES = 33, "map_values", maps::values;
    /// `() -> ()`: binds its symbols to the next numbers of the random stream of the session.
    RANDOM = 34, "random", select::random;
    /// `(strings) -> bools`: whether an automaton that reads all bytes of a string and then its end accepts it.
    /// Attributes: number of states, start, number of classes of bytes, the class of each of the 256 bytes, for each
    /// state the next one for each class (negative: none), for each state whether the end is accepted there.
    STR_MATCH = 35, "str_match", strings::matches;
}

/// The name of a function; `unknown` for a number that is none.
pub fn name(func: u16) -> &'static str {
    FUNCTIONS.iter().find(|f| f.0 == func).map_or("unknown", |f| f.1)
}

/// The number of the function with this name.
pub fn by_name(name: &str) -> Option<u16> {
    FUNCTIONS.iter().find(|f| f.1 == name).map(|f| f.0)
}

type Values = Result<Vec<Arc<Object>>>;

fn object(args: &mut [Input], i: usize) -> Result<Arc<Object>> {
    match args.get_mut(i) {
        // What is taken out leaves a scalar behind, so that the value may have one owner only.
        Some(a) => match core::mem::replace(a, Input::Scalar(0)) {
            Input::Object(o) => Ok(o),
            Input::Scalar(v) => Ok(Arc::new(Object::Tensor(Tensor::of_i64(vec![], &[v])))),
        },
        None => fail!(Program, "a function of the runtime library has no argument {i}"),
    }
}

fn items_of(args: &mut [Input], i: usize) -> Result<Vec<Arc<Object>>> {
    match Arc::unwrap_or_clone(object(args, i)?) {
        Object::Sequence(v) => Ok(v),
        _ => fail!(Program, "argument {i} is no sequence"),
    }
}

/// A position in `0..limit`, from an argument that may count from the end.
fn position(args: &mut [Input], i: usize, len: usize, limit: usize) -> Result<usize> {
    let at = match &*object(args, i)? {
        Object::Tensor(t) => t.int(0),
        _ => None,
    };
    let Some(at) = at else { fail!(Program, "argument {i} is no integer") };
    let from_start = if at < 0 { at.checked_add(len as i64) } else { Some(at) };
    match from_start.and_then(|p| usize::try_from(p).ok()) {
        Some(p) if p < limit => Ok(p),
        _ => fail!(Data, "position {at} is outside a sequence of {len}"),
    }
}

fn one(o: Object) -> Values {
    Ok(vec![Arc::new(o)])
}

/// Integer attribute `i`.
fn attr(c: &Call, i: usize) -> Result<i64> {
    match c.attrs.get(i) {
        Some(&v) => Ok(v),
        None => fail!(Program, "a function of the runtime library has no attribute {i}"),
    }
}

/// An attribute that is an axis of a tensor of this rank, negative from the end.
fn axis_attr(c: &Call, i: usize, rank: usize) -> Result<usize> {
    let axis = attr(c, i)?;
    let from_start = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(from_start) {
        Ok(a) if a < rank => Ok(a),
        _ => fail!(Data, "axis {axis} of a tensor of rank {rank}"),
    }
}

/// The integers of an argument.
fn ints(args: &mut [Input], i: usize) -> Result<Vec<i64>> {
    match elems::Elems::of(&*object(args, i)?)? {
        elems::Elems::Ints(v) => Ok(v.into_iter().map(|x| x as i64).collect()),
        _ => fail!(Data, "argument {i} must be integers"),
    }
}

/// A tensor of bools.
fn flag_tensor(dims: Vec<i64>, v: impl Iterator<Item = bool>) -> Object {
    Object::Tensor(Tensor { dtype: crate::DType::Bool, dims, data: v.map(u8::from).collect() })
}

#[cfg(test)]
mod tests;
