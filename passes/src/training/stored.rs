//! Weights of which training goes on with the blocks that are kept: once masks are final, a step multiplies with these blocks only, forward and
//! back, and parameters and state of the optimiser are as many elements.

use super::{malformed, parameters};
use planish_ir::graph::Use;
use planish_ir::op::blocks::BlockMatMul;
use planish_ir::op::concat::{Pad, PadMode};
use planish_ir::op::matmul::MatMul;
use planish_ir::{Constant, Diag, Editor, Encoding, Graph, Matrix, NodeId, Op, Order, Tensor, ValueId};

/// Blocks that are tried where masks were not made of blocks of one size, larger ones first.
const SIZES: [[u32; 2]; 6] = [[16, 16], [4, 16], [1, 16], [4, 4], [1, 4], [1, 1]];

/// A parameter in blocks.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredBlocks {
    /// Name of the parameter.
    pub name: String,
    /// Block size, inputs x outputs.
    pub block: [u32; 2],
    /// Positions of the blocks in their grid, row by row.
    index: Vec<u32>,
    matrix: Matrix,
    shape: Vec<usize>,
}

impl StoredBlocks {
    /// The blocks that a mask keeps. None where the matrix is empty or a block is kept in part.
    fn of(name: &str, mask: &Tensor, transposed: bool, block: [u32; 2]) -> Option<StoredBlocks> {
        let matrix = Matrix::new(mask.shape(), transposed)?;
        let [down, across] = matrix.grid(block);
        let mut found = vec![[false; 2]; down * across];
        let values = mask.to_f64();
        matrix.each(block, |at, i| found[at][usize::from(values[i] != 0.0)] = true);
        let whole = !found.is_empty() && found.iter().all(|f| *f != [true; 2]);
        let index = (0..found.len() as u32).filter(|at| found[*at as usize][1]).collect();
        let shape = mask.shape().to_vec();
        whole.then(|| StoredBlocks { name: name.to_owned(), block, index, matrix, shape })
    }
    /// Share of the blocks that are stored.
    pub fn share(&self) -> f64 {
        let [down, across] = self.matrix.grid(self.block);
        self.index.len() as f64 / (down * across).max(1) as f64
    }
    /// Whether a step with the stored blocks is faster than one with the whole matrix: kernels of larger blocks read less for every
    /// multiplication.
    fn pays(&self) -> bool {
        let most = match self.block[0] * self.block[1] {
            16.. => 0.5,
            4.. => 0.35,
            _ => 0.2,
        };
        self.share() <= most
    }
    /// Whether a tensor has the shape of the whole parameter.
    pub fn is_whole(&self, t: &Tensor) -> bool {
        t.shape() == self.shape
    }
    /// Whether a tensor has the shape of the stored blocks.
    pub fn is_blocks(&self, t: &Tensor) -> bool {
        t.shape() == [self.index.len(), self.block[0] as usize, self.block[1] as usize]
    }
    /// `[blocks, inputs, outputs]` of a tensor of the shape of the parameter; zero beyond its edges.
    ///
    /// # Errors
    /// As [`Matrix::blocks`].
    pub fn blocks(&self, t: &Tensor) -> Result<Tensor, Diag> {
        let [bk, bn] = self.block.map(|d| d as usize);
        self.matrix.blocks(t, self.block, &self.index)?.reshaped(&[self.index.len(), bk, bn])
    }
    /// The whole parameter of its blocks, with zeros elsewhere.
    ///
    /// # Errors
    /// `constant-malformed` for blocks of another parameter.
    pub fn whole(&self, blocks: &Tensor) -> Result<Tensor, Diag> {
        let encoding = Encoding::BlockSparse {
            block: self.block,
            order: Order::from(self.matrix.transposed),
            index: self.index.clone(),
            values: blocks.reshaped(&[blocks.len()])?,
        };
        Constant { dtype: blocks.dtype(), shape: self.shape.clone(), encoding }.decode()
    }

    /// Puts a product with the blocks in the place of one.
    fn put(&self, graph: &mut Graph, node: NodeId, w: ValueId) -> Result<(), Diag> {
        let weights = graph.as_const(w).ok_or_else(|| malformed("weights are no constant"))?.1.decode()?;
        let (x, y) = (graph.node(node).inputs[0], graph.node(node).outputs[0]);
        let x = x.ok_or_else(|| malformed("a product without operands"))?;
        let rank = graph.dims(x).map_or(0, <[_]>::len);
        let dtype = weights.dtype();
        parameters::replace(graph, w, self.blocks(&weights)?.into(), &self.name)?;
        let mut ed = Editor::new(graph);
        ed.before(node);
        let values = ed.graph().node(node).inputs[1].ok_or_else(|| malformed("a product without weights"))?;
        let index = self.index.iter().map(|at| i64::from(*at)).collect::<Vec<_>>();
        let index = ed.constant(Tensor::vec_i64(&index))?;
        let [down, across] = self.matrix.grid(self.block);
        let [bk, bn] = self.block.map(|d| d as usize);
        let (k, n) = (down * bk, across * bn);
        let to = |ed: &mut Editor<'_>, v: ValueId, more: usize, less: usize| {
            if more == less {
                return Ok(v);
            }
            let mut pads = vec![0; 2 * rank];
            pads[2 * rank - 1] = more as i64 - less as i64;
            let (pads, zero) = (Tensor::vec_i64(&pads), Tensor::scalar(dtype, 0.0)?);
            let (pads, zero) = (ed.constant(pads)?, ed.constant(zero)?);
            ed.node1(Pad { mode: PadMode::Constant }, &[v, pads, zero])
        };
        let x = to(&mut ed, x, k, self.matrix.k)?;
        let product = ed.node1(BlockMatMul { k, n, bk, bn, trans: false }, &[x, values, index])?;
        let product = to(&mut ed, product, self.matrix.n, n)?;
        ed.replace(y, product);
        ed.erase(node)
    }
}

