//! Control flow, quantised operations, containers and trees against the graph interpreter.

use super::tests::{ramp, same, same_on_cpu};
use planish_ir::{DType, Diag, Tensor, Value};

fn ints(d: DType, shape: &[usize], f: impl Fn(i64) -> i64) -> Result<Value, Diag> {
    let n = shape.iter().product::<usize>() as i64;
    Ok(Tensor::ints(d, shape, (0..n).map(|i| f(i).into()).collect())?.into())
}

fn flag(v: bool) -> Result<Value, Diag> {
    ints(DType::Bool, &[], |_| v.into())
}

#[test]
fn branches_run_in_the_plan() -> Result<(), Diag> {
    let body = "graph @\"g\"(v0: bool[], v1: f32[N,3], v2: f32[3]) {
      v3 = unary{kind=neg} v1 : f32[N,3]
      v4 = if v0, v3, v2 (v5: f32[N,3], v6: f32[3]) {
        v7 = binary{kind=add} v5, v6 : f32[N,3]
        v8 = unary{kind=exp} v7 : f32[N,3]
        yield v8
      } (v9: f32[N,3], v10: f32[3]) {
        yield v9
      } : f32[N,3]
      v11 = binary{kind=mul} v4, v3 : f32[N,3]
      return v4, v11
    }";
    for c in [true, false] {
        for n in [0, 1, 5] {
            same(body, vec![flag(c)?, ramp(&[n, 3])?, ramp(&[3])?], 1e-5)?;
        }
    }
    Ok(())
}

#[test]
fn branches_may_give_other_shapes() -> Result<(), Diag> {
    let body = "sym S 0.. data
    graph @\"g\"(v0: bool[], v1: f32[N], v2: f32[M]) {
      v3 = if v0, v1, v2 (v4: f32[N], v5: f32[M]) {
        yield v4
      } (v6: f32[N], v7: f32[M]) {
        v8 = unary{kind=neg} v7 : f32[M]
        yield v8
      } : f32[S]
      v9 = unary{kind=abs} v3 : f32[S]
      return v9
    }";
    for c in [true, false] {
        same(body, vec![flag(c)?, ramp(&[3])?, ramp(&[7])?], 0.0)?;
    }
    Ok(())
}

#[test]
fn loops_carry_stack_and_stop() -> Result<(), Diag> {
    let body = "sym T 0.. data
    graph @\"g\"(v0: i64[], v1: f32[N], v2: f32[N]) {
      v3, v4, v5 = loop{carried=2, scans=1, conditional=false} v0, _, v1, v2, v2 (v6: i64[], v7: f32[N], v8: f32[N], v9: f32[N]) {
        v10 = binary{kind=add} v7, v9 : f32[N]
        v11 = cast{to=f32, saturate=true} v6 : f32[]
        v12 = binary{kind=mul} v10, v11 : f32[N]
        yield v8, v10, v12
      } : f32[N], f32[N], f32[T,N]
      v13 = unary{kind=neg} v5 : f32[T,N]
      return v3, v4, v13
    }";
    for (trip, n) in [(0, 3), (1, 3), (5, 3), (4, 0)] {
        same(body, vec![Tensor::scalar_i64(trip).into(), ramp(&[n])?, ramp(&[n])?], 1e-5)?;
    }
    let body = "graph @\"g\"(v0: f32[]) {
      v1 = loop{carried=1, scans=0, conditional=true} _, _, v0 (v2: i64[], v3: f32[]) {
        v4 = binary{kind=add} v3, v3 : f32[]
        v5 = const f32[] [100.0]
        v6 = binary{kind=less} v4, v5 : bool[]
        yield v6, v4
      } : f32[]
      return v1
    }";
    same(body, vec![Tensor::f32s(&[], &[3.0])?.into()], 0.0)
}

