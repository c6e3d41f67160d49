"""``bundle``: everything that a board needs for one model, in one file whose every byte is listed and hashed."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..board import Board, load_board
from ..paths import Files, is_packed, listed, text, unknown_name
from ..progress import Progress, quiet, tell
from ..runtime.artifact import MANIFEST, Artifact, check_place, export_again, new_file, no_artifact, read_artifact
from ..runtime.detections import Detections
from ..runtime.engines.build import check_nms, check_origin
from ..runtime.engines.options import NMS
from ..runtime.errors import ArtifactError, BadConfig, BadInput, BoardLacks
from ..runtime.onboard import archive
from ..runtime.onboard import trust as signers
from ..runtime.onboard.golden import choose_threshold, judged_from
from ..words import counted
from .boardzip import NAME, board_zip
from .signing import sign_index

if TYPE_CHECKING:
    from ..conversion.lint import Report
    from ..data.coco import CocoSet


GOLDEN_IMAGES = 8
CALIBRATION_IMAGES = 200
KINDS = ("onnx", "onnx-int8")
NO_DATA = "none"


@dataclass(frozen=True)
class BundleOptions:
    """What a bundle is to hold and how its engine is to be built. None: as the board and the recipe say.

    precision: of the engine, "fp32", "fp16" or "int8"; release: of the board's software (JetPack or L4T)
    data: the annotated set to measure mAP on, by name or as a COCO file, or "none"
    golden, calibration: folders or named sets of images
    nms: "host", "graph", "plugin" or "layer"; workspace_mb: the builder's
    """

    precision: str | None = None
    release: str | None = None
    data: str | Path | None = None
    golden: str | Path | None = None
    calibration: str | Path | None = None
    nms: str = "host"
    workspace_mb: int | None = None


def bundle(
    source: str | Path,
    *,
    board: str | None = None,
    out: str | Path | None = None,
    sign: str | Path | None = None,
    trust: Files = (),
    options: BundleOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a bundle of an ``onnx`` or ``onnx-int8`` artifact for a board; the same inputs give the same bytes.

    Everything that the board cannot do is refused before any work. Where ``source`` is a bundle already, it is checked
    instead: every hash, and the signature, which must be of a key of ``trust`` if there are any.
    Returns what ``describe`` returns.
    """
    if is_bundle(source, options):
        _only_checked(source, board, out, sign)
        return check(source, trust, progress)
    if trust:
        raise BadConfig(
            f"{source}: is no bundle; trust (--trust) checks the signature of one. To sign a new one: sign (--sign KEY)"
        )
    options, board = options or BundleOptions(), require_board_name(board)
    if not (Path(source) / MANIFEST).is_file():
        raise no_artifact(source, make=f"edgekit export RECIPE --board {board}")
    artifact, profile = read_artifact(source, kinds=KINDS), load_board(board)
    build = plan_build(artifact, profile, options)
    if sign is not None:
        sign_index(b"", sign)  # a key that cannot sign is found now, not after minutes of work
    file = check_place(Path(out or f"{artifact.path.rstrip('/')}-{profile.name}.tar.gz"), "file")
    if file.exists() and not is_packed(file):
        raise BadConfig(f"{file}: is there and is no bundle; it will not be replaced. Choose another --out.")
    _lint(artifact, board, profile, options)
    with tempfile.TemporaryDirectory(prefix="edgekit-bundle-") as folder:
        index = _fill(Path(folder), artifact, profile, build, options, progress or quiet)
        raw = json.dumps(index, indent=1, sort_keys=True).encode() + b"\n"
        made = archive.Bundle(raw, sign_index(raw, sign) if sign else None)
        with new_file(file, "wb") as handle:
            archive.write_archive(handle, made, folder, lambda done, total: tell(progress, "pack", done, total))
    return describe(file)


def is_bundle(source: str | Path, options: BundleOptions | None = None) -> bool:
    """Whether a bundle's file was given, not an artifact's folder. ``options`` are for what is bundled yet.

    Raises BadInput for an ONNX file, BadConfig for options that a bundle would not follow.
    """
    if not Path(source).is_file():
        return False
    if Path(source).suffix == ".onnx":
        raise BadInput(
            f"{source}: is an ONNX file; a board is given an artifact, which also says what goes in and comes out. "
            f"Make one: edgekit import-onnx {source} --layout NAME"
        )
    fields = dataclasses.fields(options) if options else ()
    given = [f"--{f.name.removesuffix('_mb')}" for f in fields if getattr(options, f.name) != f.default]
    if given:
        raise BadConfig(
            f"{source}: is a bundle, whose contents are fixed; it cannot follow {', '.join(given)}. "
            "Bundle the artifact again: edgekit bundle ARTIFACT --board BOARD"
        )
    return True


