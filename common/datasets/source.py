"""The form in which every data set is loaded."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """Decoded images at their own size, not yet resized or split."""

    name: str  # short, suitable for a file name
    x_train: np.ndarray  # (N, H, W, 3) uint8
    y_train: np.ndarray  # (N,) int64; -1 where --labels has none yet
    x_test: np.ndarray  # (M, H, W, 3) uint8
    y_test: np.ndarray  # (M,) int64
    classes: list[str]
    mirror: bool | None  # does a mirrored image keep its label? None: the experiment decides
    files: list[str] | None = None  # with --labels: the training images' names, relative to train/
    foldered: np.ndarray | None = None  # with --labels: (N,) bool, is an image's class known from its folder?
    order: str = ""  # SHA-256 of a folder's training images' names, whose pixels depend on the size they are read at


def short_name(path: Path) -> str:
    """The path's stem and a short hash of its location, so that two files of one name do not share a teacher."""
    return f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
