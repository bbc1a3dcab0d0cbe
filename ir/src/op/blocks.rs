//! Products with matrices in blocks whose elements are operands, and the gradients of these blocks: training of sparse weights.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Fact, Graph, NodeId, ValueId};
use crate::op::build::Build;
use crate::op::gather::Gather;
use crate::op::gradient::GradCx;
use crate::op::matmul::MatMul;
use crate::op::scatter::{Reduction, ScatterNd};
use crate::op::util::{expect_equal, fact};
use crate::op::views::Flatten;
use crate::op::{EvalCx, InferCx, Op, OpDef};
use crate::tensor::{Tensor, Value, elem_count};

crate::op_struct! {
    /// A product `[.., k] x [k, n] -> [.., n]`, or with `trans` `[.., n] x [n, k] -> [.., k]`, with a matrix `[k, n]` that is zero outside of some blocks of bk x bn elements. Operands: x, the elements of these blocks `[blocks, bk, bn]` of the type of x, and where they are: i64 `[blocks]`, row-major positions in the grid of k / bk x n / bn blocks. Blocks at one position are added. Sums in f64, rounded once. There are kernels for f32 where positions are constant and bk and bn powers of two up to 32; otherwise `expand-composites` puts a dense product in its place.
    BlockMatMul {
        /// Rows of the matrix, a multiple of bk.
        k: usize,
        /// Columns of the matrix, a multiple of bn.
        n: usize,
        /// Rows of a block.
        bk: usize,
        /// Columns of a block.
        bn: usize,
        /// Whether x meets the columns of the matrix instead of its rows.
        trans: bool,
    }
}

crate::op_struct! {
    /// Some blocks of the product `[k, m] x [m, n]` of a transposed left operand with a right one: the gradient of the blocks of `block-matmul`. Operands: `[.., k]`, `[.., n]` with the same leading axes, all of which are summed over, and the positions of the blocks, i64 `[blocks]`, as there. Result: `[blocks, bk, bn]`. Sums in f64, rounded once.
    BlockOuter {
        /// Rows of the matrix, a multiple of bk.
        k: usize,
        /// Columns of the matrix, a multiple of bn.
        n: usize,
        /// Rows of a block.
        bk: usize,
        /// Columns of a block.
        bn: usize,
    }
}

/// A matrix cut into blocks without a rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Grid {
    k: usize,
    n: usize,
    bk: usize,
    bn: usize,
}

impl Grid {
    fn check(self, what: &str) -> Result<(), Diag> {
        let whole = |side: usize, block: usize| block > 0 && side.is_multiple_of(block);
        if whole(self.k, self.bk) && whole(self.n, self.bn) && elem_count(&[self.k, self.n]).is_ok() {
            return Ok(());
        }
        let Grid { k, n, bk, bn } = self;
        Err(Diag::error("field-invalid", format!("{what}: blocks of {bk} x {bn} do not make up {k} x {n}")))
    }
    fn down(self) -> usize {
        self.k / self.bk
    }
    fn across(self) -> usize {
        self.n / self.bn
    }
    /// Row and column of the first element of each block.
    fn places(self, index: &Tensor) -> Result<Vec<[usize; 2]>, Diag> {
        let count = self.down() * self.across();
        let place = |at: i64| {
            let at = usize::try_from(at).ok().filter(|at| *at < count).ok_or_else(|| {
                Diag::error("index-out-of-range", format!("block {at} of a grid of {count}"))
            })?;
            Ok([at / self.across() * self.bk, at % self.across() * self.bn])
        };
        index.to_i64()?.into_iter().map(place).collect()
    }
    fn infer_index(cx: &InferCx<'_>, i: usize) -> Result<Dim, Diag> {
        cx.expect_dtype(i, |d| d == DType::I64, "i64")?;
        match cx.dims(i)? {
            [count] => Ok(count.clone()),
            _ => Err(Diag::error("shape-mismatch", "positions of blocks are a vector")),
        }
    }
}

/// The last axis, and how many rows the others make up.
fn rows(x: &Tensor, width: usize) -> Result<usize, Diag> {
    match x.shape().split_last() {
        Some((last, lead)) if *last == width => elem_count(lead),
        _ => Err(Diag::error("shape-mismatch", format!("{:?} for {width} columns", x.shape()))),
    }
}

fn wide(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
}

fn missing() -> Diag {
    Diag::error("arity", "products with blocks have three operands")
}

