"""What the machine can do: device, threads, low precision, memory."""

import ctypes
import os
import resource

import torch

from common.errors import InputError


def device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1` or a GPU's number -> a device that exists. Raises InputError for another."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.isdigit():
        name = f"cuda:{name}"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (kind == "cpu" and number) or (number and not number.isdigit()):
        raise InputError(f"--device {name}: no such device; use auto, cpu, cuda, cuda:1 or a GPU's number")
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= found:
            raise InputError(
                f"--device {name}: this machine has {found} GPU{'s' * (found != 1)}; use --device cpu or auto"
            )
    return torch.device(name)


def amp(choice: str, device: torch.device) -> str:
    """`auto` -> `bf16` where the hardware multiplies bfloat16, else `off`: emulated, it is hundreds of times slower."""
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "off"
    return "bf16" if fast_bf16_cpu() else "off"


def fast_bf16_cpu() -> bool:
    """Does this CPU have AMX tiles or AVX512-BF16?"""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def prepare(threads: int) -> int:
    """Uses `threads` cores (0: all this process may use) and asks for reproducible kernels; returns the count."""
    _keep_freed_memory()
    threads = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS sums in a fixed order only with this
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # every buffer here is written before it is read
    return threads


def _keep_freed_memory() -> None:
    """Has glibc reuse large blocks instead of returning them to the kernel, which would clear them page by page.

    A batch's activations are tens of megabytes, allocated and freed at each update: a sixth of VGG11's time here.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library
        return
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
        mallopt(option, value)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Most memory used so far, in MB: the process's, and the GPU's where there is one."""
    peak = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    peak["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
    return peak
