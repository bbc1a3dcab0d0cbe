//! Gates against the graph interpreter: results and counters.

use super::tests::{ramp, same};
use planish_ir::{DType, Diag, Tensor, Value};

fn flags(v: &[bool]) -> Result<Value, Diag> {
    Ok(Tensor::ints(DType::Bool, &[v.len()], v.iter().map(|x| i128::from(*x)).collect())?.into())
}

/// Every third flag, and all or none.
fn masks(n: usize) -> Vec<Vec<bool>> {
    vec![(0..n).map(|i| i % 3 == 1).collect(), vec![true; n], vec![false; n]]
}

const FALLBACKS: [&str; 3] = ["zero", "identity", "region"];

/// The second region of a gate.
fn second(fallback: &str, param: &str, ty: &str, rest: &str) -> String {
    match fallback {
        "region" => format!(
            "({param}{ty}{rest}) {{\n v90 = unary{{kind=abs}} {} : {ty}\n yield v90 }}",
            &param[..param.len() - 2]
        ),
        _ => "() {\n yield }".into(),
    }
}

#[test]
fn a_whole_gate_is_a_branch() -> Result<(), Diag> {
    for fallback in FALLBACKS {
        let other = second(fallback, "v8: ", "f32[N,3]", ", v9: f32[3]");
        let body = format!(
            "graph @\"g\"(v0: bool[], v1: f32[N,3], v2: f32[3]) {{
              v3 = gate{{granularity=whole, axis=0, block=0, k=0, fallback={fallback}}} v0, v1, v2 (v4: f32[N,3], v5: f32[3]) {{
                v6 = binary{{kind=add}} v4, v5 : f32[N,3]
                v7 = unary{{kind=exp}} v6 : f32[N,3]
                yield v7
              }} {other} : f32[N,3]
              v20 = unary{{kind=neg}} v3 : f32[N,3]
              return v20, v3
            }}"
        );
        for open in [0, 1] {
            for n in [0, 1, 5] {
                let gate = Tensor::ints(DType::Bool, &[], vec![open])?;
                same(&body, vec![gate.into(), ramp(&[n, 3])?, ramp(&[3])?], 1e-5)?;
            }
        }
    }
    Ok(())
}

