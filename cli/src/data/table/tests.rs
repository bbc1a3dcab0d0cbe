use super::*;
use crate::data::tokens::Vocabulary;
use crate::data::{Data, DataArgs};
use crate::files::Writer;
use planish_ir::{Graph, text};
use std::fs;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

fn graph(inputs: &str) -> Graph {
    let text = format!("planish-ir 1\ngraph @\"m\"({inputs}) {{\n  return v0 \"y\"\n}}\n");
    text::parse(&text).unwrap_or_else(|d| panic!("{d}\n{text}"))
}

fn table(path: &Path, table: TableArgs) -> DataArgs {
    DataArgs { data: vec![path.to_owned()], table, ..DataArgs::default() }
}

fn text_of(column: &str) -> TableArgs {
    TableArgs { text_column: Some(column.into()), ..TableArgs::default() }
}

fn read(args: &DataArgs, graph: &Graph) -> std::result::Result<Data, String> {
    args.read(graph).map_err(|f| f.message())?.ok_or_else(|| "no data".into())
}

/// Name, label, shape and elements of a sample.
type Seen = (String, Option<Vec<i64>>, Vec<usize>, Vec<f64>);

fn seen(data: &Data, k: usize) -> std::result::Result<Seen, String> {
    let s = data.sample(k).map_err(|f| f.message())?;
    let t = s.values.iter().flatten().next().and_then(|v| v.tensor().ok().cloned()).ok_or("no value")?;
    Ok((s.name, s.labels, t.shape().to_vec(), t.to_f64()))
}

fn elements(data: &Data) -> std::result::Result<Vec<Vec<f64>>, String> {
    (0..data.len()).map(|k| Ok(seen(data, k)?.3)).collect()
}

const REVIEWS: &str = "text,label,source\n\"Good, good film<br />\",pos,imdb\nBad,neg,imdb\nOther,neg,rt\n\"A film,\nnot bad\",neg,imdb\n";

#[test]
fn text_becomes_ids() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("r.csv");
    fs::write(&path, REVIEWS)?;
    let only = TableArgs { rows: vec!["source=imdb".into()], ..text_of("text") };
    let data = read(&table(&path, only.clone()), &graph("v0 \"x\": i64[N,T]"))?;
    // bad 2, film 2, good 2 of each, then a and not.
    let want = ("line 2".into(), Some(vec![1]), vec![1, 4], vec![0.0, 4.0, 4.0, 3.0]);
    assert_eq!((data.len(), seen(&data, 0)?), (3, want));
    assert_eq!(seen(&data, 2)?, ("line 5".into(), Some(vec![0]), vec![1, 4], vec![5.0, 3.0, 6.0, 2.0]));
    assert_eq!(data.classes(), Some(&["neg".to_owned(), "pos".to_owned()][..]));
    assert_eq!(data.encoder().map(Encoder::size), Some(7));
    // The length is that of the option, of the input, or of the longest row; either end is filled up or cut.
    for (inputs, tokens, pad, layout, shape, first) in [
        ("i64[N,T]", Some(2), Pad::Front, TextLayout::BatchFirst, &[1, 2][..], &[4.0, 3.0][..]),
        ("i64[N,T]", Some(2), Pad::Back, TextLayout::BatchFirst, &[1, 2], &[4.0, 4.0]),
        ("i32[1,5]", None, Pad::Back, TextLayout::BatchFirst, &[1, 5], &[4.0, 4.0, 3.0, 0.0, 0.0]),
        ("i32[3,1]", None, Pad::Front, TextLayout::TimeFirst, &[3, 1], &[4.0, 4.0, 3.0]),
        ("i64[T]", None, Pad::Front, TextLayout::TimeFirst, &[4], &[0.0, 4.0, 4.0, 3.0]),
    ] {
        let args = TableArgs { tokens, pad, text_layout: layout, ..only.clone() };
        let data = read(&table(&path, args), &graph(&format!("v0 \"x\": {inputs}")))?;
        let (_, _, seen_shape, ids) = seen(&data, 0)?;
        assert_eq!((&seen_shape[..], &ids[..]), (shape, first), "{inputs} {tokens:?} {pad:?}");
    }
    // Alternatives of one column, and the rows in which all conditions hold.
    let count = |conditions: &[&str]| {
        let rows = conditions.iter().map(|c| (*c).to_owned()).collect();
        let args = table(&path, TableArgs { rows, ..text_of("text") });
        read(&args, &graph("v0 \"x\": i64[N,T]")).map(|d| d.len())
    };
    assert_eq!(count(&["source=imdb", "source=rt"])?, 4);
    assert_eq!(count(&["source=imdb", "label=neg"])?, 2);
    assert!(
        count(&["source=x"]).is_err_and(|e| e.contains("csv-empty") && e.contains("no row has source=x"))
    );
    Ok(())
}

