//! An ONNX node as the operator handlers see it: resolved operands and typed attributes.

use crate::error::{OnnxError, quoted};
use crate::functions::Bindings;
use crate::proto::attribute_proto::AttributeType;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use planish_ir::{DType, Diag, Loc, ValueId};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// A node whose operands are values and whose attributes are resolved.
#[derive(Debug)]
pub struct OnnxNode<'m> {
    /// Operator type.
    pub op_type: &'m str,
    /// Domain; empty for the default one.
    pub domain: &'m str,
    /// Version of the domain's operator set.
    pub opset: i64,
    /// Operands; `None` where one is omitted. Omitted ones at the end are cut.
    pub inputs: Vec<Option<ValueId>>,
    /// Names of the results, the empty string where one is not wanted. Unwanted ones at the end are cut.
    pub outputs: Vec<&'m str>,
    /// Where the node comes from.
    pub loc: Loc,
    attributes: Vec<(&'m str, &'m AttributeProto)>,
    used: RefCell<BTreeSet<&'m str>>,
}

impl<'m> OnnxNode<'m> {
    /// Attributes of `proto` resolved through `bindings`; operands are given.
    pub(crate) fn new(
        proto: &'m NodeProto,
        opset: i64,
        mut inputs: Vec<Option<ValueId>>,
        loc: Loc,
        bindings: &Bindings<'m>,
    ) -> Result<Self, OnnxError> {
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let mut outputs: Vec<&str> = proto.output.iter().map(String::as_str).collect();
        while outputs.last().is_some_and(|n| n.is_empty()) {
            outputs.pop();
        }
        let mut attributes: Vec<(&str, &AttributeProto)> = Vec::with_capacity(proto.attribute.len());
        for a in &proto.attribute {
            if attributes.iter().any(|(n, _)| *n == a.name()) {
                let text = format!("attribute {} is given twice", quoted(a.name()));
                return Err(OnnxError::new("attribute-repeated", text));
            }
            if let Some(value) = bindings.resolve(a)? {
                attributes.push((a.name(), value));
            }
        }
        Ok(OnnxNode {
            op_type: proto.op_type(),
            domain: crate::proto::canonical_domain(proto.domain()),
            opset,
            inputs,
            outputs,
            loc,
            attributes,
            used: RefCell::default(),
        })
    }

    /// Operand `i`, which must be given.
    pub fn input(&self, i: usize) -> Result<ValueId, Diag> {
        self.opt(i).ok_or_else(|| self.error("operand-missing", format!("operand {i} is missing")))
    }

    /// Operand `i`, if it is given.
    pub fn opt(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// All operands, none of which may be omitted.
    pub fn all_inputs(&self) -> Result<Vec<ValueId>, Diag> {
        (0..self.inputs.len()).map(|i| self.input(i)).collect()
    }

    /// Whether result `i` is wanted.
    pub fn wants(&self, i: usize) -> bool {
        self.outputs.get(i).is_some_and(|n| !n.is_empty())
    }

    /// An error at this node.
    pub fn error(&self, id: &'static str, message: impl Into<String>) -> Diag {
        Diag::error(id, format!("{}: {}", self.op_type, message.into())).at(self.loc.clone())
    }

    /// "Valid, but not supported" at this node.
    pub fn unsupported(&self, message: impl Into<String>) -> Diag {
        self.error("unsupported", message)
    }

    /// Attribute `name`, which counts as known from now on.
    pub fn attr(&self, name: &str) -> Option<&'m AttributeProto> {
        let (key, value) = self.attributes.iter().find(|(n, _)| *n == name)?;
        self.used.borrow_mut().insert(key);
        Some(value)
    }

    /// Marks attributes as known that have no effect here.
    pub fn ignore(&self, names: &[&str]) {
        for name in names {
            self.attr(name);
        }
    }

