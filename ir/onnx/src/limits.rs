//! Limits on what a file may ask for.

/// Bounds enforced while a model is read. Each has an error id `limit-*`; the defaults are far above real models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the protobuf file in bytes.
    pub file_bytes: u64,
    /// Nodes in all graphs, subgraphs and function bodies together; also the bound after function expansion.
    pub nodes: u64,
    /// Nesting of subgraphs below the main graph, also after function expansion.
    pub graph_depth: u32,
    /// Model-local functions.
    pub functions: u64,
    /// Nesting of function calls.
    pub call_depth: u32,
    /// Dimensions of a tensor or of a declared shape.
    pub rank: u32,
    /// Elements of a tensor.
    pub elements: u64,
    /// Bytes of a tensor.
    pub tensor_bytes: u64,
    /// Integers, floats and strings in node attributes, in all.
    pub attribute_items: u64,
    /// Bytes of a node, value, operator, domain, attribute or dimension name.
    pub name_bytes: u64,
    /// Heap bytes that decoding may take, on top of twice the file size.
    pub decode_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            file_bytes: 2 << 30,
            nodes: 1_000_000,
            graph_depth: 32,
            functions: 4096,
            call_depth: 64,
            rank: 16,
            elements: 1 << 40,
            tensor_bytes: 64 << 30,
            attribute_items: 10_000_000,
            name_bytes: 64 << 10,
            decode_bytes: 192 << 20,
        }
    }
}
