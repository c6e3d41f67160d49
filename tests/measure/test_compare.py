"""Two models in turns: the order of the turns, the ratio and its interval, and what goes wrong."""

import json
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import measuring, pipeline
from edgekit.measure import compare as module
from edgekit.measure.bench import BenchOptions, Target
from edgekit.measure.compare import FRAMES, LEAST_PAIRS, Comparison, compare, ratio
from edgekit.runtime.errors import BadConfig, BoardLacks, ChildDied, MissingDependency

from .conftest import scripted_result
from .test_bench import BOARD

# Answers every turn with its runtime's milliseconds, and writes down whose turn it was
TAKES_TURNS = """
import json, os, sys
folder = os.path.dirname(__file__)
job, script = json.load(open(sys.argv[1])), json.load(open(os.path.join(folder, "script.json")))
mine, said = script[job["runtime"]], []
print(json.dumps({"phase": "ready", "done": 1, "total": 1}), flush=True)
for line in sys.stdin:
    frames = json.loads(line)["frames"]
    with open(os.path.join(folder, "turns.txt"), "a") as log:
        log.write(job["runtime"][0])
    if len(said) >= mine.get("dies_after", 10**9):
        sys.stderr.write("bang")
        os.kill(os.getpid(), 11)
    ms = [mine["ms"][len(said) % len(mine["ms"])]] * frames
    said += ms
    print(json.dumps({"phase": "turn", "ms": ms}), flush=True)
result = script["result"]
result["detections"] = [dict(d, image=p) for d, p in zip(result["detections"], job["images"])]
result["latency_ms"] = {"preprocess": said, "inference": said, "postprocess": said, "total": said}
json.dump(result, open(sys.argv[2], "w"))
open(os.path.join(folder, job["runtime"] + ".job"), "w").write(json.dumps(job))
"""


@pytest.fixture
def players(tmp_path):
    folder = tmp_path / "players"
    folder.mkdir()
    (folder / "worker.py").write_text(TAKES_TURNS)

    def play(**scripts):
        (folder / "script.json").write_text(json.dumps({**scripts, "result": scripted_result([10.0])}))
        return (sys.executable, str(folder / "worker.py"))

    play.folder = folder
    return play


def in_turns(command, artifact, eval_set, **more):
    targets = Target(artifact, "onnxruntime"), Target(artifact, "pytorch")
    return compare(*targets, BOARD, eval_set, BenchOptions(min_seconds=0), worker=command, **more)


