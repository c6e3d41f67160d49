"""Lint: what a board would refuse, change or be slow at, known offline from the ONNX file and the board's profile."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx import TensorProto, defs

from ..board import Board, load_board
from ..extras import require
from ..paths import is_packed, unknown_name
from ..progress import Progress, quiet
from ..recipe import load_recipe, recipe_names
from ..runtime.artifact import MANIFEST, export_again, read_artifact
from ..runtime.errors import BadInput, BoardLacks
from ..words import counted
from .child import run_in_child
from .findings import EXPORT, SEVERITIES, Finding, Graph, record
from .forecast import Forecast, forecast
from .foreign import infer, precision_of, read_foreign, shape_text
from .operators import load_operators
from .rules_file import tensorrt_findings

_STANDARD = ("", "ai.onnx", "com.microsoft")


@dataclass(frozen=True)
class Report:
    """What lint found.

    model: what was looked at; stack: the software that it was checked against, None for boards without TensorRT
    facts: opset, nodes, operators (name -> count), inputs and outputs as text
    forecast: memory in MiB, as plain values
    """

    model: str
    board: str
    stack: str | None
    facts: Mapping[str, Any]
    findings: tuple[Finding, ...]
    forecast: Mapping[str, Any]

    @property
    def errors(self) -> int:
        return self.count("error")

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        counts = {f"{severity}s": self.count(severity) for severity in SEVERITIES}
        return {**asdict(self), "findings": [record(f) for f in self.findings], **counts, "ok": not self.errors}


def lint(
    source: str | Path, *, board: str = "jetson-tx2", release: str | None = None, progress: Progress | None = None
) -> Report:
    """Check a model for a board that need not be there.

    source: an ONNX file, an artifact folder of kind onnx or onnx-int8, or a recipe's name; a recipe is exported as the
        board would get it, with fresh weights
    release: L4T or JetPack release of the board's software, when it is not the one that its profile names first
    Raises BadInput for a file that is no ONNX graph, BadConfig for an unknown board or recipe, BoardLacks for an
    unknown release.
    """
    profile = load_board(board)
    if release is not None and not profile.stacks:
        raise BoardLacks(f"board {profile.name!r} has no releases of its software to choose from; leave --release out")
    if release is not None:
        profile.stack(release)
    tell = progress or quiet
    with tempfile.TemporaryDirectory(prefix="edgekit-lint-") as scratch:
        tell("reading the model", 0, 2)
        name, file = _resolve(source, profile, Path(scratch))
        tell(f"checking it for {profile.name}", 1, 2)
        arguments = {"path": str(file), "name": name, "board": str(board), "release": release}
        found = run_in_child("edgekit.conversion.lint:lint_file", arguments, "lint", name)
    tell("done", 2, 2)
    findings = tuple(
        Finding(**{**values, "advice": _filled(values["advice"], source, board)}) for values in found.pop("findings")
    )
    return Report(findings=findings, **found)


def _resolve(source: str | Path, board: Board, scratch: Path) -> tuple[str, Path]:
    """(what to call it, the ONNX file) of a file, an artifact folder or a recipe."""
    path = Path(source)
    if path.is_file() and is_packed(path):
        raise BadInput(
            f"{source}: is packed, as bundles are; lint reads an ONNX file, an artifact's folder or a recipe. "
            f"A bundle was linted when it was made; give what it was made of"
        )
    if path.is_file() or path.suffix == ".onnx":
        return str(source), path
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return str(source), _exported(source, board, scratch)
    if path.is_dir():
        return str(source), Path(read_artifact(path, kinds=("onnx", "onnx-int8")).file("model.onnx"))
    if str(source) in recipe_names():
        return str(source), _exported(source, board, scratch)
    if path.name != str(source):
        way = f"edgekit export RECIPE --board {board.name}"
        raise BadInput(f"{source}: no such ONNX file or folder. Make one with: {way}")
    raise unknown_name("ONNX file, artifact folder or recipe", str(source), recipe_names(), "Recipes: edgekit zoo")


def _filled(advice: str, source: str | Path, board: str) -> str:
    """An advice with the names of this call."""
    if EXPORT not in advice:
        return advice
    artifact = (Path(source) / MANIFEST).is_file()
    again = export_again(read_artifact(source), board) if artifact else f"edgekit export RECIPE --board {board}"
    return advice.replace(EXPORT, again)


def _exported(source: str | Path, board: Board, scratch: Path) -> Path:
    """The recipe's network as ONNX, in the layout and for the opset that the board takes."""
    recipe = load_recipe(source)
    require("torch", "train")
    arguments = {"recipe": str(recipe.folder), "layout": board.input_layouts[0], "target": str(scratch / "model.onnx")}
    run_in_child("edgekit.conversion.lint:export_recipe", arguments, "export", recipe.name)
    return scratch / "model.onnx"


