//! Training on the command line: nets from a line, pictures, pruning, checkpoints, signals.
#![cfg(all(feature = "llvm", target_arch = "x86_64", target_os = "linux"))]

use serde_json::{Value, json};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

type Outcome = Result<(), Box<dyn Error>>;

fn planish(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
    command.env("XDG_CACHE_HOME", dir.join("cache")).current_dir(dir).args(args).stdin(Stdio::null());
    command
}

fn ends(code: i32, dir: &Path, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let out = planish(dir, args).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
    Ok(out)
}

/// Pictures of 4 x 4 with noise, whose class is the corner that is bright, and a net for them.
fn scene(count: u16) -> Result<tempfile::TempDir, Box<dyn Error>> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let [high, low] = count.to_be_bytes();
    let mut images = vec![0, 0, 8, 3, 0, 0, high, low, 0, 0, 0, 4, 0, 0, 0, 4];
    let mut labels = vec![0, 0, 8, 1, 0, 0, high, low];
    let mut state = 7u32;
    for k in 0..count {
        let class = (k % 4) as usize;
        labels.push(class as u8);
        for i in 0..16 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let corner = i / 8 * 2 + i % 4 / 2;
            images.push((state >> 24) as u8 / 2 + if corner == class { 70 } else { 0 });
        }
    }
    fs::write(dir.path().join("p-images-idx3-ubyte"), images)?;
    fs::write(dir.path().join("p-labels-idx1-ubyte"), labels)?;
    ends(0, dir.path(), &["new", "--arch", "mlp:16-32-4", "--pixels", "-o", "net.onnx"])?;
    Ok(dir)
}

const DATA: [&str; 2] = ["--data", "p-images-idx3-ubyte"];

fn report(dir: &Path, args: &[&str]) -> Result<Value, Box<dyn Error>> {
    let out = ends(0, dir, &[args, &DATA, &["--format", "json"]].concat())?;
    Ok(serde_json::from_slice(&out.stdout)?)
}

