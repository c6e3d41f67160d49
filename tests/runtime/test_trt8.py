"""Sessions of TensorRT 8 over the twin's simulated TensorRT 8.2 and pycuda: logic, never speed."""

import ctypes
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident

import numpy as np
import pytest

from edgekit.runtime.cuda import Cuda
from edgekit.runtime.engines import build_engine
from edgekit.runtime.errors import ArtifactError, BadConfig, BadInput, BoardLacks
from edgekit.runtime.runner import open_runner
from edgekit.runtime.sessions import open_session, trt

from .simulated import HERE, changed

pytestmark = pytest.mark.usefixtures("simulator")


def test_it_sees_the_boxes_that_onnx_runtime_sees(engine, onnx_float, images):
    with open_runner(onnx_float.path) as reference, open_runner(engine.path, "tensorrt8") as runner:
        for image in images[:2]:
            expected, found = reference(image)[0], runner(image)[0]
            assert len(found.boxes) > 10
            np.testing.assert_allclose(found.scores, expected.scores, atol=2e-3)
        runner.check(images[0])


def test_spans_come_from_events_and_add_up_to_the_inference(engine, images):
    with open_runner(engine.path, "tensorrt8") as runner:
        _, timing = runner(images[0])
        spans = runner.session.spans
        assert sorted(spans) == ["compute", "device_to_host", "host_to_device"]
        assert all(seconds >= 0 for seconds in spans.values())
        assert list(timing.spans) == ["preprocess", "host_to_device", "inference", "device_to_host", "postprocess"]
        assert spans["compute"] <= timing.spans["inference"] * 1.01


def test_what_the_session_says_of_itself(engine, monkeypatch):
    with open_session("tensorrt8", engine) as session:
        about = session.describe()
    assert about["version"] == "8.2.1.8"
    assert about["precision"] == "fp16"
    assert about["tf32"] is False
    assert about["device"] == HERE["device"]
    assert about["cuda_graph"] is False
    assert about["preprocess"] == "host"
    assert any("no CUDA graph: no CUDA driver library" in note for note in about["notes"])
    json.dumps(about)


def test_what_failed_to_load_is_freed_before_its_context(engine, monkeypatch):
    """The error remembers the frames that hold TensorRT's objects, and TensorRT frees memory of the context in them."""
    import tensorrt
    from pycuda import driver

    def full(size):
        raise driver.Error("cuMemAlloc failed: out of memory")

    gone = []
    monkeypatch.setattr(driver, "mem_alloc", full)
    monkeypatch.setattr(driver._Context, "detach", lambda self: gone.append("context"))
    monkeypatch.setattr(tensorrt._Engine, "__del__", lambda self: gone.append("engine"), raising=False)
    with pytest.raises(BoardLacks) as caught:
        open_session("tensorrt8", engine)
    assert (gone, caught.type) == (["engine", "context"], BoardLacks)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_any_other_failure_gives_the_context_back_too(error, engine, monkeypatch):
    import tensorrt
    from pycuda import driver

    def fail(self, plan):
        raise error()

    gone = []
    monkeypatch.setattr(tensorrt.Runtime, "deserialize_cuda_engine", fail)
    monkeypatch.setattr(driver._Context, "detach", lambda self: gone.append("context"))
    with pytest.raises(error):
        open_session("tensorrt8", engine)
    assert gone == ["context"]


def test_each_session_is_told_its_own_errors(engine, monkeypatch):
    """TensorRT tells all errors of a process to the logger that it was given first."""
    import tensorrt

    with open_session("tensorrt8", engine):
        monkeypatch.setattr(tensorrt, "_TAG", 213)
        with pytest.raises(BadInput, match="cannot load the engine: Version tag does not match"):
            open_session("tensorrt8", engine)
        monkeypatch.setattr(tensorrt.Runtime, "deserialize_cuda_engine", lambda self, plan: None)
        with pytest.raises(BadInput, match="cannot load the engine: no message"):
            open_session("tensorrt8", engine)


class Kernel:
    """Stands in for the compiled kernel: ``Preprocess`` on the simulated device memory."""

    def __init__(self, preprocess):
        self.preprocess = preprocess

    def __call__(self, source, target, width, height, *values, **launch):
        pixels = (ctypes.c_uint8 * (int(width) * int(height) * 3)).from_address(int(source))
        made, _ = self.preprocess(np.frombuffer(pixels, np.uint8).reshape(height, width, 3), "nchw_float")
        ctypes.memmove(int(target), made.ctypes.data, made.nbytes)


