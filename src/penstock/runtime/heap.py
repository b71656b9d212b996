"""The memory of a process that is there for one job: as few heaps as do, for each keeps what it once had.

By default the C library gives every thread a heap of its own, and Arrow brings another allocator. A large epoch passes
through all of them, in the threads of the loop, of DuckDB, of the kernel and of sinks, and what each has freed serves
no other: that is a quarter of the memory of such a job. Nothing but memory depends on this.
"""

from __future__ import annotations

import ctypes
import os
import sys

import pyarrow as pa

# Enough that no thread waits for another one for long; small pieces come from a cache of the thread's own anyhow.
HEAPS = max(2, (os.cpu_count() or 1) // 4)
_M_ARENA_MAX = -8


def share_heaps() -> None:
    """To be called before a job's threads start, in a process that is its own. What the environment says
    (MALLOC_ARENA_MAX, GLIBC_TUNABLES, ARROW_DEFAULT_MEMORY_POOL) comes first."""
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        pa.set_memory_pool(pa.system_memory_pool())
    if sys.platform == "linux" and not {"MALLOC_ARENA_MAX", "GLIBC_TUNABLES"} & os.environ.keys():
        # Another C library has no such function, or takes no notice.
        adjust = getattr(ctypes.CDLL(None), "mallopt", None)
        if adjust is not None:
            adjust(_M_ARENA_MAX, HEAPS)
