"""Recurrent nets: pruning, and skimming."""

import numpy as np
from experiment import Experiment
from lab import Mnist


# Units of the small cell.
SMALL = 5


def needle(count, seed, steps=60, width=8):
    """Sequences with three marks among noise; the class is that of the last one."""
    rng = np.random.default_rng(seed)
    x = np.zeros((count, steps, width), np.float32)
    x[:, :, 3:] = rng.normal(size=(count, steps, width - 3)).astype(np.float32) * 0.5
    labels = np.zeros(count, np.int64)
    marked = np.zeros((count, steps), bool)
    for i in range(count):
        for at in sorted(rng.choice(steps, 3, replace=False)):
            labels[i] = rng.integers(2)
            x[i, at, 0], x[i, at, 1 + labels[i]], marked[i, at] = 1, 1, True
    return x, labels, marked


def skim(lab):
    x, labels, _ = needle(4000, 1)
    test, truth, marked = needle(2000, 2)
    np.savez(lab.work / "needle.npz", input=x, label=labels)
    lab.new("lstm:60x8-32-2", "lstm.onnx")
    data = ("--data", "needle.npz", "--samples-axis", "--batch", 50, "--optimizer", "adam", "--rate", 0.005, "--schedule", "constant")
    lab.train("lstm.onnx", "plain.onnx", *data, "--epochs", 4)
    plain = lab.errors("plain.onnx", test, truth)
    lab.row("LSTM of 32 units, 60 steps with 3 marks: right", "reported", f"{100 - plain:.2f}%", None)
    report = lab.train("plain.onnx", "skims.onnx", *data, "--epochs", 10, "--pass", f"insert-gates:kind=skim,small={SMALL}", "--skim", 0.02, "--anneal", "1e-4:0.5:100", "--gates", "density=0.1,most=0.2")
    right = 100 - lab.errors("skims.onnx", test, truth)
    skims = 100 * (1 - report["result"]["density"])
    lab.row("the same that skims: right", "at least 99%", f"{right:.2f}%", right >= 99)
    lab.row("steps skimmed", "at least 80%", f"{skims:.1f}%", skims >= 80)
    read = 100 * steps_read(lab, "skims.onnx", test)[marked].mean()
    lab.row("marks that it reads", "at least 95%", f"{read:.1f}%", read >= 95)


def skim_speed(lab):
    steps, features = 60, 100
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1200, steps, features)).astype(np.float32)
    np.savez(lab.work / "rows.npz", input=x, label=(x[:, -1, 0] > 0).astype(np.int64))
    np.savez(lab.work / "few.npz", input=x[:64])
    data = ("--data", "rows.npz", "--samples-axis", "--batch", 50, "--optimizer", "adam", "--rate", 0.001)
    for cell, units in (("lstm", 128), ("lstm", 256), ("gru", 128), ("gru", 256)):
        lab.new(f"{cell}:{steps}x{features}-{units}-2", "plain.onnx")
        inserted = ("--pass", f"insert-gates:kind=skim,small={SMALL}", "--skim", 0.01, "--gates", "density=0.4,most=0.45")
        report = lab.train("plain.onnx", "skims.onnx", *data, "--epochs", 1, *inserted)
        # Weights of the layer stay as they are in the program without the small cell: time does not depend on them.
        for name in ("plain", "skims"):
            lab.planish("compile", f"{name}.onnx", "-o", name, "--set", "batch=1", "--cpu", "host", "--force")
        point = next(p for p in report["curve"] if p["threshold"] == report["threshold"])
        fewer = report["gates"]["flops"] / point["flops"]
        times = lab.times(("plain", "skims"), "--inputs", "few.npz", "--samples-axis")
        ratio = times["plain"] / times["skims"]
        figures = f"{100 - 100 * point['density']:.0f}%, {fewer:.2f}, {1e3 * times['plain']:.0f} over {1e3 * times['skims']:.0f} us: {ratio:.2f}"
        lab.row(f"{cell.upper()} of {units} units, one row of {steps} steps: steps skimmed, times fewer operations, times as fast", f"at least {0.7 * fewer:.2f} times as fast", figures, None)


def steps_read(lab, model, x):
    """Which steps a model reads, row by row. Only reading changes the units behind those of the small cell: states of all steps tell it."""
    import onnx

    proto = onnx.load(str(lab.work / model))
    loop = next(n for n in proto.graph.node if n.op_type == "Loop")
    # Behind the states that are carried on: those of every step, of shape [steps, rows, units].
    proto.graph.output.append(onnx.ValueInfoProto(name=loop.output[2]))
    onnx.save(proto, str(lab.work / "states.onnx"))
    states = lab.scores("states.onnx", x, output=loop.output[2], axis=1)
    rest = states[:, :, SMALL:]
    before = np.concatenate([np.zeros_like(rest[:1]), rest[:-1]])
    return (rest != before).any(-1).T


