"""`--compile on`: the update through torch.compile, with every input of it at one address.

A CPU runs inductor's C++ kernels. On CUDA the compiled parts are CUDA graphs (the option `reduce-overhead`), which
replay launches as they were recorded, addresses and Python numbers included. So whatever changes from update to update
goes through a tensor that stays where it is: the batch, its noise, the learning rates. Nothing else in an update
changes but weights, optimizer state and the default generator, which dropout draws from.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch

from common.errors import InputError
from common.fast import layers, winograd

Tensor = torch.Tensor
COMPILE = ("off", "on")


class Inputs:
    """What changes from update to update, each in a tensor of its own that is filled in place."""

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer]):
        self.optimizers = list(optimizers)
        self.batch, self.rates = None, None

    def take(self, batch: tuple) -> tuple:
        """A batch, nested named tuples of tensors and None, in the tensors that held the one before."""
        self.batch = _filled(self.batch, batch)
        return self.batch

    @contextmanager
    def rates_as_tensors(self) -> Iterator[None]:
        """Within, each learning rate is a float32 tensor on its weights' device; a schedule and files have numbers."""
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


def compiled(
    update: Callable, optimizers: Iterable[torch.optim.Optimizer], resident: Iterable[Tensor | None]
) -> Callable[..., dict[str, Tensor]]:
    """`update` compiled, with the same arguments and losses; another `adversarial` is another compilation.

    Args:
        update: `(batch, adversarial) -> losses`, which steps the optimizers.
        optimizers: all that it steps, fused ones: the kernel takes a rate that is a tensor.
        resident: tensors that it reads and that stay where they are: a CUDA graph would copy others at each update.
    """
    torch.compiler.reset()  # the network of the round before, and its kernels
    inputs = Inputs(optimizers)
    for optimizer in inputs.optimizers:  # one fused kernel each, nothing to compile
        optimizer.step = torch.compiler.disable(optimizer.step)
        optimizer.zero_grad = torch.compiler.disable(optimizer.zero_grad)
    for constant in (winograd._transforms, layers._matrix):  # else computed anew in each update
        torch.compiler.assume_constant_result(constant)
    for tensor in resident:
        if tensor is not None:
            torch._dynamo.mark_static_address(tensor)
    # dropout draws what it draws without the compiler
    options = {"fallback_random": True, "triton.cudagraphs": torch.cuda.is_available()}
    step = torch.compile(update, dynamic=False, options=options)

    def run(batch: tuple, adversarial: bool) -> dict[str, Tensor]:
        batch = inputs.take(batch)
        torch.compiler.cudagraph_mark_step_begin()
        with inputs.rates_as_tensors():
            losses = step(batch, adversarial)
        return {name: value.clone() for name, value in losses.items()}  # the next update overwrites a graph's outputs

    return run


def check(device: torch.device) -> None:
    """Raises InputError when torch.compile does not work here, which needs a C++ compiler, on CUDA also Triton."""
    try:
        if device.type == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler  # seconds, for those who compile alone

            get_cpp_compiler()  # what is tried below may lie in a cache
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(64, device=device))
    except Exception as error:  # whatever the compiler's own layers raise
        reason = " ".join(str(error).split("Set TORCHDYNAMO")[0].split())[:200]
        raise InputError(
            f"--compile on: torch.compile does not work on this machine ({reason}); install a C++ compiler (g++) or "
            "use --compile off"
        ) from None


def _filled(held, given):
    if given is None:
        return None
    if isinstance(given, Tensor):
        if held is None:
            held = torch.empty_like(given)
            torch._dynamo.mark_static_address(held)
        return held.copy_(given, non_blocking=True)
    held = held or (None,) * len(given)
    return type(given)(*(_filled(*pair) for pair in zip(held, given, strict=True)))
