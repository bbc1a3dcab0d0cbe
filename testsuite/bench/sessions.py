#!/usr/bin/env python3
"""Throughput of concurrent sessions, and latency under a quota of processor time.

    sessions.py --planish COMMAND MODEL.onnx INPUTS.npz [--sessions 2] [--seconds 2] [--rounds 5] [--quota 1.5]

In one process, sessions of one thread each run in threads of their own: first one, then all, in turns. Prints runs a
second of both and their ratio (median over rounds). Then a program of two threads runs in a control group that may use
--quota cores, and the 99th percentile of its latency over the median is printed; that part is left out, and said to be,
where no such group can be made. INPUTS.npz holds the inputs by name.
"""
import argparse
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np


def rate(module, feeds, sessions, seconds):
    """Runs a second of all sessions together."""
    counts, start = [0] * sessions, threading.Barrier(sessions)

    def use(at):
        model = module.Model(threads=1)
        model.run(None, feeds)
        start.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            model.run(None, feeds)
            counts[at] += 1

    threads = [threading.Thread(target=use, args=(i,)) for i in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


@contextlib.contextmanager
def group(cores):
    """A control group of either version; OSError where none can be made."""
    mounts = [line.split()[1:4] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    first = [place for place, kind, flags in mounts if kind == "cgroup" and "cpu" in flags.split(",")]
    second = [place for place, kind, _ in mounts if kind == "cgroup2"]
    folder = pathlib.Path((first + second + ["/none"])[0]) / f"planish-bench-{time.time_ns()}"
    folder.mkdir()
    try:
        if first:
            (folder / "cpu.cfs_period_us").write_text("100000")
            (folder / "cpu.cfs_quota_us").write_text(str(int(cores * 100000)))
        else:
            (folder / "cpu.max").write_text(f"{int(cores * 100000)} 100000")
        yield folder
    finally:
        folder.rmdir()


def quota(program, inputs, cores, seconds):
    with group(cores) as folder:
        enter = f'echo $$ > {folder}/cgroup.procs && exec "$0" "$@"'
        command = ["sh", "-c", enter, program, "--bench", "--json", "--threads", "2", "--duration", f"{seconds}s", "--inputs", inputs]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["latency_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planish", required=True)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("inputs", type=pathlib.Path)
    parser.add_argument("--sessions", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quota", type=float, default=1.5)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for more in (["-o", f"{work}/program"], ["-o", f"{work}/model.py", "--emit", "python"]):
            command = [o.planish, "compile", o.model, "--cpu", "host", "--quiet", "--name", "model", *more]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        sys.path.insert(0, work)
        import model

        feeds = dict(np.load(o.inputs))
        rows = [(rate(model, feeds, 1, o.seconds), rate(model, feeds, o.sessions, o.seconds)) for _ in range(o.rounds)]
        one, all_ = (statistics.median(column) for column in zip(*rows))
        ratio = statistics.median(b / a for a, b in rows)
        print(f"{o.model.stem}: one session {one:.1f} runs a second, {o.sessions} sessions {all_:.1f}: {ratio:.2f} times")
        try:
            t = quota(f"{work}/program", o.inputs, o.quota, o.seconds)
            print(f"2 threads, {o.quota} cores: median {t['median']:.3f} ms, p99 {t['p99']:.3f} ms, ratio {t['p99'] / t['median']:.2f}")
        except OSError as error:
            print(f"latency under a quota: left out, no control group can be made ({error})")


if __name__ == "__main__":
    main()
