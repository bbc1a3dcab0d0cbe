use super::*;
use crate::op::checked::{f, fails, i, iota, run, try_run};
use crate::op::slice::Slice;

#[test]
fn joins_and_splits_are_inverse() {
    let x = iota(&[2, 5]);
    let parts = try_run(Split { axis: 1, parts: 3 }, &[Some(x.clone())]).unwrap_or_else(|d| panic!("{d}"));
    assert_eq!(parts.iter().map(|p| p.shape()[1]).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(run(Concat { axis: 1 }, &parts), x);
    let uneven = try_run(Split { axis: 1, parts: 2 }, &[Some(x.clone()), Some(i(&[2], &[0, 5]))]);
    assert_eq!(uneven.map(|p| p[1].clone()), Ok(x.clone()));
    assert_eq!(fails(Split { axis: 1, parts: 2 }, &[x.clone(), i(&[2], &[1, 5])]), "shape-mismatch");
    assert_eq!(fails(Concat { axis: 0 }, &[x.clone(), iota(&[2, 4])]), "shape-mismatch");
    assert_eq!(fails(Concat { axis: 2 }, &[x.clone(), x]), "axis-out-of-range");
}

#[test]
fn more_parts_than_elements_leave_empty_ones() {
    let parts = try_run(Split { axis: 0, parts: 5 }, &[Some(iota(&[3]))]).unwrap_or_else(|d| panic!("{d}"));
    assert_eq!(parts.iter().map(Tensor::len).collect::<Vec<_>>(), [1, 1, 1, 0, 0]);
}

#[test]
fn tiles() {
    let got = run(Tile {}, &[iota(&[2, 1]), i(&[2], &[1, 3])]);
    assert_eq!(got, f(&[2, 3], &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]));
    assert_eq!(run(Tile {}, &[i(&[2], &[4, 5]), i(&[1], &[2])]), i(&[4], &[4, 5, 4, 5]));
    assert_eq!(run(Tile {}, &[iota(&[2, 1]), i(&[2], &[0, 1])]).len(), 0);
    assert_eq!(fails(Tile {}, &[iota(&[2]), i(&[1], &[-1])]), "tile-malformed");
    assert_eq!(fails(Tile {}, &[iota(&[2]), i(&[1], &[i64::MAX])]), "tensor-too-large");
}

#[test]
fn pads_in_every_mode() {
    let x = iota(&[3]);
    let pad = |mode, lo, hi| run(Pad { mode }, &[iota(&[3]), i(&[2], &[lo, hi])]);
    assert_eq!(pad(PadMode::Constant, 1, 1), f(&[5], &[0.0, 0.0, 1.0, 2.0, 0.0]));
    assert_eq!(pad(PadMode::Edge, 2, 1), f(&[6], &[0.0, 0.0, 0.0, 1.0, 2.0, 2.0]));
    assert_eq!(pad(PadMode::Reflect, 2, 2), f(&[7], &[2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0]));
    assert_eq!(pad(PadMode::Wrap, 2, 1), f(&[6], &[1.0, 2.0, 0.0, 1.0, 2.0, 0.0]));
    assert_eq!(pad(PadMode::Constant, -1, 1), f(&[3], &[1.0, 2.0, 0.0]));
    let with = [Some(x.clone()), Some(i(&[2], &[0, 1])), Some(f(&[], &[9.0])), Some(i(&[1], &[-1]))];
    let got = try_run(Pad { mode: PadMode::Constant }, &with).map(|v| v[0].clone());
    assert_eq!(got, Ok(f(&[4], &[0.0, 1.0, 2.0, 9.0])));
    assert_eq!(fails(Pad { mode: PadMode::Edge }, &[x.clone(), i(&[1], &[1])]), "pad-malformed");
    assert_eq!(fails(Pad { mode: PadMode::Edge }, &[x, i(&[2], &[-4, 0])]), "pad-malformed");
}

#[test]
fn content_passes_through() {
    let x = i(&[4], &[3, 4, 5, 6]);
    assert_eq!(run(Slice {}, &[x.clone(), i(&[1], &[1]), i(&[1], &[3])]), i(&[2], &[4, 5]));
    assert_eq!(run(Concat { axis: 0 }, &[x.clone(), i(&[1], &[9])]), i(&[5], &[3, 4, 5, 6, 9]));
    let halves = try_run(Split { axis: 0, parts: 2 }, &[Some(x)]).map(|v| v[1].clone());
    assert_eq!(halves, Ok(i(&[2], &[5, 6])));
}
