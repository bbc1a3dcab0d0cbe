//! Data on the command line: accuracy on samples that passes have not seen, preprocessing, files that are not what they say.
#![cfg(all(feature = "llvm", target_arch = "x86_64", target_os = "linux"))]

use planish_ir::Tensor;
use serde_json::{Value, json};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

/// The output is the pixels of a 4 x 4 picture in a row and a little of the others: the class is the place of the brightest.
fn model(shape: &str) -> String {
    let weight = |i: usize| if i.is_multiple_of(17) { 1.0 } else { (i * 7 % 5) as f64 * 0.01 };
    let eye: Vec<String> = (0..256).map(|i| weight(i).to_string()).collect();
    format!(
        "planish-ir 1\ngraph @\"m\"(v0 \"x\": {shape}) {{\n  v1 = const i64[2] [-1, 16]\n  v2 = reshape{{allow_zero=false}} v0, v1 : f32[1,16]\n  v3 = const f32[16,16] [{}]\n  v4 = matmul{{trans_a=false, trans_b=false}} v2, v3 : f32[1,16]\n  return v4 \"y\"\n}}\n",
        eye.join(", ")
    )
}

fn ends(code: i32, dir: &Path, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
    command.env("XDG_CACHE_HOME", dir.join("cache"));
    let out = command.current_dir(dir).args(args).stdin(Stdio::null()).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
    Ok(out)
}

fn scene() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    fs::write(dir.path().join("m.pir"), model("f32[1,1,4,4]"))?;
    Ok(dir)
}

/// Ten pictures, the brightest pixel of picture k at place k. Every label is right but the last.
fn pictures(dir: &Path) -> Outcome {
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 10, 0, 0, 0, 4, 0, 0, 0, 4];
    for k in 0..10u8 {
        images.extend((0..16u8).map(|i| if i == k { 255 } else { 5 * i }));
    }
    fs::write(dir.join("t-images-idx3-ubyte"), images)?;
    let labels = [&[0u8, 0, 8, 1, 0, 0, 0, 10][..], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 0]].concat();
    Ok(fs::write(dir.join("t-labels-idx1-ubyte"), labels)?)
}

#[test]
fn accuracy_is_measured_on_samples_that_passes_have_not_seen() -> Outcome {
    let dir = scene()?;
    let dir = dir.path();
    pictures(dir)?;
    let accuracy = |args: &[&str]| -> Result<Value, Box<dyn Error>> {
        let data = ["--data", "t-images-idx3-ubyte", "--format", "json", "--pass", "quantize:first=true"];
        let out = ends(0, dir, &[args, &data].concat())?;
        Ok(serde_json::from_slice::<Value>(&out.stdout)?["accuracy"].clone())
    };
    // Pictures 4 and 9 are kept from the pass; the label of one of them is wrong.
    for args in [&["optimize", "m.pir", "-o", "o.onnx"][..], &["compile", "m.pir", "-o", "m"]] {
        let a = accuracy(args)?;
        assert_eq!((&a["metric"], &a["class"]), (&json!("top1"), &json!("measured")), "{a}");
        assert_eq!((&a["before"], &a["after"], &a["samples"]), (&json!(0.5), &json!(0.5), &json!(2)), "{a}");
        assert_eq!(a["held_out"], true);
        assert!(a["low"].as_f64() < Some(0.0) && a["high"].as_f64() > Some(0.0), "{a}");
        assert!(a["outputs"][0]["snr_db"].as_f64() > Some(20.0), "{a}");
    }
    let named = accuracy(&["optimize", "m.pir", "-o", "o.onnx", "--eval-data", "t-images-idx3-ubyte"])?;
    assert_eq!((&named["before"], &named["samples"]), (&json!(0.9), &json!(10)));
    assert_eq!(accuracy(&["optimize", "m.pir", "-o", "o.onnx", "--eval-data", "none"])?, Value::Null);
    fs::remove_file(dir.join("t-labels-idx1-ubyte"))?;
    let proxy = accuracy(&["optimize", "m.pir", "-o", "o.onnx"])?;
    assert_eq!((&proxy["metric"], &proxy["class"]), (&json!("agreement"), &json!("proxy")));
    assert_eq!(proxy["before"], 1.0);
    let text = ends(
        0,
        dir,
        &["compile", "m.pir", "-o", "m", "--data", "t-images-idx3-ubyte", "--pass", "quantize:first=true"],
    )?;
    assert!(String::from_utf8_lossy(&text.stdout).contains("proxy of accuracy, no labels"), "{text:?}");
    // Exact passes lose nothing.
    let exact = ends(
        0,
        dir,
        &["optimize", "m.pir", "-o", "e.onnx", "--data", "t-images-idx3-ubyte", "--format", "json"],
    )?;
    assert_eq!(serde_json::from_slice::<Value>(&exact.stdout)?["accuracy"], Value::Null);
    Ok(())
}

