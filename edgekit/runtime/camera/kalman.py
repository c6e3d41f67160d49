"""Kalman filters of many boxes at once: constant velocity of centre, aspect and height.

State [cx, cy, a, h, and their velocities], a = width / height, as in DeepSORT (Wojke et al. 2017) and ByteTrack. Time
is counted in thirtieths of a second, the step for which those papers' noise was set, so the frame rate may change.
"""

import numpy as np

STEP = 1.0 / 30  # seconds of one unit of time
_POSITION, _VELOCITY = 1.0 / 20, 1.0 / 160  # noise, in heights of the box
_ASPECT, _ASPECT_VELOCITY = 1e-2, 1e-5
_LONGEST = 30.0  # units of one prediction; after a longer gap velocities mean nothing
# standard deviations as [8] or [4] times the height plus [8] or [4]
_PER_HEIGHT = np.array([_POSITION, _POSITION, 0, _POSITION, _VELOCITY, _VELOCITY, 0, _VELOCITY])
_FIXED = np.array([0, 0, _ASPECT, 0, 0, 0, _ASPECT_VELOCITY, 0])
_BEGIN_FACTOR = np.array([2.0, 2, 1, 2, 10, 10, 1, 10])
_MEASURED_FIXED = np.array([0, 0, 1e-1, 0])
_UNIT = np.eye(8)


def measure(boxes):
    """Boxes [n, 4] (xyxy) as measurements [n, 4] (cx, cy, a, h)."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    width, height = boxes[:, 2] - boxes[:, 0], np.maximum(boxes[:, 3] - boxes[:, 1], 1e-3)
    return np.stack([boxes[:, 0] + width / 2, boxes[:, 1] + height / 2, width / height, height], axis=1)


def to_boxes(mean):
    """States or measurements [n, 4 or 8] as boxes [n, 4] (xyxy)."""
    half = np.stack([mean[:, 2] * mean[:, 3], mean[:, 3]], axis=1) / 2
    return np.concatenate([mean[:, :2] - half, mean[:, :2] + half], axis=1)


def begin(measured):
    """(mean [n, 8], covariance [n, 8, 8]) of boxes seen for the first time."""
    mean = np.concatenate([measured, np.zeros_like(measured)], axis=1)
    return mean, _noise(measured[:, 3:], _BEGIN_FACTOR * _PER_HEIGHT, _FIXED)


def predict(mean, covariance, seconds):
    """The states ``seconds`` later."""
    step = min(max(seconds / STEP, 0.0), _LONGEST)
    motion = _UNIT.copy()
    motion[:4, 4:] = step * _UNIT[:4, :4]
    noise = _noise(np.maximum(mean[:, 3:4], 1e-3), _PER_HEIGHT, _FIXED)
    mean = mean @ motion.T
    mean[:, 2:4] = np.maximum(mean[:, 2:4], 1e-3)
    return mean, motion @ covariance @ motion.T + step * noise


def update(mean, covariance, measured):
    """The states after seeing ``measured`` [n, 4]."""
    noise = _noise(np.maximum(mean[:, 3:4], 1e-3), _PER_HEIGHT[:4], _MEASURED_FIXED)
    innovation = covariance[:, :4, :4] + noise
    gain = np.linalg.solve(innovation, covariance[:, :4, :]).transpose(0, 2, 1)
    mean = mean + (gain @ (measured - mean[:, :4])[:, :, None])[:, :, 0]
    return mean, covariance - gain @ innovation @ gain.transpose(0, 2, 1)


def _noise(height, per_height, fixed):
    """Diagonal covariances [n, k, k] of boxes of ``height`` [n, 1]."""
    std = height * per_height + fixed
    return (std * std)[:, :, None] * _UNIT[: len(fixed), : len(fixed)]
