"""Stochastic gates."""
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
    gater, experts = 784 * 40 + 40 * 200, 784 * 200
    lab.note(
        f"The net of 40 units that decides takes {gater:,} multiply-adds for {experts:,} of the units that it decides about: with a tenth of the gates on, "
        f"{gater + experts // 10:,} are left of {gater + experts:,}, {100 * (gater + experts / 10) / (gater + experts):.0f}%; of a net without gates, {100 * (gater + experts / 10) / experts:.0f}%."
    )


EXPERIMENTS = [
    Experiment(
        "gates",
        "Stochastic gates and estimators of their gradients",
        "Bengio, Leonard and Courville, *Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation* (2013), and Jang, Gu and Poole, *Categorical Reparameterization with Gumbel-Softmax* (2017): 200 linear units with gates, a tenth of which may be on. Thresholds are chosen on 10,000 held-out images.",
        units,
        short=True,
    )
]
