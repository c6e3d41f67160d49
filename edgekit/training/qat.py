"""Quantization-aware fine-tuning: the forward pass rounds wherever INT8 will, and the weights stay FP32.

A network is watched once: which operators it calls, on which tensors. From that follows where the quantizer
(``conversion.qdq``) will put QuantizeLinear and DequantizeLinear, and in training those tensors are rounded by the same
scales. Gradients pass straight through inside a range and are zero outside (Jacob et al. 2018, section 3; Bengio et al.
2013). Nothing in the network changes: what is saved is an ordinary checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..data.coco import CocoSet
from ..data.dataset import DetectionDataset, stack_canvases
from ..models.modules import matches
from ..runtime.errors import BadConfig
from ..runtime.preprocess import Preprocess

Arrays: TypeAlias = tuple[Tensor, ...]


# -- rounding ---------------------------------------------------------------------------------------------------------
def scale_of(low: float, high: float, symmetric: bool) -> tuple[float, int]:
    """(scale, zero point) as the quantizer takes them from a range: 8 bits, zero exact; symmetric has zero point 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        return max(-low, high) / 127 or 1.0, 0
    scale = (high - low) / 255
    return (scale, round(-low / scale)) if scale else (1.0, 0)


def round_activation(x: Tensor, low: float, high: float, symmetric: bool) -> Tensor:
    """``x`` through QuantizeLinear and DequantizeLinear: uint8, or int8 where ``symmetric``."""
    scale, zero = scale_of(low, high, symmetric)
    least, most = (-128, 127) if symmetric else (0, 255)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, least, most)


def round_weight(weight: Tensor, axis: int) -> Tensor:
    """Signed 8-bit weights, one scale for each index of ``axis``: the largest of its absolute values is 127.

    A factor per output channel changes nothing of the rounding, so a batch norm may be folded before or after it.
    """
    others = [i for i in range(weight.ndim) if i != axis]
    scale = weight.detach().abs().amax(others).div(127).clamp_min(1e-12)
    return torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros_like(scale), axis, -128, 127)


# -- what a network calls ---------------------------------------------------------------------------------------------
def _kinds() -> dict[Callable[..., Any], str]:
    t = Tensor
    table: dict[str, Sequence[Any]] = {
        "conv": (torch.conv2d, F.conv2d),
        "deconv": (torch.conv_transpose2d, F.conv_transpose2d),
        "linear": (F.linear,),
        "norm": (F.batch_norm, torch.batch_norm),
        "clip": (F.relu, torch.relu, torch.relu_, t.relu, t.relu_, F.relu_, F.relu6, F.hardtanh),
        "activation": (F.leaky_relu, torch.sigmoid, t.sigmoid, F.sigmoid, F.hardsigmoid, F.silu, F.hardswish),
        "add": (torch.add, t.add, t.__add__, t.__radd__, t.add_, t.__iadd__),
        "mul": (torch.mul, t.mul, t.__mul__, t.__rmul__, t.mul_, t.__imul__),
        "cat": (torch.cat, torch.concat),
        "pool": (F.adaptive_avg_pool2d,),
        "keep": (F.max_pool2d, F.interpolate, F.avg_pool2d, torch.split, torch.chunk, t.split, t.chunk),
    }
    return {function: kind for kind, functions in table.items() for function in functions}


KINDS: Mapping[Callable[..., Any], str] = MappingProxyType(_kinds())
WEIGHT_AXIS: Mapping[str, int] = MappingProxyType({"conv": 0, "deconv": 1, "linear": 0})  # of the output channels
# "keep": the result has its input's scale
INT8_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "x86": (*WEIGHT_AXIS, "clip", "activation", "add", "mul", "cat", "pool", "keep"),
        "trt": tuple(WEIGHT_AXIS),
    }
)


