"""What the updates of an epoch see: views of labelled, pool and unlabelled images, and the sampler's noise.

An epoch is drawn on the CPU in one go, each stream from its own generator, so that adding one does not change the
others.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common import augment
from common.augment import View
from common.seeds import derive, generator


class Batch(NamedTuple):
    """What one update sees: a view of batch_size images of each stream, and the sampler's noise."""

    labeled: View
    pool: View | None = None  # of labelled and unlabelled images, with --distill_on pool
    unlabeled: View | None = None  # if a sampler learns
    noise: Tensor | None = None  # (draws, 2 * batch_size, latent), if it has a VAE
    mix: Tensor | None = None  # (batch_size,) with `--mixup`, the weights of the pool's images themselves


def shuffled(pool: Tensor, count: int, source: torch.Generator) -> Tensor:
    """`count` indices from `pool`, which is reshuffled each time it is used up."""
    passes = [torch.randperm(len(pool), generator=source) for _ in range(-(-count // len(pool)))]
    return pool[torch.cat(passes)[:count]]


class Streams:
    """An epoch's streams of a round."""

    def __init__(self, args, this_round, targets, sampler, epoch: int):
        """
        Args:
            targets: the teacher's outputs, whose fixed views are drawn from; None without a teacher.
            sampler: one that learns; None for any other.
        """
        self.args, self.round, self.images = args, this_round, this_round.images
        self.targets, self.sampler, self.epoch = targets, sampler, epoch

    def batches(self, updates: int) -> Iterator[Batch]:
        """Yields `updates` batches."""
        pools = {"labeled": self.round.labeled}
        if self.targets is not None and self.args.distill_on == "pool":
            pools["pool"] = torch.cat([self.round.labeled, self.round.unlabeled])
        if self.sampler:
            pools["unlabeled"] = self.round.unlabeled
        count = updates * self.args.batch_size
        streams = {name: self._stream(name, pool, count) for name, pool in pools.items()}
        noise, mix = self._noise(updates), self._mix(count)
        for update in range(updates):
            part = slice(update * self.args.batch_size, (update + 1) * self.args.batch_size)
            views = {name: view.part(part) for name, view in streams.items()}
            yield Batch(**views, noise=None if noise is None else noise[update], mix=None if mix is None else mix[part])

    def _stream(self, name: str, pool: Tensor, count: int) -> View:
        """An epoch's view of one pool, drawn on the CPU in one go and then moved to the images' device."""
        source, shift = self._generator(name), self.args.shift
        index = shuffled(pool.cpu(), count, source)
        if self.targets is not None and self.targets.views is not None:
            which = torch.randint(len(self.targets.views.mirrored), (count,), generator=source)
            return self.targets.views.of(index, which).to(self.images.device)
        mirrored = torch.rand(count, generator=source) < 0.5
        offsets = torch.randint(-shift, shift + 1, (count, 2), generator=source) if shift else None
        boxes = augment.cut(count, self.images.size, self.args.cutout, source) if self.args.cutout else None
        return View(index, mirrored if self.images.mirror else None, offsets, boxes=boxes).to(self.images.device)

    def _mix(self, count: int) -> Tensor | None:
        """An epoch's `--mixup` weights, each Beta(alpha, alpha); an image's partner is the next one in its batch."""
        if self.targets is None or not self.args.mixup:
            return None
        source = np.random.default_rng(derive(self.args.seed, "mixup", self.round.number, self.epoch))
        shares = source.beta(self.args.mixup, self.args.mixup, count)
        return torch.from_numpy(shares).float().to(self.images.device)

    def _noise(self, updates: int) -> Tensor | None:
        """An epoch's noise (updates, draws, 2 * batch_size, latent) for the sampler, drawn and moved as a stream is."""
        if not self.sampler or not self.sampler.draws:
            return None
        source, count = self._generator("noise"), updates * self.sampler.draws
        # one by one: torch's first values depend on how many it draws at once
        drawn = [torch.randn(2 * self.args.batch_size, self.args.latent_dim, generator=source) for _ in range(count)]
        return torch.stack(drawn).unflatten(0, (updates, -1)).to(self.images.device, non_blocking=True)

    def _generator(self, purpose: str) -> torch.Generator:
        return generator(self.args.seed, purpose, self.round.number, self.epoch)