/// The only product that takes a constant as its right operand, if nothing else takes it, and whether it lies as outputs x inputs.
fn product(graph: &Graph, w: ValueId) -> Option<(NodeId, bool)> {
    let [Use::Node(node, 1)] = graph.uses(w)[..] else { return None };
    let Op::MatMul(MatMul { trans_a: false, trans_b }) = graph.node(node).op else { return None };
    let dims = |v: ValueId| graph.dims(v).map(<[_]>::len);
    let x = graph.node(node).inputs.first().copied().flatten()?;
    (dims(w)? == 2 && dims(x)? >= 2 && graph.nodes_in(graph.root()).any(|n| n == node))
        .then_some((node, trans_b))
}

/// The model with [blocks](BlockMatMul) in the place of parameters that masks leave few blocks of, and what these are. A parameter stays as it is where
/// no mask is given, where it is anything but the right operand of one product, and, unless `all` is asked for, where a step would not become
/// faster. `block` is the size that is tried first.
///
/// # Errors
/// `train-malformed` where the model is not that of the masks.
pub fn stored_blocks(
    model: &Graph,
    masks: &dyn Fn(&str) -> Option<Tensor>,
    block: [u32; 2],
    all: bool,
) -> Result<(Graph, Vec<StoredBlocks>), Diag> {
    let mut graph = model.clone();
    let mut out = Vec::new();
    let nodes: Vec<NodeId> = graph.nodes_in(graph.root()).collect();
    for n in nodes {
        let Some(w) = graph.node(n).outputs.first().copied() else { continue };
        let Some(name) = graph.value(w).name.clone().filter(|_| graph.as_const(w).is_some()) else {
            continue;
        };
        let Some(mask) = masks(&name) else { continue };
        let Some((node, transposed)) = product(&graph, w) else { continue };
        let fits = graph.as_const(w).is_some_and(|(_, c)| c.shape == mask.shape());
        let sizes = [block].into_iter().chain(SIZES).filter(|_| fits);
        let mut found = sizes.filter_map(|size| StoredBlocks::of(&name, &mask, transposed, size));
        let Some(found) = found.find(|s| all || s.pays()) else { continue };
        found.put(&mut graph, node, w)?;
        out.push(found);
    }
    Ok((graph, out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_ir::{interp, text};

    /// Blocks of 2 x 4 of a matrix of 3 x 6, whose edges are in the middle of blocks.
    #[test]
    fn a_model_in_blocks_says_the_same() -> Result<(), Diag> {
        for (trans, shape) in [(false, [3, 6]), (true, [6, 3])] {
            let matrix = Matrix::new(&shape, trans).ok_or_else(|| malformed("no matrix"))?;
            let (mut mask, mut weights) = (vec![0f32; 18], vec![0f32; 18]);
            matrix.each([2, 4], |at, i| {
                if at == 1 || at == 2 {
                    (mask[i], weights[i]) = (1.0, i as f32 - 7.0);
                }
            });
            let list: Vec<String> = weights.iter().map(|w| format!("{w:.1}")).collect();
            let model = text::parse(&format!(
                "planish-ir 1
                graph @\"g\"(v0: f32[M,3]) {{
                  v1 \"w\" = const f32[{},{}] [{}]
                  v2 = matmul{{trans_a=false, trans_b={trans}}} v0, v1 : f32[M,6]
                  return v2 \"y\" }}",
                shape[0],
                shape[1],
                list.join(", ")
            ))?;
            let mask = Tensor::f32s(&shape, &mask)?;
            let given = |name: &str| (name == "w").then(|| mask.clone());
            let (dense, none) = stored_blocks(&model, &given, [4, 2], false)?;
            assert_eq!((text::print(&dense), none), (text::print(&model), vec![]));
            let (sparse, stored) = stored_blocks(&model, &given, [2, 4], true)?;
            let [stored] = &stored[..] else { return Err(malformed("one parameter")) };
            assert_eq!((stored.block, stored.share()), ([2, 4], 0.5));
            assert!(text::print(&sparse).contains("block-matmul{k=4, n=8, bk=2, bn=4, trans=false}"));
            let x = Tensor::f32s(&[2, 3], &[1.0, -2.0, 3.0, 0.5, 4.0, -1.0])?;
            let y = |g: &Graph| interp::run(g, vec![x.clone().into()]).map(|r| r.values);
            assert_eq!(y(&sparse)?, y(&model)?);
            let w = Tensor::f32s(&shape, &weights)?;
            assert_eq!(stored.whole(&stored.blocks(&w)?)?, w);
            assert!(stored.is_whole(&w) && !stored.is_whole(&stored.blocks(&w)?));
            // Blocks that are kept in part are no blocks.
            assert!(StoredBlocks::of("w", &mask, trans, [3, 6]).is_none());
        }
        Ok(())
    }
}
