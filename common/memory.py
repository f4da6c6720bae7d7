"""How much memory is available, and arrays that go to disk if they do not fit."""

import math
import os
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # as seen inside a container
LIMITS = [("memory.max", "memory.current", "memory.stat")]  # version 2, then version 1
LIMITS += [tuple(f"memory/memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat"))]
SHARE = 0.5  # of what is available that one array may take


def available() -> float:
    """Bytes that can be taken without swapping, a container's limit included; infinite if unknown."""
    found = math.inf
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="utf-8").splitlines())
        found = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # not Linux
        pass
    for limit, used, statistics in LIMITS:
        try:
            left = int(_read(limit)) - int(_read(used))
            lines = dict(line.split() for line in _read(statistics).splitlines())
            left += int(lines["inactive_file"])  # unused file cache: the kernel drops it first
            found = min(found, left)
        except (OSError, ValueError, KeyError):  # no container, another version, or no limit ("max")
            pass
    return found


def _read(name: str) -> str:
    return (CGROUP / name).read_text(encoding="utf-8")


def empty(shape: tuple[int, ...], dtype: torch.dtype, spill: Path) -> torch.Tensor:
    """An array to be filled: in memory, or mapped from the file `spill` if it would take more than SHARE of it.

    The file is unlinked when this returns, so that a killed process leaves none; its disk space is freed with the
    tensor. Raises OSError if the disk is full.
    """
    count = math.prod(shape)
    if count * dtype.itemsize <= SHARE * available():
        return torch.empty(shape, dtype=dtype)
    try:
        if hasattr(os, "posix_fallocate"):  # a full disk is an OSError here; for a mapped page it is a signal
            with open(spill, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, count * dtype.itemsize)
        return torch.from_file(str(spill), shared=True, size=count, dtype=dtype).view(shape)
    finally:
        spill.unlink(missing_ok=True)


def spilled(array: torch.Tensor) -> bool:
    """Is an array made by `empty` on disk?"""
    return array.device.type == "cpu" and array.untyped_storage().filename is not None


def megabytes(count: float) -> str:
    """For display: `12 MB`, `3.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
