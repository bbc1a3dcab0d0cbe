#!/usr/bin/env python3
"""Write the hostile models: 32 that must be rejected and 4 that are valid (three controls and an endless loop).

    generate.py --out DIR

DIR/models/NAME.onnx, with the external-data traps beside them (links, a fifo), and a secret outside the folder.
DIR/expect.json says per model what `planish check` must do:
    "accept"  exit code 0
    "reject"  exit code 2 or 3 with at least one diagnostic
"""
import argparse
import json
import os
import pathlib
import random
import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ACCEPT = {"ext_ok", "if_nest_20", "if_nest_32", "loop_infinite"}


def vi(name, elem=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, elem, shape)


def ints(name, values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def array(name, values):
    return numpy_helper.from_array(values, name)


class Writer:
    def __init__(self, folder):
        self.folder = folder

    def raw(self, name, data):
        (self.folder / f"{name}.onnx").write_bytes(data)

    def model(self, name, nodes, inits=(), ins=(), funcs=(), change=None):
        graph = helper.make_graph(nodes, name, list(ins), [vi("y")], list(inits))
        opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid("f", 1)] if funcs else [])
        model = helper.make_model(graph, opset_imports=opsets, functions=list(funcs))
        model.ir_version = 9
        if change:
            change(model)
        self.raw(name, model.SerializeToString())


def sizes(w):
    """Tensors that are too large, and shapes whose product wraps or is negative."""
    filled = [helper.make_node("ConstantOfShape", ["s"], ["y"])]
    w.model("constofshape_1TiB", filled, [ints("s", [1 << 20, 1 << 18])])
    w.model("constofshape_mul_overflow", filled, [ints("s", [1 << 32, 1 << 32, 4])])
    w.model("constofshape_negative", filled, [ints("s", [-5, 3])])
    one = array("c", np.ones((1,), np.float32))
    w.model("expand_bomb", [helper.make_node("Expand", ["c", "s"], ["y"])], [one, ints("s", [1 << 19, 1 << 19])])
    names = ["c"] + [f"t{i}" for i in range(10)] + ["y"]
    tiles = [helper.make_node("Tile", [a, "r"], [b]) for a, b in zip(names, names[1:])]
    w.model("tile_chain", tiles, [one, ints("r", [64])])

    def dims(*values):
        def change(model):
            del model.graph.initializer[0].dims[:]
            model.graph.initializer[0].dims.extend(values)
        return change

    def short(model):
        model.graph.initializer[0].raw_data = b"\0" * 8

    relu = [helper.make_node("Relu", ["w"], ["y"])]
    w.model("raw_data_short", relu, [array("w", np.ones((64, 64), np.float32))], change=short)
    w.model("init_dims_overflow", relu, [array("w", np.ones((4,), np.float32))], change=dims(1 << 31, 1 << 31, 4))
    w.model("init_dims_negative", relu, [array("w", np.ones((4,), np.float32))], change=dims(-4))


