//! The runtime library: functions that a plan calls for what is no kernel (strings, sequences, sorting).
//!
//! Functions take values and return values; the executor copies results into the slots of the plan. Numbers are
//! stable within one version of the plan format.
use crate::error::{Result, fail};
use crate::object::{Object, Tensor};
use crate::plan::Call;
use alloc::string::String;
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
    SEQ_CONSTRUCT = 1, "seq_construct", seq_construct;
    /// `(sequence, value[, position]) -> sequence`. Position: an integer tensor or scalar, negative from the end; at
    /// the end if absent.
    SEQ_INSERT = 2, "seq_insert", seq_insert;
    /// `(sequence[, position]) -> sequence` without the element; the last one if no position is given.
    SEQ_ERASE = 3, "seq_erase", seq_erase;
    /// `(sequence, position) -> value`.
    SEQ_AT = 4, "seq_at", seq_at;
    /// `(sequence) -> i64 scalar`.
    SEQ_LENGTH = 5, "seq_length", seq_length;
    /// `([value]) -> optional`.
    OPT_NEW = 6, "opt_new", opt_new;
    /// `(optional) -> value`; the value itself where it is no optional.
    OPT_GET = 7, "opt_get", opt_get;
    /// `([optional]) -> bool scalar`: whether there is a value.
    OPT_HAS = 8, "opt_has", opt_has;
    /// `() -> tensor of strings` whose dims are the integer attributes and whose elements the string attributes.
    STR_CONST = 9, "str_const", str_const;
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

fn sequence(args: &mut [Input], i: usize) -> Result<Vec<Arc<Object>>> {
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

fn flag(v: bool) -> Object {
    Object::Tensor(Tensor { dtype: crate::DType::Bool, dims: vec![], data: vec![v as u8] })
}

fn str_const(c: &Call, _: Vec<Input>) -> Values {
    one(Object::Strings { dims: c.attrs.clone(), data: c.sattrs.clone() })
}

fn seq_construct(_: &Call, mut args: Vec<Input>) -> Values {
    let items = (0..args.len()).map(|i| object(&mut args, i)).collect::<Result<_>>()?;
    one(Object::Sequence(items))
}

fn seq_insert(_: &Call, mut args: Vec<Input>) -> Values {
    let mut s = sequence(&mut args, 0)?;
    let value = object(&mut args, 1)?;
    let at = if args.len() > 2 { position(&mut args, 2, s.len(), s.len() + 1)? } else { s.len() };
    s.insert(at, value);
    one(Object::Sequence(s))
}

fn seq_erase(_: &Call, mut args: Vec<Input>) -> Values {
    let mut s = sequence(&mut args, 0)?;
    let at = match args.len() {
        0 | 1 if s.is_empty() => fail!(Data, "an element of an empty sequence is erased"),
        0 | 1 => s.len() - 1,
        _ => position(&mut args, 1, s.len(), s.len())?,
    };
    s.remove(at);
    one(Object::Sequence(s))
}

fn seq_at(_: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let Object::Sequence(s) = &*o else { fail!(Program, "argument 0 is no sequence") };
    let at = position(&mut args, 1, s.len(), s.len())?;
    Ok(vec![s[at].clone()])
}

fn seq_length(_: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    let Object::Sequence(s) = &*o else { fail!(Program, "argument 0 is no sequence") };
    one(Object::Tensor(Tensor::of_i64(vec![], &[s.len() as i64])))
}

fn opt_new(_: &Call, mut args: Vec<Input>) -> Values {
    let value = if args.is_empty() { None } else { Some(object(&mut args, 0)?) };
    one(Object::Optional(value))
}

fn opt_get(_: &Call, mut args: Vec<Input>) -> Values {
    let o = object(&mut args, 0)?;
    match &*o {
        Object::Optional(Some(v)) => Ok(vec![v.clone()]),
        Object::Optional(None) => fail!(Data, "{}", String::from("the value of an empty optional is needed")),
        _ => Ok(vec![o]),
    }
}

fn opt_has(_: &Call, mut args: Vec<Input>) -> Values {
    let has = !args.is_empty() && !matches!(&*object(&mut args, 0)?, Object::Optional(None));
    one(flag(has))
}
