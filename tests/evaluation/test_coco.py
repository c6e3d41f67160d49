"""mAP against examples that were worked out by hand.

COCO's AP is the mean of the interpolated precision at the 101 recalls 0, 0.01, ... 1.
"""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit import pipeline, spine
from edgekit.data import evaluation
from edgekit.data.coco import CocoSet, Sample
from edgekit.evaluation import detect
from edgekit.evaluation.coco import evaluate_detections
from edgekit.runtime.detections import Detections
from edgekit.runtime.errors import BadInput

A, B, C = [10, 10, 50, 50], [100, 100, 180, 160], [200, 20, 260, 80]
FAR = [300, 300, 340, 340]  # meets nothing


def sample(image_id, *truth):
    """truth: (box, label) or (box, label, ignore)"""
    rows = [(*t, False)[:3] for t in truth]
    return Sample(
        path=Path(f"/images/{image_id}.jpg"),
        image_id=image_id,
        width=400,
        height=400,
        boxes=np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        labels=np.array([r[1] for r in rows], np.int64),
        ignore=np.array([r[2] for r in rows], bool),
    )


def coco_set(*samples, classes=("car", "bus"), category_ids=(3, 7)):
    return CocoSet(Path("/set.json"), Path("/images"), samples, classes, category_ids, (), "0" * 64)


def found(*items):
    """items: (box, score, class)"""
    return Detections([i[0] for i in items], [i[1] for i in items], [i[2] for i in items])


HALF = 51 / 101  # precision 1 up to recall 0.5, nothing after


@pytest.mark.parametrize(
    ("truth", "detections", "map50"),
    [
        pytest.param([(A, 0), (B, 0)], [(A, 0.9, 0), (B, 0.8, 0)], 1.0, id="all found"),
        pytest.param([(A, 0), (B, 0)], [(A, 0.9, 0)], HALF, id="one of two missed"),
        pytest.param([(A, 0), (B, 0)], [], 0.0, id="nothing found"),
        pytest.param([(A, 0)], [(FAR, 0.9, 0), (A, 0.8, 0)], 0.5, id="a false alarm before the hit: precision 1/2"),
        pytest.param([(A, 0)], [(A, 0.9, 0), (FAR, 0.8, 0)], 1.0, id="a false alarm after the hit does not matter"),
        pytest.param([(A, 0)], [(A, 0.9, 0), (A, 0.8, 0)], 1.0, id="a second box on one object is a false alarm"),
        pytest.param([(A, 0)], [(A, 0.9, 1)], 0.0, id="the wrong class"),
        # recall 1/3 at precision 1, then 2/3 at 2/3 (false alarm between), 3/3 at 3/4: interpolated 1, 3/4, 3/4
        pytest.param(
            [(A, 0), (B, 0), (C, 0)],
            [(A, 0.9, 0), (FAR, 0.8, 0), (B, 0.7, 0), (C, 0.6, 0)],
            (34 * 1 + 67 * 0.75) / 101,
            id="interpolated precision",
        ),
    ],
)
def test_map50_of_one_class_by_hand(truth, detections, map50):
    metrics = evaluate_detections(coco_set(sample(1, *truth)), {1: found(*detections)})
    assert metrics.map50 == pytest.approx(map50, abs=1e-6)
    assert metrics.per_class["car"]["ap50"] == pytest.approx(map50, abs=1e-6)


def test_map_averages_over_the_ten_ious():
    # 100 x 100 against 100 x 72: IoU 0.72, a hit at 0.50, 0.55, 0.60, 0.65, 0.70 and a miss from 0.75 on
    metrics = evaluate_detections(coco_set(sample(1, ([0, 0, 100, 100], 0))), {1: found(([0, 0, 100, 72], 0.9, 0))})
    assert (metrics.map, metrics.map50, metrics.map75) == pytest.approx((0.5, 1.0, 0.0))


def test_an_object_is_small_by_its_own_area_where_the_set_has_one():
    """COCO's areas are those of outlines: of a thin diagonal pole hardly any of its box."""
    box = [100, 100, 200, 160]
    by_box = evaluate_detections(coco_set(sample(1, (box, 0))), {1: found((box, 0.9, 0))})
    assert by_box.sizes == {"small": None, "medium": pytest.approx(1.0), "large": None}
    outlined = replace(sample(1, (box, 0)), areas=np.array([900.0]))
    assert evaluate_detections(coco_set(outlined), {1: found((box, 0.9, 0))}).sizes == {
        "small": pytest.approx(1.0),
        "medium": None,
        "large": None,
    }


