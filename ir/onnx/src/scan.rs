//! A walk over the wire format before anything is decoded.
//!
//! The walk is iterative and allocates only its own stack, whose depth it bounds. It guarantees to the decoder that
//! every length lies inside the input, that messages are nested at most [`MESSAGE_DEPTH`] deep and subgraphs at most
//! [`Limits::graph_depth`], that no node lacks an operator name, and that decoding takes at most
//! `2 * input + Limits::decode_bytes` bytes of heap.

use crate::error::OnnxError;
use crate::limits::Limits;
use crate::proto;
use std::mem::size_of;

/// Deepest nesting of messages: subgraphs take three levels each, the rest is for types.
pub const MESSAGE_DEPTH: usize = 256;

/// What a file holds as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `ModelProto`
    Model,
    /// `TensorProto`
    Tensor,
    /// `SequenceProto`
    Sequence,
    /// `MapProto`
    Map,
    /// `OptionalProto`
    Optional,
}

/// Counts of a scanned file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes in all graphs and functions.
    pub nodes: u64,
    /// Deepest nesting of subgraphs; 0 without any.
    pub graph_depth: u32,
    /// Model-local functions.
    pub functions: u64,
    /// Items of repeated attributes.
    pub attribute_items: u64,
    /// Estimated heap bytes of the decoded messages.
    pub charged: u64,
}

/// Checks `input`, a message of kind `root`, against `limits`.
pub fn scan(root: Root, input: &[u8], limits: &Limits) -> Result<Stats, OnnxError> {
    if input.is_empty() {
        return Err(OnnxError::new("onnx-empty-file", "the file is empty"));
    }
    if input.len() as u64 > limits.file_bytes {
        let text = format!("the file is larger than the limit of {} bytes", limits.file_bytes);
        return Err(OnnxError::new("limit-file-size", text));
    }
    let kind = match root {
        Root::Model => Kind::Model,
        Root::Tensor => Kind::Tensor,
        Root::Sequence => Kind::Sequence,
        Root::Map => Kind::Map,
        Root::Optional => Kind::Optional,
    };
    let budget = limits.decode_bytes.saturating_add(2 * input.len() as u64);
    let mut scanner =
        Scanner { input, pos: 0, limits, budget, stats: Stats::default(), graphs: 0, stack: Vec::new() };
    scanner.run(kind)?;
    Ok(scanner.stats)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Segment,
    SparseTensor,
    ValueInfo,
    Type,
    TensorType,
    SequenceType,
    MapType,
    OptionalType,
    OpaqueType,
    Shape,
    Dim,
    Function,
    OpsetId,
    Entry,
    Training,
    Annotation,
    Device,
    NodeDevice,
    Sharding,
    IntIntList,
    ShardedDim,
    SimpleShardedDim,
    Sequence,
    Map,
    Optional,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    /// A nested message.
    Message(Kind),
    /// A string bounded by [`Limits::name_bytes`]; `true` where it may repeat.
    Name(bool),
    /// Any other string or byte string; `true` where it may repeat.
    Blob(bool),
    Varint,
    Varints,
    Fixed32,
    Fixed32s,
    Fixed64s,
    /// Skipped by the decoder.
    Unknown,
}