#[test]
fn bytes_need_no_vocabulary() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("b.csv");
    fs::write(&path, "t\nAb\né\n")?;
    let bytes = TableArgs { tokenizer: Tokenizer::Byte, ..text_of("t") };
    let g = graph("v0 \"x\": i64[N,T]");
    let data = read(&table(&path, bytes.clone()), &g)?;
    assert_eq!(elements(&data)?, [[66.0, 99.0], [196.0, 170.0]]);
    let both = TableArgs { vocabulary_size: Some(9), ..bytes };
    assert!(read(&table(&path, both), &g).is_err_and(|e| e.contains("[usage]")));
    // Long rows do not set the length beyond a limit.
    fs::write(&path, format!("t\n{}\nb\n", "a ".repeat(600)))?;
    let data = read(&table(&path, text_of("t")), &g)?;
    assert_eq!(seen(&data, 1)?.2, [1, 512]);
    Ok(())
}

#[test]
fn a_vocabulary_is_that_of_the_file_if_there_is_one() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (path, words) = (dir.path().join("r.csv"), dir.path().join("v.txt"));
    fs::write(&path, "text\nsome old film\n")?;
    let args = TableArgs { vocabulary: Some(words.clone()), ..text_of("text") };
    let g = graph("v0 \"x\": i64[N,T]");
    let own = read(&table(&path, args.clone()), &g)?;
    assert_eq!(elements(&own)?, [[4.0, 3.0, 2.0]]);
    Vocabulary::build(["new film film"], 10)
        .and_then(|v| v.write(&words, &Writer::new(false)))
        .map_err(|f| f.message())?;
    let given = read(&table(&path, args.clone()), &g)?;
    assert_eq!(elements(&given)?, [[1.0, 1.0, 2.0]]);
    let less = read(&table(&path, TableArgs { vocabulary_size: Some(3), ..args.clone() }), &g)?;
    assert_eq!(less.encoder().map(Encoder::size), Some(3));
    // The file decides the samples, though it is none of the data.
    assert_ne!(own.digest().map_err(|f| f.message())?, given.digest().map_err(|f| f.message())?);
    fs::write(&words, "film\n")?;
    assert!(read(&table(&path, args), &g).is_err_and(|e| e.contains("[vocabulary-malformed]")));
    Ok(())
}

#[test]
fn other_samples_have_the_vocabulary_and_the_classes_of_the_first() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (train, test) = (dir.path().join("train.csv"), dir.path().join("test.csv"));
    fs::write(&train, "text,label\ngood good,up\nbad,down\n")?;
    fs::write(&test, "label,text\nup,\"better, good bad good\"\n")?;
    let g = graph("v0 \"x\": i64[N,T]");
    let args = DataArgs { eval_data: Some(test.clone()), ..table(&train, text_of("text")) };
    let data = read(&args, &g)?;
    let held = args.split(&data, &g, None).map_err(|f| f.message())?.1.ok_or("nothing held")?.0;
    assert_eq!(seen(&held, 0)?, ("line 2".into(), Some(vec![1]), vec![1, 2], vec![3.0, 2.0]));
    fs::write(&test, "label,text\nsideways,good\n")?;
    let said = args.split(&data, &g, None).err().map(|f| f.message()).unwrap_or_default();
    assert!(said.contains("line 2, column \"label\": \"sideways\" is no class of --data"), "{said}");
    // Files of one --data have one vocabulary.
    fs::write(&test, "label,text\nleft,good bad bad bad\n")?;
    let both = read(&DataArgs { data: vec![train, test], ..args }, &g)?;
    assert_eq!(both.classes().map(<[String]>::len), Some(3));
    assert_eq!(seen(&both, 1)?.3, [0.0, 0.0, 0.0, 2.0]);
    assert_eq!((seen(&both, 2)?.1, seen(&both, 2)?.3), (Some(vec![1]), vec![3.0, 2.0, 2.0, 2.0]));
    Ok(())
}

#[test]
fn columns_of_numbers_are_features() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("n.csv");
    fs::write(&path, ",b,name,a,label,fold\n0,1.5,x,-2,3,1\n1,1e3, y, 7 ,5,2\n2,0,z,1,3,1\n")?;
    let fold = TableArgs { rows: vec!["fold=1".into()], ..TableArgs::default() };
    let g = graph("v0 \"x\": f32[N,2], v1 \"step\": i64[]");
    let missing = read(&table(&path, fold.clone()), &g).err().unwrap_or_default();
    assert!(missing.contains("[input-missing]") && missing.contains("\"step\""), "{missing}");
    let g = graph("v0 \"x\": f32[N,2]");
    let data = read(&table(&path, fold.clone()), &g)?;
    assert_eq!(data.features(), Some(&["b".to_owned(), "a".to_owned()][..]));
    assert_eq!((data.len(), data.classes()), (2, None));
    assert_eq!(seen(&data, 0)?, ("line 2".into(), Some(vec![3]), vec![1, 2], vec![1.5, -2.0]));
    let all = read(&table(&path, TableArgs::default()), &graph("v0 \"x\": f64[1,1,C]"))?;
    assert_eq!(seen(&all, 1)?, ("line 3".into(), Some(vec![5]), vec![1, 1, 3], vec![1000.0, 7.0, 2.0]));
    // The second file may have its columns in another order.
    let other = dir.path().join("o.csv");
    fs::write(&other, "a,b,fold\n4,5,1\n")?;
    let two = read(&DataArgs { data: vec![path.clone(), other], ..table(&path, fold) }, &g)?;
    assert_eq!((seen(&two, 2)?.1, seen(&two, 2)?.3), (None, vec![5.0, 4.0]));
    Ok(())
}

