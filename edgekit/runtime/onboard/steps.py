"""The steps on a board, on one unpacked bundle: build the engine, verify the golden boxes, measure.

Each leaves a file in the version's folder that says what it did and for which input; it is skipped when that is there
and the input did not change, so that a flash that was interrupted goes on where it stopped. An engine is native code:
it is loaded only with the seal of this board's store (``Store.seal``), which nobody can bring along.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

from .. import machine
from ..errors import ArtifactError, BadConfig, BoardLacks, ChildDied, EdgeKitError
from ..processes import environment, last_words
from ..reference import REFERENCE, TIMED
from ..sensors import Sampler
from . import identity, power
from .store import SHORT, VERIFY, read_json, write_json

ENGINE, BUILT, BENCH = "engine", "engine.json", "bench.json"
NEEDS_BYTES = 200 << 20  # free on the disk, at least, before an engine is built
GROWTH = 4  # an engine and its timing cache are at most this many times the model's size
BUILD_OPTIONS = ("precision", "nms", "workspace_mb", "pins")  # what a bundle may say on it; others name files here
RUNTIMES_WITHOUT_ENGINE = ("onnxruntime",)
_SENSOR_SECONDS = 0.1


class Version(object):
    """An unpacked bundle on this board; ``store`` is the board's, whose seals count."""

    def __init__(self, folder, bundle, store):
        self.folder, self.bundle, self.store = str(folder), bundle, store
        self.profile = bundle.index["board"]
        self.options = bundle.index["build"]

    @property
    def name(self):
        return os.path.basename(self.folder)

    @property
    def called(self):
        """What the command line calls it: its name where it is installed, else its folder."""
        installed = os.path.dirname(self.folder) == os.path.join(self.store.home, "versions")
        return self.name if installed else self.folder

    @property
    def runtime(self):
        return self.options["runtime"]

    @property
    def model(self):
        """The artifact that the runtime loads: the engine that is built here, or the ONNX artifact itself."""
        return self.path("artifact" if self.runtime in RUNTIMES_WITHOUT_ENGINE else ENGINE)

    def seal(self, step, artifact):
        """The store's seal on what a step left for this bundle and the artifact of that digest."""
        return self.store.seal(step, self.bundle.digest[:SHORT], artifact)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def images(self, kind):
        """Paths of the bundle's images of a kind: golden, calibration or evaluation."""
        return [self.path(name) for name in sorted(self.bundle.files) if name.startswith(kind + "/images/")]


def open_version(store, wish=None):
    """The Version that a command means; its files are verified."""
    from . import archive

    folder = store.resolve(wish)
    return Version(folder, archive.verify_folder(folder), store)


def runnable(version):
    """The artifact that the runtime may load. Raises ArtifactError where this board did not build it."""
    from ..artifact import read_artifact

    if version.runtime in RUNTIMES_WITHOUT_ENGINE:
        return read_artifact(version.model)
    found = _kept_engine(version)
    if found is None:
        raise ArtifactError(
            "version {0}: has no engine that was built on this board, and another is not loaded. "
            "Build it: edgekit_board.pyz build {1}".format(version.name, shlex.quote(version.called))
        )
    return found


# -- build ------------------------------------------------------------------------------------------------------------
def build(version, progress, force=False):
    """Build the engine on this board. Returns {"skipped", "artifact" (digest), "seconds", "bytes"}."""
    from ..artifact import read_artifact

    if version.runtime in RUNTIMES_WITHOUT_ENGINE:
        return _built(runnable(version), True, 0.0)
    kept = None if force else _kept_engine(version)
    if kept is not None:
        return _built(kept, True, 0.0)
    _room(version)
    from ..engines import build_engine

    started = time.time()
    build_engine(version.path("artifact"), version.model, build_options(version), _counted(progress, "build"))
    made = read_artifact(version.model)
    write_json(version.path(BUILT), {"artifact": made.digest, "seal": version.seal(BUILT, made.digest)})
    return _built(made, False, time.time() - started)


def build_options(version):
    """What ``build_engine`` takes: the bundle's options, with the paths of this board. Raises ArtifactError."""
    options = {k: v for k, v in version.options.items() if k != "runtime"}
    foreign = sorted(set(options) - set(BUILD_OPTIONS))
    if foreign:
        raise ArtifactError(
            "version {}: its bundle says how to build by {}; a bundle may say {}. "
            "Make it again: edgekit bundle ARTIFACT --board BOARD".format(
                version.name, ", ".join(foreign), ", ".join(BUILD_OPTIONS)
            )
        )
    options.update(builder=version.runtime, board=version.profile["name"])
    options["rebuild"] = "python3 edgekit_board.pyz build {} --force".format(shlex.quote(version.called))
    if options.get("precision") == "int8":
        options["calibration_images"] = version.images("calibration")
    return options


