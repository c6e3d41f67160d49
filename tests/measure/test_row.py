import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgekit.measure.labels import table_cells
from edgekit.measure.row import COLUMNS, Complexity, Latency, MachineReference, Row, table_values
from edgekit.runtime.errors import BadInput

HEADERS = [
    "model",
    "board",
    "runtime",
    "precision",
    "mAP@0.5",
    "mAP",
    "model size (MB)",
    "GOPS/frame",
    "ms/frame p50",
    "p90",
    "fps",
    "params",
]


def make_row(**changes):
    values = {
        "model": "toynet",
        "recipe": "toy-recipe",
        "board": "x86-1t",
        "runtime": "onnxruntime",
        "runtime_version": "1.2.3",
        "precision": "int8",
        "input": {"width": 576, "height": 320, "layout": "nhwc_uint8"},
        "artifact": "a" * 64,
        "model_file": {"name": "model.onnx", "bytes": 2_500_000, "sha256": "b" * 64},
        "complexity": {"macs": 6_170_000_000, "gops": 12.34, "parameters": 1_600_000, "learnable": 1_616_366},
        "accuracy": {
            "map": 0.2345,
            "map50": 0.446,
            "map75": 0.2,
            "per_class": {"car": {"ap": 0.2345, "ap50": 0.446, "boxes": 12}},
            "set": "val",
            "set_digest": "c" * 64,
            "images": 7,
        },
        "latency": Latency.from_samples([float(v) for v in range(1, 101)]).model_dump(),
        "spans": {"preprocess": 1.0, "inference": 48.0, "postprocess": 1.5},
        "samples": [float(v) for v in range(1, 101)],
        "process": {"threads": 1, "core": 1, "warmup": 10},
        "verdict": {"status": "valid"},
    }
    return Row.model_validate({**values, **changes})


def test_statistics_by_hand():
    # 1..100 in any order: the 50th percentile lies between 50 and 51, the 90th at 1 + 0.9 * 99
    latency = Latency.from_samples([float(v) for v in range(100, 0, -1)])
    assert (latency.count, latency.min, latency.max, latency.mean) == (100, 1, 100, 50.5)
    assert latency.p50 == pytest.approx(50.5)
    assert latency.p90 == pytest.approx(90.1)
    assert latency.std == pytest.approx((100 * 101 / 12) ** 0.5)  # variance of 1..n with n - 1 is n (n + 1) / 12
    assert latency.fps == pytest.approx(1000 / 50.5)


@pytest.mark.parametrize(
    ("count", "has_p90", "has_p99"),
    [(1, False, False), (63, False, False), (64, True, False), (661, True, False), (662, True, True)],
)
def test_a_percentile_appears_only_with_the_frames_that_support_it(count, has_p90, has_p99):
    latency = Latency.from_samples([10.0] * count)
    assert (latency.p90 is not None, latency.p99 is not None) == (has_p90, has_p99)


def test_one_slow_frame_is_never_left_out():
    latency = Latency.from_samples([10.0] * 999 + [5000.0])
    assert latency.max == 5000
    assert latency.mean == pytest.approx(14.99)
    assert latency.p50 == 10


def test_no_frame_no_statistics():
    with pytest.raises(ValueError, match="no frame"):
        Latency.from_samples([])


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=800))
def test_statistics_are_ordered(samples):
    latency = Latency.from_samples(samples)
    known = [v for v in (latency.min, latency.p50, latency.p90, latency.p99, latency.max) if v is not None]
    assert known == pytest.approx(sorted(known))
    assert latency.min * 0.999 <= latency.mean <= latency.max * 1.001


@pytest.mark.parametrize(
    ("slices", "ms", "thirds"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3.5, (1.5, 3.5, 5.5)),
        ([1.0, 1.0, 9.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0], 2.0, (1.0, 2.0, 3.0)),
        ([4.0, 2.0], 3.0, (4.0, 4.0, 2.0)),
        ([7.0], 7.0, (7.0, 7.0, 7.0)),
    ],
)
def test_the_machines_reference_by_hand(slices, ms, thirds):
    reference = MachineReference.from_slices("a product", slices)
    assert (reference.ms, reference.thirds_ms) == (ms, thirds)
    assert reference.moved == max(thirds) / min(thirds) - 1
    row = make_row(machine_reference=reference)
    assert Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_no_slice_no_reference_and_an_old_row_has_none():
    with pytest.raises(ValueError, match="no slice"):
        MachineReference.from_slices("a product", [])
    old = {key: value for key, value in make_row().to_dict().items() if key != "machine_reference"}
    assert Row.from_dict(old).machine_reference is None


def test_the_columns_are_the_competitions_in_their_order():
    assert [column.header for column in COLUMNS] == HEADERS


def test_a_row_as_printed():
    assert table_cells([make_row()]) == [
        [
            "toynet",
            "x86-1t",
            "onnxruntime",
            "int8",
            "44.6",
            "23.4",
            "2.50",
            "12.34",
            "50.50",
            "90.10",
            "19.8",
            "1,616,366",
        ]
    ]


def test_what_is_missing_is_said_and_never_zero():
    few = Latency.from_samples([10.0] * 20).model_dump()
    cells = dict(
        zip(HEADERS, table_cells([make_row(accuracy=None, complexity=None, latency=few, samples=())])[0], strict=True)
    )
    assert cells["mAP@0.5"] == cells["mAP"] == cells["GOPS/frame"] == cells["params"] == "not measured"
    assert cells["p90"] == "n < 64"
    cells = dict(zip(HEADERS, table_cells([make_row(latency=None)])[0], strict=True))
    assert cells["ms/frame p50"] == cells["p90"] == cells["fps"] == "not measured"


