"""What is typed reaches the verb's function, and what is not typed stays at its default."""

from pathlib import Path

import pytest

from edgekit.cli import main

BENCH = {"board": "x86-1t", "runtime": None, "data": None, "seconds": None, "out": None}
BRIEFLY = {"full": False, "offline": False, "layers": False}

CASES = [
    (
        "train r train.epochs=3 classes=[a] --out o --resume",
        ("r",),
        {"overrides": ["train.epochs=3", "classes=[a]"], "out": Path("o"), "resume": True},
    ),
    ("train r", ("r",), {"overrides": [], "out": None, "resume": False}),
    (
        "export r a.b=1 -b x86 --batch 8 -o o",
        ("r",),
        {"overrides": ["a.b=1"], "board": "x86", "batch": 8, "out": Path("o")},
    ),
    ("export r", ("r",), {"overrides": [], "board": "x86-1t", "batch": 1, "out": None}),
    (
        "quantize s --calibration c --flavour trt --method entropy --max-drop 0.5 --evaluation e --out o",
        (Path("s"),),
        {
            "calibration": "c",
            "flavour": "trt",
            "method": "entropy",
            "max_drop": 0.5,
            "reduce_range": False,
            "evaluation": "e",
            "out": Path("o"),
        },
    ),
    (
        "quantize s --reduce-range",
        (Path("s"),),
        {**dict.fromkeys(("calibration", "flavour", "method", "max_drop", "evaluation", "out")), "reduce_range": True},
    ),
    (
        "evaluate s --scales 0.5,1 --merge vote",
        (Path("s"),),
        {
            "data": None,
            "runtime": None,
            "metric": "coco",
            "tta": {"flip": True, "merge": "vote", "scales": (0.5, 1.0)},
        },
    ),
    (
        "evaluate s --data d.json --runtime openvino --metric voc2007",
        (Path("s"),),
        {"data": "d.json", "runtime": "openvino", "metric": "voc2007"},
    ),
    (
        "bench s t --board x86 --runtime openvino --data d --seconds 2.5 --out o.json",
        ([Path("s"), Path("t")],),
        {"board": "x86", "runtime": "openvino", "data": "d", "seconds": 2.5, "out": Path("o.json"), **BRIEFLY},
    ),
    ("bench s", ([Path("s")],), {**BENCH, **BRIEFLY}),
    ("bench s --full --offline --layers", ([Path("s")],), {**BENCH, "full": True, "offline": True, "layers": True}),
    ("bench --compare s@openvino t", ("s@openvino", "t"), BENCH),
    (
        "report a.json b.json --out o --history h --title t",
        ([Path("a.json"), Path("b.json")],),
        {"out": Path("o"), "history": Path("h"), "title": "t"},
    ),
    ("report a.json --out o", ([Path("a.json")],), {"out": Path("o"), "history": None, "title": None}),
    (
        "predict s i j --out o --runtime onnxruntime --score 0.5",
        ("s", [Path("i"), Path("j")]),
        {"out": Path("o"), "runtime": "onnxruntime", "score": 0.5},
    ),
    (
        "run r k=v --board x86 --out o --seconds 3 --force --remeasure",
        ("r",),
        {"overrides": ["k=v"], "board": "x86", "out": Path("o"), "seconds": 3.0, "force": True, "remeasure": True},
    ),
]


@pytest.mark.parametrize(("line", "args", "kwargs"), CASES, ids=[case[0] for case in CASES])
def test_arguments_reach_the_pipeline(line, args, kwargs, pipeline, capsys):
    assert main(line.split()) == 0, capsys.readouterr().err
    verb, got_args, got = pipeline.calls[0]
    assert verb == ("bench_compare" if "--compare" in line else line.split()[0])
    assert callable(got.pop("progress"))
    assert tuple(list(a) if isinstance(a, list | tuple) else a for a in got_args) == args
    assert got == kwargs


@pytest.mark.parametrize(("rank", "speaks"), [("0", True), ("1", False)])
def test_of_several_training_processes_one_speaks(rank, speaks, pipeline, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    assert main(["train", "r"]) == 0
    assert (pipeline.calls[0][2]["progress"] is not None) == speaks
    assert bool(capsys.readouterr().out) == speaks


@pytest.mark.parametrize(
    ("line", "args"), [("zoo", ()), ("boards", (None,)), ("boards x86", ("x86",)), ("doctor --board x86", ("x86",))]
)
def test_listing_verbs(line, args, pipeline, capsys):
    assert main(line.split()) == 0
    ((verb, got_args, got),) = pipeline.calls
    assert (verb, got_args) == (line.split()[0], args)
    assert set(got) == ({"progress"} if verb == "doctor" else set())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("expot r", "'export'"),
        ("bech x", "'bench'"),
        ("export r --bord x86", "--board"),
        ("train r --resum", "--resume"),
        ("quantize s --max-drop -1", "--max-drop"),
        ("predict s i --out o --score 2", "--score"),
        ("bench s --seconds 0", "--seconds"),
        ("bench s --seconds much", "--seconds"),
        ("export", "SOURCE"),
        ("predict s i", "--out"),
    ],
)
def test_a_wrong_command_line_is_told_and_runs_nothing(line, said, pipeline, capsys):
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert pipeline.calls == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["evaluate", "s", "--data", ""], "--data"),
        (["bundle", "s", "--board", "b", "--golden="], "--golden"),
        (["report", "r.json", "--out", ""], "--out"),
        (["camera", "s", "--source", "a.mp4", "--source", ""], "--source"),
        (["data", "check", ""], "ANNOTATIONS"),
    ],
)
def test_an_empty_text_is_no_value(words, named, pipeline, capsys):
    """A shell's variable that is not set must not choose the recipe's own set or write into the current folder."""
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "the value is empty" in said
    assert named in said


def test_a_path_may_begin_at_home(pipeline, monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/home/me")
    assert main(["bench", "~/s", "--out=~/rows.json"]) == 0
    ((_, (sources,), options),) = pipeline.calls
    assert (list(sources), options["out"]) == ([Path("/home/me/s")], Path("/home/me/rows.json"))
    assert main(["bench", "s", "--out=~no-such-user/rows.json"]) == 2
    assert "~no-such-user is no home folder here" in capsys.readouterr().err
