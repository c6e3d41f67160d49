"""What every TensorRT builder does alike with a network: read the ONNX file, find and pin layers, look at its ends.

Variables carry the names of their TensorRT classes (builder, network, config, parser, layer, tensor, ...): a test reads
this source and looks each attribute up in the real bindings.
"""

from ..errors import BadConfig, BadInput

# LayerType names of what has weights; FULLY_CONNECTED is gone from TensorRT 10 on
WEIGHTED = ("CONVOLUTION", "DECONVOLUTION", "FULLY_CONNECTED", "MATRIX_MULTIPLY")
_MOST_MESSAGES = 5


# ILogger class -> the one of this process, which is never freed
_LOGGERS = {}  # type: dict[object, object]


def make_logger(trt):
    """The process's ILogger, made on first use: it keeps errors in ``errors`` and warnings in ``warnings``.

    TensorRT holds a pointer to the logger that it was given first for as long as any of its objects lives, and tells
    everything to that one (NVIDIA/TensorRT#1475): a logger of each session's own would hear another's errors, or be
    freed under TensorRT's hands.
    """
    if trt.ILogger in _LOGGERS:
        return _LOGGERS[trt.ILogger]

    class Logger(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors, self.warnings = [], []

        def log(self, severity, msg):
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(str(msg))
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(str(msg))

    return _LOGGERS.setdefault(trt.ILogger, Logger())


class Messages(object):
    """What TensorRT has told since this was made, for the message that a user gets; ``logger``: for TensorRT's calls.

    Of sessions that work at the same time each hears the others as well: TensorRT does not say whose a message is.
    """

    def __init__(self, trt):
        self.logger = make_logger(trt)
        self._errors, self._warnings = len(self.logger.errors), len(self.logger.warnings)

    @property
    def warnings(self):
        return self.logger.warnings[self._warnings :]

    def told(self):
        """The last errors in one line, "no message" without any."""
        last = self.logger.errors[self._errors :][-_MOST_MESSAGES:]
        return " | ".join(" ".join(text.split()) for text in last) or "no message"


def parse(trt, network, messages, path):
    """Read an ONNX file into the network. BadInput quotes TensorRT's parser, with the number of the node at fault."""
    parser = trt.OnnxParser(network, messages.logger)
    with open(str(path), "rb") as handle:
        content = handle.read()
    if parser.parse(content):
        return
    found = []
    for i in range(min(parser.num_errors, _MOST_MESSAGES)):
        fault = parser.get_error(i)
        found.append("node {}: {}".format(fault.node(), " ".join(fault.desc().split())))
    raise BadInput(
        "{}: TensorRT {} cannot read it: {}. Which layer that is: edgekit lint MODEL --board BOARD".format(
            path, trt.__version__, "; ".join(found) or messages.told()
        )
    )


def ends(network):
    """(inputs, outputs) of the network: each [{"name", "shape", "dtype"}], dtype as TensorRT calls it ("FLOAT")."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return [_end(tensor) for tensor in inputs], [_end(tensor) for tensor in outputs]


def _end(tensor):
    return {"name": tensor.name, "shape": [int(n) for n in tensor.shape], "dtype": tensor.dtype.name}


def check_static(network, path):
    """Raise BadInput when an input has a size that is not known: EdgeKit builds for one shape."""
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if any(int(n) < 0 for n in tensor.shape):
            raise BadInput(
                "{}: input {} has the shape {}; an engine is built for one fixed shape. "
                "Export it with fixed sizes: edgekit export RECIPE".format(path, tensor.name, list(tensor.shape))
            )


def float_layers(trt, network):
    """Indices of the layers whose results are floating point; others (shapes, indices) have no precision to choose."""
    kinds = (trt.float32, trt.float16)
    found = []
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        outputs = [layer.get_output(k) for k in range(layer.num_outputs)]
        if layer.type.name not in ("CONSTANT", "SHAPE") and outputs and all(t.dtype in kinds for t in outputs):
            found.append(i)
    return found


def decode_layers(network):
    """Indices of the layers from which no weighted layer can be reached: what decodes the head's results."""
    wanted, found = set(), []  # type: set[str], list[int]
    for i in reversed(range(network.num_layers)):
        layer = network.get_layer(i)
        names = {layer.get_output(k).name for k in range(layer.num_outputs)}
        if layer.type.name in WEIGHTED or names & wanted:
            inputs = [layer.get_input(k) for k in range(layer.num_inputs)]
            wanted.update(tensor.name for tensor in inputs if tensor is not None)
        else:
            found.append(i)
    return found[::-1]


def pin_to_fp32(trt, network, options):
    """Keep the named layers, and the decode when the options ask for it, in FP32. Returns the names of the named ones.

    Raises BadConfig for a name that no layer has. TensorRT names a layer after its ONNX node.
    """
    able = float_layers(trt, network)
    named = {network.get_layer(i).name: i for i in able}
    missing = sorted(set(options.pins) - set(named))
    if missing:
        raise BadConfig(
            "pins: no floating point layer is called {}; the layers' names are those of the ONNX file's nodes".format(
                ", ".join(missing)
            )
        )
    chosen = {named[name] for name in options.pins}
    if options.float_decode:
        chosen.update(set(decode_layers(network)) & set(able))
    for i in sorted(chosen):
        layer = network.get_layer(i)
        layer.precision = trt.float32
        for k in range(layer.num_outputs):
            layer.set_output_type(k, trt.float32)
    return sorted(options.pins)
