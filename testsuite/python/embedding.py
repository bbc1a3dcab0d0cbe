"""Compiled models inside other programs: linked into C, loaded by Python, fed with a stream."""
import json
import re
import shutil
import statistics
import subprocess
import sys

import numpy as np

import demo
import model_cases as mc

SOURCES = mc.HERE.parent / "c"
TWO = {"one": "ppocr2-cls", "two": "silero-vad"}
GLIBC_LIMIT = (2, 31)
CHUNK, CONTEXT, RATE = demo.CHUNK, demo.CONTEXT, demo.RATE
SECONDS = 60
STATE = (2, 1, 128)


class Fault(Exception):
    """A property that does not hold."""


class LeftOut(Exception):
    """A property that cannot be shown on this machine."""


def tool(cmd, **kw):
    done = subprocess.run([str(c) for c in cmd], capture_output=True, text=True, stdin=subprocess.DEVNULL, **kw)
    if done.returncode:
        raise Fault(f"{' '.join(map(str, cmd[:4]))}: exit {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def share_of_tolerance(ours, ref):
    """The largest difference as a part of 1e-3 |ref| + 1e-4 max(1, max |ref|); above 1 is wrong."""
    if ours.shape != ref.shape or not np.isfinite(ours).all() or not np.isfinite(ref).all():
        raise Fault(f"shape {ours.shape} instead of {ref.shape}, or values that are not finite")
    ref = ref.astype(np.float64)
    allowed = 1e-3 * np.abs(ref) + 1e-4 * max(1.0, np.abs(ref).max(initial=0))
    return float((np.abs(ours - ref) / allowed).max(initial=0))


def newest_glibc(file):
    """The newest version of the C library that a program or shared object names, (0,) for none."""
    text = tool(["readelf", "--version-info", "--wide", file])
    return max([tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_(\d+(?:\.\d+)+)", text)], default=(0,))


def link(folder, source, archives):
    program = folder / source.stem
    tool(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-I", folder, source, *archives, "-lpthread", "-o", program])
    return program


def references(name):
    folder = mc.prepare(mc.book()[name])[0]
    files = sorted((folder / "ref").glob("output_*.npy"), key=lambda p: int(p.stem.split("_")[1]))
    return folder, [np.load(f) for f in files]


def c_program(bench):
    """Two models in one C program, four threads each, one pool."""
    folder = bench.work / "linked"
    folder.mkdir()
    for alias, name in TWO.items():
        tool([bench.planish, "compile", mc.model_path(name), "-o", folder / alias, "--name", alias, "--emit", "static,header"])
        spot = folder / alias
        spot.mkdir()
        for i, value in enumerate(mc.load_inputs(references(name)[0])):
            code = {"float32": 1, "int64": 7}[value.dtype.name]
            (spot / f"input_{i}.txt").write_text(" ".join(map(str, (code, value.ndim, *value.shape))))
            (spot / f"input_{i}.raw").write_bytes(value.tobytes())
    program = link(folder, SOURCES / "two_models.c", [folder / f"{a}.a" for a in TWO])
    tool([program], cwd=folder)
    worst = 0.0
    for alias, name in TWO.items():
        for o, ref in enumerate(references(name)[1]):
            for t in range(4):
                ours = np.fromfile(folder / alias / f"thread_{t}_output_{o}.raw", ref.dtype)
                worst = max(worst, share_of_tolerance(ours.reshape(ref.shape), ref))
    if worst > 1:
        raise Fault(f"a result is off by {worst:.1f} times the tolerance")
    return f"{' and '.join(TWO.values())}, 4 threads each: {worst:.1%} of the tolerance"


PYTHON_THREADS = """
import json, sys, threading
import numpy as np
sys.path.insert(0, ".")
import one, two
jobs = json.load(open("jobs.json"))
pool = one.Pool(2)
start = threading.Barrier(8)
failed = []
def use(module, alias, number):
    try:
        feeds = {name: np.load(file) for name, file in jobs[alias].items()}
        model = module.Model(pool=pool)
        start.wait()
        first = model.run(None, feeds)
        for _ in range(20):
            if any(a.tobytes() != b.tobytes() for a, b in zip(first, model.run(None, feeds))):
                raise ValueError("runs differ")
        for o, value in enumerate(first):
            np.save(f"{alias}_{number}_{o}.npy", value)
    except BaseException as e:
        failed.append(f"{alias}: {e!r}")
        start.abort()
threads = [threading.Thread(target=use, args=(m, m.__name__, k)) for m in (one, two) for k in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
sys.exit("; ".join(failed) if failed else 0)
"""


def python_modules(bench):
    """Two shared objects in one Python process, four threads each, one pool."""
    folder = bench.work / "modules"
    folder.mkdir()
    jobs = {}
    for alias, name in TWO.items():
        tool([bench.planish, "compile", mc.model_path(name), "-o", folder / f"{alias}.py", "--name", alias, "--emit", "python"])
        newest = newest_glibc(folder / f"lib{alias}.so")
        if newest > GLIBC_LIMIT:
            raise Fault(f"lib{alias}.so needs GLIBC {'.'.join(map(str, newest))}")
        names = [i["name"] for i in mc.book()[name]["inputs"]]
        jobs[alias] = {n: str(references(name)[0] / f"input_{i}.npy") for i, n in enumerate(names)}
    (folder / "jobs.json").write_text(json.dumps(jobs))
    tool([sys.executable, "-B", "-c", PYTHON_THREADS], cwd=folder)
    worst = 0.0
    for alias, name in TWO.items():
        for o, ref in enumerate(references(name)[1]):
            for t in range(4):
                worst = max(worst, share_of_tolerance(np.load(folder / f"{alias}_{t}_{o}.npy"), ref))
    if worst > 1:
        raise Fault(f"a result is off by {worst:.1f} times the tolerance")
    return f"{' and '.join(TWO.values())}, 4 threads each: {worst:.1%} of the tolerance"


def stream_chunks():
    """(chunks [N, 576], which of them are silent): a minute of spoken sentences between seconds of silence, each
    chunk after the 64 samples before it. The last five seconds are silent."""
    speech = demo.wav_samples(demo.fetch("speech")[0] / "en" / "counting.wav")
    parts, length = [], 0
    while length < (SECONDS - 5) * RATE:
        piece = speech[len(parts) % 3 * RATE :][: 3 * RATE]
        parts += [piece, np.zeros(2 * RATE, np.float32)]
        length += len(piece) + 2 * RATE
    sound = np.concatenate([*parts, np.zeros(SECONDS * RATE, np.float32)])[: SECONDS * RATE]
    sound[(SECONDS - 5) * RATE :] = 0
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
    count = len(sound) // CHUNK
    chunks = np.stack([padded[k * CHUNK : k * CHUNK + CONTEXT + CHUNK] for k in range(count)])
    return chunks, ~chunks.any(axis=1)


PYTHON_STREAM = """
import sys, time
import numpy as np
sys.path.insert(0, ".")
import vad
model, rate, out, times = vad.Model(states=[("stateN", "state")]), np.array(16000, np.int64), [], []
for chunk in np.load("chunks.npy"):
    feeds = {"input": chunk[None], "sr": rate}
    start = time.perf_counter_ns()
    p, state = model.run(["output", "stateN"], feeds)
    times.append(time.perf_counter_ns() - start)
    out.append(np.concatenate([p.ravel(), state.ravel()]))
np.save("python.npy", np.stack(out))
np.save("python_times.npy", np.array(times))
"""


def streaming(bench):
    """silero-vad over a minute, from C, Python and the executable, against ONNX Runtime with the state fed back."""
    folder = bench.work / "stream"
    folder.mkdir()
    model = mc.model_path("silero-vad")
    tool([bench.planish, "compile", model, "-o", folder / "vad", "--name", "vad", "--emit", "exe,static,header,python"])
    chunks, silent = stream_chunks()
    chunks.tofile(folder / "chunks.raw")
    np.save(folder / "chunks.npy", chunks)
    np.savez(folder / "chunks.npz", input=chunks, sr=np.full(len(chunks), RATE, np.int64))
    session, state, ref = mc.ort_session(model), np.zeros(STATE, np.float32), []
    for chunk in chunks:
        p, state = session.run(["output", "stateN"], {"input": chunk[None], "sr": np.array(RATE, np.int64), "state": state})
        ref.append(np.concatenate([p.ravel(), state.ravel()]))
    ref = np.stack(ref)
    found = {}
    tool([link(folder, SOURCES / "stream.c", [folder / "vad.a"]), "chunks.raw", CONTEXT + CHUNK, "c.raw", "c_times.raw"], cwd=folder)
    found["C"] = np.fromfile(folder / "c.raw", np.float32).reshape(len(chunks), -1)
    tool([sys.executable, "-B", "-c", PYTHON_STREAM], cwd=folder)
    found["Python"] = np.load(folder / "python.npy")
    runs = {"executable": [folder / "vad"], "planish run": [bench.planish, "run", model]}
    for who, command in runs.items():
        out = folder / who.replace(" ", "_")
        tool([*command, "--inputs", folder / "chunks.npz", "--samples-axis", "--state", "stateN=state", "--output-dir", out])
        sets = [out / f"test_data_set_{k}" for k in range(len(chunks))]
        found[who] = np.stack([np.concatenate([np.load(s / f"output_{o}.npy").ravel() for o in (0, 1)]) for s in sets])
        shutil.rmtree(out)
    shares = {}
    for who, ours in found.items():
        # The probability and the state are two outputs, each with a tolerance of its own in every chunk.
        shares[who] = max(share_of_tolerance(o[part], r[part]) for o, r in zip(ours, ref, strict=True)
                          for part in (slice(0, 1), slice(1, None)))
    times = np.fromfile(folder / "c_times.raw", np.int64)
    quiet, loud = statistics.median(times[silent]), statistics.median(times[~silent])
    text = ", ".join(f"{who} {share:.1%}" for who, share in shares.items())
    text = f"{len(chunks)} chunks ({int(silent.sum())} silent), of the tolerance: {text}; " \
           f"a silent chunk {quiet / 1e3:.1f} us, another {loud / 1e3:.1f} us: ratio {quiet / loud:.3f}"
    if max(shares.values()) > 1:
        raise Fault(text)
    spoken = int((ref[:, 0] > 0.5).sum())
    if not len(chunks) // 10 < spoken < len(chunks):
        raise Fault(f"{spoken} chunks are heard as speech: this is no test")
    return text
