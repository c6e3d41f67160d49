"""The zoo as a table: every recipe's figures, every published figure beside ours, and a one-page card of a recipe.

Nothing is computed here: figures are counted once by ``benchmarks/zoo_figures.py`` and kept beside the recipes, the
papers' lie in ``benchmarks/papers/``, and what was measured in ``benchmarks/results/zoo.json``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..config import read_mapping
from ..paths import share
from ..recipe import Recipe, load_recipe, recipe_names
from ..runtime.artifact import value_sha256
from ..runtime.errors import BadInput

FIGURES = "figures.json"
WEIGHTS_CARD = "README.md"  # beside shipped weights, by ``benchmarks/weights_card.py``
LATENCY_IS = "image to the network's boxes, without NMS: no score passes the threshold"  # of ``zoo_latency.py``
MARKS = {"exact": "exact", "fit": "fitted", "open": "open"}
# Options that change what leaves the graph, not the network.
NOT_STRUCTURE = ("candidates", "size", "theta", "lowering")


# -- figures of our recipes -------------------------------------------------------------------------------------------
def read_figures() -> dict[str, dict[str, Any]]:
    """Recipe -> parameters, macs, boxes, boxes_are, and the ``key`` of what they were counted on."""
    return _read_json(share("recipes") / FIGURES, "python benchmarks/zoo_figures.py").get("recipes", {})


def figures_key(recipe: Recipe) -> str:
    """Changes with all that the figures depend on, except the code of the network."""
    section = recipe.model.model_dump(mode="json")
    return value_sha256({"model": section, "size": list(recipe.preprocess.size), "classes": len(recipe.classes)})[:16]


def _read_json(file: Path, mend: str) -> dict[str, Any]:
    """{} where there is no file. Raises BadInput for one that is damaged, naming the command that makes it anew."""
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read ({error}). Make it again: {mend}") from error
    if not isinstance(values, dict):
        raise BadInput(f"{file}: expected a JSON object. Make it again: {mend}")
    return values


def _figures(recipe: Recipe, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Kept figures of a recipe, if they were counted on this very network; else nothing."""
    found = known.get(recipe.name, {})
    if found.get("key") != figures_key(recipe):
        return {}
    return {
        "parameters": found["parameters"],
        "macs": found["macs"],
        "gops": 2 * found["macs"] / 1e9,
        "fp32_mb": 4 * found["parameters"] / 1e6,
        "boxes": found["boxes"],
        "boxes_are": found["boxes_are"],
    }


# -- edgekit zoo ------------------------------------------------------------------------------------------------------
def zoo(papers: bool = False) -> list[dict[str, Any]]:
    """Every shipped recipe: figures, paper, classes, shipped weights, and what they were measured at.

    parameters: all that training changes;  macs: multiply-accumulates of one image, gops: twice that in units of 10^9
    fp32_mb: four bytes per parameter, in 10^6;  boxes: anchors, cells or regions that the decode chooses from
    papers: instead, every figure of ``benchmarks/papers`` beside ours, see ``published``
    """
    if papers:
        return published()
    known = read_figures()
    return [_record(load_recipe(name), known) for name in recipe_names()]


def _record(recipe: Recipe, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "description": recipe.description,
        "input": "{}x{}".format(*recipe.preprocess.size),
        **_figures(recipe, known),
        "classes": list(recipe.classes),
        "weights": "shipped" if recipe.weights else "to be trained",
        "measured": _accuracy(recipe),
        "paper": recipe.paper,
    }


def _accuracy(recipe: Recipe) -> dict[str, float | str]:
    """What the shipped weights reached; a copy of a recipe without them has none of it."""
    return recipe.measured if recipe.weights else {}


# -- edgekit zoo --papers ---------------------------------------------------------------------------------------------
@cache
def paper_rows() -> tuple[tuple[str, dict[str, Any]], ...]:
    """(paper, row) of every file in ``benchmarks/papers``; their heads say what the keys mean."""
    files = [read_mapping(file) for file in sorted(share("benchmarks/papers").glob("*.yaml"))]
    return tuple((values["paper"], row) for values in files for row in values["rows"])


