//! Convolutions of stored integers against the graph interpreter: sums are equal, and what follows them as well.

use crate::engine::KernelInterpreter;
use crate::kernel::TargetSpec;
use crate::lower::{LowerOptions, lower};
use planish_ir::{DType, Diag, Engine, PrepareOptions, Tensor, Value, interp, text};

/// Bytes without a pattern, from `seed` on.
fn bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    // The ends of the range are common.
    (0..n).map(|i| if i % 7 == 3 { [0, 255, 127, 128][i / 7 % 4] } else { next() }).collect()
}

fn given(d: DType, shape: &[usize], seed: u64) -> Result<Value, Diag> {
    Ok(Tensor::from_bytes(d, shape.to_vec(), bytes(shape.iter().product(), seed).into())?.into())
}

/// Signed weights as the text format writes them.
fn weights(shape: &[usize]) -> String {
    let n = shape.iter().product();
    let v: Vec<String> = bytes(n, 99).iter().map(|x| x.cast_signed().to_string()).collect();
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("i8[{}] [{}]", dims.join(","), v.join(", "))
}

/// Runs a graph at every width of vectors and for every way to multiply bytes. One kernel is called after `label`.
fn equal(body: &str, inputs: &[Value], label: &str) -> Result<(), Diag> {
    let g = text::parse(&format!("planish-ir 1\n{body}"))?;
    planish_ir::verify::check(&g)?;
    let want = interp::run(&g, inputs.to_vec())?.values;
    let targets = [
        TargetSpec::generic128(),
        TargetSpec::x86_64_v3(),
        TargetSpec::x86_64_v4(),
        TargetSpec::x86_64_v4_vnni(),
        TargetSpec::aarch64(),
    ];
    for target in targets {
        let options = LowerOptions { targets: vec![target.clone()], ..LowerOptions::default() };
        let module = lower(&g, &options).map_err(|mut d| d.swap_remove(0))?;
        let prefix = format!("k_{label}_");
        let found = module.plan.kernels.iter().any(|k| k.name.starts_with(&prefix));
        assert!(found, "no {prefix} among {:?}: {body}", module.plan.kernels);
        let name = target.name.clone();
        let engine = KernelInterpreter { target };
        let program = engine.prepare(&g, &PrepareOptions::default()).map_err(|mut d| d.swap_remove(0))?;
        let values: Vec<_> = inputs.iter().cloned().map(Some).collect();
        let got = program.session()?.run(&values)?.values;
        for (x, y) in got.iter().zip(&want) {
            let (x, y) = (x.tensor()?, y.tensor()?);
            assert_eq!((x.dtype(), x.shape()), (y.dtype(), y.shape()), "{name}: {body}");
            for (i, (x, y)) in x.to_f64().iter().zip(y.to_f64()).enumerate() {
                assert!((x - y).abs() <= 1e-6 * y.abs(), "{i}: {x} is not {y} for {name}: {body}");
            }
        }
    }
    Ok(())
}

struct Case {
    x: [usize; 4],
    w: [usize; 4],
    strides: &'static str,
    pads: &'static str,
    groups: usize,
    out: [usize; 2],
    label: &'static str,
}

