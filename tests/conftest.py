"""What all tests share."""

import signal

# A shell starts background jobs with Ctrl-C ignored, and children inherit that; tests send SIGINT to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
