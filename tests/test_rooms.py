"""Imports point one way, as docs/architecture.md says; those inside functions count too."""

import ast
from pathlib import Path

import pytest

import edgekit

ROOT = Path(edgekit.__file__).parent
SHARED = {
    "__version__",
    "board",
    "config",
    "extras",
    "hardware",
    "paths",
    "progress",
    "recipe",
    "sizes",
    "words",
}  # modules that every room but runtime may read
LOWER = {"runtime", "data", "models", "evaluation"}
ROOMS = {
    "runtime": {"__version__"},
    "progress": set(),
    "sizes": set(),
    "words": set(),
    "config": {"runtime", "words"},
    "paths": {"runtime"},
    "hardware": {"config"},
    "board": {"config", "hardware", "paths", "runtime"},
    "recipe": {"config", "paths", "runtime", "sizes"},
    "data": SHARED | {"runtime"},
    "models": SHARED | {"runtime"},
    "evaluation": SHARED | {"runtime", "data", "models"},
    "training": SHARED | LOWER,
    "measure": SHARED | LOWER,
    "conversion": SHARED | LOWER | {"measure"},
    "deploy": SHARED | LOWER | {"measure", "conversion"},
    "spine": SHARED | LOWER | {"training", "conversion"},
    "checkup": SHARED | {"runtime", "conversion"},
    "live": SHARED | {"runtime", "pipeline", "spine"},
    "measuring": SHARED | LOWER | {"spine", "measure", "checkup"},
    "pipeline": SHARED | LOWER | {"spine", "measuring", "measure", "checkup"},
}


def imported(file):
    """Names at the top of the package that a file imports from."""
    package = ["edgekit", *file.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("edgekit."))
        if isinstance(node, ast.ImportFrom):
            head = package[: len(package) - node.level + 1] if node.level else []
            path = [*head, *(node.module or "").split(".")] if node.module else head
            if path[:1] == ["edgekit"]:
                yield from [path[1]] if len(path) > 1 else [a.name for a in node.names]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below_it(room):
    files = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else (ROOT / room).rglob("*.py")
    found = {(str(f.relative_to(ROOT)), name) for f in files for name in imported(f)}
    assert bool({name for _, name in found} - {room}) == bool(ROOMS[room]), "nothing was looked at"
    assert {(file, name) for file, name in found if name not in ROOMS[room] | {room}} == set()
