#!/usr/bin/env python3
"""The demonstration: two trained models, compiled to executables, run on a photo and on a sound clip.

Fetches the models and the inputs by package name, compiles, compares every result with the interpreter and, where it
is installed, with ONNX Runtime, and prints a table. Exit code 1 when results differ.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

import model_cases as mc

CHUNK, CONTEXT, RATE = 512, 64, 16000
LIMIT = 1e-3  # largest accepted difference; outputs are probabilities


def fetch(*names):
    fetcher = mc.HERE.parent / "models" / "fetch.py"
    done = subprocess.run([sys.executable, fetcher, "--check", *names], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"demo: {done.stderr.strip()}")
    return [pathlib.Path(line) for line in done.stdout.split()]


def photo_samples(folder):
    """The photographed page of a book, turned clockwise by 0, 90, 180 and 270 degrees, as the classifier wants it."""
    from PIL import Image
    upright = Image.open(folder / "data" / "page.png").convert("RGB")
    samples = []
    for angle in (0, 90, 180, 270):
        picture = upright.rotate(-angle, expand=True)
        scale = 256 / min(picture.size)
        picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BILINEAR)
        left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
        pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 255
        pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        samples.append({"x": pixels.transpose(2, 0, 1)[None].astype(np.float32)})
    return samples


def wav_samples(path):
    """The samples of a mono 32-bit float WAV file."""
    data = path.read_bytes()
    at = data.index(b"data", 12)
    return np.frombuffer(data[at + 8 : at + 8 + struct.unpack_from("<I", data, at + 4)[0]], np.float32)


def speech_samples(folder):
    """A second of silence and a spoken sentence, in chunks of 512 after the 64 samples before each."""
    sound = np.concatenate([np.zeros(RATE, np.float32), wav_samples(folder / "en" / "counting.wav")])
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
    starts = range(0, len(sound) - CHUNK + 1, CHUNK)
    samples = [{"input": padded[s : s + CONTEXT + CHUNK][None], "sr": np.array(RATE, np.int64)} for s in starts]
    samples[0]["state"] = np.zeros((2, 1, 128), np.float32)
    return samples


def write_samples(folder, samples):
    for k, sample in enumerate(samples):
        spot = folder / f"test_data_set_{k}"
        spot.mkdir(parents=True)
        for name, value in sample.items():
            np.save(spot / f"{name}.npy", value)


def read_outputs(folder, count):
    """Output 0 of every sample, in order."""
    if count == 1 and (folder / "output_0.npy").exists():
        return [np.load(folder / "output_0.npy")]
    return [np.load(folder / f"test_data_set_{k}" / "output_0.npy") for k in range(count)]


def tool(cmd):
    done = subprocess.run([str(c) for c in cmd], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"demo: {' '.join(str(c) for c in cmd)}: exit {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def ort_outputs(path, samples, state):
    """(output 0 per sample, milliseconds a run), or None without ONNX Runtime"""
    try:
        session = mc.ort_session(path)
    except ImportError:
        return None
    names = [o.name for o in session.get_outputs()]
    carried = {"state": np.zeros((2, 1, 128), np.float32)} if state else {}
    results, feeds = [], {}
    for sample in samples:
        feeds = {**carried, **sample}
        values = session.run(None, feeds)
        results.append(values[0])
        if state:
            carried = {"state": values[names.index("stateN")]}
    times = []
    end = time.perf_counter() + 2
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
    return results, statistics.median(times) * 1e3


def worst(a, b):
    return max(float(np.max(np.abs(x.astype(np.float64) - y))) for x, y in zip(a, b, strict=True))


def page_answer(results):
    said = [(int(np.argmax(r)) * 90, float(np.max(r))) for r in results]
    right = sum(angle == turn for (angle, _), turn in zip(said, (0, 90, 180, 270)))
    return f"{right} of 4 turns of the page recognised (p >= {min(p for _, p in said):.2f})"


def speech_answer(results):
    p = np.array([r.item() for r in results])
    silence = RATE // CHUNK
    return f"speech in {int(np.sum(p > 0.5))} of {len(p)} chunks, {int(np.sum(p[:silence] > 0.5))} of them in the silence before"


def show(a, work, name, samples, answer, state):
    """One row of the table, and whether all results agree."""
    model = mc.model_path(name)
    exe, inputs = work / name, work / f"{name}.inputs"
    write_samples(inputs, samples)
    start = time.monotonic()
    tool([a.planish, "compile", model, "-o", exe])
    compile_s = time.monotonic() - start
    carry = ["--state", "stateN=state"] if state else []
    feed = ["--inputs", inputs, *carry, "--output-dir"]
    tool([exe, *feed, work / f"{name}.ours"])
    tool([a.planish, "run", model, "--engine", "interp", *feed, work / f"{name}.interp"])
    ours = read_outputs(work / f"{name}.ours", len(samples))
    interp = worst(ours, read_outputs(work / f"{name}.interp", len(samples)))
    one = work / f"{name}.one"
    one.mkdir()
    for key, value in {**samples[-1], **({"state": np.zeros((2, 1, 128), np.float32)} if state else {})}.items():
        np.save(one / f"{key}.npy", value)
    bench = json.loads(tool([exe, "--bench", "--json", "--threads", "1", "--duration", "2s", "--inputs", one]))
    ort = ort_outputs(model, samples, state)
    row = [name, f"{model.stat().st_size / 1e6:.1f} MB", f"{exe.stat().st_size / 1e6:.1f} MB", f"{compile_s:.2f} s",
           f"{bench['median_ms']:.3f} ms", f"{ort[1]:.3f} ms" if ort else "-", f"{interp:.1e}",
           f"{worst(ours, ort[0]):.1e}" if ort else "-"]
    agree = interp <= LIMIT and (ort is None or worst(ours, ort[0]) <= LIMIT)
    return row, f"{name}: {answer(ours)}", agree


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--planish", required=True)
    a = ap.parse_args()
    print("demo: fetching two models, a photo and a sound clip")
    _, _, photos, speech = fetch("pplcnet-orientation", "silero-vad", "photos", "speech")
    work = pathlib.Path(tempfile.mkdtemp(prefix="planish-demo-"))
    print("demo: compiling and running")
    shown = [show(a, work, "pplcnet-orientation", photo_samples(photos), page_answer, False),
             show(a, work, "silero-vad", speech_samples(speech), speech_answer, True)]
    head = ["model", "ONNX file", "executable", "compile", "latency", "ONNX Runtime", "diff. interp.", "diff. ORT"]
    rows = [head] + [row for row, _, _ in shown]
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) if k == 0 else cell.rjust(width) for k, (cell, width) in enumerate(zip(row, widths))))
    print("\nLatency: median of one inference on one thread. Differences: the largest of all outputs, absolute.")
    for _, answer, _ in shown:
        print(answer)
    shutil.rmtree(work)
    if not all(agree for _, _, agree in shown):
        sys.exit("demo: results differ")


if __name__ == "__main__":
    main()
