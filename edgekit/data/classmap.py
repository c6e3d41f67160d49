"""Class maps: how the classes of one data set become those of another, as YAML.

classes: {vehicle: [bus, car, truck], pedestrian: [person]}   # new class -> the file's classes
drop: [rider, traffic light]                                   # left out on purpose
ignore: [train]                                                # neither target nor background
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from ..config import Section, explain, read_mapping
from ..paths import expanded, unknown_name
from ..runtime.errors import BadConfig, BadInput

_MAPS = Path(__file__).resolve().parent / "maps"


class ClassMap(Section):
    """A checked class map. Every class of a file must be named in it once: a forgotten one is an error, not a loss."""

    description: str = ""
    classes: Annotated[dict[str, tuple[str, ...]], Field(min_length=1)]
    drop: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> ClassMap:
        sources = [name for names in self.classes.values() for name in names] + [*self.drop, *self.ignore]
        twice = sorted(name for name, count in Counter(sources).items() if count > 1)
        if twice:
            raise ValueError(f"named more than once: {', '.join(twice)}")
        return self

    def apply(self, content: dict[str, Any], source: Path) -> dict[str, Any]:
        """The COCO object with the new classes, numbered from 1 in the map's order. BadInput for an unmapped class."""
        target = {old: new for new, olds in self.classes.items() for old in olds}
        names = {c["id"]: c["name"] for c in content["categories"]}
        known = target.keys() | set(self.drop) | set(self.ignore)
        if strange := sorted({str(n) for n in names.values()} - known):
            raise BadInput(
                f"{source}: the class map says nothing about {', '.join(strange)}. "
                f"Name each under classes, drop or ignore."
            )
        ids = {new: number for number, new in enumerate(self.classes, 1)}
        annotations = []
        for annotation in content["annotations"]:
            old = names.get(annotation.get("category_id"))
            if old in target:
                annotations.append({**annotation, "category_id": ids[target[old]]})
            elif old in self.ignore:  # of any class: every class must be spared there
                annotations += [
                    {**annotation, "category_id": number, "ignore": 1, "id": f"{annotation['id']}/{number}"}
                    for number in ids.values()
                ]
        for number, annotation in enumerate(annotations, 1):
            annotation["id"] = number
        categories = [{"id": number, "name": new} for new, number in ids.items()]
        return {**content, "annotations": annotations, "categories": categories}


def class_map_names() -> list[str]:
    """Names of the shipped maps."""
    return sorted(p.stem for p in _MAPS.glob("*.yaml"))


def load_class_map(name: str | Path, folder: Path = Path()) -> ClassMap:
    """A shipped map by its name, or one from a YAML file, relative to ``folder``. BadConfig lists every problem."""
    for file in (folder / expanded(name), _MAPS / f"{name}.yaml"):
        if file.is_file() and file.suffix in (".yaml", ".yml"):
            try:
                return ClassMap.model_validate(read_mapping(file))
            except ValidationError as error:
                raise BadConfig(explain(ClassMap, file, error)) from error
    raise unknown_name("class map", str(name), class_map_names(), "A path to a YAML file works too.")
