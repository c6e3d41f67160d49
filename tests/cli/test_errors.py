"""Errors: one message, the right exit code, a traceback only on demand."""

import errno
import os
import subprocess
import sys

import pytest

from edgekit.cli import main
from edgekit.cli.errors import explain
from edgekit.runtime import errors

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type)]


def raised_from(error, cause):
    error.__cause__ = cause
    return error


CASES = [
    *[(kind("weights.bin: broken; run edgekit export"), 2, "weights.bin: broken; run edgekit export") for kind in TREE],
    (
        OSError(errno.ENOSPC, "No space left on device", "out/model.onnx"),
        2,
        "no space left on the disk for out/model.onnx",
    ),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "no space left on the disk"),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "x"), 2, "no space left on the disk for x"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), 2, "no space left on the disk"),
    (raised_from(ValueError("failed"), OSError(errno.ENOSPC, "No space left on device", "y")), 2, "the disk for y"),
    (PermissionError(errno.EACCES, "Permission denied", "/srv/out"), 2, "/srv/out: permission denied"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.jpg"), 2, "a.jpg: no such file or directory"),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory", "file/out"), 2, "file/out: not a directory"),
    (OSError(errno.EROFS, "Read-only file system", "/mnt/o"), 2, "/mnt/o: read-only file system"),
    (MemoryError(), 2, "not enough memory"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (
        ZeroDivisionError("division by zero"),
        70,
        "bug in EdgeKit, not a mistake of yours (ZeroDivisionError: division by zero)",
    ),
    (ValueError("first line\nsecond line"), 70, "(ValueError: first line)"),
    (OSError("no file at all"), 70, "bug in EdgeKit"),
]


@pytest.mark.parametrize(
    ("error", "code", "said"), CASES, ids=[f"{type(c[0]).__name__}-{i}" for i, c in enumerate(CASES)]
)
@pytest.mark.parametrize("debug", [False, True])
def test_error_to_exit_code(error, code, said, debug, pipeline, capfd):
    pipeline.results["export"] = error
    assert main(["export", "r", *(["--debug"] if debug else [])]) == code
    out, err = capfd.readouterr()
    assert said in err
    assert ("Traceback" in err) == debug
    assert out == ""


@pytest.mark.parametrize(
    ("args", "environment", "shown"),
    [
        (["--debug", "zoo"], {}, True),
        (["zoo", "--debug"], {}, True),
        (["zoo"], {"EDGEKIT_DEBUG": "1"}, True),
        (["zoo"], {"EDGEKIT_DEBUG": "0"}, False),
        (["zoo"], {"EDGEKIT_DEBUG": ""}, False),
    ],
)
def test_debug_before_and_after_the_verb(args, environment, shown, pipeline, monkeypatch, capsys):
    monkeypatch.delenv("EDGEKIT_DEBUG", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    pipeline.results["zoo"] = errors.BadConfig("wrong")
    assert main(args) == 2
    assert ("Traceback" in capsys.readouterr().err) == shown


def test_debug_after_two_dashes_is_an_argument(pipeline):
    assert main(["train", "r", "--", "--debug"]) == 0
    assert pipeline.calls[0][2]["overrides"] == ["--debug"]


def test_markup_in_a_message_is_printed_as_it_is(pipeline, capsys):
    pipeline.results["zoo"] = errors.BadConfig("classes: [bold] is [red]not[/red] known")
    main(["zoo"])
    assert "[bold] is [red]not[/red] known" in capsys.readouterr().err


def test_a_drive_that_does_not_answer_is_no_bug():
    code, message = explain(OSError(errno.EIO, os.strerror(errno.EIO)))  # of a read: it names no file
    assert (code, message[:28]) == (2, "edgekit: input/output error:")


def test_a_bug_asks_for_a_report():
    code, message = explain(KeyError("x"))
    assert code == 70  # not 1: a CI job must tell a failed gate from a broken tool
    assert "--debug" in message
    assert "report" in message


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_told_once():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgekit", "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no space left" in done.stderr


def test_a_closed_pipe_is_quiet():
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgekit", "--version"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141
