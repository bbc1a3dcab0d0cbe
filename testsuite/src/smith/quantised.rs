//! Recipes for quantised numbers. Scales are powers of two, so that every engine must give the same integers.

use super::elementwise::float_type;
use super::values::{any_shape, shape};
use super::{Domain, Item, Quality, Smith};
use planish_ir::{DType, Elems, Tensor};

/// One scale, or one along an axis, with its zero point; the axis and the block size for the fields.
fn scales(s: &mut Smith, x: &[usize], dtype: DType, storage: DType) -> (Item, Option<Item>, usize, usize) {
    let axis = s.rng.below(x.len());
    let (dims, block) = match s.rng.below(4) {
        0 if !x.is_empty() => (vec![x[axis]], 0),
        1 if !x.is_empty() && x[axis] > 1 => {
            let block = 1 + s.rng.below(3);
            let mut dims = x.to_vec();
            dims[axis] = x[axis].div_ceil(block);
            (dims, block)
        }
        _ => (Vec::new(), 0),
    };
    let count = dims.iter().product();
    let values = (0..count).map(|_| s.rng.choose(&[0.5, 1.0, 2.0])).collect();
    let tensor = Tensor::from_elems(dtype, dims.clone(), Elems::F(values));
    let scale = s.outside(tensor.unwrap_or_else(|why| panic!("scales: {why}")));
    let with_zero = !storage.is_float() && s.rng.one_in(2);
    let zero = with_zero.then(|| s.fresh(storage, &dims, Domain::Between(0, 1)));
    (scale, zero, axis, block)
}

const STORAGE: [DType; 10] = [
    DType::U8,
    DType::I8,
    DType::U8,
    DType::I8,
    DType::U16,
    DType::I16,
    DType::U4,
    DType::I4,
    DType::F8E4M3FN,
    DType::F8E5M2,
];

pub(crate) fn quantize(s: &mut Smith) -> Option<Item> {
    let dtype = float_type(s);
    let x = s.some(&[dtype], |item| item.exact, any_shape);
    let to = s.rng.choose(&STORAGE);
    let (scale, zero, axis, block) = scales(s, &x.shape, dtype, to);
    let precision = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let fields = [
        ("axis", axis.to_string()),
        ("block", block.to_string()),
        ("to", to.name().to_owned()),
        ("saturate", "true".to_owned()),
        ("precision", precision.name().to_owned()),
    ];
    let quality = Quality { exact: true, size: 2.0 * x.size + 1.0 };
    s.emit("quantize", &fields, &[Some(&x), Some(&scale), zero.as_ref()], quality)?.into_iter().next()
}

pub(crate) fn fake_quantize(s: &mut Smith) -> Option<Item> {
    let dtype = s.rng.choose(&[DType::F32, DType::F32, DType::F64, DType::F16]);
    let x = s.some(&[dtype], |item| item.exact, any_shape);
    let axis = s.rng.below(x.shape.len());
    let dims = if s.rng.one_in(2) && !x.shape.is_empty() { vec![x.shape[axis]] } else { Vec::new() };
    let count = dims.iter().product();
    let values = (0..count).map(|_| s.rng.choose(&[0.5, 1.0, -2.0])).collect();
    let tensor = Tensor::from_elems(dtype, dims, Elems::F(values));
    let scale = s.outside(tensor.unwrap_or_else(|why| panic!("scales: {why}")));
    let fields = [
        ("bits", (2 + s.rng.below(7)).to_string()),
        ("signed", s.rng.one_in(2).to_string()),
        ("axis", axis.to_string()),
        ("batch", s.rng.one_in(2).to_string()),
    ];
    s.emit1("fake-quantize", &fields, &[&x, &scale], Quality { exact: true, size: x.size + 2.0 })
}

pub(crate) fn dynamic_quantize(s: &mut Smith) -> Option<Item> {
    // A number that differs in its last bit may fall to another integer.
    let x = s.some(&[DType::F32], |item| item.exact, any_shape);
    s.emit("dynamic-quantize", &[], &[Some(&x)], Quality { exact: false, size: 255.0 })?.into_iter().next()
}

pub(crate) fn dequantize(s: &mut Smith) -> Option<Item> {
    let from = if s.rng.one_in(8) { DType::I32 } else { s.rng.choose(&STORAGE) };
    let x = s.some(&[from], |_| true, any_shape);
    let dtype = float_type(s);
    let (scale, zero, axis, block) = scales(s, &x.shape, dtype, from);
    let fields = [("axis", axis.to_string()), ("block", block.to_string()), ("to", dtype.name().to_owned())];
    let quality = Quality { exact: x.exact, size: 2.0 * (x.size + 1.0) };
    s.emit("dequantize", &fields, &[Some(&x), Some(&scale), zero.as_ref()], quality)?.into_iter().next()
}

/// The dims of two operands of a matrix product, leading axes broadcast.
pub(crate) fn product_dims(s: &mut Smith) -> (Vec<usize>, Vec<usize>) {
    let mut dims = shape(&mut s.rng, 3);
    let large = s.rng.one_in(6);
    if large {
        // More than a tile of the micro-kernels of all targets along some axes.
        for d in &mut dims {
            *d = if s.rng.one_in(2) { 1 + s.rng.below(110) } else { *d };
        }
    }
    let batch_rank = if large { 0 } else { s.rng.below(3) };
    let batch = shape(&mut s.rng, batch_rank);
    let mut a = super::values::broadcastable(&mut s.rng, &batch);
    let mut b = super::values::broadcastable(&mut s.rng, &batch);
    a.extend([dims[0], dims[1]]);
    b.extend([dims[1], dims[2]]);
    (a, b)
}

pub(crate) fn matmul_integer(s: &mut Smith) -> Option<Item> {
    let (da, db) = product_dims(s);
    let (ta, tb) = (s.rng.choose(&[DType::U8, DType::I8]), s.rng.choose(&[DType::U8, DType::I8]));
    let (a, b) = (s.get(ta, &da, Domain::Any), s.get(tb, &db, Domain::Any));
    let zero = |s: &mut Smith, dtype| s.rng.one_in(2).then(|| s.fresh(dtype, &[], Domain::Between(0, 3)));
    let (za, zb) = (zero(s, ta), zero(s, tb));
    let size = (a.size + 3.0) * (b.size + 3.0) * (da[da.len() - 1].max(1) as f64);
    let operands = [Some(&a), Some(&b), za.as_ref(), zb.as_ref()];
    s.emit("matmul-integer", &[], &operands, Quality { exact: true, size })?.into_iter().next()
}
