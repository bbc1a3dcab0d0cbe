#!/usr/bin/env python3
"""What each method makes of real models on real data, and of networks of random weights: accuracy, and speed beside ONNX Runtime in f32 and in 8 bits.

    methods.py --planish PATH [--only NAME..] [--rounds N] [--seconds S] [--clock wall|cpu] [--report FILE] [--update]
    methods.py --planish PATH --judge [--only NAME..]     accuracy alone, of what the tests hold, and of some models unless named

Real models, with data that ranges did not come from:

  minilm-l3            similarity of pairs of sentences (film reviews): rank correlation with that of the model as it is
  ppocr4-det           boxes of lines of text drawn into photos
  silero-vad           speech against noise, chunk after chunk
  pplcnet-orientation  pages turned by 0, 90, 180 and 270 degrees
  mnist-cnn            the test set of MNIST
  foreign-zeros        minilm-l3 with blocks of its weights zeroed by numpy: compiled without an option its kernels skip them
  exported             gates written to plain ONNX: as ONNX Runtime runs them, and found again (only judged)

Random weights, so that only speed means something: bert12 (one sequence of 128 tokens) and resnet50.

All run on one thread, in turns; a speed-up is the geometric mean of the ratios of the rounds, with their 95% interval. Figures go to FILE (with those
of models that are not run now kept) and, with --update, into the tables of README.md and docs/methods.md. Ends with `N passed, N failed`:
accuracy is judged, time is not.
"""
import argparse
import datetime
import json
import pathlib
import platform
import subprocess
import sys
import tempfile

import tables
from exported import exported
from random_weights import NETWORKS
from real import MODELS
from sides import HERE

ROOT = HERE.parent.parent
JUDGED = {"exported": exported}  # nothing of these is timed
LIMIT = 1200  # seconds that one model may take
QUICK = ("minilm-l3", "mnist-cnn", "foreign-zeros", "exported")


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    has = [text for flag, text in (("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx512_vnni", "VNNI"), ("avx512_bf16", "BF16")) if flag in flags]
    return f"{name} ({', '.join(has)})"


def versions(planish):
    import onnxruntime
    said = subprocess.run([planish, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {"planish": said, "onnxruntime": onnxruntime.__version__}


def one(o, name):
    """Measures in this process: (record, judgements)."""
    with tempfile.TemporaryDirectory(prefix="planish-methods-") as work:
        work = pathlib.Path(work)
        make = (MODELS | NETWORKS | JUDGED)[name]
        record, judged = make(o, name, work)
    record |= {"name": name, "date": datetime.date.today().isoformat(), "machine": machine(), "clock": o.clock, "rounds": o.rounds, **versions(o.planish)}
    return record, judged


def apart(o, name):
    """The same in a process of its own, so that one that ends badly takes no other with it."""
    command = [sys.executable, __file__, "--planish", o.planish, "--one", name, "--rounds", o.rounds, "--seconds", o.seconds, "--clock", o.clock]
    command += ["--judge"] if o.judge else []
    try:
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return None, [(f"done within {LIMIT} s", 0, 1)]
    if done.returncode or not done.stdout.strip():
        return None, [(f"ended with {done.returncode}", 0, 1)]
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*MODELS, *NETWORKS, *JUDGED]
    parser.add_argument("--planish", required=True, type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--only", nargs="+", choices=names)
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--report", type=pathlib.Path, default=ROOT / "target/methods.json")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--one", choices=names, help=argparse.SUPPRESS)
    o = parser.parse_args()
    o.planish = o.planish.resolve()
    if o.one:
        print(json.dumps(one(o, o.one)))
        return 0
    o.only = o.only or (list(QUICK) if o.judge else [*MODELS, *NETWORKS])
    kept = json.loads(o.report.read_text())["models"] if o.report.exists() and not o.judge else {}
    passed = failed = 0
    for name in o.only:
        record, judged = apart(o, name)
        if record is not None and not o.judge and name not in JUDGED:
            kept[name] = record
            print("\n".join(tables.full(record)), flush=True)
            o.report.parent.mkdir(parents=True, exist_ok=True)
            o.report.write_text(json.dumps({"schema": "planish.methods", "version": 1, "models": kept}, indent=1) + "\n")
        for what, got, wanted in judged:
            fine = got >= wanted
            passed, failed = passed + fine, failed + (not fine)
            print(f"{'ok' if fine else 'FAIL'}  {name}, {what}: {got:.4f}, at least {wanted:.4f}", flush=True)
    if o.update:
        tables.update(ROOT, kept)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
