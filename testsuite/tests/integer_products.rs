//! Products of stored integers on every instruction set that this machine has, against the interpreter, bit for bit:
//! all signs, zero points of every kind, sizes 0 and 1 and around the sizes of tiles, and the values at which
//! instructions that saturate would.

use planish_codegen::kernel::TargetSpec;
use planish_ir::{
    DType, Diag, Editor, Engine, Graph, Interpreter, PrepareOptions, Tensor, Value, text, verify,
};
use planish_testsuite::native::{Maker, Native, targets};
use planish_testsuite::rng::Rng;

/// A zero point of an operand.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Zero {
    None,
    One,
    /// One for each row of the first operand, or each column of the second.
    Each,
}

#[derive(Clone, Debug)]
struct Case {
    /// Leading axis of the first operand.
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
    types: [DType; 2],
    zeros: [Zero; 2],
    /// Whether the second operand and its zero point are constants.
    constant: bool,
    /// Whether the number of rows is known.
    known: bool,
    /// Whether a scale, a bias and a sum with a tensor follow.
    epilogue: bool,
    /// Only the least and the largest values.
    extreme: bool,
    seed: u64,
}

fn tensor(rng: &mut Rng, dtype: DType, shape: &[usize], extreme: bool) -> Result<Tensor, Diag> {
    let (low, high) = if dtype == DType::U8 { (0, 255) } else { (-128, 127) };
    let count = shape.iter().product();
    let value = |rng: &mut Rng| match (extreme, rng.one_in(8)) {
        (true, _) if rng.one_in(16) => low,
        (true, _) => high,
        (_, true) => rng.choose(&[low, high]),
        _ => rng.range(low, high),
    };
    // Runs of the largest value on one side meet runs of the least on the other.
    let flip = extreme && rng.one_in(2);
    let values = (0..count).map(|_| value(rng)).map(|v| i128::from(if flip { low + high - v } else { v }));
    Tensor::ints(dtype, shape, values.collect())
}

impl Case {
    /// The graph and its inputs.
    fn build(&self) -> Result<(Graph, Vec<Tensor>), Diag> {
        let mut rng = Rng::new(self.seed);
        let Case { batch, m, k, n, types: [ta, tb], .. } = *self;
        let rows = if self.known { m.to_string() } else { "M".to_owned() };
        let mut inputs = vec![tensor(&mut rng, ta, &[batch, m, k], self.extreme)?];
        inputs.push(tensor(&mut rng, tb, &[k, n], self.extreme)?);
        let mut params = format!("v0: {ta}[{batch},{rows},{k}], v1: {tb}[{k},{n}]");
        let mut operands = ["_".to_owned(), "_".to_owned()];
        for (i, z) in self.zeros.iter().enumerate() {
            let (shape, text) = match (z, i) {
                (Zero::None, _) => continue,
                (Zero::One, _) => (vec![], String::new()),
                (Zero::Each, 0) => (vec![m, 1], format!("{rows},1")),
                (Zero::Each, _) => (vec![n], n.to_string()),
            };
            operands[i] = format!("v{}", inputs.len());
            params += &format!(", v{}: {}[{text}]", inputs.len(), self.types[i]);
            inputs.push(tensor(&mut rng, self.types[i], &shape, self.extreme)?);
        }
        let next = inputs.len();
        let y = format!("{batch},{rows},{n}");
        let mut nodes =
            format!("v{} = matmul-integer v0, v1, {}, {} : i32[{y}]", next + 3, operands[0], operands[1]);
        let mut result = next + 3;
        if self.epilogue {
            // Powers of two, so that every step is exact or rounded once.
            inputs.push(Tensor::f32s(&[], &[0.25])?);
            inputs.push(Tensor::f32s(&[n], &(0..n).map(|i| i as f32 - 3.0).collect::<Vec<_>>())?);
            let size = batch * m * n;
            inputs
                .push(Tensor::f32s(&[batch, m, n], &(0..size).map(|i| i as f32 * 0.5).collect::<Vec<_>>())?);
            params += &format!(", v{next}: f32[], v{}: f32[{n}], v{}: f32[{y}]", next + 1, next + 2);
            let lines = [
                format!("cast{{to=f32, saturate=true}} v{}", next + 3),
                format!("binary{{kind=mul}} v{}, v{next}", next + 4),
                format!("binary{{kind=add}} v{}, v{}", next + 5, next + 1),
                format!("binary{{kind=add}} v{}, v{}", next + 2, next + 6),
                format!("unary{{kind=relu}} v{}", next + 7),
            ];
            for line in lines {
                result += 1;
                nodes += &format!(" v{result} = {line} : f32[{y}]");
            }
        }
        let symbol = if self.known { "" } else { "sym M 0..\n" };
        let source = format!("planish-ir 1\n{symbol}graph @\"g\"({params}) {{ {nodes} return v{result} }}");
        let mut g = text::parse(&source)?;
        if self.constant {
            let replaced = [
                Some(1),
                (self.zeros[1] != Zero::None).then(|| 2 + usize::from(self.zeros[0] != Zero::None)),
            ];
            for i in replaced.into_iter().flatten() {
                let v = g.inputs()[i];
                let first = g.all_nodes()[0];
                let mut ed = Editor::new(&mut g);
                ed.before(first);
                let c = ed.constant(inputs[i].clone())?;
                ed.replace(v, c);
            }
        }
        verify::check(&g)?;
        Ok((g, inputs))
    }

