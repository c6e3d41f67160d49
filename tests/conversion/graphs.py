"""Tiny ONNX graphs for tests."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper


def f32(value: Any) -> NDArray[np.float32]:
    return np.asarray(value, np.float32)


TYPES = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}
TYPES |= {"int32": TensorProto.INT32, "bool": TensorProto.BOOL}


def graph(nodes, inputs, outputs, constants=None, opset=13):
    """nodes: (operator, inputs, outputs, attributes); inputs and outputs: name -> (type, shape)."""

    def values(table):
        return [helper.make_tensor_value_info(name, TYPES[kind], shape) for name, (kind, shape) in table.items()]

    made = [helper.make_node(kind, ins, outs, name=f"n_{outs[0]}", **more) for kind, ins, outs, more in nodes]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    model = helper.make_model(
        helper.make_graph(made, "g", values(inputs), values(outputs), tensors),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=7,
    )
    checker.check_model(model, full_check=True)
    return model


def run(model, feeds):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)
