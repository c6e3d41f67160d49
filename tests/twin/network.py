"""A detector small enough for a simulator: bright blocks of a picture are objects of the class of their colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.runtime.artifact import Artifact, new_artifact, read_artifact
from edgekit.runtime.preprocess import Preprocess

WIDTH, HEIGHT, CELL = 96, 64, 8
CLASSES = ["blue", "green", "red"]
PREPROCESS = Preprocess((WIDTH, HEIGHT), mean=(127.5,) * 3, std=(127.5,) * 3)
POSTPROCESS = {"nms": "classwise", "iou_threshold": 0.5, "score_threshold": 0.05, "top_k": 100}


def model(strength: float = 6.0, extra: str | None = None) -> onnx.ModelProto:
    """``strength`` makes scores steeper; ``extra`` puts an operator between that a board may not know."""
    columns, rows = WIDTH // CELL, HEIGHT // CELL
    count = columns * rows
    weight = np.full((3, 3, 1, 1), -0.5, np.float32)
    weight[range(3), range(3)] = 1.0
    constants = {
        "weight": weight * strength,
        "bias": np.full(3, -strength * 0.45, np.float32),
        "shape": np.array([1, 3, count], np.int64),
        "grid": _grid(columns, rows),
        "reach": np.array([-2.0, -2.0, 2.0, 2.0], np.float32),
        "ones": np.ones((3, 4), np.float32) / 3,
    }
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], "pool", kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        helper.make_node("Conv", ["cells", "weight", "bias"], ["logits"], "head"),
        helper.make_node(extra or "Identity", ["logits"], ["passed"], "between"),
        helper.make_node("Sigmoid", ["passed"], ["heat"], "sigmoid"),
        helper.make_node("Reshape", ["heat", "shape"], ["flat"], "reshape"),
        helper.make_node("Transpose", ["flat"], ["scores"], "transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["scores", "ones"], ["mean"], "mean"),
        helper.make_node("Mul", ["mean", "reach"], ["grown"], "grow"),
        helper.make_node("Add", ["grown", "grid"], ["boxes"], "place"),
    ]
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, count, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, count, 3]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def _grid(columns: int, rows: int) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) * CELL
    return np.stack([x, y, x + CELL, y + CELL], -1).reshape(1, -1, 4)


def artifact(folder: Path, **options: object) -> Artifact:
    """The network as an onnx artifact for boards that take no uint8 input."""
    manifest = {
        "classes": CLASSES,
        "category_ids": [1, 2, 3],
        "preprocess": PREPROCESS.to_dict(),
        "postprocess": POSTPROCESS,
        "precision": "fp32",
        "input": {"name": "image", "layout": "nchw_float", "shape": [1, 3, HEIGHT, WIDTH]},
        "recipe": {"name": "blocks", "model": {"name": "blocks", "options": {}}},
        "complexity": {"macs": 864, "gops": 1.728e-6, "parameters": 12},
        "parents": {},
        "tools": {},
        "key": "blocks",
    }
    with new_artifact(folder, "onnx", manifest) as inside:
        onnx.save(model(**options), f"{inside}/model.onnx")  # type: ignore[arg-type]
    return read_artifact(folder)


def pictures(folder: Path, count: int = 10) -> Path:
    """A COCO file with pictures of coloured blocks beside it; returns the file."""
    import json

    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(7)
    images, annotations = [], []
    for number in range(1, count + 1):
        image = chance.integers(20, 60, (HEIGHT * 2, WIDTH * 2, 3)).astype(np.uint8)
        for row, column in {tuple(chance.integers(0, (8, 12))) for _ in range(5)}:
            colour, x, y = int(chance.integers(3)), int(column) * 16, int(row) * 16
            image[y : y + 16, x : x + 16] = 30
            image[y : y + 16, x : x + 16, colour] = 250
            box = {"bbox": [x, y, 16, 16], "area": 256, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": colour + 1, **box})
        name = f"picture {number}.png"
        cv2.imwrite(str(folder / name), image)
        images.append({"id": number, "file_name": name, "width": WIDTH * 2, "height": HEIGHT * 2})
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"
