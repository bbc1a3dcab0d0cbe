//! Symbolic dimensions: polynomials over named symbols and over floor division, remainder, minimum and maximum.
//!
//! Two dims are equal for every binding of the symbols if they compare equal; the reverse does not hold.

mod symbols;
#[cfg(test)]
mod tests;

pub use symbols::{SymOrigin, Symbol, Symbols};

use crate::entity::Entity;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

crate::entity!(
    /// A symbol of a dimension.
    SymId, "s"
);

/// An indivisible factor of a dim.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Atom {
    /// A symbol.
    Sym(SymId),
    /// Quotient rounded towards minus infinity.
    FloorDiv(Dim, Dim),
    /// Remainder with the sign of the divisor.
    Mod(Dim, Dim),
    /// The larger one.
    Max(Dim, Dim),
    /// The smaller one.
    Min(Dim, Dim),
}

/// A product of atoms with exponents, sorted.
pub type Monomial = Vec<(Atom, u32)>;

/// An integer expression over symbols, in a normal form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dim {
    /// A known number.
    Const(i64),
    /// A sum of products with coefficients that are not 0, not all constant.
    Poly(Arc<BTreeMap<Monomial, i64>>),
}

impl From<i64> for Dim {
    fn from(v: i64) -> Dim {
        Dim::Const(v)
    }
}
impl From<usize> for Dim {
    fn from(v: usize) -> Dim {
        Dim::Const(v as i64)
    }
}
impl From<i32> for Dim {
    fn from(v: i32) -> Dim {
        Dim::Const(v.into())
    }
}
impl From<SymId> for Dim {
    fn from(s: SymId) -> Dim {
        Dim::atom(Atom::Sym(s))
    }
}

