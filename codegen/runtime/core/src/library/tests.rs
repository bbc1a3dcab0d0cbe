// Arguments are written as lists of values throughout, also where a list is one borrowed value.
#![allow(clippy::cloned_ref_to_slice_refs)]
use super::*;
use crate::DType;
use crate::plan::ErrorId;
use alloc::string::String;

fn make(func: u16, attrs: &[i64], fattrs: &[f64], sattrs: &[&str]) -> Call {
    Call {
        func,
        args: vec![],
        outs: vec![],
        out_syms: vec![],
        attrs: attrs.to_vec(),
        fattrs: fattrs.to_vec(),
        sattrs: sattrs.iter().map(|&s| String::from(s)).collect(),
        error: ErrorId(0),
    }
}

fn run(c: &Call, args: &[Object]) -> Result<Vec<Object>> {
    let args = args.iter().map(|o| Input::Object(Arc::new(o.clone()))).collect();
    Ok(call(c, args)?.into_iter().map(Arc::unwrap_or_clone).collect())
}

fn ok(func: u16, attrs: &[i64], args: &[Object]) -> Vec<Object> {
    run(&make(func, attrs, &[], &[]), args).unwrap_or_else(|e| panic!("{}: {e}", name(func)))
}

fn f(dims: &[i64], v: &[f32]) -> Object {
    let data = v.iter().flat_map(|x| x.to_le_bytes()).collect();
    Object::Tensor(Tensor { dtype: DType::F32, dims: dims.to_vec(), data })
}

fn i(dims: &[i64], v: &[i64]) -> Object {
    Object::Tensor(Tensor::of_i64(dims.to_vec(), v))
}

fn b(dims: &[i64], v: &[u8]) -> Object {
    Object::Tensor(Tensor { dtype: DType::Bool, dims: dims.to_vec(), data: v.to_vec() })
}

fn s(dims: &[i64], v: &[&str]) -> Object {
    Object::Strings { dims: dims.to_vec(), data: v.iter().map(|&x| String::from(x)).collect() }
}

fn seq(v: &[Object]) -> Object {
    Object::Sequence(v.iter().cloned().map(Arc::new).collect())
}

#[test]
fn numbers_and_names_are_unique() {
    for (k, (code, text)) in FUNCTIONS.iter().enumerate() {
        assert_eq!((name(*code), by_name(text)), (*text, Some(*code)));
        assert!(FUNCTIONS[..k].iter().all(|f| f.0 != *code && f.1 != *text));
    }
    assert!(run(&make(9999, &[], &[], &[]), &[]).is_err());
}

#[test]
fn sequences_are_edited_and_read() {
    let (a, c) = (f(&[1], &[1.0]), f(&[2], &[2.0, 3.0]));
    let both = seq(&[a.clone(), c.clone()]);
    assert_eq!(ok(SEQ_CONSTRUCT, &[], &[a.clone(), c.clone()]), [both.clone()]);
    assert_eq!(ok(SEQ_INSERT, &[], &[seq(&[c.clone()]), a.clone(), i(&[], &[-1])]), [both.clone()]);
    assert_eq!(ok(SEQ_INSERT, &[], &[seq(&[a.clone()]), c.clone()]), [both.clone()]);
    assert_eq!(ok(SEQ_ERASE, &[], &[both.clone()]), [seq(&[a.clone()])]);
    assert_eq!(ok(SEQ_ERASE, &[], &[both.clone(), i(&[], &[0])]), [seq(&[c.clone()])]);
    assert_eq!(ok(SEQ_AT, &[], &[both.clone(), i(&[], &[-1])]), [c]);
    assert_eq!(ok(SEQ_LENGTH, &[], &[both.clone()]), [i(&[], &[2])]);
    assert!(run(&make(SEQ_AT, &[], &[], &[]), &[both, i(&[], &[2])]).is_err());
    let some = ok(OPT_NEW, &[], &[a.clone()]).remove(0);
    assert_eq!(ok(OPT_GET, &[], &[some.clone()]), [a]);
    assert_eq!(ok(OPT_HAS, &[], &[some]), [b(&[], &[1])]);
    assert_eq!(ok(OPT_HAS, &[], &ok(OPT_NEW, &[], &[])), [b(&[], &[0])]);
}

