"""``edgekit data``"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .output import print_json, show_table, show_values
from .progress import work

EXAMPLE = """
edgekit data check instances_val.json
edgekit data check edgekit-road-traffic4 data.root=~/data
edgekit data stats VOC2007/ImageSets/Main/train.txt --layout voc --out sheet.png
edgekit data convert labels/train.json --layout bdd100k --images images/train --map bdd100k-traffic4 --out train.json
edgekit data convert train.json --to yolo --out my-yolo
edgekit data convert val.json --to yolo --split val --out my-yolo
"""

COLUMNS = {
    "class": "class",
    "boxes": "boxes",
    "ignored": "ignored",
    "images": "images",
    "small": "small",
    "medium": "medium",
    "large": "large",
    "median_size": "median w, h",
    "class_weight": "class weight",
}


class Action(str, Enum):
    """check: is everything whole; stats: what is in it; convert: write it in another layout."""

    check = "check"
    stats = "stats"
    convert = "convert"


class Layout(str, Enum):
    """Of annotations; see docs/own-data.md for what each one's file or folder is."""

    coco = "coco"
    voc = "voc"
    ivslab = "ivslab"
    bdd100k = "bdd100k"
    yolo = "yolo"


class Written(str, Enum):
    """Layouts that convert writes."""

    coco = "coco"
    yolo = "yolo"


class Split(str, Enum):
    """Of a YOLO folder."""

    train = "train"
    val = "val"
    test = "test"


def data(
    action: Annotated[Action, typer.Argument(metavar="check|stats|convert", help="What to do.")],
    annotations: Annotated[
        Path,
        typer.Argument(
            metavar="ANNOTATIONS|RECIPE",
            help="The file or folder that the layout begins with; or a recipe, for all the sets that it names.",
        ),
    ],
    overrides: options.Overrides = None,
    layout: Annotated[Layout, typer.Option(help="How the annotations are laid out.")] = Layout.coco,
    images: Annotated[Path | None, typer.Option(help="The folder of the images; else the usual places.")] = None,
    classes: Annotated[str | None, typer.Option(help="Only these classes, in this order: car,bus")] = None,
    class_map: Annotated[str | None, typer.Option("--map", help="A class map: a shipped one's name or a file.")] = None,
    frame_stride: Annotated[int, typer.Option("--stride", min=1, help="One of so many frames of each clip.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="stats: a picture of labelled images; convert: what to write.")
    ] = None,
    to: Annotated[Written, typer.Option(help="convert: the layout to write.")] = Written.coco,
    split: Annotated[Split, typer.Option(help="convert --to yolo: the split that it becomes.")] = Split.train,
    json: options.Json = False,
) -> None:
    """Check, describe or convert annotated images.

    What is wrong is told at once, with its file: the first ten of each, the rest are counted. Layouts: COCO, Pascal
    VOC, ivslab, BDD100K, YOLO text.
    """
    import edgekit

    recipe = _recipe(annotations, layout)
    if recipe is not None:
        given = {"convert": action is Action.convert, "--images": images, "--classes": classes, "--map": class_map}
        if wrong := [name for name, value in {**given, "--out": out, "--stride": frame_stride > 1}.items() if value]:
            raise typer.BadParameter(f"{', '.join(wrong)}: not for a recipe, which says itself what its sets are")
        with work(interrupted="nothing was written") as progress:
            found = edgekit.data_recipe(recipe, overrides=overrides or [], progress=progress)
        if json:
            print_json(found)
        else:
            _show_recipe(found, brief=action is Action.check)
        return
    if overrides:
        raise typer.BadParameter(f"{overrides[0]}: only a recipe takes KEY=VALUE")
    _check_out(action, out, to, split)
    with work(out, interrupted="nothing was written") as progress:
        coco = edgekit.data_check(
            annotations,
            images=images,
            layout=layout.value,
            classes=[name.strip() for name in classes.split(",")] if classes else None,
            class_map=class_map,
            frame_stride=frame_stride,
            progress=progress,
        )
        written = None
        if out and action is Action.convert:
            written = edgekit.data_convert(coco, out=out, layout=to.value, split=split.value)
        sheet = out if action is Action.stats else None
        stats = edgekit.data_stats(coco, sheet=sheet)
    if json:
        print_json({**stats, "written": written or sheet})
    elif written is not None:
        print(written)
        _show_notes(stats, err=True)
    else:
        _show(stats, brief=action is Action.check)
        if sheet is not None:
            print(f"{sheet}: a picture of labelled images")


def _check_out(action: Action, out: Path | None, to: Written, split: Split) -> None:
    """Before thousands of images are read."""
    from ..data.formats.yolo import check_split
    from ..measure.draw import check_picture
    from ..runtime.artifact import check_place

    if split is not Split.train and not (action is Action.convert and to is Written.yolo):
        raise typer.BadParameter("--split is of a YOLO folder: only convert --to yolo takes it")
    if action is Action.check and out is not None:
        raise typer.BadParameter("check writes nothing, so leave --out away; stats and convert write")
    if action is Action.convert:
        if out is None:
            raise typer.BadParameter("convert needs --out: a file for coco, a folder for yolo")
        check_place(out, "folder" if to is Written.yolo else "file")
        if to is Written.yolo:
            check_split(out, split.value)
    elif out is not None:
        check_picture(out)


def _recipe(source: Path, layout: Layout) -> str | None:
    """The recipe that is meant, or None for annotations."""
    from ..config import read_mapping
    from ..recipe import recipe_names

    if layout is not Layout.coco or source.suffix.lower() == ".json":
        return None
    named = str(source) in recipe_names() or (source / "recipe.yaml").is_file()
    file = source.suffix.lower() in (".yaml", ".yml") and source.is_file()
    return str(source) if named or (file and "model" in read_mapping(source)) else None


def _show_recipe(found: dict[str, Any], brief: bool) -> None:
    """A line for each set with its boxes of each class, or every class of every set on a line of its own."""
    sets = found["sources"]
    names = list(sets[0]["per_class"])
    keys = ("source", "split", "repeat", "images", "images_without_boxes", "boxes")
    if brief:
        rows = [{**{key: one[key] for key in keys}, **_per_class(one, "boxes")} for one in sets]
        show_table(rows, {**{key: key.replace("_", " ") for key in keys}, **{name: name for name in names}})
    else:
        rows = [
            {"source": one["source"], "split": one["split"], "class": name, **one["per_class"][name]}
            for one in sets
            for name in one["labelled"]
        ]
        show_table(rows, {"source": "source", "split": "split", **COLUMNS})
    print(f"images per epoch: {found['images_per_epoch']}")
    _show_notes(found)


def _per_class(one: dict[str, Any], key: str) -> dict[str, Any]:
    return {n: v[key] if n in one["labelled"] else "not labelled" for n, v in one["per_class"].items()}


def _show(stats: dict[str, Any], brief: bool) -> None:
    per_class = stats.pop("per_class")
    if not brief:
        show_table([{"class": name, **values} for name, values in per_class.items()], COLUMNS)
    sizes = stats.pop("image_sizes")
    few = dict(list(sizes.items())[:5])
    values = {key: value for key, value in stats.items() if key != "notes"}
    show_values({**values, "image_sizes": {**few, **({"others": len(sizes) - 5} if len(sizes) > 5 else {})}})
    _show_notes(stats)


def _show_notes(found: dict[str, Any], err: bool = False) -> None:
    for note in found["notes"]:
        typer.echo(f"note: {note}", err=err)
