"""Facts for ``edgekit doctor``: what this machine is, what works on it, and the command that mends what does not.

Named apart from its verb, because a module ``edgekit.doctor`` would hide the function ``edgekit.doctor``.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from . import __version__
from .board import Board, board_names, load_board, recognise
from .conversion.child import run_in_child
from .paths import share
from .progress import Progress, quiet
from .recipe import Recipe, load_recipe, recipe_names
from .runtime import machine
from .runtime.errors import EdgeKitError
from .runtime.onboard import identity

# what pip installs for each part, as in pyproject.toml; its name there and the module's name are often not the same
PACKAGES = {
    "core": (
        "jinja2",
        "numpy",
        "onnx",
        "onnxruntime",
        "onnxsim",
        "opencv-python-headless",
        "pycocotools",
        "pydantic",
        "pyyaml",
        "rich",
        "safetensors",
        "typer",
    ),
    "train": ("torch", "lightning", "tensorboard"),
    "openvino": ("openvino",),
}
# a checkout installs itself, an installed wheel asks the package index
_SOURCE = "." if (Path(__file__).resolve().parents[1] / "pyproject.toml").is_file() else "edgekit"
INSTALL = {"core": f"pip install {_SOURCE}"} | {
    part: f"pip install '{_SOURCE}[{part}]'" for part in PACKAGES if part != "core"
}
RUNTIMES = {"onnxruntime": "core", "openvino": "openvino", "pytorch": "train"}  # runtime -> the part that brings it
FREE_GB = 2.0  # a whole spine with its training logs fits
_PROCESSORS = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}  # platform.machine() -> Board.kind
_TINY = 32  # pixels: width and height of the probe's input
_GPUS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")  # the last one: in WSL


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. ``mend`` is the command or step that helps; empty when all is well."""

    group: Literal["system", "package", "runtime", "data"]
    name: str
    status: Literal["ok", "missing", "failed"]
    found: str
    mend: str = ""