#[test]
fn nested_regions_keep_what_they_capture() -> Result<(), Diag> {
    let body = "graph @\"g\"(v0: bool[], v1: f32[4]) {
      v20 = unary{kind=exp} v1 : f32[4]
      v2 = const i64[] [3]
      v3 = loop{carried=1, scans=0, conditional=false} v2, _, v1, v0, v20 (v4: i64[], v5: f32[4], v6: bool[], v21: f32[4]) {
        v22 = binary{kind=mul} v21, v5 : f32[4]
        v7 = if v6, v5, v22, v21 (v8: f32[4], v9: f32[4], v10: f32[4]) {
          v11 = binary{kind=add} v8, v9 : f32[4]
          yield v11
        } (v12: f32[4], v13: f32[4], v14: f32[4]) {
          v15 = binary{kind=sub} v12, v14 : f32[4]
          yield v15
        } : f32[4]
        yield v7
      } : f32[4]
      v16 = binary{kind=add} v3, v20 : f32[4]
      return v16
    }";
    for c in [true, false] {
        same(body, vec![flag(c)?, ramp(&[4])?], 1e-4)?;
    }
    Ok(())
}

#[test]
fn quantised_numbers_round_as_the_interpreter_does() -> Result<(), Diag> {
    for (to, zero) in [("u8", 128), ("i8", -3), ("i4", 1), ("u2", 2), ("i16", 1000), ("u16", 0)] {
        for (axis, block, scales) in [(0, 0, "1"), (1, 0, "6"), (1, 2, "2,3,5"), (2, 5, "2,6,1")] {
            let z = format!("{to}[{scales}]");
            let q = format!("axis={axis}, block={block}");
            let body = format!(
                "graph @\"g\"(v0: f32[2,6,5], v1: f32[{scales}], v2: {z}) {{
                 v3 = quantize{{{q}, to={to}, saturate=true, precision=f32}} v0, v1, v2 : {to}[2,6,5]
                 v4 = dequantize{{{q}, to=f16}} v3, v1, v2 : f16[2,6,5]
                 return v3, v4 }}"
            );
            let shape: Vec<usize> = scales.split(',').filter_map(|s| s.parse().ok()).collect();
            let n: usize = shape.iter().product();
            let s: Vec<f32> = (0..n).map(|i| 0.25 + i as f32 * 0.01).collect();
            let d = DType::parse(to).ok_or_else(|| Diag::error("type-mismatch", "dtype"))?;
            let inputs =
                vec![ramp(&[2, 6, 5])?, Tensor::f32s(&shape, &s)?.into(), ints(d, &shape, |_| zero)?];
            same(&body, inputs, 0.0)?;
        }
    }
    for (to, saturate) in [("f8e4m3fn", true), ("f8e4m3fn", false), ("f8e5m2", true), ("f4e2m1", true)] {
        let body = format!(
            "graph @\"g\"(v0: f32[9], v1: f32[]) {{
             v2 = quantize{{axis=0, block=0, to={to}, saturate={saturate}, precision=f32}} v0, v1 : {to}[9]
             v3 = dequantize{{axis=0, block=0, to=f32}} v2, v1 : f32[9]
             return v3 }}"
        );
        let x = Tensor::f32s(&[9], &[0.0, 1.0, -2.7, 1e3, -1e9, 5.5, f32::INFINITY, 0.01, 3.0])?;
        same(&body, vec![x.into(), Tensor::f32s(&[], &[0.5])?.into()], 0.0)?;
    }
    Ok(())
}

