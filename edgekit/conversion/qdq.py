"""The graph work of INT8 quantization: QuantizeLinear and DequantizeLinear placed for one of two kinds of hardware.

Activations get scale and zero point from calibrated ranges, weights one scale per output channel. All runs in the child
process that ``quantize`` starts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ..models.modules import matches
from ..runtime.errors import ChildDied
from .graph import (
    WEIGHTED,
    constants,
    consumers,
    drop_unused,
    groups,
    inner_nodes,
    load_model,
    module_of,
    name_nodes,
    opset,
    own_biases,
    producers,
    tidy,
    weighted_layers,
)


@dataclass(frozen=True)
class Flavour:
    """How a kind of hardware wants its INT8.

    activation: ONNX Runtime's name of the activations' type; weights are signed, symmetric and per channel
    symmetric: activations have zero point 0
    quantize_bias: biases become int32; TensorRT's parser refuses those
    float_weights: weights are stored in FP32 behind QuantizeLinear and DequantizeLinear, not in INT8 behind the latter
        alone: TensorRT 8.2 has no INT8 weights in such a graph (NVIDIA/TensorRT, TREx's notebook on Q/DQ graphs), and
        the engine that it builds holds INT8 either way
    operators: which operators read and write INT8
    free_outputs: operators whose outputs stay float until somebody needs them in INT8, so that TensorRT can fuse
    """

    activation: str
    symmetric: bool
    quantize_bias: bool
    float_weights: bool
    operators: tuple[str, ...]
    free_outputs: tuple[str, ...]


LARGEST_BIAS = 2**30  # of int32, with room for the sum of the products that a kernel adds to it
_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid")
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")
FLAVOURS: Mapping[str, Flavour] = MappingProxyType(
    {
        "x86": Flavour(
            activation="QUInt8",
            symmetric=False,
            quantize_bias=True,
            float_weights=False,
            operators=(*WEIGHTED, *_ACTIVATIONS, *_POOLS, "Add", "Mul", "Concat", "Resize", "Split"),
            free_outputs=(),
        ),
        "trt": Flavour(
            activation="QInt8",
            symmetric=True,
            quantize_bias=False,
            float_weights=True,
            operators=WEIGHTED,
            free_outputs=WEIGHTED,
        ),
    }
)


def quantize_file(
    source: str,
    target: str,
    ranges: Mapping[str, Sequence[float]],
    flavour: str,
    float_nodes: Sequence[str],
    reduce_range: bool,
    float_modules: Sequence[str] = (),
) -> dict[str, int]:
    """Write the INT8 version of an ONNX file. Returns how many nodes there are of each kind.

    ranges: tensor -> (lowest, highest); float_nodes: names of layers that stay float, beside the decode
    float_modules: modules that compute boxes or regions; what they do beside their layers stays float
    reduce_range: 7-bit weights, for CPUs without VNNI, whose 16-bit sums would saturate
    """
    model = load_model(source)
    version, ir = opset(model), model.ir_version
    name_nodes(model)
    own_biases(model)
    wish = FLAVOURS[flavour]
    quantized = _insert(model, ranges, wish, _in_float(model, float_nodes, float_modules), reduce_range)
    if not wish.symmetric and input_as_pixels(quantized):
        pixels_in_blocks(quantized)
    _clean(quantized, version, ir)
    problems = refused_by_tensorrt(quantized) if flavour == "trt" else []
    if problems:
        raise ChildDied(f"{source}: the quantizer made what TensorRT refuses: {'; '.join(problems)}")
    short_names(quantized)
    onnx.checker.check_model(quantized, full_check=True)
    onnx.save(quantized, target)
    return _census(quantized)


def _in_float(model: ModelProto, layers: Sequence[str], modules: Sequence[str]) -> list[str]:
    """Nodes that read and write no INT8: before the first layer, after the last ones, and ``layers``.

    All that the module of such a layer computes is float too, and what ``modules`` compute beside their layers:
    sampling positions and boxes are no activations. Box offsets of all levels, joined, would have one scale.
    """
    inner, left = inner_nodes(model), set(layers)
    weighted = {node.name for node in weighted_layers(model)}
    scopes = {module_of(node.name) for node in model.graph.node if node.name in left} - {""}

    def outside(name: str) -> bool:
        module = module_of(name)
        computes = name not in weighted and matches(module, modules)
        return name not in inner or name in left or module in scopes or computes

    return [node.name for node in model.graph.node if outside(node.name)]


def without_bias_scale(model: ModelProto, flavour: str) -> list[str]:
    """Names of the transposed convolutions in groups whose bias gets no INT32 scale, so that they must stay in float.

    Their weights [in, out / groups, *kernel] have one scale per channel of a group; the bias needs one for all of out.
    """
    if not FLAVOURS[flavour].quantize_bias:
        return []
    name_nodes(model)
    values = constants(model)
    found = []
    for node in weighted_layers(model):
        if node.op_type == "ConvTranspose" and all(name in values for name in node.input[1:3]) and len(node.input) > 2:
            channels = values[node.input[1]].shape[1]
            if channels not in (1, values[node.input[2]].size):  # ONNX Runtime spreads a single scale
                found.append(node.name)
    return found


def _insert(
    model: ModelProto, ranges: Mapping[str, Sequence[float]], flavour: Flavour, left: Sequence[str], narrow: bool
) -> ModelProto:
    """ONNX Runtime's quantizer, fed with our ranges. left: names of the nodes that it does not touch."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

    tensors = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, str(path))
        quantizer = QDQQuantizer(
            load_model_with_shape_infer(path),
            True,  # one scale per output channel
            narrow,
            QuantType.QInt8,
            QuantType[flavour.activation],
            TensorsData(CalibrationMethod.MinMax, tensors),
            [],
            list(left),
            list(flavour.operators),
            {
                "ActivationSymmetric": flavour.symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": flavour.quantize_bias,
                "AddQDQPairToWeight": flavour.float_weights,
                "OpTypesToExcludeOutputQuantization": list(flavour.free_outputs),
            },
        )
        quantized: ModelProto = quantizer.quantize_model()
    _sort(quantized)
    return quantized


