"""``edgekit complexity``"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import options
from .output import print_json, show_table

EXAMPLE = """
edgekit complexity runs/demo/onnx
edgekit complexity yolov3-tiny.onnx --convention darknet --layers 20
"""
COLUMNS = {
    "name": "layer",
    "kind": "operator",
    "output": "output",
    "macs": "MMAC",
    "counted": "counted (M)",
    "parameters": "params",
    "activation_bytes": "written kB",
    "access_bytes": "moved kB",
    "cio": "CIO (k)",
}


def complexity(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Any .onnx file, or an artifact's folder.")],
    convention: Annotated[
        str,
        typer.Option(
            help="How the column 'counted' counts: macs, flops, macs-dense, darknet, elementwise or elementwise-flops."
        ),
    ] = "flops",
    layers: Annotated[int, typer.Option(min=0, help="How many layers to list, the most expensive first.")] = 10,
    json: options.Json = False,
) -> None:
    """Count MACs, parameters, activations, memory access and CIO of an ONNX file.

    One multiply-accumulate (MAC) is two operations in GOPS. The conventions are those of the papers: macs; flops = 2 x
    MACs; macs-dense (without depthwise convolutions); darknet (BFLOPs: 2 x MACs and the windows of poolings);
    elementwise (a counter of PyTorch modules, thop's style: biases, normalisation and activations count too);
    elementwise-flops, twice that.
    """
    import edgekit

    found = edgekit.complexity(model, convention=convention)
    if json:
        print_json({**_totals(found), "layers": found.layers})
        return
    texts = _texts(found)
    width = max(map(len, texts)) + 2
    for name, text in texts.items():
        print(f"{name:{width}}{text}")
    for note in found.notes:
        print(f"note: {note}")
    chosen = sorted(found.layers, key=lambda layer: -layer.counted)[:layers]
    if chosen:
        show_table(map(_record, chosen), COLUMNS)


def _totals(found: Any) -> dict[str, Any]:
    counts = ("macs", "gops", "parameters", "convention", "counted", "activation_bytes", "access_bytes", "cio")
    names = (*counts, "uncounted", "batch")
    return {name: getattr(found, name) for name in names}


def _texts(found: Any) -> dict[str, str]:
    unknown, whole = "not known", found.macs is not None
    return {
        **({} if found.batch == 1 else {"batch": f"{found.batch} images; everything below is of all of them"}),
        "MACs": f"{found.macs:,}" if whole else unknown,
        "GOPS (2 x MACs / 1e9)": f"{found.gops:.4f}" if whole else unknown,
        f"counted as {found.convention}": f"{found.counted:,} = {found.counted / 1e9:.4f} G" if whole else unknown,
        "parameters in the graph": f"{found.parameters:,}",
        "activations written": f"{found.activation_bytes / 1e6:.2f} MB",
        "memory access": f"{found.access_bytes / 1e6:.2f} MB read and written, weights included",
        "CIO": f"{found.cio / 1e6:.2f} M values in and out of convolutions",
    }


def _record(layer: Any) -> dict[str, str]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "output": "x".join(map(str, layer.output)),
        "macs": f"{layer.macs / 1e6:.2f}",
        "counted": f"{layer.counted / 1e6:.2f}",
        "parameters": f"{layer.parameters:,}",
        "activation_bytes": f"{layer.activation_bytes / 1e3:,.0f}",
        "access_bytes": f"{layer.access_bytes / 1e3:,.0f}",
        "cio": f"{layer.cio / 1e3:,.0f}",
    }