const CASES: &[Case] = &[
    // In place: lines of positions, with tails of channels, positions and blocks.
    Case {
        x: [1, 8, 1, 1],
        w: [8, 8, 1, 1],
        strides: "1, 1",
        pads: "0, 0, 0, 0",
        groups: 1,
        out: [1, 1],
        label: "conv1x1_integer",
    },
    Case {
        x: [2, 17, 5, 7],
        w: [40, 17, 1, 1],
        strides: "1, 1",
        pads: "0, 0, 0, 0",
        groups: 1,
        out: [5, 7],
        label: "conv1x1_integer",
    },
    Case {
        x: [1, 32, 3, 6],
        w: [80, 32, 1, 1],
        strides: "1, 1",
        pads: "0, 0, 0, 0",
        groups: 1,
        out: [3, 6],
        label: "conv1x1_integer",
    },
    Case {
        x: [0, 16, 3, 3],
        w: [16, 16, 1, 1],
        strides: "1, 1",
        pads: "0, 0, 0, 0",
        groups: 1,
        out: [3, 3],
        label: "conv1x1_integer",
    },
    // Few channels, which are put together.
    Case {
        x: [1, 3, 13, 11],
        w: [24, 3, 7, 7],
        strides: "2, 2",
        pads: "3, 3, 3, 3",
        groups: 1,
        out: [7, 6],
        label: "conv_integer",
    },
    Case {
        x: [2, 1, 5, 34],
        w: [8, 1, 3, 5],
        strides: "1, 1",
        pads: "1, 0, 1, 3",
        groups: 1,
        out: [5, 33],
        label: "conv_integer",
    },
    Case {
        x: [1, 5, 4, 6],
        w: [16, 5, 2, 2],
        strides: "1, 1",
        pads: "0, 0, 0, 0",
        groups: 1,
        out: [3, 5],
        label: "conv_integer",
    },
    // Windows: strides, edges, groups.
    Case {
        x: [1, 20, 7, 9],
        w: [16, 20, 1, 1],
        strides: "2, 2",
        pads: "0, 0, 0, 0",
        groups: 1,
        out: [4, 5],
        label: "conv_integer",
    },
    Case {
        x: [1, 10, 9, 8],
        w: [18, 10, 3, 3],
        strides: "2, 2",
        pads: "1, 1, 1, 1",
        groups: 1,
        out: [5, 4],
        label: "conv_integer",
    },
    Case {
        x: [1, 16, 6, 15],
        w: [32, 16, 3, 3],
        strides: "1, 1",
        pads: "1, 1, 1, 1",
        groups: 1,
        out: [6, 15],
        label: "conv_integer",
    },
    Case {
        x: [1, 32, 5, 6],
        w: [32, 16, 3, 2],
        strides: "1, 1",
        pads: "1, 0, 1, 1",
        groups: 2,
        out: [5, 6],
        label: "conv_integer",
    },
    Case {
        x: [1, 16, 20, 1],
        w: [20, 16, 5, 1],
        strides: "2, 1",
        pads: "1, 0, 1, 0",
        groups: 1,
        out: [9, 1],
        label: "conv_integer",
    },
    // One channel a group.
    Case {
        x: [1, 20, 6, 9],
        w: [20, 1, 3, 3],
        strides: "1, 1",
        pads: "1, 1, 1, 1",
        groups: 20,
        out: [6, 9],
        label: "depthwise_integer",
    },
    Case {
        x: [2, 16, 7, 8],
        w: [16, 1, 5, 3],
        strides: "2, 1",
        pads: "2, 1, 2, 1",
        groups: 16,
        out: [4, 8],
        label: "depthwise_integer",
    },
];

