"""OpenVINO on the CPU; it reads the ONNX file as it is."""

from ..errors import BadInput
from . import INPUT, OUTPUTS, Session, check_names, load_library

_HEAVY = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


class OpenVinoSession(Session):
    """One compiled model and one infer request that is used again and again, with its memory shared both ways."""

    def __init__(self, artifact, threads=1):
        super(OpenVinoSession, self).__init__(artifact, threads)
        openvino = load_library("openvino", "openvino")
        path = artifact.file("model.onnx")
        core = openvino.Core()
        try:
            model = core.read_model(path)
            check_names(path, _names(model.inputs), _names(model.outputs))
            self._compiled = core.compile_model(model, "CPU", session_options(threads))
        except RuntimeError as error:
            raise BadInput(
                "{}: OpenVINO {} refuses it: {}".format(path, openvino.__version__, " ".join(str(error).split()))
            ) from error
        self._version = openvino.__version__
        self._request = self._compiled.create_infer_request()

    def infer(self, inputs):
        self._request.infer({INPUT: inputs[INPUT]}, share_inputs=True, share_outputs=True)
        return {name: self._request.get_tensor(name).data for name in OUTPUTS}

    def describe(self):
        """precision is what the CPU plugin really runs: the hint it took, and how many layers run in each type."""
        layers = _layers_by_precision(self._compiled)
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return {
            "library": "openvino",
            "version": self._version,
            "precision": "int8" if layers.get("i8", 0) + layers.get("u8", 0) > 0 else {"f32": "fp32"}.get(hint, hint),
            "float_type": hint,
            "layers": layers,
            "threads": self.threads,
        }

    def close(self):
        self._request = self._compiled = None


def session_options(threads):
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # without it the plugin computes "FP32" in bf16 where the CPU has it
        "INFERENCE_PRECISION_HINT": "f32",
        # the process that is measured pins itself
        "ENABLE_CPU_PINNING": False,
    }


def _names(ports):
    return [name for port in ports for name in sorted(port.get_names())]


def _layers_by_precision(compiled):
    """Type name ("f32", "bf16", "i8", "u8") -> number of convolutions and matrix products that run in it."""
    counts = {}  # type: dict[str, int]
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if "layerType" in info and str(info["layerType"].value) in _HEAVY:
            name = str(info["runtimePrecision"].value)
            counts[name] = counts.get(name, 0) + 1
    return counts
