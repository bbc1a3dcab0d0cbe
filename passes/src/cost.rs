//! What layers cost, as passes are told it: a table that comes with the tool, or what was measured on a machine.

/// Time of a kernel that skips zeros, as a part of the time of the dense kernel for the same product: `fixed` + `weight` x the
/// share of weights that are kept.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KernelCost {
    /// f32 lanes of the vectors.
    pub lanes: u32,
    /// Whether weights are signed bytes instead of f32.
    pub bytes: bool,
    /// Size of the blocks, inputs x outputs.
    pub block: [u32; 2],
    /// It holds from so many rows on (positions of a convolution).
    pub rows: u64,
    /// The time of a kept weight to that of a weight of the dense kernel.
    pub weight: f64,
    /// The part of the dense time that is spent however few are kept.
    pub fixed: f64,
}

/// Which kernel is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Size of the blocks.
    pub block: [u32; 2],
    /// Whether weights are signed bytes instead of f32.
    pub bytes: bool,
    /// Rows of the product at least.
    pub rows: u64,
    /// What for.
    pub job: Job,
}

/// What a kernel that skips zeros computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Job {
    /// A matrix product.
    Product,
    /// A convolution.
    Convolution,
    /// A convolution whose dense kernel works on transformed tiles.
    Transformed,
    /// The recurrence of a recurrent layer; its rows are entries of the batch.
    Recurrence,
}

/// Times of kernels that skip zeros.
#[derive(Clone, PartialEq, Debug)]
pub struct SparseCosts {
    /// f32 lanes of the vectors of the targets; what is chosen must pay on all of them.
    pub lanes: Vec<u32>,
    /// The table, for matrix products.
    pub kernels: Vec<KernelCost>,
    /// The table of recurrences.
    pub recurrences: Vec<KernelCost>,
    /// How much longer a kept weight takes in a convolution: positions of a window are not neighbours as copied rows are.
    pub convolution: f64,
    /// How much longer a convolution whose dense kernel works on transformed tiles takes without that.
    pub transformed: f64,
    /// Kernels that skip zeros are chosen if they take at most this part of the dense time.
    pub margin: f64,
}

/// A product with fewer rows takes as long as with this many: it waits for its weights.
const WAITED_ROWS: f64 = 12.0;
/// What it costs to go to an expert, in multiply-adds.
const VISIT: f64 = 2e5;

/// How much faster it is predicted to be to compute `active` of `experts` for each row than all of them, which have `macs` multiply-adds for
/// a row. `router`: multiply-adds for a row that only choosing needs.
pub fn routed_speedup(rows: f64, macs: f64, router: f64, [experts, active]: [usize; 2]) -> f64 {
    let experts = experts as f64;
    let routed = rows * active as f64;
    let visited = routed.min(experts).max(1.0);
    let dense = rows.max(WAITED_ROWS) * macs;
    let computed = visited * (routed / visited).max(WAITED_ROWS) * macs / experts;
    dense / (computed + rows * router + visited * VISIT)
}

/// Numbers of rows at which costs are measured, and from which on each holds.
pub const REGIMES: [(u64, u64); 3] = [(1, 1), (16, 16), (128, 64)];

/// The sizes of blocks that there are kernels for, f32.
pub const BLOCKS: [[u32; 2]; 8] = [[1, 16], [4, 16], [1, 32], [4, 32], [32, 32], [1, 4], [1, 2], [1, 1]];

/// The size of blocks of signed bytes that there are kernels for.
pub const BYTE_BLOCK: [u32; 2] = [4, 16];

/// Products of fewer rows have no kernel for scattered zeros: its vectors hold rows.
pub const LEAST_ROWS: u64 = 16;

/// Whether blocks of this size are for zeros that are scattered.
pub fn scattered(block: [u32; 2]) -> bool {
    block[1] < 16
}

