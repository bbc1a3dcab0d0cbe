"""Measures ONNX Runtime on one model. argv: model, threads, folder of input_<i>.npy. Each line on stdin is a number of
seconds; each answer is one line of JSON."""

import json
import pathlib
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
binding = session.io_binding()
for i, item in enumerate(session.get_inputs()):
    binding.bind_cpu_input(item.name, np.ascontiguousarray(np.load(folder / f"input_{i}.npy")))
for item in session.get_outputs():
    binding.bind_output(item.name)
start = time.perf_counter()
session.run_with_iobinding(binding)
first = (time.perf_counter() - start) * 1e3
print(json.dumps({"ready": True, "version": ort.__version__}), flush=True)
for line in sys.stdin:
    seconds = float(line)
    for _ in range(2):
        session.run_with_iobinding(binding)
    times, cpu, end = [], time.process_time(), time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        times.append((time.perf_counter() - start) * 1e3)
    cpu = (time.process_time() - cpu) * 1e3 / len(times)
    q = [float(v) for v in np.quantile(times, [0.5, 0.1, 0.9, 0.99, 0.0], method="inverted_cdf")]
    latency = dict(zip(["median", "p10", "p90", "p99", "min"], q))
    print(json.dumps({"precision": "f32", "latency_ms": latency, "cpu_ms": cpu, "first_ms": first, "runs": len(times)}), flush=True)
