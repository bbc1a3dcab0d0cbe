//! The arguments of an emitted executable.
use crate::files::{Result, input};
use crate::inputs::{InputArgs, split_input};
use crate::outputs::Tolerance;
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` prints; `{name}` is the name of the model.
pub const HELP: &str = "\
{name}: a model compiled by Planish

usage: {program} INPUTS [--output-dir DIR] [options]

inputs
  --input NAME=@FILE     .npy, ONNX tensor .pb, or raw elements; may be repeated
  --inputs DIR           NAME.npy, input_<i>.pb or input_<i>.npy, or subfolders test_data_set_*; or an .npz file
  --samples-axis         the first axis of arrays in an .npz file counts samples
  --state OUT=IN         feeds an output back as an input of the next sample
  --shape NAME:2x3       shape of an input that is made up for --bench
  --set SYMBOL=N         value of a free dim that is made up for --bench
outputs
  --output-dir DIR       writes output_<i>.npy
  --pb                   also output_<i>.pb
  --named                also NAME.npy
  --expect DIR           compares with the outputs in DIR; exit code 4 if they differ
  --rtol R --atol A      tolerance: |got - want| <= A + R * |want| (1e-3, 1e-4)
measuring
  --bench                runs repeatedly and prints the latency; samples take turns, inputs are made up if none are given
  --duration 5s          how long; --warmup 1s before that
  --slices               with --bench: measures once for each line on stdin, \"RUNS MS\": unrecorded runs, milliseconds
  --profile              time per kernel against the peaks of this machine, on stderr
other
  --threads N            threads (default: the physical cores this process may use)
  --max-steps N          loop iterations a run may do
  --describe             inputs, outputs, code variants
  --json                 prints --bench and --describe as JSON
  --help

exit codes: 0 ok, 1 a budget (such as --max-steps) was spent, 2 bad usage or input, 4 outputs differ from --expect,
6 this machine cannot run it, 101 a bug
";

/// Parsed arguments.
#[derive(Clone, PartialEq, Debug, Default)]
#[allow(missing_docs)]
pub struct Options {
    pub inputs: InputArgs,
    pub states: Vec<(String, String)>,
    pub shapes: Vec<(String, Vec<i64>)>,
    pub sets: Vec<(String, i64)>,
    pub output_dir: Option<PathBuf>,
    pub pb: bool,
    pub named: bool,
    pub expect: Option<PathBuf>,
    pub tolerance: Tolerance,
    pub bench: bool,
    pub duration: Option<Duration>,
    pub warmup: Option<Duration>,
    pub slices: bool,
    pub profile: bool,
    pub threads: Option<usize>,
    pub max_steps: Option<u64>,
    pub describe: bool,
    pub json: bool,
    pub help: bool,
}

/// A duration such as `5s`, `250ms`, `2m`.
pub fn duration(text: &str) -> Result<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return input(format!("{text:?} is no duration: write 5s, 250ms or 2m")),
    };
    match number.parse::<f64>().ok().and_then(|n| Duration::try_from_secs_f64(n * scale).ok()) {
        Some(d) => Ok(d),
        None => input(format!("{text:?} is no duration")),
    }
}

fn number<T: std::str::FromStr>(flag: &str, text: &str) -> Result<T> {
    text.parse().or_else(|_| input(format!("{flag} needs a number, not {text:?}")))
}

fn pair(flag: &str, text: &str, at: Option<usize>) -> Result<(String, String)> {
    match at {
        Some(at) if at > 0 && at + 1 < text.len() => Ok((text[..at].to_owned(), text[at + 1..].to_owned())),
        _ => input(format!("{flag} {text:?} has not the form that --help shows")),
    }
}

/// Parses the arguments after the name of the program.
pub fn parse(args: &[String]) -> Result<Options> {
    let mut o = Options::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let (flag, inline) = match arg.split_once('=') {
            Some((f, v)) if f.starts_with("--") => (f, Some(v.to_owned())),
            _ => (arg.as_str(), None),
        };
        let switch = match flag {
            "--samples-axis" => Some(&mut o.inputs.samples_axis),
            "--pb" => Some(&mut o.pb),
            "--named" => Some(&mut o.named),
            "--bench" => Some(&mut o.bench),
            "--slices" => Some(&mut o.slices),
            "--profile" => Some(&mut o.profile),
            "--describe" => Some(&mut o.describe),
            "--json" => Some(&mut o.json),
            "--help" | "-h" => Some(&mut o.help),
            _ => None,
        };
        if let Some(s) = switch {
            if inline.is_some() {
                return input(format!("{flag} takes no value"));
            }
            *s = true;
            continue;
        }
        let mut value = || match inline.clone().or_else(|| rest.next().cloned()) {
            Some(v) => Ok(v),
            None => input(format!("{flag} needs a value")),
        };
        match flag {
            "--input" => o.inputs.files.push(split_input(&value()?)?),
            "--inputs" => o.inputs.from = Some(value()?.into()),
            "--state" => {
                let v = value()?;
                o.states.push(pair(flag, &v, v.find('='))?);
            }
            "--set" => {
                let v = value()?;
                let (name, n) = pair(flag, &v, v.rfind('='))?;
                o.sets.push((name, number(flag, &n)?));
            }
            "--shape" => {
                let v = value()?;
                let (name, dims) = pair(flag, &v, v.rfind(':'))?;
                o.shapes.push((name, dims.split('x').map(|d| number(flag, d)).collect::<Result<_>>()?));
            }
            "--output-dir" => o.output_dir = Some(value()?.into()),
            "--expect" => o.expect = Some(value()?.into()),
            "--rtol" => o.tolerance.rtol = number(flag, &value()?)?,
            "--atol" => o.tolerance.atol = number(flag, &value()?)?,
            "--duration" => o.duration = Some(duration(&value()?)?),
            "--warmup" => o.warmup = Some(duration(&value()?)?),
            "--threads" => match number(flag, &value()?)? {
                n @ 1..=1024 => o.threads = Some(n),
                n => return input(format!("--threads {n} is not between 1 and 1024")),
            },
            "--max-steps" => o.max_steps = Some(number(flag, &value()?)?),
            _ => return input(format!("unknown argument {arg:?}; see --help")),
        }
    }
    Ok(o)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Result<Options> {
        parse(&args.iter().map(|&s| s.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_parse() {
        let o = of(&["--input", "x=@a.npy", "--input=y=@b", "--bench", "--duration", "250ms", "--threads=2"])
            .expect("ok");
        assert_eq!(o.inputs.files, [("x".into(), "a.npy".into()), ("y".into(), "b".into())]);
        assert_eq!((o.bench, o.threads, o.duration), (true, Some(2), Some(Duration::from_millis(250))));
        let o = of(&["--shape", "a:b:1x3", "--set", "x.0=8", "--state", "h=h0"]).expect("ok");
        assert_eq!(o.shapes, [("a:b".into(), vec![1, 3])]);
        assert_eq!((o.sets, o.states), (vec![("x.0".into(), 8)], vec![("h".into(), "h0".into())]));
    }

    #[test]
    fn mistakes_are_named() {
        for (args, message) in [
            (&["--inptu"][..], "--inptu"),
            (&["--input", "x"], "NAME=@FILE"),
            (&["--threads", "0"], "between 1"),
            (&["--duration", "5"], "no duration"),
            (&["--bench=1"], "takes no value"),
            (&["--set", "n"], "--help"),
            (&["--max-steps"], "needs a value"),
        ] {
            assert!(of(args).expect_err(message).message.contains(message));
        }
    }
}