def _only_checked(file: str | Path, board: str | None, out: str | Path | None, sign: str | Path | None) -> None:
    """Raise BadConfig where somebody expects more of a bundle than to be checked."""
    given = [name for name, value in (("--board", board), ("--out", out), ("--sign", sign)) if value is not None]
    if given:
        raise BadConfig(
            f"{file}: is a bundle already, and is only checked; it cannot follow {', '.join(given)}. "
            "To make another one, give the artifact: edgekit bundle ARTIFACT --board BOARD"
        )


def require_board_name(board: str | None) -> str:
    """Raises BadConfig when no board was named."""
    if board is None:
        raise BadConfig("a bundle is for one board; name it (--board jetson-tx2). List them: edgekit boards")
    return board


def check(file: str | Path, trust: Files = (), progress: Progress | None = None) -> dict[str, Any]:
    """Unpack a bundle into a folder that is thrown away, so that every hash is verified; answers like ``describe``."""
    keys = [key for path in listed(trust) for key in signers.read_keys(path)] or None
    described = describe(file, keys)
    with tempfile.TemporaryDirectory(prefix="edgekit-bundle-") as folder:
        archive.unpack(str(file), f"{folder}/bundle", lambda done, total: tell(progress, "check", done, total))
    return described


def describe(file: str | Path, trusted: Sequence[bytes] | None = None) -> dict[str, Any]:
    """What a bundle is: path, bytes, version, digest, board, build, model, files, unpacked_bytes, signed_by.

    Raises ArtifactError when it is not whole at its beginning, or its signature is wrong or not one of ``trusted``.
    """
    found = archive.read_bundle(str(file))
    return {
        "path": str(file),
        "bytes": os.path.getsize(file),
        "version": found.digest[:16],
        "digest": found.digest,
        "board": found.index["board"]["name"],
        "build": found.index["build"],
        "model": found.index["model"],
        "files": len(found.files),
        "unpacked_bytes": found.size,
        "signed_by": signers.check_signature(found, None if trusted is None else list(trusted), str(file)),
    }


# -- what the board can do --------------------------------------------------------------------------------------------
def plan_build(artifact: Artifact, profile: Board, options: BundleOptions) -> dict[str, Any]:
    """How the board is to build and run it: runtime, precision, nms, workspace_mb. Raises BoardLacks."""
    runtime = profile.stack(options.release).runtime if profile.stacks or options.release else _runtime(profile)
    layout = artifact.manifest.get("input", {}).get("layout")
    precision = options.precision or _precision(artifact, profile, runtime)
    _refuse_int8(profile, precision, artifact)
    profile.require(runtime, precision, None)
    _one_image(artifact, profile)
    if options.calibration is not None and "int8" not in profile.precisions:
        raise BadConfig(f"--calibration: {profile.name} has no INT8 to calibrate. Leave it out")
    if options.nms not in NMS:
        raise unknown_name("way of NMS", options.nms, list(NMS), "")
    if options.nms != "host" and not runtime.startswith("tensorrt"):
        raise BadConfig(f"--nms {options.nms}: NMS is put into engines of TensorRT; {profile.name} uses {runtime}")
    check_nms(options.nms, runtime, artifact.manifest.get("postprocess") or {})
    if layout is not None and layout not in profile.input_layouts:
        raise BoardLacks(
            f"{artifact.path}: its input is {layout}; board {profile.name!r} takes {', '.join(profile.input_layouts)}. "
            f"Export it for that board: {export_again(artifact, profile.name)}"
        )
    build: dict[str, Any] = {"runtime": runtime, "precision": precision}
    if runtime.startswith("tensorrt"):
        check_origin(artifact)
        build |= {"nms": options.nms, "workspace_mb": _workspace(profile, options)}
    elif precision != artifact.manifest.get("precision", "fp32"):
        raise BadConfig(f"{runtime} runs a file as it is: {artifact.path} is {artifact.manifest.get('precision')}")
    return build


def _one_image(artifact: Artifact, profile: Board) -> None:
    if artifact.batch != 1:
        raise BadConfig(
            f"{artifact.path}: takes {artifact.batch} images a call, a board is given one after the other. Export it "
            f"without --batch: {export_again(artifact, profile.name)}"
        )


