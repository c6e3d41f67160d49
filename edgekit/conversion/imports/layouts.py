"""The named layouts: from a file's outputs to what each of them means, or an error that shows the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto

from ...runtime.errors import BadConfig
from ..foreign import shape_text, value_shape
from .spec import Activation, BoxPart, CentersPart, LayoutSpec, Part, PriorsPart, ScorePart, SelectedPart

Shape = tuple[int | None, ...]
_SHAPING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Concat", "Cast"})
# What the names of outputs say of them; the first that fits counts
_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "priors": ("prior", "anchor"),
        "boxes": ("box", "loc", "reg"),
        "scores": ("score", "logit", "conf", "cls", "class", "prob", "label"),
    }
)
_PROBABILITIES: Mapping[str, Activation] = MappingProxyType({"Softmax": "softmax", "Sigmoid": "sigmoid"})


@dataclass(frozen=True)
class Outputs:
    """The outputs of a file. classes: how many class names are known, or None."""

    model: ModelProto
    classes: int | None

    @property
    def shapes(self) -> dict[str, Shape]:
        found = {v.name: value_shape(v) for v in self.model.graph.output}
        return {name: shape for name, shape in found.items() if shape is not None}

    def of_rank(self, rank: int, last: int | None = None) -> list[str]:
        """Names of the outputs with so many axes, and so many values on the last one."""
        return [n for n, s in self.shapes.items() if len(s) == rank and last in (None, s[-1])]

    def text(self) -> str:
        return describe(self.model)

    def activated(self, name: str) -> bool:
        """Whether these are probabilities already: a Softmax or Sigmoid stands before the reshaping at the end."""
        makers = {output: node for node in self.model.graph.node for output in node.output}
        seen: list[NodeProto | None] = [makers.get(name)]
        while seen:
            node = seen.pop()
            if node is not None and node.op_type in _PROBABILITIES:
                return True
            if node is not None and node.op_type in _SHAPING:
                seen += [makers.get(i) for i in (node.input if node.op_type == "Concat" else node.input[:1])]
        return False

    def activation(self, name: str, wanted: Activation) -> Activation:
        return "none" if self.activated(name) else wanted


def describe(model: ModelProto) -> str:
    """``output0 float [1, 84, 8400]``, for every output."""
    kinds = {v.name: TensorProto.DataType.Name(v.type.tensor_type.elem_type).lower() for v in model.graph.output}
    return ", ".join(f"{v.name} {kinds[v.name]} {shape_text(v)}" for v in model.graph.output)


@dataclass(frozen=True)
class Layout:
    """A named layout.

    needs: what it looks for, in words; find: from the outputs to a spec, None when they do not fit
    preprocess: how such networks are usually fed; what is not here the user must say
    """

    needs: str
    find: Callable[[Outputs], LayoutSpec | None]
    preprocess: Mapping[str, Any]


def find_spec(name: str, model: ModelProto, classes: int | None) -> LayoutSpec:
    """The spec of a named layout for a file's outputs. Raises BadConfig that shows the outputs when they do not fit."""
    layout = LAYOUTS[name]
    outputs = Outputs(model, classes)
    spec = layout.find(outputs)
    if spec is not None:
        return spec
    if classes is not None and layout.find(Outputs(model, None)) is not None:
        raise BadConfig(
            f"layout {name!r} would fit with another number of classes: {classes} names are given, and it needs "
            f"{layout.needs}; the outputs of the file are: {outputs.text()}. Check --classes"
        )
    fitting = [other for other in LAYOUTS if other != name and other not in ALIASES and _fits(other, outputs)]
    hint = f" They would fit: {', '.join(fitting)}." if fitting else ""
    raise BadConfig(
        f"layout {name!r} needs {layout.needs}; the outputs of the file are: {outputs.text()}.{hint} "
        f"Any other layout can be described in a small YAML file: --layout FILE.yaml"
    )


def _fits(name: str, outputs: Outputs) -> bool:
    try:
        return LAYOUTS[name].find(outputs) is not None
    except BadConfig:  # it cannot be told
        return False


# -- one function for each layout -------------------------------------------------------------------------------------
def _yolov5(outputs: Outputs) -> LayoutSpec | None:
    """[N, A, 5 + C]: centre x, y, width, height in pixels, objectness, classes."""
    for name in outputs.of_rank(3):
        _, boxes, values = outputs.shapes[name]
        if values is None or values < 6 or (boxes is not None and boxes < values):
            continue
        if outputs.classes not in (None, values - 5):
            continue
        return LayoutSpec(
            boxes=BoxPart(output=name, columns=(0, 4), format="cxcywh"),
            objectness=Part(output=name, columns=(4, 5)),
            scores=ScorePart(output=name, columns=(5, values)),
        )
    return None


