"""All that exists only to be fast, behind one door; a reader of the method may skip this package.

`apply` replaces modules of a plain torch.nn network by quicker ones with the same function, names and weights: `--fast
off` leaves it plain, and a test checks that both are equal, gradients included, up to rounding. `mse_loss`,
`keep_freed_memory` and `release_freed_memory` are not modules. `captured` is an update under `--compile graph`.
"""

import torch
from torch import nn

from common.errors import InputError
from common.fast.graphs import captured
from common.fast.layers import replacement
from common.fast.loss import mse_loss
from common.fast.malloc import keep_freed_memory, release_freed_memory

__all__ = [
    "CHOICES", "COMPILE", "apply", "captured", "check",
    "keep_freed_memory", "mse_loss", "release_freed_memory",
]  # fmt: skip

CHOICES = ("auto", "off")
COMPILE = ("auto", "off", "graph")


def apply(net: nn.Module, choice: str = "auto") -> nn.Module:
    """`net` with quicker modules, its weights kept and in channels-last memory; with choice `off`, `net` as it is."""
    return net if choice == "off" else _quick(net).to(memory_format=torch.channels_last)


def _quick(net: nn.Module) -> nn.Module:
    for name, child in net.named_children():
        setattr(net, name, _quick(child))
    return replacement(net)


def check(compile: str, device: torch.device) -> str:
    """What `--compile` resolves to on a device. Raises InputError when this machine cannot do what it asks for."""
    if compile == "auto":
        return "graph" if device.type == "cuda" else "off"
    if compile == "graph" and device.type != "cuda":
        raise InputError(f"--compile graph: {device} has no CUDA graphs; use --device cuda or --compile off")
    return compile
