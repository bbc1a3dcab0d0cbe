//! Maps from and to tensors.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::cast::cast;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, MapKeys, Tensor, Value, elem_count};
use crate::types::{TensorType, Type};
use std::collections::BTreeMap;
use std::sync::Arc;

crate::op_struct! {
    /// A sequence of one map for each row of a matrix (operand 0): from the keys (operand 1, a vector of i64 or strings, one for each column) to the elements, scalars. A vector is one row.
    ZipMap {}
}

crate::op_struct! {
    /// The values of a map (operand 0) at the keys of a vector (operand 1) as a matrix of one row; 0 or an empty string where a key is missing.
    DictVectorize {}
}

crate::op_struct! {
    /// The values of a map from i64 as a matrix of one row, in the order of the keys, or, if `width` is given, each in the column that its key says, with 0 elsewhere.
    CastMap {
        /// The dtype of the result.
        to: DType,
        /// Number of columns.
        width: Option<i64>,
    }
}

fn map_type<'a>(cx: &InferCx<'a>) -> Result<(DType, &'a TensorType), Diag> {
    match cx.value_ty(0)? {
        Type::Map(k, v) => v
            .as_tensor()
            .map(|t| (*k, t))
            .ok_or_else(|| Diag::unsupported("maps whose values are no tensors")),
        t => Err(Diag::error("type-mismatch", format!("{} is no map", t.display(cx.symbols)))),
    }
}

impl OpDef for ZipMap {
    const NAME: &'static str = "zip-map";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let keys = cx.expect_dtype(1, |d| matches!(d, DType::I64 | DType::Str), "i64 or str")?;
        let width = match cx.dims(0)? {
            [w] | [_, w] => w,
            _ => return Err(Diag::error("shape-mismatch", "a matrix is needed")),
        };
        match cx.dims(1)? {
            [n] if n.as_const().zip(width.as_const()).is_none_or(|(a, b)| a == b) => {}
            _ => return Err(Diag::error("shape-mismatch", "one key for each column is needed")),
        }
        let value = Type::tensor(cx.dtype(0)?, Vec::new());
        Ok(vec![Type::Sequence(Arc::new(Type::Map(keys, Arc::new(value)))).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, keys) = (cx.tensor(0)?, cx.tensor(1)?);
        let (rows, width) = match *x.shape() {
            [n, c] => (n, c),
            _ => (1, x.len()),
        };
        if keys.len() != width {
            return Err(Diag::error("shape-mismatch", format!("{} keys for {width} columns", keys.len())));
        }
        let item = Arc::new(Type::tensor(x.dtype(), Vec::new()));
        let elems = x.elems();
        let mut out = Vec::with_capacity(rows);
        for r in 0..rows {
            let value = |c: usize| -> Result<Value, Diag> {
                Ok(Tensor::from_elems(x.dtype(), Vec::new(), elems.pick([r * width + c]))?.into())
            };
            let keys_of = match keys.elems() {
                Elems::S(k) => {
                    let map = k.into_iter().enumerate().map(|(c, k)| Ok((k, value(c)?)));
                    MapKeys::Str(item.clone(), map.collect::<Result<_, Diag>>()?)
                }
                _ => {
                    let map = keys.to_i64()?.into_iter().enumerate().map(|(c, k)| Ok((k, value(c)?)));
                    MapKeys::Int(DType::I64, item.clone(), map.collect::<Result<_, Diag>>()?)
                }
            };
            out.push(Value::Map(keys_of));
        }
        Ok(vec![Value::Sequence(Arc::new(Type::Map(keys.dtype(), item)), out)])
    }
}

/// The elements of the values of a map at these places, and the element that stands for a missing one.
fn row(dtype: DType, found: &[Option<&Value>]) -> Result<Tensor, Diag> {
    let mut out = if dtype == DType::Str {
        Elems::S(Vec::new())
    } else if dtype.is_float() {
        Elems::F(Vec::new())
    } else {
        Elems::I(Vec::new())
    };
    for v in found {
        let e = v.map(|v| v.tensor().map(Tensor::elems)).transpose()?;
        match (&mut out, e) {
            (Elems::F(o), Some(Elems::F(v))) if v.len() == 1 => o.extend(v),
            (Elems::I(o), Some(Elems::I(v))) if v.len() == 1 => o.extend(v),
            (Elems::S(o), Some(Elems::S(v))) if v.len() == 1 => o.extend(v),
            (Elems::F(o), None) => o.push(0.0),
            (Elems::I(o), None) => o.push(0),
            (Elems::S(o), None) => o.push(String::new()),
            _ => {
                return Err(Diag::error(
                    "type-mismatch",
                    "the values of the map must be scalars of one type",
                ));
            }
        }
    }
    Tensor::from_elems(dtype, vec![1, found.len()], out)
}

impl OpDef for DictVectorize {
    const NAME: &'static str = "dict-vectorize";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let (keys, value) = map_type(cx)?;
        cx.expect_dtype(1, |d| d == keys, "the type of the keys")?;
        let [n] = cx.dims(1)? else {
            return Err(Diag::error("shape-mismatch", "the keys must be a vector"));
        };
        Ok(vec![Type::tensor(value.dtype, vec![Dim::Const(1), n.clone()]).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let keys = cx.tensor(1)?;
        let (item, found): (&Type, Vec<Option<&Value>>) = match cx.value(0)? {
            Value::Map(MapKeys::Str(t, m)) => (t, keys.strings().iter().map(|k| m.get(k)).collect()),
            Value::Map(MapKeys::Int(_, t, m)) => (t, keys.to_i64()?.iter().map(|k| m.get(k)).collect()),
            _ => return Err(Diag::error("type-mismatch", "a map is needed here")),
        };
        let t = item.as_tensor().ok_or_else(|| Diag::unsupported("maps whose values are no tensors"))?;
        Ok(vec![row(t.dtype, &found)?.into()])
    }
}

impl OpDef for CastMap {
    const NAME: &'static str = "cast-map";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let (keys, _) = map_type(cx)?;
        if keys != DType::I64 {
            return Err(Diag::error("type-mismatch", "a map from i64 is needed"));
        }
        let n = match self.width {
            Some(w) if w < 0 => return Err(Diag::error("field-invalid", "a negative number of columns")),
            Some(w) => Dim::from(w),
            None => cx.fresh(0, 1, 0, None),
        };
        Ok(vec![Type::tensor(self.to, vec![Dim::Const(1), n]).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let Value::Map(MapKeys::Int(_, item, m)) = cx.value(0)? else {
            return Err(Diag::error("type-mismatch", "a map from i64 is needed"));
        };
        let t = item.as_tensor().ok_or_else(|| Diag::unsupported("maps whose values are no tensors"))?;
        let found: Vec<Option<&Value>> = match self.width {
            None => m.values().map(Some).collect(),
            Some(w) => {
                let w = usize::try_from(w).map_err(|_| Diag::error("field-invalid", "negative width"))?;
                elem_count(&[w])?;
                let inside: BTreeMap<usize, &Value> =
                    m.iter().filter_map(|(k, v)| Some((usize::try_from(*k).ok()?, v))).collect();
                if w > 1 << 30 || inside.keys().any(|k| *k >= w) {
                    return Err(Diag::error("index-out-of-range", format!("a key beyond {w} columns")));
                }
                (0..w).map(|i| inside.get(&i).copied()).collect()
            }
        };
        Ok(vec![cast(&row(t.dtype, &found)?, self.to, true)?.into()])
    }
}