def published() -> list[dict[str, Any]]:
    """Every printed figure beside ours: paper, system, metric, where, printed, ours, ratio and mark.

    ours, printed: in the unit of the printed figure;  convention: what was counted, see ``measure/conventions``
    mark: "exact" (ours rounds to what is printed), "fitted" (a reading within 1 %) or "open" (not met)
    """
    found = []
    for paper, row in paper_rows():
        for figure in row.get("figures", []):
            if figure["printed"] is not None:
                found.append(_compared(paper, row, figure))
    return found


def _compared(paper: str, row: Mapping[str, Any], figure: Mapping[str, Any]) -> dict[str, Any]:
    ours = figure["ours"] / figure["unit"]
    return {
        "paper": paper,
        "system": row["name"],
        "input": _pixels(row),
        "metric": figure["metric"],
        "convention": figure["convention"],
        "unit": f"{figure['unit']:.0e}".replace("e+0", "e"),
        "printed": figure["printed"],
        "ours": ours,
        "ratio": ours / float(figure["printed"]),
        "mark": MARKS[figure["status"]],
        "where": figure["where"],
        "note": figure.get("note"),
    }


# -- edgekit card -----------------------------------------------------------------------------------------------------
def card(recipe: str | Path) -> str:
    """A page of Markdown about a recipe: structure, figures, what its paper claims, and what was measured here."""
    found = load_recipe(recipe)
    named = found.name if found.folder == share("recipes") / found.name else shlex.quote(str(recipe))
    parts = [_head(found), _structure(found), _figure_part(found), _claims(found), _measured(found, named)]
    parts += [_weights_card(found), _use(found, named)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(recipe: Recipe) -> str:
    classes = ", ".join(recipe.classes) if len(recipe.classes) <= 20 else f"{len(recipe.classes)} classes"
    weights = "Trained weights ship with it." if recipe.weights else "No weights ship with it."
    return f"# {recipe.name}\n\n{recipe.description}. Paper: {recipe.paper or 'none'}. {weights}\n\nClasses: {classes}"


def _structure(recipe: Recipe) -> str:
    """The detector's parts with what their classes say of themselves; needs PyTorch, and is left out without it."""
    from importlib.util import find_spec

    options = ", ".join(f"`{key}: {value}`" for key, value in recipe.model.options.items()) or "none"
    text = f"## Structure\n\nBuilder `{recipe.model.name}` of `edgekit/models/zoo.py`; options: {options}"
    if find_spec("torch") is None:
        return text
    from ..models.figures import parts

    rows = [
        [f"`{part.name}`", part.kind, part.says, f"{part.parameters:,}"] for part in parts(recipe) if part.parameters
    ]
    return f"{text}\n\n{_table(['part', 'class', 'what it is', 'parameters'], rows)}"


def _figure_part(recipe: Recipe) -> str:
    figures = _figures(recipe, read_figures())
    if not figures:
        return ""
    rows = [
        ["input", "{}x{} pixels".format(*recipe.preprocess.size)],
        ["parameters", f"{figures['parameters']:,}"],
        ["multiply-accumulates of one image", f"{figures['macs']:,}"],
        ["GOPS (2 x MACs / 10^9)", f"{figures['gops']:.3f}"],
        ["FP32 size (four bytes per parameter)", f"{figures['fp32_mb']:.2f} MB"],
        [figures["boxes_are"], f"{figures['boxes']:,}"],
    ]
    return f"## Figures\n\n{_table(['what', 'value'], rows)}"


def _structure_of(section: Mapping[str, Any]) -> dict[str, Any]:
    options = section.get("options") or {}
    return {"name": section["name"], **{k: v for k, v in options.items() if k not in NOT_STRUCTURE}}


def _pixels(row: Mapping[str, Any]) -> str:
    return "{}x{}".format(*row["input"])


def papers_of(recipe: Recipe) -> list[tuple[str, dict[str, Any]]]:
    """(paper, row) of every row of the papers that is this recipe's network, at any input."""
    own = _structure_of(recipe.model.model_dump(mode="json"))
    return [(paper, row) for paper, row in paper_rows() if _structure_of(row["model"]) == own]


def _claims(recipe: Recipe) -> str:
    """Figures and results that papers print of the same network."""
    rows = papers_of(recipe)
    figures = [
        [paper, row["name"], _pixels(row), figure["metric"], figure["printed"], f"{ours:.5g}", mark]
        for paper, row in rows
        for figure in row.get("figures", [])
        if figure["printed"] is not None
        for ours, mark in [(figure["ours"] / figure["unit"], MARKS[figure["status"]])]
    ]
    results = [
        [
            paper,
            row["name"],
            _pixels(row),
            *(entry[key] for key in ("metric", "tested_on", "printed")),
            entry.get("note", ""),
        ]
        for paper, row in rows
        for entry in row.get("measured", [])
    ]
    text = "## What papers print\n\nNothing of this network is in `benchmarks/papers/`."
    if figures or results:
        text = "## What papers print"
    if figures:
        text += "\n\n" + _table(["paper", "system", "input", "figure", "printed", "ours", "mark"], figures)
    if results:
        text += "\n\n" + _table(["paper", "system", "input", "result", "on", "printed", "note"], results)
        text += "\n\nResults are the authors'; EdgeKit has not reproduced them unless it says so below."
    return text


def _measured(recipe: Recipe, named: str) -> str:
    """named: what commands call the recipe"""
    lines = []
    if accuracy := _accuracy(recipe):
        lines.append("Shipped weights: " + ", ".join(f"{k} {v}" for k, v in accuracy.items()) + ".")
    entry = read_latency().get(named)
    if entry:
        rows = [
            [precision, record.get("runtime", "-"), *_latency_cells(record)]
            for precision, record in entry["precisions"].items()
        ]
        heads = ["precision", "best runtime", "p50 ms", "GOPS per second", "file MB", "note"]
        lines.append(f"One core of {entry['machine']}, {LATENCY_IS}.\n\n{_table(heads, rows)}")
    return "## Measured here\n\n" + ("\n\n".join(lines) or f"Nothing yet: {_to_measure(recipe, named)}.")


def _to_measure(recipe: Recipe, named: str) -> str:
    ships = named == recipe.name
    return "`python benchmarks/zoo_latency.py`" if ships else f"`edgekit run {named}` writes a report"


def _weights_card(recipe: Recipe) -> str:
    """The card that lies beside shipped weights: where it is, and what it measured."""
    file = recipe.folder / WEIGHTS_CARD
    if recipe.weights is None or not file.is_file():
        return ""
    near = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    told = re.findall(r"^(## (?:Accuracy|INT8|Latency)\n.*?)(?=^## |\Z)", file.read_text("utf-8"), re.M | re.S)
    first = f"## Shipped weights\n\nData, licence, training, pictures of successes and failures: `{near}`."
    return "\n\n".join([first, *(f"#{part.rstrip()}" for part in told)])


def _latency_cells(record: Mapping[str, Any]) -> list[str]:
    if record.get("p50_ms") is None:
        return ["-", "-", "-", str(record.get("error", ""))]
    note = "" if record.get("verdict") == "valid" else str(record.get("verdict", ""))
    return [f"{record['p50_ms']:.1f}", f"{record['gops_per_second']:.1f}", f"{record['file_mb']:.2f}", note]


def read_latency() -> dict[str, dict[str, Any]]:
    """Recipe -> what ``benchmarks/zoo_latency.py`` measured: machine, and per precision runtime, p50_ms and so on."""
    return _read_json(share("benchmarks/results") / "zoo.json", "python benchmarks/zoo_latency.py").get("recipes", {})


def _use(recipe: Recipe, named: str) -> str:
    trained = f"edgekit run {named}" if recipe.evaluation else f"edgekit predict {named} PICTURES --out OUT"
    data = " data.root=FOLDER" if named == recipe.name else ""  # a recipe of one's own knows it
    lines = [
        trained if recipe.weights else f"edgekit train {named}{data}",
        f"edgekit export {named} --board jetson-tx2 --out runs/{recipe.name}/onnx-tx2",
        f"edgekit lint runs/{recipe.name}/onnx-tx2 --board jetson-tx2",
    ]
    return "\n".join(["## Use", "", "```", *lines, "```"])


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
