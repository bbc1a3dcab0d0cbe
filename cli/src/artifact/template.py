"""A model compiled by Planish: `Model().run(None, {"x": array})` returns the outputs as NumPy arrays.

The shared object stands beside this file. Needs numpy, and ml_dtypes only for bfloat16, float8 and 4-bit types.
"""

import ctypes
import json
import os
import threading

import numpy as np

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4_e2m1fn", 24: "float8_e8m0fnu", 25: "uint2", 26: "int2",
}


def _dtype(code):
    name = _DTYPES[code]
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


class _Shape(ctypes.Structure):
    _fields_ = [("dtype", ctypes.c_int32), ("rank", ctypes.c_uint32), ("dims", ctypes.POINTER(ctypes.c_int64))]


class _Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


class _Options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("threads", ctypes.c_int32), ("pool", ctypes.c_void_p),
        ("max_steps", ctypes.c_uint64), ("max_memory", ctypes.c_uint64),
    ]


_P, _S = ctypes.c_void_p, ctypes.c_size_t
_ERROR = [ctypes.c_char_p, _S]


class _Table(ctypes.Structure):
    _fields_ = [
        ("abi", ctypes.c_uint32), ("size", ctypes.c_uint32), ("name", ctypes.c_char_p),
        ("inputs", ctypes.c_uint32), ("outputs", ctypes.c_uint32),
        ("describe", ctypes.CFUNCTYPE(_S, _P, ctypes.c_char_p, _S)),
        ("pool_create", ctypes.CFUNCTYPE(_P, ctypes.c_int32)),
        ("pool_destroy", ctypes.CFUNCTYPE(None, _P)),
        ("create", ctypes.CFUNCTYPE(ctypes.c_int32, _P, ctypes.POINTER(_Options), ctypes.POINTER(_P), *_ERROR)),
        ("bind", ctypes.CFUNCTYPE(ctypes.c_int32, _P, ctypes.POINTER(_Shape), _S, *_ERROR)),
        ("output_shape", ctypes.CFUNCTYPE(ctypes.c_int32, _P, ctypes.c_uint32, ctypes.POINTER(_Shape))),
        ("run", ctypes.CFUNCTYPE(ctypes.c_int32, _P, ctypes.POINTER(_Buffer), _S, ctypes.POINTER(_Buffer), _S, *_ERROR)),
        ("add_state", ctypes.CFUNCTYPE(ctypes.c_int32, _P, ctypes.c_uint32, ctypes.c_uint32, *_ERROR)),
        ("reset", ctypes.CFUNCTYPE(None, _P)),
        ("destroy", ctypes.CFUNCTYPE(None, _P)),
    ]


_library = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "@LIBRARY@"))
_library.@FUNCTION@.restype = ctypes.POINTER(_Table)
_pointer = _library.@FUNCTION@()
_model = _pointer.contents


class Pool:
    """Threads that sessions of any models share; 0 for as many as the process may use cores."""

    def __init__(self, threads=0):
        self.handle = _model.pool_create(threads)
        self._destroy = _model.pool_destroy

    def __del__(self):
        if getattr(self, "handle", None):
            self._destroy(self.handle)


def describe():
    """Inputs, outputs, symbols, code variants, as a dictionary."""
    size = _model.describe(_pointer, None, 0)
    text = ctypes.create_string_buffer(size)
    _model.describe(_pointer, text, size)
    return json.loads(text.value)


