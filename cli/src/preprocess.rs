//! `[preprocess]` of a recipe: what happens to pictures before a model gets them. Calibration, evaluation and, with `embed`, the
//! compiled model do the same.

use crate::failure::{Failure, Result};
use crate::inputs::{Port, Signature};
use crate::io::picture::{Filter, Picture};
use planish_ir::{DType, Graph, Tensor, Type};
use planish_passes::embed_preprocessing::{self, Normalise};
use serde::{Deserialize, Serialize};

/// The longest side of pictures that a recipe can ask for.
const MOST_SIDE: usize = 1 << 12;

/// The table.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// The input that takes pictures; a model with one input needs no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Height and width that pictures get; those of the input where they are fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    /// How they get it.
    pub fit: Fit,
    /// With `fit = "crop"`: the length of the shorter side before the middle is cut out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shorter: Option<usize>,
    /// How pixels between pixels are made.
    pub filter: Filter,
    /// Order of the channels; by their number unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// Order of the axes of the input; found by the axis of 1 or 3 channels unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Factor of pixels, which are 0 to 255.
    pub scale: f64,
    /// Subtracted from each channel of the model, or one number for all, after `scale`.
    pub mean: Vec<f64>,
    /// Divides each channel of the model, or one number for all, last.
    pub std: Vec<f64>,
    /// Whether the compiled model does scale, mean, std and layout itself and takes bytes, N x height x width x channels.
    pub embed: bool,
}

/// How a picture gets another size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Both sides by themselves.
    #[default]
    Stretch,
    /// Keeps the aspect; what is beyond the edges is cut off.
    Crop,
    /// Keeps the aspect; black fills the rest.
    Pad,
}

/// Order of channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One.
    #[serde(alias = "gray")]
    Grey,
}

/// Order of axes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channels before rows and columns.
    Nchw,
    /// Channels last.
    Nhwc,
}

impl Default for Preprocess {
    fn default() -> Self {
        Preprocess {
            input: None,
            size: None,
            fit: Fit::default(),
            shorter: None,
            filter: Filter::default(),
            channels: None,
            layout: None,
            scale: 1.0,
            mean: vec![0.0],
            std: vec![1.0],
            embed: false,
        }
    }
}

fn bad(why: impl Into<String>) -> Failure {
    Failure::new("preprocess-malformed", why)
}

/// What a table means for an input.
#[derive(Clone, PartialEq, Debug)]
pub struct Resolved {
    /// Position of the input.
    pub at: usize,
    dtype: DType,
    rank: usize,
    size: Option<(usize, usize)>,
    channels: usize,
    fit: Fit,
    shorter: Option<usize>,
    filter: Filter,
    /// The model takes bytes as they are.
    raw: bool,
    normalise: Normalise,
}

impl Preprocess {
    /// The input that it is for.
    fn port<'a>(&self, signature: &'a Signature) -> Result<(usize, &'a Port)> {
        let at = match &self.input {
            Some(name) => {
                signature.find(name).ok_or_else(|| bad(format!("the model has no input {name:?}")))?
            }
            None if signature.inputs.len() == 1 => 0,
            None => return Err(bad("the model has several inputs; `input` must name the one of pictures")),
        };
        Ok((at, &signature.inputs[at]))
    }
    /// Checks the table against the inputs of a model; with `embed` those of the model that takes bytes.
    pub fn resolve(&self, signature: &Signature) -> Result<Resolved> {
        let (at, port) = self.port(signature)?;
        let Type::Tensor(ty) = &port.ty else { return Err(bad("the input is no tensor")) };
        let dims: Vec<Option<usize>> =
            ty.shape.iter().flatten().map(|d| d.as_const().and_then(|d| usize::try_from(d).ok())).collect();
        let coloured = |d: Option<usize>| matches!(d, Some(1 | 3));
        let layout = match (self.layout, self.embed, &dims[..]) {
            (_, true, _) => Layout::Nhwc,
            (Some(l), ..) => l,
            (None, _, [_, c, _, last]) if !coloured(*c) && coloured(*last) => Layout::Nhwc,
            (None, _, [c, _, last]) if *c != Some(3) && *last == Some(3) => Layout::Nhwc,
            _ => Layout::Nchw,
        };
        let (count, inner) = match (&dims[..], layout) {
            ([_, c, h, w], Layout::Nchw) | ([_, h, w, c], Layout::Nhwc) => (*c, (*h, *w)),
            ([Some(3), h, w], Layout::Nchw) => (Some(3), (*h, *w)),
            ([_, h, w], Layout::Nchw) => (Some(1), (*h, *w)),
            ([h, w, c], Layout::Nhwc) => (*c, (*h, *w)),
            _ => (None, (None, None)),
        };
        let channels = match (self.channels, count) {
            (Some(Channels::Grey), None | Some(1)) | (None, Some(1)) => 1,
            (Some(Channels::Rgb | Channels::Bgr), None | Some(3)) | (None, Some(3)) => 3,
            // Elements in a row: their number tells.
            (None, None) => match (&dims[..], self.size) {
                ([.., Some(n)], Some([h, w])) if *n == h * w => 1,
                _ => 3,
            },
            (_, Some(n)) => return Err(bad(format!("the input has {n} channels"))),
        };
        let size = match (self.size, inner) {
            (Some([h, w]), (fixed_h, fixed_w)) => {
                if fixed_h.is_some_and(|f| f != h) || fixed_w.is_some_and(|f| f != w) {
                    return Err(bad(format!("size is {h} x {w}, but that of the input is fixed to another")));
                }
                Some((h, w))
            }
            (None, (Some(h), Some(w))) => Some((h, w)),
            (None, _) => None,
        };
        let mut sides = size.iter().flat_map(|(h, w)| [*h, *w]).chain(self.shorter);
        if sides.any(|s| s == 0 || s > MOST_SIDE) {
            return Err(bad(format!("sides are from 1 to {MOST_SIDE}")));
        }
        if self.shorter.is_some() && (self.fit != Fit::Crop || size.is_none()) {
            return Err(bad("`shorter` goes with fit = \"crop\" and a size"));
        }
        let numbers = |name: &str, v: &[f64]| -> Result<Vec<f32>> {
            if v.len() != 1 && v.len() != channels {
                return Err(bad(format!("{name} has {} numbers for {channels} channels", v.len())));
            }
            let v: Vec<f32> = v.iter().map(|x| *x as f32).collect();
            if v.iter().any(|x| !x.is_finite() || name == "std" && *x == 0.0) {
                return Err(bad(format!("{name} holds a number that cannot be used")));
            }
            Ok(v)
        };
        let normalise = Normalise {
            channels_first: layout == Layout::Nchw,
            reversed: self.channels == Some(Channels::Bgr),
            scale: numbers("scale", &[self.scale])?[0],
            mean: numbers("mean", &self.mean)?,
            std: numbers("std", &self.std)?,
        };
        let plain = (self.scale, &self.mean[..], &self.std[..]) == (1.0, &[0.0][..], &[1.0][..]);
        if ty.dtype == DType::U8 && !self.embed && !plain {
            return Err(bad("the input takes bytes: scale, mean and std have nothing to do"));
        }
        if ty.dtype != DType::U8 && !ty.dtype.is_float() {
            return Err(bad(format!("the input is {}, which takes no pictures", ty.dtype)));
        }
        let raw = self.embed;
        let (fit, shorter, filter) = (self.fit, self.shorter, self.filter);
        Ok(Resolved {
            at,
            dtype: ty.dtype,
            rank: dims.len(),
            size,
            channels,
            fit,
            shorter,
            filter,
            raw,
            normalise,
        })
    }
    /// Checks it against the inputs of a graph and, if it says so, makes it a part of the graph.
    pub fn embed(&self, graph: &mut Graph) -> Result<()> {
        let outside = Preprocess { embed: false, ..self.clone() };
        let r = outside.resolve(&Signature::of(graph))?;
        if self.embed {
            embed_preprocessing::embed(graph, r.at, &r.normalise)?;
        }
        Ok(())
    }
}

