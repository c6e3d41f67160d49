"""Building and checking engines, with the twin's simulated TensorRT 8.2 and pycuda: logic, never speed."""

import hashlib
import os
import re
import struct
import types
from pathlib import Path

import cv2
import pytest

from edgekit.runtime.artifact import read_artifact
from edgekit.runtime.cuda import Cuda
from edgekit.runtime.engines import BuildOptions, build_engine, caches, verdict
from edgekit.runtime.engines import build as building
from edgekit.runtime.engines.plan import read_plan_header
from edgekit.runtime.engines.verdict import check_engine, check_place
from edgekit.runtime.errors import ArtifactError, BadConfig, BadInput, BoardLacks, ChildDied, MissingDependency
from edgekit.runtime.runner import open_runner
from tests.twin.sysroot import make_sysroot

from .simulated import HERE, SIMULATOR, changed

pytestmark = pytest.mark.usefixtures("simulator")


# -- building ---------------------------------------------------------------------------------------------------------
def test_the_sidecar_says_what_the_engine_is_bound_to(engine, onnx_float):
    about = engine.manifest["engine"]
    assert {key: about[key] for key in HERE} == HERE
    assert about["builder"] == "tensorrt8"
    assert about["flags"] == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
    assert about["plan"] == {"layout": "tagged", "tag": 205, "version": "8.2"}
    assert about["onnx_sha256"] == onnx_float.manifest["payload"]["model.onnx"]["sha256"]
    assert about["plan_sha256"] == engine.manifest["payload"]["model.plan"]["sha256"]
    assert [end["name"] for end in about["outputs"]] == ["boxes", "scores"]
    assert about["perf_only"] is None
    assert engine.manifest["parents"] == {"onnx": onnx_float.digest}
    assert engine.manifest["precision"] == "fp16"
    for name in ("classes", "category_ids", "preprocess", "recipe", "postprocess", "input"):
        assert engine.manifest[name] == onnx_float.manifest[name]


REFUSED = [
    ({"precision": "int8"}, BadConfig, "INT8 needs ranges of real images.*--flavour trt"),
    ({"precision": "int8", "perf_only": True}, BoardLacks, r"INT8 on EdgeKit TX2 twin \(simulated\) \(sm_62\).*fp16"),
    ({"precision": "bf16"}, BadConfig, "precision: expected one of fp32, fp16, int8"),
    ({"precison": "fp16"}, BadConfig, "unknown option precison"),
    ({"workspace_mb": 0}, BadConfig, "workspace_mb: expected a whole number from 1"),
    ({"pins": ["nothing"]}, BadConfig, "pins: no floating point layer is called nothing"),
    ({"nms": "graph"}, BadConfig, "this head needs none"),
    ({"builder": "tensorrt9"}, BadConfig, "builder: expected one of"),
    ({"builder": "tensorrt10"}, BoardLacks, r"TensorRT 8.2.1.8 is installed here, which takes tensorrt8;.*--release"),
]