#[test]
fn integer_products_follow_the_interpreter() -> Result<(), Diag> {
    for (m, k, n) in [(1usize, 3usize, 5usize), (4, 16, 300), (7, 1, 1), (5, 0, 4), (0, 2, 2), (9, 20, 17)] {
        for (az, bz) in [("", ""), ("1", "1"), ("M,1", "N"), ("2,M,1", "1,N")] {
            let shape = |s: &str| -> Vec<usize> {
                s.split(',')
                    .filter(|s| !s.is_empty())
                    .map(|s| match s {
                        "M" => m,
                        "N" => n,
                        other => other.parse().unwrap_or(1),
                    })
                    .collect()
            };
            let mut inputs = vec![
                ints(DType::U8, &[2, m, k], |i| i * 37 % 256)?,
                ints(DType::I8, &[k, n], |i| i * 91 % 255 - 127)?,
            ];
            let (params, args) = if az.is_empty() {
                (String::new(), "")
            } else {
                inputs.push(ints(DType::U8, &shape(az), |i| 128 - i)?);
                inputs.push(ints(DType::I8, &shape(bz), |i| 3 - i % 7)?);
                (format!(", v2: u8[{az}], v3: i8[{bz}]"), ", v2, v3")
            };
            let body = format!(
                "graph @\"g\"(v0: u8[2,M,K], v1: i8[K,N]{params}) {{
                 v4 = matmul-integer v0, v1{args} : i32[2,M,N] return v4 }}"
            );
            same(&body, inputs, 0.0)?;
        }
    }
    Ok(())
}

#[test]
fn sequences_go_through_the_library() -> Result<(), Diag> {
    let body = "sym A 0.. data
    sym B 0.. data
    graph @\"g\"(v0: f32[2], v1: f32[3]) {
      v2 = sequence{item=f32} v0, v1 : seq<f32[A]>
      v3 = const i64[] [-1]
      v4 = sequence-insert v2, v0, v3 : seq<f32[A]>
      v5 = sequence-erase v4 : seq<f32[A]>
      v6 = sequence-at v5, v3 : f32[B]
      v7 = unary{kind=neg} v6 : f32[B]
      v8 = sequence-length v4 : i64[]
      v9 = optional{item=f32[..]} v0 : opt<f32[2]>
      v10 = optional-has v9 : bool[]
      v11 = optional-get v9 : f32[2]
      return v7, v8, v10, v11
    }";
    same_on_cpu(body, vec![ramp(&[2])?, ramp(&[3])?], 0.0)
}

#[test]
fn trees_are_walked_alike() -> Result<(), Diag> {
    for aggregate in ["sum", "average", "min", "max"] {
        let body = format!(
            "graph @\"g\"(v0: f32[N,2]) {{
             v1 = const i64[3] [0, 1, 0]
             v2 = const u8[3] [0, 3, 4]
             v3 = const f32[3] [1.0, 2.0, 0.0]
             v4 = const i64[3] [-1, -2, -4]
             v5 = const i64[3] [1, 2, -3]
             v6 = const u8[3] [1, 0, 1]
             v7 = const i64[3] [0, -1, 1]
             v8 = const i64[5] [0, 2, 3, 4, 4]
             v9 = const i64[4] [0, 1, 1, 0]
             v10 = const f32[4] [1.5, -10.0, 100.0, 1000.0]
             v11 = tree-ensemble{{targets=2, aggregate={aggregate}}} v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10 : f32[N,2]
             return v11 }}"
        );
        let x = Tensor::f32s(&[5, 2], &[1.0, 0.0, 2.0, 3.0, 2.0, 2.0, f32::NAN, 9.0, f32::NAN, 0.0])?;
        same(&body, vec![x.into()], 0.0)?;
    }
    Ok(())
}

fn strings(v: &[&str]) -> Result<Value, Diag> {
    Ok(Tensor::from_strings(vec![v.len()], v.iter().map(|s| s.to_string()).collect())?.into())
}

