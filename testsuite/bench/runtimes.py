"""The runtimes that are compared. Each is a class with

    convert(path, inputs, cache)    once per model, before anything is timed (only where a format of its own is needed)
    __init__(path, inputs, outputs, threads, cache)
    step()                          one inference on buffers that are bound: what is timed
    results()                       the outputs of the last step as NumPy arrays, in the order of the model

`path` is the ONNX file, `inputs` arrays by name, `outputs` names. All run in f32.
"""
import ctypes
import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np


def tool(command, log, cwd=None, limit=600):
    with open(log, "w") as out:
        done = subprocess.run([str(c) for c in command], stdout=out, stderr=subprocess.STDOUT, cwd=cwd, timeout=limit)
    if done.returncode:
        lines = [line for line in pathlib.Path(log).read_text(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if "error" in line.lower()] or lines[-3:]
        raise RuntimeError(f"exit {done.returncode}: {' | '.join(told[:3])[:400]}")


class Planish:
    """The shared object, through the C interface that the emitted Python module declares."""

    def __init__(self, path, inputs, outputs, threads, cache):
        spot = cache / "planish" / path.stem / "model.py"
        spec = importlib.util.spec_from_file_location("model", spot)
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.model = self.module.Model(threads=threads)
        self.model.run(None, inputs)  # binds the shapes
        self.inputs = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        buffer = self.module._Buffer
        self.bound = (buffer * len(self.model.inputs))()
        for place, name in zip(self.bound, self.model.inputs):
            place.data, place.bytes = self.inputs[name].ctypes.data, self.inputs[name].nbytes
        self.out = (buffer * len(self.model.outputs))()
        self.arguments = (self.model._handle, self.bound, len(self.bound), self.out, len(self.out), None, 0)
        self.run = self.module._model.run

    def step(self):
        if self.run(*self.arguments):
            raise RuntimeError("a run failed")

    def results(self):
        values = []
        for at, place in enumerate(self.out):
            shape = self.module._Shape()
            self.module._model.output_shape(self.model._handle, at, ctypes.byref(shape))
            dims = tuple(shape.dims[k] for k in range(shape.rank))
            values.append(np.frombuffer(ctypes.string_at(place.data, place.bytes), self.module._dtype(shape.dtype)).reshape(dims))
        return values


class OnnxRuntime:
    packages = ("onnxruntime",)

    def __init__(self, path, inputs, outputs, threads, cache):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        for name, value in inputs.items():
            self.binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in outputs:
            self.binding.bind_output(name)

    def step(self):
        self.session.run_with_iobinding(self.binding)

    def results(self):
        return self.binding.copy_outputs_to_cpu()


class OpenVino:
    packages = ("openvino",)

    def __init__(self, path, inputs, outputs, threads, cache):
        import openvino

        core = openvino.Core()
        options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self.model = core.compile_model(core.read_model(path), "CPU", options)
        self.request = self.model.create_infer_request()
        self.kept = {name: openvino.Tensor(np.array(value, order="C"), shared_memory=True) for name, value in inputs.items()}
        for name, tensor in self.kept.items():
            self.request.set_tensor(name, tensor)
        # What the Python method of this name does after it has bound its inputs once more.
        self.infer = super(openvino.InferRequest, self.request).infer

    def step(self):
        self.infer({}, share_outputs=True, decode_strings=False)

    def results(self):
        return [np.array(self.request.get_output_tensor(i).data) for i in range(len(self.model.outputs))]


class Mnn:
    packages = ("MNN",)

    @staticmethod
    def convert(path, inputs, cache):
        # The command `mnnconvert` installs packages and sends usage data; the module beneath it does neither.
        part, log = cache / f"{path.stem}.part.mnn", cache / f"{path.stem}.log"
        command = [sys.executable, "-c", "import sys, _tools; _tools.mnnconvert(sys.argv[1:])", "mnnconvert", "-f", "ONNX",
                   "--modelFile", path, "--MNNModel", part, "--bizCode", "bench"]
        try:
            tool(command, log)
        except RuntimeError:
            if "useOriginRNNImpl" not in log.read_text(errors="replace"):
                raise
            tool([*command, "--useOriginRNNImpl"], log)
        if not part.exists():
            raise RuntimeError("the converter wrote no model")
        part.replace(cache / f"{path.stem}.mnn")

    def __init__(self, path, inputs, outputs, threads, cache):
        import MNN.expr
        import MNN.nn

        self.expr = MNN.expr
        runtime = MNN.nn.create_runtime_manager(({"backend": "CPU", "numThread": threads, "precision": "high"},))
        self.network = MNN.nn.load_module_from_file(str(cache / "mnn" / f"{path.stem}.mnn"), list(inputs), outputs, runtime_manager=runtime)
        kinds, self.inputs = {"float32": MNN.expr.float, "int32": MNN.expr.int}, []
        for value in inputs.values():
            value = np.ascontiguousarray(value.astype(np.int32) if value.dtype == np.int64 else value)
            data = value.ravel().tolist() if value.ndim == 0 else value
            self.inputs.append(MNN.expr.const(data, list(value.shape), MNN.expr.NCHW, kinds[str(value.dtype)]))

    def step(self):
        """Outputs in blocks of channels are made plain; reading makes sure that they are computed."""
        convert, blocked, plain = self.expr.convert, self.expr.NC4HW4, self.expr.NCHW
        self.values = [(convert(v, plain) if v.data_format == blocked else v).read() for v in self.network.onForward(self.inputs)]

    def results(self):
        return [np.array(v) for v in self.values]


class Ncnn:
    packages = ("ncnn", "pnnx")

    @staticmethod
    def convert(path, inputs, cache):
        kinds = {"float32": "f32", "int64": "i64", "int32": "i32"}
        # The converter drops its files beside the model, so it gets a link to it. Its command imports torch to find it.
        link = cache / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        converter = pathlib.Path(importlib.util.find_spec("pnnx").origin).parent / "pnnx"
        shapes = ",".join(f"[{','.join(map(str, v.shape))}]{kinds[str(v.dtype)]}" for v in inputs.values())
        tool([converter, link, f"inputshape={shapes}", "fp16=0"], cache / f"{path.stem}.log", cwd=cache)
        made = cache / f"{path.stem}.ncnn.param"
        if not made.exists():
            raise RuntimeError("the converter wrote no model")
        kinds = {line.split()[0] for line in made.read_text().splitlines()[2:] if line.strip()}
        unknown = sorted(kind for kind in kinds if "." in kind or "_" in kind)
        if unknown:
            raise RuntimeError(f"layers that ncnn lacks: {', '.join(unknown[:6])}")

    def __init__(self, path, inputs, outputs, threads, cache):
        import ncnn

        self.network = ncnn.Net()
        options = self.network.opt
        options.num_threads, options.use_vulkan_compute = threads, False
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            if hasattr(options, name):
                setattr(options, name, False)
        stem = str(cache / "ncnn" / f"{path.stem}.ncnn")
        if self.network.load_param(stem + ".param") or self.network.load_model(stem + ".bin"):
            raise RuntimeError("the converted model does not load")
        self.names, self.outputs = list(self.network.input_names()), list(self.network.output_names())
        self.inputs = [ncnn.Mat(np.ascontiguousarray(v[0] if v.ndim > 1 and v.shape[0] == 1 else v)) for v in inputs.values()]

    def step(self):
        extractor = self.network.create_extractor()
        for name, value in zip(self.names, self.inputs):
            extractor.input(name, value)
        self.values = []
        for name in self.outputs:
            status, value = extractor.extract(name)
            if status:
                raise RuntimeError(f"{name} cannot be computed: {status}")
            self.values.append(value)

    def results(self):
        return [np.array(v) for v in self.values]


RUNTIMES = {"planish": Planish, "onnxruntime": OnnxRuntime, "openvino": OpenVino, "mnn": Mnn, "ncnn": Ncnn}


def versions(name):
    import importlib.metadata

    return {package: importlib.metadata.version(package) for package in getattr(RUNTIMES[name], "packages", ())}


def quiet():
    """Standard output for the protocol alone; what the libraries print there goes to standard error."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept
