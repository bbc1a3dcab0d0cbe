//! Arithmetic and memory that a graph needs, counted from its types.

use planish_ir::tensor::MAX_ELEMS;
use planish_ir::{Diag, Graph, TensorType, Type, ValueId};

pub use planish_passes::flops::flops;

/// Bytes of a value in memory, if its dims are known numbers.
pub fn value_bytes(graph: &Graph, v: ValueId) -> Option<u64> {
    let Type::Tensor(t) = graph.ty(v) else { return None };
    tensor_bytes(t)
}

fn tensor_bytes(t: &TensorType) -> Option<u64> {
    let dims = t.fixed_dims()?;
    dims.iter().try_fold(t.dtype.size() as u64, |n, d| n.checked_mul(*d as u64))
}

/// The most bytes that one tensor may take.
pub const MAX_TENSOR_BYTES: u64 = 64 << 30;

/// Findings about tensors that no machine can hold: more elements than 2^40, or more bytes than `limit`.
pub fn too_large(graph: &Graph, limit: u64) -> Vec<Diag> {
    let mut found = Vec::new();
    for n in graph.all_nodes() {
        let node = graph.node(n);
        for v in &node.outputs {
            let Type::Tensor(t) = graph.ty(*v) else { continue };
            let Some(dims) = t.fixed_dims() else { continue };
            if dims.contains(&0) {
                continue;
            }
            let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMS);
            let bytes = count.and_then(|_| tensor_bytes(t));
            if bytes.is_none_or(|b| b > limit.min(MAX_TENSOR_BYTES)) {
                let text = format!(
                    "a result of type {} is larger than the limit",
                    graph.ty(*v).display(&graph.symbols)
                );
                found.push(Diag::error("limit-memory", text).at(node.loc.clone()));
            }
        }
    }
    found
}

/// The shortest time of one inference that the arithmetic alone allows on this machine, as a note, where all shapes are
/// known. Nominal: every core does two fused multiply-adds on full vectors in each cycle.
pub fn floor(graph: &Graph) -> Option<Diag> {
    let mut flops = 0f64;
    for n in graph.all_nodes() {
        flops += self::flops(graph, n)?.as_const()? as f64;
    }
    let target = planish_codegen::kernel::TargetSpec::host()?;
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let mhz =
        info.lines().filter_map(|l| l.strip_prefix("cpu MHz")?.split_once(':')?.1.trim().parse::<f64>().ok());
    let hz = mhz.fold(0f64, f64::max) * 1e6;
    let per_core = hz * f64::from(target.lanes_f32) * 4.0;
    if per_core <= 0.0 {
        return None;
    }
    let cores = crate::engine::default_threads();
    let text = format!(
        "at least {:.4} ms on one core and {:.4} ms on {cores}: {:.3} GFLOP at a nominal {:.0} GFLOP/s a core ({})",
        flops / per_core * 1e3,
        flops / per_core / cores as f64 * 1e3,
        flops / 1e9,
        per_core / 1e9,
        target.name
    );
    Some(Diag::new(planish_ir::Severity::Note, "latency-floor", text))
}
