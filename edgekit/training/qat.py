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
from statistics import fmean
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


def round_constant(x: Tensor) -> Tensor:
    """A constant among activations, uint8 by its own extremes: the quantizer stores it so beside them on x86."""
    low, high = x.detach().aminmax()
    return round_activation(x, float(low), float(high), False)


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
        "matmul": (torch.matmul, torch.mm, torch.bmm, t.matmul, t.mm, t.bmm, t.__matmul__, t.__rmatmul__),
        "norm": (F.batch_norm, torch.batch_norm),
        "clip": (F.relu, torch.relu, torch.relu_, t.relu, t.relu_, F.relu_, F.relu6, F.hardtanh),
        "activation": (F.leaky_relu, torch.sigmoid, t.sigmoid, F.sigmoid, F.hardsigmoid),
        "add": (torch.add, t.add, t.__add__, t.__radd__, t.add_, t.__iadd__),
        "mul": (torch.mul, t.mul, t.__mul__, t.__rmul__, t.mul_, t.__imul__),
        "cat": (torch.cat, torch.concat),
        "pool": (F.adaptive_avg_pool2d,),
        "keep": (F.max_pool2d, F.interpolate, F.avg_pool2d, torch.split, torch.chunk, t.split, t.chunk),
    }
    return {function: kind for kind, functions in table.items() for function in functions}


KINDS: Mapping[Callable[..., Any], str] = MappingProxyType(_kinds())
WEIGHT_AXIS: Mapping[str, int] = MappingProxyType({"conv": 0, "deconv": 1, "linear": 0})  # of the output channels
WITH_PARAMETERS = frozenset({*WEIGHT_AXIS, "norm"})  # what they read after their first argument are parameters
# "keep": the result has its input's scale
INT8_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "x86": (*WEIGHT_AXIS, "matmul", "clip", "activation", "add", "mul", "cat", "pool", "keep"),
        "trt": (*WEIGHT_AXIS, "matmul"),
    }
)
# One call here, and x times its gate in the exported file: there both are rounded
GATES: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {F.silu: torch.sigmoid, F.hardswish: F.hardsigmoid}
)


def kind_of(func: Callable[..., Any], args: Sequence[Any]) -> str:
    """The kind of a call, "" where INT8 does not know it; what joins one tensor alone is not in the exported file."""
    kind = KINDS.get(func, "")
    return "" if kind == "cat" and len(args[0]) == 1 else kind


CONSTANT = -1  # in the place of a tensor's number