    fn run(&self, engine: &dyn Engine) -> Result<Vec<Value>, Diag> {
        let (g, inputs) = self.build()?;
        let inputs: Vec<Option<Value>> = inputs.into_iter().map(|t| Some(t.into())).collect();
        let options = PrepareOptions { threads: 2, ..PrepareOptions::default() };
        let program = engine.prepare(&g, &options).map_err(|mut d| d.swap_remove(0))?;
        Ok(program.session()?.run(&inputs)?.values)
    }

    fn check(&self, engine: &dyn Engine) -> Result<(), Diag> {
        let (ours, theirs) = (self.run(engine)?, self.run(&Interpreter)?);
        let (a, b) = (ours[0].tensor()?, theirs[0].tensor()?);
        assert_eq!(a.shape(), b.shape(), "{self:?} on {}", engine.name());
        assert!(a.bytes() == b.bytes(), "{self:?} on {}", engine.name());
        Ok(())
    }
}

/// Tensors of `n` numbers: all kinds of ranges, ties, and numbers that are none.
fn numbers(rng: &mut Rng, n: usize) -> Vec<f32> {
    let scale = rng.choose(&[1.0f32, 1e-3, 1e30, 0.0, 127.5]);
    let (low, high) = rng.choose(&[(-1000, 1000), (0, 255), (-255, -1), (5, 9), (-51, 204)]);
    let special = rng.one_in(4);
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0];
    let one = |rng: &mut Rng| match special && rng.one_in(40) {
        true => rng.choose(&odd),
        false => rng.range(low, high) as f32 * scale * rng.choose(&[1.0, 0.5]),
    };
    (0..n).map(|_| one(rng)).collect()
}

fn quantised_alike(engine: &dyn Engine, n: usize, seed: u64) -> Result<(), Diag> {
    let source = "planish-ir 1\nsym N 0..\ngraph @\"g\"(v0: f32[N]) { \
                  v1, v2, v3 = dynamic-quantize v0 : u8[N], f32[], u8[] return v1, v2, v3 }";
    let g = text::parse(source)?;
    let x = numbers(&mut Rng::new(seed), n);
    let input = Some(Value::from(Tensor::f32s(&[n], &x)?));
    let options = PrepareOptions { threads: 2, ..PrepareOptions::default() };
    let run = |engine: &dyn Engine| -> Result<Vec<Value>, Diag> {
        let program = engine.prepare(&g, &options).map_err(|mut d| d.swap_remove(0))?;
        Ok(program.session()?.run(std::slice::from_ref(&input))?.values)
    };
    let same =
        |a: &Tensor, b: &Tensor| a.bytes() == b.bytes() || a.to_f64()[0].is_nan() && b.to_f64()[0].is_nan();
    for (i, (a, b)) in run(engine)?.iter().zip(run(&Interpreter)?).enumerate() {
        assert!(same(a.tensor()?, b.tensor()?), "result {i}, {n} numbers, seed {seed}, {}", engine.name());
    }
    Ok(())
}

#[test]
fn ranges_are_quantised_alike() -> Result<(), Diag> {
    let mut seed = 0;
    let mut all = |maker: Maker, all: Vec<TargetSpec>, sizes: &[usize]| -> Result<(), Diag> {
        for engine in all.into_iter().map(|t| Native::new(maker, t)) {
            for n in sizes.iter().chain(sizes) {
                seed += 1;
                quantised_alike(&engine, *n, seed)?;
            }
        }
        Ok(())
    };
    let small = [0, 1, 2, 5, 16, 17, 63, 64, 65, 200];
    all(Maker::Interpreter, vec![TargetSpec::nvptx(80), TargetSpec::aarch64()], &[0, 1, 40, 1100])?;
    all(Maker::Interpreter, targets(), &small)?;
    all(Maker::Cranelift, targets().drain(..1).collect(), &[0, 1, 3, 77, 16_384, 40_000])?;
    #[cfg(feature = "llvm")]
    all(Maker::Llvm, targets(), &[0, 1, 3, 77, 200, 16_384, 40_000])?;
    Ok(())
}

