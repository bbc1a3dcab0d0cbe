"""Early exits."""
from experiment import Experiment
from lab import Mnist

# The head stands behind the first pooling.
AFTER = "MaxPool"


def at(report, threshold):
    return next(p for p in report["curve"] if p["threshold"] == threshold)


def curve(report):
    """Threshold, rows that go on, errors: those of some thresholds."""
    rows = (at(report, t) for t in (0.5, 0.7, 0.8, 0.9, 0.96, 0.99, 1.0))
    return "; ".join(f"{p['threshold']}: {100 * p['density']:.0f}%, {100 * p['error']:.2f}%" for p in rows)


def exits(lab):
    digits = Mnist((1, 28, 28))
    data = ("--data", digits.train, "--batch", 100, "--rate", 0.05)
    lab.new("cnn:1x28x28-8c5-p2-32c5-p2-256-10", "net.onnx", "--pixels")
    lab.train("net.onnx", "plain.onnx", *data, "--epochs", 2)
    plain = digits.errors(lab, "plain.onnx")
    lab.row("two convolutions and a layer of 256 units: errors", "reported", f"{plain:.2f}%", None)
    inserted = ("--pass", f"insert-gates:kind=early-exit,train=true,after={AFTER}")
    drop = ("--max-accuracy-drop", "0.1pt")
    # Only the head is trained: what is before it stays as it was for the whole network alone.
    report = lab.train("plain.onnx", "alone.onnx", *data, "--epochs", 2, *inserted, *drop, "--only", "^exit")
    alone, at_nine = digits.errors(lab, "alone.onnx"), at(report, 0.9)["error"]
    lab.row(f"a head behind the first pooling, trained alone; the threshold that costs at most 0.1 points held out, {report['threshold']}: errors, rows that go on", "reported", f"{alone:.2f}%, {100 * report['result']['density']:.1f}%", None)
    lab.row("the same by threshold: rows that go on, errors held out", "reported", curve(report), None)
    report = lab.train("plain.onnx", "exits.onnx", *data, "--epochs", 2, *inserted, *drop, "--latency", 300)
    both, gates = digits.errors(lab, "exits.onnx"), report["gates"]
    lab.row(f"a head trained with the whole, threshold {report['threshold']}: errors", "at most those of the net + 0.2%", f"{both:.2f}%", both <= plain + 0.2)
    lab.row("rows that go on", "reported", f"{100 * report['result']['density']:.1f}%", None)
    lab.row("the same by threshold: rows that go on, errors held out", "reported", curve(report), None)
    ours = at(report, 0.9)["error"]
    lab.row("errors held out where the head decides above 0.9", "fewer than with the head alone", f"{100 * ours:.2f}%, {100 * at_nine:.2f}%", ours < at_nine)
    chosen, whole = at(report, report["threshold"]), at(report, 1.0)
    lab.row("operations executed, of those the head, both of all", "at most half", f"{100 * chosen['flops'] / gates['flops']:.0f}%, {100 * gates['deciding_flops'] / gates['flops']:.1f}%", chosen["flops"] <= 0.5 * gates["flops"])
    times = [p["latency_ms"] for p in (whole, chosen)]
    lab.row("time of a row, one thread: mean and 99th percentile, where all go on, and by the threshold", "reported", "; ".join(f"{t['mean'] * 1e3:.1f} us, {t['p99'] * 1e3:.1f} us" for t in times), None)


EXPERIMENTS = [
    Experiment(
        "exits",
        "Early exits",
        "Elhoushi et al., *LayerSkip* (2024), and Schuster et al., *Confident Adaptive Language Modeling* (2022), on a small convolutional net: a head half way whose loss is added to that of the whole, and a threshold of its largest probability above which the rest is not run. The targets are our own.",
        exits,
    ),
]
