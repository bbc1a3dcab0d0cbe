"""Pruning while training, and after it."""
import numpy as np
from experiment import Experiment
from lab import Mnist, fetch


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
    data = (*digits.all, "--data-limit", 30000, "--batch", 100, "--epochs", 10)
    lab.new("mlp:784-112-64-10", "net.onnx", "--pixels")
    lab.train("net.onnx", "dense.onnx", *data)
    lab.row("dense 784-112-64-10, 30,000 images, errors", "2.51%", f"{digits.errors(lab, 'dense.onnx'):.2f}%", None)
    table = [("1x1", 0.866, 0.858, 2.65), ("4x4", 0.881, 0.868, 3.29), ("8x8", 0.921, 0.902, 3.87), ("16x16", 0.956, 0.929, 5.35)]
    for size, first, second, error in table[1:2] if lab.short else table:
        prune = f"schedule=threshold,reference=dense.onnx,block={size},start=0.1,ramp=0.2,end=0.4,every=100,slope=1.5,exclude=fc3"
        report = lab.train("net.onnx", "sparse.onnx", *data, "--prune", prune)
        shares = [e["sparsity"] for e in report["epochs"]]
        block = tuple(int(d) for d in size.split("x"))
        found = [zeros(lab, "sparse.onnx", f"fc{i}.weight", block) for i in (1, 2)]
        ours = digits.errors(lab, "sparse.onnx")
        said = f"{found[0][0]:.3f} / {found[1][0]:.3f}"
        near = abs(found[0][0] - first) <= 0.03 and abs(found[1][0] - second) <= 0.03
        lab.row(f"blocks {size}: sparsity of both layers", f"{first} / {second}, within 0.03", said, near)
        lab.row(f"blocks {size}: errors", f"at most {error} + 0.5%", f"{ours:.2f}%", ours <= error + 0.5)
        lab.row(f"blocks {size}: zeros to the bit; masks only close", "yes", "yes" if shares == sorted(shares) and all(z for _, z in found) else "no", shares == sorted(shares) and all(z for _, z in found))
    if not lab.short:
        prune = "schedule=threshold,reference=dense.onnx,block=16x16,start=0.1,ramp=0.2,end=0.4,every=100,slope=1.5,exclude=fc3"
        lab.train("net.onnx", "lasso.onnx", *data, "--prune", prune, "--lasso", "factor=1e-5,block=16x16")
        lab.row("blocks 16x16 with group lasso 1e-5: errors", "reported", f"{digits.errors(lab, 'lasso.onnx'):.2f}%", None)


def recovery(lab):
    digits = Mnist((1, 28, 28))
    [model] = fetch("mnist-cnn")
    few = ("--data-limit", 10000)
    # Pixels go from 0 to 255, as the model was trained.
    common = ("--batch", 50, "--epochs", 2 if lab.short else 4, "--rate", 0.0002, "--holdout", "10%")
    prune = ("--pass", "sparsify-blocks:block=1x16,sparsity=0.8", "--prune", "schedule=zeros")
    report = lab.train(model, "again.onnx", "--data", digits.train, *few, *common, *prune)
    before, cut, after = (100 * report[k]["error"] for k in ("given", "start", "result"))
    share = (cut - after) / max(cut - before, 1e-9)
    lab.row("mnist-cnn as it is, 80% of its blocks of 1x16 zeroed, trained on: errors held out", "at least half is won back", f"{before:.2f}%, {cut:.2f}%, {after:.2f}%: {100 * share:.0f}% won back", share >= 0.5)
    errors = [100 * float(np.mean(np.array([np.argmax(lab.scores("again.onnx", digits.x[i : i + 1], 1)) for i in range(2000)]) != digits.labels[:2000]))]
    lab.row("the same on 2,000 images of the test set", "reported", f"{errors[0]:.2f}%", None)


EXPERIMENTS = [
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
