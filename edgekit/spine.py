"""The steps of the spine, each of which returns what is there when it is up to date; and where their artifacts lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .board import Board
from .extras import need
from .paths import unknown_name
from .progress import Progress, tell
from .recipe import Recipe, load_recipe, recipe_file, recipe_names
from .runtime import machine
from .runtime.artifact import Artifact, check_place, no_artifact, read_artifact
from .runtime.errors import ArtifactError, BadConfig, BadInput, EdgeKitError
from .words import counted

RUNS = Path("runs")
MODEL_KINDS = ("checkpoint", "onnx", "onnx-int8")
FEW_IMAGES = 16  # of a calibration
GOLDEN_IMAGES = 8  # real images on which lowering steps are compared box by box


def model(source: str | Path) -> Artifact:
    """An artifact folder that can be run; or a recipe's newest artifact in runs/, or its shipped weights."""
    runnable = (*MODEL_KINDS, "engine")
    if _is_artifact(source):
        return read_artifact(source, kinds=runnable)
    if not names_recipe(source):
        raise _no_model(str(source))
    name = load_recipe(source).name if recipe_file(source) else str(source)
    for kind in reversed(MODEL_KINDS):
        place = RUNS / name / kind
        if _is_artifact(place):
            return read_artifact(place)
    return checkpoint(source, None, (), None)


def names_recipe(source: str | Path) -> bool:
    """Whether that is a recipe: a shipped name, the folder or file of any, or the name of one trained in runs/."""
    return recipe_file(source) is not None or _trained(source) is not None


def _trained(name: str | Path) -> Path | None:
    """The checkpoint in runs/ of the recipe that is called ``name``, wherever that lies."""
    place = RUNS / name / "checkpoint"
    return place if Path(name).name == str(name) and _is_artifact(place) else None


def _by_itself(source: str | Path) -> Path | None:
    """The checkpoint that is taken without looking into a recipe: the artifact itself, or what is known by its name."""
    if _is_artifact(source):
        return Path(source)
    return None if recipe_file(source) else _trained(source)


def _is_artifact(place: str | Path) -> bool:
    return (Path(place) / "manifest.json").is_file()


def _no_model(source: str) -> EdgeKitError:
    """What is wrong with a text that is neither an artifact's folder nor a recipe."""
    if Path(source).is_dir():
        return no_artifact(source, ", and no recipe.yaml")
    name, at, runtime = source.rpartition("@")
    if at and (Path(name).is_dir() or name in recipe_names()):  # ... that bench --compare alone understands
        more = f"@{runtime} chooses the runtime of a side of --compare; here it is: {name} --runtime {runtime}"
        return unknown_name("artifact or recipe", source, recipe_names(), more)
    if Path(source).suffix.lower() == ".onnx" and Path(source).is_file():
        return BadInput(
            f"{source}: is an ONNX file; an artifact is a folder. Make one of it: edgekit import-onnx {source}"
        )
    if Path(source).is_file():
        return BadInput(f"{source}: is a file; an artifact is a folder. Make one with: edgekit run RECIPE")
    if Path(source).name != source:
        return BadInput(f"{source}: no such folder. Artifacts are made by: edgekit run RECIPE")
    return unknown_name("artifact or recipe", source, recipe_names(), "Make one with: edgekit run RECIPE")


def checkpoint(
    source: str | Path | Recipe, place: Path | None, overrides: Sequence[str], progress: Progress | None
) -> Artifact:
    """The checkpoint to start from: an artifact folder, a recipe's training in runs/, or its shipped weights.

    place: where a recipe's checkpoint is, if it is not in runs/; a recipe without weights is trained into it, and a
        training that was stopped there goes on
    """
    if not isinstance(source, Recipe) and (trained := _by_itself(source)):
        if overrides:
            raise BadConfig(f"{overrides[0]}: changes a recipe, and {trained} keeps the one that it was trained by")
        return read_artifact(trained, kinds=("checkpoint",))
    recipe = source if isinstance(source, Recipe) else load_recipe(source, list(overrides))
    home = place or RUNS / recipe.name / "checkpoint"
    found = fitting_checkpoint(recipe, home)
    stopped = place is not None and recipe.weights is None and _stopped(home, found)
    if found is not None and not stopped:
        return found
    if recipe.weights is None:
        if place is not None:
            return train(recipe, home, stopped, progress)
        raise BadConfig(
            f"recipe {recipe.name} has no trained weights: none ship, and none are in {home}. "
            f"Train it: edgekit train {recipe.name if isinstance(source, Recipe) else source}"
        )
    need("torch", "train")
    from .models.checkpoint import shipped_checkpoint

    return shipped_checkpoint(recipe, home)