def _built(artifact, skipped, seconds):
    size = sum(record["bytes"] for record in artifact.manifest["payload"].values())
    return {"skipped": skipped, "artifact": artifact.digest, "seconds": round(seconds, 1), "bytes": size}


def _kept_engine(version):
    """The engine that is there, whole and built by this board; None otherwise."""
    from ..artifact import read_artifact

    try:
        found = read_artifact(version.model)
    except EdgeKitError:
        return None
    record = read_json(version.path(BUILT)) or {}
    return found if record.get("seal") == version.seal(BUILT, found.digest) else None


def _room(version):
    size = sum(r["bytes"] for n, r in version.bundle.files.items() if n.startswith("artifact/"))
    needed, free = NEEDS_BYTES + GROWTH * size, identity.resources(version.folder)["disk_free_bytes"]
    if free < needed:
        raise BoardLacks(
            "{}: {:.0f} MB free, a build needs {:.0f} MB. Free some space, then repeat the same command.".format(
                version.folder, free / 1e6, needed / 1e6
            )
        )


def _counted(progress, phase):
    return lambda done, total: progress(phase, done, total)


# -- verify -----------------------------------------------------------------------------------------------------------
def verify(version, progress, force=False):
    """Compare the golden images' boxes with the expected. Returns the comparison; BoardLacks when they differ."""
    from ..detections import Detections
    from ..images import read_image
    from ..runner import open_runner
    from .golden import compare

    digest = runnable(version).digest
    seal = version.seal(VERIFY, digest)
    kept = read_json(version.path(VERIFY))
    if kept and kept.get("seal") == seal and kept.get("same") and not force:
        return dict(kept, skipped=True)
    golden = read_json(version.path("golden", "golden.json"))
    found = []
    with open_runner(version.model, version.runtime, _threads(version)) as runner:
        for done, record in enumerate(golden["images"], 1):
            found.append(runner(read_image(version.path("golden", "images", record["image"])))[0])
            progress("verify", done, len(golden["images"]))
        described = runner.session.describe()
    expected = [Detections(r["boxes"], r["scores"], r["class_ids"]) for r in golden["images"]]
    report = compare(expected, found, golden["threshold"], version.options["precision"])
    report.update(artifact=digest, session=described, skipped=False, seal=seal)
    write_json(version.path(VERIFY), report)
    if not report["same"]:
        raise BoardLacks(_different(version, report))
    return report


def _different(version, report):
    return (
        "version {}: {} of {} golden boxes have no partner within IoU {} and {} in score (worst IoU {:.3f}, worst "
        "score {:.3f}); {}. It was not made current. Build it in FP32 to see whether FP16 is the reason: "
        "edgekit bundle ... --precision fp32".format(
            version.name,
            report["unpaired"],
            report["boxes"],
            report["allowed"]["iou"],
            report["allowed"]["score"],
            report["worst_iou"],
            report["worst_score"],
            "; ".join(report["faults"]) or "no box is sure enough to be judged",
        )
    )


def _threads(version):
    wanted = version.profile.get("threads", 1)
    return len(machine.affinity()) if wanted == "all" else wanted


# -- bench ------------------------------------------------------------------------------------------------------------
def bench(version, store, progress, wishes=None, force=False):
    """Measure in a process of its own. Returns what the workstation makes a row from.

    wishes: seconds, count, warmup (None: the profile's), power_mode, jetson_clocks
    Asked for the same again on a board with the same power mode and clocks, the answer is the earlier one, unless
    ``force``, or a power mode or clocks were refused.
    The answer: the worker's result, with "board" (``identity``), "power", "sensors", "engine" (its manifest), "bundle".
    """
    wishes = dict(wishes or {})
    artifact = runnable(version)
    power.restore_left_over(store.home)  # the state below is the board's own, not one of a bench that was killed
    asked = {"artifact": artifact.digest, "job": _job(version, wishes), "wishes": wishes, "state": power.read_state()}
    kept = read_json(version.path(BENCH))
    if kept and kept.get("asked") == asked and not kept["power"]["refused"] and not force:
        return dict(kept, skipped=True)
    facts, started = identity.identity(), time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    facts["simulated"] += tensorrt_signs()
    modes = version.profile.get("modes") or []
    with power.power_set(store.home, modes, wishes.get("power_mode"), wishes.get("jetson_clocks")) as report:
        rails = (version.profile.get("power") or {}).get("total") or ()
        result = _run_worker(asked["job"], progress, rails)
    result.update(
        asked=asked,
        started=started,
        skipped=False,
        board=facts,
        power=report,
        engine=dict(artifact.manifest),
        bundle=version.bundle.digest,
        resources=identity.resources(store.home),
    )
    write_json(version.path(BENCH), result)
    return result


