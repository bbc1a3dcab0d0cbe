//! The emitted program.
use crate::args::{HELP, Options, parse};
use crate::bench;
use crate::counters;
use crate::files::{Result, input};
use crate::inputs::{InputPort, Sample, load, synthetic};
use crate::outputs::{OutputPort, compare, summary, write};
use crate::peaks::Peaks;
use crate::profile::Profile;
use planish_rt::cpu;
use planish_rt::describe;
use planish_rt::image::Image;
use planish_rt::plan::{Expr, Exprs, Plan, SymId, ValueType};
use planish_rt::{Desc, Error, ErrorKind, Object, Pool, Program, Session, SessionOptions, sys};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Runs the program with the model in `image` and the arguments `argv`, the program's name first. The exit code.
///
/// # Safety
/// As for [`Image::program`], for as long as the process lives.
pub unsafe fn main(image: Result<Image<'_>>, argv: &[String]) -> i32 {
    main_with(image, argv, |image| {
        // SAFETY: the caller vouches for the image.
        Ok(unsafe { image.program(cpu::detect(), None)? }.1)
    })
}

/// Runs the program that `load` makes of the model in `image`.
pub(crate) fn main_with<'a>(
    image: Result<Image<'a>>,
    argv: &[String],
    load: impl FnOnce(&Image<'a>) -> Result<Program>,
) -> i32 {
    let outcome = image.and_then(|image| App::run(&image, argv, load));
    outcome.unwrap_or_else(|e| {
        let _ = writeln!(std::io::stderr(), "error: {e}");
        e.exit_code()
    })
}

/// Prints data. A reader that went away is no error of ours.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

struct App {
    options: Options,
    threads: usize,
    session: Session,
    program: Arc<Program>,
    outputs: Vec<OutputPort>,
}

impl App {
    fn run<'a>(
        image: &Image<'a>,
        argv: &[String],
        load: impl FnOnce(&Image<'a>) -> Result<Program>,
    ) -> Result<i32> {
        let program_name = argv.first().map_or("model", |a| a.as_str());
        let options = parse(argv.get(1..).unwrap_or(&[]))?;
        if options.help || options.describe {
            let plan = image.plan()?;
            let name = if plan.meta.name.is_empty() { "model" } else { &plan.meta.name };
            print(&match (options.help, options.json) {
                (true, _) => HELP.replace("{name}", name).replace("{program}", program_name),
                (_, true) => describe::json(&plan, image) + "\n",
                _ => describe::text(&plan, image),
            });
            return Ok(0);
        }
        let program = Arc::new(load(image)?);
        let threads = options.threads.unwrap_or_else(|| cpu::cores().threads());
        let pool = (threads > 1).then(|| Arc::new(Pool::new(threads)));
        let seed = SessionOptions::any_seed();
        let mut settings = SessionOptions { pool, seed, profile: options.profile, ..Default::default() };
        if let Some(n) = options.max_steps {
            settings.max_steps = n;
        }
        let session = Session::new(program.clone(), settings);
        let outputs = output_ports(program.plan());
        App { options, threads, session, program, outputs }.go()
    }

    fn go(mut self) -> Result<i32> {
        let program = self.program.clone();
        let plan = program.plan();
        for (o, i) in self.options.states.clone() {
            let (Some(output), Some(inp)) = (plan.output(&o), plan.input(&i)) else {
                return input(format!("--state {o}={i}: there is no such output or input"));
            };
            self.session.add_state(output, inp)?;
        }
        let mut ports = input_ports(plan);
        for (i, p) in ports.iter_mut().enumerate() {
            p.optional |= self.session.is_state(i);
        }
        let none = self.options.inputs.files.is_empty() && self.options.inputs.from.is_none();
        let samples = if self.options.bench && none {
            bind_free_dims(plan, &self.options, &mut ports)?;
            vec![Sample { name: None, values: synthetic(&ports)? }]
        } else {
            load(&self.options.inputs, &ports)?
        };
        if self.options.bench { self.bench(&samples) } else { self.infer(&samples) }
    }

