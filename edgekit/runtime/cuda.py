"""One CUDA device through pycuda: who it is, and its context around every call. Nothing is imported before it is asked.

Everything that EdgeKit uses of pycuda is named here and in ``sessions/trt.py``; docs/engines.md lists it.
"""

import importlib
import threading

from .errors import BoardLacks, MissingDependency

INSTALL = (
    "pycuda is built on the machine that has CUDA, with nvcc on the path: "
    "PATH=/usr/local/cuda/bin:$PATH pip install pycuda (JetPack 4: 'pycuda<2021.1')"
)


def load_pycuda(name="pycuda.driver"):
    """Import pycuda or one of its modules. MissingDependency says what to install, or that there is no driver."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        what = "no NVIDIA driver here" if "libcuda" in str(error) else "pycuda cannot be loaded"
        raise MissingDependency("{} ({}). {}".format(what, error, INSTALL)) from error


# (driver, device number) -> [the context, how many have it]
_CONTEXTS = {}  # type: dict[tuple, list]
_LOCK = threading.Lock()


class Cuda(object):
    """A device and the process's context on it. ``with cuda:`` makes it current, as often and as deeply as one likes,
    in any thread.

    Several may live in one process, and share the context: kernels of one run side by side, those of two by turns.
    integrated: the GPU has no memory but the machine's, as a Jetson's
    Raises MissingDependency without pycuda, BoardLacks without a usable device.
    """

    def __init__(self, ordinal=0):
        self.driver = load_pycuda()
        try:
            self.driver.init()
            device = self.driver.Device(ordinal)
            self.name = device.name()
            self.sm = device_sm(device)
            self.integrated = bool(device.get_attribute(self.driver.device_attribute.INTEGRATED))
            self._place = self.driver, ordinal
            self._primary = self._share(device)
        except self.driver.Error as error:
            raise BoardLacks("no usable CUDA device {} on this machine: {}".format(ordinal, error)) from error

    def _share(self, device):
        with _LOCK:
            if self._place not in _CONTEXTS:
                primary = device.make_context()
                primary.pop()
                _CONTEXTS[self._place] = [primary, 0]
            entry = _CONTEXTS[self._place]
            entry[1] += 1
            return entry[0]

    @property
    def version(self):
        """CUDA's version as text, "10.2"."""
        return ".".join(str(part) for part in self.driver.get_version()[:2])

    @property
    def slow_pinned(self):
        """Is pinned memory not cached for the CPU? So it is on integrated GPUs below 7.2 (CUDA for Tegra, NVIDIA)."""
        return self.integrated and self.sm < 72

    def facts(self):
        """{"device", "sm", "cuda"}: what an engine is bound to, but for TensorRT and L4T."""
        return {"device": self.name, "sm": self.sm, "cuda": self.version}

    def close(self):
        """Nothing made through it may be used afterwards; the last that shares the context gives it back."""
        if self._primary is None:
            return
        with _LOCK:
            entry = _CONTEXTS[self._place]
            entry[1] -= 1
            if not entry[1]:
                del _CONTEXTS[self._place]
                self._primary.push()  # pycuda gives back a context that another thread made only while it is current
                self._primary.detach()
        self._primary = None

    def __enter__(self):
        self._primary.push()
        return self

    def __exit__(self, *exc_info):
        self._primary.pop()


def device_sm(device):
    """Compute capability as one number: 62 for 6.2."""
    major, minor = device.compute_capability()
    return 10 * int(major) + int(minor)
