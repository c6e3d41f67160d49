"""What every TensorRT session does alike: verdict, buffers, one stream, events, and where the image is prepared.

``Execution`` hides how a TensorRT version names tensors and starts the work (trt8.py: bindings; trt10.py: addresses).
"""

import contextlib
import os
import traceback
from typing import Any

import numpy as np

from ..cuda import Cuda
from ..engines.build import builder_for, facts_of, load_tensorrt
from ..engines.network import Messages
from ..engines.verdict import PLAN, check_engine
from ..errors import BadConfig, BadInput, BoardLacks, EdgeKitError
from . import INPUT, OUTPUTS, Session, check_names
from .cudagraph import NoGraph, capture
from .preprocess_kernel import BLOCK, arguments, compile_kernel, grid

# set to 0: launch kernels one by one; prepare images on the host
GRAPH_SWITCH, KERNEL_SWITCH = "EDGEKIT_CUDA_GRAPH", "EDGEKIT_CUDA_PREPROCESS"
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: what others do on the context's default stream is not waited for
ON_DEVICE = object()  # stands for an input that lies on the device already
SUPPRESSED = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")


# DataType of TensorRT -> numpy; its own ``nptype`` fails up to 8.5 with numpy 1.24 on (NVIDIA/TensorRT#2567)
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


class Port(object):
    """An input or output: name, shape (-1 where the data decide), dtype, and its memory here and on the device.

    kind: the name of its DataType, as TensorRT calls it. Raises BadInput for one that numpy has not.
    """

    def __init__(self, driver, name, shape, kind, nbytes=None):
        if kind not in DTYPES:
            raise BadInput(
                "the engine's {} is of type {}; a session takes {}. Export the network with float32 ends: edgekit "
                "export RECIPE".format(name, kind, ", ".join(sorted(DTYPES)))
            )
        self.name, self.shape, self.dtype = name, tuple(int(n) for n in shape), np.dtype(DTYPES[kind])
        count = nbytes // self.dtype.itemsize if nbytes is not None else int(np.prod(self.shape, dtype=np.int64))
        self.host = driver.pagelocked_empty(max(1, count), self.dtype)
        self.device = driver.mem_alloc(max(1, count) * self.dtype.itemsize)

    @property
    def address(self):
        return int(self.device)

    def array(self, rows=None):
        """The host's copy in its shape; ``rows`` fills in a size that the data decided."""
        if -1 not in self.shape:
            return self.host[: int(np.prod(self.shape, dtype=np.int64))].reshape(self.shape)
        shape = tuple(rows if n == -1 else n for n in self.shape)
        return self.host[: int(np.prod(shape, dtype=np.int64))].reshape(shape)


