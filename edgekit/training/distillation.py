"""Structured knowledge distillation: pixel-wise and pair-wise terms (Mobile CenterNet, section 3.2, eq. 8-11).

For keypoint heads they are the paper's own. Anchor heads have classes and boxes at every anchor in the place of heat
maps, and any two maps of the networks can be compared beside that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..models.detector import Detector
from ..models.heads.centernet import CenterMaps
from ..recipe import DistillationSection, FeaturePairSection
from ..runtime.errors import BadConfig
from .boxes import giou_loss
from .losses import PROBABILITY_FLOOR
from .tasks.base import Responses, Share, Task

NORM_FLOOR = 1e-4  # shorter feature vectors count as zero: the cosine's gradient grows with 1 / length

Divergence = Literal["bernoulli", "softmax"]
Direction = Literal["student-teacher", "teacher-student"]


def pixel_wise(
    student: Tensor, teacher: Tensor, divergence: Divergence = "bernoulli", direction: Direction = "student-teacher"
) -> Tensor:
    """Eq. 8: mean over pixels (and over the batch) of KL(student || teacher) between heat maps [N, C, H', W'] (logits).

    The heat maps are sigmoid outputs, not a distribution over classes, so eq. 8 leaves its KL open. "bernoulli" takes
    the KL of each class's Bernoulli variable and sums over classes; "softmax" makes a distribution over classes first.
    direction: which distribution the expectation is taken under; eq. 8 prints student || teacher.
    """
    student, teacher = student.float(), teacher.detach().float()
    p, q = (student, teacher) if direction == "student-teacher" else (teacher, student)
    if divergence == "softmax":
        log_p, log_q = p.log_softmax(1), q.log_softmax(1)
        return (log_p.exp() * (log_p - log_q)).sum(1).mean()
    p, q = (x.sigmoid().clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR) for x in (p, q))
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return kl.sum(1).mean()


def pair_wise(student: Tensor, teacher: Tensor) -> Tensor:
    """Eq. 9, 10: mean squared difference of the cosine similarities of all pixel pairs, mean over the batch.

    student: [N, Cs, H', W'], teacher: [N, Ct, H', W']; the widths may differ.
    With pixels as unit rows of F [P, C], the sum over pairs of (Fs Fs^T - Ft Ft^T)^2 is a Frobenius norm, and
    |Fs Fs^T - Ft Ft^T|^2 = |Fs^T Fs|^2 + |Ft^T Ft|^2 - 2 |Fs^T Ft|^2
    needs only C x C matrices. That is exact, where eq. 10 as printed takes two P x P ones: at 144x80, P = 11,520 and
    each is half a gigabyte.
    """
    # the difference of three nearly equal numbers: float64 keeps the digits that float32 would lose
    s = F.normalize(student.double().flatten(2), dim=1, eps=NORM_FLOOR)  # [N, Cs, P]
    t = F.normalize(teacher.detach().double().flatten(2), dim=1, eps=NORM_FLOOR)
    pixels = s.shape[2]
    total = _gram(s, s) + _gram(t, t) - 2 * _gram(s, t)
    return (total / pixels**2).mean().float()


def _gram(a: Tensor, b: Tensor) -> Tensor:
    """Squared Frobenius norm of a b^T for each image: [N, Ca, P], [N, Cb, P] -> [N]."""
    return (a @ b.transpose(1, 2)).square().sum((1, 2))


class DistillationLoss(torch.nn.Module):
    """Eq. 11's two additional terms: lambda_pa L_pa + lambda_pi L_pi. A weight of 0 skips the term's computation."""

    def __init__(
        self,
        pixel: float = 0.1,
        pair: float = 10.0,
        divergence: Divergence = "bernoulli",
        direction: Direction = "student-teacher",
    ) -> None:
        super().__init__()
        self.pixel, self.pair = pixel, pair
        self.divergence: Divergence = divergence
        self.direction: Direction = direction

    def forward(self, student: CenterMaps, teacher: CenterMaps) -> dict[str, Tensor]:
        """The named terms and, under ``loss``, their weighted sum."""
        terms: dict[str, Tensor] = {}
        if self.pixel:
            terms["pixel"] = pixel_wise(student.heatmap, teacher.heatmap, self.divergence, self.direction)
        if self.pair:
            terms["pair"] = pair_wise(student.features, teacher.features)
        zero = student.heatmap.new_zeros((), dtype=torch.float32)
        terms["loss"] = self.pixel * terms.get("pixel", zero) + self.pair * terms.get("pair", zero)
        return terms


# -- any head ---------------------------------------------------------------------------------------------------------
def response(student: Responses, teacher: Responses, share: Share, direction: Direction = "student-teacher") -> Tensor:
    """Eq. 8 for anchors: the mean KL of the class predictions, each anchor weighted by the teacher's foreground.

    Of thousands of anchors a few dozen lie on objects; a plain mean would teach the background alone. The mean is over
    all processes, as everywhere: ``share`` makes of this one's sum of weights what to divide by.
    """
    s, t = student.logits.float(), teacher.logits.detach().float()
    p, q = (s, t) if direction == "student-teacher" else (t, s)
    if student.activation == "softmax":
        log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    else:
        # log sigmoid(x) and log (1 - sigmoid(x)) = log sigmoid(-x)
        p_yes, p_no, q_yes, q_no = F.logsigmoid(p), F.logsigmoid(-p), F.logsigmoid(q), F.logsigmoid(-q)
        kl = (p_yes.exp() * (p_yes - q_yes) + p_no.exp() * (p_no - q_no)).sum(-1)
    return _weighted(kl, teacher, share)


def box_response(student: Responses, teacher: Responses, share: Share) -> Tensor:
    """1 - GIoU of the boxes that both networks predict at each anchor, weighted by the teacher's foreground."""
    return _weighted(giou_loss(student.boxes, teacher.boxes.detach()), teacher, share)


