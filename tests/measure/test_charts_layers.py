"""Roofline and layers."""

import math
import re

import pytest

from edgekit.measure.charts_layers import Decades, Roof, decades, intensity, layer_bar, roofline, roofs, worst_layers
from edgekit.measure.layers import against_roofline
from edgekit.measure.report import render_html, render_markdown
from edgekit.measure.row import LayerTime, Peaks

from .test_report import Page, timed


def layer(name="conv1", **changes):
    values = {
        "name": name,
        "kind": "Conv",
        "modules": (f"body.{name}",),
        "ms": 2.0,
        "share": 0.4,
        "precision": "int8",
        "macs": 50_000_000,
        "bytes": 10_000_000,
        "gops": 50.0,
        "bound_ms": 0.5,
        "bound": "compute",
        "lost_ms": 1.5,
    }
    return LayerTime.model_validate({**values, **changes})


LAYERS = [
    layer("big"),
    layer("copy", macs=0, gops=None, bytes=4_000_000, bound="memory", lost_ms=0.4),
    layer("small", ms=0.1, share=0.02, lost_ms=0.01, bound_ms=0.09, gops=900.0, bound="memory"),
    layer("inserted", macs=0, gops=None, bytes=None, bound=None, bound_ms=None, lost_ms=None, modules=(), share=0.01),
]
PEAKS = {"gops": {"int8": 200.0, "fp32": 100.0}, "bandwidth": 20.0, "source": "measured", "how": "a GEMM & a copy"}
RUN = {"profiler": "onnxruntime", "runs": 30, "total_ms": 5.0, "inference_ms": 4.5}


def row(layers=LAYERS, peaks=PEAKS):
    dumped = [one.model_dump() for one in layers]
    return timed(5.0, layers=dumped, peaks=peaks, layer_run=RUN)


def test_operations_per_byte_by_hand():
    assert intensity(layer()) == 10.0  # 2 x 50 M operations, 10 MB
    assert intensity(LAYERS[1]) is None
    assert intensity(LAYERS[3]) is None


def test_the_roofs_are_those_of_the_precisions_that_ran():
    assert roofs(row()) == [Roof("int8", 200.0, 20.0)]
    both = [layer(precision="int8"), layer(precision="fp32"), layer(precision="fp16")]
    assert [roof.name for roof in roofs(row(both))] == ["int8", "fp32"]
    assert roofs(row(peaks=None)) == []
    assert roofs(row(peaks={**PEAKS, "bandwidth": None})) == []


def test_the_worst_layers_are_the_rows_first():
    assert [one.name for one in worst_layers(row())] == ["big", "copy", "small", "inserted"]
    assert [one.name for one in worst_layers(row(), 1)] == ["big"]


def test_the_slowest_layer_is_shown_though_its_bound_is_not_known():
    steps = [{"name": "slow", "kind": "Conv", "nodes": (), "ms": 90.0, "precision": "int8", "bytes": None}]
    steps += [{**steps[0], "name": str(n), "ms": 1.0, "bytes": 10**6} for n in range(10)]
    layers = against_roofline(steps, {}, Peaks.model_validate(PEAKS))
    assert [one.lost_ms is None for one in layers] == [True] + [False] * 10
    html, text = render_html([row(layers)]), render_markdown([row(layers)])
    assert "The other 1 layers take 1.00 ms." in html
    assert "| slow | Conv | - | 90.000 |" in text


@pytest.mark.parametrize(
    ("values", "low", "high"), [([1, 1000], -0.15, 3.15), ([10], 0.5, 1.5), ([0.5, 0.5], math.log10(0.5) - 0.5, None)]
)
def test_logarithmic_axes_hold_their_values(values, low, high):
    axis = decades(values)
    assert axis.low == pytest.approx(low)
    assert high is None or axis.high == pytest.approx(high)
    assert all(0 <= axis.share(v) <= 100 for v in values)


def test_ticks_of_a_logarithmic_axis():
    assert Decades(0, 2).ticks() == pytest.approx([1, 2, 5, 10, 20, 50, 100])
    assert Decades(-0.5, 3.5).ticks() == pytest.approx([1, 10, 100, 1000])


def test_the_roofline_has_a_point_for_each_layer_that_multiplies():
    svg = roofline(row())
    assert Page(svg).faults == []
    assert svg.count('class="layer"') == 2
    assert svg.count('class="roof"') == 2  # the slope and the flat part
    assert "int8 200 GOPS, 20 GB/s" in svg
    assert roofline(row(peaks=None)) is None
    assert roofline(row([LAYERS[3]])) is None


def test_the_area_of_a_point_is_its_time_and_no_number_covers_it():
    """That of the slowest is the largest, whatever its share of all."""
    times = (2.0, 0.5, 0.02, 0.0)
    layers = [layer(str(n), ms=ms, share=ms / 50, gops=50.0 + n) for n, ms in enumerate(times)]
    svg = roofline(row(layers))
    dots = re.findall(r'class="bound-compute" r="([0-9.]+)"', svg)
    assert dots == ["14.0", "7.0", "1.4", "1.2"]
    chips = re.findall(r'class="number" cx="([-0-9.]+)" cy="([-0-9.]+)"', svg)
    assert len(chips) == 4
    assert all(math.hypot(float(x), float(y)) > 23.9 for x, y in chips)


def test_a_bar_is_as_long_as_its_time_and_solid_to_its_bound():
    svg = layer_bar(layer(), 4.0)
    assert 'width="50.000%"' in svg
    assert 'width="12.500%"' in svg
    assert layer_bar(LAYERS[3], 4.0).count("<rect") == 1


def test_page_and_markdown_tell_why_it_is_slow():
    html, text = render_html([row()]), render_markdown([row()])
    assert Page(html).faults == []
    assert "body.big" in html
    assert "inserted" in html  # it has no module, so its own name
    assert "2.000 ms (0.500 by compute), 50.0 GOPS" in html
    assert "mean of 30 runs: 5.00 ms in all (inference without a profiler: 4.50 ms)" in html
    assert "a GEMM &amp; a copy" in html
    assert "| big | Conv | body.big | 2.000 | 40.0% | 0.500 | compute | 1.500 | 50.0 |" in text
    assert "Why it is slow" not in render_html([timed(5.0)])


def test_ten_layers_are_shown_and_the_rest_is_counted():
    html = render_html([row([layer(str(n), ms=1.0) for n in range(15)])])
    assert html.count("1.000 ms (0.500 by compute)") == 10
    assert "The other 5 layers take 5.00 ms." in html


def test_layers_without_limits_are_shown_without_a_roofline():
    bare = [layer(bound_ms=None, bound=None, lost_ms=None)]
    html = render_html([row(bare, peaks=None)])
    assert "Limits: not known" in html
    assert "operations per byte moved" not in html
