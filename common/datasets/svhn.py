"""SVHN's cropped digits, 32x32, from torchvision's .mat files (checksums are torchvision's) or its download.

Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning. The decoded arrays are kept in
`<data_dir>/svhn.npz`, so that the next start decodes nothing.
"""

from pathlib import Path

import numpy as np
from torchvision.datasets import SVHN

from common.datasets.local import Arrays, cached, from_torchvision
from common.datasets.source import Source

CLASSES = [str(digit) for digit in range(10)]  # torchvision's order: the files' label 10 is the digit 0


def name(args) -> str:
    """The data set's name: with `args.extra` it is another one, with its own teachers."""
    return "svhn-extra" if args.extra else "svhn"


def load(data_dir: Path, args) -> Source:
    """73,257 training images, with `args.extra` followed by the 531,131 extra ones, and 26,032 test images.

    Not mirrored: a mirrored 2 is not a 2. Raises InputError when the files are missing and cannot be downloaded.
    """
    splits = ("train", "extra") if args.extra else ("train",)
    arrays = cached(data_dir / f"{name(args)}.npz", lambda: _decode(data_dir, splits))
    return Source(name(args), *arrays, CLASSES, mirror=False)


def _decode(data_dir: Path, splits: tuple[str, ...]) -> Arrays:
    images, labels = zip(*(_split(data_dir, split) for split in splits), strict=True)
    return np.concatenate(images), np.concatenate(labels), *_split(data_dir, "test")


def _split(data_dir: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of one split."""
    file = SVHN.split_list[split][1]
    found = from_torchvision(lambda download: SVHN(str(data_dir), split, download=download), "svhn", file, data_dir)
    return np.ascontiguousarray(found.data.transpose(0, 2, 3, 1)), found.labels
