"""``edgekit card``"""

from __future__ import annotations

from . import options
from .output import print_json

EXAMPLE = """
edgekit card refinedetlite
edgekit card yolov3-tiny --json
"""


def card(recipe: options.Recipe, json: options.Json = False) -> None:
    """Write a page of Markdown about a recipe: structure, figures, what its paper claims, what was measured here."""
    import edgekit

    text = edgekit.card(recipe)
    print_json({"recipe": recipe, "markdown": text}) if json else print(text, end="")
