"""What every YAML file of EdgeKit shares: unknown keys are errors, and all problems are reported at once."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as show  # shortens what a broken file may hold
from typing import Any, ClassVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from .runtime.errors import BadConfig
from .words import counted

# libyaml's parser where PyYAML was built with it (its wheels are): the same values in a tenth of the time
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_INTEGER = "tag:yaml.org,2002:int"
_PLAIN_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$")


class _Loader(_SAFE_LOADER):
    """Refuses a key that a mapping has twice, of which PyYAML would silently keep the last; and reads 010 and 1:30 as
    texts, as YAML 1.2 does, for no recipe means the 8 and the 90 that YAML 1.1 makes of them.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, _PLAIN_INTEGER if tag == _INTEGER else pattern) for tag, pattern in known]
        for first, known in _SAFE_LOADER.yaml_implicit_resolvers.items()
    }

    def get_single_node(self) -> yaml.Node | None:
        root: yaml.Node | None = super().get_single_node()
        _refuse_repeated(root)
        return root


def _refuse_repeated(root: yaml.Node | None) -> None:
    """Raises yaml.YAMLError. Before ``<<`` is resolved, for what a mapping takes from there it may say again."""
    seen: set[int] = set()  # an alias is the node itself
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys: set[tuple[str, str]] = set()
            for key, value in node.value:
                waiting.append(value)
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in keys:
                        raise yaml.MarkedYAMLError(
                            problem=f"key {key.value!r} is there twice", problem_mark=key.start_mark
                        )
                    keys.add((key.tag, key.value))
        else:
            waiting += node.value


class Section(BaseModel):
    """A frozen mapping whose keys are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads yes, no, on and off as truths, and pydantic takes a truth for 1 or 0."""
        parts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(part, bool) for part in parts):
            kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
            if kinds & {int, float} and not kinds & {bool, Any}:
                raise ValueError(f"should be a number, found {show(value)}")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The plain types in an annotation: {float, NoneType} of tuple[float, ...] | None."""
    parts = get_args(annotation)
    return set().union(*map(_kinds, parts)) if parts else {annotation} if isinstance(annotation, Hashable) else set()


def parse_yaml(text: str) -> Any:
    """The value that a YAML text describes, of plain types only. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except UnicodeEncodeError as error:  # of a byte on the command line that is no text; libyaml's parser wants UTF-8
        raise yaml.YAMLError(str(error)) from error


def read_mapping(file: Path) -> dict[str, Any]:
    """The mapping at the root of a YAML file. Raises BadConfig that names the file."""
    try:
        values = parse_yaml(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfig(f"{file}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise BadConfig(f"{file}: expected a mapping of keys, found {type(values).__name__}")
    return values


def explain(
    root: type[BaseModel],
    file: Path,
    error: ValidationError,
    private: tuple[str, ...] = (),
    given: Sequence[str] = (),
) -> str:
    """Every problem that pydantic found, one per line, with the nearest known key for each unknown one.

    private: fields of ``root`` that a file may not set, and so are not offered
    given: KEY=VALUE of the command line, which changed what the file says and is then to blame
    """
    lines, blamed = [], []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        unknown = problem["type"] == "extra_forbidden"
        message = f"unknown key{_nearest(root, problem['loc'], private)}" if unknown else _told(problem)
        lines.append(f"  {where or root.__name__.lower()}: {message}")
        blamed.append([text for text in given if _is_of(text.partition("=")[0], where, message)])
    if all(blamed):
        changes = dict.fromkeys(text for texts in blamed for text in texts)
        place = f"{', '.join(changes)} on the command line, for {file}"
    else:
        place = str(file)
        lines = [
            f"{line} (by {', '.join(texts)} on the command line)" if texts else line
            for line, texts in zip(lines, blamed, strict=True)
        ]
    return "\n".join([f"{place}: {counted(len(lines), 'problem')}", *lines])


def _told(problem: Mapping[str, Any]) -> str:
    """What was needed and what was found: pydantic's words, which leave out the one or the other."""
    if problem["type"] == "value_error":  # of a validator of ours, which says what it found
        return str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "missing":
        return "is missing"
    least = problem.get("ctx", {}).get("min_length")
    ours = {"tuple_type": "should be a list", "model_type": "should be a section, with keys of its own"}
    ours |= {"dict_type": ours["model_type"], "too_short": f"should have at least {least} of them"}
    needed = ours.get(problem["type"], problem["msg"].removeprefix("Input "))
    return f"{needed.partition(', unable to parse')[0]}, found {show(problem['input'])}"


def _is_of(key: str, where: str, message: str) -> bool:
    """Whether a problem is of a key of the command line: at it, below or above it, or of several, which it names."""
    if not where:
        return re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", message) is not None
    return f"{where}.".startswith(f"{key}.") or f"{key}.".startswith(f"{where}.")


def _nearest(root: type[BaseModel], loc: tuple[int | str, ...], private: tuple[str, ...]) -> str:
    """What may have been meant by an unknown key."""
    key = str(loc[-1])
    if ":" in key:  # {gamma:2} is a key without a value to YAML
        return f"; YAML wants a space behind a colon: {key.replace(':', ': ')}"
    section: Any = root
    keyed = False
    for part in loc[:-1]:
        if keyed:  # the name of an entry, whose section is known
            keyed = False
            continue
        field = section.model_fields.get(str(part))
        section, keyed = _section(field), get_origin(field.annotation if field else None) is dict
        if section is None:
            return ""
    names = [n for n in section.model_fields if n not in private]
    here = "".join(f"{part}." for part in loc[:-1])
    below = [f"{here}{name}.{key}" for name in names if key in _fields(section.model_fields[name])]
    near = get_close_matches(key, names, n=2, cutoff=0.8) or below or get_close_matches(key, names, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known keys: {', '.join(names)}"


def _section(field: Any) -> Any:
    """The section that a field holds, None for a plain value."""
    annotation = field.annotation if field else None
    return next((t for t in getattr(annotation, "__args__", (annotation,)) if hasattr(t, "model_fields")), None)


def _fields(field: Any) -> Mapping[str, Any]:
    section = None if get_origin(field.annotation) is dict else _section(field)
    return section.model_fields if section else {}
