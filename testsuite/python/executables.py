#!/usr/bin/env python3
"""Conformance tests through real executables: each model is compiled by `planish compile` and the program run with
`--inputs DIR --pb`; its outputs are judged as those of the worker. Ends with `N passed, M failed, K skipped`.

    executables.py --planish PATH --data DATA            one test per operator: the first that the compiler takes
    executables.py --planish PATH --data DATA --all      all tests
    executables.py --planish PATH --data DATA NAME..     these (`node/test_abs`)

Skipped is what the compiler refuses with exit code 3 before it writes anything; the reason is printed. Each pass
missing below `executables` of ratchet.json counts as failed.
"""
import argparse
import collections
import concurrent.futures
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))
import conformance  # noqa: E402


def by_operator(tests, info):
    """The tests of each operator that name it and are no expansion of it into others, by name."""
    found = collections.defaultdict(list)
    for key in sorted(tests):
        about = info.get(key, {})
        if about.get("op") and not about.get("expanded"):
            found[about["op"]].append(key)
    return [found[op] for op in sorted(found)]


def tail(done):
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("warning")]
    return (lines or ["no message"])[-1][:300]


def one(planish, folder, about, timeout):
    """(status, why) of one test."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="planish-executable-"))
    try:
        program = work / "program"
        made = subprocess.run([planish, "compile", f"{folder}/model.onnx", "-o", program, "--cpu", "host", "--no-check", "-j", "1"],
                              capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        if made.returncode == 3 and not program.exists():
            return "skipped", tail(made)
        if made.returncode:
            return "failed", f"compile ends with {made.returncode}: {tail(made)}"
        sets = sorted(pathlib.Path(folder).glob("test_data_set_*"))
        if not sets:
            return "failed", "no data"
        for data in sets:
            out = work / data.name
            ran = subprocess.run([program, "--inputs", data, "--output-dir", out, "--pb", "--threads", "1"],
                                 capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
            if ran.returncode:
                return "failed", f"{data.name} ends with {ran.returncode}: {tail(ran)}"
            wrong, _ = conformance.judge(str(folder), str(data), str(out), about, conformance.RTOL, conformance.ATOL)
            if wrong:
                return "failed", f"{data.name}: {wrong}"
        return "passed", None
    except subprocess.TimeoutExpired as ex:
        return "failed", f"{pathlib.Path(ex.cmd[0]).name}: no answer in {ex.timeout} s"
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--planish", required=True, type=pathlib.Path)
    ap.add_argument("--data", required=True, type=pathlib.Path)
    ap.add_argument("--all", action="store_true")
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--timeout", type=float, default=120)
    ap.add_argument("names", nargs="*")
    a = ap.parse_args()
    planish = a.planish.resolve()
    folders = {f"{category}/{name}": folder for category, name, folder in conformance.discover(str(a.data))}
    info = conformance.analyze_all(str(a.data))
    groups = [[n] for n in a.names or (sorted(folders) if a.all else [])] or by_operator(folders, info)
    unknown = [n for n in a.names if n not in folders]
    if unknown or not groups:
        sys.exit(f"executables: no such tests: {' '.join(unknown) or a.data}")

    def first_taken(group):
        first = None
        for key in group:
            status, why = one(planish, folders[key], info.get(key, {}), a.timeout)
            first = first or (key, status, why)
            if status != "skipped":
                return key, status, why
        return first

    counts = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        for key, status, why in pool.map(first_taken, groups):
            counts[status] += 1
            if why:
                print(f"{status:8} {key}: {re.sub(chr(10), ' ', why)}", flush=True)
    if not a.names:
        floors = json.loads((HERE.parent / "conformance" / "ratchet.json").read_text())["executables"]
        floor = floors["all" if a.all else "operators"]
        if counts["passed"] + counts["failed"] < floor:
            print(f"{counts['passed']} pass, at least {floor} did before")
            counts["failed"] = floor - counts["passed"]
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    sys.exit(counts["failed"] > 0)


if __name__ == "__main__":
    main()
