"""The changing inputs of updates, in tensors at fixed addresses."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Inputs:
    """What changes from update to update, each in a tensor of its own that is filled in place."""

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer]):
        self.optimizers, self.batch, self.rates = list(optimizers), None, None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.optimizers[0].param_groups[0]["params"][0].device

    def take(self, batch: tuple) -> tuple:
        """Copies a batch, nested named tuples of tensors and None, into the tensors that held the one before."""
        self.batch = self._filled(self.batch, batch)
        return self.batch

    @contextmanager
    def rates_as_tensors(self) -> Iterator[None]:
        """Within, learning rates are float32 tensors on their weights' device; schedules and files have numbers."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        numbers = [group["lr"] for group in groups]
        if self.rates is None:
            self.rates = [torch.empty((), device=group["params"][0].device) for group in groups]
        for group, rate, number in zip(groups, self.rates, numbers, strict=True):
            group["lr"] = rate.fill_(number)
        try:
            yield
        finally:
            for group, number in zip(groups, numbers, strict=True):
                group["lr"] = number

    def _filled(self, held, given):
        if given is None:
            return None
        if isinstance(given, Tensor):
            return (torch.empty_like(given) if held is None else held).copy_(given, non_blocking=True)
        held = held or (None,) * len(given)
        return type(given)(*(self._filled(*pair) for pair in zip(held, given, strict=True)))
