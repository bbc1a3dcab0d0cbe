//! Sums of products by index letters.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::graph::Fact;
use crate::graph::ValueId;
use crate::op::gradient::GradCx;
use crate::op::util::for_each_index;
use crate::op::{EvalCx, InferCx, MANY, OpDef, broadcast_dim};
use crate::tensor::{Elems, Tensor, Value, elem_count, strides};
use crate::types::TensorType;
use std::collections::BTreeMap;

crate::op_struct! {
    /// The sum over all index letters that the result does not name of the products of the operands, as the equation says: letters for axes, `...` for the broadcast axes that have none, a repeated letter for a diagonal; without `->` the result has the letters that occur once, in alphabetic order, after the `...`. ONNX `Einsum`.
    Einsum {
        /// Such as `bij,bjk->bik`.
        equation: String,
    }
}

/// The indices of an equation for operands of given ranks. Indices are numbered: first the broadcast axes of `...`,
/// outermost first, then the letters in order of their first occurrence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EinsumSpec {
    /// For each operand the index of each axis.
    pub inputs: Vec<Vec<usize>>,
    /// The index of each axis of the result.
    pub output: Vec<usize>,
    /// How many indices there are.
    pub count: usize,
    /// How many of them stand for `...`.
    pub ellipsis: usize,
}

impl EinsumSpec {
    /// Reads an equation for operands of these ranks.
    pub fn parse(equation: &str, ranks: &[usize]) -> Result<EinsumSpec, Diag> {
        let bad = |why: String| Diag::error("einsum-malformed", format!("{equation:?}: {why}"));
        let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((l, r)) => (l, Some(r)),
            None => (text.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(bad(format!("{} terms for {} operands", terms.len(), ranks.len())));
        }
        // The letters before and after an ellipsis, if there is one.
        let split = |term: &str| -> Result<(Vec<char>, Option<Vec<char>>), Diag> {
            let (a, b) = match term.split_once("...") {
                Some((a, b)) => (a, Some(b)),
                None => (term, None),
            };
            let all = a.chars().chain(b.unwrap_or("").chars());
            if let Some(c) = all.clone().find(|c| !c.is_ascii_alphabetic()) {
                return Err(bad(format!("{c:?} is no letter")));
            }
            Ok((a.chars().collect(), b.map(|b| b.chars().collect())))
        };
        let mut ellipsis = 0;
        let mut parsed = Vec::new();
        for (term, rank) in terms.iter().zip(ranks) {
            let (a, b) = split(term)?;
            let letters = a.len() + b.as_ref().map_or(0, Vec::len);
            if letters > *rank || (b.is_none() && letters != *rank) {
                return Err(bad(format!("{term:?} for a tensor of rank {rank}")));
            }
            let rest = rank - letters;
            ellipsis = ellipsis.max(rest);
            parsed.push((a, b, rest));
        }
        let mut numbers: BTreeMap<char, usize> = BTreeMap::new();
        let mut uses: BTreeMap<char, usize> = BTreeMap::new();
        for (a, b, _) in &parsed {
            for c in a.iter().chain(b.iter().flatten()) {
                let next = ellipsis + numbers.len();
                numbers.entry(*c).or_insert(next);
                *uses.entry(*c).or_insert(0) += 1;
            }
        }
        let number = |c: &char| numbers.get(c).copied();
        let inputs = parsed
            .iter()
            .map(|(a, b, rest)| {
                let tail = b.iter().flatten();
                let dots = ellipsis - rest..ellipsis;
                a.iter().filter_map(number).chain(dots).chain(tail.filter_map(number)).collect()
            })
            .collect();
        let output = match right {
            None => {
                let once = uses.iter().filter(|(_, n)| **n == 1).map(|(c, _)| c);
                (0..ellipsis).chain(once.filter_map(number)).collect()
            }
            Some(term) => {
                let (a, b) = split(term)?;
                let mut seen = Vec::new();
                for c in a.iter().chain(b.iter().flatten()) {
                    if number(c).is_none() || seen.contains(c) {
                        return Err(bad(format!("{c:?} of the result must occur once, and in an operand")));
                    }
                    seen.push(*c);
                }
                let dots = if b.is_some() { 0..ellipsis } else { 0..0 };
                let tail = b.iter().flatten();
                a.iter().filter_map(number).chain(dots).chain(tail.filter_map(number)).collect()
            }
        };
        Ok(EinsumSpec { inputs, output, count: ellipsis + numbers.len(), ellipsis })
    }
}

