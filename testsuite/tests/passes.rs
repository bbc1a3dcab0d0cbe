//! `passes/<pass>/<behaviour>.pir`: text tests of passes. Beside the expectations of its head, each test checks that
//! the verifier accepts the graph after every pass, that exact passes keep the interpreter's results and change nothing
//! when they run again, and the printed result against the snapshot beside it.

use planish_ir::text::{parse, print};
use planish_ir::verify::verify;
use planish_ir::{Diag, Graph, Value, interp};
use planish_passes::calibrate::Interpreted;
use planish_passes::pipeline::Report;
use planish_passes::{PassKind, PassSpec, Pipeline, TargetFacts, parse_specs, registry};
use planish_testsuite::smith::{Sketch, compare, inputs_for, sketches};
use planish_testsuite::text::{Expect, TextTest, folder, load};
use std::fmt::Write;
use std::rc::Rc;

fn run_passes(graph: &mut Graph, specs: &[PassSpec]) -> Result<Report, String> {
    let mut pipeline = Pipeline::default();
    pipeline.verify_each = true;
    // Exact passes ask for no samples.
    if !exact(specs) {
        let samples = (0..4).map(|seed| inputs_for(graph, seed)).collect();
        pipeline.calibrate = Some(Rc::new(Interpreted { samples, labels: None }));
    }
    pipeline.specs(specs);
    pipeline.run(graph, &TargetFacts::default(), &mut |_, _| {}).map_err(|diag| diag.to_string())
}

fn exact(specs: &[PassSpec]) -> bool {
    specs.iter().all(|spec| spec.meta().is_ok_and(|meta| meta.kind != PassKind::Lossy))
}

/// Whether the outputs of both graphs agree on some inputs; `false` where both fail, so that there are none.
fn same_results(before: &Graph, after: &Graph, inputs: Vec<Value>) -> Result<bool, String> {
    let run = |graph: &Graph| interp::run(graph, inputs.clone()).map(|result| result.values);
    match (run(before), run(after)) {
        (Ok(old), Ok(new)) => {
            let pairs = new.iter().zip(&old).enumerate();
            let mut differences = pairs.filter_map(|(i, (a, b))| Some((i, compare(a, b, false).err()?)));
            differences.next().map_or(Ok(true), |(i, why)| Err(format!("output {i} changed: {why}")))
        }
        (Err(_), Err(_)) => Ok(false),
        (_, Err(diag)) => Err(format!("fails only after the passes: {diag}")),
        (Err(diag), _) => Err(format!("fails only before the passes: {diag}")),
    }
}

fn expectation(expect: &Expect, report: &Report, graph: &Graph) -> Result<(), String> {
    let shown = || report.remarks.iter().map(Diag::to_string).collect::<Vec<_>>().join("\n  ");
    let number = |what: &str, have: f64, ok: bool| if ok { Ok(()) } else { Err(format!("{what} is {have}")) };
    match expect {
        Expect::Metric(name, op, want) => {
            let found = report.ran.iter().filter_map(|ran| ran.metrics.get(name));
            let have: f64 = found.clone().sum();
            if found.count() == 0 {
                return Err(format!("there is no metric {name}"));
            }
            number(name, have, op.holds(have, *want))
        }
        Expect::Remark(id, text) => {
            let hit =
                report.remarks.iter().any(|diag| diag.id == id && diag.to_string().contains(text.as_str()));
            if hit { Ok(()) } else { Err(format!("no remark {id} {text}; there are:\n  {}", shown())) }
        }
        Expect::NoRemark(id) => {
            let hit = report.remarks.iter().any(|diag| diag.id == id);
            if hit { Err(format!("a remark {id}:\n  {}", shown())) } else { Ok(()) }
        }
        Expect::Nodes(op, want) => {
            let have = graph.node_count() as f64;
            number("the number of nodes", have, op.holds(have, *want))
        }
        Expect::Ops(name, op, want) => {
            let nodes = graph.all_nodes();
            let have = nodes.iter().filter(|n| graph.node(**n).op.name() == name).count() as f64;
            number(name, have, op.holds(have, *want))
        }
    }
}

/// What the snapshot holds: the graph, then remarks and metrics.
fn rendered(graph: &Graph, report: &Report) -> String {
    let mut text = print(graph);
    for diag in &report.remarks {
        let _ = writeln!(text, "; {diag}");
    }
    for ran in &report.ran {
        for (name, value) in &ran.metrics {
            let _ = writeln!(text, "; {}: {name} = {value}", ran.spec);
        }
    }
    text
}