def summary(version, result):
    """What a person reads of ``bench``; all that was measured is in the version's folder."""
    total = sorted(result["latency_ms"]["total"])
    spans = {name: round(statistics.median(values), 3) for name, values in result["latency_ms"].items()}
    return {
        "version": version.name,
        "skipped": result["skipped"],
        "simulated": result["board"]["simulated"],
        "frames": len(total),
        "p50_ms": spans,
        "p99_ms": round(total[int(0.99 * (len(total) - 1))], 3),
        "power_mode": result["power"]["during"]["name"],
        "refused": result["power"]["refused"],
        "whole": version.path(BENCH),
    }


def _job(version, wishes):
    profile, images = version.profile, version.images("evaluation") or version.images("golden")
    default = profile["measure"]
    return {
        "artifact": version.model,
        "runtime": version.runtime,
        "core": None,
        "threads": _threads(version),
        "warmup": default["warmup"] if wishes.get("warmup") is None else wishes["warmup"],
        "min_seconds": default["min_seconds"] if wishes.get("seconds") is None else wishes["seconds"],
        "min_count": default["min_count"] if wishes.get("count") is None else wishes["count"],
        "images": images,
    }


def _run_worker(job, progress, total_rails=()):
    """The same worker as on a workstation, in a child; sensors are read while its timed part runs."""
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder, tempfile.TemporaryFile() as words:
        job_file, result_file = os.path.join(folder, "job.json"), os.path.join(folder, "result.json")
        write_json(job_file, job)
        command = [sys.executable, "-m", "edgekit.runtime.worker", job_file, result_file]
        sensors = _TimedSensors(total_rails, progress)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words, env=environment()
        )
        try:
            _listen(process.stdout, sensors)
            code = process.wait()
        finally:
            sensors.stop()
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        result = read_json(result_file)
        if result is None:
            raise ChildDied("bench of {} {}".format(job["artifact"], _ending(code, words)))
    if "error" in result:
        raise BadConfig(result["error"])
    result["sensors"] = sensors.result()
    return result


class _TimedSensors(object):
    """Samples the board's sensors while the worker says that its frames run; passes its progress on.

    In a slice of the machine's reference the GPU has nothing to do: its power and clock are not those of the frames.
    """

    def __init__(self, total_rails, progress):
        self._sampler = Sampler(_SENSOR_SECONDS, total=total_rails)
        self._progress = progress

    def __call__(self, phase, done, total):
        if phase == TIMED:
            self._sampler.resume()
        else:
            self.stop()
        if phase != REFERENCE:
            self._progress("bench: " + phase, done, total)

    def stop(self):
        self._sampler.pause()

    def result(self):
        """See ``Sampler.result``."""
        return self._sampler.result()


def _listen(stream, heard):
    for line in iter(stream.readline, b""):
        try:
            message = json.loads(line.decode("utf-8", "replace"))
            heard(message["phase"], message["done"], message["total"])
        except (ValueError, KeyError, TypeError):
            continue  # a library's own word


def _ending(code, words):
    words = last_words(words)
    text = "; its last words: " + words if words else ""
    if code == -9:
        return "was killed by signal 9: the board ran out of memory. Add swap, or close other programs" + text
    return "ended with exit code {} and left no result{}".format(code, text)


def tensorrt_signs():
    """A sentence when the tensorrt of this interpreter is the simulator of the tests."""
    return tensorrt_here()[1]


def tensorrt_here():
    """(version of this interpreter's tensorrt, or "unknown"; the sentences of ``tensorrt_signs``)."""
    code, text = identity.ask_python(
        sys.executable, "import tensorrt as t; print(t.__version__, getattr(t, 'SIMULATOR', ''))"
    )
    version, _, simulator = text.partition(" ") if code == 0 else (identity.UNKNOWN, "", "")
    return version, ["tensorrt says that it is a simulator: " + simulator] if simulator else []
