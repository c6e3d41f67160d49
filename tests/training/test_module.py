"""The schedule, the weight average, and what the Lightning module holds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.models.deformable import offset_parameters
from edgekit.models.zoo import build
from edgekit.recipe import Recipe, ScheduleSection, TrainSection, load_recipe
from edgekit.training.ema import WeightAverage
from edgekit.training.module import DetectorModule, lr_factor
from edgekit.training.optimizer import optimizer_of


def module_of(recipe: Recipe, **options: object) -> DetectorModule:
    torch.manual_seed(0)
    model = build(recipe.model.name, len(recipe.classes), recipe.model.options)
    return DetectorModule(recipe, model, [9, 3, 1], steps_per_epoch=2, **options)  # type: ignore[arg-type]


# -- the schedule -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (44.99, 1), (45, 0.1), (54.99, 0.1), (55, 0.01), (59.99, 0.01)])
def test_the_papers_steps(epoch: float, factor: float) -> None:
    schedule = ScheduleSection(warmup_steps=0)
    assert lr_factor(schedule, round(epoch * 100), 100, 60) == pytest.approx(factor)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (5, 0.1 + 0.9 / 2), (10, 0.1), (12, 0.1)])
def test_cosine(epoch: int, factor: float) -> None:
    schedule = ScheduleSection(kind="cosine", final=0.1, warmup_steps=0)
    assert lr_factor(schedule, epoch * 7, 7, 10) == pytest.approx(factor)


def test_warm_up_is_linear_and_never_zero() -> None:
    schedule = ScheduleSection(warmup_steps=4)
    factors = [lr_factor(schedule, step, 100, 60) for step in range(6)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_warm_up_from_a_share_and_by_a_power() -> None:
    """RefineDet++ ramps from 3.125e-4 to 4e-3; darknet burns in with the fourth power."""
    ramp = ScheduleSection(warmup_steps=3, warmup_from=0.2)
    assert [lr_factor(ramp, step, 100, 60) for step in range(4)] == pytest.approx([0.4, 0.6, 0.8, 1])
    burn_in = ScheduleSection(warmup_steps=3, warmup_power=4)
    assert [lr_factor(burn_in, step, 100, 60) for step in range(4)] == pytest.approx([1 / 256, 1 / 16, 81 / 256, 1])


def test_exponential_decay() -> None:
    schedule = ScheduleSection(kind="exponential", rate=0.5, every=2, warmup_steps=0)
    assert [lr_factor(schedule, epoch * 7, 7, 60) for epoch in (0, 1, 2, 5, 6)] == [1, 1, 0.5, 0.25, 0.125]


# -- optimisers -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("section", "expected"),
    [
        # gradient 2 in both steps, rate 0.1
        ({"kind": "sgd", "momentum": 0.5}, [1 - 0.2, 1 - 0.2 - 0.3]),
        ({"kind": "sgd", "momentum": 0}, [0.8, 0.6]),
        # mean of squares 0.1 * 4, then 0.9 * 0.4 + 0.4; epsilon 1 is added to its root
        (
            {"kind": "rmsprop", "decay": 0.9, "momentum": 0, "epsilon": 1},
            [1 - 0.2 / (1 + 0.4**0.5), 1 - 0.2 / (1 + 0.4**0.5) - 0.2 / (1 + 0.76**0.5)],
        ),
        ({"kind": "adam"}, [0.9, 0.8]),
        ({"kind": "adamw"}, [0.9, 0.8]),
    ],
)
def test_optimisers_by_hand(section: dict[str, object], expected: list[float]) -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    train = TrainSection.model_validate({"lr": 0.1, "optimizer": section})
    optimizer = optimizer_of(train, [weight])
    for value in expected:
        weight.grad = torch.tensor([2.0])
        optimizer.step()
        assert weight.item() == pytest.approx(value, rel=1e-5)


def test_what_is_learnt_beside_the_network_takes_no_decay() -> None:
    weight, beside = (nn.Parameter(torch.ones(1)) for _ in range(2))
    train = TrainSection.model_validate({"lr": 0.1, "weight_decay": 0.5, "optimizer": {"kind": "sgd", "momentum": 0}})
    optimizer = optimizer_of(train, [weight], [beside])
    weight.grad, beside.grad = torch.zeros(1), torch.zeros(1)
    optimizer.step()
    assert (weight.item(), beside.item()) == (pytest.approx(0.95), 1)


def test_what_moves_the_taps_of_a_deformable_convolution_learns_at_a_tenth() -> None:
    """DCNv2, section 3.2. Adam's first step is the rate, whatever the gradient; no parameter is in two groups."""
    model = build("centernet", 3, {"backbone": "resnet-18"})
    offsets = offset_parameters(model)
    assert [p.shape[0] for p in offsets] == [27] * 6  # weight and bias, three convolutions of nine taps
    optimizer = optimizer_of(TrainSection(lr=0.1), model.parameters(), offsets=offsets)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    optimizer.step()
    slow = set(map(id, offsets))
    for old, new in zip(before, model.parameters(), strict=True):
        expected = old - (0.01 if id(new) in slow else 0.1)
        torch.testing.assert_close(new.detach(), expected, rtol=0, atol=1e-5)