#[test]
fn tables_that_do_not_fit_are_refused() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("x.csv");
    let label = |name: &str| TableArgs { label_column: Some(name.into()), ..TableArgs::default() };
    let none = TableArgs::default;
    let (ints, floats) = ("v0 \"x\": i64[N,T]", "v0 \"x\": f32[N,2]");
    for (file, args, inputs, id, want) in [
        ("a,b\n1,2\n", text_of("c"), ints, "csv-column", "there is no column \"c\"; there are \"a\", \"b\""),
        ("a,b\n1,2\n", label("c"), floats, "csv-column", "no column \"c\""),
        (
            "a,b\n1,2\n",
            TableArgs { rows: vec!["c=1".into()], ..none() },
            floats,
            "csv-column",
            "no column \"c\"",
        ),
        ("a,b\n1,2\n", TableArgs { rows: vec!["c".into()], ..none() }, floats, "usage", "COLUMN=VALUE"),
        (
            "a,b\n1,2\n3,x\n",
            none(),
            floats,
            "csv-value",
            "x.csv: line 3, column \"b\": \"x\" is no finite number",
        ),
        ("a,b\n1,\n", none(), floats, "csv-value", "line 2, column \"b\": \"\" is no finite number"),
        ("a,b\n1,1e39\n", none(), floats, "csv-value", "line 2, column \"b\""),
        ("a,b\n1,2\n3,nan\n", none(), floats, "csv-value", "line 3, column \"b\""),
        ("a,b,label\n1,2,\n", none(), floats, "csv-value", "line 2, column \"label\": a row without a class"),
        ("a,b\n1,2\n3\n", none(), floats, "csv-malformed", "x.csv: line 3, column \"b\": 1 fields"),
        ("a,b\n", none(), floats, "csv-empty", "no rows"),
        ("", none(), floats, "csv-empty", "x.csv: the file is empty"),
        (
            "a,b,c\n1,2,3\n",
            none(),
            floats,
            "csv-input",
            "3 columns of numbers, but the last axis of the input has 2",
        ),
        ("a,b\n1,2\n", none(), "v0 \"x\": f32[4,2]", "csv-input", "several rows at once"),
        ("a\n1\n", none(), "v0 \"x\": f32[]", "csv-input", "a scalar"),
        ("a,b\n1,2\n", none(), ints, "csv-input", "without --text-column columns go to the input of floats"),
        ("a,b\n1,2\n", text_of("a"), floats, "csv-input", "the model has 0 of them"),
        (
            "a\nx\n",
            text_of("a"),
            "v0 \"x\": i64[N], v1 \"z\": i32[N]",
            "csv-input",
            "the model has 2 of them",
        ),
        ("a\nx\n", text_of("a"), "v0 \"x\": i64[N,T,1]", "csv-input", "3 axes"),
        (
            "a\nx\n",
            TableArgs { tokens: Some(4), ..text_of("a") },
            "v0 \"x\": i64[N,5]",
            "csv-input",
            "--tokens 4: the input takes 5",
        ),
    ] {
        fs::write(&path, file)?;
        let said = read(&table(&path, args), &graph(inputs)).err().unwrap_or_default();
        assert!(said.contains(&format!("[{id}]")) && said.contains(want), "{file:?}: {said}");
    }
    // Options that nothing else uses.
    let npz = table(&dir.path().join("x.npz"), text_of("a"));
    assert!(read(&npz, &graph(ints)).is_err_and(|e| e.contains("--text-column goes with CSV files")));
    Ok(())
}

#[test]
fn a_table_that_changes_under_us_is_an_error_and_no_crash() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("x.csv");
    fs::write(&path, "a,b\n1,2\n3,4\n")?;
    let data = read(&table(&path, TableArgs::default()), &graph("v0 \"x\": f32[N,2]"))?;
    fs::write(&path, "a,b\n1,y\n")?;
    for (k, id) in [(0, "csv-value"), (1, "csv-malformed")] {
        assert_eq!(data.sample(k).err().map(|f| f.diags[0].id), Some(id), "{k}");
    }
    Ok(())
}
