"""A fake device other than the CPU, for any machine: what CUDA refuses, or waits for, raises a fault.

Its tensors report being on `lazy:0`, a device type that every build of torch knows and whose backward pass it runs in
the calling thread. Their values lie on the CPU and are really computed, so results can be compared with the CPU's.
`FakeDevice` is the mode that computes; within it, an operator raises `Fault` when it

- gets tensors of both devices (CUDA takes CPU tensors only if they have no dimensions),
- draws with a CPU generator on the device, or with the device's own, whose numbers differ from the CPU's,
- has no deterministic form on CUDA,
- and, inside `no_waiting`, makes the host wait for the device, moves a tensor between the two, or draws on the CPU.

Autocast is not emulated, nor what is particular to CUDA's kernels: their rounding, memory and speed.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from common import training

DEVICE, CPU = torch.device("lazy:0"), torch.device("cpu")
ROOT = str(Path(__file__).resolve().parents[1])

# What torch.use_deterministic_algorithms(True) refuses on CUDA in torch 2.6 or since, from its documentation:
# https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html
# It has deterministic forms of index_put, index_add, scatter_add, gather and convolutions. Max pooling in two
# dimensions is not on its list: the backward pass gathers (aten/src/ATen/native/cuda/DilatedMaxPool2d.cu).
NOT_DETERMINISTIC = {
    "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward",
    "avg_pool3d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward",
    "max_pool3d_with_indices_backward", "max_unpool2d", "max_unpool3d", "upsample_linear1d_backward",
    "upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "upsample_trilinear3d_backward",
    "_upsample_bilinear2d_aa_backward", "_upsample_bicubic2d_aa_backward", "reflection_pad1d_backward",
    "reflection_pad2d_backward", "reflection_pad3d_backward", "replication_pad1d_backward",
    "replication_pad2d_backward", "replication_pad3d_backward", "nll_loss2d_forward", "_ctc_loss_backward",
    "_embedding_bag_backward", "put", "put_", "histc", "bincount", "median", "nanmedian", "cumsum",
    "grid_sampler_2d_backward", "grid_sampler_3d_backward", "scatter_reduce", "scatter_reduce_",
}  # fmt: skip
# Operators whose result, or its size, the host needs; torch.cuda.set_sync_debug_mode warns about such operators.
WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "_linalg_check_errors",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}  # with a mask, the host needs the number of ones
MOVES = {"_to_copy", "copy_"}


class Fault(AssertionError):
    """Code that would fail, wait or differ on a GPU, with its line in this repository."""


class DeviceTensor(Tensor):
    """A tensor on the fake device; `held` has its values, on the CPU."""

    @staticmethod
    def __new__(cls, held: Tensor):
        options = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        tensor = Tensor._make_wrapper_subclass(cls, held.shape, device=DEVICE, **options)
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise Fault(f"{func} outside FakeDevice")

    def __repr__(self, **kwargs) -> str:
        return f"DeviceTensor({self.held})"

    def __deepcopy__(self, memo: dict):
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        if hasattr(self, "_is_param"):  # marks an nn.Parameter
            copied._is_param = True
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol):  # torch.save, then torch.load to the CPU
        return self.held.__reduce_ex__(protocol)

    def tolist(self) -> list:
        return self.cpu().tolist()


class FakeDevice(TorchDispatchMode):
    """Runs operators on the device's tensors and raises Fault where a GPU would fail."""

    def __init__(self):
        super().__init__()
        self.waits = 0  # how often the host waited for the device, or moved a tensor
        self.strict = False

    @contextmanager
    def no_waiting(self) -> Iterator[None]:
        """As within an update: making the host wait is a fault."""
        before, self.strict = self.strict, True
        try:
            yield
        finally:
            self.strict = before

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, leaves = kwargs or {}, []
        plain = _each((args, kwargs), lambda leaf: leaves.append(leaf) or _on_cpu(leaf))
        held = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, DeviceTensor)}
        target = kwargs.get("device")
        here = bool(held) if target is None else torch.device(target).type == DEVICE.type
        self._check(func, args, leaves, bool(held), here)
        if not held and not here:
            return func(*args, **kwargs)

        def back(result):
            if not isinstance(result, Tensor) or not here:
                return result
            if id(result) not in held:
                return DeviceTensor(result)
            tensor = held[id(result)]  # changed in place
            assert _laid_out(tensor) == _laid_out(result), f"{func}: not faked here"
            return tensor

        return _each(func(*plain[0], **plain[1]), back)

    def _check(self, func, args: tuple, leaves: list, from_device: bool, here: bool) -> None:
        name = func.overloadpacket.__name__
        on_cpu = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, DeviceTensor)]
        draws = torch.Tag.nondeterministic_seeded in func.tags
        if not from_device and not here:
            if draws and self.strict:
                self._fault(name, "draws on the CPU within an update; once an epoch does")
            return
        if name in MOVES:
            if on_cpu or from_device != here:
                self._wait(name, "moves a tensor between CPU and device")
            return
        if any(tensor.dim() for tensor in on_cpu):
            self._fault(name, "gets tensors of the CPU and of the device")
        if draws and name != "native_dropout":  # seeded, and takes no generator
            own = any(isinstance(leaf, torch.Generator) for leaf in leaves)
            self._fault(name, f"draws on the device {'with a generator of the CPU' if own else 'what a GPU draws'}")
        if name in NOT_DETERMINISTIC:
            self._fault(name, "has no deterministic form on CUDA")
        masked = name in INDEXING and any(_is_mask(index) for index in args[1])
        if name in WAITS or masked or func is torch.ops.aten.repeat_interleave.Tensor:
            self._wait(name, "makes the host wait for the device")

    def _wait(self, name: str, what: str) -> None:
        if self.strict:
            self._fault(name, what)
        self.waits += 1

    def _fault(self, name: str, what: str) -> None:
        raise Fault(f"{name} {what}, at {_line()}")


