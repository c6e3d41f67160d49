"""What the scripts of benchmarks/ let a user say in the same way: counts, the zoo's recipes, where the data lies."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edgekit.paths import unknown_name
from edgekit.recipe import recipe_names
from edgekit.runtime.errors import BadInput


def count(text: str) -> int:
    """argparse's type of a number of things, of which there must be one."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {value}")
    return value


def shipped(name: str) -> str:
    """argparse's type of a shipped recipe's name: a mistyped one is said, with the nearest, before anything is done."""
    if name not in (known := recipe_names()):
        raise argparse.ArgumentTypeError(str(unknown_name("shipped recipe", name, known, "List them: edgekit zoo")))
    return name


def data_folder(given: Path) -> str:
    """The whole path of --data. Raises BadInput here, since the library would name another command's way to say it."""
    if not given.is_dir():
        raise BadInput(f"{given}: no such folder. --data names the one in which the recipe's data lies (its data.root)")
    return str(given.resolve())


def data_root(given: Path) -> str:
    """--data as an override of a recipe, quoted as YAML wants it of any path."""
    return f"data.root={json.dumps(data_folder(given))}"
