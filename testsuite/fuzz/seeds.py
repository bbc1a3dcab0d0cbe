#!/usr/bin/env python3
"""Write the seeds of the fuzz tests: small valid models that between them use every part of the format.

    seeds.py            writes NAME.onnx beside this file
"""
import pathlib

import numpy as np
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

HERE = pathlib.Path(__file__).resolve().parent


def vi(name, shape, elem=T.FLOAT):
    return h.make_tensor_value_info(name, elem, shape)


def const(name, values, dtype=np.float32):
    return nh.from_array(np.array(values, dtype), name)


def save(name, nodes, ins, outs, inits=(), opset=17, functions=(), extra=(), sparse=(), infos=()):
    graph = h.make_graph(nodes, name, ins, outs, list(inits), value_info=list(infos), sparse_initializer=list(sparse))
    imports = [h.make_opsetid("", opset)] + [h.make_opsetid(d, v) for d, v in extra]
    model = h.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10, producer_name="seeds")
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


n = h.make_node
rng = np.random.default_rng(1)
x = [vi("x", ["N", 2, 5, 5])]
save("conv", [n("Conv", ["x", "w", "b"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
              n("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"]), n("Relu", ["c"], ["d"]),
              n("GlobalAveragePool", ["d"], ["e"]), n("Flatten", ["e"], ["f"]), n("Gemm", ["f", "g"], ["y"], transB=1)],
     x, [vi("y", ["N", 3])],
     [const("w", rng.random((4, 2, 3, 3))), const("b", [0] * 4), const("s", [1] * 4), const("m", [0] * 4),
      const("v", [1] * 4), const("g", rng.random((3, 4)))], infos=[vi("a", ["N", 4, 5, 5])])
then, other = (h.make_graph([n(op, ["x"], ["r"])], op, [], [vi("r", [2])]) for op in ("Neg", "Exp"))
save("if", [n("ReduceSum", ["x"], ["s"], keepdims=0), n("Greater", ["s", "zero"], ["c"]),
            n("If", ["c"], ["y"], then_branch=then, else_branch=other)],
     [vi("x", [2])], [vi("y", [2])], [const("zero", 0.0)])
body = h.make_graph([n("Add", ["v", "x"], ["w"]), n("Identity", ["c"], ["d"]), n("Identity", ["w"], ["scan"])], "body",
                    [vi("i", [], T.INT64), vi("c", [], T.BOOL), vi("v", [2])],
                    [vi("d", [], T.BOOL), vi("w", [2]), vi("scan", [2])])
save("loop", [n("Loop", ["trip", "go", "x"], ["last", "all"], body=body)], [vi("x", [2])],
     [vi("last", [2]), vi("all", [None, 2])], [const("trip", 3, np.int64), const("go", True, np.bool_)])
f = h.make_function("local", "Twice", ["a"], ["b"], [n("Add", ["a", "a"], ["b"])], [h.make_opsetid("", 17)], ["k"])
save("function", [n("Twice", ["x"], ["t"], domain="local"), n("Twice", ["t"], ["y"], domain="local")],
     [vi("x", ["N"])], [vi("y", ["N"])], functions=[f], extra=[("local", 1)])
save("shapes", [n("Shape", ["x"], ["s"]), n("Gather", ["s", "i"], ["d"]), n("Unsqueeze", ["d", "a"], ["u"]),
                n("Concat", ["u", "m"], ["t"], axis=0), n("Reshape", ["x", "t"], ["y"])],
     [vi("x", ["N", 3, 4])], [vi("y", ["N", 12])],
     [const("i", 0, np.int64), const("a", [0], np.int64), const("m", [-1], np.int64)])
save("quantised", [n("QuantizeLinear", ["x", "s", "z"], ["q"]), n("DequantizeLinear", ["q", "s", "z"], ["y"])],
     [vi("x", [4])], [vi("y", [4])], [const("s", 0.5), const("z", 3, np.uint8)])
save("lstm", [n("LSTM", ["x", "w", "r", "b"], ["y", "h", "c"], hidden_size=2)], [vi("x", [3, 1, 2])],
     [vi("y", [3, 1, 1, 2]), vi("h", [1, 1, 2]), vi("c", [1, 1, 2])],
     [const("w", rng.random((1, 8, 2))), const("r", rng.random((1, 8, 2))), const("b", np.zeros((1, 16)))])
save("sequence", [n("SplitToSequence", ["x", "k"], ["s"], axis=0), n("SequenceAt", ["s", "i"], ["y"])],
     [vi("x", [4, 2])], [vi("y", [2, 2])], [const("k", 2, np.int64), const("i", 1, np.int64)])
save("strings", [n("Constant", [], ["c"], value_strings=["a", "b"]), n("Equal", ["x", "c"], ["y"])],
     [vi("x", [2], T.STRING)], [vi("y", [2], T.BOOL)], opset=19)
narrow = [h.make_tensor("w4", T.INT4, [3], [1, -2, 7]), h.make_tensor("w8", T.FLOAT8E4M3FN, [3], [1.0, 2.0, 0.5])]
save("narrow", [n("Cast", ["w4"], ["a"], to=T.FLOAT), n("Cast", ["w8"], ["b"], to=T.FLOAT), n("Add", ["a", "b"], ["c"]),
                n("Add", ["c", "x"], ["y"])], [vi("x", [3])], [vi("y", [3])], narrow, opset=21)
sparse = h.make_sparse_tensor(const("sp", [1.5, 2.5]), h.make_tensor("", T.INT64, [2], [1, 5]), [2, 3])
save("sparse", [n("MatMul", ["sp", "x"], ["y"])], [vi("x", [3, 2])], [vi("y", [2, 2])], sparse=[sparse])
save("trees", [n("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, nodes_treeids=[0, 0, 0],
                 nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0], nodes_values=[0.5, 0.0, 0.0],
                 nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
                 target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, -1.0])],
     [vi("x", ["N", 1])], [vi("y", ["N", 1])], extra=[("ai.onnx.ml", 3)])
