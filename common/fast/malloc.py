"""Tells glibc to keep the memory that an update frees for the next one, and when to give it back."""

import ctypes

M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD = -4, -1, -2  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Has glibc reuse large blocks instead of returning them to the kernel, which would clear them page by page.

    A batch's activations are tens of megabytes, allocated and freed at each update. Other C libraries are left alone.
    """
    if mallopt := _glibc("mallopt"):
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
            mallopt(option, value)


def release_freed_memory() -> None:
    """Returns kept memory to the kernel, between phases whose allocations differ: holes of one do not suit the next."""
    if trim := _glibc("malloc_trim"):
        trim(0)


def _glibc(name: str):
    """A function of the C library; None if it lacks it, as libraries other than glibc do."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None
