#!/usr/bin/env python3
"""The models of the peer benchmark, with inputs and reference outputs.

    networks.py --out FOLDER [NAME...]

Writes NAME.onnx (fixed shapes, f32), NAME.in.npz and NAME.ref.npz: arrays under "0", "1", .. and their names under
`__names__`. The reference is ONNX Runtime with its optimisations off. Networks of the onnx package's "light" set come
without weights and get He-normal ones; OCR, file type and voice models are the trained ones of packages. Random
weights make these figures of kernels and graphs, never of accuracy.
"""
import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnx.version_converter
from onnx import TensorProto, helper, numpy_helper

F32 = np.float32
LIGHT = ("resnet50", "squeezenet", "densenet121", "shufflenet", "inception_v1", "inception_v2", "vgg19", "bvlc_alexnet", "zfnet512")
# name: name in testsuite/models/models.json or in trained.json, shape of the input (None: see `voice`)
TRAINED = {
    "ppocr_det": ("ppocr4-det", (1, 3, 640, 640)),
    "ppocr_rec": ("ppocr4-rec", (1, 3, 48, 320)),
    "ppocr_cls": ("ppocr2-cls", (1, 3, 48, 192)),
    "magika": ("magika", (1, 2048)),
    "silero_vad": ("silero-vad", None),
    "silero_vad_ifless": ("silero-vad-ifless", None),
}


def session(model):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def save(model, out, name, inputs, fixed=True):
    """Writes the three files; the model last, so that it stands for all."""
    model.ir_version = min(model.ir_version, 8)  # what older converters read
    values = session(model.SerializeToString()).run(None, inputs)
    if fixed:
        for output, value in zip(model.graph.output, values):
            output.type.tensor_type.shape.Clear()
            for size in value.shape:
                output.type.tensor_type.shape.dim.add().dim_value = size
    for kind, names, arrays in (("in", list(inputs), inputs.values()), ("ref", [o.name for o in model.graph.output], values)):
        np.savez(out / f"{name}.{kind}.npz", **{str(i): a for i, a in enumerate(arrays)}, __names__=np.array(names))
    part = out / f"{name}.onnx.part"
    onnx.save(model, part)
    part.replace(out / f"{name}.onnx")


# Networks of the light set ------------------------------------------------------------------------------------------

def he_normal(model, seed):
    """Turns the ConstantOfShape nodes that stand for weights into initializers."""
    rng, graph = np.random.default_rng(seed), model.graph
    shapes = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    use = {}
    for node in graph.node:
        for at, name in enumerate(node.input):
            use.setdefault(name, (node.op_type, at))
    for node in graph.node:  # the Caffe "Scale" layers reach their Mul or Add through an Unsqueeze
        if node.op_type in ("Unsqueeze", "Reshape") and node.output[0] in use and node.input[0] in use:
            use[node.input[0]] = use[node.output[0]]
    made, gone, shape_names = [], [], set()
    for node in list(graph.node):
        if node.op_type != "ConstantOfShape":
            continue
        shape = tuple(int(x) for x in shapes[node.input[0]])
        op, at = use.get(node.output[0], ("?", 0))
        if op == "Conv" and at == 1:
            weights = rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
        elif op == "Gemm" and at == 1:
            weights = rng.standard_normal(shape) * np.sqrt(2.0 / [d for d in shape if d > 1][-1])
        elif op == "BatchNormalization" and at == 1 or op == "Mul":
            weights = 1.0 + 0.1 * rng.standard_normal(shape)
        elif op == "BatchNormalization" and at == 4:
            weights = 1.0 + 0.2 * np.abs(rng.standard_normal(shape))
        elif op in ("BatchNormalization", "Add", "Conv", "Gemm"):
            weights = 0.05 * rng.standard_normal(shape)
        else:
            raise ValueError(f"{node.output[0]} is input {at} of {op}: unknown kind of weight")
        made.append(numpy_helper.from_array(weights.astype(F32), node.output[0]))
        gone.append(node)
        shape_names.add(node.input[0])
    for node in gone:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    kept = [i for i in graph.initializer if i.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept + made)
    constant = {i.name for i in graph.initializer} | shape_names
    inputs = [i for i in graph.input if i.name not in constant and i.name in used]
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]


def tame_residuals(graph):
    """A smaller scale at the end of each residual branch, so that the variance does not double with every block."""
    producer = {o: n for n in graph.node for o in n.output}
    weights = {i.name: i for i in graph.initializer}
    for node in graph.node:
        before = producer.get(node.input[0]) if node.op_type == "Sum" else None
        if before is not None and before.op_type == "BatchNormalization":
            scale = weights[before.input[1]]
            scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * F32(0.4), scale.name))


