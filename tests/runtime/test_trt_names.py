"""Only names that TensorRT 8.2 has are touched on the board; nothing unsafe is ever switched on."""

import ast
import json
from pathlib import Path

import pytest

import edgekit

from . import trt_api

ROOT = Path(edgekit.__file__).parent
KNOWN = json.loads(Path(__file__).with_name("tensorrt82.json").read_text())
DOCS = ROOT.parent / "docs" / "engines.md"


@pytest.fixture(scope="module")
def used():
    return set(trt_api.engine_names("tensorrt8:Tensorrt8", "trt8:Tensorrt8Session"))


def test_every_name_of_the_8_2_path_is_known_from_a_source(used):
    known = {name for names in KNOWN["names"].values() for name in names}
    assert set(KNOWN["names"]) == set(KNOWN["sources"])
    assert used == known


def test_the_extraction_sees_what_it_should(used):
    """So that the test above cannot pass by looking at nothing."""
    assert {"IBuilderConfig.max_workspace_size", "IExecutionContext.execute_async_v2", "trt.BuilderFlag.FP16"} <= used
    newer = set(trt_api.engine_names("tensorrt10:Tensorrt10", "trt10:Tensorrt10Session"))
    assert not {"IBuilderConfig.max_workspace_size", "IExecutionContext.execute_async_v2"} & newer
    assert {"IBuilderConfig.set_memory_pool_limit", "IExecutionContext.execute_async_v3"} <= newer - used


@pytest.mark.skipif(not DOCS.exists(), reason="the documents are not shipped with the package")
def test_the_document_lists_them(used):
    text = DOCS.read_text()
    missing = sorted(name for name in used if f"`{name.rpartition('.')[2]}`" not in text and f"`{name}`" not in text)
    assert not missing


def test_host_code_in_engines_is_never_allowed():
    """``engine_host_code_allowed`` would run code that a plan carries."""
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            named = [getattr(node, field, None) for field in ("attr", "id", "arg", "name")]
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            assert "engine_host_code_allowed" not in [*named, text.strip()], f"{file}: {ast.dump(node)[:80]}"
