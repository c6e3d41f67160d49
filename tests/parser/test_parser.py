"""NVIDIA's own parser and builder (TensorRT-RTX, no GPU) on the files that EdgeKit exports, by EdgeKit's own builder.

It shows that the files are accepted and engines come out, for three generations of GPUs. It shows neither speed nor
boxes: nothing runs. TensorRT 8.2, which a Jetson TX2 has, is another and older parser.
"""

import os
import re

import pytest

from edgekit.conversion.graph import last_layers, load_model, name_nodes

pytestmark = pytest.mark.parser

GPUS = ("SM75", "SM86", "SM89")
# recipe -> input size, smaller than the recipe's where the network takes any: (width, height)
FEW = {"mobile-centernet-w16": (128, 96), "ssdlite-mobilenet-v2": None}
MORE = {
    "yolov3-tiny": None,
    "thundernet-snet49": None,
    "fpnlite-64": None,
    "peleenet-prn": None,
    "csppeleenet-efm-sam": None,
    "ssdlite-mobilenet-v3-large": None,
    "mobile-centernet-w32": None,
}


def jobs(files, recipe, size):
    made = files(recipe, size)
    kinds = [(made.export(), "fp32", False), (made.half(), "fp16", False), (made.quantized(), "int8", True)]
    return [
        {"path": str(path), "precision": precision, "quantized": quantized, "sm": sm}
        for path, precision, quantized in kinds
        for sm in GPUS
    ]


def known_limit(job, one):
    """TensorRT-RTX has no FP32 matrix product for Turing, which fully connected layers need; TensorRT itself has."""
    return job["sm"] == "SM75" and job["precision"] != "fp16" and "FP32 GEMM is not supported" in one["error"]


def check(found, wanted):
    pairs = zip(wanted, found, strict=True)
    failed = [(job, one) for job, one in pairs if "error" in one]
    faults = [f"{job['path']} for {job['sm']}: {one['error']}" for job, one in failed if not known_limit(job, one)]
    assert not faults, "\n".join(faults)
    built = [one for one in found if "error" not in one]
    assert len(built) >= 2 * len(GPUS)
    for one in built:
        assert one["bytes"] > 100_000
        assert one["magic"] == "vtrt"  # of TensorRT-RTX
        assert [end["name"] for end in one["inputs"]] == ["image"]
        assert [end["name"] for end in one["outputs"]] == ["boxes", "scores"]
        assert {end["dtype"] for end in one["inputs"] + one["outputs"]} == {"FLOAT"}
        assert one["timing"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(FEW))
def test_fp32_typed_fp16_and_qdq_become_engines(recipe, files, build_engines):
    wanted = jobs(files, recipe, FEW[recipe])
    check(build_engines(wanted), wanted)


@pytest.mark.skipif("EDGEKIT_NIGHTLY" not in os.environ, reason="the whole list runs with EDGEKIT_NIGHTLY=1")
@pytest.mark.parametrize("recipe", sorted(MORE))
def test_more_of_the_zoo(recipe, files, build_engines):
    wanted = jobs(files, recipe, MORE[recipe])
    check(build_engines(wanted), wanted)


def test_fp16_is_smaller_than_fp32_on_disk(files, build_engines):
    made = files("mobile-centernet-w16", FEW["mobile-centernet-w16"])
    single, half = build_engines(
        [
            {"path": str(made.export()), "precision": "fp32", "sm": "SM89"},
            {"path": str(made.half()), "precision": "fp16", "sm": "SM89"},
        ]
    )
    assert half["bytes"] < 0.75 * single["bytes"]


def test_the_decode_is_found_in_the_network_as_in_the_file(files, build_engines):
    """What TensorRT 8 and 10 keep in FP32 is found by walking TensorRT's network; here beside the same walk on ONNX."""
    made = files("mobile-centernet-w16", FEW["mobile-centernet-w16"])
    (found,) = build_engines([{"path": str(made.export()), "precision": "fp32", "sm": "SM89"}])
    model = load_model(made.export())
    name_nodes(model)
    decode, ends = set(found["decode"]), [node.name for node in last_layers(model)]
    assert 0 < len(decode) < found["layers"]
    names = [node.name for node in model.graph.node]
    before, after = names[: names.index(ends[0])], names[max(names.index(end) for end in ends) + 1 :]
    assert not decode.intersection(ends)
    assert not decode.intersection(before)
    # some nodes become several layers, and constants none; those that keep their name must be there
    assert len(decode.intersection(after)) > 0.5 * len(after)


def test_nms_as_a_layer_fits_the_network(files, build_engines):
    """INMSLayer and the gathers behind it are accepted by the network; TensorRT-RTX then has no kernel for NMS."""
    made = files("ssdlite-mobilenet-v2")
    postprocess = {"nms": "classwise", "score_threshold": 0.01, "iou_threshold": 0.5, "top_k": 100}
    job = {"path": str(made.export()), "precision": "fp32", "sm": "SM89", "nms": "layer", "postprocess": postprocess}
    (found,) = build_engines([job])
    assert found["type"] == "ChildDied"
    assert "[NMS] has no runners that implement it" in found["error"]


REFUSED = [
    ("nhwc_uint8", {"precision": "fp32"}, "BadInput", "UInt8"),
    ("nchw_float", {"precision": "fp16"}, "BadConfig", "the file is fp32, fp16 was asked for"),
    ("nchw_float", {"precision": "int8"}, "BadConfig", "no calibrators.*--flavour trt"),
]


@pytest.mark.parametrize(("layout", "asked", "kind", "words"), REFUSED, ids=["pixels", "fp16", "int8"])
def test_what_cannot_be_built_is_told(layout, asked, kind, words, files, build_engines):
    path = files("mobile-centernet-w16", FEW["mobile-centernet-w16"]).export(layout)
    (found,) = build_engines([{"path": str(path), "sm": "SM89", "declared": "fp32", **asked}])
    assert found.get("type") == kind, found
    assert re.search(words, found["error"])
