"""The ``edgekit`` command. Only the file of the chosen verb is imported, so ``edgekit --help`` stays fast."""

from __future__ import annotations

import os
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__
from ..paths import expanded

# verb -> one line for ``edgekit --help``; ``cli/<verb>.py`` holds a function of the same name, with its EXAMPLE.
# A verb with a dash has an underscore there.
VERBS = {
    "run": "The whole spine: export, quantize, bench and report a recipe. Finished steps are skipped.",
    "train": "Train a recipe into a checkpoint.",
    "evaluate": "Measure mAP of an artifact on annotated images.",
    "export": "Lower a checkpoint or a recipe's shipped weights to ONNX.",
    "quantize": "Lower an ONNX artifact to INT8 and gate the loss of accuracy.",
    "import-onnx": "Bring an ONNX detector that was trained elsewhere onto the spine.",
    "lint": "Say what a board would refuse in an ONNX file, without the board.",
    "build": "Build a TensorRT engine for the GPU of this machine.",
    "bench": "Measure accuracy, size, GOPS and latency on a board.",
    "complexity": "Count MACs, parameters, memory access and CIO of an ONNX file.",
    "report": "Turn measured rows into a table and a page.",
    "baseline": "Merge repeated runs into what the gate compares with.",
    "gate": "Fail when a build is worse than a baseline: accuracy, latency, size, GOPS.",
    "score": "Place measured rows among a competition's published results.",
    "camera": "Show a detector on a camera, video or stream: page, window, recordings, counters.",
    "predict": "Draw boxes on images and write them as COCO JSON.",
    "label": "Label images with a trained detector: pseudo-labels to train another on.",
    "data": "Check, describe or convert annotated images: COCO, Pascal VOC, ivslab, BDD100K, YOLO.",
    "bundle": "Write one file with everything that a board needs for a model; --sign signs it.",
    "flash": "Put a model onto boards over SSH: build, verify, measure, bring the rows home.",
    "zoo": "List the recipes with their figures; every figure that the papers print, beside ours.",
    "card": "Write a page about a recipe: structure, figures, what its paper claims, what was measured.",
    "boards": "List the boards and what each can do.",
    "schema": "Print the JSON Schema of a report, a gate's result, a recipe or a board.",
    "doctor": "Say what works on this machine, and how to mend what does not.",
}


class Verbs(TyperGroup):
    """A group that knows its verbs by name and imports one only when it is invoked."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # stand-ins, enough for help, completion and for the names that a typing error is compared with
        self.commands = {name: TyperCommand(name, help=line) for name, line in VERBS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, load_verb(str(name)) if stand_in is not None else None, rest


class Verb(TyperCommand):
    """A command that takes no empty text for a value, knows ``~`` in every path, and shows how it is called."""

    example = ""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Rich would break a long example into lines, which no shell takes back as one command."""
        super().format_help(ctx, formatter)
        typer.echo("\n".join(["Example", *(f"  {line}" for line in self.example.strip().splitlines())]))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            typed, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for parameter in given:
                _check_typed(ctx, parameter, typed.get(parameter.name))
        rest = super().parse_args(ctx, args)
        ctx.params.update((name, _expanded(value)) for name, value in ctx.params.items())
        return rest


def _check_typed(ctx: Any, parameter: Any, value: Any) -> None:
    """Raise typer's error for an empty text: most often a shell's variable that is not set, and no wish for "."."""
    if value == "" or (isinstance(value, list | tuple) and "" in value):
        raise typer.BadParameter("the value is empty. Give one, or leave it out.", ctx=ctx, param=parameter)


def _expanded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_expanded, value))
    return expanded(value) if isinstance(value, Path) else value


def load_verb(name: str) -> Any:
    """The command of one verb, made from its function's signature and docstring."""
    word = name.replace("-", "_")
    module = import_module(f"{__package__}.{word}")
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    settings = {"help_option_names": ["-h", "--help"]}
    function = getattr(module, word)
    app.command(name, cls=Verb, help=_text(function), context_settings=settings)(function)
    command: Any = typer.main.get_command(app)
    command.example = module.EXAMPLE
    return command


def _text(function: Any) -> str:
    """The docstring with one line per paragraph, so that it is filled to the terminal's width."""
    return "\n\n".join(" ".join(p.split()) for p in cleandoc(function.__doc__).split("\n\n"))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgekit {__version__}")
        raise typer.Exit


app = typer.Typer(cls=Verbs, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]})


@app.callback(epilog="Every verb has its own help with an example: edgekit export --help")
def edgekit(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works after the verb too.")
    ] = False,
) -> None:
    """From a detector's training recipe to numbers measured on the board."""


def invoke(args: list[str]) -> int:
    """Parse and call; errors go up to ``main``. Returns the exit code of a regular end."""
    command = typer.main.get_command(app)
    if "_EDGEKIT_COMPLETE" in os.environ:
        command.main(args, prog_name="edgekit")
    try:
        with command.make_context("edgekit", args or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0