/// The schema, as far as the walk needs it.
fn field(kind: Kind, number: u32) -> Field {
    use Field::*;
    const TEXT: Field = Blob(false);
    const ENTRY: Field = Message(Kind::Entry);
    match (kind, number) {
        (Kind::Model, 1 | 5) => Varint,
        (Kind::Model, 2..=4 | 6) => TEXT,
        (Kind::Model, 7) => Message(Kind::Graph),
        (Kind::Model, 8) => Message(Kind::OpsetId),
        (Kind::Model, 14) => ENTRY,
        (Kind::Model, 20) => Message(Kind::Training),
        (Kind::Model, 25) => Message(Kind::Function),
        (Kind::Model, 26) => Message(Kind::Device),
        (Kind::Graph, 1) => Message(Kind::Node),
        (Kind::Graph, 2) => Name(false),
        (Kind::Graph, 5) => Message(Kind::Tensor),
        (Kind::Graph, 10) => TEXT,
        (Kind::Graph, 11..=13) => Message(Kind::ValueInfo),
        (Kind::Graph, 14) => Message(Kind::Annotation),
        (Kind::Graph, 15) => Message(Kind::SparseTensor),
        (Kind::Graph, 16) => ENTRY,
        (Kind::Node, 1 | 2) => Name(true),
        (Kind::Node, 3 | 4 | 7 | 8) => Name(false),
        (Kind::Node, 5) => Message(Kind::Attribute),
        (Kind::Node, 6) => TEXT,
        (Kind::Node, 9) => ENTRY,
        (Kind::Node, 10) => Message(Kind::NodeDevice),
        (Kind::Attribute, 1 | 21) => Name(false),
        (Kind::Attribute, 2) => Fixed32,
        (Kind::Attribute, 3 | 20) => Varint,
        (Kind::Attribute, 4 | 13) => TEXT,
        (Kind::Attribute, 5 | 10) => Message(Kind::Tensor),
        (Kind::Attribute, 6 | 11) => Message(Kind::Graph),
        (Kind::Attribute, 7) => Fixed32s,
        (Kind::Attribute, 8) => Varints,
        (Kind::Attribute, 9) => Blob(true),
        (Kind::Attribute, 14 | 15) => Message(Kind::Type),
        (Kind::Attribute, 22 | 23) => Message(Kind::SparseTensor),
        (Kind::Tensor, 1 | 5 | 7 | 11) => Varints,
        (Kind::Tensor, 2 | 14) => Varint,
        (Kind::Tensor, 3) => Message(Kind::Segment),
        (Kind::Tensor, 4) => Fixed32s,
        (Kind::Tensor, 6) => Blob(true),
        (Kind::Tensor, 8) => Name(false),
        (Kind::Tensor, 9 | 12) => TEXT,
        (Kind::Tensor, 10) => Fixed64s,
        (Kind::Tensor, 13 | 16) => ENTRY,
        (Kind::Segment, 1 | 2) => Varint,
        (Kind::SparseTensor, 1 | 2) => Message(Kind::Tensor),
        (Kind::SparseTensor, 3) => Varints,
        (Kind::ValueInfo, 1) => Name(false),
        (Kind::ValueInfo, 2) => Message(Kind::Type),
        (Kind::ValueInfo, 3) => TEXT,
        (Kind::ValueInfo, 4) => ENTRY,
        (Kind::Type, 1 | 8) => Message(Kind::TensorType),
        (Kind::Type, 4) => Message(Kind::SequenceType),
        (Kind::Type, 5) => Message(Kind::MapType),
        (Kind::Type, 6) => TEXT,
        (Kind::Type, 7) => Message(Kind::OpaqueType),
        (Kind::Type, 9) => Message(Kind::OptionalType),
        (Kind::TensorType, 1) => Varint,
        (Kind::TensorType, 2) => Message(Kind::Shape),
        (Kind::SequenceType | Kind::OptionalType, 1) => Message(Kind::Type),
        (Kind::MapType, 1) => Varint,
        (Kind::MapType, 2) => Message(Kind::Type),
        (Kind::OpaqueType, 1 | 2) => Name(false),
        (Kind::Shape, 1) => Message(Kind::Dim),
        (Kind::Dim, 1) => Varint,
        (Kind::Dim, 2) => Name(false),
        (Kind::Dim, 3) => TEXT,
        (Kind::Function, 1 | 10 | 13) => Name(false),
        (Kind::Function, 4..=6) => Name(true),
        (Kind::Function, 7) => Message(Kind::Node),
        (Kind::Function, 8) => TEXT,
        (Kind::Function, 9) => Message(Kind::OpsetId),
        (Kind::Function, 11) => Message(Kind::Attribute),
        (Kind::Function, 12) => Message(Kind::ValueInfo),
        (Kind::Function, 14) => ENTRY,
        (Kind::OpsetId, 1) => Name(false),
        (Kind::OpsetId, 2) => Varint,
        (Kind::Entry, 1 | 2) => TEXT,
        (Kind::Training, 1 | 2) => Message(Kind::Graph),
        (Kind::Training, 3 | 4) => ENTRY,
        (Kind::Annotation, 1) => Name(false),
        (Kind::Annotation, 2) => ENTRY,
        (Kind::Device, 1) => TEXT,
        (Kind::Device, 2) => Varint,
        (Kind::Device, 3) => Blob(true),
        (Kind::NodeDevice, 1) => TEXT,
        (Kind::NodeDevice, 2) => Message(Kind::Sharding),
        (Kind::NodeDevice, 3) => Varint,
        (Kind::Sharding, 1) => Name(false),
        (Kind::Sharding, 2) => Varints,
        (Kind::Sharding, 3) => Message(Kind::IntIntList),
        (Kind::Sharding, 4) => Message(Kind::ShardedDim),
        (Kind::IntIntList, 1) => Varint,
        (Kind::IntIntList, 2) => Varints,
        (Kind::ShardedDim, 1) => Varint,
        (Kind::ShardedDim, 2) => Message(Kind::SimpleShardedDim),
        (Kind::SimpleShardedDim, 1 | 3) => Varint,
        (Kind::SimpleShardedDim, 2) => Name(false),
        (Kind::Sequence | Kind::Map | Kind::Optional, 1) => Name(false),
        (Kind::Sequence | Kind::Map | Kind::Optional, 2) => Varint,
        (Kind::Sequence | Kind::Optional, 3) => Message(Kind::Tensor),
        (Kind::Sequence | Kind::Optional, 4) => Message(Kind::SparseTensor),
        (Kind::Sequence | Kind::Optional, 5) => Message(Kind::Sequence),
        (Kind::Sequence | Kind::Optional, 6) => Message(Kind::Map),
        (Kind::Sequence | Kind::Optional, 7) => Message(Kind::Optional),
        (Kind::Map, 3) => Varints,
        (Kind::Map, 4) => Blob(true),
        (Kind::Map, 5) => Message(Kind::Sequence),
        _ => Unknown,
    }
}

