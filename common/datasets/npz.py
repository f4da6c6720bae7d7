"""Arrays out of an .npz, believed in nothing: what a header claims is compared with the file before memory is taken."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from common.errors import Damaged, InputError, reason

DEFLATE_LIMIT = 1100  # bytes out of one byte in: deflate cannot do better than 1032
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
KINDS = "biufU"  # of the arrays' types: bool, integers, floats, text


def read(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The named arrays of an .npz, the `optional` ones where it has them, as they were saved (C or Fortran order).

    The archive's own checksums are compared.

    Raises Damaged when the file is no .npz, lacks an array, holds Python objects or claims other sizes than it has,
    and InputError when there is not enough memory for it.
    """
    try:
        with open(path, "rb") as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                raise ValueError("it is a single array, from np.save; use np.savez")
            with zipfile.ZipFile(file) as archive:
                held = archive.namelist()
                missing = [name for name in names if f"{name}.npy" not in held]
                if missing:
                    raise Damaged(f"{path}: no array {', '.join(missing)}; it needs {', '.join(names)}")
                wanted = [*names, *(name for name in optional if f"{name}.npy" in held)]
                return {name: _member(archive, name, path.stat().st_size) for name in wanted}
    except MemoryError:
        raise InputError(f"{path}: not enough memory for its arrays; use fewer or smaller images") from None
    except Damaged:
        raise
    except Exception as error:  # no closed list: zipfile, zlib and numpy each raise their own
        raise Damaged(f"{path}: not a readable .npz file ({reason(error)})") from None


def _member(archive: zipfile.ZipFile, name: str, size: int) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    limit = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: DEFLATE_LIMIT}.get(info.compress_type)
    if limit is None:
        raise ValueError(f"{name} is compressed by method {info.compress_type}; use np.savez or np.savez_compressed")
    with archive.open(info) as member:
        shape, dtype = _header(member, name)
        claimed, held = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
    if claimed != held or info.file_size > limit * min(info.compress_size, size):
        raise ValueError(f"{name} claims {shape} {dtype}, {claimed} bytes, and the file does not hold them")
    with archive.open(info) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        member.read()  # to the end, where the archive's checksum is compared
    return array


def _header(member: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    if version not in HEADERS:
        raise ValueError(f"{name} is of .npy version {version}")
    shape, _, dtype = HEADERS[version](member)
    if dtype.kind not in KINDS:
        kind = "Python objects" if dtype.hasobject else f"the type {dtype}"
        raise ValueError(f"{name} holds {kind}, not numbers")
    return shape, dtype
