//! Statistics of a value over samples, one sample after the other, in memory that does not depend on how many there are.

use crate::calibrate::Cover;
use planish_ir::{DType, Diag, Tensor};

/// Bins of a histogram.
const BINS: usize = 4096;

/// Counts of values in equal bins from `-limit` to `limit`; doubles the limit when a value does not fit, so that its size does not
/// depend on how many values there are.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    limit: f64,
    bins: Vec<u64>,
    low: f64,
    high: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { limit: 0.0, bins: vec![0; BINS], low: f64::INFINITY, high: f64::NEG_INFINITY }
    }
}

impl Histogram {
    /// Counts finite values.
    pub fn add(&mut self, values: &[f64]) {
        for x in values.iter().copied().filter(|x| x.is_finite()) {
            self.low = self.low.min(x);
            self.high = self.high.max(x);
            if x.abs() > self.limit {
                self.widen(x.abs());
            }
            if self.limit > 0.0 {
                let at = ((x / self.limit + 1.0) * 0.5 * BINS as f64) as usize;
                self.bins[at.min(BINS - 1)] += 1;
            } else {
                self.bins[BINS / 2] += 1;
            }
        }
    }
    fn widen(&mut self, to: f64) {
        if self.limit == 0.0 {
            self.limit = to.max(f64::MIN_POSITIVE).log2().ceil().exp2();
            return;
        }
        while self.limit < to {
            let mut wide = vec![0; BINS];
            for (i, n) in self.bins.iter().enumerate() {
                wide[BINS / 4 + i / 2] += n;
            }
            self.bins = wide;
            self.limit *= 2.0;
        }
    }
    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.bins.iter().sum()
    }
    /// The range of the values, or of a part of them to the width of a bin; 0 to 0 where there were none.
    pub fn range(&self, cover: Cover) -> [f64; 2] {
        if self.low > self.high {
            return [0.0, 0.0];
        }
        let Cover::Percent(percent) = cover else { return [self.low, self.high] };
        let outside = (self.count() as f64 * (1.0 - percent / 100.0) / 2.0) as u64;
        let edge = |i: usize| (i as f64 / BINS as f64 * 2.0 - 1.0) * self.limit;
        let beyond = |bins: &mut dyn Iterator<Item = &u64>| {
            let mut seen = 0;
            bins.take_while(|n| {
                seen += **n;
                seen <= outside
            })
            .count()
        };
        let below = beyond(&mut self.bins.iter());
        let above = beyond(&mut self.bins.iter().rev());
        [edge(below).max(self.low), edge(BINS - above).min(self.high)]
    }
    /// The magnitude that a part (0 to 1) of the values does not exceed, to the width of a bin; 0 where there were none.
    pub fn magnitude(&self, part: f64) -> f64 {
        let wanted = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        if wanted == 0 {
            return 0.0;
        }
        for i in 0..BINS / 2 {
            seen += self.bins[BINS / 2 + i] + self.bins[BINS / 2 - 1 - i];
            if seen >= wanted {
                let edge = (i + 1) as f64 / (BINS / 2) as f64 * self.limit;
                return edge.min(self.low.abs().max(self.high.abs()));
            }
        }
        self.low.abs().max(self.high.abs())
    }
}

/// Norms of the positions along an axis.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Channels {
    /// Sum of squares of the finite elements of each.
    pub squares: Vec<f64>,
    /// The largest magnitude of each.
    pub largest: Vec<f64>,
    /// Elements of each.
    pub count: u64,
}

/// What the elements of a value were, over all samples. Elements that are not finite count in `count` only.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Stats {
    /// Range and distribution.
    pub histogram: Histogram,
    /// How many elements there were.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub squares: f64,
    /// Of each channel, where they were asked for.
    pub channels: Option<Channels>,
}

