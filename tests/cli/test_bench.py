"""``edgekit bench``: what it shows besides the table, comparing, and mistakes."""

import json

import pytest

from edgekit.cli import main
from edgekit.measure.row import Energy, LayerRun, LayerTime, Peaks, Throughput


@pytest.fixture
def full_row(row):
    """A row with everything that stands in no column."""
    layer = LayerTime(
        name="conv_nchwc",
        kind="Conv",
        modules=("stem.0", "stem.1", "stem.2"),
        nodes=("/stem/stem.0/Conv",),
        ms=2.0,
        share=0.5,
        precision="fp32",
        macs=50_000_000,
        bytes=1_000_000,
        gops=50.0,
        bound_ms=1.0,
        bound="compute",
        lost_ms=1.0,
    )
    bare = LayerTime(name="reorder", kind="ReorderInput", ms=0.1, share=0.02)
    peaks = Peaks(gops={"fp32": 100.0, "int8": 400.0}, bandwidth=12.5, source="measured")
    return row.model_copy(
        update={
            "throughput": (Throughput(fps=61.25, batch=1, streams=2, threads=1, count=90, seconds=3.0, note="two"),),
            "energy": Energy(source="RAPL package-0", joules=40, joules_per_frame=0.4, watts=10),
            "layers": (layer, *(bare for _ in range(14))),
            "layer_run": LayerRun(profiler="onnxruntime 1.2", runs=20, total_ms=4.0, inference_ms=3.9),
            "peaks": peaks,
        }
    )


def test_what_stands_in_no_column_is_told(pipeline, full_row, capsys):
    pipeline.results["bench"] = [full_row]
    assert main(["bench", "s", "--layers", "--offline"]) == 0
    out = capsys.readouterr().out
    assert "onnxruntime fp32: offline 61.2 images/s, two" in out
    assert "0.4 J per frame, 10 W (RAPL package-0)" in out
    assert (
        "15 steps of onnxruntime 1.2, 4.00 ms, mean of 20 runs; without the profiler the network takes 3.90 ms" in out
    )
    assert "100 GOPS fp32, 400 GOPS int8, 12.5 GB/s" in out
    lines = [line.split() for line in out.splitlines()]
    (conv,) = [line for line in lines if "Conv" in line]
    assert " ".join(conv) == "stem.0, stem.1 and 1 more Conv 2.000 50.0% 50.0 1,000 50.0 1.000 compute 1.000"
    bare = [line for line in lines if "ReorderInput" in line]
    assert len(bare) == 9  # ten layers in all
    assert bare[0][-8:] == ["ReorderInput", "0.100", "2.0%", "-", "unknown", "-", "unknown", "unknown"]


def test_a_board_without_known_peaks(pipeline, full_row, capsys):
    pipeline.results["bench"] = [full_row.model_copy(update={"peaks": None})]
    main(["bench", "s", "--layers"])
    assert "No peaks of this board are known, so the slowest come first." in capsys.readouterr().out


def test_a_comparison_says_which_is_faster(pipeline, capsys):
    assert main(["bench", "--compare", "s@onnxruntime", "t@openvino"]) == 0
    out = capsys.readouterr().out
    assert "A: s@onnxruntime\nB: t@openvino\n" in out
    assert "A is 1.500 x as fast as B: B takes 1.500 x the time of A (95% interval 1.400 to 1.600)." in out
    assert main(["bench", "--compare", "s", "t", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ratio"]["value"] == 1.5


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("bench --compare s", "--compare: expected two artifacts, got 1"),
        ("bench --compare s t u", "--compare: expected two artifacts, got 3"),
        ("bench --compare s t --layers --full", "--compare: --full, --layers cannot be had in turns"),
    ],
)
def test_mistakes_with_compare(pipeline, line, told, capsys):
    assert main(line.split()) == 2
    assert told in capsys.readouterr().err
    assert pipeline.calls == []
