"""A CUDA graph of what a stream does, through the driver's own library: pycuda has no call for it.

Launching a captured graph costs one call instead of one per kernel. Where the driver lacks it, or the work cannot be
captured, ``capture`` says why and the caller goes on without.
"""

import ctypes

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_NEEDED = ("cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphLaunch", "cuGraphDestroy", "cuGraphExecDestroy")


class NoGraph(Exception):
    """Why there is no graph."""


class CudaGraph(object):
    """``launch()`` repeats on the stream what was captured; NoGraph when the driver refuses."""

    def __init__(self, library, graph, executable, stream):
        self._library, self._graph, self._executable, self._stream = library, graph, executable, stream

    def launch(self):
        _check(self._library.cuGraphLaunch(self._executable, self._stream), "cuGraphLaunch")

    def close(self):
        if self._executable is not None:
            self._library.cuGraphExecDestroy(self._executable)
            self._library.cuGraphDestroy(self._graph)
            self._executable = self._graph = None


def capture(stream, work):
    """Capture ``work()``, which puts work on the stream and returns whether that went well. Raises NoGraph.

    stream: the stream's handle, a number. The work must have run once before: libraries allocate on first use.
    """
    library = _library()
    handle, graph = ctypes.c_void_p(stream), ctypes.c_void_p()
    _check(library.cuStreamBeginCapture_v2(handle, _THREAD_LOCAL), "cuStreamBeginCapture")
    try:
        fine = work()
    finally:
        ended = library.cuStreamEndCapture(handle, ctypes.byref(graph))
    _check(ended, "cuStreamEndCapture")
    if not fine:
        library.cuGraphDestroy(graph)
        raise NoGraph("the work was refused while it was captured")
    return CudaGraph(library, graph, _instantiate(library, graph), handle)


def _instantiate(library, graph):
    executable = ctypes.c_void_p()
    if hasattr(library, "cuGraphInstantiateWithFlags"):  # CUDA 11.4 on
        status = library.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    else:  # (executable, graph, first node at fault, log, size of the log)
        old = getattr(library, "cuGraphInstantiate_v2", None) or library.cuGraphInstantiate
        status = old(ctypes.byref(executable), graph, None, None, ctypes.c_size_t(0))
    if status:
        library.cuGraphDestroy(graph)
    _check(status, "cuGraphInstantiate")
    return executable


def _library():
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NoGraph("no CUDA driver library: {}".format(error)) from error
    missing = [name for name in _NEEDED if not hasattr(library, name)]
    if missing:
        raise NoGraph("the CUDA driver has no {}".format(", ".join(missing)))
    return library


def _check(status, call):
    if status:
        raise NoGraph("{} failed with CUDA error {}".format(call, status))
