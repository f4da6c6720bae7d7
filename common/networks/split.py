"""A network in two halves: the features z = F(x), and the classifier C(z)."""

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class SplitNet(nn.Module):
    """A teacher or a student. A subclass has `features` and `classifier`, each a module or a method.

    `features(x)`: images (B, 3, S, S) -> z (B, C, h, w). `classifier(z)`: z -> logits (B, classes), its pool included.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> logits (B, classes)."""
        return self.classifier(self.features(x))

    @property
    def pool(self) -> nn.Module:
        """What is applied to a teacher's z before distillation: the pool at its classifier's head, if any."""
        return getattr(self.classifier, "pool", nn.Identity())


class SequentialNet(SplitNet):
    """Layers in sequence, named as in torchvision: `features.0.weight`, `classifier.2.bias`."""

    def __init__(self, features: nn.Sequential, pool: int, classifier: Iterable[nn.Module]):
        """
        Args:
            features: from images to z.
            pool: z is average-pooled to pool x pool before the classifier's layers.
            classifier: the layers after the pool, which take flat features (B, C * pool * pool).
        """
        super().__init__()
        self.features = features
        layers = [("pool", nn.AdaptiveAvgPool2d(pool)), ("flatten", nn.Flatten())]
        layers += [(str(number), layer) for number, layer in enumerate(classifier)]
        self.classifier = nn.Sequential(OrderedDict(layers))

    @torch.no_grad()
    def pool_matrix(self, height: int, width: int) -> Tensor:
        """The average pool on a channel of a map of this size, as a matrix (outputs, height * width)."""
        device = next(self.parameters()).device
        units = torch.eye(height * width, device=device).view(-1, 1, height, width)  # one map for each input position
        return self.pool(units).flatten(1).T
