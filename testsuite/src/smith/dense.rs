//! Recipes for contractions, windows, reductions, normalisations and recurrent layers.

use super::arrays::list;
use super::elementwise::{INTS, float_type, holds_exactly, number_type};
use super::quantised::product_dims;
use super::values::{any_shape, shape};
use super::{Domain, Item, Quality, Smith};
use planish_ir::DType;

/// The quality of sums of `terms` products of elements of `a` and `b`. Small exact operands are quarters, whose sums of
/// products are exact in any order.
fn products(a: &Item, b: &Item, terms: usize) -> Quality {
    let size = a.size * b.size * terms.max(1) as f64;
    let coarse = a.size <= 6.0 && b.size <= 6.0 && holds_exactly(a.dtype, 4.0 * size);
    Quality { exact: a.exact && b.exact && (coarse || !a.dtype.is_float()), size }
}

pub(crate) fn matmul(s: &mut Smith) -> Option<Item> {
    let (mut da, mut db) = product_dims(s);
    let (ta, tb) = (s.rng.one_in(3), s.rng.one_in(3));
    let k = da[da.len() - 1];
    for (flag, dims) in [(ta, &mut da), (tb, &mut db)] {
        if flag {
            let n = dims.len();
            dims.swap(n - 1, n - 2);
        }
    }
    let dtype = number_type(s);
    let (a, b) = (s.get(dtype, &da, Domain::Any), s.get(dtype, &db, Domain::Any));
    let fields = [("trans_a", ta.to_string()), ("trans_b", tb.to_string())];
    let quality = products(&a, &b, k);
    s.emit1("matmul", &fields, &[&a, &b], quality)
}

/// A product of constant weights whose inputs near zero count as zero.
pub(crate) fn gated_matmul(s: &mut Smith) -> Option<Item> {
    let lead = s.rng.below(3);
    let mut dims = shape(&mut s.rng, lead);
    let (m, k, n) = (s.rng.below(7), s.rng.below(9), s.rng.below(20));
    dims.extend([m, k]);
    let trans = s.rng.one_in(2);
    // What counts as zero must not hang on a rounding.
    let x = s.get(DType::F32, &dims, Domain::Exact);
    let dims = if trans { [n, k] } else { [k, n] };
    let w = s.fresh_constant(DType::F32, &dims, Domain::Any);
    let threshold = s.rng.choose(&["0.0", "0.5", "2.0", "inf"]);
    let block = 1 + s.rng.below(4);
    let fields =
        [("threshold", threshold.to_owned()), ("block", block.to_string()), ("trans_b", trans.to_string())];
    let quality = products(&x, &w, k);
    s.emit1("gated-matmul", &fields, &[&x, &w], quality)
}

/// A grid of blocks, and positions of some of them.
fn blocks(s: &mut Smith) -> ([usize; 4], Item) {
    let [bk, bn] = [0, 1].map(|_| s.rng.choose(&[1, 1, 2, 3, 4, 8, 16]));
    let (down, across) = (1 + s.rng.below(3), 1 + s.rng.below(3));
    let count = s.rng.below(down * across + 1);
    let index: Vec<i64> = (0..count).map(|_| s.rng.below(down * across) as i64).collect();
    let index = s.ints(&index);
    ([down * bk, across * bn, bk, bn], index)
}

fn block_fields([k, n, bk, bn]: [usize; 4]) -> Vec<(&'static str, String)> {
    [("k", k), ("n", n), ("bk", bk), ("bn", bn)].map(|(name, v)| (name, v.to_string())).to_vec()
}

pub(crate) fn block_matmul(s: &mut Smith) -> Option<Item> {
    let dtype = float_type(s);
    let (grid, index) = blocks(s);
    let [k, n, bk, bn] = grid;
    let trans = s.rng.one_in(2);
    let rows = s.rng.below(20);
    let x = s.get(dtype, &[rows, if trans { n } else { k }], Domain::Any);
    let values = s.get(dtype, &[index.shape[0], bk, bn], Domain::Any);
    let quality = products(&x, &values, k.max(n) * index.shape[0]);
    let mut fields = block_fields(grid);
    fields.push(("trans", trans.to_string()));
    s.emit1("block-matmul", &fields, &[&x, &values, &index], quality)
}