def checkup(board: str | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """What works here, as JSON values: ``edgekit`` (version), ``machine``, ``checks`` and ``boards``.

    board: look at this board only. Raises BadConfig when there is no such board.
    """
    wanted = [load_board(name) for name in ([board] if board else board_names())]
    checks = [*_system(), *_packages(), *_runtimes(progress or quiet), *_data()]
    works = [check.name for check in checks if check.group == "runtime" and check.status == "ok"]
    return {
        "edgekit": __version__,
        "machine": machine.facts(),
        "checks": [asdict(check) for check in checks],
        "boards": [_suits(one, works) for one in wanted],
    }


def _system() -> Iterator[Check]:
    version = platform.python_version()
    ok = sys.version_info >= (3, 10)
    yield Check(
        "system",
        "python",
        "ok" if ok else "failed",
        f"{version}, {sys.executable}",
        "" if ok else "install 3.10 or later",
    )
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    roomy = free >= FREE_GB
    mend = "" if roomy else f"free {FREE_GB:.0f} GB here, or choose --out elsewhere"
    yield Check("system", "disk", "ok" if roomy else "failed", f"{free:.1f} GB free at {Path.cwd()}", mend)
    if machine.lacks_vnni(machine.facts()):
        told = "no VNNI: sums of INT8 weights may overflow; 7 bits do not"
        yield Check("system", "int8", "ok", told, "edgekit quantize ARTIFACT --reduce-range")


def _packages() -> Iterator[Check]:
    for part, names in PACKAGES.items():
        for name in names:
            try:
                yield Check("package", name, "ok", metadata.version(name))
            except metadata.PackageNotFoundError:
                yield Check("package", name, "missing", f"not installed ({part})", INSTALL[part])


def _runtimes(progress: Progress) -> Iterator[Check]:
    """Each runtime computes a tiny network in a process of its own: a broken library kills only that."""
    for done, (runtime, part) in enumerate(RUNTIMES.items()):
        progress("checking the runtimes", done, len(RUNTIMES))
        yield _runtime(runtime, INSTALL[part])
    progress("checking the runtimes", len(RUNTIMES), len(RUNTIMES))


def _runtime(runtime: str, install: str) -> Check:
    with tempfile.TemporaryDirectory(prefix="edgekit-doctor-") as folder:
        try:
            arguments = {"runtime": runtime, "folder": folder}
            said = run_in_child("edgekit.checkup:probe", arguments, step="doctor", file=runtime)
        except EdgeKitError as error:
            return Check("runtime", runtime, "failed", str(error), install)
    return Check("runtime", runtime, said["status"], said["found"], install if said["status"] != "ok" else "")


def probe(runtime: str, folder: str) -> dict[str, str]:
    """Runs in a child: load the runtime and compute with it. Returns ``status`` and ``found``."""
    try:
        return {"status": "ok", "found": _probe_torch() if runtime == "pytorch" else _probe_session(runtime, folder)}
    except ImportError as error:
        return {"status": "missing", "found": f"cannot be loaded: {error}"}


def _probe_torch() -> str:
    import torch

    with torch.inference_mode():
        torch.nn.Conv2d(3, 4, 3)(torch.zeros(1, 3, _TINY, _TINY))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{torch.__version__} on {device}"


def _probe_session(runtime: str, folder: str) -> str:
    import numpy as np

    from .runtime.errors import MissingDependency
    from .runtime.sessions import open_session

    try:
        with open_session(runtime, _tiny_artifact(folder)) as session:
            session.infer({"image": np.zeros((1, _TINY, _TINY, 3), np.uint8)})
            return str(session.describe()["version"])
    except MissingDependency as error:
        raise ImportError(str(error)) from error


def _tiny_artifact(folder: str) -> Any:
    """An artifact with the output contract's names and one convolution."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from .runtime.artifact import new_artifact, read_artifact

    side = _TINY * _TINY
    constants: dict[str, Any] = {
        "weight": np.ones((5, 3, 1, 1), np.float32),
        "flat": np.array([1, 5, side], np.int64),
        "parts": np.array([4, 1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "weight"], ["map"]),
        helper.make_node("Reshape", ["map", "flat"], ["row"]),
        helper.make_node("Transpose", ["row"], ["column"], perm=[0, 2, 1]),
        helper.make_node("Split", ["column", "parts"], ["boxes", "scores"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, _TINY, _TINY, 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, side, k]) for n, k in (("boxes", 4), ("scores", 1))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    path = os.path.join(folder, "probe")
    shape = {"name": "image", "layout": "nhwc_uint8", "shape": [1, _TINY, _TINY, 3]}
    with new_artifact(path, "onnx", {"input": shape, "classes": ["thing"], "precision": "fp32"}) as inside:
        onnx.save(model, os.path.join(inside, "model.onnx"))
    return read_artifact(path)


def _data() -> Iterator[Check]:
    sets = sorted(p.parent.name for p in share("calibration").glob("*/set.yaml"))
    untrained = 0
    for name in recipe_names():
        try:
            recipe = load_recipe(name)
        except EdgeKitError as error:
            yield Check("data", name, "failed", str(error), f"correct {share('recipes') / name / 'recipe.yaml'}")
            continue
        check = _recipe(recipe, sets)
        untrained += check is None
        if check is not None:
            yield check
    if untrained:
        yield Check("data", f"{untrained} recipes", "ok", "to be trained: no weights ship", "edgekit train RECIPE")
    if not recipe_names():
        yield Check("data", "recipes", "missing", f"none in {share('recipes')}", INSTALL["core"])


def _recipe(recipe: Recipe, sets: list[str]) -> Check | None:
    """None where nothing is wrong, and there is nothing to run before it is trained."""
    needs = [recipe.quantize.calibration] if recipe.quantize else []
    needs += [recipe.evaluation] if recipe.evaluation else []
    lacks = [name for name in needs if name not in sets and not recipe.resolve(name).exists()]
    if lacks:
        return Check("data", recipe.name, "missing", f"image sets not found: {', '.join(lacks)}", INSTALL["core"])
    if recipe.weights is None:
        return None
    return Check("data", recipe.name, "ok", "weights and image sets are here")


def _suits(board: Board, works: list[str]) -> dict[str, Any]:
    """Whether this machine can stand for the board, and what is against it."""
    usable = [runtime for runtime in board.runtimes if runtime in works]
    against = [*filter(None, [another_machine(board)])]
    if not usable:
        against.append(f"none of its runtimes works here: {', '.join(board.runtimes)}")
    try:
        board.pinned_core()
    except EdgeKitError as error:
        against.append(str(error))
    return {"name": board.name, "title": board.title, "matches": not against, "runtimes": usable, "against": against}


def another_machine(board: Board) -> str:
    """What says that this machine is not the board; empty where it can stand for it."""
    here, me = kinds(), identity.identity()
    if board.kind not in here:
        return f"this machine is {' and '.join(sorted(here))}, the board is {board.kind}"
    if not identity.fits(board.identity.model_dump(), me):
        return f"this machine calls itself {identity.called(me)}"
    return ""


def kinds() -> set[str]:
    """What this machine is, in the words of a board's ``kind``: x86 or arm, and jetson or gpu where there is one."""
    found = {_PROCESSORS.get(platform.machine().lower(), platform.machine())}
    me = identity.identity()
    board = recognise(me["model"], me["compatible"], me["dts"])
    if board is not None:
        found.add(board.kind)
    elif me["l4t"] != identity.UNKNOWN:  # a Jetson without a profile
        found.add("jetson")
    elif any(Path(place).exists() for place in _GPUS):
        found.add("gpu")
    return found
