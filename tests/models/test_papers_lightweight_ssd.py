"""Every figure of benchmarks/papers/lightweight-ssd.yaml: ours is counted anew, and the status is earned."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from edgekit.measure.conventions import PARAMETERS, module_operations, total
from edgekit.models import zoo

TABLE = Path(__file__).parents[2] / "benchmarks" / "papers" / "lightweight-ssd.yaml"
ROWS = yaml.safe_load(TABLE.read_text(encoding="utf-8"))["rows"]
FIGURES = [(row, figure) for row in ROWS for figure in row.get("figures", [])]
IDS = [f"{row['name']}, {row['classes']} classes: {figure['metric']}" for row, figure in FIGURES]


@cache
def network(name: str, options: str, classes: int):
    with torch.device("meta"):
        return zoo.build(name, classes, yaml.safe_load(options)).eval()


@pytest.mark.parametrize(("row", "figure"), FIGURES, ids=IDS)
def test_our_figure_is_what_the_network_has(row, figure):
    detector = network(row["model"]["name"], yaml.safe_dump(row["model"].get("options")), row["classes"])
    width, height = row["input"]
    if figure["metric"] == "parameters":
        assert PARAMETERS[figure["convention"]](detector) == figure["ours"]
    elif figure["metric"] == "boxes":
        assert len(detector.head.anchors) == figure["ours"]
    else:
        operations = module_operations(detector, torch.empty(1, 3, height, width, device="meta"))
        assert total(operations, figure["convention"]) == figure["ours"]


@pytest.mark.parametrize(("row", "figure"), FIGURES, ids=IDS)
def test_the_status_is_earned(row, figure):
    assert figure["status"] in ("exact", "fit", "open")
    if figure["printed"] is None:
        return
    ours, printed = figure["ours"] / figure["unit"], figure["printed"]
    decimals = len(printed.partition(".")[2])
    if figure["status"] == "exact":
        assert abs(ours - float(printed)) <= 0.5 * 10**-decimals
    elif figure["status"] == "fit":
        assert abs(ours / float(printed) - 1) <= 0.01
    else:
        assert abs(ours / float(printed) - 1) > 0.01
        assert figure["note"]


def test_all_that_is_measured_says_on_what():
    measured = [entry for row in ROWS for entry in row.get("measured", [])]
    assert len(measured) >= 14
    assert all(set(entry) >= {"metric", "tested_on", "printed", "where"} for entry in measured)
