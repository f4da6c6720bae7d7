"""What the student is least sure of (Lewis & Gale 1994, uncertainty sampling)."""

from common.samplers.base import Sampler, entropy


class Entropy(Sampler):
    def score(self, index):
        return entropy(self.student(self.look(index)))
