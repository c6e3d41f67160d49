"""What a bundle holds, what is refused before any work, and the same bytes twice."""

import json
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.board import load_board
from edgekit.deploy import bundling
from edgekit.deploy.bundling import BundleOptions, bundle, plan_build
from edgekit.runtime.artifact import new_artifact, read_artifact
from edgekit.runtime.camera.strings import read_board
from edgekit.runtime.errors import ArtifactError, BadConfig, BadInput, BoardLacks
from edgekit.runtime.onboard import archive, golden
from tests.twin import network


@pytest.fixture(scope="module")
def unpacked(bundled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked") / "b"
    archive.unpack(bundled["path"], folder)
    return folder


def test_what_is_in_it(bundled, unpacked, model, pictures):
    assert (bundled["board"], bundled["model"], bundled["signed_by"]) == ("jetson-tx2", "blocks", None)
    assert bundled["build"] == {"runtime": "tensorrt8", "precision": "fp16", "nms": "host", "workspace_mb": 1024}
    assert read_artifact(unpacked / "artifact").digest == model.digest
    golden = json.loads((unpacked / "golden" / "golden.json").read_text())
    assert [record["image"] for record in golden["images"]] == [f"{i:03d}.png" for i in range(4)]
    assert sum(len(record["scores"]) for record in golden["images"]) >= 10
    assert 0.05 <= golden["threshold"] <= 0.3
    assert golden["session"]["library"] == "onnxruntime"
    names = [p.name for p in sorted((unpacked / "evaluation" / "images").iterdir())]
    assert names == [f"{i:05d}.png" for i in range(4)]
    assert not (unpacked / "calibration").exists()  # the TX2 has no INT8
    board = read_board(unpacked / "artifact")  # where the camera verb finds the board's strings
    assert board["name"] == "jetson-tx2"
    assert "nvarguscamerasrc" in board["camera"]["csi"]
    index = json.loads((unpacked / "bundle.json").read_text())
    assert index["board"]["identity"]["modules"] == list(load_board("jetson-tx2").identity.modules)
    assert len(index["evaluation"]["digest"]) == 64


def test_the_same_inputs_give_the_same_bytes(bundled, model, options, tmp_path):
    again = bundle(model.path, board="jetson-tx2", options=options, out=tmp_path / "again.tar.gz")
    assert again["digest"] == bundled["digest"]
    assert Path(bundled["path"]).read_bytes() == (tmp_path / "again.tar.gz").read_bytes()
    with tarfile.open(bundled["path"]) as packed:
        assert {(m.mtime, m.uid, m.gid, m.mode) for m in packed} == {(0, 0, 0, 0o644)}


def test_int8_boards_get_calibration_images(model, options, pictures, tmp_path):
    with_images = replace(options, calibration=str(pictures.parent))
    made = bundle(model.path, board="jetson-xavier-nx", options=with_images, out=tmp_path / "nx.tar.gz")
    archive.unpack(made["path"], tmp_path / "b")
    assert len(list((tmp_path / "b" / "calibration" / "images").iterdir())) == 4


@pytest.mark.parametrize(
    ("board", "options", "error", "says"),
    [
        ("jetson-tx2", BundleOptions(precision="int8"), BoardLacks, r"INT8 on jetson-tx2: its GPU is sm_62"),
        ("jetson-nano", BundleOptions(precision="int8"), BoardLacks, r"sm_53"),
        ("jetson-tx2", BundleOptions(precision="bf16"), BoardLacks, "has no precision 'bf16'"),
        ("jetson-tx2", BundleOptions(release="5.1.2"), BoardLacks, "no software stack '5.1.2'"),
        ("jetson-tx2", BundleOptions(nms="layer"), BadConfig, r"tensorrt8 has no INMSLayer .*--nms plugin"),
        ("jetson-tx2", BundleOptions(nms="gpu"), BadConfig, "no way of NMS named 'gpu'"),
        ("jetson-tx2", BundleOptions(calibration="dhaka-calib"), BadConfig, "--calibration: jetson-tx2 has no INT8"),
        ("jetson-tx2", BundleOptions(workspace_mb=100_000), BadConfig, r"MiB from 1 to 7850.*1024 are taken"),
        ("jetson-tx2", BundleOptions(workspace_mb=0), BadConfig, r"--workspace 0: expected MiB from 1"),
        ("JETSON-TX2", BundleOptions(), BadConfig, "Did you mean jetson-tx2"),
        ("jetson-tx3", BundleOptions(), BadConfig, "jetson-tx2"),
        (None, BundleOptions(), BadConfig, "--board jetson-tx2"),
    ],
)
def test_what_the_board_cannot_do_is_refused_before_any_work(board, options, error, says, model, monkeypatch):
    monkeypatch.setattr(bundling, "_fill", lambda *a: pytest.fail("work was begun"))
    with pytest.raises(error, match=says):
        bundle(model.path, board=board, options=options)


def changed(model, folder, kind="onnx", **values):
    manifest = {k: v for k, v in model.manifest.items() if k not in ("kind", "payload")}
    with new_artifact(folder, kind, {**manifest, **values}) as inside:
        shutil.copy(model.file("model.onnx"), inside)
    return read_artifact(folder)


def test_uint8_input_and_quantized_files_are_refused_for_the_tx2(model, tmp_path):
    profile = load_board("jetson-tx2")
    raw = changed(model, tmp_path / "raw", input={"name": "image", "layout": "nhwc_uint8", "shape": [1, 64, 96, 3]})
    with pytest.raises(BoardLacks, match="its input is nhwc_uint8; board 'jetson-tx2' takes nchw_float"):
        plan_build(raw, profile, BundleOptions())
    int8 = changed(model, tmp_path / "int8", kind="onnx-int8", precision="int8", flavour="trt")
    with pytest.raises(BoardLacks, match=r"sm_62.*Bundle the onnx artifact without"):
        plan_build(int8, profile, BundleOptions())


def test_a_file_that_was_imported_in_int8_is_not_for_tensorrt(model, tmp_path):
    imported = changed(model, tmp_path / "int8", precision="int8")
    with pytest.raises(BadConfig, match="imported in INT8"):
        plan_build(imported, load_board("jetson-xavier-nx"), BundleOptions())


@pytest.mark.parametrize(("nms", "says"), [("none", "this head needs none"), ("soft", "no soft NMS")])
def test_nms_that_no_engine_does_is_refused_here_and_not_on_the_board(nms, says, model, tmp_path):
    other = changed(model, tmp_path / "other", postprocess={**network.POSTPROCESS, "nms": nms})
    with pytest.raises(BadConfig, match=says):
        plan_build(other, load_board("jetson-tx2"), BundleOptions(nms="graph"))


@pytest.mark.parametrize("way", ["host", "graph", "plugin"])
def test_ways_of_nms_reach_the_board(way, model):
    assert plan_build(model, load_board("jetson-tx2"), BundleOptions(nms=way))["nms"] == way


def test_a_file_for_several_images_a_call_is_refused(model, tmp_path):
    """The board would have built and verified it, and made it current, before its bench refused it."""
    given = model.manifest["input"]
    other = changed(model, tmp_path / "other", input={**given, "shape": [4, *given["shape"][1:]]})
    with pytest.raises(BadConfig, match=r"takes 4 images a call.*--batch.*edgekit export RECIPE --board jetson-tx2"):
        plan_build(other, load_board("jetson-tx2"), BundleOptions())


def test_what_is_no_artifact_is_told_how_to_make_one_for_the_board(tmp_path):
    with pytest.raises(ArtifactError, match=r"not an artifact.*edgekit export RECIPE --board jetson-tx2"):
        bundle(tmp_path, board="jetson-tx2")


def test_a_cpu_board_runs_the_file_as_it_is(model):
    assert plan_build(model, load_board("raspberry-pi-4"), BundleOptions()) == {
        "runtime": "onnxruntime",
        "precision": "fp32",
    }
    with pytest.raises(BadConfig, match="runs a file as it is"):
        plan_build(model, load_board("raspberry-pi-4"), BundleOptions(precision="int8"))


def test_lint_names_the_operator(options, tmp_path):
    made = network.artifact(tmp_path / "odd", extra="Mish")
    with pytest.raises(BoardLacks, match=r"jetson-tx2 cannot run it .*Mish.*edgekit lint"):
        bundle(made.path, board="jetson-tx2", options=options)


def test_what_a_release_lacks_is_looked_up_for_that_release(options, tmp_path):
    made = network.artifact(tmp_path / "odd", extra="Round")
    with pytest.raises(BoardLacks, match=r"Round.*edgekit lint \S+ --board jetson-tx2 --release 4\.6$"):
        bundle(made.path, board="jetson-tx2", options=replace(options, release="4.6"))
    assert bundle(made.path, board="jetson-tx2", options=options)["board"] == "jetson-tx2"


def test_a_network_that_sees_nothing_proves_nothing(pictures, options, tmp_path):
    blind = network.artifact(tmp_path / "blind", strength=0.0)
    manifest_post = {**network.POSTPROCESS, "score_threshold": 0.9}
    blind = changed(blind, tmp_path / "blinder", postprocess=manifest_post)
    with pytest.raises(BadInput, match="sees nothing in the golden images"):
        bundle(blind.path, board="jetson-tx2", options=options, out=tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


def test_boxes_too_unsure_to_be_compared_are_told_when_the_bundle_is_made(model, options, tmp_path, monkeypatch):
    """On the board nothing of the engine would be judged, and it would be refused there."""
    monkeypatch.setitem(golden.TOLERANCE, "fp16", (0.9, 0.97, 0.02))
    with pytest.raises(BadInput, match=r"has a score of 1\.00, and boxes of FP16 are compared from 1\.02 on"):
        bundle(model.path, board="jetson-tx2", options=options, out=tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


def test_without_images_it_says_which_option_gives_some(model, tmp_path):
    with pytest.raises(BadConfig, match="--golden FOLDER"):
        bundle(model.path, board="jetson-tx2", out=tmp_path / "b.tar.gz")


def test_golden_images_alone(model, pictures, tmp_path):
    made = bundle(
        model.path,
        board="jetson-tx2",
        out=tmp_path / "b.tar.gz",
        options=BundleOptions(golden=str(pictures.parent), data="none"),
    )
    assert archive.read_bundle(made["path"]).index["evaluation"] is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"board": "jetson-nano"}, "--board"),
        ({"sign": Path("key"), "out": Path("b")}, "--out, --sign"),
        ({"options": BundleOptions(nms="graph", workspace_mb=8)}, "--nms, --workspace"),
    ],
)
def test_a_bundle_does_not_silently_ignore_what_it_cannot_follow(given, named, bundled):
    with pytest.raises(BadConfig, match=rf"is a bundle.*{named}\. .*edgekit bundle ARTIFACT"):
        bundle(bundled["path"], **given)