impl BlockMatMul {
    fn grid(&self) -> Grid {
        Grid { k: self.k, n: self.n, bk: self.bk, bn: self.bn }
    }
    /// Row and column of the first element of the blocks at these positions.
    ///
    /// # Errors
    /// `index-out-of-range` beyond the grid.
    pub fn places(&self, index: &Tensor) -> Result<Vec<[usize; 2]>, Diag> {
        self.grid().places(index)
    }
    /// Operands and results of a row.
    pub fn sides(&self) -> (usize, usize) {
        if self.trans { (self.n, self.k) } else { (self.k, self.n) }
    }
    /// A dense matrix and a product with it.
    pub(crate) fn parts(&self, b: &mut Build<'_, '_>, inputs: &[Option<ValueId>]) -> Result<ValueId, Diag> {
        let [Some(x), Some(values), Some(index)] = *inputs else { return Err(missing()) };
        let BlockMatMul { k, n, bk, bn, trans } = *self;
        let (down, across) = (self.grid().down() as i64, self.grid().across() as i64);
        let [k, n, bk, bn] = [k, n, bk, bn].map(|d| d as i64);
        let zeros = b.splat(0.0, &[down * across, bk, bn], values)?;
        let index = b.unsqueeze(index, &[1])?;
        let blocks = b.ed.node1(ScatterNd { reduction: Reduction::Add }, &[zeros, index, values])?;
        let blocks = b.reshape(blocks, &[down, across, bk, bn])?;
        let matrix = b.transpose(blocks, &[0, 2, 1, 3])?;
        let matrix = b.reshape(matrix, &[k, n])?;
        b.ed.node1(MatMul { trans_a: false, trans_b: trans }, &[x, matrix])
    }
}

impl OpDef for BlockMatMul {
    const NAME: &'static str = "block-matmul";
    const INPUTS: (usize, usize) = (3, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        self.grid().check("block-matmul")?;
        let dtype = cx.expect_dtype(0, wide, "a float of 16 bits or more")?;
        if cx.dtype(1)? != dtype {
            return Err(Diag::error("dtype-mismatch", "blocks have the type of the left operand"));
        }
        let blocks = Grid::infer_index(cx, 2)?;
        let [count, rows, columns] = cx.dims(1)? else {
            return Err(Diag::error("shape-mismatch", "blocks have three axes"));
        };
        expect_equal(count, &blocks, "number of blocks")?;
        expect_equal(rows, &self.bk.into(), "rows of a block")?;
        expect_equal(columns, &self.bn.into(), "columns of a block")?;
        let (from, to) = self.sides();
        let [lead @ .., last] = cx.dims(0)? else {
            return Err(Diag::error("shape-mismatch", "a product with blocks needs an axis"));
        };
        expect_equal(last, &from.into(), "inner dims of a product with blocks")?;
        let mut dims = lead.to_vec();
        dims.push(to.into());
        Ok(vec![fact(dtype, dims)])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x, values, index) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?, cx.input(2)?);
        if cx.wants(0) {
            let back = BlockMatMul { trans: !self.trans, ..self.clone() };
            let dx = cx.ed.node1(back, &[dy, values, index])?;
            cx.give(0, dx)?;
        }
        if cx.wants(1) {
            let BlockMatMul { k, n, bk, bn, .. } = *self;
            let (a, b) = if self.trans { (dy, x) } else { (x, dy) };
            let dv = cx.ed.node1(BlockOuter { k, n, bk, bn }, &[a, b, index])?;
            cx.give(1, dv)?;
        }
        Ok(())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, values, index) = (cx.tensor(0)?.clone(), cx.tensor(1)?.clone(), cx.tensor(2)?.clone());
        let (from, to) = self.sides();
        let rows = rows(&x, from)?;
        let mut shape = x.shape().to_vec();
        shape.pop();
        shape.push(to);
        let mut out = vec![0.0; elem_count(&shape)?];
        let (elements, weights) = (x.to_f64(), values.to_f64());
        let size = self.bk * self.bn;
        if values.shape() != [index.len(), self.bk, self.bn] {
            return Err(Diag::error("shape-mismatch", format!("blocks are {:?}", values.shape())));
        }
        for ([k0, n0], block) in self.grid().places(&index)?.into_iter().zip(weights.chunks_exact(size)) {
            for (i, w) in block.iter().enumerate() {
                let (k, n) = (k0 + i / self.bn, n0 + i % self.bn);
                let (f, t) = if self.trans { (n, k) } else { (k, n) };
                for r in 0..rows {
                    out[r * to + t] += elements[r * from + f] * w;
                }
            }
        }
        Ok(vec![Tensor::floats(x.dtype(), &shape, out)?.into()])
    }
    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }
}