impl Default for SparseCosts {
    fn default() -> Self {
        SparseCosts {
            lanes: vec![16],
            kernels: shipped(),
            recurrences: recurrences(),
            convolution: 1.4,
            transformed: 2.8,
            margin: 0.9,
        }
    }
}

/// `weight` and `fixed` of every size of blocks in every regime, for vectors of 8 and of 16 lanes.
type Row = (u32, bool, [u32; 2], [(f64, f64); 3]);

/// Measured on a Zen 5 core (two multiply-adds of 512 bits a cycle) with `compile --tune 60s`: products of 1024 x 1024 with 10 and 50% of the
/// blocks, in both widths of vectors. Where the dense kernel is slower, as on Zen 4 with AVX-512, zeros pay more.
const SHIPPED: &[Row] = &[
    (16, false, [1, 16], [(1.02, 0.05), (1.0, 0.03), (1.0, 0.07)]),
    (16, false, [4, 16], [(1.04, 0.05), (1.12, 0.03), (1.05, 0.06)]),
    (16, false, [1, 32], [(1.04, 0.04), (1.23, 0.02), (1.04, 0.05)]),
    (16, false, [4, 32], [(1.03, 0.05), (1.39, 0.03), (1.1, 0.05)]),
    (16, false, [32, 32], [(1.06, 0.04), (1.28, 0.01), (1.16, 0.04)]),
    (16, false, [1, 4], [(0.0, 0.0), (1.19, 0.03), (1.06, 0.06)]),
    (16, false, [1, 2], [(0.0, 0.0), (1.48, 0.06), (1.67, 0.05)]),
    (16, false, [1, 1], [(0.0, 0.0), (2.41, 0.06), (3.74, 0.0)]),
    (16, true, [4, 16], [(1.09, 0.14), (1.15, 0.06), (1.35, 0.15)]),
    (8, false, [1, 16], [(1.03, 0.06), (1.0, 0.02), (1.12, 0.03)]),
    (8, false, [4, 16], [(1.0, 0.05), (1.17, 0.01), (1.18, 0.02)]),
    (8, false, [1, 32], [(1.05, 0.04), (1.03, 0.02), (1.24, 0.01)]),
    (8, false, [4, 32], [(1.0, 0.06), (1.23, 0.0), (1.5, 0.0)]),
    (8, false, [32, 32], [(1.02, 0.05), (1.21, 0.0), (1.3, 0.0)]),
    (8, false, [1, 4], [(0.0, 0.0), (0.9, 0.03), (1.16, 0.05)]),
    (8, false, [1, 2], [(0.0, 0.0), (1.15, 0.03), (1.2, 0.05)]),
    (8, false, [1, 1], [(0.0, 0.0), (2.17, 0.0), (2.24, 0.0)]),
    (8, true, [4, 16], [(1.0, 0.07), (1.0, 0.02), (1.03, 0.01)]),
];

fn shipped() -> Vec<KernelCost> {
    let mut out = Vec::new();
    for (lanes, bytes, block, costs) in SHIPPED {
        for ((_, rows), (weight, fixed)) in REGIMES.iter().zip(costs) {
            if !scattered(*block) || *rows >= LEAST_ROWS {
                let cost = KernelCost {
                    lanes: *lanes,
                    bytes: *bytes,
                    block: *block,
                    rows: *rows,
                    weight: *weight,
                    fixed: *fixed,
                };
                out.push(cost);
            }
        }
    }
    out
}

/// `weight` and `fixed` of recurrences, for vectors of so many lanes: of a batch of one entry (or an unknown one) and of larger ones.
type RecurrenceRow = (u32, [u32; 2], [(f64, f64); 2]);

