"""Decoding appended to a foreign graph: whatever its outputs are, boxes [N, A, 4] and scores [N, A, C] come out.

Only operators of opset 13 that TensorRT 8.2 accepts are used, with constants where it asks for them. In a file that
could not be brought to opset 13 they are written as its own opset has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ...runtime.errors import BadConfig, BadInput
from ...words import counted
from ..foreign import value_shape
from ..graph import opset
from .spec import BoxPart, CentersPart, LayoutSpec, Part, PriorsPart, ScorePart, SelectedPart

OLDEST_DECODE = 11  # opset: Equal of floats and GatherElements
PREFIX = "decode"
MOST_PRIORS = 64 * 2**20  # bytes of a priors file


class Appender:
    """Adds nodes to a graph, each as ``/decode/<what>/<operator>``, and returns the tensor that it makes."""

    def __init__(self, model: ModelProto, size: tuple[int, int]) -> None:
        self.model = model
        self.size = size  # width, height of the input
        self.opset = opset(model)
        self._count = 0
        self._what = ""

    def step(self, what: str) -> Appender:
        """Name the nodes that follow."""
        self._what = what
        return self

    def constant(self, value: Any, kind: type = np.float32) -> str:
        name = self._name("constant")
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> str:
        """The name of the last output."""
        name = self._name(kind)
        names = [f"{name}_{i}" for i in range(outputs)]
        self.model.graph.node.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names[-1]

    def slice(self, tensor: str, first: int, last: int, axis: int) -> str:
        bounds = [self.constant([value], np.int64) for value in (first, last, axis)]
        return self.node("Slice", [tensor, *bounds])

    def concat(self, tensors: Sequence[str], axis: int) -> str:
        return self.node("Concat", tensors, axis=axis)

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", [tensor, self.constant(shape, np.int64)])

    def binary(self, kind: str, a: str, b: str | float | np.ndarray) -> str:
        return self.node(kind, [a, b if isinstance(b, str) else self.constant(b)])

    def largest(self, tensor: str, axis: int) -> str:
        """ReduceMax without the axis; from opset 18 on the axis is an input."""
        if self.opset >= 18:
            return self.node("ReduceMax", [tensor, self.constant([axis], np.int64)], keepdims=0)
        return self.node("ReduceMax", [tensor], axes=[axis], keepdims=0)

    def unsqueeze(self, tensor: str, axis: int) -> str:
        return self._with_axis("Unsqueeze", tensor, axis)

    def squeeze(self, tensor: str, axis: int) -> str:
        return self._with_axis("Squeeze", tensor, axis)

    def _with_axis(self, kind: str, tensor: str, axis: int) -> str:
        """From opset 13 on the axis is an input."""
        if self.opset >= 13:
            return self.node(kind, [tensor, self.constant([axis], np.int64)])
        return self.node(kind, [tensor], axes=[axis])

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"/{PREFIX}/{self._what}/{kind}_{self._count}"


def append_decode(model: ModelProto, spec: LayoutSpec, size: tuple[int, int], classes: int | None) -> int:
    """Replace the outputs of ``model`` by boxes and scores. Returns the number of classes.

    size: width, height of the input; classes: how many names are known. Raises BadConfig when the numbers disagree.
    """
    shapes = {v.name: value_shape(v) for v in model.graph.output}
    missing = [name for name in spec.outputs() if name not in shapes]
    if missing:
        have = ", ".join(shapes)
        raise BadConfig(f"the layout names outputs that the file does not have: {', '.join(missing)}; it has: {have}")
    graph = Appender(model, size)
    if spec.centers is not None:
        boxes, scores, count = _centers(graph, spec.centers, spec.top_k)
    else:
        assert spec.boxes is not None
        boxes = _boxes(graph, spec.boxes, spec.priors)
        if spec.selected is not None:
            scores, count = _one_hot(graph.step("scores"), spec.selected, classes)
        else:
            assert spec.scores is not None
            scores, count = _scores(graph.step("scores"), spec.scores, spec.objectness)
    _finish(model, {"boxes": boxes, "scores": scores})
    return count


def _finish(model: ModelProto, outputs: dict[str, str]) -> None:
    """Give the results their names and make them the graph's only outputs."""
    model.graph.value_info.extend(model.graph.output)  # their shapes, where nothing else tells them
    del model.graph.output[:]
    for name, tensor in outputs.items():
        model.graph.node.append(helper.make_node("Identity", [tensor], [name], name=f"/{PREFIX}/{name}"))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


