//! What layers cost, as passes are told it: a table that comes with the tool.

/// Time of kernels with weights in blocks to that of dense ones.
#[derive(Clone, PartialEq, Debug)]
pub struct SparseCosts {
    /// For each size of blocks (inputs, outputs) the time of a kept weight to that of a weight of the dense kernel.
    pub blocks: Vec<([u32; 2], f64)>,
    /// The part of the dense time that is spent however few blocks are kept.
    pub fixed: f64,
    /// How much longer a convolution whose dense kernel works on transformed tiles takes without that.
    pub transformed: f64,
    /// Kernels with blocks are chosen if they take at most this part of the dense time.
    pub margin: f64,
}

impl Default for SparseCosts {
    /// Measured with AVX-512 on a BERT of 128 rows and on ResNet-50, at 30, 50 and 90% sparsity.
    fn default() -> Self {
        SparseCosts {
            blocks: vec![([1, 16], 1.2), ([4, 16], 1.18), ([1, 32], 1.12), ([4, 32], 1.1), ([32, 32], 1.08)],
            fixed: 0.02,
            transformed: 2.8,
            margin: 0.9,
        }
    }
}

impl SparseCosts {
    /// Time to that of the dense kernel if a share `kept` of the blocks is there; none for sizes without a kernel.
    pub fn of(&self, block: [u32; 2], kept: f64, transformed: bool) -> Option<f64> {
        let (_, weight) = self.blocks.iter().find(|(b, _)| *b == block)?;
        let dense = if transformed { self.transformed } else { 1.0 };
        Some((self.fixed + kept * weight) * dense)
    }
}

/// Time of products of few rows that leave out inputs to that of dense ones.
#[derive(Clone, PartialEq, Debug)]
pub struct GatedCosts {
    /// The time of a weight that is read to that of a weight of the dense kernel.
    pub weight: f64,
    /// What it takes to look at an input, in weights of the dense kernel.
    pub input: f64,
    /// What one more launch takes, in weights of the dense kernel.
    pub launch: f64,
    /// Gates are put in if they take at most this part of the dense time.
    pub margin: f64,
}

impl Default for GatedCosts {
    /// Measured with AVX-512 on products of one row and 256 to 4096 inputs and outputs.
    fn default() -> Self {
        GatedCosts { weight: 1.1, input: 12.0, launch: 1500.0, margin: 0.9 }
    }
}

impl GatedCosts {
    /// Time to that of the dense kernel for `k` inputs and `n` outputs of which a share `kept` of the inputs is not left out.
    pub fn of(&self, k: usize, n: usize, kept: f64) -> f64 {
        let dense = (k as f64 * n as f64).max(1.0);
        kept * self.weight + (k as f64 * self.input + self.launch) / dense
    }
}
