//! Least squares, descent, clusters of equal size, and numbers that only look random.

use planish_ir::op::random;

/// The numbers of a stream, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Mix {
    seed: u64,
    drawn: u64,
}

impl Mix {
    pub(super) fn new(seed: u64) -> Mix {
        Mix { seed, drawn: 0 }
    }
    pub(super) fn next(&mut self) -> u64 {
        self.drawn += 1;
        random::stream(self.seed, self.drawn - 1)
    }
    /// Below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// Some of many rows, each with the same chance (Vitter 1985, algorithm R).
#[derive(Clone, Debug)]
pub(super) struct Reservoir<T> {
    pub(super) rows: Vec<T>,
    capacity: usize,
    seen: u64,
    mix: Mix,
}

impl<T> Reservoir<T> {
    pub(super) fn new(capacity: usize, seed: u64) -> Reservoir<T> {
        Reservoir { rows: Vec::new(), capacity, seen: 0, mix: Mix::new(seed) }
    }
    /// Offers a row, which is made only if it is kept.
    pub(super) fn offer(&mut self, row: impl FnOnce() -> T) {
        self.seen += 1;
        if self.rows.len() < self.capacity {
            self.rows.push(row());
        } else {
            let at = self.mix.below(self.seen) as usize;
            if let Some(kept) = self.rows.get_mut(at) {
                *kept = row();
            }
        }
    }
}

/// Of so many samples (or rows, where there are fewer samples) one is for measuring only.
pub(super) const HELD_OUT: u64 = 4;

/// Which rows are for what, of so many samples.
#[derive(Clone, Copy)]
pub(super) struct Split {
    pub(super) samples: u64,
}

impl Split {
    /// Whether row `row` of sample `sample` is for measuring only.
    pub(super) fn held_out(self, sample: u64, row: u64) -> bool {
        let of = if self.samples >= HELD_OUT { sample } else { row };
        of % HELD_OUT == HELD_OUT - 1
    }
}

/// Sums for the regression of `e` targets on `d` features and a constant. Holds (d + 1) (d + 1 + e) numbers however many rows there are.
#[derive(Clone, Debug)]
pub(super) struct Ridge {
    d: usize,
    e: usize,
    /// The lower triangle of the products of features with each other; the constant comes last.
    xx: Vec<f64>,
    xy: Vec<f64>,
}

impl Ridge {
    pub(super) fn new(d: usize, e: usize) -> Ridge {
        Ridge { d, e, xx: vec![0.0; (d + 1) * (d + 1)], xy: vec![0.0; (d + 1) * e] }
    }
    /// Adds a row.
    pub(super) fn add(&mut self, x: &[f32], y: &[f64]) {
        let n = self.d + 1;
        let x: Vec<f64> = x.iter().take(self.d).map(|v| f64::from(*v)).chain([1.0]).collect();
        for (i, xi) in x.iter().enumerate() {
            for (sum, xj) in self.xx[i * n..=i * n + i].iter_mut().zip(&x) {
                *sum += xi * xj;
            }
            for (sum, yj) in self.xy[i * self.e..(i + 1) * self.e].iter_mut().zip(y) {
                *sum += xi * yj;
            }
        }
    }
    /// The coefficients, d x e, and the constants, with a penalty of `lambda` times the mean square of a feature. None if a sum is not finite.
    pub(super) fn solve(mut self, lambda: f64) -> Option<(Vec<f64>, Vec<f64>)> {
        let n = self.d + 1;
        let trace: f64 = (0..self.d).map(|i| self.xx[i * n + i]).sum();
        let penalty = (lambda * trace / self.d.max(1) as f64).max(f64::MIN_POSITIVE.sqrt());
        for i in 0..self.d {
            self.xx[i * n + i] += penalty;
        }
        cholesky(&mut self.xx, n)?;
        let e = self.e;
        // L z = b, then the transpose of L.
        for i in 0..n {
            for j in 0..i {
                let l = self.xx[i * n + j];
                for t in 0..e {
                    self.xy[i * e + t] -= l * self.xy[j * e + t];
                }
            }
            (0..e).for_each(|t| self.xy[i * e + t] /= self.xx[i * n + i]);
        }
        for i in (0..n).rev() {
            (0..e).for_each(|t| self.xy[i * e + t] /= self.xx[i * n + i]);
            for j in 0..i {
                let l = self.xx[i * n + j];
                for t in 0..e {
                    self.xy[j * e + t] -= l * self.xy[i * e + t];
                }
            }
        }
        let constants = self.xy.split_off(self.d * e);
        let finite = self.xy.iter().chain(&constants).all(|v| v.is_finite());
        finite.then_some((self.xy, constants))
    }
}

/// The factor of a positive matrix, in the place of its lower triangle.
fn cholesky(a: &mut [f64], n: usize) -> Option<()> {
    for i in 0..n {
        let (before, rest) = a.split_at_mut(i * n);
        let row = &mut rest[..n];
        for j in 0..i {
            let other = &before[j * n..j * n + j];
            let dot: f64 = row[..j].iter().zip(other).map(|(x, y)| x * y).sum();
            row[j] = (row[j] - dot) / before[j * n + j];
        }
        let square = row[i] - row[..i].iter().map(|x| x * x).sum::<f64>();
        if square.is_nan() || square <= 0.0 {
            return None;
        }
        row[i] = square.sqrt();
    }
    Some(())
}

/// Steps that [`minimise`] remembers.
const MEMORY: usize = 8;

/// A point near the least of a smooth convex function, from `at` on (L-BFGS, Nocedal 1980, with steps halved until the function
/// falls). `f` gives the value at a point and writes the gradient.
pub(super) fn minimise(
    mut at: Vec<f64>,
    steps: usize,
    mut f: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let mut gradient = vec![0.0; at.len()];
    let mut value = f(&at, &mut gradient);
    let first = dot(&gradient, &gradient).sqrt();
    let mut past: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
    for _ in 0..steps {
        let norm = dot(&gradient, &gradient).sqrt();
        if norm.is_nan() || norm <= 1e-5 * first {
            break;
        }
        let mut direction = gradient.clone();
        let mut shares = Vec::with_capacity(past.len());
        for (s, y, inverse) in past.iter().rev() {
            let share = inverse * dot(s, &direction);
            direction.iter_mut().zip(y).for_each(|(d, y)| *d -= share * y);
            shares.push(share);
        }
        let scale = past.last().map_or(1.0 / norm, |(_, y, inverse)| 1.0 / (inverse * dot(y, y)));
        direction.iter_mut().for_each(|d| *d *= scale);
        for ((s, y, inverse), share) in past.iter().zip(shares.into_iter().rev()) {
            let by = share - inverse * dot(y, &direction);
            direction.iter_mut().zip(s).for_each(|(d, s)| *d += by * s);
        }
        let slope = dot(&gradient, &direction);
        let mut step = 1.0;
        let mut next = None;
        for _ in 0..30 {
            let there: Vec<f64> = at.iter().zip(&direction).map(|(a, d)| a - step * d).collect();
            let mut g = vec![0.0; at.len()];
            let v = f(&there, &mut g);
            if v <= value - 1e-4 * step * slope {
                next = Some((there, g, v));
                break;
            }
            step *= 0.5;
        }
        let Some((there, g, v)) = next else { break };
        let s: Vec<f64> = there.iter().zip(&at).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = g.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&s, &y);
        if curvature > 0.0 {
            past.push((s, y, 1.0 / curvature));
            if past.len() > MEMORY {
                past.remove(0);
            }
        }
        (at, gradient, value) = (there, g, v);
    }
    at
}

