//! Pictures moved by some pixels, by others in every step.

use crate::failure::{Failure, Result};
use planish_ir::op::random::{stream, unit};
use planish_ir::{Tensor, Value};

/// By how much pictures are moved, and how large they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Jitter {
    /// Pixels at most, to each side.
    most: usize,
    /// Height and width of pictures that are flat rows.
    size: Option<[usize; 2]>,
}

impl Jitter {
    /// Reads `N` or `N:HxW`.
    pub fn parse(text: &str) -> Option<Jitter> {
        let (most, size) = match text.split_once(':') {
            None => (text, None),
            Some((most, size)) => {
                let (h, w) = size.split_once('x')?;
                let side = |t: &str| t.parse().ok().filter(|n| (1..=1 << 16).contains(n));
                (most, Some([side(h)?, side(w)?]))
            }
        };
        let most = most.parse().ok().filter(|n| (1..=1 << 15).contains(n))?;
        Some(Jitter { most, size })
    }
    /// Height and width of the pictures in a batch, `[rows, .., height, width]`, or `[rows, height * width]` where the size was given.
    fn sides(self, shape: &[usize]) -> Option<[usize; 2]> {
        match (self.size, shape) {
            (None, [_, .., _, h, w]) | (None, [_, h, w]) => Some([*h, *w]),
            (Some(size), [_, dims @ ..]) => {
                let each: usize = dims.iter().product();
                each.is_multiple_of(size[0] * size[1]).then_some(size)
            }
            _ => None,
        }
    }
    /// Moves each picture of a batch up or down and to a side by whole pixels, all its channels alike, each by what `seed` and its row decide. What comes in from outside are
    /// the pixels of the edge.
    pub fn moved(self, batch: &Value, seed: u64) -> Result<Value> {
        let batch = batch.tensor()?;
        let (shape, size) = (batch.shape(), batch.dtype().size());
        let [h, w] = self.sides(shape).ok_or_else(|| {
            let text = format!("--jitter moves pictures [.., height, width]; samples are {shape:?}: --jitter N:HxW says which size flat ones have");
            Failure::new("train-samples", text)
        })?;
        let rows = shape[0];
        let bytes = batch.bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let picture = bytes.len().checked_div(rows).unwrap_or(0).max(1);
        let wide = 2 * self.most + 1;
        let draw = |i: u64| ((unit(stream(seed, i)) * wide as f64) as usize).min(wide - 1);
        // Where a pixel comes from; both sides are below 2^16.
        let from = |at: usize, by: usize, side: usize| (at + by).saturating_sub(self.most).min(side - 1);
        for (row, picture) in (0..).zip(bytes.chunks_exact(picture)) {
            let [down, right] = [draw(2 * row), draw(2 * row + 1)];
            for channel in picture.chunks_exact((h * w * size).max(1)) {
                for line in 0..h {
                    let line = &channel[from(line, down, h) * w * size..][..w * size];
                    (0..w).for_each(|x| out.extend_from_slice(&line[from(x, right, w) * size..][..size]));
                }
            }
        }
        Ok(Tensor::from_bytes(batch.dtype(), shape.to_vec(), out.into())?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(jitter: &str, shape: &[usize], seed: u64) -> std::result::Result<Vec<f64>, String> {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
        let batch = Tensor::f32s(shape, &values).map_err(|d| d.message)?;
        let jitter = Jitter::parse(jitter).ok_or("no jitter")?;
        let out = jitter.moved(&batch.into(), seed).map_err(|f| f.message())?;
        Ok(out.tensor().map_err(|d| d.message)?.to_f64())
    }

    #[test]
    fn pictures_are_moved_as_a_whole() -> std::result::Result<(), String> {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            // Pixel (y, x) of the channel c of the row r is 60 r + 30 c + 6 y + x.
            let out = moved("1", &[2, 2, 5, 6], seed)?;
            for (row, picture) in out.chunks(60).enumerate() {
                let by = picture[6 * 2 + 3] as usize - 60 * row;
                let (down, right) = (by / 6, by % 6);
                seen.insert((down, right));
                for (i, pixel) in picture.iter().enumerate() {
                    let (c, y, x) = (i / 30, i / 6 % 5, i % 6);
                    let [y, x] = [(y + down).clamp(2, 6) - 2, (x + right).clamp(3, 8) - 3];
                    assert_eq!(*pixel, (60 * row + 30 * c + 6 * y + x) as f64, "{seed}");
                }
            }
        }
        let all = (1..4).flat_map(|y| (2..5).map(move |x| (y, x))).collect();
        assert_eq!(seen, all);
        assert_eq!(moved("1", &[2, 2, 5, 6], 7)?, moved("1", &[2, 2, 5, 6], 7)?);
        assert_eq!(moved("1:5x6", &[2, 60], 7)?, moved("1", &[2, 2, 5, 6], 7)?);
        Ok(())
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() -> std::result::Result<(), String> {
        assert!(moved("1", &[2, 30], 0).is_err());
        assert!(moved("1:5x7", &[2, 30], 0).is_err());
        assert!(moved("1:5x6", &[], 0).is_err());
        assert_eq!(moved("3", &[2, 1, 1, 1], 0)?, [0.0, 1.0]);
        assert_eq!(moved("3", &[0, 1, 4, 4], 0)?, [0.0; 0]);
        assert_eq!(moved("3", &[1, 0, 4, 4], 0)?, [0.0; 0]);
        assert_eq!(moved("3", &[1, 1, 0, 4], 0)?, [0.0; 0]);
        for text in ["", "0", "1:5", "1:0x2", "x", "-1", "1:2x3x4", "99999"] {
            assert_eq!(Jitter::parse(text), None, "{text}");
        }
        Ok(())
    }
}
