//! What samples say about the hidden units of feed-forward pairs: groups of units, and a rule that chooses among them.

use super::Moe;
use super::find::FeedForward;
use crate::Calibrate;
use crate::experts::floats;
use crate::insert_gates::linear::{HELD_OUT, Reservoir, Ridge, Split, balanced};
use planish_ir::{Diag, Graph, Tensor, ValueId};

/// Rows whose hidden units are kept to find groups.
const GROUPING_ROWS: usize = 256;
/// The most rows that a router is fitted to.
const ROUTER_ROWS: u64 = 8192;
/// Rows on which the error is measured.
const ERROR_ROWS: usize = 256;
/// The penalty of the regression, to the mean square of an input.
const PENALTY: f64 = 1e-3;

/// How a pair is divided.
#[derive(Clone, Debug)]
pub(super) struct Division {
    /// The hidden units of each expert.
    pub(super) units: Vec<Vec<usize>>,
    /// Router: inputs x experts.
    pub(super) router: Vec<f64>,
    /// One for each expert.
    pub(super) constants: Vec<f64>,
    /// What the experts add in the mean where they are not chosen, experts x outputs; none if that makes the error larger.
    pub(super) means: Option<Vec<f64>>,
    pub(super) quality: Quality,
}

/// What dividing costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    /// Of the output without and with the means of what is left out, to its norm.
    pub(super) errors: [f64; 2],
    /// The part of the contributions that chosen experts have.
    pub(super) captured: f64,
    /// Rows of the busiest expert to those of the mean.
    pub(super) imbalance: f64,
    /// Rows on which this was measured.
    pub(super) rows: u64,
}

/// Rows of a pair in all samples.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    pub(super) samples: u64,
    pub(super) rows: u64,
    fitted: u64,
    sums: Vec<f64>,
    kept: Reservoir<Vec<f32>>,
}

/// Runs the graph on samples: `visit` gets the number of the sample, of the pair, and its input and hidden rows.
fn stream(
    runs: &dyn Calibrate,
    g: &Graph,
    moe: &Moe,
    pairs: &[FeedForward],
    visit: &mut dyn FnMut(u64, usize, &[f32], &[f32]),
) -> Result<(), Diag> {
    // Pairs may share their operand.
    let mut values: Vec<ValueId> = pairs.iter().flat_map(|p| [p.x, p.hidden]).collect();
    values.sort_unstable();
    values.dedup();
    let at = |v: ValueId| values.binary_search(&v).ok();
    let mut sample = 0;
    runs.stream(g, &values, moe.samples, &mut |seen: &[&Tensor]| {
        for (i, p) in pairs.iter().enumerate() {
            let of = |v: ValueId| at(v).and_then(|i| seen.get(i)).map(|t| floats(t));
            let (Some(x), Some(hidden)) = (of(p.x), of(p.hidden)) else {
                return Err(Diag::error("internal-data", "a value was not seen"));
            };
            visit(sample, i, &x, &hidden);
        }
        sample += 1;
        Ok(())
    })
}

/// Calls `f` with the number of each row, its inputs and its hidden units; rows that are not finite are left out.
fn rows(p: &FeedForward, x: &[f32], hidden: &[f32], mut f: impl FnMut(u64, &[f32], &[f32])) {
    let [d, h, _] = p.sizes();
    if d == 0 || h == 0 {
        return;
    }
    for (i, (x, hidden)) in x.chunks_exact(d).zip(hidden.chunks_exact(h)).enumerate() {
        if x.iter().chain(hidden).all(|v| v.is_finite()) {
            f(i as u64, x, hidden);
        }
    }
}

/// Looks at all samples once.
pub(super) fn survey(
    runs: &dyn Calibrate,
    g: &Graph,
    moe: &Moe,
    pairs: &[FeedForward],
) -> Result<Vec<Survey>, Diag> {
    let mut found: Vec<Survey> = pairs
        .iter()
        .map(|p| Survey {
            samples: 0,
            rows: 0,
            fitted: 0,
            sums: vec![0.0; p.sizes()[1]],
            kept: Reservoir::new(GROUPING_ROWS, moe.seed),
        })
        .collect();
    stream(runs, g, moe, pairs, &mut |sample, p, x, hidden| {
        let s = &mut found[p];
        s.samples = sample + 1;
        rows(&pairs[p], x, hidden, |row, _, hidden| {
            s.rows += 1;
            // How many samples there are is not known yet: what may be for measuring is left out.
            if sample % HELD_OUT == HELD_OUT - 1 || (sample < HELD_OUT - 1 && row % HELD_OUT == HELD_OUT - 1)
            {
                return;
            }
            s.fitted += 1;
            s.sums.iter_mut().zip(hidden).for_each(|(s, v)| *s += f64::from(*v));
            s.kept.offer(|| hidden.to_vec());
        });
    })?;
    Ok(found)
}

