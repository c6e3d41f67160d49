"""ONNX artifact in, engine artifact out: checks first, then TensorRT in a child process, then the sidecar manifest.

An engine is built on the machine that runs it: NVIDIA's plans hold for one TensorRT version and one kind of GPU.
"""

import importlib
import os
import re
import sys
import time

from ..artifact import export_again, file_sha256, inherited, new_artifact, read_artifact
from ..child import run_in_child
from ..errors import BadConfig, BoardLacks, MissingDependency
from . import caches, nms
from .calibration import ImageFeed, make_calibrator
from .options import BuildOptions, as_options
from .plan import read_plan_header

# name -> "module:class"
BUILDERS = {
    "tensorrt8": "edgekit.runtime.engines.tensorrt8:Tensorrt8",
    "tensorrt10": "edgekit.runtime.engines.tensorrt10:Tensorrt10",
    "tensorrt11": "edgekit.runtime.engines.tensorrt11:Tensorrt11",
}
KINDS = ("onnx", "onnx-int8")
PLAN = "model.plan"
CHILD = "edgekit.runtime.engines.build:build_here"
STEPS = 3  # parsed, built, written
# Compute capabilities (NVIDIA's precision matrix; TX2: NVIDIA/TensorRT issues, platform_has_fast_int8 is False)
NO_FAST_INT8 = (30, 32, 35, 37, 50, 52, 53, 60, 62)
NO_FAST_FP16 = (30, 32, 35, 37, 50, 52, 61)
# What CUDA and the TensorRT libraries take in a process before the first layer, and how often the weights are held
# while kernels are tried: estimates, on the careful side
LIBRARIES_MB = 700
WEIGHT_COPIES = 4


class Job(object):
    """What a builder needs to know.

    onnx: path; options: BuildOptions; postprocess: of the ONNX artifact; quantized: the file has Q/DQ nodes
    timing: bytes of the timing cache; calibration: a ``Calibration``, or None; step: called with a name
    """

    def __init__(self, onnx, options, manifest, timing, calibration, step):
        self.onnx = onnx
        self.options = options
        self.postprocess = manifest.get("postprocess") or {}
        self.precision = manifest.get("precision", "fp32")
        self.quantized = "flavour" in manifest
        self.timing = timing
        self.calibration = calibration
        self.step = step


def build_engine(source, out, options=None, progress=None):
    """Build an engine from an ``onnx`` or ``onnx-int8`` artifact, on this machine's GPU, and write it to ``out``.

    source: the artifact, or its folder; options: BuildOptions or a dict of its fields
    progress: called as (done, total) steps; during a calibration, images
    Returns the artifact of kind "engine". Raises BadConfig and BoardLacks before any work, BadInput when TensorRT
    refuses the file, MissingDependency without TensorRT, pycuda or a driver, ChildDied when the build was killed.
    """
    artifact = source if hasattr(source, "manifest") else read_artifact(source, kinds=KINDS)
    options = as_options(options)
    check_request(artifact, options)
    onnx = artifact.file("model.onnx")
    needed = memory_needed_mb(onnx, options)
    check_memory(needed, options)
    manifest = {}  # type: dict[str, object]
    with new_artifact(out, "engine", manifest) as folder:
        request = {"source": artifact.path, "target": os.path.join(folder, PLAN), "options": options.to_dict()}
        started = time.time()
        told = run_in_child(CHILD, request, "build engine", onnx, progress or _silent, advice(needed))
        about = dict(told, build_seconds=round(time.time() - started, 1), board=options.board)
        about["rebuild"] = options.rebuild or rebuild_command(artifact, options)
        manifest.update(engine_manifest(artifact, options, about, os.path.join(folder, PLAN)))
    made = read_artifact(out, kinds=("engine",))
    (progress or _silent)(STEPS, STEPS)
    return made


def _silent(done, total):
    """Nobody watches."""


