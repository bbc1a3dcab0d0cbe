"""The trained models: every way to make them faster without training, what it costs on data, and what it buys."""
import sys

import numpy as np

from boxes import Boxes
from digits import Digits
from pages import Pages
from search import left_out
from sentences import Sentences, cosines, feeds, spearman
from sides import Failed, Ours, Theirs, alternate, fetch, ort_quantised, passes, session, speedup, write_samples
from speech import Speech

BASE, BASE8 = "onnxruntime f32", "onnxruntime i8"
ALLOWED = 1.0  # points that the best way may lose
SEARCH = 120  # seconds for the search of layers to leave out

STATIC = "quantize:first=true"
DATA = ("--data", "samples")
# name: what follows `planish compile MODEL -o OUT`; "samples" is a folder of samples, "labelled.npz" more of them with labels.
WAYS = {
    "f32": (),
    "i8 dynamic": ("--pass", "quantize:mode=dynamic,first=true"),
    "i8 static": (*DATA, "--pass", STATIC),
    "i8 static, 99.99%": (*DATA, "--pass", f"{STATIC},range=percentile"),
    "i8 static, weights of 7 bits": (*DATA, "--pass", f"{STATIC},bits=7"),
    "i8 static, first layer in f32": (*DATA, "--pass", "quantize"),
    "1x16 blocks, half": ("--pass", "sparsify-blocks:block=1x16,sparsity=0.5,first=true"),
    "1x16 blocks, a tenth": ("--pass", "sparsify-blocks:block=1x16,sparsity=0.1,first=true"),
    "activation gates, half": (*DATA, "--pass", "insert-gates:kind=activation,quantile=0.5"),
}
# Of which the tests hold the accuracy: points that may be lost.
HELD = {
    "minilm-l3": {"f32": 0.1, "i8 dynamic": 3.0, "i8 static": 3.0},
    "mnist-cnn": {"f32": 0.01, "i8 static": 0.3},
}


def log(text):
    print(text, file=sys.stderr, flush=True)


def fixed(model, shapes, out):
    """The file for ONNX Runtime, with its shapes fixed where ours are."""
    if not shapes:
        return model
    import onnx
    loaded = onnx.load(str(model))
    for entry in loaded.graph.input:
        if entry.name in shapes:
            entry.type.tensor_type.shape.Clear()
            for size in shapes[entry.name]:
                entry.type.tensor_type.shape.dim.add().dim_value = size
    for output in loaded.graph.output:
        output.type.tensor_type.ClearField("shape")
    del loaded.graph.value_info[:]
    onnx.save(loaded, str(out))
    return out


