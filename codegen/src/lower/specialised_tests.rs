//! Plans with several bodies against the general graph in the interpreter.

use super::tests::ramp;
use super::{Body, LowerOptions, Module, lower_bodies};
use crate::engine::ModuleProgram;
use planish_ir::{Diag, Graph, PrepareOptions, Program, Value, interp, text};
use planish_rt::plan::{Plan, Step};

/// A graph of the text with letters replaced, as types of inputs and with them all others.
fn graph(body: &str, set: &[(&str, &str)]) -> Result<Graph, Diag> {
    let mut text = format!("planish-ir 1\n{body}");
    for (letter, value) in set {
        text = text.replace(letter, value);
    }
    let g = text::parse(&text)?;
    planish_ir::verify::check(&g)?;
    Ok(g)
}

/// Lowers the text with a body for each setting of the letters.
fn lowered(body: &str, letters: &[&str], settings: &[&[i64]]) -> Result<(Graph, Module), Diag> {
    let general = graph(body, &[])?;
    let symbols: Vec<_> = letters.iter().filter_map(|l| general.symbols.find(l)).collect();
    let one = |values: &&[i64]| {
        let texts: Vec<String> = values.iter().map(i64::to_string).collect();
        let set: Vec<(&str, &str)> = letters.iter().copied().zip(texts.iter().map(String::as_str)).collect();
        graph(body, &set)
    };
    let graphs = settings.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    let bodies: Vec<Body<'_>> =
        graphs.iter().zip(settings).map(|(graph, v)| Body { values: v.to_vec(), graph }).collect();
    let module = lower_bodies(&general, &symbols, &bodies, &LowerOptions::default());
    let module = module.map_err(|mut d| d.swap_remove(0))?;
    Ok((general, module))
}

fn session(general: &Graph, module: &Module) -> Result<Box<dyn planish_ir::Session>, Diag> {
    ModuleProgram::interpreted(general, module.clone(), &PrepareOptions::default())?.session()
}

fn shown(plan: &Plan, output: usize) -> Vec<String> {
    plan.outputs[output].dims.iter().flatten().map(|e| plan.show_expr(*e).to_string()).collect()
}

const BODY: &str = "graph @\"g\"(v0 \"x\": f32[N,3], v1 \"w\": f32[H]) {
  v2 = const f32[3,4] [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  v3 = matmul{trans_a=false, trans_b=false} v0, v2 : f32[N,4]
  v4 = unary{kind=tanh} v1 : f32[H]
  return v3 \"y\", v4 \"z\"
}
";

#[test]
fn each_value_has_a_body_and_other_values_are_refused() -> Result<(), Diag> {
    let (general, module) = lowered(BODY, &["N"], &[&[1], &[8]])?;
    let plan = &module.plan;
    assert_eq!(plan.validate(), Ok(()));
    assert_eq!(plan.inputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["x", "w"]);
    assert_eq!((shown(plan, 0), shown(plan, 1)), (vec!["N".into(), "4".into()], vec!["H".into()]));
    let n = plan.symbols.iter().find(|s| s.name == "N").expect("N");
    assert_eq!((n.min, n.max, &n.values[..]), (1, 8, &[1, 8][..]));
    let ifs = plan.blocks[0].steps.iter().filter(|s| matches!(s, Step::If { .. })).count();
    assert_eq!(ifs, 2);
    // The weights and the kernel of `tanh` are shared; the product has one for each batch.
    assert!(module.weights.len() <= 4 * 12 * 4, "{}", module.weights.len());
    assert_eq!(
        plan.kernels.iter().filter(|k| k.name.contains("unary") || k.name.contains("elem")).count(),
        1
    );
    let mut s = session(&general, &module)?;
    for (n, h) in [(8, 5), (1, 5), (8, 70), (1, 0), (8, 5)] {
        let inputs: Vec<Value> = vec![ramp(&[n, 3])?, ramp(&[h])?];
        let want = interp::run(&general, inputs.clone())?.values;
        let got = s.run(&inputs.into_iter().map(Some).collect::<Vec<_>>())?.values;
        for (g, w) in got.iter().zip(&want) {
            assert_eq!(g.tensor()?.shape(), w.tensor()?.shape());
            for (x, y) in g.tensor()?.to_f64().iter().zip(w.tensor()?.to_f64()) {
                assert!((x - y).abs() < 1e-5, "{x} {y}");
            }
        }
    }
    let refused = s.run(&[Some(ramp(&[3, 3])?), Some(ramp(&[2])?)]).expect_err("3 is refused");
    assert!(refused.message.contains("compiled for N = 1, 8 only"), "{refused}");
    Ok(())
}

#[test]
fn two_symbols_have_a_body_for_each_pair() -> Result<(), Diag> {
    let settings: [&[i64]; 4] = [&[1, 2], &[1, 6], &[4, 2], &[4, 6]];
    let (general, module) = lowered(BODY, &["N", "H"], &settings)?;
    assert_eq!(
        (shown(&module.plan, 0), shown(&module.plan, 1)),
        (vec!["N".into(), "4".into()], vec!["H".into()])
    );
    let mut s = session(&general, &module)?;
    for v in settings {
        let inputs: Vec<Value> = vec![ramp(&[v[0] as usize, 3])?, ramp(&[v[1] as usize])?];
        let want = interp::run(&general, inputs.clone())?.values;
        let got = s.run(&inputs.into_iter().map(Some).collect::<Vec<_>>())?.values;
        for (g, w) in got.iter().zip(&want) {
            assert_eq!(g.tensor()?.shape(), w.tensor()?.shape());
        }
    }
    assert!(s.run(&[Some(ramp(&[1, 3])?), Some(ramp(&[1])?)]).is_err());
    Ok(())
}

/// The memory of a run is that of the body that runs, not of all.
#[test]
fn only_the_chosen_body_takes_memory() -> Result<(), Diag> {
    let body = "graph @\"g\"(v0 \"x\": f32[N,64]) {
  v1 = softmax{kind=softmax, axis=1} v0 : f32[N,64]
  v2 = softmax{kind=softmax, axis=1} v1 : f32[N,64]
  return v2 \"y\"
}
";
    let (general, module) = lowered(body, &["N"], &[&[1], &[4096]])?;
    let limit = |max| PrepareOptions { max_memory: Some(max), ..PrepareOptions::default() };
    let run = |n: usize, max| {
        let p = ModuleProgram::interpreted(&general, module.clone(), &limit(max))?;
        p.session()?.run(&[Some(ramp(&[n, 64])?)]).map(|_| ())
    };
    run(1, 4096)?;
    assert!(run(4096, 4096).is_err());
    run(4096, 4 << 20)
}

/// Sizes that depend on data are those of the body that ran.
#[test]
fn sizes_that_data_decide_come_from_the_body_that_ran() -> Result<(), Diag> {
    let body = "sym K 0..64 data
graph @\"g\"(v0 \"x\": f32[N,2]) {
  v1 = non-zero v0 : i64[2,K]
  return v1 \"y\"
}
";
    let (general, module) = lowered(body, &["N"], &[&[1], &[3]])?;
    let mut s = session(&general, &module)?;
    for n in [3usize, 1, 3] {
        let inputs: Vec<Value> = vec![ramp(&[n, 2])?];
        let want = interp::run(&general, inputs.clone())?.values;
        let got = s.run(&inputs.into_iter().map(Some).collect::<Vec<_>>())?.values;
        assert_eq!(got[0].tensor()?, want[0].tensor()?);
    }
    Ok(())
}
