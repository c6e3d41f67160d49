"""Native code in a child process, typed; the work is ``runtime.child``, which also builds engines on a board."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..progress import Count
from ..runtime import child


def run_in_child(
    function: str,
    arguments: Mapping[str, Any],
    step: str,
    file: str | Path,
    progress: Count | None = None,
) -> Any:
    """Call ``module:name`` with JSON keyword arguments in a child process and return its JSON result.

    step, file: named in the error when the child dies.
    progress: called as (done, total); the function then gets a ``progress`` argument too.
    Raises the same EdgeKitError that the function raised, or ChildDied when the child failed in any other way.
    """
    return child.run_in_child(function, arguments, step, file, progress)
