"""Modules that an extra of the package brings; where one is missing, the command that installs it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .runtime.errors import MissingDependency


def need(module: str, extra: str) -> Any:
    """Import a module that an extra brings. Raises MissingDependency."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("edgekit"):
            raise
        raise _missing(error.name, extra) from error


def require(module: str, extra: str) -> None:
    """Raise MissingDependency unless a module is installed, which a child process will import."""
    if find_spec(module) is None:
        raise _missing(module, extra)


def _missing(name: str, extra: str) -> MissingDependency:
    return MissingDependency(f"{name} is not installed; this verb needs it. Install it: pip install 'edgekit[{extra}]'")
