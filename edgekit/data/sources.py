"""The annotated sets that a recipe names: one, or several sources of which each has labels of some classes only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..paths import expanded, unknown_name
from ..progress import Count, Progress, counting
from ..runtime.artifact import value_sha256
from ..runtime.errors import BadConfig, BadInput
from .classmap import load_class_map
from .coco import CocoSet, category_names, load_json, nearest
from .formats import LoadedSet, load_set

if TYPE_CHECKING:
    from ..recipe import AnnotatedSection, Recipe, SourceSection

SHARES = 1 << 21  # keeps the draws of shares of a source apart from those of images, which are seeded alike


@dataclass(frozen=True, eq=False)
class Source:
    """One origin of data. Its sets have all of the detector's classes, and boxes of the labelled ones.

    labelled: the detector's classes that were looked for in every image, in the detector's order
    repeat: how often an epoch sees each training image
    """

    name: str
    train: CocoSet | None
    val: CocoSet | None
    labelled: tuple[str, ...]
    repeat: float = 1.0


@dataclass(frozen=True, eq=False)
class Mixture:
    """The training sets of several sources, as one. An epoch draws from them by their ``repeat``."""

    sources: tuple[Source, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, train: CocoSet | Mixture) -> Mixture:
        """A set alone is a mixture of one source that has labels of everything."""
        if isinstance(train, Mixture):
            return train
        return cls((Source("", train, None, train.classes),), train.classes)

    @cached_property
    def sets(self) -> tuple[CocoSet, ...]:
        return tuple(source.train for source in self.sources if source.train is not None)

    @property
    def category_ids(self) -> tuple[int, ...]:
        return self.sets[0].category_ids

    def __len__(self) -> int:
        """Images that an epoch sees."""
        return sum(_drawn(len(coco), source.repeat) for coco, source in zip(self.sets, self.sources, strict=True))

    def class_counts(self) -> np.ndarray:
        """Boxes of each class that an epoch sees, int64 [classes]: at least one of a class that has boxes."""
        counts = [coco.class_counts() * s.repeat for coco, s in zip(self.sets, self.sources, strict=True)]
        rounded: np.ndarray = np.ceil(np.sum(counts, axis=0) - 1e-9).astype(np.int64)
        return rounded

    def digest(self) -> str:
        """Identity of content: of every set, what is labelled in it and how often it is seen."""
        contents = [coco.hash_with(coco.category_ids) for coco in self.sets]
        return value_sha256(
            [[s.name, content, s.labelled, s.repeat] for content, s in zip(contents, self.sources, strict=True)]
        )

    def labelled(self, source: Source) -> np.ndarray | None:
        """bool [classes]; None where all of them are labelled in every source."""
        if all(len(s.labelled) == len(self.classes) for s in self.sources):
            return None
        return np.array([name in source.labelled for name in self.classes])

    def starts(self) -> Iterator[int]:
        """The first index of each source: it has as many indices as images times ``repeat``, rounded up."""
        start = 0
        for coco, source in zip(self.sets, self.sources, strict=True):
            yield start
            start += len(coco) * math.ceil(source.repeat)

    def draw(self, seed: int, epoch: int) -> np.ndarray:
        """Indices that an epoch sees, in order: every image of a source as often as ``repeat`` says, whole times, and a
        random part of them for what is left, by seed and epoch.
        """
        parts = []
        for place, (start, coco, source) in enumerate(zip(self.starts(), self.sets, self.sources, strict=True)):
            whole = len(coco) * math.floor(source.repeat)
            rest = _drawn(len(coco), source.repeat) - whole
            rng = np.random.default_rng((seed, epoch, SHARES + place))
            more = np.sort(rng.permutation(len(coco))[:rest]) if rest else np.zeros(0, np.int64)
            parts.append(start + np.concatenate([np.arange(whole), whole + more]))
        return np.concatenate(parts)


def _drawn(images: int, repeat: float) -> int:
    return max(1, round(images * repeat))


def trained_sources(recipe: Recipe, sources: Sequence[Source]) -> tuple[Source, ...]:
    """Those that have annotations to train on. Raises BadConfig where none has."""
    trained = tuple(source for source in sources if source.train is not None)
    if not trained:
        raise BadConfig(f"recipe {recipe.name}: no source has train, the annotations to train on")
    return trained


# -- reading ----------------------------------------------------------------------------------------------------------
def recipe_sources(recipe: Recipe, progress: Progress | None = None) -> tuple[Source, ...]:
    """All sets that a recipe names, read and checked whole; a recipe without ``data.sources`` has one source, "".

    Raises BadConfig or BadInput for what is missing or wrong.
    """
    data, classes = recipe.data, recipe.classes
    if data is not None and data.sources:
        return read_sources(recipe, progress=progress)
    if data is None or data.train is None:
        raise BadConfig(f"recipe {recipe.name}: data.train is not set; it names the COCO file to train on")
    loaded = _loaded(recipe, data, data_root(recipe), "data")
    _check_known(recipe, loaded)
    train, val = (_checked(loaded.get(split), classes, counting(progress, split)) for split in ("train", "val"))
    return (Source("", _whole(train, classes), _whole(val, classes), classes),)


def read_sources(recipe: Recipe, check_images: bool = True, progress: Progress | None = None) -> tuple[Source, ...]:
    """The sources of a recipe's ``data.sources``, read and checked whole.

    Raises BadConfig or BadInput for what is missing or wrong, and for a class that no training source has labels of:
    it could only be learnt as absent.
    """
    assert recipe.data is not None
    sources = tuple(_read(recipe, name, check_images, progress) for name in recipe.data.sources)
    trained = [source for source in sources if source.train is not None]
    if trained:
        _check_every_class(recipe, trained)
    return sources


def validation_set(recipe: Recipe, name: str) -> CocoSet:
    """The validation set of one source. Raises BadConfig for one that the recipe does not have."""
    names = validation_names(recipe)
    if name not in names:
        raise unknown_name("source with a validation set", name, names, "")
    val = _read(recipe, name, True, None).val
    assert val is not None
    return val


def validation_names(recipe: Recipe) -> list[str]:
    """The sources of a recipe that have a validation set."""
    sources = recipe.data.sources if recipe.data else {}
    return [name for name, section in sources.items() if section.val is not None]


def source_notes(sources: Sequence[Source], classes: Sequence[str]) -> list[str]:
    """What a user should know of the sources before training on them, in words."""
    notes = []
    trained = [source.train.class_counts() for source in sources if source.train]
    if trained and (empty := [name for name, count in zip(classes, np.sum(trained, axis=0), strict=True) if not count]):
        notes.append(f"no box of {', '.join(empty)} to train on; it cannot be learnt")
    for source in sources:
        missing = [name for name in classes if name not in source.labelled]
        if missing:
            notes.append(f"source {source.name}: {', '.join(missing)} not labelled; no loss there, and in no mean")
        for split, coco in (("train", source.train), ("val", source.val)):
            notes += [f"{_place(source, split)}: {note}" for note in (coco.notes if coco else ())]
    seen = {s.path.resolve() for source in sources if source.train for s in source.train.samples}
    for source in sources:
        both = sum(s.path.resolve() in seen for s in source.val.samples) if source.val else 0
        if both:
            notes.append(f"{_place(source, 'val')}: {both} of {len(source.val or ())} images are trained on too")
    return notes


def _place(source: Source, split: str) -> str:
    return f"source {source.name}, {split}" if source.name else split


def _read(recipe: Recipe, name: str, check_images: bool, progress: Progress | None) -> Source:
    assert recipe.data is not None
    section, key = recipe.data.sources[name], f"data.sources.{name}"
    loaded = _loaded(recipe, section, data_root(recipe, section), key)
    labelled = _labelled(recipe, section, key, next(iter(loaded.values())))
    sets = [
        _checked(loaded.get(split), labelled, counting(progress, f"{name} {split}"), check_images)
        for split in ("train", "val")
    ]
    train, val = (None if coco is None else widened(coco, recipe.classes) for coco in sets)
    if section.labelled is None and train is not None:
        _check_default(train, labelled, key)
    return Source(name, train, val, labelled, section.repeat)


def _loaded(recipe: Recipe, section: AnnotatedSection, root: Path, key: str) -> dict[str, LoadedSet]:
    """The annotation files of one origin by their split, the training set's first. key: where the recipe names it"""
    for split in ("train", "val"):
        if file := getattr(section, split):
            _require_annotations(recipe, root / file, f"{key}.{split}")
    class_map = load_class_map(section.class_map, recipe.folder) if section.class_map else None
    return {
        split: load_set(root / file, root / section.images, section.layout, class_map, stride)
        for split, file, stride in (("train", section.train, section.frame_stride), ("val", section.val, 1))
        if file is not None
    }