# -- before any work --------------------------------------------------------------------------------------------------
def check_request(artifact, options):
    """Raise BadConfig for a choice that cannot be built whatever the GPU."""
    manifest = artifact.manifest
    if manifest["kind"] not in KINDS:
        raise BadConfig(
            "{}: an engine is built from {}, found {}".format(artifact.path, " or ".join(KINDS), artifact.kind)
        )
    if manifest.get("input", {}).get("layout") == "nhwc_uint8":
        raise BadConfig(
            "{}: takes raw uint8 pixels, which TensorRT refuses to transpose; an engine takes nchw_float, and prepares "
            "the image on the GPU. Export for the board: {}".format(artifact.path, export_again(artifact))
        )
    check_origin(artifact)
    quantized = artifact.kind == "onnx-int8"
    if quantized and manifest.get("flavour") != "trt":
        raise BadConfig(
            "{}: INT8 of flavour {!r}; TensorRT takes symmetric INT8 only. Quantize for it: "
            "edgekit quantize ARTIFACT --flavour trt".format(artifact.path, manifest.get("flavour"))
        )
    if quantized and options.precision != "int8":
        raise BadConfig(
            "{}: the file is INT8, {} was asked for. Take --precision int8, or the float artifact".format(
                artifact.path, options.precision
            )
        )
    if manifest.get("precision") == "fp16" and options.precision != "fp16":
        raise BadConfig("{}: the file is FP16; take --precision fp16, or the float artifact".format(artifact.path))
    if options.precision == "int8" and not quantized:
        _check_calibration(artifact, options)
    if options.builder is not None and options.builder not in BUILDERS:
        raise BadConfig("builder: expected one of {}, got {!r}".format(", ".join(sorted(BUILDERS)), options.builder))
    if options.nms != "host":
        nms.check_suppression(manifest.get("postprocess") or {})


def check_origin(artifact):
    """Raise BadConfig for a file that another project quantized: nobody knows whether TensorRT takes its INT8."""
    if artifact.kind == "onnx" and artifact.manifest.get("precision") == "int8":
        raise BadConfig(
            "{}: found a file that was imported in INT8; an engine is built from a float file, or from what EdgeKit "
            "quantized. Import the float file, then: edgekit quantize ARTIFACT --flavour trt".format(artifact.path)
        )


def check_nms(way, builder, postprocess):
    """Raise BadConfig for NMS in the engine that the head does not want, or that the named builder cannot put there."""
    if way == "host":
        return
    nms.check_suppression(postprocess)
    able = choose_builder("", builder).suppressions
    if way not in ("graph",) + able:
        raise BadConfig("nms: {} has no {}; take --nms {}".format(builder, _NOT_THERE[way], able[0]))


_NOT_THERE = {"layer": "INMSLayer (TensorRT 8.5 on)", "plugin": "EfficientNMS_TRT (deprecated, TensorRT 10 at most)"}


def _check_calibration(artifact, options):
    if options.calibration_images or options.calibration_cache or options.perf_only:
        return
    raise BadConfig(
        "{}: INT8 needs ranges of real images, and there are none. Quantize it first (edgekit quantize ARTIFACT "
        "--flavour trt), give --calibration, or build one that may only be timed: --perf-only".format(artifact.path)
    )


def check_ability(options, facts):
    """Raise BoardLacks when the GPU has no arithmetic for the precision; ``facts``: device and sm."""
    precision, gpu = options.precision, "{} (sm_{})".format(facts["device"], facts["sm"])
    without = {"int8": NO_FAST_INT8, "fp16": NO_FAST_FP16}.get(precision, ())
    if facts["sm"] in without:
        other = "fp16" if precision == "int8" and facts["sm"] not in NO_FAST_FP16 else "fp32"
        raise BoardLacks(
            "{} on {}: this GPU has no {} arithmetic, and such an engine would be slower. "
            "Build with --precision {}.".format(precision.upper(), gpu, precision.upper(), other)
        )


def memory_needed_mb(onnx, options):
    """A careful estimate of the memory that a build takes, in MiB; on a Jetson the GPU's part is the same memory."""
    weights = os.path.getsize(onnx) / 2.0**20
    return int(LIBRARIES_MB + WEIGHT_COPIES * weights + gpu_share_mb(options))


def gpu_share_mb(options):
    """What of it the GPU's buffers take from the machine's memory, in MiB. They cannot be swapped."""
    return options.workspace_mb if l4t() is not None else 0


