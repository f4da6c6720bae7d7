"""What the machine can do: device, threads, low precision, memory."""

import os
import resource
import sys

import torch

from common import console, fast, startup
from common.errors import InputError


def prepare(args) -> None:
    """Sets this process up for a run; `args.device`, `args.threads` and `args.precision` become what is used.

    `precision` is what `--amp` resolves to on this machine, `bf16` or `off`; `compile` becomes `graph` or `off`.
    Raises InputError for a missing device or more threads than a process can have.
    """
    chosen = device(args.device)
    args.device, args.precision, args.threads = str(chosen), amp(args.amp, chosen), threads(args.threads)
    if args.threads > 1 and startup.BUSY:
        console.note("other processes are busy on this machine; --threads 1 suits runs side by side")
    torch.set_num_threads(args.threads)
    if args.fast != "off":
        fast.keep_freed_memory()
    args.compile = fast.check(args.compile, chosen)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS sums in a fixed order only with this
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # every buffer is written before it is read
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 means float32


def device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1` or a GPU's number -> a device that exists. Raises InputError if there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.isdecimal():
        name = f"cuda:{int(name)}"
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and (kind == "cpu" or not number.isdecimal())):
        raise InputError(f"--device {name}: no such device; use auto, cpu, cuda, cuda:1 or a GPU's number")
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= found:
            raise InputError(
                f"--device {name}: this machine has {found} GPU{'s' * (found != 1)}; use --device cpu or auto"
            )
    return torch.device(f"{kind}:{int(number)}" if number else kind)


def amp(choice: str, device: torch.device) -> str:
    """`auto` -> `bf16` if the hardware multiplies bfloat16, else `off`: emulation is hundreds of times slower."""
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "off"
    return "bf16" if fast_bf16_cpu() else "off"


def fast_bf16_cpu() -> bool:
    """Does this CPU have AMX tiles? AVX512-BF16 alone is not enough: products take twice as long as in float32."""
    return torch.cpu._is_amx_tile_supported()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(count: int) -> int:
    """`--threads`: 0 becomes all cores. Raises InputError for far more than that."""
    most = 8 * cores()
    if count > most:
        raise InputError(f"--threads {count}: this process has {cores()} cores; use at most {most}, or 0 for all cores")
    return count or cores()


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peak memory so far, in MB: the process's, and the GPU's if there is one."""
    unit = 2**20 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    peak = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    peak["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
    return peak
