"""Everything that is wrong with one file, told in one error."""

from __future__ import annotations

from pathlib import Path

from ..runtime.errors import BadInput
from ..words import counted

MAX_PROBLEMS = 10  # told in one error; the rest are counted


class Problems:
    """Collects problems; ``raise_any`` raises BadInput naming the file when there are some. ``advice`` closes it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: list[str] = []
        self.count = 0
        self.advice = ""

    def add(self, where: str, what: str) -> None:
        self.count += 1
        if len(self.lines) < MAX_PROBLEMS:
            self.lines.append(f"  {where}: {what}")

    def raise_any(self) -> None:
        if not self.count:
            return
        lines = [f"{self.file}: {counted(self.count, 'problem')}", *self.lines]
        if self.count > len(self.lines):
            lines.append(f"  and {self.count - len(self.lines)} more")
        raise BadInput("\n".join([*lines, self.advice] if self.advice else lines))