#[test]
fn a_net_learns_and_prunes_itself() -> Outcome {
    let dir = scene(600)?;
    let dir = dir.path();
    let dense = report(dir, &["train", "net.onnx", "-o", "dense.onnx", "--epochs", "8", "--batch", "20"])?;
    assert_eq!(
        (&dense["schema"], &dense["samples"], &dense["held_out"]),
        (&json!("planish.train"), &json!(540), &json!(60))
    );
    assert_eq!(dense["epochs"].as_array().map(Vec::len), Some(8));
    assert!(dense["start"]["error"].as_f64() > Some(0.4), "{}", dense["start"]);
    assert!(dense["result"]["error"].as_f64() < Some(0.1), "{dense:#}");
    assert_eq!(
        dense["best"].as_u64().map(|b| &dense["epochs"][b as usize - 1]["held"]),
        Some(&dense["result"])
    );
    // The trained model is as good as was said, by the accuracy of another verb.
    let said = report(
        dir,
        &[
            "optimize",
            "dense.onnx",
            "-o",
            "same.onnx",
            "--pass",
            "prune-magnitude:sparsity=0,first=true",
            "--eval-data",
            "p-images-idx3-ubyte",
        ],
    )?;
    assert!(said["accuracy"]["before"].as_f64() > Some(0.9), "{}", said["accuracy"]);
    let prune = "block=1x4,sparsity=0.5,every=5,exclude=fc2";
    let pruned = report(
        dir,
        &["train", "dense.onnx", "-o", "pruned.onnx", "--epochs", "8", "--batch", "20", "--prune", prune],
    )?;
    assert_eq!(pruned["sparsity"], json!([{"name": "fc1.weight", "blocks": 0.5}]));
    assert!(pruned["result"]["error"].as_f64() < Some(0.1), "{pruned:#}");
    let shares: Vec<f64> =
        pruned["epochs"].as_array().into_iter().flatten().filter_map(|e| e["sparsity"].as_f64()).collect();
    assert!(shares.is_sorted() && shares.last() == Some(&0.5), "{shares:?}");
    let inspected = ends(0, dir, &["inspect", "pruned.onnx", "--format", "json"])?;
    let inspected = String::from_utf8_lossy(&inspected.stdout).into_owned();
    assert!(inspected.contains("\"zeros\": 256,"), "{inspected}");
    // A threshold, and pruning once before training on with the zeros that are there.
    let paper = "schedule=threshold,reference=dense.onnx,block=1x4,every=5";
    let paper = report(
        dir,
        &["train", "net.onnx", "-o", "paper.onnx", "--epochs", "8", "--batch", "20", "--prune", paper],
    )?;
    assert!(paper["sparsity"][0]["blocks"].as_f64() > Some(0.5), "{}", paper["sparsity"]);
    let again = report(
        dir,
        &[
            "train",
            "dense.onnx",
            "-o",
            "again.onnx",
            "--epochs",
            "3",
            "--prune",
            "schedule=zeros",
            "--pass",
            "sparsify-blocks:block=1x4,sparsity=0.8,first=true",
        ],
    )?;
    let error = |of: &str| again[of]["error"].as_f64().unwrap_or(9.0);
    assert!(
        error("given") < 0.1 && error("start") > error("given") && error("result") < error("start"),
        "{again:#}"
    );
    assert!(again["sparsity"][0]["blocks"].as_f64() > Some(0.79), "{}", again["sparsity"]);
    Ok(())
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_bytes() -> Outcome {
    let dir = scene(400)?;
    let dir = dir.path();
    let course =
        ["--epochs", "3", "--batch", "4", "--optimizer", "adam", "--prune", "block=1x4,sparsity=0.5,every=5"];
    let whole = [&["train", "net.onnx", "-o", "whole.onnx"][..], &course, &DATA].concat();
    ends(0, dir, &whole)?;
    let long = ["--epochs", "100000", "--batch", "4"];
    let mut child = planish(dir, &[&["train", "net.onnx", "-o", "part.onnx"][..], &long, &DATA].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let checkpoint = dir.join("part.onnx.checkpoint");
    let until = Instant::now() + Duration::from_secs(120);
    while !checkpoint.exists() {
        assert!(Instant::now() < until && child.try_wait()?.is_none(), "no checkpoint came");
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    assert!(killed.success());
    assert_eq!(child.wait()?.code(), Some(130));
    assert!(checkpoint.exists() && !dir.join("part.onnx").exists());
    // In the middle of an epoch: steps are counted on.
    let about = fs::read(&checkpoint)?;
    assert!(String::from_utf8_lossy(&about[..4000.min(about.len())]).contains("planish.train"));
    // Another course is refused, and so is a file that is no checkpoint.
    let other = [&["train", "net.onnx", "-o", "part.onnx", "--resume"][..], &course, &DATA].concat();
    let refused = ends(2, dir, &other)?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("checkpoint-other"), "{refused:?}");
    fs::write(dir.join("bad"), "nothing")?;
    let bad = [
        &["train", "net.onnx", "-o", "part.onnx", "--resume", "--checkpoint", "bad", "--force"][..],
        &course,
        &DATA,
    ]
    .concat();
    let refused = ends(2, dir, &bad)?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("checkpoint-malformed"), "{refused:?}");
    // The checkpoint of a course that ended stands at its end: going on writes the same model.
    let first = fs::read(dir.join("whole.onnx"))?;
    fs::remove_file(dir.join("whole.onnx"))?;
    ends(0, dir, &[&whole[..], &["--resume"]].concat())?;
    assert_eq!(fs::read(dir.join("whole.onnx"))?, first);
    let threads = [&["train", "net.onnx", "-o", "one.onnx", "--threads", "1"][..], &course, &DATA].concat();
    ends(0, dir, &threads)?;
    assert_eq!(fs::read(dir.join("one.onnx"))?, first);
    Ok(())
}

/// Steps with the blocks that are kept train what steps with masks do, however many threads there are and wherever they begin.
#[test]
fn pruned_weights_are_trained_in_stored_blocks() -> Outcome {
    let dir = scene(400)?;
    let dir = dir.path();
    let train = |out: &str, more: &str| {
        let prune = format!("block=1x4,sparsity=0.75,every=5,exclude=fc2{more}");
        let args = ["train", "net.onnx", "-o", out, "--epochs", "4", "--batch", "20", "--prune", &prune];
        report(dir, &args)
    };
    let (masked, blocks) = (train("masked.onnx", ",stored=false")?, train("blocks.onnx", "")?);
    assert_eq!(masked["sparsity"], json!([{"name": "fc1.weight", "blocks": 0.75}]));
    assert_eq!(blocks["sparsity"], json!([{"name": "fc1.weight", "blocks": 0.75, "stored": "1x4"}]));
    let losses = |r: &Value| -> Vec<f64> {
        r["epochs"].as_array().into_iter().flatten().filter_map(|e| e["loss"].as_f64()).collect()
    };
    let (one, other) = (losses(&masked), losses(&blocks));
    assert_eq!(one.len(), 4);
    assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-3 * a.abs()), "{one:?} {other:?}");
    let zeros = |model: &str| -> Result<Value, Box<dyn Error>> {
        let out = ends(0, dir, &["inspect", model, "--format", "json"])?;
        Ok(serde_json::from_slice::<Value>(&out.stdout)?["weights"]["zeros"].clone())
    };
    assert!(zeros("blocks.onnx")?.as_u64() >= Some(384), "{}", zeros("blocks.onnx")?);
    assert_eq!(zeros("blocks.onnx")?, zeros("masked.onnx")?);
    let first = fs::read(dir.join("blocks.onnx"))?;
    fs::remove_file(dir.join("blocks.onnx"))?;
    let prune = "block=1x4,sparsity=0.75,every=5,exclude=fc2";
    let course = ["--epochs", "4", "--batch", "20", "--prune", prune];
    for more in [["--resume", "--quiet"], ["--threads", "1"]] {
        let args =
            [&["train", "net.onnx", "-o", "blocks.onnx", "--force"][..], &course, &more, &DATA].concat();
        ends(0, dir, &args)?;
        assert_eq!(fs::read(dir.join("blocks.onnx"))?, first);
    }
    Ok(())
}

