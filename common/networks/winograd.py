"""3x3 convolutions of whole small maps in float32, with a fifth of the multiplications.

Winograd's minimal filtering (Lavin & Gray 2016, https://arxiv.org/abs/1509.09308): F(m x m, 3 x 3) computes an m x m
output from (m + 2)^2 products where the direct convolution takes 9 m^2: 64 in place of 324 for a 6x6 map, which is one
tile. On a CPU without bfloat16 units this is what makes the decoder fast; float32 keeps about four digits of each value.
"""

from functools import cache

import numpy as np
import torch

Tensor = torch.Tensor
POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)  # and infinity: the usual choice, small and of exact float32
LARGEST = len(POINTS) - 1  # map size: a larger one needs more points, and they cost accuracy


@cache
def transforms(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices for a size x size map, n = (size + 2)^2: image (n, size^2), kernel (n, 9), output (size^2, n).

    The image's zero border of one pixel is left out of its matrix.
    """
    points = np.array(POINTS[: size + 1])

    def evaluate(terms: int) -> np.ndarray:  # a polynomial of so many terms at the points, and at infinity
        return np.vstack([points[:, None] ** np.arange(terms), np.eye(terms)[-1]])

    output, kernel, image = evaluate(size).T, evaluate(3), np.linalg.inv(evaluate(size + 2)).T[:, 1:-1]
    scale = np.abs(kernel).max(axis=1, keepdims=True)  # evens out the magnitudes of the two factors
    kernel, image = kernel / scale, image * scale
    return tuple(torch.tensor(np.kron(matrix, matrix), dtype=dtype) for matrix in (image, kernel, output))


def convolve(x: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    """A 3x3 convolution with a border of zeros on position-major maps: (size^2, B, C) -> (size^2, B, D).

    `weight` is (D, C, 3, 3) and `bias` (D,), as in nn.Conv2d.
    """
    image, kernel, output = transforms(size, x.dtype)
    batch, channels = x.shape[1:]
    u = (image @ x.flatten(1)).view(-1, batch, channels)
    w = kernel @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    products = torch.bmm(u, w.view(-1, channels, len(weight)))
    ones = size + 3  # the product at point (1, 1) reaches all outputs with factor 1: the place to add the bias
    products[ones] += bias
    return (output @ products.flatten(1)).view(-1, batch, len(weight))
