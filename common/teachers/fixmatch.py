"""A teacher that learns the pool from itself: what it is sure of in an easy view is the target for a harder one."""

import torch
from torch import nn

from common import augment
from common.augment import View
from common.objective import Outputs


class OwnOutputs:
    """Stands in for a teacher's outputs (`distillation.Targets`): the trained network's own, for unshifted images.

    FixMatch, Sohn et al. 2020, https://arxiv.org/abs/2001.07685, with the logit loss `pseudo_label`. Batch norm stays
    in training mode; dropout is off, because it would add errors to the label.
    """

    views = None  # no fixed ones

    def __init__(self, net: nn.Module, images):
        self.net, self.images = net, images

    @torch.no_grad()
    def of(self, view: View, features: bool = False) -> Outputs:
        """Logits for the images of `view`: mirrored as there, but neither shifted nor cut out."""
        dropouts = [
            layer for layer in self.net.modules() if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.training
        ]
        for layer in dropouts:
            layer.eval()
        logits = self.net(augment.pixels(self.images.train, View(view.index, view.mirrored)))
        for layer in dropouts:
            layer.train()
        return Outputs(None, logits.float())
