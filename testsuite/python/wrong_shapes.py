#!/usr/bin/env python3
"""Inputs whose shapes do not fit each other, on the kernel interpreter, which stops at every access outside a buffer.

    wrong_shapes.py --planish PATH --data DATA [--seed S] [--every N]

The models are the operator tests of the conformance suite with all dims made free. In each trial one axis of one input
grows, shrinks, or becomes 1 or 0. A run may succeed or be refused; an internal error or the end of the process is a
failure, and so are runs of which none succeeds or none is refused. `--every N` takes every Nth test. Ends with `N passed, N
failed`.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np
import onnx

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))
import conformance  # noqa: E402

TRIALS = 4


def free_dims(model, inputs):
    for k, port in enumerate([*inputs, *model.graph.output]):
        if port.type.WhichOneof("value") == "tensor_type":
            for a, dim in enumerate(port.type.tensor_type.shape.dim):
                dim.ClearField("dim_value")
                dim.dim_param = f"d{k}_{a}"
    del model.graph.value_info[:]


def resized(value, axis, how):
    keep = {"grow": [*range(value.shape[axis]), 0], "shrink": range(value.shape[axis] - 1), "one": [0], "zero": []}[how]
    return np.take(value, np.array(list(keep), np.int64), axis=axis)


class Worker:
    def __init__(self, planish):
        self.command = [planish, "worker", "--engine", "kinterp", "--threads", "1", "--max-memory", "2G"]
        self.process = None

    def ask(self, request):
        """The answer, or None when the process ended."""
        if self.process is None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.DEVNULL, text=True)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.process = None
        return None


def trials(folder, rng, work):
    """(inputs changed, files) of each trial of one test; the model is written to `work`."""
    model = onnx.load(f"{folder}/model.onnx")
    inputs = conformance.graph_inputs(model)
    files = conformance.data_files(f"{folder}/test_data_set_0", "input")
    values = [conformance.load_value(f, i.type) for f, i in zip(files, inputs)]
    shaped = [k for k, v in enumerate(values) if isinstance(v, np.ndarray) and v.ndim and v.size]
    if not shaped or len(values) != len(inputs):
        return
    free_dims(model, inputs)
    (work / "model.onnx").write_bytes(model.SerializeToString())
    for _ in range(TRIALS):
        k = rng.choice(shaped)
        axis, how = rng.randrange(values[k].ndim), rng.choice(["grow", "shrink", "one", "zero"])
        changed = [resized(v, axis, how) if i == k else v for i, v in enumerate(values)]
        names = []
        for i, (value, port) in enumerate(zip(changed, inputs)):
            names.append(str(work / f"input_{i}.pb"))
            conformance.dump_value(names[-1], value, port.name, port.type)
        yield f"input {k}, axis {axis}: {how}", names


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--planish", required=True, type=pathlib.Path)
    ap.add_argument("--data", required=True, type=pathlib.Path)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--every", type=int, default=1)
    a = ap.parse_args()
    tests = [t for t in conformance.discover(str(a.data), ["node"]) if "_expanded" not in t[1]][:: a.every]
    worker, rng = Worker(a.planish.resolve()), random.Random(a.seed)
    passed = failed = succeeded = 0
    print(f"seed {a.seed}, {len(tests)} models")
    with tempfile.TemporaryDirectory(prefix="planish-shapes-") as work:
        work = pathlib.Path(work)
        for _, name, folder in tests:
            for what, files in trials(folder, rng, work):
                request = {"id": name, "model": str(work / "model.onnx"), "inputs": files, "outdir": str(work / "out")}
                answer = worker.ask(request)
                wrong = "the process ended" if answer is None else answer.get("msg", "")
                if answer is None or "internal" in wrong:
                    failed += 1
                    print(f"FAIL {name}, {what}: {wrong[:200]}", flush=True)
                else:
                    passed += 1
                    succeeded += answer["status"] == "ok"
    if not 0 < succeeded < passed:
        failed += 1
        print(f"FAIL {succeeded} of {passed} runs succeed: these are no trials")
    print(f"{succeeded} runs succeed, {passed - succeeded} are refused")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


if __name__ == "__main__":
    main()