def calibrate_logits(model, x, name):
    """Scales the last Gemm or Conv so that the logits have a deviation of 2: no saturated softmax."""
    graph = model.graph
    producer = {o: n for n in graph.node for o in n.output}
    softmax = [n for n in graph.node if n.op_type == "Softmax"]
    last = softmax[-1].input[0] if softmax else graph.output[0].name
    while last in producer and producer[last].op_type not in ("Gemm", "Conv"):
        last = producer[last].input[0]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, None))
    logits = session(probe.SerializeToString()).run([last], {name: x})[0]
    factor = F32(2.0 / max(float(logits.std()), 1e-12))
    weights = {i.name: i for i in graph.initializer}
    for key in producer[last].input[1:]:
        while key not in weights:
            key = producer[key].input[0]
        weights[key].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights[key]) * factor, key))


def light(out, name):
    path = pathlib.Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{name}.onnx"
    model = onnx.load(path)
    he_normal(model, LIGHT.index(name))
    tame_residuals(model.graph)
    model.ir_version = 8
    model = onnx.shape_inference.infer_shapes(onnx.version_converter.convert_version(model, 13))
    entry = model.graph.input[0]
    x = np.random.default_rng(1).standard_normal([d.dim_value for d in entry.type.tensor_type.shape.dim]).astype(F32)
    calibrate_logits(model, x, entry.name)
    onnx.checker.check_model(model)
    save(model, out, name, {entry.name: x})


# Networks made here -------------------------------------------------------------------------------------------------

class Builder:
    def __init__(self, seed):
        self.nodes, self.weights, self.count, self.rng = [], [], 0, np.random.default_rng(seed)

    def constant(self, value):
        self.count += 1
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"c{self.count}"))
        return f"c{self.count}"

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        name = f"t{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind}_{self.count}", **attributes))
        return name

    def normal(self, shape, deviation):
        return (self.rng.standard_normal(shape) * deviation).astype(F32)

    def save(self, out, name, x, result, shape):
        """The network from "x" to `result`, with `x` as its input."""
        graph = helper.make_graph(
            self.nodes, name, [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, shape)], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        onnx.checker.check_model(model)
        save(onnx.shape_inference.infer_shapes(model), out, name, {"x": x})


def gemm(out, rows):
    b, h = Builder(10 + rows), "x"
    for _ in range(3):
        w = b.constant(b.normal((1024, 1024), np.sqrt(2 / 1024)))
        h = b.op("Relu", b.op("Add", b.op("MatMul", h, w), b.constant(b.normal((1024,), 0.05))))
    b.save(out, f"gemm_m{rows}", b.normal((rows, 1024), 1), h, (rows, 1024))


def recurrent(out, kind, units, steps=50):
    b, gates = Builder(units), 4 if kind == "LSTM" else 3
    w = b.constant(b.normal((1, gates * units, units), 1 / np.sqrt(units)))
    r = b.constant(b.normal((1, gates * units, units), 1 / np.sqrt(units)))
    bias = b.constant(b.normal((1, 2 * gates * units), 0.05))
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    y = b.op(kind, "x", w, r, bias, hidden_size=units, **more)
    y = b.op("Squeeze", y, b.constant(np.array([1], np.int64)))
    b.save(out, f"{kind.lower()}_h{units}", b.normal((steps, 1, units), 1), y, (steps, 1, units))


