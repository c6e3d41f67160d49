"""What type checkers and editors read of the package: its verbs, each from the module that ``VERBS`` names."""

from .conversion.engine import build
from .conversion.imports.verb import import_onnx
from .conversion.lint import lint
from .deploy.bundling import bundle
from .deploy.flashing import flash
from .live import camera
from .measure.baseline import baseline
from .measure.complexity import complexity
from .measure.gate import gate
from .measure.listing import card, zoo
from .measure.schemas import schema
from .measure.scoring import score
from .pipeline import (
    bench,
    bench_compare,
    boards,
    data_check,
    data_convert,
    data_recipe,
    data_stats,
    doctor,
    evaluate,
    export,
    label,
    predict,
    quantize,
    report,
    run,
    train,
)

__version__: str
VERBS: dict[str, str]

__all__ = [
    "VERBS",
    "__version__",
    "baseline",
    "bench",
    "bench_compare",
    "boards",
    "build",
    "bundle",
    "camera",
    "card",
    "complexity",
    "data_check",
    "data_convert",
    "data_recipe",
    "data_stats",
    "doctor",
    "evaluate",
    "export",
    "flash",
    "gate",
    "import_onnx",
    "label",
    "lint",
    "predict",
    "quantize",
    "report",
    "run",
    "schema",
    "score",
    "train",
    "zoo",
]