pub(crate) fn block_outer(s: &mut Smith) -> Option<Item> {
    let dtype = float_type(s);
    let (grid, index) = blocks(s);
    let rows = s.rng.below(20);
    let x = s.get(dtype, &[rows, grid[0]], Domain::Any);
    let y = s.get(dtype, &[rows, grid[1]], Domain::Any);
    let quality = products(&x, &y, rows);
    s.emit1("block-outer", &block_fields(grid), &[&x, &y, &index], quality)
}

pub(crate) fn det(s: &mut Smith) -> Option<Item> {
    let n = 1 + s.rng.below(3);
    let lead = s.rng.below(2);
    let mut dims = shape(&mut s.rng, lead);
    dims.extend([n, n]);
    let x = s.get(DType::F32, &dims, Domain::Any);
    s.emit1("det", &[], &[&x], Quality { exact: false, size: x.size.powi(n as i32) * 6.0 })
}

pub(crate) fn einsum(s: &mut Smith) -> Option<Item> {
    let equations: [(&str, &[&str]); 8] = [
        ("ij,jk->ik", &["ij", "jk"]),
        ("bij,bjk->bik", &["bij", "bjk"]),
        ("bhid,bhjd->bhij", &["bhid", "bhjd"]),
        ("ij->ji", &["ij"]),
        ("ij->", &["ij"]),
        ("ii->i", &["ii"]),
        ("i,j->ij", &["i", "j"]),
        ("ij,j", &["ij", "j"]),
    ];
    let (equation, terms) = s.rng.choose(&equations);
    let size_of = |letter: char, sizes: &[usize]| sizes[(letter as usize - 'a' as usize) % sizes.len()];
    let sizes: Vec<usize> = (0..7).map(|_| super::values::small_dim(&mut s.rng)).collect();
    let dtype = if s.rng.one_in(4) { DType::F64 } else { DType::F32 };
    let items: Vec<Item> = terms
        .iter()
        .map(|term| {
            let dims: Vec<usize> = term.chars().map(|c| size_of(c, &sizes)).collect();
            s.get(dtype, &dims, Domain::Any)
        })
        .collect();
    let n = sizes.iter().product::<usize>().max(1);
    let size = items.iter().map(|item| item.size).product::<f64>() * n as f64;
    let operands: Vec<&Item> = items.iter().collect();
    let fields = [("equation", format!("\"{equation}\""))];
    s.emit1("einsum", &fields, &operands, Quality { exact: false, size: size.min(1e5) })
}

/// Fields of a window over `spatial` dims: kernel, strides, dilations, pads.
struct Window {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    auto_pad: &'static str,
}

fn window(s: &mut Smith, rank: usize) -> Window {
    let small = |s: &mut Smith, odds: usize, most: usize| -> Vec<usize> {
        (0..rank).map(|_| if s.rng.one_in(odds) { 1 + s.rng.below(most) } else { 1 }).collect()
    };
    let kernel: Vec<usize> = (0..rank).map(|_| 1 + s.rng.below(3)).collect();
    let (strides, dilations) = (small(s, 2, 3), small(s, 3, 2));
    let explicit = !s.rng.one_in(4);
    let pads = (0..2 * rank).map(|i| if explicit { s.rng.below(kernel[i % rank]) } else { 0 }).collect();
    let auto_pad = if explicit { "explicit" } else { s.rng.choose(&["same-upper", "same-lower"]) };
    Window { kernel, strides, dilations, pads, auto_pad }
}