#[test]
fn sequences_are_joined_and_cut() {
    let (x, y) = (f(&[1, 2], &[1.0, 2.0]), f(&[1, 2], &[3.0, 4.0]));
    let both = seq(&[x, y]);
    assert_eq!(ok(SEQ_CONCAT, &[-2, 0], &[both.clone()]), [f(&[2, 2], &[1.0, 2.0, 3.0, 4.0])]);
    assert_eq!(ok(SEQ_CONCAT, &[1, 0], &[both.clone()]), [f(&[1, 4], &[1.0, 2.0, 3.0, 4.0])]);
    assert_eq!(ok(SEQ_CONCAT, &[-1, 1], &[both]), [f(&[1, 2, 2], &[1.0, 3.0, 2.0, 4.0])]);
    let m = f(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let cut = ok(SEQ_SPLIT, &[1, 1], &[m.clone(), i(&[], &[2])]);
    assert_eq!(cut, [seq(&[f(&[2, 2], &[0.0, 1.0, 3.0, 4.0]), f(&[2, 1], &[2.0, 5.0])])]);
    let rows = seq(&[f(&[3], &[0.0, 1.0, 2.0]), f(&[3], &[3.0, 4.0, 5.0])]);
    assert_eq!(ok(SEQ_SPLIT, &[0, 0], &[m.clone()]), [rows]);
    assert!(run(&make(SEQ_SPLIT, &[1, 1], &[], &[]), &[m, i(&[2], &[1, 1])]).is_err());
}

#[test]
fn elements_are_selected() {
    let got = ok(NON_ZERO, &[], &[f(&[2, 2], &[1.0, 0.0, -3.0, f32::NAN])]);
    assert_eq!(got, [i(&[2, 3], &[0, 1, 1, 0, 0, 1])]);
    let x = f(&[2, 3], &[1.0, 3.0, 3.0, f32::NAN, -1.0, 0.0]);
    let top = ok(TOP_K, &[1, 1], &[x.clone(), i(&[1], &[2])]);
    assert_eq!(top[1], i(&[2, 2], &[1, 2, 0, 2]));
    let Object::Tensor(t) = &top[0] else { panic!("a tensor") };
    assert_eq!(&t.data[..8], [3f32.to_le_bytes(), 3f32.to_le_bytes()].concat());
    assert_eq!(ok(TOP_K, &[0, 0], &[x.clone(), i(&[], &[1])])[0], f(&[1, 3], &[1.0, -1.0, 0.0]));
    assert!(run(&make(TOP_K, &[1, 1], &[], &[]), &[x, i(&[1], &[4])]).is_err());
    let u = f(&[5], &[2.0, 1.0, 1.0, 3.0, 2.0]);
    let all = ok(UNIQUE, &[-1, 1], &[u.clone()]);
    let want =
        [f(&[3], &[1.0, 2.0, 3.0]), i(&[3], &[1, 0, 3]), i(&[5], &[1, 0, 0, 2, 1]), i(&[3], &[2, 2, 1])];
    assert_eq!(all, want);
    assert_eq!(ok(UNIQUE, &[-1, 0], &[u])[0], f(&[3], &[2.0, 1.0, 3.0]));
    assert_eq!(ok(UNIQUE, &[-1, 1], &[s(&[3], &["b", "a", "b"])])[0], s(&[2], &["a", "b"]));
    let rows = ok(UNIQUE, &[0, 1], &[f(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 0.0])]);
    assert_eq!(rows[0], f(&[2, 2], &[0.0, 1.0, 1.0, 0.0]));
    let m = f(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(ok(COMPRESS, &[1], &[m.clone(), b(&[2], &[0, 1])]), [f(&[2, 1], &[1.0, 4.0])]);
    assert_eq!(ok(COMPRESS, &[-1], &[m.clone(), b(&[4], &[1, 0, 0, 1])]), [f(&[2], &[0.0, 3.0])]);
    assert!(run(&make(COMPRESS, &[0], &[], &[]), &[m.clone(), b(&[3], &[0, 0, 1])]).is_err());
    assert_eq!(ok(SHAPE_OF, &[], &[m]), [i(&[2], &[2, 3])]);
}

#[test]
fn overlapping_boxes_are_suppressed() {
    let boxes =
        f(&[1, 4, 4], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, 10.0, 1.0, 11.0, 0.0, 10.1, 1.0, 11.1]);
    let scores = f(&[1, 1, 4], &[0.9, 0.75, 0.95, 0.3]);
    let args = [boxes, scores, i(&[1], &[3]), f(&[1], &[0.5]), f(&[1], &[0.0])];
    assert_eq!(ok(NON_MAX_SUPPRESSION, &[0], &args), [i(&[2, 3], &[0, 0, 2, 0, 0, 0])]);
    assert_eq!(ok(NON_MAX_SUPPRESSION, &[0], &args[..2]), [i(&[0, 3], &[])]);
}

#[test]
fn strings_are_joined_cut_and_compared() {
    let words = s(&[2], &["a b", " c  d e "]);
    let joined = ok(STR_CONCAT, &[], &[s(&[2, 1], &["x", "y"]), s(&[2], &["1", "2"])]);
    assert_eq!(joined, [s(&[2, 2], &["x1", "x2", "y1", "y2"])]);
    let cut = ok(STR_SPLIT, &[-1], &[words.clone()]);
    assert_eq!(cut, [s(&[2, 3], &["a", "b", "", "c", "d", "e"]), i(&[2], &[2, 3])]);
    assert_eq!(ok(STR_SPLIT, &[1], &[words])[0], s(&[2, 2], &["a", "b", "c", "d e"]));
    let c = make(STR_SPLIT, &[-1], &[], &[","]);
    assert_eq!(run(&c, &[s(&[2], &["a,,b", ""])]).expect("cuts")[0], s(&[2, 3], &["a", "", "b", "", "", ""]));
    let c = make(STR_NORMALIZE, &[1, 0], &[], &["THE"]);
    assert_eq!(run(&c, &[s(&[1, 2], &["the", "Cat"])]).expect("normalizes"), [s(&[1, 1], &["cat"])]);
    assert_eq!(run(&c, &[s(&[1], &["The"])]).expect("normalizes"), [s(&[1], &[""])]);
    assert_eq!(ok(STR_EQUAL, &[], &[s(&[2], &["a", "b"]), s(&[], &["b"])]), [b(&[2], &[0, 1])]);
    let chosen = ok(STR_WHERE, &[], &[b(&[2], &[1, 0]), s(&[], &["y"]), s(&[2], &["n", "m"])]);
    assert_eq!(chosen, [s(&[2], &["y", "m"])]);
}

