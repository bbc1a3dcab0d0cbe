//! Pictures: PNG and JPEG files as bytes in rows of pixels, and their resizing.

use crate::failure::{Failure, Result};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// The most pixels along a side.
const MOST_SIDE: u32 = 1 << 15;
/// The most bytes that decoding may allocate.
const MOST_BYTES: u64 = 512 << 20;

/// Height x width x channels, 8 bits each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Picture {
    /// Rows.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// 1: grey, 3: red, green, blue.
    pub channels: usize,
    /// Pixel after pixel, row after row.
    pub data: Vec<u8>,
}

/// How pixels between pixels are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Linear between neighbours; where it makes smaller, over as many pixels as become one.
    #[default]
    Bilinear,
    /// The nearest pixel.
    Nearest,
}

/// Whether a file is named as a picture that can be read.
pub fn is_named(path: &Path) -> bool {
    let end = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    end.is_some_and(|e| matches!(e.as_str(), "png" | "jpg" | "jpeg"))
}

/// Reads a PNG or JPEG file, whichever it is. Transparency is left out; 16 bits become 8. Orientation tags are not applied.
pub fn open(path: &Path) -> Result<Picture> {
    let bad = |e: String| Failure::new("image-malformed", format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(|e| Failure::file(path, e))?;
    let reader = image::ImageReader::new(BufReader::new(file)).with_guessed_format();
    let mut reader = reader.map_err(|e| bad(e.to_string()))?;
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MOST_SIDE);
    limits.max_image_height = Some(MOST_SIDE);
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let decoded = reader.decode().map_err(|e| bad(e.to_string()))?;
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let (channels, data) = match decoded.color().has_color() {
        true => (3, decoded.into_rgb8().into_raw()),
        false => (1, decoded.into_luma8().into_raw()),
    };
    Ok(Picture { height, width, channels, data })
}

impl Picture {
    /// With so many channels: 1 is grey (0.299 red, 0.587 green, 0.114 blue), 3 repeats grey.
    #[must_use]
    pub fn with_channels(self, channels: usize) -> Picture {
        let data = match (self.channels, channels) {
            (3, 1) => {
                let grey = |p: &[u8]| {
                    let sum = 299 * u32::from(p[0]) + 587 * u32::from(p[1]) + 114 * u32::from(p[2]);
                    ((sum + 500) / 1000) as u8
                };
                self.data.chunks_exact(3).map(grey).collect()
            }
            (1, 3) => self.data.iter().flat_map(|x| [*x; 3]).collect(),
            _ => return self,
        };
        Picture { channels, data, ..self }
    }
    /// Of another size; a picture without pixels stays as it is.
    #[must_use]
    pub fn resized(self, height: usize, width: usize, filter: Filter) -> Picture {
        if (self.height, self.width) == (height, width) || self.data.is_empty() {
            return self;
        }
        let c = self.channels;
        let across = weights(self.width, width, filter);
        let mut wide = vec![0f32; self.height * width * c];
        for (row, out) in self.data.chunks_exact(self.width * c).zip(wide.chunks_exact_mut(width * c)) {
            for ((from, taps), pixel) in across.iter().zip(out.chunks_exact_mut(c)) {
                for (k, w) in taps.iter().enumerate() {
                    for (x, p) in pixel.iter_mut().zip(&row[(from + k) * c..]) {
                        *x += w * f32::from(*p);
                    }
                }
            }
        }
        let mut data = Vec::with_capacity(height * width * c);
        let mut row = vec![0f32; width * c];
        for (from, taps) in weights(self.height, height, filter) {
            row.fill(0.0);
            for (k, w) in taps.iter().enumerate() {
                let source = &wide[(from + k) * width * c..(from + k + 1) * width * c];
                row.iter_mut().zip(source).for_each(|(x, p)| *x += w * p);
            }
            data.extend(row.iter().map(|x| x.round_ties_even().clamp(0.0, 255.0) as u8));
        }
        Picture { height, width, channels: c, data }
    }
    /// The part in the middle of this size, with black beyond the edges.
    #[must_use]
    pub fn centred(self, height: usize, width: usize) -> Picture {
        if (self.height, self.width) == (height, width) {
            return self;
        }
        let c = self.channels;
        let mut data = vec![0; height * width * c];
        let shift = |have: usize, want: usize| (have.saturating_sub(want) / 2, want.saturating_sub(have) / 2);
        let ((y, down), (x, right)) = (shift(self.height, height), shift(self.width, width));
        let (rows, columns) = (self.height.min(height), self.width.min(width) * c);
        for r in 0..rows {
            let from = ((y + r) * self.width + x) * c;
            let to = ((down + r) * width + right) * c;
            data[to..to + columns].copy_from_slice(&self.data[from..from + columns]);
        }
        Picture { height, width, channels: c, data }
    }
}