impl Stats {
    /// The least element; 0 where there were none.
    pub fn min(&self) -> f64 {
        self.histogram.range(Cover::All)[0]
    }
    /// The largest element; 0 where there were none.
    pub fn max(&self) -> f64 {
        self.histogram.range(Cover::All)[1]
    }
    /// Adds the elements of a tensor of numbers. `axis` is that of the channels; their number must be that of the tensors before.
    pub fn add(&mut self, t: &Tensor, axis: Option<i64>) -> Result<(), Diag> {
        if t.dtype() == DType::Str {
            return Err(Diag::error("calibration-type", "text has no statistics"));
        }
        let values = t.to_f64();
        self.histogram.add(&values);
        self.count += values.len() as u64;
        for x in values.iter().filter(|x| x.is_finite()) {
            self.sum += x;
            self.squares += x * x;
        }
        let Some(axis) = axis else { return Ok(()) };
        let rank = t.rank() as i64;
        let at = if axis < 0 { axis + rank } else { axis };
        let wide = usize::try_from(at).ok().and_then(|at| t.shape().get(at).copied());
        let Some(wide) = wide else {
            let text = format!("axis {axis} of channels is not one of the {rank} axes");
            return Err(Diag::error("axis-out-of-range", text));
        };
        let inner: usize = t.shape()[at as usize + 1..].iter().product();
        let all = self.channels.get_or_insert_with(|| Channels {
            squares: vec![0.0; wide],
            largest: vec![0.0; wide],
            count: 0,
        });
        if all.squares.len() != wide {
            let text = format!("{} channels in one sample and {wide} in another", all.squares.len());
            return Err(Diag::error("calibration-type", text));
        }
        if values.is_empty() {
            return Ok(());
        }
        all.count += (values.len() / wide) as u64;
        for block in values.chunks_exact(wide * inner) {
            for (c, part) in block.chunks_exact(inner).enumerate() {
                for x in part.iter().filter(|x| x.is_finite()) {
                    all.squares[c] += x * x;
                    all.largest[c] = all.largest[c].max(x.abs());
                }
            }
        }
        Ok(())
    }
    /// The statistics as bytes that [`Stats::from_bytes`] reads back.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut words: Vec<u64> = vec![self.count, self.sum.to_bits(), self.squares.to_bits()];
        let h = &self.histogram;
        words.extend([h.limit, h.low, h.high].map(f64::to_bits));
        words.extend(&h.bins);
        match &self.channels {
            None => words.push(u64::MAX),
            Some(c) => {
                words.extend([c.squares.len() as u64, c.count]);
                words.extend(c.squares.iter().chain(&c.largest).map(|x| x.to_bits()));
            }
        }
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }
    /// Reads what [`Stats::to_bytes`] wrote; none if the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Stats> {
        if !bytes.len().is_multiple_of(8) {
            return None;
        }
        let mut words = bytes
            .chunks_exact(8)
            .map(|w| u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]));
        let (count, sum, squares) = (words.next()?, words.next()?, words.next()?);
        let (limit, low, high) = (words.next()?, words.next()?, words.next()?);
        let bins: Vec<u64> = words.by_ref().take(BINS).collect();
        if bins.len() != BINS {
            return None;
        }
        let channels = match words.next()? {
            u64::MAX => None,
            wide => {
                let (wide, count) = (usize::try_from(wide).ok()?, words.next()?);
                let rest: Vec<f64> = words.by_ref().map(f64::from_bits).collect();
                let (squares, largest) = rest.split_at_checked(wide)?;
                (largest.len() == wide).then_some(())?;
                Some(Channels { squares: squares.to_vec(), largest: largest.to_vec(), count })
            }
        };
        let histogram = Histogram {
            limit: f64::from_bits(limit),
            bins,
            low: f64::from_bits(low),
            high: f64::from_bits(high),
        };
        let (sum, squares) = (f64::from_bits(sum), f64::from_bits(squares));
        words.next().is_none().then_some(Stats { histogram, count, sum, squares, channels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_what_they_say() {
        let mut h = Histogram::default();
        assert_eq!(h.range(Cover::All), [0.0, 0.0]);
        assert_eq!(h.magnitude(0.5), 0.0);
        let values: Vec<f64> = (0..10_000).map(|i| f64::from(i) / 10_000.0).collect();
        h.add(&values);
        let half = h.magnitude(0.5);
        assert!((0.5..0.501).contains(&half), "{half}");
        assert_eq!(h.magnitude(1.0), 0.9999);
        h.add(&[-100.0, 50.0, f64::NAN, f64::INFINITY]);
        assert_eq!(h.range(Cover::All), [-100.0, 50.0]);
        assert_eq!((h.count(), h.magnitude(1.0)), (10_002, 100.0));
        let [low, high] = h.range(Cover::Percent(99.9));
        assert!((-0.1..=0.0).contains(&low) && (0.95..1.1).contains(&high), "{low} {high}");
        let mut zeros = Histogram::default();
        zeros.add(&[0.0; 5]);
        assert_eq!(zeros.range(Cover::Percent(99.0)), [0.0, 0.0]);
    }

    #[test]
    fn channels_and_moments_are_those_of_all_samples() -> Result<(), Diag> {
        let mut s = Stats::default();
        // Two samples of another length: [2, 3, k], channels are axis 1.
        for k in [1usize, 2] {
            let values: Vec<f32> = (0..6 * k).map(|i| i as f32 - 3.0).collect();
            s.add(&Tensor::f32s(&[2, 3, k], &values)?, Some(-2))?;
        }
        let all: Vec<f64> = (0..6).chain(0..12).map(|i| f64::from(i) - 3.0).collect();
        assert_eq!((s.count, s.min(), s.max()), (18, -3.0, 8.0));
        assert_eq!(s.sum, all.iter().sum::<f64>());
        assert_eq!(s.squares, all.iter().map(|x| x * x).sum::<f64>());
        let c = s.channels.clone().ok_or_else(|| Diag::error("internal-test", "no channels"))?;
        assert_eq!(c.count, 6);
        assert_eq!(c.squares.iter().sum::<f64>(), s.squares);
        // Channel 0: -3, 0 of the first, -3, -2, 3, 4 of the second.
        assert_eq!((c.squares[0], c.largest[0]), (47.0, 4.0));
        assert_eq!(Stats::from_bytes(&s.to_bytes()), Some(s.clone()));
        assert_eq!(Stats::from_bytes(&s.to_bytes()[8..]), None);
        let other = s.add(&Tensor::f32s(&[2, 2], &[0.0; 4])?, Some(1));
        assert_eq!(other.err().map(|d| d.id), Some("calibration-type"));
        let none = s.add(&Tensor::f32s(&[2], &[0.0; 2])?, Some(1));
        assert_eq!(none.err().map(|d| d.id), Some("axis-out-of-range"));
        // Nothing to count is no failure, and an empty value has channels without elements.
        let mut empty = Stats::default();
        empty.add(&Tensor::f32s(&[0, 3], &[])?, Some(1))?;
        assert_eq!((empty.min(), empty.max(), empty.channels.map(|c| c.count)), (0.0, 0.0, Some(0)));
        assert_eq!(Stats::from_bytes(&Stats::default().to_bytes()), Some(Stats::default()));
        Ok(())
    }
}
