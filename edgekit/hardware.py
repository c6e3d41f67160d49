"""What ``boards/NAME.yaml`` says of a board's hardware and of the software that its vendor ships for it.

Every fact in a board file names its source in a comment; what no source confirms is listed in ``unconfirmed``.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from .config import Section

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
ElementType = Literal["float32", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"]
VersionText = Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]

_PLACEHOLDERS = frozenset({"width", "height", "size", "fps", "rate", "sensor_id", "device", "uri", "flip"})


def _template(text: str) -> str:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"not a template: {error}") from error
    unknown = sorted(names - _PLACEHOLDERS)
    if unknown:
        raise ValueError(f"unknown placeholders {', '.join(unknown)}; there are: {', '.join(sorted(_PLACEHOLDERS))}")
    return text


Template = Annotated[str, AfterValidator(_template)]


class PeaksSection(Section):
    """Roofline limits, where they are known: dense GFLOPS (for int8 GOPS) by precision, memory bandwidth in GB/s."""

    gflops: dict[Precision, Positive] = Field(default_factory=dict)
    bandwidth: Positive | None = None


class IdentitySection(Section):
    """How a running machine is recognised as this board; the first that fits decides, in this order.

    modules: module part numbers, as they appear in the device tree's ``nvidia,dtsfilename`` or ``compatible``
    compatible: whole entries of ``/proc/device-tree/compatible``
    models: parts of ``/proc/device-tree/model``, upper or lower case; only where the device tree names no part number
    soc: the chip's name in the device tree; told, not used to decide, as several boards carry one chip
    """

    modules: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    soc: str | None = None


class StackSection(Section):
    """One release of the vendor's software: what an engine is built by and runs in.

    jetpack, l4t: the releases that this describes; l4t is what ``/etc/nv_tegra_release`` tells. Empty off a Jetson
    python, cuda, cudnn, tensorrt, opencv, ubuntu: versions that it comes with
    runtime: the session and builder for its TensorRT: tensorrt8 (8.0-8.4), tensorrt10 (8.5-10.x), tensorrt11 (11 on)
    opset_max: the highest ONNX operator set that its parser documents
    operators: name of the operator table, ``boards/operators/NAME.yaml``
    io_types: element types that a network's inputs and outputs may have
    int64_io: what an INT64 input or output of the ONNX file is in the engine
    unconfirmed: the fields that no source confirms; check them on the board
    """

    name: str
    jetpack: tuple[VersionText, ...] = ()
    l4t: tuple[VersionText, ...] = ()
    ubuntu: VersionText | None = None
    python: VersionText | None = None
    cuda: VersionText | None = None
    cudnn: VersionText | None = None
    tensorrt: VersionText
    opencv: VersionText | None = None
    runtime: Literal["tensorrt8", "tensorrt10", "tensorrt11"]
    opset_max: Annotated[int, Field(ge=7)]
    operators: str
    io_types: Annotated[tuple[ElementType, ...], Field(min_length=1)]
    int64_io: Literal["int32", "int64"]
    unconfirmed: tuple[str, ...] = ()

    @property
    def tensorrt_version(self) -> tuple[int, ...]:
        """(8, 2, 1) of "8.2.1", to be compared."""
        return tuple(int(part) for part in self.tensorrt.split("."))

    @model_validator(mode="after")
    def _consistent(self) -> StackSection:
        unknown = sorted(set(self.unconfirmed) - set(type(self).model_fields))
        if unknown:
            raise ValueError(f"unconfirmed: no such fields: {', '.join(unknown)}")
        version = self.tensorrt_version
        wanted = "tensorrt8" if version < (8, 5) else "tensorrt10" if version < (11,) else "tensorrt11"
        if self.runtime != wanted:
            raise ValueError(f"runtime: TensorRT {self.tensorrt} is built and run by {wanted}, not {self.runtime}")
        return self


def nearest_stack(stacks: Sequence[StackSection], l4t: str, tensorrt: str = "") -> StackSection | None:
    """The stack of the listed L4T release next to one that is not listed, such as the latest of a series; or None.

    It must have the same major.minor; else the same major and TensorRT's major.minor, which the board tells.
    """
    wanted, told = _numbers(l4t), _numbers(tensorrt)
    listed = [(_numbers(release), stack) for stack in stacks for release in stack.l4t]
    same = [one for one in listed if wanted and one[0][:2] == wanted[:2]] or [
        (release, stack)
        for release, stack in listed
        if told and release[:1] == wanted[:1] and stack.tensorrt_version[:2] == told[:2]
    ]
    apart = [(tuple(abs(a - b) for a, b in zip(release, wanted, strict=False)), stack) for release, stack in same]
    return min(apart, key=lambda one: one[0])[1] if apart else None


def _numbers(version: str) -> tuple[int, ...]:
    """(35, 6, 4) of "35.6.4"; () of what is no such text."""
    return tuple(map(int, version.split("."))) if re.fullmatch(r"\d+(\.\d+)+", version) else ()


class GpuSection(Section):
    """The GPU.

    sm: compute capability without its point, 62 for 6.2; null where the board names a class of GPUs
    cuda_cores, tensor_cores, dla: counts; dla are deep learning accelerators
    fast_fp16, fast_int8: whether the arithmetic exists in hardware. INT8 is refused where it does not
    """

    name: str
    sm: Annotated[int, Field(ge=30)] | None = None
    cuda_cores: Count | None = None
    tensor_cores: Annotated[int, Field(ge=0)] = 0
    dla: Annotated[int, Field(ge=0)] = 0
    fast_fp16: bool
    fast_int8: bool


class MemorySection(Section):
    """Memory in MiB.

    total_mb: what programs see; shared: CPU and GPU use the same DRAM
    idle_mb: in use before EdgeKit starts
    overhead_mb: what CUDA and the TensorRT libraries take in a process, before the first layer
    workspace_mb: the most that a build may use as workspace
    """

    total_mb: Count
    shared: bool
    idle_mb: Count
    overhead_mb: Count
    workspace_mb: Count


class PowerSection(Section):
    """Power rails of the INA3221 monitors, by the names that the driver gives them.

    driver: ``ina3221x`` (JetPack 4, IIO: mW, mV, mA) or ``ina3221`` (JetPack 5 on, hwmon: mV and mA)
    total: the rail, or the rails to be added up, that make the whole module: not the power at the wall
    paths: where a rail was seen, relative to ``root``; numbers in them may differ, so that names decide
    """

    driver: Literal["ina3221x", "ina3221"]
    root: str
    rails: tuple[str, ...] = ()
    total: tuple[str, ...] = ()
    paths: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> PowerSection:
        unknown = sorted({*self.total, *self.paths} - set(self.rails))
        if unknown:
            raise ValueError(f"total and paths: not among the rails: {', '.join(unknown)}")
        return self


class ClocksSection(Section):
    """Where frequencies are read, for people (``edgekit boards show``): the sensors find these files by themselves.

    gpu: devfreq folders, with cur_freq, min_freq, max_freq in Hz; the first that exists
    gpu_load: files; gpu_load_scale: what their number is multiplied with to be a per cent
    emc: file with the memory's frequency in Hz, for root only
    cpu: cluster -> numbers of its cores; cpu_max_khz: the highest frequency
    """

    gpu: tuple[str, ...] = ()
    gpu_load: tuple[str, ...] = ()
    gpu_load_scale: Positive = 0.1
    emc: str | None = None
    cpu: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    cpu_max_khz: Count | None = None


class ThermalSection(Section):
    """Thermal zones by their ``type``, for people: the index is not stable. ignore: zones that show a dummy value."""

    zones: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


class ModeSection(Section):
    """One of nvpmodel's power modes. ``gpu_mhz`` is the configured cap; the real one may lie a little higher.

    cpu: cluster -> (cores that are on, GHz)
    """

    id: Annotated[int, Field(ge=0)]
    name: str
    gpu_mhz: Positive | None = None
    emc_mhz: Positive | None = None
    cpu: dict[str, tuple[int, float]] = Field(default_factory=dict)
    peaks: PeaksSection | None = None


class CameraSection(Section):
    """GStreamer pipelines for ``cv2.VideoCapture(..., cv2.CAP_GSTREAMER)``, or null where the board has none.

    Placeholders: {width} {height} of the frames, {size} for both where the user gave them ("width=640,height=360," or
    nothing), {rate} as a fraction and {fps} as a whole number; {sensor_id} and {flip} of csi, {device} of usb, {uri} of
    rtsp.
    """

    csi: Template | None = None
    usb: Template | None = None
    rtsp: Template | None = None
