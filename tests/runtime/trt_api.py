"""Which names of TensorRT and pycuda does a builder or session touch? Read from its source, function by function.

The runtime calls a variable after the TensorRT class it holds; CLASSES is that convention. From a class every method
that it really has (inherited ones included, overridden ones not) is read, and every function of ours that they call.
"""

import ast
import importlib
import inspect
import textwrap

# variable -> class of TensorRT
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "fault": "ParserError",
    "layer": "ILayer",
    "shuffle": "IShuffleLayer",
    "suppression": "INMSLayer",
    "tensor": "ITensor",
    "scores": "ITensor",
    "registry": "IPluginRegistry",
    "creator": "IPluginCreator",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "timing": "ITimingCache",
    "kept": "ITimingCache",
}
# pycuda's, by the name of our variables
CLASSES.update(device="driver.Device", stream="driver.Stream", primary="driver.Context")
OURS = ("edgekit.runtime.engines.", "edgekit.runtime.sessions.", "edgekit.runtime.cuda")


def names_used(starts):
    """Sorted dotted names: "trt.Builder", "IBuilderConfig.set_flag", "driver.Stream", ...

    starts: [(class, names of the methods that somebody calls)]; what those call is found from them
    """
    found, seen = set(), set()
    waiting = [(getattr(cls, name), cls) for cls, names in starts for name in names]
    while waiting:
        function, cls = waiting.pop()
        if (function, cls) in seen:
            continue
        seen.add((function, cls))
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        found |= set(_names(tree))
        waiting += _called(tree, function, cls)
    return sorted(found)


def _called(tree, function, cls):
    """(function, class) of ours that the code names: by self, in its own module, or behind a module's alias."""
    home = inspect.getmodule(function)
    for node in ast.walk(tree):
        value = None
        if isinstance(node, ast.Name):
            value, owner = getattr(home, node.id, None), None
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = cls if node.value.id == "self" else getattr(home, node.value.id, None)
            value = getattr(owner, node.attr, None)
        if isinstance(value, property):
            value = value.fget
        if inspect.isfunction(value) and value.__module__.startswith(OURS):
            yield value, cls if owner is cls else None
        elif inspect.isclass(value) and value.__module__.startswith(OURS):
            yield from ((member, value) for _, member in inspect.getmembers(value, inspect.isfunction))


def _names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (_dotted(base) for base in node.bases if _dotted(base).startswith("trt."))
        if not isinstance(node, ast.Attribute):
            continue
        dotted = _dotted(node)
        owner, _, name = dotted.rpartition(".")
        if owner.startswith(("trt", "self.trt")) and dotted.split(".")[0] in ("trt", "self"):
            yield dotted.replace("self.trt.", "trt.")
        variable = owner.replace("self.", "").lstrip("_")
        if variable in CLASSES and "." not in variable:
            yield f"{CLASSES[variable]}.{name}"
        if owner.endswith("driver") and name:
            yield f"driver.{name}"


def _dotted(node):
    """ "a.b.c" of an attribute, "" where it hangs on a call or an index."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def engine_names(builder, session):
    """What the named builder ("tensorrt8:Tensorrt8") and session ("trt8:Tensorrt8Session") touch, the execution too."""
    load = importlib.import_module
    module, _, name = builder.partition(":")
    building = getattr(load(f"edgekit.runtime.engines.{module}"), name)
    module, _, name = session.partition(":")
    running = getattr(load(f"edgekit.runtime.sessions.{module}"), name)
    starts = [
        (building, ["__init__", "build"]),
        (running, ["__init__", "prepare", "infer", "describe", "close"]),
        (running.execution, ["__init__", "start"]),
        (load("edgekit.runtime.cuda").Cuda, ["__init__", "__enter__", "__exit__", "facts", "close"]),
    ]
    if not building.typed:  # the calibrator is handed over with the job
        calibration = load("edgekit.runtime.engines.calibration")
        starts += [(calibration, ["make_calibrator"]), (calibration.ImageFeed, ["next_address"])]
    return names_used(starts)
