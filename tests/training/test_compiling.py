"""Compiling leaves a network's names, copies and results as they were."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.models.zoo import build
from edgekit.recipe import load_recipe
from edgekit.runtime.errors import BadConfig
from edgekit.training.compiling import compile_network
from edgekit.training.ema import WeightAverage

WITHOUT_COMPILER = """
from torch import nn
from edgekit.runtime.errors import MissingDependency
from edgekit.training.compiling import compile_network
try:
    compile_network(nn.Linear(2, 2))
except MissingDependency as error:
    print(error)
"""


def test_names_copies_and_results_stay() -> None:
    torch.manual_seed(0)
    model = build("mobile-centernet", 2, {"backbone": "hrnet-w16"})
    image = torch.randn(1, 3, 64, 64)
    names = list(model.state_dict())
    expected = model.eval()(image)
    average = WeightAverage(model, 0.9)
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compile_network(model, backend)
    graphs.clear()  # of the probe
    assert list(model.state_dict()) == names
    for network in (model, copy.deepcopy(model)):
        for found, wanted in zip(network(image), expected, strict=True):
            assert torch.allclose(found, wanted, atol=1e-5)
    assert graphs  # the network's own pass was compiled, not only the probe
    average.update(model)
    assert list(average.model.state_dict()) == names


@pytest.mark.slow
def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "apt-get install g++" in done.stdout
    assert "train.compile=false" in done.stdout


def test_not_beside_quantization_aware() -> None:
    wishes = ["quantization_aware={}", "train.init=x", "train.precision=fp32", "train.compile=true"]
    with pytest.raises(BadConfig, match=r"quantization_aware and train\.compile"):
        load_recipe("mobile-centernet-w16-dhaka", wishes)