def _clean(model: ModelProto, version: int, ir: int) -> None:
    """Back to one operator set and the file version that old runtimes read; the quantizer adds others, unused."""
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign:
        raise ChildDied(f"the quantizer used operators of {', '.join(foreign)}; boards read plain ONNX only")
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", version)])
    model.ir_version = ir
    del model.metadata_props[:]
    _sort(model)
    tidy(model)


def _census(model: ModelProto) -> dict[str, int]:
    table: dict[str, int] = {}
    for node in model.graph.node:
        table[node.op_type] = table.get(node.op_type, 0) + 1
    return table


# -- TensorRT ---------------------------------------------------------------------------------------------------------
def refused_by_tensorrt(model: ModelProto) -> list[str]:
    """What TensorRT's parser would refuse in a quantized graph: stored integers, zero points other than 0."""
    values = constants(model)
    problems = []
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = values.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None or zero.dtype != np.int8 or np.any(zero):
            problems.append(f"{node.name}: zero point is not int8 0")
        if node.input[1] not in values:
            problems.append(f"{node.name}: scale is not a constant")
        stored = values.get(node.input[0])
        if stored is not None and node.op_type == "DequantizeLinear":
            problems.append(f"{node.name}: dequantizes {stored.dtype} that is stored in the file")
    return problems


