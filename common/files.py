"""Files that others read or write too: replaced whole or not at all, and locked while one process owns them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; when the block ends well, what was written there takes its place."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file atomically, with the same line ends on every system."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_tensors(path: Path, content: dict) -> None:
    """Replaces a `torch.save` file atomically; `torch.load(..., weights_only=True)` reads it back."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


def lock(path: Path, wait: bool = False) -> IO | None:
    """Locks a file for this process until it is closed or the process ends, however it ends.

    Returns the open file, or None when another process holds the lock and `wait` is False.
    """
    file = open(path, "a")  # noqa: SIM115 - stays open: closing it gives the lock up
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
