"""The import's work on the graph, done in a child process: input, opset, decode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from ...runtime.errors import BadConfig
from ..foreign import infer, read_foreign
from ..graph import constants_to_initializers, name_nodes, opset
from .decode import OLDEST_DECODE, append_decode
from .inputs import class_names, free_outputs, prepare_input
from .layouts import GIVEN, LAYOUTS, describe, find_spec
from .opset import LATEST_IR, to_opset_13
from .spec import LayoutSpec, read_spec

_OPEN_TYPE = "instead is null"  # the inference's words behind an operator that it does not know


def convert(
    source: str, target: str, layout: str, classes: list[str] | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ``source`` with EdgeKit's input and outputs to ``target``. Returns what was found out on the way."""
    model = read_foreign(source)
    asked = read_spec(layout) if layout not in LAYOUTS else None
    size = tuple(options["size"]) if options["size"] else None
    outputs = describe(model)
    taken = prepare_input(model, size, asked.constants if asked else {})
    model, kept = to_opset_13(_known(model, taken.was_open))
    if opset(model) < OLDEST_DECODE:
        raise BadConfig(
            f"{source}: {kept}; the decode is written with operators of opset {OLDEST_DECODE} and later. "
            "Export it anew from its framework with opset 13, and import that file"
        )
    names = classes or class_names(model)
    spec = asked or find_spec(layout, model, len(names) if classes and names else None)
    spec = _with_priors(spec, options["priors"])
    spec = spec.model_copy(update={"top_k": options["top_k"]}) if layout in LAYOUTS else spec
    spec = _renamed(spec, {**taken.moved, **free_outputs(model)})
    count = append_decode(model, spec, taken.size, len(names) if names else None)
    _check_classes(names, count, describe_names=classes is not None)
    name_nodes(model)
    model.ir_version = min(model.ir_version, LATEST_IR)
    onnx.save(_checked(model, source), target)
    return {
        "size": list(taken.size),
        "layout": taken.layout,
        "shape": list(taken.shape),
        "classes": names,
        "nms": spec.nms,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "outputs": outputs,
        "notes": [kept] if kept else [],
    }


def _known(model: onnx.ModelProto, was_open: bool) -> onnx.ModelProto:
    """Shapes of everything; files with dynamic axes are simplified first, where that helps."""
    constant = {t.name for t in model.graph.initializer}
    for value in [v for v in model.graph.output if was_open and v.name not in constant]:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()  # what the file says belongs to its dynamic axes
    if was_open:
        del model.graph.value_info[:]
    constants_to_initializers(model)
    inferred = infer(model)
    if all(_fixed(value) for value in inferred.graph.output):
        return inferred
    import onnxsim

    simplified, valid = onnxsim.simplify(model)
    return infer(simplified) if valid else inferred


def _fixed(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)


def _with_priors(spec: LayoutSpec, file: str | None) -> LayoutSpec:
    if file is not None and spec.priors is None:
        raise BadConfig("--priors: this layout has no priors; they belong to the layout ssd")
    if file is not None:
        assert spec.priors is not None
        return spec.model_copy(update={"priors": spec.priors.model_copy(update={"file": file, "output": None})})
    if spec.priors is not None and spec.priors.file == GIVEN:
        raise BadConfig(
            "layout 'ssd' needs priors, and no output of the file is [A, 4]: give --priors FILE.npy, [A, 4]"
        )
    return spec


def _renamed(spec: LayoutSpec, moved: Mapping[str, str]) -> LayoutSpec:
    """The spec with the outputs' new names."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: moved.get(v, v) if k in keys and isinstance(v, str) else walk(v) for k, v in value.items()}
        return value

    keys = ("output", "heatmap", "size", "offset")
    return LayoutSpec.model_validate(walk(spec.model_dump()))


def _check_classes(names: Sequence[str] | None, count: int, describe_names: bool) -> None:
    if names is None:
        raise BadConfig(
            f"the file has {count} classes and does not name them: give --classes FILE, a name on each line"
        )
    if len(names) != count:
        whose = "--classes gives" if describe_names else "the file's metadata names"
        raise BadConfig(f"{whose} {len(names)} classes, the layout finds {count}. Check --layout and --classes")


def _checked(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """The model with inferred shapes; a decode that does not fit its outputs shows here."""
    try:
        inferred = _inferred(model)
        onnx.checker.check_model(inferred)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BadConfig(f"{source}: the layout does not fit the graph ({first})") from error
    del inferred.graph.value_info[:]
    return inferred


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Strictly, unless an operator that inference does not know leaves types open."""
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        if _OPEN_TYPE not in str(error):
            raise
    return infer(model)
