"""Per-layer times as the runtimes' own profilers give them. What the steps mean is worked out in ``measure.layers``.

A profiler returns {"profiler", "runs", "steps"}. A step is one thing that the runtime executed: name, kind, ms (mean
over the runs), precision ("fp32", "int8", ...; None: not told), bytes (of all inputs, weights and outputs; None: not
told) and nodes (names of the file's nodes where the runtime tells them; None where they must be found by the names).
"""

import json
import os

from .errors import BadInput
from .sessions import INPUT, load_library

WARM_UP = 3  # runs whose times are left out
_VALUE_BYTES = {"float": 4, "float16": 2, "bfloat16": 2, "double": 8, "int64": 8, "uint64": 8, "int32": 4, "uint32": 4}
_PRECISIONS = {
    "float": "fp32",
    "f32": "fp32",
    "float16": "fp16",
    "f16": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "uint8": "int8",
    "int8": "int8",
    "u8": "int8",
    "i8": "int8",
}


def profile(runtime, session, tensor, runs, folder):
    """Time the steps of an open session's file on ``tensor``, its network input.

    folder: for the profiler's own files; ONNX Runtime leaves ``optimised.onnx`` there, the graph that it really runs
    Raises BadInput for a runtime without a profiler.
    """
    if runtime not in PROFILERS:
        raise BadInput(
            "runtime {}: it has no layer profiler; there is one for {}.".format(runtime, ", ".join(PROFILERS))
        )
    return PROFILERS[runtime](session, tensor, runs, folder)


# -- ONNX Runtime -----------------------------------------------------------------------------------------------------
def _onnxruntime(session, tensor, runs, folder):
    ort = load_library("onnxruntime", "onnxruntime")
    from .sessions.ort import session_options

    options = session_options(ort, session.threads)
    options.enable_profiling = True
    options.profile_file_prefix = os.path.join(folder, "profile")
    options.optimized_model_filepath = os.path.join(folder, "optimised.onnx")
    path = session.artifact.file("model.onnx")
    profiled = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(WARM_UP + runs):
        profiled.run(None, {INPUT: tensor})
    with open(profiled.end_profiling(), encoding="utf-8") as handle:
        return {"profiler": "onnxruntime " + ort.__version__, "runs": runs, "steps": ort_steps(json.load(handle), runs)}


def ort_steps(events, runs):
    """Steps from ONNX Runtime's trace: every node's last ``runs`` kernel times, in the order of execution."""
    times = {}  # type: dict[str, list[float]]
    about = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"][: -len("_kernel_time")]
            times.setdefault(name, []).append(event["dur"] * 1e-3)
            about[name] = event["args"]
    return [
        {
            "name": name,
            "kind": about[name].get("op_name", "unknown"),
            "ms": sum(ms[-runs:]) / len(ms[-runs:]),
            "precision": _ort_precision(about[name]),
            "bytes": _ort_bytes(about[name]),
            "nodes": None,
        }
        for name, ms in times.items()
    ]


def _ort_values(args):
    """(type, shape) of every input and output; None where this version does not tell them."""
    if "input_type_shape" not in args or "output_type_shape" not in args:
        return None
    return [pair for value in args["input_type_shape"] + args["output_type_shape"] for pair in value.items()]


def _ort_bytes(args):
    values = _ort_values(args)
    return None if values is None else sum(_count(shape) * _VALUE_BYTES.get(kind, 1) for kind, shape in values)


def _ort_precision(args):
    values = _ort_values(args)
    return _PRECISIONS.get(values[0][0]) if values else None


def _count(shape):
    count = 1
    for size in shape:
        count *= size
    return count


# -- OpenVINO ---------------------------------------------------------------------------------------------------------
def _openvino(session, tensor, runs, folder):
    openvino = load_library("openvino", "openvino")
    from .sessions.ov import session_options

    core = openvino.Core()
    model = core.read_model(session.artifact.file("model.onnx"))
    compiled = core.compile_model(model, "CPU", dict(session_options(session.threads), PERF_COUNT=True))
    request = compiled.create_infer_request()
    times = {}  # type: dict[str, list[float]]
    for number in range(WARM_UP + runs):
        request.infer({INPUT: tensor}, share_inputs=True)
        if number >= WARM_UP:
            for info in request.get_profiling_info():
                if str(info.status).endswith("EXECUTED"):
                    times.setdefault(info.node_name, []).append(info.real_time.total_seconds() * 1e3)
    steps = openvino_steps(times, compiled.get_runtime_model().get_ordered_ops(), runs)
    return {"profiler": "openvino " + openvino.__version__, "runs": runs, "steps": steps}


def openvino_steps(times, nodes, runs):
    """Steps from the times by node name and the compiled graph's nodes, whose notes tell what was fused into each."""
    steps = []
    for node in nodes:
        if node.get_friendly_name() not in times:
            continue
        notes = {name: str(value.value) for name, value in node.get_rt_info().items()}
        names = [name for name in notes.get("originalLayersNames", "").split(",") if name]
        ports = list(node.inputs()) + list(node.outputs())
        steps.append(
            {
                "name": node.get_friendly_name(),
                "kind": notes.get("layerType", node.get_type_name()),
                "ms": sum(times[node.get_friendly_name()]) / runs,
                "precision": _PRECISIONS.get(notes.get("runtimePrecision", "")),
                "bytes": sum(_port_bytes(port) for port in ports),
                "nodes": names,
            }
        )
    return steps


def _port_bytes(port):
    shape = port.get_partial_shape()
    return _count(int(d) for d in shape.to_shape()) * port.get_element_type().size if shape.is_static else 0


# -- TensorRT ---------------------------------------------------------------------------------------------------------
def _tensorrt(session, tensor, runs, folder):
    """Every TensorRT: the execution context calls a profiler back after each run that it waits for."""
    tensorrt = load_library("tensorrt", "tensorrt8")

    class Timer(tensorrt.IProfiler):  # type: ignore[name-defined]
        def __init__(self):
            super(Timer, self).__init__()
            self.times = {}

        def report_layer_time(self, layer_name, ms):
            self.times.setdefault(layer_name, []).append(ms)

    timer = Timer()
    with session.profiled(timer):
        for _ in range(WARM_UP + runs):
            session.infer({INPUT: tensor})
    return {"profiler": "tensorrt " + tensorrt.__version__, "runs": runs, "steps": tensorrt_steps(timer.times, runs)}


def tensorrt_steps(times, runs):
    """Steps from the times by layer name; TensorRT tells neither types nor sizes here."""
    return [
        {
            "name": name,
            "kind": "Reformat" if name.startswith("Reformatting ") else "Layer",
            "ms": sum(ms[-runs:]) / len(ms[-runs:]),
            "precision": None,
            "bytes": None,
            "nodes": None,
        }
        for name, ms in times.items()
    ]


PROFILERS = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt8": _tensorrt,
    "tensorrt10": _tensorrt,
    "tensorrt11": _tensorrt,
}
