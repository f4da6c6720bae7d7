"""3x3 convolutions on small maps by minimal filtering: a quarter of the products, twice the speed of float32 on CPUs.

"Fast Algorithms for Convolutional Neural Networks", Lavin & Gray 2016, https://arxiv.org/abs/1509.09308. An m x m
tile of outputs takes (m + 2)^2 products instead of 9 m^2: polynomials are evaluated at m + 2 points, multiplied,
interpolated. A decoder's 6x6 map is one tile, so the transforms of the whole map are small matrices, and the products
between them one batched matrix product over all images. GPUs and bfloat16 units have faster ways of their own.
"""

from functools import cache

import torch
from torch import nn

Tensor = torch.Tensor
LARGEST = 8  # map size; beyond, the transforms as whole matrices cost more than they save
POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)  # and infinity; small ones keep rounding errors near a convolution's own


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d(channels, width, 3, padding=1)`, which takes the short way where that is the faster one."""

    def __init__(self, channels: int, width: int, bias: bool = True):
        super().__init__(channels, width, 3, padding=1, bias=bias)

    def forward(self, x):
        small = x.shape[2] == x.shape[3] and 2 <= x.shape[2] <= LARGEST
        if small and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return conv3x3(x, self.weight, self.bias)
        return super().forward(x)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (B, C, S, S), weight (K, C, 3, 3), bias (K,) -> (B, K, S, S), zero padded; S from 2 to LARGEST.

    The result lies in memory as (S, S, B, K), which the next such convolution reads without a copy.
    """
    batch, channels, size, _ = x.shape
    width = weight.shape[0]
    evaluate, lift, interpolate = _transforms(size, x.dtype)
    points = len(lift)
    pixels = x.permute(2, 3, 0, 1).reshape(size * size, batch * channels)
    values = (evaluate @ pixels).view(points, -1, channels)  # (points, tiles * B, C)
    filters = (lift @ weight.permute(2, 3, 0, 1).reshape(9, width * channels)).view(points, width, channels)
    products = torch.bmm(values, filters.transpose(1, 2))  # (points, tiles * B, K)
    y = (interpolate @ products.view(interpolate.shape[1], batch * width)).view(size, size, batch, width)
    return (y if bias is None else y.add_(bias)).permute(2, 3, 0, 1)


@cache
def _transforms(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """evaluate (points * tiles, size^2), lift (points, 9), interpolate (size^2, points * tiles)."""
    tile = size + size % 2 if size <= 6 else 4
    tiles = -(-size // tile)
    a, g, b = _toom_cook(tile)
    points = len(b)
    evaluate, interpolate = torch.zeros(tiles, points, size).double(), torch.zeros(size, tiles, points).double()
    for number in range(tiles):
        for offset in range(points):
            pixel = number * tile + offset - 1  # the padding's zeros are left out
            if 0 <= pixel < size:
                evaluate[number, :, pixel] = b[:, offset]
        for offset in range(min(tile, size - number * tile)):
            interpolate[number * tile + offset, number] = a[:, offset]
    both = points * points
    return (
        torch.einsum("ipx,jqy->pqijxy", evaluate, evaluate).reshape(both * tiles * tiles, size * size).to(dtype),
        torch.einsum("pa,qb->pqab", g, g).reshape(both, 9).to(dtype),
        torch.einsum("xip,yjq->xypqij", interpolate, interpolate).reshape(size * size, both * tiles * tiles).to(dtype),
    )


def _toom_cook(tile: int) -> tuple[Tensor, Tensor, Tensor]:
    """In one dimension, for a tile of m outputs and n = m + 2 points: A (n, m), G (n, 3), B (n, n) in float64.

    y = A^T [(G filter) * (B pixels)]. A and G evaluate polynomials at the points, B transposes the interpolation.
    """
    count = tile + 2

    def evaluation(length: int) -> Tensor:
        rows = [[float(point) ** power for power in range(length)] for point in POINTS[: count - 1]]
        return torch.tensor([*rows, [0.0] * (length - 1) + [1.0]], dtype=torch.float64)  # infinity: the leading term

    lift, inverse = evaluation(3), torch.linalg.inv(evaluation(count)).T
    scale = lift.abs().sum(1, keepdim=True)  # between the two, so that neither grows
    return evaluation(tile), lift / scale, inverse * scale
