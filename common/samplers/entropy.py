"""The highest entropy. Settles 2009, Active Learning Literature Survey, section 3.1."""

from common.samplers.base import Sampler, entropy


class Entropy(Sampler):
    asks = True

    def score(self, index):
        return entropy(self.logits(index))
