"""Labels at random, each image at most once: the baseline that is hard to beat."""

import torch

from common.samplers.base import Sampler


class Random(Sampler):
    def score(self, index):
        return torch.rand(len(index), generator=self.generator).to(index.device)
