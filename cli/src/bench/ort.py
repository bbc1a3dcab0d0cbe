"""Measures ONNX Runtime on one model. argv: model, threads, folder of input_<i>.npy or of folders test_data_set_<n> with them,
which take turns. Each line on stdin is `RUNS MS`: unrecorded runs, then milliseconds; each answer is one line of JSON. After
the last line, one object about all runs."""

import itertools
import json
import pathlib
import resource
import sys
import time

import numpy as np
import onnxruntime as ort

model, threads, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
options = ort.SessionOptions()
options.intra_op_num_threads = threads
options.inter_op_num_threads = 1
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
options.log_severity_level = 3
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bound(sample):
    binding = session.io_binding()
    for i, item in enumerate(session.get_inputs()):
        binding.bind_cpu_input(item.name, np.ascontiguousarray(np.load(sample / f"input_{i}.npy")))
    for item in session.get_outputs():
        binding.bind_output(item.name)
    return binding


sets = sorted(folder.glob("test_data_set_*"), key=lambda p: int(p.name.rsplit("_", 1)[1]))
turns = itertools.cycle([bound(s) for s in sets or [folder]])


def quantiles(times):
    q = [float(v) for v in np.quantile(times, [0.5, 0.1, 0.9, 0.99, 0.0], method="inverted_cdf")]
    return dict(zip(["median", "p10", "p90", "p99", "min"], q))


start = time.perf_counter()
session.run_with_iobinding(next(turns))
first = (time.perf_counter() - start) * 1e3
print(json.dumps({"first_ms": first, "version": ort.__version__}), flush=True)
every, spent = [], 0.0
for line in sys.stdin:
    skip, ms = line.split()
    for _ in range(int(skip)):
        session.run_with_iobinding(next(turns))
    times, cpu, now = [], time.process_time(), time.perf_counter()
    end = now + float(ms) / 1e3
    while not times or now < end:
        session.run_with_iobinding(next(turns))
        before, now = now, time.perf_counter()
        times.append((now - before) * 1e3)
    cpu = (time.process_time() - cpu) * 1e3
    every += times
    spent += cpu
    print(json.dumps({"median_ms": float(np.median(times)), "cpu_ms": cpu / len(times), "runs": len(times)}), flush=True)
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"precision": "f32", "latency_ms": quantiles(every), "cpu_ms": spent / len(every), "first_ms": first,
                  "runs": len(every), "memory_bytes": memory}), flush=True)
