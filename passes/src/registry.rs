//! The list of passes, and the grammar of pass lists.

use crate::options::Options;
use crate::pass::{Pass, PassMeta};
use planish_ir::Diag;
use std::fmt;

/// Makes a pass from its options.
type Make = fn(&Options) -> Result<Box<dyn Pass>, Diag>;

/// Every pass: declaration and constructor.
pub fn all() -> &'static [(&'static PassMeta, Make)] {
    macro_rules! table {
        ($($path:path),* $(,)?) => {
            &[$((&<$path>::META, |o| Ok(Box::new(<$path>::new(o)?))),)*]
        };
    }
    table![
        crate::fold_constants::FoldConstants,
        crate::eliminate_dead::EliminateDead,
        crate::merge_duplicates::MergeDuplicates,
        crate::simplify_shapes::SimplifyShapes,
        crate::sink_transposes::SinkTransposes,
        crate::simplify_algebra::SimplifyAlgebra,
        crate::fold_batch_norm::FoldBatchNorm,
        crate::recognize::Recognize,
        crate::expand_composites::ExpandComposites,
        crate::detect_sparsity::DetectSparsity,
        crate::freeze::Freeze,
        crate::fuse_quantised::FuseQuantised,
        crate::fuse_epilogues::FuseEpilogues,
        crate::prune_magnitude::PruneMagnitude,
        crate::sparsify_blocks::SparsifyBlocks,
        crate::cluster_weights::ClusterWeights,
        crate::quantize::Quantize,
        crate::fake_quantize::FakeQuantize,
        crate::quantize_trained::QuantizeTrained,
        crate::insert_gates::InsertGates,
        crate::determinize::Determinize,
        crate::route_experts::RouteExperts,
        crate::grad::Grad,
    ]
}

/// A pass with its options, as written by a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassSpec {
    /// Name.
    pub name: String,
    /// Options.
    pub options: Options,
}

impl PassSpec {
    /// A pass with its default options.
    pub fn plain(name: &str) -> PassSpec {
        PassSpec { name: name.to_owned(), options: Options::default() }
    }
    /// The declaration, or an error that names passes that exist.
    pub fn meta(&self) -> Result<&'static PassMeta, Diag> {
        self.entry().map(|e| e.0)
    }
    /// The pass.
    pub fn make(&self) -> Result<Box<dyn Pass>, Diag> {
        let (meta, make) = self.entry()?;
        self.options.check(meta.name, meta.options)?;
        make(&self.options)
    }
    fn entry(&self) -> Result<&'static (&'static PassMeta, Make), Diag> {
        all().iter().find(|(m, _)| m.name == self.name).ok_or_else(|| {
            let names: Vec<&str> = all().iter().map(|(m, _)| m.name).collect();
            Diag::error(
                "pass-unknown",
                format!("there is no pass `{}`; there are {}", self.name, names.join(", ")),
            )
        })
    }
}

impl fmt::Display for PassSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let list: Vec<String> = self.options.iter().map(|(k, v)| format!("{k}={v}")).collect();
        if list.is_empty() { Ok(()) } else { write!(f, "{{{}}}", list.join(",")) }
    }
}

/// Reads `a,b{k=v,k=v}` or one `NAME:k=v,k=v`.
pub fn parse_specs(text: &str) -> Result<Vec<PassSpec>, Diag> {
    let text = text.trim();
    if !text.contains('{')
        && let Some((name, options)) = text.split_once(':')
    {
        return Ok(vec![PassSpec { name: name.trim().to_owned(), options: parse_options(options)? }]);
    }
    let mut out = Vec::new();
    for part in planish_ir::attr::split_top(text, ',') {
        let part = part.trim();
        let (name, options) = match part.split_once('{') {
            None => (part, Options::default()),
            Some((name, rest)) => {
                let inner = rest.strip_suffix('}').ok_or_else(|| {
                    Diag::error("pass-grammar", format!("`{part}`: a closing brace is missing; did the shell tear the list apart? Quote it"))
                })?;
                (name, parse_options(inner)?)
            }
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        {
            return Err(Diag::error(
                "pass-grammar",
                format!("`{name}` is no name of a pass; if the shell tore the list apart, quote it"),
            ));
        }
        out.push(PassSpec { name: name.to_owned(), options });
    }
    Ok(out)
}

fn parse_options(text: &str) -> Result<Options, Diag> {
    let mut o = Options::default();
    for part in planish_ir::attr::split_top(text, ',') {
        let (k, v) = part.trim().split_once('=').ok_or_else(|| {
            Diag::error("pass-grammar", format!("`{part}`: options are written name=value"))
        })?;
        o.set(k.trim(), v.trim());
    }
    Ok(o)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_reads_what_it_prints() -> Result<(), Diag> {
        let specs = parse_specs("fold-constants{max-bytes=1000}, eliminate-dead")?;
        assert_eq!(specs.len(), 2);
        let text: Vec<String> = specs.iter().map(ToString::to_string).collect();
        assert_eq!(parse_specs(&text.join(","))?, specs);
        assert_eq!(parse_specs("fold-constants:max-bytes=1000")?[0], specs[0]);
        for bad in ["a{k=v", "a{k}", "A b", "a:k"] {
            assert!(parse_specs(bad).is_err(), "{bad}");
        }
        assert!(parse_specs("no-such-pass")?[0].make().is_err());
        assert!(parse_specs("eliminate-dead{x=1}")?[0].make().is_err());
        Ok(())
    }
}