impl BlockOuter {
    fn grid(&self) -> Grid {
        Grid { k: self.k, n: self.n, bk: self.bk, bn: self.bn }
    }
    /// As [`BlockMatMul::places`].
    ///
    /// # Errors
    /// `index-out-of-range` beyond the grid.
    pub fn places(&self, index: &Tensor) -> Result<Vec<[usize; 2]>, Diag> {
        self.grid().places(index)
    }
    /// The whole product, and blocks of it.
    pub(crate) fn parts(&self, b: &mut Build<'_, '_>, inputs: &[Option<ValueId>]) -> Result<ValueId, Diag> {
        let [Some(x), Some(y), Some(index)] = *inputs else { return Err(missing()) };
        let mut matrix = |v: ValueId| {
            let axis = b.dims(v)?.len().saturating_sub(1);
            b.ed.node1(Flatten { axis }, &[v])
        };
        let (x, y) = (matrix(x)?, matrix(y)?);
        let all = b.ed.node1(MatMul { trans_a: true, trans_b: false }, &[x, y])?;
        let (down, across) = (self.grid().down() as i64, self.grid().across() as i64);
        let (bk, bn) = (self.bk as i64, self.bn as i64);
        let all = b.reshape(all, &[down, bk, across, bn])?;
        let all = b.transpose(all, &[0, 2, 1, 3])?;
        let all = b.reshape(all, &[down * across, bk, bn])?;
        b.ed.node1(Gather { axis: 0 }, &[all, index])
    }
}

impl OpDef for BlockOuter {
    const NAME: &'static str = "block-outer";
    const INPUTS: (usize, usize) = (3, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        self.grid().check("block-outer")?;
        let dtype = cx.expect_dtype(0, wide, "a float of 16 bits or more")?;
        if cx.dtype(1)? != dtype {
            return Err(Diag::error("dtype-mismatch", "both operands have one type"));
        }
        let blocks = Grid::infer_index(cx, 2)?;
        let ([one @ .., k], [other @ .., n]) = (cx.dims(0)?, cx.dims(1)?) else {
            return Err(Diag::error("shape-mismatch", "a product of blocks needs an axis"));
        };
        if one.len() != other.len() {
            return Err(Diag::error("shape-mismatch", "both operands have the same leading axes"));
        }
        for (a, b) in one.iter().zip(other) {
            expect_equal(a, b, "leading axes")?;
        }
        expect_equal(k, &self.k.into(), "columns of the left operand")?;
        expect_equal(n, &self.n.into(), "columns of the right operand")?;
        Ok(vec![fact(dtype, vec![blocks, self.bk.into(), self.bn.into()])])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dv, x, y, index) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?, cx.input(2)?);
        let BlockOuter { k, n, bk, bn } = *self;
        for (i, other, trans) in [(0, y, true), (1, x, false)] {
            if cx.wants(i) {
                let d = cx.ed.node1(BlockMatMul { k, n, bk, bn, trans }, &[other, dv, index])?;
                cx.give(i, d)?;
            }
        }
        Ok(())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, y, index) = (cx.tensor(0)?.clone(), cx.tensor(1)?.clone(), cx.tensor(2)?.clone());
        let count = rows(&x, self.k)?;
        if rows(&y, self.n)? != count {
            return Err(Diag::error("shape-mismatch", format!("{:?} and {:?}", x.shape(), y.shape())));
        }
        let (a, b) = (x.to_f64(), y.to_f64());
        let mut out = Vec::new();
        for [k0, n0] in self.grid().places(&index)? {
            for (i, j) in (0..self.bk).flat_map(|i| (0..self.bn).map(move |j| (i, j))) {
                let at = |r: usize| a[r * self.k + k0 + i] * b[r * self.n + n0 + j];
                out.push((0..count).map(at).fold(0.0, |sum, v| sum + v));
            }
        }
        Ok(vec![Tensor::floats(x.dtype(), &[index.len(), self.bk, self.bn], out)?.into()])
    }
}

