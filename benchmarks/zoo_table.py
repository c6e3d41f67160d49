"""The zoo table, benchmarks/results/zoo.md, from what zoo_latency.py and zoo_ratios.py measured.

    python benchmarks/zoo_table.py

Every recipe at its input on one core, the fastest first; then the latencies that papers print of several systems on
one machine, as ratios beside ours; then the pairs that were measured in turns.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import trainings
import zoo_ratios
from zoo_latency import ROOT, read_results

from edgekit.measure.listing import read_figures
from edgekit.recipe import load_recipe, recipe_names

OUT = ROOT / "benchmarks" / "results" / "zoo.md"
PRECISIONS = ("fp32", "int8")
ON_A_CPU = ("i7", "i9")  # devices of the papers that our core may be compared with

HEAD = """\
# The zoo on one core
Every recipe at its own input, one image at a time, from raw pixels to the network's boxes, without NMS: no score passes
the threshold, so that none is left for it. ms: p50 in the faster of two runtimes, `ort` ONNX Runtime and `ov` OpenVINO;
INT8 is the `x86` flavour. `*`: the bench called that measurement disturbed ({disturbed} of {measured}; why stands in
`zoo.json`). GOPS: 2 x MACs of the exported FP32 graph; GOPS/s: what the core reached of them. MB: 10^6 bytes of the
file that is loaded. Weights are random where none ship; the network takes as long with them.

{machine}. Made by `benchmarks/zoo_latency.py`, `zoo_ratios.py` and `zoo_table.py`.

"""
IN_PRINT = """
## {paper}, {device}
Time over that of the paper's fastest, in print and here. Measured one after the other on a machine that drifts.

"""
IN_TURNS = """
## In turns
The first network's time over the second's, with its 95 % interval: both took turns on one core, so drift cancels.

"""


class Printed(NamedTuple):
    """A latency or rate that a paper prints of a recipe's network. time: in any unit, only ratios are used"""

    recipe: str
    text: str
    time: float


# -- the zoo ----------------------------------------------------------------------------------------------------------
def zoo_rows(results: Mapping[str, Any]) -> list[list[str]]:
    figures = read_figures()
    order = sorted(results, key=lambda name: _milliseconds(results[name], "fp32") or float("inf"))
    return [_zoo_row(name, results[name], figures.get(name, {})) for name in order]


def _zoo_row(name: str, entry: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    records = [entry["precisions"][precision] for precision in PRECISIONS]
    fp32, int8 = (_milliseconds(entry, precision) for precision in PRECISIONS)
    return [
        name,
        entry.get("input", "-"),
        f"{figures['parameters'] / 1e6:.2f}" if "parameters" in figures else "-",
        f"{entry['gops']:.2f}" if entry.get("gops") else "-",
        *(f"{record['file_mb']:.1f}" if "file_mb" in record else "-" for record in records),
        *map(_timed, records),
        f"{fp32 / int8:.2f}" if fp32 and int8 else "-",
        *(f"{record['gops_per_second']:.0f}" if "gops_per_second" in record else "-" for record in records),
    ]


def _milliseconds(entry: Mapping[str, Any], precision: str) -> float | None:
    value: float | None = entry["precisions"][precision].get("p50_ms")
    return value


def _timed(record: Mapping[str, Any]) -> str:
    if "p50_ms" not in record:
        return "failed"
    short = {"onnxruntime": "ort", "openvino": "ov"}[record["runtime"]]
    return f"{record['p50_ms']:.1f} {short}{'' if record['verdict'] == 'valid' else ' *'}"


def failures(results: Mapping[str, Any]) -> list[str]:
    """A line for every file that no runtime, or not every runtime, could run."""
    lines = []
    for name, entry in results.items():
        for precision, record in entry["precisions"].items():
            refused = record.get("failed") or ({"both": record["error"]} if "error" in record else {})
            lines += [f"- {name}, {precision}, {where}: {why.splitlines()[0]}" for where, why in refused.items()]
    return lines


# -- beside the papers ------------------------------------------------------------------------------------------------
def printed_groups() -> dict[tuple[str, str], list[Printed]]:
    """(paper, CPU) -> the recipes whose networks the paper timed there, at the recipe's input."""
    groups = defaultdict(list)
    for name in recipe_names():
        if name.endswith("-dhaka"):
            continue  # our road scenes: no paper's classes
        for (paper, metric, device), value in zoo_ratios.speeds(load_recipe(name)).items():
            rate = zoo_ratios.RATE[metric]
            text, time = (f"{value:g} fps", 1000 / value) if rate else (f"{value:g} ms", value)
            groups[paper, device].append(Printed(name, text, time))
    return {
        key: group for key, group in sorted(groups.items()) if len(group) > 1 and any(d in key[1] for d in ON_A_CPU)
    }


def printed_rows(group: list[Printed], results: Mapping[str, Any]) -> list[list[str]]:
    """Times over that of the group's fastest in print, in print and here."""
    group = sorted(group, key=lambda printed: printed.time)
    base = group[0]
    rows = []
    for printed in group:
        ratios = [
            f"{ours / first:.2f}"
            if (ours := _milliseconds(results[printed.recipe], precision))
            and (first := _milliseconds(results[base.recipe], precision))
            else "-"
            for precision in PRECISIONS
        ]
        rows.append([printed.recipe, printed.text, f"{printed.time / base.time:.2f}", *ratios])
    return rows


def pair_rows(pairs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            f"{pair['first']} : {pair['second']}",
            "; ".join(map(_in_print, pair["printed"])) or "another reading of the row above",
            *(_ratio(found) for precision in PRECISIONS for found in pair["measured"][precision].values()),
        ]
        for pair in pairs
    ]


