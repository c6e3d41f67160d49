"""Which output of a foreign file is what, as data: the named layouts make one, and a small YAML file is one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ...config import Section, explain, read_mapping
from ...runtime.errors import BadConfig

Activation = Literal["none", "sigmoid", "softmax"]
BoxFormat = Literal["xyxy", "cxcywh", "xywh", "yxyx"]
Units = Literal["pixels", "normalised"]
Count = Annotated[int, Field(ge=1)]


class Part(Section):
    """Columns of an output [N, A, K], A boxes with K values each.

    output: its name in the file
    columns: [first, behind the last]; null for all. transposed: the output is [N, K, A]
    activation: what is still to be applied; softmax goes over the columns
    """

    output: str
    columns: tuple[Annotated[int, Field(ge=0)], Count] | None = None
    transposed: bool = False
    activation: Activation = "none"


class BoxPart(Part):
    """Four numbers of each box. units: of the network's input: pixels, or 0..1 of its width and height."""

    format: BoxFormat = "xyxy"
    units: Units = "pixels"


class ScorePart(Part):
    """One probability for each class. background: which column is no class, and is left out."""

    background: Literal["none", "first", "last"] = "none"


class SelectedPart(Section):
    """Boxes that were selected in the graph: one score and one class number each. first_class: number of class 0."""

    scores: Part
    classes: Part
    first_class: int = 0


class PriorsPart(Section):
    """SSD's priors [A, 4], which the boxes are offsets to: from an output of the file, or from an .npy file.

    variances: of centre x, y and width, height (Liu et al. 2016, as their code has it)
    """

    output: str | None = None
    file: str | None = None
    format: Literal["cxcywh", "xyxy"] = "cxcywh"
    units: Units = "normalised"
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)

    @model_validator(mode="after")
    def _one(self) -> PriorsPart:
        if (self.output is None) == (self.file is None):
            raise ValueError("priors: give either output or file")
        return self


class CentersPart(Section):
    """CenterNet's maps: heat map [N, C, h, w], size [N, 2, h, w] (width, height) and offset [N, 2, h, w] (x, y).

    activation: of the heat map; size_units: "map", in pixels of the map, or "pixels" of the input
    """

    heatmap: str
    size: str
    offset: str | None = None
    activation: Literal["none", "sigmoid"] = "sigmoid"
    size_units: Literal["map", "pixels"] = "map"


class LayoutSpec(Section):
    """What a file's outputs mean: boxes with scores, boxes with what was selected, or center maps.

    objectness: one probability for each box that its scores are multiplied with
    nms: what is left to the host: "classwise", or "none" where boxes were selected or heat maps have peaks
    top_k: most boxes that leave a graph with center maps
    constants: values of further inputs, which become constants: name -> number, list, or list of lists
    """

    boxes: BoxPart | None = None
    scores: ScorePart | None = None
    objectness: Part | None = None
    selected: SelectedPart | None = None
    priors: PriorsPart | None = None
    centers: CentersPart | None = None
    nms: Literal["classwise", "none"] = "classwise"
    top_k: Count = 100
    constants: dict[str, float | list[float] | list[list[float]]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> LayoutSpec:
        kinds = [self.scores is not None, self.selected is not None, self.centers is not None]
        if sum(kinds) != 1:
            raise ValueError("give exactly one of: scores, selected, centers")
        if (self.boxes is None) != (self.centers is not None):
            raise ValueError("boxes: needed with scores and selected, and not with centers")
        return self

    def outputs(self) -> list[str]:
        """Names of the outputs that it reads."""
        parts: list[str | None] = [p.output for p in (self.boxes, self.scores, self.objectness, self.priors) if p]
        if self.selected is not None:
            parts += [self.selected.scores.output, self.selected.classes.output]
        if self.centers is not None:
            parts += [self.centers.heatmap, self.centers.size, self.centers.offset]
        return [name for name in parts if name is not None]


def read_spec(file: str | Path) -> LayoutSpec:
    """Read a layout from a YAML file; a priors file is looked for beside it. Raises BadConfig with every problem."""
    path = Path(file)
    if not path.is_file():
        raise BadConfig(f"{path}: no such layout file")
    try:
        spec = LayoutSpec.model_validate(read_mapping(path))
    except ValidationError as error:
        raise BadConfig(explain(LayoutSpec, path, error)) from error
    if spec.priors is None or spec.priors.file is None:
        return spec
    priors = spec.priors.model_copy(update={"file": str(path.parent / spec.priors.file)})
    return spec.model_copy(update={"priors": priors})