def test_classes_without_boxes_are_not_in_the_mean():
    detections = {1: found((A, 0.9, 0), (FAR, 0.9, 1))}  # the bus is a false alarm of a class that has no box
    metrics = evaluate_detections(coco_set(sample(1, (A, 0))), detections)
    assert metrics.map == pytest.approx(1.0)
    assert list(metrics.per_class) == ["car"]


def test_the_mean_is_over_classes_not_over_boxes():
    truth = sample(1, (A, 0), (B, 0), (C, 1))
    metrics = evaluate_detections(coco_set(truth), {1: found((A, 0.9, 0), (B, 0.9, 0))})
    assert metrics.map50 == pytest.approx(0.5)
    assert metrics.per_class == {
        "car": {"ap": pytest.approx(1.0), "ap50": pytest.approx(1.0), "boxes": 2},
        "bus": {"ap": 0.0, "ap50": 0.0, "boxes": 1},
    }


@pytest.mark.parametrize("category_ids", [(3, 7, 9), (9, 7, 3), (9, 3, 7), (2, 0, 1)])
def test_every_class_has_its_own_figures_whatever_its_category_id(category_ids):
    """A recipe's order of classes is not that of the file's ids, and COCOeval sorts its classes by id."""
    classes = ("car", "bus", "bicycle")  # every car is found, a half of the buses, and there is no bicycle
    truth = sample(1, (A, 0), (B, 1), (C, 1))
    metrics = evaluate_detections(
        coco_set(truth, classes=classes, category_ids=category_ids), {1: found((A, 0.9, 0), (B, 0.8, 1), (FAR, 0.7, 2))}
    )
    assert metrics.per_class == {
        "car": {"ap": pytest.approx(1.0), "ap50": pytest.approx(1.0), "boxes": 1},
        "bus": {"ap": pytest.approx(HALF), "ap50": pytest.approx(HALF), "boxes": 2},
    }
    assert (metrics.map, metrics.map50, metrics.map75) == pytest.approx(((1 + HALF) / 2,) * 3)
    assert metrics.recall == {limit: pytest.approx(0.75) for limit in ("1", "10", "100")}
    assert metrics.sizes == {"small": None, "medium": pytest.approx((1 + HALF) / 2), "large": None}


def test_ignored_boxes_are_neither_misses_nor_false_alarms():
    truth = sample(1, (A, 0), (B, 0, True))
    with_hit = evaluate_detections(coco_set(truth), {1: found((B, 0.95, 0), (A, 0.9, 0))})
    without = evaluate_detections(coco_set(truth), {1: found((A, 0.9, 0))})
    assert (with_hit.map, without.map) == pytest.approx((1.0, 1.0))
    assert without.per_class["car"]["boxes"] == 1


def test_a_class_with_only_ignored_boxes_is_not_counted():
    metrics = evaluate_detections(coco_set(sample(1, (A, 0), (B, 1, True))), {1: found((A, 0.9, 0))})
    assert metrics.map == pytest.approx(1.0)
    assert list(metrics.per_class) == ["car"]


def test_scores_are_ranked_over_all_images():
    # image 2 has the best score and it is wrong: precision 1/2 at recall 1
    truth = coco_set(sample(1, (A, 0)), sample(2))
    metrics = evaluate_detections(truth, {1: found((A, 0.5, 0)), 2: found((A, 0.9, 0))})
    assert metrics.map50 == pytest.approx(0.5)
    assert metrics.images == 2


def test_only_the_best_hundred_of_an_image_count():
    alarms = [(FAR, 0.9 - i * 1e-3, 0) for i in range(100)]
    metrics = evaluate_detections(coco_set(sample(1, (A, 0))), {1: found(*alarms, (A, 0.5, 0))})
    assert metrics.map50 == 0.0


def test_nothing_is_printed(capsys):
    evaluate_detections(coco_set(sample(1, (A, 0))), {1: found((A, 0.9, 0))})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("ids", [[], [1], [1, 2, 3], [1, 3]])
def test_the_detections_must_cover_exactly_the_set(ids):
    with pytest.raises(ValueError, match="must cover the set"):
        evaluate_detections(coco_set(sample(1, (A, 0)), sample(2)), {i: Detections.empty() for i in ids})