/// Runs a test; gives what its snapshot must hold.
fn check(test: &TextTest) -> Result<Option<String>, String> {
    let specs = parse_specs(&test.run).map_err(|diag| diag.to_string())?;
    let name = test.path.parent().and_then(|folder| folder.file_name()).unwrap_or_default().to_string_lossy();
    if !specs.iter().any(|spec| spec.name == name) {
        return Err(format!("`; run:` does not name {name}"));
    }
    let before = parse(&test.text).map_err(|diag| diag.to_string())?;
    if let Some(diag) = verify(&before).first() {
        return Err(diag.to_string());
    }
    let mut after = before.clone();
    let report = run_passes(&mut after, &specs)?;
    for expect in &test.expect {
        expectation(expect, &report, &after)?;
    }
    // The results of lossy passes are others, but the graph still runs.
    if !exact(&specs) {
        interp::run(&after, inputs_for(&after, 1)).map_err(|diag| diag.to_string())?;
    } else {
        let mut ran = false;
        for seed in 0..4 {
            ran |= same_results(&before, &after, inputs_for(&before, seed))?;
        }
        if !ran {
            return Err("the graph runs on none of the inputs tried".into());
        }
        let mut again = after.clone();
        run_passes(&mut again, &specs)?;
        if print(&again) != print(&after) {
            return Err(format!(
                "running again changes the graph:\n{}\ninto\n{}",
                print(&after),
                print(&again)
            ));
        }
    }
    if after.node_count() > 15 {
        return if test.expect.is_empty() { Err("a large test needs expectations".into()) } else { Ok(None) };
    }
    Ok(Some(rendered(&after, &report)))
}

#[test]
fn text_tests() {
    let tests = load(&folder().join("passes")).unwrap_or_else(|why| panic!("{why}"));
    let mut failures = Vec::new();
    for test in &tests {
        match check(test) {
            Err(why) => failures.push(format!("{}: {why}", test.path.display())),
            Ok(None) => {}
            Ok(Some(text)) => {
                let mut settings = insta::Settings::clone_current();
                settings.set_snapshot_path(test.path.parent().unwrap_or(folder()));
                settings.set_prepend_module_to_snapshot(false);
                settings.set_omit_expression(true);
                let stem = test.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                settings.bind(|| insta::assert_snapshot!(stem, text));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_pass_has_three_text_tests() {
    let tests = load(&folder().join("passes")).unwrap_or_else(|why| panic!("{why}"));
    for (meta, _) in registry::all() {
        let own = folder().join("passes").join(meta.name);
        let count = tests.iter().filter(|test| test.path.starts_with(&own)).count();
        assert!(count >= 3, "{} has {count} text tests", meta.name);
    }
}

/// Runs passes on every sketch; shows the smallest graph whose results they change.
fn keeps_results(specs: &[PassSpec]) {
    let difference = |sketch: &Sketch| {
        let built = sketch.build();
        let mut after = built.graph.clone();
        run_passes(&mut after, specs).map(|_| ())?;
        let inputs = built.inputs.iter().map(|tensor| Value::from(tensor.clone())).collect();
        same_results(&built.graph, &after, inputs).map_err(|why| format!("{why}\nafter:\n{}", print(&after)))
    };
    let (mut compared, mut failed) = (0, 0);
    for sketch in sketches() {
        let found = difference(&sketch);
        match found {
            Ok(true) => compared += 1,
            Ok(false) => failed += 1,
            Err(_) => {}
        }
        if found.is_err() {
            let small = sketch.shrink(&|s| difference(s).is_err());
            let why = difference(&small).err().unwrap_or_default();
            let list: Vec<String> = specs.iter().map(PassSpec::to_string).collect();
            panic!(
                "seed {}, {}: {why}\nbefore:\n{}",
                sketch.seed,
                list.join(","),
                print(&small.build().graph)
            );
        }
    }
    assert!(compared > failed, "{compared} graphs compared, {failed} do not run");
}

#[test]
fn each_exact_pass_keeps_the_results_of_random_graphs() {
    for (meta, _) in registry::all() {
        if matches!(meta.kind, PassKind::Exact | PassKind::Lowering) {
            keeps_results(&[PassSpec::plain(meta.name)]);
        }
    }
}

#[test]
fn all_exact_passes_together_keep_the_results_of_random_graphs() {
    let mut specs = Vec::new();
    for _ in 0..2 {
        let exact = registry::all().iter().filter(|(meta, _)| meta.kind == PassKind::Exact);
        specs.extend(exact.map(|(meta, _)| PassSpec::plain(meta.name)));
    }
    keeps_results(&specs);
}