    /// Names of attributes that no handler has asked for.
    pub(crate) fn unknown_attributes(&self) -> Vec<&'m str> {
        let used = self.used.borrow();
        self.attributes.iter().map(|(n, _)| *n).filter(|n| !used.contains(n)).collect()
    }

    fn typed(&self, name: &str, kind: AttributeType) -> Result<Option<&'m AttributeProto>, Diag> {
        let Some(a) = self.attr(name) else { return Ok(None) };
        // Files of the first IR versions do not say the type.
        if a.r#type.is_none() || a.r#type == Some(kind as i32) {
            return Ok(Some(a));
        }
        let is = AttributeType::try_from(a.r#type() as i32).map_or("unknown", |t| t.as_str_name());
        let text = format!("attribute {} is {is}, not {}", quoted(name), kind.as_str_name());
        Err(self.error("attribute-type", text))
    }

    /// An integer.
    pub fn int(&self, name: &str) -> Result<Option<i64>, Diag> {
        Ok(self.typed(name, AttributeType::Int)?.map(|a| a.i()))
    }

    /// An integer with a default.
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64, Diag> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// An integer that must be given.
    pub fn need_int(&self, name: &str) -> Result<i64, Diag> {
        self.int(name)?.ok_or_else(|| self.missing(name))
    }

    /// An integer within `range`, with a default.
    pub fn int_in(
        &self,
        name: &str,
        default: i64,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<i64, Diag> {
        let value = self.int_or(name, default)?;
        if range.contains(&value) {
            return Ok(value);
        }
        let text = format!("attribute {} is {value}, not within {range:?}", quoted(name));
        Err(self.error("attribute-range", text))
    }

    /// An integer that is a flag: 0 is false and anything else is true.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Diag> {
        Ok(self.int(name)?.map_or(default, |v| v != 0))
    }

    /// Integers.
    pub fn ints(&self, name: &str) -> Result<Option<&'m [i64]>, Diag> {
        Ok(self.typed(name, AttributeType::Ints)?.map(|a| a.ints.as_slice()))
    }

    /// Integers within `range`.
    pub fn ints_in(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<&'m [i64]>, Diag> {
        let Some(values) = self.ints(name)? else { return Ok(None) };
        match values.iter().find(|v| !range.contains(v)) {
            None => Ok(Some(values)),
            Some(v) => {
                let text = format!("attribute {} holds {v}, not within {range:?}", quoted(name));
                Err(self.error("attribute-range", text))
            }
        }
    }

    /// A float.
    pub fn float(&self, name: &str) -> Result<Option<f32>, Diag> {
        Ok(self.typed(name, AttributeType::Float)?.map(|a| a.f()))
    }

    /// A float with a default.
    pub fn float_or(&self, name: &str, default: f32) -> Result<f32, Diag> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    /// Floats.
    pub fn floats(&self, name: &str) -> Result<Option<&'m [f32]>, Diag> {
        Ok(self.typed(name, AttributeType::Floats)?.map(|a| a.floats.as_slice()))
    }

    /// A string.
    pub fn string(&self, name: &str) -> Result<Option<&'m str>, Diag> {
        match self.typed(name, AttributeType::String)? {
            None => Ok(None),
            Some(a) => self.text(name, a.s.as_deref().unwrap_or_default()).map(Some),
        }
    }

    /// A string with a default.
    pub fn string_or(&self, name: &str, default: &'m str) -> Result<&'m str, Diag> {
        Ok(self.string(name)?.unwrap_or(default))
    }

    /// Strings.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<&'m str>>, Diag> {
        match self.typed(name, AttributeType::Strings)? {
            None => Ok(None),
            Some(a) => a.strings.iter().map(|s| self.text(name, s)).collect::<Result<_, _>>().map(Some),
        }
    }

    /// A string that must be one of `choices`, as its index.
    pub fn choice(&self, name: &str, default: usize, choices: &[&str]) -> Result<usize, Diag> {
        let Some(value) = self.string(name)? else { return Ok(default) };
        choices.iter().position(|c| *c == value).ok_or_else(|| {
            let text = format!("attribute {} is {}, not one of {choices:?}", quoted(name), quoted(value));
            self.error("attribute-range", text)
        })
    }

    /// A tensor.
    pub fn tensor(&self, name: &str) -> Result<Option<&'m TensorProto>, Diag> {
        Ok(self.typed(name, AttributeType::Tensor)?.and_then(|a| a.t.as_deref()))
    }

    /// A type. Its tensors have dims only where all are numbers.
    pub fn ty(&self, name: &str) -> Result<Option<planish_ir::Type>, Diag> {
        let Some(ty) = self.typed(name, AttributeType::TypeProto)?.and_then(|a| a.tp.as_deref()) else {
            return Ok(None);
        };
        super::types::closed(ty).map(Some).map_err(|e| self.error(e.id, e.message))
    }

    /// A subgraph that must be given.
    pub fn graph(&self, name: &str) -> Result<&'m GraphProto, Diag> {
        let graph = self.typed(name, AttributeType::Graph)?.and_then(|a| a.g.as_deref());
        graph.ok_or_else(|| self.missing(name))
    }

    /// An element type given by its number.
    pub fn dtype(&self, name: &str) -> Result<Option<DType>, Diag> {
        let Some(code) = self.int(name)? else { return Ok(None) };
        let code = i32::try_from(code).unwrap_or(0);
        super::types::dtype(code).map(Some).map_err(|e| self.error(e.id, e.message))
    }

    /// The diagnostic for an attribute that must be given.
    pub fn missing(&self, name: &str) -> Diag {
        self.error("attribute-missing", format!("attribute {} is missing", quoted(name)))
    }

    fn text(&self, name: &str, bytes: &'m [u8]) -> Result<&'m str, Diag> {
        std::str::from_utf8(bytes)
            .map_err(|_| self.error("attribute-type", format!("attribute {} is not UTF-8", quoted(name))))
    }
}