/// Passes that run the model on samples run it on single rows, whatever the batch is.
#[test]
fn passes_that_look_at_samples_go_before_training() -> Outcome {
    let dir = scene(400)?;
    let dir = dir.path();
    ends(0, dir, &["new", "--arch", "mlp:16-16-64-64-4", "--pixels", "-o", "deep.onnx"])?;
    let exit = "insert-gates:kind=early-exit,threshold=0.9,samples=data";
    let args = ["train", "deep.onnx", "-o", "exits.onnx", "--epochs", "4", "--batch", "20", "--pass", exit];
    let said = ends(0, dir, &[&args[..], &DATA, &["--remarks", "text"]].concat())?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("gate-done"), "{said}");
    let inspected = ends(0, dir, &["inspect", "exits.onnx"])?;
    assert!(String::from_utf8_lossy(&inspected.stdout).contains(" if"), "{inspected:?}");
    Ok(())
}

/// Values that weights share are trained as what they are, not the weights.
#[test]
fn values_that_weights_share_are_trained() -> Outcome {
    let dir = scene(200)?;
    let dir = dir.path();
    let shares = ["--pass", "cluster-weights:bits=2,first=true", "--only", "centroids"];
    let args = ["train", "net.onnx", "-o", "shared.onnx", "--epochs", "3", "--batch", "20", "--rate", "0.2"];
    let said = report(dir, &[&args[..], &shares].concat())?;
    assert_eq!(said["parameters"], json!(2 * 4), "{said:#}");
    assert!(said["result"]["loss"].as_f64() < said["start"]["loss"].as_f64(), "{said:#}");
    Ok(())
}

