//! What kernels of products of bytes with zero points are passed, for those of CPUs and of GPUs.

use super::plain::matrix_offset;
use super::product::Sides;
use crate::kernel::{Buf, Builder, Val};
use crate::lower::contraction::Epilogue;
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::{KernelCx, Launch};
use planish_ir::{Diag, Dim};

/// How the operands and zero points of a product are passed.
pub(super) struct Passed {
    /// Numbers of leading dims: of the result, the operands, the zero points.
    lead: usize,
    leads: [usize; 4],
    /// Which zero points there are, and which vary along rows (columns).
    pub(super) given: [bool; 2],
    pub(super) varies: [bool; 2],
}

/// What a kernel got.
pub(super) struct Got {
    /// The operands.
    pub(super) operands: [Buf; 2],
    /// Their zero points.
    pub(super) zeros: [Option<Buf>; 2],
    /// Rows, columns, length of the sums, and the units of work along rows and columns of a matrix.
    pub(super) sizes: [Val; 5],
    lead: Vec<Val>,
    leads: [Vec<Val>; 4],
    varies: [bool; 2],
}

impl Passed {
    /// A launch with a unit of work for each of so many parts of the rows and columns of each matrix. Its buffers are the operands, the zero
    /// points and those of `e`; its dims are [`Got::sizes`], then the leading dims of the result and of every operand and zero point.
    pub(super) fn launch(
        cx: &mut LowerCx<'_>,
        (s, w): (&Sides, &Opnd),
        e: &mut Epilogue,
        [down, across]: [&Dim; 2],
    ) -> Result<(Launch, Passed), Diag> {
        let zeros = s.zeros(cx)?;
        let (m, n, k) = (s.m(), s.n(), s.k());
        let lead = &s.out[..s.out.len() - 2];
        let flops = Dim::product(&s.out).mul(&k).mul(&2.into());
        let mut l = Launch::new("matmul_integer").read(&s.a).read(w).flops(flops);
        l = l.extent(Dim::product(lead).mul(down).mul(across));
        for z in zeros.iter().flatten() {
            l = l.read(z);
        }
        l = e.bufs(l, 2 + zeros.iter().flatten().count());
        l = l.dim(&m).dim(&n).dim(&k).dim(down).dim(across).dims(lead);
        let all = [Some(&s.a), Some(w), zeros[0].as_ref(), zeros[1].as_ref()];
        let leads = all.map(|x| x.map_or(&[][..], |x| &x.dims[..x.dims.len().saturating_sub(2)]));
        for lead in leads {
            l = l.dims(lead);
        }
        let passed = Passed {
            lead: lead.len(),
            leads: leads.map(<[Dim]>::len),
            given: [0, 1].map(|i| zeros[i].is_some()),
            varies: s.zeros_vary(&zeros),
        };
        Ok((l, passed))
    }
    /// In the kernel.
    pub(super) fn get(&self, kc: &KernelCx<'_>) -> Got {
        let second = 2 + usize::from(self.given[0]);
        let mut at = 5 + self.lead;
        let leads = self.leads.map(|count| {
            at += count;
            kc.dims(at - count, count)
        });
        Got {
            operands: [kc.buf(0), kc.buf(1)],
            zeros: [self.given[0].then(|| kc.buf(2)), self.given[1].then(|| kc.buf(second))],
            sizes: [0, 1, 2, 3, 4].map(|i| kc.dim(i)),
            lead: kc.dims(5, self.lead),
            leads,
            varies: self.varies,
        }
    }
}

impl Got {
    /// Where a matrix begins in each operand, and its first zero point in each of those.
    pub(super) fn offsets(&self, b: &mut Builder, matrix: Val) -> ([Val; 2], [Val; 2]) {
        let [m, n, k, ..] = self.sizes;
        let one = b.i64(1);
        let zeros = [if self.varies[0] { m } else { one }, if self.varies[1] { n } else { one }];
        let sizes = [b.mul(m, k), b.mul(k, n), zeros[0], zeros[1]];
        let [a, w, za, zw] =
            [0, 1, 2, 3].map(|i| matrix_offset(b, &self.lead, &self.leads[i], matrix, sizes[i]));
        ([a, w], [za, zw])
    }
}
