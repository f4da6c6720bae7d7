"""scikit-learn's 8x8 handwritten digits: they ship with the package, so the demo and tests need no network."""

from pathlib import Path

import numpy as np

from common.datasets.source import Source


def load(data_dir: Path, args) -> Source:
    """1,438 training and 359 test images; every fifth image is a test image, so both include all writers."""
    from sklearn.datasets import load_digits  # imported here: it takes two seconds

    bunch = load_digits()
    images = np.repeat((bunch.images * (255 / 16)).round().astype(np.uint8)[..., None], 3, axis=3)  # 0..16 -> 0..255
    labels = bunch.target.astype(np.int64)
    test = np.arange(len(images)) % 5 == 4
    classes = [str(digit) for digit in range(10)]
    return Source("digits", images[~test], labels[~test], images[test], labels[test], classes, mirror=False)