/// Rounds of [`balanced`].
const ROUNDS: usize = 25;

/// Divides points (rows of `dims` numbers) into `count` clusters of equal size: k-means whose assignment takes first the points that
/// would lose most. `count` divides the number of points. The cluster of each point; clusters are numbered by their first point.
pub(super) fn balanced(points: &[f32], dims: usize, count: usize, seed: u64) -> Vec<usize> {
    let n = points.len().checked_div(dims).unwrap_or(0);
    let point = |i: usize| &points[i * dims..(i + 1) * dims];
    let mut centres = first_centres(points, dims, count, seed);
    let mut best: (f64, Vec<usize>) = (f64::INFINITY, (0..n).map(|i| i * count / n.max(1)).collect());
    for _ in 0..ROUNDS {
        let distances: Vec<f64> =
            (0..n).flat_map(|i| centres.iter().map(move |c| distance(point(i), c))).collect();
        let of = assign(&distances, n, count);
        let total: f64 = of.iter().enumerate().map(|(i, c)| distances[i * count + c]).sum();
        if total.is_nan() || total >= best.0 {
            break;
        }
        best = (total, of);
        let mut sums = vec![vec![0f64; dims]; count];
        for (i, c) in best.1.iter().enumerate() {
            sums[*c].iter_mut().zip(point(i)).for_each(|(s, v)| *s += f64::from(*v));
        }
        let share = (n / count.max(1)).max(1) as f64;
        centres = sums.into_iter().map(|s| s.into_iter().map(|v| (v / share) as f32).collect()).collect();
    }
    let mut number = vec![usize::MAX; count];
    let mut next = 0;
    for c in &best.1 {
        if number[*c] == usize::MAX {
            number[*c] = next;
            next += 1;
        }
    }
    best.1.into_iter().map(|c| number[c]).collect()
}

