"""Random numbers that depend on `--seed` and their purpose, not on anything that ran before.

Whatever affects a result is drawn on the CPU and then moved, so that a seed draws the same on any device.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed for one purpose, e.g. `derive(2023, "order", round, epoch)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A separate CPU generator for one purpose, so that adding a call elsewhere cannot change what it draws."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def initialization(seed: int, *purpose: object) -> Iterator[None]:
    """Layers made inside draw their initial weights, on the CPU, from their own stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *purpose))
        yield
