"""The lowest entropy, the opposite of uncertainty sampling: a tiny student cannot use what is hard."""

from common.samplers.base import Sampler, entropy


class Confidence(Sampler):
    asks = True

    def score(self, index):
        return -entropy(self.logits(index))
