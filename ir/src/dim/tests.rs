use super::*;

#[test]
fn polynomials_have_one_normal_form() {
    let mut s = Symbols::default();
    let (n, h) = (Dim::from(s.named("n")), Dim::from(s.named("h")));
    let a = n.add(&h).mul(&n.sub(&h));
    let b = n.mul(&n).sub(&h.mul(&h));
    assert_eq!(a, b);
    assert_eq!(n.mul(&2.into()).add(&1.into()).floor_div(&2.into()), n);
    assert_eq!(n.mul(&h).exact_div(&h), Some(n.clone()));
    assert_eq!(a.exact_div(&n.add(&h)), Some(n.sub(&h)));
    assert_eq!(n.add(&3.into()).display(&s).to_string(), "n+3");
    let three = Dim::from(3);
    assert_eq!(n.add(&h).mul(&three).floor_div(&h.mul(&three)), n.add(&h).floor_div(&h));
    assert_eq!(n.floor_div(&2.into()).eval(&|_| Some(7)), Some(3));
}

#[test]
fn nested_maxima_are_one() {
    let mut s = Symbols::default();
    let [a, b, c] = ["a", "b", "c"].map(|n| Dim::from(s.named(n)));
    let ab = a.larger(&b);
    assert_eq!(ab.larger(&b.larger(&a)), ab);
    assert_eq!(c.larger(&ab).larger(&a), b.larger(&c).larger(&a));
    assert_eq!(ab.larger(&1.into()).larger(&3.into()), a.larger(&3.into()).larger(&b));
    assert_eq!(ab.smaller(&a).display(&s).to_string(), "min(a,max(a,b))");
    let v = c.larger(&ab).larger(&2.into()).eval(&|_| Some(1));
    assert_eq!(v, Some(2));
    let mut many = a.clone();
    for _ in 0..64 {
        many = many.larger(&many.larger(&b));
    }
    assert_eq!(many, ab);
}

#[test]
fn bounds_follow_symbol_ranges() {
    let mut s = Symbols::default();
    let id = s.named("n");
    s.set_range(id, 1, Some(10));
    let n = Dim::from(id);
    assert_eq!(n.mul(&2.into()).sub(&1.into()).bounds(&s), (Some(1), Some(19)));
    assert_eq!(Dim::Const(0).sub(&n).bounds(&s), (Some(-10), Some(-1)));
    assert_eq!(n.add(&1.into()).floor_div(&2.into()).bounds(&s), (Some(1), Some(5)));
}
