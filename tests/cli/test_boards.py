"""``edgekit boards``, ``edgekit lint`` and ``edgekit import-onnx`` as a person types them."""

import json

import onnx
import pytest

from edgekit.board import board_names
from edgekit.cli import main
from tests.conversion.test_lint import VECTOR, i64, model


@pytest.mark.parametrize("words", [["jetson-tx2"], ["show", "jetson-tx2"]])
def test_one_board_is_shown_whole(words, capsys):
    assert main(["boards", *words]) == 0
    out = capsys.readouterr().out
    for part in ("JetPack 4.6.1 - 4.6.6", "8.2.1.8", "VDD_SYS_GPU", "1300.5", "nvarguscamerasrc", "sm: 62", "1331.7"):
        assert part in out


def test_a_boards_json_is_its_profile(capsys):
    assert main(["boards", "show", "jetson-orin-nano", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["stacks"][0]["operators"] == "tensorrt-10.1"
    assert record["gpu"]["fast_int8"] is True


@pytest.mark.parametrize(
    ("words", "told"), [(["show"], "one board"), (["a", "b"], "one board"), (["jetson-tx3"], "jetson-tx2")]
)
def test_mistakes(words, told, capsys):
    assert main(["boards", *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("k", "code", "said"), [(100, 0, "Fits"), (4000, 1, "Cannot be used there")])
def test_lint_tells_by_its_exit_code(k, code, said, tmp_path, capsys):
    onnx.save(model([("TopK", ["x", "k"], ["v", "i"], {})], VECTOR, {"k": i64(k)}), tmp_path / "m.onnx")
    assert main(["lint", str(tmp_path / "m.onnx"), "--board", "jetson-tx2"]) == code
    out = capsys.readouterr().out
    assert said in out
    assert "memory to build" in out
    if code:
        assert "head: TopK /detector/head/TopK_0" in out
        assert "3840" in out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--size", "12"], "expected WIDTHxHEIGHT"),
        (["--size", "0x5"], "expected WIDTHxHEIGHT"),
        (["--mean", "1,2"], "one number or three"),
        (["--std", "a"], "expected numbers"),
        (["--layout", "nothing"], "no layout named"),
    ],
)
def test_mistakes_of_an_import(options, told, tmp_path, capsys):
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert main(["import-onnx", str(tmp_path / "m.onnx"), "--layout", "yolov8", *options]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_peaks_have_their_units_behind_them(capsys):
    assert main(["boards", "show", "jetson-tx2"]) == 0
    assert "  fp16 GFLOPS: 1331.7\n  bandwidth GB/s: 59.7" in capsys.readouterr().out


def test_power_modes_are_readable_on_a_terminal_of_80_columns(capsys, monkeypatch):
    monkeypatch.setattr("edgekit.cli.output._WIDE", 80)
    assert main(["boards", "show", "jetson-tx2"]) == 0
    out = capsys.readouterr().out
    table = out[out.index("\nmodes\n") : out.index("\ncamera\n")]
    assert max(map(len, table.splitlines())) <= 80
    for whole in ("MAXP_CORE_DENVER", "1 denver2 2", "1 a57 2", "fp16 1148.9", "51.2"):
        assert whole in table
    assert "0 denver2" not in table  # cores that are off


@pytest.mark.parametrize("name", board_names())
def test_every_board_is_shown(name, capsys):
    assert main(["boards", name]) == 0
    assert f"name: {name}" in capsys.readouterr().out