/// Points far from those chosen before, as k-means++ does.
fn first_centres(points: &[f32], dims: usize, count: usize, seed: u64) -> Vec<Vec<f32>> {
    let n = points.len().checked_div(dims).unwrap_or(0);
    let mut mix = Mix::new(seed);
    let mut centres: Vec<Vec<f32>> = Vec::new();
    let mut nearest = vec![f64::INFINITY; n];
    let mut at = mix.below(n as u64) as usize;
    while centres.len() < count && n > 0 {
        let centre = points[at * dims..(at + 1) * dims].to_vec();
        for (i, d) in nearest.iter_mut().enumerate() {
            *d = d.min(distance(&points[i * dims..(i + 1) * dims], &centre));
        }
        centres.push(centre);
        let total: f64 = nearest.iter().sum();
        let mut left = total * (mix.next() >> 11) as f64 / (1u64 << 53) as f64;
        at = nearest
            .iter()
            .position(|d| {
                left -= d;
                left < 0.0
            })
            .unwrap_or(centres.len() % n);
    }
    centres
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    f64::from(a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f32>())
}

/// The nearest cluster with a free place for each point, in the order of what a point would lose in its second choice.
fn assign(distances: &[f64], n: usize, count: usize) -> Vec<usize> {
    let row = |i: usize| &distances[i * count..(i + 1) * count];
    let regret = |i: usize| {
        let (mut first, mut second) = (f64::INFINITY, f64::INFINITY);
        for d in row(i) {
            if *d < first {
                second = first;
                first = *d;
            } else if *d < second {
                second = *d;
            }
        }
        if second.is_finite() { second - first } else { 0.0 }
    };
    let mut order: Vec<(f64, usize)> = (0..n).map(|i| (regret(i), i)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut free = vec![n / count.max(1); count];
    let mut of = vec![0; n];
    for (_, i) in order {
        let open = (0..count).filter(|c| free[*c] > 0);
        let Some(c) = open.min_by(|a, b| row(i)[*a].total_cmp(&row(i)[*b])) else { continue };
        free[c] -= 1;
        of[i] = c;
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ridge_finds_a_linear_rule() {
        let mut mix = Mix::new(7);
        let mut r = Ridge::new(3, 2);
        for _ in 0..200 {
            let x: Vec<f32> = (0..3).map(|_| mix.below(1000) as f32 / 500.0 - 1.0).collect();
            let v: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
            r.add(&x, &[2.0 * v[0] - v[1] + 0.5, v[2] - 3.0]);
        }
        let (w, b) = r.solve(1e-9).unwrap_or_default();
        let want = [2.0, 0.0, -1.0, 0.0, 0.0, 1.0];
        assert!(w.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{w:?}");
        assert!((b[0] - 0.5).abs() < 1e-6 && (b[1] + 3.0).abs() < 1e-6, "{b:?}");
    }

    #[test]
    fn ridge_declines_what_is_not_finite() {
        let mut r = Ridge::new(1, 1);
        r.add(&[f32::NAN], &[1.0]);
        assert!(r.solve(1e-3).is_none());
        assert!(Ridge::new(2, 1).solve(1e-3).is_none());
    }

    #[test]
    fn clusters_are_of_equal_size_and_near() {
        // Three lines of points, interleaved; the middle one has more than its share near it.
        let mut points = Vec::new();
        for i in 0..12 {
            points.extend([(i % 3) as f32 * 10.0 + i as f32 * 0.01, 1.0]);
        }
        let of = balanced(&points, 2, 3, 1);
        assert_eq!(of, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
        for (n, count) in [(1, 1), (8, 8), (8, 1), (6, 2)] {
            let same = vec![1f32; n * 4];
            let of = balanced(&same, 4, count, 3);
            for c in 0..count {
                assert_eq!(of.iter().filter(|x| **x == c).count(), n / count, "{n} {count}");
            }
        }
    }

    #[test]
    fn descent_finds_the_least_of_a_valley() {
        let found = minimise(vec![5.0, -3.0], 100, |x, g| {
            g.copy_from_slice(&[2.0 * (x[0] - 1.0), 200.0 * (x[1] - 2.0)]);
            (x[0] - 1.0).powi(2) + 100.0 * (x[1] - 2.0).powi(2)
        });
        assert!((found[0] - 1.0).abs() < 1e-3 && (found[1] - 2.0).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn a_reservoir_keeps_a_bounded_number() {
        let mut r = Reservoir::new(10, 1);
        (0..1000).for_each(|i| r.offer(|| vec![i as f32]));
        assert_eq!(r.rows.len(), 10);
        assert!(r.rows.iter().any(|v| v[0] > 500.0));
    }
}
