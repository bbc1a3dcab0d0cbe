"""The programs that are measured: ours after some passes, and ONNX Runtime on a file. All run on one thread, in this process.

A side has `run(feed)`, the outputs by position; `arm(feeds)`, which binds buffers for these inputs; and `step()`, one inference on the next of
them, which is what is timed. `Failed` says why there is none.
"""
import itertools
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
import urllib.parse

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "bench"), str(HERE.parent / "python")]

from demo import fetch  # noqa: E402, F401  (for the modules beside this one)
from paired import Ratio  # noqa: E402
import runtimes  # noqa: E402


FEW = 6  # samples that the percentiles of ONNX Runtime come from
# Remarks of a layer that was changed.
DONE = ("quantize-done", "blocks-done", "gate-done")


class Failed(Exception):
    pass


def command(cmd, limit=600):
    try:
        done = subprocess.run([str(c) for c in cmd], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=limit)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {limit} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("remark")]
        raise Failed(f"exit {done.returncode}: {' '.join(lines)[:300]}")
    return done


def passes(planish):
    """The names of those that this planish has."""
    return {line.split()[0] for line in command([planish, "passes"]).stdout.splitlines() if line[:1].strip()}


def write_samples(folder, samples):
    for i, sample in enumerate(samples):
        one = folder / f"test_data_set_{i}"
        one.mkdir(parents=True)
        for name, value in sample.items():
            np.save(one / f"{urllib.parse.quote(name, safe='')}.npy", value)


class Side:
    """One that is loaded with `load(path, inputs, outputs)` of a class of runtimes.py."""

    def __init__(self, load, path, outputs, cache=None):
        self.load, self.path, self.outputs, self.cache, self.armed = load, path, outputs, cache, None

    def arm(self, feeds):
        bound = [self.load(self.path, feed, self.outputs, 1, self.cache) for feed in feeds[:1]]
        bound += [self.again(bound[0], feed) for feed in feeds[1:]]
        self.armed, self.next = bound, itertools.cycle([one.step for one in bound])

    def step(self):
        next(self.next)()


class Ours(Side):
    """A model as a shared object, compiled with passes. `remarks` are those of the passes, `planish` the command."""

    def __init__(self, planish, model, folder, arguments):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        start = time.monotonic()
        told = command([planish, "compile", model, "--cpu", "host", "--emit", "python", "--name", "model", "-o", folder / "model.py",
                        "--no-check", "--remarks", "json", *arguments])
        self.seconds = time.monotonic() - start
        told = [json.loads(line) for line in told.stderr.splitlines() if line.startswith("{")]
        self.remarks = [r for one in told if one.get("schema") == "planish.remarks" for r in one["remarks"]]
        self.bytes = (folder / "libmodel.so").stat().st_size
        super().__init__(runtimes.Planish, pathlib.Path(folder.name), None, folder.parent)
        self.folder, self.session = folder, None

    def arm(self, feeds):
        # The class looks below a folder of this name.
        self.cache = self.folder.parent.parent
        super().arm(feeds)

    def again(self, first, feed):
        """The same session on other buffers."""
        one = object.__new__(runtimes.Planish)
        one.__dict__.update(first.__dict__)
        one.inputs = {name: np.ascontiguousarray(value) for name, value in feed.items()}
        one.bound = (first.module._Buffer * len(first.model.inputs))()
        for place, name in zip(one.bound, first.model.inputs):
            place.data, place.bytes = one.inputs[name].ctypes.data, one.inputs[name].nbytes
        one.arguments = (first.model._handle, one.bound, len(one.bound), one.out, len(one.out), None, 0)
        return one

    def run(self, feed):
        if self.session is None:
            spec = runtimes.importlib.util.spec_from_file_location("model", self.folder / "model.py")
            self.module = runtimes.importlib.util.module_from_spec(spec)
            spec.loader.exec_module(self.module)
            self.session = self.module.Model(threads=1)
        return self.session.run(None, feed)

    def declined(self):
        """What is said of the first layer that was left alone."""
        told = next((r["message"] for r in self.remarks if "skipped" in r["id"] or "declined" in r["id"]), "the pass says nothing")
        return told[:160]

    def layers(self):
        """The nodes that passes which change results worked on."""
        return [r["node"] for r in self.remarks if r["id"] in DONE and r.get("node")]


