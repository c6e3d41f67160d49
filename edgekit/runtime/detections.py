"""The one result type: what a detector saw in one image."""

import numpy as np


class Detections(object):
    """Boxes of one image.

    boxes: float32 [n, 4], x1, y1, x2, y2 in pixels of the original image (not of the network's input)
    scores: float32 [n], in 0..1
    class_ids: int64 [n], 0-based index into the artifact's class list

    Raises ValueError when the three disagree in length or the boxes are not [n, 4].
    """

    __slots__ = ("boxes", "class_ids", "scores")

    def __init__(self, boxes, scores, class_ids):
        boxes = np.asarray(boxes, dtype=np.float32)
        self.boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes  # [] is a fine way to say none
        self.scores = np.asarray(scores, dtype=np.float32)
        self.class_ids = np.asarray(class_ids, dtype=np.int64)
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError("boxes: expected shape (n, 4), got {}".format(self.boxes.shape))
        for name in ("scores", "class_ids"):
            shape = getattr(self, name).shape
            if shape != (len(self.boxes),):
                raise ValueError("{}: expected shape ({},), got {}".format(name, len(self.boxes), shape))

    @classmethod
    def empty(cls):
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def __len__(self):
        return len(self.scores)

    def __getitem__(self, index):
        """Select by mask, index array or slice: ``d[d.scores > 0.5]``."""
        return Detections(
            self.boxes[index].reshape(-1, 4), np.atleast_1d(self.scores[index]), np.atleast_1d(self.class_ids[index])
        )

    def __repr__(self):
        return "Detections(n={})".format(len(self))

    @property
    def sized(self):
        """bool [n]: whether a box has a width and a height by ``to_coco``'s digits; a network may predict none.

        Files for others hold only such boxes. An evaluation counts every box, as a false alarm.
        """
        return (self.boxes[:, 2:] - self.boxes[:, :2] >= 0.001).all(axis=1)

    def to_coco(self, image_id, category_ids):
        """COCO results ({image_id, category_id, bbox [x, y, w, h], score}); category_ids maps class index to id."""
        records = []
        for i in range(len(self)):
            x1, y1, x2, y2 = (float(v) for v in self.boxes[i])
            record = {"image_id": image_id, "category_id": category_ids[int(self.class_ids[i])]}
            record["bbox"] = [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]
            record["score"] = round(float(self.scores[i]), 6)
            records.append(record)
        return records
