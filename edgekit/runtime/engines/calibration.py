"""INT8 calibration by TensorRT itself (up to version 10): real images through the network's own ``Preprocess``."""

import numpy as np

from ..images import read_image


class ImageFeed(object):
    """Network inputs of the calibration images, one batch of one image after the other, on the device.

    cuda: a ``runtime.cuda.Cuda`` that is current; progress: called as (images done, all images)
    """

    def __init__(self, cuda, preprocess, layout, images, progress):
        self._cuda, self._preprocess, self._layout = cuda, preprocess, layout
        self._images, self._progress, self._done = list(images), progress, 0
        self._memory = None

    def next_address(self):
        """Address of the next input on the device, or None after the last image."""
        if self._done == len(self._images):
            return None
        values, _ = self._preprocess(read_image(self._images[self._done]), self._layout)
        values = np.ascontiguousarray(values)
        if self._memory is None:
            self._memory = self._cuda.driver.mem_alloc(values.nbytes)
        self._cuda.driver.memcpy_htod(self._memory, values)
        self._done += 1
        self._progress(self._done, len(self._images))
        return int(self._memory)


def make_calibrator(trt, feed, kept, keep):
    """An IInt8EntropyCalibrator2 that reads ``feed``; NVIDIA's choice for convolutional networks.

    kept: ranges from a cache, or b""; keep: called with the new ranges
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
            keep(bytes(cache))

    return Calibrator()
