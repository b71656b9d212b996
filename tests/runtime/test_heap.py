"""A job's process has few heaps: seen from outside, in a process of its own, for nothing takes them back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Six threads that hold memory at the same time; the C library then says which heaps there are.
PROGRAM = """
import ctypes, threading
import pyarrow as pa
from penstock.runtime import heap
heap.HEAPS = 2
{call}
libc, met, done = ctypes.CDLL(None), threading.Barrier(7), threading.Event()
libc.malloc.restype = ctypes.c_void_p
def hold():
    libc.malloc(ctypes.c_size_t(100_000))
    met.wait()
    done.wait()
threads = [threading.Thread(target=hold) for _ in range(6)]
for thread in threads: thread.start()
met.wait()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
print(pa.default_memory_pool().backend_name, flush=True)
done.set()
"""


def told(call: str, environment: dict[str, str]) -> tuple[int, str]:
    """How many heaps there are, and Arrow's allocator."""
    given = {**os.environ, **environment}
    command = [sys.executable, "-c", PROGRAM.format(call=call)]
    text = subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout
    return text.count("<heap nr="), text.split()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="heaps of threads are glibc's")
def test_a_job_has_few_heaps_unless_the_environment_says_otherwise() -> None:
    shared, pool = told("heap.share_heaps()", {})
    assert (shared <= 2, pool) == (True, "system")
    assert told("", {})[0] > 2
    mine, pool = told("heap.share_heaps()", {"MALLOC_ARENA_MAX": "5", "ARROW_DEFAULT_MEMORY_POOL": "mimalloc"})
    assert (mine > 2, pool) == (True, "mimalloc")