#[test]
fn rows_and_blocks_are_compacted() -> Result<(), Diag> {
    for (granularity, size) in [("rows", 1), ("blocks", 1), ("blocks", 3)] {
        for fallback in FALLBACKS {
            for (axis, ty, shape) in
                [(0, "f32[R,4]", "N,4"), (1, "f32[2,R]", "2,N"), (1, "f32[2,R,3]", "2,N,3")]
            {
                let gates = if size == 1 { "N".into() } else { "G".to_owned() };
                // The second region may have another number of rows, but the symbol of the first.
                let other = second(fallback, "v8: ", ty, ", v9: f32[]");
                let body = format!(
                    "sym R 0.. data
                    graph @\"g\"(v0: bool[{gates}], v1: f32[{shape}], v2: f32[]) {{
                      v3 = gate{{granularity={granularity}, axis={axis}, block={size}, k=0, fallback={fallback}}} v0, v1, v2 (v4: {ty}, v5: f32[]) {{
                        v6 = binary{{kind=mul}} v4, v5 : {ty}
                        v7 = unary{{kind=tanh}} v6 : {ty}
                        yield v7
                      }} {other} : f32[{shape}]
                      return v3
                    }}"
                );
                for n in [0usize, 1, 7, 19] {
                    let dims: Vec<usize> =
                        shape.split(',').map(|d| if d == "N" { n } else { d.parse().unwrap_or(0) }).collect();
                    for mask in masks(n.div_ceil(size)) {
                        let scale = Tensor::f32s(&[], &[0.7])?;
                        same(&body, vec![flags(&mask)?, ramp(&dims)?, scale.into()], 1e-5)?;
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn gates_nest_in_loops_and_branches() -> Result<(), Diag> {
    let body = "sym R 0.. data
    sym S 0.. data
    graph @\"g\"(v0: bool[N], v1: f32[N,2], v2: i64[], v30: bool[]) {
      v3 = loop{carried=1, scans=0, conditional=false} v2, _, v1, v0, v30 (v4: i64[], v5: f32[N,2], v6: bool[N], v31: bool[]) {
        v7 = gate{granularity=rows, axis=0, block=0, k=0, fallback=identity} v6, v5, v31 (v8: f32[R,2], v32: bool[]) {
          v9 = gate{granularity=whole, axis=0, block=0, k=0, fallback=identity} v32, v8 (v10: f32[R,2]) {
            v11 = unary{kind=tanh} v10 : f32[R,2]
            yield v11
          } () {
            yield
          } : f32[R,2]
          v12 = binary{kind=add} v9, v8 : f32[R,2]
          yield v12
        } () {
          yield
        } : f32[N,2]
        yield v7
      } : f32[N,2]
      return v3
    }";
    for open in [0, 1] {
        for mask in masks(5) {
            let whole = Tensor::ints(DType::Bool, &[], vec![open])?;
            let trips = Tensor::scalar_i64(3);
            same(body, vec![flags(&mask)?, ramp(&[5, 2])?, trips.into(), whole.into()], 1e-5)?;
        }
    }
    Ok(())
}

fn routed(d: &str, k: usize, experts: usize) -> String {
    format!(
        "sym R 0.. data
        graph @\"g\"(v0: f32[N,{experts}], v1: {d}[N,5], v2: {d}[3]) {{
          v3 = gate{{granularity=routed, axis=0, block=0, k={k}, fallback=zero}} v0, v1, v2 (v4: i64[], v5: {d}[R,5], v6: {d}[3]) {{
            v7 = cast{{to={d}, saturate=true}} v4 : {d}[]
            v8 = binary{{kind=mul}} v5, v7 : {d}[R,5]
            v9 = const i64[1] [-1]
            v10 = reduce{{kind=sum, axes=[1], keepdims=true, noop_empty=false}} v8 : {d}[R,1]
            v11 = binary{{kind=add}} v10, v6 : {d}[R,3]
            yield v11
          }} () {{
            yield
          }} : {d}[N,3]
          return v3
        }}"
    )
}

#[test]
fn rows_go_to_the_heaviest_experts() -> Result<(), Diag> {
    for (k, experts) in [(1, 1), (1, 4), (2, 4), (3, 2), (4, 9)] {
        for n in [0usize, 1, 2, 13] {
            // Some weights are equal.
            let w: Vec<f32> = (0..n * experts).map(|i| ((i * 7919) % 11) as f32 / 8.0 - 0.5).collect();
            let w = Tensor::f32s(&[n, experts], &w)?;
            same(&routed("f32", k, experts), vec![w.into(), ramp(&[n, 5])?, ramp(&[3])?], 1e-5)?;
        }
    }
    Ok(())
}

#[test]
fn experts_in_half_precision_are_rounded_once() -> Result<(), Diag> {
    let to_half = |v: Value| -> Result<Value, Diag> {
        let t = v.tensor()?.clone();
        Ok(Tensor::floats(DType::F16, t.shape(), t.to_f64())?.into())
    };
    let w: Vec<f32> = (0..12).map(|i| (i % 5) as f32 * 0.25).collect();
    let w = Tensor::f32s(&[4, 3], &w)?;
    same(&routed("f16", 2, 3), vec![w.into(), to_half(ramp(&[4, 5])?)?, to_half(ramp(&[3])?)?], 4e-3)
}

/// Weights that are chosen by the number of the expert are packed for each of them, and bias is a view.
#[test]
fn experts_read_their_part_of_stacked_weights() -> Result<(), Diag> {
    for (trans, hidden) in [(false, 16usize), (true, 16), (false, 50), (false, 1)] {
        let (k, experts) = (7usize, 4usize);
        let dims = if trans { format!("{hidden},{k}") } else { format!("{k},{hidden}") };
        let values = |n: usize, f: f64| -> String {
            let v: Vec<String> =
                (0..n).map(|i| format!("{:?}", ((i as f64 * f).sin() * 64.0).round() / 64.0)).collect();
            v.join(", ")
        };
        let body = format!(
            "sym R 0.. data
            graph @\"g\"(v0: f32[N,{experts}], v1: f32[N,{k}]) {{
              v2 = gate{{granularity=routed, axis=0, block=0, k=2, fallback=zero}} v0, v1 (v4: i64[], v5: f32[R,{k}]) {{
                v6 = const f32[{experts},{dims}] [{}]
                v7 = gather{{axis=0}} v6, v4 : f32[{dims}]
                v8 = matmul{{trans_a=false, trans_b={trans}}} v5, v7 : f32[R,{hidden}]
                v9 = const f32[{experts},{hidden}] [{}]
                v10 = gather{{axis=0}} v9, v4 : f32[{hidden}]
                v11 = binary{{kind=add}} v8, v10 : f32[R,{hidden}]
                yield v11
              }} () {{
                yield
              }} : f32[N,{hidden}]
              return v2
            }}",
            values(experts * k * hidden, 0.7),
            values(experts * hidden, 1.3),
        );
        for n in [0usize, 1, 6, 40] {
            let w: Vec<f32> = (0..n * experts).map(|i| ((i * 31) % 17) as f32 / 16.0).collect();
            let w = Tensor::f32s(&[n, experts], &w)?;
            same(&body, vec![w.into(), ramp(&[n, k])?], 1e-4)?;
        }
    }
    Ok(())
}
