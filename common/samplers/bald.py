"""BALD: what functions drawn by dropout disagree about. Houlsby et al. 2011, https://arxiv.org/abs/1112.5745.

With dropout as the posterior: Gal, Islam & Ghahramani 2017, https://arxiv.org/abs/1703.02910.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from common.networks import SequentialNet
from common.samplers.base import Sampler, entropy

Tensor = torch.Tensor
FUNCTIONS = 10


class BALD(Sampler):
    """Queries the highest mutual information of prediction and function, H[mean p] - mean H[p] over the functions.

    All candidates meet the same functions, as in BatchBALD: the classifier, each time with other units dropped.
    The teachers of AlexNet and VGG have dropout, in their classifiers; no other network here has.
    """

    asks = needs_dropout = runs_teacher = True
    functions: tuple[Callable[[Tensor], Tensor], ...] = ()

    def score(self, index):
        net = self.targets.net if self.by_teacher else self.student
        z = self.targets.z[0, index].float() if self.by_teacher else net.features(self.look(index))
        if not self.functions:
            self.functions = tuple(thinned(net, z.shape[1:], self.generator) for _ in range(FUNCTIONS))
        log_p = torch.stack(
            [function(z).float().log_softmax(1) for function in self.functions]
        )  # (functions, B, classes)
        mean = log_p.logsumexp(0) - math.log(FUNCTIONS)
        return entropy(mean) - torch.stack([entropy(each) for each in log_p]).mean(0)


def thinned(net: SequentialNet, shape: tuple[int, int, int], source: torch.Generator) -> Callable[[Tensor], Tensor]:
    """The classifier with units dropped at its dropout layers' rates: z (B, C, h, w) -> logits (B, classes).

    Weights of dropped units are left out of the products. The first linear layer reads z before the pool:
    W (P z) = (W P) z with P the pool's matrix, as AlexNet's pool makes 36 copies of each value.
    """
    channels, height, width = shape
    _, _, *layers = net.classifier  # behind pool and flatten
    linears, rates, rate = [], [], 0.0
    for layer in layers:
        if isinstance(layer, nn.Dropout):
            rate = layer.p
        elif isinstance(layer, nn.Linear):
            linears.append(layer)
            rates.append(rate)
            rate = 0.0
    device = linears[0].weight.device
    kept = [
        (torch.rand(linear.in_features, generator=source) >= rate).to(device)
        for linear, rate in zip(linears, rates, strict=True)
    ]
    kept.append(torch.ones(linears[-1].out_features, dtype=torch.bool, device=device))
    pool = net.pool(torch.eye(height * width, device=device).view(-1, 1, height, width)).flatten(1).T
    weights, biases = [], []
    for number, linear in enumerate(linears):
        weight = linear.weight[kept[number + 1]] / (1 - rates[number])
        if number == 0:
            weight = ((weight * kept[0]).unflatten(1, (channels, -1)) @ pool).flatten(1)
        else:
            weight = weight[:, kept[number]]
        weights.append(weight)
        biases.append(linear.bias[kept[number + 1]])

    def function(z: Tensor) -> Tensor:
        y, parameters = z.flatten(1), zip(weights, biases, strict=True)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                y = F.linear(y, *next(parameters))
            elif not isinstance(layer, nn.Dropout):
                y = layer(y)
        return y

    return function