/// With 8 lanes measured on a Zen 3 core: GRU and LSTM of 256 units with 10 and 50% of the blocks, batches of 1, 2 and 4; what follows the
/// product is in the fixed part. With 16 lanes taken from that: a block of 8 units takes as long as one of 16.
const RECURRENCES: &[RecurrenceRow] = &[
    (8, [1, 16], [(1.1, 0.08), (1.0, 0.2)]),
    (8, [1, 8], [(1.65, 0.08), (1.4, 0.2)]),
    (16, [1, 16], [(1.1, 0.1), (1.2, 0.25)]),
    (16, [1, 8], [(2.2, 0.1), (2.4, 0.25)]),
];

fn recurrences() -> Vec<KernelCost> {
    let of = |(lanes, block, costs): &RecurrenceRow| {
        let (lanes, block) = (*lanes, *block);
        [1, 2].into_iter().zip(*costs).map(move |(rows, (weight, fixed))| KernelCost {
            lanes,
            bytes: false,
            block,
            rows,
            weight,
            fixed,
        })
    };
    RECURRENCES.iter().flat_map(of).collect()
}

impl SparseCosts {
    /// The table that a kernel is looked up in.
    fn table(&self, job: Job) -> &[KernelCost] {
        if job == Job::Recurrence { &self.recurrences } else { &self.kernels }
    }
    /// The sizes of blocks that there are kernels for, in the order of the table.
    pub fn blocks(&self, job: Job, bytes: bool) -> Vec<[u32; 2]> {
        let mut out = Vec::new();
        for k in self.table(job).iter().filter(|k| k.bytes == bytes) {
            if !out.contains(&k.block) {
                out.push(k.block);
            }
        }
        out
    }
    /// Time to that of the dense kernel if a share `kept` of the blocks is there, on the target where that is most; none if there is
    /// no such kernel.
    pub fn of(&self, asked: Asked, kept: f64) -> Option<f64> {
        let dense = if asked.job == Job::Transformed { self.transformed } else { 1.0 };
        let window =
            if matches!(asked.job, Job::Convolution | Job::Transformed) { self.convolution } else { 1.0 };
        let mut worst: Option<f64> = None;
        for lanes in &self.lanes {
            let cost = self.kernel(*lanes, asked)?;
            let time = (cost.fixed + kept * cost.weight * window) * dense;
            worst = Some(worst.map_or(time, |w| w.max(time)));
        }
        worst
    }
    /// The entry for vectors of so many lanes, or of the narrowest that are known.
    fn kernel(&self, lanes: u32, asked: Asked) -> Option<&KernelCost> {
        let fits = |k: &&KernelCost| k.block == asked.block && k.bytes == asked.bytes && k.rows <= asked.rows;
        let all = self.table(asked.job);
        let of = |lanes: u32| all.iter().filter(fits).filter(|k| k.lanes == lanes).max_by_key(|k| k.rows);
        of(lanes).or_else(|| of(all.iter().filter(fits).map(|k| k.lanes).min()?))
    }
    /// Puts measured costs in the place of those of the table.
    pub fn measured(&mut self, costs: &[KernelCost]) {
        for c in costs {
            let same = |k: &&mut KernelCost| {
                (k.lanes, k.bytes, k.block, k.rows) == (c.lanes, c.bytes, c.block, c.rows)
            };
            match self.kernels.iter_mut().find(same) {
                Some(k) => *k = *c,
                None => self.kernels.push(*c),
            }
        }
    }
}

/// Time of products of few rows that leave out inputs to that of dense ones.
#[derive(Clone, PartialEq, Debug)]
pub struct GatedCosts {
    /// The time of a weight that is read to that of a weight of the dense kernel.
    pub weight: f64,
    /// The same where the weights of all such layers take more than `near` bytes and come from memory, which is not read at full speed in
    /// pieces.
    pub far: f64,
    /// Bytes of weights that caches hold.
    pub near: u64,
    /// What it takes to look at an input, in weights of the dense kernel.
    pub input: f64,
    /// What one more launch takes, in weights of the dense kernel.
    pub launch: f64,
    /// Gates are put in if they take at most this part of the dense time.
    pub margin: f64,
}

