"""ONNX Runtime on an NVIDIA GPU without TensorRT: its CUDA provider, with input and output bound to device memory."""

import os
import re

from ..errors import MissingDependency
from . import INPUT, OUTPUTS, load_library
from .ort import OrtSession

PROVIDER = "CUDAExecutionProvider"
# FP32 is FP32: from Ampere on NVIDIA's libraries round its factors to 10 bits unless they are told not to. The option
# is in 1.18 and later, and older ones refuse it; cuDNN's graphs do not heed it (microsoft/onnxruntime#19357, #19470),
# but all of NVIDIA's libraries heed the variable when they are loaded.
TF32_OPTION, TF32_SINCE, TF32_VARIABLE = {"use_tf32": "0"}, [1, 18], "NVIDIA_TF32_OVERRIDE"


class CudaOrtSession(OrtSession):
    """The same file on the GPU. What the provider cannot compute stays on the CPU; ``describe`` tells the providers."""

    runtime = "cuda"

    def _providers(self, ort):
        if PROVIDER not in ort.get_available_providers():
            raise MissingDependency(
                "runtime cuda: this ONNX Runtime {} has no {} (it has: {}). Install the build for NVIDIA GPUs: "
                "pip uninstall onnxruntime && pip install onnxruntime-gpu".format(
                    ort.__version__, PROVIDER, ", ".join(ort.get_available_providers())
                )
            )
        os.environ[TF32_VARIABLE] = "0"
        preload = getattr(ort, "preload_dlls", None)  # 1.21 on: finds CUDA and cuDNN that pip installed
        if preload is not None:
            preload()
        knows = [int(part) for part in re.findall(r"\d+", ort.__version__)[:2]] >= TF32_SINCE
        return [(PROVIDER, TF32_OPTION) if knows else PROVIDER, "CPUExecutionProvider"]

    def __init__(self, artifact, threads=1):
        super(CudaOrtSession, self).__init__(artifact, threads)
        if PROVIDER not in self._session.get_providers():
            ort = load_library("onnxruntime", "cuda")
            raise MissingDependency(
                "runtime cuda: ONNX Runtime {} could not start its {}; the driver, CUDA 12 or cuDNN 9 is missing or of "
                "another version. See: edgekit doctor; nvidia-smi".format(ort.__version__, PROVIDER)
            )
        self._binding = self._session.io_binding()
        for name in OUTPUTS:
            self._binding.bind_output(name, "cpu")

    def infer(self, inputs):
        self._binding.bind_cpu_input(INPUT, inputs[INPUT])
        self._session.run_with_iobinding(self._binding)
        found = dict(zip([o.name for o in self._session.get_outputs()], self._binding.copy_outputs_to_cpu()))  # noqa: B905
        return {name: found[name] for name in OUTPUTS}

    def describe(self):
        return dict(super(CudaOrtSession, self).describe(), tf32=False)

    def close(self):
        self._binding = None
        super(CudaOrtSession, self).close()
