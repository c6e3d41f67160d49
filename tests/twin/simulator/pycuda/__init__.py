"""A SIMULATOR of pycuda for the TX2 twin of the tests: "device" memory is memory of this process."""

SIMULATOR = "EdgeKit's simulated pycuda"
VERSION = (2020, 1)
VERSION_TEXT = "2020.1"
