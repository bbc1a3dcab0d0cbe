use super::*;
use crate::io::npy;
use planish_ir::{DType, Tensor, text};
use std::fs;
use std::path::Path;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

fn graph(inputs: &str, output: &str) -> Graph {
    let text = format!("planish-ir 1\ngraph @\"m\"({inputs}) {{\n  return {output}\n}}\n");
    text::parse(&text).unwrap_or_else(|d| panic!("{d}\n{text}"))
}

fn args(path: &Path) -> DataArgs {
    DataArgs { data: vec![path.to_owned()], ..DataArgs::default() }
}

fn read(args: &DataArgs, graph: &Graph) -> std::result::Result<Data, String> {
    args.read(graph).map_err(|f| f.message())?.ok_or_else(|| "no data".into())
}

/// Name, labels and elements of each sample.
fn all(data: &Data) -> std::result::Result<Vec<(String, Option<Vec<i64>>, Vec<f64>)>, String> {
    let one = |k: usize| -> std::result::Result<_, String> {
        let s = data.sample(k).map_err(|f| f.message())?;
        let first = s.values.iter().flatten().next().and_then(|v| v.tensor().ok());
        Ok((s.name.clone(), s.labels.clone(), first.map(Tensor::to_f64).unwrap_or_default()))
    };
    (0..data.len()).map(one).collect()
}

fn png(path: &Path, grey: u8) -> Outcome {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    Ok(image::GrayImage::from_pixel(3, 2, image::Luma([grey])).save(path)?)
}

fn npy_file(path: &Path, shape: &[usize], values: &[f32]) -> Outcome {
    Ok(fs::write(path, npy::write(&Tensor::f32s(shape, values)?))?)
}

fn npz(path: &Path, arrays: &[(&str, Tensor)]) -> Outcome {
    let mut zip = zip::ZipWriter::new(fs::File::create(path)?);
    for (key, t) in arrays {
        zip.start_file(format!("{key}.npy"), zip::write::SimpleFileOptions::default())?;
        std::io::Write::write_all(&mut zip, &npy::write(t))?;
    }
    zip.finish()?;
    Ok(())
}

#[test]
fn folders_of_pictures_have_classes_by_name() -> Outcome {
    let dir = tempfile::tempdir()?;
    let g = graph("v0 \"x\": f32[N,1,2,3]", "v0 \"y\"");
    for (name, grey) in [("cat/b2.png", 2), ("cat/b10.png", 10), ("cat/a.PNG", 1), ("ant/z.png", 7)] {
        png(&dir.path().join(name), grey)?;
    }
    fs::write(dir.path().join("cat/notes.txt"), "no picture")?;
    let data = read(&args(dir.path()), &g)?;
    let seen = all(&data)?;
    let names: Vec<&str> = seen.iter().map(|s| s.0.as_str()).collect();
    assert_eq!(names, ["ant/z.png", "cat/a.PNG", "cat/b2.png", "cat/b10.png"]);
    assert_eq!(seen[0].1, Some(vec![0]));
    assert_eq!((&seen[3].1, &seen[3].2), (&Some(vec![1]), &vec![10.0; 6]));
    // Half of them, spread over all.
    let half = read(&DataArgs { data_limit: Some(2), ..args(dir.path()) }, &g)?;
    assert_eq!(all(&half)?.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["ant/z.png", "cat/b2.png"]);
    assert_ne!(half.digest().map_err(|f| f.message())?, data.digest().map_err(|f| f.message())?);
    // Numbers are classes themselves.
    fs::rename(dir.path().join("cat"), dir.path().join("7"))?;
    fs::rename(dir.path().join("ant"), dir.path().join("12"))?;
    let seen = all(&read(&args(dir.path()), &g)?)?;
    assert_eq!(seen.iter().map(|s| s.1.clone()).collect::<Vec<_>>(), [7, 7, 7, 12].map(|l| Some(vec![l])));
    // A damaged one is an error where it is read, not a crash.
    fs::write(dir.path().join("7/b2.png"), b"\x89PNG\r\n\x1a\n")?;
    let data = read(&args(dir.path()), &g)?;
    assert_eq!(data.sample(1).err().map(|f| f.diags[0].id), Some("image-malformed"));
    Ok(())
}