def test_table_values_are_unrounded_numbers():
    values = table_values([make_row(), make_row(latency=None)])
    assert list(values[0]) == HEADERS
    assert values[0]["mAP"] == pytest.approx(23.45)
    assert values[0]["model size (MB)"] == 2.5
    assert values[1]["fps"] is None


def test_params_are_the_trained_networks_or_else_the_graphs():
    imported = {"macs": 5, "gops": 1e-8, "parameters": 1_600_000}
    assert make_row().params == 1_616_366
    assert make_row(complexity=imported).params == 1_600_000
    assert make_row(complexity=None).params is None


def test_sizes_in_both_units():
    row = make_row(model_file={"name": "m", "bytes": 2**21, "sha256": "0"})
    assert (row.model_size_mb, row.model_size_mib) == (2.097152, 2.0)


def test_gops_that_are_macs_are_refused():
    with pytest.raises(ValidationError, match="2 x macs"):
        Complexity(macs=1_000_000_000, gops=1.0, parameters=1)


def test_json_round_trip():
    row = make_row()
    assert Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"map": 44.6}, "map: Extra inputs"),
        ({"verdict": {"status": "fine"}}, "verdict.status"),
        ({"model_file": {"name": "m", "bytes": -1, "sha256": ""}}, "model_file.bytes"),
        ({"samples": [1.0, float("nan")]}, "samples.1"),
    ],
)
def test_a_damaged_row_is_refused_with_its_source_and_fields(changes, told):
    with pytest.raises(BadInput) as caught:
        Row.from_dict({**make_row().to_dict(), **changes}, "rows.json row 3")
    assert "rows.json row 3: not a measured row" in str(caught.value)
    assert told in str(caught.value)


def test_a_row_that_is_no_object_is_refused():
    with pytest.raises(BadInput, match="not a measured row"):
        Row.from_dict([1, 2])


LATENCY = Latency.from_samples([5.0]).model_dump()
ACCURACY = make_row().accuracy.model_dump()
ENDS = {"first": 1.0, "last": 1.0, "min": 1.0, "max": 1.0}
TRACK = {"name": "cpu clock", "unit": "MHz", "source": "s", **ENDS, "seconds": [0.0], "values": [1.0]}


def test_rounding_in_a_file_contradicts_nothing():
    assert make_row(latency={**LATENCY, "mean": 5.0001, "p50": 4.9999}, samples=()).latency.p50 == 4.9999


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"latency": {**LATENCY, "mean": 0.0}}, "latency.mean: Input should be greater than"),
        ({"latency": {**LATENCY, "p50": 0.0}}, "latency.p50: Input should be greater than"),
        ({"model_file": {"name": "m", "bytes": 0, "sha256": "a"}}, "model_file.bytes: Input should be greater than"),
        ({"machine": {"before": {"load_average": []}}}, r"before.load_average is \[\]; it must be three numbers"),
        ({"machine": {"after": {"load_average": [1, 2, "x"]}}}, "after.load_average is .*three numbers"),
        ({"machine": {"after": {"frequency_mhz": []}}}, "after.frequency_mhz is .*one number"),
        ({"latency": {**LATENCY, "p50": 1e-320}}, "latency.p50: Input should be greater than"),
        ({"latency": {**LATENCY, "p50": 0.001}, "samples": ()}, "min is 5.0, and p50 0.001; min cannot be above p50"),
        ({"latency": {**LATENCY, "mean": 6.0}, "samples": ()}, "mean is 6.0, and max 5.0"),
        ({"latency": {**LATENCY, "p90": 112.0}, "samples": ()}, "p90 is 112.0, and max 5.0"),
        ({"latency": LATENCY}, "latency.count is 1, and there are 100 samples"),
        ({"accuracy": {**ACCURACY, "map50": 0.0}}, "map is 0.2345, and map50 0.0; map cannot be above map50"),
        ({"accuracy": {**ACCURACY, "map75": 0.5}}, "map75 is 0.5, and map50 0.446"),
        ({"accuracy": {**ACCURACY, "map": 1e-320}}, "an accuracy is 0, or at least 1e-09"),
        ({"tracks": [{**TRACK, "seconds": [0, 1]}]}, "cpu clock has 2 seconds and 1 values"),
        ({"tracks": [{**TRACK, "values": []}]}, "cpu clock has 1 seconds and 0 values"),
        ({"machine": {"board": {"simulated": True}}}, "measured on a simulator, but called board 'x86-1t'"),
        ({"machine": {"board": {"simulated": ["EDGEKIT_SYSROOT"]}}}, "measured on a simulator"),
    ],
)
def test_rows_that_no_report_could_show_are_refused(changes, told):
    with pytest.raises(BadInput, match=told):
        Row.from_dict({**make_row().to_dict(), **changes})


@pytest.mark.parametrize("signs", [[], None, False])
def test_a_board_without_a_sign_of_a_simulator_is_a_board(signs):
    facts = {"before": {"load_average": "unknown", "frequency_mhz": 800.0}, "board": {"simulated": signs}}
    assert make_row(machine=facts).board == "x86-1t"
