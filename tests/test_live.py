"""The workstation's verb ``camera``: which network, which clip, which board."""

import json
import subprocess
import sys

import pytest

import edgekit
from edgekit import live
from edgekit.cli import main
from edgekit.runtime.artifact import new_artifact, read_artifact
from edgekit.runtime.camera.sources import open_source
from edgekit.runtime.errors import ArtifactError, BadConfig, EdgeKitError

from .runtime.camera.conftest import artifact, clip  # noqa: F401 - fixtures


@pytest.fixture
def asked(monkeypatch):
    """What the runtime's camera is asked for."""
    calls = []
    monkeypatch.setattr(
        "edgekit.runtime.camera.app.run", lambda options, say: calls.append(options) or {"ended": "source"}
    )
    return calls


def test_the_demo_is_the_shipped_clip_and_weights_on_the_page(asked, artifact, monkeypatch):  # noqa: F811
    monkeypatch.setattr(live, "_model", lambda *_: read_artifact(artifact))
    edgekit.camera(demo=True)
    (options,) = asked
    assert options.source == str(live.demo_clip())
    assert (options.web, options.loop, options.open_page, options.count_lines) == (True, True, True, [live.DEMO_LINE])


@pytest.mark.parametrize(("given", "web"), [({"headless": True}, False), ({"web": True, "mp4": "x.mp4"}, True)])
def test_a_demo_with_sinks_of_its_own_has_those(asked, artifact, given, web):  # noqa: F811
    edgekit.camera(str(artifact), demo=True, **given)
    assert asked[0].web is web


def test_the_shipped_clip_can_be_played_and_its_licence_is_beside_it():
    shipped = live.demo_clip()
    assert shipped.stat().st_size < 3_000_000
    assert "CC BY 4.0" in (shipped.parent / "README.md").read_text()
    assert "Attribution 4.0 International" in (shipped.parent / "LICENSE").read_text()
    with open_source(shipped) as source:
        assert sum(1 for _ in source) == 197
        assert source.rate == 12.5


def test_a_boards_camera_strings_are_handed_over(asked, artifact):  # noqa: F811
    edgekit.camera(str(artifact), "csi://0", board="jetson-tx2")
    assert asked[0].board["camera"]["csi"].startswith("nvarguscamerasrc")


