"""Fake quantization by hand, its places against the quantizer's own file, and what fine-tuning gains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.conversion.calibrate import activations
from edgekit.conversion.graph import layer_name, load_model, weighted_layers
from edgekit.conversion.histogram import Observer
from edgekit.conversion.qdq import quantize_file
from edgekit.conversion.simplify import simplify_file
from edgekit.models.modules import matches
from edgekit.models.zoo import build
from edgekit.recipe import load_recipe
from edgekit.runtime.errors import BadConfig
from edgekit.training.fit import fit
from edgekit.training.qat import Plan, Rounding, Step, round_activation, round_weight, scale_of

FLAVOURS = ["x86", "trt"]


# -- rounding ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("low", "high", "symmetric", "expected"),
    [
        (0, 2.55, False, (0.01, 0)),
        (-1, 1.55, False, (0.01, 100)),
        (0.5, 5.1, False, (0.02, 0)),  # zero is always inside
        (-5.1, -1, False, (0.02, 255)),
        (-1, 1.27, True, (0.01, 0)),
        (-2.54, 1, True, (0.02, 0)),
        (0, 0, False, (1, 0)),
        (0, 0, True, (1, 0)),
    ],
)
def test_scale_and_zero_point(low: float, high: float, symmetric: bool, expected: tuple[float, int]) -> None:
    assert scale_of(low, high, symmetric) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "symmetric", "values", "rounded", "slope"),
    [
        (0, 2.55, False, [-1, 0.004, 0.5, 1.006, 3], [0, 0, 0.5, 1.01, 2.55], [0, 1, 1, 1, 0]),
        (-1, 1.55, False, [-2, -0.996, 0.333, 2], [-1, -1, 0.33, 1.55], [0, 1, 1, 0]),
        (-1, 1.27, True, [-5, -1.2, 0.126, 1.4], [-1.28, -1.2, 0.13, 1.27], [0, 1, 1, 0]),
    ],
    ids=["from zero", "asymmetric", "symmetric"],
)
def test_activations_by_hand(
    low: float, high: float, symmetric: bool, values: list[float], rounded: list[float], slope: list[float]
) -> None:
    x = torch.tensor(values, requires_grad=True)
    y = round_activation(x, low, high, symmetric)
    y.sum().backward()
    assert y.tolist() == pytest.approx(rounded, abs=1e-6)
    assert x.grad is not None
    assert x.grad.tolist() == slope


def test_weights_by_hand() -> None:
    """Each row has its own scale: 0.01 and 1."""
    weight = torch.tensor([[1.27, -0.014, 0.006], [-127.0, 0.4, 63.6]], requires_grad=True)
    rounded = round_weight(weight, 0)
    assert rounded[0].tolist() == pytest.approx([1.27, -0.01, 0.01])
    assert rounded[1].tolist() == pytest.approx([-127, 0, 64])
    rounded.sum().backward()
    assert weight.grad is not None
    assert weight.grad.unique().tolist() == [1]
    assert torch.equal(round_weight(torch.zeros(2, 2), 0), torch.zeros(2, 2))


def test_a_folded_batch_norm_changes_nothing_of_the_rounding() -> None:
    torch.manual_seed(0)
    weight, factor = torch.randn(4, 3, 3, 3), torch.tensor([2.0, -0.3, 5.0, 0.01]).view(4, 1, 1, 1)
    assert torch.allclose(round_weight(weight * factor, 0), round_weight(weight, 0) * factor, rtol=1e-5)


# -- places -----------------------------------------------------------------------------------------------------------
class Net(nn.Module):
    """What detectors are made of: a residual, a branch at half size, a concatenation, an end that stays float."""

    float_modules = ("end",)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.pointwise = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.low = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.LeakyReLU(0.1))
        self.mix = nn.Conv2d(16, 8, 3, 1, 1)
        self.end = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = F.relu(x + self.pointwise(self.depthwise(x)))
        low = F.interpolate(self.low(F.max_pool2d(x, 2)), scale_factor=2.0)
        out: Tensor = self.end(F.relu(self.mix(torch.cat([x, low], 1))))
        return out


class Offsets(nn.Module):
    """Two convolutions whose results are joined, as box offsets of two levels are: one scale would serve neither."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.near(x), 50 * self.far(x)], 1)


class TwoSteps(nn.Module):
    """The second step reads what the first one finds, as an AlignConv does."""

    float_modules = ("first",)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.first = Offsets()
        self.second = nn.Conv2d(8, 4, 3, 1, 1)
        self.end = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.end(self.second(torch.tanh(self.first(self.stem(image)))))
        return out


