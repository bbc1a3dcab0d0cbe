//! Reports for tests.

use super::machine::Machine;
use super::{
    Accuracy, Budget, Check, Command, Evidence, Inputs, Kernel, Kind, Layer, Measured, Model, Paired, Pass,
    Remark, Report, Sizes,
};
use crate::bench::Latency;
use crate::bench::judge::{Clock, Outcome};
use std::collections::BTreeMap;

/// A program that takes `ms` in every turn.
pub(crate) fn measured(name: &str, ms: f64) -> Measured {
    let latency_ms = Latency { median: ms, p10: ms * 0.9, p90: ms * 1.2, p99: ms * 1.5, min: ms * 0.8 };
    Measured {
        schema: "planish.bench".into(),
        version: 1,
        name: name.into(),
        kind: Kind::Program,
        set: String::new(),
        threads: 1,
        precision: "f32".into(),
        runtime: None,
        cpu_ms: ms,
        first_ms: ms * 2.0,
        runs: 100,
        rounds: 8,
        throughput_per_s: 1000.0 / ms,
        cold_start_ms: Some(3.0),
        memory_bytes: Some(5_000_000),
        program_bytes: Some(700_000),
        turns_ms: (0..8).map(|i| ms * (1.0 + 0.001 * f64::from(i % 3))).collect(),
        turns_cpu_ms: vec![ms; 8],
        median_ms: ms,
        p10_ms: ms * 0.9,
        p90_ms: ms * 1.2,
        latency_ms,
        kernels: None,
        accounted_ms: None,
        unaccounted_ms: None,
        peaks: None,
    }
}

/// A model with a layer that was pruned and one that was not.
pub(crate) fn model(name: &str) -> Model {
    let remark = |message: &str| Remark {
        id: "sparse-declined".into(),
        severity: "remark".into(),
        message: message.into(),
    };
    let layer = |node: &str, weights: &str, remarks| Layer {
        node: node.into(),
        op: Some("matmul".into()),
        weights: Some(weights.into()),
        bytes: Some(4096),
        remarks,
    };
    Model {
        name: name.into(),
        path: format!("{name}.onnx"),
        hash: "sha256:00".into(),
        recipe: "version = 1\nlevel = 2\n".into(),
        recipe_hash: "sha256:11".into(),
        sizes: Sizes {
            model: Some(1_000_000),
            weights: Some(400_000),
            code: Some(50_000),
            artifact: Some(700_000),
        },
        files: Vec::new(),
        passes: vec![Pass {
            pass: "sparsify-blocks{block=1x16}".into(),
            edits: 1,
            ms: 2.5,
            metrics: BTreeMap::from([("weights-zeroed".to_owned(), 3840.0)]),
        }],
        lossy: vec!["sparsify-blocks{block=1x16}".into()],
        layers: vec![
            layer("/a/MatMul", "f32 64x64, blocks 1x16, 10.0% kept", Vec::new()),
            layer("/b/MatMul", "f32 64x16", vec![remark("/b/MatMul: 1.2 us sparse, 0.9 us dense")]),
        ],
        remarks: vec![remark("one thing about the whole")],
        check: Some(Check {
            verdict: "not-checked".into(),
            worst: None,
            detail: Some("lossy passes change results on purpose".into()),
        }),
        accuracy: Some(Accuracy {
            metric: "top1".into(),
            class: Evidence::Measured,
            before: 0.99,
            after: 0.985,
            samples: 1000,
            low: Some(0.98),
            high: Some(0.99),
        }),
        seconds: 1.5,
    }
}

/// A report with everything in it, the same on every machine.
pub(crate) fn report() -> Report {
    let mut fast = measured("new", 1.0);
    fast.kernels = Some(vec![Kernel {
        name: "k_matmul_0".into(),
        nodes: vec!["/a/MatMul".into()],
        us: 700.0,
        calls: 100,
        flops: Some(1e6),
        gflops: Some(1.43),
        bytes: 20_000.0,
        weight_bytes: 16_000.0,
        gbs: 0.03,
        limit: Some("compute".into()),
        percent_of_peak: Some(42.0),
    }]);
    (fast.accounted_ms, fast.unaccounted_ms) = (Some(0.7), Some(0.3));
    Report {
        schema: "planish.report".into(),
        version: 1,
        tool: "planish 0".into(),
        command: Command::Bench,
        machine: Machine {
            cpu: "A processor".into(),
            cores: 2,
            processors: 2,
            isa: "x86-64-v3".into(),
            revision: "1-2-3".into(),
            caches: vec!["L1 data 32K".into()],
            memory_bytes: Some(1 << 33),
            system: "Linux 6".into(),
            governor: None,
            virtual_machine: true,
            load: Some(0.5),
            fingerprint: "0123456789abcdef".into(),
        },
        inputs: Some(Inputs::Synthetic),
        models: vec![model("new")],
        results: vec![measured("old", 2.0), fast],
        pairs: vec![Paired {
            base: "old".into(),
            other: "new".into(),
            threads: 1,
            set: String::new(),
            ratio: 2.0,
            low: Some(1.98),
            high: Some(2.02),
            confidence: 0.95,
            detectable: Some(0.012),
            clock: Clock::Processor,
            turns: 24,
            remeasured: false,
            verdict: "faster".into(),
        }],
        budgets: vec![Budget {
            budget: "max-regression".into(),
            subject: "new against old (1 threads)".into(),
            limit: "3.0%".into(),
            found: "-50.0% (-50.5% to -49.5%)".into(),
            outcome: Outcome::Kept,
        }],
        exit: 0,
        median_ms: None,
        p10_ms: None,
        p90_ms: None,
    }
}
