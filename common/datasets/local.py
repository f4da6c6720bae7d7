"""Shared by downloaded data sets: a decoded copy on disk, and a download that does not hang."""

import errno
import socket
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from common.errors import Damaged, InputError, reason
from common.files import locked, read_arrays, sha256, write_arrays

KEYS = ("x_train", "y_train", "x_test", "y_test")
STALLED = 20  # seconds without a byte after which a download counts as unreachable

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # in the order of KEYS


def cached(cache: Path, make: Callable[[], Arrays], checksum: str | None = None) -> Arrays:
    """The arrays in `cache`, an .npz that is made if it is missing or damaged.

    Args:
        make: returns the arrays, verified. A second run waits while the first makes them, then reads the cache.
        checksum: their SHA-256 if it is known in advance; otherwise the file stores its own.

    Raises InputError when the folder cannot be written, unless it is read-only and `make` does not write to it.
    """
    arrays = _read(cache, checksum)
    if arrays is not None:
        return arrays
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with locked(cache.with_name(f".{cache.stem}.lock"), f"another run that prepares {cache.name}"):
            arrays = _read(cache, checksum)
            if arrays is None:
                arrays = make()
                named = dict(zip(KEYS, arrays, strict=True))
                write_arrays(cache, {**named, "sha256": np.array(sha256(*arrays))})
            return arrays
    except OSError as error:
        refused = InputError(
            f"--data_dir {cache.parent}: cannot be written ({error.strerror or error}); name one you own, with room"
        )
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise refused from None
    try:  # the original files may be there already, as on a cluster's shared disk
        arrays = make()
    except (InputError, OSError):
        raise refused from None
    say(f"{cache.parent} cannot be written, so the decoded images are not kept there")
    return arrays


def _read(cache: Path, checksum: str | None) -> Arrays | None:
    """The arrays of the local copy, or None if it is missing or (with a line on stderr) damaged."""
    if not cache.exists():
        return None
    try:
        found = read_arrays(cache, KEYS if checksum else (*KEYS, "sha256"))
        arrays = tuple(found[key] for key in KEYS)
        if sha256(*arrays) == (checksum or str(found["sha256"])):
            return arrays
    except Damaged:
        pass
    say(f"{cache} is damaged; making it again")
    return None


def from_torchvision(get: Callable, dataset: str, file: str, data_dir: Path):
    """The result of `get(download)` with torchvision's files, or with its download if they are missing or damaged.

    Raises InputError naming `file` if both fail.
    """
    try:
        try:
            return get(False)
        except RuntimeError:
            say(f"downloading {file} with torchvision to {data_dir}")
            with socket_timeout():
                return get(True)
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"--dataset {dataset}: no intact {file} in --data_dir {data_dir} and torchvision's download failed "
            f"({reason(error)}); put it there, or name an .npz"
        ) from None


@contextmanager
def socket_timeout():
    """Sockets opened inside give up after STALLED seconds of silence."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED)
    try:
        yield
    finally:
        socket.setdefaulttimeout(timeout)


def say(message: str) -> None:
    """Prints a line to the user that is not a result."""
    print(message, file=sys.stderr, flush=True)
