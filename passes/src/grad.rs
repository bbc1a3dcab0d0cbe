//! See [`Grad`].

use crate::recompute::recompute;
use crate::{Options, Pass, PassCx, PassMeta, declare_pass, options::OptionMeta, util};
use planish_ir::op::build::Build;
use planish_ir::op::gradient;
use planish_ir::{Diag, Editor, Graph, Loc, NodeId, ValueId};
use std::collections::{BTreeMap, BTreeSet};

declare_pass! {
    /// Adds the gradient of an output with respect to inputs and weights as further outputs, called `grad.` and the name of each.
    ///
    /// Reverse mode: every node from the values that are named to the output is differentiated by the rule of its operation, the last
    /// one first, and what several users of a value give is added up. Of an output with more than one element it is the gradient of the
    /// sum of them. The gradient is zero where nothing depends smoothly on a value.
    ///
    /// # Preserves
    /// All outputs bit for bit; new ones come after them. What is there already is not added again.
    ///
    /// With `recompute` fewer values of the way forward are kept in memory for the way back: element-wise functions, conversions, broadcasts,
    /// reductions and normalisations of kept values are computed a second time, those first that free most bytes for an operation. The same bits come out.
    ///
    /// # Declines
    /// Products, convolutions and random numbers are never computed again, nor values whose size is not fixed; a remark (`recompute-limited`)
    /// says if more bytes are kept than `recompute` allows.
    /// It is an error (`unsupported-gradient`, with the node) if an operation in between has no rule, or one only for shapes that are
    /// fixed.
    ///
    /// # Example
    /// With `wrt=x`, `v1 = unary{kind=exp} v0` (input `x`, output `y`) gets the further output `grad.x`, which is `v1`.
    pub struct Grad { of: String, wrt: Vec<String>, recompute: Option<u64> } = {
        name: "grad",
        kind: Extending,
        options: [
            OptionMeta { name: "of", default: "", doc: "name of the output; by default the first one" },
            OptionMeta { name: "wrt", default: "", doc: "names of inputs and weights, separated by |; by default all inputs of floats" },
            OptionMeta { name: "recompute", default: "none", doc: "the most bytes of forward values in memory for the gradients at once: cheap ones beyond that are computed again" },
        ]
    }
}

impl Grad {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let m = Self::META.options;
        let recompute = o.optional(m, "recompute")?;
        Ok(Grad { of: o.text(m, "of").to_owned(), wrt: o.list(m, "wrt"), recompute })
    }

    /// The output that is differentiated.
    fn output(&self, g: &Graph) -> Result<ValueId, Diag> {
        let at = match self.of.as_str() {
            "" => 0,
            name => (0..g.outputs().len()).find(|i| g.output_name(*i) == name).unwrap_or(usize::MAX),
        };
        let v = g.outputs().get(at).copied();
        let v =
            v.ok_or_else(|| Diag::error("pass-option", format!("`grad`: there is no output `{}`", self.of)))?;
        if util::is_float(g, v) {
            Ok(v)
        } else {
            Err(Diag::error("pass-option", "`grad`: the output is no tensor of floats"))
        }
    }

    /// The values that it is differentiated by, with their names.
    fn variables(&self, g: &Graph) -> Result<Vec<(String, ValueId)>, Diag> {
        let inputs = g.inputs().iter().enumerate().map(|(i, v)| (g.input_name(i).to_owned(), *v));
        if self.wrt.is_empty() {
            return Ok(inputs.filter(|(_, v)| util::is_float(g, *v)).collect());
        }
        let weights = g.nodes_in(g.root()).flat_map(|n| g.node(n).outputs.clone()).filter_map(|v| {
            let name = g.value(v).name.as_deref().filter(|_| g.as_const(v).is_some())?;
            Some((name.to_owned(), v))
        });
        let known: BTreeMap<String, ValueId> = weights.chain(inputs).collect();
        let find = |name: &String| match known.get(name) {
            Some(v) if util::is_float(g, *v) => Ok((name.clone(), *v)),
            Some(_) => Err(Diag::error("pass-option", format!("`grad`: `{name}` is no tensor of floats"))),
            None => Err(Diag::error("pass-option", format!("`grad`: there is no input or weight `{name}`"))),
        };
        self.wrt.iter().map(find).collect()
    }
}

