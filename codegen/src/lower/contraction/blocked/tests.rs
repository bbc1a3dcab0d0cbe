//! Convolutions on blocked channels, and what follows them, against the graph interpreter.

use crate::engine::KernelInterpreter;
use crate::kernel::TargetSpec;
use crate::lower::tests::{ramp, weights};
use crate::lower::{LowerOptions, lower};
use planish_ir::{Diag, Engine, PrepareOptions, Tensor, Value, interp, text};

/// The largest magnitudes of what `ramp` and `weights` make.
const LARGEST: f64 = 3.0 * 1.45;

/// Runs a graph at 4, 8 and 16 lanes. One of the kernels is called after each of `uses`. Every result is near that of the graph
/// interpreter: to 2e-6 of the largest one, or as the transforms state it for `channels` of input.
fn close(body: &str, inputs: &[Value], terms: usize, uses: &[&str]) -> Result<(), Diag> {
    let transforms = uses.contains(&"winograd");
    let at_least = if transforms { terms as f64 / 8.0 * LARGEST } else { 1.0 };
    let g = text::parse(&format!("planish-ir 1\n{body}"))?;
    planish_ir::verify::check(&g)?;
    let want = interp::run(&g, inputs.to_vec())?.values;
    for target in [TargetSpec::generic128(), TargetSpec::x86_64_v3(), TargetSpec::x86_64_v4()] {
        let options = LowerOptions { targets: vec![target.clone()], ..LowerOptions::default() };
        let module = lower(&g, &options).map_err(|mut d| d.swap_remove(0))?;
        for label in uses {
            let prefix = format!("k_{label}_");
            let found = module.plan.kernels.iter().any(|k| k.name.starts_with(&prefix));
            assert!(found, "no {prefix} among {:?}: {body}", module.plan.kernels);
        }
        let name = target.name.clone();
        let engine = KernelInterpreter { target };
        let program = engine.prepare(&g, &PrepareOptions::default()).map_err(|mut d| d.swap_remove(0))?;
        let given: Vec<_> = inputs.iter().cloned().map(Some).collect();
        let got = program.session()?.run(&given)?.values;
        for (x, y) in got.iter().zip(&want) {
            let (x, y) = (x.tensor()?, y.tensor()?);
            assert_eq!(x.shape(), y.shape(), "{body}");
            let (x, y) = (x.to_f64(), y.to_f64());
            let scale = y.iter().fold(at_least, |m, v| m.max(v.abs()));
            for (i, (x, y)) in x.iter().zip(&y).enumerate() {
                assert!((x - y).abs() <= 2e-6 * scale, "{i}: {x} is not {y} for {name}: {body}");
            }
        }
    }
    Ok(())
}

struct Case {
    x: &'static [usize],
    w: &'static [usize],
    strides: &'static str,
    dilations: &'static str,
    pads: &'static str,
    groups: usize,
    out: &'static str,
}

fn text_of(c: &Case, symbols: Option<(&str, &str)>) -> String {
    let join = |d: &[usize]| d.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let (x, out) = match symbols {
        Some((x, out)) => (format!("{},{},{x}", c.x[0], c.x[1]), out.to_owned()),
        None => (join(c.x), c.out.to_owned()),
    };
    let (m, n) = (c.w[0], c.x[0]);
    format!(
        "graph @\"g\"(v0: f32[{x}], v2: f32[{m}]) {{ v1 = const {}
         v3 = conv{{strides=[{}], dilations=[{}], pads=[{}], auto_pad=explicit, groups={}}} v0, v1, v2 : f32[{n},{m},{out}]
         return v3 }}",
        weights(c.w),
        c.strides,
        c.dilations,
        c.pads,
        c.groups
    )
}

