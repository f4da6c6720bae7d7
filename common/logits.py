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


def write(
    path: str | Path,
    network: Callable[[np.ndarray], np.ndarray],
    dataset: str = "cifar10",
    seen: str | list[int] | None = None,
    image_size: int = 224,
    batch_size: int = 256,
    data_dir: str | Path = ROOT / "data",
) -> None:
    """Asks `network` for the logits of all training and test images of `--dataset`, in its order, batch by batch.

    Args:
        path: of the .npz; it is replaced.
        network: (B, H, W, 3) uint8 RGB images -> (B, classes) logits, a NumPy array or what `np.asarray` takes. It
            resizes and normalizes as it needs.
        seen: whose labels it has seen: "all", "none", a list of places in the training set; None where nobody knows,
            and then the runs' `labels_in_all` stays empty.
        image_size: of a folder's images, which differ in size; others come at their own size.
    Raises InputError when the data cannot be had, or the network gives another shape.
    """
    asked = SimpleNamespace(dataset=str(dataset), labels="", image_size=image_size, data_dir=str(data_dir))
    source = datasets.load(SimpleNamespace(**vars(asked), data_source="auto", extra=False))
    count = len(source.x_train)
    arrays = {"labels": source.y_train}
    if seen is not None:
        arrays["seen"] = np.arange(count) if seen == "all" else np.array([] if seen == "none" else seen, np.int64)
    for part, images in (("train", source.x_train), ("test", source.x_test)):
        rows = np.empty((len(images), len(source.classes)), np.float32)
        for start in tqdm(range(0, len(images), batch_size), desc=f"logits, {part}", leave=False, disable=None):
            batch = images[start : start + batch_size]
            found = np.asarray(network(batch))
            if found.shape != (len(batch), len(source.classes)):
                raise InputError(
                    f"{path}: the network gives {found.shape} for {len(batch)} images of {len(source.classes)} classes"
                )
            rows[start : start + batch_size] = found
        arrays[part] = rows
    with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
