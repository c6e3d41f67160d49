"""The JSON Schemas of the files that EdgeKit reads and writes, for editors and for programs in other languages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..paths import unknown_name

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(name: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``report``, ``gate``, ``recipe``, ``board``, ``rules`` or ``references``.

    Raises BadConfig for another name.
    """
    if name not in SCHEMAS:
        raise unknown_name("schema", name, list(SCHEMAS), "Print one: edgekit schema report")
    return SCHEMAS[name]()


def _report() -> dict[str, Any]:
    from .report import report_schema

    return report_schema()


def _gate() -> dict[str, Any]:
    from .gate import GateResult

    return {"$schema": DRAFT, **GateResult.model_json_schema(mode="serialization")}


def _recipe() -> dict[str, Any]:
    from ..recipe import Recipe

    return {"$schema": DRAFT, **Recipe.model_json_schema()}


def _board() -> dict[str, Any]:
    from ..board import Board

    return {"$schema": DRAFT, **Board.model_json_schema()}


def _rules() -> dict[str, Any]:
    from .scoring import Rules

    return {"$schema": DRAFT, **Rules.model_json_schema()}


def _references() -> dict[str, Any]:
    from .scoring import ReferenceSet

    return {"$schema": DRAFT, **ReferenceSet.model_json_schema()}


SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "report": _report,
    "gate": _gate,
    "recipe": _recipe,
    "board": _board,
    "rules": _rules,
    "references": _references,
}