def _workspace(profile: Board, options: BundleOptions) -> int:
    wanted = profile.workspace_mb() if options.workspace_mb is None else options.workspace_mb
    most = profile.memory.total_mb if profile.memory else None
    if wanted < 1 or (most is not None and wanted > most):
        bound = "" if most is None else f" to {most}, all the memory of {profile.name}"
        raise BadConfig(
            f"--workspace {wanted}: expected MiB from 1{bound}; without it {profile.workspace_mb()} are taken"
        )
    return wanted


def _runtime(profile: Board) -> str:
    able = [r for r in profile.runtimes if r.startswith("tensorrt") or r == "onnxruntime"]
    if not able:
        raise BoardLacks(
            f"board {profile.name!r} has no runtime that a bundle can serve: {', '.join(profile.runtimes)}"
        )
    return able[0]


def _precision(artifact: Artifact, profile: Board, runtime: str) -> str:
    from ..conversion.engine import default_precision

    if runtime.startswith("tensorrt"):
        return default_precision(artifact, profile)
    return str(artifact.manifest.get("precision", "fp32"))


def _refuse_int8(profile: Board, precision: str, artifact: Artifact) -> None:
    if (precision == "int8" or artifact.kind == "onnx-int8") and (why := profile.why_no_int8()):
        raise BoardLacks(
            f"INT8 on {profile.name}: {why}. An INT8 engine would run slower than FP16 there, and a Q/DQ file does "
            f"not build. Bundle the onnx artifact without --precision int8: it becomes "
            f"{profile.precisions[-1].upper()} on the board"
        )


def _lint(artifact: Artifact, board: str, profile: Board, options: BundleOptions) -> None:
    """Refuse operators, types and limits that the board's parser does not take, before anything is packed."""
    if not profile.stacks:
        return
    from ..conversion.lint import lint

    report = lint(artifact.path, board=board, release=options.release)
    if not report.errors:
        return
    release = f" --release {shlex.quote(options.release)}" if options.release else ""
    raise BoardLacks(
        f"{artifact.path}: {profile.name} cannot run it ({counted(report.errors, 'fault')}). {worst(report)} "
        f"All of them: edgekit lint {shlex.quote(artifact.path)} --board {profile.name}{release}"
    )


def worst(report: Report) -> str:
    """The first three faults of a report, in one line."""
    faults = [finding for finding in report.findings if finding.severity == "error"][:3]
    return " ".join(f"{f.op} {f.module or f.node or 'the file'}: {f.found}. {f.advice}".lstrip() for f in faults)


