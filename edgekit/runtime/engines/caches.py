"""Caches of the builders: measured kernel times of one board, and calibrated ranges of one network."""

import os

from ..artifact import file_sha256, new_file, value_sha256
from ..errors import BadInput


def cache_folder():
    """``$EDGEKIT_CACHE``, or ``~/.cache/edgekit``; for what is found once and may be lost."""
    return os.environ.get("EDGEKIT_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "edgekit")


def timing_cache_file(options, facts):
    """Where the kernel times of this board lie, or None when the options want none.

    facts: tensorrt, cuda, sm and device. Times hold for exactly these; TensorRT refuses a cache of another one too.
    """
    if options.timing_cache is False:
        return None
    if options.timing_cache is not None:
        return str(options.timing_cache)
    key = "-".join(str(facts[name]) for name in ("tensorrt", "cuda", "sm", "device"))
    plain = "".join(c if c.isalnum() or c in ".-" else "_" for c in key)
    return os.path.join(cache_folder(), "timing", plain + ".cache")


def read_cache(path):
    """The bytes of a cache, b"" when there is none yet."""
    if path is None or not os.path.isfile(path):
        return b""
    with open(path, "rb") as handle:
        return handle.read()


def write_cache(path, content):
    """Keep a cache. Returns a note when it could not be written: a read-only home is no reason to fail."""
    if path is None or not content:
        return ()
    try:
        with new_file(path, "wb") as handle:
            handle.write(content)
    except OSError as error:
        return ("the cache {} could not be written ({})".format(path, error.strerror),)
    return ()


def calibration_key(onnx, preprocess, images, tensorrt):
    """Identity of a calibration: everything that its ranges depend on, and nothing else; file names are not among it.

    Raises BadInput when an image is missing.
    """
    missing = [path for path in images if not os.path.isfile(path)]
    if missing:
        raise BadInput("calibration images are missing: {}".format(", ".join(missing[:5])))
    return value_sha256(
        {
            "onnx": file_sha256(onnx),
            "preprocess": preprocess.digest(),
            "images": [file_sha256(path) for path in images],
            "calibrator": "entropy2",
            "tensorrt": tensorrt,
        }
    )


def calibration_cache_file(options, key):
    """Where the ranges of this calibration are kept: the file that was named, or one that carries the key."""
    return options.calibration_cache or os.path.join(cache_folder(), "calibration", key + ".trt")


def read_calibration(path, key):
    """The ranges kept in a file, b"" when there is none.

    The first line of the file is the key. Raises BadInput when it is another one: ranges of other weights or of images
    prepared in another way look fine and are wrong.
    """
    content = read_cache(path)
    if not content:
        return b""
    head, _, body = content.partition(b"\n")
    found = head.decode("ascii", "replace")
    if found != "edgekit-calibration " + key:
        raise BadInput(
            "{}: belongs to another network, preprocessing, image list or TensorRT (its key is {}..., needed {}...). "
            "Delete it, or name another --calibration-cache.".format(path, found.split(" ")[-1][:12], key[:12])
        )
    return body


def write_calibration(path, key, body):
    """Keep ranges together with their key."""
    return write_cache(path, "edgekit-calibration {}\n".format(key).encode("ascii") + bytes(body))
