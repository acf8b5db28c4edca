"""Another process that has the embedded vector database open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HOLD = """
import sys
from milvus_lite import MilvusLite
database = MilvusLite(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
database.close()
"""


@contextmanager
def held_by_another_process(folder: str) -> Iterator[None]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"open\n"
        yield
    finally:
        holder.communicate(b"\n")