# -- parts ------------------------------------------------------------------------------------------------------------
def _rows(graph: Appender, part: Part) -> tuple[str, int | None]:
    """The part as [N, A, K], and K where it is known."""
    shape = _shape(graph, part.output)
    tensor = part.output
    if len(shape) == 2:  # one value for each box, or no batch axis
        tensor, shape = _three_axes(graph, tensor, shape, part)
    elif len(shape) == 4:
        tensor, shape = _squeezed(graph, tensor, shape)
    axis = 1 if part.transposed else 2
    count = shape[axis]
    if part.columns is not None:
        first, last = part.columns
        if count is not None and last > count:
            raise BadConfig(f"columns {first} to {last} of {part.output}: it has {count} values for each box")
        if (first, last) != (0, count):
            tensor = graph.slice(tensor, first, last, axis)
        count = last - first
    if part.transposed:
        tensor = graph.node("Transpose", [tensor], perm=[0, 2, 1])
    if part.activation != "none":
        more = {"axis": 2} if part.activation == "softmax" else {}
        tensor = graph.node(part.activation.capitalize(), [tensor], **more)
    return tensor, count


def _shape(graph: Appender, name: str) -> tuple[int | None, ...]:
    value = next(v for v in (*graph.model.graph.output, *graph.model.graph.value_info) if v.name == name)
    shape = value_shape(value)
    if shape is None or not 2 <= len(shape) <= 4:
        raise BadConfig(
            f"output {name!r}: its shape {'is not known' if shape is None else list(shape)}; needed [N, A, K]"
        )
    return shape


def _length(graph: Appender, part: Part) -> int | None:
    """A of a part that ``_rows`` makes [N, A, K]; None where it is not fixed."""
    shape = _shape(graph, part.output)
    if len(shape) == 4:
        axis = 2 if shape[2] == 1 else 1
        shape = shape[:axis] + shape[axis + 1 :]
    return shape[-1 if part.transposed else -2]


def _three_axes(
    graph: Appender, tensor: str, shape: tuple[int | None, ...], part: Part
) -> tuple[str, tuple[int | None, ...]]:
    """[N, A] becomes [N, A, 1]; [A, K] without a batch becomes [1, A, K]."""
    if shape[0] == 1 and not part.transposed and part.columns is None:
        return graph.unsqueeze(tensor, 2), (*shape, 1)
    return graph.unsqueeze(tensor, 0), (1, *shape)


def _squeezed(graph: Appender, tensor: str, shape: tuple[int | None, ...]) -> tuple[str, tuple[int | None, ...]]:
    """[N, A, 1, K] and [N, 1, A, K], which some exporters write, lose the axis of one."""
    for axis in (2, 1):
        if shape[axis] == 1:
            return graph.squeeze(tensor, axis), shape[:axis] + shape[axis + 1 :]
    raise BadConfig(f"output {tensor!r} is {list(shape)}; needed [N, A, K]. For maps use the layout centernet.")


def _as_float(graph: Appender, tensor: str, name: str) -> str:
    kinds = {v.name: v.type.tensor_type.elem_type for v in graph.model.graph.output}
    if kinds.get(name) == TensorProto.FLOAT:
        return tensor
    return graph.node("Cast", [tensor], to=TensorProto.FLOAT)


def _scores(graph: Appender, part: ScorePart, objectness: Part | None) -> tuple[str, int]:
    tensor, count = _rows(graph, part)
    tensor = _as_float(graph, tensor, part.output)
    if count is None:
        raise BadConfig(f"output {part.output!r}: its number of classes is not fixed")
    if part.background != "none":
        first = 1 if part.background == "first" else 0
        tensor, count = graph.slice(tensor, first, first + count - 1, 2), count - 1
    if objectness is not None:
        trust, width = _rows(graph, objectness)
        if width != 1:
            raise BadConfig(f"objectness: one value for each box, found {width} in {objectness.output!r}")
        tensor = graph.binary("Mul", tensor, _as_float(graph, trust, objectness.output))
    if count < 1:
        raise BadConfig(f"output {part.output!r} has no column for a class")
    return tensor, count


