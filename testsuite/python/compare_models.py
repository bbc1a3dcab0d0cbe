#!/usr/bin/env python3
"""Hold Planish against ONNX Runtime on the real models.

    compare_models.py                          prepare, compile an executable per model, run and compare every case
    compare_models.py --engine interp NAME..   through `planish run --engine interp` instead
    compare_models.py --speed --threads 1,2    alternating with ONNX Runtime (IO binding): ratio per model with its 95%
                                               interval, and the geometric mean; --cpu-time where others use the machine
    compare_models.py --prepare                only write inputs and references

Per case: |ours - reference| <= 1e-3 |reference| + 1e-4 max(1, max|reference|), both 2e-2 for dynamically quantised
models; integers, booleans and strings equal. A model passes when all its cases do. Ends with `N passed, N failed`.
"""
import argparse
import concurrent.futures
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import model_cases as mc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
from paired import Ratio, combined


def tolerance(entry):
    return (2e-2, 2e-2) if "quantised" in entry["classes"] else (1e-3, 1e-4)


def difference(ours, ref, rtol, atol):
    """(largest |ours - ref| over what is allowed, None) or (None, why not comparable)"""
    if ours.shape != ref.shape or ours.dtype != ref.dtype:
        return None, f"{ours.dtype}{list(ours.shape)} instead of {ref.dtype}{list(ref.shape)}"
    if ref.dtype.kind != "f":
        wrong = int(np.sum(ours != ref))
        return (None, f"{wrong} of {ref.size} elements differ") if wrong else (0.0, None)
    if not ref.size:
        return 0.0, None
    ours, ref = ours.astype(np.float64), ref.astype(np.float64)
    finite = np.isfinite(ref)
    if not np.array_equal(ours[~finite], ref[~finite], equal_nan=True) or not np.isfinite(ours[finite]).all():
        return None, "NaN or infinity in other places"
    # One infinity would make the tolerance of all other elements infinite.
    ours, ref = ours[finite], ref[finite]
    allowed = rtol * np.abs(ref) + atol * max(1.0, np.max(np.abs(ref), initial=0))
    return float(np.max(np.abs(ours - ref) / allowed, initial=0)), None


def run(cmd, timeout):
    """(exit code or None on a timeout, end of stderr, seconds)"""
    start = time.monotonic()
    try:
        done = subprocess.run([str(c) for c in cmd], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        return done.returncode, done.stderr.strip()[-300:], time.monotonic() - start
    except subprocess.TimeoutExpired:
        return None, f"no answer in {timeout} s", time.monotonic() - start


def check_case(prefix, folder, entry, timeout):
    """(worst difference over what is allowed, None) or (None, why)"""
    with tempfile.TemporaryDirectory() as out:
        code, err, _ = run([*prefix, "--inputs", folder, "--output-dir", out], timeout)
        if code != 0:
            return None, f"exit {code}: {err}"
        worst = 0.0
        refs = sorted((folder / "ref").iterdir())
        if not refs:
            return None, "no reference outputs"
        for ref in refs:
            if ref.suffix != ".npy":
                return None, f"{ref.name}: not a tensor"
            ours = pathlib.Path(out) / ref.name
            if not ours.exists():
                return None, f"{ref.name} was not written"
            ratio, why = difference(np.load(ours), np.load(ref), *tolerance(entry))
            if why:
                return None, f"{ref.name}: {why}"
            worst = max(worst, ratio)
        return worst, None


def one_model(a, entry):
    """A row: dict(name, ok, compile_s, size, cases {case: worst or why})"""
    name, row = entry["name"], {"name": entry["name"], "ok": False, "compile_s": None, "bytes": None, "cases": {}}
    try:
        folders = mc.prepare(entry)
        if a.engine == "exe":
            exe = a.work / name
            code, err, row["compile_s"] = run([a.planish, "compile", mc.model_path(name), "-o", exe, "--force", *a.compile_arg], a.timeout)
            if code != 0:
                row["cases"]["compile"] = f"exit {code}: {err}"
                return row
            row["bytes"] = exe.stat().st_size
            prefix = [exe]
        else:
            prefix = [a.planish, "run", mc.model_path(name), "--engine", a.engine]
        for folder in folders:
            worst, why = check_case(prefix, folder, entry, a.timeout)
            row["cases"][folder.name] = worst if why is None else why
        row["ok"] = all(isinstance(v, float) and v <= 1 for v in row["cases"].values())
    except Exception as ex:
        row["cases"]["harness"] = f"{type(ex).__name__}: {ex}"
    return row


def show(row):
    cases = "  ".join(f"{c}={v:.3g}" if isinstance(v, float) else f"{c}: " + re.sub(r"\s+", " ", v)[:200] for c, v in row["cases"].items())
    made = f"{row['compile_s']:6.2f} s {row['bytes'] / 1e6:7.1f} MB" if row["bytes"] else " " * 19
    print(f"{'ok  ' if row['ok'] else 'FAIL'} {row['name']:28} {made}  {cases}", flush=True)


def ort_binding(entry, folder, threads):
    """A function that runs one inference on bound buffers."""
    session = mc.ort_session(mc.model_path(entry["name"]), threads)
    binding = session.io_binding()
    feeds = mc.load_inputs(folder)
    for item, value in zip(entry["inputs"], feeds):
        if item["name"] in {i.name for i in session.get_inputs()}:
            binding.bind_cpu_input(item["name"], np.ascontiguousarray(value))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding)


