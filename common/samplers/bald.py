"""BALD: disagreement among functions drawn by dropout. Houlsby et al. 2011, https://arxiv.org/abs/1112.5745.

With dropout as the posterior: Gal, Islam & Ghahramani 2017, https://arxiv.org/abs/1703.02910.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import fast
from common.networks import SequentialNet
from common.samplers.base import CHUNK, Sampler, entropy

FUNCTIONS = 10


class BALD(Sampler):
    """Queries the highest mutual information of prediction and function, H[mean p] - mean H[p] over the functions.

    All candidates meet the same functions, as in BatchBALD: the classifier with different units dropped. The teachers
    of AlexNet and VGG have dropout in their classifiers; no other network here has any. A teacher trained with
    `--fold_bn`, as fair ones are, learned without dropout before its first linear layer; here it has it.
    """

    asks = needs_dropout = True
    together = 1000  # each function's weights are assembled once for this many
    functions: tuple[Callable[[Tensor], Tensor], ...] = ()

    def score(self, index):
        net = self.targets.net if self.by_teacher else self.student
        z = torch.cat([self.features(net, part) for part in index.split(CHUNK)])
        if not self.functions:
            self.functions = tuple(thinned(net, z.shape[1:], self.generator) for _ in range(FUNCTIONS))
            fast.release_freed_memory()
        log_p = torch.stack(
            [function(z).float().log_softmax(1) for function in self.functions]
        )  # (functions, B, classes)
        mean = log_p.logsumexp(0) - math.log(FUNCTIONS)
        return entropy(mean) - torch.stack([entropy(each) for each in log_p]).mean(0)

    def features(self, net: SequentialNet, index: Tensor) -> Tensor:
        """z (B, C, h, w) of the network that is asked; the teacher's are looked up."""
        return self.targets.z[0, index].float() if self.by_teacher else net.features(self.look(index))


def thinned(net: SequentialNet, shape: tuple[int, int, int], source: torch.Generator) -> Callable[[Tensor], Tensor]:
    """The classifier with units dropped at the rates of its dropout layers: z (B, C, h, w) -> logits (B, classes).

    Weights of dropped units are left out of the products. The first linear layer reads z before the pool:
    W (P z) = (W P) z with P the pool's matrix, as AlexNet's pool makes 36 copies of each value. Only that layer's
    weights are kept; the others, tens of megabytes per function, are assembled at each call.
    """
    channels, height, width = shape
    _, _, *layers = net.classifier  # after pool and flatten
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
    # (C, outputs of the pool, h w): each channel's kept units
    pool = kept[0].view(channels, -1, 1) * net.pool_matrix(height, width)
    first = torch.einsum("ocp,cpq->ocq", linears[0].weight.unflatten(1, (channels, -1)), pool).flatten(1)
    places = [*(each.nonzero()[:, 0] for each in kept), torch.arange(linears[-1].out_features, device=device)]
    first = first[places[1]] / (1 - rates[0])

    def weight(number: int) -> Tensor:
        if number == 0:
            return first
        return linears[number].weight[places[number + 1][:, None], places[number]].div_(1 - rates[number])

    def function(z: Tensor) -> Tensor:
        y, number = z.flatten(1), 0
        for layer in layers:
            if isinstance(layer, nn.Linear):
                y = F.linear(y, weight(number), layer.bias[places[number + 1]])
                number += 1
            elif not isinstance(layer, nn.Dropout):
                y = layer(y)
        return y

    return function
