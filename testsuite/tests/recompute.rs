//! Steps of training with a budget for forward values: the arena of the compiled step gets smaller.

use planish_codegen::kernel::TargetSpec;
use planish_codegen::{LowerOptions, lower};
use planish_ir::{Diag, Graph, text};
use planish_passes::training::{Loss, Optimizer, Recipe, step};
use planish_passes::{Level, Pipeline, TargetFacts};
use planish_rt::arena::{Want, plan};
use planish_rt::plan::{Expr, Place};
use std::fmt::Write;

/// Layers of a product, a normalisation and an activation beside what goes past them.
fn network(layers: usize) -> String {
    let mut text = String::from("planish-ir 1\ngraph @\"n\"(v0 \"x\": f32[32,64]) {\n");
    let mut x = 0;
    for v in (1..).step_by(8).take(layers) {
        let _ = writeln!(
            text,
            "v{v} \"w{v}\" = const f32[64,64] splat 0x0ad7233c
            v{} \"s{v}\" = const f32[64] splat 0x0000803f
            v{} = matmul{{trans_a=false, trans_b=false}} v{x}, v{v} : f32[32,64]
            v{}, v{}, v{} = layer-norm{{axis=1, epsilon=1e-5, rms=false}} v{}, v{} : f32[32,64], f32[32,1], f32[32,1]
            v{} = unary{{kind=gelu}} v{} : f32[32,64]
            v{} = binary{{kind=add}} v{}, v{x} : f32[32,64]",
            v + 1,
            v + 2,
            v + 3,
            v + 4,
            v + 5,
            v + 2,
            v + 1,
            v + 6,
            v + 3,
            v + 7,
            v + 6,
        );
        x = v + 7;
    }
    let _ = writeln!(text, "v{} = softmax{{kind=softmax, axis=1}} v{x} : f32[32,64]", x + 1);
    let _ = writeln!(text, "return v{} \"y\" }}", x + 1);
    text
}

/// Bytes of the arena of the compiled step.
fn arena(graph: &Graph) -> Result<u64, Diag> {
    let mut graph = graph.clone();
    for pipeline in [Pipeline::canonical(Level::O2), Pipeline::fused(Level::O2)] {
        pipeline.run(&mut graph, &TargetFacts::default(), &mut |_, _| {})?;
    }
    let options = LowerOptions { targets: vec![TargetSpec::x86_64_v3()], ..LowerOptions::default() };
    let module = lower(&graph, &options).map_err(|mut all| all.swap_remove(0))?;
    let wants = module.plan.slots.iter().filter_map(|slot| match slot.place {
        Place::Arena { bytes, first, last } => match module.plan.exprs[bytes.0 as usize] {
            Expr::Const(n) => Some(Want { bytes: n.unsigned_abs(), first, last }),
            _ => None,
        },
        _ => None,
    });
    let layout = plan(&wants.collect::<Vec<_>>());
    layout.map(|l| l.total).ok_or_else(|| Diag::error("internal-lower", "an arena without a size"))
}

#[test]
fn the_arena_of_a_step_gets_smaller() -> Result<(), Diag> {
    let model = text::parse(&network(6))?;
    let made = |recompute| {
        let recipe = Recipe { recompute, ..Recipe::new(Loss::CrossEntropy, Optimizer::default()) };
        step(&model, &recipe, &|_| true)
    };
    let (whole, some, least) = (made(None)?, made(Some(110_000))?, made(Some(0))?);
    let sizes = [arena(&whole.graph)?, arena(&some.graph)?, arena(&least.graph)?];
    assert!(sizes[1] < sizes[0] && sizes[2] <= sizes[1], "{sizes:?}");
    assert!(sizes[2] * 5 < sizes[0] * 4, "{sizes:?}");
    Ok(())
}