#[test]
fn strings_go_through_the_library() -> Result<(), Diag> {
    let body = "sym A 0.. data
    graph @\"g\"(v0: str[3], v1: str[3], v2: i64[2], v15: bool[]) {
      v3 = string-concat v0, v1 : str[3]
      v4 = binary{kind=equal} v0, v1 : bool[3]
      v5 = where v4, v0, v3 : str[3]
      v6, v7 = string-split{delimiter=\"a\", maxsplit=none} v5 : str[3,A], i64[3]
      v8 = where v4, v1, v0 : str[3]
      v9 = gather{axis=0} v8, v2 : str[2]
      v10 = label-encode v9, v0, v11, v12 : i64[2]
      v13 = tf-idf{mode=tf, min_gram=1, max_gram=1, max_skip=0, starts=[0], columns=[1, 0, 2], weights=[]} v5, v1 : f32[3]
      v14 = if v15, v9 (v16: str[2]) {
        v20 = const str[1] [\"x\"]
        v17 = binary{kind=equal} v16, v20 : bool[2]
        yield v17
      } (v18: str[2]) {
        v21 = const str[1] [\"x\"]
        v19 = binary{kind=equal} v18, v21 : bool[2]
        yield v19
      } : bool[2]
      return v4, v7, v10, v13, v14
    }";
    let body = body.replace(
        "v10 = label-encode",
        "v11 = const i64[3] [5, 6, 7]
      v12 = const i64[] [-1]
      v10 = label-encode",
    );
    for flagged in [true, false] {
        let inputs = vec![
            strings(&["x", "banana", "c"])?,
            strings(&["x", "a", "d"])?,
            ints(DType::I64, &[2], |i| 2 - 2 * i)?,
            flag(flagged)?,
        ];
        same_on_cpu(&body, inputs, 0.0)?;
    }
    Ok(())
}

#[test]
fn pieces_of_a_tensor_join_in_the_library() -> Result<(), Diag> {
    let body = "sym A 0.. data
    sym B 0.. data
    graph @\"g\"(v0: f32[2,5], v9: i64[2]) {
      v1 = const i64[] [2]
      v2 = split-sequence{axis=1, keepdims=true} v0, v1 : seq<f32[2,A]>
      v3 = concat-sequence{axis=-1, new_axis=false} v2 : f32[2,B]
      v4 = unary{kind=neg} v3 : f32[2,B]
      v6 = zip-map v0, v7 : seq<map<i64,f32[]>>
      v8 = sequence-at v6, v1 : map<i64,f32[]>
      v10 = dict-vectorize v8, v9 : f32[1,2]
      return v4, v10
    }";
    let body = body
        .replace("v6 = zip-map", "v7 = const i64[5] [1, 3, 5, 7, 9]\n      v6 = zip-map")
        .replace("v6, v1", "v6, v11");
    let body = body.replace("v8 = sequence-at", "v11 = const i64[] [1]\n      v8 = sequence-at");
    same_on_cpu(&body, vec![ramp(&[2, 5])?, ints(DType::I64, &[2], |i| 3 + i)?], 0.0)
}

#[test]
fn slices_of_vectors_by_loop_counters_stay_inside() -> Result<(), Diag> {
    let body = "sym S 0..5 data
    graph @\"g\"(v0: i64[], v1: f32[5], v2: f32[1]) {
      v3 = loop{carried=1, scans=0, conditional=false} v0, _, v2, v1 (v4: i64[], v5: f32[1], v6: f32[5]) {
        v7 = const i64[1] [0]
        v8 = const i64[1] [1]
        v9 = reshape{allow_zero=false} v4, v8 : i64[1]
        v10 = binary{kind=add} v9, v8 : i64[1]
        v11 = slice v6, v7, v10 : f32[S]
        v12 = reduce{kind=sum, axes=[0], keepdims=true, noop_empty=false} v11 : f32[1]
        v13 = binary{kind=add} v5, v12 : f32[1]
        yield v13
      } : f32[1]
      return v3
    }";
    same(body, vec![Tensor::scalar_i64(5).into(), ramp(&[5])?, ramp(&[1])?], 1e-5)
}