@pytest.mark.parametrize(("options", "error", "words"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_cannot_be_built_leaves_nothing(options, error, words, onnx_float, tmp_path):
    with pytest.raises(error, match=words):
        build_engine(onnx_float, tmp_path / "engine", options)
    assert not (tmp_path / "engine").exists()


def test_raw_pixels_are_refused_before_any_work(onnx, tmp_path):
    with pytest.raises(BadConfig, match="an engine takes nchw_float"):
        build_engine(onnx, tmp_path / "engine")


@pytest.mark.parametrize(
    ("flavour", "precision", "words"), [("x86", "int8", "flavour 'x86'"), ("trt", "fp16", "is INT8")]
)
def test_int8_files_of_the_wrong_kind(flavour, precision, words, onnx_float, copy_of, tmp_path):
    quantized = copy_of(onnx_float, kind="onnx-int8", flavour=flavour, precision="int8")
    with pytest.raises(BadConfig, match=words):
        build_engine(quantized, tmp_path / "engine", {"precision": precision})


def test_what_another_project_quantized_is_no_source(onnx_float, copy_of, tmp_path):
    imported = copy_of(onnx_float, precision="int8")
    for precision in ("fp32", "fp16", "int8"):
        with pytest.raises(BadConfig, match=r"found a file that was imported in INT8.*edgekit quantize"):
            build_engine(imported, tmp_path / "engine", {"precision": precision, "perf_only": True})


def test_too_little_memory_is_told_before_any_work(onnx_float, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "memory_free_mb", lambda: {"available": 300, "swap": 10})
    with pytest.raises(BoardLacks, match=r"needs about .* free are 300 MiB and 10 MiB of swap.*swapfile"):
        build_engine(onnx_float, tmp_path / "engine")


def test_on_a_jetson_neither_zram_nor_swap_holds_the_gpus_part(tmp_path, monkeypatch):
    """All of JetPack's swap is zram; a file on disk is swap, but the GPU's buffers do not go there."""
    root = make_sysroot(tmp_path / "root")
    monkeypatch.setenv("EDGEKIT_SYSROOT", str(root))
    swaps = (root / "proc/swaps").read_text()
    options = BuildOptions(workspace_mb=1024)
    (root / "proc/meminfo").write_text("MemAvailable: 1536000 kB\nSwapTotal: 4019568 kB\nSwapFree: 4019568 kB\n")
    assert building.memory_free_mb() == {"available": 1500, "swap": 0}
    with pytest.raises(BoardLacks, match=r"2000 MiB, of which 1024 MiB are for the GPU .* 1500 MiB and 0 MiB of swap"):
        building.check_memory(2000, options)
    (root / "proc/swaps").write_text(swaps + "/swapfile                               file\t2097152\t1048576\t-2\n")
    assert building.memory_free_mb() == {"available": 1500, "swap": 1024}
    building.check_memory(2000, options)
    with pytest.raises(BoardLacks, match=r"of which 1600 MiB are for the GPU"):
        building.check_memory(2000, BuildOptions(workspace_mb=1600))


def test_signal_9_is_explained(onnx_float, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "CHILD", "killed:die")
    (tmp_path / "killed.py").write_text("import os\ndef die(**request):\n    os.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ChildDied, match=r"'build engine' of .*model.onnx was killed by SIGKILL.*memory runs out.*swap"):
        build_engine(onnx_float, tmp_path / "engine")


def test_without_tensorrt_the_message_names_the_systems_python(onnx_float, tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "pycuda").symlink_to(SIMULATOR / "pycuda")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    with pytest.raises(MissingDependency, match=r"TensorRT cannot be loaded.*python3-libnvinfer"):
        build_engine(onnx_float, tmp_path / "engine")


def test_without_pycuda_the_message_says_how_to_build_it(onnx_float, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(MissingDependency, match=r"pycuda.*pip install pycuda"):
        build_engine(onnx_float, tmp_path / "engine")


def test_inmslayer_is_not_for_8_2(onnx_float, copy_of, tmp_path):
    source = copy_of(onnx_float, postprocess={"nms": "classwise"})
    with pytest.raises(BadConfig, match="has no INMSLayer"):
        build_engine(source, tmp_path / "engine", {"nms": "layer"})


def test_soft_nms_stays_on_the_host(onnx_float, copy_of, tmp_path):
    source = copy_of(onnx_float, postprocess={"nms": "soft"})
    with pytest.raises(BadConfig, match="TensorRT has no soft NMS"):
        build_engine(source, tmp_path / "engine", {"nms": "graph"})


VERSIONS = [("8.0.1.6", "tensorrt8"), ("8.4.1", "tensorrt8"), ("8.5.2.2", "tensorrt10"), ("10.3.0", "tensorrt10")]


@pytest.mark.parametrize(("version", "name"), [*VERSIONS, ("11.4.0.106", "tensorrt11")])
def test_the_builder_is_chosen_by_version(version, name):
    assert building.builder_for(version) == name


def test_versions_before_8_are_too_old():
    with pytest.raises(BoardLacks, match=r"7\.1\.3\.0 is too old"):
        building.builder_for("7.1.3.0")


# -- caches -----------------------------------------------------------------------------------------------------------
def test_a_calibration_belongs_to_its_content(onnx_float, tmp_path):
    images = [tmp_path / name for name in ("a.png", "b.png")]
    for image in images:
        image.write_bytes(image.name.encode())
    file, preprocess = onnx_float.file("model.onnx"), onnx_float.preprocess
    key = caches.calibration_key(file, preprocess, list(map(str, images)), "8.4.1")
    place = tmp_path / "ranges.trt"
    assert caches.read_calibration(place, key) == b""
    caches.write_calibration(str(place), key, b"TRT-8401 ranges")
    assert caches.read_calibration(str(place), key) == b"TRT-8401 ranges"
    images[1].write_bytes(b"another picture")
    other = caches.calibration_key(file, preprocess, list(map(str, images)), "8.4.1")
    with pytest.raises(BadInput, match="belongs to another network, preprocessing, image list or TensorRT"):
        caches.read_calibration(str(place), other)
    with pytest.raises(BadInput, match=r"calibration images are missing: .*gone"):
        caches.calibration_key(file, preprocess, [str(tmp_path / "gone.png")], "8.4.1")


@pytest.fixture
def calibration(onnx_float, tmp_path, images):
    """calibration(**options) -> (Calibration over two pictures, the images seen so far)."""
    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    for path, image in zip(paths, images, strict=False):
        cv2.imwrite(path, image)
    cuda, seen = Cuda(), []
    options = BuildOptions(precision="int8", calibration_images=paths)

    def make():
        return building.Calibration(onnx_float, options, cuda, "8.4.1", lambda *step: seen.append(step)), options, seen

    return make


def test_calibration_shows_every_image_once_and_keeps_the_ranges(calibration):
    import tensorrt

    found, options, seen = calibration()
    assert found.wanted
    calibrator = found.calibrator(tensorrt)
    assert calibrator.get_batch_size() == 1
    assert calibrator.read_calibration_cache() is None
    addresses = [calibrator.get_batch(["image"]) for _ in range(3)]
    assert all(len(one) == 1 and one[0] > 0 for one in addresses[:2])
    assert addresses[2] is None
    assert seen == [(1, 2), (2, 2)]
    calibrator.write_calibration_cache(b"TRT ranges")
    again, _, _ = calibration()
    assert again.calibrator(tensorrt).read_calibration_cache() == b"TRT ranges"
    Path(options.calibration_images[1]).write_bytes(Path(options.calibration_images[0]).read_bytes())
    other, _, _ = calibration()
    assert other.key != found.key or other.calibrator(tensorrt).read_calibration_cache() is None


@pytest.mark.parametrize("with_images", [True, False])
def test_int8_of_a_float_file_has_a_calibrator_or_made_up_ranges(with_images, calibration, onnx_float, monkeypatch):
    import tensorrt

    from edgekit.runtime.engines.tensorrt8 import Tensorrt8

    ranges, configs = [], []
    monkeypatch.setattr(tensorrt._Tensor, "set_dynamic_range", lambda tensor, low, high: ranges.append((low, high)))
    create = tensorrt.Builder.create_builder_config
    monkeypatch.setattr(
        tensorrt.Builder, "create_builder_config", lambda self: configs.append(create(self)) or configs[-1]
    )
    found, options, _ = calibration()
    wanted = found if with_images else None
    job = building.Job(onnx_float.file("model.onnx"), options, onnx_float.manifest, b"", wanted, lambda step: None)
    _, _, about = Tensorrt8(tensorrt).build(job)
    assert about["flags"] == ["FP16", "OBEY_PRECISION_CONSTRAINTS", "INT8"]
    assert (configs[0].int8_calibrator is not None) == with_images
    assert bool(ranges) != with_images


@pytest.fixture
def build_int8(calibration, onnx_float):
    """Builds with the calibration over two pictures, as ``build_here`` does; gives how many were asked for."""
    import tensorrt

    from edgekit.runtime.engines.tensorrt8 import Tensorrt8

    def build():
        found, options, seen = calibration()
        before = len(seen)
        job = building.Job(onnx_float.file("model.onnx"), options, onnx_float.manifest, b"", found, lambda step: None)
        Tensorrt8(tensorrt).build(job)
        return len(seen) - before

    return build


def kept_ranges():
    return sorted(Path(os.environ["EDGEKIT_CACHE"]).glob("calibration/*"))


def test_a_damaged_image_ends_the_build_and_leaves_no_ranges(build_int8, tmp_path, images):
    """TensorRT would go on with the images before it, and their ranges be kept for all of them."""
    cv2.imwrite(str(tmp_path / "whole.jpg"), images[0])
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"1\.png: truncated JPEG"):
        build_int8()
    assert kept_ranges() == []
    cv2.imwrite(str(tmp_path / "1.png"), images[1])
    assert build_int8() == 2
    assert len(kept_ranges()) == 1
    assert build_int8() == 0  # the kept ranges: no image is asked for, and none is missed


def test_tensorrt_that_takes_fewer_images_than_given_is_an_error(build_int8, monkeypatch):
    import tensorrt

    def impatient(calibrator, names):
        calibrator.get_batch(names)
        calibrator.write_calibration_cache(b"ranges of one")

    monkeypatch.setattr(tensorrt, "_calibrate", impatient)
    with pytest.raises(ChildDied, match="TensorRT took 1 of 2 images, so its ranges are not kept"):
        build_int8()
    assert kept_ranges() == []


@pytest.mark.parametrize(("precision", "flags"), [("fp32", []), ("fp16", ["FP16", "OBEY_PRECISION_CONSTRAINTS"])])
def test_fp32_layers_never_multiply_in_tf32(precision, flags, onnx_float, monkeypatch):
    """TensorRT allows it by default, and the manifest would call such an engine FP32."""
    import tensorrt

    from edgekit.runtime.engines.tensorrt8 import Tensorrt8

    configs, create = [], tensorrt.Builder.create_builder_config
    monkeypatch.setattr(
        tensorrt.Builder, "create_builder_config", lambda self: configs.append(create(self)) or configs[-1]
    )
    options = BuildOptions(precision=precision)
    job = building.Job(onnx_float.file("model.onnx"), options, onnx_float.manifest, b"", None, lambda step: None)
    _, _, about = Tensorrt8(tensorrt).build(job)
    assert create(None).flags == ["TF32"]
    assert configs[0].flags == about["flags"] == flags
    assert about["tf32"] is False


@pytest.mark.parametrize("refuse", [lambda content: None, lambda content: types.SimpleNamespace(serialize=bytes)])
def test_a_timing_cache_that_tensorrt_refuses_is_begun_anew(refuse, onnx_float, monkeypatch):
    """A damaged one makes no cache at all, one of another GPU is not taken."""
    import tensorrt

    from edgekit.runtime.engines.tensorrt8 import Tensorrt8

    create = tensorrt._Config.create_timing_cache
    monkeypatch.setattr(
        tensorrt._Config, "create_timing_cache", lambda self, old: refuse(old) if old else create(self, old)
    )
    options = BuildOptions(precision="fp32")
    job = building.Job(onnx_float.file("model.onnx"), options, onnx_float.manifest, b"?", None, lambda step: None)
    _, timing, _ = Tensorrt8(tensorrt).build(job)
    assert timing == b"simulated timing cache"


def test_each_board_has_its_own_timing_cache():
    facts = dict(HERE, tensorrt="8.2.1.8")
    first = caches.timing_cache_file(BuildOptions(), facts)
    assert first == caches.timing_cache_file(BuildOptions(), facts)
    assert {first} & {caches.timing_cache_file(BuildOptions(), dict(facts, sm=53)), None} == set()
    assert caches.timing_cache_file(BuildOptions(timing_cache=False), facts) is None
    assert caches.timing_cache_file(BuildOptions(timing_cache="/x/y.cache"), facts) == "/x/y.cache"


# -- plan headers -----------------------------------------------------------------------------------------------------
HEADERS = [
    (b"ftrt" + struct.pack("<I", 0) + bytes(16) + bytes([10, 3, 0, 26]), {"layout": "ftrt", "version": "10.3.0.26"}),
    (b"ptrt" + bytes(4) + struct.pack("<I", 213) + bytes(20), {"layout": "tagged", "tag": 213, "version": "8.4"}),
    (b"ptrt" + bytes(4) + struct.pack("<I", 99) + bytes(20), {"layout": "tagged", "tag": 99, "version": None}),
    (b"what" + bytes(40), {"layout": "unknown"}),
]


@pytest.mark.parametrize(("content", "wanted"), HEADERS)
def test_plan_headers(content, wanted, tmp_path):
    (tmp_path / "model.plan").write_bytes(content)
    assert read_plan_header(tmp_path / "model.plan") == wanted


FOREIGN = [
    (b"ftrt", "only 4 bytes"),
    (b"ftrt" + struct.pack("<I", 7) + bytes(40), "serialization version 7"),
    (struct.pack("<I", 300) + b'{"description": 1}' + bytes(20), "Ultralytics"),
    (b"\x08\x07\x12\x07pytorch" + bytes(40), "looks like an ONNX file"),
    (b"PK\x03\x04" + bytes(40), "compressed archive"),
    (b"vtrt" + bytes(40), "TensorRT-RTX"),
]


@pytest.mark.parametrize(("content", "words"), FOREIGN, ids=lambda value: str(value)[:20])
def test_files_that_are_no_plan(content, words, tmp_path):
    (tmp_path / "model.plan").write_bytes(content)
    with pytest.raises(BadInput, match=words):
        read_plan_header(tmp_path / "model.plan")


@pytest.mark.parametrize("content", [content for content, _ in FOREIGN[1:]], ids=lambda value: str(value)[:20])
def test_a_plan_that_was_built_here_may_begin_with_anything(content, onnx_float, engine, copy_of, tmp_path):
    """A TensorRT that writes a layout of tomorrow has built all the same; its engine is known by its SHA-256."""
    plan = tmp_path / "model.plan"
    plan.write_bytes(content)
    about = {"nms": "host", "calibration": None, "tensorrt": "8.2.1.8", "cuda": "10.2"}
    made = building.engine_manifest(onnx_float, BuildOptions(precision="fp16"), about, str(plan))["engine"]
    assert made["plan"] == {"layout": "unknown"}
    hashed = {"plan": made["plan"], "plan_sha256": made["plan_sha256"]}
    check_engine(copy_of(engine, {"model.plan": content}, engine={**engine.manifest["engine"], **hashed}), HERE)


@pytest.mark.parametrize(("content", "words"), FOREIGN[1:], ids=lambda value: str(value)[:20])
def test_a_foreign_file_with_the_sidecar_of_a_known_layout_is_refused(content, words, engine, copy_of):
    about = dict(engine.manifest["engine"], plan_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(BadInput, match=words):
        check_engine(copy_of(engine, {"model.plan": content}, engine=about), HERE)


def test_too_little_is_no_plan_wherever_it_was_built(tmp_path):
    (tmp_path / "model.plan").write_bytes(b"ftrt")
    with pytest.raises(BadInput, match="only 4 bytes"):
        read_plan_header(tmp_path / "model.plan", built_here=True)


# -- the verdict ------------------------------------------------------------------------------------------------------
def test_an_engine_for_here_is_allowed(engine, onnx_float):
    check_engine(engine, HERE)
    check_engine(engine, HERE, onnx_float.file("model.onnx"))


MISMATCHES = [
    ("tensorrt", "8.0.1.6", "for TensorRT 8.2.1.8, this machine has 8.0.1.6"),
    ("sm", 53, "for compute capability 6.2, this machine has 5.3"),
    ("device", "NVIDIA Tegra X1", "for GPU EdgeKit TX2 twin .simulated., this machine has NVIDIA Tegra X1"),
    ("cuda", "11.4", "for CUDA 10.2, this machine has 11.4"),
    ("l4t", "32.7.6", "for L4T none, this machine has 32.7.6"),
]


@pytest.mark.parametrize(("key", "value", "words"), MISMATCHES, ids=[m[0] for m in MISMATCHES])
def test_a_mismatch_is_one_sentence_with_both_sides_and_the_cure(key, value, words, engine):
    with pytest.raises(BoardLacks, match=words) as caught:
        check_engine(engine, dict(HERE, **{key: value}))
    assert "build it here: edgekit build" in str(caught.value)
    assert "--board twin --precision fp16" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_plans_sidecar_is_refused(engine, copy_of):
    with pytest.raises(ArtifactError, match="the manifest belongs to another engine"):
        check_engine(changed(engine, copy_of, plan_sha256="0" * 64), HERE)


def test_an_exchanged_plan_is_refused(engine, copy_of, tmp_path):
    artifact = copy_of(engine)
    plan = Path(artifact.path) / "model.plan"
    plan.write_bytes(plan.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="SHA-256 is"):
        read_artifact(artifact.path)


def test_a_plan_without_sidecar_is_refused(engine, copy_of, tmp_path):
    with pytest.raises(ArtifactError, match="does not say what the engine was built for"):
        check_engine(copy_of(engine, engine=None), HERE)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "model.plan").write_bytes(b"ftrt" + bytes(40))
    with pytest.raises(ArtifactError, match="not an artifact"):
        open_runner(tmp_path / "alone", "tensorrt8")


def test_a_header_that_contradicts_the_sidecar_is_refused(engine, copy_of):
    other = {"layout": "ftrt", "version": "10.3.0.26"}
    with pytest.raises(ArtifactError, match=r"first bytes say tagged 205 8\.2, the manifest says ftrt 10\.3\.0\.26"):
        check_engine(changed(engine, copy_of, plan=other), HERE)
    with pytest.raises(ArtifactError, match=r"first bytes say TensorRT 8\.2, the manifest says 8\.4\.1"):
        check_engine(changed(engine, copy_of, tensorrt="8.4.1"), HERE)


@pytest.mark.parametrize(
    ("module", "fits"),
    [
        *((same, True) for same in ("10.3.0", "10.3.0.26", "10.3.0b6", "10.3.0.post1")),
        *((other, False) for other in ("10.3.1", "10.3.0.30", "10", "unknown")),
    ],
)
def test_a_plan_and_the_module_agree_in_the_parts_that_both_name(module, fits, engine, copy_of):
    """On JetPack 6 the module is 10.3.0, and the plans that it writes say 10.3.0.26."""
    plan = b"ftrt" + struct.pack("<I", 0) + bytes(16) + bytes([10, 3, 0, 26])
    digest = hashlib.sha256(plan).hexdigest()
    about = dict(engine.manifest["engine"], tensorrt=module, plan_sha256=digest)
    about["plan"] = {"layout": "ftrt", "version": "10.3.0.26"}
    artifact = copy_of(engine, {"model.plan": plan}, engine=about)
    if fits:
        check_engine(artifact, dict(HERE, tensorrt=module))
        return
    with pytest.raises(ArtifactError, match=f"bytes say TensorRT 10.3.0.26, the manifest says {re.escape(module)}"):
        check_engine(artifact, dict(HERE, tensorrt=module))


def test_an_engine_of_another_onnx_file_is_refused(engine, tmp_path):
    (tmp_path / "new.onnx").write_bytes(b"trained longer")
    with pytest.raises(ArtifactError, match=r"built from ONNX .*new.onnx is"):
        check_engine(engine, HERE, tmp_path / "new.onnx")


@pytest.mark.parametrize("where", ["folder", "plan", "above"])
def test_a_place_that_everybody_may_write_to_is_refused(where, engine, copy_of, tmp_path):
    artifact = copy_of(engine)
    place = {"folder": artifact.path, "plan": artifact.file("model.plan"), "above": str(tmp_path)}[where]
    os.chmod(place, 0o777)
    with pytest.raises(ArtifactError, match=f"everybody may write to {place}.*chmod o-w"):
        check_engine(artifact, HERE)
    os.chmod(place, 0o755)
    check_engine(artifact, HERE)


def account(name, uid, gid):
    return types.SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=gid)


@pytest.fixture
def owned(monkeypatch, tmp_path):
    """Makes the machine show a folder as that of another user and group, and this process's user as alice (1000)."""
    accounts = [
        account("root", 0, 0),
        account("alice", 1000, 1000),
        account("bob", 1001, 100),
        account("eve", 1002, 100),
    ]
    groups = {0: ("root", []), 1000: ("alice", []), 100: ("users", []), 50: ("lab", ["alice", "bob"])}

    def group(gid):
        name, members = groups[gid]
        return types.SimpleNamespace(gr_name=name, gr_mem=members)

    def show(uid, gid, mode, place=tmp_path):
        as_it_is = os.stat

        def looked_at(path, *args, **more):
            found = as_it_is(path, *args, **more)
            values = (mode, uid, gid) if str(path) == str(place) else (found.st_mode & ~0o022, 0, 0)
            return types.SimpleNamespace(st_mode=values[0], st_uid=values[1], st_gid=values[2])

        (tmp_path / "file").write_text("x")
        monkeypatch.setattr(verdict.os, "stat", looked_at)
        monkeypatch.setattr(verdict.os, "geteuid", lambda: 1000)
        monkeypatch.setattr(verdict.pwd, "getpwuid", {a.pw_uid: a for a in accounts}.__getitem__)
        monkeypatch.setattr(verdict.pwd, "getpwall", lambda: accounts)
        monkeypatch.setattr(verdict.grp, "getgrgid", group)
        return groups, accounts

    return show


@pytest.mark.parametrize(
    ("uid", "gid", "mode"),
    [
        (1000, 1000, 0o700),
        (0, 0, 0o755),
        (1000, 1000, 0o775),  # Ubuntu: a group of one's own
        (0, 0, 0o775),
        (0, 100, 0o1777),  # sticky
        (1000, 100, 0o755),
    ],
)
def test_ones_own_places_and_roots_are_safe(uid, gid, mode, owned, tmp_path):
    owned(uid, gid, mode)
    check_place(tmp_path / "file")


@pytest.mark.parametrize(
    ("uid", "gid", "mode", "told"),
    [
        (1001, 100, 0o755, "user bob owns {}, .*Build it in a folder of your own: edgekit build"),
        (1001, 100, 0o1755, "user bob owns {}"),  # who owns a sticky folder may rename in it
        (4242, 100, 0o700, "user 4242 owns {}"),
        (1000, 50, 0o775, "group lab may write to {}, .*chmod g-w {}"),
        (1000, 100, 0o775, "group users may write to {}"),
        (0, 77, 0o775, "group 77 may write to {}"),
    ],
)
def test_a_place_of_others_is_refused(uid, gid, mode, told, owned, tmp_path):
    owned(uid, gid, mode)
    with pytest.raises(ArtifactError, match=told.format(tmp_path, tmp_path)):
        check_place(tmp_path / "file")


def test_a_file_of_others_is_refused(owned, tmp_path):
    owned(1001, 100, 0o644, tmp_path / "file")
    with pytest.raises(ArtifactError, match=f"user bob owns {tmp_path / 'file'}"):
        check_place(tmp_path / "file")


def test_a_group_with_ones_name_and_another_member_is_not_ones_own(owned, tmp_path):
    groups, accounts = owned(1000, 1000, 0o775)
    check_place(tmp_path / "file")
    groups[1000] = ("alice", ["bob"])
    with pytest.raises(ArtifactError, match="group alice may write"):
        check_place(tmp_path / "file")
    groups[1000] = ("alice", [])
    accounts.append(account("mallory", 1003, 1000))
    with pytest.raises(ArtifactError, match="group alice may write"):
        check_place(tmp_path / "file")


def test_a_sticky_folder_above_is_safe(tmp_path):
    (tmp_path / "file").write_text("x")
    os.chmod(tmp_path, 0o1777)
    check_place(tmp_path / "file")
    os.chmod(tmp_path, 0o755)
