//! Types of values.

use crate::constant::ConstId;
use crate::diag::Diag;
use crate::dim::{Dim, SymId, Symbols};
use crate::dtype::DType;
use std::fmt;
use std::sync::Arc;

/// How stored integers stand for real numbers: `real = (stored - zero_point) * scale`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Quant {
    /// Scales, a constant of the graph: one, or one per index of `axis`.
    pub scale: ConstId,
    /// Zero points in the storage type; none means 0.
    pub zero_point: Option<ConstId>,
    /// The axis along which scales differ.
    pub axis: Option<u32>,
    /// How many neighbours along `axis` share a scale; 1 unless grouped.
    pub group: u32,
}

/// The type of a tensor. A shape of `None` means that not even the rank is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TensorType {
    /// Element type, which is the storage type when `quant` is given.
    pub dtype: DType,
    /// Dims, outermost first.
    pub shape: Option<Vec<Dim>>,
    /// What the elements stand for, if they are quantised.
    pub quant: Option<Arc<Quant>>,
}

impl TensorType {
    /// A tensor type with these dims.
    pub fn new(dtype: DType, shape: Vec<Dim>) -> TensorType {
        TensorType { dtype, shape: Some(shape), quant: None }
    }
    /// A tensor type with known dims.
    pub fn fixed(dtype: DType, shape: &[usize]) -> TensorType {
        TensorType::new(dtype, shape.iter().map(|d| Dim::from(*d)).collect())
    }
    /// A tensor type of unknown rank.
    pub fn unranked(dtype: DType) -> TensorType {
        TensorType { dtype, shape: None, quant: None }
    }
    /// The dims, or a diagnostic when the rank is unknown.
    pub fn dims(&self) -> Result<&[Dim], Diag> {
        self.shape
            .as_deref()
            .ok_or_else(|| Diag::error("unsupported-rank", "the rank of this tensor is not known"))
    }
    /// The dims as numbers, if all are known.
    pub fn fixed_dims(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(|d| d.as_const().and_then(|v| usize::try_from(v).ok())).collect()
    }
    /// The number of elements.
    pub fn elems(&self) -> Option<Dim> {
        self.shape.as_ref().map(Dim::product)
    }
}

/// The type of a value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Type {
    /// A tensor.
    Tensor(TensorType),
    /// A list whose items have one type.
    Sequence(Arc<Type>),
    /// A value or nothing.
    Optional(Arc<Type>),
    /// A map from integers or strings.
    Map(DType, Arc<Type>),
}

impl From<TensorType> for Type {
    fn from(t: TensorType) -> Type {
        Type::Tensor(t)
    }
}

impl Type {
    /// A tensor type with these dims.
    pub fn tensor(dtype: DType, shape: Vec<Dim>) -> Type {
        Type::Tensor(TensorType::new(dtype, shape))
    }
    /// The tensor type, if it is one.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(t) => Some(t),
            _ => None,
        }
    }
    /// The type with other dims in the place of symbols.
    pub fn substitute(&self, with: &dyn Fn(SymId) -> Option<Dim>) -> Type {
        let inner = |t: &Arc<Type>| Arc::new(t.substitute(with));
        match self {
            Type::Tensor(t) => {
                let dims = t.shape.as_ref().map(|s| s.iter().map(|d| d.substitute(with)).collect());
                Type::Tensor(TensorType { shape: dims, ..t.clone() })
            }
            Type::Sequence(t) => Type::Sequence(inner(t)),
            Type::Optional(t) => Type::Optional(inner(t)),
            Type::Map(key, t) => Type::Map(*key, inner(t)),
        }
    }
    /// Prints with the names of the symbols.
    pub fn display<'a>(&'a self, symbols: &'a Symbols) -> DisplayType<'a> {
        DisplayType { ty: self, symbols }
    }
    /// Whether a value of type `self` may stand where `other` is declared: same kinds and dtypes, and dims that do
    /// not contradict each other as numbers. Unknown ranks fit everything.
    pub fn fits(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Tensor(a), Type::Tensor(b)) => {
                a.dtype == b.dtype
                    && match (&a.shape, &b.shape) {
                        (Some(x), Some(y)) => {
                            x.len() == y.len()
                                && x.iter().zip(y).all(|(p, q)| match (p.as_const(), q.as_const()) {
                                    (Some(p), Some(q)) => p == q,
                                    _ => true,
                                })
                        }
                        _ => true,
                    }
            }
            (Type::Sequence(a), Type::Sequence(b)) | (Type::Optional(a), Type::Optional(b)) => a.fits(b),
            (Type::Map(k, a), Type::Map(l, b)) => k == l && a.fits(b),
            _ => false,
        }
    }
}

/// A type with names, see [`Type::display`].
pub struct DisplayType<'a> {
    ty: &'a Type,
    symbols: &'a Symbols,
}

impl fmt::Display for DisplayType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = |ty| DisplayType { ty, symbols: self.symbols };
        match self.ty {
            Type::Tensor(t) => {
                write!(f, "{}[", t.dtype)?;
                match &t.shape {
                    None => f.write_str("..")?,
                    Some(dims) => {
                        for (i, d) in dims.iter().enumerate() {
                            if i > 0 {
                                f.write_str(",")?;
                            }
                            write!(f, "{}", d.display(self.symbols))?;
                        }
                    }
                }
                f.write_str("]")?;
                if let Some(q) = &t.quant {
                    write!(f, "!q({}", q.scale)?;
                    if let Some(z) = q.zero_point {
                        write!(f, ",zero={z}")?;
                    }
                    if let Some(a) = q.axis {
                        write!(f, ",axis={a}")?;
                    }
                    if q.group != 1 {
                        write!(f, ",group={}", q.group)?;
                    }
                    f.write_str(")")?;
                }
                Ok(())
            }
            Type::Sequence(t) => write!(f, "seq<{}>", inner(t)),
            Type::Optional(t) => write!(f, "opt<{}>", inner(t)),
            Type::Map(k, t) => write!(f, "map<{k},{}>", inner(t)),
        }
    }
}
