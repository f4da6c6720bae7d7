"""Random, but with equally many labels of each class: an oracle, since it reads the labels that it asks for."""

import torch

from common.samplers.base import Sampler


class Balanced(Sampler):
    """What perfect class balance would be worth. It cannot be used in practice: say so next to its numbers."""

    oracle = True

    def choose(self, count, candidates):
        """Repeatedly takes a random candidate of the class with the fewest labels so far.

        A score is minus the number of labels that the class had before.
        """
        classes = self.args.num_classes
        order = torch.randperm(len(candidates), generator=self.generator).to(candidates.device)
        labels = self.images.labels[candidates[order]]
        before = torch.empty_like(labels)
        counts = self.images.labels[self.labeled].cpu().bincount(minlength=classes)
        for label, already in enumerate(counts.tolist()):
            of_class = (labels == label).nonzero()[:, 0]
            before[of_class] = already + torch.arange(len(of_class), device=labels.device)
        first = before.sort(stable=True).indices[:count]
        return order[first], -before[first].float()
