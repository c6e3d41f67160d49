"""Engines with TensorRT 11: every network is strongly typed; no precision flags, calibrators or dynamic ranges."""

from . import nms
from .tensorrt10 import StronglyTyped


class Tensorrt11(StronglyTyped):
    """FP16 is a typed FP16 file, INT8 symmetric Q/DQ; NMS in the graph is INMSLayer (the plugin is deprecated)."""

    name = "tensorrt11"
    suppressions = ("layer",)

    def _create_network(self, builder):
        return builder.create_network(0)

    def _append_nms(self, network, job):
        if job.options.nms == "host":
            return "host"
        nms.add_layer(self.trt, network, job.postprocess)
        return "layer"
