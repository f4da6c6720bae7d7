"""Where images come from: a registered data set, an .npz file, or a folder of images.

A data set is a function `load(data_dir, args) -> Source`. To add one, add a file here and a line to `DATASETS` with its
name in lower case; `--dataset` ignores case.
"""

import os
from collections.abc import Callable
from pathlib import Path

from common.datasets import cifar10, cifar100, digits, folder, npz, svhn
from common.datasets.source import Source, short_name
from common.errors import InputError

DATASETS: dict[str, Callable] = {
    "cifar10": cifar10.load,
    "cifar100": cifar100.load,
    "digits": digits.load,
    "svhn": svhn.load,
}


def load(args) -> Source:
    """The images of `--dataset`: a registered name, or else an .npz file or a folder with train/ and test/.

    Raises InputError when the name is unknown or the path is missing or unreadable.
    """
    dataset, labels = args.dataset, getattr(args, "labels", "")
    path, known = Path(os.path.expanduser(dataset)), dataset.lower() in DATASETS
    if not known and path.is_dir():
        return folder.load(path, args.image_size, labels)
    if labels and (path.exists() or known):
        raise InputError(
            f"--labels {labels}: names images by their files; --dataset {dataset} is not a folder of images"
        )
    if known:
        source = npz.checked(dataset, DATASETS[dataset.lower()](Path(args.data_dir), args))
        return source._replace(name=name(args))  # teachers are looked up by it before images are read
    if path.is_file():
        return npz.load(path)
    raise InputError(
        f"--dataset {dataset}: neither a known data set ({', '.join(DATASETS)}) nor an existing .npz file or image "
        "folder"
    )


def name(args) -> str:
    """The name that `load` gives these flags' images, without reading them."""
    known = args.dataset.lower()
    if known == "svhn":
        return svhn.name(args)
    return known if known in DATASETS else short_name(Path(os.path.expanduser(args.dataset)))