def _weighted(values: Tensor, teacher: Responses, share: Share) -> Tensor:
    weight = teacher.foreground.detach().float()
    return (weight * values).sum() / share(weight.sum())


def pair_wise_maps(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Eq. 10, mean over pairs of maps; the teacher's are resized to the student's where they differ."""
    return torch.stack([pair_wise(s, resized(t, s)) for s, t in zip(student, teacher, strict=True)]).mean()


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Pixel-wise distillation of feature maps: mean squared difference (FitNets, Romero et al. 2015, eq. 3)."""
    return (student.float() - resized(teacher, student).detach().float()).square().mean()


def resized(teacher: Tensor, student: Tensor) -> Tensor:
    if teacher.shape[2:] == student.shape[2:]:
        return teacher
    return F.interpolate(teacher.float(), student.shape[2:], mode="bilinear", align_corners=False)


class Tap:
    """Named maps of a network: fields of its raw output, or outputs of its layers; ``name[i]`` is the i-th of several.

    Raises BadConfig for a name that is neither.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], fields: Sequence[str]) -> None:
        self._kept: dict[str, Any] = {}
        layers = dict(network.named_modules())
        for name in names:
            path = self._parts(name)[0]
            if path in fields:
                continue
            if path not in layers:
                raise BadConfig(
                    f"distillation.features: no map {name!r}; there are the outputs {', '.join(fields)}, and those of "
                    f"the layers {', '.join(n for n in layers if n and n.count('.') < 2)}"
                )
            layers[path].register_forward_hook(lambda _, __, output, path=path: self._kept.update({path: output}))

    def __call__(self, name: str, maps: Any) -> Tensor:
        path, index = self._parts(name)
        value = getattr(maps, path) if path in getattr(maps, "_fields", ()) else self._kept[path]
        if index is not None:
            value = value[index]
        if not isinstance(value, Tensor) or value.ndim != 4:
            raise BadConfig(
                f"distillation.features: {name!r} is no map of [N, C, H, W]; of several, name one: {path}[0]"
            )
        return value

    def forget(self) -> None:
        """Let the last batch's maps go, which would stay in memory through the next forward pass."""
        self._kept.clear()

    @staticmethod
    def _parts(name: str) -> tuple[str, int | None]:
        match = re.fullmatch(r"([\w.]+)(?:\[(\d+)\])?", name)
        if match is None:
            raise BadConfig(f"distillation.features: {name!r} is no name like backbone.stem or features[0]")
        return match[1], int(match[2]) if match[2] else None


class Distillation(nn.Module):
    """All terms of a recipe's ``distillation``: (student's raw maps, teacher's, share) -> named terms and, under
    ``loss``, their weighted sum.

    size: width and height of an input, with which both networks are tried on the meta device.
    Raises BadConfig for networks whose maps cannot be compared.
    """

    def __init__(
        self,
        section: DistillationSection,
        task: Task,
        student: Detector,
        teacher: Detector,
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.section, self.task = section, task
        self._networks = (student, teacher)  # a tuple: no part of this module's state
        self._maps = DistillationLoss(section.pixel, section.pair, section.divergence, section.direction)
        outputs = dry_run(student, size), dry_run(teacher, size)
        self._check(*outputs)
        self._taps = [
            Tap(network, [getattr(pair, role) for pair in section.features], output._fields)
            for network, role, output in zip(self._networks, ("student", "teacher"), outputs, strict=True)
        ]
        outputs = dry_run(student, size), dry_run(teacher, size)  # with the taps in place
        self.adapters = nn.ModuleList(self._adapter(pair, *outputs) for pair in section.features)

    def _check(self, student: Any, teacher: Any) -> None:
        if type(student) is not type(teacher):
            raise BadConfig("distillation: teacher and student need heads of one kind")
        ours, theirs = self._responses(student, 0), self._responses(teacher, 1)
        if ours is not None and theirs is not None and ours.logits.shape != theirs.logits.shape:
            raise BadConfig(
                f"distillation: teacher and student need the same anchors and classes, found "
                f"{list(theirs.logits.shape[1:])} and {list(ours.logits.shape[1:])}"
            )
        if self.section.pair and len(student.features) != len(teacher.features):
            raise BadConfig(
                f"distillation.pair: the heads read {len(student.features)} and {len(teacher.features)} maps; "
                f"set it to 0 and name pairs in distillation.features"
            )

    def _adapter(self, pair: FeaturePairSection, student: Any, teacher: Any) -> nn.Module:
        cin, cout = self._taps[0](pair.student, student).shape[1], self._taps[1](pair.teacher, teacher).shape[1]
        return nn.Identity() if cin == cout or not pair.pixel else nn.Conv2d(cin, cout, 1, bias=False)

    def _responses(self, maps: Any, network: int) -> Responses | None:
        return self.task.responses(maps, self._networks[network])

    def forward(self, student: Any, teacher: Any, share: Share) -> dict[str, Tensor]:
        terms = self._head_terms(student, teacher, share)
        for i, (pair, adapter) in enumerate(zip(self.section.features, self.adapters, strict=True)):
            ours, theirs = self._taps[0](pair.student, student).float(), self._taps[1](pair.teacher, teacher).detach()
            if pair.pixel:
                terms[f"pixel{i}"] = hint(adapter(ours), theirs)
                terms["loss"] = terms["loss"] + pair.pixel * terms[f"pixel{i}"]
            if pair.pair:
                terms[f"pair{i}"] = pair_wise_maps([ours], [theirs])
                terms["loss"] = terms["loss"] + pair.pair * terms[f"pair{i}"]
        for tap in self._taps:
            tap.forget()
        return terms

    def _head_terms(self, student: Any, teacher: Any, share: Share) -> dict[str, Tensor]:
        ours, theirs = self._responses(student, 0), self._responses(teacher, 1)
        if ours is None or theirs is None:
            return self._maps(student, teacher)
        section = self.section
        terms: dict[str, Tensor] = {}
        if section.pixel:
            terms["pixel"] = response(ours, theirs, share, section.direction)
        if section.box:
            terms["box_response"] = box_response(ours, theirs, share)
        if section.pair:
            terms["pair"] = pair_wise_maps(student.features, teacher.features)
        weights = {"pixel": section.pixel, "box_response": section.box, "pair": section.pair}
        zero = ours.logits.new_zeros((), dtype=torch.float32)
        terms["loss"] = sum((weights[name] * value for name, value in terms.items()), zero)
        return terms


def dry_run(network: nn.Module, size: tuple[int, int]) -> Any:
    """The raw maps of one image of ``size`` (width, height), as shapes: on the meta device nothing is computed."""
    modes = {module: module.training for module in network.modules()}
    weights: Mapping[str, Tensor] = {
        name: value.detach().to("meta") for name, value in [*network.named_parameters(), *network.named_buffers()]
    }
    network.eval()  # batch statistics of a 1x1 map do not exist
    try:
        with torch.no_grad():
            return functional_call(network, dict(weights), (torch.empty(1, 3, size[1], size[0], device="meta"),))
    finally:
        for module, mode in modes.items():
            module.training = mode