def _checked(
    loaded: LoadedSet | None, classes: Sequence[str], looked: Count, check_images: bool = True
) -> CocoSet | None:
    """The set of those of ``classes`` that its file has, checked; None without a file.

    Most layouts list what the images of one file show, so that a class may be in the other split's alone.
    Raises BadInput for what is wrong, and for a file that has no box of these classes.
    """
    if loaded is None:
        return None
    # of a file that has none of them the reader says so
    chosen = [name for name in classes if name in loaded.names] or list(classes)
    coco = loaded.checked(chosen, check_images, looked)
    if not coco.class_counts().any():
        why = "".join(f"; {note}" for note in coco.notes if "without area" in note or "ignore box" in note)
        raise BadInput(f"{coco.annotations}: no box of {', '.join(chosen)} in it; nothing to learn or measure{why}")
    return coco


def _check_known(recipe: Recipe, loaded: Mapping[str, LoadedSet]) -> None:
    """Raises BadInput for a class of the recipe that none of its files has."""
    known = list(dict.fromkeys(name for one in loaded.values() for name in one.names))
    lost = [name for name in recipe.classes if name not in known]
    if not lost:
        return
    for one in loaded.values():
        one.checked(check_images=False)  # a file that is no COCO object has no classes either, and says why
    files = " and ".join(str(one.annotations) for one in loaded.values())
    raise BadInput(
        "\n".join(
            [
                f"{files}: no such class as in recipe {recipe.name}",
                *(f"  class {name!r}: {nearest(name, known)}" for name in lost),
                "Take it out of classes, or let a class map give the data's classes its name: data.class_map=FILE",
            ]
        )
    )


