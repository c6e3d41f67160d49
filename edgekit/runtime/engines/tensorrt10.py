"""Engines with TensorRT 8.5 to 10 (JetPack 5 and 6, desktops): memory pools, precision flags, Q/DQ or a calibrator."""

from ..errors import BadConfig
from . import nms
from .tensorrt8 import Tensorrt8


class Tensorrt10(Tensorrt8):
    """The same steps as with 8.2; the workspace is one of several memory pools, and NMS may be a layer of its own."""

    name = "tensorrt10"
    suppressions = ("plugin", "layer")  # type: tuple[str, ...]

    def _create_network(self, builder):
        """Explicit batch is the only kind from 10.0 on, where its flag is deprecated; 8 and 9 still ask for it."""
        flag = 1 << int(self.trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
        return builder.create_network(flag if int(self.trt.__version__.split(".")[0]) < 10 else 0)

    def _append_nms(self, network, job):
        if job.options.nms == "layer":
            nms.add_layer(self.trt, network, job.postprocess)
        elif job.options.nms != "host":
            nms.add_plugin(self.trt, network, self.logger, job.postprocess)
        return job.options.nms if job.options.nms in ("host", "layer") else "plugin"

    def _limit_workspace(self, config, options):
        config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, options.workspace_mb * 2**20)


class StronglyTyped(Tensorrt10):
    """Precision comes from the file's types alone: typed FP16, or symmetric Q/DQ."""

    typed = True

    def _choose_precision(self, network, config, job):
        wanted = job.options.precision
        if wanted == "int8" and not job.quantized:
            raise BadConfig(
                "{}: TensorRT {} has no calibrators; INT8 comes from Q/DQ nodes in the file. "
                "Quantize it: edgekit quantize ARTIFACT --flavour trt".format(job.onnx, self.trt.__version__)
            )
        if wanted != "int8" and job.precision != wanted:
            raise BadConfig(
                "{}: the file is {}, {} was asked for, and TensorRT {} takes the types of the file. {}".format(
                    job.onnx, job.precision, wanted, self.trt.__version__, _CURE.get(wanted, "")
                )
            )
        if job.options.pins:
            raise BadConfig(
                "pins: TensorRT {} takes the types of the file; pin layers when it is made: "
                "edgekit build ARTIFACT --pin LAYER".format(self.trt.__version__)
            )
        return ["STRONGLY_TYPED"], []


_CURE = {
    "fp16": "edgekit build ARTIFACT --precision fp16 writes a typed FP16 file first.",
    "fp32": "Give the FP32 artifact.",
}