impl OpDef for Einsum {
    const NAME: &'static str = "einsum";
    const INPUTS: (usize, usize) = (1, MANY);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_int() || d.is_float(), "a number")?;
        cx.expect_same_dtype(0)?;
        let mut all = Vec::new();
        for i in 0..cx.len() {
            all.push(cx.dims(i)?);
        }
        let spec = EinsumSpec::parse(&self.equation, &all.iter().map(|d| d.len()).collect::<Vec<_>>())?;
        let mut sizes: Vec<Dim> = vec![Dim::Const(1); spec.count];
        let mut seen = vec![false; spec.count];
        for (dims, term) in all.iter().zip(&spec.inputs) {
            for (d, index) in dims.iter().zip(term) {
                let old = &sizes[*index];
                sizes[*index] = if !seen[*index] { d.clone() } else { broadcast_dim(old, d, cx.symbols)? };
                seen[*index] = true;
            }
        }
        let dims = spec.output.iter().map(|i| sizes[*i].clone()).collect();
        Ok(vec![Fact { ty: TensorType::new(dtype, dims).into(), content: None }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let dy = cx.only_seed()?;
        let operands: Vec<ValueId> = (0..cx.len()).map(|i| cx.input(i)).collect::<Result<_, _>>()?;
        let ranks: Vec<usize> =
            operands.iter().map(|v| Ok(cx.dims(*v)?.len())).collect::<Result<_, Diag>>()?;
        let spec = EinsumSpec::parse(&self.equation, &ranks)?;
        let letters: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
        let word = |term: &[usize]| term.iter().map(|i| letters.get(*i)).collect::<Option<String>>();
        const TOO_MANY: &str = "with so many indices";
        let out = word(&spec.output).ok_or_else(|| cx.no_rule(TOO_MANY))?;
        let words: Vec<String> =
            spec.inputs.iter().map(|t| word(t)).collect::<Option<_>>().ok_or_else(|| cx.no_rule(TOO_MANY))?;
        let mut sizes: Vec<Option<i64>> = vec![Some(1); spec.count];
        for (v, term) in operands.iter().zip(&spec.inputs) {
            for (d, index) in cx.dims(*v)?.iter().zip(term) {
                if !d.is(1) {
                    sizes[*index] = d.as_const();
                }
            }
        }
        for (i, mine) in spec.inputs.iter().enumerate() {
            if !cx.wants(i) {
                continue;
            }
            // Off a diagonal the gradient is 0: an index that occurs again gets a letter of its own, and an identity holds both together.
            let (mut word, mut same) = (String::new(), Vec::new());
            let mut free = letters[spec.count.min(letters.len())..].iter();
            for (k, index) in mine.iter().enumerate() {
                if mine[..k].contains(index) {
                    let letter = *free.next().ok_or_else(|| cx.no_rule(TOO_MANY))?;
                    let n =
                        sizes[*index].ok_or_else(|| cx.no_rule("of a diagonal whose size is not fixed"))?;
                    let n = usize::try_from(n).unwrap_or(0);
                    let ones = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
                    let ones = Tensor::floats(cx.dtype(dy)?, &[n, n], ones)?;
                    same.push((format!("{}{letter}", letters[*index]), cx.ed.constant(ones)?));
                    word.push(letter);
                } else {
                    word.push(letters[*index]);
                }
            }
            let other = |k: &usize| *k != i;
            let terms: Vec<&str> = [out.as_str()]
                .into_iter()
                .chain((0..words.len()).filter(other).map(|k| words[k].as_str()))
                .chain(same.iter().map(|(word, _)| word.as_str()))
                .collect();
            let inputs: Vec<ValueId> = [dy]
                .into_iter()
                .chain((0..words.len()).filter(other).map(|k| operands[k]))
                .chain(same.iter().map(|(_, v)| *v))
                .collect();
            // Indices of this operand alone were summed over: every element of such an axis has the same gradient.
            let alone = |c: char| !terms.iter().any(|t| t.contains(c));
            let rest: String = word.chars().filter(|c| !alone(*c)).collect();
            let axes: Vec<usize> =
                word.chars().enumerate().filter(|(_, c)| alone(*c)).map(|(a, _)| a).collect();
            let equation = format!("{}->{rest}", terms.join(","));
            let d = cx.ed.node1(Einsum { equation }, &inputs)?;
            let d = cx.unsqueeze(d, &axes)?;
            let d = if axes.is_empty() { d } else { cx.like(d, operands[i])? };
            cx.give(i, d)?;
        }
        Ok(())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let tensors = (0..cx.inputs.len()).map(|i| cx.tensor(i)).collect::<Result<Vec<_>, _>>()?;
        let ranks: Vec<usize> = tensors.iter().map(|t| t.rank()).collect();
        let spec = EinsumSpec::parse(&self.equation, &ranks)?;
        let mut sizes = vec![1usize; spec.count];
        for (t, term) in tensors.iter().zip(&spec.inputs) {
            for (d, index) in t.shape().iter().zip(term) {
                let have = sizes[*index];
                if have != 1 && *d != 1 && have != *d {
                    return Err(Diag::error("shape-mismatch", format!("an index has sizes {have} and {d}")));
                }
                if have == 1 {
                    sizes[*index] = *d;
                }
            }
        }
        // The stride of every index in every operand; axes of size 1 are broadcast.
        let steps: Vec<Vec<usize>> = tensors
            .iter()
            .zip(&spec.inputs)
            .map(|(t, term)| {
                let mut s = vec![0; spec.count];
                for ((d, st), index) in t.shape().iter().zip(strides(t.shape())).zip(term) {
                    s[*index] += if *d == 1 { 0 } else { st };
                }
                s
            })
            .collect();
        let summed: Vec<usize> = (0..spec.count).filter(|i| !spec.output.contains(i)).collect();
        let shape: Vec<usize> = spec.output.iter().map(|i| sizes[*i]).collect();
        let inner: Vec<usize> = summed.iter().map(|i| sizes[*i]).collect();
        elem_count(&shape)?;
        let values: Vec<Elems> = tensors.iter().map(|t| t.elems()).collect();
        let dtype = tensors[0].dtype();
        let (mut floats, mut ints) = (Vec::new(), Vec::new());
        for_each_index(&shape, |o| {
            let (mut f, mut n) = (0.0f64, 0i64);
            let base: Vec<usize> =
                steps.iter().map(|s| o.iter().zip(&spec.output).map(|(i, x)| i * s[*x]).sum()).collect();
            for_each_index(&inner, |k| {
                let (mut pf, mut pn) = (1.0f64, 1i64);
                for (t, s) in steps.iter().enumerate() {
                    let at = base[t] + k.iter().zip(&summed).map(|(i, x)| i * s[*x]).sum::<usize>();
                    match &values[t] {
                        Elems::F(v) => pf *= v[at],
                        Elems::I(v) => pn = pn.wrapping_mul(v[at] as i64),
                        Elems::S(_) => return Err(Diag::error("dtype-mismatch", "strings in a product")),
                    }
                }
                f += pf;
                n = n.wrapping_add(pn);
                Ok(())
            })?;
            floats.push(f);
            ints.push(i128::from(n));
            Ok(())
        })?;
        let e = if dtype.is_float() { Elems::F(floats) } else { Elems::I(ints) };
        Ok(vec![Tensor::from_elems(dtype, shape, e)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run};

    fn op(equation: &str) -> Einsum {
        Einsum { equation: equation.into() }
    }

    #[test]
    fn sums_products() {
        let (a, b) = (iota(&[2, 3]), iota(&[3, 2]));
        assert_eq!(run(op("ij, jk"), &[a.clone(), b.clone()]), f(&[2, 2], &[10.0, 13.0, 28.0, 40.0]));
        assert_eq!(run(op("ij->ji"), std::slice::from_ref(&a)), f(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
        assert_eq!(run(op("ij->"), std::slice::from_ref(&a)), f(&[], &[15.0]));
        assert_eq!(run(op("ii->i"), &[iota(&[2, 2])]), f(&[2], &[0.0, 3.0]));
        assert_eq!(run(op("...ii"), &[iota(&[2, 2, 2])]), f(&[2], &[3.0, 11.0]));
        let batched = run(op("...ij,...jk->...ik"), &[iota(&[2, 1, 2]), iota(&[2, 1])]);
        assert_eq!(batched, f(&[2, 1, 1], &[1.0, 3.0]));
        assert_eq!(run(op("i,i->"), &[i(&[2], &[3, 4]), i(&[2], &[5, 6])]), i(&[], &[39]));
        assert_eq!(run(op("i,j,k->kji"), &[iota(&[2]), iota(&[2]), iota(&[2])]).len(), 8);
    }

    #[test]
    fn bad_equations_are_told() {
        let a = iota(&[2, 3]);
        for bad in ["ij,jk", "ijk", "i", "ij->ik", "ij->ii", "i1", ""] {
            assert_eq!(fails(op(bad), std::slice::from_ref(&a)), "einsum-malformed", "{bad}");
        }
        assert_eq!(fails(op("ij,ij"), &[a.clone(), iota(&[3, 2])]), "shape-mismatch");
    }
}