/// Noise in a step is that of its number: it is the same where a training begins again, and the model that is written has none.
#[test]
fn elements_are_left_out_and_pictures_moved() -> Outcome {
    let dir = scene(400)?;
    let dir = dir.path();
    let course = ["--epochs", "6", "--batch", "20"];
    let noise = ["--dropout", "0.2", "--input-dropout", "0.1", "--jitter", "1:4x4"];
    let train = |out: &str, more: &[&str]| -> Result<Value, Box<dyn Error>> {
        report(dir, &[&["train", "net.onnx", "-o", out, "--force"][..], &course, more].concat())
    };
    let said = train("noisy.onnx", &noise)?;
    assert!(said["result"]["error"].as_f64() < Some(0.2), "{said:#}");
    let first = fs::read(dir.join("noisy.onnx"))?;
    for more in [&["--resume", "--quiet"][..], &["--threads", "1"], &["--engine", "clif"]] {
        let told = train("noisy.onnx", &[&noise[..], more].concat())?;
        if more[0] == "--engine" {
            let losses = [&said, &told].map(|r| r["epochs"][5]["loss"].as_f64().unwrap_or(f64::NAN));
            assert!((losses[0] - losses[1]).abs() < 0.02 * losses[0], "{losses:?}");
        } else {
            assert_eq!(fs::read(dir.join("noisy.onnx"))?, first, "{more:?}");
        }
    }
    for k in (0..noise.len()).step_by(2) {
        train("other.onnx", &[&noise[..k], &noise[k + 2..]].concat())?;
        assert_ne!(fs::read(dir.join("other.onnx"))?, first, "without {}", noise[k]);
    }
    let ops = ends(0, dir, &["inspect", "noisy.onnx"])?;
    assert!(!String::from_utf8_lossy(&ops.stdout).contains("random"), "{ops:?}");
    let flat = [&["train", "net.onnx", "-o", "x.onnx", "--jitter", "1"][..], &DATA].concat();
    let refused = ends(2, dir, &flat)?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("train-samples"), "{refused:?}");
    let refused =
        ends(2, dir, &[&["train", "net.onnx", "-o", "x.onnx", "--dropout", "1"][..], &DATA].concat())?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("[usage]"), "{refused:?}");
    assert!(!dir.join("x.onnx").exists());
    Ok(())
}

#[test]
fn training_stops_early_and_says_what_is_wrong() -> Outcome {
    let dir = scene(200)?;
    let dir = dir.path();
    let early = report(
        dir,
        &["train", "net.onnx", "-o", "o.onnx", "--epochs", "500", "--patience", "3", "--rate", "0.2"],
    )?;
    let epochs = early["epochs"].as_array().map_or(0, Vec::len);
    assert!(epochs < 500 && early["stopped_early"] == true, "{epochs}");
    assert_eq!(early["best"].as_u64(), Some(epochs as u64 - 3));
    for (id, code, args) in [
        ("usage", 2, &["train", "net.onnx", "-o", "x.onnx"][..]),
        (
            "usage",
            2,
            &["train", "net.onnx", "-o", "x.onnx", "--data", "p-images-idx3-ubyte", "--schedule", "up"],
        ),
        (
            "train-diverged",
            2,
            &[
                "train",
                "net.onnx",
                "-o",
                "x.onnx",
                "--data",
                "p-images-idx3-ubyte",
                "--rate",
                "1e30",
                "--epochs",
                "50",
            ],
        ),
        (
            "train-malformed",
            2,
            &["train", "net.onnx", "-o", "x.onnx", "--data", "p-images-idx3-ubyte", "--only", "nothing"],
        ),
        (
            "pass-option",
            2,
            &["train", "net.onnx", "-o", "x.onnx", "--data", "p-images-idx3-ubyte", "--prune", "speed=1"],
        ),
        (
            "output-exists",
            2,
            &["train", "net.onnx", "-o", "p-labels-idx1-ubyte", "--data", "p-images-idx3-ubyte"],
        ),
        ("usage", 2, &["new", "--arch", "tree:1-2", "-o", "x.onnx"]),
    ] {
        let out = ends(code, dir, args)?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains(&format!("[{id}]")), "{args:?}: {said}");
        assert!(!dir.join("x.onnx").exists(), "{args:?}");
    }
    Ok(())
}

#[test]
fn students_learn_from_one_or_several_teachers() -> Outcome {
    let dir = scene(600)?;
    let dir = dir.path();
    for seed in ["1", "2"] {
        let (net, out) = (format!("teacher{seed}.onnx"), format!("taught{seed}.onnx"));
        ends(0, dir, &["new", "--arch", "mlp:16-64-4", "--pixels", "--seed", seed, "-o", &net])?;
        report(dir, &["train", &net, "-o", &out, "--epochs", "8", "--batch", "20"])?;
    }
    let course = ["--epochs", "6", "--batch", "20", "--cache-dir", "told"];
    for (k, models, extra) in [
        (0, &["taught1.onnx"][..], &["--temperature", "2"][..]),
        (1, &["taught1.onnx", "taught2.onnx"], &["--mean", "geometric"]),
        (2, &["taught1.onnx", "taught2.onnx"], &["--hard-weight", "0"]),
    ] {
        let out = format!("student{k}.onnx");
        let command = [&["distill"][..], models, &["net.onnx", "-o", &out], &course, extra].concat();
        let told = report(dir, &command)?;
        let bytes = fs::read(dir.join(&out))?;
        if k < 2 {
            assert!(told["result"]["error"].as_f64() < Some(0.15), "{told:#}");
        } else {
            assert_eq!(told["result"], Value::Null);
        }
        // What teachers said is kept, and the same again.
        assert!(fs::read_dir(dir.join("told"))?.count() > 0);
        assert_eq!(report(dir, &command)?["epochs"], told["epochs"]);
        assert_eq!(fs::read(dir.join(&out))?, bytes);
    }
    // Without labels only what teachers say is left to learn from.
    fs::remove_file(dir.join("p-labels-idx1-ubyte"))?;
    let blind = ["distill", "taught1.onnx", "net.onnx", "-o", "blind.onnx", "--epochs", "1"];
    let refused = ends(2, dir, &[&blind[..], &DATA].concat())?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("train-samples"), "{refused:?}");
    report(dir, &[&blind[..], &["--hard-weight", "0"]].concat())?;
    let wrong = ends(2, dir, &[&["distill", "net.onnx", "-o", "x.onnx"][..], &DATA].concat())?;
    assert!(!wrong.stderr.is_empty());
    Ok(())
}

