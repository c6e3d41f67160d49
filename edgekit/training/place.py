"""The place of a training beside its checkpoint, where one at a time writes. Needs no PyTorch: ``run`` looks there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..runtime.errors import BadConfig

RESUME = "resume.ckpt"


def training_folder(checkpoint: Path) -> Path:
    """Where the logs and the resume file of the training lie that publishes ``checkpoint``."""
    return checkpoint.with_name(f"{checkpoint.name}-training")


@contextlib.contextmanager
def only_training(work: Path) -> Iterator[None]:
    """Hold ``.NAME.lock`` beside the folder ``work`` of a training, which nobody else may then begin.

    The lock is the process's own: the loader's forked workers do not have it, and it goes when the process dies. A file
    system without locks is trained on without one. Raises BadConfig that names the process which holds it.
    """
    work.parent.mkdir(parents=True, exist_ok=True)
    file = work.with_name(f".{work.name}.lock")
    with _locked(file, work) as handle:
        handle.truncate(0)
        handle.write(f"pid {os.getpid()} on {platform.node()}")
        handle.flush()
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _locked(file: Path, work: Path) -> IO[str]:
    """The open file, locked where that is possible."""
    while True:
        handle = file.open("a+")
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # POSIX allows both
            with handle:
                handle.seek(0)
                holder = handle.read(200) or "pid unknown"
            raise BadConfig(
                f"{work}: another training ({holder}) writes here. Choose another --out, or wait for its end"
            ) from error
        except OSError:  # such as ENOLCK of NFS without its lock service
            return handle
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle.fileno()), file.stat()):
                return handle
        handle.close()  # its holder ended, and removed it, between our opening and locking it
