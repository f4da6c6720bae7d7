"""A folder of images, train/<class>/ and test/<class>/, of any size and any of PIL's modes.

With `--labels` some training images may have no class yet: those directly in train/ or in train/unlabeled/.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from common import memory
from common.datasets import labels, pixels
from common.datasets.source import Source, short_name
from common.errors import InputError, reason
from common.files import sha256

UNLABELED = "unlabeled"
NAMED = 10  # at most this many names in one message
NEEDED = "it needs train/<class>/ and test/<class>/ with images"


class Listing(NamedTuple):
    """The image files of a folder, unread."""

    classes: list[str]
    train: list[Path]
    y_train: np.ndarray  # (N,) int64; -1 where no folder gives the class
    test: list[Path]
    y_test: np.ndarray


def load(path: Path, size: int, labels_file: str = "") -> Source:
    """Every image's central square at `size`: the shorter side is resized to it, the longer one cropped at both ends.

    Args:
        size: in pixels; images are resized as they are read, so that memory does not depend on their own sizes.
        labels_file: `--labels`, for the training images outside class folders.
    Raises InputError when a part is missing, files are not images (named together) or memory does not suffice.
    """
    found = listing(path)
    loose = int((found.y_train < 0).sum())
    if loose and not labels_file:
        raise InputError(
            f"--dataset {path}: {loose} images in train/ lie in no class's folder (the first: "
            f"{found.train[int(np.argmin(found.y_train))].relative_to(path)}); move them, or name a file for their "
            "labels: --labels FILE"
        )
    taken = (len(found.train) + len(found.test)) * size**2 * 3
    if taken > 0.9 * memory.available():
        raise InputError(
            f"--dataset {path}: its {len(found.train)} + {len(found.test)} images take {memory.megabytes(taken)} at "
            f"--image_size {size}, {memory.megabytes(memory.available())} are available; lower it, or take fewer"
        )
    x_train, x_test = np.split(_read(path, [*found.train, *found.test], size), [len(found.train)])
    names = (short_name(path), x_train, found.y_train, x_test, found.y_test, found.classes)
    files = [str(file.relative_to(path / "train").as_posix()) for file in found.train]
    order = sha256(json.dumps(files).encode())
    if not labels_file:
        return Source(*names, mirror=None, order=order)
    if odd := [file for file in files if "\r" in file or file != file.encode(errors="replace").decode()]:
        raise InputError(
            f"--labels {labels_file}: the file must be UTF-8 without carriage returns, which the names of {len(odd)} "
            f"training images do not allow, as {odd[0]!r}; rename them"
        )
    y_train = labels.fill(Path(labels_file), files, found.y_train, found.classes)
    source = Source(*names, mirror=None, files=files, foldered=found.y_train >= 0, order=order)
    return source._replace(y_train=y_train)


def listing(path: Path) -> Listing:
    """The images of train/ and test/, class by class in the order of their names.

    Raises InputError when a part has no classes, a class has no images, or the parts' classes differ.
    """
    folders = {part: _classes(path, part) for part in ("train", "test")}
    classes = folders["test"]
    trained = [name for name in folders["train"] if name != UNLABELED or UNLABELED in classes]
    loose = _images(path, sorted((path / "train").iterdir()))
    if len(trained) < len(folders["train"]):
        loose += _images(path, sorted(walk(path / "train" / UNLABELED)))
    if stray := _images(path, sorted((path / "test").iterdir())):
        raise InputError(f"--dataset {path}: {len(stray)} images in test/ lie in no class's folder (the first: "
                         f"{stray[0].relative_to(path)}); move them")  # fmt: skip
    here, there = set(trained), set(classes)
    if here - there or (there - here and not loose):
        parts = [f"only {part}/ has {', '.join(sorted(names)[:NAMED])}"
                 for part, names in (("train", here - there), ("test", there - here)) if names]  # fmt: skip
        raise InputError(f"--dataset {path}: train/ and test/ hold different classes ({'; '.join(parts)})")
    samples = {}
    for part, names in (("train", trained), ("test", classes)):
        index = {name: classes.index(name) for name in names}
        found = [(file, label) for name, label in index.items() for file in _of_class(path, path / part / name)]
        without = set(index.values()) - {label for _, label in found}
        if without:
            raise InputError(f"--dataset {path}: {part}/{classes[min(without)]}/ holds no image; {NEEDED} "
                             f"({', '.join(IMG_EXTENSIONS)})")  # fmt: skip
        samples[part] = [file for file, _ in found], [label for _, label in found]
    files, y_train = samples["train"]
    y_train = np.array([*y_train, *[-1] * len(loose)], dtype=np.int64)
    return Listing(classes, [*files, *loose], y_train, samples["test"][0], np.array(samples["test"][1], dtype=np.int64))


def _classes(path: Path, part: str) -> list[str]:
    try:
        found = [entry.name for entry in (path / part).iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"--dataset {path}: {part}/ cannot be read ({error.strerror}); {NEEDED}") from None
    if not found and part == "test":
        raise InputError(f"--dataset {path}: test/ has no class's folder; {NEEDED}")
    return sorted(found)


def _of_class(path: Path, place: Path) -> list[Path]:
    """The images in a class's folder, in the order of torchvision's `make_dataset`: folder by folder."""
    files = sorted(walk(place), key=lambda file: (str(file.parent), file.name))
    return [file for file in files if _is_image(file) and not is_hidden(file.relative_to(path))]


def left_out(path: Path) -> list[Path]:
    """The files of train/ and test/ that are neither hidden nor images by extension, such as a .gif or .heic."""
    found = sorted(file for part in ("train", "test") for file in walk(path / part))
    return [file for file in found if file.is_file() and not _is_image(file) and not is_hidden(file.relative_to(path))]


def walk(path: Path) -> Iterator[Path]:
    """The files under a folder, through links to folders as well, except those that lead back up.

    Pipes and links to files that are not there are among them: `pixels.read` says so.
    """
    for here, folders, names in os.walk(path, followlinks=True):
        up = os.path.join(os.path.realpath(here), "")
        folders[:] = [
            each for each in folders if not up.startswith(os.path.join(os.path.realpath(f"{here}/{each}"), ""))
        ]
        yield from (Path(here, name) for name in names)


def _images(path: Path, found: list[Path]) -> list[Path]:
    """Those of the files under `path` that are images and not hidden."""
    return [file for file in found if file.is_file() and _is_image(file) and not is_hidden(file.relative_to(path))]


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMG_EXTENSIONS


def is_hidden(file: Path) -> bool:
    """Is it hidden, like the ._photo.jpg and .ipynb_checkpoints/photo.jpg of macOS and Jupyter?"""
    return any(part.startswith(".") for part in file.parts)


def _read(path: Path, files: list[Path], size: int) -> np.ndarray:
    """The files' images (N, size, size, 3) uint8. Raises InputError naming the files that are not readable images."""
    images = np.empty((len(files), size, size, 3), np.uint8)

    def read(number: int) -> str:
        try:
            images[number] = pixels.read(files[number], size)
        except Exception as error:  # each of PIL's formats raises its own types
            return reason(error)
        return ""

    names = [file.relative_to(path) for file in files]
    with ThreadPoolExecutor() as pool:  # decoding releases the GIL
        wrong = [(file, why) for file, why in zip(names, pool.map(read, range(len(files))), strict=True) if why]
    if len(wrong) == 1:
        raise InputError(f"--dataset {path}: {wrong[0][0]} is not a readable image ({wrong[0][1]})")
    if wrong:
        shown = ", ".join(f"{file} ({why})" for file, why in wrong[:NAMED])
        shown += f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise InputError(f"--dataset {path}: {len(wrong)} files are not readable images: {shown}; remove them")
    return images