impl Resolved {
    /// A picture as the model takes it, in a batch of one.
    pub fn tensor(&self, picture: Picture) -> Result<Tensor> {
        let p = self.sized(picture.with_channels(self.channels));
        let (h, w, c) = (p.height, p.width, p.channels);
        let n = &self.normalise;
        let shape = match (self.rank, n.channels_first) {
            (1, _) => vec![h * w * c],
            (2, _) => vec![1, h * w * c],
            (3, true) => vec![c, h, w],
            (3, false) => vec![h, w, c],
            (_, true) => vec![1, c, h, w],
            (_, false) => vec![1, h, w, c],
        };
        if self.raw {
            return Ok(Tensor::from_bytes(DType::U8, vec![1, h, w, c], p.data.into())?);
        }
        let mut ordered = vec![0; p.data.len()];
        for (i, x) in p.data.iter().enumerate() {
            let (pixel, channel) = (i / c, i % c);
            let channel = if n.reversed { c - 1 - channel } else { channel };
            ordered[if n.channels_first { channel * h * w + pixel } else { pixel * c + channel }] = *x;
        }
        if self.dtype == DType::U8 {
            return Ok(Tensor::from_bytes(DType::U8, shape, ordered.into())?);
        }
        let of = |v: &[f32], channel: usize| if v.len() == 1 { v[0] } else { v[channel] };
        let channel = |i: usize| if n.channels_first { i / (h * w) } else { i % c };
        let float = |(i, x): (usize, &u8)| {
            let channel = channel(i);
            (f32::from(*x) * n.scale - of(&n.mean, channel)) / of(&n.std, channel)
        };
        let floats: Vec<f32> = ordered.iter().enumerate().map(float).collect();
        if self.dtype == DType::F32 {
            return Ok(Tensor::f32s(&shape, &floats)?);
        }
        Ok(Tensor::floats(self.dtype, &shape, floats.into_iter().map(f64::from).collect())?)
    }
    fn sized(&self, p: Picture) -> Picture {
        let Some((h, w)) = self.size else { return p };
        if p.data.is_empty() {
            return Picture { height: h, width: w, data: vec![0; h * w * p.channels], ..p };
        }
        let by = |side: usize, to: f64, of: usize| ((side as f64 * to / of as f64).round() as usize).max(1);
        let (ratio_h, ratio_w) = (h as f64 / p.height as f64, w as f64 / p.width as f64);
        let (to, of) = match (self.fit, self.shorter) {
            (Fit::Stretch, _) => return p.resized(h, w, self.filter),
            (Fit::Crop, Some(s)) => (s as f64, p.height.min(p.width)),
            (Fit::Crop, None) if ratio_h > ratio_w => (h as f64, p.height),
            (Fit::Crop, None) => (w as f64, p.width),
            (Fit::Pad, _) if ratio_h < ratio_w => (h as f64, p.height),
            (Fit::Pad, _) => (w as f64, p.width),
        };
        // A picture that is all edge would become a line longer than any memory.
        let (new_h, new_w) =
            (by(p.height, to, of).min(4 * MOST_SIDE), by(p.width, to, of).min(4 * MOST_SIDE));
        p.resized(new_h, new_w, self.filter).centred(h, w)
    }
}