/// The sizes are the first or one of them at random, the rest is random.
fn cases(count: u64, ms: &[usize], ks: &[usize], ns: &[usize]) -> impl Iterator<Item = Case> {
    (0..count).map(move |seed| {
        let mut rng = Rng::new(seed * 77 + 5);
        let zero = |rng: &mut Rng| rng.choose(&[Zero::None, Zero::One, Zero::Each]);
        let dtype = |rng: &mut Rng| rng.choose(&[DType::U8, DType::I8]);
        Case {
            batch: rng.choose(&[1, 1, 1, 2, 3]),
            m: rng.choose(ms),
            k: rng.choose(ks),
            n: rng.choose(ns),
            types: [dtype(&mut rng), dtype(&mut rng)],
            zeros: [zero(&mut rng), zero(&mut rng)],
            constant: !rng.one_in(4),
            known: rng.one_in(2),
            epilogue: rng.one_in(2),
            extreme: rng.one_in(3),
            seed,
        }
    })
}

#[test]
fn kernels_of_every_level_interpreted() -> Result<(), Diag> {
    let levels: Vec<Native> = targets().into_iter().map(|t| Native::new(Maker::Interpreter, t)).collect();
    for (i, case) in cases(160, &[0, 1, 2, 3, 5, 9], &[0, 1, 3, 4, 7, 18], &[0, 1, 5, 17, 33, 65]).enumerate()
    {
        case.check(&levels[i % levels.len()])?;
    }
    Ok(())
}

#[test]
fn kernels_for_machines_that_are_not_here() -> Result<(), Diag> {
    let levels = [TargetSpec::aarch64(), TargetSpec::nvptx(80)].map(|t| Native::new(Maker::Interpreter, t));
    for (i, case) in cases(60, &[0, 1, 2, 5], &[1, 3, 4, 9], &[1, 5, 17]).enumerate() {
        case.check(&levels[i % levels.len()])?;
    }
    Ok(())
}

#[test]
fn cranelift() -> Result<(), Diag> {
    let engine = Native::new(Maker::Cranelift, targets().swap_remove(0));
    for case in cases(60, &[0, 1, 2, 3, 8, 70], &[0, 1, 3, 4, 7, 33, 64], &[0, 1, 5, 48, 65, 130]) {
        case.check(&engine)?;
    }
    Ok(())
}

#[cfg(feature = "llvm")]
#[test]
fn llvm_on_every_level() -> Result<(), Diag> {
    let levels: Vec<Native> = targets().into_iter().map(|t| Native::new(Maker::Llvm, t)).collect();
    let (ms, ks) = ([0, 1, 2, 3, 5, 7, 8, 13, 64, 70], [0, 1, 2, 3, 4, 5, 31, 32, 67, 256]);
    for (i, case) in cases(200, &ms, &ks, &[0, 1, 5, 16, 31, 48, 64, 65, 96, 130]).enumerate() {
        case.check(&levels[i % levels.len()])?;
    }
    Ok(())
}

#[cfg(feature = "llvm")]
#[test]
fn inner_loops_keep_their_sums_in_registers() -> Result<(), Diag> {
    for [ta, tb] in [[DType::U8, DType::I8], [DType::I8, DType::U8]] {
        for (known, n) in [(true, 128), (false, 96)] {
            let case = Case {
                batch: 1,
                m: 16,
                k: 256,
                n,
                types: [ta, tb],
                zeros: [Zero::One, Zero::None],
                constant: true,
                known,
                epilogue: true,
                extreme: false,
                seed: 1,
            };
            for target in targets() {
                let vnni = target.features.vnni;
                let module = Native::new(Maker::Llvm, target.clone()).lowered(&case.build()?.0);
                let module = module.map_err(|mut d| d.swap_remove(0))?;
                let text = planish_llvm::assembly(&module.variants[0].kernels, &target);
                let text = text.map_err(|e| Diag::error("internal-test", e.to_string()))?;
                let spilled = planish_llvm::stack_in_inner_loops(&text);
                let spilled: Vec<_> = spilled.iter().filter(|(_, count)| *count > 0).collect();
                assert!(spilled.is_empty(), "{spilled:?} on {} in {case:?}", target.name);
                assert_eq!(text.contains("vpdpbusd"), vnni, "{}", target.name);
            }
        }
    }
    Ok(())
}
