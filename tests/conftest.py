"""What all tests share."""

import os
import signal

# Workers side by side share the cores: a library that takes all of them in each would wait for its own threads.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

# A shell starts background jobs with Ctrl-C ignored, and children inherit that; tests send SIGINT to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