def test_trust_is_for_bundles(model):
    with pytest.raises(BadConfig, match=r"is no bundle.*--sign KEY"):
        bundle(model.path, board="jetson-tx2", trust=[Path("key.pub")])


def test_an_onnx_file_is_led_to_its_import(model):
    with pytest.raises(BadInput, match=r"edgekit import-onnx .*model\.onnx --layout NAME"):
        bundle(model.file("model.onnx"), board="jetson-tx2")


def test_a_key_that_cannot_sign_is_found_before_any_work(model, options, tmp_path, monkeypatch):
    monkeypatch.setattr(bundling, "_fill", lambda *_: pytest.fail("worked for minutes first"))
    with pytest.raises(BadInput, match=r"cannot be read.*ssh-keygen"):
        bundle(model.path, board="jetson-tx2", options=options, out=tmp_path / "s.tar.gz", sign=tmp_path / "nowhere")


def test_signed_and_checked(bundled, model, options, tmp_path):
    pytest.importorskip("cryptography")
    for name in ("ours", "theirs"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    signed = bundle(model.path, board="jetson-tx2", options=options, out=tmp_path / "s.tar.gz", sign=tmp_path / "ours")
    assert signed["digest"] == bundled["digest"]
    assert signed["signed_by"].startswith("SHA256:")
    assert bundle(signed["path"], trust=[tmp_path / "ours.pub"]) == signed
    with pytest.raises(ArtifactError, match="is signed by"):
        bundle(signed["path"], trust=[tmp_path / "theirs.pub"])
    with pytest.raises(ArtifactError, match="is not signed"):
        bundle(bundled["path"], trust=[tmp_path / "ours.pub"])


def test_a_damaged_bundle_is_found_by_checking_it(bundled, tmp_path):
    data = bytearray(Path(bundled["path"]).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b.tar.gz").write_bytes(data)
    with pytest.raises(ArtifactError):
        bundle(tmp_path / "b.tar.gz")
    assert bundle(bundled["path"]) == bundled