def load_plan(trt, messages, plan):
    """(runtime, engine, execution context) of a plan's bytes, each of which needs the one before it to stay alive.

    Raises BadInput when TensorRT cannot load the engine, or has no memory to run it.
    """
    runtime = trt.Runtime(messages.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BadInput("TensorRT {} cannot load the engine: {}".format(trt.__version__, messages.told()))
    context = engine.create_execution_context()
    if context is None:
        raise BadInput("TensorRT {} has no memory to run the engine: {}".format(trt.__version__, messages.told()))
    return runtime, engine, context


class Execution(object):
    """A deserialized engine with its buffers, as one range of TensorRT versions drives it.

    name: the builder's and session's; inputs, outputs: name -> Port; context: TensorRT's execution context
    """

    name = ""
    context: Any = None

    def __init__(self, trt, messages, plan, driver):
        self.inputs, self.outputs = {}, {}  # type: dict[str, Port], dict[str, Port]

    def start(self, stream):
        """Put the engine's work on the stream, a handle; False when TensorRT refuses."""
        raise NotImplementedError(type(self).__name__ + ".start")


class TensorrtSession(Session):
    """An engine on one stream with pinned buffers.

    spans: compute, and host_to_device and device_to_host, by CUDA's events, in seconds. When the image is prepared on
    the device, its upload and the kernel belong to the run's preprocessing, and are called upload and kernel.
    """

    kinds = ("engine",)
    execution = Execution  # subclasses have one of their own

    def __init__(self, artifact, threads=1):
        super(TensorrtSession, self).__init__(artifact, threads)
        self._cuda = Cuda(int(artifact.manifest.get("engine", {}).get("device_number", 0)))
        self._graph, self._notes, self._open = None, [], True
        try:
            trt = load_tensorrt()
            self._facts = facts_of(self._cuda, trt)
            self._simulator = getattr(trt, "SIMULATOR", None)  # the tests' stand-in says so; NVIDIA's has no such name
            self._check_version(trt)
            check_engine(artifact, self._facts)
            with self._cuda:
                self._load_or_free(trt)
        except self._cuda.driver.Error as error:
            self.close()
            raise BoardLacks("{}: the GPU cannot run it: {}".format(artifact.path, error)) from error
        except BaseException:
            self.close()
            raise

    def _check_version(self, trt):
        wanted = builder_for(trt.__version__)
        if self.execution.name != wanted:
            raise BadConfig(
                "runtime {} is not for TensorRT {}, which is installed here; take --runtime {}".format(
                    self.execution.name, trt.__version__, wanted
                )
            )

    def _load_or_free(self, trt):
        """``_load``; when it fails, the frames that the error remembers give back what they hold of the context."""
        try:
            self._load(trt)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise

    def _load(self, trt):
        """With the context current; its objects must not outlive it."""
        driver = self._cuda.driver
        free = driver.mem_get_info()[0]
        self._messages = Messages(trt)
        trt.init_libnvinfer_plugins(self._messages.logger, "")
        with open(self.artifact.file(PLAN), "rb") as handle:
            self._run = self.execution(trt, self._messages, handle.read(), driver)
        path = self.artifact.path
        outputs = list(self._run.outputs)
        check_names(path, list(self._run.inputs), OUTPUTS if set(outputs) == set(SUPPRESSED) else outputs)
        self._input = self._run.inputs[INPUT]
        self._stream = driver.Stream(NON_BLOCKING)
        self._events = [driver.Event() for _ in range(4)]
        self._capture()
        self._raw = None
        self._kernel = self._make_kernel()
        # on a Jetson that is the whole machine's memory, which every program and the page cache change as well
        self._taken = None if self._cuda.integrated else max(0, free - driver.mem_get_info()[0])

    # -- once, when it opens -----------------------------------------------------------------------------------------
    def _capture(self):
        """Capture the engine's kernels, where that works; never for outputs whose size depends on the data."""
        dynamic = [port.name for port in self._run.outputs.values() if -1 in port.shape]
        if os.environ.get(GRAPH_SWITCH) == "0" or dynamic:
            reason = "the data decide the size of an output" if dynamic else "{} is 0".format(GRAPH_SWITCH)
            self._notes.append("no CUDA graph: " + reason)
            return
        try:
            if not self._run.start(self._stream.handle):
                raise NoGraph("the first run failed: " + self._messages.told())
            self._stream.synchronize()
            self._graph = capture(self._stream.handle, lambda: self._run.start(self._stream.handle))
        except NoGraph as error:
            self._notes.append("no CUDA graph: {}".format(error))

    def _make_kernel(self):
        """The preprocessing kernel, or None. It must agree with ``Preprocess`` here and now to be used."""
        if os.environ.get(KERNEL_SWITCH) == "0":
            self._notes.append("images are prepared on the host: {} is 0".format(KERNEL_SWITCH))
            return None
        try:
            kernel = compile_kernel()
            worst = self._disagreement(kernel)
        except EdgeKitError as error:
            why = str(error)
        except self._cuda.driver.Error as error:
            why = "the kernel cannot be made or run ({})".format(" ".join(str(error).split()))
        else:
            if worst <= 1.01:
                return kernel
            why = "the kernel differs by {:.2f} levels".format(worst)
        self._notes.append("images are prepared on the host: {}".format(why))
        return None

    def _disagreement(self, kernel):
        """Largest difference between the kernel and ``Preprocess`` on made-up images, in levels of 255.

        One is wider and lower than the network's input; one is a camera's, whose pixels' edges are often met exactly.
        """
        width, height = self.artifact.preprocess.size
        self._kernel = kernel
        return max(self._difference(w, h) for w, h in ((3 * width // 2 + 1, 2 * height // 3 + 1), (1280, 720)))

    def _difference(self, width, height):
        """The same on one image of this size."""
        preprocess = self.artifact.preprocess
        image = np.random.RandomState(5).randint(0, 256, (height, width, 3)).astype(np.uint8)
        expected, _ = preprocess(image, self.layout)
        self._on_device(image, preprocess)
        self._cuda.driver.memcpy_dtoh_async(self._input.host, self._input.device, self._stream)
        self._stream.synchronize()
        difference = np.abs(self._input.array().astype(np.float32) - expected.astype(np.float32))
        if self.layout == "nchw_float":  # back to levels, less what FP16 rounds away
            slack = 2.0**-10 * np.abs(expected) if self._input.dtype == np.float16 else 0.0
            std = np.array(preprocess.std, np.float32).reshape(1, 3, 1, 1)
            difference = np.maximum(0.0, difference - slack) * std
        return float(difference.max())

    # -- for every image ---------------------------------------------------------------------------------------------
    def prepare(self, image, preprocess):
        """On the device where the kernel works, else on the host; waits for the device, so that spans are true."""
        if self._kernel is None or not _is_picture(image):
            return preprocess(image, self.layout)  # which says what is wrong with one that is none
        with self._cuda:
            where = self._on_device(image, preprocess)
            self._events[2].synchronize()
        upload, kernel = (self._events[i].time_till(self._events[i + 1]) * 1e-3 for i in range(2))
        self._prepared = {"upload": upload, "kernel": kernel}
        return ON_DEVICE, where

    def _on_device(self, image, preprocess):
        driver = self._cuda.driver
        if self._raw is None or self._raw.host.nbytes < image.nbytes:  # it only grows: this is timed with the image
            self._raw = None
            self._raw = Port(driver, "raw", (image.nbytes,), "UINT8")
        raw = self._raw.host[: image.nbytes]
        np.copyto(raw.reshape(image.shape), image)
        output = "uint8" if self.layout == "nhwc_uint8" else self._input.dtype.name
        values, where = arguments(preprocess, image.shape[1], image.shape[0], output)
        start, copied, done = self._events[:3]
        start.record(self._stream)
        driver.memcpy_htod_async(self._raw.device, raw, self._stream)
        copied.record(self._stream)
        self._kernel(
            self._raw.device, self._input.device, *values, block=BLOCK, grid=grid(preprocess), stream=self._stream
        )
        done.record(self._stream)
        return where

    def infer(self, inputs):
        values = inputs[INPUT]
        with self._cuda:
            if values is not ON_DEVICE:
                self._check_shape(values)
                np.copyto(self._input.array(), values, casting="unsafe")
            self._once(values is not ON_DEVICE)
        parts = [self._events[i].time_till(self._events[i + 1]) * 1e-3 for i in range(3)]
        self.spans = {"compute": parts[1], "device_to_host": parts[2]}
        self.spans.update(self._prepared if values is ON_DEVICE else {"host_to_device": parts[0]})
        return self._contract()

    def _check_shape(self, values):
        if values.shape != self._input.shape:
            raise BadInput(
                "{}: the engine takes an input {}, got {}".format(self.artifact.path, self._input.shape, values.shape)
            )

    def _once(self, copy):
        """Copy in, compute, copy out; waits for the end."""
        driver, events = self._cuda.driver, self._events
        events[0].record(self._stream)
        if copy:
            driver.memcpy_htod_async(self._input.device, self._input.host, self._stream)
        events[1].record(self._stream)
        self._start()
        events[2].record(self._stream)
        for port in self._run.outputs.values():
            driver.memcpy_dtoh_async(port.host, port.device, self._stream)
        events[3].record(self._stream)
        events[3].synchronize()

    def _start(self):
        """Put the engine's work on the stream: the captured graph, or kernel by kernel."""
        if self._graph is None:
            if not self._run.start(self._stream.handle):
                raise BadInput("{}: TensorRT could not run it: {}".format(self.artifact.path, self._messages.told()))
            return
        try:
            self._graph.launch()
        except NoGraph as error:
            raise BoardLacks(
                "{}: the GPU cannot run it any more: {}. Start again; if that repeats, without the CUDA graph: "
                "{}=0".format(self.artifact.path, error, GRAPH_SWITCH)
            ) from error

    def _contract(self):
        ports = self._run.outputs
        if "boxes" in ports:
            # post-processing reads them many times, which must not be from memory that the CPU does not cache
            copy = self._cuda.slow_pinned
            return {name: ports[name].array().astype(np.float32, copy=copy) for name in OUTPUTS}
        count = int(ports["num_detections"].array().ravel()[0])
        boxes, scores, labels = (ports[name].array(count).reshape((-1,) + tail)[:count] for name, tail in _SELECTED)
        return spread(boxes, scores, labels, len(self.artifact.classes))

    # -- about -------------------------------------------------------------------------------------------------------
    def describe(self):
        about = self.artifact.manifest["engine"]
        return {
            "library": "tensorrt",
            "version": self._facts["tensorrt"],
            "precision": self.artifact.manifest["precision"],
            "tf32": about.get("tf32"),  # engines from before it was cleared do not say
            "cuda": self._facts["cuda"],
            "device": self._facts["device"],
            "nms": about.get("nms", "host"),
            "cuda_graph": self._graph is not None,
            "preprocess": "device" if self._kernel is not None else "host",
            "device_memory_bytes": self._taken,
            "perf_only": about.get("perf_only"),
            "notes": list(self._notes),
            "simulated": self._simulator,
        }

    @contextlib.contextmanager
    def profiled(self, profiler):
        """Inside, every ``infer`` reports each layer's milliseconds to ``profiler``, a ``tensorrt.IProfiler``.

        A captured graph does not call it back, so that the kernels are launched one by one there.
        """
        graph, self._graph = self._graph, None
        self._run.context.profiler = profiler
        try:
            yield
        finally:
            self._run.context.profiler, self._graph = None, graph

    def close(self):
        if not self._open:
            return
        self._open = False
        with self._cuda:
            if self._graph is not None:
                self._graph.close()
            for name in _ON_DEVICE:  # device memory must go while its context is there
                setattr(self, name, None)
        self._cuda.close()


_ON_DEVICE = ("_graph", "_run", "_input", "_raw", "_kernel", "_stream", "_events")
_SELECTED = (("detection_boxes", (4,)), ("detection_scores", ()), ("detection_classes", ()))


def _is_picture(image):
    """Is it uint8 [height, width, 3]? The kernel reads that many bytes, whatever was uploaded."""
    return image is not None and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


def spread(boxes, scores, labels, classes):
    """Selected boxes [n, 4], scores [n] and class ids [n] as the contract's boxes [1, n, 4] and scores [1, n, C]."""
    table = np.zeros((1, len(scores), classes), np.float32)
    table[0, np.arange(len(scores)), labels.astype(np.int64)] = scores
    return {"boxes": boxes.astype(np.float32)[None], "scores": table}