/// Heap bytes of one decoded message without its strings: its struct, doubled because vectors grow by doubling.
fn cost(kind: Kind) -> u64 {
    let size = match kind {
        Kind::Model => size_of::<proto::ModelProto>(),
        Kind::Graph => size_of::<proto::GraphProto>(),
        Kind::Node => size_of::<proto::NodeProto>().max(256),
        Kind::Attribute => size_of::<proto::AttributeProto>(),
        Kind::Tensor => size_of::<proto::TensorProto>(),
        Kind::Segment => 0,
        Kind::SparseTensor => size_of::<proto::SparseTensorProto>(),
        Kind::ValueInfo => size_of::<proto::ValueInfoProto>(),
        Kind::Type | Kind::SequenceType | Kind::MapType | Kind::OptionalType | Kind::OpaqueType => {
            size_of::<proto::TypeProto>()
        }
        Kind::TensorType => size_of::<proto::type_proto::Tensor>(),
        Kind::Shape => size_of::<proto::TensorShapeProto>(),
        Kind::Dim => size_of::<proto::tensor_shape_proto::Dimension>(),
        Kind::Function => size_of::<proto::FunctionProto>(),
        Kind::OpsetId => size_of::<proto::OperatorSetIdProto>(),
        Kind::Entry => size_of::<proto::StringStringEntryProto>(),
        Kind::Training => size_of::<proto::TrainingInfoProto>(),
        Kind::Annotation => size_of::<proto::TensorAnnotation>(),
        Kind::Device => size_of::<proto::DeviceConfigurationProto>(),
        Kind::NodeDevice => size_of::<proto::NodeDeviceConfigurationProto>(),
        Kind::Sharding => size_of::<proto::ShardingSpecProto>(),
        Kind::IntIntList => size_of::<proto::IntIntListEntryProto>(),
        Kind::ShardedDim => size_of::<proto::ShardedDimProto>(),
        Kind::SimpleShardedDim => size_of::<proto::SimpleShardedDimProto>(),
        Kind::Sequence => size_of::<proto::SequenceProto>(),
        Kind::Map => size_of::<proto::MapProto>(),
        Kind::Optional => size_of::<proto::OptionalProto>(),
    };
    2 * size as u64
}

