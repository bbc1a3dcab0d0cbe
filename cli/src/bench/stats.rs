//! Medians, and the ratio of paired measurements with its interval.

use crate::synthetic::Random;

/// The median; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    match v.len() {
        0 => 0.0,
        n if n % 2 == 1 => v[n / 2],
        n => (v[n / 2 - 1] + v[n / 2]) / 2.0,
    }
}

/// A ratio with the bounds of its 95% interval.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ratio {
    /// Median over the pairs of base / other: above 1, the other is faster.
    pub ratio: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

const RESAMPLES: usize = 2000;

/// The ratio of paired times, `base / other`, by the percentile bootstrap over pairs. Repeatable.
pub fn ratio(base: &[f64], other: &[f64]) -> Ratio {
    let pairs: Vec<f64> =
        base.iter().zip(other).filter(|(b, o)| **b > 0.0 && **o > 0.0).map(|(b, o)| b / o).collect();
    if pairs.is_empty() {
        return Ratio { ratio: f64::NAN, low: f64::NAN, high: f64::NAN };
    }
    let mut random = Random::new(0xb007);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sample: Vec<f64> =
                (0..pairs.len()).map(|_| pairs[random.below(pairs.len() as u64) as usize]).collect();
            median(&sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Ratio {
        ratio: median(&pairs),
        low: medians[RESAMPLES / 40],
        high: medians[RESAMPLES - 1 - RESAMPLES / 40],
    }
}

impl Ratio {
    /// One of "faster", "slower", "no difference above x% detectable", "inconclusive", about the other.
    pub fn verdict(&self) -> String {
        if !self.ratio.is_finite() {
            return "inconclusive".into();
        }
        let width = (self.high - 1.0).abs().max((1.0 - self.low).abs());
        if self.low > 1.0 {
            "faster".into()
        } else if self.high < 1.0 {
            "slower".into()
        } else if width <= 0.1 {
            format!("no difference above {:.1}% detectable", width * 100.0)
        } else {
            "inconclusive".into()
        }
    }
    /// Whether the other is slower than the base by more than this part: yes, no, or not decided.
    pub fn regressed(&self, most: f64) -> Option<bool> {
        // base / other < 1 / (1 + most) says that the other takes more than 1 + most times as long.
        let bound = 1.0 / (1.0 + most);
        if self.high < bound {
            Some(true)
        } else if self.low >= bound {
            Some(false)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_that_hits_both_does_not_count() {
        let base: Vec<f64> = (0..12).map(|i| 10.0 + f64::from(i)).collect();
        let other: Vec<f64> = base.iter().enumerate().map(|(i, b)| b / 2.0 + 0.01 * (i % 3) as f64).collect();
        let r = ratio(&base, &other);
        assert!(r.low > 1.9 && r.high < 2.01 && r.low <= r.ratio && r.ratio <= r.high, "{r:?}");
        assert_eq!(r.verdict(), "faster");
        assert_eq!(ratio(&other, &base).verdict(), "slower");
        assert_eq!(ratio(&other, &base).regressed(0.03), Some(true));
        assert_eq!(r.regressed(0.03), Some(false));
    }

    #[test]
    fn noise_decides_nothing() {
        let base = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0];
        let other = [2.0, 1.0, 2.0, 1.0, 1.0, 2.0, 2.0, 1.0];
        let r = ratio(&base, &other);
        assert_eq!(r.verdict(), "inconclusive");
        assert_eq!(r.regressed(0.03), None);
        assert_eq!(ratio(&base, &base).verdict(), "no difference above 0.0% detectable");
        assert_eq!(ratio(&[], &[]).verdict(), "inconclusive");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