/// What is being found out about a pair.
struct Work {
    /// The expert of each hidden unit.
    of: Vec<usize>,
    /// The mean of each hidden unit.
    means: Vec<f64>,
    /// The norm of what a hidden unit is multiplied by.
    norms: Vec<f64>,
    /// Every so many rows one is fitted to.
    step: u64,
    count: u64,
    ridge: Ridge,
    router: (Vec<f64>, Vec<f64>),
    left_out: LeftOut,
}

/// Sums over rows once the router stands.
struct LeftOut {
    /// Of each hidden unit where its expert was not chosen, and for each expert the number of such rows.
    sums: Vec<f64>,
    counts: Vec<u64>,
    /// Of rows for measuring: contributions of chosen experts and of all, rows of each expert.
    chosen: f64,
    all: f64,
    loads: Vec<u64>,
    /// Rows for measuring: hidden units, then 1 for each chosen expert and 0 for the others.
    kept: Reservoir<Vec<f32>>,
}

impl Work {
    /// What each expert contributes for a row: how far its hidden units are from their means, times what they are multiplied by.
    fn contributions(&self, hidden: &[f32], experts: usize) -> Vec<f64> {
        let mut out = vec![0.0; experts];
        for (((v, mean), norm), e) in hidden.iter().zip(&self.means).zip(&self.norms).zip(&self.of) {
            out[*e] += (f64::from(*v) - mean).abs() * norm;
        }
        out
    }
    /// Whether each expert is chosen for a row.
    fn choose(&self, x: &[f32], experts: usize, active: usize) -> Vec<bool> {
        let mut scores = self.router.1.clone();
        for (v, w) in x.iter().zip(self.router.0.chunks_exact(experts)) {
            scores.iter_mut().zip(w).for_each(|(s, w)| *s += f64::from(*v) * w);
        }
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        let mut chosen = vec![false; experts];
        order.into_iter().take(active).for_each(|e| chosen[e] = true);
        chosen
    }
}

/// Groups the hidden units of each pair, fits routers and measures. None where the samples give no router.
pub(super) fn divide(
    runs: &dyn Calibrate,
    g: &Graph,
    moe: &Moe,
    pairs: &[FeedForward],
    surveys: Vec<Survey>,
) -> Result<Vec<Option<Division>>, Diag> {
    let split = Split { samples: surveys.iter().map(|s| s.samples).max().unwrap_or(0) };
    let mut work = Vec::with_capacity(pairs.len());
    for (p, s) in pairs.iter().zip(&surveys) {
        work.push(begin(g, moe, p, s)?);
    }
    stream(runs, g, moe, pairs, &mut |sample, p, x, hidden| {
        let w = &mut work[p];
        rows(&pairs[p], x, hidden, |row, x, hidden| {
            if split.held_out(sample, row) {
                return;
            }
            w.count += 1;
            if (w.count - 1).is_multiple_of(w.step) {
                let y = w.contributions(hidden, moe.experts);
                w.ridge.add(x, &y);
            }
        });
    })?;
    let mut routed = vec![false; pairs.len()];
    for (w, routed) in work.iter_mut().zip(&mut routed) {
        if let Some(router) = std::mem::replace(&mut w.ridge, Ridge::new(0, 0)).solve(PENALTY) {
            w.router = router;
            *routed = true;
        }
    }
    stream(runs, g, moe, pairs, &mut |sample, p, x, hidden| {
        let w = &mut work[p];
        if !routed[p] {
            return;
        }
        rows(&pairs[p], x, hidden, |row, x, hidden| {
            let chosen = w.choose(x, moe.experts, moe.active);
            if split.held_out(sample, row) {
                let all = w.contributions(hidden, moe.experts);
                for (e, (share, is)) in all.iter().zip(&chosen).enumerate() {
                    w.left_out.all += share;
                    if *is {
                        w.left_out.chosen += share;
                        w.left_out.loads[e] += 1;
                    }
                }
                let flags = chosen.iter().map(|c| f32::from(u8::from(*c)));
                w.left_out.kept.offer(|| hidden.iter().copied().chain(flags).collect());
                return;
            }
            for (e, is) in chosen.iter().enumerate() {
                w.left_out.counts[e] += u64::from(!is);
            }
            for ((sum, v), e) in w.left_out.sums.iter_mut().zip(hidden).zip(&w.of) {
                if !chosen[*e] {
                    *sum += f64::from(*v);
                }
            }
        });
    })?;
    let mut out = Vec::with_capacity(pairs.len());
    for ((p, w), routed) in pairs.iter().zip(work).zip(routed) {
        out.push(if routed { Some(finish(g, moe, p, w)?) } else { None });
    }
    Ok(out)
}