def _stopped(place: Path, found: Artifact | None) -> bool:
    """Whether a training into ``place`` was interrupted and can go on. found: what it has published so far"""
    from .training.place import RESUME, training_folder

    if not (training_folder(place) / RESUME).is_file():
        return False
    if found is None:
        return True
    done = found.manifest.get("metrics", {}).get("epochs")
    return done is not None and done < found.manifest["recipe"]["train"]["epochs"]


def train(recipe: Recipe, out: Path, resume: bool, progress: Progress | None) -> Artifact:
    """Train ``recipe`` into a checkpoint at ``out``, which is looked at before hours of work."""
    from .data.sources import require_roots

    check_place(out, "checkpoint")
    require_roots(recipe)
    fit = need("edgekit.training.fit", "train").fit
    artifact: Artifact = fit(recipe, out, resume, progress)
    return artifact


def fitting_checkpoint(recipe: Recipe, place: Path) -> Artifact | None:
    """The checkpoint at ``place`` if it is this recipe's network; shipped weights win over an older copy of them."""
    if not (place / "manifest.json").is_file():
        return None
    found = read_artifact(place, kinds=("checkpoint",))
    from .models.checkpoint import checkpoint_manifest, follow_recipe, shipped_parents

    wanted = checkpoint_manifest(recipe)
    same = all(found.manifest[k] == wanted[k] for k in ("classes", "preprocess")) and (
        found.manifest["recipe"]["model"] == wanted["recipe"]["model"]
    )
    shipped = "weights" in found.manifest["parents"]
    # a copy of shipped weights costs nothing, so it must be of this very recipe, overrides included
    current = found.manifest["parents"] == shipped_parents(recipe) and found.manifest["recipe"] == wanted["recipe"]
    if same and (not shipped or current):
        return found if shipped else follow_recipe(found, recipe)
    if shipped:
        return None
    raise ArtifactError(
        f"{place}: holds a training of another network, class list or preprocessing than recipe {recipe.name}. "
        f"Choose another --out, or remove the folder to train again."
    )


def beside(checkpoint: Artifact, layout: str, batch: int) -> Path:
    """Where the ONNX file of a checkpoint goes: beside it, and a checkpoint with a name of its own lends it that.

    The file for a CPU, of one image a call, is ``onnx``; those for TensorRT or for several images do not replace it.
    """
    path = Path(checkpoint.path)
    name = "onnx" if path.name == "checkpoint" else f"{path.name}-onnx"
    name += "-nchw" if layout == "nchw_float" else ""
    return path.with_name(name if batch == 1 else f"{name}-batch{batch}")


def export(
    checkpoint: Artifact, board: Board, out: Path | None, force: bool, progress: Progress | None, batch: int = 1
) -> Artifact:
    """The network as ``board`` takes it, compared with PyTorch on real images."""
    need("torch", "train")
    from .conversion.export import ExportOptions, onnx_artifact
    from .models.checkpoint import model_of

    section = checkpoint.manifest["recipe"]["export"]
    options = ExportOptions(board.input_layouts[0], section["top_k"], section["opset"], batch)
    parents = {"checkpoint": checkpoint.digest}
    out = check_place(Path(out or beside(checkpoint, options.layout, batch)), "onnx")
    kept = None if force else _up_to_date(out, options.key(parents))
    if kept is not None:
        return kept
    tell(progress, "export", 0, 1)
    artifact, _ = onnx_artifact(
        model_of(checkpoint), checkpoint.manifest, parents, out, _golden_images(checkpoint), options
    )
    tell(progress, "export", 1, 1)
    return artifact