impl Dim {
    /// The dim that is one atom.
    pub fn atom(atom: Atom) -> Dim {
        Dim::Poly(Arc::new(BTreeMap::from([(vec![(atom, 1)], 1)])))
    }
    /// The number, if it is known.
    pub fn as_const(&self) -> Option<i64> {
        match self {
            Dim::Const(v) => Some(*v),
            Dim::Poly(_) => None,
        }
    }
    /// The symbol, if the dim is nothing but one.
    pub fn as_symbol(&self) -> Option<SymId> {
        let Dim::Poly(p) = self else { return None };
        let mut it = p.iter();
        match (it.next(), it.next()) {
            (Some((m, 1)), None) => match m.as_slice() {
                [(Atom::Sym(s), 1)] => Some(*s),
                _ => None,
            },
            _ => None,
        }
    }
    /// Whether it is the number `v`.
    pub fn is(&self, v: i64) -> bool {
        self.as_const() == Some(v)
    }
    /// The terms: monomial and coefficient.
    pub fn terms(&self) -> Vec<(Monomial, i64)> {
        match self {
            Dim::Const(0) => Vec::new(),
            Dim::Const(v) => vec![(Vec::new(), *v)],
            Dim::Poly(p) => p.iter().map(|(m, c)| (m.clone(), *c)).collect(),
        }
    }
    fn from_terms(terms: impl IntoIterator<Item = (Monomial, i64)>) -> Dim {
        let mut map: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (m, c) in terms {
            let slot = map.entry(m).or_insert(0);
            *slot = slot.saturating_add(c);
        }
        map.retain(|_, c| *c != 0);
        if map.is_empty() {
            return Dim::Const(0);
        }
        if map.len() == 1
            && let Some(c) = map.get(&Vec::new())
        {
            return Dim::Const(*c);
        }
        Dim::Poly(Arc::new(map))
    }
    /// Sum.
    #[must_use]
    pub fn add(&self, o: &Dim) -> Dim {
        if let (Dim::Const(a), Dim::Const(b)) = (self, o) {
            return Dim::Const(a.saturating_add(*b));
        }
        Dim::from_terms(self.terms().into_iter().chain(o.terms()))
    }
    /// Difference.
    #[must_use]
    pub fn sub(&self, o: &Dim) -> Dim {
        self.add(&o.mul(&Dim::Const(-1)))
    }
    /// Product. Saturates at the ends of `i64`, which the element-count limits reject.
    #[must_use]
    pub fn mul(&self, o: &Dim) -> Dim {
        if let (Dim::Const(a), Dim::Const(b)) = (self, o) {
            return Dim::Const(a.saturating_mul(*b));
        }
        let (a, b) = (self.terms(), o.terms());
        let mut out = Vec::with_capacity(a.len() * b.len());
        for (ma, ca) in &a {
            for (mb, cb) in &b {
                let mut m: BTreeMap<Atom, u32> = BTreeMap::new();
                for (atom, e) in ma.iter().chain(mb) {
                    *m.entry(atom.clone()).or_insert(0) += e;
                }
                out.push((m.into_iter().collect(), ca.saturating_mul(*cb)));
            }
        }
        Dim::from_terms(out)
    }
    /// The product of all.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::Const(1), |p, d| p.mul(d))
    }
    /// Exact quotient `q` with `q * o == self` as polynomials, if there is one.
    pub fn exact_div(&self, o: &Dim) -> Option<Dim> {
        if o.is(0) {
            return None;
        }
        if self == o {
            return Some(Dim::Const(1));
        }
        let divisor = o.terms();
        if divisor.len() != 1 {
            // A polynomial divisor: divide by its leading term, at most as often as there are terms.
            let (lead_m, lead_c) = leading(divisor)?;
            let mut rest = self.clone();
            let mut quotient = Dim::Const(0);
            for _ in 0..self.terms().len() + 1 {
                let Some((m, c)) = leading(rest.terms()) else { return Some(quotient) };
                let q = div_monomial(&m, &lead_m).filter(|_| c % lead_c == 0)?;
                let q = Dim::from_terms([(q, c / lead_c)]);
                quotient = quotient.add(&q);
                rest = rest.sub(&q.mul(o));
            }
            return rest.is(0).then_some(quotient);
        }
        let (dm, dc) = &divisor[0];
        let mut out = Vec::new();
        for (m, c) in self.terms() {
            if c % dc != 0 {
                return None;
            }
            out.push((div_monomial(&m, dm)?, c / dc));
        }
        Some(Dim::from_terms(out))
    }
    /// Quotient rounded towards minus infinity; a divisor of 0 is kept as it is and fails in `eval`.
    #[must_use]
    pub fn floor_div(&self, o: &Dim) -> Dim {
        if let (Dim::Const(a), Dim::Const(b)) = (self, o)
            && *b != 0
        {
            return Dim::Const(floor_div(*a, *b));
        }
        if let Some(q) = self.exact_div(o) {
            return q;
        }
        let numbers = self.terms().into_iter().chain(o.terms()).map(|(_, c)| c.unsigned_abs());
        let common = Dim::Const(numbers.fold(0, gcd).try_into().unwrap_or(1));
        if let (false, Some(a), Some(b)) = (common.is(1), self.exact_div(&common), o.exact_div(&common)) {
            return a.floor_div(&b);
        }
        if let Some(c) = o.as_const().filter(|c| *c > 0) {
            let (whole, rest): (Vec<_>, Vec<_>) =
                self.terms().into_iter().partition(|(m, k)| !m.is_empty() && k % c == 0);
            if !whole.is_empty() {
                let whole = Dim::from_terms(whole.into_iter().map(|(m, k)| (m, k / c)));
                return whole.add(&Dim::from_terms(rest).floor_div(o));
            }
            // The constant's multiple of the divisor moves outside.
            let k = rest.iter().find(|(m, _)| m.is_empty()).map_or(0, |(_, k)| *k);
            let out = floor_div(k, c);
            if out != 0 {
                let inner = Dim::from_terms(rest).sub(&Dim::Const(out * c));
                return Dim::atom(Atom::FloorDiv(inner, o.clone())).add(&Dim::Const(out));
            }
        }
        Dim::atom(Atom::FloorDiv(self.clone(), o.clone()))
    }
    /// Quotient rounded towards plus infinity, for a positive divisor.
    #[must_use]
    pub fn ceil_div(&self, o: &Dim) -> Dim {
        self.add(o).sub(&Dim::Const(1)).floor_div(o)
    }
    /// Remainder with the sign of the divisor.
    #[must_use]
    pub fn modulo(&self, o: &Dim) -> Dim {
        match (self, o) {
            (Dim::Const(a), Dim::Const(b)) if *b != 0 => Dim::Const(a - b * floor_div(*a, *b)),
            _ if self.exact_div(o).is_some() => Dim::Const(0),
            _ => Dim::atom(Atom::Mod(self.clone(), o.clone())),
        }
    }
    /// The larger one. Nested maxima are one: sorted, without repetitions, with at most one number.
    #[must_use]
    pub fn larger(&self, o: &Dim) -> Dim {
        let mut of = Vec::new();
        self.gather_extremes(true, &mut of);
        o.gather_extremes(true, &mut of);
        extreme(of, i64::max, Atom::Max)
    }
    /// The smaller one, with nested minima as in [`Dim::larger`].
    #[must_use]
    pub fn smaller(&self, o: &Dim) -> Dim {
        let mut of = Vec::new();
        self.gather_extremes(false, &mut of);
        o.gather_extremes(false, &mut of);
        extreme(of, i64::min, Atom::Min)
    }
    /// What it is the largest (or smallest) of: itself if it is no maximum (minimum).
    fn gather_extremes(&self, largest: bool, out: &mut Vec<Dim>) {
        if let Dim::Poly(p) = self
            && p.len() == 1
            && let Some((m, 1)) = p.iter().next()
            && let [(atom, 1)] = m.as_slice()
            && let (Atom::Max(a, b), true) | (Atom::Min(a, b), false) = (atom, largest)
        {
            a.gather_extremes(largest, out);
            b.gather_extremes(largest, out);
        } else {
            out.push(self.clone());
        }
    }
    /// The value under a binding; none on overflow, division by 0 or an unbound symbol.
    pub fn eval(&self, bind: &dyn Fn(SymId) -> Option<i64>) -> Option<i64> {
        let Dim::Poly(p) = self else { return self.as_const() };
        let mut sum = 0i64;
        for (m, c) in p.iter() {
            let mut prod = *c;
            for (atom, e) in m {
                let v = match atom {
                    Atom::Sym(s) => bind(*s)?,
                    Atom::FloorDiv(a, b) => {
                        let (a, b) = (a.eval(bind)?, b.eval(bind)?);
                        (b != 0).then(|| floor_div(a, b))?
                    }
                    Atom::Mod(a, b) => {
                        let (a, b) = (a.eval(bind)?, b.eval(bind)?);
                        (b != 0).then(|| a - b * floor_div(a, b))?
                    }
                    Atom::Max(a, b) => a.eval(bind)?.max(b.eval(bind)?),
                    Atom::Min(a, b) => a.eval(bind)?.min(b.eval(bind)?),
                };
                for _ in 0..*e {
                    prod = prod.checked_mul(v)?;
                }
            }
            sum = sum.checked_add(prod)?;
        }
        Some(sum)
    }
    /// The dim with symbols replaced.
    #[must_use]
    pub fn substitute(&self, with: &dyn Fn(SymId) -> Option<Dim>) -> Dim {
        let Dim::Poly(p) = self else { return self.clone() };
        let mut sum = Dim::Const(0);
        for (m, c) in p.iter() {
            let mut prod = Dim::Const(*c);
            for (atom, e) in m {
                let v = match atom {
                    Atom::Sym(s) => with(*s).unwrap_or_else(|| Dim::from(*s)),
                    Atom::FloorDiv(a, b) => a.substitute(with).floor_div(&b.substitute(with)),
                    Atom::Mod(a, b) => a.substitute(with).modulo(&b.substitute(with)),
                    Atom::Max(a, b) => a.substitute(with).larger(&b.substitute(with)),
                    Atom::Min(a, b) => a.substitute(with).smaller(&b.substitute(with)),
                };
                for _ in 0..*e {
                    prod = prod.mul(&v);
                }
            }
            sum = sum.add(&prod);
        }
        sum
    }
    /// Every symbol in it, with repetitions removed, sorted.
    pub fn symbols(&self) -> Vec<SymId> {
        let mut out = Vec::new();
        self.collect_symbols(&mut out);
        out.sort();
        out.dedup();
        out
    }
    fn collect_symbols(&self, out: &mut Vec<SymId>) {
        let Dim::Poly(p) = self else { return };
        for (m, _) in p.iter() {
            for (atom, _) in m {
                match atom {
                    Atom::Sym(s) => out.push(*s),
                    Atom::FloorDiv(a, b) | Atom::Mod(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => {
                        a.collect_symbols(out);
                        b.collect_symbols(out);
                    }
                }
            }
        }
    }
    /// A lower and an upper bound that follow from the ranges of the symbols, where they are known.
    pub fn bounds(&self, symbols: &Symbols) -> (Option<i64>, Option<i64>) {
        let Dim::Poly(p) = self else { return (self.as_const(), self.as_const()) };
        let (mut lo, mut hi) = (Some(0i64), Some(0i64));
        for (m, c) in p.iter() {
            let (mut mlo, mut mhi) = (Some(1i64), Some(1i64));
            for (atom, e) in m {
                let (alo, ahi) = match atom {
                    Atom::Sym(s) => (Some(symbols.get(*s).min), symbols.get(*s).max),
                    Atom::FloorDiv(a, b) => match (a.bounds(symbols), b.as_const()) {
                        ((l, h), Some(b)) if b > 0 => {
                            (l.map(|l| floor_div(l, b)), h.map(|h| floor_div(h, b)))
                        }
                        ((Some(l), h), _) if l >= 0 && b.bounds(symbols).0.is_some_and(|b| b > 0) => {
                            (Some(0), h)
                        }
                        _ => (None, None),
                    },
                    Atom::Mod(_, b) => match b.bounds(symbols) {
                        (Some(l), h) if l > 0 => (Some(0), h.map(|h| h - 1)),
                        _ => (None, None),
                    },
                    Atom::Max(a, b) => {
                        let ((al, ah), (bl, bh)) = (a.bounds(symbols), b.bounds(symbols));
                        (al.max(bl), ah.zip(bh).map(|(x, y)| x.max(y)))
                    }
                    Atom::Min(a, b) => {
                        let ((al, ah), (bl, bh)) = (a.bounds(symbols), b.bounds(symbols));
                        let hi = match (ah, bh) {
                            (Some(x), Some(y)) => Some(x.min(y)),
                            (x, y) => x.or(y),
                        };
                        (al.zip(bl).map(|(x, y)| x.min(y)), hi)
                    }
                };
                for _ in 0..*e {
                    // Products keep bounds only over non-negative factors.
                    let ok = mlo.is_some_and(|v| v >= 0) && alo.is_some_and(|v| v >= 0);
                    mhi = if ok { mhi.zip(ahi).and_then(|(x, y)| x.checked_mul(y)) } else { None };
                    mlo = if ok {
                        mlo.zip(alo).and_then(|(x, y)| x.checked_mul(y))
                    } else {
                        alo.filter(|_| m.len() == 1 && *e == 1)
                    };
                    if !ok && m.len() == 1 && *e == 1 {
                        mhi = ahi;
                    }
                }
            }
            let (tlo, thi) = if *c >= 0 { (mlo, mhi) } else { (mhi, mlo) };
            lo = lo.zip(tlo).and_then(|(s, v)| s.checked_add(v.checked_mul(*c)?));
            hi = hi.zip(thi).and_then(|(s, v)| s.checked_add(v.checked_mul(*c)?));
        }
        (lo, hi)
    }
    /// Prints with the names of the symbols.
    pub fn display<'a>(&'a self, symbols: &'a Symbols) -> DisplayDim<'a> {
        DisplayDim { dim: self, symbols }
    }
}

