"""Boards: what a machine is and can do, as data. Adding a board is adding ``boards/NAME.yaml``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from .config import Section, explain, read_mapping
from .hardware import (
    CameraSection,
    ClocksSection,
    Count,
    GpuSection,
    IdentitySection,
    MemorySection,
    ModeSection,
    PeaksSection,
    Positive,
    PowerSection,
    Precision,
    StackSection,
    ThermalSection,
    nearest_stack,
)
from .paths import expanded, share, unknown_name
from .runtime.errors import BadConfig, BoardLacks
from .runtime.machine import pick_core
from .runtime.onboard.identity import evidence

Layout = Literal["nhwc_uint8", "nchw_float"]


class MeasureSection(Section):
    """How long to measure when nobody says otherwise.

    warmup: frames before the timed ones, kept apart; min_seconds and min_count: both must be reached.
    """

    warmup: Annotated[int, Field(ge=0)] = 10
    min_seconds: Positive = 20.0
    min_count: Count = 64


class Board(Section):
    """A board.

    runtimes: names of sessions, the preferred one first
    threads: number of threads, or "all" for as many as the process may use
    core: the one core that the measured process is pinned to, "auto" to choose, or null for no pinning
    noisy_ratio: a run whose p90/p50 is above it is marked noisy
    opset_max: highest ONNX operator set that every one of its stacks reads
    stacks: releases of the vendor's software, the one to use first; empty where there is no TensorRT
    modes: nvpmodel's power modes; peaks: in the fastest of them
    The other sections are described in ``hardware.py``.
    """

    name: str
    title: str
    kind: Literal["x86", "jetson", "gpu", "arm"]
    runtimes: Annotated[tuple[str, ...], Field(min_length=1)]
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)]
    input_layouts: Annotated[tuple[Layout, ...], Field(min_length=1)]
    threads: Count | Literal["all"] = 1
    core: Annotated[int, Field(ge=0)] | Literal["auto"] | None = None
    opset_max: Annotated[int, Field(ge=7)] = 13
    int8_flavour: Literal["x86", "trt"] | None = None
    noisy_ratio: Annotated[float, Field(gt=1)] = 1.2
    measure: MeasureSection = MeasureSection()
    peaks: PeaksSection | None = None
    identity: IdentitySection = IdentitySection()
    stacks: tuple[StackSection, ...] = ()
    gpu: GpuSection | None = None
    memory: MemorySection | None = None
    power: PowerSection | None = None
    clocks: ClocksSection | None = None
    thermal: ThermalSection | None = None
    modes: tuple[ModeSection, ...] = ()
    camera: CameraSection | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Board:
        if ("int8" in self.precisions) != (self.int8_flavour is not None):
            raise ValueError("precisions and int8_flavour: int8 needs a flavour, and a flavour needs int8")
        if self.core is not None and self.threads != 1:
            raise ValueError("core and threads: a process pinned to one core runs one thread; set threads: 1")
        lacking = sorted({stack.runtime for stack in self.stacks} - set(self.runtimes))
        if lacking:
            raise ValueError(f"stacks and runtimes: a stack runs in {', '.join(lacking)}; list it in runtimes")
        if self.gpu is not None and "int8" in self.precisions and not self.gpu.fast_int8:
            raise ValueError("precisions and gpu: the GPU has no fast INT8 (fast_int8), so leave int8 out")
        return self

    def stack(self, release: str | None = None) -> StackSection:
        """The software stack of an L4T or JetPack release ("32.7.6", "4.6.6"), or the first; see ``stack_for``."""
        return self.stack_for(release)[0]

    def stack_for(self, release: str | None, tensorrt: str = "") -> tuple[StackSection, str]:
        """(stack, note): that of a release, or the nearest listed one, which the note then says; see ``nearest_stack``.

        tensorrt: the version that the board itself tells, or empty. Raises BoardLacks where nothing listed is near.
        """
        if release is None and self.stacks:
            return self.stacks[0], ""
        plain = re.sub(r"(?i)^(jetpack|l4t|r)\s*(?=\d)", "", release or "")  # as NVIDIA writes them: R32.7.1
        for stack in self.stacks:
            if release == stack.name or plain in (*stack.l4t, *stack.jetpack):
                return stack, ""
        near = nearest_stack(self.stacks, plain, tensorrt)
        if near is not None:
            return near, f"L4T {release} is not among the releases of board {self.name!r}; taken for {near.name}"
        known = "; ".join(f"{s.name} (L4T {', '.join(s.l4t)})" if s.l4t else s.name for s in self.stacks) or "none"
        raise BoardLacks(f"board {self.name!r} has no software stack {release or ''!r}; it has: {known}")

    def require(self, runtime: str, precision: str, layout: str | None = None) -> None:
        """Raise BoardLacks when the board cannot run this, before any work is done."""
        needs = [("runtime", runtime, self.runtimes), ("precision", precision, self.precisions)]
        if layout is not None:
            needs.append(("input layout", layout, self.input_layouts))
        for what, wanted, have in needs:
            if wanted not in have:
                raise BoardLacks(
                    f"board {self.name!r} has no {what} {wanted!r}; it has: {', '.join(have)}. Boards: edgekit boards"
                )

    def why_no_int8(self) -> str | None:
        """Why this board does not compute in INT8, in words; None where it does."""
        if "int8" in self.precisions:
            return None
        sm = self.gpu.sm if self.gpu else None
        return f"its GPU is sm_{sm}, which has no INT8 arithmetic (DP4A)" if sm else "it has no INT8 arithmetic"

    def workspace_mb(self) -> int:
        """MiB that a TensorRT builder may use for tactics."""
        return self.memory.workspace_mb if self.memory else 1024

    def thread_count(self) -> int:
        """Threads to use in this process's place: ``all`` counts the cores that it may run on."""
        return len(os.sched_getaffinity(0)) if self.threads == "all" else self.threads

    def pinned_core(self) -> int | None:
        """Core to pin to, or None. ``auto`` watches the cores for a moment and takes the least busy one, not core 0."""
        if self.core is None:
            return None
        if self.core == "auto":
            return pick_core()
        allowed = os.sched_getaffinity(0)
        if self.core not in allowed:
            have = ", ".join(map(str, sorted(allowed)))
            raise BoardLacks(
                f"board {self.name!r} pins to core {self.core}, which this process may not use; it may use: {have}"
            )
        return self.core


