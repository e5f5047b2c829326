"""What the process does with memory that tensors have freed."""

import ctypes
import os
import platform

# glibc's malloc.h: at most so many allocations apart from the heap; free bytes at its end that go back.
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")


def keep_memory() -> bool:
    """Keep what tensors on the processor free for the next ones, in place of giving it back to the system.

    glibc would map large tensors anew each time, and the system clears each page once more when it is first
    written, which can take a fifth of a step (`python -m benchmarks.kept_memory`). The process stays as large
    as it once was. Where the environment sets the allocator (`MALLOC_...`, `GLIBC_TUNABLES`), that holds.

    Returns:
        Whether memory is kept: never with another C library than glibc.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(_SETTINGS) for name in os.environ):
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, -1))
