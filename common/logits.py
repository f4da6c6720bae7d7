"""Writes the file of logits that `--teacher FILE.npz` takes, from any network of any framework.

from common import logits

logits.write("logits.npz", network, dataset="cifar10", seen="all")
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from common import datasets
from common.errors import InputError
from common.experiments import ROOT
from common.files import replacing
from common.teachers.precomputed import flaw


def write(
    path: str | Path,
    network: Callable[[np.ndarray], np.ndarray],
    dataset: str = "cifar10",
    seen: str | list[int] | None = None,
    image_size: int = 224,
    batch_size: int = 256,
    data_dir: str | Path = ROOT / "data",
    labels: str | Path = "",
    extra: bool = False,
) -> None:
    """Asks `network` for the logits of all training and test images of `--dataset`, in its order, batch by batch.

    Args:
        path: of the .npz; it is replaced.
        network: (B, H, W, 3) uint8 RGB images -> (B, classes) logits, a NumPy array or what `np.asarray` takes. It
            resizes and normalizes as it needs.
        seen: whose labels it has seen: "all", "none", a list of places in the training set; None where nobody knows,
            and then the runs' `labels_in_all` stays empty.
        image_size: of a folder's images, which differ in size; others come at their own size.
        labels, extra: as the flags of these names, for a folder with images without a class, and for SVHN.
    Raises InputError when the data cannot be had, or the network gives what is no image's logits.
    """
    path = Path(path)
    if path.suffix != ".npz" or not path.absolute().parent.is_dir():
        raise InputError(f"{path}: must be an .npz in a folder that is there")
    asked = {"dataset": str(dataset), "labels": str(labels), "extra": extra, "image_size": image_size}
    source = datasets.load(SimpleNamespace(**asked, data_dir=str(data_dir), data_source="auto"))
    arrays = {"labels": source.y_train}
    if seen is not None:
        arrays["seen"] = _places(seen, len(source.x_train))
    for part, images in (("train", source.x_train), ("test", source.x_test)):
        rows = np.empty((len(images), len(source.classes)), np.float32)
        for start in tqdm(range(0, len(images), batch_size), desc=f"logits, {part}", leave=False, disable=None):
            batch = images[start : start + batch_size]
            rows[start : start + batch_size] = _checked(network(batch), len(batch), len(source.classes))
        arrays[part] = rows
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _places(seen: str | list[int], count: int) -> np.ndarray:
    """`seen` as places (n,) int64. Raises InputError for what is none."""
    places = {"all": range(count), "none": []}.get(seen, seen) if isinstance(seen, str) else seen
    if isinstance(places, str) or not all(place in range(count) for place in places):
        raise InputError(f'seen={seen!r}: must be "all", "none", or places of training images, from 0 to {count - 1}')
    return np.array(list(places), np.int64)


def _checked(found, images: int, classes: int) -> np.ndarray:
    """What a network gives for a batch. Raises InputError unless these are logits of each of its images."""
    found = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)
    if found.shape != (images, classes):
        raise InputError(f"the network gives {found.shape} for {images} images of {classes} classes")
    if why := flaw(found):
        raise InputError(f"the network gives {why}")
    return found
