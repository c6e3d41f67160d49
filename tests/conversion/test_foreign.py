"""Reading files that others made: damaged at random, they are read or refused, and nothing else."""

import contextlib
import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.conversion.foreign import every_node, infer, read_foreign, shape_text, value_shape
from edgekit.runtime.errors import BadInput
from tests.conversion.test_lint import CASES, model

IMAGE = {"x": ("f", [1, 3, 8, 8])}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    made = model(
        [("Conv", ["x", "w"], ["c"], {}), ("Relu", ["c"], ["y"], {})], IMAGE, {"w": np.ones((4, 3, 3, 3), np.float32)}
    )
    path = tmp_path_factory.mktemp("whole") / "m.onnx"
    onnx.save(made, path)
    return path


def test_a_good_file_is_read_with_its_shapes(whole):
    made = infer(read_foreign(whole))
    assert value_shape(made.graph.output[0]) == (1, 4, 6, 6)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_read_or_refused(whole, tmp_path, seed):
    dice = random.Random(seed)
    data = bytearray(whole.read_bytes())
    for _ in range(dice.choice([1, 2, 5, 20])):
        data[dice.randrange(len(data))] = dice.randrange(256)
    (tmp_path / "m.onnx").write_bytes(bytes(data))
    with contextlib.suppress(BadInput):
        infer(read_foreign(tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\x00" * 100, "not a readable ONNX file|holds no ONNX graph"),
        (b"PK\x03\x04 a zip file, as PyTorch saves", "not a readable ONNX file|holds no ONNX graph"),
        (b"ftrt" + b"\x00" * 100, "not a readable ONNX file|holds no ONNX graph"),
        (b'{"json": true}', "not a readable ONNX file|holds no ONNX graph"),
    ],
)
def test_what_is_no_onnx_file(tmp_path, content, told):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BadInput, match=told):
        read_foreign(tmp_path / "m.onnx")


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(BadInput, match="is a folder"):
        read_foreign(tmp_path)
    with pytest.raises(BadInput, match="no such file"):
        read_foreign(tmp_path / "m.onnx")


def test_values_that_do_not_fit_their_shape(whole, tmp_path):
    made = onnx.load(whole)
    made.graph.initializer[0].raw_data = b"\0" * 8
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(BadInput, match="'w' do not fit its shape"):
        read_foreign(tmp_path / "m.onnx")


def test_a_type_that_onnx_does_not_have(whole, tmp_path):
    made = onnx.load(whole)
    made.graph.initializer[0].data_type = 97
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(BadInput, match="of type 97"):
        read_foreign(tmp_path / "m.onnx")


def test_a_plugin_is_no_reason_to_refuse(tmp_path):
    made = model([("EfficientNMS_TRT", ["x"], ["y"], {})], IMAGE)
    made.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1
    onnx.save(made, tmp_path / "m.onnx")
    assert read_foreign(tmp_path / "m.onnx").graph.node[0].op_type == "EfficientNMS_TRT"


def test_nodes_of_branches_are_told_with_what_holds_them():
    nodes = [(inside, node.op_type) for inside, node in every_node(CASES["if"][0].graph)]
    assert nodes[0] == ("", "If")
    assert set(nodes[1:]) == {("/detector/head/If_0", "Mish")}


def test_shapes_as_people_read_them():
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "h", None, 640])
    assert shape_text(value) == "[1, h, ?, 640]"
    assert value_shape(value) == (1, None, None, 640)
    assert shape_text(helper.make_tensor_value_info("x", TensorProto.FLOAT, None)) == "[?]"


def test_external_weights_keep_their_values(whole, tmp_path):
    onnx.save(onnx.load(whole), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    tensor = read_foreign(tmp_path / "m.onnx").graph.initializer[0]
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), np.ones((4, 3, 3, 3), np.float32))