def _sort(model: ModelProto) -> None:
    """Order the nodes so that each comes after what it reads (Kahn 1962); all that are ready keep their order."""
    nodes = list(model.graph.node)
    maker = {output: i for i, node in enumerate(nodes) for output in node.output if output}
    sources = [{maker[name] for name in node.input if name in maker} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for i, needed in enumerate(sources):
        for source in needed:
            readers[source].append(i)
    missing = [len(needed) for needed in sources]
    ordered: list[int] = []
    ready = [i for i, count in enumerate(missing) if count == 0]
    while ready:
        ordered += ready
        for reader in [reader for done in ready for reader in readers[done]]:
            missing[reader] -= 1
        ready = sorted({r for done in ready for r in readers[done] if missing[r] == 0})
    if len(ordered) < len(nodes):
        raise ChildDied("the quantized graph has a cycle")
    del model.graph.node[:]
    model.graph.node.extend(nodes[i] for i in ordered)


# -- raw pixels -------------------------------------------------------------------------------------------------------
def input_as_pixels(model: ModelProto) -> bool:
    """Let the first convolution read the uint8 pixels themselves: no float copy of the image, and no rounding of it.

    The graph says image -> Transpose -> Cast -> Sub(mean) -> Quantize -> Dequantize -> Conv. A pixel is already a
    uint8, so with scale 1 and the zero point Z at the mean's middle it is its own quantized value, and the rest of the
    mean moves into the bias: conv(x - mean) = conv(x - Z) + sum(w) (Z - mean). Inside the image that is exact; the
    zero padding then stands for grey level Z where it stood for the mean of each channel, a difference of a fraction
    of one standard deviation on the outermost pixels.

    Returns False, with the graph untouched, where the graph does not say that.
    """
    path = _pixel_path(model)
    if not path:
        return False
    values = constants(model)
    mean = values[path["Sub"].input[1]].reshape(-1).astype(np.float64) if "Sub" in path else np.zeros(3)
    middle = int(np.clip(np.rint(mean.mean()), 0, 255))
    _move_mean(model, path["Conv"], middle - mean)
    quantize, dequantize = path["QuantizeLinear"], path["DequantizeLinear"]
    scale, zero = _constant(model, "image_scale", np.float32(1)), _constant(model, "image_zero", np.uint8(middle))
    quantize.input[1:] = dequantize.input[1:] = [scale, zero]
    # OpenVINO takes a convolution for INT8 only behind Quantize and Dequantize; both runtimes fold the extra pair away
    pixels = path["Transpose"].output[0]
    lift = helper.make_node("DequantizeLinear", [pixels, scale, zero], ["image_pixels"], name="image_pixels")
    quantize.input[0] = lift.output[0]
    model.graph.node.insert(list(model.graph.node).index(quantize), lift)
    drop_unused(model)
    return True


def _pixel_path(model: ModelProto) -> dict[str, NodeProto]:
    """The nodes from a uint8 image to the quantized convolution that alone reads it, by operator; or {}.

    Each of its filters must see all three colours: ``_move_mean`` sums over them.
    """
    image = model.graph.input[0]
    if image.type.tensor_type.elem_type != TensorProto.UINT8:
        return {}
    uses, makers, values = consumers(model), producers(model), constants(model)
    path: dict[str, NodeProto] = {}
    name = image.name
    for kind in ("Transpose", "Cast", "Sub", "QuantizeLinear", "DequantizeLinear", "Conv"):
        readers = uses.get(name, [])
        if len(readers) == 1 and readers[0].op_type == kind:
            path[kind] = readers[0]
            name = readers[0].output[0]
        elif kind != "Sub":  # the mean may be zero, and its subtraction gone
            return {}
    if groups(path["Conv"]) > 1:
        return {}
    stored = [makers[part].input[0] for part in path["Conv"].input[1:] if part in makers]
    mean_known = "Sub" not in path or values.get(path["Sub"].input[1], np.empty(0)).size == 3
    return path if mean_known and len(stored) == 2 and all(part in values for part in stored) else {}


def _move_mean(model: ModelProto, conv: NodeProto, shift: np.ndarray) -> None:
    """Add sum(w) * shift [3] to the INT32 bias of ``conv``, now in the scale of 1 x the weights'.

    A nearly dead channel has tiny weights, whose scale ONNX Runtime raised until the bias just fitted beside the
    input's old scale. Beside 1 it may not fit: such a channel's weights get a coarser scale.
    """
    values, makers = constants(model), producers(model)
    weight, bias = (makers[name] for name in conv.input[1:3])
    scale = values[weight.input[1]].astype(np.float64)
    w = values[weight.input[0]].astype(np.float64) * scale.reshape(-1, 1, 1, 1)
    b = values[bias.input[0]].astype(np.float64) * values[bias.input[1]].astype(np.float64)
    moved = b + (w.sum(axis=(2, 3)) * shift).sum(axis=1)
    least = np.abs(moved) / LARGEST_BIAS
    if np.any(scale < least):
        scale = np.maximum(scale, least).astype(np.float32).astype(np.float64)
        # the coarser the scale, the smaller the number: none leaves int8
        stored = np.rint(w / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        weight.input[0] = _constant(model, f"{weight.input[0]}_pixels", stored)
        weight.input[1] = _constant(model, f"{weight.input[1]}_pixels", scale.astype(np.float32))
        w = stored * scale.reshape(-1, 1, 1, 1)
        moved = b + (w.sum(axis=(2, 3)) * shift).sum(axis=1)
    bias.input[0] = _constant(model, f"{bias.input[0]}_pixels", np.rint(moved / scale).astype(np.int32))
    bias.input[1] = weight.input[1]


def _constant(model: ModelProto, name: str, value: Any) -> str:
    """Store an initializer under ``name`` and return the name."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def pixels_in_blocks(model: ModelProto) -> bool:
    """Give the first convolution 2 x 2 pixels as 12 channels instead of one pixel as 3, where it has stride 2.

    The weights are the same numbers in other places (with zeros where the kernel does not reach), so the sums are the
    same. Three channels fill a vector register badly: ONNX Runtime takes three times as long for the plain form.
    To be called after ``input_as_pixels``. Returns False, with the graph untouched, where it does not apply.
    """
    image = model.graph.input[0]
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    uses = consumers(model)
    turn = uses[image.name][0]
    conv = _first_convolution(model, turn)
    kernel = None if conv is None else _block_kernel(model, conv)
    if conv is None or kernel is None or any(size % 2 for size in shape[1:3]):
        return False
    weight = next(n for n in model.graph.node if conv.input[1] in n.output)
    weights, begin = kernel
    weight.input[0] = _constant(model, f"{weight.input[0]}_blocks", weights)
    _set(conv, kernel_shape=weights.shape[2:], strides=[1, 1], pads=begin)
    n, height, width, _ = shape
    rows = _constant(model, "block_rows", np.array([n, height // 2, 2, width // 2, 6], np.int64))
    blocks = _constant(model, "blocks", np.array([n, height // 2, width // 2, 12], np.int64))
    halves = _constant(model, "row_halves", np.array([1, 1], np.int64))  # from opset 18 on a split must tell its parts
    # two copies of whole rows and one join are faster than one transposition of blocks
    steps = [
        helper.make_node("Reshape", [image.name, rows], ["pixel_rows"], name="pixel_rows"),
        helper.make_node("Split", ["pixel_rows", halves], ["even_rows", "odd_rows"], name="split_rows", axis=2),
        helper.make_node("Concat", ["even_rows", "odd_rows"], ["row_pairs"], name="row_pairs", axis=4),
        helper.make_node("Reshape", ["row_pairs", blocks], ["pixel_blocks"], name="pixel_blocks"),
    ]
    turn.input[0] = "pixel_blocks"
    for place, node in enumerate(steps):
        model.graph.node.insert(place, node)
    drop_unused(model)
    return True


def _first_convolution(model: ModelProto, turn: NodeProto) -> NodeProto | None:
    """The convolution that reads the turned uint8 image through nothing but Q and DQ."""
    uses = consumers(model)
    node = turn
    while node.op_type in ("Transpose", "QuantizeLinear", "DequantizeLinear"):
        readers = uses.get(node.output[0], [])
        if len(readers) != 1:
            return None
        node = readers[0]
    return node if node.op_type == "Conv" else None


def _block_kernel(model: ModelProto, conv: NodeProto) -> tuple[np.ndarray, list[int]] | None:
    """(weights [out, 12, k', k'], pads) of the same convolution over 2 x 2 blocks; None unless it has stride 2.

    Kernel row y reads pixel row 2 i + y - pad: row (y - pad) mod 2 of block i + floor((y - pad) / 2).
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
    stored = constants(model)[producers(model)[conv.input[1]].input[0]]  # [out, 3, k, k]
    size, pads = stored.shape[2], attributes.get("pads", [0] * 4)
    plain = attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
    plain = plain and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
    square = stored.shape[1:] == (3, size, size) and len(set(pads)) == 1
    if not (plain and square and list(attributes.get("strides", [])) == [2, 2]):
        return None
    pad = pads[0]
    block, row = np.divmod(np.arange(size) - pad, 2)
    first, last = int(block[0]), int(block[-1])
    out = np.zeros((stored.shape[0], 2, 2, 3, last - first + 1, last - first + 1), stored.dtype)
    for y in range(size):
        for x in range(size):
            out[:, row[y], row[x], :, block[y] - first, block[x] - first] = stored[:, :, y, x]
    # an even size has (size + 2 pad - k) // 2 + 1 outputs; blocks need this much padding behind to give as many
    behind = (2 * pad - size) // 2 + 1 + last
    if min(-first, behind) < 0:
        return None
    return out.reshape(stored.shape[0], 12, *out.shape[4:]), [-first, -first, behind, behind]


def _set(node: NodeProto, **attributes: Any) -> None:
    kept = [a for a in node.attribute if a.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, list(value)) for name, value in attributes.items())])


# -- size -------------------------------------------------------------------------------------------------------------
def short_names(model: ModelProto) -> None:
    """Number the tensors inside the graph: a quantized detector carries 8 % of its size in their names.

    Inputs, outputs and the names of layers stay.
    """
    graph = model.graph
    keep = {"", *(v.name for v in graph.input), *(v.name for v in graph.output)}
    table: dict[str, str] = {name: name for name in keep}
    for name in (*(t.name for t in graph.initializer), *(out for node in graph.node for out in node.output)):
        table.setdefault(name, f"t{len(table)}")
    for tensor in graph.initializer:
        tensor.name = table[tensor.name]
    for node in graph.node:
        node.input[:] = [table[name] for name in node.input]
        node.output[:] = [table[name] for name in node.output]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = node.output[0]