def structure(w):
    """Loops, nested subgraphs, cycles and duplicate names."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c_in"], ["c_out"]), helper.make_node("Identity", ["v_in"], ["v_out"])], "b",
        [vi("i", TensorProto.INT64, []), vi("c_in", TensorProto.BOOL, []), vi("v_in", shape=[1])],
        [vi("c_out", TensorProto.BOOL, []), vi("v_out", shape=[1])])
    w.model("loop_infinite", [helper.make_node("Loop", ["m", "cond", "v"], ["y"], body=body)],
            [ints("m", 1 << 62), array("cond", np.array(True)), array("v", np.ones(1, np.float32))])
    for depth in (20, 32):
        graph = helper.make_graph([helper.make_node("Identity", ["x"], [f"o{depth}"])], "g", [], [vi(f"o{depth}")])
        for k in range(depth - 1, -1, -1):
            other = helper.make_graph([helper.make_node("Identity", ["x"], [f"e{k}"])], f"e{k}", [], [vi(f"e{k}")])
            node = helper.make_node("If", ["c"], [f"o{k}" if k else "y"], then_branch=graph, else_branch=other)
            graph = helper.make_graph([node], f"g{k}", [], [vi(f"o{k}")])
        w.model(f"if_nest_{depth}", [node], [array("c", np.array(True))], [vi("x", shape=[1])])
    relu = lambda a, b: helper.make_node("Relu", [a], [b])
    w.model("cycle", [relu("b", "y"), relu("y", "b")])
    w.model("self_cycle", [relu("y", "y")])
    w.model("dup_output", [relu("x", "y"), helper.make_node("Neg", ["x"], ["y"])], ins=[vi("x", shape=[2])])


def external(w):
    """External data that leaves the model's folder, is no regular file, or lies about its place."""
    folder = w.folder
    secret = folder.parent / "secret.bin"
    secret.write_bytes(b"SECR")
    (folder / "ok.bin").write_bytes(b"okok")
    (folder / "sub").mkdir()
    os.symlink("../secret.bin", folder / "sym")
    os.link(secret, folder / "hard")
    os.symlink("..", folder / "dirsym")
    os.mkfifo(folder / "fifo")
    cases = {
        "ext_ok": ("ok.bin",), "ext_dotdot": ("../secret.bin",), "ext_nested": ("sub/../../secret.bin",),
        "ext_abs": (str(secret.resolve()),), "ext_symlink": ("sym",), "ext_hardlink": ("hard",),
        "ext_dirsym": ("dirsym/secret.bin",), "ext_devzero": ("/dev/zero",), "ext_fifo": ("fifo",),
        "ext_off_neg": ("ok.bin", "-1"), "ext_off_huge": ("ok.bin", "9223372036854775807", "4"),
        "ext_len_huge": ("ok.bin", "0", "18446744073709551615"),
    }
    for name, values in cases.items():
        def change(model, values=values):
            tensor = model.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in zip(("location", "offset", "length"), values):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
        w.model(name, [helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)],
                [array("w", np.ones((4,), np.uint8))], change=change)


def functions(w):
    """A function that calls itself, and 31 functions that double at every level."""
    f = [helper.make_opsetid("f", 1), helper.make_opsetid("", 17)]
    call = lambda name, a, b: helper.make_node(name, [a], [b], domain="f")
    x = [vi("x", shape=[1])]
    w.model("func_recursive", [call("A", "x", "y")], ins=x,
            funcs=[helper.make_function("f", "A", ["x"], ["y"], [call("A", "x", "y")], f[:1])])
    levels = [[call(f"F{i + 1}", "x", "a"), call(f"F{i + 1}", "a", "y")] for i in range(30)]
    levels.append([helper.make_node("Relu", ["x"], ["y"])])
    funcs = [helper.make_function("f", f"F{i}", ["x"], ["y"], nodes, f) for i, nodes in enumerate(levels)]
    w.model("func_billion_laughs", [call("F0", "x", "y")], ins=x, funcs=funcs)


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(tag, data):
    return bytes([tag << 3 | 2]) + varint(len(data)) + data


def wire(w):
    """Files that are no protobuf, or protobuf that costs far more than its size."""
    w.raw("empty", b"")
    w.raw("garbage", random.Random(1).randbytes(4096))
    whole = (w.folder / "if_nest_20.onnx").read_bytes()
    w.raw("truncated", whole[: len(whole) // 2])
    w.raw("len_lie", b"\x3a\xff\xff\xff\xff\x07" + b"\0" * 16)
    data = b""
    for _ in range(20000):
        n = len(data)
        data = bytes([10, n & 127 | 128, n >> 7 & 127 | 128, n >> 14 & 127 | 128, n >> 21 & 127]) + data
    w.raw("deep_wire", data)
    ir_version, opset = b"\x08\x09", field(8, b"\x10\x11")
    for depth in (200, 20000):
        graph = field(2, b"g")
        for _ in range(depth):
            branch = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
            graph = field(1, field(4, b"If") + field(5, branch))
        w.raw(f"if_nest_wire_{depth}", ir_version + field(7, graph) + opset)
    w.raw("million_nodes", ir_version + field(7, b"\x0a\x00" * 1000000) + opset)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    out = ap.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    w = Writer(out / "models")
    w.folder.mkdir(parents=True)
    for part in (sizes, structure, external, functions, wire):
        part(w)
    names = sorted(p.stem for p in w.folder.glob("*.onnx"))
    assert ACCEPT <= set(names), ACCEPT - set(names)
    expect = {n: "accept" if n in ACCEPT else "reject" for n in names}
    (out / "expect.json").write_text(json.dumps(expect, indent=1) + "\n")
    print(f"{len(names)} models in {w.folder}")


if __name__ == "__main__":
    main()