def _yolov8(outputs: Outputs) -> LayoutSpec | None:
    """[N, 4 + C, A], or [N, A, 4 + C]: centre x, y, width, height in pixels, classes."""
    for name in outputs.of_rank(3):
        _, first, second = outputs.shapes[name]
        if first is None or second is None:
            continue
        values, transposed = min(first, second), first < second
        if values < 5 or outputs.classes not in (None, values - 4):
            continue
        return LayoutSpec(
            boxes=BoxPart(output=name, columns=(0, 4), format="cxcywh", transposed=transposed),
            scores=ScorePart(output=name, columns=(4, values), transposed=transposed),
        )
    return None


def _end_to_end(outputs: Outputs) -> LayoutSpec | None:
    """[N, K, 6]: x1, y1, x2, y2 in pixels, score, class number."""
    names = outputs.of_rank(3, 6)
    if not names:
        return None
    name = names[0]
    return LayoutSpec(
        boxes=BoxPart(output=name, columns=(0, 4)),
        selected=SelectedPart(scores=Part(output=name, columns=(4, 5)), classes=Part(output=name, columns=(5, 6))),
        nms="none",
    )


def _selected(outputs: Outputs) -> LayoutSpec | None:
    """Boxes [N, K, 4], scores [N, K] and class numbers [N, K] as outputs of their own."""
    boxes = outputs.of_rank(3, 4)
    flat = outputs.of_rank(2)
    kinds = {v.name: v.type.tensor_type.elem_type for v in outputs.model.graph.output}
    count = outputs.shapes[boxes[0]][1] if boxes else None
    rows = [n for n in flat if outputs.shapes[n][1] == count]
    numbers = [n for n in rows if kinds[n] in (TensorProto.INT32, TensorProto.INT64)] or _named(rows, "class", "label")
    scores = [n for n in rows if n not in numbers]
    if not boxes or len(numbers) != 1 or len(scores) != 1:
        return None
    return LayoutSpec(
        boxes=BoxPart(output=boxes[0]),
        selected=SelectedPart(scores=Part(output=scores[0]), classes=Part(output=numbers[0])),
        nms="none",
    )


def _ssd(outputs: Outputs) -> LayoutSpec | None:
    """Offsets [N, A, 4], class scores [N, A, 1 + C] with the background first, and priors [A, 4]."""
    pair = _boxes_and_scores(outputs, 1)
    if pair is None:
        return None
    boxes, scores = pair
    rest = [n for n, s in outputs.shapes.items() if n not in pair and s[-1] == 4 and len(s) in (2, 3)]
    priors = PriorsPart(output=rest[0]) if rest else PriorsPart(file=GIVEN)
    return LayoutSpec(
        boxes=BoxPart(output=boxes, format="cxcywh", units="normalised"),
        scores=ScorePart(output=scores, background="first", activation=outputs.activation(scores, "softmax")),
        priors=priors,
    )


def _detr(outputs: Outputs) -> LayoutSpec | None:
    """Logits [N, Q, C + 1] with "no object" last, boxes [N, Q, 4] as centre and size in 0..1."""
    return _set_of(outputs, "softmax", 1)


def _rt_detr(outputs: Outputs) -> LayoutSpec | None:
    """Logits [N, Q, C] for a sigmoid, boxes [N, Q, 4] as centre and size in 0..1."""
    return _set_of(outputs, "sigmoid", 0)


def _set_of(outputs: Outputs, activation: Activation, extra: int) -> LayoutSpec | None:
    pair = _boxes_and_scores(outputs, extra)
    if pair is None:
        return None
    boxes, scores = pair
    return LayoutSpec(
        boxes=BoxPart(output=boxes, format="cxcywh", units="normalised"),
        scores=ScorePart(
            output=scores, background="last" if extra else "none", activation=outputs.activation(scores, activation)
        ),
        nms="none",
    )


def _boxes_and_scores(outputs: Outputs, extra: int) -> tuple[str, str] | None:
    """Two outputs [N, A, 4] and [N, A, C + extra] with the same A; names decide where several pairs fit.

    Raises BadConfig where they do not: boxes that are taken for scores are no error later on, only wrong.
    """
    wide, shapes = outputs.of_rank(3), outputs.shapes
    columns = None if outputs.classes is None else outputs.classes + extra
    pairs = [(b, s) for b in outputs.of_rank(3, 4) for s in wide if s != b and shapes[s][1] == shapes[b][1]]
    pairs = [(b, s) for b, s in pairs if columns in (None, shapes[s][2])]
    if len(pairs) > 1:
        told = {pair: _told(pair[0], "boxes") + _told(pair[1], "scores") for pair in pairs}
        best = max(told.values())
        pairs = [pair for pair in pairs if told[pair] == best]
    if len(pairs) > 1:
        boxes, scores = pairs[0]
        raise BadConfig(
            f"neither shapes nor names tell which output has the boxes and which the scores: {outputs.text()}. "
            f"Describe them in a small YAML file, --layout FILE.yaml (docs/import.md): "
            f"boxes: {{output: {boxes}, ...}}, scores: {{output: {scores}, ...}}, or the other way round"
        )
    return pairs[0] if pairs else None