@dataclass
class Call:
    """One operator call. inputs, outputs: numbers of tensors, -1 for a constant;  module: whose weight it has, else
    the innermost one that calls it

    kind: "" for an operator that INT8 does not know
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: str = ""


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


class Recorder(TorchFunctionMode):
    """Writes down the calls of a forward pass. Tensor 0 is the image; what does not depend on it has no number."""

    def __init__(self, image: Tensor, model: nn.Module) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._kept = [image]  # an id is a tensor's own only while the tensor lives
        self._numbers = {id(image): 0}
        self._modules = {id(p): name.rpartition(".")[0] for name, p in model.named_parameters()}
        self._entered: list[str] = [""]

    @contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Records within it, and knows which module of ``model`` is computing."""

        def enter(name: str, *_: Any) -> None:
            self._entered.append(name)

        def leave(*_: Any) -> None:
            self._entered.pop()

        with ExitStack() as stack:
            for name, module in model.named_modules():
                for handle in (
                    module.register_forward_pre_hook(partial(enter, name)),
                    module.register_forward_hook(leave),
                ):
                    stack.callback(handle.remove)
            stack.enter_context(self)
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = tuple(self._numbers.get(id(t), -1) for t in _activations((*args, *(kwargs or {}).values())))
        module = next((self._modules[id(t)] for t in _tensors(args) if id(t) in self._modules), self._entered[-1])
        result = func(*args, **(kwargs or {}))
        kind = KINDS.get(func, "")
        outputs = tuple(self._number(t) for t in _tensors((result,))) if any(n >= 0 for n in inputs) else ()
        if kind or outputs:
            self.calls.append(Call(kind, inputs, outputs, module))
        return result

    def _number(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        self._numbers[id(tensor)] = len(self._kept) - 1
        return len(self._kept) - 1


# -- where INT8 rounds ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Step:
    """What happens at one call of a known operator. before: place among its activations -> slot, and after: slot."""

    kind: str
    axis: int | None = None
    before: Mapping[int, int] = field(default_factory=dict)
    after: int | None = None


@dataclass(frozen=True)
class Plan:
    """A step for each call of a known operator, in order. slots: how many ranges they name."""

    steps: tuple[Step, ...]
    slots: int


def plan_of(calls: Sequence[Call], flavour: str, float_modules: Sequence[str]) -> Plan:
    """Where ``conversion.qdq`` will quantize a network of these calls."""
    kinds = INT8_KINDS[flavour]
    inner = _inner(calls)
    in_int8 = [
        inner[i] and call.kind in kinds and not matches(call.module, float_modules) for i, call in enumerate(calls)
    ]
    wanted = _wanted(calls, in_int8, flavour)
    made = {number: call for call in calls for number in call.outputs}
    slots: dict[int, int] = {}

    def slot(number: int) -> int:
        maker = made.get(number)
        if maker is not None and maker.kind == "keep" and "keep" in kinds and maker.inputs[0] in wanted:
            return slot(maker.inputs[0])
        return slots.setdefault(number, len(slots))

    steps = []
    for call, quantized in zip(calls, in_int8, strict=True):
        if not call.kind:
            continue
        late = {
            place: slot(number)
            for place, number in enumerate(call.inputs)
            if quantized and number in wanted and not _rounded_after(made.get(number))
        }
        after = slot(call.outputs[0]) if _rounded_after(call) and call.outputs[0] in wanted else None
        steps.append(Step(call.kind, WEIGHT_AXIS.get(call.kind) if quantized else None, late, after))
    return Plan(tuple(steps), len(slots))


def _rounded_after(call: Call | None) -> bool:
    """Is what ``call`` makes rounded there, and not where it is read?"""
    return call is not None and bool(call.kind) and len(call.outputs) == 1


def _inner(calls: Sequence[Call]) -> list[bool]:
    """Which calls are layers or lie between two: not the input's preparation, not what follows the head."""
    behind: set[int] = set()
    after = []
    for call in calls:
        after.append(call.kind in WEIGHT_AXIS or not behind.isdisjoint(call.inputs))
        if after[-1]:
            behind.update(call.outputs)
    ahead: set[int] = set()
    inner = []
    for call, reached in zip(reversed(calls), reversed(after), strict=True):
        leads = not ahead.isdisjoint(call.outputs)
        if leads or call.kind in WEIGHT_AXIS:
            ahead.update(call.inputs)
        inner.append(call.kind in WEIGHT_AXIS or (reached and leads))
    return inner[::-1]


def _wanted(calls: Sequence[Call], in_int8: Sequence[bool], flavour: str) -> set[int]:
    """The tensors that are rounded: what INT8 operators read and, on x86, what they write.

    A batch norm is folded into its convolution, and on x86 a ReLU into what comes before it: nothing is rounded there.
    """
    readers: dict[int, list[int]] = {}
    for i, call in enumerate(calls):
        for number in call.inputs:
            readers.setdefault(number, []).append(i)
    layers = {number for call in calls if call.kind in WEIGHT_AXIS for number in call.outputs}

    def between(number: int) -> bool:
        follower = calls[readers[number][0]] if len(readers.get(number, ())) == 1 else None
        if follower is None:
            return False
        return (follower.kind == "norm" and number in layers) or (follower.kind == "clip" and flavour == "x86")

    wanted: set[int] = set()
    for call, quantized in zip(calls, in_int8, strict=True):
        if not quantized:
            continue
        wanted.update(number for number in call.inputs if not between(number))
        if flavour == "x86":
            wanted.update(_ends(call, calls, readers, between))
    return wanted - ({0, -1} if flavour == "x86" else {-1})  # x86 reads the pixels themselves, which are integers


def _ends(
    call: Call, calls: Sequence[Call], readers: Mapping[int, list[int]], between: Callable[[int], bool]
) -> Iterator[int]:
    """A call's outputs, each followed through what is folded into it."""
    for number in call.outputs:
        while between(number):
            number = calls[readers[number][0]].outputs[0]
        yield number


# -- in training ------------------------------------------------------------------------------------------------------
class Rounding(nn.Module):
    """Ranges of a network's activations, and the context in which its forward pass rounds by them.

    flavour: "x86" or "trt";  low, high: of each slot; they are frozen once ``watch`` has seen the images
    """

    low: Tensor
    high: Tensor

    def __init__(self, flavour: str) -> None:
        super().__init__()
        self.flavour = flavour
        self.plan = Plan((), 0)
        self.register_buffer("low", torch.zeros(0))
        self.register_buffer("high", torch.zeros(0))

    @torch.no_grad()
    def watch(self, model: nn.Module, images: Iterable[Tensor]) -> None:
        """Find the places and their extremes over normalised ``images`` [N, 3, H, W], in the mode of training."""
        for image in images:
            if not self.plan.steps:
                recorder = Recorder(image, model)
                with recorder.following(model):
                    model(image)
                self.plan = plan_of(recorder.calls, self.flavour, getattr(model, "float_modules", ()))
                self.low, self.high = (torch.zeros(self.plan.slots) for _ in range(2))
            with _Watching(self):
                model(image)

    def applied(self) -> TorchFunctionMode:
        """A context for one forward pass."""
        return _Rounding(self)


def calibration_images(
    sets: Sequence[CocoSet], preprocess: Preprocess, count: int, normalise: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """``count`` images [1, 3, H, W], evenly from all of ``sets``, as the network sees them after training."""
    places = [(coco, index) for coco in sets for index in range(len(coco))]
    for k in range(min(count, len(places))):
        coco, index = places[k * len(places) // min(count, len(places))]
        yield normalise(stack_canvases([DetectionDataset(coco, preprocess)[0, index]]))


class _Following(TorchFunctionMode):
    """Follows the plan, call by call."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self.steps = iter(rounding.plan.steps)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = KINDS.get(func)
        if kind is None:
            return func(*args, **(kwargs or {}))
        step = next(self.steps, None)
        if step is None or step.kind != kind:
            raise BadConfig(
                f"quantization_aware: the network calls {kind} where {step.kind if step else 'nothing'} was expected; "
                "only networks that compute the same in every forward pass can be fine-tuned for INT8"
            )
        return self.call(step, func, list(args), dict(kwargs or {}))

    def call(self, step: Step, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError


class _Watching(_Following):
    """Widens the ranges to what passes."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__(rounding)
        self.low, self.high = rounding.low, rounding.high

    def call(self, step: Step, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        for place, slot in step.before.items():
            self._see(list(_activations(args))[place], slot)
        result = func(*args, **kwargs)
        if step.after is not None:
            self._see(result, step.after)
        return result

    def _see(self, x: Tensor, slot: int) -> None:
        self.low[slot] = torch.minimum(self.low[slot], x.min().cpu())
        self.high[slot] = torch.maximum(self.high[slot], x.max().cpu())


class _Rounding(_Following):
    """Rounds weights and activations."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__(rounding)
        self.ranges = list(zip(rounding.low.tolist(), rounding.high.tolist(), strict=True))
        self.symmetric = rounding.flavour == "trt"

    def call(self, step: Step, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if step.axis is not None:
            args[1] = round_weight(args[1], step.axis)
        if step.before:
            args = _replaced(args, {p: partial(self._round, slot=slot) for p, slot in step.before.items()})
        result = func(*args, **kwargs)
        return result if step.after is None else self._round(result, step.after)

    def _round(self, x: Tensor, slot: int) -> Tensor:
        return round_activation(x, *self.ranges[slot], self.symmetric)


def _activations(args: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors among an operator's arguments that are no parameters."""
    return (t for t in _tensors(args) if not isinstance(t, nn.Parameter))


def _replaced(args: list[Any], change: Mapping[int, Callable[[Tensor], Tensor]]) -> list[Any]:
    """``args`` with the n-th activation changed."""
    places = iter(range(1 << 30))

    def walk(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(walk, value))
        if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
            return value
        return change.get(next(places), lambda x: x)(value)

    return [walk(value) for value in args]
