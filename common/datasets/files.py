"""A user's own images: an .npz in Keras' convention, or a folder with train/<class>/ and test/<class>/."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
from torchvision.datasets import ImageFolder

from common.datasets.source import Source
from common.errors import InputError

KEYS = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path: Path) -> Source:
    """Reads x_train, y_train, x_test, y_test: uint8 images (N, H, W), (N, H, W, 1) or (N, H, W, 3), integer labels.

    Raises InputError when the file is not an .npz, lacks an array, or holds another shape or type.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive.files]
            if missing:
                raise InputError(f"--dataset {path}: no array {', '.join(missing)}; it needs {', '.join(KEYS)}")
            arrays = {key: archive[key] for key in KEYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"--dataset {path}: not a readable .npz file ({error})") from None
    for part in ("train", "test"):
        arrays[f"x_{part}"] = _rgb(path, arrays[f"x_{part}"])
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
            except OSError as error:
                raise InputError(f"--dataset {path}: {file} is not a readable image ({error})") from None
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


def _rgb(path: Path, images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
        raise InputError(
            f"--dataset {path}: images are {images.dtype} {images.shape}; they must be uint8 (N, H, W, 3) or (N, H, W)"
        )
    return images if images.shape[3] == 3 else np.repeat(images, 3, axis=3)


def _labels(path: Path, part: str, labels: np.ndarray, count: int) -> np.ndarray:
    labels = labels.squeeze()
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise InputError(
            f"--dataset {path}: y_{part} must hold {count} integers from 0, it is {labels.dtype} {labels.shape}"
        )
    return labels.astype(np.int64)