impl Default for GatedCosts {
    /// Measured with AVX2 on products of one row and 256 to 4096 inputs and outputs.
    fn default() -> Self {
        GatedCosts { weight: 1.1, far: 1.9, near: 16 << 20, input: 12.0, launch: 1500.0, margin: 0.9 }
    }
}

impl GatedCosts {
    /// Time to that of the dense kernel for `k` inputs and `n` outputs of which a share `kept` of the inputs is not left out, in a model with
    /// `bytes` of weights of such layers.
    pub fn of(&self, k: usize, n: usize, kept: f64, bytes: u64) -> f64 {
        let dense = (k as f64 * n as f64).max(1.0);
        let weight = if bytes > self.near { self.far } else { self.weight };
        kept * weight + (k as f64 * self.input + self.launch) / dense
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_pays_on_every_target() {
        let cost = |lanes, rows, weight| KernelCost {
            lanes,
            bytes: false,
            block: [1, 16],
            rows,
            weight,
            fixed: 0.1,
        };
        let mut costs = SparseCosts {
            lanes: vec![16, 8],
            kernels: vec![cost(16, 1, 1.0), cost(16, 64, 2.0), cost(8, 1, 3.0)],
            recurrences: vec![cost(8, 1, 4.0)],
            convolution: 1.5,
            transformed: 2.0,
            margin: 0.9,
        };
        let asked = Asked { block: [1, 16], bytes: false, rows: 100, job: Job::Product };
        assert_eq!(costs.of(asked, 0.1), Some(0.1 + 0.1 * 3.0));
        costs.lanes = vec![16];
        assert_eq!(costs.of(asked, 0.1), Some(0.1 + 0.1 * 2.0));
        assert_eq!(costs.of(Asked { rows: 63, ..asked }, 0.1), Some(0.1 + 0.1 * 1.0));
        assert_eq!(costs.of(Asked { job: Job::Transformed, rows: 1, ..asked }, 0.1), Some(0.5));
        assert_eq!(costs.of(Asked { job: Job::Convolution, ..asked }, 0.1), Some(0.1 + 0.1 * 3.0));
        assert_eq!(costs.of(Asked { job: Job::Recurrence, ..asked }, 0.1), Some(0.1 + 0.1 * 4.0));
        // Vectors that nobody measured are taken as the narrowest.
        costs.lanes = vec![4];
        assert_eq!(costs.of(asked, 0.1), Some(0.1 + 0.1 * 3.0));
        assert_eq!(costs.of(Asked { block: [1, 1], ..asked }, 0.1), None);
        costs.measured(&[cost(16, 64, 1.5), cost(16, 16, 1.2)]);
        costs.lanes = vec![16];
        assert_eq!(costs.of(asked, 0.0).map(|t| t < 0.2), Some(true));
        assert_eq!(costs.kernels.len(), 4);
    }

    #[test]
    fn the_table_has_every_kernel() {
        let costs = SparseCosts::default();
        for block in BLOCKS {
            for rows in [1, 16, 100] {
                let asked = Asked { block, bytes: false, rows, job: Job::Product };
                assert_eq!(
                    costs.of(asked, 0.5).is_some(),
                    !scattered(block) || rows >= LEAST_ROWS,
                    "{asked:?}"
                );
            }
        }
        assert_eq!(costs.blocks(Job::Product, true), [BYTE_BLOCK]);
        assert_eq!(costs.blocks(Job::Recurrence, false), [[1, 16], [1, 8]]);
        // Blocks of 8 units pay in vectors of 8.
        let faster = |lanes| {
            let costs = SparseCosts { lanes: vec![lanes], ..SparseCosts::default() };
            let of = |block, kept| {
                costs
                    .of(Asked { block, bytes: false, rows: 1, job: Job::Recurrence }, kept)
                    .expect("a kernel")
            };
            of([1, 8], 0.1) < of([1, 16], 0.19)
        };
        assert!(faster(8) && !faster(16));
    }
}
