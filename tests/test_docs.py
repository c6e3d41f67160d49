"""What the documents say exists: every ``edgekit`` command parses, every file and link is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from edgekit.cli.app import VERBS, load_verb

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:^|`|\.venv/bin/|-m )edgekit ([a-z][^`\n#>]*)", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
PLACES = "edgekit|tests|benchmarks|boards|recipes|calibration|scoring|docs|conversion|measure|runtime|training|models"
FILE = re.compile(rf"`((?:{PLACES})/[\w./-]+)`")
# written by a command, another project's, or a pattern
ELSEWHERE = {"docs/operators.md", "boards/NAME.yaml"}


def commands(text: str) -> list[list[str]]:
    """The arguments of every command that is written out; a verb alone, or one with an ellipsis, is none."""
    whole = re.sub(r"\\\n\s*", " ", text)
    lines = [match.group(1).strip() for match in COMMAND.finditer(whole)]
    found = [shlex.split(line) for line in lines if not re.search(r"\.\.\.|\[|\\", line)]
    return [args for args in found if len(args) > 1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_the_documents_parses(page: Path) -> None:
    for verb, *args in commands(page.read_text(encoding="utf-8")):
        assert verb in VERBS, f"{page.name}: edgekit {verb}"
        try:
            load_verb(verb).make_context(verb, args)
        except typer.Exit:  # --help
            continue
        except typer.TyperException as error:
            if not str(error).startswith("Missing parameter"):  # as in a sentence on one option
                pytest.fail(f"{page.name}: edgekit {verb} {' '.join(args)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_the_documents_name_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = [file for file in FILE.findall(text) if file not in ELSEWHERE]
    assert [file for file in named if not ((ROOT / file).exists() or (ROOT / "edgekit" / file).exists())] == []


def test_the_commands_are_found() -> None:
    """So that a change of the documents' form does not make this file look at nothing."""
    assert sum(len(commands(page.read_text(encoding="utf-8"))) for page in PAGES) > 50
    assert commands("```\nedgekit train R a=1 \\\n    --out o   # a note\n```") == [["train", "R", "a=1", "--out", "o"]]