def _one_hot(graph: Appender, part: SelectedPart, classes: int | None) -> tuple[str, int]:
    """A score and a class number become one score for each class, zero but for one."""
    if classes is None:
        raise BadConfig("the file gives class numbers, not how many classes there are: name them with --classes")
    score, _ = _rows(graph, part.scores)
    number, _ = _rows(graph, part.classes)
    score, number = _as_float(graph, score, part.scores.output), _as_float(graph, number, part.classes.output)
    every = graph.constant(np.arange(classes).reshape(1, 1, -1) + part.first_class)
    same = graph.node("Cast", [graph.node("Equal", [number, every])], to=TensorProto.FLOAT)
    return graph.binary("Mul", same, score), classes


# -- boxes ------------------------------------------------------------------------------------------------------------
def _boxes(graph: Appender, part: BoxPart, priors: PriorsPart | None) -> str:
    tensor, count = _rows(graph.step("boxes"), part)
    tensor = _as_float(graph, tensor, part.output)
    if count != 4:
        raise BadConfig(f"boxes: four values for each box, found {count} in {part.output!r}")
    if priors is not None:
        corners = _ssd_boxes(graph.step("priors"), tensor, part, priors)
        return _in_pixels(graph, corners, priors.units)
    return _in_pixels(graph, _corners(graph, tensor, part.format), part.units)


def _corners(graph: Appender, tensor: str, form: str) -> str:
    """Any of the formats as x1, y1, x2, y2."""
    if form == "xyxy":
        return tensor
    if form == "yxyx":
        return graph.node("Gather", [tensor, graph.constant([1, 0, 3, 2], np.int64)], axis=2)
    place, size = graph.slice(tensor, 0, 2, 2), graph.slice(tensor, 2, 4, 2)
    if form == "xywh":
        return graph.concat([place, graph.binary("Add", place, size)], 2)
    half = graph.binary("Mul", size, 0.5)
    return graph.concat([graph.binary("Sub", place, half), graph.binary("Add", place, half)], 2)


def _in_pixels(graph: Appender, tensor: str, units: str) -> str:
    if units == "pixels":
        return tensor
    width, height = graph.size
    return graph.binary("Mul", tensor, np.array([[[width, height, width, height]]], np.float32))


def _ssd_boxes(graph: Appender, offsets: str, boxes: BoxPart, part: PriorsPart) -> str:
    """Liu et al. 2016, eq. 2 solved for the box: centre = prior + offset * variance * size, size = prior * exp(...)."""
    if part.output is not None:
        priors, count = _rows(graph, Part(output=part.output))[0], _length(graph, Part(output=part.output))
    else:
        assert part.file is not None
        values = read_priors(part.file)
        priors, count = graph.constant(values[None]), len(values)
    wanted = _length(graph, boxes)
    if count is not None and wanted is not None and count != wanted:
        raise BadConfig(
            f"{part.output or part.file} has {counted(count, 'prior')}, output {boxes.output} has "
            f"{counted(wanted, 'box')}; needed one prior for each box, in the order of the boxes"
        )
    centre, size = graph.slice(priors, 0, 2, 2), graph.slice(priors, 2, 4, 2)
    if part.format == "xyxy":
        size = graph.binary("Sub", size, centre)
        centre = graph.binary("Add", centre, graph.binary("Mul", size, 0.5))
    scaled = graph.binary("Mul", offsets, np.array([[part.variances]], np.float32))
    moved = graph.binary("Add", graph.binary("Mul", graph.slice(scaled, 0, 2, 2), size), centre)
    grown = graph.binary("Mul", graph.node("Exp", [graph.slice(scaled, 2, 4, 2)]), size)
    return _corners(graph, graph.concat([moved, grown], 2), "cxcywh")


