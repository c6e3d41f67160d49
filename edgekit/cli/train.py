"""``edgekit train``"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from . import options
from .output import show_artifact
from .progress import work

EXAMPLE = """
edgekit train mobile-centernet-w16-dhaka train.epochs=10 data.root=~/my-data --out runs/mine
edgekit train mobile-centernet-w16-dhaka --out runs/mine --resume
edgekit train edgekit-road train.init=edgekit-road 'classes=[vehicle, bicycle]' data.root=~/my-data --out runs/mine
"""


def train(
    recipe: options.Recipe,
    overrides: options.Overrides = None,
    out: options.Out = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last finished epoch; anew if none was.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Train a recipe into a checkpoint.

    The checkpoint is written to runs/RECIPE/checkpoint unless --out says otherwise. A training that was stopped goes on
    with --resume and reaches the same weights. It begins with random weights; train.init=NAME begins with those of a
    recipe that ships some, or with a checkpoint. On several GPUs: torchrun --nproc-per-node 2 -m edgekit train RECIPE.
    """
    import edgekit

    first = os.environ.get("RANK", "0") == "0"  # torchrun starts one process per device; one of them speaks
    with work(out) as progress:
        artifact = edgekit.train(
            recipe, overrides=overrides or [], out=out, resume=resume, progress=progress if first else None
        )
    if first:
        show_artifact(artifact, json, "edgekit export {path}")
