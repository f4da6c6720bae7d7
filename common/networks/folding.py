"""The lighter form in which a big sequential network trains, and the way back."""

import copy

import torch
from torch import nn

from common.networks.quick import quicken
from common.networks.split import SequentialNet, spread_matrix

Tensor = torch.Tensor
FEATURE_RMS = 0.1  # 500 * MSE is then of the size of a cross entropy, as the paper's weights suppose


def compact(net: SequentialNet, image_size: int) -> SequentialNet:
    """A lighter network to train in `net`'s place: `expand` turns it back into one of exactly the same function.

    Two things are taken out of the way. The first linear layer reads the maps before the average pool: where that
    only repeats values (AlexNet's 1x1 map becomes 6x6 at 64x64 images), it would multiply every value by as many
    weights as there are copies. And a batch norm follows each convolution, whose scale and shift are folded into the
    convolution afterwards (Ioffe & Szegedy 2015, as RepVGG does, https://arxiv.org/abs/2101.03697): plain AlexNet and
    VGG rest on a plateau at first, this does not. The dropout before the first linear layer is left out: on repeated
    values it hardly drops anything.
    """
    matrix = _spread_matrix(net, image_size)
    features = []
    for layer in copy.deepcopy(net.features).cpu():
        features.append(layer)
        if isinstance(layer, nn.Conv2d):
            layer.bias = None  # the batch norm's shift takes its place
            features.append(nn.BatchNorm2d(layer.out_channels))
    number, first = next((n, layer) for n, layer in enumerate(net.classifier) if isinstance(layer, nn.Linear))
    channels = first.in_features // matrix.shape[0]
    layers = [nn.Linear(channels * matrix.shape[1], first.out_features)]
    layers += copy.deepcopy(net.classifier[number + 1 :]).cpu()
    light = SequentialNet(nn.Sequential(*features), nn.Identity(), nn.Sequential(*layers))
    # He et al. 2015: keeps the signal's size through ReLUs, torchvision's default does not.
    for layer in light.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    nn.init.normal_(layers[-1].weight, std=0.01)  # logits start near zero
    device = next(net.parameters()).device
    return quicken(light).to(device, memory_format=torch.channels_last)


@torch.no_grad()
def expand(light: SequentialNet, net: SequentialNet, sample: Tensor) -> SequentialNet:
    """Writes a trained `compact(net)` into `net` as the same function (batch norm in eval mode), and returns `net`.

    Folding leaves features of the size batch norm gives them, for which the paper's feat_wt of 500 is far too much.
    ReLU and pooling commute with a positive factor, so the last convolution is scaled to bring z to a root mean
    square of FEATURE_RMS over `sample` (B, 3, S, S), and the first linear layer by the inverse.
    """
    norms = [layer for layer in light.features if isinstance(layer, nn.BatchNorm2d)]
    folded = (layer for layer in light.features if isinstance(layer, nn.Conv2d))
    for norm, source, target in zip(norms, folded, _layers(net.features, nn.Conv2d), strict=True):
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        target.weight.copy_(source.weight * scale[:, None, None, None])
        target.bias.copy_(norm.bias - norm.running_mean * scale)
    last = _layers(net.features, nn.Conv2d)[-1]
    factor = FEATURE_RMS / net.eval().embed(sample).square().mean().sqrt()
    last.weight.mul_(factor)
    last.bias.mul_(factor)
    net.train()
    matrix = _spread_matrix(net, sample.shape[2])
    linears = zip(_layers(light.classifier, nn.Linear), _layers(net.classifier, nn.Linear), strict=True)
    for number, (source, target) in enumerate(linears):
        weight = source.weight
        if number == 0:  # W spread = w for W = w pinv(spread): the smallest weights with that function
            inverse = torch.linalg.pinv(matrix.double()).float().to(weight)
            weight = (weight.unflatten(1, (-1, matrix.shape[1])) @ inverse).flatten(1) / factor
        target.weight.copy_(weight)
        target.bias.copy_(source.bias)
    return net


def _layers(sequence: nn.Sequential, kind: type) -> list:
    return [layer for layer in sequence if isinstance(layer, kind)]


@torch.no_grad()
def _spread_matrix(net: SequentialNet, image_size: int) -> Tensor:
    """The average pool as a matrix (outputs, inputs) for one channel at this image size."""
    device = next(net.parameters()).device
    maps = net.eval().maps(torch.zeros(1, 3, image_size, image_size, device=device))
    net.train()
    return spread_matrix(net.avgpool, maps)
