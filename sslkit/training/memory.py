"""The allocator of a processor, told to keep the pages it has."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let the C library hand freed memory out again rather than return it to the system.

    By default glibc maps every large tensor anew, and the system clears its pages: a fifth of a
    training step on two cores. The process keeps its peak of memory until it ends, so this is for
    programs and not for libraries: the command line calls it. Where there is no glibc nothing is
    changed.

    Returns:
        Whether the allocator took it.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
