"""Gates written to plain ONNX: ONNX Runtime runs the file, planish finds the gates again without an option, and both give the same."""
import json

import numpy as np

from digits import Digits
from sentences import feeds
from sides import Failed, command, fetch, session, write_samples

WIDTH, LAYERS = 512, 3


def layers(path):
    """One row through products with a ReLU behind each."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    rng = np.random.default_rng(5)
    nodes, weights, value = [], [], "x"
    for k in range(LAYERS):
        w = (rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH / 2)).astype(np.float32)
        weights.append(numpy_helper.from_array(w, f"w{k}"))
        nodes += [helper.make_node("MatMul", [value, f"w{k}"], [f"m{k}"], name=f"m{k}"), helper.make_node("Relu", [f"m{k}"], [f"r{k}"], name=f"r{k}")]
        value = f"r{k}"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH]) for name in ("x", value))
    graph = helper.make_graph(nodes, "layers", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path, [{"x": row[None]} for row in rng.standard_normal((40, WIDTH)).astype(np.float32)]


def cases(work):
    """Name, model, samples, options of the pass, and a counter that tells of work left out."""
    yield "activation", *layers(work / "layers.onnx"), "kind=activation,quantile=0.5", "gate.skipped-blocks"
    yield "mixture of experts", fetch("minilm-l3")[0], feeds(10), "kind=moe,experts=4,active=2,gain=0", "gate.rows"
    yield "early exit", fetch("mnist-cnn")[0], Digits().samples[:300], "kind=early-exit,threshold=0.8", "gate.skipped-regions"


def exported(o, name, work):
    judged = []
    for k, (kind, model, samples, options, counter) in enumerate(cases(work)):
        folder = work / str(k)
        write_samples(folder / "seen", samples)
        gated, asked = folder / "gated.onnx", samples[:8]
        command([o.planish, "optimize", model, "-o", gated, "--data", folder / "seen", "--pass", f"insert-gates:{options}", "--no-check"])
        theirs = session(gated)
        write_samples(folder / "asked", asked)
        for i, sample in enumerate(asked):
            there = folder / "expected" / f"test_data_set_{i}"
            there.mkdir(parents=True)
            for j, value in enumerate(theirs.run(None, sample)):
                np.save(there / f"output_{j}.npy", value)
        try:
            told = json.loads(command([o.planish, "run", gated, "--inputs", folder / "asked", "--expect", folder / "expected", "--rtol", "1e-3", "--atol", "1e-4", "--format", "json"]).stdout)
            equal = sum(row["ok"] for row in told["samples"])
            counted = sum(row.get("counters", {}).get(counter, 0) for row in told["samples"])
        except Failed as error:
            print(f"{name}: {kind}: {error}", flush=True)
            equal = counted = 0
        judged += [(f"{kind}: samples as in ONNX Runtime", equal, len(asked)), (f"{kind}: {counter} of the gates found again", counted, 1)]
    return {"kind": "exported", "rows": []}, judged
