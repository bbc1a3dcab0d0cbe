//! Recurrent layers whose weights are mostly blocks of zeros: every engine on every instruction set of this machine skips these, and gives
//! what the interpreter gives.

use planish_ir::{Diag, Engine, Graph, PrepareOptions, Tensor, Value, interp, text};
use planish_testsuite::native::{Maker, Native, targets};
use planish_testsuite::rng::Rng;

/// Random layers an engine runs on each instruction set.
const LAYERS: u64 = 12;

struct Layer {
    cell: &'static str,
    direction: &'static str,
    linear: bool,
    steps: usize,
    batch: usize,
    inputs: usize,
    units: usize,
    /// Whether the batch is known.
    known: bool,
    /// Inputs and units of a block.
    block: [usize; 2],
}

impl Layer {
    fn new(rng: &mut Rng) -> Layer {
        Layer {
            cell: rng.choose(&["rnn", "gru", "gru", "lstm"]),
            direction: rng.choose(&["forward", "reverse", "both"]),
            linear: rng.one_in(2),
            steps: rng.below(5),
            batch: rng.choose(&[0, 1, 1, 2, 3, 7]),
            inputs: 1 + rng.below(20),
            units: rng.choose(&[1, 7, 8, 15, 16, 17, 24, 31, 32, 33, 48, 65]),
            known: rng.one_in(2),
            block: rng.choose(&[[1, 16], [4, 16], [1, 8], [2, 32]]),
        }
    }

    /// `[directions][gates * units][inputs]` with nine of ten blocks of each gate zero.
    fn weights(&self, rng: &mut Rng, gates: usize, inputs: usize) -> String {
        let [height, width] = self.block;
        let mut bytes = String::new();
        for _ in 0..gates {
            let across = inputs.div_ceil(height);
            let kept: Vec<bool> = (0..across * self.units.div_ceil(width)).map(|_| rng.one_in(10)).collect();
            for unit in 0..self.units {
                for k in 0..inputs {
                    let kept = kept[unit / width * across + k / height];
                    let value = if kept { rng.range(-999, 999) as f32 / 1000.0 } else { 0.0 };
                    bytes.extend(value.to_le_bytes().map(|b| format!("{b:02x}")));
                }
            }
        }
        let dirs = self.dirs();
        format!("f32[{dirs},{},{inputs}] 0x{bytes}", gates / dirs * self.units)
    }

    fn dirs(&self) -> usize {
        if self.direction == "both" { 2 } else { 1 }
    }

    fn graph(&self, rng: &mut Rng) -> Result<Graph, Diag> {
        let Layer { cell, direction, linear, steps, inputs, units, .. } = self;
        let (gates, acts) = match *cell {
            "lstm" => (4, vec!["sigmoid", "tanh", "tanh"]),
            "gru" => (3, vec!["sigmoid", "tanh"]),
            _ => (1, vec!["tanh"]),
        };
        let dirs = self.dirs();
        let acts = acts.repeat(dirs);
        let none = vec!["0.0"; acts.len()].join(", ");
        let batch = if self.known { self.batch.to_string() } else { "B".to_owned() };
        let symbol = if self.known { "" } else { "sym B 0..\n" };
        let (w, r) = (self.weights(rng, gates * dirs, *inputs), self.weights(rng, gates * dirs, *units));
        let bias: String = (0..2 * gates * dirs * units)
            .flat_map(|i| (i as f32 * 0.01).to_le_bytes())
            .map(|b| format!("{b:02x}"))
            .collect();
        let last = format!("f32[{dirs},{batch},{units}]");
        let (names, types) = match *cell {
            "lstm" => ("v4, v5, v6", format!("{last}, {last}")),
            _ => ("v4, v5", last),
        };
        text::parse(&format!(
            "planish-ir 1\n{symbol}graph @\"main\"(v0 \"x\": f32[{steps},{batch},{inputs}]) {{\n  v1 = const {w}\n  v2 = const {r}\n  \
             v3 = const f32[{dirs},{}] 0x{bias}\n  {names} = recurrent{{cell={cell}, direction={direction}, activations=[{}], \
             alpha=[{none}], beta=[{none}], clip=none, linear_before_reset={}, input_forget=false}} v0, v1, v2, v3 : \
             f32[{steps},{dirs},{batch},{units}], {types} @\"layer\"\n  return v4 \"y\", v5 \"last\"\n}}\n",
            2 * gates * units,
            acts.join(", "),
            *linear && *cell == "gru",
        ))
    }

    fn input(&self, rng: &mut Rng) -> Result<Value, Diag> {
        let shape = [self.steps, self.batch, self.inputs];
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| rng.range(-2000, 2000) as f32 / 1000.0).collect();
        Ok(Tensor::f32s(&shape, &values)?.into())
    }
}

fn every_target_agrees(maker: Maker) -> Result<(), Diag> {
    let first = |mut all: Vec<Diag>| all.swap_remove(0);
    for target in targets() {
        let mut rng = Rng::new(77);
        let mut skipped = 0;
        for _ in 0..LAYERS {
            let layer = Layer::new(&mut rng);
            let graph = layer.graph(&mut rng)?;
            let x = layer.input(&mut rng)?;
            let want = interp::run(&graph, vec![x.clone()])?;
            let engine = Native::new(maker, target.clone());
            let module = engine.lowered(&graph).map_err(first)?;
            skipped += module.plan.kernels.iter().filter(|k| k.name.contains("_sparse_")).count();
            let mut session = engine.prepare(&graph, &PrepareOptions::default()).map_err(first)?.session()?;
            let got = session.run(&[Some(x)])?;
            for (got, want) in got.values.iter().zip(&want.values) {
                let (got, want) = (got.tensor()?, want.tensor()?);
                assert_eq!(got.shape(), want.shape());
                for (g, w) in got.to_f64().iter().zip(want.to_f64()) {
                    assert!(
                        (g - w).abs() <= 1e-4,
                        "{g} is not {w}, {}: {}",
                        engine.name(),
                        text::print(&graph)
                    );
                }
            }
        }
        assert!(skipped > LAYERS as usize / 2, "{skipped} kernels that skip");
    }
    Ok(())
}

#[test]
fn cranelift_skips_zeros() -> Result<(), Diag> {
    every_target_agrees(Maker::Cranelift)
}

#[cfg(feature = "llvm")]
#[test]
fn llvm_skips_zeros() -> Result<(), Diag> {
    every_target_agrees(Maker::Llvm)
}
