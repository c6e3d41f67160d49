"""Operator tables: what an ONNX parser imports, as data in ``boards/operators/NAME.yaml``."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

from onnx import TensorProto
from pydantic import Field, ValidationError

from ..config import Section, explain, read_mapping
from ..hardware import VersionText
from ..paths import share, unknown_name
from ..runtime.errors import BadConfig

Kind = Literal["FP32", "FP16", "BF16", "FP8", "INT8", "INT4", "UINT8", "INT32", "INT64", "BOOL"]

# ONNX element type -> its name in the tables; what is missing here no table has
KINDS: dict[int, Kind] = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}


class OperatorTable(Section):
    """What one release of a parser imports.

    opset_min, opset_max: the documented range of operator sets
    experimental: operators whose result differs from ONNX's definition
    plugins: operator -> the attributes that it reads, or null where any is taken
    operators: operator -> element types of its data. INT64 is computed as INT32 where the table has no INT64 at all
    """

    name: str
    title: str
    tensorrt: VersionText
    opset_min: Annotated[int, Field(ge=1)]
    opset_max: Annotated[int, Field(ge=7)]
    experimental: tuple[str, ...] = ()
    plugins: dict[str, tuple[str, ...] | None] = Field(default_factory=dict)
    operators: dict[str, tuple[Kind, ...]]

    @property
    def native_int64(self) -> bool:
        return any("INT64" in kinds for kinds in self.operators.values())


def operator_tables() -> list[str]:
    """Names of the shipped tables."""
    return sorted(p.stem for p in (share("boards") / "operators").glob("*.yaml"))


@cache
def load_operators(name: str) -> OperatorTable:
    """Read a table by name. Raises BadConfig that lists every problem found."""
    file = share("boards") / "operators" / f"{name}.yaml"
    if not file.is_file():
        raise unknown_name("operator table", name, operator_tables(), f"They are in {file.parent}.")
    try:
        return OperatorTable.model_validate(read_mapping(file))
    except ValidationError as error:
        raise BadConfig(explain(OperatorTable, file, error)) from error
