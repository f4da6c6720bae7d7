"""TypiClust: typical images of many clusters. Hacohen, Dekel & Weinshall 2022, https://arxiv.org/abs/2202.02794."""

import functools
from collections.abc import Iterator

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch.nn import functional as F

from common.samplers.base import Sampler

MOST_CLUSTERS, NEIGHBORS, SMALL = 500, 20, 5  # the authors'


class TypiClust(Sampler):
    """Queries the most typical candidate of each cluster in turn, clusters with few labels first, then large ones.

    Labelled images and candidates are clustered together, into as many clusters as there will be labels, at most 500.
    Clusters of up to 5 images come last. Differences from the paper: the features are those of the network that is
    asked, not self-supervised, and typicality is computed once, not again after each choice. Also from the authors'
    code: neighbors are up to 20 images of the cluster, labelled ones included (theirs: at most half of its unlabelled
    ones, with squared distances), and k-means always uses mini-batches, however few the clusters.
    """

    asks = True
    uses_features = True

    def choose(self, count, candidates):
        both = torch.cat([self.labeled, candidates])
        rows = self.all_outputs(both)[0]
        rows = F.normalize(rows, out=rows).cpu().numpy()  # in place: there may be a million
        clusters = cluster(rows, min(len(self.labeled) + count, MOST_CLUSTERS, len(rows)), self.generator)
        labeled = np.arange(len(rows)) < len(self.labeled)
        typical, place = np.zeros(len(rows)), np.zeros((3, len(rows)))
        for members in groups(clusters):
            typical[members] = typicality(rows[members])
            free = members[~labeled[members]]
            ranked = free[np.argsort(-typical[free], kind="stable")]
            place[0, ranked] = len(members) <= SMALL
            place[1, ranked] = np.arange(len(ranked))
            place[2, members] = labeled[members].sum() - len(members) / (len(rows) + 1)  # labels count before size
        place = place[:, len(self.labeled) :]
        first = np.lexsort(place[::-1])[:count]
        scores = typical[len(self.labeled) :][first]
        return torch.from_numpy(first).to(candidates.device), torch.from_numpy(scores).float()


def cluster(rows: np.ndarray, count: int, source: torch.Generator) -> np.ndarray:
    """The cluster (n,) of each row (n, d), by k-means on mini-batches."""
    from sklearn.cluster import MiniBatchKMeans  # takes seconds to import: only its users should wait

    seed = int(torch.randint(2**31, (1,), generator=source))
    with _libraries().limit(limits=torch.get_num_threads()):
        return MiniBatchKMeans(count, batch_size=5000, n_init=1, random_state=seed).fit(rows).labels_


def groups(clusters: np.ndarray) -> Iterator[np.ndarray]:
    """The members of each cluster in ascending order, from the clusters (n,) of the rows."""
    for number in np.unique(clusters):
        yield np.flatnonzero(clusters == number)


def typicality(rows: np.ndarray) -> np.ndarray:
    """The inverse of the mean distance from each row to its 20 nearest others, (n,); 0 for a row without others."""
    from sklearn.neighbors import NearestNeighbors

    if len(rows) == 1:
        return np.zeros(1)
    with _libraries().limit(limits=torch.get_num_threads()):
        nearest = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(rows) - 1), algorithm="brute").fit(rows)
        return 1 / (nearest.kneighbors()[0].mean(1) + 1e-5)


@functools.cache  # looking for them takes milliseconds, and there are 500 clusters
def _libraries() -> ThreadpoolController:
    """The OpenMP and BLAS of scikit-learn, whose threads are not torch's: `--threads` is meant for both."""
    import sklearn.cluster
    import sklearn.neighbors  # noqa: F401 - loads them

    return ThreadpoolController()
