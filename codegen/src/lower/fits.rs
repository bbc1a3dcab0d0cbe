//! Conditions between dims of operands that inference could not decide: kernels rely on them, so they are checked when
//! shapes are bound, before anything is read.

use super::cx::LowerCx;
use planish_ir::Dim;

impl LowerCx<'_> {
    /// Raises an error at run time unless an operand of shape `dims` can be broadcast to `out`, aligned at the last
    /// axis.
    pub(super) fn require_broadcast(&mut self, dims: &[Dim], out: &[Dim]) {
        for (d, o) in dims.iter().rev().zip(out.iter().rev()) {
            if !d.is(1) && d != o {
                // Either it is the result's dim or 1: (d - 1) * (d - o) is 0.
                let clash = d.sub(&Dim::Const(1)).mul(&d.sub(o));
                self.require_equal(&clash, &Dim::Const(0), "a dim cannot be broadcast");
            }
        }
    }

    /// Raises an error at run time unless the dims are equal, as many as both shapes have.
    pub(super) fn require_dims(&mut self, have: &[Dim], want: &[Dim], what: &str) {
        for (a, b) in have.iter().zip(want) {
            self.require_equal(a, b, what);
        }
    }

    /// Raises an error at run time unless `a <= b`.
    pub(super) fn require_at_most(&mut self, a: &Dim, b: &Dim, what: &str) {
        self.require_equal(&a.smaller(b), a, what);
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::KernelInterpreter;
    use crate::kernel::TargetSpec;
    use planish_ir::{Diag, Engine, PrepareOptions, Tensor, text};

    /// What a run says for inputs of these shapes; nothing where it goes well.
    fn said(body: &str, shapes: &[&[usize]]) -> Result<Option<String>, Diag> {
        let g = text::parse(&format!("planish-ir 1\n{body}"))?;
        planish_ir::verify::check(&g)?;
        let engine = KernelInterpreter { target: TargetSpec::generic128() };
        let program = engine.prepare(&g, &PrepareOptions::default()).map_err(|mut d| d.swap_remove(0))?;
        let ones = |s: &&[usize]| Tensor::f32s(s, &vec![1.0; s.iter().product()]).map(|t| Some(t.into()));
        let inputs = shapes.iter().map(ones).collect::<Result<Vec<_>, _>>()?;
        Ok(program.session()?.run(&inputs).err().map(|d| d.message))
    }

    #[test]
    fn dims_that_do_not_fit_are_refused_before_anything_is_read() -> Result<(), Diag> {
        let add = "graph @\"g\"(v0: f32[A,7], v1: f32[B,7]) { v2 = binary{kind=add} v0, v1 : f32[max(A,B),7] return v2 }";
        let matmul = "graph @\"g\"(v0: f32[A,2,3], v1: f32[B,3,2]) { v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[max(A,B),2,2] return v2 }";
        let conv = "graph @\"g\"(v0: f32[1,C,6], v1: f32[4,2,3], v2: f32[B]) {
          v3 = conv{strides=[1], dilations=[1], pads=[0, 0], auto_pad=explicit, groups=1} v0, v1, v2 : f32[1,4,4]
          return v3 }";
        let lstm = "graph @\"g\"(v0: f32[1,B,2], v1: f32[1,12,2], v2: f32[1,12,3], v3: f32[1,N,3]) {
          v4, v5, v6 = recurrent{cell=lstm, direction=forward, activations=[sigmoid, tanh, tanh], alpha=[0, 0, 0], beta=[0, 0, 0], clip=none, linear_before_reset=false, input_forget=false} v0, v1, v2, _, _, v3 : f32[1,1,B,3], f32[1,B,3], f32[1,B,3]
          return v4 }";
        let cases: [(&str, &[&[usize]], bool); 11] = [
            (add, &[&[2, 7], &[3, 7]], false),
            (add, &[&[2, 7], &[1, 7]], true),
            (add, &[&[3, 7], &[3, 7]], true),
            (matmul, &[&[2, 2, 3], &[3, 3, 2]], false),
            (matmul, &[&[1, 2, 3], &[3, 3, 2]], true),
            (conv, &[&[1, 3, 6], &[4, 2, 3], &[4]], false),
            (conv, &[&[1, 1, 6], &[4, 2, 3], &[4]], false),
            (conv, &[&[1, 2, 6], &[4, 2, 3], &[3]], false),
            (conv, &[&[1, 2, 6], &[4, 2, 3], &[4]], true),
            (lstm, &[&[1, 2, 2], &[1, 12, 2], &[1, 12, 3], &[1, 1, 3]], false),
            (lstm, &[&[1, 2, 2], &[1, 12, 2], &[1, 12, 3], &[1, 2, 3]], true),
        ];
        for (body, shapes, fits) in cases {
            assert_eq!(said(body, shapes)?.is_none(), fits, "{body} {shapes:?}");
        }
        Ok(())
    }
}