def check_memory(needed, options):
    """Raise BoardLacks when less is free than a build is expected to take. The CPU's part may be swapped."""
    free, gpu = memory_free_mb(), gpu_share_mb(options)
    if not options.memory_check or free is None:
        return
    if free["available"] + free["swap"] >= needed and free["available"] >= gpu:
        return
    raise BoardLacks(
        "an engine build needs about {} MiB, of which {} MiB are for the GPU and cannot be swapped; free are {} MiB "
        "and {} MiB of swap on disk (zram makes no room). {}".format(
            needed, gpu, free["available"], free["swap"], _LESS_MEMORY
        )
    )


def memory_free_mb():
    """{"available", "swap"} in MiB, or None where the kernel does not tell."""
    from ..onboard import identity

    found = re.search(r"^MemAvailable:\s+(\d+) kB", identity.read_text("proc/meminfo"), re.MULTILINE)
    if found is None:
        return None
    return {"available": int(found.group(1)) // 1024, "swap": (identity.disk_swap() or {"free": 0})["free"] // 2**20}


def l4t():
    """The L4T release of a Jetson ("32.7.6"), or None on any other machine."""
    from ..onboard import identity

    found = identity.l4t_release(identity.read_text("etc/nv_tegra_release"))
    return None if found == identity.UNKNOWN else found


_LESS_MEMORY = (
    "Close other programs (the desktop: sudo systemctl isolate multi-user.target), add a swap file on disk "
    "(sudo fallocate -l 4G /swapfile; sudo chmod 600 /swapfile; sudo mkswap /swapfile; sudo swapon /swapfile), or "
    "build with less --workspace (for a board: edgekit bundle ... --workspace MIB)."
)


def advice(needed):
    """What an error says when the build's process was killed by signal 9."""
    return "the kernel kills a process when memory runs out; a build needs about {} MiB. {}".format(
        needed, _LESS_MEMORY
    )


def facts_of(cuda, trt):
    """What an engine is bound to, of this process: {"tensorrt", "cuda", "sm", "device", "l4t"}."""
    return dict(cuda.facts(), tensorrt=trt.__version__, l4t=l4t())


# -- the child's side -------------------------------------------------------------------------------------------------
def build_here(source, target, options, progress):
    """The child's side of ``build_engine``: writes the plan, returns what the manifest says about it."""
    from ..cuda import Cuda

    options = BuildOptions(**options)
    artifact = read_artifact(source, kinds=KINDS)
    cuda = Cuda(options.device)
    trt = load_tensorrt()
    facts = facts_of(cuda, trt)
    check_ability(options, facts)
    check_version(trt.__version__, options.builder)
    builder = choose_builder(trt.__version__)(trt)
    check_nms(options.nms, builder.name, artifact.manifest.get("postprocess") or {})
    place = caches.timing_cache_file(options, facts)
    with cuda:
        calibration = Calibration(artifact, options, cuda, trt.__version__, progress)
        steps = _Steps(progress)
        job = Job(
            artifact.file("model.onnx"),
            options,
            artifact.manifest,
            caches.read_cache(place),
            calibration if calibration.wanted else None,
            steps,
        )
        plan, timing, about = builder.build(job)
    steps("built")
    with open(target, "wb") as handle:
        handle.write(plan)
    notes = list(caches.write_cache(place, timing)) + calibration.notes
    about.update(facts, builder=builder.name, precision=options.precision, notes=notes, calibration=calibration.key)
    about["device_number"] = options.device
    return dict(about, workspace_mb=options.workspace_mb, warnings=builder.messages.warnings[:20])


class _Steps(object):
    """Turns named steps into (done, total)."""

    def __init__(self, progress):
        self._progress, self._done = progress, 0
        progress(0, STEPS)

    def __call__(self, name):
        self._done += 1
        self._progress(self._done, STEPS)


class Calibration(object):
    """TensorRT's own calibration of a float file, when that is what the options ask for.

    key: identity of the ranges, or None; notes: what a user should know
    """

    def __init__(self, artifact, options, cuda, tensorrt, progress):
        self.notes, self.key = [], None
        self._options, self._kept = options, b""
        floating = options.precision == "int8" and artifact.kind == "onnx"
        self.wanted = floating and bool(options.calibration_images or options.calibration_cache)
        if self.wanted:
            onnx, preprocess = artifact.file("model.onnx"), artifact.preprocess
            self.key = caches.calibration_key(onnx, preprocess, options.calibration_images, tensorrt)
            layout = artifact.manifest["input"]["layout"]
            self._feed = ImageFeed(cuda, preprocess, layout, options.calibration_images, progress)

    def calibrator(self, trt):
        """The calibrator for TensorRT's configuration."""
        place = caches.calibration_cache_file(self._options, self.key)
        self._kept = caches.read_calibration(place, self.key)

        def keep(ranges):
            self.notes.extend(caches.write_calibration(place, self.key, ranges))

        return make_calibrator(trt, self._feed, self._kept, keep)

    def check(self):
        """To be called when TensorRT has built: raises what ended the calibration before its last image."""
        if self._feed.asked or not self._kept:
            self._feed.check()


def load_tensorrt():
    """The installed TensorRT. MissingDependency says for which interpreter it may be installed instead."""
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        raise MissingDependency(
            "TensorRT cannot be loaded by {} ({}). On a Jetson it belongs to the system's Python "
            "(/usr/bin/python3, package python3-libnvinfer); elsewhere: pip install tensorrt".format(
                sys.executable, error
            )
        ) from error


def check_version(version, builder):
    """Raise BoardLacks when a builder was asked for and the TensorRT that is installed takes another one."""
    if builder not in (None, builder_for(version)):
        raise BoardLacks(
            "TensorRT {} is installed here, which takes {}; {} was asked for. Bundle for the software that this board "
            "has: edgekit bundle ARTIFACT --board BOARD --release RELEASE".format(
                version, builder_for(version), builder
            )
        )


def choose_builder(version, name=None):
    """The builder class for a TensorRT version: 8.0 to 8.4, 8.5 to 10, 11 on; ``name`` overrules."""
    name = name or builder_for(version)
    module, _, cls = BUILDERS[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def builder_for(version):
    """Name of the builder, and of the session, for a TensorRT version text. BoardLacks below 8.0."""
    numbers = [int(part) for part in re.findall(r"\d+", version)[:2]]
    if numbers < [8, 0]:
        raise BoardLacks("TensorRT {} is too old; EdgeKit builds with 8.0 and later (JetPack 4.6)".format(version))
    if numbers < [8, 5]:
        return "tensorrt8"
    return "tensorrt10" if numbers < [11, 0] else "tensorrt11"


# -- the sidecar ------------------------------------------------------------------------------------------------------
def engine_manifest(artifact, options, about, plan):
    """The manifest of an engine: the meaning from its ONNX artifact, and ``engine``: what it is bound to."""
    parent = artifact.manifest
    uncalibrated = options.precision == "int8" and artifact.kind == "onnx" and about["calibration"] is None
    notes = list(parent.get("notes", ())) + list(about.get("notes", ()))
    about = dict(
        {key: value for key, value in about.items() if key != "notes"},
        plan=read_plan_header(plan, built_here=True),
        plan_sha256=file_sha256(plan),
        onnx_sha256=file_sha256(artifact.file("model.onnx")),
        perf_only="INT8 without calibration: its boxes mean nothing" if uncalibrated else None,
    )
    if artifact.kind == "onnx-int8":
        about["calibration"] = (parent.get("calibration") or {}).get("digest")
    postprocess = dict(parent.get("postprocess") or {})
    if about["nms"] != "host":
        postprocess["nms"] = "none"  # done already
    return dict(
        inherited(parent),
        parents={"onnx": artifact.digest},
        postprocess=postprocess,
        precision=options.precision,
        engine=about,
        notes=notes,
        tools={"tensorrt": about["tensorrt"], "cuda": about["cuda"]},
    )


def rebuild_command(artifact, options):
    """The command that builds this engine again."""
    board = " --board {}".format(options.board) if options.board else ""
    return "edgekit build {}{} --precision {}".format(artifact.path, board, options.precision)
