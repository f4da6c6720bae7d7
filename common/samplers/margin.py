"""The smallest margin between the two most probable classes. Scheffer, Decomain & Wrobel 2001."""

from common.samplers.base import Sampler


class Margin(Sampler):
    asks = True

    def score(self, index):
        first, second = self.logits(index).float().softmax(1).topk(2, dim=1).values.unbind(1)
        return second - first
