"""The papers' ablations on a set of one's own: does each trick change what it changed in its paper?

    python benchmarks/ablations.py --list
    python benchmarks/ablations.py --table refinedetlite-3 --data FOLDER --seeds 0 1 2
    python benchmarks/ablations.py --table cspnet-2 --data FOLDER --rows gfm efm --out runs/fusion
    python benchmarks/ablations.py --table cspnet-2 --data FOLDER --jobs 2                               two at once
    python benchmarks/ablations.py --table refinedetpp-2 --data FOLDER --set train.epochs=2 --out runs/try    a try

A table is a file of ``benchmarks/ablations``: rows of a recipe, what is set in it, and the mAP that the paper prints.
Every row is trained on the same number of images with the same seeds. It runs unattended and may be stopped at any
moment: called again with the same settings it skips what is finished and resumes the training that was stopped. A row
that fails is written down as failed, and the others go on.

OUT/TABLE has ``table.md``, ``table.csv`` and ``table.svg`` (mean, spread, difference to the row that the paper compares
with, the paper's difference, verdict) and ``runs.csv`` (every training), written anew after each training.

The verdict is about the direction: "agrees" or "disagrees" with the sign of the paper's difference where the two-sided
95 % interval of Student's t over the differences seed by seed does not contain zero, else "cannot tell". Where a trick
changes nothing at all, one row in twenty is wrongly sure all the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import side_by_side
import trainings
from ablation_picture import differences
from arguments import data_root
from lightning.pytorch import Trainer
from pydantic import Field, ValidationError, model_validator

import edgekit
from edgekit.config import Section, explain, read_mapping
from edgekit.models.checkpoint import load_weights, shipped_checkpoint, weights_file
from edgekit.models.zoo import build
from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime.artifact import file_sha256, read_artifact, value_sha256
from edgekit.runtime.errors import BadConfig, EdgeKitError
from edgekit.training.batches import DetectionData
from edgekit.training.fit import one_cv2_thread, training_sets
from edgekit.training.module import DetectorModule
from edgekit.training.tasks import task_of
from edgekit.training.watch import without_remarks

TABLES = Path(__file__).parent / "ablations"
METRICS = {"map": "mAP", "map50": "mAP@0.5"}
# Student's t, two-sided 95 %, by degrees of freedom from 1 on; the last serves for all beyond, and is a little too wide
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


# -- tables as data ---------------------------------------------------------------------------------------------------
class Row(Section):
    """set: what differs from the table's recipe;  published: the paper's figure, in points; null for a choice of ours

    against: the row that the paper's text compares it with; none for a row that nothing is compared with
    weights: the row whose trained network is measured, for what is of testing alone; else it is trained
    shipped: the recipe whose shipped weights are measured; the table's recipe and its settings do not concern this row
    seed: the one seed that it is trained with, for a network that serves the others of all seeds; null: all of --seeds
    teacher: the row whose network of the same seed teaches it
    pseudo: the row whose network of the same seed labels the images of --unlabelled; an epoch is then drawn from those
        and from the labelled ones together, and is no longer than without them
    """

    name: str = Field(pattern=r"^[A-Za-z0-9.-]+$")
    title: str
    published: float | None = None
    against: str | None = None
    weights: str | None = None
    shipped: str | None = None
    seed: int | None = None
    teacher: str | None = None
    pseudo: str | None = None
    set: tuple[str, ...] = ()


class Table(Section):
    """tested_on: what the published figures are of;  metric: ours that stands beside them;  set: of every row

    note: what else differs from the paper's experiment, for the reader of the result
    """

    paper: str
    tested_on: str
    metric: Literal["map", "map50"]
    recipe: str
    note: str = ""
    set: tuple[str, ...] = ()
    rows: tuple[Row, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Table:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"rows: two have one name: {', '.join(names)}")
        for place, row in enumerate(self.rows):
            if row.against and (row.against not in names or row.against == row.name):
                raise ValueError(f"row {row.name}: against: no other row {row.against!r}")
            for key in ("weights", "teacher", "pseudo"):
                other = getattr(row, key)
                if other and other not in names[:place]:
                    raise ValueError(f"row {row.name}: {key}: no row {other!r} before it")
        return self

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


def table_names() -> list[str]:
    return sorted(file.stem for file in TABLES.glob("*.yaml"))


def load_table(name: str) -> Table:
    file = TABLES / f"{name}.yaml"
    if not file.is_file():
        raise BadConfig(f"no table {name!r}; there are: {', '.join(table_names())}")
    try:
        return Table.model_validate(read_mapping(file))
    except ValidationError as error:
        raise BadConfig(explain(Table, file, error)) from error


def recipe_of(table: Table, row: Row, overrides: Sequence[str] = (), teacher: Path | None = None) -> Recipe:
    """teacher: the folder of a finished training, with its ``recipe.yaml`` and ``checkpoint``"""
    if row.shipped:
        return load_recipe(row.shipped, [*row.set, *overrides])
    taught = (
        [f"teacher={{recipe: '{teacher / 'recipe.yaml'}', weights: '{teacher / 'checkpoint'}'}}"] if teacher else []
    )
    return load_recipe(table.recipe, [*table.set, *row.set, *overrides, *taught])


def with_labels(recipe: Recipe, images: Path, labels: Path) -> str:
    """What to set for an epoch as long as the recipe's, drawn from its own images and those that ``labels`` are of."""
    assert recipe.data is not None
    own = recipe.data.model_dump(mode="json", exclude={"root", "sources"}, exclude_unset=True)
    seen, _ = training_sets(recipe)
    more = len(json.loads(labels.read_text(encoding="utf-8"))["images"])
    share = len(seen) / (len(seen) + more)
    pseudo = {"root": str(images), "images": ".", "train": str(labels), "labelled": recipe.classes, "repeat": share}
    sources = {"labelled": {**own, "repeat": share}, "pseudo": pseudo}
    return f"data={json.dumps({'root': recipe.data.root, 'sources': sources})}"


