"""Layers as a person reads them in a terminal. Pure functions of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .row import LayerTime, Row

if TYPE_CHECKING:
    from rich.table import Table

_MOST_MODULES = 2


def layer_words(row: Row) -> str:
    """What was timed and against what, in a sentence."""
    run, peaks = row.layer_run, row.peaks
    if run is None:
        return "layers not measured"
    alone = "" if run.inference_ms is None else f"; without the profiler the network takes {run.inference_ms:.2f} ms"
    text = f"{len(row.layers)} steps of {run.profiler}, {run.total_ms:.2f} ms, mean of {run.runs} runs{alone}."
    if peaks is None:
        return text + " No peaks of this board are known, so the slowest come first."
    limits = [f"{value:.0f} GOPS {name}" for name, value in peaks.gops.items()]
    limits += [f"{peaks.bandwidth:.1f} GB/s"] if peaks.bandwidth else []
    text += f" Peaks ({peaks.source}): {', '.join(limits)}. Where most time is lost against them comes first:"
    if run.note:
        text += f" ({run.note[0].upper()}{run.note[1:]}.)"
    if run.unattributed_macs:
        text += f" {run.unattributed_macs / 1e6:.1f} MMAC belong to no step that the profiler names."
    return text


def layer_table(layers: Sequence[LayerTime]) -> Table:
    """One line per step: module, operator, ms, share, GOPS reached, bound and what is lost against it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    for header in ("module", "operator", "ms", "share", "MMAC", "kB", "GOPS", "bound ms", "lost ms"):
        table.add_column(header, justify="left" if header in ("module", "operator") else "right", overflow="fold")
    for layer in layers:
        bound = "" if layer.bound_ms is None else f"{layer.bound_ms:.3f} {layer.bound}"
        cells = [
            module_text(layer),
            layer.kind,
            f"{layer.ms:.3f}",
            f"{layer.share:.1%}",
            f"{layer.macs / 1e6:.1f}" if layer.macs else "-",
            "unknown" if layer.bytes is None else f"{layer.bytes / 1e3:,.0f}",
            "-" if layer.gops is None else f"{layer.gops:.1f}",
            bound or "unknown",
            "unknown" if layer.lost_ms is None else f"{layer.lost_ms:.3f}",
        ]
        table.add_row(*map(Text, cells))
    return table


def module_text(layer: LayerTime) -> str:
    """The modules that a step computes; for a function of none its nodes, and for the runtime's own its name."""
    names = layer.modules or layer.nodes
    if not names:
        return f"({layer.name}: inserted by the runtime)"
    more = len(names) - _MOST_MODULES
    return ", ".join(names[:_MOST_MODULES]) + (f" and {more} more" if more > 0 else "")
