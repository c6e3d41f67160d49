"""The measured record: what one model file did on one board, in one JSON value, and the printed table's columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..runtime.errors import BadInput
from ..runtime.timing import P90_NEEDS, summary

NOT_MEASURED = "not measured"
TWIN = "twin"  # the board of every row that a simulator gave
IN_THE_ENGINE = {"plugin": "NMS in the engine (EfficientNMS_TRT)", "layer": "NMS in the engine (INMSLayer)"}
SYMBOLS = {"valid": "●", "noisy": "▲", "throttled": "▲", "perf-only": "◆", "simulated": "◇", NOT_MEASURED: "✕"}
Status = Literal["valid", "noisy", "throttled", "perf-only", "simulated", "not measured"]
NonNegative = Annotated[float, Field(ge=0)]
LEAST = 1e-9  # of what is not 0: below it a ratio of two is no number
MOST = 1e12  # ms, which are decades; above it a product of two may be no number
_ROUNDED = 1e-3  # of a value, by files with fewer digits
Positive = Annotated[float, Field(ge=LEAST, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """A frozen JSON value. Unknown keys are errors, so that a report of another version is never half understood."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _rising(values: Mapping[str, float]) -> None:
    """Raise ValueError unless each value is at least the one before it, but for what rounding in a file may do."""
    for (low, less), (high, more) in pairwise(values.items()):
        if less > more * (1 + _ROUNDED):
            raise ValueError(f"{low} is {less}, and {high} {more}; {low} cannot be above {high}")


class Latency(Record):
    """Statistics over all timed frames, in milliseconds. No frame is ever left out.

    Percentiles interpolate linearly between neighbouring frames. p90 needs 64 frames and p99 needs 662 (MLPerf's early
    stopping at 99 % confidence); with fewer they are None. std is the deviation of the sample (n - 1).
    p90_estimate, p99_estimate: MLPerf's early-stopping estimate: with 99 % confidence the percentile of endless
    measuring is not above it. None where there are too few frames
    """

    count: Annotated[int, Field(ge=1)]
    mean: Positive
    std: NonNegative
    min: Positive
    p50: Positive
    p90: Positive | None
    p99: Positive | None
    max: Positive
    p90_estimate: Positive | None = None
    p99_estimate: Positive | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Latency:
        percentiles = {"min": self.min, "p50": self.p50, "p90": self.p90, "p99": self.p99, "max": self.max}
        _rising({name: value for name, value in percentiles.items() if value is not None})
        _rising({"min": self.min, "mean": self.mean, "max": self.max})
        return self

    @classmethod
    def from_samples(cls, ms: Sequence[float]) -> Latency:
        """Raises ValueError without samples."""
        if not ms:
            raise ValueError("no frame was timed")
        return cls.model_validate(summary(ms))

    @property
    def fps(self) -> float:
        """Frames per second over the whole run, the slow frames included: 1000 / mean."""
        return 1000.0 / self.mean


class ClassAccuracy(Record):
    """AP of one class (COCO, IoU 0.50:0.95), AP at IoU 0.5, and the number of boxes that were to be found."""

    ap: Share
    ap50: Share
    boxes: Annotated[int, Field(ge=1)]


class Accuracy(Record):
    """COCO mAP of the detections that this very run produced; 0..1.

    set, set_digest, images: the evaluation set, what it held, and how many images of it were run
    sizes, recall: see ``evaluation.coco.Metrics``
    """

    map: Share
    map50: Share
    map75: Share
    per_class: dict[str, ClassAccuracy]
    sizes: dict[str, Share | None] = Field(default_factory=dict)
    recall: dict[str, Share] = Field(default_factory=dict)
    set: str
    set_digest: str
    images: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _in_order(self) -> Accuracy:
        """A hit at a higher IoU is one at a lower; and an AP is a mean of shares of boxes, which are not so small."""
        _rising({"map": self.map, "map50": self.map50})
        _rising({"map75": self.map75, "map50": self.map50})
        if tiny := [name for name in ("map", "map50") if 0 < getattr(self, name) < LEAST]:
            raise ValueError(f"{tiny[0]} is {getattr(self, tiny[0])}; an accuracy is 0, or at least {LEAST}")
        return self


