"""INT8 calibration by TensorRT itself (up to version 10): real images through the network's own ``Preprocess``."""

import numpy as np

from ..errors import ChildDied
from ..images import read_image


class ImageFeed(object):
    """Network inputs of the calibration images, one batch of one image after the other, on the device.

    cuda: a ``runtime.cuda.Cuda`` that is current; progress: called as (images done, all images)
    asked: whether TensorRT wanted an image at all; with ranges from a cache it does not
    """

    def __init__(self, cuda, preprocess, layout, images, progress):
        self._cuda, self._preprocess, self._layout = cuda, preprocess, layout
        self._images, self._progress, self._done = list(images), progress, 0
        self._memory, self._failure = None, None
        self.asked = False

    @property
    def complete(self):
        """Whether every image was given."""
        return self._failure is None and self._done == len(self._images)

    def next_address(self):
        """Address of the next input on the device, or None after the last image, and from the first failure on.

        TensorRT is no place for an exception: its newer bindings print it and take it for the end of the images, those
        of 8.2 end the process. ``check`` raises it.
        """
        self.asked = True
        if self._failure is not None or self.complete:
            return None
        try:
            return self._give(self._images[self._done])
        except Exception as error:  # noqa: BLE001  whatever it was, ``check`` raises it
            self._failure = error
            return None

    def check(self):
        """Raise what kept an image from being given; ChildDied when TensorRT ended before the last one by itself."""
        if self._failure is not None:
            raise self._failure
        if not self.complete:
            raise ChildDied(
                "calibration: TensorRT took {} of {} images, so its ranges are not kept. Quantize the file before: "
                "edgekit quantize ARTIFACT --flavour trt".format(self._done, len(self._images))
            )

    def _give(self, path):
        values, _ = self._preprocess(read_image(path), self._layout)
        values = np.ascontiguousarray(values)
        if self._memory is None:
            self._memory = self._cuda.driver.mem_alloc(values.nbytes)
        self._cuda.driver.memcpy_htod(self._memory, values)
        self._done += 1
        self._progress(self._done, len(self._images))
        return int(self._memory)


def make_calibrator(trt, feed, kept, keep):
    """An IInt8EntropyCalibrator2 that reads ``feed``; NVIDIA's choice for convolutional networks.

    kept: ranges from a cache, or b""; keep: called with the new ranges, when they are of all images
    """

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[name-defined]
        def __init__(self):
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self):
            return 1

        def get_batch(self, names):
            address = feed.next_address()
            return None if address is None else [address]

        def read_calibration_cache(self):
            return kept or None

        def write_calibration_cache(self, cache):
            if feed.complete:
                keep(bytes(cache))

    return Calibrator()
