//! Measuring what kernels that skip zeros cost on this machine, beside dense ones.

use crate::engine::{self, cache::Cache};
use crate::failure::{Failure, Result};
use crate::synthetic::Random;
use crate::ui::Ui;
use planish_codegen::kernel::TargetSpec;
use planish_ir::{Constant, DType, Editor, Graph, Matrix, Session, Tensor, Value, text};
use planish_passes::cost::{BLOCKS, BYTE_BLOCK, KernelCost, LEAST_ROWS, REGIMES, scattered};
use std::time::{Duration, Instant};

/// Inputs and outputs of the products that are measured.
const SIZE: usize = 1024;
/// Shares of the blocks that are kept in the two measurements of a kernel.
const KEPT: [f64; 2] = [0.1, 0.5];
/// Rounds of a measurement; of each product the fastest counts.
const ROUNDS: usize = 5;

/// One kernel that is measured.
#[derive(Clone, PartialEq, Debug)]
struct Task {
    target: TargetSpec,
    bytes: bool,
    block: [u32; 2],
    /// Rows of the product, and from which on its costs hold.
    rows: (u64, u64),
}

/// What is measured, what matters most first.
fn tasks(targets: &[TargetSpec]) -> Vec<Task> {
    let mut out = Vec::new();
    let kinds = BLOCKS.map(|b| (false, b)).into_iter().chain([(true, BYTE_BLOCK)]);
    for target in targets {
        for rows in REGIMES.into_iter().rev() {
            for (bytes, block) in kinds.clone() {
                if !scattered(block) || rows.0 >= LEAST_ROWS {
                    out.push(Task { target: target.clone(), bytes, block, rows });
                }
            }
        }
    }
    out
}

/// One target of this machine for every width of vectors, the strongest first.
fn targets() -> Result<Vec<TargetSpec>> {
    let host = engine::host()?;
    let narrow = TargetSpec::x86_64_v3();
    let other = narrow.runs_here() && narrow.lanes_f32 != host.lanes_f32;
    Ok(if other { vec![host, narrow] } else { vec![host] })
}

/// Measures for about `time`; kernels that there is no time for are left out. One thread.
pub fn measure(time: Duration, ui: &Ui) -> Result<Vec<KernelCost>> {
    let started = Instant::now();
    let targets = targets()?;
    let tasks = tasks(&targets);
    let progress = ui.progress("measuring kernels", tasks.len() as u64);
    let cache = Cache::from_option(None);
    let (mut out, mut dense): (Vec<KernelCost>, Option<(Task, Product)>) = (Vec::new(), None);
    for (i, task) in tasks.iter().enumerate() {
        let left = time.saturating_sub(started.elapsed());
        if left.is_zero() {
            break;
        }
        let share = (left / (tasks.len() - i) as u32).min(Duration::from_secs(2));
        let same = |t: &Task| (&t.target, t.bytes, t.rows) == (&task.target, task.bytes, task.rows);
        let mut base = match dense.take() {
            Some((t, p)) if same(&t) => p,
            _ => Product::new(task, None, cache.as_ref())?,
        };
        let made = KEPT.map(|kept| Product::new(task, Some(kept), cache.as_ref()));
        let [few, half] = made;
        let (mut few, mut half) = (few?, half?);
        let mut best = [f64::INFINITY; 3];
        let mut rounds = 0;
        let begun = Instant::now();
        while rounds < ROUNDS || begun.elapsed() < share / 2 {
            for (p, best) in [&mut base, &mut few, &mut half].into_iter().zip(&mut best) {
                *best = best.min(p.time()?);
            }
            rounds += 1;
            if rounds >= ROUNDS && begun.elapsed() > share {
                break;
            }
        }
        out.push(cost(task, best));
        ui.detail(format!(
            "{} {:?} {:?} {} rows: {:.4} ms dense, {:.4} and {:.4} ms",
            task.target.name,
            task.block,
            if task.bytes { DType::I8 } else { DType::F32 },
            task.rows.0,
            best[0] * 1e3,
            best[1] * 1e3,
            best[2] * 1e3
        ));
        dense = Some((task.clone(), base));
        progress.step();
    }
    progress.finish();
    Ok(out)
}

/// The line through two measurements.
fn cost(task: &Task, [dense, few, half]: [f64; 3]) -> KernelCost {
    let [x0, x1] = KEPT;
    let [y0, y1] = [few / dense, half / dense];
    let weight = ((y1 - y0) / (x1 - x0)).max(0.0);
    let fixed = (y0 - weight * x0).max(0.0);
    let (bytes, block) = (task.bytes, task.block);
    KernelCost { lanes: u32::from(task.target.lanes_f32), bytes, block, rows: task.rows.1, weight, fixed }
}

/// A product that is ready to run.
struct Product {
    session: Box<dyn Session>,
    inputs: Vec<Option<Value>>,
}