def export_recipe(recipe: str, layout: str, target: str) -> None:
    """The child's side: export with fresh weights and simplify; what the simplifier cannot do stays as it is."""
    from ..models.zoo import build
    from ..runtime.errors import ChildDied
    from .export import ExportOptions, export_onnx

    found = load_recipe(recipe)
    size = found.preprocess.size
    model = build(found.model.name, len(found.classes), found.model.options, size).eval()
    options = ExportOptions(layout=layout, top_k=found.export.top_k, opset=found.export.opset)
    plain = export_onnx(model, found.preprocess.value(), options, f"{target}.plain")
    try:
        run_in_child(
            "edgekit.conversion.simplify:simplify_file", {"source": str(plain), "target": target}, "simplify", recipe
        )
    except ChildDied:
        Path(plain).rename(target)


def lint_file(path: str, name: str, board: str, release: str | None) -> dict[str, Any]:
    """The child's side: the fields of a report, as JSON values."""
    profile = load_board(board)
    model = infer(read_foreign(path))
    stack, note = profile.stack_for(release) if profile.stacks else (None, "")
    graph = Graph(model, profile, stack, load_operators(stack.operators) if stack else None)
    findings = list(tensorrt_findings(graph)) if stack else list(_cpu_findings(graph))
    findings += _contract(graph)
    if stack is not None and note:
        findings.append(Finding("note", "release", note, f"See whether the board has TensorRT {stack.tensorrt}."))
    memory = forecast(graph, _precision(graph))
    findings += _memory(graph, memory)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return {
        "model": name,
        "board": profile.name,
        "stack": stack.name if stack else None,
        "facts": _facts(graph),
        "findings": [record(finding) for finding in findings],
        "forecast": {**asdict(memory), "build_total": memory.build_total, "run_total": memory.run_total},
    }


def _facts(graph: Graph) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for _, node in graph.nodes:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    constant = {t.name for t in graph.model.graph.initializer}
    return {
        "opset": graph.opset,
        "ir_version": graph.model.ir_version,
        "producer": f"{graph.model.producer_name} {graph.model.producer_version}".strip(),
        "nodes": len(graph.nodes),
        "operators": dict(sorted(counts.items(), key=lambda item: -item[1])),
        "inputs": {v.name: _value_text(v) for v in graph.model.graph.input if v.name not in constant},
        "outputs": {v.name: _value_text(v) for v in graph.model.graph.output},
    }


def _value_text(value: Any) -> str:
    return f"{TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()} {shape_text(value)}"


def _precision(graph: Graph) -> str:
    """What an engine of this file would be: INT8 where it is quantized, else FP16 where the board has it.

    Without TensorRT the file is computed as it is: INT8 where it is quantized, else FP32, to which FP16 is cast there.
    """
    quantized = precision_of(graph.model) == "int8"
    if graph.stack is None:
        return "int8" if quantized else "fp32"
    if quantized and "int8" in graph.board.precisions:
        return "int8"
    return "fp16" if "fp16" in graph.board.precisions else "fp32"