    fn infer(&mut self, samples: &[Sample]) -> Result<i32> {
        let mut wrong = Vec::new();
        let mut ns = 0;
        for s in samples {
            let start = sys::now_ns();
            let values = self.session.run_values(&s.values)?;
            ns += sys::now_ns() - start;
            let name = s.name.as_deref();
            let place = |dir: &Path| name.map_or_else(|| dir.to_owned(), |n| dir.join(n));
            if let Some(dir) = &self.options.output_dir {
                write(&place(dir), &self.outputs, &values, self.options.pb, self.options.named)?;
            }
            if let Some(dir) = &self.options.expect {
                let found = compare(&place(dir), &self.outputs, &values, self.options.tolerance)?;
                wrong.extend(found.into_iter().map(|d| name.map_or(d.clone(), |n| format!("{n}: {d}"))));
            }
            if self.options.output_dir.is_none() && self.options.expect.is_none() {
                let head = name.map_or(String::new(), |n| format!("{n}: "));
                let lines: String = self
                    .outputs
                    .iter()
                    .zip(&values)
                    .map(|(p, v)| format!("{head}{} {}\n", p.name, summary(v)))
                    .collect();
                print(&lines);
            }
        }
        if self.options.profile {
            self.profile(samples.len() as u64, ns);
            let counted = counters::of(&self.session, self.program.plan());
            let _ = std::io::stderr().write_all(counters::text(&counted).as_bytes());
        }
        if self.options.expect.is_some() {
            print(&if wrong.is_empty() {
                format!("{} samples agree\n", samples.len())
            } else {
                wrong.join("\n") + "\n"
            });
        }
        Ok(if wrong.is_empty() { 0 } else { 4 })
    }

    /// Prints the time of each kernel in `runs` runs that took `ns` together; returns its JSON keys.
    fn profile(&self, runs: u64, ns: u64) -> String {
        let peaks = Peaks::measure(self.threads);
        let profile = Profile::of(&self.session, self.program.plan(), runs, ns, Some(peaks));
        let _ = std::io::stderr().write_all(profile.text().as_bytes());
        profile.json()
    }

    fn bench(&mut self, samples: &[Sample]) -> Result<i32> {
        let Some(sample) = samples.first() else { return input("there are no samples") };
        let descs: Vec<Option<Desc>> = sample
            .values
            .iter()
            .map(|v| match v.as_deref() {
                Some(Object::Tensor(t)) => Some(Desc { dtype: t.dtype, dims: t.dims.clone() }),
                _ => None,
            })
            .collect();
        self.session.bind(&descs)?;
        for (i, v) in sample.values.iter().enumerate() {
            if let Some(o) = v {
                match &**o {
                    // SAFETY: the sample outlives the measurement.
                    Object::Tensor(t) => unsafe { self.session.set_input(i, t.data.as_ptr(), t.data.len())? },
                    _ => self.session.set_input_object(i, o.clone())?,
                }
            }
        }
        let duration = self.options.duration.unwrap_or(Duration::from_secs(5));
        let warmup = self.options.warmup.unwrap_or(Duration::from_secs(1));
        let alike = alike(&self.session, samples, &descs);
        let mut turns = bench::Turns::new(&mut self.session, alike.clone());
        let m = if self.options.slices {
            bench::serve(&mut turns, std::io::stdin().lock(), std::io::stdout().lock())?
        } else {
            bench::measure(&mut turns, duration, warmup)?
        };
        let program = self.program.clone();
        let plan = program.plan();
        let mut more = String::new();
        if self.options.profile {
            more = format!(",{}", self.profile(m.latencies.len() as u64, m.total()));
        }
        let counted = bench::Turns::new(&mut self.session, alike).counters(plan)?;
        let more = counters::json(&counted) + &more;
        print(&if self.options.json {
            m.json(plan, self.threads, &more) + "\n"
        } else {
            m.text(self.threads) + &counters::text(&counted)
        });
        Ok(0)
    }
}

