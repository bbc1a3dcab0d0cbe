use crate::lower::tests::{ramp, same, weights};
use planish_ir::{DType, Diag, Tensor};

fn body(inputs: &str, nodes: &str, returns: &str) -> String {
    format!("graph @\"g\"({inputs}) {{ {nodes} return {returns} }}")
}

#[test]
fn softmax_along_every_axis() -> Result<(), Diag> {
    for kind in ["softmax", "log-softmax", "hardmax"] {
        for shape in [[2usize, 3, 35], [1, 1, 1], [2, 0, 3], [3, 17, 1]] {
            for axis in 0..3 {
                let op = format!("v1 = softmax{{kind={kind}, axis={axis}}} v0 : f32[A,B,C]");
                same(&body("v0: f32[A,B,C]", &op, "v1"), vec![ramp(&shape)?], 1e-5)?;
            }
        }
    }
    let op = "v1 = cast{to=f16, saturate=true} v0 : f16[A,20] \
              v2 = softmax{kind=softmax, axis=1} v1 : f16[A,20]";
    same(&body("v0: f32[A,20]", op, "v2"), vec![ramp(&[3, 20])?], 1e-3)
}

#[test]
fn rows_are_normalised() -> Result<(), Diag> {
    for (n, m) in [(3usize, 40usize), (1, 1), (2, 7), (0, 5)] {
        let op = "v3, v4, v5 = layer-norm{axis=1, epsilon=1e-5, rms=false} v0, v1, v2 : f32[N,M], f32[N,1], f32[N,1]";
        let inputs = "v0: f32[N,M], v1: f32[M], v2: f32[M]";
        let given = || Ok::<_, Diag>(vec![ramp(&[n, m])?, ramp(&[m])?, ramp(&[m])?]);
        same(&body(inputs, op, "v3, v4, v5"), given()?, 1e-4)?;
        same(&body(inputs, op, "v3"), given()?, 1e-4)?;
        let op = "v3, v4 = layer-norm{axis=1, epsilon=1e-5, rms=true} v0, v1 : f32[N,M], f32[N,1]";
        same(&body(inputs, op, "v3, v4"), given()?, 1e-4)?;
    }
    // Scales that do not follow the rows: of instance and of group normalisation.
    let op = "v3, v4, v5 = layer-norm{axis=2, epsilon=1e-5, rms=false} v0, v1, v2 : f32[2,3,4,5], f32[2,3,1,1], f32[2,3,1,1]";
    for scale in [[3usize, 1, 1], [3, 4, 1]] {
        let dims = scale.map(|d| d.to_string()).join(",");
        let inputs = format!("v0: f32[2,3,4,5], v1: f32[{dims}], v2: f32[{dims}]");
        same(&body(&inputs, op, "v3"), vec![ramp(&[2, 3, 4, 5])?, ramp(&scale)?, ramp(&scale)?], 1e-4)?;
    }
    Ok(())
}

#[test]
fn neighbouring_channels_are_normalised() -> Result<(), Diag> {
    for shape in [[2usize, 7, 35], [1, 1, 3], [2, 20, 1], [1, 0, 3], [2, 3, 0]] {
        for (size, beta) in [(5, "0.75"), (1, "0.5"), (4, "0.6"), (11, "1"), (12, "-0.25")] {
            let op = format!("v1 = lrn{{size={size}, alpha=0.4, beta={beta}, bias=0.7}} v0 : f32[A,B,C]");
            same(&body("v0: f32[A,B,C]", &op, "v1"), vec![ramp(&shape)?], 1e-5)?;
        }
    }
    let op = "v1 = cast{to=f64, saturate=true} v0 : f64[2,6] \
              v2 = lrn{size=3, alpha=0.4, beta=0.75, bias=1} v1 : f64[2,6]";
    same(&body("v0: f32[2,6]", op, "v2"), vec![ramp(&[2, 6])?], 1e-12)
}

fn pool(kind: &str, rest: &str) -> String {
    format!("pool{{kind={kind}, {rest}}}")
}

