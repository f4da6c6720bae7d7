"""Typical and confident: what a tiny student learns from most easily. This project's own strategy."""

import numpy as np
import torch
from torch.nn import functional as F

from common.samplers import typiclust
from common.samplers.base import CHUNK, Sampler, entropy

MANY = 100_000  # candidates: the time to compare all pairs grows with the square


class TypicalConfident(Sampler):
    """Queries the highest mean of two ranks among the candidates: by TypiClust's typicality, and by low entropy.

    A candidate's neighbors are found among all others; with more than 100,000 candidates, within its own of 500
    clusters, as in TypiClust.
    """

    asks = True
    uses_features = True

    def choose(self, count, candidates):
        from scipy.stats import rankdata  # slow to import

        features, logits = self.all_outputs(candidates)
        sure = torch.cat([-entropy(rows) for rows in logits.split(CHUNK)])  # in parts: there may be a million
        del logits
        typical = self.typical(F.normalize(features, out=features).cpu().numpy())
        ranks = rankdata(typical) + rankdata(sure.cpu().numpy())
        scores = torch.from_numpy(ranks / (2 * len(candidates))).to(candidates.device)
        best = scores.sort(descending=True, stable=True).indices[:count]
        return best, scores[best].float()

    def typical(self, rows: np.ndarray) -> np.ndarray:
        """Typicality (n,) of features (n, d)."""
        if len(rows) <= MANY:
            return typiclust.typicality(rows)
        clusters, found = typiclust.cluster(rows, typiclust.MOST_CLUSTERS, self.generator), np.zeros(len(rows))
        for members in typiclust.groups(clusters):
            found[members] = typiclust.typicality(rows[members])
        return found
