"""Pruning while training, and after it."""
import json

import numpy as np
from experiment import Experiment
from lab import Mnist, fetch

# The nodes of a net of three layers, as they are exported.
LAYERS = ("^MatMul$", "^MatMul_1$", "^MatMul_2$")


def zeros(lab, model, name, block):
    """The share of the blocks of weights that are zero, and whether they are so to the bit."""
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(str(lab.work / model))
    w = next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name)
    k, n = block
    padded = np.zeros((-(-w.shape[0] // k) * k, -(-w.shape[1] // n) * n), w.dtype)
    padded[: w.shape[0], : w.shape[1]] = w
    blocks = padded.reshape(padded.shape[0] // k, k, padded.shape[1] // n, n).transpose(0, 2, 1, 3).reshape(-1, k * n)
    gone = ~blocks.any(1)
    return float(gone.mean()), not np.signbit(blocks[gone]).any()


def blocks(lab):
    digits = Mnist()
    data = (*digits.first(lab, 30000), "--batch", 100, "--epochs", 10, "--schedule", "linear")
    table = [("1x1", 0.866, 0.858, 2.65), ("4x4", 0.881, 0.868, 3.29), ("8x8", 0.921, 0.902, 3.87), ("16x16", 0.956, 0.929, 5.35)]
    table = [(*row, ()) for row in (table[1:2] if lab.short else table)]
    if not lab.short:
        table.append(("16x16", None, None, None, ("--lasso", "factor=1e-5,block=16x16")))
    dense, found = [], [[] for _ in table]
    for seed in (0,) if lab.short else (0, 1, 2):
        lab.new("mlp:784-112-64-10", "net.onnx", "--pixels", "--seed", seed)
        lab.train("net.onnx", "dense.onnx", *data, "--seed", seed)
        dense.append(digits.errors(lab, "dense.onnx"))
        for row, runs in zip(table, found):
            size, extra = row[0], row[4]
            prune = f"schedule=threshold,reference=dense.onnx,block={size},start=0.1,ramp=0.2,end=0.4,every=100,slope=1.5,exclude=fc3"
            # One of 28 blocks of the second layer would be a bottleneck of 16 units.
            prune += ",cap=0.94" if size == "16x16" else ""
            report = lab.train("net.onnx", "sparse.onnx", *data, "--seed", seed, "--prune", prune, *extra)
            block = tuple(int(d) for d in size.split("x"))
            (one, whole), (two, too) = (zeros(lab, "sparse.onnx", f"fc{i}.weight", block) for i in (1, 2))
            shares = [e["sparsity"] for e in report["epochs"]]
            runs.append((one, two, digits.errors(lab, "sparse.onnx"), whole and too and shares == sorted(shares)))
    lab.row("dense 784-112-64-10, the first 30,000 images, errors", "2.51%", ", ".join(f"{e:.2f}%" for e in dense), None)
    for (size, first, second, error, extra), runs in zip(table, found):
        one, two, ours = (float(np.median([r[i] for r in runs])) for i in range(3))
        each = ", ".join(f"{r[2]:.2f}%" for r in runs)
        if extra:
            lab.row(f"blocks {size} with group lasso 1e-5: sparsity and errors", "reported", f"{one:.3f} / {two:.3f}, {each}", None)
            continue
        near = abs(one - first) <= 0.03 and abs(two - second) <= 0.03
        lab.row(f"blocks {size}: sparsity of both layers", f"{first} / {second}, within 0.03", f"{one:.3f} / {two:.3f}", near)
        lab.row(f"blocks {size}: errors", f"at most {error} + 0.5%", each, ours <= error + 0.5)
        exact = all(r[3] for r in runs)
        lab.row(f"blocks {size}: zeros to the bit, masks that only close", "yes", "yes" if exact else "no", exact)
    if not lab.short:
        lab.note("Figures are medians of three seeds; `first-*` are the first 30,000 images of MNIST. The second layer has 28 blocks of 16x16, so that one block is 3.6 points of its sparsity, and a last block alone is a bottleneck of 16 units: `cap=0.94` keeps two.")


def recovery(lab):
    digits = Mnist((1, 28, 28))
    [model] = fetch("mnist-cnn")
    # The model takes one picture at a time, whose pixels go from 0 to 255: gradients are large.
    few = ("--data-limit", 2000 if lab.short else 10000)
    common = ("--batch", 1, "--epochs", 2 if lab.short else 4, "--rate", 3e-6, "--holdout", "10%")
    prune = ("--pass", "sparsify-blocks:block=1x16,sparsity=0.8", "--prune", "schedule=zeros")
    report = lab.train(model, "again.onnx", "--data", digits.train, *few, *common, *prune)
    before, cut, after = (100 * report[k]["error"] for k in ("given", "start", "result"))
    share = (cut - after) / max(cut - before, 1e-9)
    lab.row("mnist-cnn as it is, 80% of its blocks of 1x16 zeroed, trained on: errors held out", "at least half is won back", f"{before:.2f}%, {cut:.2f}%, {after:.2f}%: {100 * share:.0f}% won back", share >= 0.5)
    said = np.argmax(lab.scores("again.onnx", digits.x[:2000], 1), -1)
    lab.row("the same on 2,000 images of the test set", "reported", f"{100 * float(np.mean(said != digits.labels[:2000])):.2f}%", None)


class Coded:
    """A net pruned in rounds, its weights shared and their values tuned."""

    # The nodes of its layers, the data of training, and how it is trained on.
    def __init__(self, lab, digits, layers, data, more=()):
        self.lab, self.digits, self.layers, self.data, self.more = lab, digits, layers, data, more

    def prune(self, model, rounds, epochs):
        for kept in rounds:
            passes = []
            for layer, part in zip(self.layers, kept):
                passes += ["--pass", f"prune-magnitude:sparsity={round(1 - part, 2)},include={layer},first=true"]
            self.lab.train(model, "pruned.onnx", *self.data, "--epochs", epochs, *self.more, *passes, "--prune", "schedule=zeros")
            model = "pruned.onnx"
        return self.digits.errors(self.lab, model)

    def share(self, bits, rate, begin="init=linear"):
        """Sizes in bytes, and errors with values that are tuned."""
        shares = ("--pass", f"cluster-weights:bits={bits},{begin},first=true")
        told = json.loads(self.lab.planish("optimize", "pruned.onnx", "-o", "shared.onnx", *shares, "--no-check", "--format", "json"))
        sizes = next(p["metrics"] for p in told["report"]["passes"] if p["pass"].startswith("cluster-weights"))
        self.lab.train("pruned.onnx", "tuned.onnx", *self.data, "--epochs", 2, "--rate", rate, *shares, "--only", "centroids")
        return sizes, self.digits.errors(self.lab, "tuned.onnx")

    def sizes(self, sizes, shared, coded):
        """Rows of how many times smaller the weights are, at least."""
        whole = sizes["bytes-dense"]
        for what, key, least in (("before Huffman codes", "bytes-clustered", shared), ("with Huffman codes", "bytes-huffman", coded)):
            ours = whole / sizes[key]
            self.lab.row(f"size {what}", f"at least {least} times smaller", f"{ours:.1f}, {sizes[key] / 1e3:.1f} kB", ours >= least)


def compression(lab):
    digits = Mnist()
    net = Coded(lab, digits, LAYERS, (*digits.all, "--batch", 100))
    lab.new("mlp:784-300-100-10", "net.onnx", "--pixels")
    lab.train("net.onnx", "dense.onnx", *net.data, "--epochs", 10)
    dense = digits.errors(lab, "dense.onnx")
    lab.row("dense 784-300-100-10: errors", "at most 1.95%", f"{dense:.2f}%", dense <= 1.95)
    pruned = net.prune("dense.onnx", ((0.3, 0.3, 0.5), (0.15, 0.17, 0.35), (0.08, 0.09, 0.26)), 4)
    lab.row("8%, 9% and 26% of the weights kept: errors", "1.85%", f"{pruned:.2f}%", None)
    sizes, tuned = net.share(6, 0.0005)
    lab.row("6-bit weights, their values tuned: errors", "at most those of the dense net + 0.30", f"{tuned:.2f}%", tuned <= dense + 0.30)
    net.sizes(sizes, 30, 35)
    starts = {"linear": ["init=linear"], "density": ["init=density"], "random": [f"init=random,seed={s}" for s in range(5)]}
    for bits in (2, 3):
        errors = {name: [net.share(bits, 0.0005, begin)[1] for begin in each] for name, each in starts.items()}
        ours = "; ".join(name + " " + ", ".join(f"{e:.2f}%" for e in each) for name, each in errors.items())
        best = errors["linear"][0] <= min(errors["density"][0], float(np.mean(errors["random"])))
        lab.row(f"{bits}-bit weights, by where values begin: errors", "linear has the fewest", ours, best)


def convolutions(lab):
    digits = Mnist((1, 28, 28))
    net = Coded(lab, digits, ("^Conv$", "^Conv_1$", "^MatMul$", "^MatMul_1$"), (*digits.all, "--batch", 100), ("--rate", 0.02))
    lab.new("cnn:1x28x28-20c5-p2-50c5-p2-500-10", "net.onnx", "--pixels")
    lab.train("net.onnx", "dense.onnx", *net.data, "--epochs", 6, "--rate", 0.05)
    dense = digits.errors(lab, "dense.onnx")
    lab.row("two convolutions, layers of 500 and 10: errors", "at most 1.0%", f"{dense:.2f}%", dense <= 1)
    pruned = net.prune("dense.onnx", ((0.8, 0.4, 0.3, 0.5), (0.66, 0.12, 0.08, 0.19)), 4)
    lab.row("66%, 12%, 8% and 19% of the weights kept: errors", "reported", f"{pruned:.2f}%", None)
    sizes, tuned = net.share(5, 0.0005)
    lab.row("5-bit weights, their values tuned: errors", "at most those of the dense net + 0.15", f"{tuned:.2f}%", tuned <= dense + 0.15)
    net.sizes(sizes, 30, 36)


EXPERIMENTS = [
    Experiment(
        "deep-compression",
        "Pruned, shared and coded weights",
        "Han, Mao and Dally, *Deep Compression* (2016): pruning in three rounds, 64 values for each layer, tuned; sizes with codebooks, tables, headers and biases.",
        compression,
    ),
    Experiment(
        "deep-compression-cnn",
        "Convolutions pruned, shared and coded",
        "Han, Mao and Dally, *Deep Compression* (2016), its net of two convolutions; 5 bits for all weights.",
        convolutions,
        full=True,
    ),
    Experiment(
        "block-pruning",
        "Block-sparse layers by a threshold that rises",
        "Narang, Undersander and Diamos, *Block-Sparse Recurrent Neural Networks* (2017), its schedule on a small net of full layers; targets are those of a plain NumPy program with the same rules.",
        blocks,
        short=True,
    ),
    Experiment(
        "recovery",
        "Training on after pruning a model from elsewhere",
        "A convolutional net from a registry package loses blocks of its weights at once and is trained on with them kept at zero.",
        recovery,
        short=True,
    ),
]
