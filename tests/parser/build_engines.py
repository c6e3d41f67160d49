"""Runs in the environment of make_parser_env.sh: EdgeKit's builder for TensorRT 11 on NVIDIA's TensorRT-RTX, no GPU.

    python build_engines.py JOBS.json RESULTS.json

Of each job (path, precision, declared, quantized, nms, postprocess, sm) it says what came out, or the error that a
user would see.
"""

import json
import sys
import time

import tensorrt_rtx_bindings as trt

from edgekit.runtime.engines import network as graph
from edgekit.runtime.engines.build import Job
from edgekit.runtime.engines.options import BuildOptions
from edgekit.runtime.engines.tensorrt11 import Tensorrt11
from edgekit.runtime.errors import EdgeKitError


class ForOtherGpu(Tensorrt11):
    """RTX builds for a GPU that is named; all else is the builder that ships."""

    sm = "CURRENT"

    def _limit_workspace(self, config, options):
        super()._limit_workspace(config, options)
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, self.sm), 0)

    def _append_nms(self, network, job):
        self.decode = [network.get_layer(i).name for i in graph.decode_layers(network)]
        self.layers = network.num_layers
        return super()._append_nms(network, job)


def build(job):
    builder = ForOtherGpu(trt)
    builder.sm = job["sm"]
    options = BuildOptions(precision=job["precision"], nms=job.get("nms", "host"), workspace_mb=512)
    manifest = {"precision": job.get("declared", job["precision"]), "postprocess": job.get("postprocess", {})}
    if job.get("quantized"):
        manifest["flavour"] = "trt"
    steps: list[str] = []
    started = time.perf_counter()
    try:
        plan, timing, about = builder.build(Job(job["path"], options, manifest, b"", None, steps.append))
    except EdgeKitError as error:
        return {"error": str(error), "type": type(error).__name__, "steps": steps}
    seconds = time.perf_counter() - started
    about.update(bytes=len(plan), magic=plan[:4].decode("latin1"), timing=len(timing), seconds=round(seconds, 2))
    return dict(about, decode=builder.decode, layers=builder.layers, version=trt.__version__)


def main(source, target):
    with open(source) as handle:
        jobs = json.load(handle)
    results = [build(job) for job in jobs]
    with open(target, "w") as handle:
        json.dump(results, handle)


main(*sys.argv[1:])
