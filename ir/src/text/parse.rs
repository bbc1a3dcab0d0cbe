//! Parsing. Findings point at the byte range of the text to blame.

use super::lex::{Word, words};
use super::{VERSION, payload, read_quoted};
use crate::attr::split_top;
use crate::diag::{Diag, Loc};
use crate::dim::{Dim, SymOrigin, Symbol, Symbols};
use crate::dtype::DType;
use crate::editor::Editor;
use crate::graph::{Fact, Graph, RegionId, StatePair, ValueId};
use crate::op::{Const, Op};
use crate::types::{Quant, TensorType, Type};
use std::collections::HashMap;
use std::sync::Arc;

/// Reads a graph. It is well-typed as far as `infer` goes; run the verifier for the rest.
pub fn parse(text: &str) -> Result<Graph, Diag> {
    let words = words(text);
    let mut graph = Graph::default();
    let mut p =
        Parser { words: &words, at: 0, end: text.len(), values: HashMap::new(), ed: Editor::new(&mut graph) };
    p.graph()?;
    Ok(graph)
}

/// Reads a type that holds no symbols.
pub fn parse_closed_type(text: &str) -> Option<Type> {
    let mut symbols = Symbols::default();
    let ty = read_type(text, &mut symbols)?;
    (symbols.iter().next().is_none()).then_some(ty)
}

struct Parser<'a, 'g> {
    words: &'a [Word<'a>],
    at: usize,
    end: usize,
    values: HashMap<&'a str, ValueId>,
    ed: Editor<'g>,
}

type Res<T> = Result<T, Diag>;

