"""glibc is told to keep the memory that an update frees for the next one."""

import ctypes

M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD = -4, -1, -2  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Has glibc reuse large blocks instead of returning them to the kernel, which would clear them page by page.

    A batch's activations are tens of megabytes, allocated and freed at each update. Another C library is left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
        mallopt(option, value)
