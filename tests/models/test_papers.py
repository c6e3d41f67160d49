"""Every figure of benchmarks/papers that has no test of its own: ours is counted anew, and the status is earned."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from edgekit.measure.conventions import PARAMETERS, Unused, module_operations, total
from edgekit.models import zoo
from edgekit.models.classifier import classifier

FOLDER = Path(__file__).parents[2] / "benchmarks" / "papers"
FILES = ("refinedetlite", "refinedet-plus-plus", "mobile-centernet", "lightweight-ssd")  # CSPNet: test_cspnet.py
PAPERS = {name: yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["rows"] for name in FILES}
ROWS = [row for rows in PAPERS.values() for row in rows]
FIGURES = [(row, figure) for row in ROWS for figure in row.get("figures", [])]
IDS = [f"{row['name']}, {row['classes']} classes: {figure['metric']}" for row, figure in FIGURES]


@cache
def network(model: str, classes: int, size: tuple[int, int]):
    values = yaml.safe_load(model)
    with torch.device("meta"):
        if values["name"] == "classifier":
            return classifier(classes, **values["options"]).eval()
        return zoo.build(values["name"], classes, values.get("options"), size).eval()


def of_row(row):
    return network(yaml.safe_dump(row["model"]), row["classes"], tuple(row["input"]))


@pytest.mark.parametrize(("row", "figure"), FIGURES, ids=IDS)
def test_our_figure_is_what_the_network_has(row, figure):
    detector = of_row(row)
    width, height = row["input"]
    unused = [Unused(**values) for values in row.get("unused", [])]
    if figure["metric"] == "parameters":
        besides = sum(layer.parameters for layer in unused)
        assert PARAMETERS[figure["convention"]](detector) + besides == figure["ours"]
    elif figure["metric"] == "boxes":
        assert len((detector.arm if detector.task == "refine" else detector.head).anchors) == figure["ours"]
    else:
        operations = module_operations(detector, torch.empty(1, 3, height, width, device="meta"))
        operations += [operation for layer in unused for operation in layer.operations()]
        assert total(operations, figure["convention"]) == figure["ours"]


@pytest.mark.parametrize(("row", "figure"), FIGURES, ids=IDS)
def test_the_status_is_earned(row, figure):
    assert figure["status"] in ("exact", "fit", "open")
    if figure["printed"] is None:  # a figure of ours that the paper leaves out
        return
    ours, printed = figure["ours"] / figure["unit"], figure["printed"]
    decimals = len(printed.partition(".")[2])
    if figure["status"] == "exact":
        assert abs(ours - float(printed)) <= 0.5 * 10**-decimals
    elif figure["status"] == "fit":
        assert abs(ours / float(printed) - 1) <= 0.01
        assert figure["note"]
    else:
        assert abs(ours / float(printed) - 1) > 0.01
        assert figure["note"]


def test_a_count_with_unused_layers_stands_below_the_count_of_the_network():
    """What EdgeKit builds has its own row, so that nobody takes the authors' file for our network."""
    for row in ROWS:
        if "unused" in row:
            own = [other for other in ROWS if other["model"] == row["model"] and "unused" not in other]
            assert [figure["metric"] for figure in own[0]["figures"]] == [f["metric"] for f in row["figures"]]
            assert all(figure["status"] == "fit" for figure in row["figures"])


@pytest.mark.parametrize(
    ("paper", "least"),
    [("refinedetlite", 50), ("refinedet-plus-plus", 49), ("mobile-centernet", 15), ("lightweight-ssd", 14)],
)
def test_all_that_is_measured_says_on_what(paper, least):
    measured = [entry for row in PAPERS[paper] for entry in row.get("measured", [])]
    assert len(measured) >= least
    assert all(set(entry) >= {"metric", "tested_on", "printed", "where"} for entry in measured)
