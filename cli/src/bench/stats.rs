//! Medians, and the ratio of paired measurements with its interval.
//!
//! The ratio of two things is estimated from the logarithms of the ratios of paired turns by their *midmean*: the mean of the
//! middle half, which ignores turns that something else disturbed. Its 95% interval is that of a bootstrap over blocks of
//! neighbouring turns, because what disturbs a machine lasts longer than one turn, widened as Student's distribution is
//! wider than the normal one, because turns are few. All of it is repeatable: the same times give the same interval.

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

/// The mean of the middle half; 0 of nothing. Sorts the values.
pub fn midmean(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 4;
    let middle = &values[cut..values.len() - cut];
    middle.iter().sum::<f64>() / middle.len().max(1) as f64
}

/// A ratio with the bounds of its 95% interval.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ratio {
    /// base / other: above 1, the other is faster.
    pub ratio: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
    /// The smallest change, as a part, that a measurement like this one finds four times in five.
    pub detectable: f64,
}

const RESAMPLES: usize = 2000;

/// Fewer pairs than this have no interval.
const LEAST: usize = 4;

const NONE: Ratio = Ratio { ratio: f64::NAN, low: f64::NAN, high: f64::NAN, detectable: f64::NAN };

/// The ratio that logarithms of paired ratios stand for. Not a number where there are none that are finite; of fewer than four
/// the interval is unbounded.
pub fn paired(logs: &[f64]) -> Ratio {
    let logs: Vec<f64> = logs.iter().copied().filter(|l| l.is_finite()).collect();
    let n = logs.len();
    if n == 0 {
        return NONE;
    }
    let centre = midmean(&mut logs.clone());
    if n < LEAST {
        return Ratio { ratio: centre.exp(), low: 0.0, high: f64::INFINITY, detectable: f64::INFINITY };
    }
    let alone = resampled(&logs, centre, 1);
    if n < 12 {
        return alone;
    }
    // Turns that lean to one side and the other in turns make blocks look steadier than they are: the wider one counts.
    let blocks = resampled(&logs, centre, (n as f64).cbrt().round() as usize);
    if blocks.high - blocks.low > alone.high - alone.low { blocks } else { alone }
}

/// The ratio by the bootstrap over blocks of neighbours, the last being followed by the first.
fn resampled(logs: &[f64], centre: f64, block: usize) -> Ratio {
    let n = logs.len();
    let mut random = Random::new(0xb007);
    let mut sample = Vec::with_capacity(n + block);
    let mut centres: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            sample.clear();
            while sample.len() < n {
                let from = random.below(n as u64) as usize;
                sample.extend((from..from + block).map(|i| logs[i % n]));
            }
            sample.truncate(n);
            midmean(&mut sample)
        })
        .collect();
    spread(centre, &mut centres, n)
}

/// The ratio of two series that were not measured together: medians, and the bootstrap of each.
pub fn unpaired(base: &[f64], other: &[f64]) -> Ratio {
    let logs = |v: &[f64]| -> Vec<f64> { v.iter().filter(|t| **t > 0.0).map(|t| t.ln()).collect() };
    let (base, other) = (logs(base), logs(other));
    if base.is_empty() || other.is_empty() {
        return NONE;
    }
    let centre = midmean(&mut base.clone()) - midmean(&mut other.clone());
    let n = base.len().min(other.len());
    if n < LEAST {
        return Ratio { ratio: centre.exp(), low: 0.0, high: f64::INFINITY, detectable: f64::INFINITY };
    }
    let mut random = Random::new(0xb007);
    let mut draw = |from: &[f64]| {
        let mut sample: Vec<f64> =
            from.iter().map(|_| from[random.below(from.len() as u64) as usize]).collect();
        midmean(&mut sample)
    };
    let mut centres: Vec<f64> = (0..RESAMPLES).map(|_| draw(&base) - draw(&other)).collect();
    spread(centre, &mut centres, n)
}

