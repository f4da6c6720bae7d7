"""Core-set: k-center greedy in the features. Sener & Savarese 2018, https://arxiv.org/abs/1708.00489, algorithm 1."""

import torch

from common.samplers.base import Sampler
from common.samplers.spread import Points, farthest_first


class CoreSet(Sampler):
    """Repeatedly queries the candidate farthest from all labelled images and from those queried before."""

    asks = True
    uses_features = True

    def choose(self, count, candidates):
        features, labeled = self.all_outputs(candidates)[0], self.all_outputs(self.labeled)[0]
        center = features.mean(0)  # shorter vectors, smaller roundings
        points = Points(features.sub_(center))  # in place: there may be a million
        near = points.nearest(torch.arange(len(labeled), device=labeled.device), Points(labeled - center))
        return farthest_first(points, count, near)