#[test]
fn convolutions_follow_the_interpreter() -> Result<(), Diag> {
    let case =
        |x, w, strides, pads, groups, out| Case { x, w, strides, dilations: "1, 1", pads, groups, out };
    let mut cases = vec![
        // In place: a line of positions, with tails of channels, positions and blocks.
        (case(&[1, 8, 1, 1], &[8, 8, 1, 1], "1, 1", "0, 0, 0, 0", 1, "1,1"), "conv1x1"),
        (case(&[2, 17, 5, 7], &[40, 17, 1, 1], "1, 1", "0, 0, 0, 0", 1, "5,7"), "conv1x1"),
        (case(&[1, 16, 16, 15], &[48, 16, 1, 1], "1, 1", "0, 0, 0, 0", 1, "16,15"), "conv1x1"),
        (case(&[1, 32, 3, 5], &[80, 32, 1, 1], "1, 1", "0, 0, 0, 0", 1, "3,5"), "conv1x1"),
        (case(&[0, 16, 3, 3], &[16, 16, 1, 1], "1, 1", "0, 0, 0, 0", 1, "3,3"), "conv1x1"),
        // Few channels that are read plain.
        (case(&[1, 3, 21, 19], &[24, 3, 7, 7], "2, 2", "3, 3, 3, 3", 1, "11,10"), "conv"),
        (case(&[2, 1, 9, 70], &[8, 1, 3, 5], "1, 1", "1, 0, 1, 3", 1, "9,69"), "conv"),
        (case(&[1, 5, 4, 6], &[16, 5, 1, 1], "1, 1", "0, 0, 0, 0", 1, "4,6"), "conv1x1"),
        // Windows.
        (case(&[1, 20, 7, 9], &[16, 20, 1, 1], "2, 2", "0, 0, 0, 0", 1, "4,5"), "conv"),
        (case(&[1, 16, 6, 5], &[32, 16, 1, 1], "3, 2", "1, 1, 0, 2", 1, "3,4"), "conv"),
        (case(&[1, 10, 9, 8], &[18, 10, 3, 3], "2, 2", "1, 1, 1, 1", 1, "5,4"), "conv"),
        (case(&[1, 32, 5, 6], &[32, 16, 3, 2], "1, 1", "1, 0, 1, 1", 2, "5,6"), "conv"),
        (case(&[1, 16, 2, 2], &[9, 16, 5, 5], "1, 1", "2, 2, 2, 2", 1, "2,2"), "conv"),
        // A single column.
        (case(&[1, 16, 40, 1], &[20, 16, 5, 1], "2, 1", "1, 0, 1, 0", 1, "19,1"), "conv"),
        // The transforms: whole tiles, edges, tails of channels.
        (case(&[1, 32, 12, 12], &[32, 32, 3, 3], "1, 1", "1, 1, 1, 1", 1, "12,12"), "winograd"),
        (case(&[2, 35, 13, 18], &[49, 35, 3, 3], "1, 1", "1, 1, 1, 1", 1, "13,18"), "winograd"),
        (case(&[1, 32, 15, 14], &[40, 32, 3, 3], "1, 1", "0, 2, 0, 1", 1, "13,15"), "winograd"),
        (case(&[2, 64, 14, 15], &[64, 32, 3, 3], "1, 1", "1, 1, 1, 1", 2, "14,15"), "winograd"),
        (case(&[1, 36, 11, 13], &[34, 36, 5, 5], "1, 1", "2, 2, 2, 2", 1, "11,13"), "winograd"),
        (case(&[1, 33, 9, 20], &[32, 33, 3, 2], "1, 1", "1, 0, 1, 1", 1, "9,20"), "winograd"),
        (case(&[2, 40, 1, 61], &[40, 40, 1, 5], "1, 1", "0, 2, 0, 2", 1, "1,61"), "winograd"),
        (case(&[1, 48, 77, 1], &[64, 48, 3, 1], "1, 1", "1, 0, 1, 0", 1, "77,1"), "winograd"),
        (case(&[1, 32, 12, 18], &[32, 32, 4, 4], "1, 1", "0, 0, 0, 0", 1, "9,15"), "winograd"),
        // So many tiles that every unit transforms its own.
        (case(&[1, 32, 112, 16], &[32, 32, 3, 3], "1, 1", "1, 1, 1, 1", 1, "112,16"), "winograd"),
        (case(&[1, 32, 33, 118], &[48, 32, 3, 3], "1, 1", "1, 1, 1, 1", 1, "33,118"), "winograd"),
    ];
    cases.push((
        Case {
            x: &[1, 12, 9, 9],
            w: &[16, 12, 3, 3],
            strides: "1, 1",
            dilations: "2, 3",
            pads: "2, 3, 2, 3",
            groups: 1,
            out: "9,9",
        },
        "conv",
    ));
    cases.push((
        Case {
            x: &[2, 18, 45],
            w: &[16, 18, 5],
            strides: "2",
            dilations: "1",
            pads: "2, 2",
            groups: 1,
            out: "23",
        },
        "conv",
    ));
    for (c, label) in &cases {
        close(&text_of(c, None), &[ramp(c.x)?, ramp(&[c.w[0]])?], c.w[1..].iter().product(), &[label])?;
    }
    Ok(())
}

