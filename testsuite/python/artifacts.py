#!/usr/bin/env python3
"""Properties of what `planish compile` makes, each with the number that decided; ends with `N passed, N failed, N skipped`.

    artifacts.py --planish PATH [--only NAME..]

  reproducible   two builds from two folders with different -j have the same bytes
  threads        outputs are bit-identical for 1, 2 and 4 threads
  first-output   wall time of a process minus its steady latency for an 85 MB model: a figure (goal 15 ms)
  describe       `--describe` of it: a figure (goal 5 ms)
  compile-time   of resnet50-thin: a figure (goal 2 s)
  aarch64        models cross-compiled for aarch64 are programs for it, and right under qemu where that is installed
  compile-memory peak memory while compiling <= 3 x model + 256 MB, for the largest model
  glibc          no symbol newer than GLIBC 2.31, in executables and shared objects
  alone          runs in a root folder that holds nothing but the executable and the C library (as root)
  c-program      two models linked into one C program, called from 4 threads each over one pool, are right
  python-modules two shared objects in one Python process, called from 4 threads each over one pool, are right
  streaming      silero-vad over 60 s of sound from C, Python and the executable equals ONNX Runtime with its state fed
                 back; what silence costs is printed
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

import embedding
import model_cases as mc
from embedding import GLIBC_LIMIT, Fault, LeftOut, newest_glibc, tool

SMALL = ["mnist-cnn", "silero-vad", "ppocr2-cls"]
BIG = "rxnmap-graph-transformer"


class Bench:
    def __init__(self, planish, work):
        self.planish, self.work, self.made = planish, work, {}

    def exe(self, name):
        """The executable of a model, compiled once."""
        if name not in self.made:
            out = self.work / name
            tool([self.planish, "compile", mc.model_path(name), "-o", out])
            self.made[name] = out
        return self.made[name]

    def inputs(self, name):
        return mc.prepare(mc.book()[name])[0]

    def reproducible(self):
        for name in SMALL:
            results = []
            for jobs in (1, 2):
                folder = self.work / f"rep{jobs}" / ("deep/er" if jobs == 2 else "")
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(mc.model_path(name), folder / "model.onnx")
                tool([self.planish, "compile", "model.onnx", "-o", "out", "-j", jobs, "--cache-dir", "none", "--force"], cwd=folder)
                results.append((folder / "out").read_bytes())
            if results[0] != results[1]:
                raise Fault(f"{name}: builds differ")
        return f"{len(SMALL)} models"

    def threads(self):
        for name in SMALL:
            outputs = []
            for threads in (1, 2, 4):
                out = self.work / f"threads{threads}" / name
                tool([self.exe(name), "--inputs", self.inputs(name), "--output-dir", out, "--threads", threads])
                outputs.append({p.name: p.read_bytes() for p in sorted(out.rglob("*.npy"))})
            if not outputs[0] or outputs[1:] != outputs[:1] * 2:
                raise Fault(f"{name}: outputs differ between thread counts")
        return f"{len(SMALL)} models, 1, 2 and 4 threads"

    def wall(self, cmd, runs=9):
        """Least wall time of a process in milliseconds."""
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            tool(cmd)
            times.append(time.perf_counter() - start)
        return min(times) * 1e3

    def limited(self, value, limit, unit, what=""):
        text = f"{what}{value:.1f} {unit} (at most {limit:g})"
        if value > limit:
            raise Fault(text)
        return text

    def figure(self, value, goal, unit, what=""):
        """Times are printed, never judged: the machine may be busy."""
        return f"{what}{value:.1f} {unit} (goal {goal:g} {unit}{', missed' if value > goal else ''})"

    def first_output(self):
        exe, inputs = self.exe(BIG), self.inputs(BIG)
        wall = self.wall([exe, "--inputs", inputs, "--output-dir", self.work / "first", "--threads", "1"])
        steady = json.loads(tool([exe, "--bench", "--json", "--threads", "1", "--duration", "2s", "--inputs", inputs]))["median_ms"]
        return self.figure(wall - steady, 15, "ms", f"{wall:.1f} ms - {steady:.1f} ms = ")

    def describe(self):
        return self.figure(self.wall([self.exe(BIG), "--describe", "--json"]), 5, "ms")

    def compile_time(self):
        cmd = [self.planish, "compile", mc.model_path("resnet50-thin"), "-o", self.work / "timed", "--cache-dir", "none", "--force", "--no-check"]
        return self.figure(self.wall(cmd, 3) / 1e3, 2, "s")

    def aarch64(self):
        qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
        for name in SMALL:
            exe = self.work / f"{name}-aarch64"
            cmd = [self.planish, "compile", mc.model_path(name), "-o", exe, "--target", "aarch64-unknown-linux-gnu"]
            made = subprocess.run([str(c) for c in cmd], capture_output=True, text=True)
            if made.returncode == 6 and "launcher" in made.stderr:
                if exe.exists():
                    raise Fault("exit 6, but a file was written")
                raise LeftOut("refused with exit 6: this planish has no launcher for aarch64")
            if made.returncode != 0:
                raise Fault(f"{name}: exit {made.returncode}: {made.stderr[-300:]}")
            machine = int.from_bytes(exe.read_bytes()[18:20], "little")
            if machine != 183:
                raise Fault(f"{name}: a program for machine {machine}")
            if qemu:
                inputs = self.inputs(name)
                tool([qemu, exe, "--inputs", inputs, "--expect", inputs / "ref", "--rtol", "1e-3", "--atol", "1e-4"])
        if not qemu:
            raise LeftOut(f"{len(SMALL)} programs made but not run: there is no qemu-aarch64")
        return f"{len(SMALL)} models"

    def compile_memory(self):
        model = mc.model_path(BIG)
        cmd = [self.planish, "compile", model, "-o", self.work / "measured", "--cache-dir", "none", "--force", "--no-check"]
        # `time -v` of the system may be absent; a small process of its own keeps this one's memory out of the figure.
        code = "import os,sys,subprocess;p=subprocess.Popen(sys.argv[1:],stdout=2);_,s,u=os.wait4(p.pid,0);print(os.waitstatus_to_exitcode(s),u.ru_maxrss)"
        words = tool([sys.executable, "-S", "-c", code, *map(str, cmd)]).split()
        if words[0] != "0":
            raise Fault(f"compile: exit {words[0]}")
        return self.limited(int(words[1]) / 1024, 3 * model.stat().st_size / (1 << 20) + 256, "MB")

    def glibc(self):
        library = self.work / "glibc.so"
        tool([self.planish, "compile", mc.model_path(SMALL[0]), "-o", library, "--emit", "shared"])
        newest = max(newest_glibc(self.exe(SMALL[0])), newest_glibc(library))
        if newest > GLIBC_LIMIT:
            raise Fault(f"needs GLIBC {'.'.join(map(str, newest))}")
        return f"newest symbol: {'.'.join(map(str, newest)) if any(newest) else 'none'}"

    def alone(self):
        if os.geteuid() != 0:
            raise LeftOut("needs root")
        name = SMALL[0]
        root = self.work / "root"
        (root / "in").mkdir(parents=True)
        shutil.copy(self.exe(name), root / "model")
        for file in self.inputs(name).glob("input_*.npy"):
            shutil.copy(file, root / "in")
        listed = subprocess.run(["ldd", self.exe(name)], capture_output=True, text=True).stdout
        libraries = re.findall(r"(/\S+/(?:libc|libm|libpthread|libdl|librt|ld-linux-x86-64)\.so\.\d+)", listed)
        others = [n for n in re.findall(r"^\s*(\S+) =>", listed, re.M) if not re.match(r"(libc|libm|libpthread|libdl|librt)\.so", n)]
        if others:
            raise Fault(f"needs {', '.join(others)}")
        for library in libraries:
            spot = root / library.lstrip("/")
            spot.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(library), spot)
        tool(["chroot", root, "/model", "--inputs", "/in", "--output-dir", "/out"])
        ours = np.load(root / "out" / "output_0.npy")
        ref = np.load(self.inputs(name) / "ref" / "output_0.npy")
        if not np.allclose(ours, ref, rtol=1e-3, atol=1e-4 * max(1, np.abs(ref).max())):
            raise Fault("wrong result")
        return f"with {len(libraries)} files of the C library"


CHECKS = {
    "reproducible": Bench.reproducible, "threads": Bench.threads, "first-output": Bench.first_output,
    "describe": Bench.describe, "compile-time": Bench.compile_time, "aarch64": Bench.aarch64, "compile-memory": Bench.compile_memory,
    "glibc": Bench.glibc, "alone": Bench.alone,
    "c-program": embedding.c_program, "python-modules": embedding.python_modules, "streaming": embedding.streaming,
}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--planish", required=True, type=pathlib.Path)
    ap.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    a = ap.parse_args()
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    with tempfile.TemporaryDirectory(prefix="planish-artifacts-") as work:
        bench = Bench(a.planish.resolve(), pathlib.Path(work))
        for name in a.only:
            try:
                text, verdict = CHECKS[name](bench), "ok"
            except LeftOut as ex:
                text, verdict = str(ex), "skip"
            except (Fault, OSError, KeyError, ValueError) as ex:
                text, verdict = f"{type(ex).__name__}: {ex}" if not isinstance(ex, Fault) else str(ex), "FAIL"
            counts[verdict] += 1
            print(f"{verdict:4} {name:15} {text}", flush=True)
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    sys.exit(counts["FAIL"] > 0)


if __name__ == "__main__":
    main()
