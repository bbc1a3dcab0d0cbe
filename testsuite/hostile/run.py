#!/usr/bin/env python3
"""Run the hostile models through `planish`; ends with `N passed, N failed`.

    run.py --planish PATH --data DIR        DIR is what generate.py wrote

`check` of a model that must be rejected ends with exit code 2 or 3, prints at least one diagnostic with an id, within
100 ms of wall time and 64 MB of memory above the idle process; of a valid one it ends with 0. `inspect`, `optimize`,
`compile` and `run` may do as they like with a hostile model but never die by a signal, panic (101), hang, or write
outside their output; valid ones they take. The endless loop, run with --max-steps, ends and says why.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

CHECK_MS, CHECK_MB = 100, 64
HANG_S = 10


class Outcome:
    """What one process did: exit code (negative: signal), wall seconds, peak memory in MB, and its output."""

    def __init__(self, cmd, cwd, limit=HANG_S):
        with tempfile.TemporaryFile() as out:
            start = time.monotonic()
            process = subprocess.Popen([str(c) for c in cmd], cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
            self.hung = False

            def stop():
                self.hung = True
                process.kill()
            timer = threading.Timer(limit, stop)
            timer.start()
            _, status, usage = os.wait4(process.pid, 0)
            timer.cancel()
            self.seconds = time.monotonic() - start
            self.code = process.returncode = os.waitstatus_to_exitcode(status)
            self.mb = usage.ru_maxrss / 1024
            out.seek(0)
            self.text = out.read().decode(errors="replace")

    def died(self):
        """Why this end is a bug whatever the model was, or None."""
        if self.hung:
            return f"no end after {HANG_S} s"
        if self.code < 0:
            return f"signal {-self.code}"
        if self.code == 101 or "panicked at" in self.text:
            return "panic: " + self.text.strip()[-300:]
        return None


def check(planish, name, model, want, idle):
    """Findings about `check --format json`. The best of three runs counts, so that a busy machine is no finding."""
    runs = [Outcome([planish, "check", "--format", "json", model], model.parent) for _ in range(3)]
    first, ms, mb = runs[0], min(r.seconds for r in runs) * 1e3, min(r.mb for r in runs) - idle.mb
    if first.died():
        return [f"check: {first.died()}"]
    findings = []
    if want == "accept" and first.code != 0:
        findings.append(f"check: exit {first.code} for a valid model: {first.text.strip()[-300:]}")
    if want == "reject":
        if first.code not in (2, 3):
            findings.append(f"check: exit {first.code} instead of 2 or 3")
        try:
            line = next(i for i, t in enumerate(first.text.splitlines()) if t.startswith("{"))
            report = json.loads("\n".join(first.text.splitlines()[line:]))
            if not any(d.get("id") for m in report["models"] for d in m["diagnostics"]):
                findings.append("check: no diagnostic with an id")
        except (ValueError, KeyError, StopIteration) as ex:
            findings.append(f"check: no report on stdout: {type(ex).__name__} {first.text.strip()[:200]}")
    if ms - idle.seconds * 1e3 > CHECK_MS:
        findings.append(f"check: {ms:.0f} ms")
    if mb > CHECK_MB:
        findings.append(f"check: {mb:.0f} MB above the idle process")
    return findings


def other_verbs(planish, model, want, out):
    findings = []
    endless = model.stem == "loop_infinite"
    verbs = {
        "inspect": ["inspect", model],
        "optimize": ["optimize", model, "-o", out / "o.onnx", "--no-check"],
        "compile": ["compile", model, "-o", out / "exe", "--no-check"],
        "run": ["run", model, "--inputs", out, "--output-dir", out / "outputs", "--engine", "interp", "--max-steps", "1000"],
    }
    for verb, args in verbs.items():
        done = Outcome([planish, *args], out)
        why = done.died()
        if "Usage:" in done.text:
            why = f"the command was not understood: {done.text.strip()[:300]}"
        elif verb == "run":
            if endless and "step-limit" not in done.text:
                why = why or f"exit {done.code} without the limit of steps"
        elif want == "accept" and done.code != 0:
            why = why or f"exit {done.code} for a valid model: {done.text.strip()[-300:]}"
        if why:
            findings.append(f"{verb}: {why}")
    exe = out / "exe"
    if exe.exists():
        done = Outcome([exe, "--inputs", out, "--output-dir", out / "outputs", "--max-steps", "1000"], out)
        why = done.died()
        if endless and done.code == 0:
            why = "the endless loop ended without an error"
        if why:
            findings.append(f"executable: {why}")
    return findings


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("names", nargs="*")
    ap.add_argument("--planish", required=True, type=pathlib.Path)
    ap.add_argument("--data", required=True, type=pathlib.Path)
    a = ap.parse_args()
    planish = a.planish.resolve()
    expect = json.loads((a.data / "expect.json").read_text())
    names = a.names or sorted(expect)
    idle = min((Outcome([planish, "--version"], a.data) for _ in range(5)), key=lambda o: o.mb)
    if idle.code != 0:
        sys.exit(f"{planish} --version: exit {idle.code}")
    print(f"idle process: {idle.mb:.0f} MB, {idle.seconds * 1e3:.0f} ms")
    passed = failed = 0
    for name in names:
        model = (a.data / "models" / f"{name}.onnx").resolve()
        findings = check(planish, name, model, expect[name], idle)
        with tempfile.TemporaryDirectory() as out:
            findings += other_verbs(planish, model, expect[name], pathlib.Path(out))
        passed += not findings
        failed += bool(findings)
        print(f"{'FAIL' if findings else 'ok  '} {name:24} {'; '.join(findings)}", flush=True)
    secret = (a.data / "secret.bin").read_bytes()
    if secret != b"SECR":
        failed += 1
        print("FAIL the file outside the folder was changed")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