class Gated(nn.Module):
    """Activations that are one call in PyTorch, and a gate and a product in the file."""

    float_modules = ("end",)

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), activation())
        self.mix = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), activation(inplace=True))
        self.end = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        out: Tensor = self.end(self.mix(x) + x)
        return out


class Products(nn.Module):
    """Matrix products: with weights, as an AlignConv has them, and of two activations; and a factor that is learnt."""

    float_modules = ("end",)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.beside = nn.Conv2d(3, 8, 3, 2, 1)
        self.weight, self.bias = nn.Parameter(torch.randn(8, 8, 1, 1)), nn.Parameter(torch.randn(8))
        self.factor = nn.Parameter(torch.rand(1, 8, 1, 1) * 3 - 1)
        self.mix, self.end = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        n, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels) @ self.weight.permute(2, 3, 1, 0).reshape(channels, -1)
        x = (rows + self.bias).reshape(n, height, width, channels).permute(0, 3, 1, 2)
        x = self.factor / 2 * x  # read twice, for a factor before one convolution would become part of its weights
        x = self.mix(x) + x
        shares = x.flatten(2) @ self.beside(image).flatten(2).transpose(1, 2)
        out: Tensor = self.end(torch.matmul(shares, x.flatten(2)).reshape(n, channels, height, width))
        return out


class Named(nn.Module):
    """Names the modules in the exported file as the toolkit does."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> Any:
        return self.detector(image)


MEAN, STD = (90.0, 110.0, 150.0), (80.0, 20.0, 50.0)


class Raw(Named):
    """Reads pixels, as a file for x86 does."""

    def forward(self, image: Tensor) -> Any:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return self.detector((image.permute(0, 3, 1, 2).float() - mean) / std)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(3)
    net = Net()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.2, 0.6)
    return net.eval()


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(6, 3, 16, 16)


def int8(net: nn.Module, images: Tensor, flavour: str, folder: Path, exported: type[nn.Module] = Named) -> np.ndarray:
    """What the quantizer's own file gives in ONNX Runtime, calibrated on the same images by their extremes."""
    plain, source, target = folder / "plain.onnx", folder / "fp32.onnx", folder / "int8.onnx"
    names = {"input_names": ["image"], "output_names": ["boxes"]}
    torch.onnx.export(exported(net).eval(), (images[:1],), str(plain), dynamo=False, opset_version=13, **names)
    simplify_file(str(plain), str(source))
    look, observer = activations(source), Observer()
    for image in images:
        observer.see(look(image[None].numpy()))
    floats = net.float_modules
    model = load_model(source)
    layers = [node.name for node in weighted_layers(model) if matches(layer_name(node), floats)]
    quantize_file(str(source), str(target), observer.ranges("minmax"), flavour, layers, False, floats)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None].numpy()})[0] for image in images])


def watched(net: nn.Module, images: Tensor, flavour: str, *normalised: Sequence[float]) -> Rounding:
    rounding = Rounding(flavour, *normalised)
    rounding.watch(net, list(images[:, None]))
    return rounding


OTHERS: dict[str, Callable[[], Any]] = {
    "two steps": TwoSteps,
    "silu": partial(Gated, nn.SiLU),
    "hardswish": partial(Gated, nn.Hardswish),
    "products": Products,
}


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("which", ["one step", *OTHERS])
def test_rounds_what_the_quantizer_rounds(which: str, flavour: str, net: Net, images: Tensor, tmp_path: Path) -> None:
    if which in OTHERS:
        torch.manual_seed(1)
        net = OTHERS[which]().eval()
    rounding = watched(net, images, flavour)
    source = images
    if flavour == "x86":  # which takes the image for pixels: give it values that are on the grid of its range
        source = round_activation(images, float(images.min()), float(images.max()), False)
        rounding = watched(net, source, flavour)
    with torch.no_grad():
        exact = net(source).numpy()
        with rounding.applied():
            simulated = net(source).numpy()
    real = int8(net, source, flavour, tmp_path)
    error = np.abs(real - exact).mean()
    assert error > 0.0005  # INT8 is not FP32
    # a value between two steps goes either way; in a product of activations it is in every sum of its row
    allowed = 0.2 if which == "products" else 0.05
    assert np.abs(real - simulated).mean() < allowed * error


