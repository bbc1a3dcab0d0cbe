//! Classical machine learning: the domain `ai.onnx.ml`.

use super::constant_of;
use crate::export::attr;
use crate::export::cx::ExportCx;
use crate::proto::AttributeProto;
use crate::value::from_tensor;
use planish_ir::graph::Node;
use planish_ir::op::ml::{Aggregate, CastMap, TreeEnsemble};
use planish_ir::{DType, Diag, Tensor};

const DOMAIN: &str = "ai.onnx.ml";

/// A node of the domain with the first operand only.
fn push(cx: &mut ExportCx<'_>, node: &Node, op: &str, version: i64, attributes: Vec<AttributeProto>) {
    cx.uses(DOMAIN, version);
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    cx.push_in(DOMAIN, op, inputs.into_iter().take(1).collect(), outputs, attributes);
}

fn tensor(name: &str, value: &Tensor) -> Result<AttributeProto, Diag> {
    Ok(attr::tensor(name, from_tensor(value)?.to_proto("")))
}

pub(super) fn label_encode(cx: &mut ExportCx<'_>, node: &Node) -> Result<(), Diag> {
    let default = constant_of(cx, node, 3, "the default")?.reshaped(&[1])?;
    let attributes = vec![
        tensor("keys_tensor", &constant_of(cx, node, 1, "the keys")?)?,
        tensor("values_tensor", &constant_of(cx, node, 2, "the values")?)?,
        tensor("default_tensor", &default)?,
    ];
    push(cx, node, "LabelEncoder", 4, attributes);
    Ok(())
}

/// Keys as an attribute for integers or for strings.
fn keys(cx: &ExportCx<'_>, node: &Node, ints: &str, strings: &str) -> Result<AttributeProto, Diag> {
    let keys = constant_of(cx, node, 1, "the keys")?;
    Ok(match keys.dtype() {
        DType::Str => attr::strings(strings, keys.strings().iter().map(String::as_str)),
        _ => attr::ints(ints, keys.to_i64()?),
    })
}

pub(super) fn zip_map(cx: &mut ExportCx<'_>, node: &Node) -> Result<(), Diag> {
    let keys = keys(cx, node, "classlabels_int64s", "classlabels_strings")?;
    push(cx, node, "ZipMap", 1, vec![keys]);
    Ok(())
}

pub(super) fn dict_vectorize(cx: &mut ExportCx<'_>, node: &Node) -> Result<(), Diag> {
    let keys = keys(cx, node, "int64_vocabulary", "string_vocabulary")?;
    push(cx, node, "DictVectorizer", 1, vec![keys]);
    Ok(())
}

pub(super) fn cast_map(cx: &mut ExportCx<'_>, node: &Node, op: &CastMap) -> Result<(), Diag> {
    let to = match op.to {
        DType::F32 => "TO_FLOAT",
        DType::Str => "TO_STRING",
        DType::I64 => "TO_INT64",
        other => return Err(Diag::unsupported(format!("a map cannot be cast to {other} in ONNX"))),
    };
    let mut attributes = vec![attr::string("cast_to", to)];
    match op.width {
        None => attributes.push(attr::string("map_form", "DENSE")),
        Some(width) => {
            attributes.push(attr::string("map_form", "SPARSE"));
            attributes.push(attr::int("max_map", width));
        }
    }
    push(cx, node, "CastMap", 1, attributes);
    Ok(())
}

/// A node of the ensemble in the form of `TreeEnsembleRegressor`.
struct Row {
    tree: i64,
    feature: i64,
    mode: &'static str,
    threshold: f64,
    yes: i64,
    no: i64,
    missing: i64,
}

