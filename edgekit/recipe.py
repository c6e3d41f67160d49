"""Recipes: what to train and how, as data. Unknown keys are errors, and all problems are reported at once."""

from __future__ import annotations

import re
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from .config import Section, explain, parse_yaml, read_mapping
from .paths import WEIGHTS, expanded, share, unknown_name
from .runtime.errors import BadConfig
from .runtime.preprocess import Preprocess
from .sizes import divisor

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"expected [lowest, highest], got [{limits[0]}, {limits[1]}]")
    return limits


def _two_sides(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"needs [width, height] in pixels, such as [256, 256], found {value!r}")
    return value


Size = Annotated[tuple[Count, Count], BeforeValidator(_two_sides)]  # width, height in pixels
Range = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
# one line: the header of a weights file lists the names line by line
Name = Annotated[str, Field(min_length=1, pattern=r"^[^\r\n]+$")]
SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]  # part of a metric's name, and of an override's key


class ModelSection(Section):
    """Which network. ``options`` go to its builder in ``models/zoo.py``."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


IMAGENET_MEAN, IMAGENET_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # BGR, 0..255


class PreprocessSection(Section):
    """The fields of ``runtime.Preprocess``; see there for units. mean, std: ImageNet's, in the order of ``colour``."""

    size: Size
    mode: Literal["stretch", "letterbox"] = "stretch"
    pad_value: Annotated[int, Field(ge=0, le=255)] = 114
    colour: Literal["bgr", "rgb"] = "bgr"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD
    interpolation: Literal["linear", "area", "nearest", "cubic"] = "linear"

    @model_validator(mode="before")
    @classmethod
    def _order_of_colour(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("colour") == "rgb":
            return {"mean": IMAGENET_MEAN[::-1], "std": IMAGENET_STD[::-1], **values}
        return values

    def value(self) -> Preprocess:
        return Preprocess(**self.model_dump())


def _changed(section: Section, *names: str) -> str:
    """Those of the fields that differ from their defaults, in words; empty if none does."""
    return ", ".join(name for name in names if getattr(section, name) != type(section).model_fields[name].default)


class AnnotatedSection(Section):
    """A training and a validation set of one origin. Paths are relative to ``root``.

    layout: of the annotations; what train and val then name is said in ``data/formats``
    class_map: a shipped map's name or a YAML file, which merges and drops the files' classes
    frame_stride: train on one of so many frames of every clip
    """

    root: str
    images: str = "images"
    train: str | None = None
    val: str | None = None
    layout: Literal["coco", "voc", "ivslab", "bdd100k", "yolo"] = "coco"
    class_map: str | None = None
    frame_stride: Count = 1


Annotations = TypeVar("Annotations", bound=AnnotatedSection)


class SourceSection(AnnotatedSection):
    """One of several origins of data. Its root is relative to that of ``data``.

    labelled: the detector's classes that were looked for in every image; what else the images show costs no loss.
        null: all that its files have, of which each must then have a box to train on
    repeat: how often an epoch sees each training image; 0.5 is a new half of them in every epoch
    """

    root: str = "."
    labelled: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    repeat: Positive = 1.0

    @model_validator(mode="after")
    def _named(self) -> SourceSection:
        if self.train is None and self.val is None:
            raise ValueError("names neither train nor val")
        return self


class DataSection(AnnotatedSection):
    """Annotated sets. ``root`` is relative to the recipe's folder.

    sources: several origins by name, in the place of images, train, val, layout, class_map and frame_stride
    """

    sources: dict[SourceName, SourceSection] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_or_several(self) -> DataSection:
        own = sorted(self.model_fields_set - {"root", "sources"})
        if self.sources and _changed(self, *own):
            raise ValueError(f"{', '.join(own)} beside sources: each source has its own; data has the root of all")
        return self


class AugmentSection(Section):
    """Augmentation of training images; probabilities and ranges.

    policy: "centernet" has scale, shift and crop, and colour jitter; "ssd" has its own distortion, expansion and crop
    crop: train on crops of this size (width, height) with the objects as large as in the full input. The network is
        fully convolutional, so half the pixels cost half the time and change nothing that it is asked to learn.
    min_visible: a box that a crop or mosaic leaves with less of its area is ignored; near 1 where cut objects have no
        labels
    max_expand: ssd's canvas is up to so many times as wide and high; gray_mix, mosaic: see Lightweight SSD, 3.4
    """

    policy: Literal["centernet", "ssd"] = "centernet"
    flip: Probability = 0.5
    flip_vertical: Probability = 0.0
    min_visible: Probability = 0.25
    scale: Range = (0.6, 1.4)
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.4
    crop: Size | None = None
    max_expand: Annotated[float, Field(ge=1)] = 4.0
    gray_mix: Probability = 0.0
    mosaic: Probability = 0.0

    @model_validator(mode="after")
    def _of_one_policy(self) -> AugmentSection:
        of_centernet = {"flip_vertical", "min_visible", "scale", "shift", "colour", "crop"}
        others = {"centernet": {"max_expand"}, "ssd": of_centernet}[self.policy]
        if strange := _changed(self, *sorted(others)):
            raise ValueError(f"policy {self.policy} has no {strange}")
        return self


class RegionSection(Section):
    """Boxes learnt in a Gaussian region of every object (TTFNet, section 3.3), in the place of eq. 5 and 6.

    spread: the part of an object's width and height that its region takes;  box: loss of the decoded box;  weight: its
    """

    spread: Annotated[float, Field(gt=0, le=1)] = 0.54
    box: Literal["iou", "giou", "diou", "ciou", "bll"] = "giou"
    weight: Positive = 3.0


class AlignedSection(Section):
    """Task-aligned learning (TOOD, section 3.2): several pixels of each object learn its class and box together.

    top: pixels an object;  alpha, beta: of t = s^alpha u^beta (eq. 1), by which they are chosen
    gamma: power of the focal factor; 0 is plain cross-entropy;  box: loss of the decoded box;  weight: its
    """

    top: Count = 10
    alpha: NonNegative = 1.0
    beta: Positive = 6.0
    gamma: NonNegative = 2.0
    box: Literal["iou", "giou", "diou", "ciou", "bll"] = "giou"
    weight: Positive = 2.0


class LossSection(Section):
    """Mobile CenterNet eq. 3-7. ``balanced: false`` gives CenterNet's own focal loss (all class weights 1).

    l1_mean: what eq. 5 and 6 divide by: "components", 2N, as in the code that the published lambdas come from, or
        "objects", N as printed
    radius: of the Gaussians of eq. 2: as CenterNet's code computes it, or by CornerNet's definition; about 3 to 1
    regions: null learns boxes at centres, with ``size`` and ``offset``
    aligned: null learns the heat map of eq. 2 and 3; else scores and boxes are learnt as ``aligned`` says
    """

    alpha: Positive = 2.0
    beta: Positive = 4.0
    balanced: bool = True
    gamma: Positive = 0.75
    max_weight: Annotated[float, Field(ge=1)] = 10.0
    size: NonNegative = 0.1
    offset: NonNegative = 1.0
    l1_mean: Literal["components", "objects"] = "components"
    radius: Literal["centernet", "cornernet"] = "centernet"
    regions: RegionSection | None = None
    aligned: AlignedSection | None = None

    @model_validator(mode="after")
    def _one_way(self) -> LossSection:
        boxes = {"size", "offset", "l1_mean"}
        of_heatmap = {*boxes, "alpha", "beta", "radius", "regions"}
        for chosen, others in (("regions", boxes), ("aligned", of_heatmap)):
            if getattr(self, chosen) is not None and (unread := _changed(self, *sorted(others))):
                raise ValueError(f"{unread} beside {chosen}, which does not read it")
        return self


class ClassWeightSection(Section):
    """Dataset-aware class weights (RefineDetLite eq. 5): 1 for the most frequent class, at most ``max_weight``."""

    gamma: Positive = 0.75
    max_weight: Annotated[float, Field(ge=1)] = 10.0


class IouGuidedSection(Section):
    """RefineDetLite's IoU-guided loss: alpha of the soft labels (eq. 3), beta of the anchors' weights (eq. 4)."""

    alpha: Probability = 0.25
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9


class AnchorLossSection(Section):
    """Losses of anchor heads: SSD and its kin, both steps of RefineDet, both stages of ThunderNet. Defaults are SSD's.

    positive, negative: IoU with an object from which on an anchor is positive, and below which it is background
    box: smooth L1 of the offsets, or a loss of the decoded box; classification: the focal loss counts every anchor,
    cross-entropy the positive ones and the hardest negative ones, ``mining`` times as many
    alpha, gamma: of the focal loss;  iou_guided, class_weights: null for none
    balanced: the weights of the terms are learnt (RefineDetLite eq. 6); else they are ``box_weight`` and 1
    """

    positive: Probability = 0.5
    negative: Probability = 0.5
    box: Literal["smooth-l1", "iou", "giou", "diou", "ciou", "bll"] = "smooth-l1"
    box_weight: NonNegative = 1.0
    classification: Literal["cross-entropy", "focal"] = "cross-entropy"
    mining: Positive = 3.0
    alpha: Probability = 0.25
    gamma: NonNegative = 2.0
    iou_guided: IouGuidedSection | None = None
    class_weights: ClassWeightSection | None = None
    balanced: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> AnchorLossSection:
        if self.negative > self.positive:
            raise ValueError(f"negative {self.negative} is above positive {self.positive}")
        if self.iou_guided and self.classification == "focal":
            raise ValueError("iou_guided replaces cross-entropy; it does not go with classification: focal")
        if self.classification != "focal" and (unread := _changed(self, "alpha", "gamma")):
            raise ValueError(f"{unread} of the focal loss, which needs classification: focal")
        if self.balanced and (unread := _changed(self, "box_weight")):
            raise ValueError(f"{unread} beside balanced: the weights are learnt")
        return self


class YoloLossSection(Section):
    """YOLOv3's losses (Redmon and Farhadi 2018, section 2.1).

    ignore: IoU with an object above which a box that was not assigned to one costs nothing (the published cfgs: 0.7)
    box: squared error of log width and height and cross-entropy of the centre, or a loss of the decoded box
    box_weight, object_weight, class_weight: of the three terms
    class_weights: as in anchor_loss
    """

    ignore: Probability = 0.5
    box: Literal["squared", "iou", "giou", "diou", "ciou", "bll"] = "squared"
    box_weight: NonNegative = 1.0
    object_weight: NonNegative = 1.0
    class_weight: NonNegative = 1.0
    class_weights: ClassWeightSection | None = None


class OptimizerSection(Section):
    """momentum: of sgd and rmsprop;  decay: of rmsprop's mean of squared gradients;  epsilon: null for PyTorch's."""

    kind: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    epsilon: Positive | None = None


class MultiScaleSection(Section):
    """Training at several input sizes (YOLO9000, section 2): a new one of ``sizes`` every ``every`` batches."""

    sizes: Annotated[tuple[Size, ...], Field(min_length=1)]
    every: Count = 10


class ScheduleSection(Section):
    """Learning rate over epochs: ``step`` divides by 10 at each of ``drops``; ``cosine`` goes to ``final`` x lr;
    ``exponential`` multiplies by ``rate`` every ``every`` epochs.

    Before that it rises over ``warmup_steps`` from ``warmup_from`` x lr, linearly, or as a higher power.
    """

    kind: Literal["step", "cosine", "exponential"] = "step"
    drops: tuple[Count, ...] = (45, 55)
    final: Annotated[float, Field(ge=0, le=1)] = 0.01
    rate: Annotated[float, Field(gt=0, le=1)] = 0.95
    every: Positive = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    warmup_from: Probability = 0.0
    warmup_power: Positive = 1.0


class TrainSection(Section):
    """Mobile CenterNet's schedule (section 4) is the default: Adam 1e-3, /10 at epochs 45 and 55, 60 epochs.

    batch_size: images per process. precision: "auto" is mixed fp16 on a GPU and fp32 on a CPU.
    compile: torch.compile; the first step of each input size then takes minutes
    freeze_norm: batch normalisation keeps the statistics it starts with: for fine-tuning in small batches
    validate_every: epochs between two validations; the last epoch is always validated
    init: what to start from: a shipped recipe's name (its weights), a checkpoint artifact or a .safetensors file
    init_classes: class -> the class of ``init`` that it starts from, where their names differ. Classes that are not in
        it start from their namesakes; those without one start anew
    init_backbone: the same, of which only the backbone is taken, everything else anew
    """

    epochs: Count = 60
    batch_size: Count = 8
    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    multiscale: MultiScaleSection | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    clip_norm: NonNegative = 35.0  # of all gradients together; 0 for no clipping
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    freeze_norm: bool = False
    workers: Annotated[int, Field(ge=0)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    validate_every: Count = 5
    init: str | None = None
    init_classes: dict[str, str] | None = None
    init_backbone: str | None = None


class QuantizationAwareSection(Section):
    """Fine-tuning for INT8: training rounds weights and activations as the quantizer of ``flavour`` will.

    images: of the training set, from which the ranges of the activations are taken before the first step
    """

    flavour: Literal["x86", "trt"] = "x86"
    images: Count = 64


class TeacherSection(Section):
    """The larger network to learn from: its trained weights, named as in ``train.init``.

    recipe: of bare weights, a .safetensors file alone; a shipped recipe and a checkpoint say what theirs is
    """

    recipe: str | None = None
    weights: str


class FeaturePairSection(Section):
    """Two maps to compare, by name: of a raw output (``features[0]``) or of a layer's (``backbone.stages[2]``).

    pixel: weight of the mean squared difference, through a learnt 1x1 convolution where the widths differ
    pair: weight of the pair-wise term, eq. 9, 10
    """

    student: str
    teacher: str
    pixel: NonNegative = 0.0
    pair: NonNegative = 0.0


class DistillationSection(Section):
    """Mobile CenterNet eq. 8-11, for every head. A weight of 0 switches a term off.

    pixel: KL of the class predictions: of heat maps by pixel, of anchor heads by anchor (response distillation)
    pair: pair-wise similarity of the maps that the heads read
    box: 1 - GIoU of the two networks' boxes, for anchor heads
    features: further pairs of maps
    divergence, direction: eq. 8 leaves open what the KL of two sigmoid maps is; see ``training.distillation``
    """

    pixel: NonNegative = 0.1
    pair: NonNegative = 10.0
    divergence: Literal["bernoulli", "softmax"] = "bernoulli"
    direction: Literal["student-teacher", "teacher-student"] = "student-teacher"
    box: NonNegative = 0.0
    features: tuple[FeaturePairSection, ...] = ()

    @model_validator(mode="after")
    def _some_term(self) -> DistillationSection:
        if not any([self.pixel, self.pair, self.box, *(pair.pixel or pair.pair for pair in self.features)]):
            raise ValueError(
                "every term of distillation is 0, and its teacher teaches nothing: give pixel, pair, box or one of "
                "features a weight, or leave teacher and distillation out (null)"
            )
        return self


class ExportSection(Section):
    """top_k: boxes that leave the graph (CenterNet's 100). opset: 13 is the last one TensorRT 8.2 reads.

    GridSample needs 16, DeformConv 19: options of networks with an alignment or deformable convolution.
    """

    top_k: Annotated[int, Field(ge=1, le=3840)] = 100
    opset: Annotated[int, Field(ge=11, le=19)] = 13


class PostprocessSection(Section):
    """What the host does with the boxes, in validation and on boards. nms: null for what the head needs."""

    nms: Literal["none", "classwise", "soft"] | None = None
    score_threshold: Probability = 0.01
    iou_threshold: Probability = 0.5
    decay: Literal["linear", "gaussian"] = "gaussian"
    sigma: Positive = 0.5


class QuantizeSection(Section):
    """calibration: a named set in ``calibration/`` or a path to a folder that holds one."""

    calibration: str
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    max_drop: NonNegative = 1.0  # points of mAP@0.5


def _folder_name(name: str) -> str:
    if not name.strip() or name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"a name for a folder is needed, without / and \\; found {name!r}")
    return name


class Recipe(Section):
    """A whole recipe. ``load_recipe`` reads one; ``folder`` says where it lies."""

    name: Annotated[str, AfterValidator(_folder_name)]
    description: str = ""
    paper: str = ""
    classes: Annotated[tuple[Name, ...], Field(min_length=1)]
    model: ModelSection
    preprocess: PreprocessSection
    data: DataSection | None = None
    augment: AugmentSection = AugmentSection()
    loss: LossSection = LossSection()
    anchor_loss: AnchorLossSection = AnchorLossSection()
    yolo_loss: YoloLossSection = YoloLossSection()
    train: TrainSection = TrainSection()
    quantization_aware: QuantizationAwareSection | None = None
    teacher: TeacherSection | None = None
    distillation: DistillationSection | None = None
    export: ExportSection = ExportSection()
    postprocess: PostprocessSection = PostprocessSection()
    quantize: QuantizeSection | None = None
    evaluation: str | None = None  # a named set in calibration/ on which the spine measures mAP
    # results of the shipped weights, for people; no part of what the recipe makes
    measured: dict[str, float | str] = Field(default={}, exclude=True)
    folder: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        twice = [name for name, count in Counter(self.classes).items() if count > 1]
        if twice:
            raise ValueError(f"classes: {', '.join(twice)} appears twice")
        crop, full = self.augment.crop, self.preprocess.size
        step = divisor(self.model.name, self.model.options)
        scales = self.train.multiscale.sizes if self.train.multiscale else ()
        sizes = [("preprocess.size", full), ("augment.crop", crop), *(("train.multiscale.sizes", s) for s in scales)]
        for key, size in sizes:
            if size and any(v % step for v in size):
                got = f"got {size[0]}x{size[1]}"
                raise ValueError(f"{key}: width and height must be divisible by {step} for {self.model.name}, {got}")
        if crop and (crop[0] > full[0] or crop[1] > full[1]):
            most = f"[{min(crop[0], full[0])}, {min(crop[1], full[1])}]"
            raise ValueError(
                f"augment.crop {crop[0]}x{crop[1]} is larger than preprocess.size {full[0]}x{full[1]}: "
                f"augment.crop=null, or at most augment.crop={most}"
            )
        if (self.teacher is None) != (self.distillation is None):
            raise ValueError("teacher and distillation go together: give both or neither")
        if self.train.init and self.train.init_backbone:
            raise ValueError("train.init has a backbone already: train.init_backbone beside it would replace it")
        if self.quantization_aware and self.train.init is None:
            raise ValueError("quantization_aware fine-tunes trained weights: name them in train.init")
        if self.quantization_aware and self.train.compile:
            raise ValueError("quantization_aware and train.compile do not go together: the one watches every operator")
        if self.quantization_aware and self.train.precision in ("bf16", "fp16"):
            raise ValueError("quantization_aware needs train.precision fp32, which holds INT8's steps exactly")
        self._known_classes()
        return self

    def _known_classes(self) -> None:
        """Raises ValueError for a class that some section names and the detector does not have."""
        sources = self.data.sources if self.data else {}
        named = {f"data.sources.{key}.labelled": source.labelled or () for key, source in sources.items()}
        named["train.init_classes"] = tuple(self.train.init_classes or ())
        for key, names in named.items():
            for name in names:
                if name not in self.classes:
                    near = get_close_matches(name, self.classes, n=1, cutoff=0.5)
                    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(self.classes)}"
                    raise ValueError(f"{key}: {name!r} is not in classes; {hint}")
            if len(set(names)) < len(names):
                raise ValueError(f"{key}: a class appears twice: {', '.join(names)}")
        if self.train.init_classes is not None and self.train.init is None:
            raise ValueError("train.init_classes says where classes of train.init go, which is not set")

    @property
    def weights(self) -> Path | None:
        """The shipped weights beside recipe.yaml, if there are any."""
        path = self.folder / WEIGHTS
        return path if path.is_file() else None

    def trained(self, name: str) -> Path:
        """Trained weights that the recipe names: those of a shipped recipe, else a path. As with sets, what ships goes
        first, so that a name means the same in every folder; ``./name`` is a path.
        """
        return shipped_weights().get(name) or self.resolve(name)

    def resolve(self, path: str) -> Path:
        """A path that the recipe names: beside the recipe, else in the current folder; ``~`` is the home folder."""
        beside = (self.folder / expanded(path)).resolve()
        return beside if beside.exists() else expanded(path).resolve()


