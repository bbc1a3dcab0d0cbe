#!/usr/bin/env python3
"""Throughput of concurrent sessions, and latency under a quota of processor time.

    sessions.py --planish COMMAND MODEL.onnx INPUTS.npz [--sessions N] [--seconds 1] [--rounds 5] [--quota 1.5]

In one process, sessions of one thread each run in threads of their own (as many as there are cores unless told
otherwise): first one, then all, in turns. Prints runs a second of both and their ratio with its 95% interval. Between
runs Python holds its lock for some 10 us, so the model should take a millisecond or more.

Then the emitted program runs in turns outside and inside a control group that may use --quota cores, and the 99th
percentile of its latency over the median is printed (median and worst of the rounds): as started without options, which
chooses its number of threads by the quota, and with as many threads as cores. That part is left out, and said to be,
where no such group can be made. INPUTS.npz holds the inputs by name. Nothing else should run on the machine.
"""
import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

from paired import Ratio

PERIOD = 100_000  # microseconds


def rate(models, feeds, seconds):
    """Runs a second of all these sessions together. Each is timed over whole runs of its own."""
    start = threading.Barrier(len(models), timeout=60)

    def use(model):
        model.run(None, feeds)
        start.wait()
        begin = now = time.perf_counter()
        count = 0
        while now < begin + seconds:
            model.run(None, feeds)
            count, now = count + 1, time.perf_counter()
        return count / (now - begin)

    with concurrent.futures.ThreadPoolExecutor(len(models)) as pool:
        return sum(pool.map(use, models))


@contextlib.contextmanager
def group(cores):
    """A control group of either version that may use so many cores; OSError where none can be made."""
    mounts = [line.split()[1:4] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    first = [place for place, kind, flags in mounts if kind == "cgroup" and "cpu" in flags.split(",")]
    second = [place for place, kind, _ in mounts if kind == "cgroup2"]
    folder = pathlib.Path((first + second + ["/none"])[0]) / f"planish-bench-{os.getpid()}"
    folder.mkdir()
    try:
        if first:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
            (folder / "cpu.cfs_quota_us").write_text(str(int(cores * PERIOD)))
        else:
            (folder / "cpu.max").write_text(f"{int(cores * PERIOD)} {PERIOD}")
        yield folder
    finally:
        folder.rmdir()


def bench(program, inputs, seconds, folder, options):
    """(threads, median ms, p99 ms) of a program, run in a control group if one is given."""
    enter = 'exec "$0" "$@"' if folder is None else f'echo $$ > "{folder}/cgroup.procs" && exec "$0" "$@"'
    command = ["sh", "-c", enter, program, "--bench", "--json", "--duration", f"{seconds}s", "--warmup", "200ms", "--inputs", inputs, *options]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"exit {done.returncode}: {done.stderr.strip()[-200:]}")
    record = json.loads(done.stdout)
    return record["threads"], record["latency_ms"]["median"], record["latency_ms"]["p99"]


def under_quota(o, program, cores):
    settings = [("own choice of threads", []), (f"--threads {cores}", ["--threads", cores])]
    rows = {}
    with group(o.quota) as folder:
        for _ in range(o.rounds):
            for name, options in settings:
                for place in (None, folder):
                    rows.setdefault((name, place), []).append(bench(program, o.inputs, o.seconds, place, options))
    for (name, place), found in rows.items():
        ratios = [p99 / median for _, median, p99 in found]
        where = f"quota of {o.quota} cores" if place else "no quota"
        print(
            f"{o.model.stem}: {where}, {name} ({found[0][0]}): median {statistics.median(r[1] for r in found):.3f} ms, "
            f"p99 {statistics.median(r[2] for r in found):.3f} ms, ratio {statistics.median(ratios):.2f} (worst round {max(ratios):.2f})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planish", required=True)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("inputs", type=pathlib.Path)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--sessions", type=int, default=cores)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quota", type=float, default=1.5)
    parser.add_argument("--work", type=pathlib.Path, help="folder that keeps what was compiled (default: a temporary one)")
    o = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = o.work or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="planish-sessions-")))
        work.mkdir(parents=True, exist_ok=True)
        program, module = work / f"{o.model.stem}-program", work / "model.py"
        for target, more in ((program, []), (module, ["--emit", "python"])):
            command = [o.planish, "compile", o.model, "--cpu", "host", "--quiet", "--force", "--name", "model", "-o", target, *more]
            subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)
        sys.path.insert(0, str(work))
        import model

        feeds = dict(np.load(o.inputs))
        sessions = [model.Model(threads=1) for _ in range(o.sessions)]
        rows = [(rate(sessions[:1], feeds, o.seconds), rate(sessions, feeds, o.seconds)) for _ in range(o.rounds)]
        one, many = (statistics.median(column) for column in zip(*rows))
        ratio = Ratio([b / a for a, b in rows])
        print(f"{o.model.stem}: one session {one:.1f} runs a second, {o.sessions} sessions {many:.1f}: {ratio} times")
        try:
            under_quota(o, program, cores)
        except OSError as error:
            print(f"latency under a quota: left out, no control group can be made ({error})")


if __name__ == "__main__":
    main()