def evaluated_classes(annotations: Path | None, classes: Sequence[str]) -> list[str]:
    """The detector's classes that a COCO file can measure: all of them; or, if each of the file's is one of them, the
    file's. A file that lacks some and has others belongs to another detector: then all, and reading it says which.
    """
    content = load_json(annotations)[0] if annotations is not None else None
    known = category_names(content)
    return [name for name in classes if name in known] if known and set(known) < set(classes) else list(classes)


def require_roots(recipe: Recipe) -> None:
    """Raises BadInput for a folder of data that is not there; quick, before anything heavy is loaded."""
    if recipe.data is not None:
        for section in recipe.data.sources.values() or (None,):
            data_root(recipe, section)


def source_root(recipe: Recipe, section: SourceSection | None = None) -> Path:
    """The folder that a recipe says its data is in, or one source's, whether it is there or not."""
    assert recipe.data is not None
    root = recipe.resolve(recipe.data.root)
    return root if section is None else root / expanded(section.root)


def data_root(recipe: Recipe, section: SourceSection | None = None) -> Path:
    """The folder of a recipe's data, or of one source's. Raises BadInput that says how to name another."""
    root = source_root(recipe, section)
    if not root.is_dir():
        raise BadInput(
            f"{root}: no such folder. Recipe {recipe.name} looks for its data there; say where yours is: "
            f"edgekit train {recipe.name} data.root=FOLDER"
        )
    return root