def recognise(model: str, compatible: Sequence[str] = (), dts: str = "") -> Board | None:
    """The shipped board that a device tree describes, or None where no evidence speaks for any; see ``evidence``.

    model: ``/proc/device-tree/model``; compatible: its entries, from ``compatible``; dts: ``nvidia,dtsfilename``.
    """
    found = {"model": model, "compatible": compatible, "dts": dts}
    boards = [load_board(name) for name in board_names()]
    weights = [evidence(board.identity.model_dump(), found) for board in boards]
    best = max(weights)
    return boards[weights.index(best)] if best else None


def board_names() -> list[str]:
    """Names of the shipped boards."""
    return sorted(p.stem for p in share("boards").glob("*.yaml"))


def load_board(name: str | Path) -> Board:
    """Read a board by its name or by the path of its YAML file. Raises BadConfig that lists every problem found."""
    file = _board_file(str(name))
    values = read_mapping(file)
    try:
        board = Board.model_validate(values)
    except ValidationError as error:
        raise BadConfig(explain(Board, file, error)) from error
    if board.name != file.stem:
        raise BadConfig(f"{file}: the board calls itself {board.name!r}; the name must be the file's: {file.stem!r}")
    return board


def _board_file(name: str) -> Path:
    path = expanded(name)
    for file in (path, share("boards") / f"{name}.yaml"):
        if file.is_file() and file.suffix in (".yaml", ".yml"):
            return file.resolve()
    raise unknown_name(
        "board", name, board_names(), "A path to a board's YAML file works too. List them: edgekit boards"
    )
