"""SIMULATED pycuda.driver: one device that calls itself a twin, blocking copies, events by this process's clock."""

import ctypes
import time

import numpy as np

NAME = "EdgeKit TX2 twin (simulated)"


class Error(Exception):
    pass


def init():
    pass


def get_version():
    return (10, 2, 0)


def mem_get_info():
    return (5 << 30, 8 << 30)


class _Context:
    def push(self):
        pass

    def pop(self):
        pass

    def detach(self):
        pass


class device_attribute:
    INTEGRATED = 18


class Device:
    def __init__(self, number):
        if number != 0:
            raise Error("cuDeviceGet failed: invalid device ordinal")

    def name(self):
        return NAME

    def compute_capability(self):
        return (6, 2)

    def get_attribute(self, attribute):
        return {device_attribute.INTEGRATED: 1}[attribute]

    def make_context(self):
        return _Context()


class DeviceAllocation:
    def __init__(self, size):
        self._memory = ctypes.create_string_buffer(size)
        self.size = size

    def __int__(self):
        return ctypes.addressof(self._memory)


def mem_alloc(size):
    return DeviceAllocation(int(size))


def pagelocked_empty(shape, dtype):
    return np.empty(shape, dtype)


def memcpy_htod(target, source):
    source = np.ascontiguousarray(source)
    if source.nbytes > target.size:
        raise Error("cuMemcpyHtoD failed: invalid argument")
    ctypes.memmove(int(target), source.ctypes.data, source.nbytes)


def memcpy_htod_async(target, source, stream=None):
    memcpy_htod(target, source)


def memcpy_dtoh_async(target, source, stream=None):
    if target.nbytes > source.size:
        raise Error("cuMemcpyDtoHAsync failed: invalid argument")
    ctypes.memmove(target.ctypes.data, int(source), target.nbytes)


class Stream:
    handle = 1

    def __init__(self, flags=0):
        pass

    def synchronize(self):
        pass


class Event:
    def __init__(self):
        self._at = 0.0

    def record(self, stream=None):
        self._at = time.perf_counter()

    def synchronize(self):
        pass

    def time_till(self, other):
        return (other._at - self._at) * 1e3
