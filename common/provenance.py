"""What a run is made with: the code's commit, torch, the machine, and how it was used. Kept in config.json."""

import hashlib
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

from common.experiments import ROOT
from common.machine import fast_bf16_cpu

CPUINFO = Path("/proc/cpuinfo")
CODE = ("common/*.py", ":(glob)*/*/*/*.py")  # what decides a result: git patterns, the second for each main.py


def describe(args) -> dict:
    """One session's record, for a run whose `args` have been through `machine.prepare`."""
    commit, dirty = _commit()
    return {
        "commit": commit,  # of this repository; empty outside a git checkout
        "dirty": dirty,  # of uncommitted code; empty if there is none
        "torch": torch.__version__,
        "machine": machine(torch.device(args.device)),
        "device": args.device,
        "threads": args.threads,
        "amp": args.precision,
        "fast": args.fast,
        "compile": args.compile,
    }


def changes(before: dict, now: dict) -> str:
    """What differs between two records, as `threads 2 > 1, torch 2.13.0 > 2.14.1`; empty when nothing does."""
    before = {"compile": "off"} | before  # older records lack it
    before["dirty"] = before.get("dirty") or ""  # older records have False or True
    names = [name for name in now if before.get(name) != now[name]]
    return ", ".join(f"{name} {_short(before.get(name))} > {_short(now[name])}" for name in names)


def machine(device: torch.device) -> str:
    """The GPU's or CPU's model, the latter with the widest vector unit that matrix products use, and AMX tiles.

    Bfloat16 products need not round alike in the tiles and in AVX512, and CPUs with and without them may share a name.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}{', AMX' if fast_bf16_cpu() else ''}"


@cache
def _commit() -> tuple[str, str]:
    try:
        return _git("rev-parse", "HEAD"), _uncommitted()
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return "", ""


def _uncommitted() -> str:
    """The beginning of the SHA-256 of the code files that differ from the commit; empty when none does."""
    changed = _git("-c", "core.fileMode=false", "diff", "HEAD", "--name-only", "--no-renames", "--relative", "-z",
                   "--", *CODE)  # fmt: skip
    added = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE)
    names = sorted({*changed.split("\0"), *added.split("\0")} - {""})
    digest = hashlib.sha256()
    for name in names:
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else None
        length = "gone" if content is None else len(content)
        digest.update(f"{name}\0{length}\0".encode(errors="surrogateescape") + (content or b""))
    return digest.hexdigest()[:8] if names else ""


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    names = {"encoding": "utf-8", "errors": "surrogateescape"}  # a file's name need not be UTF-8
    return subprocess.run(command, capture_output=True, check=True, timeout=20, **names).stdout.strip()


def _short(value: object) -> str:
    text = str(value)
    return text[:10] if len(text) == 40 else text or "none"
