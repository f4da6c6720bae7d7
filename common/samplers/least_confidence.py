"""The least probable prediction. Lewis & Gale 1994, https://arxiv.org/abs/cmp-lg/9407020."""

from common.samplers.base import Sampler


class LeastConfidence(Sampler):
    asks = True

    def score(self, index):
        return 1 - self.logits(index).float().softmax(1).amax(1)
