//! Blocks of an image added up.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::concat::{Pad, PadMode};
use crate::op::gather::Gather;
use crate::op::gradient::GradCx;
use crate::op::reshape::Reshape;
use crate::op::window::for_each_index;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value, elem_count};
use crate::types::Type;

crate::op_struct! {
    /// Sliding blocks added up to an image (ONNX Col2Im). Operands: columns \[N, C * block size, blocks\], the spatial dims of the image, those of a block (both i64 vectors). Result: \[N, C, image...\].
    Col2Im {
        /// Step of the blocks along each axis.
        strides: Vec<i64>,
        /// Distance of neighbouring elements of a block along each axis.
        dilations: Vec<i64>,
        /// Padding of the image: all beginnings, then all ends.
        pads: Vec<i64>,
    }
}

impl Col2Im {
    fn check(&self, axes: usize) -> Result<(), Diag> {
        let lens = [self.strides.len(), self.dilations.len(), self.pads.len()];
        let limit = i64::from(i32::MAX);
        if axes == 0
            || lens != [axes, axes, 2 * axes]
            || !self.strides.iter().chain(&self.dilations).all(|v| (1..=limit).contains(v))
            || !self.pads.iter().all(|v| (0..=limit).contains(v))
        {
            return Err(Diag::error("field-range", format!("fields {lens:?} of blocks over {axes} axes")));
        }
        Ok(())
    }
    /// How many blocks an image has along each axis.
    fn counts(&self, image: &[usize], block: &[usize]) -> Vec<usize> {
        let axes = image.len();
        let count = |a: usize| {
            let reach = (block[a] as i64 - 1) * self.dilations[a] + 1;
            let room = image[a] as i64 + self.pads[a] + self.pads[a + axes] - reach;
            if room < 0 { 0 } else { (room / self.strides[a]) as usize + 1 }
        };
        (0..axes.min(block.len())).map(count).collect()
    }
    /// Where in the image, row-major, element `e` of block `p` is; none outside.
    fn place(&self, image: &[usize], p: &[usize], e: &[usize]) -> Option<usize> {
        (0..image.len()).try_fold(0, |to, a| {
            let i = p[a] as i64 * self.strides[a] + e[a] as i64 * self.dilations[a] - self.pads[a];
            usize::try_from(i).ok().filter(|i| *i < image[a]).map(|i| to * image[a] + i)
        })
    }
}

