use super::*;
use std::error::Error;

fn signature(inputs: &[(&str, DType, &[usize])]) -> Signature {
    let port = |(name, dtype, shape): &(&str, DType, &[usize])| Port {
        name: (*name).to_owned(),
        ty: planish_ir::TensorType::fixed(*dtype, shape).into(),
    };
    Signature { inputs: inputs.iter().map(port).collect(), outputs: Vec::new(), symbols: Symbols::default() }
}

fn save(path: &Path, t: &Tensor) -> std::result::Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    Ok(std::fs::write(path, npy::write(t))?)
}

fn first(t: &Option<Value>) -> Option<f64> {
    t.as_ref()?.tensor().ok()?.to_f64().first().copied()
}

#[test]
fn folders_by_name_by_position_and_by_sample() -> std::result::Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let s = signature(&[("a/b", DType::F32, &[1]), ("y", DType::F32, &[1])]);
    let one = |v: f32| Tensor::f32s(&[1], &[v]);
    save(&dir.path().join("named/a%2Fb.npy"), &one(1.0)?)?;
    save(&dir.path().join("named/y.npy"), &one(2.0)?)?;
    save(&dir.path().join("placed/input_1.npy"), &one(3.0)?)?;
    for k in [10, 2] {
        save(&dir.path().join(format!("many/test_data_set_{k}/input_0.npy")), &one(k as f32)?)?;
    }
    let read = |name: &str| folder(&dir.path().join(name), &s).map_err(|f| f.message());
    let named = &read("named")?[0];
    assert_eq!((first(&named.values[0]), first(&named.values[1])), (Some(1.0), Some(2.0)));
    let placed = &read("placed")?[0];
    assert_eq!((first(&placed.values[0]), first(&placed.values[1])), (None, Some(3.0)));
    assert!(missing(placed, &s, &[]).is_some_and(|f| f.message().contains("a/b")));
    assert!(missing(placed, &s, &[0]).is_none());
    let many = read("many")?;
    assert_eq!(
        many.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(),
        ["test_data_set_2", "test_data_set_10"]
    );
    assert_eq!(first(&many[0].values[0]), Some(2.0));
    Ok(())
}

#[test]
fn names_may_hold_an_equals_sign() -> std::result::Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let s = signature(&[("a=b:c", DType::F32, &[2])]);
    let path = dir.path().join("x.bin");
    std::fs::write(&path, [0, 0, 128, 63, 0, 0, 0, 64])?;
    let args = InputArgs { input: vec![format!("a=b:c=@{}", path.display())], ..InputArgs::default() };
    let got = read(&args, &s).map_err(|f| f.message())?;
    assert_eq!(got[0].values[0].as_ref().ok_or("none")?.tensor()?.to_f64(), [1.0, 2.0]);
    let wrong = InputArgs { input: vec![format!("q=@{}", path.display())], ..InputArgs::default() };
    assert_eq!(read(&wrong, &s).err().map(|f| f.diags[0].id), Some("input-unknown"));
    let torn = InputArgs { input: vec!["q".into()], ..InputArgs::default() };
    assert_eq!(read(&torn, &s).err().map(|f| f.exit().code()), Some(2));
    std::fs::write(&path, [0; 7])?;
    assert!(read(&args, &s).is_err(), "a raw file of another size");
    Ok(())
}

#[test]
fn archives_hold_one_or_many_samples() -> std::result::Result<(), Box<dyn Error>> {
    use std::io::Write;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("x.npz");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path)?);
    for (key, t) in [("x", Tensor::f32s(&[2, 1], &[5.0, 6.0])?), ("label", Tensor::f32s(&[2], &[0.0, 1.0])?)]
    {
        zip.start_file(format!("{key}.npy"), zip::write::SimpleFileOptions::default())?;
        zip.write_all(&npy::write(&t))?;
    }
    zip.finish()?;
    let s = signature(&[("x", DType::F32, &[1])]);
    let args = InputArgs { inputs: Some(path), samples_axis: true, ..InputArgs::default() };
    let got = read(&args, &s).map_err(|f| f.message())?;
    assert_eq!((got.len(), first(&got[1].values[0])), (2, Some(6.0)));
    let whole = read(&InputArgs { samples_axis: false, ..args }, &s).map_err(|f| f.message())?;
    assert_eq!(whole[0].values[0].as_ref().ok_or("none")?.tensor()?.shape(), [2, 1]);
    Ok(())
}