#[test]
fn sizes_may_be_known_at_run_time_only() -> Result<(), Diag> {
    let case = |w, pads, out| Case {
        x: &[1, 32, 0, 0],
        w,
        strides: "1, 1",
        dilations: "1, 1",
        pads,
        groups: 1,
        out,
    };
    for (h, w) in [(1usize, 1usize), (3, 20), (9, 61)] {
        let x = [1, 32, h, w];
        let c = case(&[16, 32, 1, 1], "0, 0, 0, 0", "");
        close(&text_of(&c, Some(("H,W", "H,W"))), &[ramp(&x)?, ramp(&[16])?], 32, &["conv1x1"])?;
        let c = case(&[8, 32, 5, 5], "2, 2, 2, 2", "");
        close(&text_of(&c, Some(("H,W", "H,W"))), &[ramp(&x)?, ramp(&[8])?], 32, &["conv"])?;
        let c = case(&[32, 32, 5, 5], "2, 2, 2, 2", "");
        close(
            &text_of(&c, Some(("H,W", "H,W"))),
            &[ramp(&x)?, ramp(&[32])?],
            32 * c.w[2] * c.w[3],
            &["winograd"],
        )?;
        let c = case(&[32, 32, 3, 3], "1, 1, 1, 1", "");
        close(
            &text_of(&c, Some(("H,W", "H,W"))),
            &[ramp(&x)?, ramp(&[32])?],
            32 * c.w[2] * c.w[3],
            &["winograd"],
        )?;
    }
    Ok(())
}

/// Everything that keeps the form: operations between convolutions see blocks, the outputs of the graph are plain.
#[test]
fn what_follows_keeps_the_form() -> Result<(), Diag> {
    for (c, n) in [(16usize, 1usize), (24, 2)] {
        let (h, w) = (7usize, 10usize);
        let (h2, w2) = (4, 5);
        let all = format!("f32[{n},{c},{h},{w}]");
        let small = format!("f32[{n},{c},{h2},{w2}]");
        let body = format!(
            "graph @\"g\"(v0: f32[{n},8,{h},{w}], v1: f32[{n},{c},1,1], v2: f32[{c},1,1]) {{
             v3 = const {}
             v4 = conv{{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1}} v0, v3 : {all}
             v5 = const {}
             v6 = conv{{strides=[1, 1], dilations=[1, 1], pads=[1, 1, 1, 1], auto_pad=explicit, groups={c}}} v4, v5 : {all}
             v7 = unary{{kind=relu}} v6 : {all}
             v8 = binary{{kind=add}} v7, v4 : {all}
             v9 = binary{{kind=mul}} v8, v1 : {all}
             v10 = binary{{kind=add}} v9, v2 : {all}
             v11 = pool{{kind=max, kernel=[3, 3], strides=[2, 2], dilations=[1, 1], pads=[1, 1, 1, 1], auto_pad=explicit, ceil_mode=false, count_include_pad=false, p=2, indices=none}} v10 : {small}
             v12 = pool{{kind=average, kernel=[3, 2], strides=[2, 2], dilations=[1, 1], pads=[1, 0, 1, 0], auto_pad=explicit, ceil_mode=false, count_include_pad=false, p=2, indices=none}} v10 : {small}
             v13 = concat{{axis=1}} v11, v12 : f32[{n},{},{h2},{w2}]
             v14 = reduce{{kind=mean, axes=[2, 3], keepdims=true, noop_empty=false}} v13 : f32[{n},{},1,1]
             return v14, v10, v13 }}",
            weights(&[c, 8, 1, 1]),
            weights(&[c, 1, 3, 3]),
            2 * c,
            2 * c,
        );
        let inputs = [ramp(&[n, 8, h, w])?, ramp(&[n, c, 1, 1])?, ramp(&[c, 1, 1])?];
        // A single image's pooled channels lie one after the other without being copied.
        let joined = if n == 1 { "pool" } else { "concat" };
        close(&body, &inputs, c, &["conv1x1", "depthwise", "binary", "pool", joined, "reduce", "unblock"])?;
    }
    Ok(())
}