class InputShape(Record):
    """Network input in pixels, and ``nhwc_uint8`` or ``nchw_float``."""

    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    layout: str


class ModelFile(Record):
    """The file that the board loads."""

    name: str
    bytes: Annotated[int, Field(ge=1)]
    sha256: str


class Complexity(Record):
    """Counted on the exported ONNX graph before INT8 rewrites it, per frame.

    gops = 2 x macs / 1e9: a multiply and an add are two operations
    parameters: weights and biases in the graph, normalisation folded; learnable: of the network as it was trained
    """

    macs: Annotated[int, Field(ge=0)]
    gops: NonNegative
    parameters: Annotated[int, Field(ge=0)]
    learnable: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _two_operations_per_mac(self) -> Complexity:
        if not math.isclose(self.gops, 2 * self.macs / 1e9, rel_tol=1e-3, abs_tol=1e-6):
            raise ValueError(f"gops is {self.gops}, but 2 x macs / 1e9 is {2 * self.macs / 1e9}")
        return self


class Process(Record):
    """How the measured process ran. None is unknown.

    warmup: frames before the timed ones; load_seconds: from the file to a session that is ready, the library included
    cold_ms: the first frame of the process, end to end; decode_ms: p50 of reading an image file, not in the latency
    cold_spans: the parts of that first frame, in milliseconds, by the names of ``Row.spans``
    seconds, images: length of the timed part, and how many images it went round
    peak_rss_mb: highest resident memory of the whole process, in MB (1e6 bytes)
    device_memory_mb: memory of the accelerator that the session holds, where its library or the board tells it
    cpu_over_wall: CPU seconds per second of the timed part; one pinned thread that was never disturbed has 1.0
    involuntary_switches: how often the scheduler took the core away in the timed part
    voluntary_switches: how often the process waited for something (another thread, a device, a page) in the timed part
    other_load: cores that other processes kept busy meanwhile, of those that this process may use
    """

    threads: Annotated[int, Field(ge=1)]
    core: int | None
    warmup: Annotated[int, Field(ge=0)]
    load_seconds: NonNegative | None = None
    cold_ms: NonNegative | None = None
    cold_spans: dict[str, NonNegative] = Field(default_factory=dict)
    decode_ms: NonNegative | None = None
    seconds: NonNegative | None = None
    images: Annotated[int, Field(ge=1)] | None = None
    peak_rss_mb: NonNegative | None = None
    device_memory_mb: NonNegative | None = None
    cpu_over_wall: NonNegative | None = None
    involuntary_switches: Annotated[int, Field(ge=0)] | None = None
    voluntary_switches: Annotated[int, Field(ge=0)] | None = None
    other_load: NonNegative | None = None


class Sustained(Record):
    """The timed part by its thirds (by time): p50 of the end-to-end ms in the first and in the last third.

    ratio: last / first; above 1 the board slowed down while it worked
    """

    first_ms: NonNegative
    last_ms: NonNegative
    ratio: NonNegative


