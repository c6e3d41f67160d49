"""EfficientNMS_TRT as its description says: class-wise greedy NMS of the best 4096 scores, padded outputs."""

import numpy as np

_MOST = 4096


def efficient_nms(boxes, scores, fields):
    """boxes [A, 4] corners, scores [A, C] -> the plugin's four outputs, each with a batch of one."""
    most = int(fields["max_output_boxes"])
    anchors, classes = np.nonzero(scores >= fields["score_threshold"])
    values = scores[anchors, classes]
    order = np.argsort(-values, kind="stable")[:_MOST]
    kept = []
    for index in order:
        rivals = [other for other in kept if classes[other] == classes[index]]
        box = boxes[anchors[index]]
        if all(_iou(box, boxes[anchors[other]]) <= fields["iou_threshold"] for other in rivals):
            kept.append(index)
        if len(kept) == most:
            break
    count = len(kept)
    out = {
        "num_detections": np.full((1, 1), count, np.int32),
        "detection_boxes": np.zeros((1, most, 4), np.float32),
        "detection_scores": np.zeros((1, most), np.float32),
        "detection_classes": np.zeros((1, most), np.int32),
    }
    out["detection_boxes"][0, :count] = boxes[anchors[kept]]
    out["detection_scores"][0, :count] = values[kept]
    out["detection_classes"][0, :count] = classes[kept]
    return out


def _iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inner = np.prod(np.maximum(high - low, 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inner
    return inner / union if union > 0 else 0.0