# -- what goes in -----------------------------------------------------------------------------------------------------
def _fill(
    folder: Path,
    artifact: Artifact,
    profile: Board,
    build: dict[str, Any],
    options: BundleOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Put the files into ``folder`` and return bundle.json's value."""
    coco = _evaluation(artifact, options)
    (folder / "artifact").mkdir()
    for name in (*artifact.manifest["payload"], MANIFEST):
        shutil.copyfile(Path(artifact.path) / name, folder / "artifact" / name)
    images = _golden_sources(artifact, options, coco)
    _write_golden(folder / "golden", artifact, images, build["precision"], progress)
    build = {**build, **_pins(artifact, build, images, progress)}
    evaluation = _copy_evaluation(folder / "evaluation", coco, options) if coco else None
    if "int8" in profile.precisions:
        _copy_images(folder / "calibration" / "images", _calibration_sources(artifact, options))
    (folder / NAME).write_bytes(board_zip())
    _write_board(folder, profile)
    return {
        "format": archive.FORMAT,
        "edgekit": __version__,
        "model": artifact.manifest.get("recipe", {}).get("name", "unknown"),
        "artifact": artifact.digest,
        "board": profile.model_dump(mode="json"),
        "build": build,
        "evaluation": evaluation,
        "files": archive.describe_folder(folder),
    }


def _write_board(folder: Path, profile: Board) -> None:
    """What the camera verb needs to know of the board, where it looks for it: above the model's folder."""
    from ..runtime.camera.strings import BOARD_FILE

    known = profile.model_dump(mode="json", include={"name", "title", "runtimes", "camera"}, exclude_none=True)
    (folder / BOARD_FILE).write_text(json.dumps(known, sort_keys=True) + "\n", encoding="utf-8")


def _pins(artifact: Artifact, build: dict[str, Any], images: Sequence[Path], progress: Progress) -> dict[str, Any]:
    """Layers that would overflow in FP16 on real images; the board keeps them in FP32."""
    from ..conversion.precision import pins_for_fp16

    if not build["runtime"].startswith("tensorrt") or build["precision"] != "fp16" or artifact.kind != "onnx":
        return {}
    pins, _ = pins_for_fp16(artifact, images, progress=progress)
    return {"pins": list(pins)} if pins else {}


def _evaluation(artifact: Artifact, options: BundleOptions) -> CocoSet | None:
    from ..data.evaluation import evaluation_set

    wanted = text(options.data) or artifact.manifest.get("recipe", {}).get("evaluation")
    return None if wanted in (None, NO_DATA) else evaluation_set(artifact, text(options.data))


def _golden_sources(artifact: Artifact, options: BundleOptions, coco: CocoSet | None) -> list[Path]:
    from ..data.calibration import load_set
    from ..data.evaluation import recipe_images

    if options.golden:
        return list(load_set(options.golden).images[:GOLDEN_IMAGES])
    if coco is not None and coco.samples:
        return [sample.path for sample in coco.samples[:GOLDEN_IMAGES]]
    found = recipe_images(artifact, GOLDEN_IMAGES)
    if not found:
        raise BadConfig(f"{artifact.path}: its recipe names no images. Give some real ones: --golden FOLDER")
    return found


def _write_golden(folder: Path, artifact: Artifact, images: Sequence[Path], precision: str, progress: Progress) -> None:
    """Golden images as PNG, and what ONNX Runtime sees in them. precision: in which a board will compare its boxes.

    PNG, because two releases of OpenCV need not decode a JPEG to the same bit, and only the network is in question.
    """
    from ..measure.draw import save_image
    from ..runtime.images import read_image
    from ..runtime.runner import open_runner

    (folder / "images").mkdir(parents=True)
    records, seen = [], []
    with open_runner(artifact.path, "onnxruntime", len(os.sched_getaffinity(0))) as runner:
        for number, path in enumerate(images):
            image = read_image(path)
            save_image(folder / "images" / f"{number:03d}.png", image)
            found = runner(image)[0]
            seen.append(found)
            records.append({"image": f"{number:03d}.png", **_detections(found)})
            progress("golden boxes", number + 1, len(images))
        described = runner.session.describe()
        lowest = runner.postprocess.score_threshold
    if not sum(len(one) for one in seen):
        raise BadInput(
            f"{artifact.path}: the network sees nothing in the golden images, so boxes prove nothing. "
            "Give images with objects on them: --golden FOLDER"
        )
    threshold, judged = choose_threshold(seen, lowest, precision)
    if not judged:
        best = max(float(one.scores.max()) for one in seen if len(one))
        raise BadInput(
            f"{artifact.path}: the surest box in the golden images has a score of {best:.2f}, and boxes of "
            f"{precision.upper()} are compared from {judged_from(threshold, precision):.2f} on, so they prove nothing. "
            "Give images with clear objects on them: --golden FOLDER"
        )
    content = {"threshold": threshold, "session": described, "images": records}
    (folder / "golden.json").write_text(json.dumps(content, sort_keys=True) + "\n", encoding="utf-8")


def _detections(found: Detections) -> dict[str, Any]:
    values = {"boxes": found.boxes, "scores": found.scores, "class_ids": found.class_ids}
    return {name: value.tolist() for name, value in values.items()}


def _copy_evaluation(folder: Path, coco: CocoSet, options: BundleOptions) -> dict[str, Any]:
    """The images in the order of the set, and its annotations, so that a row can be made from the bundle alone."""
    from ..data.coco import write_coco

    paths = _copy_images(folder / "images", [sample.path for sample in coco.samples])
    samples = tuple(dataclasses.replace(s, path=p) for s, p in zip(coco.samples, paths, strict=True))
    moved = dataclasses.replace(coco, images=folder / "images", samples=samples)
    write_coco(moved, folder / "annotations.json")
    os.chmod(folder / "annotations.json", 0o644)
    return {"set": text(options.data) or coco.images.parent.name, "digest": coco.digest()}


def _calibration_sources(artifact: Artifact, options: BundleOptions) -> list[Path]:
    from ..data.calibration import load_set

    name = options.calibration or (artifact.manifest.get("recipe", {}).get("quantize") or {}).get("calibration")
    return list(load_set(name).images[:CALIBRATION_IMAGES]) if name else []


def _copy_images(folder: Path, images: Sequence[Path]) -> list[Path]:
    """Copies numbered in their order: names of the world's cameras hold blanks and umlauts."""
    folder.mkdir(parents=True)
    copies = [folder / f"{number:05d}{path.suffix.lower()}" for number, path in enumerate(images)]
    for source, target in zip(images, copies, strict=True):
        shutil.copyfile(source, target)
    return copies


__all__ = ["ArtifactError", "BundleOptions", "bundle", "describe", "plan_build"]
