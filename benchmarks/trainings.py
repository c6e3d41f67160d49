"""What the benchmarks that train share: trainings that go on where they were stopped, and their results on the disk.

A training owns a folder: ``checkpoint`` (the artifact), ``checkpoint-training`` (resume file and curves),
``trained.key`` (the hash of its settings, once it is finished) and ``result.json`` (a dataclass with that ``key``).
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import yaml

from edgekit.cli.progress import lines
from edgekit.data.sources import validation_names
from edgekit.progress import named
from edgekit.recipe import AnnotatedSection, Recipe, SourceSection
from edgekit.runtime.artifact import Artifact, file_sha256, new_file, read_artifact
from edgekit.runtime.errors import EdgeKitError
from edgekit.training.fit import fit
from edgekit.training.origin import named_weights
from edgekit.training.place import RESUME, training_folder

RESULT = "result.json"
T = TypeVar("T")


# -- one training -----------------------------------------------------------------------------------------------------
def settings(recipe: Recipe, *without: str) -> dict[str, Any]:
    """What a training is made of, to be hashed: annotations and the weights it starts from by content, not by place."""
    values = {k: v for k, v in recipe.model_dump(mode="json").items() if k not in ("data", *without)}
    for start in ("init", "init_backbone"):
        if values["train"][start]:
            values["train"][start] = file_sha256(named_weights(recipe, values["train"][start]))
    if recipe.data is not None:
        root = recipe.resolve(recipe.data.root)
        sources: Mapping[str, AnnotatedSection] = recipe.data.sources or {"": recipe.data}
        values["data"] = {
            name: _content(source, root / source.root if isinstance(source, SourceSection) else root)
            for name, source in sources.items()
        }
    return values


def _content(source: AnnotatedSection, root: Path) -> dict[str, Any]:
    """A source's fields; annotations that are one file are told by its hash, a folder of them by its name alone."""
    values = source.model_dump(mode="json", exclude={"root", "images", "sources"})
    files = {name: root / values[name] for name in ("train", "val") if values[name]}
    return {**values, **{name: file_sha256(file) for name, file in files.items() if file.is_file()}}


def trained(recipe: Recipe, folder: Path, key: str) -> Artifact:
    """The finished checkpoint in ``folder``, or a training that ends with it; a stopped one is resumed."""
    out, done = folder / "checkpoint", folder / "trained.key"
    if done.is_file() and done.read_text(encoding="utf-8") == key and (out / "manifest.json").is_file():
        return read_artifact(out, kinds=("checkpoint",))
    artifact = fit(recipe, out, (training_folder(out) / RESUME).is_file(), named(lines(), folder.name))
    with new_file(done) as handle:
        handle.write(key)
    return artifact


def curve(folder: Path) -> list[dict[str, str]]:
    """The rows of a training's metrics.csv, one an epoch."""
    with (folder / "checkpoint-training" / "metrics.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def seconds(folder: Path) -> float:
    """What a training took of this machine's time, without what an interruption lost."""
    return sum(float(row["train/seconds"] or 0) for row in curve(folder))


def accuracy(recipe: Recipe, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Fields of a result, 0..1: map50, map, and ap50 of each of the recipe's classes that was measured.

    Of a recipe of several sources, the first that has a validation set counts.
    """
    at = "".join(f"{name}/" for name in validation_names(recipe)[:1])
    ap50 = {name: metrics[f"{at}ap50/{name}"] for name in recipe.classes if f"{at}ap50/{name}" in metrics}
    return {"map50": metrics[f"{at}map50"], "map": metrics[f"{at}map"], "ap50": ap50}


def effort(recipe: Recipe, metrics: Mapping[str, float], folder: Path) -> dict[str, Any]:
    """Fields of a result: images that the training in ``folder`` has seen, and the seconds that it took."""
    return {"images": metrics["steps"] * recipe.train.batch_size, "seconds": seconds(folder)}


def write_recipe(recipe: Recipe, file: Path) -> None:
    """A resolved recipe as a file that ``load_recipe`` reads."""
    with new_file(file) as handle:
        yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), handle, sort_keys=False)


# -- results ----------------------------------------------------------------------------------------------------------
def read_result(kind: Callable[..., T], folder: Path, key: str) -> T | None:
    """The ``result.json`` of a folder as a ``kind``, if there is one. Raises EdgeKitError if it has another key."""
    file = folder / RESULT
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        result = kind(**values)
    except (ValueError, TypeError) as error:
        raise EdgeKitError(f"{file}: not a result of this benchmark ({error}). Remove the folder.") from error
    if values.get("key") != key:
        raise EdgeKitError(f"{file}: made with other settings. Choose another --out, or remove the folder.")
    return result


def stored(folder: Path) -> dict[str, Any]:
    """The ``result.json`` of a folder as it stands."""
    values: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return values


def write_result(result: Any, folder: Path) -> None:
    with new_file(folder / RESULT) as handle:
        json.dump(asdict(result), handle, indent=1)


def write_csv(rows: Iterable[dict[str, Any]], file: Path) -> None:
    """Rows with the same keys as a CSV file; mappings and lists inside of them as JSON."""
    flat = [{k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()} for row in rows]
    with new_file(file) as handle:
        writer = csv.DictWriter(handle, list(flat[0]) if flat else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)


def write_text(text: str, file: Path) -> None:
    with new_file(file) as handle:
        handle.write(text)


def spread(values: Sequence[float]) -> str:
    """Mean and, of several, sample standard deviation, in points."""
    points = [100 * v for v in values]
    deviation = f" ± {statistics.stdev(points):.1f}" if len(points) > 1 else ""
    return f"{statistics.mean(points):.1f}{deviation}"


def change(points: float, half: float | None) -> str:
    """A difference in points with half of its interval, if it has one: ``+1.9 ± 2.4``."""
    return f"{points:+.1f}" + (f" ± {half:.1f}" if half is not None else "")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])


# -- the command ------------------------------------------------------------------------------------------------------
def unattended(name: str, work: Callable[[], int]) -> int:
    """The exit code of ``work``; a mistake of the user's or Ctrl-C ends with one line for him."""
    try:
        return work()
    except EdgeKitError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