impl Pass for Grad {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let g = ed.graph();
        let y = self.output(g)?;
        let there: BTreeSet<String> = (0..g.outputs().len()).map(|i| g.output_name(i).to_owned()).collect();
        let mut wanted = self.variables(g)?;
        wanted.retain(|(name, _)| !there.contains(&format!("grad.{name}")));
        if wanted.is_empty() {
            return Ok(());
        }
        ed.at_end(ed.graph().root());
        ed.set_loc(Loc::None);
        let ones = Build::new(ed, "grad").filled(1.0, y)?;
        let variables: Vec<ValueId> = wanted.iter().map(|(_, v)| *v).collect();
        let nodes: Vec<NodeId> = ed.graph().nodes_in(ed.graph().root()).collect();
        let found = gradient::sweep(ed, &nodes, &[(y, ones)], &variables)?;
        ed.set_loc(Loc::None);
        for ((name, v), gradient) in wanted.iter().zip(found) {
            let gradient = match gradient {
                Some(gradient) => gradient,
                None => Build::new(ed, "grad").filled(0.0, *v)?,
            };
            ed.output(gradient, Some(&format!("grad.{name}")));
            cx.add("gradients", 1.0);
        }
        if let Some(budget) = self.recompute {
            let done = recompute(ed, &nodes, budget)?;
            cx.add("kept-bytes-before", done.before as f64);
            cx.add("kept-bytes", done.kept as f64);
            cx.add("nodes-recomputed", done.nodes as f64);
            if done.kept > budget {
                let text = format!(
                    "{} bytes of forward values are in memory at once, more than {budget}: what is left is not cheap, or saves nothing",
                    done.kept
                );
                cx.remark_at(Loc::None, "recompute-limited", text);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pipeline, TargetFacts, parse_specs};
    use planish_ir::{DType, Tensor, Value, interp, text};

    fn after(text: &str, pass: &str) -> Result<Graph, Diag> {
        let mut g = text::parse(&format!("planish-ir 1\ngraph @\"g\"{text}"))?;
        let mut p = Pipeline::default();
        p.verify_each = true;
        p.specs(&parse_specs(pass)?);
        p.run(&mut g, &TargetFacts::default(), &mut |_, _| {})?;
        Ok(g)
    }

    /// Two layers with a normalisation and a residual in between, and the mean of squares behind them.
    const NET: &str = "(v0 \"x\": f64[3,4], v1 \"w\": f64[4,4], v2 \"b\": f64[4]) {
        v3 = matmul{trans_a=false, trans_b=false} v0, v1 : f64[3,4]
        v4 = binary{kind=add} v3, v2 : f64[3,4]
        v5, v11, v12 = layer-norm{axis=1, epsilon=0.01, rms=false} v4 : f64[3,4], f64[3,1], f64[3,1]
        v6 = unary{kind=gelu} v5 : f64[3,4]
        v7 = binary{kind=add} v6, v0 : f64[3,4]
        v8 = matmul{trans_a=false, trans_b=true} v7, v1 : f64[3,4]
        v9 = binary{kind=mul} v8, v8 : f64[3,4]
        v10 = reduce{kind=mean, axes=none, keepdims=false, noop_empty=false} v9 : f64[]
        return v10 \"loss\" }";

    #[test]
    fn a_network_agrees_with_differences() -> Result<(), Diag> {
        let g = after(NET, "grad")?;
        let names: Vec<&str> = (0..4).map(|i| g.output_name(i)).collect();
        assert_eq!(names, ["loss", "grad.x", "grad.w", "grad.b"]);
        let values = |shape: &[usize], seed: usize| {
            let n: usize = shape.iter().product();
            let v = (0..n).map(|i| ((i * 37 + seed * 11) % 23) as f64 / 11.0 - 1.0).collect();
            Tensor::floats(DType::F64, shape, v)
        };
        let inputs = [values(&[3, 4], 1)?, values(&[4, 4], 2)?, values(&[4], 3)?];
        let run = |inputs: &[Tensor]| -> Result<Vec<Vec<f64>>, Diag> {
            let values = interp::run(&g, inputs.iter().map(|t| Value::from(t.clone())).collect())?.values;
            values.iter().map(|v| Ok(v.tensor()?.to_f64())).collect()
        };
        let found = run(&inputs)?;
        for (i, t) in inputs.iter().enumerate() {
            for (k, got) in found[i + 1].iter().enumerate() {
                let at = |by: f64| -> Result<f64, Diag> {
                    let mut v = t.to_f64();
                    v[k] += by;
                    let mut moved = inputs.clone();
                    moved[i] = Tensor::floats(DType::F64, t.shape(), v)?;
                    Ok(run(&moved)?[0][0])
                };
                let want = (at(1e-5)? - at(-1e-5)?) / 2e-5;
                assert!(
                    (got - want).abs() < 1e-7 * (1.0 + want.abs()),
                    "operand {i}, {k}: {got}, not {want}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn what_has_no_rule_is_named() {
        let text = "(v0 \"x\": f32[1,1,4,4], v1 \"r\": f32[2,5]) {
            v2 = max-roi-pool{height=2, width=2, scale=1.0} v0, v1 : f32[2,1,2,2] @\"regions\"
            return v2 \"y\" }";
        let Err(d) = after(text, "grad") else { panic!("a rule for maxima of regions") };
        assert_eq!(d.id, "unsupported-gradient");
        assert!(d.to_string().contains("regions"), "{d}");
        for (pass, says) in [
            ("grad{of=z}", "no output `z`"),
            ("grad{wrt=q}", "no input or weight `q`"),
            ("grad{sum=1}", "no option `sum`"),
        ] {
            let Err(d) = after(text, pass) else { panic!("{pass}") };
            assert!(d.message.contains(says), "{d}");
        }
        let ints = "(v0 \"x\": i64[4]) { return v0 \"y\" }";
        let Err(d) = after(ints, "grad") else { panic!("a gradient of integers") };
        assert!(d.message.contains("floats"), "{d}");
    }
}