# -- one row, one seed ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Result:
    """One finished training. map50, map, ap50: on the validation set, 0..1, of the last weights.

    images: seen in training;  seconds: of this machine's time, without what an interruption lost
    key: hash of the settings;  failed: why there is no result, else ""
    """

    row: str
    seed: int
    key: str
    map50: float = 0.0
    map: float = 0.0
    ap50: dict[str, float] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    failed: str = ""


@dataclass(frozen=True)
class Work:
    """What all trainings of a table share. unlabelled: the images of ``pseudo`` rows;  out: the table's folder"""

    table: Table
    overrides: tuple[str, ...]
    out: Path
    unlabelled: Path | None = None

    def folder(self, row: str, seed: int) -> Path:
        return self.out / f"{row}-{seed}"


def run(work: Work, row: Row, seed: int) -> Result:
    """The result of a row and a seed, in ``OUT/ROW-SEED``. Raises EdgeKitError."""
    folder = work.folder(row.name, seed)
    recipe, key = plan(work, row, seed)
    found = trainings.read_result(Result, folder, key)
    if found is not None:
        return found
    if row.weights:
        source = work.folder(row.weights, seed)  # which plan has seen finished
        metrics = validate(recipe, source / "checkpoint")
        effort = {"images": trainings.stored(source)["images"]}
    elif row.shipped:
        trainings.write_recipe(recipe, folder / "recipe.yaml")
        shipped_checkpoint(recipe, folder / "checkpoint")
        metrics, effort = validate(recipe, folder / "checkpoint"), {}
    else:
        trainings.write_recipe(recipe, folder / "recipe.yaml")
        metrics = trainings.trained(recipe, folder, key).manifest["metrics"]
        effort = trainings.effort(recipe, metrics, folder)
    result = Result(row.name, seed, key, **trainings.accuracy(recipe, metrics), **effort)
    trainings.write_result(result, folder)
    return result


def plan(work: Work, row: Row, seed: int) -> tuple[Recipe, str]:
    """The recipe of a row and a seed, and the hash of it and of the networks that it needs."""
    own = [*work.overrides, f"train.seed={seed}"]
    others = {name: finished(work, name, its_seed) for name, its_seed in needed(work.table, (row.name, seed))}
    teacher = others.get(row.teacher or "")
    if row.pseudo:
        images, labels = pseudo_labels(work, row, seed, others[row.pseudo])
        own.append(with_labels(recipe_of(work.table, row, own, teacher), images, labels))
    recipe = recipe_of(work.table, row, own, teacher)
    parents = [trainings.stored(folder)["key"] for folder in others.values()]
    if row.shipped and recipe.weights:
        parents.append(file_sha256(recipe.weights))
    return recipe, value_sha256([trainings.settings(recipe, "teacher"), *parents])


