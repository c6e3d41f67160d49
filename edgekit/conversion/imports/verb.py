"""``import_onnx``: a detector that was trained elsewhere becomes an ``onnx`` artifact like our own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...measure.complexity import complexity
from ...measure.predict import gather_images
from ...paths import Files, listed, share, unknown_name
from ...progress import Progress, quiet
from ...runtime.artifact import (
    Artifact,
    check_not_read,
    check_place,
    file_sha256,
    new_artifact,
    read_artifact,
    value_sha256,
)
from ...runtime.errors import BadConfig, BadInput
from ...runtime.postprocess import Postprocess
from ...runtime.preprocess import Preprocess
from ..child import run_in_child
from ..foreign import precision_of
from ..graph import load_model
from ..simplify import simplify
from .layouts import LAYOUTS
from .look import doubts

STEPS = 4
GOLDEN_IMAGES = 4
_USUAL = Postprocess()
GOLDEN_SET = "dhaka-eval"  # real photographs that ship with EdgeKit, for looking at what the network says


@dataclass(frozen=True)
class ImportOptions:
    """What the file does not say. None is the layout's usual value.

    size: (width, height); the other fields are those of Preprocess and Postprocess
    priors: .npy file of SSD's priors; top_k: most boxes that leave a graph with center maps, and the host
    """

    size: tuple[int, int] | None = None
    mode: str | None = None
    colour: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pad_value: int | None = None
    interpolation: str | None = None
    priors: str | None = None
    nms: str | None = None
    iou_threshold: float = _USUAL.iou_threshold
    score_threshold: float = _USUAL.score_threshold
    top_k: int = _USUAL.top_k
    fields: tuple[str, ...] = field(
        default=("mode", "pad_value", "colour", "mean", "std", "interpolation"), init=False, repr=False
    )


def import_onnx(
    file: str | Path,
    *,
    layout: str,
    classes: str | Path | Sequence[str] | None = None,
    options: ImportOptions | None = None,
    images: Files = (),
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Bring an ONNX file of another project onto the spine: an artifact of kind ``onnx``.

    layout: a name (see LAYOUTS), or a YAML file that says which output is what (see LayoutSpec)
    classes: names, or a text file with one on each line; None takes those that the file itself names
    images: real images, or folders of them, of which the first few show the network; else some that ship with EdgeKit.
        One folder is remembered: what comes later looks at its images too (FP16's overflow, a bundle's golden boxes)
    out: the artifact's folder, by default ``runs/<file's name>/onnx``

    Raises BadInput for a file that is no usable ONNX, BadConfig for a layout, size or class list that does not fit it,
    with the names and shapes of what is there.
    """
    path, options, images = Path(file), options or ImportOptions(), listed(images)
    tell = progress or quiet
    names, looked_at = given_names(classes), gather_images(images)[:GOLDEN_IMAGES] if images else _golden_images()
    _check_layout(layout)
    fields = _preprocess_fields(layout, options)
    _postprocess("none", options)
    parents = {"file": _digest(path)}
    kept = _kept_images(images)
    asked = {"layout": layout, "options": asdict(options), "images": kept}
    key = value_sha256({"step": "import", "parents": parents, **asked})
    out = check_place(Path(out or Path("runs") / path.stem / "onnx"), "onnx")
    check_not_read([out], [path.parent])  # with the artifact there, the file would go
    manifest: dict[str, Any] = {"parents": parents, "key": key}
    with tempfile.TemporaryDirectory(prefix="edgekit-import-") as scratch:
        tell("reading the file", 0, STEPS)
        plain = Path(scratch) / "model.onnx"
        found = _converted(path, plain, layout, names, options)
        preprocess = _preprocess(tuple(found["size"]), fields)
        manifest |= _manifest(path, layout, found, preprocess, options)
        manifest["recipe"]["images"] = kept
        with new_artifact(out, "onnx", manifest) as folder:
            manifest |= _lowered(plain, Path(folder) / "model.onnx", looked_at, preprocess, found, path, tell)
    tell("done", STEPS, STEPS)
    return read_artifact(out)


def _converted(
    path: Path, target: Path, layout: str, names: Sequence[str] | None, options: ImportOptions
) -> dict[str, Any]:
    """Write the file with EdgeKit's input and outputs to ``target``; what was found out, see ``convert``."""
    request = {
        "source": str(path),
        "target": str(target),
        "layout": layout,
        "classes": names,
        "options": asdict(options),
    }
    found: dict[str, Any] = run_in_child("edgekit.conversion.imports.convert:convert", request, "import", path)
    return found


