"""Engines with TensorRT 8.0 to 8.4 (JetPack 4: 8.2.1): explicit batch, workspace size, precision flags, calibrator.

These are all the names of TensorRT that this builder touches, with network.py, nms.py and calibration.py; the list with
its source is in docs/engines.md.
"""

from ..errors import ChildDied
from . import network as graph
from . import nms


class Tensorrt8(object):
    """Builds one engine. trt: the imported module; job: a ``build.Job``."""

    name = "tensorrt8"
    typed = False  # precision is chosen by flags, not by the file's types
    # ways of NMS in the engine; the first is what "graph" means
    suppressions = ("plugin",)  # type: tuple[str, ...]

    def __init__(self, trt):
        self.trt = trt
        self.messages = graph.Messages(trt)
        self.logger = self.messages.logger

    def build(self, job):
        """-> (plan, timing cache, {"flags", "tf32", "pins", "inputs", "outputs", "nms"}).

        Raises BadInput when the parser refuses the file or a calibration image is damaged, BadConfig for an option,
        ChildDied when no engine comes out.
        """
        trt = self.trt
        trt.init_libnvinfer_plugins(self.logger, "")
        builder = trt.Builder(self.logger)
        network = self._create_network(builder)
        graph.parse(trt, network, self.messages, job.onnx)
        graph.check_static(network, job.onnx)
        job.step("parsed")
        suppression = self._append_nms(network, job)
        config = builder.create_builder_config()
        # on by default, and from Ampere on FP32 layers then multiply with 10 bits, as FP16 does: no FP32 that is pinned
        config.clear_flag(trt.BuilderFlag.TF32)
        self._limit_workspace(config, job.options)
        flags, pins = self._choose_precision(network, config, job)
        timing = config.create_timing_cache(job.timing)
        # damaged, or of another board or version: begin anew
        if timing is None or not config.set_timing_cache(timing, False):
            timing = config.create_timing_cache(b"")
            config.set_timing_cache(timing, False)
        inputs, outputs = graph.ends(network)
        plan = builder.build_serialized_network(network, config)
        if job.calibration is not None:
            job.calibration.check()
        if plan is None:
            why = self.messages.told()
            raise ChildDied("{}: TensorRT {} built no engine: {}".format(job.onnx, trt.__version__, why))
        kept = config.get_timing_cache()
        about = {"flags": flags, "tf32": False, "pins": pins, "inputs": inputs, "outputs": outputs, "nms": suppression}
        return bytes(plan), bytes(kept.serialize()) if kept is not None else b"", about

    def _create_network(self, builder):
        return builder.create_network(1 << int(self.trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))

    def _append_nms(self, network, job):
        """Where suppression happens: "host", "plugin" or "layer"."""
        if job.options.nms == "host":
            return "host"
        nms.add_plugin(self.trt, network, self.logger, job.postprocess)
        return "plugin"

    def _limit_workspace(self, config, options):
        config.max_workspace_size = options.workspace_mb * 2**20

    def _choose_precision(self, network, config, job):
        """Set the flags, the FP32 layers and the calibrator. Returns (names of the flags, pinned layers)."""
        trt, options = self.trt, job.options
        if options.precision == "fp32":
            return [], []
        flags = [trt.BuilderFlag.FP16, self._obey_flag()]
        if options.precision == "int8":
            flags.append(trt.BuilderFlag.INT8)
        for flag in flags:
            config.set_flag(flag)
        pins = graph.pin_to_fp32(trt, network, options)
        if options.precision == "int8" and not job.quantized:
            self._find_ranges(network, config, job)
        return [flag.name for flag in flags], pins

    def _obey_flag(self):
        """The flag that makes FP32 layers stay FP32: its name changed in 8.2, and 8.2.0's bindings lack the new one."""
        kinds = self.trt.BuilderFlag
        return getattr(kinds, "OBEY_PRECISION_CONSTRAINTS", None) or kinds.STRICT_TYPES

    def _find_ranges(self, network, config, job):
        """A calibrator over real images; without any, made-up ranges whose engine may only be timed."""
        if job.calibration is not None:
            config.int8_calibrator = job.calibration.calibrator(self.trt)
            return
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            tensor.set_dynamic_range(-_MADE_UP, _MADE_UP)
        for i in range(network.num_layers):
            layer = network.get_layer(i)
            for k in range(layer.num_outputs):
                tensor = layer.get_output(k)
                tensor.set_dynamic_range(-_MADE_UP, _MADE_UP)


_MADE_UP = 4.0
