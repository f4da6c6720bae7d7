"""Typical and confident: what a tiny student can learn from most easily. This project's own."""

import torch
from torch.nn import functional as F

from common.samplers.base import CHUNK, Sampler, entropy
from common.samplers.typiclust import typicality


class TypicalConfident(Sampler):
    """Queries the highest mean of two ranks among the candidates: of TypiClust's typicality, and of low entropy."""

    asks = True

    def choose(self, count, candidates):
        from scipy.stats import rankdata  # slow to import

        features, sure = [], []
        for chunk in candidates.split(CHUNK):
            rows, logits = self.outputs(chunk)
            features.append(rows)
            sure.append(-entropy(logits))
        typical = typicality(F.normalize(torch.cat(features)).cpu().numpy())
        ranks = rankdata(typical) + rankdata(torch.cat(sure).cpu().numpy())
        scores = torch.from_numpy(ranks / (2 * len(candidates))).to(candidates.device)
        best = scores.sort(descending=True, stable=True).indices[:count]
        return best, scores[best].float()
