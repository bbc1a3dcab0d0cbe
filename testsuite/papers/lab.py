"""What experiments are made with: commands, data, and errors by ONNX Runtime."""
import json
import pathlib
import shlex
import statistics
import subprocess
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE.parent / "methods"), str(HERE.parent / "python")]

from demo import fetch  # noqa: E402
from digits import idx  # noqa: E402


class Lab:
    def __init__(self, planish, work, short):
        self.bin, self.work, self.short = planish, work, short
        self.rows, self.notes, self.commands = [], [], []

    def row(self, what, target, ours, ok):
        """A figure; `ok` is none where nothing is judged."""
        self.rows.append({"what": what, "target": target, "ours": ours, "ok": None if ok is None else bool(ok)})

    def note(self, text):
        self.notes.append(text)

    def planish(self, *args, shown=True):
        """Runs a command in the folder of the experiment; what it prints."""
        args = [str(a) for a in args]
        if shown:
            self.commands.append(shlex.join(["planish", *args]).replace(str(fetch("mnist")[0]), "$MNIST"))
        done = subprocess.run([self.bin, *args], cwd=self.work, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(args)}: exit {done.returncode}: {done.stderr[-600:]}")
        return done.stdout

    def train(self, model, out, *args, verb="train", models=()):
        """Trains without progress; the report."""
        return json.loads(self.planish(verb, *models, model, "-o", out, *args, "--quiet", "--format", "json", "--force"))

    def new(self, arch, out, *args):
        self.planish("new", "--arch", arch, "-o", out, *args, "--force")
        return out

    def bench(self, program, *args, duration="1s"):
        """The median of the runs of a compiled program on one thread, in milliseconds."""
        command = [self.work / program, *args, "--bench", "--json", "--duration", duration, "--threads", "1"]
        done = subprocess.run(command, cwd=self.work, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["median_ms"]

    def times(self, programs, *args, duration="1s"):
        """The same of several programs that take turns: the median of five rounds of each."""
        rounds = [[self.bench(p, *args, duration=duration) for p in programs] for _ in range(5)]
        return dict(zip(programs, map(statistics.median, zip(*rounds))))

    def session(self, model):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 2, 3
        return ort.InferenceSession(str(self.work / model), options, providers=["CPUExecutionProvider"])

    def scores(self, model, x, batch=500, output=None, axis=0):
        """An output, the first one unless it is named, for all rows, which are its `axis`."""
        session = self.session(model)
        name = session.get_inputs()[0].name
        asked = [output] if output else None
        return np.concatenate([session.run(asked, {name: x[i : i + batch]})[0] for i in range(0, len(x), batch)], axis)

    def errors(self, model, x, labels):
        """Share of the rows, in percent, whose class is wrong."""
        return 100 * float(np.mean(np.argmax(self.scores(model, x), -1) != labels))


class Mnist:
    """Digits: files for training, and the test set as arrays."""

    def __init__(self, shape=(784,)):
        folder = fetch("mnist")[0]
        self.train = folder / "train-images-idx3-ubyte"
        images = idx(folder / "t10k-images-idx3-ubyte").astype(np.float32)
        self.x = images.reshape(len(images), *shape)
        self.labels = idx(folder / "t10k-labels-idx1-ubyte").astype(np.int64)
        # Training sees these only where nothing is chosen by what is held out.
        self.all = ("--data", self.train, "--eval-data", "none", "--keep", "last")

    def first(self, lab, count):
        """The first images alone, as files of their own; the data of the command."""
        for part, head in (("images-idx3", 16), ("labels-idx1", 8)):
            whole = self.train.with_name(f"train-{part}-ubyte").read_bytes()
            each = (len(whole) - head) // int.from_bytes(whole[4:8], "big")
            few = whole[:4] + count.to_bytes(4, "big") + whole[8 : head + count * each]
            (lab.work / f"first-{part}-ubyte").write_bytes(few)
        return ("--data", "first-images-idx3-ubyte", "--eval-data", "none", "--keep", "last")

    def errors(self, lab, model):
        return lab.errors(model, self.x, self.labels)