@pytest.mark.parametrize(
    ("kind", "board", "given", "runtime"),
    [
        ("engine", None, None, "tensorrt10"),
        ("engine", "desktop-gpu", None, "tensorrt10"),  # which has tensorrt11 first
        ("engine", "x86-1t", None, "tensorrt10"),
        ("engine", "desktop-gpu", "tensorrt11", "tensorrt11"),
        ("onnx", None, None, "onnxruntime"),
        ("onnx", "desktop-gpu", None, "cuda"),  # the first that is no TensorRT
        ("onnx-int8", "jetson-tx2", None, "onnxruntime"),
        ("onnx", "jetson-tx2", "openvino", "openvino"),
    ],
)
def test_the_runtime_is_an_engines_own_or_the_boards_first_for_the_artifact(
    kind,
    board,
    given,
    runtime,
    artifact,  # noqa: F811
    clip,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    class Stop(Exception):
        pass

    def opened(runtime, artifact, threads):
        raise Stop(runtime)

    values = {k: v for k, v in read_artifact(artifact).manifest.items() if k not in ("kind", "payload")}
    with new_artifact(tmp_path / "model", kind, {**values, "engine": {"builder": "tensorrt10"}}):
        pass
    monkeypatch.setattr("edgekit.runtime.camera.app.open_session", opened)
    with pytest.raises(Stop) as stopped:
        edgekit.camera(tmp_path / "model", clip, board=board, runtime=given, headless=True)
    assert stopped.value.args == (runtime,)


def test_a_size_is_a_text_or_two_numbers_and_one_line_is_a_list_of_it(asked, artifact):  # noqa: F811
    for size in ("640x480", (640, 480)):
        edgekit.camera(str(artifact), "0", size=size, count_lines="0,0,1,1")
        assert (asked[-1].size, asked[-1].count_lines) == ((640, 480), ["0,0,1,1"])


def test_a_recipe_is_exported_and_its_int8_version_preferred(asked, artifact, clip, tmp_path, monkeypatch):  # noqa: F811
    exported = read_artifact(artifact)
    monkeypatch.setattr("edgekit.pipeline.export", lambda name, progress: exported)
    monkeypatch.setattr("edgekit.spine.RUNS", tmp_path)
    edgekit.camera(live.DEMO_RECIPE, clip)
    assert asked[-1].artifact == exported.path
    manifest = {k: v for k, v in exported.manifest.items() if k not in ("kind", "payload")}
    for parents in ({"onnx": "another"}, {"onnx": exported.digest}):
        with new_artifact(tmp_path / "demo" / "onnx-int8", "onnx-int8", {**manifest, "parents": parents}) as place:
            (tmp_path / "model").write_bytes(b"")
            (tmp_path / "model").rename(f"{place}/model.onnx")
        edgekit.camera(live.DEMO_RECIPE, clip)
    assert [a.artifact for a in asked[1:]] == [exported.path, str(tmp_path / "demo" / "onnx-int8")]


def test_a_recipes_folder_file_and_name_in_runs_are_exported(asked, artifact, clip, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("edgekit.pipeline.export", lambda name, progress: read_artifact(artifact))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec" / "recipe.yaml").write_text("")
    (tmp_path / "own").mkdir()  # a folder of the name that a trained recipe has
    with new_artifact(tmp_path / "runs" / "own" / "checkpoint", "checkpoint", {"classes": ["a"]}):
        pass
    for name in ("rec", "rec/recipe.yaml", "own"):
        edgekit.camera(name, clip)
    assert len(asked) == 3


def test_a_checkpoint_and_a_strange_folder_are_told(artifact, clip, tmp_path):  # noqa: F811
    with new_artifact(tmp_path / "checkpoint", "checkpoint", {"classes": ["a"]}):
        pass
    with pytest.raises(ArtifactError, match="edgekit export"):
        edgekit.camera(str(tmp_path / "checkpoint"), "0")
    with pytest.raises(ArtifactError, match=r"one is wanted: .*/checkpoint$"):
        edgekit.camera(str(tmp_path), clip)
    (tmp_path / "strange").mkdir()
    with pytest.raises(ArtifactError, match="not an artifact"):
        edgekit.camera(str(tmp_path / "strange"), clip)
    with pytest.raises(BadConfig, match="no recipe named"):
        edgekit.camera("no-such-recipe", clip)


@pytest.mark.parametrize(
    "arguments", [[], ["x"], ["--source", "0"], ["--demo", "--score", "3"], ["x", "--size", "big"]]
)
def test_mistakes_on_the_command_line(arguments, capsys):
    assert main(["camera", *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "more", "told"),
    [
        ("nowhere.mp4", {}, "no such video file"),
        ("79", {}, "/dev/video79 is not there"),
        ("rtsp://127.0.0.1/x", {"offline": True}, "cannot wait for the network"),
        ("udp://127.0.0.1:9", {"zones": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_a_wrong_source_is_told_before_a_recipe_is_exported(monkeypatch, source, more, told):
    monkeypatch.setattr("edgekit.pipeline.export", lambda *_, **__: pytest.fail("was exported"))
    with pytest.raises(EdgeKitError, match=told):
        edgekit.camera("edgekit-road", source, **more)


def test_one_run_looks_at_one_source(capsys):
    assert main(["camera", "x", "--source", "0", "--source", "1"]) == 2
    assert "--source is given twice" in capsys.readouterr().err


def test_the_command_runs_and_prints_json(artifact, clip, tmp_path):  # noqa: F811
    command = [sys.executable, "-m", "edgekit", "camera", str(artifact), "--source", str(clip), "--offline"]
    done = subprocess.run(
        [*command, "--coco", str(tmp_path / "c.json"), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"] == 40
    assert len(json.loads((tmp_path / "c.json").read_text())["images"]) == 40
