"""Pictures that a camera should not give: one plain colour, or the same picture again and again."""

import numpy as np

PLAIN_SECONDS = 1.0
FROZEN_SECONDS = 5.0
_LOOK_SECONDS = 0.15  # between two looks: what lasts a second needs no look at every picture
_PLAIN_STD = 1.5  # grey levels; noise of a real sensor in the dark is above it in some channel
_STEP = 16  # every 16th pixel of both axes is looked at
_GREEN_TRAP = (
    "the CSI sensor's driver delivers nothing (a failed Bayer capture gives BGR 0,154,0). Use csi://0, not /dev/video0"
)


class PictureCheck(object):
    """Call it with every picture and its moment; ``stats`` hears when it goes plain or freezes, and when it lives.

    It looks at some of them only.

    ``trouble``: what is wrong now, or None
    """

    def __init__(self, stats):
        self._stats = stats
        self._plain_since = self._same_since = None
        self._next_look = None
        self._last = None
        self.trouble = None

    def __call__(self, image, moment):
        if self._next_look is not None and moment < self._next_look:
            return
        self._next_look = moment + _LOOK_SECONDS
        sample = image[::_STEP, ::_STEP]
        self._plain_since = _since(self._plain_since, is_plain(sample), moment)
        same = self._last is not None and self._last.shape == sample.shape and np.array_equal(self._last, sample)
        self._same_since = _since(self._same_since, same, moment)
        self._last = sample.copy()
        self._tell(self._find(sample, moment))

    def _find(self, sample, moment):
        if self._plain_since is not None and moment - self._plain_since >= PLAIN_SECONDS:
            blue, green, red = (round(float(v)) for v in sample.reshape(-1, 3).mean(axis=0))
            return "every pixel has the colour BGR {},{},{}: {}".format(blue, green, red, _reason(blue, green, red))
        if self._same_since is not None and moment - self._same_since >= FROZEN_SECONDS:
            return "the picture is frozen: the source repeats one frame"
        return None

    def _tell(self, trouble):
        if (trouble is None) == (self.trouble is None):
            return
        self.trouble = trouble
        self._stats.event(trouble if trouble else "the picture lives again", "warning" if trouble else "info")


def is_plain(sample):
    """Whether the pixels [h, w, 3] are all of one colour, sensor noise aside."""
    return bool((sample.reshape(-1, 3).std(axis=0) < _PLAIN_STD).all())


def _since(start, holds, moment):
    if not holds:
        return None
    return moment if start is None else start


def _reason(blue, green, red):
    if green > 100 and blue < 40 and red < 40:
        return _GREEN_TRAP
    if max(blue, green, red) < 16:
        return "is the lens covered, or is it night?"
    return "is the camera connected, and does another program see a picture?"
