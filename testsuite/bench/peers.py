#!/usr/bin/env python3
"""Time compiled models against other runtimes, alternating: a Markdown table with paired ratios and their intervals.

    peers.py --planish COMMAND [--models a,b] [--peers x,y] [--threads 1,2] [--rounds 7] [--seconds 0.3]

What is missing is made first, in --folder (default: $PEERS, else peers in the cache folder): a virtual environment
with the pinned runtime for each peer, the models with inputs and references, the files that peers convert them to. Each
round starts all runtimes of a model afresh, lets them load, then times them one after another, --slices times; the
order turns by one from slice to slice and round to round. A runtime that waits is stopped, so its threads cannot
spin. The figure of a round is the median of its slices, the ratio of a round pairs two of them, and the
interval is that of the rounds. All get the same inputs through buffers bound beforehand; whose first output is off
the reference by more than 1e-2 is disqualified. A round with several threads begins and ends with a look whether they
compute together what so many cores do (steady.py); if not it waits, then is timed again, at most twice.

Exit code 4: an output of ours is wrong; 1: with --strict, a ratio's interval lies wholly above 1.
"""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time

import networks
import runtimes
from paired import OURS, Results, qualified
from steady import Cores

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("PLANISH_CACHE", "~/.cache/planish")).expanduser()
# Further packages of the environments; onnxruntime and ours run in the one that runs this script.
PACKAGES = {
    "openvino": ["openvino==2026.4.1", "numpy==2.4.6"],
    "mnn": ["MNN==3.6.1", "numpy==2.4.6"],
    "ncnn": ["--no-deps", "ncnn==1.0.20261020", "pnnx==20261020", "numpy==2.4.6"],
}
PEERS = ("onnxruntime", *PACKAGES)
# Of what so many cores compute: below, a round with several threads is put off.
SHARE = 0.9


