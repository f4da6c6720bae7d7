"""glibc is told to keep the memory that an update frees for the next one, and when to give it back."""

import ctypes

M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD = -4, -1, -2  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Has glibc reuse large blocks instead of returning them to the kernel, which would clear them page by page.

    A batch's activations are tens of megabytes, allocated and freed at each update. Another C library is left alone.
    """
    if mallopt := _glibc("mallopt"):
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
            mallopt(option, value)


def release_freed_memory() -> None:
    """Returns to the kernel what is kept, between phases that need unlike memory: holes of one do not suit the next."""
    if trim := _glibc("malloc_trim"):
        trim(0)


def _glibc(name: str):
    """A function of the C library; None where it has no such one, as another than glibc."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None