pub(crate) fn conv(s: &mut Smith) -> Option<Item> {
    let rank = s.rng.choose(&[1, 2, 2, 2, 3]);
    let w = window(s, rank);
    let groups = s.rng.choose(&[1, 1, 1, 2, 3]);
    let (per, out) = (1 + s.rng.below(5), 1 + s.rng.below(6));
    // Depthwise now and then.
    let (per, out) = if groups > 1 && s.rng.one_in(2) { (1, 1) } else { (per, out) };
    let mut dims = vec![s.rng.below(3), groups * per];
    dims.extend((0..rank).map(|_| 5 + s.rng.below(if rank == 3 { 2 } else { 9 })));
    let dtype =
        if s.rng.one_in(6) { s.rng.choose(&[DType::F64, DType::F16, DType::I32]) } else { DType::F32 };
    let x = s.get(dtype, &dims, Domain::Any);
    let mut weights = vec![groups * out, per];
    weights.extend(&w.kernel);
    let k = s.get(dtype, &weights, Domain::Any);
    let bias = s.rng.one_in(2).then(|| s.get(dtype, &[groups * out], Domain::Any));
    let terms = weights[1..].iter().product::<usize>() + 1;
    let fields = conv_fields(&w, groups);
    let mut quality = products(&x, &k, terms);
    if let Some(b) = &bias {
        quality = Quality { exact: quality.exact && b.exact, size: quality.size + b.size };
    }
    s.emit("conv", &fields, &[Some(&x), Some(&k), bias.as_ref()], quality)?.into_iter().next()
}

