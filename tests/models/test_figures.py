"""The figures that ``edgekit zoo`` prints are those of the networks as they are built today."""

from __future__ import annotations

import os
import re

import pytest

from edgekit.measure.listing import card, figures_key, read_figures
from edgekit.models.figures import count_figures, parts
from edgekit.recipe import load_recipe, recipe_names

KNOWN = read_figures()
# One of each family; all of them with EDGEKIT_NIGHTLY=1.
QUICK = ("mobile-centernet-w16", "centernet-resnet18", "refinedetlite", "refinedet-mobilenet-v2", "thundernet-snet49")
COUNTED = recipe_names() if "EDGEKIT_NIGHTLY" in os.environ else QUICK


@pytest.mark.parametrize("name", COUNTED)
def test_kept_figures_are_true(name):
    assert {k: v for k, v in KNOWN[name].items() if k != "key"} == count_figures(load_recipe(name))


@pytest.mark.parametrize("name", recipe_names())
def test_kept_figures_belong_to_the_recipe(name):
    assert KNOWN.get(name, {}).get("key") == figures_key(load_recipe(name)), (
        f"run: python benchmarks/zoo_figures.py {name}"
    )


def test_heads_of_recipes_say_the_kept_figures():
    told = {}
    for name in recipe_names():
        head = (load_recipe(name).folder / "recipe.yaml").read_text("utf-8").partition("\nname:")[0]
        if found := re.search(r"[\d.]+ M parameters, [\d.]+ GMAC", head):
            told[name] = found[0]
    assert told.keys() >= {"thundernet-snet49", "refinedetlite", "ssd300-mobilenet-v2"}
    assert told == {
        name: f"{KNOWN[name]['parameters'] / 1e6:.2f} M parameters, {KNOWN[name]['macs'] / 1e9:.2f} GMAC"
        for name in told
    }


@pytest.mark.parametrize("name", COUNTED)
def test_a_recipe_has_a_card(name):
    """One page: structure, figures, what papers print, what was measured, and commands."""
    text = card(name)
    heads = [line for line in text.splitlines() if line.startswith(("# ", "## "))]
    own = [head for head in heads if head != "## Shipped weights"]
    assert own == [f"# {name}", "## Structure", "## Figures", "## What papers print", "## Measured here", "## Use"]
    assert f"| parameters | {KNOWN[name]['parameters']:,} |" in text
    assert f"| {KNOWN[name]['boxes_are']} | {KNOWN[name]['boxes']:,} |" in text


def test_parts_add_up_and_say_what_they_are():
    found = parts(load_recipe("refinedetlite"))
    assert sum(part.parameters for part in found) == KNOWN["refinedetlite"]["parameters"]
    assert all(part.says for part in found)
    assert {part.kind for part in found} >= {"StagedBackbone", "LightFusion", "PlainODM"}