def ort_time(step, seconds, cpu):
    """Milliseconds of a run: processor time on average, or the median of latencies."""
    warm = time.perf_counter() + seconds / 4
    step()
    while time.perf_counter() < warm:
        step()
    times, used, end = [], time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e3 * ((time.process_time() - used) / len(times) if cpu else statistics.median(times))


def our_time(a, exe, folder, threads):
    cmd = [exe, "--bench", "--json", "--threads", threads, "--duration", f"{a.seconds}s", "--warmup", f"{a.seconds / 4}s", "--inputs", folder]
    done = subprocess.run([str(c) for c in cmd], capture_output=True, text=True, timeout=a.timeout)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)["cpu_ms" if a.cpu_time else "median_ms"]


def speed(a, entries):
    """Rounds of ours, theirs, theirs, ours, ..; the ratio is the geometric mean over rounds of ours / theirs."""
    within, failed, found = 0, 0, {}
    for entry in entries:
        name = entry["name"]
        try:
            folder = mc.prepare(entry)[0]
            exe = a.work / name
            if a.recompile or not exe.exists():
                code, err, _ = run([a.planish, "compile", mc.model_path(name), "-o", exe, "--force", *a.compile_arg], a.timeout)
                if code != 0:
                    raise RuntimeError(f"compile: exit {code}: {err}")
            for threads in a.threads:
                step, rows = ort_binding(entry, folder, threads), []
                for k in range(a.rounds):
                    sides = [lambda: our_time(a, exe, folder, threads), lambda: ort_time(step, a.seconds, a.cpu_time)]
                    pair = [side() for side in sides[:: 1 - 2 * (k % 2)]]
                    rows.append(pair[:: 1 - 2 * (k % 2)])
                ratio = Ratio([ours / theirs for ours, theirs in rows])
                ours, theirs = (min(c) if a.cpu_time else statistics.median(c) for c in zip(*rows))
                found.setdefault(threads, {})[name] = ratio
                good = ratio.value <= a.limit
                within, failed = within + good, failed + (not good)
                print(f"{'ok  ' if good else 'SLOW'} {name:28} {threads}t  ours {ours:10.4f} ms  ort {theirs:10.4f} ms  ratio {ratio} {ratio.verdict()}", flush=True)
        except Exception as ex:
            failed += 1
            print(f"FAIL {name:28} {type(ex).__name__}: {ex}", flush=True)
    what = "processor time" if a.cpu_time else "latency"
    for threads, ratios in found.items():
        slower = [n for n, r in ratios.items() if r.verdict() == "slower"]
        print(f"{threads} thread(s), {what}: geometric mean of {len(ratios)} models {combined(list(ratios.values()))}; slower: {', '.join(slower) or 'none'}")
    print(f"ratio <= {a.limit}: {within} of {within + failed}")
    return within, failed


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("names", nargs="*", help="models; all that were fetched when none is given")
    ap.add_argument("--planish", default="planish", help="the command")
    ap.add_argument("--engine", default="exe", help="exe (default) or an engine of `planish run`")
    ap.add_argument("--work", type=pathlib.Path, help="folder for the executables (default: a temporary one)")
    ap.add_argument("--compile-arg", action="append", default=[], metavar="ARG", help="further argument of `planish compile` (--compile-arg=-O3)")
    ap.add_argument("--max-bytes", type=int, help="leave out larger models")
    ap.add_argument("--timeout", type=float, default=120)
    ap.add_argument("--jobs", "-j", type=int, default=1)
    ap.add_argument("--prepare", action="store_true")
    ap.add_argument("--speed", action="store_true")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--seconds", type=float, default=0.5, help="of each timed part")
    ap.add_argument("--threads", type=lambda t: [int(n) for n in t.split(",")], default=[1], help="numbers of threads, 1,2 for both")
    ap.add_argument("--cpu-time", action="store_true", help="compare processor time, not latency; with one thread only")
    ap.add_argument("--limit", type=float, default=1.5, help="ratio that passes")
    ap.add_argument("--recompile", action="store_true")
    ap.add_argument("--json", type=pathlib.Path)
    a = ap.parse_args()
    book = mc.book()
    unknown = [n for n in a.names if n not in book]
    if unknown:
        raise SystemExit(f"nothing is called {', '.join(unknown)}")
    entries = [book[n] for n in a.names or book]
    absent = [e["name"] for e in entries if not mc.model_path(e["name"]).exists()]
    if absent and a.names:
        raise SystemExit(f"not fetched: {', '.join(absent)}")
    entries = [e for e in entries if e["name"] not in absent and (not a.max_bytes or e["bytes"] <= a.max_bytes)]
    if absent:
        print(f"not fetched, left out: {', '.join(absent)}")
    if not entries:
        raise SystemExit("no models")
    if a.cpu_time and a.threads != [1]:
        raise SystemExit("processor time says nothing about the latency of several threads")
    if a.prepare:
        for entry in entries:
            print(entry["name"], *(f.name for f in mc.prepare(entry)))
        return
    a.planish = shutil.which(a.planish) or a.planish
    temporary = None
    if a.work is None:
        temporary = tempfile.TemporaryDirectory(prefix="planish-models-")
        a.work = pathlib.Path(temporary.name)
    a.work = a.work.resolve()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.speed:
        passed, failed = speed(a, entries)
    else:
        rows = []
        with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
            for row in pool.map(lambda e: one_model(a, e), entries):
                rows.append(row)
                show(row)
        passed = sum(r["ok"] for r in rows)
        failed = len(rows) - passed
        if a.json:
            a.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{passed} passed, {failed} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
