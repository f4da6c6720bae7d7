"""`--compile graph`: on a GPU an update is recorded once as a CUDA graph, then replayed with one launch.

The kernels are those of the plain update, in its order, with learning rates rounded to float32; what goes is Python's
time between them, most of the update of a tiny network. Replay launches them with the recorded addresses and Python
numbers, so whatever changes has to go through a tensor at a fixed address (`inputs`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from common.errors import InputError, reason
from common.fast.inputs import Inputs

PLAIN = 3  # plain updates before the recording, which needs what they create: momentum, libraries' handles


def captured(update: Callable, optimizers: Iterable[torch.optim.Optimizer]) -> Callable[..., dict[str, Tensor]]:
    """`update` with the same arguments and losses; each value of `adversarial` has its own graph.

    Args:
        update: `(batch, adversarial) -> losses`, which steps the optimizers.
        optimizers: all that it steps; they are fused, whose kernels take the learning rate as a tensor.
    """
    inputs = Inputs(optimizers)
    stream = _stream(inputs.device)
    plain: dict[bool, int] = {}
    graphs: dict[bool, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}

    def run(batch: tuple, adversarial: bool) -> dict[str, Tensor]:
        batch = inputs.take(batch)
        with inputs.rates_as_tensors():
            if plain.setdefault(adversarial, 0) < PLAIN:
                plain[adversarial] += 1
                with _beside(stream):
                    return update(batch, adversarial)
            if adversarial not in graphs:
                graph = torch.cuda.CUDAGraph()
                graphs[adversarial] = graph, _record(graph, stream, inputs.optimizers, update, batch, adversarial)
            graph, losses = graphs[adversarial]
            graph.replay()
        return {name: value.clone() for name, value in losses.items()}  # the next replay overwrites them

    return run


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all of a process's trainings: cuBLAS keeps a workspace for each stream, 32 MiB with `:4096:8`."""
    return torch.cuda.Stream(device)


def _record(graph, stream, optimizers: list, update: Callable, batch: tuple, adversarial: bool) -> dict[str, Tensor]:
    """Records an update without running it; returns the losses each replay writes. Raises InputError on failure."""
    try:
        with _beside(stream), _capturable(optimizers), torch.cuda.graph(graph, stream=stream):
            return update(batch, adversarial)
    except torch.OutOfMemoryError:  # a RuntimeError, but its message says what to do
        raise
    except RuntimeError as error:  # a layer or loss that copies to the CPU or waits for the GPU
        if isinstance(error.__context__, torch.OutOfMemoryError):  # then ending the recording failed too
            raise error.__context__ from None
        raise InputError(f"--compile: this update cannot be recorded ({reason(error)}); use --compile off") from None


@contextmanager
def _beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Within, kernels go to `stream`, ordered after those launched before and before those launched afterwards."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


@contextmanager
def _capturable(optimizers: list[torch.optim.Optimizer]) -> Iterator[None]:
    """Within, Adam allows recording; a fused one counts its steps on the device anyway."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            group["capturable"] = value