impl<'a> Parser<'a, '_> {
    fn peek(&self) -> &'a str {
        self.words.get(self.at).map_or("", |w| w.text)
    }
    fn next(&mut self) -> Res<Word<'a>> {
        let w = self.words.get(self.at).copied();
        self.at += 1;
        w.ok_or_else(|| self.error("unexpected end of text".into()))
    }
    fn error(&self, message: String) -> Diag {
        let i = self.at.saturating_sub(1);
        let (start, end) = self.words.get(i).map_or((self.end, self.end), |w| (w.at, w.at + w.text.len()));
        Diag::error("text-malformed", message).at(Loc::Text { start, end })
    }
    fn take(&mut self, text: &str) -> bool {
        let hit = self.peek() == text;
        self.at += usize::from(hit);
        hit
    }
    fn expect(&mut self, text: &str) -> Res<()> {
        let w = self.next()?;
        if w.text == text { Ok(()) } else { Err(self.error(format!("`{text}` expected, not `{}`", w.text))) }
    }
    fn number<T: std::str::FromStr>(&mut self) -> Res<T> {
        let w = self.next()?;
        w.text.parse().map_err(|_| self.error(format!("a number expected, not `{}`", w.text)))
    }
    fn quoted(&mut self) -> Res<String> {
        let w = self.next()?;
        read_quoted(w.text).ok_or_else(|| self.error(format!("a quoted text expected, not `{}`", w.text)))
    }

    fn graph(&mut self) -> Res<()> {
        self.expect("planish-ir")?;
        let version: u32 = self.number()?;
        if version != VERSION {
            return Err(self.error(format!("version {version} is not read, only {VERSION}")));
        }
        while self.take("sym") {
            self.symbol()?;
        }
        self.expect("graph")?;
        self.expect("@")?;
        *self.ed.graph_mut().name = self.quoted()?;
        let root = self.ed.graph().root();
        self.params(root)?;
        self.expect("{")?;
        self.body(root, "return")?;
        while self.take("state") {
            let output = self.number()?;
            self.expect("->")?;
            let input = self.number()?;
            self.ed.graph_mut().states.push(StatePair { output, input });
        }
        self.expect("}")?;
        match self.words.get(self.at) {
            None => Ok(()),
            Some(w) => {
                let w = w.text;
                self.at += 1;
                Err(self.error(format!("`{w}` after the end of the graph")))
            }
        }
    }
    fn symbol(&mut self) -> Res<()> {
        let w = self.next()?;
        let name = read_quoted(w.text).unwrap_or_else(|| w.text.to_owned());
        let range = self.next()?.text;
        let bad = |p: &Self| p.error(format!("`{range}` is no range"));
        let (lo, hi) = range.split_once("..").ok_or_else(|| bad(self))?;
        let min = lo.parse().map_err(|_| bad(self))?;
        let max = if hi.is_empty() { None } else { Some(hi.parse().map_err(|_| bad(self))?) };
        let origin = if self.take("data") { SymOrigin::Data } else { SymOrigin::Input };
        self.ed.graph_mut().symbols.add(Symbol { name: name.into(), min, max, origin });
        Ok(())
    }
    fn ty(&mut self) -> Res<Type> {
        let w = self.next()?;
        let (plain, quant) = match w.text.find("!q(") {
            Some(i) => (&w.text[..i], Some(&w.text[i + 3..w.text.len() - 1])),
            None => (w.text, None),
        };
        let ty = read_type(plain, self.ed.graph_mut().symbols);
        let mut ty = ty.ok_or_else(|| self.error(format!("`{plain}` is no type")))?;
        if let (Some(q), Type::Tensor(t)) = (quant, &mut ty) {
            let quant =
                self.quant(q).ok_or_else(|| self.error(format!("`{q}` describes no quantisation")))?;
            t.quant = Some(Arc::new(quant));
        }
        Ok(ty)
    }
    fn quant(&mut self, text: &str) -> Option<Quant> {
        let mut q = Quant { scale: crate::entity::Entity::new(0), zero_point: None, axis: None, group: 1 };
        for part in split_top(text, ',') {
            let (key, value) = part.trim().split_once('=')?;
            let constant = |p: &mut Self| {
                let c = payload::read(&split_top(value, ' '))?;
                Some(p.ed.constant_id(c))
            };
            match key {
                "scale" => q.scale = constant(self)?,
                "zero" => q.zero_point = Some(constant(self)?),
                "axis" => q.axis = Some(value.parse().ok()?),
                "group" => q.group = value.parse().ok()?,
                _ => return None,
            }
        }
        Some(q)
    }
    fn define(&mut self, name: &'a str, v: ValueId) -> Res<()> {
        if self.values.insert(name, v).is_some() {
            return Err(self.error(format!("{name} is defined twice")));
        }
        Ok(())
    }
    fn params(&mut self, r: RegionId) -> Res<()> {
        self.expect("(")?;
        while !self.take(")") {
            let id = self.next()?;
            let name = if self.peek().starts_with('"') { Some(self.quoted()?) } else { None };
            self.expect(":")?;
            let ty = self.ty()?;
            let v = self.ed.param(r, ty.into());
            if let Some(n) = name {
                self.ed.set_name(v, &n);
            }
            self.define(id.text, v)?;
            if self.peek() != ")" {
                self.expect(",")?;
            }
        }
        Ok(())
    }
    fn value(&mut self) -> Res<ValueId> {
        let w = self.next()?;
        self.values.get(w.text).copied().ok_or_else(|| self.error(format!("{} is not defined", w.text)))
    }
    fn body(&mut self, r: RegionId, last: &str) -> Res<()> {
        while !self.take(last) {
            self.ed.at_end(r);
            self.node(r)?;
        }
        while self.peek().starts_with('v') && self.values.contains_key(self.peek()) {
            let v = self.value()?;
            if last == "return" {
                let name = if self.peek().starts_with('"') { Some(self.quoted()?) } else { None };
                self.ed.output(v, name.as_deref());
            } else {
                self.ed.result(r, v);
            }
            if !self.take(",") {
                break;
            }
        }
        if last == "yield" { self.expect("}") } else { Ok(()) }
    }
    fn node(&mut self, r: RegionId) -> Res<()> {
        let first = self.at;
        let mut results: Vec<(Word<'a>, Option<String>)> = Vec::new();
        if self.words.get(self.at + 1).is_some_and(|w| matches!(w.text, "=" | ",") || w.text.starts_with('"'))
        {
            loop {
                let id = self.next()?;
                let name = if self.peek().starts_with('"') { Some(self.quoted()?) } else { None };
                results.push((id, name));
                if !self.take(",") {
                    break;
                }
            }
            self.expect("=")?;
        }
        let word = self.next()?;
        let made = if word.text == "const" {
            let start = self.at;
            // A constant's payload ends where its location or the next statement begins.
            let mut n = 1;
            let text = |i: usize| self.words.get(start + i).map_or("", |w| w.text);
            n += match text(1) {
                "splat" | "packed4" => 2,
                "codebook" => 3,
                "nofm" | "blocks" => 5,
                _ => 1,
            };
            let parts: Vec<&str> = (0..n).map(text).collect();
            let c = payload::read(&parts);
            self.at += n;
            let c = c.ok_or_else(|| self.error(format!("`{}` is no constant", parts.join(" "))))?;
            let id = self.ed.constant_id(c);
            let loc = self.loc()?;
            self.ed.set_loc(loc);
            self.ed.node(Op::Const(Const { id }), &[])?
        } else {
            self.operation(word, r)?
        };
        let at = self.at;
        self.at = first + 1;
        if made.len() != results.len() {
            return Err(self.error(format!(
                "`{}` gives {} results, not {}",
                word.text,
                made.len(),
                results.len()
            )));
        }
        for ((id, name), v) in results.into_iter().zip(made) {
            if let Some(n) = name {
                self.ed.set_name(v, &n);
            }
            self.define(id.text, v)?;
        }
        self.at = at;
        Ok(())
    }
    fn operation(&mut self, word: Word<'a>, r: RegionId) -> Res<Vec<ValueId>> {
        let here = self.at;
        let (name, fields) = match word.text.split_once('{') {
            Some((n, f)) => (n, f.strip_suffix('}').unwrap_or(f)),
            None => (word.text, ""),
        };
        let pairs: Option<Vec<(String, String)>> = split_top(fields, ',')
            .iter()
            .map(|p| p.trim().split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned())))
            .collect();
        let pairs = pairs.ok_or_else(|| self.error("fields are written name=value".into()))?;
        let op = Op::read(name, pairs).map_err(|e| self.error(e))?;
        let mut inputs = Vec::new();
        while self.peek() == "_" || self.values.contains_key(self.peek()) {
            inputs.push(if self.take("_") { None } else { Some(self.value()?) });
            if !self.take(",") {
                break;
            }
        }
        let mut regions = Vec::new();
        while self.peek() == "(" {
            let inner = self.ed.new_region();
            let outer = std::mem::take(&mut self.values);
            self.params(inner)?;
            self.expect("{")?;
            self.body(inner, "yield")?;
            self.values = outer;
            regions.push(inner);
        }
        self.ed.at_end(r);
        let mut types = Vec::new();
        if self.take(":") {
            loop {
                types.push(self.ty()?);
                if !self.take(",") {
                    break;
                }
            }
        }
        let loc = self.loc()?;
        self.ed.set_loc(loc);
        let end = std::mem::replace(&mut self.at, here);
        let facts = types.into_iter().map(Fact::from).collect();
        let out = self.ed.insert(op, &inputs, regions, facts);
        if let Some(n) = out.first().and_then(|v| self.ed.graph().def_node(*v)) {
            self.content(n).map_err(|d| {
                let text = self.error(String::new()).at;
                Diag { at: text, ..d }
            })?;
        }
        self.at = end;
        Ok(out)
    }
    /// Keeps the declared types and adds what `infer` knows of the content.
    fn content(&mut self, n: crate::NodeId) -> Res<()> {
        let declared: Vec<(ValueId, Type)> =
            self.ed.graph().node(n).outputs.iter().map(|v| (*v, self.ed.graph().ty(*v).clone())).collect();
        self.ed.reinfer(n)?;
        for (v, ty) in declared {
            let fact = &self.ed.graph().value(v).fact;
            if !fact.ty.fits(&ty) {
                let symbols = &self.ed.graph().symbols;
                let text = format!("declared {}, inferred {}", ty.display(symbols), fact.ty.display(symbols));
                return Err(Diag::error("type-mismatch", text));
            }
            let content = fact.content.clone();
            self.ed.set_fact(v, Fact { ty, content });
        }
        Ok(())
    }
    fn loc(&mut self) -> Res<Loc> {
        let mut parts = Vec::new();
        while self.take("@") {
            let node = self.quoted()?;
            if self.take(":") {
                let op = self.quoted()?;
                self.expect(":")?;
                parts.push(Loc::Onnx { node: node.into(), op: op.into(), opset: self.number()? });
            } else {
                parts.push(Loc::name(&node));
            }
        }
        Ok(Loc::fuse(parts))
    }
}

