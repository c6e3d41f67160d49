"""Sessions: one interface over the inference libraries, chosen by name.

``open_session`` makes one; it is a context manager. A new runtime is one module and one line in SESSIONS.
"""

import difflib
import importlib

from ..artifact import MAKERS
from ..errors import ArtifactError, BadConfig, BadInput, MissingDependency

# name -> "module:Class", looked up on first use, so that no library is imported before it is asked for
SESSIONS = {
    "onnxruntime": "edgekit.runtime.sessions.ort:OrtSession",
    "openvino": "edgekit.runtime.sessions.ov:OpenVinoSession",
    "cuda": "edgekit.runtime.sessions.cuda_ort:CudaOrtSession",
    "tensorrt8": "edgekit.runtime.sessions.trt8:Tensorrt8Session",
    "tensorrt10": "edgekit.runtime.sessions.trt10:Tensorrt10Session",
    "tensorrt11": "edgekit.runtime.sessions.trt10:Tensorrt11Session",
    "pytorch": "edgekit.models.session:TorchSession",
}

# what to install when the library is missing
PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "edgekit[openvino]",
    "pytorch": "edgekit[train]",
    "cuda": "onnxruntime-gpu",
    "tensorrt8": "tensorrt",
    "tensorrt10": "tensorrt<11",
    "tensorrt11": "tensorrt>=11",
}

INPUT = "image"
OUTPUTS = ("boxes", "scores")


class Session(object):
    """What every session is.

    kinds: artifact kinds it can load
    layout: what ``infer`` takes, "nhwc_uint8" (raw pixels [1, H, W, 3]) or "nchw_float" (normalised [1, 3, H, W])
    postprocess: fields of ``Postprocess`` for an artifact whose manifest has none
    spans: seconds that the library itself reported for parts of the last call, by name; empty for most. The names
        host_to_device and device_to_host become spans of the run, taken out of its inference
    """

    kinds = ("onnx", "onnx-int8")  # type: tuple[str, ...]

    def __init__(self, artifact, threads=1):
        self.artifact = artifact
        self.threads = threads
        self.layout = artifact.manifest.get("input", {}).get("layout", "nchw_float")
        self.postprocess = {}
        self.spans = {}

    def prepare(self, image, preprocess):
        """uint8 BGR image -> (what ``infer`` takes under "image", Placement); some sessions do this on their device."""
        return preprocess(image, self.layout)

    def infer(self, inputs):
        """{"image": array} -> {"boxes": float32 [N, A, 4], "scores": float32 [N, A, C]}.

        The arrays may be views of the library's memory: they hold until the next call.
        """
        raise NotImplementedError(type(self).__name__ + ".infer")

    def describe(self):
        """{"library", "version", "precision", ...}: what really computes, as the library tells it."""
        raise NotImplementedError(type(self).__name__ + ".describe")

    def close(self):
        """Give the library's memory back. The session cannot be used afterwards."""

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


def open_session(runtime, artifact, threads=1):
    """The named runtime with the artifact's network loaded, computing on ``threads`` threads.

    Raises BadConfig for an unknown runtime or thread count, ArtifactError for an artifact of a kind the runtime cannot
    load, MissingDependency when its library is not installed, BadInput when the library refuses the file.
    """
    if runtime not in SESSIONS:
        near = difflib.get_close_matches(str(runtime), SESSIONS, n=1, cutoff=0.4)
        hint = "did you mean {}? ".format(near[0]) if near else ""
        raise BadConfig("no runtime {!r}; {}there are: {}".format(runtime, hint, ", ".join(sorted(SESSIONS))))
    if not isinstance(threads, int) or threads < 1:
        raise BadConfig("threads: expected a whole number from 1, got {!r}".format(threads))
    cls = _session_class(runtime)
    if artifact.kind not in cls.kinds:
        raise ArtifactError(
            "{}: found an artifact of kind {!r}; runtime {} loads {}. Make one with: edgekit {}".format(
                artifact.path,
                artifact.kind,
                runtime,
                " or ".join(cls.kinds),
                MAKERS.get(cls.kinds[0], "export RECIPE"),
            )
        )
    return cls(artifact, threads)


def preferred_runtime(artifact, runtimes):
    """The runtime of an artifact where nobody chose one: an engine's own, else the first of ``runtimes`` that loads it.

    runtimes: names, the preferred one first, as a board lists them. Where none of them loads it, the first is returned,
    and ``open_session`` says what that one loads.
    """
    about = artifact.manifest.get("engine")
    if artifact.kind == "engine" and isinstance(about, dict) and about.get("builder"):
        return about["builder"]
    return next((name for name in runtimes if _loads(name, artifact.kind)), runtimes[0])


def _loads(runtime, kind):
    try:
        return runtime in SESSIONS and kind in _session_class(runtime).kinds
    except MissingDependency:
        return False


def _session_class(runtime):
    module, _, name = SESSIONS[runtime].partition(":")
    return getattr(load_library(module, runtime), name)


def load_library(module, runtime):
    """Import a module that a runtime needs. MissingDependency, with the pip command, when it cannot be imported."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(
            "runtime {}: its library cannot be loaded ({}). Install it: pip install '{}'".format(
                runtime, error, PACKAGES[runtime]
            )
        ) from error


def check_names(path, inputs, outputs):
    """Raise BadInput unless a loaded file has the output contract's input and outputs."""
    if list(inputs) != [INPUT] or not set(OUTPUTS) <= set(outputs):
        raise BadInput(
            "{}: has inputs {} and outputs {}; needed input {} and outputs {}. "
            "Export it again: edgekit export RECIPE".format(
                path, ", ".join(inputs), ", ".join(outputs), INPUT, " and ".join(OUTPUTS)
            )
        )