#[test]
fn windows_are_pooled() -> Result<(), Diag> {
    let x = ramp(&[2, 3, 9, 21])?;
    for kind in ["max", "average", "lp"] {
        for (kernel, stride, dilation, pads, out) in [
            ("[3, 3]", "[1, 1]", "[1, 1]", "[1, 1, 1, 1]", "9,21"),
            ("[2, 3]", "[2, 2]", "[1, 1]", "[0, 1, 0, 0]", "4,10"),
            ("[3, 2]", "[1, 3]", "[2, 3]", "[0, 0, 1, 2]", "6,7"),
            ("[9, 21]", "[1, 1]", "[1, 1]", "[0, 0, 0, 0]", "1,1"),
        ] {
            for count in ["true", "false"] {
                for p in [2, 3] {
                    let op = pool(
                        kind,
                        &format!(
                            "kernel={kernel}, strides={stride}, dilations={dilation}, pads={pads}, auto_pad=explicit, \
                             ceil_mode=false, count_include_pad={count}, p={p}, indices=none"
                        ),
                    );
                    let nodes = format!("v1 = {op} v0 : f32[2,3,{out}]");
                    same(&body("v0: f32[2,3,9,21]", &nodes, "v1"), vec![x.clone()], 1e-4)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn places_of_maxima_and_unknown_sizes() -> Result<(), Diag> {
    for order in ["row-major", "column-major"] {
        let op = pool(
            "max",
            &format!(
                "kernel=[3, 2], strides=[2, 2], dilations=[1, 1], pads=[1, 0, 1, 1], auto_pad=explicit, \
                 ceil_mode=true, count_include_pad=false, p=2, indices={order}"
            ),
        );
        let nodes = format!("v1, v2 = {op} v0 : f32[1,2,4,4], i64[1,2,4,4]");
        same(&body("v0: f32[1,2,6,7]", &nodes, "v1, v2"), vec![ramp(&[1, 2, 6, 7])?], 0.0)?;
    }
    let op = pool(
        "average",
        "kernel=[4], strides=[3], dilations=[1], pads=[0, 0], auto_pad=same-lower, ceil_mode=false, \
         count_include_pad=false, p=2, indices=none",
    );
    let nodes = format!("v1 = {op} v0 : f32[N,2,floordiv(L+2,3)]");
    for l in [1usize, 2, 3, 10, 31] {
        same(&body("v0: f32[N,2,L]", &nodes, "v1"), vec![ramp(&[2, 2, l])?], 1e-5)?;
    }
    let op = pool(
        "max",
        "kernel=[2], strides=[1], dilations=[1], pads=[1, 0], auto_pad=explicit, ceil_mode=false, \
         count_include_pad=false, p=2, indices=none",
    );
    for d in ["i8", "u8", "i32"] {
        let nodes = format!("v1 = cast{{to={d}, saturate=true}} v0 : {d}[1,1,9] v2 = {op} v1 : {d}[1,1,9]");
        same(&body("v0: f32[1,1,9]", &nodes, "v2"), vec![ramp(&[1, 1, 9])?], 0.0)?;
    }
    Ok(())
}

#[test]
fn transposed_convolution() -> Result<(), Diag> {
    for (strides, dilations, pads, more, groups, out) in [
        ("[1, 1]", "[1, 1]", "[0, 0, 0, 0]", "[0, 0]", 1, "6,20"),
        ("[2, 3]", "[1, 1]", "[1, 0, 0, 1]", "[1, 0]", 1, "9,53"),
        ("[2, 2]", "[2, 1]", "[0, 1, 1, 0]", "[0, 1]", 2, "10,37"),
    ] {
        let (c, m) = (4, 6);
        let mg = m / groups;
        let nodes = format!(
            "v3 = conv-transpose{{strides={strides}, dilations={dilations}, pads={pads}, output_padding={more}, \
             groups={groups}}} v0, v1, v2 : f32[2,{m},{out}]"
        );
        let inputs = format!("v0: f32[2,{c},4,18], v1: f32[{c},{mg},3,3], v2: f32[{m}]");
        let given = vec![ramp(&[2, c, 4, 18])?, ramp(&[c, mg, 3, 3])?, ramp(&[m])?];
        same(&body(&inputs, &nodes, "v3"), given, 1e-4)?;
    }
    Ok(())
}

#[test]
fn recurrent_layers() -> Result<(), Diag> {
    let (t, b, i) = (3usize, 2usize, 5usize);
    for h in [4usize, 3, 20] {
        for (cell, gates, acts) in
            [("rnn", 1, "tanh"), ("gru", 3, "sigmoid, tanh"), ("lstm", 4, "sigmoid, tanh, softsign")]
        {
            for (direction, d) in [("forward", 1usize), ("reverse", 1), ("both", 2)] {
                for linear in ["true", "false"] {
                    let n = acts.split(',').count() * d;
                    let acts = vec![acts; d].join(", ");
                    let some = vec!["0.5"; n].join(", ");
                    let lstm = cell == "lstm";
                    let last = format!("f32[{d},B,{h}]");
                    let (results, types) = if lstm {
                        ("v8, v9, v10", format!("f32[T,{d},B,{h}], {last}, {last}"))
                    } else {
                        ("v8, v9", format!("f32[T,{d},B,{h}], {last}"))
                    };
                    let op = format!(
                        "{results} = recurrent{{cell={cell}, direction={direction}, activations=[{acts}], \
                         alpha=[{some}], beta=[{some}], clip={}, linear_before_reset={linear}, input_forget={linear}}} \
                         v0, v1, v2, v3, v4, v5{} : {types}",
                        if linear == "true" { "0.8" } else { "none" },
                        if lstm { ", v6, v7" } else { "" }
                    );
                    let lens = Tensor::ints(DType::I32, &[b], vec![3, 1])?;
                    let mut inputs = format!("v0: f32[T,B,{i}], v4: i32[B], v5: {last}");
                    let mut given = vec![ramp(&[t, b, i])?, lens.into(), ramp(&[d, b, h])?];
                    if lstm {
                        inputs += &format!(", v6: {last}, v7: f32[{d},{}]", 3 * h);
                        given.extend([ramp(&[d, b, h])?, ramp(&[d, 3 * h])?]);
                    }
                    // Weights and biases that are constants are packed.
                    let fixed = [vec![d, gates * h, i], vec![d, gates * h, h], vec![d, 2 * gates * h]];
                    let mut constants = String::new();
                    let (mut loose, mut all) = (inputs.clone(), given.clone());
                    for (k, s) in fixed.iter().enumerate() {
                        constants += &format!("v{} = const {} ", k + 1, weights(s));
                        let dims: Vec<String> = s.iter().map(usize::to_string).collect();
                        loose += &format!(", v{}: f32[{}]", k + 1, dims.join(","));
                        all.push(ramp(s)?);
                    }
                    same(&body(&loose, &op, results), all, 2e-4)?;
                    same(&body(&inputs, &format!("{constants}{op}"), results), given, 2e-4)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn axes_are_resampled() -> Result<(), Diag> {
    let transforms = [
        "half-pixel",
        "half-pixel-symmetric",
        "pytorch-half-pixel",
        "align-corners",
        "asymmetric",
        "crop-and-resize",
    ];
    let x = ramp(&[2, 5, 7])?;
    for (n, transform) in transforms.into_iter().enumerate() {
        for (mode, antialias) in
            [("nearest", false), ("linear", false), ("linear", true), ("cubic", false), ("cubic", true)]
        {
            for (new, exclude) in [([9i64, 20], false), ([3, 4], true), ([1, 7], false)] {
                let nearest = ["round-prefer-floor", "round-prefer-ceil", "floor", "ceil"][n % 4];
                let roi = if n == 5 { "v1" } else { "_" };
                let nodes = format!(
                    "v2 = const i64[2] [{}, {}] v3 = resize{{mode={mode}, transform={transform}, nearest={nearest}, \
                     cubic_a=-0.75, exclude_outside={exclude}, extrapolation=7.0, antialias={antialias}, axes=[1, 2], \
                     policy=stretch}} v0, {roi}, _, v2 : f32[2,{},{}]",
                    new[0], new[1], new[0], new[1]
                );
                let bounds = Tensor::f32s(&[4], &[0.1, 0.4, 0.9, 1.2])?;
                let graph = body("v0: f32[2,5,7], v1: f32[4]", &nodes, "v3");
                same(&graph, vec![x.clone(), bounds.into()], 1e-4)?;
            }
        }
    }
    Ok(())
}

#[test]
fn regions_of_images() -> Result<(), Diag> {
    let rois = Tensor::f32s(&[3, 4], &[0.0, 0.0, 7.0, 5.0, 1.3, 2.1, 4.9, 3.7, -2.0, -3.0, 20.0, 30.0])?;
    let batch = Tensor::vec_i64(&[0, 1, 0]);
    for (max, sampling, half) in [("false", 2, "true"), ("true", 0, "false"), ("false", 0, "true")] {
        let op = format!(
            "v3 = roi-align{{max={max}, height=2, width=3, sampling={sampling}, scale=0.9, half_pixel={half}}} v0, v1, v2 \
             : f32[3,2,2,3]"
        );
        let inputs = "v0: f32[2,2,6,8], v1: f32[3,4], v2: i64[3]";
        let given = vec![ramp(&[2, 2, 6, 8])?, rois.clone().into(), batch.clone().into()];
        same(&body(inputs, &op, "v3"), given, 1e-5)?;
    }
    let rois = Tensor::f32s(&[2, 5], &[1.0, 0.0, 0.0, 7.0, 5.0, 0.0, 2.5, 1.0, 3.0, 30.0])?;
    let op = "v2 = max-roi-pool{height=2, width=3, scale=0.9} v0, v1 : f32[2,2,2,3]";
    let given = vec![ramp(&[2, 2, 6, 8])?, rois.into()];
    same(&body("v0: f32[2,2,6,8], v1: f32[2,5]", op, "v2"), given, 1e-6)
}

#[test]
fn blocks_add_up() -> Result<(), Diag> {
    let graph = body(
        "v0: f32[2,12,6]",
        "v1 = const i64[2] [5, 4] v2 = const i64[2] [2, 2] \
         v3 = col2im{strides=[2, 1], dilations=[1, 2], pads=[1, 0, 0, 0]} v0, v1, v2 : f32[2,3,5,4]",
        "v3",
    );
    same(&graph, vec![ramp(&[2, 12, 6])?], 1e-5)
}
