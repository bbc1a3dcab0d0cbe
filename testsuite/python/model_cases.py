"""Inputs of the real models: shapes, valid values, and the cached references of ONNX Runtime.

A case is a folder CACHE/NAME/CASE with `input_<i>.npy` (positional over the graph's inputs minus initializers) and
`ref/output_<i>.npy` (`.json` for outputs that are no tensor). `listed` uses the shapes of models.json, `other` a
second set where dims are free, further cases are named in EXTRA.
"""
import json
import os
import pathlib
import shutil
import zlib

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
MANIFEST = HERE.parent / "models" / "models.json"
CACHE = pathlib.Path(os.environ.get("PLANISH_CACHE", "~/.cache/planish")).expanduser()
MODELS = pathlib.Path(os.environ.get("PLANISH_MODELS", CACHE / "models"))
REFS = CACHE / "refs"
VERSION = 3  # of the generated inputs

DTYPES = {"FLOAT": np.float32, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}

# A second set of shapes for every model with free dims; absent: all dims are fixed.
OTHER = {
    "ppocr4-det-op11": [[2, 3, 160, 256]],
    "ppocr4-rec-op9": [[2, 3, 48, 200]],
    "ppocr2-cls-op9": [[3, 3, 48, 100]],
    "wake-embedding": [[3, 76, 32, 1]],
    "melspectrogram": [[2, 12800]],
    "romanizer-decoder": [[2, 7], [2, 9, 256], [2, 9], [2, 2, 256]],
    "romanizer-encoder": [[2, 9], [2, 9]],
    "eeg-bilstm-a": [[2, 100, 75]],
    "eeg-bilstm-b": [[2, 100, 75]],
    "eeg-spindle-unet": [[2, 1, 7500], [2, 15, 7500]],
    "rxnmap-graph-transformer": [[1, 23], [1, 23], [1, 23, 23], [1, 23]],
    "lac-bigru": [[1, 15], [1]],
    "magika": [[3, 2048]],
    "minimol-gnn": [[13, 85], [24, 13], [2, 24], [13, 8], [13, 8], [13, 16], [13], [2]],
    "mtcnn-onet": [[1, 48, 48, 3]],
    "mtcnn-pnet": [[2, 90, 71, 3]],
    "mtcnn-rnet": [[7, 24, 24, 3]],
    "ppocr5-det": [[2, 3, 160, 256]],
    "ppocr5-rec": [[2, 3, 48, 200]],
    "ppocr6-tiny-det": [[2, 3, 160, 256]],
    "ppocr6-tiny-rec": [[2, 3, 48, 200]],
    "resnet50-thin": [[2, 224, 224, 3]],
    "resnet50-thin-messy": [[2, 224, 224, 3]],
    "pplcnet-orientation": [[2, 3, 224, 224]],
    "ppocr4-det": [[2, 3, 160, 256]],
    "ppocr4-rec": [[2, 3, 48, 200]],
    "ppocr2-cls": [[3, 3, 48, 100]],
    "silero-vad": [[2, 576], [2, 2, 128], []],
    "silero-vad-16k-op15": [[2, 576], [2, 2, 128], []],
    "silero-vad-sequence": [[5, 576], [1, 1, 128], [1, 1, 128]],
    "silero-vad-half": [[2, 576], [2, 2, 128]],
    "tree-ensemble-classifier": [[7, 4]],
    "scaler-mlp": [[7, 4]],
    "tashkeel-bilstm-int8": [[2, 33]],
    "rawi-int8": [[2, 33]],
    "rawi-v2-int8": [[2, 33]],
    "rawi-v3-int8": [[2, 33]],
    "t5-small-decoder-int8": [[2, 5], [2, 19, 512], [2, 19]],
    "t5-small-encoder-int8": [[2, 19], [2, 19]],
    "minilm-l3": [[2, 19], [2, 19]],
}
# Further cases: (name of the case, shapes, values given by input name).
EXTRA = {"silero-vad": [("sr8000", [[1, 288], [2, 1, 128], []], {"sr": 8000})]}

VALUE_KEEPING = ("Identity", "Cast", "Clip", "Squeeze", "Unsqueeze", "Reshape", "Gather", "Transpose", "Slice")
# Integer inputs: an exclusive upper bound of the values. What is not listed follows from the embedding it indexes.
BOUNDS = {"magika": {"bytes": 257}, "rxnmap-graph-transformer": {"distances": 10, "roles": 4}}


def book():
    """The entries of models.json by name."""
    return {m["name"]: m for m in json.loads(MANIFEST.read_text())["models"]}


def model_path(name):
    return MODELS / f"{name}.onnx"


def index_bounds(path):
    """Upper bound (exclusive) of every integer graph input that ends, through casts and clips, as a Gather index."""
    import onnx
    graph = onnx.load(path, load_external_data=False).graph
    sizes = {t.name: t.dims[0] for t in graph.initializer if t.dims}
    origin = {i.name: i.name for i in graph.input}
    bounds = {}
    for node in graph.node:
        if node.op_type in VALUE_KEEPING and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        if node.op_type == "DequantizeLinear" and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
        if node.op_type == "Gather" and node.input[1] in origin and node.input[0] in sizes:
            name = origin[node.input[1]]
            bounds[name] = min(bounds.get(name, 1 << 62), sizes[node.input[0]])
    return bounds