pub(super) fn tree_ensemble(cx: &mut ExportCx<'_>, node: &Node, op: &TreeEnsemble) -> Result<(), Diag> {
    if super::dtype_of(cx, node, 0)? != DType::F32 {
        return Err(Diag::unsupported("only tree ensembles of f32 can be written as ONNX"));
    }
    let ints = |i: usize| constant_of(cx, node, i, "a description of the trees")?.to_i64();
    let floats = |i: usize| Ok::<_, Diag>(constant_of(cx, node, i, "a description of the trees")?.to_f64());
    let (feature, mode, threshold) = (ints(1)?, ints(2)?, floats(3)?);
    let (yes, no, missing) = (ints(4)?, ints(5)?, ints(6)?);
    let (roots, starts, targets, weights) = (ints(7)?, ints(8)?, ints(9)?, floats(10)?);
    let bad = || Diag::error("constant-malformed", "a child of a tree does not exist");
    let mut rows: Vec<Row> = Vec::new();
    // Tree, node, target and weight of each leaf entry.
    let mut leaves: Vec<(i64, i64, i64, f64)> = Vec::new();
    let mut first = Vec::new();
    for (tree, root) in roots.iter().enumerate() {
        first.push(rows.len());
        let start = rows.len();
        // Child and the place of its number in the parent's row.
        let mut work: Vec<(i64, Option<(usize, bool)>)> = vec![(*root, None)];
        while let Some((child, parent)) = work.pop() {
            let (at, number) = (rows.len(), (rows.len() - start) as i64);
            if rows.len() > (feature.len() + starts.len()).saturating_mul(2) {
                return Err(Diag::unsupported("trees that share nodes cannot be written as ONNX"));
            }
            if let Some((row, taken)) = parent {
                if taken { rows[row].yes = number } else { rows[row].no = number }
            }
            let tree = tree as i64;
            let mut row = Row { tree, feature: 0, mode: "LEAF", threshold: 0.0, yes: 0, no: 0, missing: 0 };
            if let Ok(n) = usize::try_from(child) {
                row.feature = *feature.get(n).ok_or_else(bad)?;
                row.mode = match mode.get(n) {
                    Some(0) => "BRANCH_LEQ",
                    Some(1) => "BRANCH_LT",
                    Some(2) => "BRANCH_GTE",
                    Some(3) => "BRANCH_GT",
                    Some(4) => "BRANCH_EQ",
                    Some(5) => "BRANCH_NEQ",
                    _ => return Err(bad()),
                };
                row.threshold = *threshold.get(n).ok_or_else(bad)?;
                row.missing = *missing.get(n).ok_or_else(bad)?;
                work.push((*no.get(n).ok_or_else(bad)?, Some((at, false))));
                work.push((*yes.get(n).ok_or_else(bad)?, Some((at, true))));
            } else {
                let leaf = usize::try_from(-1 - child).map_err(|_| bad())?;
                let (from, to) = (starts.get(leaf).ok_or_else(bad)?, starts.get(leaf + 1).ok_or_else(bad)?);
                for k in *from..*to {
                    let k = usize::try_from(k).map_err(|_| bad())?;
                    let entry = (*targets.get(k).ok_or_else(bad)?, *weights.get(k).ok_or_else(bad)?);
                    leaves.push((tree, number, entry.0, entry.1));
                }
            }
            rows.push(row);
        }
    }
    let aggregate = match op.aggregate {
        Aggregate::Sum => "SUM",
        Aggregate::Average => "AVERAGE",
        Aggregate::Min => "MIN",
        Aggregate::Max => "MAX",
    };
    let numbers: Vec<i64> =
        rows.iter().enumerate().map(|(i, r)| (i - first[r.tree as usize]) as i64).collect();
    let attributes = vec![
        attr::string("aggregate_function", aggregate),
        attr::string("post_transform", "NONE"),
        attr::int("n_targets", op.targets as i64),
        attr::ints("nodes_treeids", rows.iter().map(|r| r.tree)),
        attr::ints("nodes_nodeids", numbers),
        attr::ints("nodes_featureids", rows.iter().map(|r| r.feature)),
        attr::strings("nodes_modes", rows.iter().map(|r| r.mode)),
        attr::floats("nodes_values", rows.iter().map(|r| r.threshold)),
        attr::ints("nodes_truenodeids", rows.iter().map(|r| r.yes)),
        attr::ints("nodes_falsenodeids", rows.iter().map(|r| r.no)),
        attr::ints("nodes_missing_value_tracks_true", rows.iter().map(|r| r.missing)),
        attr::ints("target_treeids", leaves.iter().map(|l| l.0)),
        attr::ints("target_nodeids", leaves.iter().map(|l| l.1)),
        attr::ints("target_ids", leaves.iter().map(|l| l.2)),
        attr::floats("target_weights", leaves.iter().map(|l| l.3)),
    ];
    push(cx, node, "TreeEnsembleRegressor", 3, attributes);
    Ok(())
}