class Real:
    def __init__(self, o, task, work):
        self.o, self.task, self.work = o, task, work
        self.source = fetch(task.model)[0]
        self.file = fixed(self.source, task.shapes, work / "fixed.onnx")
        self.shapes = [part for name, dims in task.shapes.items() for part in ("--shape", f"{name}:{'x'.join(map(str, dims))}")]
        self.outputs = [o.name for o in session(self.file).get_outputs()]
        self.sides, self.rows, self.compiled = {}, {}, 0

    def compile(self, arguments):
        self.compiled += 1
        real = [self.work / a if a in ("samples", "labelled.npz") else a for a in arguments]
        return Ours(self.o.planish, self.source, self.work / "planish" / f"w{self.compiled}", [*self.shapes, *real])

    def add(self, name, make, **more):
        """A row: its side is made and its score taken, or the reason is kept why there is none."""
        row = self.rows[name] = {"name": name, "ours": not name.startswith("onnxruntime"), **more}
        try:
            side = make()
            row["score"], row["more"] = self.task.score(side.run)
        except Failed as error:
            row["why"] = str(error)
        except Exception as error:  # whatever a runtime raises
            row["why"] = f"{type(error).__name__}: {error}"[:300]
        else:
            row["bytes"] = side.bytes
            if isinstance(side, Ours):
                row["layers"], row["compile_s"] = len(side.layers()), round(side.seconds, 2)
                if not row["layers"] and len(more.get("arguments", ())):
                    row["why"], row["unchanged"] = f"no layer is changed: {side.declined()}", True
                    return None
            self.sides[name] = side
            return side
        finally:
            log(f"{self.task.model}: {name}: {row.get('why') or round(row['score'], 3)}")
        return None

    def theirs(self):
        self.add(BASE, lambda: Theirs(self.file, self.outputs))
        if hasattr(self.task, "prepare"):
            self.task.prepare(self.sides[BASE].run)
        write_samples(self.work / "samples", self.task.seen())
        if hasattr(self.task, "labelled"):
            np.savez(self.work / "labelled.npz", **self.task.labelled())
        if self.o.judge:
            return
        for kind in ("dynamic", "minmax", "percentile"):
            if kind == "percentile" and (self.lost(f"{BASE8} static") or 0) <= ALLOWED:
                break  # it would not help
            path = self.work / f"ort-{kind}.onnx"

            def make(kind=kind, path=path):
                ort_quantised(kind, self.file, path, self.task.seen())
                return Theirs(path, self.outputs)

            self.add(f"{BASE8} {'dynamic' if kind == 'dynamic' else 'static' if kind == 'minmax' else 'static, 99.99%'}", make)

    def ours(self):
        held, known = HELD.get(self.task.model, {}), passes(self.o.planish)
        for name, arguments in (WAYS | getattr(self.task, "ways", {})).items():
            there = all(a.split(":")[0] in known for k, a in enumerate(arguments) if k and arguments[k - 1] == "--pass")
            if there and (not self.o.judge or name in held):
                self.add(name, lambda arguments=arguments: self.compile(arguments), arguments=arguments)

    def lost(self, name):
        row = self.rows.get(name, {})
        return self.rows[BASE]["score"] - row["score"] if "score" in row and "why" not in row else None

    def search(self):
        """The best static way but for some layers, if it loses too much as a whole."""
        static = [n for n in self.sides if n.startswith("i8 static")]
        lost = {n: self.lost(n) for n in static}
        if not lost or min(lost.values()) <= ALLOWED:
            return
        best = min(lost, key=lost.get)
        arguments = list(WAYS[best])

        def build(options):
            return self.compile([*arguments[:-1], arguments[-1] + ("" if ":" in arguments[-1] else ":") + options.lstrip("," if ":" not in arguments[-1] else "")])

        try:
            samples = self.task.seen()
            names, tried = left_out(build, self.sides[best].layers(), self.task, self.sides[BASE].run, samples[:: max(1, len(samples) // 6)][:6], SEARCH)
        except Failed as error:
            self.rows["i8 static, some layers in f32"] = {"name": "i8 static, some layers in f32", "ours": True, "why": str(error)}
            return
        from search import exact
        options = f",exclude={exact(names)}"
        self.add("i8 static, some layers in f32", lambda: build(options), arguments=[*arguments[:-1], arguments[-1] + options], excluded=names)

    def time(self):
        feeds = self.task.timed()
        for side in self.sides.values():
            side.arm(feeds)
        times = alternate(self.sides, self.o.rounds, self.o.seconds, self.o.clock)
        theirs = [n for n in self.sides if n.startswith(BASE8)]
        kept = [n for n in theirs if self.lost(n) <= ALLOWED]
        fastest = min(kept or theirs, key=lambda n: float(np.median(times[n])), default=None)
        for name in self.sides:
            row = self.rows[name]
            row["ms"] = float(np.median(times[name]))
            row["over_ort"] = speedup(times, name, BASE)
            row["over_own"] = speedup(times, name, "f32") if "f32" in self.sides else None
            row["over_ort8"] = speedup(times, name, fastest) if fastest else None
        return fastest

    def faster(self, name):
        own = self.rows[name]["over_own"]
        return own is None or own[1] is None or own[1] > 1

    def best(self):
        """The fastest of ours that loses no more than allowed; one that loses anything must be faster than f32 by its whole interval."""
        fit = [n for n in self.sides if self.rows[n]["ours"] and self.lost(n) <= ALLOWED and (n == "f32" or self.faster(n))]
        return min(fit, key=lambda n: self.rows[n]["ms"], default=None)

    def record(self):
        task, fastest = self.task, self.time()
        return {"kind": "real", "title": task.title, "data": task.data, "measure": task.measure, "measured": task.measured, "allowed": ALLOWED,
                "seen": len(task.seen()), "shapes": self.shapes, "best": self.best(), "ort8": fastest, "rows": list(self.rows.values())}

    def judged(self):
        out = []
        for name, points in HELD.get(self.task.model, {"f32": 0.1}).items():
            row = self.rows[name]
            if row.get("unchanged"):
                log(f"{self.task.model}: {name}: not judged, {row['why']}")
                continue
            out.append((f"{name}: {self.task.measure}", row.get("score", 0.0) if "why" not in row else 0.0, self.rows[BASE]["score"] - points))
        return out


def real(task):
    def run(o, name, work):
        model = Real(o, task(), work)
        model.theirs()
        model.ours()
        if o.judge:
            return {}, model.judged()
        model.search()
        return model.record(), model.judged()

    return run


def foreign_zeros(o, name, work):
    """minilm-l3 with nine of ten blocks zeroed by numpy, compiled without an option."""
    import onnx
    from onnx import numpy_helper
    model = onnx.load(str(fetch("minilm-l3")[0]))
    products = {n.input[1] for n in model.graph.node if n.op_type == "MatMul"}
    for tensor in model.graph.initializer:
        if tensor.name in products and len(tensor.dims) == 2 and tensor.dims[1] % 16 == 0:
            w = numpy_helper.to_array(tensor).copy()
            blocks = w.reshape(w.shape[0], -1, 16)
            size = np.abs(blocks).sum(-1)
            blocks[size < np.quantile(size, 0.9)] = 0
            tensor.CopyFrom(numpy_helper.from_array(w, tensor.name))
    path = work / "zeros.onnx"
    onnx.save(model, str(path))
    samples = feeds(20)
    ours = Ours(o.planish, path, work / "planish" / "w1", [])
    chosen = sum(r["id"] == "sparse-chosen" for r in ours.remarks)
    theirs = Theirs(path, [v.name for v in session(path).get_outputs()])
    rank = spearman(cosines(ours.run, samples), cosines(theirs.run, samples))
    judged = [("layers that skip zeros", chosen, 18), ("rank correlation with ONNX Runtime", rank, 0.999)]
    if o.judge:
        return {}, judged
    sides = {"f32": ours, BASE: theirs}
    for side in sides.values():
        side.arm(Sentences().timed())
    times = alternate(sides, o.rounds, o.seconds, o.clock)
    rows = [{"name": n, "ours": n == "f32", "ms": float(np.median(times[n])), "over_ort": speedup(times, n, BASE)} for n in sides]
    return {"kind": "zeros", "layers": chosen, "rank": rank, "rows": rows}, judged


MODELS = {task.model: real(task) for task in (Sentences, Boxes, Speech, Pages, Digits)} | {"foreign-zeros": foreign_zeros}
