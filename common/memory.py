"""How much memory there is, and arrays that go to the disk where it does not suffice."""

import math
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # version 2, as in a container
SHARE = 0.5  # of what is available that one array may take


def available() -> float:
    """Bytes that can be taken without swapping, a container's limit included; infinite where nobody says."""
    found = math.inf
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="utf-8").splitlines())
        found = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # no Linux
        pass
    try:
        limit, used = ((CGROUP / name).read_text(encoding="utf-8").strip() for name in ("memory.max", "memory.current"))
        found = min(found, int(limit) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    return found


def empty(shape: tuple[int, ...], dtype: torch.dtype, spill: Path) -> torch.Tensor:
    """An array to be filled: in memory, or mapped from the file `spill` where it would take more than half of it.

    The caller removes the file; the mapping lives on until the tensor goes.
    """
    count = math.prod(shape)
    if count * dtype.itemsize <= SHARE * available():
        return torch.empty(shape, dtype=dtype)
    return torch.from_file(str(spill), shared=True, size=count, dtype=dtype).view(shape)


def megabytes(count: float) -> str:
    """For people: `12 MB`, `3.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