fn read_type(text: &str, symbols: &mut Symbols) -> Option<Type> {
    if let Some(t) = text.strip_prefix("seq<").and_then(|t| t.strip_suffix('>')) {
        return Some(Type::Sequence(Arc::new(read_type(t, symbols)?)));
    }
    if let Some(t) = text.strip_prefix("opt<").and_then(|t| t.strip_suffix('>')) {
        return Some(Type::Optional(Arc::new(read_type(t, symbols)?)));
    }
    if let Some(t) = text.strip_prefix("map<").and_then(|t| t.strip_suffix('>')) {
        let (k, v) = t.split_once(',')?;
        return Some(Type::Map(DType::parse(k)?, Arc::new(read_type(v, symbols)?)));
    }
    let (dtype, dims) = text.strip_suffix(']')?.split_once('[')?;
    let dtype = DType::parse(dtype)?;
    if dims == ".." {
        return Some(TensorType::unranked(dtype).into());
    }
    let dims: Option<Vec<Dim>> = split_top(dims, ',').iter().map(|d| read_dim(d.trim(), symbols)).collect();
    Some(Type::tensor(dtype, dims?))
}

/// Reads a sum of products.
fn read_dim(text: &str, symbols: &mut Symbols) -> Option<Dim> {
    let mut r = DimReader { text, symbols };
    let d = r.sum(0)?;
    r.text.is_empty().then_some(d)
}