fn dims(d: &[usize]) -> String {
    d.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn op(c: &Case) -> String {
    format!(
        "conv-integer{{strides=[{}], dilations=[1, 1], pads=[{}], auto_pad=explicit, groups={}}}",
        c.strides, c.pads, c.groups
    )
}

fn node(c: &Case, zero: &str) -> String {
    let y = dims(&[c.x[0], c.w[0], c.out[0], c.out[1]]);
    format!("v1 = const {}  v3 = {} v0, v1, {zero} : i32[{y}]", weights(&c.w), op(c))
}

#[test]
fn sums_are_those_of_the_interpreter() -> Result<(), Diag> {
    for (i, c) in CASES.iter().enumerate() {
        let (d, name) = if i % 2 == 0 { (DType::U8, "u8") } else { (DType::I8, "i8") };
        let inputs = [given(d, &c.x, 5)?, given(d, &[], 3 + i as u64)?];
        let body = format!(
            "graph @\"g\"(v0: {name}[{}], v2: {name}[]) {{ {} return v3 }}",
            dims(&c.x),
            node(c, "v2")
        );
        equal(&body, &inputs, c.label)?;
        let body = format!("graph @\"g\"(v0: {name}[{}]) {{ {} return v3 }}", dims(&c.x), node(c, "_"));
        equal(&body, &inputs[..1], c.label)?;
    }
    Ok(())
}

#[test]
fn what_follows_stays_in_bytes() -> Result<(), Diag> {
    for c in CASES {
        let (m, n) = (c.w[0], c.x[0]);
        let y = dims(&[n, m, c.out[0], c.out[1]]);
        let per: Vec<String> = (0..m).map(|i| format!("{:?}", 0.0001 * (i % 5 + 1) as f64)).collect();
        let body = format!(
            "graph @\"g\"(v0: u8[{x}], v2: u8[{y}]) {{
             v1 = const {w}
             v3 = const u8[] [117]  v4 = const f32[] [1.0]  v5 = const f32[] [0.03]  v6 = const u8[] [9]
             v7 = const f32[{m},1,1] [{scales}]
             v8 = fused v0, v1, v3, v2, v4, v5, v6, v7 (v10: u8[{x}], v11: i8[{k}], v12: u8[], v13: u8[{y}], v14: f32[], v15: f32[], v16: u8[], v17: f32[{m},1,1]) {{
               v20 = {op} v10, v11, v12 : i32[{y}]
               v21 = cast{{to=f32, saturate=true}} v20 : f32[{y}]
               v22 = binary{{kind=mul}} v21, v17 : f32[{y}]
               v23 = dequantize{{axis=1, block=0, to=f32}} v13, v15, v16 : f32[{y}]
               v24 = binary{{kind=add}} v22, v23 : f32[{y}]
               v25 = quantize{{axis=1, block=0, to=u8, saturate=true, precision=f32}} v24, v14, v16 : u8[{y}]
               yield v25
             }} : u8[{y}]
             v9 = pool{{kind=max, kernel=[1, 1], strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, ceil_mode=false, count_include_pad=false, p=2, indices=none}} v8 : u8[{y}]
             return v9 }}",
            x = dims(&c.x),
            k = dims(&c.w),
            w = weights(&c.w),
            scales = per.join(", "),
            op = op(c),
        );
        let inputs = [given(DType::U8, &c.x, 5)?, given(DType::U8, &[n, m, c.out[0], c.out[1]], 6)?];
        equal(&body, &inputs, c.label)?;
    }
    Ok(())
}

/// Weights that are not known, or do not fit signed bytes without their zero points, are multiplied in i32.
#[test]
fn other_weights_follow_the_interpreter() -> Result<(), Diag> {
    let op = "conv-integer{strides=[1, 1], dilations=[1, 1], pads=[1, 1, 1, 1], auto_pad=explicit, groups=1}";
    let body = format!(
        "graph @\"g\"(v0: u8[1,3,4,5], v1: i8[4,3,3,3], v2: u8[], v3: i8[4]) {{ v4 = {op} v0, v1, v2, v3 : i32[1,4,4,5] return v4 }}"
    );
    let inputs = [
        given(DType::U8, &[1, 3, 4, 5], 1)?,
        given(DType::I8, &[4, 3, 3, 3], 2)?,
        given(DType::U8, &[], 3)?,
        given(DType::I8, &[4], 4)?,
    ];
    crate::lower::tests::same(&body, inputs.to_vec(), 0.0)?;
    let body = format!(
        "graph @\"g\"(v0: u8[1,3,4,5]) {{ v1 = const {}  v2 = const u8[1] [7]  v3 = const i8[1] [100]  v4 = {op} v0, v1, v2, v3 : i32[1,8,4,5] return v4 }}",
        weights(&[8, 3, 3, 3])
    );
    crate::lower::tests::same(&body, inputs[..1].to_vec(), 0.0)
}
