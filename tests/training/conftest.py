from __future__ import annotations

from pathlib import Path

import pytest

from . import jobs


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the processes that tests start: sums in the same order, and no fight for the cores."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return jobs.write_tiny(tmp_path / "data")