impl Product {
    /// With a share of the blocks kept, or dense.
    fn new(task: &Task, kept: Option<f64>, cache: Option<&Cache>) -> Result<Product> {
        let (rows, dtype) = (task.rows.0 as usize, if task.bytes { DType::I8 } else { DType::F32 });
        let mut graph = graph(rows, task.bytes)?;
        let constant = weights(dtype, task.block, kept)?;
        let id = graph.all_nodes().into_iter().find_map(|n| match &graph.node(n).op {
            planish_ir::Op::Const(c) if graph.constant(c.id).shape == [SIZE, SIZE] => Some(c.id),
            _ => None,
        });
        let id = id.ok_or_else(|| Failure::new("internal-tune", "a product without weights"))?;
        Editor::new(&mut graph).set_constant(id, constant)?;
        let mut random = Random::new(1);
        let input: Value = match task.bytes {
            true => {
                let v = (0..rows * SIZE).map(|_| i128::from(random.below(256))).collect();
                Tensor::ints(DType::U8, &[rows, SIZE], v)?.into()
            }
            false => {
                let v: Vec<f32> = (0..rows * SIZE).map(|_| random.unit() as f32 - 0.5).collect();
                Tensor::f32s(&[rows, SIZE], &v)?.into()
            }
        };
        let session = engine::prepare_for(&task.target, &graph, 1, cache)?.session()?;
        Ok(Product { session, inputs: vec![Some(input)] })
    }
    /// Seconds of one run.
    fn time(&mut self) -> Result<f64> {
        let started = Instant::now();
        self.session.run(&self.inputs)?;
        Ok(started.elapsed().as_secs_f64())
    }
}

/// A product of which one row is the result, so that nothing but the product takes time.
fn graph(rows: usize, bytes: bool) -> Result<Graph> {
    let (x, w, y) = if bytes { ("u8", "i8", "i32") } else { ("f32", "f32", "f32") };
    let (op, zero) = if bytes {
        ("matmul-integer", "0x00")
    } else {
        ("matmul{trans_a=false, trans_b=false}", "0x00000000")
    };
    let text = format!(
        "planish-ir 1\ngraph @\"product\"(v0 \"x\": {x}[{rows},{SIZE}]) {{
           v1 = const {w}[{SIZE},{SIZE}] splat {zero}
           v2 = {op} v0, v1 : {y}[{rows},{SIZE}]
           v3 = const i64[1] [0]
           v4 = const i64[1] [1]
           v5 = slice v2, v3, v4 : {y}[1,{SIZE}]
           return v5 \"y\" }}"
    );
    Ok(text::parse(&text)?)
}

/// Weights with a share of their blocks kept, encoded as blocks; none: all of them, dense.
fn weights(dtype: DType, block: [u32; 2], kept: Option<f64>) -> Result<Constant> {
    let shape = [SIZE, SIZE];
    let mut random = Random::new(2);
    let matrix = Matrix::new(&shape, false).ok_or_else(|| Failure::new("internal-tune", "no matrix"))?;
    let [down, across] = matrix.grid(block);
    let there: Vec<bool> = (0..down * across).map(|_| kept.is_none_or(|k| random.unit() < k)).collect();
    let mut values = vec![0f64; SIZE * SIZE];
    matrix.each(block, |at, i| {
        // Never zero: the pattern is the one asked for.
        if there[at] {
            values[i] = random.below(100) as f64 + 1.0;
        }
    });
    let tensor = match dtype {
        DType::F32 => Tensor::floats(dtype, &shape, values.into_iter().map(|x| x / 64.0).collect())?,
        _ => Tensor::ints(dtype, &shape, values.into_iter().map(|x| x as i128).collect())?,
    };
    Ok(match kept {
        Some(_) => Constant::in_blocks(&tensor, block, false)?,
        None => tensor.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_the_line_through_two_measurements() {
        let task = Task { target: TargetSpec::x86_64_v3(), bytes: false, block: [1, 16], rows: (128, 64) };
        let c = cost(&task, [10.0, 1.5, 5.5]);
        assert!((c.weight - 1.0).abs() < 1e-9 && (c.fixed - 0.05).abs() < 1e-9, "{c:?}");
        assert_eq!((c.lanes, c.rows), (8, 64));
        assert!(cost(&task, [10.0, 5.0, 1.0]).weight >= 0.0);
    }

    #[test]
    fn every_kernel_of_the_table_is_measured() {
        let all = tasks(&[TargetSpec::x86_64_v4_vnni(), TargetSpec::x86_64_v3()]);
        // Three regimes of five wide blocks and one of bytes, two of three for scattered zeros.
        assert_eq!(all.len(), 2 * (3 * 6 + 2 * 3));
        let half = weights(DType::F32, [1, 16], Some(0.5)).expect("weights");
        let share = half.nonzeros() as f64 / half.len() as f64;
        assert!((0.48..0.52).contains(&share), "{share}");
    }

    #[test]
    fn products_run() {
        let cache = None;
        for bytes in [false, true] {
            let block = if bytes { BYTE_BLOCK } else { [1, 4] };
            let task =
                Task { target: targets().expect("a target").swap_remove(0), bytes, block, rows: (16, 16) };
            let mut p = Product::new(&task, Some(0.1), cache).expect("a product");
            assert!(p.time().expect("a run") > 0.0);
        }
    }
}
