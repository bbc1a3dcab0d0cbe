"""Whether `planish bench` can be trusted with a budget on speed.

Two questions, each asked many times with `--max-regression 3%` and one thread:

  identical  a model is compiled again, and the result, which is the same to the byte, is judged against the first: a verdict
             of "slower than allowed" (exit code 1) is a false alarm. At most 1 in 100 is accepted.
  planted    the same network with 21 layers in place of 20, all alike, so that it does 5% more work, is judged against that
             with 20: a run that does not say so has missed it. At least 19 of 20 must be found.

A run measures both programs in turns, for `--duration` each: at the default of 5 s, 10 s in all. What a budget is not shown to
be kept by is measured a second time for as long before it is reported; the seconds of a run that are printed hold everything.

Results are appended to `verdicts.jsonl` in the folder, and a second call goes on where the first was stopped.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = 20
WIDTH = 256
BATCH = 16


def network(path, layers):
    """Layers of one size with weights of their own."""
    random = np.random.default_rng(7)
    nodes, weights, value = [], [], "x"
    for i in range(layers):
        w = (random.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(w, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"m{i}"], name=f"m{i}"))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"r{i}"], name=f"r{i}"))
        value = f"r{i}"
    shape = [BATCH, WIDTH]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "layers", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


class Judge:
    """Compiles and judges."""

    def __init__(self, args, folder):
        self.planish, self.folder, self.args = args.planish, folder, args
        for name, layers in (("base", LAYERS), ("planted", LAYERS + 1)):
            network(folder / f"{name}.onnx", layers)
            self.build(f"{name}.onnx", name)
        self.bytes = (folder / "base").read_bytes()

    def build(self, model, program):
        command = [self.planish, "compile", str(self.folder / model), "-o", str(self.folder / program)]
        command += ["--cpu", "host", "--name", "layers", "--no-check", "--cache-dir", "none", "--force", "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def run(self, kind):
        """One verdict."""
        other = "planted"
        if kind == "identical":
            other = "again"
            self.build("base.onnx", other)
            if (self.folder / other).read_bytes() != self.bytes:
                sys.exit("verdicts: a rebuild differs from the first build")
        command = [self.planish, "bench", f"base={self.folder / 'base'}", f"other={self.folder / other}"]
        command += ["--threads", "1", "--duration", self.args.duration, "--max-regression", self.args.limit]
        command += ["--format", "json", "--quiet"]
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - start
        if done.returncode not in (0, 1, 5):
            sys.exit(f"verdicts: bench ended with {done.returncode}: {done.stderr.strip()}")
        report = json.loads(done.stdout)
        pair = report["pairs"][0]
        keep = ("ratio", "low", "high", "detectable", "clock", "turns", "remeasured", "verdict")
        return {"kind": kind, "exit": done.returncode, "seconds": seconds, "load": os.getloadavg()[0],
                "duration": self.args.duration, "limit": self.args.limit} | {k: pair[k] for k in keep}


def summary(rows, kind):
    """A line about all verdicts of a kind."""
    rows = [r for r in rows if r["kind"] == kind]
    if not rows:
        return f"{kind}: none yet"
    exits = [r["exit"] for r in rows]
    words = [r["verdict"] for r in rows]
    detectable = [r["detectable"] for r in rows if r["detectable"] is not None]
    return (
        f"{kind}: {len(rows)} runs; beyond the limit {exits.count(1)}, within {exits.count(0)}, not decided {exits.count(5)}; "
        f"called slower {words.count('slower')}, faster {words.count('faster')}; "
        f"ratio {statistics.median(r['ratio'] for r in rows):.4f} in the median, "
        f"detectable {100 * statistics.median(detectable or [float('nan')]):.2f}%, "
        f"measured twice {sum(r['remeasured'] for r in rows)}, {statistics.median(r['seconds'] for r in rows):.1f} s a run"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planish", required=True)
    parser.add_argument("--identical", type=int, default=100, help="verdicts on identical rebuilds")
    parser.add_argument("--planted", type=int, default=20, help="verdicts on the larger network")
    parser.add_argument("--duration", default="5s", help="time for each of the two programs")
    parser.add_argument("--limit", default="3%", help="the budget")
    parser.add_argument("--folder", type=pathlib.Path, help="where results are kept (a new folder)")
    args = parser.parse_args()
    args.planish = str(pathlib.Path(args.planish).resolve())
    folder = args.folder or pathlib.Path(tempfile.mkdtemp(prefix="planish-verdicts-"))
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "verdicts.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    rows = [r for r in rows if (r["duration"], r["limit"]) == (args.duration, args.limit)]
    wanted = {"identical": args.identical, "planted": args.planted}
    left = {kind: n - sum(r["kind"] == kind for r in rows) for kind, n in wanted.items()}
    print(f"results: {log}; done before: {len(rows)}", flush=True)
    judge = Judge(args, folder)
    while any(n > 0 for n in left.values()):
        # The kind that is further behind its number.
        kind = max(left, key=lambda k: left[k] / max(wanted[k], 1))
        row = judge.run(kind)
        rows.append(row)
        left[kind] -= 1
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{len(rows):4} {kind:9} exit {row['exit']} ratio {row['ratio']:.4f} "
            f"({row['low'] or 0:.4f} to {row['high'] or 0:.4f}) by {row['clock']}, "
            f"{row['seconds']:.1f} s, load {row['load']:.1f}: {row['verdict']}",
            flush=True,
        )
    for kind in wanted:
        print(summary(rows, kind))
    alarms = sum(r["kind"] == "identical" and r["exit"] == 1 for r in rows)
    missed = sum(r["kind"] == "planted" and r["exit"] != 1 for r in rows)
    passed = (alarms <= max(1, args.identical // 100)) + (missed <= args.planted // 20)
    print(f"{passed} passed, {2 - passed} failed")
    sys.exit(0 if passed == 2 else 1)


if __name__ == "__main__":
    main()