def test_images_of_all_sizes_are_uploaded_through_one_buffer(engine, images, monkeypatch):
    """It is allocated within the time that the image's preprocessing takes."""
    from pycuda import driver

    monkeypatch.setattr(trt, "compile_kernel", lambda: Kernel(engine.preprocess))
    mem_alloc, sizes = driver.mem_alloc, []
    large = np.tile(images[0], (3, 3, 1))  # more than the self-check uploads
    with open_runner(engine.path, "tensorrt8") as runner:
        assert runner.session.describe()["preprocess"] == "device"
        monkeypatch.setattr(driver, "mem_alloc", lambda size: sizes.append(size) or mem_alloc(size))
        for image in (large[:40, :60], large, large[:, :90], large[:300], large):
            tensor, _ = runner.session.prepare(image, engine.preprocess)
            assert tensor is trt.ON_DEVICE
            found = {name: values.copy() for name, values in runner.session.infer({"image": tensor}).items()}
            expected = runner.session.infer({"image": engine.preprocess(image)[0]})
            np.testing.assert_array_equal(found["boxes"], expected["boxes"])
        assert sizes == [large.nbytes]


@pytest.mark.parametrize("channels", [1, 4])
def test_an_image_with_other_channels_never_reaches_the_kernel(engine, images, channels, monkeypatch):
    monkeypatch.setattr(trt, "compile_kernel", lambda: Kernel(engine.preprocess))
    image = np.repeat(images[0][:, :, :1], channels, axis=2)
    with open_runner(engine.path, "tensorrt8") as runner:
        assert runner.session.describe()["preprocess"] == "device"
        with pytest.raises(ValueError, match=rf"\[height, width, 3\], got uint8 .*, {channels}\)"):
            runner(image)


class Driver:
    """Stands in for libcuda: every call succeeds but those named, which return their number."""

    def __init__(self, **failing):
        self.failing = failing

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *arguments: self.failing.get(name, 0)


@pytest.mark.parametrize(
    ("failing", "captured", "told"),
    [
        ({}, True, None),
        ({"cuGraphLaunch": 700}, True, "the GPU cannot run it any more: cuGraphLaunch failed with CUDA error 700"),
        ({"cuStreamEndCapture": 901}, False, None),  # then the kernels are launched one by one
    ],
)
def test_a_graph_that_cannot_be_launched_is_one_sentence(failing, captured, told, engine, monkeypatch):
    monkeypatch.setattr("edgekit.runtime.sessions.cudagraph._library", lambda: Driver(**failing))
    image = np.zeros((1, 3, 64, 96), np.float32)
    with open_session("tensorrt8", engine) as session:
        assert session.describe()["cuda_graph"] is captured
        if told is None:
            session.infer({"image": image})
        else:
            with pytest.raises(BoardLacks, match=rf"{engine.path}: {told}.*EDGEKIT_CUDA_GRAPH=0"):
                session.infer({"image": image})


def test_a_kernel_that_cannot_run_leaves_the_images_to_the_host(engine, images, monkeypatch):
    from pycuda import driver

    def refuse(*arguments, **launch):
        raise driver.Error("cuLaunchKernel failed: too many resources requested for launch")

    monkeypatch.setattr(trt, "compile_kernel", lambda: refuse)
    with open_runner(engine.path, "tensorrt8") as runner:
        about = runner.session.describe()
        assert about["preprocess"] == "host"
        assert any("on the host: the kernel cannot be made or run (cuLaunchKernel" in note for note in about["notes"])
        assert len(runner(images[0])[0].boxes) > 10


def test_a_gpu_without_room_is_one_sentence(engine, monkeypatch):
    from pycuda import driver

    def full(size):
        raise driver.Error("cuMemAlloc failed: out of memory")

    monkeypatch.setattr(driver, "mem_alloc", full)
    with pytest.raises(BoardLacks, match="the GPU cannot run it: cuMemAlloc failed: out of memory"):
        open_session("tensorrt8", engine)


def test_an_input_of_another_size_is_refused(engine):
    with open_session("tensorrt8", engine) as session, pytest.raises(BadInput, match="the engine takes an input"):
        session.infer({"image": np.zeros((1, 3, 32, 32), np.float32)})


@pytest.mark.parametrize("runtime", ["tensorrt10", "tensorrt11"])
def test_a_session_of_another_tensorrt_is_refused(runtime, engine):
    with pytest.raises(BadConfig, match=f"runtime {runtime} is not for TensorRT 8.2.1.8.*--runtime tensorrt8"):
        open_session(runtime, engine)


