"""One CUDA device through pycuda: who it is, and its context around every call. Nothing is imported before it is asked.

Everything that EdgeKit uses of pycuda is named here and in ``sessions/trt.py``; docs/engines.md lists it.
"""

import importlib

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


class Cuda(object):
    """A device and a context of its own. ``with cuda:`` makes it current, as often and as deeply as one likes.

    Several may live in one process. integrated: the GPU has no memory but the machine's, as a Jetson's
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
            self._primary = device.make_context()
        except self.driver.Error as error:
            raise BoardLacks("no usable CUDA device {} on this machine: {}".format(ordinal, error)) from error
        self._primary.pop()

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

    def free_mb(self):
        """Device memory that is free right now, in MiB."""
        with self:
            return self.driver.mem_get_info()[0] // 2**20

    def close(self):
        """Give the context back; nothing made in it may be used afterwards."""
        if self._primary is not None:
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