#[test]
fn strings_are_moved_like_numbers() -> Result<(), Diag> {
    let body = "sym N 0..
    sym A 0.. data
    graph @\"g\"(v0: str[N,2], v1: i64[2], v2: i64[2,1], v3: str[2,1]) {
      v4 = transpose{perm=[1, 0]} v0 : str[2,N]
      v5 = gather{axis=1} v4, v1 : str[2,2]
      v6 = scatter-elements{axis=1, reduction=none} v4, v2, v3 : str[2,N]
      v7 = const i64[2] [1, 0]
      v8 = const i64[2] [2, 2]
      v9 = slice v5, v7, v8 : str[1,2]
      v10 = const i64[2] [3, 1]
      v11 = tile v9, v10 : str[3,2]
      v12, v13 = split{axis=0, parts=2} v5 : str[1,2], str[1,2]
      v14, v15 = string-split{delimiter=\"a\", maxsplit=none} v12 : str[1,2,A], i64[1,2]
      v16 = transpose{perm=[2, 0, 1]} v14 : str[A,1,2]
      v17 = const bool[2] [0, 1]
      v18 = compress{axis=0} v0, v17 : str[1,2]
      return v6, v11, v13, v16, v18
    }";
    let table =
        Tensor::from_strings(vec![3, 2], ["a", "bab", "c", "d", "xaya", ""].map(String::from).to_vec())?;
    let new = Tensor::from_strings(vec![2, 1], vec!["p".into(), "q".into()])?;
    let inputs = vec![
        table.into(),
        ints(DType::I64, &[2], |i| -1 - i)?,
        ints(DType::I64, &[2, 1], |i| 2 * i)?,
        new.into(),
    ];
    same_on_cpu(body, inputs, 0.0)
}

#[test]
fn what_is_not_as_required_ends_the_run() -> Result<(), Diag> {
    let body = "graph @\"g\"(v0: bool[], v1: f32[2]) {
      v2 = require{expected=true, message=\"no\"} v0, v1 : f32[2]
      v3 = unary{kind=neg} v2 : f32[2]
      return v3
    }";
    let x = Tensor::f32s(&[2], &[1.0, 2.0])?;
    same(body, vec![flag(true)?, x.clone().into()], 0.0)?;
    let text = format!("planish-ir 1\n{body}");
    let graph = planish_ir::text::parse(&text)?;
    let engine = crate::engine::KernelInterpreter { target: crate::kernel::TargetSpec::generic128() };
    let program = planish_ir::Engine::prepare(&engine, &graph, &Default::default())
        .map_err(|mut d| d.swap_remove(0))?;
    let failed = program.session()?.run(&[Some(flag(false)?), Some(x.into())]);
    assert!(failed.is_err_and(|d| d.message.contains("no")), "the run goes on");
    Ok(())
}

#[test]
fn what_is_behind_a_barrier_is_the_same_memory() -> Result<(), Diag> {
    let body = "graph @\"g\"(v0: f32[N,3]) {
      v1 = barrier v0 : f32[N,3]
      v2 = unary{kind=exp} v1 : f32[N,3]
      v3 = unary{kind=exp} v0 : f32[N,3]
      v4 = barrier v3 : f32[N,3]
      v5 = binary{kind=mul} v4, v2 : f32[N,3]
      v6 = barrier v5 : f32[N,3]
      return v6, v1, v4
    }";
    for n in [0, 1, 5] {
        same(body, vec![ramp(&[n, 3])?], 1e-5)?;
    }
    // Blocked channels stay so.
    let body = "graph @\"g\"(v0: f32[1,3,6,6], v1: f32[20,3,3,3]) {
      v2 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1} v0, v1 : f32[1,20,4,4]
      v3 = barrier v2 : f32[1,20,4,4]
      v4 = unary{kind=relu} v3 : f32[1,20,4,4]
      v5 = binary{kind=add} v4, v2 : f32[1,20,4,4]
      return v5, v3
    }";
    same(body, vec![ramp(&[1, 3, 6, 6])?, ramp(&[20, 3, 3, 3])?], 1e-4)
}