def recipe_names() -> list[str]:
    return sorted(p.parent.name for p in share("recipes").glob("*/recipe.yaml"))


def shipped_weights() -> dict[str, Path]:
    """Recipe -> its weights, of the shipped recipes that have some."""
    files = {file.parent.name: file for file in sorted(share("recipes").glob(f"*/{WEIGHTS}"))}
    return {name: files[name] for name in recipe_names() if name in files}


def load_recipe(name: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe by its name, folder or file; ``overrides`` are ``dotted.key=value`` with YAML values.

    Raises BadConfig that lists every problem found.
    """
    file = _recipe_file(str(name))
    values = read_mapping(file)
    if "folder" in values:
        raise BadConfig(f"{file}: folder: unknown key; a recipe's folder is where its file lies")
    for override in overrides or []:
        _apply(values, override)
    try:
        return placed(Recipe.model_validate({**values, "folder": file.parent}))
    except ValidationError as error:
        raise BadConfig(explain(Recipe, file, error, private=("folder",), given=overrides or ())) from error


def placed(recipe: Recipe) -> Recipe:
    """The recipe with whole paths of what lies beside it and is read after training too.

    Artifacts keep the recipe and not its folder, and are used from any folder.
    """
    changes: dict[str, Any] = {}
    if recipe.evaluation and not (recipe.data and recipe.evaluation in recipe.data.sources):
        changes["evaluation"] = _set_place(recipe.folder, recipe.evaluation)
    if recipe.quantize:
        calibration = _set_place(recipe.folder, recipe.quantize.calibration)
        changes["quantize"] = recipe.quantize.model_copy(update={"calibration": calibration})
    if recipe.data:
        sources = {name: _own_map(recipe.folder, source) for name, source in recipe.data.sources.items()}
        root = _whole_path(recipe.folder, recipe.data.root)
        changes["data"] = _own_map(recipe.folder, recipe.data).model_copy(update={"root": root, "sources": sources})
    return recipe.model_copy(update=changes)


def _set_place(folder: Path, name: str) -> str:
    """A shipped set goes first, as where sets are read; ``./name`` is a path."""
    ships = name == Path(name).name and (share("calibration") / name / "set.yaml").is_file()
    return name if ships else _whole_path(folder, name)


def _own_map(folder: Path, section: Annotations) -> Annotations:
    return section.model_copy(update={"class_map": section.class_map and _whole_path(folder, section.class_map)})


def _whole_path(folder: Path, name: str) -> str:
    """``name`` as an absolute path where it is a relative one to something in ``folder``, else as it is."""
    place = folder / name
    own = name and not name.startswith("~") and not Path(name).is_absolute() and place.exists()
    return str(place.resolve()) if own else name


def recipe_file(name: str | Path) -> Path | None:
    """The file of the recipe that ``name`` is the file, the folder or the shipped name of; None for anything else."""
    path = expanded(name)
    for file in (path, path / "recipe.yaml", share("recipes") / name / "recipe.yaml"):
        if file.is_file() and file.suffix in (".yaml", ".yml"):
            return file.resolve()
    return None


def _recipe_file(name: str) -> Path:
    if file := recipe_file(name):
        return file
    path = expanded(name)
    if name and path.is_dir():
        held = ", ".join(sorted(str(file.parent) for file in path.glob("*/manifest.json")))
        holds = f", which holds {held}" if held else ""
        raise BadConfig(f"{name}: no recipe.yaml in this folder{holds}. Recipes: edgekit zoo")
    if name and path.is_file():
        raise BadConfig(f"{name}: is a file, and no recipe; a recipe is a .yaml file, or a folder with recipe.yaml")
    raise unknown_name("recipe", name, recipe_names(), "A path to a recipe.yaml works too. List them: edgekit zoo")


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not re.fullmatch(r"[A-Za-z0-9_.]+", key):
        raise BadConfig(f"override {override!r}: expected key=value, for example train.epochs=10")
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise BadConfig(f"override {override!r}: {parent!r} is not a section")
    try:
        node[last] = parse_yaml(text)
    except yaml.YAMLError as error:
        raise BadConfig(f"override {override!r}: the value is not valid YAML") from error