class Model:
    """A session. Calls from several threads take turns; make one session a thread to run at the same time.

    `states` is a list of (output, input) names to feed back, beside the pairs that the model declares.
    """

    def __init__(self, threads=1, pool=None, states=(), max_steps=0, max_memory=0):
        self._pool = pool
        self._lock = threading.Lock()
        self._handle = _P()
        self._error = ctypes.create_string_buffer(1000)
        handle = pool.handle if pool is not None else None
        options = _Options(ctypes.sizeof(_Options), threads, handle, max_steps, max_memory)
        self._check(_model.create(_pointer, ctypes.byref(options), ctypes.byref(self._handle), self._error, 1000))
        about = describe()
        self.inputs = [p["name"] for p in about["inputs"]]
        self.outputs = [p["name"] for p in about["outputs"]]
        self._codes = [_code(p["dtype"]) for p in about["inputs"]]
        self._states = {s["input"] for s in about["states"]}
        for output, name in states:
            self._states.add(name)
            pair = self.outputs.index(output), self.inputs.index(name)
            self._check(_model.add_state(self._handle, *pair, self._error, 1000))
        self._bound = None

    def _check(self, status):
        if status:
            message = self._error.value.decode("utf-8", "replace")
            raise (ValueError if status in (1, 2, 5) else RuntimeError)(message)

    def reset(self):
        """Makes the state zero again."""
        with self._lock:
            _model.reset(self._handle)

    def run(self, output_names, feeds):
        """The outputs with these names (all for None) for a dictionary of inputs. States may be left out."""
        unknown = set(feeds) - set(self.inputs)
        if unknown:
            raise ValueError(f"there is no input {sorted(unknown)}; the inputs are {self.inputs}")
        with self._lock:
            return self._run(output_names, feeds)

    def _run(self, output_names, feeds):
        arrays = []
        for name, code in zip(self.inputs, self._codes):
            a = feeds.get(name)
            if a is None and name not in self._states:
                raise ValueError(f"the input {name!r} is missing")
            if a is not None:
                a = np.asarray(a)
                if a.dtype != _dtype(code):
                    raise ValueError(f"the input {name!r} must be of type {_DTYPES[code]}, not {a.dtype}")
                a = np.ascontiguousarray(a).reshape(a.shape)
            arrays.append(a)
        key = tuple(None if a is None else a.shape for a in arrays)
        if key != self._bound:
            self._bound = None
            shapes = (_Shape * len(arrays))()
            for s, a, code in zip(shapes, arrays, self._codes):
                if a is not None:
                    s.dtype, s.rank, s.dims = code, a.ndim, (ctypes.c_int64 * max(a.ndim, 1))(*a.shape)
            self._check(_model.bind(self._handle, shapes, len(arrays), self._error, 1000))
            self._bound = key
        buffers = (_Buffer * max(len(arrays), 1))()
        for b, a in zip(buffers, arrays):
            if a is not None:
                b.data, b.bytes = a.ctypes.data, a.nbytes
        outs = (_Buffer * max(len(self.outputs), 1))()
        self._check(
            _model.run(self._handle, buffers, len(arrays), outs, len(self.outputs), self._error, 1000)
        )
        results = {}
        for i, name in enumerate(self.outputs):
            if output_names is not None and name not in output_names:
                continue
            shape = _Shape()
            _model.output_shape(self._handle, i, ctypes.byref(shape))
            dims = tuple(shape.dims[k] for k in range(shape.rank))
            raw = ctypes.string_at(outs[i].data, outs[i].bytes) if outs[i].bytes else b""
            results[name] = np.frombuffer(bytearray(raw), dtype=_dtype(shape.dtype)).reshape(dims)
        return [results[n] for n in (self.outputs if output_names is None else output_names)]

    def __del__(self):
        if getattr(self, "_handle", None):
            _model.destroy(self._handle)


def _code(name):
    short = {
        "f32": 1, "u8": 2, "i8": 3, "u16": 4, "i16": 5, "i32": 6, "i64": 7, "bool": 9, "f16": 10, "f64": 11, "u32": 12,
        "u64": 13, "c64": 14, "c128": 15, "bf16": 16, "f8e4m3fn": 17, "f8e4m3fnuz": 18, "f8e5m2": 19,
        "f8e5m2fnuz": 20, "u4": 21, "i4": 22, "f4e2m1": 23, "f8e8m0": 24, "u2": 25, "i2": 26,
    }
    if name not in short:
        raise ValueError(f"inputs of type {name} are not available from Python")
    return short[name]


_default = None


def run(output_names, feeds):
    """`Model().run` with one session for the whole process."""
    global _default
    if _default is None:
        _default = Model()
    return _default.run(output_names, feeds)