#[test]
fn gated_units_are_written_with_thresholds_within_their_share() -> Outcome {
    let dir = scene(600)?;
    let dir = dir.path();
    let course = ["--epochs", "6", "--batch", "20", "--rate", "0.1", "--momentum", "0"];
    for (unit, extra) in [
        ("straight-through", &[][..]),
        ("reinforce", &["--rate-factor", "fc1.weight.gater=0.1"]),
        ("gumbel-hard", &["--anneal", "1e-3:0.5:10"]),
        ("noisy-rectifier", &[]),
    ] {
        let pass = format!("insert-gates:kind=units,unit={unit},gater=8,bias=-1");
        let gates = ["--pass", &pass, "--gates", "density=0.3,factor=0.003,most=0.4"];
        let told =
            report(dir, &[&["train", "net.onnx", "-o", "gated.onnx"][..], &course, &gates, extra].concat())?;
        assert!(told["result"]["density"].as_f64() <= Some(0.4), "{unit}: {told:#}");
        assert!(told["result"]["error"].as_f64() < Some(0.3), "{unit}: {told:#}");
        assert!(told["threshold"].is_number());
        // Inference draws nothing: the same again from the file that was written.
        let said = ends(0, dir, &["inspect", "gated.onnx", "--format", "json"])?;
        assert!(!String::from_utf8_lossy(&said.stdout).contains("random"), "{said:?}");
    }
    Ok(())
}

#[test]
fn heads_half_way_are_trained_and_a_threshold_may_be_an_input() -> Outcome {
    let dir = scene(600)?;
    let dir = dir.path();
    ends(0, dir, &["new", "--arch", "mlp:16-16-64-64-4", "--pixels", "-o", "deep.onnx"])?;
    let exit = ["--pass", "insert-gates:kind=early-exit,train=true", "--exit-weight", "0.5"];
    let course = ["--epochs", "6", "--batch", "20", "--rate", "0.01", "--latency", "5"];
    let told = report(dir, &[&["train", "deep.onnx", "-o", "exits.onnx"][..], &course, &exit].concat())?;
    let curve = told["curve"].as_array().ok_or("no curve")?;
    let number = |v: &Value, key: &str| v[key].as_f64().ok_or(format!("no {key} in {v}"));
    let all = number(&told["gates"], "flops")?;
    let (decides, gated) =
        (number(&told["gates"], "deciding_flops")?, number(&told["gates"], "gated_flops")?);
    assert!(decides > 0.0 && gated > 0.5 * all && decides + gated < all, "{told:#}");
    let mut before = -1.0;
    for p in curve {
        let density = number(p, "density")?;
        assert!(density >= before, "{told:#}");
        before = density;
        assert!((number(p, "flops")? - (all - (1.0 - density) * gated)).abs() < 1.0, "{p}");
        assert!(number(&p["latency_ms"], "p99")? >= number(&p["latency_ms"], "mean")? * 0.5, "{p}");
    }
    assert_eq!(before, 1.0);
    assert!(number(&told["result"], "error")? < 0.2, "{told:#}");
    let inspected = ends(0, dir, &["inspect", "exits.onnx"])?;
    assert!(String::from_utf8_lossy(&inspected.stdout).contains(" if"), "{inspected:?}");
    // The same parameters, with the threshold open.
    let open = ["--threshold-input", "--max-accuracy-drop", "50pt"];
    let args = [&["train", "deep.onnx", "-o", "open.onnx"][..], &course[..6], &exit, &open].concat();
    let again = report(dir, &args)?;
    assert!(again["result"]["density"].as_f64() <= told["result"]["density"].as_f64(), "{again:#}");
    for (given, threshold) in [("one", None), ("two", told["threshold"].as_f64())] {
        fs::create_dir(dir.join(given))?;
        let picture: Vec<f32> = (0..16u8).map(|i| f32::from(i * 13 % 7) * 20.0).collect();
        fs::write(dir.join(given).join("input.npy"), npy(&[1, 16], &picture))?;
        if let Some(t) = threshold {
            fs::write(dir.join(given).join("threshold.npy"), npy(&[], &[t as f32]))?;
        }
    }
    ends(0, dir, &["run", "exits.onnx", "--inputs", "one", "--output-dir", "out"])?;
    ends(0, dir, &["run", "open.onnx", "--inputs", "two", "--expect", "out"])?;
    let said = ends(2, dir, &["train", "deep.onnx", "-o", "x.onnx", "--data", DATA[1], "--exit-weight=-1"])?;
    assert!(String::from_utf8_lossy(&said.stderr).contains("not negative"), "{said:?}");
    Ok(())
}

