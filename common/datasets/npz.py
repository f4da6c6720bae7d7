"""A user's own images in an .npz, in Keras' convention."""

from pathlib import Path

import numpy as np

from common.datasets.local import KEYS
from common.datasets.source import Source, short_name
from common.errors import InputError
from common.files import read_arrays

MOST_CLASSES = 10_000  # a larger label is a mistake, and each class up to the largest gets a name and a weight


def load(path: Path) -> Source:
    """Reads x_train, y_train, x_test, y_test: uint8 images (N, H, W), (N, H, W, 1) or (N, H, W, 3), integer labels.

    Labels are (N,) or (N, 1), of any integer type, below MOST_CLASSES. Bool and float labels are refused even if
    they are whole numbers: these types hold scores, one-hot vectors and regression targets. The classes are all numbers
    up to the largest label, including those without images.

    Raises InputError when the file is not an .npz, lacks an array, or has one of another shape or type.
    """
    try:
        arrays = read_arrays(path, KEYS)
    except InputError as error:
        raise InputError(f"--dataset {error}") from None
    arrays = _usable(path, arrays)
    classes = [str(label) for label in range(int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1)]
    return Source(short_name(path), *(arrays[key] for key in KEYS), classes, mirror=None)


def checked(name: str, source: Source) -> Source:
    """A registered data set's source with RGB images and int64 labels. Raises InputError as `load` does."""
    arrays = _usable(name, {key: np.asarray(getattr(source, key)) for key in KEYS})
    most = int(max(arrays["y_train"].max(), arrays["y_test"].max()))
    if most >= len(source.classes):
        raise InputError(f"--dataset {name}: has labels up to {most} and names of {len(source.classes)} classes")
    return source._replace(**arrays)


def _usable(path: str | Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays in the form of `Source`, validated."""
    found = {}
    for part in ("train", "test"):
        found[f"x_{part}"] = _rgb(path, part, arrays[f"x_{part}"])
        found[f"y_{part}"] = _labels(path, part, arrays[f"y_{part}"], len(found[f"x_{part}"]))
    if found["x_train"].shape[1:] != found["x_test"].shape[1:]:
        raise InputError(f"--dataset {path}: training and test images differ in size")
    return found


def _rgb(path: str | Path, part: str, images: np.ndarray) -> np.ndarray:
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
    if images.max() == 1:
        raise InputError(f"--dataset {path}: x_{part} has levels 0 and 1 alone, of 0 to 255; save 255 times them")
    return images if images.shape[3] == 3 else np.repeat(images, 3, axis=3)


def _labels(path: str | Path, part: str, labels: np.ndarray, count: int) -> np.ndarray:
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
