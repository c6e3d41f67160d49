"""The two values that travel through the pipeline."""

import time

clock = time.perf_counter


class Frame(object):
    """One picture of the source.

    image: uint8 BGR [height, width, 3]; nobody writes into it
    index: 0-based count of pictures that the source gave
    captured: ``clock()`` in seconds when the picture came out of the driver or decoder. What the sensor, its driver and
        a network in between kept it for is not in it: nobody tells a program.
    seconds: the moment on the scene's own clock: a file's time where it is worked through without loss, else captured
    name: the file's name where the source is a folder, else None
    """

    __slots__ = ("captured", "image", "index", "name", "seconds")

    def __init__(self, image, index, captured, seconds=None, name=None):
        self.image = image
        self.index = index
        self.captured = captured
        self.seconds = captured if seconds is None else seconds
        self.name = name


class Result(object):
    """What the detector saw in one frame.

    detections: all boxes down to the pipeline's lowest score; ids: int64 [n], the track of each, ``tracking.NONE`` for
        no track and ``tracking.DOUBLE`` for a second box on a tracked object
    spans: name of the stage -> seconds
    started, finished: ``clock()`` when the inference began and when the boxes were there
    number: 1-based count of results
    """

    __slots__ = ("counts", "detections", "finished", "frame", "ids", "number", "spans", "started", "trails")

    def __init__(self, frame, detections, ids, spans, started, finished):
        self.frame = frame
        self.detections = detections
        self.ids = ids
        self.spans = spans
        self.started = started
        self.finished = finished
        self.number = 0
        self.trails = {}
        self.counts = {}

    @property
    def latency(self):
        """Seconds from capture to result."""
        return self.finished - self.frame.captured

    @property
    def age(self):
        """Seconds that the frame was old when its inference began."""
        return self.started - self.frame.captured