def test_turns_alternate_and_the_ratio_is_bs_time_over_as(players, artifact, eval_set):
    events = []
    command = players(onnxruntime={"ms": [10.0]}, pytorch={"ms": [15.0]})
    found = in_turns(command, artifact, eval_set, progress=lambda *event: events.append(event))
    turns = (players.folder / "turns.txt").read_text()
    assert turns == "oppo" * (LEAST_PAIRS // 2)
    assert found.pairs == ((10.0, 15.0),) * LEAST_PAIRS
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == (1.5, 1.5, 1.5)
    assert (found.a.runtime, found.b.runtime) == ("onnxruntime", "pytorch")
    assert (found.a.latency.p50, found.a.latency.count) == (10.0, FRAMES * LEAST_PAIRS)
    assert found.a.accuracy.map50 == found.b.accuracy.map50 > 0
    assert found.a.energy is None  # the two share the machine's counter
    assert found.finding.startswith("A is 1.500 x as fast as B: B takes 1.500 x the time of A")
    assert events[-1] == ("turns", LEAST_PAIRS, LEAST_PAIRS)
    assert Comparison.model_validate(json.loads(json.dumps(found.to_dict()))) == found


def test_both_run_on_the_same_core(players, artifact, eval_set, monkeypatch):
    cores = iter([1, 0])
    monkeypatch.setattr(type(BOARD), "pinned_core", lambda self: next(cores))
    in_turns(players(onnxruntime={"ms": [10.0]}, pytorch={"ms": [15.0]}), artifact, eval_set)
    jobs = [json.loads((players.folder / f"{name}.job").read_text()) for name in ("onnxruntime", "pytorch")]
    assert [(job["core"], job["mode"]) for job in jobs] == [(1, "turns")] * 2


def test_a_side_that_dies_in_its_turn_is_named(players, artifact, eval_set):
    command = players(onnxruntime={"ms": [10.0]}, pytorch={"ms": [15.0], "dies_after": 8})
    with pytest.raises(ChildDied, match="in pytorch was killed by SIGSEGV; its last words: bang"):
        in_turns(command, artifact, eval_set)


def test_a_side_that_cannot_start_is_named_and_the_other_is_not_started(players, artifact, eval_set, tmp_path):
    refuses = tmp_path / "refuses.py"
    refuses.write_text(
        "import json, sys\n"
        f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\n"
        'json.dump({"error": "no library", "type": "MissingDependency"}, open(sys.argv[2], "w"))\nsys.exit(2)\n'
    )
    with pytest.raises(MissingDependency, match=r"^no library$"):
        in_turns((sys.executable, str(refuses)), artifact, eval_set)
    assert (tmp_path / "starts").read_text() == "x"


# -- the ratio --------------------------------------------------------------------------------------------------------
def test_the_interval_by_hand():
    """Of equal pairs nothing varies; a ratio of medians is not a median of ratios."""
    found = ratio([(10.0, 20.0), (20.0, 10.0), (15.0, 15.0)])
    assert found.value == 1.0
    assert found.low == 0.5
    assert found.high == 2.0


def test_what_disturbs_both_cancels():
    rng = np.random.default_rng(3)
    weather = 1 + 0.5 * rng.random(60)
    found = ratio(np.stack([10 * weather, 10.5 * weather], 1))
    assert found.high - found.low < 1e-9
    apart = ratio(np.stack([10 * weather, 10.5 * rng.permutation(weather)], 1))
    assert apart.high - apart.low > 0.05


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(100):
        pairs = np.stack([rng.lognormal(2.3, 0.1, 40), 1.2 * rng.lognormal(2.3, 0.1, 40)], 1)
        found = ratio(pairs)
        covered += found.low <= 1.2 <= found.high
    assert covered >= 88  # 95 wanted; the chance of fewer than 88 is under 1 in 300


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=2, max_size=20), st.floats(0.5, 2))
def test_units_do_not_matter_and_the_value_lies_in_its_interval(pairs, unit):
    found = ratio(pairs)
    assert found.low <= found.value <= found.high
    scaled = ratio([(a * unit, b * unit) for a, b in pairs])
    assert scaled.value == pytest.approx(found.value)
    assert scaled.low == pytest.approx(found.low)


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (
            1.01,
            0.99,
            1.03,
            "No difference can be seen: B takes 1.010 x the time of A (95% interval 0.990 to 1.030 holds 1).",
        ),
        (0.5, 0.4, 0.6, "B is 2.000 x as fast as A: B takes 0.500 x the time of A (95% interval 0.400 to 0.600)."),
        (2.0, 1.9, 2.1, "A is 2.000 x as fast as B: B takes 2.000 x the time of A (95% interval 1.900 to 2.100)."),
    ],
)
def test_findings(value, low, high, said):
    found = Comparison.model_construct(ratio=module.Ratio(value=value, low=low, high=high))
    assert found.finding == said


# -- mistakes ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("source", "error", "told"),
    [
        ("nowhere@onnxruntime", BadConfig, "nowhere"),
        ("{artifact}@nonsense", BoardLacks, "no runtime 'nonsense'; it has: onnxruntime, openvino, pytorch"),
    ],
)
def test_a_wrong_side_is_named(source, error, told, artifact, eval_set):
    with pytest.raises(error, match=told):
        pipeline.bench_compare(source.format(artifact=artifact.path), artifact.path, data=str(eval_set.annotations))


def test_a_side_chooses_its_runtime(artifact):
    chosen = measuring.compared(f"{artifact.path}@openvino", BOARD, "onnxruntime")
    assert (chosen.artifact.digest, chosen.runtime) == (artifact.digest, "openvino")
    assert measuring.compared(artifact.path, BOARD, None).runtime == "onnxruntime"
    assert measuring.compared(artifact.path, BOARD, "openvino").runtime == "openvino"


@pytest.mark.parametrize("block", [1, 100, 1000, 10**6])
def test_the_interval_is_the_same_whatever_is_drawn_at_a_time(block, monkeypatch):
    pairs = np.random.default_rng(1).uniform(9, 12, (31, 2))
    pick = np.random.default_rng(0).integers(0, 31, (module.RESAMPLES, 31))
    a, b = (np.median(pairs[:, side][pick], axis=1) for side in (0, 1))
    monkeypatch.setattr(module, "BLOCK", block)
    found = ratio(pairs)
    assert (found.low, found.high) == tuple(np.percentile(b / a, (2.5, 97.5)))


def test_an_hour_of_turns_needs_little_memory(monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 100)
    pairs = np.random.default_rng(1).uniform(9, 12, (60_000, 2))
    tracemalloc.start()
    ratio(pairs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # bytes; the 100 times 60,000 numbers alone are 48 MB
