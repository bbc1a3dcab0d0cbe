//! Minimal filtering along one axis (Winograd, "Arithmetic Complexity of Computations", 1980): `outputs` sums of `taps` products
//! from `outputs + taps - 1` products.
//!
//! The matrices are those of Toom and Cook for the points 0, 1, -1 (, 2, -2) and infinity. What the input is multiplied by depends
//! on the number of points only.

use crate::kernel::{Builder, Val};

/// The transforms along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// Length of the kernel.
    taps: usize,
    /// Elements of the input of a tile, as many as products: 1, 4 or 6.
    inputs: usize,
}

impl Axis {
    /// Every way to filter with a kernel of `taps` elements; one of a single tap needs no transform.
    pub(super) fn candidates(taps: i64) -> Vec<Axis> {
        match usize::try_from(taps) {
            Ok(1) => vec![Axis { taps: 1, inputs: 1 }],
            Ok(taps) => {
                [4, 6].into_iter().filter(|n| *n > taps).map(|inputs| Axis { taps, inputs }).collect()
            }
            Err(_) => vec![],
        }
    }
    /// Results of a tile.
    pub(super) fn outputs(self) -> usize {
        self.inputs - self.taps + 1
    }
    /// Products of a tile.
    pub(super) fn inputs(self) -> usize {
        self.inputs
    }
    /// Vector operations of a transform, about.
    pub(super) fn operations(self) -> i64 {
        match self.inputs {
            6 => 13,
            4 => 4,
            _ => 0,
        }
    }

    /// The kernel, transformed (`G g`).
    pub(super) fn weights(self, g: &[f64]) -> Vec<f64> {
        let at = |point: f64| g.iter().rev().fold(0.0, |sum, tap| sum * point + tap);
        let last = g.last().copied().unwrap_or_default();
        match self.inputs {
            6 => {
                vec![at(0.0) / 4.0, at(1.0) / -6.0, at(-1.0) / -6.0, at(2.0) / 24.0, at(-2.0) / 24.0, last]
            }
            4 => vec![at(0.0), at(1.0) / 2.0, at(-1.0) / 2.0, last],
            _ => g.to_vec(),
        }
    }

    /// The input of a tile, transformed (`Bt d`).
    pub(super) fn input(self, b: &mut Builder, d: &[Val]) -> Vec<Val> {
        match *d {
            [d0, d1, d2, d3, d4, d5] => {
                let t0 = b.fma(d2, -4.0, d4);
                let t1 = b.fma(d1, -4.0, d3);
                let t2 = b.fsub(d4, d2);
                let t3 = b.fsub(d3, d1);
                let t3 = b.fadd(t3, t3);
                let first = b.fma(d2, -5.0, d4);
                let last = b.fma(d3, -5.0, d5);
                vec![
                    b.fma(d0, 4.0, first),
                    b.fadd(t0, t1),
                    b.fsub(t0, t1),
                    b.fadd(t2, t3),
                    b.fsub(t2, t3),
                    b.fma(d1, 4.0, last),
                ]
            }
            [d0, d1, d2, d3] => vec![b.fsub(d0, d2), b.fadd(d1, d2), b.fsub(d2, d1), b.fsub(d3, d1)],
            _ => d.to_vec(),
        }
    }

    /// The results of a tile from its products (`At m`).
    pub(super) fn output(self, b: &mut Builder, m: &[Val]) -> Vec<Val> {
        // Sums and differences of the products at points that differ by their sign.
        let pairs: Vec<(Val, Val)> = match *m {
            [_, m1, m2, .., _] => {
                let rest = m.get(3..m.len() - 1).unwrap_or_default();
                let mut pairs = vec![(b.fadd(m1, m2), b.fsub(m1, m2))];
                if let [m3, m4] = *rest {
                    pairs.push((b.fadd(m3, m4), b.fsub(m3, m4)));
                }
                pairs
            }
            _ => return m.to_vec(),
        };
        let outputs = self.outputs();
        (0..outputs)
            .map(|i| {
                let of = |pair: &(Val, Val)| if i % 2 == 0 { pair.0 } else { pair.1 };
                let mut sum = of(&pairs[0]);
                if let Some(pair) = pairs.get(1) {
                    let factor = f64::from(1u32 << i);
                    sum = if i == 0 { b.fadd(sum, of(pair)) } else { b.fma(of(pair), factor, sum) };
                }
                if i == 0 {
                    sum = b.fadd(m[0], sum);
                }
                if i + 1 == outputs {
                    sum = b.fadd(m[m.len() - 1], sum);
                }
                sum
            })
            .collect()
    }
}

/// Which of its transforms an axis applies.
pub(super) type Line = fn(Axis, &mut Builder, &[Val]) -> Vec<Val>;

/// Transforms the columns of a rectangle that lies row by row, then the rows.
pub(super) fn both_ways(b: &mut Builder, axes: [Axis; 2], rectangle: &[Val], line: Line) -> Vec<Val> {
    let width = axes[1].inputs();
    let columns: Vec<Vec<Val>> = (0..width)
        .map(|j| {
            let column: Vec<Val> = rectangle.iter().skip(j).step_by(width).copied().collect();
            line(axes[0], b, &column)
        })
        .collect();
    let rows = columns.first().map_or(0, Vec::len);
    (0..rows)
        .flat_map(|i| {
            let row: Vec<Val> = columns.iter().map(|column| column[i]).collect();
            line(axes[1], b, &row)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_counts_its_products() {
        let counts =
            |taps| -> Vec<_> { Axis::candidates(taps).iter().map(|a| (a.inputs(), a.outputs())).collect() };
        assert_eq!(counts(1), [(1, 1)]);
        assert_eq!(counts(2), [(4, 3), (6, 5)]);
        assert_eq!(counts(3), [(4, 2), (6, 4)]);
        assert_eq!(counts(5), [(6, 2)]);
        assert_eq!(counts(7), []);
        assert_eq!(counts(-1), []);
    }

    #[test]
    fn a_kernel_is_evaluated_at_the_points() {
        let [small, large] = Axis::candidates(3)[..] else { panic!("two") };
        assert_eq!(small.weights(&[1.0, 2.0, 3.0]), [1.0, 3.0, 1.0, 3.0]);
        assert_eq!(large.weights(&[1.0, 2.0, 3.0]), [0.25, -1.0, -1.0 / 3.0, 17.0 / 24.0, 9.0 / 24.0, 3.0]);
    }
}
