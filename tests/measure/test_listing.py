"""The zoo's listing, the papers' table and the cards, on what ships and on what is damaged."""

from __future__ import annotations

import json

import pytest

import edgekit
from edgekit.measure import listing
from edgekit.recipe import load_recipe, recipe_names
from edgekit.runtime.errors import BadConfig, BadInput


def test_every_recipe_is_listed_with_its_figures():
    records = {record["name"]: record for record in edgekit.zoo()}
    assert sorted(records) == recipe_names()
    lite = records["refinedetlite"]
    assert (lite["parameters"], lite["macs"], lite["boxes"]) == (24_598_330, 5_856_331_264, 1602)
    assert lite["gops"] == pytest.approx(11.712662528)
    assert lite["fp32_mb"] == pytest.approx(98.39332)
    assert lite["weights"] == "to be trained"
    shipped = {name for name, record in records.items() if record["weights"] == "shipped"}
    assert shipped >= {"mobile-centernet-w16-dhaka", "mobile-centernet-w16-bccd"}
    assert all(records[name]["measured"] for name in shipped), "run: python benchmarks/weights_card.py"
    assert all("parameters" in record for record in records.values()), "run: python benchmarks/zoo_figures.py"


def test_figures_of_another_network_are_not_shown(monkeypatch):
    recipe = load_recipe("refinedetlite", ["model.options.width=64"])
    assert listing._figures(recipe, listing.read_figures()) == {}
    assert listing._figures(load_recipe("refinedetlite"), listing.read_figures())


@pytest.mark.parametrize("change", ["preprocess.size=[256, 256]", "classes=[one]", "model.options={head: plain}"])
def test_the_key_of_figures_changes_with_what_they_depend_on(change):
    assert listing.figures_key(load_recipe("refinedetlite", [change])) != listing.figures_key(
        load_recipe("refinedetlite")
    )


def test_the_key_of_figures_does_not_change_with_the_training():
    same = listing.figures_key(load_recipe("refinedetlite", ["train.epochs=3"]))
    assert same == listing.figures_key(load_recipe("refinedetlite"))


def test_published_figures_have_a_ratio_and_a_mark():
    records = edgekit.zoo(papers=True)
    assert len(records) >= 120
    assert {record["mark"] for record in records} == {"exact", "fitted", "open"}
    assert {record["paper"] for record in records} >= {"CSPNet", "Lightweight SSD", "Mobile CenterNet", "RefineDet++"}
    found = next(r for r in records if r["system"] == "CenterNet ResNet-50" and r["metric"] == "operations")
    assert (found["printed"], found["mark"]) == ("18.9", "exact")
    assert found["ours"] == pytest.approx(18.9136611)
    assert found["ratio"] == pytest.approx(18.9136611 / 18.9)
    for record in records:
        assert (record["mark"] == "open") <= (abs(record["ratio"] - 1) > 0.01)


def test_a_card_has_structure_figures_claims_and_use():
    text = edgekit.card("refinedetlite")
    for words in (
        "# refinedetlite",
        "| `transfer` | LightFusion | Fig. 3b:",
        "| parameters | 24,598,330 |",
        "| GOPS (2 x MACs / 10^9) | 11.713 |",
        "| RefineDetLite | RefineDetLite | 320x320 | map | COCO test-dev | 26.8 |  |",
        "Nothing yet: `python benchmarks/zoo_latency.py`"
        if "refinedetlite" not in listing.read_latency()
        else "p50 ms",
        "edgekit train refinedetlite data.root=FOLDER\nedgekit export refinedetlite --board jetson-tx2 --out "
        "runs/refinedetlite/onnx-tx2\nedgekit lint runs/refinedetlite/onnx-tx2 --board jetson-tx2\n",
    ):
        assert words in text
    assert "24.3" not in text  # RefineDet on MobileNet is another network


def test_a_card_does_not_depend_on_what_leaves_the_graph():
    text = edgekit.card("refinedet320pp-vgg16")
    assert "| RefineDet++ | RefineDet320++ | 320x320 | boxes | 6375 | 6375 | exact |" in text
    assert "| 320x320 | map | VOC 2007 test | 83.6 | multi-scale testing |" in text


def test_a_card_shows_what_was_measured(monkeypatch):
    entry = {
        "machine": "a CPU",
        "precisions": {
            "fp32": {
                "runtime": "openvino",
                "p50_ms": 61.04,
                "gops_per_second": 191.9,
                "file_mb": 97.9,
                "verdict": "valid",
            },
            "int8": {"error": "openvino died by SIGSEGV | while it compiled"},
        },
    }
    monkeypatch.setattr(listing, "read_latency", lambda: {"refinedetlite": entry})
    text = edgekit.card("refinedetlite")
    assert "One core of a CPU, image to the network's boxes, without NMS" in text  # zoo_latency.py lets no score pass
    assert "| fp32 | openvino | 61.0 | 191.9 | 97.90 |  |" in text
    assert "| int8 | - | - | - | - | openvino died by SIGSEGV \\| while it compiled |" in text


def test_a_copy_without_weights_has_no_accuracy(tmp_path):
    """``measured`` is of the weights beside the recipe, and a copied recipe.yaml has it still."""
    folder = tmp_path / "my-detector"
    folder.mkdir()
    shipped = load_recipe("mobile-centernet-w16-dhaka")
    (folder / "recipe.yaml").write_text((shipped.folder / "recipe.yaml").read_text("utf-8"), "utf-8")
    text = edgekit.card(folder)
    assert "No weights ship with it." in text
    assert f"edgekit train {folder}\nedgekit export {folder} --board" in text  # its name is another recipe's
    assert f"Nothing yet: `edgekit run {folder}` writes a report." in text
    assert "Shipped weights" not in text
    assert str(shipped.measured["map50"]) not in text
    assert listing._record(load_recipe(folder), {})["measured"] == {}
    assert listing._record(shipped, {})["measured"] == shipped.measured


def test_a_card_of_shipped_weights_names_the_card_beside_them_and_a_command_that_works():
    text = edgekit.card("mobile-centernet-w16-bccd")
    assert "mobile-centernet-w16-bccd/README.md`." in text
    assert "\n### Accuracy\n" in text
    assert "edgekit run mobile-centernet-w16-bccd\n" in text
    assert "## Shipped weights" not in edgekit.card("mobile-centernet-w32-bccd")


def test_wrong_names_and_damaged_data_are_named(monkeypatch, tmp_path):
    with pytest.raises(BadConfig, match=r"Did you mean .*refinedetlite"):
        edgekit.card("refinedet-lite")
    (tmp_path / listing.FIGURES).write_text("{")
    monkeypatch.setattr(listing, "share", lambda kind: tmp_path)
    with pytest.raises(BadInput, match=r"figures.json: cannot be read.*python benchmarks/zoo_figures.py"):
        listing.read_figures()
    (tmp_path / listing.FIGURES).write_text(json.dumps([1]))
    with pytest.raises(BadInput, match="expected a JSON object"):
        listing.read_figures()
