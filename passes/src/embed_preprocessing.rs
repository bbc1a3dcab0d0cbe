//! Preprocessing of pictures as a part of the graph.

use planish_ir::graph::Fact;
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::cast::Cast;
use planish_ir::op::gather::Gather;
use planish_ir::op::views::Transpose;
use planish_ir::{Constant, DType, Diag, Dim, Editor, Graph, Tensor, Type};

/// What happens to a picture, whose pixels are red, green, blue, or grey, before a model gets it: `(x * scale - mean) / std` in f32
/// for each channel, each operation rounded.
#[derive(Clone, PartialEq, Debug)]
pub struct Normalise {
    /// The channels lie before rows and columns in the model's input (NCHW), not behind them (NHWC).
    pub channels_first: bool,
    /// The first channel is the last of the picture (BGR).
    pub reversed: bool,
    /// Factor.
    pub scale: f32,
    /// Of each channel of the model, or one for all.
    pub mean: Vec<f32>,
    /// Of each channel of the model, or one for all.
    pub std: Vec<f32>,
}

/// Makes input `at` of a graph, a float tensor of rank 4, one of bytes, N x height x width x channels, and does in the graph what was
/// to be done with a picture before. The name of the input stays.
pub fn embed(graph: &mut Graph, at: usize, n: &Normalise) -> Result<(), Diag> {
    let refuse = |why: &str| Diag::error("preprocess-embed", why.to_owned());
    let v = *graph.inputs().get(at).ok_or_else(|| refuse("the model has no such input"))?;
    let ty = graph.ty(v).as_tensor().cloned().ok_or_else(|| refuse("the input is no tensor"))?;
    if !ty.dtype.is_float() {
        return Err(refuse(&format!("the input is {}, not a float", ty.dtype)));
    }
    let [batch, a, b, c] = ty.dims()? else {
        return Err(refuse("the input has not the four axes of pictures"));
    };
    let (height, width, channels) = if n.channels_first { (b, c, a) } else { (a, b, c) };
    let count = channels.as_const().and_then(|c| usize::try_from(c).ok());
    let count = count.ok_or_else(|| refuse("the number of channels is not fixed"))?;
    if [&n.mean, &n.std].iter().any(|v| v.len() != 1 && v.len() != count) {
        return Err(refuse(&format!("mean and std must have 1 or {count} numbers")));
    }
    let pixels: Vec<Dim> = vec![batch.clone(), height.clone(), width.clone(), channels.clone()];
    let users = graph.uses(v).to_vec();
    let first = graph.nodes_in(graph.root()).next();
    let mut ed = Editor::new(graph);
    ed.set_fact(v, Fact::from(Type::tensor(DType::U8, pixels)));
    match first {
        Some(n) => ed.before(n),
        None => {
            let root = ed.graph().root();
            ed.at_end(root);
        }
    }
    let mut x = v;
    if n.channels_first {
        x = ed.node1(Transpose { perm: vec![0, 3, 1, 2] }, &[x])?;
    }
    let axis = if n.channels_first { 1 } else { 3 };
    if n.reversed {
        let order: Vec<i64> = (0..count as i64).rev().collect();
        let order = ed.constant(Constant::from(Tensor::vec_i64(&order)))?;
        x = ed.node1(Gather { axis }, &[x, order])?;
    }
    x = ed.node1(Cast { to: DType::F32, saturate: true }, &[x])?;
    let mut step =
        |ed: &mut Editor<'_>, kind: BinaryKind, values: &[f32], neutral: f32| -> Result<(), Diag> {
            if values.iter().all(|x| *x == neutral) {
                return Ok(());
            }
            let shape: &[usize] = match (values.len(), n.channels_first) {
                (1, _) => &[],
                (_, true) => &[count, 1, 1],
                (_, false) => &[count],
            };
            let c = ed.constant(Constant::from(Tensor::f32s(shape, values)?))?;
            x = ed.node1(Binary { kind }, &[x, c])?;
            Ok(())
        };
    step(&mut ed, BinaryKind::Mul, &[n.scale], 1.0)?;
    step(&mut ed, BinaryKind::Sub, &n.mean, 0.0)?;
    step(&mut ed, BinaryKind::Div, &n.std, 1.0)?;
    if ty.dtype != DType::F32 {
        x = ed.node1(Cast { to: ty.dtype, saturate: true }, &[x])?;
    }
    for u in users {
        ed.set_use(u, x);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_ir::{interp, text, verify};

    fn model(shape: &str) -> Graph {
        let text = format!(
            "planish-ir 1\ngraph @\"m\"(v0 \"x\": {shape}) {{\n  v1 = unary{{kind=neg}} v0 : {shape}\n  return v1 \"y\", v0 \"same\"\n}}\n"
        );
        text::parse(&text).unwrap_or_else(|d| panic!("{d}"))
    }

    #[test]
    fn bytes_in_the_graph_are_the_floats_made_before() -> Result<(), Diag> {
        let (mean, std, scale) = ([0.485f32, 0.456, 0.406], [0.229f32, 0.224, 0.225], 1.0 / 255.0f32);
        let (h, w) = (2, 3);
        let bytes: Vec<u8> = (0..h * w * 3).map(|i| (i * 53 % 256) as u8).collect();
        for (channels_first, reversed) in [(true, false), (true, true), (false, true), (false, false)] {
            let shape = if channels_first { "f32[N,3,H,W]" } else { "f32[N,H,W,3]" };
            let plain = model(shape);
            let mut embedded = plain.clone();
            let n = Normalise { channels_first, reversed, scale, mean: mean.to_vec(), std: std.to_vec() };
            embed(&mut embedded, 0, &n)?;
            assert_eq!(verify::verify(&embedded), Vec::new());
            let mut floats = vec![0f32; bytes.len()];
            for (i, b) in bytes.iter().enumerate() {
                let (pixel, c) = (i / 3, i % 3);
                let c = if reversed { 2 - c } else { c };
                let at = if channels_first { c * h * w + pixel } else { pixel * 3 + c };
                floats[at] = (f32::from(*b) * scale - mean[c]) / std[c];
            }
            let dims = if channels_first { [1, 3, h, w] } else { [1, h, w, 3] };
            let want = interp::run(&plain, vec![Tensor::f32s(&dims, &floats)?.into()])?;
            let raw = Tensor::from_bytes(DType::U8, vec![1, h, w, 3], bytes.clone().into())?;
            assert_eq!(interp::run(&embedded, vec![raw.into()])?.values, want.values);
        }
        Ok(())
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let n =
            Normalise { channels_first: true, reversed: false, scale: 1.0, mean: vec![0.0], std: vec![1.0] };
        for shape in ["f32[N,3]", "i32[N,3,4,4]", "f32[N,C,4,4]"] {
            let failed = embed(&mut model(shape), 0, &n).err().map(|d| d.id);
            assert_eq!(failed, Some("preprocess-embed"), "{shape}");
        }
        let mean = Normalise { mean: vec![0.0; 2], ..n.clone() };
        assert!(
            embed(&mut model("f32[N,3,4,4]"), 0, &mean).is_err()
                && embed(&mut model("f32[1,1,1,1]"), 1, &n).is_err()
        );
        // Neutral steps leave nothing but the conversion.
        let mut g = model("f32[N,3,4,4]");
        assert!(embed(&mut g, 0, &n).is_ok());
        assert_eq!(g.node_count(), 3);
    }
}
