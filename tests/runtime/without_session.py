"""What lies between an image and a board's boxes, but the network: run by an old numpy and a new one. Python 3.6.

    python tests/runtime/without_session.py MODULE ...

Imports the modules and prints {name: numbers} as JSON. The numbers are made from one seed.
"""

import importlib
import json
import sys

import numpy as np

from edgekit.runtime.camera.tracking import Tracker
from edgekit.runtime.detections import Detections
from edgekit.runtime.onboard import golden
from edgekit.runtime.postprocess import Postprocess
from edgekit.runtime.preprocess import Preprocess
from edgekit.runtime.timing import thirds

BOXES = 400


def network_output(random):
    """Boxes of a network in canvas pixels, and scores among which many are equal."""
    corner = random.uniform(0, 80, (BOXES, 2))
    boxes = np.concatenate([corner, corner + random.uniform(5, 40, (BOXES, 2))], axis=1).astype(np.float32)
    return boxes, (random.randint(0, 50, (BOXES, 3)) / 50.0).astype(np.float32)


def flat(detections):
    return np.concatenate([detections.boxes.ravel(), detections.scores, detections.class_ids]).tolist()


def results():
    random = np.random.RandomState(3)
    image = random.randint(0, 256, (60, 90, 3)).astype(np.uint8)
    preprocess = Preprocess(size=(96, 96), mode="letterbox", interpolation="nearest", mean=(1, 2, 3), std=(50, 60, 70))
    boxes, scores = network_output(random)
    placement = preprocess.place(90, 60)
    found = {"numpy": np.__version__}
    for layout in ("nchw_float", "nhwc_uint8"):
        found[layout] = preprocess(image, layout)[0].ravel().tolist()
    for nms in ("none", "classwise", "soft"):
        seen = Postprocess(nms=nms, score_threshold=0.1, top_k=100)(boxes, scores, placement)
        found[nms] = flat(seen)
    moved = Detections(seen.boxes + np.float32(0.2), seen.scores, seen.class_ids)
    compared = golden.compare([seen], [moved], 0.3, "fp16")
    found["golden"] = [compared[name] for name in ("boxes", "unpaired", "worst_iou", "worst_score")]
    tracker = Tracker()
    found["tracks"] = [tracker(d, i / 10.0).tolist() for i, d in enumerate((seen, moved, seen, moved))]
    found["thirds"] = list(thirds(random.uniform(1, 2, 99)))
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    json.dump(results(), sys.stdout)