def _told(name: str, wanted: str) -> int:
    """1 where a name says that it is what is wanted, -1 where it says that it is something else, else 0."""
    what = next((kind for kind, parts in _NAMES.items() if _named([name], *parts)), None)
    return 0 if what is None else 1 if what == wanted else -1


def _centernet(outputs: Outputs) -> LayoutSpec | None:
    """Heat map [N, C, h, w], size [N, 2, h, w] and offset [N, 2, h, w]."""
    maps = outputs.of_rank(4)
    pairs = [n for n in maps if outputs.shapes[n][1] == 2]
    heats = [n for n in maps if not _named([n], "off", "reg", "wh", "size", "dim")]  # center_offset is no heat map
    heat = _named(heats, "hm", "heat", "center", "cls") or [n for n in maps if n not in pairs]
    pairs = [n for n in pairs if n not in heat[:1]]
    sizes = _named(pairs, "wh", "size", "dim") or pairs[:1]
    offsets = [n for n in pairs if n not in sizes[:1]]
    if not heat or not sizes or len({outputs.shapes[n][2:] for n in (heat[0], *sizes[:1], *offsets[:1])}) != 1:
        return None
    if outputs.classes not in (None, outputs.shapes[heat[0]][1]):
        return None
    activation: Any = "none" if outputs.activated(heat[0]) else "sigmoid"
    centers = CentersPart(heatmap=heat[0], size=sizes[0], offset=offsets[0] if offsets else None, activation=activation)
    return LayoutSpec(centers=centers, nms="none")


def _decoded(outputs: Outputs) -> LayoutSpec | None:
    """EdgeKit's own contract: boxes [N, A, 4] as corners in pixels, scores [N, A, C]."""
    pair = _boxes_and_scores(outputs, 0)
    if pair is None:
        return None
    return LayoutSpec(boxes=BoxPart(output=pair[0]), scores=ScorePart(output=pair[1]))


def _named(names: Sequence[str], *parts: str) -> list[str]:
    return [n for n in names if any(part in n.lower() for part in parts)]


GIVEN = "given with --priors"  # stands for the file that the user names
_YOLO: Mapping[str, Any] = {
    "mode": "letterbox",
    "pad_value": 114,
    "colour": "rgb",
    "mean": (0, 0, 0),
    "std": (255, 255, 255),
}
_IMAGENET: Mapping[str, Any] = {"colour": "rgb", "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
_CENTERNET: Mapping[str, Any] = {
    "mode": "letterbox",
    "pad_value": 0,
    "colour": "bgr",
    "mean": (104.04, 113.985, 119.85),
    "std": (73.695, 69.87, 70.89),
}
_END = Layout("one output [N, K, 6] (x1, y1, x2, y2, score, class)", _end_to_end, _YOLO)
_V8 = Layout("one output [N, 4 + C, A] or [N, A, 4 + C] (centre, size, classes)", _yolov8, _YOLO)
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "yolov5": Layout("one output [N, A, 5 + C] (centre, size, objectness, classes)", _yolov5, _YOLO),
        "yolov8": _V8,
        "yolo11": _V8,
        "end2end": _END,
        "yolov10": _END,
        "yolo26": _END,
        "selected": Layout("outputs [N, K, 4], scores [N, K] and class numbers [N, K]", _selected, {"colour": "rgb"}),
        "ssd": Layout("outputs [N, A, 4] (offsets), [N, A, 1 + C] (classes), and priors [A, 4] or --priors", _ssd, {}),
        "centernet": Layout("maps [N, C, h, w], [N, 2, h, w] (size) and [N, 2, h, w] (offset)", _centernet, _CENTERNET),
        "detr": Layout("outputs [N, Q, 4] and [N, Q, C + 1] (no object last)", _detr, {"mode": "stretch", **_IMAGENET}),
        "rt-detr": Layout(
            "outputs [N, Q, 4] and [N, Q, C]",
            _rt_detr,
            {"mode": "stretch", "colour": "rgb", "mean": (0, 0, 0), "std": (255, 255, 255)},
        ),
        "edgekit": Layout("outputs [N, A, 4] (corners in pixels) and [N, A, C]", _decoded, {}),
    }
)
ALIASES = frozenset({"yolo11", "yolov10", "yolo26"})
