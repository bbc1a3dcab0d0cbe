//! Conversion between element types.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value, float_to_bits};
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// Conversion to another dtype. Float to float rounds to nearest even. Float to float8e8m0 rounds up, f64 after rounding to f32. Float to integer rounds towards 0, saturates (wraps in types narrower than 8 bits), and takes NaN to 0. Integers wrap. Anything but 0 becomes true. Strings are parsed and printed.
    Cast {
        /// The dtype of the result.
        to: DType,
        /// Whether values too large for an 8-bit float become its largest finite value rather than infinity or NaN.
        saturate: bool,
    }
}

impl OpDef for Cast {
    const NAME: &'static str = "cast";
    const INPUTS: (usize, usize) = (1, 1);
    fn is_elementwise(&self) -> bool {
        true
    }
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let ty = Type::from(TensorType { dtype: self.to, shape: cx.ty(0)?.shape.clone(), quant: None });
        let from = cx.dtype(0)?;
        let whole = from.is_int() || from == DType::Bool;
        let content = match self.to {
            DType::I64 | DType::I32 if whole => cx.ints(0),
            DType::Bool if whole => cx
                .ints(0)
                .and_then(|v| v.iter().map(|d| Some(i64::from(d.as_const()? != 0).into())).collect()),
            _ => None,
        };
        Ok(vec![Fact { ty, content }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x) = (cx.only_seed()?, cx.input(0)?);
        if !self.to.is_float() {
            return Ok(());
        }
        let from = cx.dtype(x)?;
        let dx = cx.cast(dy, from)?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        Ok(vec![cast(cx.tensor(0)?, self.to, self.saturate)?.into()])
    }
}

/// The tensor converted, as [`Cast`] describes.
pub fn cast(x: &Tensor, to: DType, saturate: bool) -> Result<Tensor, Diag> {
    let shape = x.shape().to_vec();
    if x.dtype() == to {
        return Ok(x.clone());
    }
    if to == DType::Str {
        let text = match x.elems() {
            Elems::F(v) => v.iter().map(|f| print_float(*f, x.dtype())).collect(),
            Elems::I(v) => v
                .iter()
                .map(|i| if x.dtype() == DType::Bool { (*i != 0).to_string() } else { i.to_string() })
                .collect(),
            Elems::S(v) => v,
        };
        return Tensor::from_strings(shape, text);
    }
    let bad = |s: &str| Diag::error("cast-malformed", format!("the string {s:?} is no {to}"));
    if to.is_float() {
        let v: Vec<f64> = match x.elems() {
            Elems::F(v) => v,
            Elems::I(v) => v.into_iter().map(|i| i as f64).collect(),
            Elems::S(v) => {
                v.iter().map(|s| s.trim().parse().map_err(|_| bad(s))).collect::<Result<_, _>>()?
            }
        };
        if to.size() == 1 {
            let bytes: Vec<u8> = v.iter().map(|f| float_to_bits(to, *f, saturate) as u8).collect();
            return Tensor::from_bytes(to, shape, bytes.into());
        }
        return Tensor::from_elems(to, shape, Elems::F(v));
    }
    let v: Vec<i128> = match x.elems() {
        Elems::F(v) if to == DType::Bool => v.iter().map(|f| i128::from(*f != 0.0)).collect(),
        Elems::F(v) if to.bits() < 8 => v.iter().map(|f| f.trunc() as i128).collect(),
        Elems::F(v) => {
            let (lo, hi) = to.int_range().unwrap_or((0, 0));
            v.iter().map(|f| (f.trunc() as i128).clamp(lo, hi)).collect()
        }
        Elems::I(v) if to == DType::Bool => v.iter().map(|i| i128::from(*i != 0)).collect(),
        Elems::I(v) => v,
        Elems::S(v) => v
            .iter()
            .map(|s| match s.trim() {
                t if to == DType::Bool => Ok(i128::from(!matches!(t, "" | "0" | "false" | "False"))),
                t => t.parse().map_err(|_| bad(s)),
            })
            .collect::<Result<_, _>>()?,
    };
    Tensor::from_elems(to, shape, Elems::I(v))
}

/// A float as ONNX prints it: the shortest decimal that reads back, NaN and INF in words.
fn print_float(f: f64, d: DType) -> String {
    if f.is_nan() {
        return "NaN".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "INF".into() } else { "-INF".into() };
    }
    let text = if d == DType::F64 { format!("{f}") } else { format!("{}", f as f32) };
    if text.len() > 17 { format!("{f:e}") } else { text }
}