def read_priors(file: str | Path) -> np.ndarray:
    """Priors float32 [A, 4] of an .npy file. Raises BadInput."""
    path = Path(file)
    try:
        if path.stat().st_size > MOST_PRIORS:
            raise BadInput(f"{path}: {path.stat().st_size / 2**20:.0f} MiB of priors; a detector has far fewer")
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file. The layout ssd needs priors: --priors FILE.npy, float [A, 4]") from error
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path}: not a readable .npy file ({error})") from error
    values = np.asarray(values)
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    if values.ndim != 2 or values.shape[1] != 4 or not np.issubdtype(values.dtype, np.floating):
        raise BadInput(f"{path}: priors must be floating point [A, 4], found {values.dtype} {list(values.shape)}")
    return values.astype(np.float32)


# -- centers ----------------------------------------------------------------------------------------------------------
def _centers(graph: Appender, part: CentersPart, top_k: int) -> tuple[str, str, int]:
    """Zhou et al. 2019, section 4: peaks of 3 x 3, the best K places, and the box around each."""
    shape = _fixed(graph, part.heatmap, 4)
    batch, count, height, width = shape
    area, kept = height * width, min(top_k, height * width)
    graph.step("peaks")
    heat = _as_float(graph, part.heatmap, part.heatmap)
    if part.activation == "sigmoid":
        heat = graph.node("Sigmoid", [heat])
    pooled = graph.node("MaxPool", [heat], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    peak = graph.node("Cast", [graph.node("Equal", [pooled, heat])], to=TensorProto.FLOAT)
    scores = graph.reshape(graph.binary("Mul", heat, peak), [batch, count, area])
    best = graph.largest(scores, 1)
    places = graph.node("TopK", [best, graph.constant([kept], np.int64)], outputs=2, axis=1)
    index = graph.unsqueeze(places, 1)
    graph.step("boxes")
    geometry = graph.reshape(_geometry(graph, part, shape), [batch, 4, area])
    picked = _pick(graph, geometry, index, [batch, 4, kept])
    boxes = _corners(graph, graph.node("Transpose", [picked], perm=[0, 2, 1]), "cxcywh")
    graph.step("scores")
    scores = _pick(graph, scores, index, [batch, count, kept])
    return boxes, graph.node("Transpose", [scores], perm=[0, 2, 1]), count


def _fixed(graph: Appender, name: str, rank: int) -> list[int]:
    shape = _shape(graph, name)
    if len(shape) != rank or None in shape:
        raise BadConfig(f"output {name!r} is {list(shape)}; needed {rank} fixed sizes. Give --size WIDTHxHEIGHT")
    return [int(d) for d in shape if d is not None]


def _geometry(graph: Appender, part: CentersPart, shape: Sequence[int]) -> str:
    """Centre and size [N, 4, h, w] in pixels of the input."""
    batch, _, height, width = shape
    stride = np.array([graph.size[0] / width, graph.size[1] / height], np.float32).reshape(1, 2, 1, 1)
    xs, ys = np.meshgrid(np.arange(width), np.arange(height))
    grid = np.stack([xs, ys])[None].repeat(batch, 0)
    for name in filter(None, (part.size, part.offset)):
        if _fixed(graph, name, 4) != [batch, 2, height, width]:
            raise BadConfig(
                f"output {name!r} is {_fixed(graph, name, 4)}; the heat map asks for {[batch, 2, height, width]}"
            )
    if part.offset is None:
        centre = graph.constant((grid + 0.5) * stride)
    else:
        offset = _as_float(graph, part.offset, part.offset)
        centre = graph.binary("Mul", graph.binary("Add", offset, grid), stride)
    size = _as_float(graph, part.size, part.size)
    if part.size_units == "map":
        size = graph.binary("Mul", size, stride)
    return graph.concat([centre, size], 1)


def _pick(graph: Appender, tensor: str, index: str, shape: Sequence[int]) -> str:
    """Columns of [N, K, area] at index [N, 1, kept]."""
    every = graph.node("Expand", [index, graph.constant(shape, np.int64)])
    return graph.node("GatherElements", [tensor, every], axis=2)