/// The tensors of those samples that have the types and shapes of the first one, of which the session has its inputs; states stay what they are.
fn alike<'s>(
    session: &Session,
    samples: &'s [Sample],
    first: &[Option<Desc>],
) -> Vec<Vec<(usize, &'s [u8])>> {
    let tensors = |s: &'s Sample| -> Option<Vec<(usize, &'s [u8])>> {
        let mut out = Vec::new();
        for (i, (v, d)) in s.values.iter().zip(first).enumerate() {
            match (v.as_deref(), d) {
                (Some(Object::Tensor(t)), Some(d)) if t.dtype == d.dtype && t.dims == d.dims => {
                    if !session.is_state(i) {
                        out.push((i, &t.data[..]));
                    }
                }
                (None, None) => {}
                _ => return None,
            }
        }
        Some(out)
    };
    samples.iter().filter_map(tensors).collect()
}

/// The inputs of a plan, for the readers of files.
pub fn input_ports(plan: &Plan) -> Vec<InputPort> {
    let dim = |e: &planish_rt::plan::ExprId| match plan.exprs[e.index()] {
        Expr::Const(v) => Some(v),
        _ => None,
    };
    plan.inputs
        .iter()
        .map(|p| InputPort {
            name: p.name.clone(),
            ty: p.ty.clone(),
            dims: p.dims.as_ref().map(|d| d.iter().map(dim).collect()),
            optional: matches!(p.ty, ValueType::Optional(_)),
        })
        .collect()
}

/// The outputs of a plan, for the writers of files.
pub fn output_ports(plan: &Plan) -> Vec<OutputPort> {
    plan.outputs.iter().map(|p| OutputPort { name: p.name.clone(), ty: p.ty.clone() }).collect()
}

/// Gives free dims the values of `--set` and `--shape`.
fn bind_free_dims(plan: &Plan, o: &Options, ports: &mut [InputPort]) -> Result<()> {
    let mut exprs = Exprs::new(&plan.exprs, plan.symbols.len());
    for (name, v) in &o.sets {
        let mut found: Vec<SymId> = (0..plan.symbols.len() as u32)
            .map(SymId)
            .filter(|s| plan.symbols[s.index()].name == *name)
            .collect();
        if found.is_empty() && name == "batch" {
            let first = plan.inputs.iter().filter_map(|p| p.dims.as_ref()?.first());
            found = first
                .filter_map(|e| if let Expr::Sym(s) = plan.exprs[e.index()] { Some(s) } else { None })
                .collect();
        }
        if found.is_empty() {
            return input(format!("--set {name}={v}: there is no such free dim"));
        }
        found.into_iter().for_each(|s| exprs.set(&plan.exprs, s, Some(*v)));
    }
    for (name, dims) in &o.shapes {
        let Some(p) = plan.input(name).map(|i| &plan.inputs[i]) else {
            return input(format!("--shape {name}: there is no such input"));
        };
        for (e, d) in p.dims.iter().flatten().zip(dims) {
            if let Expr::Sym(s) = plan.exprs[e.index()] {
                exprs.set(&plan.exprs, s, Some(*d));
            }
        }
    }
    for (port, p) in ports.iter_mut().zip(&plan.inputs) {
        let Some(dims) = &mut port.dims else { continue };
        for (d, &e) in dims.iter_mut().zip(p.dims.iter().flatten()) {
            *d = exprs.get(e).ok();
            if d.is_none() && !port.optional {
                let free: Vec<String> = exprs
                    .deps(e)
                    .iter()
                    .filter(|s| exprs.symbol(**s).is_none())
                    .map(|s| {
                        format!(
                            "--set {}={}",
                            plan.symbols[s.index()].name,
                            plan.symbols[s.index()].min.max(1)
                        )
                    })
                    .collect();
                let message =
                    format!("the shape of {:?} is free: give inputs, or add {}", port.name, free.join(" "));
                return Err(Error::new(ErrorKind::Input, message));
            }
        }
    }
    Ok(())
}
