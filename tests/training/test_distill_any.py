"""Distillation of any head: responses of anchors, named maps of two networks, adapters between widths."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.models.anchors import AnchorMaps, grid_anchors
from edgekit.models.detector import Detector
from edgekit.models.heads.ssd import cells
from edgekit.recipe import DistillationSection
from edgekit.runtime.errors import BadConfig
from edgekit.training.distillation import Distillation, box_response, hint, pair_wise, pair_wise_maps, response
from edgekit.training.tasks import TASKS
from edgekit.training.tasks.base import Responses

from .test_tasks import alone

SIZE = (16, 16)


class Small(Detector):
    """Two convolutions and a head of one anchor a cell, at stride 4."""

    task = "anchors"
    nms = "classwise"
    activation = "softmax"
    anchors: Tensor

    def __init__(self, width: int, classes: int = 2, cells_a_side: int = 4) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 2, 1)
        )
        self.predict = nn.Conv2d(width, 5 + classes, 1)
        self.register_buffer("anchors", grid_anchors((cells_a_side,) * 2, (4.0, 4.0), [(8.0, 8.0)]), persistent=False)

    def forward(self, image: Tensor) -> AnchorMaps:
        x = self.backbone(image)
        rows = cells([self.predict(x)], self.predict.out_channels)
        return AnchorMaps(rows[..., :4], rows[..., 4:], self.anchors, (x,))


def two(width: int = 6, **teacher: int) -> tuple[Small, Small]:
    torch.manual_seed(0)
    return Small(4), Small(width, **teacher)


def distill(section: dict[str, Any], student: Detector, teacher: Detector) -> tuple[Distillation, dict[str, Tensor]]:
    """The terms of one random batch."""
    found = Distillation(DistillationSection.model_validate(section), TASKS["anchors"], student, teacher, SIZE)
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        taught = teacher(image)
    return found, found(student(image), taught, alone)


# -- responses --------------------------------------------------------------------------------------------------------
def responses(probabilities: list[list[float]], foreground: list[float], shift: float = 0.0) -> Responses:
    logits = torch.tensor([probabilities]).log()
    box = torch.tensor([0.0, 0, 2, 2]) + shift
    return Responses(logits, "softmax", box.expand(1, len(foreground), 4), torch.tensor([foreground]))


def test_responses_by_hand() -> None:
    """KL(1/4, 3/4 || 1/2, 1/2) at one anchor and 0 at the other, weighted 3 to 1."""
    student = responses([[0.25, 0.75], [0.5, 0.5]], [0, 0])
    teacher = responses([[0.5, 0.5], [0.5, 0.5]], [0.9, 0.3])
    kl = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert response(student, teacher, alone).item() == pytest.approx(0.75 * kl, rel=1e-5)
    other = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert response(student, teacher, alone, "teacher-student").item() == pytest.approx(0.75 * other, rel=1e-5)


def test_responses_of_sigmoids_by_hand() -> None:
    student = Responses(torch.tensor([[[0.2]]]).logit(), "sigmoid", torch.zeros(1, 1, 4), torch.zeros(1, 1))
    teacher = Responses(torch.tensor([[[0.6]]]).logit(), "sigmoid", torch.zeros(1, 1, 4), torch.ones(1, 1))
    expected = 0.2 * math.log(0.2 / 0.6) + 0.8 * math.log(0.8 / 0.4)
    assert response(student, teacher, alone).item() == pytest.approx(expected, rel=1e-5)


def test_boxes_by_hand() -> None:
    """Squares of 2 that share a square of 1, at one of two anchors; GIoU 1/7 - 2/9."""
    teacher = responses([[0.5, 0.5]] * 2, [0.9, 0.3])
    assert box_response(teacher, teacher, alone).item() == pytest.approx(0, abs=1e-6)
    student = responses([[0.5, 0.5]] * 2, [0, 0], shift=1.0)
    student.boxes[0, 1] = teacher.boxes[0, 1]
    apart = responses([[0.5, 0.5]] * 2, [0, 0], shift=1.0)
    assert box_response(apart, teacher, alone).item() == pytest.approx(1 - 1 / 7 + 2 / 9, rel=1e-5)


def test_a_teacher_that_sees_nothing_teaches_nothing() -> None:
    student = responses([[0.25, 0.75]], [0])
    assert response(student, responses([[0.5, 0.5]], [0.0]), alone).item() == 0


@pytest.mark.parametrize("term", [response, box_response])
def test_two_processes_have_the_mean_of_one_with_both_batches(term: Any) -> None:
    """One sees an object, the other hardly anything: a mean of its own would give its few weights half of the loss."""
    ours = [responses([[0.25, 0.75], [0.5, 0.5]], [0, 0], shift=1.0), responses([[0.1, 0.9]] * 2, [0, 0], shift=0.5)]
    theirs = [responses([[0.5, 0.5]] * 2, [0.9, 0.8]), responses([[0.5, 0.5]] * 2, [0.1, 0.2])]
    each = [term(s, t, lambda _: torch.tensor(2.0) / 2) for s, t in zip(ours, theirs, strict=True)]  # 2.0 in all
    whole = (
        Responses(*(x if isinstance(x, str) else torch.cat([x, y]) for x, y in zip(*r, strict=True)))
        for r in (ours, theirs)
    )
    torch.testing.assert_close(sum(each) / 2, term(*whole, alone))


# -- networks ---------------------------------------------------------------------------------------------------------
def test_terms_and_their_sum() -> None:
    _, terms = distill({"pixel": 0.5, "pair": 20, "box": 2}, *two())
    assert terms.keys() == {"pixel", "pair", "box_response", "loss"}
    expected = 0.5 * terms["pixel"] + 20 * terms["pair"] + 2 * terms["box_response"]
    torch.testing.assert_close(terms["loss"], expected)


def test_responses_are_divided_by_the_share_of_all_processes() -> None:
    student, teacher = two()
    found, _ = distill({"pair": 1, "box": 1}, student, teacher)
    raw = student(torch.ones(1, 3, 16, 16)), teacher(torch.ones(1, 3, 16, 16))
    one, half = found(*raw, alone), found(*raw, lambda count: 2 * alone(count))
    for name, factor in {"pixel": 2, "box_response": 2, "pair": 1}.items():
        torch.testing.assert_close(one[name], factor * half[name])


def test_a_network_learns_nothing_from_itself() -> None:
    student, _ = two()
    _, terms = distill(
        {"box": 1, "features": [{"student": "backbone.0", "teacher": "backbone.0", "pixel": 1}]},
        student,
        student.eval(),
    )
    assert all(abs(value.item()) < 1e-6 for value in terms.values())


def test_named_maps_of_layers_and_of_outputs() -> None:
    pairs = [
        {"student": "backbone.0", "teacher": "backbone.0", "pixel": 1.0, "pair": 3.0},
        {"student": "features[0]", "teacher": "backbone.0", "pair": 5.0},  # 4x4 against 8x8 cells
    ]
    student, teacher = two()
    found, terms = distill({"pixel": 0, "pair": 0, "features": pairs}, student, teacher)
    assert terms.keys() == {"pixel0", "pair0", "pair1", "loss"}
    torch.testing.assert_close(terms["loss"], terms["pixel0"] + 3 * terms["pair0"] + 5 * terms["pair1"])
    assert [tuple(p.shape) for p in found.parameters()] == [
        (6, 4, 1, 1)
    ]  # an adapter from 4 to 6 channels, where asked for
    assert not [name for name in found.state_dict() if "adapter" not in name]
    terms["loss"].backward()
    assert all(p.grad is not None for p in found.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_modes_stay_as_they_were() -> None:
    student, teacher = two()
    distill({"features": [{"student": "backbone.0", "teacher": "backbone.0", "pixel": 1}]}, student, teacher.eval())
    assert all(m.training for m in student.modules())
    assert not any(m.training for m in teacher.modules())


def test_hints_by_hand() -> None:
    student, teacher = torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    assert hint(student, teacher).item() == (1 + 9) / 2


def test_pairs_of_several_maps_are_averaged() -> None:
    torch.manual_seed(0)
    ours, theirs = [torch.rand(1, 3, n, n) for n in (4, 2)], [torch.rand(1, 5, n, n) for n in (4, 2)]
    each = [pair_wise(s, t) for s, t in zip(ours, theirs, strict=True)]
    torch.testing.assert_close(pair_wise_maps(ours, theirs), (each[0] + each[1]) / 2)


@pytest.mark.parametrize(
    ("section", "teacher", "words"),
    [
        ({"features": [{"student": "body", "teacher": "backbone.0"}]}, {}, ["no map 'body'", "features", "backbone"]),
        ({"features": [{"student": "features", "teacher": "backbone"}]}, {}, ["'features' is no map", "features[0]"]),
        ({"features": [{"student": "a b", "teacher": "backbone"}]}, {}, ["'a b'", "backbone.stem"]),
        ({}, {"classes": 3}, ["same anchors"]),
    ],
)
def test_what_cannot_be_compared_is_named(section: dict[str, Any], teacher: dict[str, int], words: list[str]) -> None:
    with pytest.raises(BadConfig) as error:
        distill(section, *two(**teacher))
    for word in words:
        assert word in str(error.value)