def test_an_onnx_file_is_not_an_engine(onnx_float):
    with pytest.raises(ArtifactError, match=r"runtime tensorrt8 loads engine.*edgekit build"):
        open_session("tensorrt8", onnx_float)


def test_an_engine_from_elsewhere_never_reaches_tensorrt(engine, copy_of, monkeypatch):
    import tensorrt

    monkeypatch.setattr(tensorrt, "Runtime", None)  # calling it would be another error
    with pytest.raises(BoardLacks, match=r"compute capability 7.2, this machine has 6.2"):
        open_session("tensorrt8", changed(engine, copy_of, sm=72))


def test_nms_in_the_engine_gives_what_nms_on_the_host_gives(onnx_float, copy_of, tmp_path, images):
    postprocess = {"nms": "classwise", "score_threshold": 0.05, "iou_threshold": 0.5, "top_k": 50}
    source = copy_of(onnx_float, postprocess=postprocess)
    engine = build_engine(source, tmp_path / "engine", {"precision": "fp32", "nms": "graph"})
    assert engine.manifest["engine"]["nms"] == "plugin"
    assert engine.manifest["postprocess"] == dict(postprocess, nms="none")
    with open_runner(source.path) as host, open_runner(engine.path, "tensorrt8") as graph:
        assert graph.session.describe()["nms"] == "plugin"
        expected, found = host(images[0])[0], graph(images[0])[0]
    assert len(expected.scores) == len(found.scores) > 5
    np.testing.assert_allclose(np.sort(found.scores), np.sort(expected.scores), atol=1e-6)
    np.testing.assert_allclose(found.boxes[0], expected.boxes[0], atol=1e-3)


def test_selected_boxes_become_the_contract():
    found = trt.spread(np.ones((2, 4)), np.array([0.9, 0.5]), np.array([2, 0]), 3)
    assert found["boxes"].shape == (1, 2, 4)
    np.testing.assert_allclose(found["scores"][0], [[0, 0, 0.9], [0.5, 0, 0]])


@pytest.mark.parametrize(
    ("integrated", "sm", "slow"), [(1, (6, 2), True), (1, (5, 3), True), (1, (7, 2), False), (0, (6, 1), False)]
)
def test_pinned_memory_that_the_cpu_does_not_cache_is_read_once(integrated, sm, slow, engine, copy_of, monkeypatch):
    """Post-processing reads the outputs many times. On a GPU with memory of its own they may stay where they are."""
    from pycuda import driver

    monkeypatch.setattr(driver.Device, "compute_capability", lambda self: sm)
    monkeypatch.setattr(driver.Device, "get_attribute", lambda self, name: integrated)
    with open_session("tensorrt8", changed(engine, copy_of, sm=10 * sm[0] + sm[1])) as session:
        found = session.infer({"image": np.zeros((1, 3, 64, 96), np.float32)})
        for name in ("boxes", "scores"):
            assert np.shares_memory(found[name], session._run.outputs[name].host) is not slow
        assert (session.describe()["device_memory_bytes"] is None) == bool(integrated)


def test_sessions_of_a_process_share_one_context(engine, images, monkeypatch):
    """Kernels of two contexts take turns on the GPU, so that streams of ``bench --offline`` would never overlap."""
    from pycuda import driver

    calls = []
    make = driver.Device.make_context
    monkeypatch.setattr(driver.Device, "make_context", lambda self: calls.append("make") or make(self))
    monkeypatch.setattr(driver._Context, "detach", lambda self: calls.append("detach"))
    first, second = open_runner(engine.path, "tensorrt8"), open_runner(engine.path, "tensorrt8")
    assert first.session._cuda._primary is second.session._cuda._primary
    first.close()
    assert len(second(images[0])[0].boxes) > 10
    assert calls == ["make"]
    second.close()
    second.close()
    assert calls == ["make", "detach"]
    with open_session("tensorrt8", engine):
        assert calls == ["make", "detach", "make"]


def test_the_last_thread_gives_back_a_context_that_another_made(monkeypatch):
    """pycuda forgets it silently unless it is current there."""
    from pycuda import driver

    depth = Counter()
    monkeypatch.setattr(driver._Context, "push", lambda self: depth.update({get_ident(): 1}))
    monkeypatch.setattr(driver._Context, "pop", lambda self: depth.update({get_ident(): -1}))
    left = []
    monkeypatch.setattr(driver._Context, "detach", lambda self: left.append(depth[get_ident()]))
    cuda = Cuda()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(cuda.close).result()
    assert left == [1]


def test_a_device_that_is_not_there():
    with pytest.raises(BoardLacks, match="no usable CUDA device 3"):
        Cuda(3)