def _in_print(found: Mapping[str, Any]) -> str:
    return f"{found['ratio']:.2f} ({found['first']:g} : {found['second']:g} {found['metric']}, {found['device']})"


def _ratio(found: Mapping[str, Any]) -> str:
    return f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})" if "ratio" in found else "failed"


# -- the page ---------------------------------------------------------------------------------------------------------
def page(results: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> str:
    records = [record for entry in results.values() for record in entry["precisions"].values() if "p50_ms" in record]
    disturbed = sum(record["verdict"] != "valid" for record in records)
    text = HEAD.format(disturbed=disturbed, measured=len(records), machine=_machines(results))
    head = ["recipe", "input", "M params", "GOPS", "MB FP32", "MB INT8", "ms FP32", "ms INT8", "INT8 gain"]
    text += trainings.markdown([*head, "GOPS/s FP32", "GOPS/s INT8"], zoo_rows(results))
    if left := [name for name in recipe_names() if name not in results]:
        text += f"\nNot measured yet: {', '.join(left)}.\n"
    if lines := failures(results):
        text += "\nWhat a runtime did not run:\n\n" + "\n".join(lines) + "\n"
    return text + "".join(_printed_parts(results)) + _turns(pairs)


def _printed_parts(results: Mapping[str, Any]) -> Iterator[str]:
    head = ["recipe", "printed", "ratio in print", "FP32 here", "INT8 here"]
    for (paper, device), group in printed_groups().items():
        measured = [printed for printed in group if printed.recipe in results]
        if len(measured) > 1:
            yield IN_PRINT.format(paper=paper, device=device) + trainings.markdown(
                head, printed_rows(measured, results)
            )


def _turns(pairs: Sequence[Mapping[str, Any]]) -> str:
    if not pairs:
        return ""
    columns = [
        f"{precision.upper()} {runtime}" for precision in PRECISIONS for runtime in pairs[0]["measured"][precision]
    ]
    return IN_TURNS + trainings.markdown(["pair", "printed", *columns], pair_rows(pairs))


def _machines(results: Mapping[str, Any]) -> str:
    names = sorted({str(entry["machine"]) for entry in results.values()})
    days = sorted({entry["when"][:10] for entry in results.values()})
    return f"One core of {' and '.join(names)}, a virtual machine, {' to '.join(dict.fromkeys((days[0], days[-1])))}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    file = zoo_ratios.RESULTS
    pairs = json.loads(file.read_text(encoding="utf-8"))["pairs"] if file.is_file() else []
    trainings.write_text(page(read_results(), pairs), OUT)
    print(OUT)


if __name__ == "__main__":
    main()