# -- the average ------------------------------------------------------------------------------------------------------
def test_the_average_by_hand() -> None:
    """Decay min(0.5, (1 + n) / (10 + n)): 1/10, 2/11, 3/12 and, from the ninth step on, 0.5."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.5)
    expected = 0.0
    for n in range(12):
        nn.init.constant_(model.weight, n + 1.0)
        average.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * (n + 1)
        weight = average.model.weight
        assert isinstance(weight, torch.Tensor)
        assert weight.item() == pytest.approx(expected)
    assert average.steps == 12


def test_the_average_of_a_norm() -> None:
    """Its statistics are averaged, its count is copied, and it stays in evaluation mode without gradients."""
    model = nn.BatchNorm1d(2, momentum=1.0)
    average = WeightAverage(model, 0.0)
    average.train()
    model(torch.tensor([[0.0, 2.0], [4.0, 2.0]]))
    average.update(model)
    shadow = average.model
    assert isinstance(shadow, nn.BatchNorm1d)
    assert shadow.running_mean is not None
    assert shadow.running_mean.tolist() == [2, 2]
    assert shadow.num_batches_tracked == 1
    assert not shadow.training
    assert not any(p.requires_grad for p in average.parameters())


# -- the module -------------------------------------------------------------------------------------------------------
def test_names_of_the_state_are_stable(tiny: Path) -> None:
    """Resume files are read by them; and a teacher is neither trained nor saved."""
    recipe = load_recipe(tiny, ["distillation={}", "teacher={recipe: a, weights: b}"])
    teacher = build("mobile-centernet", 3, {"backbone": "hrnet-w32"})
    module = module_of(recipe, teacher=teacher)
    own = build("mobile-centernet", 3).state_dict().keys()
    expected = {f"model.{k}" for k in own} | {f"average.model.{k}" for k in own} | {"average.steps", "loss.weights"}
    assert module.state_dict().keys() == expected
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == 1_616_135


def test_class_weights_come_from_the_counts_unless_switched_off(tiny: Path) -> None:
    middle = 9 * (3**0.75 - 1) / (9**0.75 - 1) + 1
    assert module_of(load_recipe(tiny)).loss.get_buffer("weights").tolist() == pytest.approx([1, middle, 10])
    assert module_of(load_recipe(tiny, ["loss.balanced=false"])).loss.get_buffer("weights").tolist() == [1, 1, 1]


def test_images_are_normalised_as_on_the_board(tiny: Path) -> None:
    """The same bits as ``Preprocess.normalise``."""
    recipe = load_recipe(tiny)
    canvas = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    image = module_of(recipe)._normalise(torch.from_numpy(canvas).permute(2, 0, 1)[None])
    np.testing.assert_array_equal(image[0].numpy(), recipe.preprocess.value().normalise(canvas))
    assert image.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("frozen", [False, True])
def test_freeze_norm(tiny: Path, frozen: bool) -> None:
    module = module_of(load_recipe(tiny, [f"train.freeze_norm={str(frozen).lower()}"]))
    norms = [m for m in module.model.modules() if isinstance(m, nn.BatchNorm2d)]
    for mode in (True, False, True):
        module.train(mode)
        assert {norm.training for norm in norms} == {mode and not frozen}
        assert module.model.training is mode
        assert not module.average.model.training
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    module.model(torch.randn(2, 3, 32, 32))
    after = [norm.running_mean for norm in norms if norm.running_mean is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) is frozen
    assert math.prod(p.requires_grad for norm in norms for p in norm.parameters())