#[test]
fn elements_move_whatever_their_type() {
    assert_eq!(
        ok(TAKE, &[], &[s(&[2], &["a", "b"]), i(&[1, 3], &[1, 0, 1])]),
        [s(&[1, 3], &["b", "a", "b"])]
    );
    assert!(run(&make(TAKE, &[], &[], &[]), &[s(&[1], &["a"]), i(&[1], &[-2])]).is_err());
    let joined = ok(CONCAT, &[1], &[s(&[2, 1], &["a", "b"]), s(&[2, 1], &["c", "d"])]);
    assert_eq!(joined, [s(&[2, 2], &["a", "c", "b", "d"])]);
    let args = vec![Input::Object(Arc::new(s(&[2], &["a", "b"]))), Input::Scalar(2), Input::Scalar(1)];
    let got = call(&make(RESHAPE, &[], &[], &[]), args).expect("reshapes");
    assert_eq!(*got[0], s(&[2, 1], &["a", "b"]));
    let code = |d: DType| i64::from(d.code());
    let text = ok(STR_CAST, &[code(DType::String)], &[f(&[3], &[1.5, f32::NEG_INFINITY, 0.1])]);
    assert_eq!(text, [s(&[3], &["1.5", "-INF", "0.1"])]);
    assert_eq!(ok(STR_CAST, &[code(DType::I64)], &[s(&[2], &[" 7", "-3"])]), [i(&[2], &[7, -3])]);
    assert!(run(&make(STR_CAST, &[code(DType::F32)], &[], &[]), &[s(&[1], &["x"])]).is_err());
}

#[test]
fn labels_n_grams_and_maps() {
    let args = [s(&[3], &["b", "z", "a"]), s(&[2], &["a", "b"]), i(&[2], &[10, 20]), i(&[1], &[-1])];
    assert_eq!(ok(LABEL_ENCODE, &[], &args), [i(&[3], &[20, -1, 10])]);
    // Pool: 1-grams 2, 3; 2-grams (5, 4), (7, 5).
    let pool = i(&[6], &[2, 3, 5, 4, 7, 5]);
    let x = i(&[6], &[2, 3, 5, 4, 7, 5]);
    let got = ok(TF_IDF, &[0, 1, 2, 0, 2, 0, 2, 0, 1, 2, 3], &[x.clone(), pool.clone()]);
    assert_eq!(got, [f(&[4], &[1.0, 1.0, 1.0, 1.0])]);
    let c = make(TF_IDF, &[2, 2, 2, 1, 2, 0, 2, 0, 1, 2, 3], &[1.0, 1.0, 2.0, 3.0], &[]);
    assert_eq!(run(&c, &[x, pool]).expect("counts"), [f(&[4], &[0.0, 0.0, 2.0, 3.0])]);
    let maps = ok(ZIP_MAP, &[], &[f(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), s(&[2], &["k", "l"])]);
    let Object::Sequence(items) = &maps[0] else { panic!("a sequence") };
    let vector = ok(DICT_VECTORIZE, &[], &[(*items[1]).clone(), s(&[3], &["l", "none", "k"])]);
    assert_eq!(vector, [f(&[1, 3], &[4.0, 0.0, 3.0])]);
    let map = Object::Map { keys: Arc::new(i(&[2], &[3, 1])), values: Arc::new(f(&[2], &[30.0, 10.0])) };
    assert_eq!(ok(MAP_VALUES, &[-1], &[map.clone()]), [f(&[1, 2], &[10.0, 30.0])]);
    assert_eq!(ok(MAP_VALUES, &[5], &[map.clone()]), [f(&[1, 5], &[0.0, 10.0, 0.0, 30.0, 0.0])]);
    assert!(run(&make(MAP_VALUES, &[2], &[], &[]), &[map]).is_err());
}

#[test]
fn wrong_arguments_are_errors() {
    let odd = [seq(&[]), f(&[0], &[]), s(&[0], &[]), i(&[2], &[-9, 1 << 62]), Object::Optional(None)];
    for &(func, _) in FUNCTIONS {
        for a in &odd {
            for c in &odd {
                for attrs in [&[][..], &[0, 0, 0, 0, 0], &[-7, 1, 3, 1 << 62, 2]] {
                    // Whatever comes back, nothing panics.
                    let _ = run(&make(func, attrs, &[], &[]), &[a.clone(), c.clone()]);
                    let _ = run(&make(func, attrs, &[], &[]), &[a.clone()]);
                }
            }
        }
    }
}
