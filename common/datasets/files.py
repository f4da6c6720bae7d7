"""A user's own images: an .npz in Keras' convention, or a folder with train/<class>/ and test/<class>/."""

import hashlib
from pathlib import Path

import numpy as np
from torchvision.datasets import ImageFolder

from common.datasets import npz
from common.datasets.local import KEYS
from common.datasets.source import Source
from common.errors import InputError

MOST_CLASSES = 10_000  # a larger label is a mistake, and each class up to the largest gets a name and a weight


def load_npz(path: Path) -> Source:
    """Reads x_train, y_train, x_test, y_test: uint8 images (N, H, W), (N, H, W, 1) or (N, H, W, 3), integer labels.

    Labels are (N,) or (N, 1), of any integer type, below MOST_CLASSES. Bool and float labels are refused even where
    they are whole: scores, one-hot vectors and targets of a regression come in these types. The classes are all numbers
    up to the largest label, also those that no image has.

    Raises InputError when the file is not an .npz, lacks an array, or holds another shape or type.
    """
    try:
        arrays = npz.read(path, KEYS)
    except InputError as error:
        raise InputError(f"--dataset {error}") from None
    for part in ("train", "test"):
        arrays[f"x_{part}"] = _rgb(path, part, arrays[f"x_{part}"])
        arrays[f"y_{part}"] = _labels(path, part, arrays[f"y_{part}"], len(arrays[f"x_{part}"]))
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise InputError(f"--dataset {path}: training and test images differ in size")
    classes = [str(label) for label in range(int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1)]
    return Source(name(path), *(arrays[key] for key in KEYS), classes, mirror=None)


def load_folder(path: Path) -> Source:
    """Reads train/<class>/* and test/<class>/* with torchvision's ImageFolder; all images must have one size."""
    parts = {}
    for part in ("train", "test"):
        try:
            folder = ImageFolder(str(path / part))
        except (FileNotFoundError, OSError) as error:
            raise InputError(
                f"--dataset {path}: {error}; it needs train/<class>/ and test/<class>/ with images"
            ) from None
        images = []
        for file, _ in folder.samples:
            try:
                images.append(np.asarray(folder.loader(file)))
            except Exception as error:  # no closed list: each of PIL's formats raises its own
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise InputError(f"--dataset {path}: {file} is not a readable image ({reason})") from None
            if images[-1].shape != images[0].shape:
                raise InputError(
                    f"--dataset {path}: {file} is {images[-1].shape[:2]}, others are {images[0].shape[:2]}"
                )
        parts[part] = (np.stack(images), np.array(folder.targets, dtype=np.int64), folder.classes)
    if parts["train"][2] != parts["test"][2]:
        raise InputError(f"--dataset {path}: train/ and test/ hold different classes")
    if parts["train"][0].shape[1:] != parts["test"][0].shape[1:]:
        raise InputError(f"--dataset {path}: training and test images differ in size")
    return Source(name(path), *parts["train"][:2], *parts["test"][:2], parts["train"][2], mirror=None)


def name(path: Path) -> str:
    """The file's stem and a few digits of where it lies, so that two files of one name do not share a teacher."""
    return f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"


def _rgb(path: Path, part: str, images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8."""
    shape = images.shape
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise InputError(
            f"--dataset {path}: x_{part} is {images.dtype} {shape}; it must be uint8 (N, H, W, 3) or (N, H, W)"
        )
    if not images.size:
        raise InputError(f"--dataset {path}: x_{part} is {shape}, which holds no pixel; it needs one image or more")
    return images if images.shape[3] == 3 else np.repeat(images, 3, axis=3)


def _labels(path: Path, part: str, labels: np.ndarray, count: int) -> np.ndarray:
    """(N,) int64."""
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iu":
        raise InputError(
            f"--dataset {path}: y_{part} must hold {count} integers, one an image, it is {labels.dtype} "
            f"{labels.shape}; save class numbers with .astype(np.int64)"
        )
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= MOST_CLASSES:
        raise InputError(
            f"--dataset {path}: y_{part} holds labels from {least} to {most}; number the classes from 0, "
            f"at most {MOST_CLASSES} of them"
        )
    return labels.reshape(count).astype(np.int64)
