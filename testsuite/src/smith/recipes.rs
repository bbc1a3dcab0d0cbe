//! The table of recipes: at least one for every operation.

use super::{Item, Smith, arrays, choose, control, dense, elementwise, quantised, special};
use planish_ir::Op;

/// How operations of one kind come into a random graph.
pub struct Recipe {
    /// The operation it is about, by its name in the text format.
    pub op: &'static str,
    pub(crate) make: fn(&mut Smith<'_>) -> Option<Item>,
}

macro_rules! recipes {
    ($($op:literal: $make:path,)*) => {
        /// All recipes. An operation that stands several times is drawn more often.
        pub const RECIPES: &[Recipe] = &[$(Recipe { op: $op, make: $make },)*];
    };
}

recipes! {
    "const": constant,
    "unary": elementwise::unary,
    "unary": elementwise::unary,
    "binary": elementwise::binary,
    "binary": elementwise::binary,
    "where": elementwise::select,
    "cast": elementwise::cast,
    "reshape": arrays::reshape,
    "shape": arrays::dims,
    "squeeze": arrays::squeeze,
    "unsqueeze": arrays::unsqueeze,
    "flatten": arrays::flatten,
    "bit-cast": arrays::bit_cast,
    "transpose": arrays::transpose,
    "expand": arrays::expand,
    "concat": arrays::concat,
    "split": arrays::split,
    "tile": arrays::tile,
    "pad": arrays::pad,
    "slice": arrays::slice,
    "gather": arrays::gather,
    "gather-elements": arrays::gather_elements,
    "gather-nd": arrays::gather_nd,
    "scatter-elements": arrays::scatter_elements,
    "scatter-nd": arrays::scatter_nd,
    "tensor-scatter": arrays::tensor_scatter,
    "matmul": dense::matmul,
    "matmul": dense::matmul,
    "det": dense::det,
    "einsum": dense::einsum,
    "conv": dense::conv,
    "conv": dense::conv,
    "conv-transpose": dense::conv_transpose,
    "pool": dense::pool,
    "softmax": dense::softmax,
    "layer-norm": dense::layer_norm,
    "reduce": dense::reduce,
    "reduce": dense::reduce,
    "cumulate": dense::cumulate,
    "recurrent": dense::recurrent,
    "quantize": quantised::quantize,
    "dequantize": quantised::dequantize,
    "matmul-integer": quantised::matmul_integer,
    "range": choose::range,
    "eye-like": choose::eye_like,
    "trilu": choose::trilu,
    "one-hot": choose::one_hot,
    "top-k": choose::top_k,
    "arg-reduce": choose::arg_reduce,
    "random": choose::random,
    "multinomial": choose::multinomial,
    "non-zero": choose::non_zero,
    "compress": choose::compress,
    "unique": choose::unique,
    "reverse-sequence": choose::reverse_sequence,
    "sequence": choose::sequence,
    "sequence-at": choose::sequence,
    "sequence-insert": choose::sequence,
    "sequence-erase": choose::sequence,
    "sequence-length": choose::sequence,
    "split-sequence": choose::sequence,
    "concat-sequence": choose::sequence,
    "optional": choose::optional,
    "optional-get": choose::optional,
    "optional-has": choose::optional,
    "resize": special::resize,
    "dft": special::dft,
    "stft": special::stft,
    "signal-window": special::signal_window,
    "mel-weights": special::mel_weights,
    "string-concat": special::string_concat,
    "string-split": special::string_split,
    "string-normalize": special::string_normalize,
    "regex-match": special::regex_match,
    "tf-idf": special::tf_idf,
    "label-encode": special::label_encode,
    "tree-ensemble": special::tree_ensemble,
    "zip-map": special::maps,
    "dict-vectorize": special::maps,
    "cast-map": special::maps,
    "roi-align": special::roi_align,
    "max-roi-pool": special::max_roi_pool,
    "non-max-suppression": special::non_max_suppression,
    "if": control::branch,
    "loop": control::repeat,
    "gate": control::gate,
}

/// The numbers of the recipes whose operation exists.
pub fn usable() -> Vec<usize> {
    let table = Op::table();
    let exists = |recipe: &Recipe| table.iter().any(|(name, _)| *name == recipe.op);
    (0..RECIPES.len()).filter(|i| exists(&RECIPES[*i])).collect()
}

/// A tensor of any type that later steps may use.
fn constant(s: &mut Smith<'_>) -> Option<Item> {
    Some(arrays::anything(s, |_| false))
}
