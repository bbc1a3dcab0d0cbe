"""MNIST: handwritten digits, those of the test set judged."""
import struct

import numpy as np

from sides import fetch


def idx(path):
    data = path.read_bytes()
    rank = data[3]
    dims = struct.unpack_from(f">{rank}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(dims)


class Digits:
    model, title, data = "mnist-cnn", "digits", "MNIST test set, 10,000 images"
    measure, measured = "accuracy, %", True
    shapes = {}
    ways = {f"early exit at {t}": ("--data", "labelled.npz", "--samples-axis", "--pass", f"insert-gates:kind=early-exit,threshold={t}") for t in (0.8, 0.95)}

    def __init__(self, quick=False):
        folder = fetch("mnist")[0]
        images, labels = idx(folder / "t10k-images-idx3-ubyte"), idx(folder / "t10k-labels-idx1-ubyte")
        seen, said = idx(folder / "train-images-idx3-ubyte"), idx(folder / "train-labels-idx1-ubyte")
        self.judged, self.labels = self.feeds(images), labels
        self.samples, self.sample_labels = self.feeds(seen[:2000]), said[:2000]

    @staticmethod
    def feeds(images):
        return [{"Input3": image[None, None].astype(np.float32)} for image in images]

    def seen(self):
        """Samples that ranges come from."""
        return self.samples[:300]

    def labelled(self):
        return {"Input3": np.stack([feed["Input3"] for feed in self.samples]), "label": self.sample_labels.astype(np.int64)}

    def timed(self):
        return self.judged[:32]

    def score(self, run):
        said = [int(np.argmax(run(feed)[0])) for feed in self.judged]
        return 100 * float(np.mean(np.array(said) == self.labels)), {}

    def rehearse(self, run):
        """The score on samples that are not judged."""
        said = [int(np.argmax(run(feed)[0])) for feed in self.samples]
        return 100 * float(np.mean(np.array(said) == self.sample_labels))