struct DimReader<'a, 's> {
    text: &'a str,
    symbols: &'s mut Symbols,
}

impl DimReader<'_, '_> {
    fn take(&mut self, c: char) -> bool {
        let rest = self.text.strip_prefix(c);
        self.text = rest.unwrap_or(self.text);
        rest.is_some()
    }
    fn sum(&mut self, depth: usize) -> Option<Dim> {
        if depth > 32 {
            return None;
        }
        let mut total = Dim::Const(0);
        let mut minus = self.take('-');
        loop {
            let t = self.product(depth)?;
            total = if minus { total.sub(&t) } else { total.add(&t) };
            minus = match self.text.chars().next() {
                Some('+') => false,
                Some('-') => true,
                _ => return Some(total),
            };
            self.text = &self.text[1..];
        }
    }
    fn product(&mut self, depth: usize) -> Option<Dim> {
        let mut p = self.factor(depth)?;
        // A coefficient stands right before its symbol: `2*n` and `2n` are both read.
        while self.take('*')
            || self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '"')
        {
            p = p.mul(&self.factor(depth)?);
        }
        Some(p)
    }
    fn factor(&mut self, depth: usize) -> Option<Dim> {
        let digits = self.text.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.text.len());
        if digits > 0 {
            let v: i64 = self.text[..digits].parse().ok()?;
            self.text = &self.text[digits..];
            return Some(Dim::Const(v));
        }
        if self.text.starts_with('"') {
            let end = self.text[1..].find('"')? + 2;
            let name = read_quoted(&self.text[..end])?;
            self.text = &self.text[end..];
            return Some(Dim::from(self.symbols.named(&name)));
        }
        let end = self
            .text
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))
            .unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        if word.is_empty() {
            return None;
        }
        self.text = rest;
        if !self.take('(') {
            return Some(Dim::from(self.symbols.named(word)));
        }
        let a = self.sum(depth + 1)?;
        if !self.take(',') {
            return None;
        }
        let b = self.sum(depth + 1)?;
        if !self.take(')') {
            return None;
        }
        match word {
            "floordiv" => Some(a.floor_div(&b)),
            "mod" => Some(a.modulo(&b)),
            "max" => Some(a.larger(&b)),
            "min" => Some(a.smaller(&b)),
            _ => None,
        }
    }
}
