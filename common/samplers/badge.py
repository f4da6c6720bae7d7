"""BADGE: diverse and uncertain at once. Ash et al. 2020, https://arxiv.org/abs/1906.03671."""

from common.samplers.base import Sampler
from common.samplers.spread import ROWS, Points, kmeans_plusplus


class BADGE(Sampler):
    """Queries by k-means++ seeding of the gradients that the last layer would have if the prediction were the label.

    Such a gradient is the outer product (p - y) h^T of the probabilities less the predicted one-hot class, and the
    layer's input h; it is never written out. For the teacher, h is its z: the input of its last layer is not cached.
    """

    asks = True
    uses_features = True

    def choose(self, count, candidates):
        features, logits = self.all_outputs(candidates)
        errors = logits.float()
        for rows in errors.split(ROWS):  # in place and in parts: there may be a million
            rows.copy_(rows.softmax(1))
            rows.scatter_add_(1, rows.argmax(1, keepdim=True), rows.new_full((len(rows), 1), -1))
        return kmeans_plusplus(Points(errors, features), count, self.generator)
