"""A network in two halves: features z = F(x), and the classifier C(z)."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

Tensor = torch.Tensor


class SplitNet(nn.Module):
    """What the experiments ask of a network. A subclass sets `avgpool` and implements `maps` and `classify`.

    The average pool adds no information where the map is smaller than its output: it repeats values. What comes
    before it is the `maps`, what comes after is z, the features that are distilled.
    """

    avgpool: nn.Module

    def maps(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) images -> (B, C, h, w), before the pool."""
        raise NotImplementedError

    def classify(self, z: Tensor) -> Tensor:
        """z (B, C, H, W) -> logits (B, classes): C(z) of the paper."""
        raise NotImplementedError

    def spread(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> z (B, C, H, W), the features."""
        return spread(self.avgpool, maps)

    def embed(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) images -> z (B, C, H, W): F(x) of the paper."""
        return self.spread(self.maps(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) images -> logits (B, classes)."""
        return self.classify(self.embed(x))


class SequentialNet(SplitNet):
    """One layer after the other, named as in torchvision: `features.0.weight`, `classifier.2.bias`."""

    def __init__(self, features: nn.Sequential, avgpool: nn.Module, classifier: nn.Sequential):
        super().__init__()
        self.features, self.avgpool, self.classifier = features, avgpool, classifier

    def maps(self, x):
        return self.features(x)

    def classify(self, z):
        return self.classifier(z.flatten(1))


def spread(avgpool: nn.Module, maps: Tensor) -> Tensor:
    """What `avgpool` makes of maps (B, C, h, w): (B, C, H, W).

    Adaptive pooling in general has a gradient that CUDA sums in no fixed order. Where each value is only repeated a
    whole number of times it is copied instead, and where the windows are of one size and step (8x8 to 7x7 or 4x4) the
    pool is an ordinary one: the same numbers, for less, the same at each run.
    """
    if not isinstance(avgpool, nn.AdaptiveAvgPool2d):
        return avgpool(maps)
    size = avgpool.output_size
    height, width = (size, size) if isinstance(size, int) else size
    if maps.shape[2:] == (1, 1):
        return maps.expand(-1, -1, height, width)
    if height % maps.shape[2] or width % maps.shape[3]:
        windows = _window(maps.shape[2], height), _window(maps.shape[3], width)
        if None in windows:
            return avgpool(maps)
        (rows, down), (columns, right) = windows
        return F.avg_pool2d(maps, (rows, columns), (down, right))
    nhwc = maps.permute(0, 2, 3, 1)[:, :, None, :, None]
    nhwc = nhwc.expand(-1, -1, height // maps.shape[2], -1, width // maps.shape[3], -1)
    return nhwc.reshape(len(maps), height, width, -1).permute(0, 3, 1, 2)


def _window(size: int, outputs: int) -> tuple[int, int] | None:
    """(length, step) of adaptive pooling's windows over `size` inputs if they are all alike, else None."""
    starts = [number * size // outputs for number in range(outputs)]
    lengths = {-(-(number + 1) * size // outputs) - start for number, start in enumerate(starts)}
    steps = {after - before for before, after in pairwise(starts)} or {1}
    return (lengths.pop(), steps.pop()) if len(lengths) == len(steps) == 1 and steps != {0} else None
