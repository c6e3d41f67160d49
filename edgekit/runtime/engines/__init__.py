"""TensorRT engines: built on the machine that runs them, described by a sidecar manifest, checked before loading."""

from .build import build_engine
from .options import BuildOptions

__all__ = ["BuildOptions", "build_engine"]