def pseudo_labels(work: Work, row: Row, seed: int, labeller: Path) -> tuple[Path, Path]:
    """The unlabelled images, and the file of what the network in ``labeller`` sees on them, named by its digest."""
    if work.unlabelled is None:
        raise BadConfig(f"row {row.name} needs images that nobody labelled: --unlabelled FOLDER")
    checkpoint = labeller / "checkpoint"
    labels = work.folder(row.name, seed).resolve() / f"pseudo-{read_artifact(checkpoint).digest[:12]}.json"
    if not labels.is_file():
        edgekit.label(checkpoint, work.unlabelled, out=labels)
    return work.unlabelled.resolve(), labels


def finished(work: Work, name: str, seed: int) -> Path:
    """The folder of another row's result, made with these settings."""
    folder = work.folder(name, seed)
    _, key = plan(work, work.table.row(name), seed)
    if trainings.read_result(Result, folder, key) is None:
        raise EdgeKitError(f"row {name}, seed {seed}, is not there; this one needs its network. Name it in --rows too.")
    return folder.resolve()


def validate(recipe: Recipe, checkpoint: Path) -> dict[str, float]:
    """What a training of ``recipe`` would say of these weights at its end."""
    train, val = training_sets(recipe)
    model = build(recipe.model.name, len(recipe.classes), recipe.model.options, recipe.preprocess.size)
    load_weights(model, weights_file(checkpoint), recipe.classes)
    module = DetectorModule(recipe, model, train.class_counts().tolist(), 1, val)
    data = DetectionData(recipe, train, val, task_of(model, recipe.model.name).collate(recipe, model))
    with without_remarks(), one_cv2_thread():
        trainer = Trainer(devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
        trainer.validate(module, datamodule=data, verbose=False)
    return {k.removeprefix("val/"): float(v) for k, v in trainer.callback_metrics.items()}


# -- the verdict ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Comparison:
    """A row against another, over the seeds that both have. All in points; spread and half need two seeds.

    half: of the 95 % interval of ``mean``;  paper: the published difference, if there is one
    """

    seeds: int
    mean: float
    half: float | None
    paper: float | None

    @property
    def verdict(self) -> str:
        if self.half is None or self.paper == 0 or abs(self.mean) <= self.half:
            return "cannot tell"
        if self.paper is None:
            return "helps" if self.mean > 0 else "hurts"
        return "agrees" if (self.mean > 0) == (self.paper > 0) else "disagrees"


def compare(new: Mapping[int, float], old: Mapping[int, float], paper: float | None) -> Comparison | None:
    """new, old: seed -> mAP, 0..1;  paper: points. None without a seed that both have."""
    gains = [100 * (new[seed] - old[seed]) for seed in sorted(set(new) & set(old))]
    if not gains:
        return None
    half = None
    if len(gains) > 1:
        t = T95[min(len(gains) - 1, len(T95)) - 1]
        half = t * statistics.stdev(gains) / math.sqrt(len(gains))
    return Comparison(len(gains), statistics.mean(gains), half, paper)


def values(table: Table, results: Iterable[Result], row: str) -> dict[int, float]:
    """seed -> the table's metric."""
    return {r.seed: getattr(r, table.metric) for r in results if r.row == row and not r.failed}


def comparison(table: Table, results: Sequence[Result], row: Row) -> Comparison | None:
    if row.against is None:
        return None
    paper, other = row.published, table.row(row.against).published
    paper = None if paper is None or other is None else round(paper - other, 6)
    return compare(values(table, results, row.name), values(table, results, row.against), paper)


# -- the table --------------------------------------------------------------------------------------------------------
def lines(table: Table, results: Sequence[Result]) -> list[dict[str, Any]]:
    """One record per row that has a result, for the CSV file and the Markdown table; mAP in points."""
    found = []
    for row in table.rows:
        ours = list(values(table, results, row.name).values())
        if not ours:
            continue
        if row.shipped:
            ours = ours[:1]  # one network, however many seeds
        gain = comparison(table, results, row)
        runs = [r for r in results if r.row == row.name and not r.failed]
        found.append(
            {
                "row": row.name,
                "title": row.title,
                "seeds": len(ours),
                "mean": round(100 * statistics.mean(ours), 3),
                "sd": round(100 * statistics.stdev(ours), 3) if len(ours) > 1 else None,
                "against": row.against,
                "difference": round(gain.mean, 3) if gain else None,
                "half_95": round(gain.half, 3) if gain and gain.half is not None else None,
                "published": row.published,
                "published_difference": gain.paper if gain else None,
                "verdict": gain.verdict if gain else None,
                "images": statistics.mean(r.images for r in runs),
                "hours": round(statistics.mean(r.seconds for r in runs) / 3600, 2),
            }
        )
    return found


LEGEND = """
Difference: mean over the seeds, with half of its two-sided 95 % interval (Student's t, paired by seed). The verdict
compares its sign with the paper's, or says what a choice of ours does; it cannot tell where the interval contains zero,
with one seed, or where the paper has no difference. The interval is of the seeds alone: all are measured on the same
images, and what others would say is not in it.
"""


def chance(judged: int) -> str:
    """What so many comparisons say where nothing does anything."""
    return (
        f"If no trick did anything, {0.05 * judged:.1f} of these {judged} comparisons would be sure all the same, and "
        f"at least one of them in {100 * (1 - 0.95**judged):.0f} % of such tables (were they independent).\n"
    )


def markdown(table: Table, results: Sequence[Result], overrides: Sequence[str] = ()) -> str:
    """overrides: what the caller sets for every row, which the reader must know"""
    name = METRICS[table.metric]
    head = ["row", "", "seeds", name, "against", "difference", "paper", "paper's difference", "verdict", "h per run"]
    cells = [[_cell(line, key) for key in _COLUMNS] for line in lines(table, results)]
    failed = [f"- {r.row}, seed {r.seed}: {r.failed}" for r in results if r.failed]
    unseen = {r.images for r in results if r.images}
    text = (
        f"{table.paper}. Ours: {name} in points, mean ± standard deviation over the seeds; paper: {table.tested_on}.\n"
    )
    text += f"Images seen in training: {', '.join(str(n) for n in sorted(unseen)) or 'none'}.\n"
    text += f"Set for every row: `{' '.join(overrides)}`.\n\n" if overrides else "\n"
    text += trainings.markdown(head, cells)
    text += by_class(table, results)
    text += LEGEND + (f"\n{table.note}\n" if table.note else "")
    judged = sum(line["half_95"] is not None for line in lines(table, results))
    text += "\n" + chance(judged) if judged else ""
    return text + ("\nFailed:\n" + "\n".join(failed) + "\n" if failed else "")


def by_class(table: Table, results: Sequence[Result]) -> str:
    """Markdown of AP@0.5 of each class, with the difference that the row makes; bold where the seeds can tell it.

    Where a class has few objects, one that is found more moves the mean over classes by as much as a trick does.
    """
    classes = list(dict.fromkeys(name for r in results for name in r.ap50))

    def cell(row: Row, name: str) -> str:
        ours, other = (
            {r.seed: r.ap50[name] for r in results if r.row == which and name in r.ap50}
            for which in (row.name, row.against)
        )
        gain = compare(ours, other, None)
        mean = f"{100 * statistics.mean(ours.values()):.1f}" if ours else "-"
        if gain is None:
            return mean
        told = trainings.change(gain.mean, gain.half)
        return f"{mean} ({told if gain.verdict == 'cannot tell' else f'**{told}**'})"

    measured = [row for row in table.rows if any(r.row == row.name and r.ap50 for r in results)]
    rows = [[row.name, *(cell(row, name) for name in classes)] for row in measured]
    return "\n" + trainings.markdown(["row", *(f"AP@0.5 {name}" for name in classes)], rows) if rows else ""


def _published(row: Row) -> str:
    return "-" if row.published is None else f"{row.published:.1f}"


_COLUMNS = (
    "row",
    "title",
    "seeds",
    "mean",
    "against",
    "difference",
    "published",
    "published_difference",
    "verdict",
    "hours",
)


def _cell(line: Mapping[str, Any], key: str) -> str:
    value = line[key]
    if value is None:
        return "-"
    if key == "mean":
        return f"{value:.1f}" + (f" ± {line['sd']:.1f}" if line["sd"] is not None else "")
    if key == "difference":
        return trainings.change(value, line["half_95"])
    return f"{value:+.1f}" if key == "published_difference" else str(value)


# -- the command ------------------------------------------------------------------------------------------------------
def chosen(table: Table, names: Sequence[str] | None) -> list[Row]:
    unknown = sorted(set(names or []) - {row.name for row in table.rows})
    if unknown:
        raise BadConfig(f"--rows: no {', '.join(unknown)}; there are: {', '.join(row.name for row in table.rows)}")
    return [row for row in table.rows if not names or row.name in names]


def check(table: Table, rows: Sequence[Row], overrides: Sequence[str]) -> None:
    """Raises BadConfig before anything is trained: for a wrong --set, one that takes away what two rows differ by, or
    compared rows that see not as many images.
    """
    recipes = {row: recipe_of(table, row, overrides, Path(row.teacher) if row.teacher else None) for row in rows}
    made: dict[str, str] = {}
    for row, recipe in recipes.items():
        experiment = json.dumps([recipe.model_dump(mode="json"), row.shipped, row.pseudo], sort_keys=True)
        if (same := made.setdefault(experiment, row.name)) != row.name:
            raise BadConfig(
                f"--set makes the rows {same} and {row.name} one experiment: it replaces what they differ by"
            )
    compared = {row.name for row in rows if row.against} | {row.against for row in rows}
    seen = {(r.train.epochs, r.train.batch_size) for row, r in recipes.items() if row.name in compared}
    if len(seen) > 1:
        raise BadConfig(f"rows that are compared must see the same images; epochs and batch sizes: {sorted(seen)}")


def every(options: argparse.Namespace, table: Table, rows: Sequence[Row], out: Path) -> list[Result]:
    """Seed by seed, so that the whole table can be read off early."""
    overrides = (data_root(options.data), *options.set)
    check(table, rows, overrides)
    training_sets(load_recipe(table.recipe, [*table.set, *overrides]))  # a wrong --data is said once, not row by row
    work = Work(table, overrides, out, options.unlabelled)
    pairs = list(dict.fromkeys(pair_of(row, seed) for seed, row in itertools.product(options.seeds, rows)))
    results: list[Result] = []
    with closing(
        side_by_side.side_by_side(partial(attempt, work), pairs, options.jobs, failure, partial(needed, table))
    ) as found:
        for result in found:
            results.append(result)
            results.sort(key=lambda r: pairs.index((r.row, r.seed)))
            write(table, results, out, options.set)
            said = result.failed or f"{table.metric} {100 * getattr(result, table.metric):.1f}"
            print(f"{result.row}, seed {result.seed}: {said}", flush=True)
    return results


def needed(table: Table, pair: tuple[str, int]) -> list[tuple[str, int]]:
    """The rows and seeds whose networks a row needs."""
    row, seed = table.row(pair[0]), pair[1]
    return [pair_of(table.row(name), seed) for name in (row.teacher, row.weights, row.pseudo) if name]


def pair_of(row: Row, seed: int) -> tuple[str, int]:
    """Name and seed of the training that stands for ``row`` where ``seed`` is asked for."""
    return row.name, seed if row.seed is None else row.seed


def attempt(work: Work, pair: tuple[str, int]) -> Result:
    row, seed = work.table.row(pair[0]), pair[1]
    try:
        return run(work, row, seed)
    except EdgeKitError as error:
        return failure(pair, error)


def failure(pair: tuple[str, int], error: EdgeKitError) -> Result:
    return Result(*pair, key="", failed=str(error).splitlines()[0])


def write(table: Table, results: Sequence[Result], out: Path, overrides: Sequence[str]) -> None:
    trainings.write_csv(map(asdict, results), out / "runs.csv")
    found = lines(table, results)
    trainings.write_csv(found, out / "table.csv")
    if (picture := differences(found, METRICS[table.metric])) is not None:
        trainings.write_text(picture, out / "table.svg")
    trainings.write_text(markdown(table, results, overrides), out / "table.md")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=table_names(), help="which table of which paper")
    parser.add_argument("--list", action="store_true", help="the tables and their rows")
    parser.add_argument("--data", type=Path, help="folder of the set (images, annotations)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--unlabelled", type=Path, help="folder of images for rows that learn from pseudo-labels")
    parser.add_argument("--rows", nargs="+", help="some of the table's rows; all if not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    side_by_side.add_arguments(parser)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for every training")
    options = parser.parse_args(arguments)
    if not options.list and (options.table is None or options.data is None):
        parser.error("--table and --data are needed; --list shows the tables")
    if len(set(options.seeds)) < len(options.seeds):
        parser.error("--seeds: one is given twice")
    side_by_side.share_cores(options)
    return options


def report(options: argparse.Namespace) -> int:
    table = load_table(options.table)
    results = every(options, table, chosen(table, options.rows), options.out / options.table)
    print(markdown(table, results, options.set))
    return 1 if any(r.failed for r in results) else 0


def show() -> int:
    for name in table_names():
        table = load_table(name)
        print(f"{name}: {table.paper}")
        print("".join(f"    {row.name:18}{_published(row):>6}  {row.title}\n" for row in table.rows), end="")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    return trainings.unattended("ablations", show if options.list else lambda: report(options))


if __name__ == "__main__":
    sys.exit(main())
