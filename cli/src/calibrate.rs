//! What passes ask of runs on samples: values, and statistics of them, which are kept by the content of what they were found on.

use crate::data::Data;
use crate::engine;
use crate::engine::cache::Cache;
use crate::failure::Failure;
use crate::synthetic;
use crate::ui::Ui;
use planish_ir::text::{PrintOptions, print_with};
use planish_ir::{Diag, Encoding, Graph, PrepareOptions, Session, Tensor, Value, ValueId};
use planish_passes::{Ask, Calibrate, Samples, Stats, calibrate};
use sha2::{Digest, Sha256};

/// Samples made up where the user asks for that.
const MADE_UP: u64 = 4;
/// Size of free symbols in samples that are made up.
const SIZE: i64 = 64;

/// Runs graphs on samples with the default engine.
#[derive(Clone, Debug, Default)]
pub struct Calibrator {
    data: Option<Data>,
    cache: Option<Cache>,
    ui: Option<Ui>,
}

impl Calibrator {
    /// On these samples. Nothing is said and nothing is kept.
    pub fn new(data: Option<Data>) -> Calibrator {
        Calibrator { data, cache: None, ui: None }
    }
    /// Says how far it is.
    #[must_use]
    pub fn telling(self, ui: &Ui) -> Calibrator {
        Calibrator { ui: Some(ui.clone()), ..self }
    }
    /// Keeps statistics.
    #[must_use]
    pub fn kept(self, cache: Option<Cache>) -> Calibrator {
        Calibrator { cache, ..self }
    }
    fn key(&self, graph: &Graph, asked: &[Ask], samples: Samples) -> Result<String, Diag> {
        let mut request = Vec::new();
        let options = PrintOptions { elide: Some(0), no_locations: true };
        request.extend(print_with(graph, options).into_bytes());
        for (_, c) in graph.constants() {
            request.extend(format!("{:?}{:?}", c.dtype, c.shape).bytes());
            request.extend(payload(&c.encoding));
        }
        for a in asked {
            request.extend(format!("{a:?}").bytes());
        }
        match (samples, &self.data) {
            (Samples::Given, Some(d)) => request.extend(d.digest().map_err(first)?),
            _ => request.extend(b"synthetic"),
        }
        Ok(Cache::key("calibration", &request))
    }
}

/// A digest of the elements of a constant as they are stored.
fn payload(e: &Encoding) -> [u8; 32] {
    let mut h = Sha256::new();
    let mut tensor = |t: &Tensor| {
        h.update(t.bytes());
        t.strings().iter().for_each(|s| h.update(format!("{s:?}").as_bytes()));
    };
    match e {
        Encoding::Dense(t) => tensor(t),
        Encoding::Splat(b) | Encoding::Packed4(b) => h.update(b),
        Encoding::BlockSparse { index, values, block, order } => {
            tensor(values);
            h.update(format!("{block:?} {order:?} {index:?}").as_bytes());
        }
        Encoding::NOfM { n, m, index, values } => {
            tensor(values);
            h.update(format!("{n} {m} {index:?}").as_bytes());
        }
        Encoding::Codebook { codes, centroids } => {
            tensor(centroids);
            h.update(codes);
        }
    }
    h.finalize().into()
}

fn first(mut f: Failure) -> Diag {
    if f.diags.is_empty() {
        Diag::error("internal-data", "a failure without findings")
    } else {
        f.diags.swap_remove(0)
    }
}

impl Calibrate for Calibrator {
    fn stats(&self, graph: &Graph, asked: &[Ask], samples: Samples) -> Result<Vec<Stats>, Diag> {
        let key = match &self.cache {
            Some(_) => Some(self.key(graph, asked, samples)?),
            None => None,
        };
        let kept = self.cache.as_ref().zip(key.as_ref()).and_then(|(c, k)| c.get(k));
        if let Some(all) = kept.and_then(|bytes| decode(&bytes, asked.len())) {
            if let Some(ui) = &self.ui {
                ui.detail("calibration: statistics of an earlier run on the same data");
            }
            return Ok(all);
        }
        let found = calibrate::streamed(self, graph, asked, samples)?;
        if let (Some(cache), Some(key)) = (&self.cache, &key) {
            cache.put(key, &encode(&found));
            cache.trim();
        }
        Ok(found)
    }

    fn stream(
        &self,
        graph: &Graph,
        values: &[ValueId],
        samples: Samples,
        visit: &mut dyn FnMut(&[&Tensor]) -> Result<(), Diag>,
    ) -> Result<(), Diag> {
        let options = PrepareOptions {
            threads: engine::default_threads(),
            taps: values.to_vec(),
            ..PrepareOptions::default()
        };
        let open = |graph: &Graph| -> Result<Box<dyn Session>, Diag> {
            engine::prepare(engine::default_engine(), graph, &options).map_err(first)?.session()
        };
        let count = match (samples, &self.data) {
            (Samples::Given, Some(d)) => d.len() as u64,
            _ => MADE_UP,
        };
        let progress = self.ui.as_ref().map(|ui| ui.progress("calibration: samples", count));
        let mut one = |session: &mut dyn Session, inputs: &[Option<Value>]| -> Result<(), Diag> {
            let run = session.run(inputs)?;
            let seen = run.taps.iter().map(Value::tensor).collect::<Result<Vec<&Tensor>, Diag>>()?;
            visit(&seen)?;
            if let Some(p) = &progress {
                p.step();
            }
            Ok(())
        };
        match (samples, &self.data) {
            (Samples::Given, Some(data)) => {
                let mut session = open(&data.stateful(graph).map_err(first)?)?;
                for k in 0..data.len() {
                    let sample = data.sample(k).map_err(first)?;
                    if data.begins(k) {
                        session.reset();
                    }
                    let ran = one(session.as_mut(), &sample.values);
                    ran.map_err(|d| first(sample.failed(d).about(&data.path)))?;
                }
            }
            (Samples::Given, None) => {
                let text =
                    "this pass needs samples: give --data, or samples=synthetic for measurements of speed";
                return Err(Diag::error("calibration-missing", text));
            }
            (Samples::Synthetic, _) => {
                let symbols = synthetic::symbols(graph, SIZE);
                let mut session = open(graph)?;
                for seed in 0..MADE_UP {
                    let inputs = synthetic::inputs(graph, &symbols, seed).map_err(first)?;
                    one(session.as_mut(), &inputs.into_iter().map(Some).collect::<Vec<_>>())?;
                }
            }
        }
        if let Some(p) = progress {
            p.finish();
        }
        Ok(())
    }

    fn labels(&self, samples: Samples) -> Result<Option<Vec<Vec<i64>>>, Diag> {
        match (samples, &self.data) {
            (Samples::Given, Some(data)) => {
                (0..data.len()).map(|k| Ok(data.sample(k).map_err(first)?.labels)).collect()
            }
            _ => Ok(None),
        }
    }
}

/// The statistics with the length of each before it.
fn encode(all: &[Stats]) -> Vec<u8> {
    let mut out = Vec::new();
    for s in all {
        let bytes = s.to_bytes();
        out.extend((bytes.len() as u64).to_le_bytes());
        out.extend(bytes);
    }
    out
}

/// What [`encode`] wrote of `count` values; none if the bytes are something else.
fn decode(mut bytes: &[u8], count: usize) -> Option<Vec<Stats>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk::<8>()?;
        let (one, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        out.push(Stats::from_bytes(one)?);
        bytes = rest;
    }
    (out.len() == count).then_some(out)
}

#[cfg(test)]
mod tests;