/// The ratio of a centre, given what resampling makes of it.
fn spread(centre: f64, centres: &mut [f64], n: usize) -> Ratio {
    centres.sort_by(f64::total_cmp);
    let freedom = (n - 1) as f64;
    // The bootstrap of n values is too narrow by the square root, and by the tail of Student's distribution.
    let wide = (n as f64 / freedom).sqrt() * student(freedom);
    let at = |z: f64| {
        let i = (normal(z) * centres.len() as f64).floor() as usize;
        centres[i.min(centres.len() - 1)]
    };
    let mean = centres.iter().sum::<f64>() / centres.len() as f64;
    let error = (centres.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / centres.len() as f64).sqrt();
    // 0.8416 is the quantile of the normal distribution that four of five lie below.
    let detectable = (error * (wide + 0.8416 * wide / 1.96)).exp() - 1.0;
    Ratio {
        ratio: centre.exp(),
        low: at(-wide).min(centre).exp(),
        high: at(wide).max(centre).exp(),
        detectable,
    }
}

/// The 97.5% quantile of Student's distribution.
fn student(freedom: f64) -> f64 {
    // Cornish-Fisher expansion around the normal quantile: within 1% from 3 degrees of freedom on.
    let z = 1.959_964f64;
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    let first = (z3 + z) / 4.0;
    let second = (5.0 * z5 + 16.0 * z3 + 3.0 * z) / 96.0;
    let third = (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / 384.0;
    z + first / freedom + second / freedom.powi(2) + third / freedom.powi(3)
}

/// The part of the normal distribution below `z` (Abramowitz and Stegun 26.2.17, error below 1e-7).
fn normal(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = t
        * (0.319_381_53
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * series;
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// A verdict is "inconclusive" when only larger changes than this can be told from none.
const COARSE: f64 = 0.1;

/// Where the pages of a file lie in memory makes differences of its own, which last and which turns therefore cannot average out: of 100
/// builds that are the same to the byte, 38 had intervals wholly on one side of 1, by 0.3% at most. What may be smaller than this part
/// is no difference.
const PLACEMENT: f64 = 0.005;

impl Ratio {
    /// One of "faster", "slower", "no difference above x% detectable", "inconclusive", about the other.
    pub fn verdict(&self) -> String {
        let bound = self.bound();
        if !bound.is_finite() {
            "inconclusive".into()
        } else if self.low > 1.0 + PLACEMENT {
            "faster".into()
        } else if self.high < 1.0 / (1.0 + PLACEMENT) {
            "slower".into()
        } else if bound <= COARSE {
            format!("no difference above {:.1}% detectable", bound * 100.0)
        } else {
            "inconclusive".into()
        }
    }
    /// No difference larger than this part is in the interval, and a larger one would most likely have been found.
    fn bound(&self) -> f64 {
        let far = (self.high - 1.0).abs().max((1.0 - self.low).abs());
        if self.ratio.is_finite() { far.max(self.detectable).max(PLACEMENT) } else { f64::NAN }
    }
    /// Whether the other is slower than the base by more than this part: yes, no, or not decided.
    pub fn regressed(&self, most: f64) -> Option<bool> {
        // base / other < 1 / (1 + most) says that the other takes more than 1 + most times as long.
        self.below(1.0 / (1.0 + most))
    }
    /// Whether the ratio is below a bound: yes, no, or not decided.
    pub fn below(&self, bound: f64) -> Option<bool> {
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

    /// Logarithms of paired ratios.
    fn logs(base: &[f64], other: &[f64]) -> Vec<f64> {
        base.iter().zip(other).map(|(b, o)| (b / o).ln()).collect()
    }

    /// A sum of uniform numbers, which is nearly normal, of standard deviation 1.
    fn gauss(r: &mut Random) -> f64 {
        (0..12).map(|_| r.unit()).sum::<f64>() - 6.0
    }

    #[test]
    fn drift_that_hits_both_does_not_count() {
        let base: Vec<f64> = (0..12).map(|i| 10.0 + f64::from(i)).collect();
        let other: Vec<f64> = base.iter().enumerate().map(|(i, b)| b / 2.0 + 0.01 * (i % 3) as f64).collect();
        let r = paired(&logs(&base, &other));
        assert!(r.low > 1.9 && r.high < 2.01 && r.low <= r.ratio && r.ratio <= r.high, "{r:?}");
        assert_eq!(r.verdict(), "faster");
        let back = paired(&logs(&other, &base));
        assert_eq!(back.verdict(), "slower");
        assert_eq!((back.regressed(0.03), r.regressed(0.03)), (Some(true), Some(false)));
        assert_eq!(r, paired(&logs(&base, &other)), "repeatable");
    }

    #[test]
    fn noise_decides_nothing() {
        let base = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0];
        let other = [2.0, 1.0, 2.0, 1.0, 1.0, 2.0, 2.0, 1.0];
        let r = paired(&logs(&base, &other));
        assert_eq!(r.verdict(), "inconclusive");
        assert_eq!(r.regressed(0.03), None);
        let (twice, other) = ([base, base].concat(), [other, other].concat());
        assert_eq!(paired(&logs(&twice, &other)).regressed(0.03), None);
        let swings: Vec<f64> = (0..14).map(|i| if i % 2 == 0 { 0.7 } else { -0.7 }).collect();
        assert_eq!(paired(&swings).regressed(0.03), None, "blocks of two are all alike");
        assert_eq!(paired(&logs(&base, &base)).verdict(), "no difference above 0.5% detectable");
        let placed = paired(&logs(&base, &base.map(|b| b * 1.004)));
        assert_eq!(
            (placed.high < 1.0, placed.verdict().as_str()),
            (true, "no difference above 0.5% detectable")
        );
        assert_eq!(paired(&[]).verdict(), "inconclusive");
        assert_eq!(paired(&[0.5, 0.5, 0.5]).verdict(), "inconclusive");
        assert_eq!(paired(&[0.5, 0.5, 0.5]).regressed(0.03), None);
    }

    #[test]
    fn intervals_hold_the_truth_about_as_often_as_they_say() {
        // Turns of 1% noise, one in ten disturbed by up to 50%, and what disturbs lasts: 300 measurements of 24 turns each.
        let mut random = Random::new(11);
        let (mut missed, mut found, mut alarms) = (0, 0, 0);
        for _ in 0..300 {
            let mut lasting = 0.0;
            let mut one = |shift: f64| {
                lasting = 0.5 * lasting + 0.01 * gauss(&mut random);
                let hit = if random.below(10) == 0 { random.unit() - 0.5 } else { 0.0 };
                lasting + hit + shift
            };
            let same = paired(&(0..24).map(|_| one(0.0)).collect::<Vec<_>>());
            let slower = paired(&(0..24).map(|_| one((1.0f64 / 1.05).ln())).collect::<Vec<_>>());
            missed += usize::from(same.low > 1.0 || same.high < 1.0);
            alarms += usize::from(same.regressed(0.03) == Some(true));
            found += usize::from(slower.high < 1.0);
        }
        assert!(missed <= 36, "{missed} of 300 intervals miss 1");
        assert_eq!(alarms, 0);
        assert!(found >= 290, "{found} of 300");
    }

    #[test]
    fn what_is_called_detectable_is_detected() {
        let mut random = Random::new(5);
        let mut measure =
            |shift: f64| paired(&(0..30).map(|_| 0.02 * gauss(&mut random) - shift).collect::<Vec<_>>());
        let typical = median(&(0..60).map(|_| measure(0.0).detectable).collect::<Vec<_>>());
        assert!(typical > 0.008 && typical < 0.02, "{typical}");
        let found = (0..200).filter(|_| measure(typical).high < 1.0).count();
        assert!((140..=190).contains(&found), "{found} of 200 at {typical}");
    }

    #[test]
    fn separate_runs_have_wider_intervals() {
        let drift = |i: i32, by: f64| (10.0 + f64::from(i)) * by;
        let base: Vec<f64> = (0..12).map(|i| drift(i, 1.0)).collect();
        let other: Vec<f64> = (0..12).map(|i| drift(i, 1.02)).collect();
        let (together, apart) = (paired(&logs(&base, &other)), unpaired(&base, &other));
        assert_eq!(together.verdict(), "slower");
        assert!(apart.high - apart.low > 0.1 && apart.low < 1.0 && apart.high > 1.0, "{apart:?}");
        assert!(!unpaired(&[], &base).ratio.is_finite());
        assert_eq!(
            unpaired(&base, &base.iter().map(|b| b * 3.0).collect::<Vec<_>>()).regressed(0.03),
            Some(true)
        );
    }

    #[test]
    fn distributions_are_those_of_the_tables() {
        assert!((student(6.0) - 2.447).abs() < 0.01 && (student(30.0) - 2.042).abs() < 0.002);
        assert!((normal(1.96) - 0.975).abs() < 1e-4 && (normal(-1.0) - 0.1587).abs() < 1e-4);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!((median(&[]), midmean(&mut []), midmean(&mut [9.0, 1.0, 2.0, 3.0])), (0.0, 0.0, 2.5));
    }
}