fn conv_fields(w: &Window, groups: usize) -> [(&'static str, String); 5] {
    [
        ("strides", list(&w.strides)),
        ("dilations", list(&w.dilations)),
        ("pads", list(&w.pads)),
        ("auto_pad", w.auto_pad.to_owned()),
        ("groups", groups.to_string()),
    ]
}

pub(crate) fn conv_integer(s: &mut Smith) -> Option<Item> {
    let rank = s.rng.choose(&[1, 2, 2]);
    let w = window(s, rank);
    let groups = s.rng.choose(&[1, 1, 1, 2, 17]);
    let (per, out) = if groups == 17 { (1, 1) } else { (1 + s.rng.below(20), 1 + s.rng.below(24)) };
    let mut dims = vec![s.rng.below(3), groups * per];
    dims.extend((0..rank).map(|_| 5 + s.rng.below(6)));
    let types = [DType::U8, DType::I8];
    let (tx, tw) = (s.rng.choose(&types), s.rng.choose(&types));
    let x = s.get(tx, &dims, Domain::Any);
    let mut weights = vec![groups * out, per];
    weights.extend(&w.kernel);
    let k = s.get(tw, &weights, Domain::Any);
    let zero = |s: &mut Smith, dtype| s.rng.one_in(2).then(|| s.fresh(dtype, &[], Domain::Between(0, 3)));
    let (zx, zw) = (zero(s, tx), zero(s, tw));
    let terms = weights[1..].iter().product::<usize>() + 1;
    let fields = conv_fields(&w, groups);
    let size = (x.size + 3.0) * (k.size + 3.0) * terms as f64;
    let operands = [Some(&x), Some(&k), zx.as_ref(), zw.as_ref()];
    s.emit("conv-integer", &fields, &operands, Quality { exact: true, size })?.into_iter().next()
}

pub(crate) fn conv_transpose(s: &mut Smith) -> Option<Item> {
    let rank = s.rng.choose(&[1, 2, 2]);
    let w = window(s, rank);
    let groups = s.rng.choose(&[1, 1, 2]);
    let (per, out) = (1 + s.rng.below(3), 1 + s.rng.below(3));
    let mut dims = vec![1 + s.rng.below(2), groups * per];
    dims.extend((0..rank).map(|_| 3 + s.rng.below(4)));
    let x = s.get(DType::F32, &dims, Domain::Any);
    let mut weights = vec![groups * per, out];
    weights.extend(&w.kernel);
    let k = s.get(DType::F32, &weights, Domain::Any);
    let bias = s.rng.one_in(2).then(|| s.get(DType::F32, &[groups * out], Domain::Any));
    let extra: Vec<usize> = w.strides.iter().map(|stride| s.rng.below(*stride)).collect();
    let pads: Vec<usize> = w.pads.iter().map(|p| (*p).min(1)).collect();
    let fields = [
        ("strides", list(&w.strides)),
        ("dilations", list(&w.dilations)),
        ("pads", list(&pads)),
        ("output_padding", list(&extra)),
        ("groups", groups.to_string()),
    ];
    let terms = per * w.kernel.iter().product::<usize>() + 1;
    let quality = Quality { exact: false, ..products(&x, &k, terms) };
    s.emit("conv-transpose", &fields, &[Some(&x), Some(&k), bias.as_ref()], quality)?.into_iter().next()
}

pub(crate) fn pool(s: &mut Smith) -> Option<Item> {
    let rank = s.rng.choose(&[1, 2, 2, 2, 3]);
    let w = window(s, rank);
    let kind = s.rng.choose(&["max", "max", "average", "average", "lp"]);
    let mut dims = vec![1 + s.rng.below(2), 1 + s.rng.below(4)];
    dims.extend((0..rank).map(|_| 5 + s.rng.below(6)));
    let dtype =
        if kind == "max" && s.rng.one_in(4) { s.rng.choose(&[DType::U8, DType::I8]) } else { DType::F32 };
    let x = s.get(dtype, &dims, if kind == "max" { Domain::Exact } else { Domain::Any });
    let indices =
        if kind == "max" { s.rng.choose(&["none", "none", "row-major", "column-major"]) } else { "none" };
    let fields = [
        ("kind", kind.to_owned()),
        ("kernel", list(&w.kernel)),
        ("strides", list(&w.strides)),
        ("dilations", list(&w.dilations)),
        ("pads", list(&w.pads)),
        ("auto_pad", w.auto_pad.to_owned()),
        ("ceil_mode", s.rng.one_in(3).to_string()),
        ("count_include_pad", s.rng.one_in(2).to_string()),
        ("p", if kind == "lp" { "2" } else { "1" }.to_owned()),
        ("indices", indices.to_owned()),
    ];
    let size = x.size * if kind == "lp" { 27.0 } else { 1.0 };
    s.emit1("pool", &fields, &[&x], Quality { exact: kind == "max", size })
}

pub(crate) fn softmax(s: &mut Smith) -> Option<Item> {
    let kind = s.rng.choose(&["softmax", "softmax", "log-softmax", "hardmax"]);
    let dtype = float_type(s);
    let x =
        s.some(&[dtype], |item| item.rank() > 0 && (item.exact || kind != "hardmax"), |rng| shape(rng, 2));
    if x.rank() == 0 {
        return None;
    }
    let axis = s.rng.below(x.rank());
    let fields = [("kind", kind.to_owned()), ("axis", axis.to_string())];
    let size = if kind == "log-softmax" { 2.0 * x.size + 4.0 } else { 1.0 };
    s.emit1("softmax", &fields, &[&x], Quality { exact: kind == "hardmax", size })
}

pub(crate) fn layer_norm(s: &mut Smith) -> Option<Item> {
    let dtype = float_type(s);
    let x = s.some(&[dtype], |item| item.rank() > 0 && item.size <= 64.0, |rng| shape(rng, 2));
    if x.rank() == 0 {
        return None;
    }
    let axis = s.rng.below(x.rank());
    // The mean of nothing is not defined.
    if x.shape[axis..].contains(&0) {
        return None;
    }
    let scale = (!s.rng.one_in(4)).then(|| s.get(dtype, &x.shape[axis..], Domain::Any));
    let bias = s.rng.one_in(2).then(|| s.get(dtype, &x.shape[axis..], Domain::Any));
    // A large epsilon: of nearly equal elements the quotient would amplify rounding errors.
    let fields =
        [("axis", axis.to_string()), ("epsilon", "0.1".to_owned()), ("rms", s.rng.one_in(3).to_string())];
    let quality = Quality { exact: false, size: 400.0 };
    s.emit("layer-norm", &fields, &[Some(&x), scale.as_ref(), bias.as_ref()], quality)?.into_iter().next()
}

pub(crate) fn lrn(s: &mut Smith) -> Option<Item> {
    let dtype = float_type(s);
    let x = s.some(&[dtype], |item| item.rank() > 1 && item.size <= 64.0, |rng| shape(rng, 3));
    if x.rank() < 2 {
        return None;
    }
    let fields = [
        ("size", (1 + s.rng.below(6)).to_string()),
        ("alpha", "0.1".to_owned()),
        ("beta", s.rng.choose(&["0.75", "0.5", "1", "0.6"]).to_owned()),
        ("bias", "1".to_owned()),
    ];
    s.emit1("lrn", &fields, &[&x], Quality { exact: false, size: x.size })
}

pub(crate) fn reduce(s: &mut Smith) -> Option<Item> {
    let kinds = ["sum", "mean", "prod", "max", "min", "l1", "l2", "sum-square", "log-sum", "log-sum-exp"];
    let kind = s.rng.choose(&kinds);
    let real = matches!(kind, "l2" | "log-sum" | "log-sum-exp");
    let dtype = if real { float_type(s) } else { number_type(s) };
    let positive = kind == "log-sum";
    let x = if positive {
        let dims = any_shape(&mut s.rng);
        s.get(dtype, &dims, Domain::Positive)
    } else {
        s.some(&[dtype], |item| kind != "prod" || item.len() <= 6, any_shape)
    };
    if kind == "prod" && x.len() > 12 {
        return None;
    }
    let axes: Vec<usize> = (0..x.rank()).filter(|_| s.rng.one_in(2)).collect();
    let all = s.rng.one_in(4);
    let fields = [
        ("kind", kind.to_owned()),
        ("axes", if all { "none".to_owned() } else { list(&axes) }),
        ("keepdims", s.rng.one_in(2).to_string()),
        ("noop_empty", s.rng.one_in(2).to_string()),
    ];
    let n = x.len().max(1) as f64;
    let size = match kind {
        "sum" | "l1" => x.size * n,
        "sum-square" => x.size * x.size * n,
        "l2" => x.size * n,
        "prod" => x.size.max(1.0).powf(n),
        "log-sum" | "log-sum-exp" => x.size + n,
        _ => x.size,
    };
    let exact = match kind {
        "max" | "min" => x.exact,
        "sum" | "l1" | "sum-square" if x.dtype.is_float() => {
            x.exact && x.size <= 6.0 && holds_exactly(dtype, 16.0 * size)
        }
        _ => x.exact && !x.dtype.is_float(),
    };
    s.emit1("reduce", &fields, &[&x], Quality { exact, size })
}

pub(crate) fn cumulate(s: &mut Smith) -> Option<Item> {
    let dtype = if s.rng.one_in(3) { s.rng.choose(&INTS[..2]) } else { DType::F32 };
    let product = s.rng.one_in(4);
    let x = s.some(&[dtype], |item| item.rank() > 0 && (!product || item.len() < 8), |rng| shape(rng, 2));
    if x.rank() == 0 || (product && x.len() > 12) {
        return None;
    }
    let axis = s.rng.below(x.rank());
    let axis_operand = s.int(axis as i64);
    let fields = [
        ("product", product.to_string()),
        ("exclusive", s.rng.one_in(2).to_string()),
        ("reverse", s.rng.one_in(2).to_string()),
    ];
    let n = x.shape[axis].max(1) as f64;
    let size = if product { x.size.max(1.0).powf(n) } else { x.size * n };
    let exact = x.exact && (!dtype.is_float() || (!product && x.size <= 6.0));
    s.emit1("cumulate", &fields, &[&x, &axis_operand], Quality { exact, size })
}

pub(crate) fn recurrent(s: &mut Smith) -> Option<Item> {
    let (cell, gates, per) = s.rng.choose(&[("rnn", 1, 1), ("gru", 3, 2), ("lstm", 4, 3)]);
    let direction = s.rng.choose(&["forward", "forward", "reverse", "both"]);
    let d = if direction == "both" { 2 } else { 1 };
    let (t, b, i, h) = (1 + s.rng.below(4), 1 + s.rng.below(2), 1 + s.rng.below(4), 1 + s.rng.below(5));
    let x = s.get(DType::F32, &[t, b, i], Domain::Any);
    let w = s.get(DType::F32, &[d, gates * h, i], Domain::Any);
    let r = s.get(DType::F32, &[d, gates * h, h], Domain::Any);
    if [&x, &w, &r].iter().any(|item| item.size > 6.0) {
        return None;
    }
    let bias = s.rng.one_in(2).then(|| s.fresh(DType::F32, &[d, 2 * gates * h], Domain::Any));
    let lengths = s.rng.one_in(3).then(|| s.fresh(DType::I32, &[b], Domain::Between(1, t as i64)));
    let first_h = s.rng.one_in(2).then(|| s.fresh(DType::F32, &[d, b, h], Domain::Any));
    let lstm = cell == "lstm";
    let first_c = (lstm && s.rng.one_in(2)).then(|| s.fresh(DType::F32, &[d, b, h], Domain::Any));
    let peepholes = (lstm && s.rng.one_in(3)).then(|| s.fresh(DType::F32, &[d, 3 * h], Domain::Any));
    let names: &[&str] = match per {
        1 => &["tanh"],
        2 => &["sigmoid", "tanh"],
        _ => &["sigmoid", "tanh", "tanh"],
    };
    let activations = vec![names.join(", "); d].join(", ");
    let zeros = format!("[{}]", vec!["0.0"; per * d].join(", "));
    let fields = [
        ("cell", cell.to_owned()),
        ("direction", direction.to_owned()),
        ("activations", format!("[{activations}]")),
        ("alpha", zeros.clone()),
        ("beta", zeros),
        ("clip", if s.rng.one_in(4) { "2.5" } else { "none" }.to_owned()),
        ("linear_before_reset", (cell == "gru" && s.rng.one_in(2)).to_string()),
        ("input_forget", (lstm && s.rng.one_in(4)).to_string()),
    ];
    let mut operands = vec![Some(&x), Some(&w), Some(&r), bias.as_ref(), lengths.as_ref(), first_h.as_ref()];
    if lstm {
        operands.extend([first_c.as_ref(), peepholes.as_ref()]);
    }
    s.emit("recurrent", &fields, &operands, Quality { exact: false, size: 12.0 })?.into_iter().next()
}

/// A layer that skims always, never, or, with noise, in part: elsewhere a difference in the last bit would choose another cell.
pub(crate) fn skim_recurrent(s: &mut Smith) -> Option<Item> {
    let (cell, gates) = s.rng.choose(&[("gru", 3), ("lstm", 4)]);
    let (t, b, i, h) = (1 + s.rng.below(4), 1 + s.rng.below(2), 1 + s.rng.below(4), 1 + s.rng.below(5));
    let small = s.rng.below(h + 1);
    let x = s.get(DType::F32, &[t, b, i], Domain::Any);
    let w = s.get(DType::F32, &[1, gates * h, i], Domain::Any);
    let r = s.get(DType::F32, &[1, gates * h, h], Domain::Any);
    if [&x, &w, &r].iter().any(|item| item.size > 6.0) {
        return None;
    }
    let shapes: [&[usize]; 3] = [&[1, gates * small, i], &[1, gates * small, small], &[i + h, 2]];
    let [small_w, small_r, predictor] = shapes.map(|shape| s.fresh(DType::F32, shape, Domain::Any));
    let some =
        |s: &mut Smith, shape: &[usize]| s.rng.one_in(2).then(|| s.fresh(DType::F32, shape, Domain::Any));
    let biases = [some(s, &[1, 2 * gates * h]), some(s, &[1, 2 * gates * small]), some(s, &[2])];
    let first_h = some(s, &[1, b, h]);
    let first_c = if cell == "lstm" { some(s, &[1, b, h]) } else { None };
    let noise = some(s, &[t, b, 2]);
    let theta = s.rng.choose(&["0.0", "1.0"]).to_owned();
    let fields = [
        ("cell", cell.to_owned()),
        ("linear_before_reset", (cell == "gru" && s.rng.one_in(2)).to_string()),
        ("theta", theta),
        ("temperature", "0.75".to_owned()),
    ];
    let mut operands = vec![Some(&x), Some(&w), Some(&r), Some(&small_w), Some(&small_r), Some(&predictor)];
    operands.extend(biases.iter().map(Option::as_ref));
    operands.extend([first_h.as_ref(), first_c.as_ref(), None, noise.as_ref()]);
    s.emit("skim-recurrent", &fields, &operands, Quality { exact: false, size: 12.0 })?.into_iter().next()
}