def note(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, options):
        self.options, self.folder = options, options.folder.resolve()
        self.models, self.cache = self.folder / "models", self.folder / "cache"
        self.states, self.records, self.loads, self.versions, self.compiled = {}, [], [], {}, {}
        self.waited, self.again, self.unsteady = 0.0, 0, 0

    def python(self, runtime):
        return self.folder / runtime / "venv/bin/python" if runtime in PACKAGES else pathlib.Path(sys.executable)

    def command(self, runtime, model, *more):
        path = self.models / f"{model}.onnx"
        return [str(c) for c in (self.python(runtime), HERE / "side.py", "--runtime", runtime, "--model", path, "--cache", self.cache, *more)]

    # What is needed first

    def install(self, peer):
        venv = self.folder / peer / "venv"
        if not (venv / "bin/python").exists():
            note(f"installing {peer} into {venv}")
            part = venv.with_name("venv.part")
            shutil.rmtree(part, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", "--copies", part], check=True)
            part.rename(venv)
        stamp, wanted = venv / "installed", " ".join(PACKAGES[peer])
        if not stamp.exists() or stamp.read_text() != wanted:
            pip = [venv / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *PACKAGES[peer]], check=True)
            stamp.write_text(wanted)

    def compile(self, model):
        """Our shared object; the time that takes and what it says about itself."""
        folder = self.cache / OURS / model
        folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        command = [self.options.planish, "compile", self.models / f"{model}.onnx", "--cpu", "host", "-o", folder / "model.py", "--emit", "python",
                   "--name", "model", "--force", "--quiet", *self.options.compile_arg]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            self.states[model, OURS] = f"compile: exit {done.returncode}: {done.stderr.strip()[-300:]}"
            return
        code = "import json, sys; sys.path.insert(0, sys.argv[1]); import model; print(json.dumps(model.describe()))"
        told = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
        self.compiled[model] = {"seconds": time.monotonic() - start, "code_bytes": json.loads(told.stdout)["code_bytes"]}

    def convert(self, runtime, model):
        """The peer's own format. A failure is kept, so that it is not tried each time."""
        told = self.cache / runtime / f"{model}.converted"
        if not told.exists():
            note(f"converting {model} for {runtime}")
            told.parent.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(self.command(runtime, model, "--convert"), capture_output=True, text=True)
            told.write_text(done.stdout or json.dumps({"ready": False, "why": f"the converter ended with {done.returncode}"}))
        state = json.loads(told.read_text())
        if not state["ready"]:
            self.states[model, runtime] = state["why"]

    def prepare(self):
        for peer in self.options.peers:
            if peer in PACKAGES:
                self.install(peer)
        networks.provide(self.models, self.options.models)
        for model in self.options.models:
            self.compile(model)
            for peer in self.options.peers:
                if hasattr(runtimes.RUNTIMES[peer], "convert"):
                    self.convert(peer, model)

    # Timing

    def start(self, runtime, model, threads):
        """A side that is loaded, and stopped; None with the reason in `states`."""
        if isinstance(self.states.get((model, runtime)), str):
            return None
        side = subprocess.Popen(self.command(runtime, model, "--threads", threads), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True)
        line = side.stdout.readline()
        told = json.loads(line) if line else {"ready": False, "why": f"the process ended with {side.wait()}"}
        if not told["ready"]:
            self.end(side)
            self.states[model, runtime] = told["why"]
            return None
        before = self.states.get((model, runtime))
        if before is not None:
            errors = (before["error"], told["error"])
            told["error"] = None if None in errors else max(errors)
        self.states[model, runtime] = told
        self.versions.update(told["versions"])
        side.send_signal(signal.SIGSTOP)
        return side

    def end(self, side):
        side.send_signal(signal.SIGCONT)
        side.stdin.close()
        try:
            side.wait(30)
        except subprocess.TimeoutExpired:
            side.kill()
            side.wait()

    def slice(self, side):
        side.send_signal(signal.SIGCONT)
        side.stdin.write(json.dumps({"seconds": self.options.seconds}) + "\n")
        side.stdin.flush()
        line = side.stdout.readline()
        side.send_signal(signal.SIGSTOP)
        return json.loads(line) if line else None

    def round(self, number, model, threads):
        order = [OURS, *self.options.peers]
        with contextlib.ExitStack() as stack:
            sides = {}
            for runtime in order:
                side = self.start(runtime, model, threads)
                if side is not None:
                    stack.callback(self.end, side)
                    sides[runtime] = side
            times = {runtime: [] for runtime in sides}
            for turn in range(self.options.slices):
                at = (number + turn) % len(order)
                for runtime in order[at:] + order[:at]:
                    if runtime not in sides:
                        continue
                    told = self.slice(sides[runtime])
                    if told is None or "wall_ms" not in told:
                        self.states[model, runtime] = "it ended while it was timed" if told is None else told["why"]
                        del sides[runtime]
                        continue
                    times[runtime].append(told[f"{self.options.clock}_ms"])
                    self.loads.append(os.getloadavg()[0])
            return [{"model": model, "runtime": runtime, "threads": threads, "round": number, "ms": statistics.median(times[runtime])} for runtime in sides]

    def steady(self, cores, number, model, threads):
        """The records of a round during which the cores were there, or else of the last of three."""
        for _ in range(3):
            share, waited = cores.wait(SHARE, self.options.patience)
            self.waited += waited
            records = self.round(number, model, threads)
            if min(share, cores.share()) >= SHARE:
                return records
            self.again += 1
        self.unsteady += 1
        return records

    def run(self):
        for number in range(self.options.rounds):
            for model in self.options.models:
                for threads in self.options.threads:
                    if threads == 1:
                        self.records += self.round(number, model, threads)
                        continue
                    with Cores(threads) as cores:
                        self.records += self.steady(cores, number, model, threads)
                note(f"round {number + 1} of {self.options.rounds}: {model}")

    # The report

    def report(self):
        results, o = Results(self.records, self.states), self.options
        told = subprocess.run([o.planish, "--version"], capture_output=True, text=True).stdout.strip()
        lines = [
            f"{machine()}; load average {min(self.loads, default=0):.1f} to {max(self.loads, default=0):.1f} (median "
            f"{statistics.median(self.loads or [0]):.1f}). {datetime.date.today()}, {o.rounds} rounds of {o.slices} slices of {o.seconds} s, "
            f"{'wall clock' if o.clock == 'wall' else 'CPU time'}, f32. {told}, {', '.join(f'{k} {v}' for k, v in sorted(self.versions.items()))}.",
            *([f"Rounds with several threads: {self.waited:.0f} s waited for the cores, {self.again} timed in vain, {self.unsteady} kept though the cores did not compute {SHARE} of what so many do."] if max(o.threads) > 1 else []),
            "", f"Command: `{' '.join(['cargo xtask bench peers', *o.shown])}`", "",
        ]
        for threads in o.threads:
            lines += [*results.table(o.models, o.peers, threads), ""]
        lines += [*results.remarks(), ""]
        lines += ["| model | compiled in, s | code, kB | error to the reference |", "|---|---:|---:|---:|"]
        for model, c in self.compiled.items():
            state = self.states.get((model, OURS))
            error = f"{state['error']:.1e}" if isinstance(state, dict) and state["error"] is not None else "-"
            lines.append(f"| {model} | {c['seconds']:.1f} | {c['code_bytes'] / 1e3:.0f} | {error} |")
        return results, "\n".join(lines) + "\n"


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    field = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in info.splitlines())}
    flags = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f in field.get("flags", "").split()]
    return f"{field.get('model name', platform.machine())}, family {field.get('cpu family', '?')}, {len(os.sched_getaffinity(0))} cores, {' '.join(flags)}"


