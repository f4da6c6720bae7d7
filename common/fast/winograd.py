"""3x3 convolutions by minimal filtering: a fifth of the products, up to almost 4x as fast in float32 on CPUs.

"Fast Algorithms for Convolutional Neural Networks", Lavin & Gray 2016, https://arxiv.org/abs/1509.09308. An m x m
tile of outputs takes (m + 2)^2 products instead of 9 m^2: polynomials are evaluated at m + 2 points, multiplied,
interpolated. Between the transforms, which are small matrices along rows and columns, is one batched matrix product
over all tiles of all images. GPUs and bfloat16 units have faster methods of their own.
"""

from functools import cache

import torch
from torch import Tensor, nn

POINTS = (0, 1, -1, 2, -2, 0.5, -0.5, 4 / 3, -3 / 4)  # and infinity; chosen for small rounding errors
LARGEST = 8  # side of a tile of outputs: its relative error is 5e-5 in float32 (6: 4e-6; a plain convolution: 6e-7)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of stride 1 and padding 1 that uses minimal filtering where it was measured to be faster."""

    def forward(self, x):
        pays = len(x) >= 32 and 2 < max(x.shape[2:]) <= 32 and self.in_channels * self.out_channels >= 2048
        if pays and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return conv3x3(x, self.weight, self.bias)
        return super().forward(x)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (B, C, H, W), weight (K, C, 3, 3), bias (K,) -> (B, K, H, W), zero padded; in memory (H, W, B, K)."""
    batch, channels, height, width = x.shape
    outputs = weight.shape[0]
    rows, rows_lift, rows_back, down, p = _transforms(height, x.dtype)
    columns, columns_lift, columns_back, across, q = _transforms(width, x.dtype)

    pixels = x.permute(2, 3, 0, 1).reshape(height, -1)
    values = (rows @ pixels).view(p * down, width, batch * channels)
    values = columns.expand(p * down, -1, -1) @ values  # (p * down, q * across, B * C)
    values = values.view(p, down, q, across, -1).transpose(1, 2).reshape(p * q, -1, channels)

    filters = torch.kron(rows_lift, columns_lift) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    products = values @ filters.view(p * q, channels, outputs)  # (p * q, down * across * B, K)

    products = products.view(p, q, down, across, -1).transpose(1, 2).reshape(p * down, q * across, -1)
    y = columns_back.expand(p * down, -1, -1) @ products  # (p * down, W, B * K)
    y = (rows_back @ y.view(p * down, -1)).view(height, width, batch, outputs)
    y = y.permute(2, 3, 0, 1)
    return y if bias is None else y + bias[:, None, None]  # not a view: the ReLU after it works in place


@cache
def _transforms(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, int, int]:
    """Along one side of a map: evaluate (points * tiles, size), lift (points, 3), interpolate (size, points * tiles).

    Also the numbers of tiles and points. Tiles are as few as LARGEST allows, and then as small as possible.
    """
    tiles = -(-size // LARGEST)
    tile = -(-size // tiles)
    points = tile + 2
    a, g, b = _toom_cook(tile)
    evaluate, interpolate = torch.zeros(points, tiles, size).double(), torch.zeros(size, points, tiles).double()
    for number in range(tiles):
        for offset in range(points):
            pixel = number * tile + offset - 1  # the padding's zeros are left out
            if 0 <= pixel < size:
                evaluate[:, number, pixel] = b[:, offset]
        for offset in range(min(tile, size - number * tile)):
            interpolate[number * tile + offset, :, number] = a[:, offset]
    return evaluate.reshape(-1, size).to(dtype), g.to(dtype), interpolate.reshape(size, -1).to(dtype), tiles, points


def _toom_cook(tile: int) -> tuple[Tensor, Tensor, Tensor]:
    """For a tile of m outputs and n = m + 2 points: A (n, m), G (n, 3), B (n, n) in float64.

    y = A^T [(G filter) * (B pixels)]. A and G evaluate polynomials at the points, B transposes the interpolation.
    """
    count = tile + 2

    def evaluation(length: int) -> Tensor:
        rows = [[float(point) ** power for power in range(length)] for point in POINTS[: count - 1]]
        return torch.tensor([*rows, [0.0] * (length - 1) + [1.0]], dtype=torch.float64)  # infinity: the leading term

    lift, inverse = evaluation(3), torch.linalg.inv(evaluation(count)).T
    scale = lift.abs().sum(1, keepdim=True)  # shared between the two, so that neither grows
    return evaluation(tile), lift / scale, inverse * scale