def bert(out, name, length=128, width=768, heads=12, layers=12, inner=3072):
    b = Builder(7)
    split = b.constant(np.array([1, length, heads, width // heads], np.int64))
    joined = b.constant(np.array([1, length, width], np.int64))
    two, eps, scale = b.constant(F32(2)), b.constant(F32(1e-5)), b.constant(F32(np.sqrt(width // heads)))
    root2, one, half = b.constant(F32(np.sqrt(2.0))), b.constant(F32(1)), b.constant(F32(0.5))

    def linear(x, inputs, outputs, gain=1.0):
        w, bias = b.normal((inputs, outputs), gain / np.sqrt(inputs)), b.normal((outputs,), 0.05)
        return b.op("Add", b.op("MatMul", x, b.constant(w)), b.constant(bias))

    def norm(x):
        gain, shift = b.constant((1 + b.normal((width,), 0.1)).astype(F32)), b.constant(b.normal((width,), 0.05))
        centred = b.op("Sub", x, b.op("ReduceMean", x, axes=[-1], keepdims=1))
        variance = b.op("ReduceMean", b.op("Pow", centred, two), axes=[-1], keepdims=1)
        return b.op("Add", b.op("Mul", b.op("Div", centred, b.op("Sqrt", b.op("Add", variance, eps))), gain), shift)

    x = norm("x")
    for _ in range(layers):
        q = b.op("Transpose", b.op("Reshape", linear(x, width, width, 1.4), split), perm=[0, 2, 1, 3])
        k = b.op("Transpose", b.op("Reshape", linear(x, width, width, 1.4), split), perm=[0, 2, 3, 1])
        v = b.op("Transpose", b.op("Reshape", linear(x, width, width), split), perm=[0, 2, 1, 3])
        weights = b.op("Softmax", b.op("Div", b.op("MatMul", q, k), scale), axis=-1)
        o = b.op("Reshape", b.op("Transpose", b.op("MatMul", weights, v), perm=[0, 2, 1, 3]), joined)
        x = norm(b.op("Add", linear(o, width, width), x))
        f = linear(x, width, inner)
        f = b.op("Mul", b.op("Mul", f, b.op("Add", b.op("Erf", b.op("Div", f, root2)), one)), half)
        x = norm(b.op("Add", linear(f, inner, width), x))
    b.save(out, name, b.normal((1, length, width), 1), x, (1, length, width))


def mobilenet(out, name):
    b = Builder(3)
    low, high = b.constant(F32(0)), b.constant(F32(6))

    def conv(x, inputs, outputs, size, stride, groups=1, act=True, gain=2.0):
        w = b.normal((outputs, inputs // groups, size, size), np.sqrt(gain / (inputs // groups * size * size)))
        y = b.op("Conv", x, b.constant(w), b.constant(b.normal((outputs,), 0.05)), kernel_shape=[size, size],
                 strides=[stride, stride], pads=[size // 2] * 4, group=groups, dilations=[1, 1])
        return b.op("Clip", y, low, high) if act else y

    x, channels = conv("x", 3, 32, 3, 2), 32
    for widen, outputs, count, first in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(count):
            h, stride = x, first if i == 0 else 1
            if widen != 1:
                h = conv(h, channels, channels * widen, 1, 1)
            h = conv(h, channels * widen, channels * widen, 3, stride, groups=channels * widen)
            h = conv(h, channels * widen, outputs, 1, 1, act=False, gain=0.5)
            x = b.op("Add", x, h) if stride == 1 and channels == outputs else h
            channels = outputs
    x = conv(x, channels, 1280, 1, 1)
    x = b.op("Flatten", b.op("GlobalAveragePool", x), axis=1)
    x = b.op("Gemm", x, b.constant(b.normal((1280, 1000), 1 / np.sqrt(1280))), b.constant(b.normal((1000,), 0.05)))
    b.save(out, name, b.normal((1, 3, 224, 224), 1), x, (1, 1000))


# Trained models of packages -----------------------------------------------------------------------------------------

def fetched(name):
    here = pathlib.Path(__file__).resolve().parent
    ours = {entry["name"] for entry in json.loads((here / "trained.json").read_text())["models"]}
    more = ["--manifest", here / "trained.json"] if name in ours else []
    command = [sys.executable, here.parent / "models/fetch.py", "--check", *more, name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return onnx.load(done.stdout.strip())


def freeze(model, shapes):
    graph = model.graph
    constant = {i.name for i in graph.initializer}
    for entry in list(graph.input):
        if entry.name in constant:
            graph.input.remove(entry)
        elif entry.name in shapes:
            entry.type.tensor_type.shape.Clear()
            for size in shapes[entry.name]:
                entry.type.tensor_type.shape.dim.add().dim_value = size
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def voice(model, rng):
    x = (0.1 * rng.standard_normal((1, 576))).astype(F32)
    state = (0.1 * rng.standard_normal((2, 1, 128))).astype(F32)
    every = {"input": x, "state": state, "sr": np.array(16000, np.int64)}
    return {i.name: every[i.name] for i in model.graph.input}


def trained(out, name):
    source, shape = TRAINED[name]
    model, rng = fetched(source), np.random.default_rng(2)
    if shape is None:
        inputs = voice(model, rng)
        if any(node.op_type == "If" for node in model.graph.node):
            # Its branches, for 8 and 16 kHz, disagree once the shapes are fixed.
            save(model, out, name, inputs, fixed=False)
            return
    else:
        constant = {i.name for i in model.graph.initializer}
        entry = next(i for i in model.graph.input if i.name not in constant)
        whole = entry.type.tensor_type.elem_type == TensorProto.INT32
        inputs = {entry.name: rng.integers(0, 256, shape).astype(np.int32) if whole else rng.uniform(-1, 1, shape).astype(F32)}
    save(freeze(model, {k: v.shape for k, v in inputs.items()}), out, name, inputs)


MODELS = {
    **{f"gemm_m{rows}": lambda out, name, rows=rows: gemm(out, rows) for rows in (1, 16, 128)},
    "lstm_h512": lambda out, name: recurrent(out, "LSTM", 512),
    "lstm_h1024": lambda out, name: recurrent(out, "LSTM", 1024),
    "gru_h512": lambda out, name: recurrent(out, "GRU", 512),
    **dict.fromkeys(("magika", "silero_vad", "silero_vad_ifless", "ppocr_cls", "ppocr_rec", "ppocr_det"), trained),
    "mobilenetv2": mobilenet,
    **dict.fromkeys(("squeezenet", "shufflenet", "resnet50", "densenet121", "inception_v1", "inception_v2", "bvlc_alexnet", "zfnet512", "vgg19"), light),
    "bert12": bert,
}


def provide(out, names):
    """Makes those of the models that are not there."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (out / f"{name}.onnx").exists():
            print(f"making {name}", file=sys.stderr, flush=True)
            MODELS[name](out, name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    provide(options.out, options.names or MODELS)


if __name__ == "__main__":
    main()