#[test]
fn text_is_learnt_and_its_vocabulary_kept() -> Outcome {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = dir.path();
    let (good, bad) = (["fine", "lovely", "great"], ["dull", "poor", "awful"]);
    let mut table = String::from("text,label\n");
    for k in 0..240 {
        let words = if k % 2 == 0 { good } else { bad };
        table += &format!("\"a {} film, number {}\",{}\n", words[k / 2 % 3], k % 17, k % 2);
    }
    fs::write(dir.join("films.csv"), table)?;
    ends(0, dir, &["new", "--arch", "gru:6x40e8-8-2", "-o", "net.onnx"])?;
    let args = [
        "train",
        "net.onnx",
        "-o",
        "films.onnx",
        "--data",
        "films.csv",
        "--text-column",
        "text",
        "--vocabulary-size",
        "40",
    ];
    let course =
        ["--epochs", "6", "--batch", "12", "--optimizer", "adam", "--rate", "0.02", "--format", "json"];
    let out = ends(0, dir, &[&args[..], &course].concat())?;
    let told: Value = serde_json::from_slice(&out.stdout)?;
    assert!(told["result"]["error"].as_f64() < Some(0.05), "{told:#}");
    let words = fs::read_to_string(dir.join("films.onnx.vocabulary"))?;
    assert!(words.starts_with("planish-vocabulary 1\n") && words.contains("\nlovely\n"), "{words}");
    Ok(())
}

#[test]
fn values_are_learnt_from_arrays() -> Outcome {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = dir.path();
    ends(0, dir, &["new", "--arch", "mlp:2-16-1", "-o", "net.onnx"])?;
    for k in 0..200 {
        let folder = dir.join(format!("points/test_data_set_{k}"));
        fs::create_dir_all(&folder)?;
        let (x, y) = ((k % 20) as f32 / 10.0 - 1.0, (k / 20) as f32 / 5.0 - 1.0);
        fs::write(folder.join("input.npy"), npy(&[1, 2], &[x, y]))?;
        fs::write(folder.join("target.npy"), npy(&[1, 1], &[x * y]))?;
    }
    let args = ["train", "net.onnx", "-o", "o.onnx", "--data", "points", "--loss", "mean-square"];
    let course =
        ["--epochs", "80", "--batch", "20", "--optimizer", "adam", "--rate", "0.01", "--format", "json"];
    let out = ends(0, dir, &[&args[..], &course].concat())?;
    let told: Value = serde_json::from_slice(&out.stdout)?;
    assert!(told["result"]["loss"].as_f64() < Some(0.01) && told["result"]["error"].is_null(), "{told:#}");
    Ok(())
}

fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let dims: String = shape.iter().map(|d| format!("{d},")).collect();
    let mut head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    while (10 + head.len() + 1) % 64 != 0 {
        head.push(' ');
    }
    head.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((head.len() as u16).to_le_bytes());
    out.extend(head.as_bytes());
    values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    out
}
