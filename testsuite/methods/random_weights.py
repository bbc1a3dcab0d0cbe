"""Networks of random weights: what the kernels and the graph give, never what it costs."""
import os
import pathlib
import sys

import numpy as np

from sides import Failed, Ours, Theirs, alternate, ort_quantised, passes, session, speedup, write_samples

import networks  # its folder is known by now

BASE, BASE8 = "onnxruntime f32", "onnxruntime i8 static"
CACHE = pathlib.Path(os.environ.get("PLANISH_CACHE", "~/.cache/planish")).expanduser()
I8 = ("--data", "samples", "--pass", "quantize:first=true")


def blocks(block, share=0.9):
    return ("--pass", f"sparsify-blocks:block={block},sparsity={share},first=true")


WAYS = {
    "bert12": {
        "f32": (),
        "1x16 blocks, 90%": blocks("1x16"),
        "1x32 blocks, 90%": blocks("1x32"),
        "4x16 blocks, 90%": blocks("4x16"),
        "i8 dynamic": ("--pass", "quantize:mode=dynamic,first=true"),
        "i8 static": I8,
        "4x16 blocks, 90%, and i8 static": ("--data", "samples", *blocks("4x16"), "--pass", "quantize:first=true"),
        "mixture of experts, 2 of 8": ("--data", "samples", "--pass", "insert-gates:kind=moe,experts=8,active=2"),
        "activation gates, half": ("--data", "samples", "--pass", "insert-gates:kind=activation,quantile=0.5"),
    },
    "resnet50": {
        "f32": (),
        "1x16 blocks, half": blocks("1x16", 0.5),
        "1x16 blocks, 90%": blocks("1x16"),
        "4x16 blocks, 90%": blocks("4x16"),
        "i8 static": I8,
    },
}
TITLES = {"bert12": "one sequence of 128 tokens", "resnet50": "one image of 224 x 224"}


def network(o, name, work):
    folder = pathlib.Path(os.environ.get("PEERS", CACHE / "peers")) / "models"
    networks.provide(folder, [name])
    path = folder / f"{name}.onnx"
    with np.load(folder / f"{name}.in.npz") as file:
        inputs = {str(key): file[str(i)] for i, key in enumerate(file["__names__"])}
    rng = np.random.default_rng(3)
    samples = [{key: rng.standard_normal(v.shape).astype(np.float32) for key, v in inputs.items()} for _ in range(4)]
    write_samples(work / "samples", samples)
    outputs = [v.name for v in session(path).get_outputs()]
    rows, sides = {}, {}

    def add(way, make, **more):
        row = rows[way] = {"name": way, "ours": not way.startswith("onnxruntime"), **more}
        try:
            sides[way] = make()
            if isinstance(sides[way], Ours):
                row["layers"] = len(sides[way].layers())
                if more["arguments"] and not row["layers"]:
                    row["why"] = f"no layer is changed: {sides.pop(way).declined()}"
        except Failed as error:
            row["why"] = str(error)
        print(f"{name}: {way}: {row.get('why', 'ready')}", file=sys.stderr, flush=True)

    def theirs8():
        ort_quantised("minmax", path, work / "ort8.onnx", samples)
        return Theirs(work / "ort8.onnx", outputs)

    add(BASE, lambda: Theirs(path, outputs))
    add(BASE8, theirs8)
    known = passes(o.planish)
    for k, (way, arguments) in enumerate(WAYS[name].items()):
        if not all(a.split(":")[0] in known for at, a in enumerate(arguments) if at and arguments[at - 1] == "--pass"):
            continue
        real = [work / "samples" if a == "samples" else a for a in arguments]
        add(way, lambda k=k, real=real: Ours(o.planish, path, work / "planish" / f"w{k}", real), arguments=arguments)
    for side in sides.values():
        side.arm([inputs])
    times = alternate(sides, o.rounds, o.seconds, o.clock)
    better = min((BASE, "f32"), key=lambda n: float(np.median(times[n])) if n in times else float("inf"))
    for way in sides:
        rows[way] |= {"ms": float(np.median(times[way])), "over_ort": speedup(times, way, BASE), "over_own": speedup(times, way, "f32"),
                      "over_better": speedup(times, way, better)}
        if BASE8 in sides:
            rows[way]["over_ort8"] = speedup(times, way, BASE8)
    return {"kind": "random", "title": TITLES[name], "better": better, "rows": list(rows.values())}, []


NETWORKS = dict.fromkeys(WAYS, network)