def quantize(
    onnx: Artifact,
    wishes: Mapping[str, Any],
    evaluation: str | None,
    out: Path | None,
    force: bool,
    progress: Progress | None,
) -> Artifact:
    """INT8 of an ``onnx`` artifact.

    wishes: calibration, flavour, method, max_drop, what is None is the recipe's; and reduce_range, which no recipe has
    """
    from .conversion.quantize import QuantizeOptions
    from .conversion.quantize import quantize as lower
    from .data.calibration import load_set, shared_images
    from .data.evaluation import evaluation_set
    from .evaluation.detect import measure_accuracy

    recipe = onnx.manifest["recipe"]
    given = {**(recipe.get("quantize") or {}), **{k: v for k, v in wishes.items() if v is not None}}
    name = given.pop("calibration", None)
    if name is None:
        raise BadConfig(f"{onnx.path}: its recipe names no calibration set. Give one: --calibration SET or FOLDER")
    out = check_place(Path(out or f"{onnx.path.rstrip('/')}-int8"), "onnx-int8")
    images, options = load_set(name), QuantizeOptions(**given)
    coco = evaluation_set(onnx, evaluation, "--evaluation")
    parents = {"onnx": onnx.digest, "calibration": images.digest, "evaluation": coco.digest()}
    kept = None if force else _up_to_date(out, options.key(parents))
    if kept is not None:
        return kept

    def measure(artifact: Artifact) -> dict[str, Any]:
        return measure_accuracy(artifact, coco, "onnxruntime", progress).to_dict()

    both = shared_images(images, coco)
    note = (
        f"{both} of the {len(coco)} images on which the loss was measured were calibrated with, so INT8 may look "
        "better than it is. Calibrate with other images: --calibration SET or FOLDER"
    )
    notes = [*([note] if both else []), *_few(len(images)), *_overflow(options.flavour, options.reduce_range)]
    sets = {"calibration": name, "evaluation": evaluation or recipe["evaluation"]}
    return lower(onnx, images.images, parents, out, options, measure, progress, notes, sets)


def _few(images: int) -> list[str]:
    """A note where ranges come from fewer images than were seen to be enough (benchmarks/README-int8.md)."""
    if images >= FEW_IMAGES:
        return []
    return [
        f"the ranges are those of {counted(images, 'image')}, and what others need may lie outside of them. Take "
        f"{FEW_IMAGES} or more typical ones: --calibration SET or FOLDER"
    ]


def _overflow(flavour: str, reduce_range: bool) -> list[str]:
    """A note where this CPU may compute wrong sums with the weights of 8 bits that were just measured on it."""
    if flavour != "x86" or reduce_range or not machine.lacks_vnni(machine.facts()):
        return []
    return [
        "this CPU has no VNNI: sums of 8-bit weights may overflow its 16 bits, also where the loss was measured. "
        "Those of 7-bit weights do not: --reduce-range"
    ]


def engine_name(precision: str) -> str:
    """The folder of an engine that ``run`` builds."""
    return f"engine-{precision}"


def artifacts_in(out: Path) -> list[Artifact]:
    """What a ``run`` in this folder left, parents first."""
    places = [*(out / kind for kind in MODEL_KINDS), *sorted(out.glob(engine_name("*")))]
    return [read_artifact(place) for place in places if place.is_dir()]


def engines(
    files: Sequence[Artifact], board: Board, out: Path, force: bool, progress: Progress | None
) -> list[Artifact]:
    """A TensorRT engine of each ONNX file, in the fastest precision that it and the board allow; none without TensorRT.

    An engine that is there is kept if this TensorRT made it of this file.
    """
    from .conversion.engine import build, default_precision, engine_of

    if find_spec("tensorrt") is None or not any(name.startswith("tensorrt") for name in board.runtimes):
        return []
    made = []
    for file in files:
        place = out / engine_name(default_precision(file, board))
        kept = None if force else engine_of(file, place)
        made.append(kept or build(file.path, board=board.name, out=place, progress=progress))
    return made


def _up_to_date(out: Path, key: str) -> Artifact | None:
    """The artifact at ``out`` if it is whole and was made from the same inputs with the same options."""
    try:
        found = read_artifact(out)
    except ArtifactError:
        return None
    return found if found.manifest.get("key") == key else None


def _golden_images(artifact: Artifact) -> list[Path]:
    """Real images for comparing boxes."""
    from .data.evaluation import recipe_images

    return recipe_images(artifact, GOLDEN_IMAGES)
