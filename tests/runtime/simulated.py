"""The twin's simulated TensorRT 8.2 and pycuda, as the tests of engines and sessions use them."""

import sys
from pathlib import Path

SIMULATOR = Path(__file__).parents[1] / "twin" / "simulator"
HERE = {"tensorrt": "8.2.1.8", "cuda": "10.2", "sm": 62, "device": "EdgeKit TX2 twin (simulated)", "l4t": None}


def loaded():
    """Names of the modules that belong to the simulator."""
    return [name for name in sys.modules if name.split(".")[0] in ("tensorrt", "pycuda")]


def changed(engine, copy_of, **changes):
    """The engine artifact with another ``engine`` section."""
    return copy_of(engine, engine={**engine.manifest["engine"], **changes})