class Theirs(Side):
    def __init__(self, path, outputs):
        super().__init__(runtimes.OnnxRuntime, str(path), outputs)
        self.session, self.bytes = session(path), pathlib.Path(path).stat().st_size

    def again(self, first, feed):
        one = object.__new__(runtimes.OnnxRuntime)
        one.session, one.binding = first.session, first.session.io_binding()
        for name, value in feed.items():
            one.binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in self.outputs:
            one.binding.bind_output(name)
        return one

    def run(self, feed):
        return self.session.run(None, feed)


def session(path):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


# What ONNX Runtime's own tools make ---------------------------------------------------------------------------------

class Reader:
    def __init__(self, samples):
        self.left = iter(samples)

    def get_next(self):
        return next(self.left, None)


def integers(model):
    """Nodes that work on 8 bits, those of nested graphs too."""
    def count(graph):
        inner = [a.g for n in graph.node for a in n.attribute if a.HasField("g")]
        return sum("Quantize" in n.op_type or "Integer" in n.op_type for n in graph.node) + sum(map(count, inner))

    return count(model.graph)


def ort_quantised(kind, model, out, samples):
    """`model` in 8 bits by onnxruntime.quantization: dynamic, minmax or percentile. Raises Failed."""
    import logging

    import onnx
    import onnx.version_converter
    from onnxruntime import quantization as q
    logging.disable(logging.WARNING)
    prepared, files = out.with_suffix(".prepared.onnx"), [model]
    try:
        q.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        files.insert(0, prepared)
    except Exception as error:
        logging.debug("not prepared: %s", error)

    def upgraded():
        """The model in opset 13, the first with scales for each channel."""
        loaded = onnx.load(str(model))
        constant = {i.name for i in loaded.graph.initializer}
        inputs = [i for i in loaded.graph.input if i.name not in constant]
        del loaded.graph.input[:]
        loaded.graph.input.extend(inputs)
        loaded.ir_version = max(loaded.ir_version, 8)
        onnx.save(onnx.version_converter.convert_version(loaded, 13), str(prepared))
        return prepared

    def quantise(file):
        if kind == "dynamic":
            q.quantize_dynamic(str(file), str(out), weight_type=q.QuantType.QInt8)
            return
        method = q.CalibrationMethod.MinMax if kind == "minmax" else q.CalibrationMethod.Percentile
        # It keeps what all samples gave in memory, unless it is told how many; a limit that divides their number it takes badly.
        some = next(k for k in range(2, len(samples) + 2) if len(samples) % k)
        extra = {"CalibPercentile": 99.99} if kind == "percentile" else {"CalibMaxIntermediateOutputs": some}
        q.quantize_static(str(file), str(out), Reader(samples[:FEW] if kind == "percentile" else samples), quant_format=q.QuantFormat.QDQ, per_channel=True, weight_type=q.QuantType.QInt8,
                          activation_type=q.QuantType.QUInt8, calibrate_method=method, extra_options=extra)

    why = ""
    for file in (*files, upgraded):  # prepared as it asks for, or else as it is
        try:
            quantise(file() if callable(file) else file)
            found = integers(onnx.load(str(out)))
            session(out)
        except Exception as error:
            why = why or f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
            continue
        if found:
            return found
        why = why or "its quantisation leaves all layers as they are"
    raise Failed(why)


# Time ---------------------------------------------------------------------------------------------------------------

def piece(step, seconds, clock):
    """Milliseconds a step: the median of wall time, or the mean of processor time; at least 3 steps, some more to warm up."""
    now = time.perf_counter
    end = now() + seconds / 4
    step()
    while now() < end:
        step()
    times, busy, before = [], time.process_time(), now()
    end = before + seconds
    while before < end or len(times) < 3:
        step()
        after = now()
        times.append(after - before)
        before = after
    busy = (time.process_time() - busy) / len(times)
    return 1e3 * (busy if clock == "cpu" else statistics.median(times))


def alternate(sides, rounds, seconds, clock):
    """In turn, the first of a round another each time: name -> milliseconds of every round."""
    names, out = list(sides), {name: [] for name in sides}
    for k in range(rounds):
        at = k % len(names)
        for name in names[at:] + names[:at]:
            out[name].append(piece(sides[name].step, seconds, clock))
    return out


def speedup(times, name, over):
    """How many times as fast as another, in the same rounds: (value, low, high) of the 95% interval."""
    ratio = Ratio([b / a for a, b in zip(times[name], times[over], strict=True)])
    return [ratio.value, ratio.low, ratio.high]
