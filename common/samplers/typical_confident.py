"""Typical and confident: what a tiny student can learn from most easily. This project's own."""

import torch
from torch.nn import functional as F

from common.samplers.base import Sampler, entropy
from common.samplers.typiclust import typicality


class TypicalConfident(Sampler):
    """Queries the highest mean of two ranks among the candidates: of TypiClust's typicality, and of low entropy."""

    asks = True

    def choose(self, count, candidates):
        from scipy.stats import rankdata  # slow to import

        features, logits = self.all_outputs(candidates)
        typical, sure = typicality(F.normalize(features, out=features).cpu().numpy()), -entropy(logits)
        ranks = rankdata(typical) + rankdata(sure.cpu().numpy())
        scores = torch.from_numpy(ranks / (2 * len(candidates))).to(candidates.device)
        best = scores.sort(descending=True, stable=True).indices[:count]
        return best, scores[best].float()
