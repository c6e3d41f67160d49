"""Multi-scale testing: the passes, the way back from the mirrored image, and the three ways of merging by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.evaluation.tta import TestTime as Options
from edgekit.evaluation.tta import augmented, by_nms, by_soft_nms, by_vote, joined, mirrored, open_detector, sizes
from edgekit.models.checkpoint import checkpoint_manifest, write_checkpoint
from edgekit.models.zoo import build
from edgekit.recipe import load_recipe
from edgekit.runtime.detections import Detections
from edgekit.runtime.errors import BadConfig


def found(*rows):
    """Detections out of (x1, y1, x2, y2, score, class)."""
    values = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 4], values[:, 5].astype(np.int64))


def bright_columns(image):
    """A detector of the columns that are not black: one box around them, its score their mean."""
    columns = np.flatnonzero(image.any(axis=(0, 2)))
    if not len(columns):
        return Detections.empty()
    return found((columns[0], 0, columns[-1] + 1, image.shape[0], image.max() / 255, 0))


def image(width=20, height=10, start=3, end=8):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, start:end] = 255
    return pixels


def test_a_mirrored_image_gives_the_same_box():
    assert mirrored(bright_columns, image()).boxes.tolist() == [[3, 0, 8, 10]]
    assert mirrored(bright_columns, image(start=0, end=2)).boxes.tolist() == [[0, 0, 2, 10]]


def test_a_mirrored_image_without_objects():
    assert len(mirrored(bright_columns, np.zeros((4, 4, 3), np.uint8))) == 0


def test_every_pass_is_made():
    seen = []

    def watch(pixels):
        seen.append(pixels[0, 0, 0])
        return found((0, 0, 2, 2, 0.5, 0))

    augmented([watch, watch], Options(scales=(1, 2)))(image(start=0, end=1))
    assert seen == [255, 255, 0, 0]
    seen.clear()
    augmented([watch], Options(flip=False))(image())
    assert len(seen) == 1


A, B, C = (0, 0, 10, 10, 0.9, 0), (0, 0, 10, 8, 0.6, 0), (0, 0, 10, 9, 0.8, 1)


def test_joined_is_sorted_by_score():
    assert joined([found(B, C), found(A)]).scores.tolist() == pytest.approx([0.9, 0.8, 0.6])


def test_nms_is_within_a_class():
    kept = by_nms(joined([found(A), found(B, C)]), Options())
    assert kept.scores.tolist() == pytest.approx([0.9, 0.8])
    assert kept.class_ids.tolist() == [0, 1]


def test_soft_nms_decays_instead():
    """IoU of A and B is 0.8: 0.6 x exp(-0.64 / 0.5)."""
    kept = by_soft_nms(joined([found(A), found(B)]), Options(merge="soft"))
    assert kept.scores.tolist() == pytest.approx([0.9, 0.6 * np.exp(-1.28)])


def test_voted_boxes_are_weighted_means():
    """A and B overlap by 0.8; the lower edge is (0.9 x 10 + 0.6 x 8) / 1.5 = 9.2. C is of another class."""
    kept = by_vote(joined([found(A), found(B, C)]), Options(merge="vote"))
    assert kept.boxes[0].tolist() == pytest.approx([0, 0, 10, 9.2])
    assert kept.boxes[1].tolist() == pytest.approx([0, 0, 10, 9])
    assert kept.scores.tolist() == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize("merge", ["nms", "soft", "vote"])
def test_nothing_and_empty_boxes_can_be_merged(merge):
    nothing = augmented([lambda pixels: Detections.empty()], Options(merge=merge))(image())
    assert len(nothing) == 0
    flat = augmented([lambda pixels: found((3, 3, 3, 3, 0.5, 0))], Options(merge=merge, flip=False))(image())
    assert flat.boxes.tolist() == [[3, 3, 3, 3]]


def test_top_k_holds():
    boxes = found(*[(20 * i, 0, 20 * i + 10, 10, 0.9 - 0.1 * i, 0) for i in range(5)])
    assert len(augmented([lambda pixels: boxes], Options(flip=False, top_k=3))(image())) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"merge": "mean"}, "merge: expected one of nms, soft, vote, got 'mean'"),
        ({"scales": ()}, "scales: expected factors"),
        ({"scales": (1, 0)}, "scales: expected factors"),
        ({"scales": (float("nan"),)}, "scales: expected factors"),
        ({"iou": 0}, "iou: expected an overlap"),
        ({"top_k": 0}, "top_k: expected at least 1"),
    ],
)
def test_wrong_options_are_named(values, message):
    with pytest.raises(BadConfig, match=message):
        Options(**values)


def artifact(kind, name="mobile-centernet", size=(96, 64), options=None):
    recipe = {"model": {"name": name, "options": options or {}}}
    return SimpleNamespace(
        kind=kind, path="a", preprocess=SimpleNamespace(size=size), manifest={"recipe": recipe, "preprocess": {}}
    )


@pytest.mark.parametrize(
    ("name", "size", "scales", "wanted"),
    [
        ("mobile-centernet", (96, 64), (0.5, 1, 1.5), [(64, 32), (96, 64), (160, 96)]),
        ("refinedet", (320, 320), (0.6, 1, 1.6), [(192, 192), (320, 320), (512, 512)]),
        ("pelee", (304, 304), (0.1, 1.5), [(30, 30), (456, 456)]),
    ],
)
def test_sizes_are_those_that_the_network_takes(name, size, scales, wanted):
    assert sizes(artifact("checkpoint", name, size), scales) == wanted


def test_an_exported_file_has_one_size():
    assert sizes(artifact("onnx"), (1.0,)) == [(96, 64)]
    with pytest.raises(BadConfig, match="an exported file has one input size, 96x64; give the checkpoint"):
        sizes(artifact("onnx"), (1.0, 2.0))


def test_a_checkpoint_is_rebuilt_at_every_size(tmp_path):
    """An SSD's anchors belong to a size: its boxes stay inside the image only where they are made anew."""
    import torch

    torch.manual_seed(0)
    recipe = load_recipe("ssdlite-mobilenet-v2", ["preprocess.size=[64, 64]", "classes=[a, b]"])
    model = build(recipe.model.name, 2, recipe.model.options, (64, 64))
    checkpoint = write_checkpoint(tmp_path / "checkpoint", model, checkpoint_manifest(recipe))
    pixels = np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)
    with open_detector(checkpoint, "pytorch", Options(scales=(1, 2), flip=True)) as detect:
        both = detect(pixels)
    with open_detector(checkpoint, "pytorch", Options(flip=False)) as detect:
        single = detect(pixels)
    with open_detector(checkpoint, "pytorch", None) as detect:
        plain = detect(pixels)
    assert {tuple(box) for box in single.boxes} <= {tuple(box) for box in plain.boxes}  # NMS twice, other rounding
    assert 95 <= len(single) <= len(plain) <= 100
    assert 0 < len(both) <= 100
    assert both.boxes[:, [0, 2]].mean() == pytest.approx(40, abs=15)
    assert checkpoint.manifest["preprocess"]["size"] == [64, 64]