impl OpDef for Col2Im {
    const NAME: &'static str = "col2im";
    const INPUTS: (usize, usize) = (3, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_float(), "a float")?;
        let axes = self.strides.len();
        self.check(axes)?;
        for i in 1..3 {
            cx.expect_dtype(i, |d| d == DType::I64, "i64")?;
            super::conv::expect_vector(cx, i, &axes.into(), "a list of spatial dims")?;
        }
        let [n, rows, _] = cx.dims(0)? else {
            return Err(Diag::error("shape-mismatch", "the columns must have rank 3"));
        };
        let channels = cx.ints(2).and_then(|block| {
            let size = Dim::product(&block);
            let rows = rows.clone();
            size.as_const().is_none_or(|s| s > 0).then(|| rows.floor_div(&size))
        });
        let mut shape = vec![n.clone(), channels.unwrap_or_else(|| cx.fresh(0, 1, 0, None))];
        match cx.ints(1) {
            Some(image) if image.len() == axes => {
                if image.iter().any(|d| d.as_const().is_some_and(|v| v < 0)) {
                    return Err(Diag::error("field-range", "a dim of the image is negative"));
                }
                shape.extend(image);
            }
            _ => shape.extend((0..axes).map(|a| cx.fresh(0, a + 2, 0, None)).collect::<Vec<_>>()),
        }
        Ok(vec![Type::tensor(dtype, shape).into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x) = (cx.only_seed()?, cx.input(0)?);
        let sizes = |cx: &GradCx<'_, '_>, i: usize| -> Result<Vec<usize>, Diag> {
            let known = cx.ints(cx.input(i)?).ok_or_else(|| cx.no_rule("with sizes that are computed"))?;
            Ok(known.into_iter().map(|v| v.max(0) as usize).collect())
        };
        let (image, block) = (sizes(cx, 1)?, sizes(cx, 2)?);
        let (plane, counts) = (elem_count(&image)?, self.counts(&image, &block));
        // Every element of a block reads what it was added to; what lies outside of the image is the zero behind it.
        let mut places = Vec::new();
        for_each_index(&block, |e| {
            for_each_index(&counts, |p| {
                places.push(self.place(&image, p, e).unwrap_or(plane) as i64);
                Ok(())
            })
        })?;
        let lead = cx.sizes(dy, 0..2)?;
        let end = cx.vector(&[plane as i64])?;
        let flat = cx.join(&[lead, end])?;
        let flat = cx.ed.node1(Reshape { allow_zero: true }, &[dy, flat])?;
        let pads = cx.vector(&[0, 0, 0, 0, 0, 1])?;
        let flat = cx.ed.node1(Pad { mode: PadMode::Constant }, &[flat, pads])?;
        let places = cx.vector(&places)?;
        let dx = cx.ed.node1(Gather { axis: 2 }, &[flat, places])?;
        let dx = cx.reshape_like(dx, x)?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let sizes = |v: Vec<i64>| -> Result<Vec<usize>, Diag> {
            let sound = |v: &i64| usize::try_from(*v).ok().filter(|v| *v <= 1 << 31);
            let all = v.iter().map(sound).collect::<Option<Vec<_>>>();
            all.ok_or_else(|| Diag::error("field-range", format!("dims {v:?}")))
        };
        let (image, block) = (sizes(cx.ints(1)?)?, sizes(cx.ints(2)?)?);
        let axes = image.len();
        self.check(axes)?;
        let (&[n, rows, blocks], size) = (x.shape(), elem_count(&block)?) else {
            return Err(Diag::error("shape-mismatch", "the columns must have rank 3"));
        };
        let counts = self.counts(&image, &block);
        if counts.len() != axes
            || block.len() != axes
            || size == 0
            || rows % size != 0
            || elem_count(&counts)? != blocks
        {
            return Err(Diag::error(
                "shape-mismatch",
                format!("columns {:?} of blocks {block:?} in an image {image:?}", x.shape()),
            ));
        }
        let channels = rows / size;
        let mut shape = vec![n, channels];
        shape.extend(&image);
        let mut out = vec![0.0; elem_count(&shape)?];
        let plane: usize = image.iter().product();
        let v = x.to_f64();
        let mut element = 0;
        for_each_index(&block, |e| {
            let mut at = 0;
            for_each_index(&counts, |p| {
                if let Some(to) = self.place(&image, p, e) {
                    for c in 0..n * channels {
                        out[c * plane + to] += v[(c * size + element) * blocks + at];
                    }
                }
                at += 1;
                Ok(())
            })?;
            element += 1;
            Ok(())
        })?;
        Ok(vec![Tensor::floats(x.dtype(), &shape, out)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::{eval_op, ramp};

    #[test]
    fn overlapping_blocks_add_up() -> Result<(), Diag> {
        let x = ramp(&[1, 2, 3], 1.0, 1.0)?;
        let op = Col2Im { strides: vec![1], dilations: vec![1], pads: vec![0, 0] };
        let args =
            |image: i64| [Some(x.clone()), Some(Tensor::vec_i64(&[image])), Some(Tensor::vec_i64(&[2]))];
        let y = eval_op(op.clone(), &args(4))?;
        assert_eq!((y[0].shape(), y[0].to_f64()), (&[1, 1, 4][..], vec![1.0, 6.0, 8.0, 6.0]));
        assert_eq!(eval_op(op, &args(5)).map_err(|d| d.id), Err("shape-mismatch"));
        Ok(())
    }
}
