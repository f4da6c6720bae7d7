"""Files shared with other processes: replaced whole or not at all, checksummed, locked while one process owns them.

A tensor file is what `torch.save` writes, a zip archive: each of its members has a CRC-32, which `read_tensors` checks
and `torch.load` does not. safetensors has no checksum and holds a flat dictionary of tensors; a run's state nests
dictionaries, optimizer state and strings, which `torch.load(..., weights_only=True)` reads without another package.
"""

import csv
import errno
import fcntl
import glob
import hashlib
import os
import pickle
import secrets
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
import torch

from common.errors import Damaged, InputError, reason

CSV = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}  # how a CSV file is opened for writing
FOLDER = 0x10  # bit of a zip member's attributes
NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES}


def sha256(*parts: bytes | np.ndarray) -> str:
    """SHA-256 of all parts in order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part))
    return digest.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`; if the block succeeds, what was written there replaces `path`.

    Processes that replace the same file at once do not disturb each other: the last to end wins. Leftovers of a killed
    process are removed by the next one that replaces the same file. Raises OSError when the disk refuses.
    """
    path = Path(os.path.realpath(path))  # replaces a link's target, not the link
    _remove_leftovers(path)
    try:
        temporary, owner = _claim(path)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "its folder is not there any more", str(path)) from None
    with owner:
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
        except OSError as error:
            if error.errno and error.filename in (None, str(temporary)):  # a full disk's error names no file
                error.filename = str(path)
            raise
        finally:
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file atomically, with the same line ends on every system; bytes of a path that are not UTF-8
    become `\\udc..`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_csv(path: Path, rows: Iterable[Sequence]) -> None:
    """Replaces a CSV file atomically, with the same line ends on every system; the first row is its header."""
    with replacing(path) as temporary, open(temporary, "w", **CSV) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_tensors(path: Path, content: dict) -> None:
    """Replaces a tensor file atomically; `read_tensors` or `torch.load(..., weights_only=True)` reads it back.

    Raises OSError when the disk is full or refuses; the file is then what it was before.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        archive = _Archive(file)
        try:
            torch.save(content, archive)
        except RuntimeError:  # torch's archive writer reports a failed write as an unexpected position
            if archive.refused is None:
                raise
        if archive.refused is not None:
            raise archive.refused


def read_tensors(path: Path, remedy: str = "delete it and run again", mmap: bool = False) -> dict:
    """What `write_tensors` or `torch.save` wrote to `path`, on the CPU, with its checksums verified.

    Args:
        remedy: what the user can do about a damaged file; it ends the message.
        mmap: leave tensors on disk until they are used.

    Raises Damaged when a checksum does not match or torch cannot read the file, OSError when it cannot be opened.
    """
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"  # torch.save's older format is not zipped, and has no checksums
    try:
        if zipped and (damage := _damage(path)):
            raise Damaged(f"{path}: damaged ({damage}); {remedy}")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipped)
    except Damaged:
        raise
    except zipfile.BadZipFile as error:
        raise Damaged(f"{path}: damaged ({error}); {remedy}") from None
    except pickle.UnpicklingError:  # torch's own message is about weights_only
        raise Damaged(f"{path}: not readable (not a file of tensors from torch.save); {remedy}") from None
    except Exception as error:  # zipfile and torch.load raise anything on a damaged archive
        raise Damaged(f"{path}: not readable ({reason(error)}); {remedy}") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path}: not readable (holds a {type(content).__name__}, not a dictionary); {remedy}")
    return content


def write_arrays(path: Path, arrays: dict[str, np.ndarray], compress: bool = False) -> None:
    """Replaces an .npz atomically; `read_arrays` reads it back. Raises OSError when the disk refuses."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)


def read_arrays(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The named arrays of an .npz, the `optional` ones if it has them; its checksums are verified.

    Raises Damaged when the file is not an .npz, lacks an array or holds Python objects, and InputError when there is
    not enough memory for it.
    """
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("no archive of arrays, as np.savez makes it")
            with zipfile.ZipFile(file) as archive:
                held = archive.namelist()
                if missing := [name for name in names if f"{name}.npy" not in held]:
                    raise Damaged(f"{path}: no array {', '.join(missing)}; it needs {', '.join(names)}")
                return {name: _array(archive, name) for name in (*names, *optional) if f"{name}.npy" in held}
    except MemoryError:
        raise InputError(f"{path}: not enough memory for its arrays; use fewer or smaller images") from None
    except Damaged:
        raise
    except Exception as error:  # anything: zipfile, zlib and numpy each raise their own
        raise Damaged(f"{path}: not a readable .npz file ({reason(error)})") from None


def lock(path: Path, wait: bool = False, purpose: str = "another process") -> IO | None:
    """Locks a file for this process until it is closed or the process ends in any way.

    Returns the open file, or None when another process holds the lock and `wait` is False. If it has to wait it says so
    on stderr; `purpose` names what it waits for. Raises OSError when the file cannot be opened or locked.
    """
    file = open(path, "a")  # noqa: SIM115 - stays open: closing it releases the lock
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            file.close()
            return None
        print(f"waiting for {purpose} ({path})", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        file.close()
        raise
    return file


@contextmanager
def locked(path: Path, purpose: str) -> Iterator[None]:
    """Holds the lock `path` for a block, after waiting for `purpose`. Check again inside: it may be made by then."""
    with lock(path, wait=True, purpose=purpose):
        yield


class _Archive:
    """The file that `torch.save` writes to; keeps the error that torch would hide."""

    def __init__(self, file: IO[bytes]):
        self.refused: BaseException | None = None
        self._file = file

    def write(self, data: bytes | memoryview) -> int:
        try:
            return self._file.write(data)
        except BaseException as error:  # a full disk, or Ctrl-C
            self.refused = self.refused or error
            raise

    def flush(self) -> None:
        """The file is flushed when it is closed."""


def _damage(path: Path) -> str:
    """What is wrong with an archive's bytes; empty if nothing."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            return f"the checksum of its {damaged} does not match"
        # torch does not read a member marked as a folder, and returns uninitialized memory
        folders = [each.filename for each in archive.infolist() if each.external_attr & FOLDER]
        return f"its {folders[0]} is marked as a folder" if folders else ""


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of an .npz. np.load returns bytes for a member that is not an array, and skips the checksum if the
    header claims less than there is."""
    with archive.open(f"{name}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):
            raise ValueError(f"{name} is longer than it says")
    return array


def _claim(path: Path) -> tuple[Path, IO[bytes]]:
    """A new file next to `path`, locked while it is open: whoever can lock it has found a leftover."""
    while True:
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        owner = open(temporary, "xb")  # noqa: SIM115 - the caller closes it
        with suppress(OSError):  # a file system without locks, where nothing passes for a leftover either
            fcntl.flock(owner, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, owner
        owner.close()  # removed as a leftover before it was locked


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), open(leftover, "rb") as file:  # in use, or gone by now
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _sync_folder(folder: Path) -> None:
    """Makes a replaced name survive a power cut, if the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
