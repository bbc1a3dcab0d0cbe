//! Recipes for resampling, signals, strings and classical machine learning.

use super::arrays::{list, same};
use super::values::any_shape;
use super::{Domain, Item, Quality, Smith};
use planish_ir::{DType, Elems, Tensor};

/// A constant of these elements outside the pool.
fn constant(s: &mut Smith, dtype: DType, dims: &[usize], elems: Elems) -> Option<Item> {
    let tensor = Tensor::from_elems(dtype, dims.to_vec(), elems).ok()?;
    let v = s.constant(tensor);
    Some(Item { v, dtype, shape: dims.to_vec(), exact: true, size: 0.0 })
}

fn floats(s: &mut Smith, values: &[f64]) -> Option<Item> {
    constant(s, DType::F32, &[values.len()], Elems::F(values.to_vec()))
}

fn int_vector(s: &mut Smith, dtype: DType, values: &[i64]) -> Option<Item> {
    constant(s, dtype, &[values.len()], Elems::I(values.iter().map(|v| i128::from(*v)).collect()))
}

fn strings(s: &mut Smith, values: &[&str]) -> Option<Item> {
    constant(s, DType::Str, &[values.len()], Elems::S(values.iter().map(|v| (*v).to_owned()).collect()))
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

pub(crate) fn resize(s: &mut Smith) -> Option<Item> {
    let mode = s.rng.choose(&["nearest", "linear", "cubic"]);
    let transforms =
        ["half-pixel", "half-pixel-symmetric", "pytorch-half-pixel", "align-corners", "asymmetric"];
    let transform = s.rng.choose(&transforms);
    let rank = s.rng.choose(&[1, 2, 2]);
    let mut dims = vec![1, 1 + s.rng.below(3)];
    dims.extend((0..rank).map(|_| 2 + s.rng.below(6)));
    let x = s.get(DType::F32, &dims, Domain::Any);
    let axes: Vec<usize> = (2..2 + rank).collect();
    let fields = [
        ("mode", mode.to_owned()),
        ("transform", transform.to_owned()),
        ("nearest", s.rng.choose(&["round-prefer-floor", "round-prefer-ceil", "floor", "ceil"]).to_owned()),
        ("cubic_a", "-0.75".to_owned()),
        ("exclude_outside", (mode == "cubic" && s.rng.one_in(3)).to_string()),
        ("extrapolation", "0.0".to_owned()),
        ("antialias", (mode != "nearest" && s.rng.one_in(4)).to_string()),
        ("axes", list(&axes)),
        ("policy", "stretch".to_owned()),
    ];
    // Scales that are powers of two give places that all engines compute alike, so that the nearest one is certain.
    let by_scale = mode == "nearest" || s.rng.one_in(2);
    let (scales, sizes) = if by_scale {
        let values: Vec<f64> = axes.iter().map(|_| s.rng.choose(&[0.5, 1.0, 2.0, 4.0])).collect();
        (Some(floats(s, &values)?), None)
    } else {
        let values: Vec<i64> = axes.iter().map(|_| s.rng.range(1, 12)).collect();
        (None, Some(s.ints(&values)))
    };
    // The symmetric transform divides by sizes, so that its places are not exact where a size is rounded down.
    if mode == "nearest" && matches!(transform, "align-corners" | "half-pixel-symmetric") {
        return None;
    }
    let quality = Quality { exact: mode == "nearest" && x.exact, size: 2.0 * x.size };
    let operands = [Some(&x), None, scales.as_ref(), sizes.as_ref()];
    s.emit("resize", &fields, &operands, quality)?.into_iter().next()
}

pub(crate) fn dft(s: &mut Smith) -> Option<Item> {
    let (inverse, complex) = (s.rng.one_in(3), s.rng.one_in(2));
    let onesided = !inverse && !complex && s.rng.one_in(2);
    let (batch, n) = (1 + s.rng.below(2), 1 + s.rng.below(9));
    let x = s.get(DType::F32, &[batch, n, if complex { 2 } else { 1 }], Domain::Any);
    let fields = [("inverse", inverse.to_string()), ("onesided", onesided.to_string())];
    let length = s.rng.one_in(3).then(|| s.int(n as i64 + 2));
    let size = x.size * (n + 2) as f64;
    s.emit("dft", &fields, &[Some(&x), length.as_ref()], Quality { exact: false, size })?.into_iter().next()
}

pub(crate) fn stft(s: &mut Smith) -> Option<Item> {
    let frame = 2 + s.rng.below(7);
    let n = frame + s.rng.below(12);
    let x = s.get(DType::F32, &[1, n, 1], Domain::Any);
    let step = s.rng.range(1, 4);
    let step = s.int(step);
    let window = s.rng.one_in(2).then(|| s.fresh(DType::F32, &[frame], Domain::Positive));
    let length = s.int(frame as i64);
    let size = x.size * 4.0 * frame as f64;
    let operands = [Some(&x), Some(&step), window.as_ref(), Some(&length)];
    let fields = [("onesided", s.rng.one_in(2).to_string())];
    s.emit("stft", &fields, &operands, Quality { exact: false, size })?.into_iter().next()
}

pub(crate) fn signal_window(s: &mut Smith) -> Option<Item> {
    let n = s.rng.range(0, 12);
    let n = s.int(n);
    let fields = [
        ("kind", s.rng.choose(&["blackman", "hamming", "hann"]).to_owned()),
        ("periodic", s.rng.one_in(2).to_string()),
        ("dtype", "f32".to_owned()),
    ];
    s.emit1("signal-window", &fields, &[&n], Quality { exact: false, size: 1.0 })
}

pub(crate) fn mel_weights(s: &mut Smith) -> Option<Item> {
    let (bins, length) = (s.rng.range(2, 6), s.rng.choose(&[8, 16, 32]));
    let whole = [s.int(bins), s.int(length), s.int(8000)];
    let edges = [0.0, 4000.0].map(|v| constant(s, DType::F32, &[], Elems::F(vec![v])));
    let [Some(low), Some(high)] = edges else { return None };
    let operands = [&whole[0], &whole[1], &whole[2], &low, &high];
    s.emit1("mel-weights", &[("dtype", "f32".to_owned())], &operands, Quality { exact: false, size: 1.0 })
}

fn some_strings(s: &mut Smith) -> Item {
    s.some(&[DType::Str], |_| true, any_shape)
}

const TEXT: Quality = Quality { exact: true, size: 0.0 };

pub(crate) fn string_concat(s: &mut Smith) -> Option<Item> {
    let a = some_strings(s);
    let dims = super::values::broadcastable(&mut s.rng, &a.shape);
    let b = s.get(DType::Str, &dims, Domain::Any);
    s.emit1("string-concat", &[], &[&a, &b], TEXT)
}

pub(crate) fn string_split(s: &mut Smith) -> Option<Item> {
    let x = some_strings(s);
    let maxsplit = s.rng.choose(&["none", "1", "2"]);
    let fields = [("delimiter", quoted(s.rng.choose(&["", " ", "l"]))), ("maxsplit", maxsplit.to_owned())];
    let results = s.emit_values("string-split", &fields, &[Some(x.v)])?;
    s.keep(&results, Quality { exact: true, size: 16.0 });
    None
}

pub(crate) fn string_normalize(s: &mut Smith) -> Option<Item> {
    let n = 1 + s.rng.below(5);
    let x = s.get(DType::Str, &[n], Domain::Any);
    let fields = [
        ("case", s.rng.choose(&["none", "lower", "upper"]).to_owned()),
        ("case_sensitive", s.rng.one_in(2).to_string()),
        ("stopwords", if s.rng.one_in(2) { "[\"a\", \"HELLO\"]" } else { "[]" }.to_owned()),
    ];
    let results = s.emit_values("string-normalize", &fields, &[Some(x.v)])?;
    s.keep(&results, TEXT);
    None
}

pub(crate) fn regex_match(s: &mut Smith) -> Option<Item> {
    let x = some_strings(s);
    let pattern = quoted(s.rng.choose(&["[a-z]+", "a.*", ".*", "h(el)+lo", ""]));
    s.emit1("regex-match", &[("pattern", pattern)], &[&x], Quality { exact: true, size: 1.0 })
}

pub(crate) fn tf_idf(s: &mut Smith) -> Option<Item> {
    let words = s.rng.one_in(2);
    let mut dims = vec![2 + s.rng.below(6)];
    if s.rng.one_in(2) {
        dims.insert(0, 1 + s.rng.below(3));
    }
    let x = s.get(if words { DType::Str } else { DType::I64 }, &dims, Domain::Any);
    let pool =
        if words { strings(s, &["a", "b", "a", "ab"])? } else { int_vector(s, DType::I64, &[1, 2, 1, 2])? };
    let fields = [
        ("mode", s.rng.choose(&["tf", "idf", "tf-idf"]).to_owned()),
        ("min_gram", "1".to_owned()),
        ("max_gram", "2".to_owned()),
        ("max_skip", s.rng.below(2).to_string()),
        ("starts", "[0, 2]".to_owned()),
        ("columns", "[0, 2, 1]".to_owned()),
        ("weights", if s.rng.one_in(2) { "[0.5, 2.0, 1.5]" } else { "[]" }.to_owned()),
    ];
    s.emit1("tf-idf", &fields, &[&x, &pool], Quality { exact: true, size: 40.0 })
}

pub(crate) fn label_encode(s: &mut Smith) -> Option<Item> {
    let words = s.rng.one_in(2);
    let dims = any_shape(&mut s.rng);
    let x = s.get(if words { DType::Str } else { DType::I64 }, &dims, Domain::Any);
    let keys =
        if words { strings(s, &["a", "hello", "a"])? } else { int_vector(s, DType::I64, &[1, -2, 3])? };
    let (values, default) = if s.rng.one_in(2) {
        (floats(s, &[0.5, -1.0, 2.0])?, floats(s, &[9.0])?)
    } else {
        (strings(s, &["x", "y", "z"])?, strings(s, &["none"])?)
    };
    s.emit1("label-encode", &[], &[&x, &keys, &values, &default], Quality { exact: true, size: 9.0 })
}

/// Two trees: a stump, and one of two levels.
pub(crate) fn tree_ensemble(s: &mut Smith) -> Option<Item> {
    let (rows, features) = (1 + s.rng.below(4), 1 + s.rng.below(3));
    let x = s.get(DType::F32, &[rows, features], Domain::Exact);
    let feature: Vec<i64> = (0..3).map(|_| s.rng.below(features) as i64).collect();
    let comparison: Vec<i64> = (0..3).map(|_| s.rng.range(0, 5)).collect();
    let threshold: Vec<f64> = (0..3).map(|_| s.rng.range(-4, 4) as f64 / 4.0).collect();
    let targets = 1 + s.rng.below(2);
    let operands = [
        x,
        int_vector(s, DType::I64, &feature)?,
        int_vector(s, DType::U8, &comparison)?,
        floats(s, &threshold)?,
        int_vector(s, DType::I64, &[-1, 2, -3])?,
        int_vector(s, DType::I64, &[-2, -5, -4])?,
        int_vector(s, DType::U8, &[0, 1, 0])?,
        int_vector(s, DType::I64, &[0, 1])?,
        int_vector(s, DType::I64, &[0, 1, 2, 3, 4, 5])?,
        int_vector(s, DType::I64, &[0, 0, targets as i64 - 1, 0, 0])?,
        floats(s, &[0.5, -1.0, 2.0, 0.25, -0.5])?,
    ];
    let aggregate = s.rng.choose(&["sum", "average", "min", "max"]);
    let operands: Vec<&Item> = operands.iter().collect();
    let fields = [("targets", targets.to_string()), ("aggregate", aggregate.to_owned())];
    s.emit1("tree-ensemble", &fields, &operands, Quality { exact: true, size: 5.0 })
}

/// A map made of a row, and turned back into one.
pub(crate) fn maps(s: &mut Smith) -> Option<Item> {
    let (rows, n) = (1 + s.rng.below(2), 1 + s.rng.below(3));
    let x = s.get(DType::F32, &[rows, n], Domain::Any);
    let all: Vec<i64> = (0..n as i64).map(|i| 2 * i).collect();
    let keys = int_vector(s, DType::I64, &all)?;
    let rows = *s.emit_values("zip-map", &[], &[Some(x.v), Some(keys.v)])?.first()?;
    let first = s.int(0);
    let map = *s.emit_values("sequence-at", &[], &[Some(rows), Some(first.v)])?.first()?;
    let results = if s.rng.one_in(2) {
        let wanted = int_vector(s, DType::I64, &[0, 1, 2])?;
        s.emit_values("dict-vectorize", &[], &[Some(map), Some(wanted.v)])?
    } else {
        let width = if s.rng.one_in(2) { "none" } else { "7" };
        s.emit_values("cast-map", &[("to", "f32".to_owned()), ("width", width.to_owned())], &[Some(map)])?
    };
    s.keep(&results, same(&x));
    None
}

/// Regions with corners on whole pixels of a feature map of 8 x 8.
fn regions(s: &mut Smith, count: usize, with_batch: bool) -> Option<Item> {
    let mut values = Vec::new();
    for _ in 0..count {
        if with_batch {
            values.push(0.0);
        }
        let corner = [s.rng.below(4), s.rng.below(4)];
        values.extend([corner[0] as f64, corner[1] as f64]);
        values.extend([(corner[0] + 1 + s.rng.below(4)) as f64, (corner[1] + 1 + s.rng.below(4)) as f64]);
    }
    let width = if with_batch { 5 } else { 4 };
    constant(s, DType::F32, &[count, width], Elems::F(values))
}

pub(crate) fn roi_align(s: &mut Smith) -> Option<Item> {
    let (channels, count) = (1 + s.rng.below(3), 1 + s.rng.below(3));
    let x = s.get(DType::F32, &[1, channels, 8, 8], Domain::Any);
    let rois = regions(s, count, false)?;
    let batch = int_vector(s, DType::I64, &vec![0; count])?;
    let fields = [
        ("max", s.rng.one_in(2).to_string()),
        ("height", (1 + s.rng.below(3)).to_string()),
        ("width", (1 + s.rng.below(3)).to_string()),
        ("sampling", (1 + s.rng.below(2)).to_string()),
        ("scale", "1.0".to_owned()),
        ("half_pixel", s.rng.one_in(2).to_string()),
    ];
    s.emit1("roi-align", &fields, &[&x, &rois, &batch], Quality { exact: false, size: x.size })
}

pub(crate) fn max_roi_pool(s: &mut Smith) -> Option<Item> {
    let (channels, count) = (1 + s.rng.below(3), 1 + s.rng.below(3));
    let x = s.get(DType::F32, &[1, channels, 8, 8], Domain::Exact);
    let rois = regions(s, count, true)?;
    let fields = [
        ("height", (1 + s.rng.below(2)).to_string()),
        ("width", (1 + s.rng.below(2)).to_string()),
        ("scale", "1.0".to_owned()),
    ];
    s.emit1("max-roi-pool", &fields, &[&x, &rois], same(&x))
}

pub(crate) fn non_max_suppression(s: &mut Smith) -> Option<Item> {
    let (classes, boxes) = (1 + s.rng.below(2), 1 + s.rng.below(5));
    let corners = regions(s, boxes, false)?;
    let dims = s.ints(&[1, boxes as i64, 4]);
    let corners =
        s.emit_values("reshape", &[("allow_zero", "false".to_owned())], &[Some(corners.v), Some(dims.v)])?;
    let scores = s.fresh(DType::F32, &[1, classes, boxes], Domain::Exact);
    let most = s.rng.range(0, 3);
    let most = s.int(most);
    // 0.4537 is no quotient of areas of small whole numbers, so that no comparison is a close call.
    let overlap = constant(s, DType::F32, &[], Elems::F(vec![0.4537]))?;
    let centered = s.rng.one_in(3);
    let operands = [Some(*corners.first()?), Some(scores.v), Some(most.v), Some(overlap.v)];
    let results = s.emit_values("non-max-suppression", &[("centered", centered.to_string())], &operands)?;
    s.keep(&results, Quality { exact: true, size: 16.0 });
    None
}