@pytest.mark.parametrize("truth", [[], [(A, 0, True)]])
def test_a_set_without_boxes_to_find_is_refused(truth):
    with pytest.raises(BadInput, match=r"/set\.json: no box to find"):
        evaluate_detections(coco_set(sample(1, *truth)), {1: Detections.empty()})


def test_coco_json_has_category_ids_and_widths():
    ids = coco_set().category_ids
    assert [record for n in (1, 2) for record in found((A, 0.25 * n, 2 - n)).to_coco(n, ids)] == [
        {"image_id": 1, "category_id": 7, "bbox": [10, 10, 40, 40], "score": 0.25},
        {"image_id": 2, "category_id": 3, "bbox": [10, 10, 40, 40], "score": 0.5},
    ]


def test_the_json_evaluates_to_the_same_map_with_pycocotools_own_reader(capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    samples, detections = [], {}
    for image_id in range(1, 9):
        corners = rng.uniform(0, 300, (12, 2)).astype(np.float32)
        boxes = np.hstack([corners, corners + rng.uniform(10, 90, (12, 2)).astype(np.float32)])
        labels = rng.integers(0, 2, 12)
        samples.append(
            sample(image_id, *zip(boxes.tolist(), labels.tolist(), (rng.random(12) < 0.2).tolist(), strict=True))
        )
        shaken = boxes + rng.normal(0, 6, boxes.shape)
        detections[image_id] = Detections(shaken, rng.random(12), labels)
    truth = coco_set(*samples)
    metrics = evaluate_detections(truth, detections)

    reference = COCO()
    reference.dataset = {
        "images": [{"id": s.image_id, "width": 400, "height": 400} for s in samples],
        "categories": [{"id": 3, "name": "car"}, {"id": 7, "name": "bus"}],
        "annotations": [],
    }
    for s in samples:
        for (x1, y1, x2, y2), label, ignore in zip(s.boxes.astype(float).tolist(), s.labels, s.ignore, strict=True):
            reference.dataset["annotations"].append(
                {
                    "id": len(reference.dataset["annotations"]) + 1,
                    "image_id": s.image_id,
                    "category_id": (3, 7)[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(ignore),
                }
            )
    reference.createIndex()
    results = [record for image, seen in detections.items() for record in seen.to_coco(image, truth.category_ids)]
    evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert 0.05 < metrics.map < 0.95
    ours = [metrics.map, metrics.map50, metrics.map75, *metrics.sizes.values(), *metrics.recall.values()]
    theirs = [-1 if value is None else value for value in ours]
    assert theirs == pytest.approx(evaluation.stats[:9].tolist(), abs=1e-9)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_box_that_is_not_finite_is_no_hit(wrong):
    truth = coco_set(sample(1, (A, 0)), sample(2, (B, 0)))
    for bad in (([wrong, 10, 50, 50], 0.9, 0), (A, wrong, 0)):
        with pytest.raises(BadInput, match=r"/images/1\.jpg: NaN or infinity"):
            evaluate_detections(truth, {1: found(bad), 2: found((B, 0.8, 0))})


def test_the_image_that_a_broken_network_fails_on_is_named(monkeypatch, tmp_path):
    def broken(image):
        raise BadInput("net: the network gives NaN")

    monkeypatch.setattr(detect, "open_detector", lambda *_: nullcontext(broken))
    monkeypatch.setattr(detect, "read_image", lambda path: np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(BadInput, match=r"/images/1\.jpg: net: the network gives NaN"):
        detect.detect_all(SimpleNamespace(path="net"), coco_set(sample(1, (A, 0))), "onnxruntime", None)


def test_evaluate_says_what_was_mended_in_the_set(monkeypatch, caplog):
    truth = replace(coco_set(sample(1, (A, 0))), notes=("1 box clipped",))
    manifest = {"recipe": {"evaluation": "roads"}}
    monkeypatch.setattr(spine, "model", lambda source: SimpleNamespace(path=source, manifest=manifest))
    monkeypatch.setattr(evaluation, "evaluation_set", lambda artifact, data: truth)
    monkeypatch.setattr(detect, "detect_all", lambda *_: {1: found((A, 0.9, 0))})
    assert pipeline.evaluate("net", runtime="onnxruntime").map50 == pytest.approx(1)
    named = "measured on roads, which its recipe names; on yours: --data annotations.json"
    assert caplog.messages == [named, "set.json: 1 box clipped"]
    caplog.clear()
    pipeline.evaluate("net", data="mine.json", runtime="onnxruntime")
    assert caplog.messages == ["set.json: 1 box clipped"]
