"""ONNX Runtime on the CPU (1.10 on Python 3.6 and everything later)."""

from ..errors import BadInput
from . import INPUT, OUTPUTS, Session, check_names, load_library

# The library's exceptions share no base class; these names are in every version from 1.10 on.
_REFUSALS = (
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
)
_ERRORS_ONLY = 3  # log level: 1.10 warns about every thread that it may not pin itself


class OrtSession(Session):
    """One InferenceSession: ``threads`` compute threads, operators one after the other."""

    def __init__(self, artifact, threads=1):
        super(OrtSession, self).__init__(artifact, threads)
        ort = load_library("onnxruntime", "onnxruntime")
        path = artifact.file("model.onnx")
        try:
            self._session = ort.InferenceSession(path, session_options(ort, threads), providers=self._providers(ort))
        except _refusals() as error:
            raise BadInput(
                "{}: ONNX Runtime {} refuses it: {}".format(path, ort.__version__, _one_line(error))
            ) from error
        self._version = ort.__version__
        check_names(path, [i.name for i in self._session.get_inputs()], [o.name for o in self._session.get_outputs()])

    def _providers(self, ort):
        return ["CPUExecutionProvider"]

    def infer(self, inputs):
        boxes, scores = self._session.run(OUTPUTS, {INPUT: inputs[INPUT]})
        return {"boxes": boxes, "scores": scores}

    def describe(self):
        """precision is the manifest's: the CPU provider computes a graph in the types it is written in."""
        return {
            "library": "onnxruntime",
            "version": self._version,
            "precision": self.artifact.manifest.get("precision", "fp32"),
            "providers": self._session.get_providers(),
            "threads": self.threads,
        }

    def close(self):
        self._session = None


def session_options(ort, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    if threads == 1:  # with more, a spinning worker answers sooner; alone there is nobody to wait for
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _refusals():
    state = load_library("onnxruntime.capi.onnxruntime_pybind11_state", "onnxruntime")
    return tuple(getattr(state, name) for name in _REFUSALS)


def _one_line(error):
    return " ".join(str(error).split())