def page(shape, rng):
    """Pictures of lines of text on light paper, N x 3 x H x W, scaled to -1..1: what a text detector answers to."""
    from PIL import Image, ImageDraw, ImageFont
    n, _, height, width = shape
    pictures = []
    for k in range(n):
        picture = Image.new("RGB", (width, height), (236, 232, 224))
        draw = ImageDraw.Draw(picture)
        for line, y in enumerate(range(12, height - 28, 40)):
            font = ImageFont.load_default(size=18 + 4 * (line % 3))
            draw.text((14 + 9 * line + 5 * k, y), f"Line {line + 1} of page {k + 1}: planish", (20, 24, 60), font)
        pixels = np.asarray(picture, np.float32) / 255 + rng.standard_normal((height, width, 3)) * 0.01
        pictures.append(((pixels - 0.5) / 0.5).transpose(2, 0, 1))
    return np.stack(pictures).astype(np.float32)


def values(model, item, shape, shapes, bounds, rng):
    """Valid values of one input; `shapes` holds the shapes of all inputs by name."""
    name, dtype = item["name"], DTYPES[item["dtype"]]
    if name == "sr":
        return np.array(16000, np.int64)
    if name == "length":
        return np.full(shape, shapes["token_ids"][1], np.int64)
    if "mask" in name:
        mask = np.ones(shape, dtype)
        mask[..., -2:] = 0
        mask[0] = 1
        return mask
    if model == "minimol-gnn":
        nodes, graphs = shapes["feat"][0], shapes["graph_slots"][0]
        if name == "edge_index":
            return rng.integers(0, nodes, shape)
        if name == "batch":
            return np.sort(rng.integers(0, graphs, shape)) if graphs > 1 else np.zeros(shape, np.int64)
        if name == "graph_slots":
            return np.ones(shape, np.float32)
        if name in ("feat", "edge_feat"):
            return rng.integers(0, 2, shape).astype(np.float32)
        return np.abs(rng.standard_normal(shape)).astype(np.float32)
    if dtype in (np.int64, np.int32):
        bound = BOUNDS.get(model, {}).get(name) or bounds.get(name)
        if not bound:
            raise SystemExit(f"{model}: no bound for the integer input {name}")
        return rng.integers(0, bound, shape).astype(dtype)
    if model.startswith("ppocr") and "-det" in model:
        return page(shape, rng)
    if len(shape) == 4:
        return rng.random(shape, np.float32)
    if name in ("state", "h", "c"):
        return np.zeros(shape, dtype)
    scale = 0.1 if name in ("input", "raw_signal") and shape[-1] > 200 else 1.0
    return (rng.standard_normal(shape) * scale).astype(dtype)


def case_list(entry):
    name = entry["name"]
    cases = [("listed", [i["try"] for i in entry["inputs"]], {})]
    if name in OTHER:
        cases.append(("other", OTHER[name], {}))
    return cases + EXTRA.get(name, [])


def prepare(entry):
    """Write the inputs and references of all cases of one model that are not there yet; returns the case folders."""
    name, path, folders = entry["name"], model_path(entry["name"]), []
    bounds = session = None
    for case, shapes, given in case_list(entry):
        folder = REFS / name / case
        folders.append(folder)
        stamp = folder / "done"
        token = f"{VERSION} {entry['sha256']}"
        if stamp.exists() and stamp.read_text() == token:
            continue
        if bounds is None:
            bounds, session = index_bounds(path), ort_session(path)
        part = folder.with_name(case + ".part")
        shutil.rmtree(part, ignore_errors=True)
        (part / "ref").mkdir(parents=True)
        rng = np.random.default_rng(zlib.crc32(f"{name}/{case}".encode()))
        by_name = {i["name"]: s for i, s in zip(entry["inputs"], shapes)}
        feeds = {}
        for k, (item, shape) in enumerate(zip(entry["inputs"], shapes)):
            value = values(name, item, shape, by_name, bounds, rng)
            if item["name"] in given:
                value = np.array(given[item["name"]], DTYPES[item["dtype"]])
            feeds[item["name"]] = value
            np.save(part / f"input_{k}.npy", value)
        for k, value in enumerate(session.run(None, feeds)):
            if isinstance(value, np.ndarray) and value.dtype != object:
                np.save(part / "ref" / f"output_{k}.npy", value)
            else:
                plain = value.tolist() if isinstance(value, np.ndarray) else value
                (part / "ref" / f"output_{k}.json").write_text(json.dumps(plain, default=float))
        (part / "done").write_text(token)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return folders


def load_inputs(folder):
    files = sorted(folder.glob("input_*.npy"), key=lambda p: int(p.stem.split("_")[1]))
    return [np.load(f) for f in files]


def ort_session(path, threads=1):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