/// The largest (or smallest) of some dims in its one form: `f(a, f(b, f(c, ..)))` with `a < b < c`.
fn extreme(mut of: Vec<Dim>, pick: fn(i64, i64) -> i64, f: fn(Dim, Dim) -> Atom) -> Dim {
    let number = of.iter().filter_map(Dim::as_const).reduce(pick);
    of.retain(|d| d.as_const().is_none());
    of.extend(number.map(Dim::Const));
    of.sort_unstable();
    of.dedup();
    let last = of.pop().unwrap_or(Dim::Const(0));
    of.into_iter().rev().fold(last, |rest, d| Dim::atom(f(d, rest)))
}

/// The leading term in the lexicographic order that ranks the greatest atom first.
fn leading(terms: Vec<(Monomial, i64)>) -> Option<(Monomial, i64)> {
    terms.into_iter().max_by(|(a, _), (b, _)| a.iter().rev().cmp(b.iter().rev()))
}

fn div_monomial(m: &Monomial, d: &Monomial) -> Option<Monomial> {
    let mut out = m.clone();
    for (atom, e) in d {
        let slot = out.iter_mut().find(|(a, _)| a == atom)?;
        slot.1 = slot.1.checked_sub(*e)?;
    }
    out.retain(|(_, e)| *e > 0);
    Some(out)
}