#[test]
fn a_model_with_its_preprocessing_is_the_model_behind_it() -> Outcome {
    let dir = scene()?;
    let dir = dir.path();
    pictures(dir)?;
    let rgb = "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[1,3,4,4]) {\n  v1 = unary{kind=tanh} v0 : f32[1,3,4,4]\n  return v1 \"y\"\n}\n";
    fs::write(dir.join("rgb.pir"), rgb)?;
    let recipe = "version = 1\nlevel = 2\n[preprocess]\nchannels = \"bgr\"\nscale = 0.00392156862745098\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n";
    fs::write(dir.join("plain.toml"), recipe)?;
    fs::write(dir.join("embedded.toml"), format!("{recipe}embed = true\n"))?;
    let bytes: Vec<u8> = (0..48u32).map(|i| (i * 89 % 256) as u8).collect();
    let (mean, std) = ([0.485f32, 0.456, 0.406], [0.229f32, 0.224, 0.225]);
    let scale = 0.003_921_568_627_450_98_f64 as f32;
    let mut floats = vec![0f32; 48];
    for (i, b) in bytes.iter().enumerate() {
        let c = 2 - i % 3;
        floats[c * 16 + i / 3] = (f32::from(*b) * scale - mean[c]) / std[c];
    }
    let raw = Tensor::from_bytes(planish_ir::DType::U8, vec![1, 4, 4, 3], bytes.into())?;
    fs::write(dir.join("raw.npy"), planish::io::npy::write(&raw))?;
    fs::write(dir.join("float.npy"), planish::io::npy::write(&Tensor::f32s(&[1, 3, 4, 4], &floats)?))?;
    let mut hashes = Vec::new();
    for (name, input) in [("plain", "x=@float.npy"), ("embedded", "x=@raw.npy")] {
        let recipe = format!("{name}.toml");
        ends(0, dir, &["compile", "rgb.pir", "-o", name, "--recipe", &recipe, "--cpu", "host"])?;
        ends(0, dir, &["run", name, "--input", input, "--output-dir", &format!("out-{name}")])?;
        let describe = Command::new(dir.join(name)).args(["--describe", "--json"]).output()?;
        let describe: Value = serde_json::from_slice(&describe.stdout)?;
        hashes.push(describe["recipe_hash"].clone());
        let dtype = if name == "plain" { "f32" } else { "u8" };
        assert_eq!(describe["inputs"][0]["dtype"], dtype, "{describe}");
    }
    assert_ne!(hashes[0], hashes[1]);
    let read = |name: &str| fs::read(dir.join(format!("out-{name}/output_0.npy")));
    assert_eq!(read("plain")?, read("embedded")?);
    // The samples of an IDX file go to the model in either form, and the result is checked on them.
    fs::write(dir.join("grey.toml"), "version = 1\nlevel = 2\n[preprocess]\nscale = 0.5\nembed = true\n")?;
    let out = ends(
        0,
        dir,
        &[
            "optimize",
            "m.pir",
            "-o",
            "u8.onnx",
            "--recipe",
            "grey.toml",
            "--data",
            "t-images-idx3-ubyte",
            "--format",
            "json",
        ],
    )?;
    let all: Value = serde_json::from_slice(&out.stdout)?;
    assert_eq!((&all["check"]["verdict"], &all["check"]["samples"]), (&json!("equal"), &json!(10)), "{all}");
    let out = ends(2, dir, &["optimize", "m.pir", "-o", "z.onnx", "--recipe", "plain.toml"])?;
    assert!(!dir.join("z.onnx").exists(), "{out:?}");
    Ok(())
}

#[test]
fn data_files_that_lie_are_refused_and_nothing_is_written() -> Outcome {
    let dir = scene()?;
    let dir = dir.path();
    fs::write(
        dir.join("huge-images-idx3-ubyte"),
        [0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 4],
    )?;
    fs::create_dir(dir.join("png"))?;
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 8, 2, 0, 0, 0]);
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..]);
    png.extend(crc.sum().to_be_bytes());
    png.extend(b"\0\0\0\0IEND\xaeB`\x82");
    fs::write(dir.join("png/a.png"), png)?;
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 4, 99999999999), }";
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.bytes());
    fs::write(dir.join("x.npy"), &npy)?;
    let mut zip = zip::ZipWriter::new(fs::File::create(dir.join("bomb.npz"))?);
    zip.start_file("x.npy", zip::write::SimpleFileOptions::default())?;
    npy.resize(8 << 20, 0);
    std::io::Write::write_all(&mut zip, &npy)?;
    zip.finish()?;
    for (data, id) in [
        ("huge-images-idx3-ubyte", "[idx-malformed]"),
        ("png", "[image-malformed]"),
        ("x.npy", "[npy-malformed]"),
        ("bomb.npz", "[npy-malformed]"),
    ] {
        let args = ["optimize", "m.pir", "-o", "out.onnx", "--data", data, "--max-memory", "1G"];
        let out = ends(2, dir, &args)?;
        assert!(String::from_utf8_lossy(&out.stderr).contains(id), "{data}: {out:?}");
        assert!(!dir.join("out.onnx").exists());
    }
    Ok(())
}
