#!/usr/bin/env python3
"""One runtime with one model loaded, for peers.py: reads a JSON object a line, writes one a line.

    side.py --runtime NAME --model MODEL.onnx --threads N --cache FOLDER [--convert]

First it answers {"ready": true, "error": .., "first_ms": .., "versions": ..}: the largest difference to
the reference over the largest reference value (null where outputs are missing). Then {"seconds": S} times steps for S
seconds and answers {"wall_ms": median, "cpu_ms": mean CPU time of the process, "steps": n, "mean_ms": ..}.
"""
import argparse
import json
import pathlib
import statistics
import sys
import time

import numpy as np

import runtimes


def arrays(path):
    with np.load(path) as file:
        return {str(name): file[str(i)] for i, name in enumerate(file["__names__"])}


def difference(values, references):
    """Largest relative difference: infinite for NaN or another number of elements, None where an output is missing."""
    if len(values) < len(references):
        return None
    worst = 0.0
    for ours, theirs in zip(values, references):
        ours, theirs = np.asarray(ours, np.float64).ravel(), np.asarray(theirs, np.float64).ravel()
        if ours.size != theirs.size or not np.isfinite(ours).all():
            return float("inf")
        worst = max(worst, float(np.abs(ours - theirs).max(initial=0) / (np.abs(theirs).max(initial=0) or 1)))
    return worst


def timed(step, seconds):
    """At least 3 steps, a quarter of the time before them as warm-up."""
    now = time.perf_counter
    end = now() + seconds / 4
    while now() < end:
        step()
    times, cpu, start = [], time.process_time(), now()
    before = start
    while before < start + seconds or len(times) < 3:
        step()
        after = now()
        times.append(after - before)
        before = after
    cpu = time.process_time() - cpu
    return {"wall_ms": statistics.median(times) * 1e3, "mean_ms": (before - start) / len(times) * 1e3,
            "cpu_ms": cpu / len(times) * 1e3, "steps": len(times)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", required=True, choices=runtimes.RUNTIMES)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", required=True, type=pathlib.Path)
    parser.add_argument("--convert", action="store_true")
    options = parser.parse_args()
    out = runtimes.quiet()

    def answer(**fields):
        print(json.dumps(fields), file=out, flush=True)

    runtime, path = runtimes.RUNTIMES[options.runtime], options.model.resolve()
    inputs, references = (arrays(path.with_name(f"{path.stem}.{kind}.npz")) for kind in ("in", "ref"))
    try:
        if options.convert:
            if hasattr(runtime, "convert"):
                folder = options.cache / options.runtime
                folder.mkdir(parents=True, exist_ok=True)
                runtime.convert(path, inputs, folder)
            answer(ready=True)
            return
        side = runtime(path, inputs, list(references), options.threads, options.cache)
        start = time.perf_counter()
        side.step()
        first = (time.perf_counter() - start) * 1e3
        off = difference(side.results(), list(references.values()))
        answer(ready=True, error=off, first_ms=first, versions=runtimes.versions(options.runtime))
        for line in sys.stdin:
            answer(**timed(side.step, json.loads(line)["seconds"]))
    except Exception as error:
        answer(ready=False, why=f"{type(error).__name__}: {error}"[:500])


if __name__ == "__main__":
    main()