def gru(lab):
    digits = Mnist((28, 28))
    lab.new("gru:28x28-256-10", "gru.onnx", "--pixels")
    data = (*digits.all, "--batch", 100, "--optimizer", "adam")
    lab.train("gru.onnx", "dense.onnx", *data, "--epochs", 4, "--rate", 0.002)
    dense = digits.errors(lab, "dense.onnx")
    lab.row("GRU of 256 units, row by row: right", "at least 98.0%", f"{100 - dense:.2f}%", dense <= 2)
    prune = "schedule=cubic,block=1x16,sparsity=0.9,start=0,ramp=0,end=0.5,every=50,exclude=fc1"
    lab.train("dense.onnx", "sparse.onnx", *data, "--epochs", 7, "--rate", 0.002, "--prune", prune)
    sparse = digits.errors(lab, "sparse.onnx")
    lab.row("90% of its blocks of 1x16 zero: right", "within 1.0 point", f"{100 - sparse:.2f}%", sparse - dense <= 1.0)
    for name in ("dense", "sparse"):
        lab.planish("compile", f"{name}.onnx", "-o", name, "--set", "batch=1", "--cpu", "host", "--force")
    times = lab.times(("dense", "sparse"))
    ratio = times["dense"] / times["sparse"]
    lab.row("time of the dense program over that of the sparse one, one row", "at least 4", f"{ratio:.2f}", None)


def sizes(lab):
    digits = Mnist((28, 28))
    data = (*digits.all, "--batch", 100, "--optimizer", "adam", "--rate", 0.002)

    def dense(units, epochs):
        lab.new(f"gru:28x28-{units}-10", f"gru{units}.onnx", "--pixels")
        lab.train(f"gru{units}.onnx", f"dense{units}.onnx", *data, "--epochs", epochs)
        return digits.errors(lab, f"dense{units}.onnx")

    whole, best = dense(128, 4), 100.0
    lab.row("GRU of 128 units, row by row, 4 epochs: right", "at least 98.0%", f"{100 - whole:.2f}%", whole <= 2)
    for block, points in (("1x16", 1.0), ("4x4", 1.0), ("16x16", 2.5)):
        prune = f"schedule=cubic,block={block},sparsity=0.9,start=0,ramp=0,end=0.5,every=50,exclude=fc1"
        lab.train("dense128.onnx", "sparse.onnx", *data, "--epochs", 7, "--prune", prune)
        errors = digits.errors(lab, "sparse.onnx")
        lab.row(f"90% of its blocks of {block} zero, 7 more: right", f"within {points} points", f"{100 - errors:.2f}%", errors - whole <= points)
        best = min(best, errors)
    weights = {n: 3 * n * (28 + n) for n in (32, 64, 128)}
    small, half = dense(32, 11), dense(64, 11)
    kept = round(weights[128] / 10)
    lab.row(f"without zeros, 32 units with {weights[32]:,} weights, 11 epochs: right", f"less than the best of these, which have {kept:,}", f"{100 - small:.2f}%", small > best)
    lab.row(f"64 units with {weights[64]:,} weights, 11 epochs: right", "reported", f"{100 - half:.2f}%", None)
    if small > best > half:
        lab.note("A layer of 64 units without zeros has three times as many weights as one of 128 units with a tenth of its blocks, and is better; one with as many weights is not.")


EXPERIMENTS = [
    Experiment(
        "skim",
        "Recurrent layers that skim",
        "Seo, Min, Farhadi and Hajishirzi, *Neural Speed Reading via Skim-RNN* (2018): an LSTM learns to leave most steps to a cell of 5 units.",
        skim,
    ),
    Experiment(
        "skim-speed",
        "Time of recurrent layers that skim",
        "Seo, Min, Farhadi and Hajishirzi, *Neural Speed Reading via Skim-RNN* (2018): what is left of fewer operations as time, of one row on one thread.",
        skim_speed,
    ),
    Experiment(
        "gru",
        "A recurrent layer with blocks of zeros",
        "Narang, Undersander and Diamos, *Block-Sparse Recurrent Neural Networks* (2017): digits row by row.",
        gru,
        full=True,
    ),
    Experiment(
        "gru-sizes",
        "Small dense layers and large sparse ones",
        "Narang, Undersander and Diamos, *Block-Sparse Recurrent Neural Networks* (2017): blocks of several shapes, and smaller layers without zeros.",
        sizes,
        full=True,
    ),
]