/// The greatest common divisor.
fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Quotient rounded towards minus infinity. The divisor must not be 0.
pub fn floor_div(a: i64, b: i64) -> i64 {
    let q = a.wrapping_div(b);
    if a.wrapping_rem(b) != 0 && (a < 0) != (b < 0) { q - 1 } else { q }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_dim(self, &|s| format!("s{}", s.index()), f)
    }
}

/// A dim with names, see [`Dim::display`].
pub struct DisplayDim<'a> {
    dim: &'a Dim,
    symbols: &'a Symbols,
}

impl fmt::Display for DisplayDim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_dim(self.dim, &|s| crate::text::symbol_name(&self.symbols.get(s).name), f)
    }
}

fn print_dim(dim: &Dim, name: &dyn Fn(SymId) -> String, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let terms = dim.terms();
    if terms.is_empty() {
        return f.write_str("0");
    }
    // The constant comes last, as people write it.
    let ordered =
        terms.iter().filter(|(m, _)| !m.is_empty()).chain(terms.iter().filter(|(m, _)| m.is_empty()));
    for (i, (m, c)) in ordered.enumerate() {
        if *c < 0 {
            f.write_str("-")?;
        } else if i > 0 {
            f.write_str("+")?;
        }
        let size = c.unsigned_abs();
        if size != 1 || m.is_empty() {
            write!(f, "{size}")?;
        }
        let mut first = size == 1;
        for (atom, e) in m {
            for _ in 0..*e {
                if !first {
                    f.write_str("*")?;
                }
                first = false;
                let (word, a, b) = match atom {
                    Atom::Sym(s) => {
                        f.write_str(&name(*s))?;
                        continue;
                    }
                    Atom::FloorDiv(a, b) => ("floordiv", a, b),
                    Atom::Mod(a, b) => ("mod", a, b),
                    Atom::Max(a, b) => ("max", a, b),
                    Atom::Min(a, b) => ("min", a, b),
                };
                write!(f, "{word}(")?;
                print_dim(a, name, f)?;
                f.write_str(",")?;
                print_dim(b, name, f)?;
                f.write_str(")")?;
            }
        }
    }
    Ok(())
}
