"""A SIMULATOR of TensorRT 8.2's Python module for the TX2 twin of the tests: its engines run on ONNX Runtime.

It has the names, the order of calls and the refusals that EdgeKit's builder and session for JetPack 4.6 rely on, and
nothing else. What it computes is right; how long it takes says nothing about a board.
"""

import ctypes
import json
import os
import struct

import numpy as np

from . import onnxfile
from .nms import efficient_nms

SIMULATOR = "EdgeKit's simulated TensorRT"
__version__ = "8.2.1.8"

_TAG = 205  # of 8.2 (boards reference: "Version tag does not match ... 205")
_HEAD = struct.Struct("<4sII16sI")
# not in the parser of 8.2, of what compact detectors use
REFUSED = frozenset(
    [
        "GridSample",
        "HardSwish",
        "LayerNormalization",
        "Mod",
        "NonZero",
        "OneHot",
        "RoiAlign",
        "Shrink",
        "Trilu",
        "Xor",
        "DeformConv",
    ]
)
PLUGINS = ("EfficientNMS_TRT",)


class _Enum:
    """A value of one of TensorRT's enumerations: has a name and can be made a number."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def __int__(self):
        return self.value

    def __eq__(self, other):
        return isinstance(other, _Enum) and (self.name, self.value) == (other.name, other.value)

    def __hash__(self):
        return hash((self.name, self.value))

    def __repr__(self):
        return self.name


def _enum(name, members):
    return type(name, (object,), {member: _Enum(member, i) for i, member in enumerate(members.split())})


DataType = _enum("DataType", "FLOAT HALF INT8 INT32 BOOL")
float32, float16, int8, int32, bool = (
    DataType.FLOAT,
    DataType.HALF,
    DataType.INT8,
    DataType.INT32,
    DataType.BOOL,
)
BuilderFlag = _enum("BuilderFlag", "FP16 INT8 DEBUG GPU_FALLBACK STRICT_TYPES REFIT TF32 OBEY_PRECISION_CONSTRAINTS")
NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH EXPLICIT_PRECISION")
PluginFieldType = _enum("PluginFieldType", "FLOAT16 FLOAT32 FLOAT64 INT8 INT16 INT32")
_LAYERS = {
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "MatMul": "MATRIX_MULTIPLY",
    "Gemm": "FULLY_CONNECTED",
}
_LAYERS.update({"Shape": "SHAPE", "Constant": "CONSTANT"})
_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "BOOL": np.bool_}


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity, msg):
        raise NotImplementedError


class Logger(ILogger):
    def log(self, severity, msg):
        pass


_LOGGER = []


def _one_logger(logger):
    """The first logger of a process is told everything, whatever is given later."""
    _LOGGER[:] = _LOGGER or [logger]
    return _LOGGER[0]


class IInt8EntropyCalibrator2:
    pass


def init_libnvinfer_plugins(logger, namespace):
    return True


# -- plugins ----------------------------------------------------------------------------------------------------------
class PluginField:
    def __init__(self, name, data, type):
        self.name, self.data = name, np.array(data)


class PluginFieldCollection(list):
    pass


class _Creator:
    def __init__(self, name):
        self.name = name

    def create_plugin(self, name, fields):
        return {field.name: field.data.ravel()[0].item() for field in fields}


class _Registry:
    def get_plugin_creator(self, kind, version, plugin_namespace=""):
        return _Creator(kind) if kind in PLUGINS and version == "1" else None


def get_plugin_registry():
    return _Registry()


# -- building ---------------------------------------------------------------------------------------------------------
class _Tensor:
    def __init__(self, name, shape=(), dtype=float32):
        self.name, self.shape, self.dtype = name, tuple(shape), dtype

    def set_dynamic_range(self, low, high):
        return True


class _Layer:
    def __init__(self, name, kind, inputs, outputs):
        self.name, self.type = name, _Enum(_LAYERS.get(kind, "ELEMENTWISE"), 0)
        self._inputs, self._outputs = inputs, outputs
        self.precision = float32

    @property
    def num_inputs(self):
        return len(self._inputs)

    @property
    def num_outputs(self):
        return len(self._outputs)

    def get_input(self, index):
        return self._inputs[index]

    def get_output(self, index):
        return self._outputs[index]

    def set_output_type(self, index, dtype):
        pass


class _Network:
    def __init__(self):
        self.inputs, self.outputs, self.layers = [], [], []
        self.onnx, self.nms = None, None

    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))
    num_layers = property(lambda self: len(self.layers))

    def get_input(self, index):
        return self.inputs[index]

    def get_output(self, index):
        return self.outputs[index]

    def get_layer(self, index):
        return self.layers[index]

    def mark_output(self, tensor):
        self.outputs.append(tensor)

    def unmark_output(self, tensor):
        self.outputs.remove(tensor)

    def add_plugin_v2(self, inputs, plugin):
        most = int(plugin["max_output_boxes"])
        shapes = ((1, 1), (1, most, 4), (1, most), (1, most))
        kinds = (int32, float32, float32, int32)
        outputs = [_Tensor(f"nms_{i}", shape, kinds[i]) for i, shape in enumerate(shapes)]
        self.nms = plugin
        return _Layer("nms", "Plugin", list(inputs), outputs)


class _Fault:
    def __init__(self, node, text):
        self._node, self._text = node, text

    def node(self):
        return self._node

    def desc(self):
        return self._text


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self._faults = network, []

    num_errors = property(lambda self: len(self._faults))

    def get_error(self, index):
        return self._faults[index]

    def parse(self, content):
        graph = onnxfile.read_graph(content)
        for index, node in enumerate(graph["nodes"]):
            if node["kind"] in REFUSED:
                self._faults.append(_Fault(index, "No importer registered for op: {}".format(node["kind"])))
            elif node["kind"] in ("QuantizeLinear", "DequantizeLinear"):
                text = "Networks with QuantizeLayer/DequantizeLayer layers require hardware with Int8 support."
                self._faults.append(_Fault(index, text))
        for end in graph["inputs"]:
            if end["type"] == onnxfile.UINT8:
                self._faults.append(_Fault(-1, "Unsupported ONNX data type: UINT8 (2)"))
        if self._faults:
            return False
        self._fill(graph, content)
        return True

    def _fill(self, graph, content):
        tensors = {}

        def tensor(name):
            return tensors.setdefault(name, _Tensor(name))

        for end in graph["inputs"]:
            tensors[end["name"]] = _Tensor(end["name"], end["shape"])
            self._network.inputs.append(tensors[end["name"]])
        for node in graph["nodes"]:
            inputs = [tensor(name) for name in node["inputs"] if name]
            outputs = [tensor(name) for name in node["outputs"] if name]
            self._network.layers.append(_Layer(node["name"], node["kind"], inputs, outputs))
        for end in graph["outputs"]:
            tensor(end["name"]).shape = tuple(end["shape"])
            self._network.outputs.append(tensor(end["name"]))
        self._network.onnx = bytes(content)


class _Bytes:
    """Something that can be serialized: an engine, a timing cache."""

    def __init__(self, content):
        self._content = bytes(content)

    def serialize(self):
        return self._content


class _Config:
    def __init__(self):
        self.max_workspace_size, self.int8_calibrator, self.flags, self._cache = 16 << 20, None, ["TF32"], None

    def set_flag(self, flag):
        self.flags.append(flag.name)

    def clear_flag(self, flag):
        self.flags.remove(flag.name)

    def create_timing_cache(self, content):
        return _Bytes(content or b"simulated timing cache")

    def set_timing_cache(self, cache, ignore_mismatch):
        self._cache = cache
        return cache.serialize().startswith(b"simulated")

    def get_timing_cache(self):
        return self._cache


class Builder:
    platform_has_fast_fp16 = True
    platform_has_fast_int8 = False

    def __init__(self, logger):
        self._logger = _one_logger(logger)

    def create_network(self, flags=0):
        if not flags & 1 << int(NetworkDefinitionCreationFlag.EXPLICIT_BATCH):
            raise ValueError("the ONNX parser needs EXPLICIT_BATCH")
        return _Network()

    def create_builder_config(self):
        return _Config()

    def build_serialized_network(self, network, config):
        import onnxruntime

        onnxruntime.InferenceSession(network.onnx, providers=["CPUExecutionProvider"])  # it must load
        if config.int8_calibrator is not None:
            _calibrate(config.int8_calibrator, [tensor.name for tensor in network.inputs])
        about = {"flags": config.flags, "nms": network.nms}
        about["bindings"] = [_binding(t, True) for t in network.inputs] + [_binding(t, False) for t in network.outputs]
        text = json.dumps(about).encode()
        return _HEAD.pack(b"ptrt", 0, _TAG, b"simulated engine", len(text)) + text + network.onnx


def _calibrate(calibrator, names):
    """Kept ranges, or those of every batch until there is none; an exception of ``get_batch`` is one in C++."""
    if calibrator.read_calibration_cache():
        return
    try:
        while calibrator.get_batch(names):
            pass
    except Exception:  # noqa: BLE001  all that Python has
        os.abort()
    calibrator.write_calibration_cache(b"simulated ranges")


def _binding(tensor, is_input):
    return {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype.name, "input": is_input}


# -- running ----------------------------------------------------------------------------------------------------------
class Runtime:
    def __init__(self, logger):
        self._logger = _one_logger(logger)

    def deserialize_cuda_engine(self, plan):
        magic, _, tag, mark, size = _HEAD.unpack_from(plan)
        if magic != b"ptrt" or mark != b"simulated engine":
            self._logger.log(ILogger.ERROR, "Serialization assertion magicTagRead == kPLAN_MAGIC_TAG failed")
            return None
        if tag != _TAG:
            text = "Version tag does not match. Note: Current Version: {}, Serialized Engine Version: {}"
            self._logger.log(ILogger.ERROR, text.format(_TAG, tag))
            return None
        about = json.loads(plan[_HEAD.size : _HEAD.size + size].decode())
        return _Engine(about, plan[_HEAD.size + size :])


class _Engine:
    def __init__(self, about, onnx):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.about, self.bindings = about, about["bindings"]

    num_bindings = property(lambda self: len(self.bindings))

    def get_binding_name(self, index):
        return self.bindings[index]["name"]

    def get_binding_shape(self, index):
        return tuple(self.bindings[index]["shape"])

    def get_binding_dtype(self, index):
        return getattr(DataType, self.bindings[index]["dtype"])

    def binding_is_input(self, index):
        return self.bindings[index]["input"]

    def create_execution_context(self):
        return _Context(self)


class _Context:
    def __init__(self, engine):
        self._engine = engine

    def execute_async_v2(self, bindings, stream_handle):
        """Simulated device memory is this process's own, so an address can be read and written."""
        engine = self._engine
        feeds = {}
        for address, binding in zip(bindings, engine.bindings):  # noqa: B905 - Python 3.6
            if binding["input"]:
                feeds[binding["name"]] = _memory(address, binding).copy()
        boxes, scores = engine.session.run(["boxes", "scores"], feeds)
        if "FP16" in engine.about["flags"]:  # what eleven bits leave of a probability
            scores = scores.astype(np.float16).astype(np.float32)
        results = {"boxes": boxes, "scores": scores}
        if engine.about["nms"] is not None:
            results = efficient_nms(boxes[0], scores[0], engine.about["nms"])
        for address, binding in zip(bindings, engine.bindings):  # noqa: B905 - Python 3.6
            if not binding["input"]:
                memory = _memory(address, binding)
                memory[...] = results[binding["name"]].reshape(memory.shape)
        return True


def _memory(address, binding):
    kind = np.dtype(_NUMPY[binding["dtype"]])
    size = int(np.prod(binding["shape"])) * kind.itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), kind).reshape(binding["shape"])