#[test]
fn epilogues_run_on_vectors_of_channels() -> Result<(), Diag> {
    for (m, hw, label) in [(24usize, 3usize, "conv"), (34, 14, "winograd")] {
        let y = format!("f32[1,{m},{hw},{hw}]");
        let body = format!(
            "graph @\"g\"(v0: f32[1,32,{hw},{hw}], v1: {y}, v3: f32[1,{m},1,1]) {{
             v2 = const {}
             v4 = fused v0, v2, v3, v1 (v5: f32[1,32,{hw},{hw}], v6: f32[{m},32,3,3], v7: f32[1,{m},1,1], v8: {y}) {{
               v9 = conv{{strides=[1, 1], dilations=[1, 1], pads=[1, 1, 1, 1], auto_pad=explicit, groups=1}} v5, v6 : {y}
               v10 = binary{{kind=mul}} v9, v7 : {y}
               v11 = binary{{kind=add}} v10, v8 : {y}
               v12 = unary{{kind=relu}} v11 : {y}
               yield v12
             }} : {y}
             return v4 }}",
            weights(&[m, 32, 3, 3])
        );
        let inputs = [ramp(&[1, 32, hw, hw])?, ramp(&[1, m, hw, hw])?, ramp(&[1, m, 1, 1])?];
        // The factor of the channels is up to 3.
        close(&body, &inputs, 3 * 32 * 9, &[label])?;
    }
    Ok(())
}

/// Operands without the leading axis, where every channel has one position and where it has several.
#[test]
fn operands_may_lack_the_batch() -> Result<(), Diag> {
    for (h, w) in [(1usize, 1usize), (3, 5)] {
        let y = format!("f32[1,24,{h},{w}]");
        let body = format!(
            "graph @\"g\"(v0: f32[1,16,{h},{w}], v1: f32[24,{h},{w}]) {{
             v2 = const {}
             v3 = fused v0, v2, v1 (v5: f32[1,16,{h},{w}], v6: f32[24,16,1,1], v7: f32[24,{h},{w}]) {{
               v9 = conv{{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1}} v5, v6 : {y}
               v10 = binary{{kind=add}} v9, v7 : {y}
               yield v10
             }} : {y}
             return v3 }}",
            weights(&[24, 16, 1, 1])
        );
        close(&body, &[ramp(&[1, 16, h, w])?, ramp(&[24, h, w])?], 16, &["conv1x1"])?;
    }
    Ok(())
}

/// Bounds that are constants: NaN passes them.
#[test]
fn bounds_clip_sums() -> Result<(), Diag> {
    for (lo, hi) in [("0.0", "0.75"), ("-0.5", "0.0"), ("-0.0", "inf")] {
        let y = "f32[1,24,5,3]";
        let body = format!(
            "graph @\"g\"(v0: f32[1,16,5,3]) {{
             v1 = const {}
             v2 = const f32[] [{lo}]
             v3 = const f32[] [{hi}]
             v4 = fused v0, v1, v2, v3 (v5: f32[1,16,5,3], v6: f32[24,16,1,1], v7: f32[], v8: f32[]) {{
               v9 = conv{{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1}} v5, v6 : {y}
               v10 = binary{{kind=max}} v9, v7 : {y}
               v11 = binary{{kind=min}} v10, v8 : {y}
               yield v11
             }} : {y}
             return v4 }}",
            weights(&[24, 16, 1, 1])
        );
        let mut x = ramp(&[1, 16, 5, 3])?;
        close(&body, std::slice::from_ref(&x), 16, &["conv1x1"])?;
        let mut v: Vec<f32> = x.tensor()?.to_f64().iter().map(|v| *v as f32).collect();
        v[7] = f32::NAN;
        x = Tensor::f32s(&[1, 16, 5, 3], &v)?.into();
        let g = text::parse(&format!("planish-ir 1\n{body}"))?;
        for target in [TargetSpec::generic128(), TargetSpec::x86_64_v4()] {
            let program = KernelInterpreter { target }.prepare(&g, &PrepareOptions::default());
            let program = program.map_err(|mut d| d.swap_remove(0))?;
            let got = program.session()?.run(&[Some(x.clone())])?.values;
            let got = got[0].tensor()?.to_f64();
            let nans: Vec<usize> = (0..got.len()).filter(|i| got[*i].is_nan()).collect();
            let want: Vec<usize> = (0..24).map(|m| m * 15 + 7).collect();
            assert_eq!(nans, want, "{lo} {hi}");
        }
    }
    Ok(())
}

