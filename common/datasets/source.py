"""The shape every data set arrives in."""

from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """Decoded images at their own size, not yet resized or split."""

    name: str  # short, fit for a file name
    x_train: np.ndarray  # (N, H, W, 3) uint8
    y_train: np.ndarray  # (N,) int64
    x_test: np.ndarray  # (M, H, W, 3) uint8
    y_test: np.ndarray  # (M,) int64
    classes: list[str]
    mirror: bool | None  # does a mirrored image keep its label? None: the experiment decides
