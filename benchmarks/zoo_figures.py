"""Count parameters, multiply-accumulates and boxes of every shipped recipe into recipes/figures.json.

    python benchmarks/zoo_figures.py                 recipes that are new or name another network than was counted
    python benchmarks/zoo_figures.py RECIPE ...      these
    python benchmarks/zoo_figures.py --all           all, after a change of a network's code; a minute or two

``edgekit zoo`` prints them; tests/models/test_figures.py counts them anew.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from arguments import shipped

from edgekit.measure.listing import FIGURES, figures_key, read_figures
from edgekit.models.figures import count_figures
from edgekit.paths import share
from edgekit.recipe import load_recipe, recipe_names
from edgekit.runtime.artifact import new_file


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", type=shipped, metavar="RECIPE", help="default: those whose network changed")
    parser.add_argument("--all", action="store_true", help="count every recipe anew")
    asked = parser.parse_args(arguments)
    if asked.all and asked.names:
        parser.error("--all counts every recipe: leave the names out")
    known = read_figures()
    recipes = {name: load_recipe(name) for name in recipe_names()}
    keys = {name: figures_key(recipe) for name, recipe in recipes.items()}
    found = {name: known[name] for name in recipes if name in known}
    stale = [name for name in recipes if asked.all or known.get(name, {}).get("key") != keys[name]]
    for name in asked.names or stale:
        found[name] = {"key": keys[name], **count_figures(recipes[name])}
        print(f"{name}: {found[name]}", flush=True)
    with new_file(share("recipes") / FIGURES) as handle:
        handle.write(json.dumps({"recipes": dict(sorted(found.items()))}, indent=1) + "\n")


if __name__ == "__main__":
    main()