/// For each new position the first old one that it takes from, and the weights from there.
fn weights(old: usize, new: usize, filter: Filter) -> Vec<(usize, Vec<f32>)> {
    let scale = old as f64 / new as f64;
    (0..new)
        .map(|i| {
            let middle = (i as f64 + 0.5) * scale;
            if filter == Filter::Nearest {
                return ((middle as usize).min(old - 1), vec![1.0]);
            }
            let reach = scale.max(1.0);
            let first = (middle - reach + 0.5).max(0.0) as usize;
            let last = ((middle + reach + 0.5) as usize).clamp(first + 1, old.max(first + 1));
            let height = |k: usize| (1.0 - ((k as f64 + 0.5 - middle) / reach).abs()).max(0.0);
            let all: Vec<f64> = (first..last).map(height).collect();
            let sum: f64 = all.iter().sum();
            (first, all.iter().map(|w| (w / sum) as f32).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(height: usize, width: usize, channels: usize) -> Picture {
        let data = (0..height * width * channels).map(|i| (i * 37 % 251) as u8).collect();
        Picture { height, width, channels, data }
    }

    #[test]
    fn sizes_change_as_they_should() {
        let flat = Picture { height: 5, width: 7, channels: 3, data: vec![90; 105] };
        for (h, w) in [(1, 1), (3, 20), (5, 7), (11, 2)] {
            for filter in [Filter::Bilinear, Filter::Nearest] {
                let out = flat.clone().resized(h, w, filter);
                assert_eq!((out.height, out.width, out.data), (h, w, vec![90; h * w * 3]));
            }
        }
        // Twice the size and half of it: means of neighbours, and weights 1/4 and 3/4 between them.
        let two = Picture { height: 1, width: 2, channels: 1, data: vec![0, 100] };
        assert_eq!(two.clone().resized(1, 4, Filter::Bilinear).data, [0, 25, 75, 100]);
        assert_eq!(two.clone().resized(1, 4, Filter::Nearest).data, [0, 0, 100, 100]);
        assert_eq!(two.resized(1, 1, Filter::Bilinear).data, [50]);
        let none = Picture { height: 0, width: 4, channels: 3, data: Vec::new() };
        assert_eq!(none.clone().resized(2, 2, Filter::Bilinear), none);
    }

    #[test]
    fn the_middle_is_cut_out_and_framed() {
        let p = ramp(4, 6, 1);
        let cut = p.clone().centred(2, 2);
        assert_eq!(cut.data, [p.data[8], p.data[9], p.data[14], p.data[15]]);
        let framed = cut.clone().centred(4, 3);
        assert_eq!(framed.data[..3], [0; 3]);
        assert_eq!(framed.data[3..5], cut.data[..2]);
        assert_eq!(framed.clone().centred(2, 2).data.len(), 4);
    }

    #[test]
    fn grey_and_colours_become_each_other() {
        let red = Picture { height: 1, width: 1, channels: 3, data: vec![255, 0, 0] };
        let grey = red.with_channels(1);
        assert_eq!((grey.channels, &grey.data[..]), (1, &[76][..]));
        assert_eq!(grey.with_channels(3).data, [76; 3]);
    }

    #[test]
    fn pictures_that_claim_too_much_are_refused() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("p.png");
        let fine = image::RgbImage::from_pixel(2, 3, image::Rgb([1, 2, 3]));
        fine.save(&path)?;
        let read = open(&path).map_err(|f| f.message())?;
        assert_eq!((read.height, read.width, read.channels), (3, 2, 3));
        assert_eq!(read.data, [1, 2, 3].repeat(6));
        let whole = std::fs::read(&path)?;
        // The sizes stand behind the first chunk's name; its checksum follows.
        let sized = |width: u32, height: u32| {
            let mut b = whole.clone();
            b[16..20].copy_from_slice(&width.to_be_bytes());
            b[20..24].copy_from_slice(&height.to_be_bytes());
            let mut crc = flate2::Crc::new();
            crc.update(&b[12..29]);
            b[29..33].copy_from_slice(&crc.sum().to_be_bytes());
            b
        };
        for bytes in [
            sized(1 << 31, 1),
            sized((1 << 31) - 1, (1 << 31) - 1),
            sized(MOST_SIDE, MOST_SIDE),
            sized(0, 3),
            sized(2, 300),
            whole[..40].to_vec(),
            b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec(),
            b"GIF89a".to_vec(),
            Vec::new(),
        ] {
            std::fs::write(&path, &bytes)?;
            let failure = open(&path).err().ok_or_else(|| format!("accepted: {bytes:?}"))?;
            assert_eq!(failure.diags[0].id, "image-malformed", "{}", failure.message());
        }
        Ok(())
    }
}
