//! Recipes for operations that move elements.

use super::values::any_shape;
use super::{Item, Quality, Smith};
use planish_ir::DType;

/// A tensor of any type, for operations that do not look at the elements.
pub(crate) fn anything(s: &mut Smith, ok: impl Fn(&Item) -> bool) -> Item {
    let dtype = match s.rng.below(8) {
        0 => DType::Str,
        1 => s.rng.choose(DType::ALL),
        _ => super::elementwise::number_type(s),
    };
    s.some(&[dtype], ok, any_shape)
}

pub(crate) fn same(item: &Item) -> Quality {
    Quality { exact: item.exact, size: item.size }
}

/// A shape with as many elements: dims are split and merged, and ones put in.
pub(crate) fn refactored(s: &mut Smith, shape: &[usize]) -> Vec<usize> {
    let mut out: Vec<usize> = Vec::new();
    for d in shape {
        let divisors: Vec<usize> = (2..*d).filter(|k| d % k == 0).collect();
        match s.rng.below(4) {
            0 if !out.is_empty() => {
                if let Some(last) = out.last_mut() {
                    *last *= d;
                }
            }
            1 if !divisors.is_empty() => {
                let k = s.rng.choose(&divisors);
                out.extend([k, d / k]);
            }
            2 if out.len() < 4 => out.extend([1, *d]),
            _ => out.push(*d),
        }
    }
    out
}

pub(crate) fn reshape(s: &mut Smith) -> Option<Item> {
    let x = anything(s, |_| true);
    let target = refactored(s, &x.shape);
    let mut spec: Vec<i64> = target.iter().map(|d| *d as i64).collect();
    let allow_zero = target.contains(&0) || s.rng.one_in(4);
    if !target.is_empty() && !target.contains(&0) && s.rng.one_in(2) {
        let hole = s.rng.below(spec.len());
        spec[hole] = -1;
    }
    let spec = s.ints(&spec);
    let quality = same(&x);
    s.emit1("reshape", &[("allow_zero", allow_zero.to_string())], &[&x, &spec], quality)
}