def _lowered(
    plain: Path,
    target: Path,
    images: Sequence[Path],
    preprocess: Preprocess,
    found: Mapping[str, Any],
    path: Path,
    tell: Progress,
) -> dict[str, Any]:
    """Simplify the converted file to ``target`` and look at it. Returns what the manifest says of the result."""
    tell("simplifying", 1, STEPS)
    outcome = simplify(plain, target, [str(image) for image in images], preprocess, found["layout"])
    tell("looking at its boxes", 2, STEPS)
    counted = complexity(target)
    return {
        "precision": precision_of(load_model(target)),
        "complexity": counted.summary(),
        "notes": [
            *found["notes"],
            *(note.replace(f"{plain.parent}/", "") for note in outcome.notes),
            *doubts(target, images, preprocess, found["layout"], path),
            *counted.notes,
        ],
    }


def _digest(path: Path) -> str:
    if not path.is_file():
        raise BadInput(f"{path}: no such file" if not path.exists() else f"{path}: not a file; give an .onnx file")
    return file_sha256(path)


def _check_layout(layout: str) -> None:
    if layout not in LAYOUTS and not layout.endswith((".yaml", ".yml")):
        raise unknown_name(
            "layout", layout, list(LAYOUTS), "Or describe the outputs in a YAML file: --layout FILE.yaml"
        )
    if layout not in LAYOUTS and not Path(layout).is_file():
        raise BadInput(f"{layout}: no such file. A layout is one of {', '.join(LAYOUTS)}, or a YAML file")


def _golden_images() -> list[Path]:
    return sorted((share("calibration") / GOLDEN_SET / "images").glob("*.jpg"))[:GOLDEN_IMAGES]


def _kept_images(images: Sequence[str | Path]) -> str:
    """The set of real images that the artifact names: the folder that was given, or the shipped one."""
    one_folder = len(images) == 1 and Path(images[0]).is_dir()
    return str(Path(images[0]).resolve()) if one_folder else GOLDEN_SET


def given_names(classes: str | Path | Sequence[str] | None) -> list[str] | None:
    """Class names of the call: a list, a file with one on each line (or a JSON list), or text with commas."""
    if classes is None:
        return None
    if not isinstance(classes, str | Path):
        found = list(classes)
    elif Path(classes).is_file():
        text = Path(classes).read_text(encoding="utf-8", errors="replace")
        found = _json_list(classes, text) if text.lstrip().startswith("[") else text.splitlines()
    elif "," in str(classes) or not Path(str(classes)).suffix:
        found = str(classes).split(",")
    else:
        raise BadInput(f"{classes}: no such file. Give a file with one class name on each line, or names with commas")
    names = [str(name).strip() for name in found if str(name).strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise BadConfig(f"classes: {'no names' if not names else 'named twice: ' + ', '.join(twice)}")
    return names


def _json_list(file: str | Path, text: str) -> list[Any]:
    try:
        found: list[Any] = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{file}: not a JSON list of class names ({error})") from error
    return found


def _preprocess_fields(layout: str, options: ImportOptions) -> dict[str, Any]:
    """The layout's usual preprocessing, changed by what the user says. What is unknown must be said."""
    usual = dict(LAYOUTS[layout].preprocess) if layout in LAYOUTS else {}
    given = {name: getattr(options, name) for name in options.fields if getattr(options, name) is not None}
    values = {**usual, **given}
    lacking = [name for name in ("mode", "colour", "mean", "std") if name not in values]
    if lacking:
        flags = " ".join(f"--{name}" for name in lacking)
        raise BadConfig(
            f"layout {layout!r} does not say how images are prepared: give {flags}, as the network was trained. "
            f"For example: --mode stretch --colour rgb --mean 123.675,116.28,103.53 --std 58.395,57.12,57.375"
        )
    _preprocess((1, 1), values)  # what is wrong in it is told before any work
    return values


def _preprocess(size: tuple[int, int], values: Mapping[str, Any]) -> Preprocess:
    try:
        return Preprocess(size=size, **values)
    except ValueError as error:
        raise BadConfig(f"preprocess: {error}") from error


def _postprocess(nms: str, options: ImportOptions) -> Postprocess:
    """What the host does. Raises BadConfig for an unknown kind of NMS or a threshold out of range."""
    try:
        return Postprocess(
            nms=options.nms or nms,
            score_threshold=options.score_threshold,
            top_k=options.top_k,
            iou_threshold=options.iou_threshold,
        )
    except ValueError as error:
        raise BadConfig(f"postprocess: {error}") from error


def _manifest(
    path: Path, layout: str, found: Mapping[str, Any], preprocess: Preprocess, options: ImportOptions
) -> dict[str, Any]:
    names = found["classes"]
    about = {"file": path.name, "layout": layout, "producer": found["producer"], "outputs": found["outputs"]}
    return {
        "classes": names,
        "category_ids": list(range(1, len(names) + 1)),
        "preprocess": preprocess.to_dict(),
        "recipe": {"name": path.stem, "imported": about},
        "input": {"name": "image", "layout": found["layout"], "shape": found["shape"]},
        "postprocess": _postprocess(found["nms"], options).to_dict(),
        "float_modules": [],
        "parity": None,
        "tools": {name: version(name) for name in ("onnx", "onnxsim")},
    }