struct Frame {
    kind: Kind,
    end: usize,
    /// Dimensions seen (tensors and shapes).
    rank: u32,
    /// A node: whether the last `op_type` was not empty.
    named: bool,
}

struct Scanner<'a> {
    input: &'a [u8],
    pos: usize,
    limits: &'a Limits,
    budget: u64,
    stats: Stats,
    graphs: u32,
    stack: Vec<Frame>,
}

impl Scanner<'_> {
    fn run(&mut self, root: Kind) -> Result<(), OnnxError> {
        self.enter(root, self.input.len())?;
        while let Some(frame) = self.stack.last() {
            let (kind, end) = (frame.kind, frame.end);
            if self.pos == end {
                if kind == Kind::Node && !frame.named {
                    return self.fail("onnx-empty-op-type", "a node has no operator type");
                }
                if kind == Kind::Graph {
                    self.graphs -= 1;
                }
                self.stack.pop();
                continue;
            }
            let key = self.varint(end)?;
            let number = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n));
            let Some(number) = number else {
                return self.fail("onnx-bad-wire", "a field number is out of range");
            };
            self.field(kind, number, (key & 7) as u8, end)?;
        }
        Ok(())
    }

    fn field(&mut self, kind: Kind, number: u32, wire: u8, end: usize) -> Result<(), OnnxError> {
        let what = field(kind, number);
        match (what, wire) {
            (Field::Varint | Field::Unknown, 0) => {
                self.varint(end)?;
            }
            (Field::Varints, 0) => {
                self.varint(end)?;
                self.items(kind, number, 1)?;
                self.charge(16)?;
            }
            (Field::Fixed32, 5) => self.skip(4, end)?,
            (Field::Fixed32s, 5) => {
                self.skip(4, end)?;
                self.items(kind, number, 1)?;
                self.charge(8)?;
            }
            (Field::Fixed64s, 1) => {
                self.skip(8, end)?;
                self.charge(16)?;
            }
            (Field::Unknown, 1) => self.skip(8, end)?,
            (Field::Unknown, 5) => self.skip(4, end)?,
            (Field::Message(child), 2) => {
                let length = self.length(end)?;
                if kind == Kind::Shape {
                    self.items(kind, number, 1)?;
                }
                self.enter(child, self.pos + length)?;
            }
            (Field::Varints, 2) => {
                let length = self.length(end)?;
                let packed = &self.input[self.pos..self.pos + length];
                if packed.last().is_some_and(|b| b & 0x80 != 0) {
                    return self.fail("onnx-truncated", "a packed integer list ends inside a number");
                }
                let count = packed.iter().filter(|b| *b & 0x80 == 0).count() as u64;
                self.items(kind, number, count)?;
                self.charge(count * if (kind, number) == (Kind::Tensor, 5) { 8 } else { 16 })?;
                self.pos += length;
            }
            (Field::Fixed32s | Field::Fixed64s, 2) => {
                let length = self.length(end)?;
                let size = if what == Field::Fixed32s { 4 } else { 8 };
                if length % size != 0 {
                    return self.fail(
                        "onnx-bad-wire",
                        "the length of a packed list is no multiple of its element size",
                    );
                }
                self.items(kind, number, (length / size) as u64)?;
                // Charged at its size in the file; growth by doubling is covered by the share of the file size.
                self.charge(2 * length as u64)?;
                self.pos += length;
            }
            (Field::Name(repeats), 2) => {
                let length = self.length(end)?;
                if length as u64 > self.limits.name_bytes {
                    let text = format!("a name is longer than the limit of {} bytes", self.limits.name_bytes);
                    return self.fail("limit-name-length", &text);
                }
                if (kind, number) == (Kind::Node, 4)
                    && let Some(frame) = self.stack.last_mut()
                {
                    frame.named = length > 0;
                }
                self.charge(length as u64 + if repeats { 48 } else { 0 })?;
                self.pos += length;
            }
            (Field::Blob(repeats), 2) => {
                let length = self.length(end)?;
                if repeats {
                    self.items(kind, number, 1)?;
                    self.charge(64)?;
                }
                self.pos += length;
            }
            (Field::Unknown, 2) => {
                let length = self.length(end)?;
                self.pos += length;
            }
            _ => {
                let text = format!("field {number} of a {kind:?} message has wire type {wire}");
                return self.fail("onnx-bad-wire", &text);
            }
        }
        Ok(())
    }

    fn enter(&mut self, kind: Kind, end: usize) -> Result<(), OnnxError> {
        if self.stack.len() >= MESSAGE_DEPTH {
            return self
                .fail("limit-message-depth", &format!("messages are nested more than {MESSAGE_DEPTH} deep"));
        }
        self.charge(cost(kind))?;
        match kind {
            Kind::Node => {
                self.stats.nodes += 1;
                if self.stats.nodes > self.limits.nodes {
                    let text = format!("more nodes than the limit of {}", self.limits.nodes);
                    return self.fail("limit-nodes", &text);
                }
            }
            Kind::Graph => {
                self.graphs += 1;
                let depth = self.graphs - 1;
                self.stats.graph_depth = self.stats.graph_depth.max(depth);
                if depth > self.limits.graph_depth {
                    let text =
                        format!("subgraphs are nested deeper than the limit of {}", self.limits.graph_depth);
                    return self.fail("limit-graph-depth", &text);
                }
            }
            Kind::Function => {
                self.stats.functions += 1;
                if self.stats.functions > self.limits.functions {
                    let text = format!("more functions than the limit of {}", self.limits.functions);
                    return self.fail("limit-functions", &text);
                }
            }
            _ => {}
        }
        self.stack.push(Frame { kind, end, rank: 0, named: false });
        Ok(())
    }

    /// Counts `count` items of a repeated field against the rank and attribute limits.
    fn items(&mut self, kind: Kind, number: u32, count: u64) -> Result<(), OnnxError> {
        let dims = matches!((kind, number), (Kind::Tensor, 1) | (Kind::SparseTensor, 3) | (Kind::Shape, 1));
        if dims {
            let limit = self.limits.rank;
            if let Some(frame) = self.stack.last_mut() {
                frame.rank = frame.rank.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
                if frame.rank > limit {
                    return self.fail(
                        "limit-rank",
                        &format!("a shape has more dimensions than the limit of {limit}"),
                    );
                }
            }
        } else if kind == Kind::Attribute {
            self.stats.attribute_items += count;
            if self.stats.attribute_items > self.limits.attribute_items {
                let text =
                    format!("attributes hold more items than the limit of {}", self.limits.attribute_items);
                return self.fail("limit-attribute-items", &text);
            }
        }
        Ok(())
    }

    fn charge(&mut self, bytes: u64) -> Result<(), OnnxError> {
        self.stats.charged = self.stats.charged.saturating_add(bytes);
        if self.stats.charged > self.budget {
            let text = format!("decoding would take more than the limit of {} bytes of memory", self.budget);
            return self.fail("limit-memory", &text);
        }
        Ok(())
    }

    fn varint(&mut self, end: usize) -> Result<u64, OnnxError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            if self.pos == end {
                return self.fail("onnx-truncated", "the message ends inside a number");
            }
            let byte = self.input[self.pos];
            self.pos += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        self.fail("onnx-bad-wire", "a number takes more than 64 bits")
    }

    /// A length, checked against the end of the enclosing message.
    fn length(&mut self, end: usize) -> Result<usize, OnnxError> {
        let length = self.varint(end)?;
        let left = end - self.pos;
        match usize::try_from(length) {
            Ok(n) if n <= left => Ok(n),
            _ => self.fail("onnx-truncated", &format!("a field claims {length} bytes where {left} are left")),
        }
    }

    fn skip(&mut self, bytes: usize, end: usize) -> Result<(), OnnxError> {
        if end - self.pos < bytes {
            return self.fail("onnx-truncated", "the message ends inside a number");
        }
        self.pos += bytes;
        Ok(())
    }

    fn fail<T>(&self, id: &'static str, text: &str) -> Result<T, OnnxError> {
        Err(OnnxError::new(id, format!("{text} (byte {})", self.pos)))
    }
}

#[cfg(test)]
mod tests;
