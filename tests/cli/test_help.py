"""Help: fast, complete, and with examples that parse."""

import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest

import edgekit
from edgekit.cli import main
from edgekit.cli.app import VERBS

HEAVY = (
    "torch",
    "numpy",
    "cv2",
    "onnx",
    "onnxruntime",
    "openvino",
    "pydantic",
    "yaml",
    "edgekit.pipeline",
    "edgekit.cli.train",
)
EXAMPLES = [
    line
    for verb in VERBS
    for line in import_module(f"edgekit.cli.{verb.replace('-', '_')}").EXAMPLE.strip().splitlines()
]


def edgekit_command(*args):
    return subprocess.run([sys.executable, "-m", "edgekit", *args], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["--version"], []])
def test_the_front_page_imports_nothing_heavy(args):
    code = (
        "import json, sys\nfrom edgekit.cli import main\nrc = main(sys.argv[1:])\n"
        f"print(json.dumps([rc, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    rc, loaded = json.loads(done.stdout.splitlines()[-1])
    assert rc == 0
    if args != ["--version"]:  # parsing a value, not showing help, may need typer's own use of pydantic
        assert loaded == []
    assert not {"torch", "numpy", "cv2", "onnx", "edgekit.pipeline"} & set(loaded)


def test_the_front_page_names_every_verb():
    done = edgekit_command("--help")
    assert done.returncode == 0
    for function in edgekit.VERBS:  # data_check is ``edgekit data check``, import_onnx ``edgekit import-onnx``
        assert function.replace("_", "-") in VERBS or function.split("_")[0] in VERBS
    for verb in VERBS:
        assert any(function.split("_")[0] == verb.split("-")[0] for function in edgekit.VERBS)
    for verb, line in VERBS.items():
        assert f" {verb} " in done.stdout
        assert line.split(".")[0][:30] in done.stdout


def test_version():
    assert edgekit_command("--version").stdout == f"edgekit {edgekit.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_and_json(verb, capsys):
    assert main([verb, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Example edgekit {verb}" in text
    assert "--json" in text


def test_an_example_is_shown_as_it_is_typed(capsys, monkeypatch):
    """On one line however narrow the terminal is, so that a shell takes it back; brackets are no markup."""
    monkeypatch.setenv("COLUMNS", "40")
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        shown = capsys.readouterr().out.splitlines()
        for line in (line for line in EXAMPLES if line.split()[1] == verb):
            assert f"  {line}" in shown


def test_help_and_documentation_name_every_convention_of_counting():
    """Help is read without the module that has them: it loads onnx."""
    from edgekit.cli.complexity import complexity
    from edgekit.measure.conventions import CONVENTIONS

    (option,) = get_type_hints(complexity, include_extras=True)["convention"].__metadata__
    told = option.help.split(": ")[1].rstrip(".").replace(" or ", ", ").split(", ")
    assert told == list(CONVENTIONS)
    document = (Path(__file__).parents[2] / "docs" / "measuring.md").read_text()
    for name in CONVENTIONS:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", complexity.__doc__)
        assert f"`{name}`" in document


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_parses(line, pipeline, capsys):
    program, verb, *args = shlex.split(line)
    assert program == "edgekit"
    assert main([verb, *args]) == 0, capsys.readouterr().err
    assert pipeline.calls
    assert all(call[0] == verb.replace("-", "_") or call[0].startswith(f"{verb}_") for call in pipeline.calls)
