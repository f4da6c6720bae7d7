"""What every query strategy shares: it scores candidates, the highest are queried."""

from collections.abc import Iterable

import torch
from torch import nn

from common import augment
from common.augment import View
from common.objective import Seen
from common.seeds import generator

Tensor = torch.Tensor
CHUNK = 250  # candidates looked at together


class Sampler:
    """Built anew in each round; a strategy overrides `score`.

    One that `learns` beside the student owns its networks in `networks` and its optimizers in `optimizers` (both are
    saved and restored with the student's) and has `step`. If its D judges z, so that its verdict can train the student
    through the adversarial term of `objective.task_loss`, it sets `reaches_student` and has `judge`.
    """

    learns = False
    reaches_student = False
    needs_teacher = False
    draws = 0  # latents that an update draws for each image

    def __init__(self, args, this_round, student, targets):
        self.args, self.images, self.student, self.targets = args, this_round.images, student, targets
        self.generator = generator(args.seed, "query", this_round.number)
        self.networks = nn.ModuleDict()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def score(self, index: Tensor) -> Tensor:
        """One score (B,) for each candidate image (B,): the higher, the sooner it is queried."""
        raise NotImplementedError

    def judge(self, z: Tensor) -> Tensor:
        """D's logit (B,) that an image with features z (B, C, h, w) is labelled."""
        raise NotImplementedError

    def step(self, labeled: Seen, unlabeled: Seen, noise: Tensor | None) -> dict[str, Tensor]:
        """One update of the sampler's own networks on a batch of each pool; returns its losses.

        `noise` (draws, B of both pools, latent) is standard normal; None where `draws` is 0.
        """
        raise NotImplementedError

    def look(self, index: Tensor) -> Tensor:
        """The candidates themselves, (B, 3, S, S), unmirrored and normalized."""
        return augment.see(self.images.train, View(index))

    @torch.no_grad()
    def z_shape(self, this_round) -> tuple[int, int, int]:
        """(C, h, w) of the student's z. In eval mode: else the look would move its batch norm's statistics."""
        training = self.student.training
        self.student.eval()
        shape = self.student.features(self.look(this_round.labeled[:1])).shape[1:]
        self.student.train(training)
        return tuple(shape)

    @torch.no_grad()
    def query(self, count: int, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The `count` candidates of highest score and their scores, best first; each candidate at most once.

        Memory: one score a candidate, and one chunk of images at a time. Equal scores keep the candidates' order.
        """
        self.student.eval()
        self.networks.eval()
        scores = torch.empty(len(candidates), device=candidates.device)
        for start in range(0, len(candidates), CHUNK):  # into one array: pieces kept apart would fragment the heap
            scores[start : start + CHUNK] = self.score(candidates[start : start + CHUNK])
        best = scores.sort(descending=True, stable=True).indices[:count]
        return candidates[best], scores[best]


def adam(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Adam:
    """The optimizer of a sampler's network."""
    return torch.optim.Adam(parameters, lr=rate, fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """One update; returns the loss without its graph."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits) (B, classes) -> (B,)."""
    log_p = logits.float().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