/// Whether a kernel for CPUs computes a product with blocks, or blocks of a product, as it is.
pub fn has_kernel(g: &Graph, n: NodeId) -> bool {
    let node = g.node(n);
    let grid = match &node.op {
        Op::BlockMatMul(op) => op.grid(),
        Op::BlockOuter(op) => op.grid(),
        _ => return false,
    };
    let sizes = [grid.bk, grid.bn].iter().all(|side| *side <= 32 && side.is_power_of_two());
    let index = node.inputs.get(2).copied().flatten().and_then(|v| g.as_const(v));
    let f32s = node.inputs.iter().flatten().take(2).all(|v| g.dtype(*v) == Some(DType::F32));
    // Places of elements are numbers of 32 bits.
    let near = [grid.k, grid.n].iter().all(|side| *side < 1 << 26);
    index.is_some() && f32s && sizes && near
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::editor::Editor;
    use crate::op::checked::{f, fails, i, run};
    use crate::op::composites::expand_composites;
    use crate::op::gradient::tests::{Random, check};
    use crate::{interp, text};

    /// Blocks of 1 x 2 of a matrix of 2 x 4: the second of the first row and the first of the second.
    #[test]
    fn blocks_stand_for_a_matrix() {
        let op = BlockMatMul { k: 2, n: 4, bk: 1, bn: 2, trans: false };
        let (values, index) = (f(&[2, 1, 2], &[3.0, 4.0, 5.0, 6.0]), i(&[2], &[1, 2]));
        let x = f(&[1, 1, 2], &[10.0, 1.0]);
        assert_eq!(
            run(op.clone(), &[x.clone(), values.clone(), index.clone()]),
            f(&[1, 1, 4], &[5.0, 6.0, 30.0, 40.0])
        );
        let back = BlockMatMul { trans: true, ..op.clone() };
        let y = f(&[1, 4], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(run(back, &[y.clone(), values.clone(), index.clone()]), f(&[1, 2], &[25.0, 17.0]));
        let outer = BlockOuter { k: 2, n: 4, bk: 1, bn: 2 };
        let x = f(&[1, 2], &[10.0, 1.0]);
        assert_eq!(
            run(outer.clone(), &[x.clone(), y, index.clone()]),
            f(&[2, 1, 2], &[30.0, 40.0, 1.0, 2.0])
        );
        let empty = run(outer.clone(), &[f(&[0, 2], &[]), f(&[0, 4], &[]), index.clone()]);
        assert_eq!(empty, f(&[2, 1, 2], &[0.0; 4]));
        assert_eq!(run(op.clone(), &[x.clone(), f(&[0, 1, 2], &[]), i(&[0], &[])]), f(&[1, 4], &[0.0; 4]));
        assert_eq!(fails(op.clone(), &[x.clone(), values.clone(), i(&[2], &[1, 4])]), "index-out-of-range");
        assert_eq!(
            fails(op.clone(), &[f(&[1, 3], &[0.0; 3]), values.clone(), index.clone()]),
            "shape-mismatch"
        );
        let bad = BlockMatMul { n: 3, ..op };
        assert_eq!(fails(bad, &[x, values, index]), "field-invalid");
    }

    #[test]
    fn gradients_and_parts() -> Result<(), Diag> {
        let mut r = Random(81_000);
        for (down, across, bk, bn, m) in [(2, 3, 1, 4, 3), (3, 2, 2, 2, 1), (1, 1, 4, 1, 0), (2, 2, 3, 5, 2)]
        {
            let all = (down * across) as i64;
            for index in [vec![0], vec![], (0..all).rev().collect(), vec![all - 1, all - 1]] {
                let (k, n) = (down * bk, across * bn);
                let at = i(&[index.len()], &index);
                let values = r.some(&[index.len(), bk, bn])?;
                let (x, y) = (r.some(&[m, k])?, r.some(&[m, n])?);
                for (trans, from) in [(false, &x), (true, &y)] {
                    let op = BlockMatMul { k, n, bk, bn, trans };
                    check(&mut r, op, &[Some(from.clone()), Some(values.clone()), Some(at.clone())])?;
                }
                let op = BlockOuter { k, n, bk, bn };
                check(&mut r, op, &[Some(x), Some(y), Some(at)])?;
            }
        }
        Ok(())
    }

    #[test]
    fn dense_products_give_the_same() -> Result<(), Diag> {
        let mut g = text::parse(
            "planish-ir 1
            graph @\"g\"(v0: f32[M,4], v1: f32[M,6], v2: f32[B,2,3], v3: i64[B]) {
              v4 = block-matmul{k=4, n=6, bk=2, bn=3, trans=false} v0, v2, v3 : f32[M,6]
              v5 = block-matmul{k=4, n=6, bk=2, bn=3, trans=true} v1, v2, v3 : f32[M,4]
              v6 = block-outer{k=4, n=6, bk=2, bn=3} v0, v1, v3 : f32[B,2,3]
              return v4, v5, v6
            }",
        )?;
        let ramp = |shape: &[usize]| -> Result<Value, Diag> {
            let count: usize = shape.iter().product();
            Ok(Tensor::f32s(shape, &(0..count).map(|i| i as f32 - 3.5).collect::<Vec<_>>())?.into())
        };
        let runs = |g: &Graph, m: usize, at: &[i64]| -> Result<Vec<Value>, Diag> {
            let index = Tensor::vec_i64(at).into();
            let inputs = vec![ramp(&[m, 4])?, ramp(&[m, 6])?, ramp(&[at.len(), 2, 3])?, index];
            Ok(interp::run(g, inputs)?.values)
        };
        let cases: [(usize, &[i64]); 4] = [(5, &[3, 0]), (1, &[1, 2, 2]), (0, &[0]), (2, &[])];
        let want = cases.iter().map(|(m, at)| runs(&g, *m, at)).collect::<Result<Vec<_>, _>>()?;
        let count = expand_composites(&mut Editor::new(&mut g), false)?;
        assert_eq!(count.blocks, 3);
        for ((m, at), want) in cases.iter().zip(want) {
            assert_eq!(runs(&g, *m, at)?, want);
        }
        Ok(())
    }
}
