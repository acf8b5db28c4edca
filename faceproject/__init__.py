"""Compose the service: settings, addresses, the server."""

import os

__version__ = "2.7.0"

# Before NumPy is loaded, which reads it once. The threads of its OpenBLAS sleep when their part is done,
# rather than turn for some 20 ms and keep a core from everybody else: 2**10 cycles, not 2**26.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")