def listed(text):
    return [part for part in text.split(",") if part]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planish", required=True, help="the command that compiles ours")
    parser.add_argument("--models", type=listed, default=list(networks.MODELS), help="default: all of networks.py")
    parser.add_argument("--peers", type=listed, default=list(PEERS), help=f"default: {','.join(PEERS)}")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in listed(text)], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7, help="3 or more give intervals")
    parser.add_argument("--slices", type=int, default=3, help="timed parts of each runtime in a round")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each slice")
    parser.add_argument("--patience", type=float, default=60, help="seconds a round with several threads waits for the cores, at most")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: CPU time of the process, for 1 thread beside other load")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(os.environ.get("PEERS", CACHE / "peers")))
    parser.add_argument("--compile-arg", action="append", default=[], metavar="ARG", help="further argument of `planish compile`")
    parser.add_argument("--report", type=pathlib.Path, help="file for the tables, beside standard output")
    parser.add_argument("--json", type=pathlib.Path, help="file for the records")
    parser.add_argument("--strict", action="store_true", help="exit 1 where we are slower than the best peer")
    options = parser.parse_args()
    for kind, asked, known in (("model", options.models, networks.MODELS), ("peer", options.peers, PEERS)):
        unknown = [name for name in asked if name not in known]
        if unknown:
            parser.error(f"unknown {kind} {', '.join(unknown)}; there are {', '.join(known)}")
    arguments = sys.argv[1:]
    hidden = [i for i, a in enumerate(arguments) for i in (i, i + 1) if a in ("--planish", "--folder", "--report", "--json")]
    options.shown = [a for i, a in enumerate(arguments) if i not in hidden]
    return options


def main():
    bench = Bench(parse())
    bench.prepare()
    bench.run()
    results, text = bench.report()
    print(text, end="")
    options = bench.options
    if options.report:
        options.report.write_text(text)
    if options.json:
        states = [{"model": m, "runtime": r, **(s if isinstance(s, dict) else {"why": s})} for (m, r), s in sorted(bench.states.items())]
        options.json.write_text(json.dumps({"records": bench.records, "states": states, "compiled": bench.compiled, "versions": bench.versions}, indent=1) + "\n")
    if not all(qualified(bench.states.get((m, OURS))) for m in options.models):
        sys.exit(4)
    best = [results.ratio(m, results.best(m, options.peers, t), t) for m in options.models for t in options.threads if results.best(m, options.peers, t)]
    sys.exit(int(options.strict and any(r.verdict() == "slower" for r in best)))


if __name__ == "__main__":
    main()
