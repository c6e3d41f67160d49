"""The process that is measured: ``python -m edgekit.runtime.worker JOB.json RESULT.json``.

JOB is an object with the keys of ``JOB``; RESULT is described at ``measure`` and ``measure_offline``. Progress goes to
stdout, one JSON object per line: {"phase", "done", "total"}. A process that takes turns reads {"frames": n} from stdin,
one per line, until it ends, and says {"phase": "turn", "ms": [...]} after each. A mistake of the user ends with exit
code 2 and RESULT {"error": message, "type": class name}.

numpy, cv2 and the libraries behind a session read their thread counts when they are loaded. So this module loads only
the standard library; what needs numpy is imported inside functions that run after ``prepare``.
"""

import json
import os
import sys
import time

from . import machine
from .errors import BadConfig, BadInput, EdgeKitError, naming
from .processes import THREAD_VARIABLES

# key -> default; None in REQUIRED keys is never seen
JOB = {
    "artifact": None,  # folder
    "runtime": "onnxruntime",
    "core": None,  # number of the core to run on, or null: do not pin
    "threads": 1,
    "warmup": 10,  # runs before the clock counts
    "min_seconds": 3.0,  # the timed loop ends when both minima are reached
    "min_count": 64,
    "images": None,  # paths; every one gets its detections into the result
    "timed_images": None,  # how many of them, from the first, the timed loop goes round; null: DEFAULT_TIMED
    "score_threshold": None,  # null: the manifest's
    "mode": "latency",  # one of MODES
    "streams": 1,  # offline: sessions that work at the same time, each on "threads" threads
    "folder": None,  # layers: where the profiler's own files go; runs: min_count
}
REQUIRED = ("artifact", "images")
# Decoded images of the timed loop stay in memory: 16 of 640x480 are 15 MB
DEFAULT_TIMED = 16
# latency: SingleStream; turns: the same, when the parent says; offline: throughput;
# layers: every step of the runtime, by its own profiler
MODES = ("latency", "turns", "offline", "layers")
INTERRUPTED = 130  # what a shell reports for SIGINT
_PROGRESS_EVERY = 0.5  # seconds


def read_job(path):
    """Parse and check a job file. BadConfig lists every problem."""
    try:
        with open(path, encoding="utf-8") as handle:
            job = json.load(handle)
    except OSError as error:
        raise BadConfig("{}: cannot read the job: {}.".format(path, error.strerror)) from error
    except ValueError as error:
        raise BadConfig("{}: the job is not valid JSON: {}.".format(path, error)) from error
    if not isinstance(job, dict):
        raise BadConfig("{}: the job must be an object, found {}.".format(path, type(job).__name__))
    problems = list(_problems(job))
    if problems:
        raise BadConfig("{}: {}".format(path, "; ".join(problems)))
    return dict(JOB, **job)


def _problems(job):
    for key in sorted(set(job) - set(JOB)):
        yield "unknown key {!r}".format(key)
    for key in REQUIRED:
        if job.get(key) is None:
            yield "{} is missing".format(key)
    images = job.get("images")
    if images is not None and not (isinstance(images, list) and images and all(isinstance(p, str) for p in images)):
        yield "images: expected a list of at least one path"
    for key, least in (("threads", 1), ("streams", 1), ("warmup", 0), ("min_count", 1), ("min_seconds", 0)):
        value = job.get(key, JOB[key])
        kinds = (int, float) if key == "min_seconds" else int
        if isinstance(value, bool) or not isinstance(value, kinds) or value < least:
            yield "{}: expected a number from {}, got {!r}".format(key, least, value)
    if job.get("mode", JOB["mode"]) not in MODES:
        yield "mode: expected one of {}, got {!r}".format(", ".join(MODES), job["mode"])
    if job.get("mode") == "layers" and not job.get("folder"):
        yield "folder: mode layers needs a folder for the profiler's files"
    for key, least in (("core", 0), ("timed_images", 1)):
        value = job.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            yield "{}: expected a whole number from {} or null, got {!r}".format(key, least, value)