class MachineReference(Record):
    """What the machine itself could do meanwhile: a fixed piece of work, timed in slices beside the frames.

    kind: the work and the library that did it; only times of one kind may be compared
    slices_ms: in order, the first before the first frame, the last after the last; each is a median of repetitions
    ms: median of the slices; thirds_ms: of the first, the middle and the last third of them
    """

    kind: str
    ms: Positive
    thirds_ms: tuple[Positive, Positive, Positive]
    slices_ms: Annotated[tuple[Positive, ...], Field(min_length=1)]

    @classmethod
    def from_slices(cls, kind: str, ms: Sequence[float]) -> MachineReference:
        """Raises ValueError without a slice. Neighbouring thirds share slices where there are fewer than three."""
        if not ms:
            raise ValueError("no slice was timed")
        third = -(-len(ms) // 3)
        middle = (len(ms) - third) // 2
        thirds = median(ms[:third]), median(ms[middle : middle + third]), median(ms[-third:])
        return cls(kind=kind, ms=median(ms), thirds_ms=thirds, slices_ms=tuple(ms))

    @property
    def moved(self) -> float:
        """By which share the slowest third took longer than the fastest."""
        return max(self.thirds_ms) / min(self.thirds_ms) - 1


class Track(Record):
    """One sensor during the timed part. first and last are means of its first and last third; values are in ``unit``.

    name: for example "cpu clock", "gpu clock", "cpu temperature"; unit: "MHz", "C", "W"
    seconds, values: the samples in order, seconds from the start of the timed part
    """

    name: str
    unit: str
    source: str
    first: float
    last: float
    min: float
    max: float
    seconds: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _a_time_for_each_value(self) -> Track:
        if len(self.seconds) != len(self.values):
            raise ValueError(f"{self.name} has {len(self.seconds)} seconds and {len(self.values)} values; one for each")
        return self


class Energy(Record):
    """Energy of the timed part, from a sensor of the machine. The idle power is part of it.

    source: the sensor and what it covers ("RAPL package-0", "INA3221 VDD_IN"); watts: mean power
    """

    source: str
    joules: NonNegative
    joules_per_frame: NonNegative
    watts: NonNegative


class Throughput(Record):
    """MLPerf's Offline: every image is at hand, and what counts is images per second, end to end.

    batch: images in one call of the session; streams: sessions that work at the same time, each on ``threads`` threads
    fps: images per second of wall time; count, seconds: what it was measured on; cores: those it could use
    note: how the work was spread, and what the file does not permit
    """

    fps: NonNegative
    batch: Annotated[int, Field(ge=1)]
    streams: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    cores: tuple[int, ...] = ()
    count: Annotated[int, Field(ge=1)]
    seconds: NonNegative
    cpu_over_wall: NonNegative | None = None
    note: str = ""


class Drop(Record):
    """Accuracy lost against the FP32 reference that was measured in the same call, in points of mAP (0..1, may be < 0).

    reference: digest of its artifact; runtime: that it ran in
    """

    map: float
    map50: float
    reference: str
    runtime: str


class Peaks(Record):
    """The machine's own limits for the roofline.

    gops: 1e9 operations (2 x MAC) per second by precision; bandwidth: GB/s of a copy, bytes read + bytes written
    source: "measured" (a GEMM and a copy on the same cores and threads, just after the run) or "board profile"
    """

    gops: dict[str, NonNegative] = Field(default_factory=dict)
    bandwidth: NonNegative | None = None
    source: Literal["measured", "board profile"]
    how: str = ""


class LayerTime(Record):
    """One step that the runtime really executed, often several nodes of the file fused into one.

    name, kind: as the runtime's profiler calls it; nodes: the nodes of the ONNX file that it computes, in their order,
    empty for what the runtime inserted itself; modules: the PyTorch modules that those nodes came from
    ms: mean over the profiled runs; share: of the time of all steps, 0..1; precision: type of the computation
    macs, bytes: multiply-accumulates, and bytes of all inputs, weights and outputs, of one run
    gops: 1e9 operations (2 x MAC) per second that were reached
    bound_ms: the least time that the roofline allows; bound: which limit that is; lost_ms: ms above it, never below 0
    """

    name: str
    kind: str
    modules: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    ms: NonNegative
    share: Share
    precision: str | None = None
    macs: Annotated[int, Field(ge=0)] = 0
    bytes: Annotated[int, Field(ge=0)] | None = None
    gops: NonNegative | None = None
    bound_ms: NonNegative | None = None
    bound: Literal["compute", "memory"] | None = None
    lost_ms: NonNegative | None = None


class LayerRun(Record):
    """How the layers were timed: in a process of its own after the timed one, because a profiler slows a run down.

    total_ms: sum over the steps, of one run; inference_ms: p50 of the timed part's inference span, without a profiler
    unattributed_macs: multiply-accumulates of the file that no step could be given
    note: what was assumed where the profiler tells less
    """

    profiler: str
    runs: Annotated[int, Field(ge=1)]
    total_ms: NonNegative
    inference_ms: NonNegative | None = None
    unattributed_macs: Annotated[int, Field(ge=0)] = 0
    note: str = ""


class Verdict(Record):
    """Whether the row can be trusted, and in words why not."""

    status: Status
    reasons: tuple[str, ...] = ()


class Row(Record):
    """One measured record. ``None`` stands for not measured or unknown; it is never 0.

    samples: end-to-end milliseconds of every timed frame, in order; spans: p50 of each part, in milliseconds, in the
    order of ``runtime.timing.SPANS``; ``decode`` is no part of the headline and stands in ``process.decode_ms``
    machine_reference: beside the timed frames of a run of one image at a time
    throughput: one per way of spreading the work; layers: the slowest against the roofline first
    learnable: parameters of a checkpoint's network, of which no graph is counted in ``complexity``
    artifact: digest of the artifact folder; machine: facts as the worker found them, {"before": ..., "after": ...}
    session: what the runtime says that it really computes; started: UTC, ISO 8601
    """

    model: str
    recipe: str
    board: str
    runtime: str
    runtime_version: str | None = None
    precision: str
    input: InputShape
    artifact: str
    model_file: ModelFile
    complexity: Complexity | None = None
    learnable: Annotated[int, Field(ge=0)] | None = None
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    spans: dict[str, NonNegative] = Field(default_factory=dict)
    samples: tuple[NonNegative, ...] = ()
    drop: Drop | None = None
    sustained: Sustained | None = None
    machine_reference: MachineReference | None = None
    throughput: tuple[Throughput, ...] = ()
    energy: Energy | None = None
    tracks: tuple[Track, ...] = ()
    layers: tuple[LayerTime, ...] = ()
    layer_run: LayerRun | None = None
    peaks: Peaks | None = None
    process: Process
    machine: dict[str, dict[str, Any]] = Field(default_factory=dict)
    session: dict[str, Any] = Field(default_factory=dict)
    started: str | None = None
    verdict: Verdict
    tools: dict[str, str] = Field(default_factory=dict)

    @field_validator("machine")
    @classmethod
    def _moving_facts_are_numbers(cls, machine: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Of the facts that change while a row is measured, reports tell a range. A text says that one is unknown."""
        for place, facts in machine.items():
            load = facts.get("load_average")
            if isinstance(load, list) and (len(load) != 3 or not all(isinstance(v, int | float) for v in load)):
                raise ValueError(f"{place}.load_average is {load}; it must be three numbers, of 1, 5 and 15 minutes")
            if isinstance(clock := facts.get("frequency_mhz"), list):
                raise ValueError(f"{place}.frequency_mhz is {clock}; it must be one number")
        return machine

    @model_validator(mode="after")
    def _every_frame_is_told(self) -> Row:
        if self.latency and self.samples and self.latency.count != len(self.samples):
            raise ValueError(f"latency.count is {self.latency.count}, and there are {len(self.samples)} samples")
        return self

    @model_validator(mode="after")
    def _simulators_say_so(self) -> Row:
        """What a simulator measured is of the board "twin" and "simulated", so that no report shows it as a board's."""
        board = self.machine.get("board", {}).get("simulated")
        signs = [*(board if isinstance(board, list | tuple) else [board]), self.session.get("simulated")]
        told = self.board == TWIN and self.verdict.status in ("simulated", NOT_MEASURED)
        if (any(signs) or self.board == TWIN) and not told:
            raise ValueError(
                f"measured on a simulator, but called board {self.board!r} and {self.verdict.status!r}; "
                f"it must be board {TWIN!r} and 'simulated'"
            )
        return self

    @property
    def model_size_mb(self) -> float:
        """Size of the file that the board loads, in MB (1e6 bytes)."""
        return self.model_file.bytes / 1e6

    @property
    def model_size_mib(self) -> float:
        """The same in MiB (2^20 bytes)."""
        return self.model_file.bytes / 2**20

    @property
    def params(self) -> int | None:
        """Learnable parameters where the trained network is known, else those in the graph."""
        if self.complexity is None:
            return self.learnable
        return self.complexity.parameters if self.complexity.learnable is None else self.complexity.learnable

    @property
    def nms(self) -> str:
        """How boxes are suppressed inside an engine, as a reader is told; "" where the host does it, or nobody."""
        return IN_THE_ENGINE.get(str(self.session.get("nms")), "")

    @property
    def label(self) -> str:
        """Short name that tells rows of one report apart."""
        return f"{self.model} · {self.runtime} {self.precision}"

    def to_dict(self) -> dict[str, Any]:
        """JSON value; ``Row.from_dict`` reads it back."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: Any, source: str = "row") -> Row:
        """Raises BadInput that names ``source`` and every field at fault."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'row'}: {p['msg']}" for p in error.errors())
            raise BadInput(f"{source}: not a measured row ({faults}). Measure again: edgekit bench") from error


class Column(NamedTuple):
    """One column of the competition table: header, raw value, how it is printed, what it means, which end is better."""

    header: str
    value: Callable[[Row], str | float | None]
    style: str
    meaning: str
    better: Literal["high", "low"] | None = None

    def text(self, row: Row) -> str:
        value = self.value(row)
        return self.style.format(value) if value is not None else missing(self.header, row)


def missing(header: str, row: Row) -> str:
    """What stands where a value is missing; a percentile can be missing only because there were too few frames."""
    return f"n < {P90_NEEDS}" if header == "p90" and row.latency is not None else NOT_MEASURED


COLUMNS = (
    Column(
        "model",
        lambda r: r.model,
        "{}",
        "the network, as its recipe names it; with its recipe or its input where others here have that name",
    ),
    Column("board", lambda r: r.board, "{}", "the machine profile that it ran under"),
    Column("runtime", lambda r: r.runtime, "{}", "the inference library"),
    Column("precision", lambda r: r.precision, "{}", "number format of the weights and activations"),
    Column(
        "mAP@0.5",
        lambda r: r.accuracy.map50 * 100 if r.accuracy else None,
        "{:.1f}",
        "mean over the classes of the average precision at IoU 0.5, in percent (COCO evaluation), from the detections "
        "of this very file in this runner",
        "high",
    ),
    Column(
        "mAP",
        lambda r: r.accuracy.map * 100 if r.accuracy else None,
        "{:.1f}",
        "the same averaged over IoU 0.50, 0.55, ... 0.95, in percent: COCO's AP",
        "high",
    ),
    Column(
        "model size (MB)",
        lambda r: r.model_size_mb,
        "{:.2f}",
        "bytes of the file that the board loads / 1,000,000 (MiB, / 1,048,576, is among the details)",
        "low",
    ),
    Column(
        "GOPS/frame",
        lambda r: r.complexity.gops if r.complexity else None,
        "{:.2f}",
        "operations per frame / 1e9, counted on the exported ONNX graph (an INT8 file counts as the FP32 file that it "
        "was made from); one multiply-accumulate (MAC) is two operations, so GOPS = 2 x GMAC",
        "low",
    ),
    Column(
        "ms/frame p50",
        lambda r: r.latency.p50 if r.latency else None,
        "{:.2f}",
        "end to end, from the decoded uint8 image to the boxes: the latency that half of the timed frames do not "
        "exceed; batch 1, the next frame starts when the last one is finished",
        "low",
    ),
    Column(
        "p90",
        lambda r: r.latency.p90 if r.latency else None,
        "{:.2f}",
        f"the latency in ms that 90 % of the timed frames do not exceed; shown from {P90_NEEDS} frames on",
        "low",
    ),
    Column(
        "fps",
        lambda r: r.latency.fps if r.latency else None,
        "{:.1f}",
        "frames per second over the whole timed run, its slow frames included: 1000 / mean ms",
        "high",
    ),
    Column(
        "params",
        lambda r: r.params,
        "{:,}",
        "learnable parameters of the network as it was trained, batch normalisation included; for an imported ONNX "
        "file, the weights in its graph",
        "low",
    ),
)

NUMERIC = frozenset(column.header for column in COLUMNS[4:])


def table_values(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The table as JSON values, unrounded; None where nothing was measured."""
    return [{column.header: column.value(row) for column in COLUMNS} for row in rows]