def _cpu_findings(graph: Graph) -> Iterator[Finding]:
    """Boards without TensorRT: ONNX Runtime knows every standard operator."""
    if graph.opset > graph.board.opset_max:
        found = f"opset {graph.opset}; board {graph.board.name} is known to read up to {graph.board.opset_max}"
        yield Finding("warning", "opset", found, "Export with opset_version=13.")
    for _, node in graph.nodes:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if node.op_type.endswith("_TRT") or (domain in _STANDARD[:1] and not defs.has(node.op_type, graph.opset)):
            found = f"{node.op_type} is no ONNX operator; only a runtime with a plugin of that name computes it"
            yield graph.finding("error", "operator", node, found, "Export without it: the host does NMS.")
        elif domain not in _STANDARD and not defs.has(node.op_type, domain=domain):
            found = f"{node.op_type} of the domain {domain!r} is not part of ONNX Runtime"
            yield graph.finding("error", "operator", node, found, "Replace it, or export without it.")
    signed = [n for _, n in graph.nodes if n.op_type == "QuantizeLinear" and graph.kind(_zero(n)) == "INT8"]
    if signed and graph.board.int8_flavour == "x86":
        many = counted(len(signed), "activation")
        found = f"{many} in signed INT8 (flavour trt): slower than FP32 in ONNX Runtime on a CPU"
        yield Finding("warning", "int8", found, "Quantize for it: edgekit quantize --flavour x86")
    for value in graph.model.graph.input:
        shape = graph.shapes.get(value.name)
        if value.name not in graph.values and (shape is None or None in shape):
            advice = "edgekit import-onnx FILE --size WIDTHxHEIGHT fixes it."
            yield Finding("note", "dynamic-shape", f"input {value.name!r} has the shape {shape_text(value)}", advice)


def _zero(node: Any) -> str:
    return node.input[2] if len(node.input) > 2 else ""


def _contract(graph: Graph) -> Iterator[Finding]:
    """EdgeKit's output contract: boxes [N, A, 4] and scores [N, A, C]."""
    outputs = {v.name: graph.shapes.get(v.name) for v in graph.model.graph.output}
    boxes, scores = outputs.get("boxes"), outputs.get("scores")
    fits = boxes is not None and scores is not None and len(boxes) == len(scores) == 3 and boxes[2] == 4
    if not fits:
        have = ", ".join(f"{v.name} {shape_text(v)}" for v in graph.model.graph.output)
        found = f"the outputs are {have}; EdgeKit's are boxes [N, A, 4] and scores [N, A, C]"
        yield Finding("note", "contract", found, "edgekit import-onnx FILE --layout NAME brings it there.")


def _memory(graph: Graph, memory: Forecast) -> Iterator[Finding]:
    if memory.peak.unknown:
        names = ", ".join(memory.peak.unknown[:3])
        count = len(memory.peak.unknown)
        found = f"the memory forecast is too low: {count} tensors have no fixed shape ({names}, ...)"
        yield Finding("warning", "memory", found, "Fix the input's shape and simplify the file.")
    if memory.available is None or graph.board.memory is None:
        return
    cap = float(graph.board.memory.workspace_mb)
    if memory.run_total > memory.available:
        found = f"running it takes about {memory.run_total:.0f} MiB; the board has {memory.available:.0f}"
        yield Finding("error", "memory", found, "Use a smaller input or network.")
    elif memory.build_total > memory.available:
        found = f"building it takes about {memory.build_total:.0f} MiB; the board has {memory.available:.0f}"
        yield Finding(
            "error", "memory", found, "Add swap to the board for the build, or use a smaller input or network."
        )
    elif memory.workspace is not None and memory.workspace < cap:
        found = f"{memory.workspace:.0f} MiB are left for the workspace of the build; the board's cap is {cap:.0f}"
        yield Finding("warning", "memory", found, "Add swap for the build, or build with a smaller workspace.")
