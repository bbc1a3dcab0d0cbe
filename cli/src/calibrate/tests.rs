use super::*;
use crate::data::{DataArgs, Sample};
use planish_ir::text;
use planish_passes::Cover;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// A running sum, and its square.
const SUM: &str = "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[3], v1 \"s\": f32[3]) {
  v2 \"sum\" = binary{kind=add} v0, v1 : f32[3]
  v3 \"square\" = binary{kind=mul} v2, v2 : f32[3]
  return v2 \"next\", v3 \"y\"\n}\n";

fn value(g: &Graph, name: &str) -> std::result::Result<ValueId, String> {
    let found = g.nodes_in(g.root()).flat_map(|n| g.node(n).outputs.clone());
    found.into_iter().find(|v| g.value(*v).name.as_deref() == Some(name)).ok_or_else(|| name.to_owned())
}

fn data(samples: &[[f32; 3]]) -> std::result::Result<Data, Diag> {
    let one = |x: &[f32; 3]| -> std::result::Result<Sample, Diag> {
        let values = vec![Some(Tensor::f32s(&[3], x)?.into()), Some(Tensor::f32s(&[3], &[1.0; 3])?.into())];
        Ok(Sample { name: String::new(), values, labels: None })
    };
    Ok(Data::of_samples("d", samples.iter().map(one).collect::<std::result::Result<_, _>>()?))
}

#[test]
fn statistics_are_those_of_the_runs_and_kept_by_content() -> Outcome {
    let g = text::parse(SUM)?;
    let asked =
        [Ask::along(value(&g, "square")?, 0), Ask::whole(value(&g, "sum")?), Ask::whole(g.inputs()[0])];
    let dir = tempfile::tempdir()?;
    let cache = Cache::new(dir.path().join("c"));
    let entries = || std::fs::read_dir(dir.path().join("c")).map_or(0, Iterator::count);
    let on = |d: Data| Calibrator::new(Some(d)).kept(Some(cache.clone()));
    let samples = [[0.0, 1.0, 2.0], [-5.0, 0.0, 9.0]];
    let first = on(data(&samples)?).stats(&g, &asked, Samples::Given)?;
    assert_eq!((first[1].min(), first[1].max(), first[1].count), (-4.0, 10.0, 6));
    assert_eq!((first[2].min(), first[2].max()), (-5.0, 9.0));
    let channels = first[0].channels.as_ref().ok_or("no channels")?;
    assert_eq!(channels.largest, [16.0, 4.0, 100.0]);
    assert_eq!(channels.squares, [257.0, 17.0, 10081.0]);
    assert_eq!(entries(), 1);
    // Damage shows whether it is read at all.
    assert_eq!(on(data(&samples)?).stats(&g, &asked, Samples::Given)?, first);
    assert_eq!(entries(), 1);
    let without = Calibrator::new(Some(data(&samples)?)).stats(&g, &asked, Samples::Given)?;
    assert_eq!(without, first);
    // Other samples, another question, another constant: other entries.
    on(data(&samples[..1])?).stats(&g, &asked, Samples::Given)?;
    on(data(&samples)?).stats(&g, &asked[1..], Samples::Given)?;
    assert_eq!(entries(), 3);
    let ranges = on(data(&samples)?).ranges(&g, &[asked[1].value], Samples::Given, Cover::All)?;
    assert_eq!(ranges, [[-4.0, 10.0]]);
    let none = Calibrator::new(None).stats(&g, &asked, Samples::Given).err().map(|d| d.id);
    assert_eq!(none, Some("calibration-missing"));
    Ok(())
}

#[test]
fn sequences_run_through_their_state() -> Outcome {
    let g = text::parse(SUM)?;
    let dir = tempfile::tempdir()?;
    for (i, steps) in [[1.0f32, 2.0, 3.0], [10.0, 0.0, -20.0]].iter().enumerate() {
        let x: Vec<f32> = steps.iter().flat_map(|x| [*x; 3]).collect();
        let mut zip = zip::ZipWriter::new(std::fs::File::create(dir.path().join(format!("{i}.npz")))?);
        zip.start_file("x.npy", zip::write::SimpleFileOptions::default())?;
        std::io::Write::write_all(&mut zip, &crate::io::npy::write(&Tensor::f32s(&[3, 3], &x)?))?;
        zip.finish()?;
    }
    let args = DataArgs {
        data: vec![dir.path().to_owned()],
        samples_axis: true,
        state: vec!["next=s".into()],
        ..DataArgs::default()
    };
    let data = args.read(&g).map_err(|f| f.message())?.ok_or("no data")?;
    let calibrator = Calibrator::new(Some(data));
    let mut seen = Vec::new();
    calibrator.stream(&g, &[value(&g, "sum")?], Samples::Given, &mut |t| {
        seen.extend(t[0].to_f64().first().copied());
        Ok(())
    })?;
    assert_eq!(seen, [1.0, 3.0, 6.0, 10.0, 10.0, -10.0]);
    let stats = calibrator.stats(&g, &[Ask::whole(value(&g, "square")?)], Samples::Given)?;
    assert_eq!(stats[0].max(), 100.0);
    Ok(())
}

#[test]
fn what_is_kept_is_read_whole_or_not_at_all() {
    let all = vec![Stats::default(), Stats::default()];
    let bytes = encode(&all);
    assert_eq!(decode(&bytes, 2), Some(all));
    assert_eq!(decode(&bytes, 1), None);
    assert_eq!(decode(&bytes[..bytes.len() - 1], 2), None);
}