fn begin(g: &Graph, moe: &Moe, p: &FeedForward, s: &Survey) -> Result<Work, Diag> {
    let [d, h, o] = p.sizes();
    let down = p.down.values(g)?;
    let norms: Vec<f64> = down
        .chunks_exact(o.max(1))
        .map(|row| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt())
        .collect();
    let means: Vec<f64> = s.sums.iter().map(|v| v / s.fitted.max(1) as f64).collect();
    let features = if moe.by_weights {
        let up = p.up.values(g)?;
        (d, (0..h).flat_map(|j| (0..d).map(move |i| (i, j))).map(|(i, j)| up[i * h + j]).collect())
    } else {
        // Units that are far from their means in the same rows belong together.
        let kept = &s.kept.rows;
        let one = |j: usize| {
            let mean = means[j] as f32;
            kept.iter().map(move |r| (r[j] - mean).abs())
        };
        (kept.len(), (0..h).flat_map(one).collect::<Vec<f32>>())
    };
    let of = match features {
        (0, _) => (0..h).map(|j| j * moe.experts / h.max(1)).collect(),
        (dims, points) => balanced(&directions(points, dims), dims, moe.experts, moe.seed),
    };
    Ok(Work {
        of,
        means,
        norms,
        step: s.fitted.div_ceil(ROUTER_ROWS).max(1),
        count: 0,
        ridge: Ridge::new(d, moe.experts),
        router: (Vec::new(), Vec::new()),
        left_out: LeftOut {
            sums: vec![0.0; h],
            counts: vec![0; moe.experts],
            chosen: 0.0,
            all: 0.0,
            loads: vec![0; moe.experts],
            kept: Reservoir::new(ERROR_ROWS, moe.seed),
        },
    })
}

/// Points scaled to length 1.
fn directions(mut points: Vec<f32>, dims: usize) -> Vec<f32> {
    for p in points.chunks_exact_mut(dims) {
        let length = p.iter().map(|v| v * v).sum::<f32>().sqrt();
        if length > 0.0 {
            p.iter_mut().for_each(|v| *v /= length);
        }
    }
    points
}

/// Means of what is left out, and errors.
fn finish(g: &Graph, moe: &Moe, p: &FeedForward, w: Work) -> Result<Division, Diag> {
    let [_, _, o] = p.sizes();
    let down = p.down.values(g)?;
    let mut units = vec![Vec::new(); moe.experts];
    w.of.iter().enumerate().for_each(|(j, e)| units[*e].push(j));
    let mut means = vec![0.0; moe.experts * o];
    for (j, e) in w.of.iter().enumerate() {
        let mean = w.left_out.sums[j] / w.left_out.counts[*e].max(1) as f64;
        add_scaled(&mut means[e * o..(e + 1) * o], &down[j * o..(j + 1) * o], mean);
    }
    let (mut lost, mut norm) = ([0.0; 2], 0.0);
    for row in &w.left_out.kept.rows {
        let (hidden, chosen) = row.split_at(w.of.len());
        let (mut missing, mut y) = (vec![0.0; o], vec![0.0; o]);
        for ((v, e), weights) in hidden.iter().zip(&w.of).zip(down.chunks_exact(o.max(1))) {
            add_scaled(&mut y, weights, f64::from(*v));
            if chosen[*e] == 0.0 {
                add_scaled(&mut missing, weights, f64::from(*v));
            }
        }
        norm += square(&y);
        lost[0] += square(&missing);
        for (e, _) in chosen.iter().enumerate().filter(|(_, c)| **c == 0.0) {
            missing.iter_mut().zip(&means[e * o..(e + 1) * o]).for_each(|(m, v)| *m -= v);
        }
        lost[1] += square(&missing);
    }
    let errors = lost.map(|l| if norm > 0.0 { (l / norm).sqrt() } else { 0.0 });
    let total: u64 = w.left_out.loads.iter().sum();
    let most = w.left_out.loads.iter().max().copied().unwrap_or(0);
    let quality = Quality {
        errors,
        captured: if w.left_out.all > 0.0 { w.left_out.chosen / w.left_out.all } else { 1.0 },
        imbalance: if total > 0 { most as f64 * moe.experts as f64 / total as f64 } else { 1.0 },
        rows: w.left_out.kept.rows.len() as u64,
    };
    let (router, constants) = w.router;
    let means = (errors[1] < errors[0]).then_some(means);
    Ok(Division { units, router, constants, means, quality })
}

fn add_scaled(to: &mut [f64], row: &[f32], by: f64) {
    to.iter_mut().zip(row).for_each(|(t, v)| *t += by * f64::from(*v));
}

fn square(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum()
}
