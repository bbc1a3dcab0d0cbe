//! k-means of numbers: since clusters of numbers are intervals, sums over sorted numbers give everything.

use planish_ir::op::random::{stream, unit};

/// Where centroids begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Init {
    /// At equal distances from the least to the largest number.
    Linear,
    /// With equally many numbers around each.
    Density,
    /// At numbers drawn by a seed.
    Random(u64),
}

/// Rounds end here at the latest, should rounding keep the clusters from settling.
const MOST_ROUNDS: usize = 10_000;

/// Centroids in increasing order.
pub(super) struct Clusters {
    pub(super) centroids: Vec<f64>,
    /// Rounds until no number changed its cluster.
    pub(super) rounds: usize,
}

/// `k` centroids of at least one finite number (Lloyd, *Least squares quantization in PCM*, 1982). A centroid that no number is nearest to stays.
pub(super) fn clusters(numbers: &[f64], k: usize, init: Init) -> Clusters {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (n, low, high) = (sorted.len(), sorted[0], sorted[sorted.len() - 1]);
    // Sums of distances from the middle lose less than those of the numbers.
    let middle = low + (high - low) / 2.0;
    let mut sums = vec![0.0; n + 1];
    for (i, x) in sorted.iter().enumerate() {
        sums[i + 1] = sums[i] + (x - middle);
    }
    let mut centroids: Vec<f64> = match init {
        Init::Linear if k == 1 => vec![middle],
        Init::Linear => (0..k).map(|j| low + (high - low) * (j as f64 / (k - 1) as f64)).collect(),
        Init::Density => (0..k).map(|j| sorted[((2 * j + 1) * n - 1) / (2 * k)]).collect(),
        Init::Random(seed) => drawn(&sorted, k, seed),
    };
    let mut borders = borders(&sorted, &centroids);
    let mut rounds = 1;
    while rounds < MOST_ROUNDS {
        for (j, c) in centroids.iter_mut().enumerate() {
            let [from, to] = [borders[j], borders[j + 1]];
            if from < to {
                *c = middle + (sums[to] - sums[from]) / (to - from) as f64;
            }
        }
        rounds += 1;
        let next = self::borders(&sorted, &centroids);
        if next == borders {
            break;
        }
        borders = next;
    }
    Clusters { centroids, rounds }
}

/// Different numbers of the list, where it has enough of them.
fn drawn(sorted: &[f64], k: usize, seed: u64) -> Vec<f64> {
    // The first places of a shuffled list.
    let mut places: Vec<usize> = (0..sorted.len()).collect();
    let count = k.min(places.len());
    for i in 0..count {
        let left = places.len() - i;
        let by = (unit(stream(seed, i as u64)) * left as f64) as usize;
        places.swap(i, i + by.min(left - 1));
    }
    let mut out: Vec<f64> = (0..k).map(|j| sorted[places[j % count]]).collect();
    out.sort_unstable_by(f64::total_cmp);
    out
}

/// Where the numbers of each cluster begin, and where those of the last one end. A number in the middle between two goes to the lower one.
fn borders(sorted: &[f64], centroids: &[f64]) -> Vec<usize> {
    let mut out = vec![0];
    for pair in centroids.windows(2) {
        out.push(sorted.partition_point(|x| *x <= between(pair)));
    }
    out.push(sorted.len());
    out
}

fn between(pair: &[f64]) -> f64 {
    pair[0] + (pair[1] - pair[0]) / 2.0
}

/// The centroid nearest to a number.
pub(super) fn nearest(centroids: &[f64], x: f64) -> usize {
    let (mut from, mut to) = (0, centroids.len() - 1);
    while from < to {
        let at = from + (to - from) / 2;
        if x <= between(&centroids[at..at + 2]) { to = at } else { from = at + 1 }
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(numbers: &[f64], centroids: &[f64]) -> f64 {
        numbers.iter().map(|x| (x - centroids[nearest(centroids, *x)]).powi(2)).sum()
    }

    /// Every number to the nearest centroid by comparison with all of them.
    fn plain_round(numbers: &[f64], centroids: &[f64]) -> Vec<f64> {
        let mut sums = vec![(0.0, 0.0); centroids.len()];
        for x in numbers {
            let far = |c: &f64| (x - c).abs();
            let best =
                (0..centroids.len()).min_by(|a, b| far(&centroids[*a]).total_cmp(&far(&centroids[*b])));
            if let Some(s) = best.map(|b| &mut sums[b]) {
                *s = (s.0 + x, s.1 + 1.0);
            }
        }
        sums.iter().zip(centroids).map(|((s, n), c)| if *n > 0.0 { s / n } else { *c }).collect()
    }

    #[test]
    fn no_round_changes_what_settled() {
        let numbers: Vec<f64> = (0..500).map(|i| (unit(stream(4, i)) - 0.5).powi(3)).collect();
        for init in [Init::Linear, Init::Density, Init::Random(1), Init::Random(2)] {
            for k in [1, 2, 7, 16] {
                let found = clusters(&numbers, k, init);
                assert_eq!(found.centroids.len(), k);
                assert!(found.rounds < MOST_ROUNDS && found.centroids.is_sorted(), "{init:?} {k}");
                let again = plain_round(&numbers, &found.centroids);
                let apart = found.centroids.iter().zip(&again).map(|(a, b)| (a - b).abs());
                assert!(apart.fold(0.0, f64::max) < 1e-14, "{init:?} {k}");
                assert!(
                    error(&numbers, &found.centroids)
                        <= error(&numbers, &clusters(&numbers, 1, init).centroids)
                );
                assert_eq!(clusters(&numbers, k, init).centroids, found.centroids);
            }
        }
        assert_ne!(
            clusters(&numbers, 16, Init::Random(1)).centroids,
            clusters(&numbers, 16, Init::Random(2)).centroids
        );
    }

    #[test]
    fn groups_that_lie_apart_are_found() {
        let numbers = [3.0, -1.0, 3.2, -1.2, 8.0];
        let found = clusters(&numbers, 3, Init::Linear).centroids;
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near(&found, &[-1.1, 3.1, 8.0]), "{found:?}");
        // Between the groups nothing is near to a centroid, so it stays where it began.
        let found = clusters(&[0.0, 0.0, 9.0], 4, Init::Linear).centroids;
        assert!(near(&found, &[0.0, 3.0, 6.0, 9.0]), "{found:?}");
        assert_eq!(clusters(&[2.0, 2.0], 2, Init::Random(0)).centroids, [2.0, 2.0]);
        let found = clusters(&[1.0, 2.0, 3.0, 4.0], 2, Init::Density).centroids;
        assert!(near(&found, &[1.5, 3.5]), "{found:?}");
    }
}
