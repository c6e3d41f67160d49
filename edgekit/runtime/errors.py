"""The errors a user can meet. Each message says what was found, what was needed and which command mends it.

The command line prints the message and exits with 2; a traceback appears only with ``--debug``.
"""

import contextlib


class EdgeKitError(Exception):
    """A mistake that the user can mend, told in one message."""


class BadConfig(EdgeKitError):
    """A recipe, board file or option is wrong. All problems are reported at once."""


class BadInput(EdgeKitError):
    """A file that was given (image, JSON, ONNX, weights) cannot be used; the message names it."""


@contextlib.contextmanager
def naming(path):
    """A BadInput of what is computed from a file's content gets the file's name before its message."""
    try:
        yield
    except BadInput as error:
        raise BadInput("{}: {}".format(path, error)) from error


class ArtifactError(EdgeKitError):
    """An artifact folder is missing something, or a payload does not match its manifest."""


class BoardLacks(EdgeKitError):
    """The board cannot do what was asked; known from its profile before any work starts."""


class BoardBusy(EdgeKitError):
    """Somebody else is at work on the board."""


class MissingDependency(EdgeKitError):
    """A package of an optional extra is not installed; the message carries the pip command."""


class ChildDied(EdgeKitError):
    """Native code in a child process failed or was killed; step, file and signal are in the message."""


class AccuracyDrop(EdgeKitError):
    """A lowering step lost more accuracy than the caller allowed."""