@pytest.mark.parametrize("which", ["one step", "silu", "products"])
def test_the_first_convolution_is_rounded_as_it_reads_pixels(which: str, net: Net, tmp_path: Path) -> None:
    """Its weights divided by std, where it alone reads the image, and its padding one grey level for all channels."""
    torch.manual_seed(1)
    net = OTHERS[which]().eval() if which in OTHERS else net
    pixels = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8)
    images = (pixels.permute(0, 3, 1, 2).float() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    rounding = watched(net, images, "x86", MEAN, STD)
    with torch.no_grad():
        exact = net(images).numpy()
        with rounding.applied():
            simulated = net(images).numpy()
    real = int8(net, pixels, "x86", tmp_path, Raw)
    alone = which != "products"
    assert [step.pixels for step in rounding.plan.steps].count(True) == alone
    if alone:
        assert np.abs(real - simulated).mean() < 0.2 * np.abs(real - exact).mean()


def test_the_places_by_hand(net: Net, images: Tensor) -> None:
    """x86: what every operator writes but the end; a pool, like an upsampling, has its input's range."""
    steps = watched(net, images, "x86").plan.steps
    conv, norm, clip = ("conv", 0, None), ("norm", None, None), "clip"
    found = [(step.kind, step.weight and step.weight[1], step.after) for step in steps]
    assert found == [
        *(conv, norm, (clip, None, 0)),
        *(conv, norm, (clip, None, 1)),
        *(conv, ("norm", None, 2)),
        *(("add", None, None), (clip, None, 3), ("keep", None, 3)),
        *(("conv", 0, 4), ("activation", None, 5), ("keep", None, 5)),
        *(("cat", None, 6), conv, (clip, None, 7), ("conv", None, None)),
    ]
    assert not any(step.before for step in steps)


def test_the_places_of_trt_by_hand(net: Net, images: Tensor) -> None:
    """trt: what convolutions read, the image too, and nothing else."""
    steps = watched(net, images, "trt").plan.steps
    assert [dict(step.before) for step in steps if step.before] == [{0: 0}]
    after = [(step.kind, step.after) for step in steps if step.after is not None]
    assert [kind for kind, _ in after] == ["clip", "clip", "keep", "cat"]  # the sum goes to the pool and to cat only
    assert len({slot for _, slot in after}) == 4


def test_a_network_that_calls_something_else_is_refused(net: Net, images: Tensor) -> None:
    rounding = watched(net, images, "x86")
    rounding.plan = Plan((*rounding.plan.steps[:3], Step("cat")), rounding.plan.slots)
    with rounding.applied(), pytest.raises(BadConfig, match="calls conv where cat was expected"):
        net(images)


# -- fine-tuning ------------------------------------------------------------------------------------------------------
def test_some_steps_reduce_the_error_of_int8(net: Net, images: Tensor, tmp_path: Path) -> None:
    """One channel a hundred times as large as the others makes a range in which those are a few steps of INT8."""
    with torch.no_grad():
        net.pointwise[0].weight[0] *= 100
        net.mix.weight[:, 0] /= 100
        wanted = net(images)
    before = np.square(int8(net, images, "x86", tmp_path) - wanted.numpy()).mean()
    rounding = watched(net, images, "x86")
    optimizer = torch.optim.Adam(net.parameters(), 3e-4)
    for _ in range(120):
        with rounding.applied():
            loss = F.mse_loss(net(images), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = np.square(int8(net, images, "x86", tmp_path) - wanted.numpy()).mean()  # calibrated anew
    assert after < 0.85 * before


@pytest.mark.parametrize("name", ["mobile-centernet", "mobilenet-ssd", "refinedet-lite"])
def test_networks_of_the_zoo_can_be_watched(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, 3, {}, (320, 320)).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    rounding = watched(model, torch.randn(1, 3, 320, 320), "x86")
    with rounding.applied():
        out = model(torch.randn(1, 3, 320, 320))
    assert rounding.plan.slots > 20
    assert out is not None


def test_what_is_saved_is_an_ordinary_checkpoint(tiny: Path, trained: Path, tmp_path: Path) -> None:
    """The names of the weights it began with, other values, and the same statistics of the norms; it can be resumed."""
    wishes = [f"train.init={trained}", "quantization_aware={images: 4}", "train.ema=0"]
    before = safetensors.torch.load_file(trained)
    fit(load_recipe(tiny, [*wishes, "train.epochs=1"]), tmp_path / "run")
    artifact = fit(load_recipe(tiny, [*wishes, "train.epochs=2"]), tmp_path / "run", resume=True)
    after = safetensors.torch.load_file(artifact.file("weights.safetensors"))
    assert after.keys() == before.keys()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert "head.heatmap.0.weight" in changed
    assert not [name for name in changed if "running" in name]
    assert artifact.manifest["metrics"]["steps"] == 4


# -- recipes ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["quantization_aware={}"], "train.init"),
        (["quantization_aware={}", "train.init=x"], "needs train.precision fp32"),  # the recipe's is bf16
        (["quantization_aware={flavour: tpu}", "train.init=x"], "x86"),
    ],
)
def test_a_recipe_that_cannot_be_fine_tuned(overrides: list[str], complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint):
        load_recipe("mobile-centernet-w16-dhaka", overrides)
