"""`--teacher FILE.npz`: any network's logits in place of a checkpoint, whatever its framework, size or image size.

The file has an array `train` (N, classes): the logits of the data set's N training images, in its order. Others are
optional: `test` (M, classes), the logits of the test images, which give its accuracy; `seen` (n,), the indices of the
training images whose labels the network saw, empty if it saw none of this data set; `labels` (N,), the classes of the
training images, -1 where unknown, and `images_sha256`, `Images.order`, to check that the data set's order is still the
same. `common.logits` writes all of them.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.data import Images
from common.distillation import Targets
from common.errors import InputError
from common.files import read_arrays, sha256
from common.teachers.store import there


def named(args) -> bool:
    """Does `--teacher` name a file of logits?"""
    return Path(args.teacher).suffix == ".npz"


def size(args) -> int:
    """Bytes that the logits of all training images take."""
    return 4 * args.num_images * args.num_classes


def load(args, images: Images) -> tuple[Targets, str]:
    """The targets of every training image, one row for all its views, and the SHA-256 of the file's arrays.

    Raises InputError if the file is missing or damaged, or does not fit the data set.
    """
    path = Path(args.teacher)
    there(path)
    try:
        arrays = read_arrays(path, ["train"], ["test", "seen", "labels", "images_sha256"])
    except InputError as error:
        raise InputError(f"--teacher {error}") from None
    train = _logits(path, "train", arrays["train"], images.available, images)
    accuracy = ""
    if "test" in arrays:
        right = _logits(path, "test", arrays["test"], len(images.test), images).argmax(1) == images.test_labels.cpu()
        accuracy = f"{100 * right.double().mean().item():.2f}"
    seen = _places(path, arrays["seen"], images) if "seen" in arrays else None
    if "labels" in arrays:
        _compare(path, arrays["labels"], images)
    if str(arrays.pop("images_sha256", images.order)) != images.order:
        raise InputError(
            f"--teacher {path}: was written for other training images, or for another order of them; write it again"
        )
    parts = []
    for name in sorted(arrays):  # floats as float32, whatever the file's precision
        kind = np.float32 if arrays[name].dtype.kind == "f" else np.int64
        parts += [name.encode(), arrays[name].astype(kind)]
    logits = train[images.origin][None].to(images.device)
    return Targets(nn.Identity(), None, logits, accuracy, seen), sha256(*parts)


def flaw(found: np.ndarray) -> str:
    """Why floats (n, classes) are not logits; empty if they are. `common.logits` checks before it writes them."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        found = found.astype(np.float32)
    if not np.isfinite(found).all():
        return "values that are not finite"
    if (found >= 0).all() and np.abs(found.sum(1) - 1).max() < 1e-3:
        return "probabilities; logits are wanted, or the probabilities' logarithms"
    return ""


def _logits(path: Path, name: str, array: np.ndarray, count: int, images: Images) -> Tensor:
    """An array of the file as float32. Raises InputError unless it has finite logits for each image."""
    shape = count, len(images.classes)
    if array.shape != shape or array.dtype.kind != "f":
        raise InputError(
            f"--teacher {path}: `{name}` is {array.dtype} of shape {array.shape}; floats of {shape} would fit, the "
            f"logits of the images of {images.name} in their order"
        )
    if why := flaw(array):
        raise InputError(f"--teacher {path}: `{name}` has {why}")
    return torch.from_numpy(array.astype(np.float32))


def _compare(path: Path, array: np.ndarray, images: Images) -> None:
    """Raises InputError unless `labels` are the data set's, wherever both are known."""
    if array.shape != (images.available,) or array.dtype.kind not in "iu":
        raise InputError(
            f"--teacher {path}: `labels` must hold a whole number for each of {images.available} training images"
        )
    theirs, ours = torch.from_numpy(array.astype(np.int64))[images.origin], images.labels.cpu()
    wrong = int(((theirs >= 0) & (ours >= 0) & (theirs != ours)).sum())
    if wrong:
        raise InputError(
            f"--teacher {path}: {wrong} of {len(ours)} images have other labels there: the data set or its images' "
            "order has changed; write the file again"
        )


def _places(path: Path, array: np.ndarray, images: Images) -> Tensor:
    """`seen` as (n,) int64. Raises InputError unless it holds indices of training images."""
    if why := misplaced(array, images.available):
        raise InputError(f"--teacher {path}: `seen` must hold places of training images whose labels it saw, {why}")
    return torch.from_numpy(array.astype(np.int64))


def misplaced(array: np.ndarray, count: int) -> str:
    """What indices of training images (n,) must be, if these are not; a mask of 0 and 1 repeats its indices."""
    valid = array.ndim == 1 and (not array.size or array.dtype.kind in "iu")  # np.array([]) is a float array
    if valid and (not array.size or 0 <= array.min() <= array.max() < count) and len(np.unique(array)) == len(array):
        return ""
    return f"from 0 to {count - 1}, each of them once"
