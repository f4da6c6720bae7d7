"""Quicker modules with the same function: they share the plain module's weights and state-dict names."""

from collections import OrderedDict
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.fast.winograd import Conv3x3


def replacement(layer: nn.Module) -> nn.Module:
    """The quicker module for a plain `layer`, or `layer` itself if there is none."""
    make = _MAKERS.get(type(layer))
    return layer if make is None else make(layer)


class _ChannelsLast:
    """Asks for channels-last memory, which has the fast kernels; a `Conv3x3` leaves another order."""

    def forward(self, x):
        return super().forward(x.contiguous(memory_format=torch.channels_last))


class MaxPool(_ChannelsLast, nn.MaxPool2d):
    """Max pooling that reorders its input first."""


class BatchNorm(_ChannelsLast, nn.BatchNorm2d):
    """Batch norm that reorders its input first."""


class AveragePool(nn.AdaptiveAvgPool2d):
    """Adaptive average pooling as a product with a small matrix.

    It is then fast at any size, and its gradient is deterministic on CUDA too.
    """

    def forward(self, z: Tensor) -> Tensor:
        """z (B, C, h, w) -> (B, C, H, W), in memory (H, W, B, C)."""
        batch, channels, rows, columns = z.shape
        height, width = self.size
        if (rows, columns) == (height, width):
            return z
        if rows == columns == 1:
            return z.expand(-1, -1, height, width)
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 would round the teacher's float32 features
            pooled = self.matrix(z) @ z.permute(2, 3, 0, 1).reshape(rows * columns, -1)
        return pooled.view(height, width, batch, channels).permute(2, 3, 0, 1)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the output."""
        size = self.output_size
        return (size, size) if isinstance(size, int) else tuple(size)

    def matrix(self, z: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Pooling of each channel of z (B, C, h, w), as a matrix (H * W, h * w)."""
        return _matrix(self.size, tuple(z.shape[2:]), z.device, dtype or z.dtype)


@cache
def _matrix(size: tuple[int, int], maps: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    units = torch.eye(maps[0] * maps[1], dtype=torch.float64).view(-1, 1, *maps)  # one map for each input position
    return F.adaptive_avg_pool2d(units, size).flatten(1).T.to(device, dtype).contiguous()


class SummedClassifier(nn.Sequential):
    """A classifier of pool, flatten, linear layer and the rest, for a pool with more outputs than inputs.

    The pool's outputs are copies or blends of few values, so the linear layer's weights are summed over them first:
    W (P z) = (W P) z with P the pool's matrix. The product for each image is then with z alone.
    """

    def forward(self, z: Tensor) -> Tensor:
        pool, _, linear, *rest = self
        if z.shape[2:].numel() >= pool.size[0] * pool.size[1]:
            return super().forward(z)
        weight = linear.weight.unflatten(1, (z.shape[1], -1)) @ pool.matrix(z, linear.weight.dtype)
        y = F.linear(z.flatten(1), weight.flatten(1), linear.bias)
        for layer in rest:
            y = layer(y)
        return y


def _max_pool(layer: nn.MaxPool2d) -> nn.MaxPool2d:
    if layer.return_indices:
        return layer
    return MaxPool(layer.kernel_size, layer.stride, layer.padding, layer.dilation, ceil_mode=layer.ceil_mode)


def _batch_norm(layer: nn.BatchNorm2d) -> nn.BatchNorm2d:
    options = layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    return _take_over(BatchNorm(layer.num_features, *options, device="meta"), layer)


def _convolution(layer: nn.Conv2d) -> nn.Conv2d:
    form = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode
    if form != ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros"):
        return layer
    biased = layer.bias is not None
    quick = Conv3x3(layer.in_channels, layer.out_channels, 3, padding=1, bias=biased, device="meta")
    return _take_over(quick, layer)


def _average_pool(layer: nn.AdaptiveAvgPool2d) -> nn.AdaptiveAvgPool2d:
    return AveragePool(layer.output_size)


def _sequential(layers: nn.Sequential) -> nn.Sequential:
    """A quicker `Sequential` for a classifier, whose pool is replaced already; any other is returned as it is."""
    kinds = [type(layer) for layer in layers[:3]]
    if kinds != [AveragePool, nn.Flatten, nn.Linear]:
        return layers
    return SummedClassifier(OrderedDict(layers.named_children()))


_MAKERS = {
    nn.MaxPool2d: _max_pool,
    nn.BatchNorm2d: _batch_norm,
    nn.Conv2d: _convolution,
    nn.AdaptiveAvgPool2d: _average_pool,
    nn.Sequential: _sequential,
}


def _take_over(quick: nn.Module, plain: nn.Module) -> nn.Module:
    """`quick`, made without weights, with `plain`'s own parameters and buffers."""
    for name, tensor in [*plain.named_parameters(recurse=False), *plain.named_buffers(recurse=False)]:
        setattr(quick, name, tensor)
    return quick.train(plain.training)