def prepare(job):
    """Pin this process and set the thread counts. Must run before numpy loads. Returns the cores it is bound to."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(job["threads"])
    if job["core"] is None:
        return machine.affinity()
    return machine.pin(job["core"], job["threads"])


def measure(job, cores, progress):
    """Load, run cold, warm up, run timed, and run what is left of the images.

    Times are milliseconds (``*_ms``) or seconds. The result's keys: job; edgekit; artifact {path, kind, digest};
    session (see ``Session.describe``); layout; preprocess and postprocess (their fields); cores; load_seconds (library,
    file and compilation); decode_ms [timed images]; first_ms (the cold run, by span and total); warmup_ms [warm-up];
    latency_ms {preprocess, inference, postprocess, total: [timed runs, in order], and the copies where the session
    tells them}; timed (see ``loops.single_stream``); telemetry (see ``Telemetry.told``); reference (see
    ``Reference.told``); detections [one per image: image, width, height, boxes, scores, class_ids]; peak_rss_bytes
    {loaded, timed, end}; device_memory_bytes where the session tells it; machine_before and machine_after (see
    ``machine.facts``).
    """
    from .reference import Reference

    result = _begin(job, cores)
    with Reference(job["min_seconds"], job["min_count"]) as reference:  # ready, and idle, before the load is timed
        _measure(job, cores, progress, reference, result)
    result["reference"] = reference.told()
    result["machine_after"] = machine.facts()
    return result


def _measure(job, cores, progress, reference, result):
    """Everything of ``measure`` between the first facts of the machine and the last."""
    progress("load", 0, 1)
    started = time.perf_counter()
    with _open(job) as runner:
        result["load_seconds"] = time.perf_counter() - started
        progress("load", 1, 1)
        result.update(_about(runner))
        memory = {"loaded": machine.peak_rss_bytes()}
        if runner.batch != 1:
            raise BadInput(
                "{}: takes {} images a call, and latency is that of one. Its throughput: mode offline".format(
                    job["artifact"], runner.batch
                )
            )
        images, result["decode_ms"] = _decode(job)
        result["first_ms"] = _milliseconds(runner(images[0])[1])
        runner.check(images[0])
        result["warmup_ms"] = _warm_up(runner, images, job["warmup"], progress)
        told = _timed(runner, images, job, cores, progress, reference)
        result["latency_ms"], result["timed"], seen, result["telemetry"] = told
        memory["timed"] = machine.peak_rss_bytes()
        result["detections"] = _accuracy_pass(runner, images, seen, job["images"], progress)
        memory["end"] = machine.peak_rss_bytes()
        result["session"] = runner.session.describe()
    result["peak_rss_bytes"] = memory


def measure_offline(job, cores, progress):
    """Throughput: ``streams`` sessions of the same file at the same time.

    The result's keys: job; edgekit; cores; session; offline (see ``loops.offline``); peak_rss_bytes {end};
    machine_before and machine_after.
    """
    from .loops import offline

    result = _begin(job, cores)
    progress("load", 0, job["streams"])
    runners = []
    try:
        for number in range(job["streams"]):
            runners.append(_open(job))
            progress("load", number + 1, job["streams"])
        images, _ = _decode(job)
        for runner in runners:
            _warm_up(runner, images, job["warmup"], progress, many=True)
        result["session"] = runners[0].session.describe()
        result["offline"] = offline(runners, images, job, progress)
    finally:
        for runner in runners:
            runner.close()
    result["peak_rss_bytes"] = {"end": machine.peak_rss_bytes()}
    result["machine_after"] = machine.facts()
    return result


def measure_layers(job, cores, progress):
    """Per-layer times of ``min_count`` runs on the first image.

    The result's keys: job; edgekit; cores; session; layers (see ``layers.profile``); machine_before and machine_after.
    """
    from .layers import profile

    result = _begin(job, cores)
    with _open(job) as runner:
        images, _ = _decode(dict(job, timed_images=1))
        tensor, _ = runner.preprocess(images[0], runner.session.layout)
        progress("layers", 0, 1)
        result["layers"] = profile(job["runtime"], runner.session, tensor, job["min_count"], job["folder"])
        progress("layers", 1, 1)
        result["session"] = runner.session.describe()
    result["machine_after"] = machine.facts()
    return result


def _begin(job, cores):
    import cv2

    from .. import __version__

    cv2.setNumThreads(job["threads"])
    return {"job": job, "edgekit": __version__, "cores": cores, "machine_before": machine.facts()}


def _timed(runner, images, job, cores, progress, reference):
    from .loops import single_stream, take_turns
    from .telemetry import Telemetry

    telemetry = Telemetry(cores)
    if job["mode"] != "turns":
        return single_stream(runner, images, job, progress, telemetry, reference)
    progress("ready", 1, 1)

    def answer(ms):
        progress.say({"phase": "turn", "ms": ms})

    return take_turns(runner, images, sys.stdin, answer, telemetry, reference)


def _open(job):
    from .runner import open_runner

    return open_runner(job["artifact"], job["runtime"], job["threads"], job["score_threshold"])


def _about(runner):
    artifact = runner.artifact
    return {
        "artifact": {"path": artifact.path, "kind": artifact.kind, "digest": artifact.digest},
        "layout": runner.session.layout,
        "preprocess": runner.preprocess.to_dict(),
        "postprocess": runner.postprocess.to_dict(),
    }


def _decode(job):
    """The images of the timed loop, and how long each took to read."""
    from .images import read_image

    paths = job["images"][: job["timed_images"] or DEFAULT_TIMED]
    images, times = [], []
    for path in paths:
        started = time.perf_counter()
        images.append(read_image(path))
        times.append((time.perf_counter() - started) * 1e3)
    return images, times


def _warm_up(runner, images, count, progress, many=False):
    times = []
    for i in range(count):
        if many:
            runner.many([images[i % len(images)]] * runner.batch)
        else:
            times.append(runner(images[i % len(images)])[1].total * 1e3)
        progress("warm-up", i + 1, count)
    return times


def _accuracy_pass(runner, images, seen, paths, progress):
    """Detections of every image; those that the timed loop ran are taken from there, the others are read one by one."""
    from .images import read_image

    records = []
    for i, path in enumerate(paths):
        image = images[i] if i < len(images) else read_image(path)
        found = seen[i] if i < len(seen) and seen[i] is not None else _found(runner, image, path)
        records.append(
            {
                "image": path,
                "height": image.shape[0],
                "width": image.shape[1],
                "boxes": found.boxes.tolist(),
                "scores": found.scores.tolist(),
                "class_ids": found.class_ids.tolist(),
            }
        )
        progress("accuracy", i + 1, len(paths))
    return records


def _found(runner, image, path):
    with naming(path):
        return runner(image)[0]


def _milliseconds(timing):
    return dict({name: seconds * 1e3 for name, seconds in timing.spans.items()}, total=timing.total * 1e3)


class _Progress(object):
    """Writes progress lines: the first and the last of a phase, and at most two a second between."""

    def __init__(self, stream):
        self._stream = stream
        self._phase, self._next = None, 0.0

    def __call__(self, phase, done, total):
        now = time.perf_counter()
        if phase == self._phase and now < self._next and done < total:
            return
        self._phase, self._next = phase, now + _PROGRESS_EVERY
        self.say({"phase": phase, "done": done, "total": total})

    def say(self, message):
        self._stream.write(json.dumps(message) + "\n")
        self._stream.flush()


def main(argv):
    """Run a job file. Returns the exit code: 0; 2 for a mistake that the user can mend; 130 after Ctrl-C."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m edgekit.runtime.worker JOB.json RESULT.json\n")
        return 2
    code = 0
    try:
        job = read_job(argv[0])
        task = {"offline": measure_offline, "layers": measure_layers}.get(job["mode"], measure)
        result = task(job, prepare(job), _Progress(sys.stdout))
    except EdgeKitError as error:
        result, code = {"error": str(error), "type": type(error).__name__}, 2
    except KeyboardInterrupt:  # Ctrl-C reaches the parent too, and that one tells
        return INTERRUPTED
    from .artifact import new_file  # brings numpy; by now the thread counts are set, or nothing will be computed

    with new_file(argv[1]) as handle:
        json.dump(result, handle)
        handle.write("\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