#[test]
fn idx_files_bring_their_labels() -> Outcome {
    let dir = tempfile::tempdir()?;
    let g = graph("v0 \"x\": f32[N,1,2,2]", "v0 \"y\"");
    let images = dir.path().join("t-images-idx3-ubyte");
    fs::write(
        &images,
        [&[0u8, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2][..], &[1, 2, 3, 4, 5, 6, 7, 8]].concat(),
    )?;
    let plain = all(&read(&args(&images), &g)?)?;
    assert_eq!((plain.len(), &plain[1].1, &plain[1].2), (2, &None, &vec![5.0, 6.0, 7.0, 8.0]));
    fs::write(dir.path().join("t-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 2, 9, 3])?;
    // The folder that holds them stands for the file.
    let labelled = all(&read(&args(dir.path()), &g)?)?;
    assert_eq!(labelled.iter().map(|s| s.1.clone()).collect::<Vec<_>>(), [Some(vec![9]), Some(vec![3])]);
    fs::write(dir.path().join("t-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 1, 9])?;
    let f = args(&images).read(&g).err();
    assert_eq!(f.map(|f| f.diags[0].id), Some("idx-malformed"));
    // Preprocessing comes before.
    fs::remove_file(dir.path().join("t-labels-idx1-ubyte"))?;
    let halved = Preprocess { scale: 0.5, mean: vec![1.0], std: vec![0.25], ..Preprocess::default() };
    let data = args(&images).read_with(&g, Some(&halved)).map_err(|f| f.message())?.ok_or("no data")?;
    assert_eq!(all(&data)?[0].2, [-2.0, 0.0, 2.0, 4.0]);
    Ok(())
}

#[test]
fn arrays_are_read_in_parts() -> Outcome {
    let dir = tempfile::tempdir()?;
    let one = graph("v0 \"x\": f32[N,2]", "v0 \"y\"");
    let file = dir.path().join("x.npy");
    npy_file(&file, &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    let whole = read(&args(&file), &one)?;
    assert_eq!((whole.len(), whole.sample(0).map_err(|f| f.message())?.name), (1, String::new()));
    let rows = DataArgs { samples_axis: true, ..args(&file) };
    assert_eq!(all(&read(&rows, &one)?)?[2].2, [5.0, 6.0]);
    let two = graph("v0 \"x\": f32[N,2], v1 \"rate\": i64[]", "v0 \"y\"");
    assert!(read(&rows, &two).is_err());
    // A scalar is that of every sample, `label` is no input.
    let archive = dir.path().join("a.npz");
    let x = Tensor::f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0])?;
    npz(&archive, &[("x", x), ("rate", Tensor::scalar_i64(16)), ("label", Tensor::vec_i64(&[4, 5]))])?;
    let data = read(&DataArgs { samples_axis: true, ..args(&archive) }, &two)?;
    let s = data.sample(1).map_err(|f| f.message())?;
    assert_eq!((s.name.as_str(), s.labels), ("test_data_set_1", Some(vec![5])));
    assert_eq!(s.values[1].as_ref().and_then(|v| v.tensor().ok()).map(Tensor::to_f64), Some(vec![16.0]));
    Ok(())
}

#[test]
fn each_source_is_a_sequence() -> Outcome {
    let dir = tempfile::tempdir()?;
    let g = graph("v0 \"x\": f32[1], v1 \"s\": f32[1]", "v0 \"next\"");
    for (i, steps) in [3usize, 1, 2, 2, 1].iter().enumerate() {
        let x: Vec<f32> = (0..*steps).map(|k| (10 * i + k) as f32).collect();
        npz(&dir.path().join(format!("s{i}.npz")), &[("x", Tensor::f32s(&[*steps, 1], &x)?)])?;
    }
    let plain = DataArgs { samples_axis: true, ..args(dir.path()) };
    let missing = plain.read(&g).err().map(|f| f.diags[0].id);
    assert_eq!(missing, Some("input-missing"), "the state is an input like others without --state");
    let args = DataArgs { state: vec!["next=s".into()], ..plain };
    let data = read(&args, &g)?;
    let begins: Vec<bool> = (0..data.len()).map(|k| data.begins(k)).collect();
    assert_eq!(begins, [true, false, false, true, true, false, true, false, true]);
    // What is kept for accuracy are whole sequences.
    let (seen, held) = args.split(&data, &g, None).map_err(|f| f.message())?;
    let (held, apart) = held.ok_or("nothing kept")?;
    assert_eq!((seen.len(), held.len(), apart), (8, 1, true));
    assert_eq!(all(&held)?[0].2, [40.0]);
    let none = DataArgs { eval_data: Some("none".into()), ..args.clone() };
    let (seen, held) = none.split(&data, &g, None).map_err(|f| f.message())?;
    assert_eq!((seen.len(), held.is_none()), (9, true));
    // Two sequences are too few to keep one.
    let few = read(&DataArgs { data_limit: Some(4), ..args.clone() }, &g)?;
    let (seen, held) = args.split(&few, &g, None).map_err(|f| f.message())?;
    assert_eq!((seen.len(), held.map(|(h, apart)| (h.len(), apart))), (4, Some((4, false))));
    let wrong = DataArgs { state: vec!["next=t".into()], ..args };
    assert_eq!(wrong.read(&g).err().map(|f| f.diags[0].id), Some("usage"));
    Ok(())
}

#[test]
fn preprocessing_makes_what_it_says() -> Outcome {
    let signature = |shape: &str| Signature::of(&graph(&format!("v0 \"x\": {shape}"), "v0 \"y\""));
    let resolve = |p: &Preprocess, shape: &str| p.resolve(&signature(shape));
    let picture =
        crate::io::picture::Picture { height: 1, width: 2, channels: 3, data: vec![10, 20, 30, 40, 50, 60] };
    let made = |p: &Preprocess, shape: &str| -> std::result::Result<(Vec<usize>, Vec<f64>), String> {
        let t = resolve(p, shape).and_then(|r| r.tensor(picture.clone())).map_err(|f| f.message())?;
        Ok((t.shape().to_vec(), t.to_f64()))
    };
    let plain = Preprocess::default();
    assert_eq!(made(&plain, "f32[N,3,1,2]")?, (vec![1, 3, 1, 2], vec![10.0, 40.0, 20.0, 50.0, 30.0, 60.0]));
    assert_eq!(made(&plain, "f16[N,H,W,3]")?, (vec![1, 1, 2, 3], vec![10.0, 20.0, 30.0, 40.0, 50.0, 60.0]));
    assert_eq!(made(&plain, "u8[3,H,W]")?.0, [3, 1, 2]);
    let flat = Preprocess { size: Some([1, 2]), ..plain.clone() };
    assert_eq!(made(&flat, "f32[N,2]")?, (vec![1, 2], vec![18.0, 48.0]));
    let bgr = Preprocess {
        channels: Some(crate::preprocess::Channels::Bgr),
        mean: vec![1.0, 2.0, 3.0],
        ..plain.clone()
    };
    assert_eq!(made(&bgr, "f32[1,3,H,W]")?.1, [29.0, 59.0, 18.0, 48.0, 7.0, 37.0]);
    // Aspect kept: the middle of a picture twice as wide as high, or all of it with black above and below.
    let crop = Preprocess { fit: crate::preprocess::Fit::Crop, shorter: Some(2), ..plain.clone() };
    assert_eq!(made(&crop, "f32[1,1,2,2]")?.0, [1, 1, 2, 2]);
    let pad = Preprocess { fit: crate::preprocess::Fit::Pad, ..plain.clone() };
    assert_eq!(made(&pad, "f32[1,1,4,2]")?.1, [0.0, 0.0, 18.0, 48.0, 0.0, 0.0, 0.0, 0.0]);
    for (p, shape) in [
        (Preprocess { size: Some([4, 4]), ..plain.clone() }, "f32[1,3,2,2]"),
        (Preprocess { size: Some([0, 4]), ..plain.clone() }, "f32[1,3,H,W]"),
        (Preprocess { size: Some([1 << 20, 4]), ..plain.clone() }, "f32[1,3,H,W]"),
        (Preprocess { shorter: Some(4), ..plain.clone() }, "f32[1,3,2,2]"),
        (Preprocess { mean: vec![1.0, 2.0], ..plain.clone() }, "f32[1,3,2,2]"),
        (Preprocess { std: vec![0.0], ..plain.clone() }, "f32[1,3,2,2]"),
        (Preprocess { scale: f64::NAN, ..plain.clone() }, "f32[1,3,2,2]"),
        (Preprocess { scale: 0.5, ..plain.clone() }, "u8[1,3,2,2]"),
        (Preprocess { input: Some("z".into()), ..plain.clone() }, "f32[1,3,2,2]"),
        (Preprocess { channels: Some(crate::preprocess::Channels::Grey), ..plain.clone() }, "f32[1,3,2,2]"),
        (plain.clone(), "f32[1,7,2,2]"),
        (plain, "i64[1,3,2,2]"),
    ] {
        let failed = resolve(&p, shape).err().map(|f| f.diags[0].id);
        assert_eq!(failed, Some("preprocess-malformed"), "{shape} {p:?}");
    }
    Ok(())
}

#[test]
fn bytes_of_an_archive_are_pictures_where_preprocessing_says_so() -> Outcome {
    let dir = tempfile::tempdir()?;
    let g = graph("v0 \"x\": f32[N,1,2,2]", "v0 \"y\"");
    let bytes = Tensor::from_bytes(DType::U8, vec![2, 2, 2, 1], (0..8).collect::<Vec<u8>>().into())?;
    let path = dir.path().join("a.npz");
    npz(&path, &[("x", bytes)])?;
    let args = DataArgs { samples_axis: true, ..args(&path) };
    assert_eq!(args.read(&g).err().map(|f| f.diags[0].id), Some("input-mismatch"));
    let p = Preprocess { scale: 2.0, ..Preprocess::default() };
    let data = args.read_with(&g, Some(&p)).map_err(|f| f.message())?.ok_or("no data")?;
    assert_eq!(all(&data)?[1].2, [8.0, 10.0, 12.0, 14.0]);
    // The model that does it itself takes the bytes.
    let mut embedded = g.clone();
    let p = Preprocess { embed: true, ..p };
    p.embed(&mut embedded).map_err(|f| f.message())?;
    let data = args.read_with(&embedded, Some(&p)).map_err(|f| f.message())?.ok_or("no data")?;
    assert_eq!(all(&data)?[1].2, [4.0, 5.0, 6.0, 7.0]);
    Ok(())
}
