"""Stochastic gates."""
import json

import numpy as np
from experiment import Experiment
from lab import Mnist

# Unit, its arguments, errors of a plain NumPy program with 200 experts, a gater of 40 and 6 epochs.
UNITS = [
    ("rectifier", ("factor=1e-5",), 3.47),
    ("straight-through", ("factor=0.01",), 4.22),
    ("gumbel-hard", ("factor=0.01",), 4.33),
    ("masked", ("factor=0.01",), 4.86),
    ("smooth", ("factor=0.001",), 5.34),
    ("noisy-rectifier", ("factor=1e-5",), 6.48),
    ("reinforce", ("factor=0.01",), 7.53),
]


def executed(lab, digits, model, sizes):
    """What the compiled program of a gated net executes and takes, one row at a time, on digits."""
    inputs, gater, experts, outputs = sizes
    np.savez(lab.work / "rows.npz", input=digits.x[:200])
    lab.planish("compile", model, "-o", "columns.pir", "--emit", "graph", "--set", "batch=1", "--pass", "insert-gates:kind=columns", "--no-check", "--force")
    told = json.loads(lab.planish("run", "columns.pir", "--inputs", "rows.npz", "--samples-axis", "--format", "json"))
    rows = sum(s["counters"].get("gate.rows", 0) for s in told["samples"]) / len(told["samples"])
    fixed = inputs * gater + gater * experts + experts * outputs
    share = (fixed + inputs * rows) / (fixed + inputs * experts)
    lab.planish("compile", model, "-o", "dense", "--set", "batch=1", "--cpu", "host", "--force")
    lab.planish("compile", model, "-o", "skips", "--set", "batch=1", "--cpu", "host", "--pass", "insert-gates:kind=columns", "--force")
    times = lab.times(("dense", "skips"), "--inputs", "rows.npz", "--samples-axis")
    return rows / experts, share, times["dense"], times["skips"]


def units(lab):
    digits = Mnist()
    common = ("--data", digits.train, "--holdout", "16.7%", "--keep", "last", "--batch", 50, "--epochs", 6, "--rate", 0.1, "--momentum", 0, "--schedule", "constant", "--max-norm", 2)
    lab.new("mlp:784-200-10", "net.onnx", "--pixels")
    for unit, (factor,), error in UNITS[1:3] if lab.short else UNITS:
        inserted = ("--pass", f"insert-gates:kind=units,unit={unit},gater=40,bias=-2.2")
        slow = ("--rate-factor", "fc1.weight.gater=0.03") if unit == "reinforce" else ()
        report = lab.train("net.onnx", "gated.onnx", *common, *inserted, *slow, "--gates", f"density=0.1,{factor},most=0.12")
        ours, density = digits.errors(lab, "gated.onnx"), report["result"]["density"]
        lab.row(f"{unit}: errors", f"at most {error} + 1.0%", f"{ours:.2f}%", ours <= error + 1.0)
        lab.row(f"{unit}: share of the gates that are on, by a threshold of {report['threshold']}", "0.10 within 0.06", f"{density:.3f}", abs(density - 0.1) <= 0.06)
    if not lab.short:
        lab.new("mlp:784-20-10", "few.onnx", "--pixels")
        report = lab.train("few.onnx", "sigmoid.onnx", *common, "--pass", "insert-gates:kind=units,unit=sigmoid,gater=40,bias=0")
        lab.row("sigmoid gates of 20 units, all on: errors", "at most 3.80 + 1.0%", f"{digits.errors(lab, 'sigmoid.onnx'):.2f}%", digits.errors(lab, "sigmoid.onnx") <= 4.8)
        report = lab.train("net.onnx", "gated.onnx", *common, "--pass", "insert-gates:kind=units,unit=straight-through,gater=40,bias=-2.2", "--gates", "density=0.1,factor=0.01,most=0.12")
        on, share, dense, skips = executed(lab, digits, "gated.onnx", (784, 40, 200, 10))
        lab.row("straight-through, compiled, one row: columns computed, multiply-adds of those with all columns, time with all columns over that without", "reported", f"{100 * on:.1f}%, {100 * share:.0f}%, {dense * 1e3:.1f} over {skips * 1e3:.1f} us: {dense / skips:.2f}", None)
    gater, experts = 784 * 40 + 40 * 200, 784 * 200
    lab.note(
        f"The net of 40 units that decides takes {gater:,} multiply-adds for {experts:,} of the units that it decides about: with a tenth of the gates on, "
        f"{gater + experts // 10:,} are left of {gater + experts:,}, {100 * (gater + experts / 10) / (gater + experts):.0f}%; of a net without gates, {100 * (gater + experts / 10) / experts:.0f}%."
    )


def full(lab):
    digits = Mnist()
    common = ("--data", digits.train, "--holdout", "16.7%", "--keep", "best", "--batch", 32, "--epochs", 40, "--rate", 0.05, "--momentum", 0.9, "--schedule", "linear", "--max-norm", 2)
    lab.new("mlp:784-2000-10", "net.onnx", "--pixels")
    report = lab.train("net.onnx", "gated.onnx", *common, "--pass", "insert-gates:kind=units,unit=straight-through,gater=400,bias=-2.2", "--gates", "density=0.1,factor=0.01,most=0.12")
    errors = digits.errors(lab, "gated.onnx")
    lab.row("2,000 units, a net of 400 that decides, straight-through: errors", "at most 1.75%", f"{errors:.2f}%", errors <= 1.75)
    on, share, dense, skips = executed(lab, digits, "gated.onnx", (784, 400, 2000, 10))
    lab.row("columns computed, held out", "at most 0.12", f"{report['result']['density']:.3f}", report["result"]["density"] <= 0.12)
    lab.row("multiply-adds executed, of those with all columns", "at most 49%", f"{100 * share:.0f}%", share <= 0.49)
    lab.row("time with all columns over that without, one row", "above 1", f"{dense * 1e3:.1f} over {skips * 1e3:.1f} us: {dense / skips:.2f}", None)
    gater, experts = 784 * 400 + 400 * 2000, 784 * 2000
    lab.note("With 60 passes, a rate of 0.1 and no momentum, as in the paper, errors were 1.90%. Momentum was chosen by errors held out of nets of 500 units with 12 passes: 2.18% with it, 2.55% without; ten times the payment for closed gates gave 2.71%, a tenth of it 2.85%.")
    lab.note(f"What decides takes {gater:,} multiply-adds for {experts:,}: beside a net of as many units without gates only {experts / (gater + experts / 10):.2f} times as few are left. It pays where what decides is much narrower.")


EXPERIMENTS = [
    Experiment(
        "gates",
        "Stochastic gates and estimators of their gradients",
        "Bengio, Leonard and Courville, *Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation* (2013), and Jang, Gu and Poole, *Categorical Reparameterization with Gumbel-Softmax* (2017): 200 linear units with gates, a tenth of which may be on. Thresholds are chosen on 10,000 held-out images.",
        units,
        short=True,
    ),
    Experiment(
        "gates-full",
        "Stochastic gates at the size of the paper",
        "Bengio, Leonard and Courville (2013): 2,000 linear units and 400 units that decide, by the straight-through estimator; 40 passes over 50,000 images, with momentum.",
        full,
        full=True,
    ),
]
