"""What can be chosen when an engine is built, as plain data that travels in JSON."""

from ..errors import BadConfig

PRECISIONS = ("fp32", "fp16", "int8")
NMS = ("host", "graph", "plugin", "layer")


class BuildOptions(object):
    """How to build an engine.

    precision: "fp32", "fp16" or "int8" (what is not INT8 then runs in FP16)
    builder: "tensorrt8", "tensorrt10" or "tensorrt11"; None takes the one for the TensorRT that is installed
    workspace_mb: the most that a layer's algorithm may use, in MiB
    pins: layers that stay in FP32, by the name of their ONNX node
    float_decode: keep what comes after the last weighted layers in FP32; FP16 cannot tell 600.25 from 600.5 pixels
    timing_cache: a file, None for the board's own in ``$EDGEKIT_CACHE``, or False for none
    calibration_images: paths of real images, for INT8 of a float ONNX file (up to TensorRT 10)
    calibration_cache: the file of a calibration; it must belong to this very network, preprocessing and images
    perf_only: allow INT8 without calibration; such an engine may be timed but never judged by its boxes
    nms: "host"; "graph" takes the builder's own way; "plugin" is EfficientNMS_TRT, "layer" is INMSLayer
    device: number of the CUDA device
    board: name of the board profile, kept in the manifest; rebuild: the command that an error proposes
    memory_check: refuse to start when too little memory is free

    Raises BadConfig naming every field that is wrong.
    """

    DEFAULTS = {
        "precision": "fp16",
        "builder": None,
        "workspace_mb": 1024,
        "pins": (),
        "float_decode": True,
        "timing_cache": None,
        "calibration_images": (),
        "calibration_cache": None,
        "perf_only": False,
        "nms": "host",
        "device": 0,
        "board": None,
        "rebuild": None,
        "memory_check": True,
    }

    def __init__(self, **values):
        unknown = sorted(set(values) - set(self.DEFAULTS))
        for name, default in self.DEFAULTS.items():
            value = values.get(name, default)
            setattr(self, name, tuple(value) if isinstance(value, list) else value)
        problems = ["unknown option {}".format(name) for name in unknown] + list(self._problems())
        if problems:
            raise BadConfig("engine options: " + "; ".join(problems))

    def _problems(self):
        for name, known in (("precision", PRECISIONS), ("nms", NMS)):
            if getattr(self, name) not in known:
                yield "{}: expected one of {}, got {!r}".format(name, ", ".join(known), getattr(self, name))
        for name, least in (("workspace_mb", 1), ("device", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                yield "{}: expected a whole number from {}, got {!r}".format(name, least, value)
        for name in ("pins", "calibration_images"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(entry, str) for entry in value):
                yield "{}: expected a list of texts, got {!r}".format(name, value)

    def to_dict(self):
        """JSON value; ``BuildOptions(**value)`` reads it back."""
        values = {name: getattr(self, name) for name in self.DEFAULTS}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def as_options(value):
    """BuildOptions, or a dict of its fields, or None for the defaults."""
    if isinstance(value, BuildOptions):
        return value
    return BuildOptions(**(value or {}))