@dataclass
class Call:
    """One operator call. inputs, outputs: numbers of tensors, or CONSTANT;  module: whose weight it has, else
    the innermost one that calls it

    kind: "" for an operator that INT8 does not know;  axis: of a "cat"
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: str = ""
    axis: int = 0

    @property
    def is_layer(self) -> bool:
        """Whether it has weights, as the quantizer sees it: a matrix product with a constant has."""
        return self.kind in WEIGHT_AXIS or (self.kind == "matmul" and CONSTANT in self.inputs)

    @property
    def weight(self) -> tuple[int, int] | None:
        """(place among the arguments, axis with a scale for each index) of its weights."""
        if not self.is_layer:
            return None
        return (self.inputs.index(CONSTANT), 1) if self.kind == "matmul" else (1, WEIGHT_AXIS[self.kind])


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


class _AsExported(TorchFunctionMode):
    """Sees the calls of a forward pass, an activation with a gate as the two operators that it is exported as."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gate = GATES.get(func)
        if gate is None:
            return self.see(func, args, kwargs or {})
        return self.see(torch.mul, (args[0], self.see(gate, args[:1], {})), {})

    def see(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call ``func``."""
        raise NotImplementedError


class Recorder(_AsExported):
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

    def see(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        kind = kind_of(func, args)
        inputs = tuple(self._numbers.get(id(t), CONSTANT) for t in _operands(kind, (*args, *kwargs.values())))
        module = next((self._modules[id(t)] for t in _tensors(args) if id(t) in self._modules), self._entered[-1])
        result = func(*args, **kwargs)
        outputs = tuple(self._number(t) for t in _tensors((result,))) if any(n >= 0 for n in inputs) else ()
        if kind or outputs:
            axis = (*args, kwargs.get("dim", 0))[1] % result.ndim if kind == "cat" else 0
            self.calls.append(Call(kind, inputs, outputs, module, axis))
        return result

    def _number(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        self._numbers[id(tensor)] = len(self._kept) - 1
        return len(self._kept) - 1


# -- where INT8 rounds ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Step:
    """What happens at one call of a known operator.

    weight: see ``Call.weight``;  before: place among its operands -> slot;  constants: places of constants that are
    rounded like activations;  after: slot;  pixels: whether it reads pixels in the file, where they are not normalised
    """

    kind: str
    weight: tuple[int, int] | None = None
    before: Mapping[int, int] = field(default_factory=dict)
    constants: tuple[int, ...] = ()
    after: int | None = None
    pixels: bool = False


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
    folded = _folded(calls, flavour)
    wanted = _wanted(calls, in_int8, flavour, folded)
    made = {number: call for call in calls for number in call.outputs}
    of_image = _readers(calls).get(0, [])
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
        stored = flavour == "x86" and quantized and not call.is_layer and folded.isdisjoint(call.inputs)
        constants = [place for place, number in enumerate(call.inputs) if stored and number == CONSTANT]
        after = slot(call.outputs[0]) if _rounded_after(call) and call.outputs[0] in wanted else None
        pixels = flavour == "x86" and quantized and call.kind == "conv" and of_image == [call]
        steps.append(Step(call.kind, call.weight if quantized else None, late, tuple(constants), after, pixels))
    return Plan(tuple(steps), len(slots))


def _rounded_after(call: Call | None) -> bool:
    """Is what ``call`` makes rounded there, and not where it is read?"""
    return call is not None and bool(call.kind) and len(call.outputs) == 1


def _inner(calls: Sequence[Call]) -> list[bool]:
    """Which calls are layers or lie between two: not the input's preparation, not what follows the head."""
    behind: set[int] = set()
    after = []
    for call in calls:
        after.append(call.is_layer or not behind.isdisjoint(call.inputs))
        if after[-1]:
            behind.update(call.outputs)
    ahead: set[int] = set()
    inner = []
    for call, reached in zip(reversed(calls), reversed(after), strict=True):
        leads = not ahead.isdisjoint(call.outputs)
        if leads or call.is_layer:
            ahead.update(call.inputs)
        inner.append(call.is_layer or (reached and leads))
    return inner[::-1]


def _readers(calls: Sequence[Call]) -> dict[int, list[Call]]:
    """Who reads a tensor."""
    readers: dict[int, list[Call]] = {}
    for call in calls:
        for number in call.inputs:
            readers.setdefault(number, []).append(call)
    return readers


def _folded(calls: Sequence[Call], flavour: str) -> set[int]:
    """Tensors that do not exist in the quantized file, for the one that reads them became part of what makes them.

    A batch norm is folded into its convolution, a constant that is added to a matrix product with weights is the bias
    of a Gemm, a concatenation that only another one reads is part of that, and on x86 a ReLU is a limit of what comes
    before it.
    """
    readers = _readers(calls)
    folded: set[int] = set()
    for call in calls:
        for number in call.outputs:
            follower = readers[number][0] if len(readers.get(number, ())) == 1 else None
            if follower is None:
                continue
            norm = follower.kind == "norm" and call.is_layer
            bias = follower.kind == "add" and CONSTANT in follower.inputs and call.is_layer and call.kind == "matmul"
            join = follower.kind == call.kind == "cat" and follower.axis == call.axis
            if norm or bias or join or (follower.kind == "clip" and flavour == "x86"):
                folded.add(number)
    return folded


def _wanted(calls: Sequence[Call], in_int8: Sequence[bool], flavour: str, folded: set[int]) -> set[int]:
    """The tensors that are rounded: what INT8 operators read and, on x86, what they write."""
    readers = _readers(calls)
    wanted: set[int] = set()
    for call, quantized in zip(calls, in_int8, strict=True):
        if not quantized:
            continue
        wanted.update(call.inputs)
        for number in call.outputs if flavour == "x86" else ():
            while number in folded:
                number = readers[number][0].outputs[0]
            wanted.add(number)
    outside = {0, CONSTANT} if flavour == "x86" else {CONSTANT}  # x86 reads the pixels themselves, which are integers
    return wanted - folded - outside


# -- in training ------------------------------------------------------------------------------------------------------
class Rounding(nn.Module):
    """Ranges of a network's activations, and the context in which its forward pass rounds by them.

    flavour: "x86" or "trt";  mean, std: by which the images were normalised
    low, high: of each slot; they are frozen once ``watch`` has seen the images

    On x86 the file's first convolution reads pixels. Its weights are divided by std before they are rounded
    (``graph.fold_input_scale``), and it pads with one grey level for all channels (``qdq.input_as_pixels``).
    weigh: [1, 3, 1, 1], std up to a common factor, which changes no rounding;  grey: that level less mean, so scaled
    """

    low: Tensor
    high: Tensor
    weigh: Tensor
    grey: Tensor

    def __init__(
        self, flavour: str, mean: Sequence[float] = (0.0, 0.0, 0.0), std: Sequence[float] = (1.0, 1.0, 1.0)
    ) -> None:
        super().__init__()
        self.flavour = flavour
        level = min(max(round(fmean(mean)), 0), 255)
        means, stds = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        self.register_buffer("weigh", stds / stds.max(), persistent=False)
        self.register_buffer("grey", (level - means) / stds.max(), persistent=False)
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


class _Following(_AsExported):
    """Follows the plan, call by call."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self.rounding = rounding
        self.steps = iter(rounding.plan.steps)

    def see(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        kind = kind_of(func, args)
        if not kind:
            return func(*args, **kwargs)
        step = next(self.steps, None)
        if step is None or step.kind != kind:
            raise BadConfig(
                f"quantization_aware: the network calls {kind} where {step.kind if step else 'nothing'} was expected; "
                "only networks that compute the same in every forward pass can be fine-tuned for INT8"
            )
        if step.pixels:
            image, weight, *others = args
            args = [image * self.rounding.weigh, weight / self.rounding.weigh, *others]
        return self.call(step, func, list(args), kwargs)

    def call(self, step: Step, func: Any, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        raise NotImplementedError


class _Watching(_Following):
    """Widens the ranges to what passes."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__(rounding)
        self.low, self.high = rounding.low, rounding.high

    def call(self, step: Step, func: Any, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        for place, slot in step.before.items():
            self._widen(list(_operands(step.kind, args))[place], slot)
        result = func(*args, **kwargs)
        if step.after is not None:
            self._widen(result, step.after)
        return result

    def _widen(self, x: Tensor, slot: int) -> None:
        self.low[slot] = torch.minimum(self.low[slot], x.min().cpu())
        self.high[slot] = torch.maximum(self.high[slot], x.max().cpu())


class _Rounding(_Following):
    """Rounds weights and activations."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__(rounding)
        self.ranges = list(zip(rounding.low.tolist(), rounding.high.tolist(), strict=True))
        self.symmetric = rounding.flavour == "trt"

    def call(self, step: Step, func: Any, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        if step.weight is not None:
            place, axis = step.weight
            args[place] = round_weight(args[place], axis)
        change: dict[int, Callable[[Tensor], Tensor]] = dict.fromkeys(step.constants, round_constant)
        change.update((place, partial(self._round, slot=slot)) for place, slot in step.before.items())
        if change:
            args = _replaced(step.kind, args, change)
        if step.pixels:
            args = self._padded_with_grey(*args)
        result = func(*args, **kwargs)
        return result if step.after is None else self._round(result, step.after)

    def _padded_with_grey(self, image: Tensor, weight: Tensor, bias: Tensor | None = None, *others: Any) -> list[Any]:
        """Arguments of a convolution with the same sums, but that what it pads with, 0, stands for grey."""
        grey = self.rounding.grey
        moved = (weight * grey).sum((1, 2, 3))
        return [image - grey, weight, moved if bias is None else bias + moved, *others]

    def _round(self, x: Tensor, slot: int) -> Tensor:
        return round_activation(x, *self.ranges[slot], self.symmetric)


def _operands(kind: str, args: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors that an operator computes with; of one with parameters its input alone."""
    return _tensors(args[:1] if kind in WITH_PARAMETERS else args)


def _replaced(kind: str, args: list[Any], change: Mapping[int, Callable[[Tensor], Tensor]]) -> list[Any]:
    """``args`` with the operands at some places changed."""
    places = iter(range(1 << 30))

    def walk(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(walk, value))
        return change.get(next(places), lambda x: x)(value) if isinstance(value, Tensor) else value

    count = 1 if kind in WITH_PARAMETERS else len(args)
    return [*map(walk, args[:count]), *args[count:]]
