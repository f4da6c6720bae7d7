"""A network in two halves: features z = F(x), and the classifier C(z)."""

from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

Tensor = torch.Tensor


class SplitNet(nn.Module):
    """What the experiments ask of a network. A subclass sets `avgpool` and implements `maps` and `classify`.

    What comes before the average pool is the `maps`; what comes after are the features that are distilled. Where the
    pool only repeats the map's values, z holds each of them once, and `spread` makes the copies.
    """

    avgpool: nn.Module

    def maps(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) images -> (B, C, h, w), before the pool."""
        raise NotImplementedError

    def classify(self, z: Tensor) -> Tensor:
        """z, spread (B, C, H, W) or not (B, C, h, w) -> logits (B, classes): C(z) of the paper."""
        raise NotImplementedError

    def spread(self, z: Tensor) -> Tensor:
        """z or maps (B, C, h, w) -> the features to distill (B, C, H, W); what is spread stays as it is."""
        return spread(self.avgpool, z)

    def embed(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) images -> z: F(x) of the paper, (B, C, H, W), or (B, C, h, w) where the rest would be copies."""
        maps = self.maps(x)
        return (maps if repeats(self.avgpool, maps) else self.spread(maps)).contiguous()  # as what flattens it wants it

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) images -> logits (B, classes), as the paper draws it."""
        return self.classify(self.avgpool(self.maps(x)))


class SequentialNet(SplitNet):
    """One layer after the other, named as in torchvision: `features.0.weight`, `classifier.2.bias`."""

    def __init__(self, features: nn.Sequential, avgpool: nn.Module, classifier: nn.Sequential):
        super().__init__()
        self.features, self.avgpool, self.classifier = features, avgpool, classifier

    def maps(self, x):
        return self.features(x)

    def classify(self, z):
        first = self.classifier[0]
        if not isinstance(first, nn.Linear) or z.shape[1:].numel() == first.in_features:
            return self.classifier(self.spread(z).flatten(1))
        # Copies share a value, so their weights can be summed first: a product fewer for every copy.
        weight = first.weight.unflatten(1, (z.shape[1], -1)) @ spread_matrix(self.avgpool, z)
        return self.classifier[1:](F.linear(z.flatten(1), weight.flatten(1), first.bias))


def repeats(avgpool: nn.Module, maps: Tensor) -> bool:
    """Does `avgpool` only repeat the values of maps (B, C, h, w), each a whole number of times, more than once?"""
    if not isinstance(avgpool, nn.AdaptiveAvgPool2d):
        return False
    (height, width), (rows, columns) = _size(avgpool), maps.shape[2:]
    return height % rows == 0 and width % columns == 0 and (height, width) != (rows, columns)


def spread(avgpool: nn.Module, maps: Tensor) -> Tensor:
    """What `avgpool` makes of maps (B, C, h, w): (B, C, H, W), in memory (H, W, B, C).

    Adaptive pooling is a product with a small matrix. As such it is fast whatever the sizes, and has a gradient that
    CUDA, too, sums in the same order at each run.
    """
    if not isinstance(avgpool, nn.AdaptiveAvgPool2d):
        return avgpool(maps)
    if _size(avgpool) == maps.shape[2:]:
        return maps
    batch, channels, rows, columns = maps.shape
    if rows == columns == 1:
        return maps.expand(-1, -1, *_size(avgpool))
    with torch.autocast(maps.device.type, enabled=False):  # bfloat16 would round the teacher's float32 features
        pooled = spread_matrix(avgpool, maps) @ maps.permute(2, 3, 0, 1).reshape(rows * columns, -1)
    return pooled.view(*_size(avgpool), batch, channels).permute(2, 3, 0, 1)


def spread_matrix(avgpool: nn.AdaptiveAvgPool2d, maps: Tensor) -> Tensor:
    """What `avgpool` does to each channel of maps (B, C, h, w), as a matrix (H * W, h * w)."""
    return _matrix(_size(avgpool), tuple(maps.shape[2:]), maps.device, maps.dtype)


@cache
def _matrix(size: tuple[int, int], maps: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    units = torch.eye(maps[0] * maps[1]).view(-1, 1, *maps)  # one map an input position
    return F.adaptive_avg_pool2d(units, size).flatten(1).T.to(device, dtype).contiguous()


def _size(avgpool: nn.AdaptiveAvgPool2d) -> tuple[int, int]:
    size = avgpool.output_size
    return (size, size) if isinstance(size, int) else tuple(size)