def install(monkeypatch) -> FakeDevice:
    """Makes torch treat the fake device as one it knows; from a session's second update on, waiting is a fault."""
    device = FakeDevice()
    autocast, step = torch.autocast, training.Session.step

    def no_autocast(kind: str, *args, **kwargs):
        return nullcontext() if kind == DEVICE.type else autocast(kind, *args, **kwargs)

    @wraps(step)
    def watched(session, *args, **kwargs):
        first, session.had_a_step = not hasattr(session, "had_a_step"), True  # the first one fills caches
        with nullcontext() if first else device.no_waiting():
            return step(session, *args, **kwargs)

    monkeypatch.setattr(torch, "autocast", no_autocast)
    optimizers = sys.modules[torch.optim.Optimizer.__module__]
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["cpu", DEVICE.type])
    monkeypatch.setattr(training.Session, "step", watched)
    # Module.to makes new parameters: `parameter.data = ...` would not change what a DeviceTensor holds
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    return device


def _each(tree, change):
    """An operator's arguments or results with `change` applied to each."""
    if isinstance(tree, list | tuple):
        return type(tree)(_each(branch, change) for branch in tree)
    if isinstance(tree, dict):
        return {name: _each(branch, change) for name, branch in tree.items()}
    return change(tree)


def _on_cpu(leaf):
    if isinstance(leaf, DeviceTensor):
        return leaf.held
    return CPU if isinstance(leaf, torch.device) and leaf.type == DEVICE.type else leaf


def _laid_out(tensor: Tensor) -> list[tuple[int, int]]:
    """Size and stride of each dimension longer than 1."""
    return [pair for pair in zip(tensor.shape, tensor.stride(), strict=True) if pair[0] > 1]


def _is_mask(leaf) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype in (torch.bool, torch.uint8)


def _line() -> str:
    """The innermost project line on the stack; for a backward pass, the line that started it."""
    lines = [frame for frame in traceback.extract_stack() if frame.filename.startswith(f"{ROOT}/common")]
    return f"{Path(lines[-1].filename).relative_to(ROOT)}:{lines[-1].lineno}" if lines else "the test"
