"""ByteTrack in numpy: tracks keep their number over frames and short occlusions.

Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022 (arXiv:2110.06864),
algorithm 1: tracks are matched with the sure boxes first and what is left of them with the weak boxes, which are often
occluded objects. Differences: boxes match tracks of their class only, and a sure box that overlaps a track which has a
box already begins no new one (a detector without NMS sees big objects twice).
"""

import numpy as np

from ..postprocess import pairwise_iou
from . import kalman
from .assignment import assign

NONE, DOUBLE = 0, -1
TRAIL = 48  # centres kept of each track
_OTHER_CLASS = 2.0  # cost that no limit lets pass


class Options(object):
    """Scores and overlaps of the association.

    high: boxes from this score on are sure; low: those from here on are looked at in the second round
    match, weak_match, new_match: least IoU of a pair in the first round, the second, and for a track seen only once
    double: IoU with a tracked box of the same class from which on a box is the same object
    patience: seconds for which a lost track is looked for
    """

    def __init__(self, high=0.3, low=0.1, match=0.2, weak_match=0.5, new_match=0.3, double=0.5, patience=1.0):
        self.high = high
        self.low = min(low, high)
        self.match = match
        self.weak_match = weak_match
        self.new_match = new_match
        self.double = double
        self.patience = patience


class Track(object):
    """One object. number: 1, 2, ... from its second sighting on; trail: its last centres (x, y) in pixels."""

    __slots__ = ("class_id", "covariance", "mean", "number", "seen", "trail")

    def __init__(self, class_id, mean, covariance, seen):
        self.class_id = class_id
        self.mean = mean
        self.covariance = covariance
        self.seen = seen
        self.number = NONE
        self.trail = []


class Tracker(object):
    """``tracker(detections, moment)`` -> ids int64 [n]: each box's track, NONE, or DOUBLE. moment is in seconds."""

    def __init__(self, options=None):
        self.options = options or Options()
        self._tracks = []  # type: list[Track]
        self._moment = None
        self._first = True
        self.numbers = 0

    def __call__(self, detections, moment):
        ids = np.zeros(len(detections), np.int64)
        self._predict(moment)
        scores = detections.scores
        sure = np.flatnonzero(scores >= self.options.high)
        weak = np.flatnonzero((scores >= self.options.low) & (scores < self.options.high))
        confirmed = [t for t in self._tracks if t.number != NONE]
        left, sure = self._round(confirmed, detections, sure, ids, self.options.match)
        active = [t for t in left if t.seen == self._previous]  # a track lost before is not revived by a weak box
        self._round(active, detections, weak, ids, self.options.weak_match)
        fresh = [t for t in self._tracks if t.number == NONE]
        _, sure = self._round(fresh, detections, sure, ids, self.options.new_match)
        self._mark_doubles(detections, ids)
        self._begin(detections, [i for i in sure if ids[i] != DOUBLE], ids)
        self._forget()
        return ids

    def restart(self):
        """Forget all tracks; numbers go on. For a stream whose size changed: positions mean nothing any more."""
        self._tracks, self._moment, self._first = [], None, True

    def living(self):
        """Tracks that have a number and were seen in the last call."""
        return [t for t in self._tracks if t.number != NONE and t.seen == self._moment]

    def trails(self):
        """Number -> centres [(x, y)] of the tracks that were seen in the last call."""
        return {t.number: list(t.trail) for t in self.living()}

    # -- steps ----------------------------------------------------------------------------------------------------
    def _predict(self, moment):
        self._previous, self._moment = self._moment, moment
        if not self._tracks:
            return
        mean, covariance = self._stack(self._tracks)
        mean, covariance = kalman.predict(mean, covariance, moment - self._previous)
        self._unstack(self._tracks, mean, covariance)

    def _round(self, tracks, detections, chosen, ids, least_iou):
        """Match tracks with the chosen boxes. Returns (tracks without a box, boxes without a track)."""
        if not tracks or not len(chosen):
            return tracks, chosen
        predicted = kalman.to_boxes(np.array([t.mean for t in tracks]))
        cost = 1.0 - pairwise_iou(predicted, detections.boxes[chosen])
        classes = np.array([t.class_id for t in tracks])
        cost[classes[:, None] != detections.class_ids[chosen][None]] = _OTHER_CLASS
        pairs, free_tracks, free_boxes = assign(cost, 1.0 - least_iou)
        matched = [tracks[i] for i in pairs[:, 0]]
        self._update(matched, detections.boxes[chosen[pairs[:, 1]]])
        for track, i in zip(matched, chosen[pairs[:, 1]]):  # noqa: B905 - Python 3.6
            ids[i] = self._number(track)
        return [tracks[i] for i in free_tracks], chosen[free_boxes]

    def _update(self, tracks, boxes):
        if not tracks:
            return
        measured = kalman.measure(boxes)
        mean, covariance = kalman.update(*(self._stack(tracks) + (measured,)))
        self._unstack(tracks, mean, covariance)
        for track, centre in zip(tracks, measured):  # noqa: B905
            track.seen = self._moment
            track.trail = track.trail[1 - TRAIL :] + [(float(centre[0]), float(centre[1]))]

    def _mark_doubles(self, detections, ids):
        tracked, loose = np.flatnonzero(ids > NONE), np.flatnonzero(ids == NONE)
        if not len(tracked) or not len(loose):
            return
        iou = pairwise_iou(detections.boxes[loose], detections.boxes[tracked])
        iou[detections.class_ids[loose][:, None] != detections.class_ids[tracked][None]] = 0
        ids[loose[iou.max(axis=1) >= self.options.double]] = DOUBLE

    def _begin(self, detections, chosen, ids):
        """A track for each sure box that is left; the best first, and none for a second box on the same object."""
        begun = []  # type: list[int]
        for i in chosen:
            same = [j for j in begun if detections.class_ids[j] == detections.class_ids[i]]
            if same and pairwise_iou(detections.boxes[[i]], detections.boxes[same]).max() >= self.options.double:
                ids[i] = DOUBLE
                continue
            measured = kalman.measure(detections.boxes[[i]])
            mean, covariance = kalman.begin(measured)
            track = Track(int(detections.class_ids[i]), mean[0], covariance[0], self._moment)
            track.trail.append((float(measured[0, 0]), float(measured[0, 1])))
            self._tracks.append(track)
            begun.append(i)
            if self._first:  # what is there in the first frame needs no second sighting
                ids[i] = self._number(track)
        self._first = False

    def _number(self, track):
        if track.number == NONE:
            self.numbers += 1
            track.number = self.numbers
        return track.number

    def _forget(self):
        """A new track that was not seen again at once was a mistake; the others are looked for a while."""
        oldest = self._moment - self.options.patience
        self._tracks = [t for t in self._tracks if t.seen == self._moment or (t.number != NONE and t.seen >= oldest)]

    @staticmethod
    def _stack(tracks):
        return np.array([t.mean for t in tracks]), np.array([t.covariance for t in tracks])

    @staticmethod
    def _unstack(tracks, mean, covariance):
        for i, track in enumerate(tracks):
            track.mean, track.covariance = mean[i], covariance[i]
