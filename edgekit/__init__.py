"""EdgeKit: from a detector's training recipe to numbers measured on the board.

The command line's verbs are functions of the same name here: ``edgekit.export(...)`` does what ``edgekit export`` does,
and ``edgekit.data_check(...)`` what ``edgekit data check`` does. They are looked up on first use, so importing this
package costs nothing and works on a board's Python 3.6. Their types stand in ``__init__.pyi``.
"""

__version__ = "0.1.0"

# verb -> the module that holds the function; a module must not be called like a verb of this package
VERBS = {
    "train": "pipeline",
    "evaluate": "pipeline",
    "export": "pipeline",
    "quantize": "pipeline",
    "bench": "pipeline",
    "bench_compare": "pipeline",
    "report": "pipeline",
    "run": "pipeline",
    "predict": "pipeline",
    "camera": "live",
    "label": "pipeline",
    "data_check": "pipeline",
    "data_stats": "pipeline",
    "data_recipe": "pipeline",
    "data_convert": "pipeline",
    "zoo": "measure.listing",
    "card": "measure.listing",
    "boards": "pipeline",
    "doctor": "pipeline",
    "lint": "conversion.lint",
    "build": "conversion.engine",
    "import_onnx": "conversion.imports.verb",
    "complexity": "measure.complexity",
    "bundle": "deploy.bundling",
    "flash": "deploy.flashing",
    "gate": "measure.gate",
    "baseline": "measure.baseline",
    "score": "measure.scoring",
    "schema": "measure.schemas",
}

__all__ = ["VERBS", "__version__", *VERBS]


def __getattr__(name):  # PEP 562; Python 3.6 never calls it, and a board needs no verb
    if name in VERBS:
        from importlib import import_module

        return getattr(import_module("edgekit." + VERBS[name]), name)
    raise AttributeError("module 'edgekit' has no attribute '{}'".format(name))


def __dir__():  # PEP 562: what an interactive session completes
    return sorted(set(globals()) | set(__all__))