def _require_annotations(recipe: Recipe, place: Path, key: str) -> None:
    """Raises BadInput that says how to name others; ``#SPLIT`` behind a place is the layout's."""
    if not Path(str(place).partition("#")[0]).exists():
        raise BadInput(
            f"{place}: no such annotations. Recipe {recipe.name} looks for them there; say where yours are: "
            f"edgekit train {recipe.name} {key}=FILE"
        )


def _labelled(recipe: Recipe, section: SourceSection, key: str, loaded: LoadedSet) -> tuple[str, ...]:
    """The classes that were looked for in an origin's images, as its section says, or as its file lists."""
    known, has = loaded.names, ", ".join(loaded.names) or "none"
    told = f"{loaded.annotations}{f' by the class map {section.class_map}' if section.class_map else ''}"
    if section.labelled is None:
        found = tuple(name for name in recipe.classes if name in known)
        if not found:
            raise BadInput(
                f"{key}: {told} has no class of the recipe's ({', '.join(recipe.classes)}); it has: {has}. "
                f"A class map brings them together: {key}.class_map"
            )
        return found
    if lost := [name for name in section.labelled if name not in known]:
        raise BadInput(f"{key}.labelled: {told} has no class {', '.join(lost)}; it has: {has}")
    return tuple(name for name in recipe.classes if name in section.labelled)


def _check_default(train: CocoSet, labelled: Sequence[str], key: str) -> None:
    counts = dict(zip(train.classes, train.class_counts(), strict=True))
    empty = [name for name in labelled if not counts[name]]
    if empty:
        rest = ", ".join(name for name in labelled if counts[name])
        raise BadInput(
            f"{train.annotations}: lists {', '.join(empty)} and has no box of it. Nobody can tell whether its images "
            f"show none or nobody looked. Say which classes were looked for: {key}.labelled=[{rest}], or with "
            f"{', '.join(empty)} if there is none in any image"
        )


def _check_every_class(recipe: Recipe, trained: Sequence[Source]) -> None:
    counts = Mixture(tuple(trained), recipe.classes).class_counts()
    for name, count in zip(recipe.classes, counts, strict=True):
        where = [source.name for source in trained if name in source.labelled]
        if not where:
            raise BadConfig(
                f"recipe {recipe.name}: class {name} is labelled in no training source "
                f"({', '.join(source.name for source in trained)}), so it cannot be learnt. "
                f"Take it out of classes, add it to a source's labelled, or add a source that has it"
            )
        if not count:
            raise BadInput(f"recipe {recipe.name}: no box of class {name} in {', '.join(where)}; nothing to learn")


def _whole(coco: CocoSet | None, classes: tuple[str, ...]) -> CocoSet | None:
    """A recipe's only set as it is; with all of the classes if its file lacks some."""
    return coco if coco is None or coco.classes == classes else widened(coco, classes)


def widened(coco: CocoSet, classes: Sequence[str]) -> CocoSet:
    """A set of some of the detector's classes as a set of all of them, in the detector's order; ids count from 1.

    It has no box of the others, so they are in no mean of its evaluation.
    """
    place = np.array([list(classes).index(name) for name in coco.classes], np.int64)
    samples = []
    for sample in coco.samples:
        labels = place[sample.labels]
        labels.setflags(write=False)
        samples.append(replace(sample, labels=labels))
    ids = tuple(range(1, len(classes) + 1))
    labelled = coco.labelled or coco.classes
    return replace(coco, samples=tuple(samples), classes=tuple(classes), category_ids=ids, labelled=labelled)
