"""The same networks with layers that take less time: names, values and gradients stay, but for rounding."""

from itertools import pairwise

import torch
from torch import nn

from common.networks.winograd import Conv3x3


class _ChannelsLast:
    """Asks for channels-last memory, which has the fast kernels; a `Conv3x3` leaves another order."""

    def forward(self, x):
        return super().forward(x.contiguous(memory_format=torch.channels_last))


class MaxPool(_ChannelsLast, nn.MaxPool2d):
    pass


class BatchNorm(_ChannelsLast, nn.BatchNorm2d):
    pass


ORDERED = {nn.MaxPool2d: MaxPool, nn.BatchNorm2d: BatchNorm}


def quicken(net: nn.Module) -> nn.Module:
    """Changes `net` in place: a `Conv3x3` for each 3x3 convolution, layers that put its output in order, pools first.

    Max pooling and ReLU commute, gradients included; after the pool, ReLU has fewer values to see.
    """
    for layer in list(net.modules()):
        if isinstance(layer, nn.Sequential):
            for number, (first, second) in enumerate(pairwise(list(layer))):
                if isinstance(first, nn.ReLU) and isinstance(second, nn.MaxPool2d):
                    layer[number], layer[number + 1] = second, first
        elif type(layer) in ORDERED:
            layer.__class__ = ORDERED[type(layer)]  # only `forward` differs
        elif type(layer) is nn.Conv2d:
            form = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode
            if form == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros"):
                layer.__class__ = Conv3x3
    return net
