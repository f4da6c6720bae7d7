"""`--compile on`: the update through torch.compile, with every input of it at one address.

A CPU runs inductor's C++ kernels. On CUDA the compiled parts are CUDA graphs (the option `reduce-overhead`), which
replay launches as they were recorded, addresses and Python numbers included. So whatever changes from update to update
goes through a tensor that stays where it is: the batch, its noise, the learning rates. Nothing else in an update
changes but weights, optimizer state and the default generator, which dropout draws from.
"""

from collections.abc import Callable, Iterable

import torch

from common.errors import InputError
from common.fast import layers, winograd
from common.fast.inputs import Inputs

Tensor = torch.Tensor


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
    inputs = Inputs(optimizers, torch._dynamo.mark_static_address)
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
