"""Count parameters, multiply-accumulates and boxes of every shipped recipe into recipes/figures.json.

    python benchmarks/zoo_figures.py [RECIPE ...]

``edgekit zoo`` prints them; tests/models/test_figures.py counts them anew. Run it after adding a recipe or changing a
network; with names only those are counted anew. Takes a minute or two.
"""

from __future__ import annotations

import json
import sys

from edgekit.measure.listing import FIGURES, figures_key, read_figures
from edgekit.models.figures import count_figures
from edgekit.paths import share
from edgekit.recipe import load_recipe, recipe_names
from edgekit.runtime.artifact import new_file


def main(names: list[str]) -> None:
    known = read_figures()
    found = {name: known[name] for name in recipe_names() if name in known}
    for name in names or recipe_names():
        recipe = load_recipe(name)
        found[name] = {"key": figures_key(recipe), **count_figures(recipe)}
        print(f"{name}: {found[name]}", flush=True)
    with new_file(share("recipes") / FIGURES) as handle:
        handle.write(json.dumps({"recipes": dict(sorted(found.items()))}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