#[test]
fn responses_are_normalised_in_blocks() -> Result<(), Diag> {
    // Whole blocks of channels, and a part of one; windows on both sides, on one, and beyond the neighbouring vectors.
    for (channels, size) in [(32, 5), (20, 5), (16, 2), (37, 9), (32, 1)] {
        let body = format!(
            "graph @\"g\"(v0: f32[2,16,5,7]) {{ v1 = const {}
             v2 = conv{{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1}} v0, v1, _ : f32[2,{channels},5,7]
             v3 = lrn{{size={size}, alpha=0.3, beta=0.75, bias=1.5}} v2 : f32[2,{channels},5,7]
             return v3 }}",
            weights(&[channels, 16, 1, 1])
        );
        close(&body, &[ramp(&[2, 16, 5, 7])?], 16, &["lrn"])?;
    }
    Ok(())
}

/// A convolution to many channels and the one that reads it in one launch: tails of blocks and columns, bands, every kind of padding.
#[test]
fn wide_tensors_stay_in_the_cache() -> Result<(), Diag> {
    // Input, channels between, kernel, strides, dilations, pads, result.
    type Wide =
        ([usize; 4], usize, [usize; 2], &'static str, &'static str, &'static str, [usize; 2], &'static str);
    let cases: [Wide; 5] = [
        ([1, 8, 37, 41], 96, [3, 3], "1, 1", "1, 1", "1, 1, 1, 1", [37, 41], "expand_depthwise"),
        ([2, 18, 30, 29], 151, [3, 3], "2, 2", "1, 1", "0, 1, 1, 1", [15, 15], "expand_depthwise"),
        ([1, 10, 33, 35], 120, [5, 4], "1, 2", "2, 1", "4, 2, 4, 0", [33, 17], "expand_depthwise"),
        ([1, 9, 3, 450], 100, [2, 3], "3, 1", "1, 2", "0, 0, 2, 5", [2, 451], "expand_depthwise"),
        // So small that two launches do.
        ([1, 8, 9, 10], 48, [3, 3], "1, 1", "1, 1", "1, 1, 1, 1", [9, 10], "depthwise"),
    ];
    for ([n, c, h, w], m, [kh, kw], strides, dilations, pads, [h2, w2], label) in cases {
        let (x, wide) = (format!("f32[{n},{c},{h},{w}]"), format!("f32[{n},{m},{h},{w}]"));
        let y = format!("f32[{n},{m},{h2},{w2}]");
        let first = "strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1";
        let second = format!(
            "strides=[{strides}], dilations=[{dilations}], pads=[{pads}], auto_pad=explicit, groups={m}"
        );
        let body = format!(
            "graph @\"g\"(v0: {x}, v1: f32[{m}]) {{
             v2 = const {}
             v3 = const {}
             v4 = const f32[] [0.1]
             v5 = fused v0, v2, v1, v4 (v10: {x}, v11: f32[{m},{c},1,1], v12: f32[{m}], v13: f32[]) {{
               v14 = conv{{{first}}} v10, v11, v12 : {wide}
               v15 = binary{{kind=max}} v14, v13 : {wide}
               yield v15
             }} : {wide}
             v6 = fused v5, v3, v1 (v20: {wide}, v21: f32[{m},1,{kh},{kw}], v22: f32[{m}]) {{
               v23 = conv{{{second}}} v20, v21, v22 : {y}
               v24 = unary{{kind=relu}} v23 : {y}
               yield v24
             }} : {y}
             return v6 }}",
            weights(&[m, c, 1, 1]),
            weights(&[m, 1, kh, kw]),
        );
        close(&body, &[ramp(&[n, c, h, w])?, ramp(&[m])?], c, &[label])?;
        // With nothing between and after.
        let plain = format!(
            "graph @\"g\"(v0: {x}) {{
             v2 = const {}
             v3 = const {}
             v5 = conv{{{first}}} v0, v2 : {wide}
             v6 = conv{{{second}}} v5, v3 : {y}
             return v6 }}",
            weights(&[m, c, 1, 1]),
            weights(&[m, 1, kh, kw]),
        );
        close(&plain, &[ramp(&[n, c, h, w])?], c, &[label])?;
        // Another reader.
        let both = plain.replace("return v6", "return v6, v5");
        close(&both, &[ramp(&[n, c, h, w])?], c, &["conv1x1", "depthwise"])?;
    }
    Ok(())
}
