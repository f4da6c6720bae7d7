"""Random numbers that depend on `--seed` and on what they are for, and on nothing that ran before."""

import hashlib

import torch


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed for one purpose, e.g. `derive(2023, "order", round, epoch)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *purpose: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for one purpose, so that adding a call elsewhere cannot change what it draws."""
    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))
