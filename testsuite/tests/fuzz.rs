//! Seeded mutations of valid files through the fuzz bodies. `PLANISH_TEST_FUZZ` is their number per body.

use planish_testsuite::fuzz::{mutate, onnx, pir};
use planish_testsuite::rng::Rng;
use planish_testsuite::smith::Sketch;
use planish_testsuite::text::{discover, folder};

fn run(seeds: &[Vec<u8>], body: fn(&[u8]) -> Result<bool, String>) -> usize {
    let count = std::env::var("PLANISH_TEST_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(4000);
    let mut accepted = 0;
    for seed in 0..count {
        let bytes = mutate(&mut Rng::new(seed), seeds);
        match body(&bytes) {
            Ok(ok) => accepted += usize::from(ok),
            Err(why) => panic!("mutation {seed}: {why}\n{}", String::from_utf8_lossy(&bytes)),
        }
    }
    accepted
}

#[test]
fn mutated_models_are_imported_or_rejected() {
    let files = discover(&folder().join("fuzz"), "onnx").unwrap_or_else(|why| panic!("{why}"));
    let seeds: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap_or_default()).collect();
    for (path, seed) in files.iter().zip(&seeds) {
        assert!(!seed.is_empty(), "{}", path.display());
        assert_eq!(onnx(seed), Ok(true), "{}", path.display());
    }
    let accepted = run(&seeds, onnx);
    assert!(accepted > 0, "every mutation was rejected, so none tested what comes after");
}

#[test]
fn mutated_texts_are_read_or_rejected() {
    let seeds: Vec<Vec<u8>> = (0..60)
        .map(|seed| planish_ir::text::print(&Sketch::random(seed, 5).build().graph).into_bytes())
        .collect();
    assert!(seeds.iter().all(|seed| pir(seed) == Ok(true)));
    let accepted = run(&seeds, pir);
    assert!(accepted > 0, "every mutation was rejected, so none tested printing");
}
