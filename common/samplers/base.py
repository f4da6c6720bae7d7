"""What every query strategy shares: it scores candidates, the highest are queried."""

import torch
from torch import nn

from common import augment
from common.seeds import generator

Tensor = torch.Tensor
CHUNK = 1000  # candidates looked at together


class Sampler:
    """Built anew in each round; a strategy overrides `score`.

    One that is trained beside the student sets `trained`, owns its networks in `networks` and its optimizers in
    `optimizers` (both are saved and restored with the student's), and implements `step` and, if its verdict can
    reach the student through z, `adversarial`.
    """

    trained = False  # does it learn from an unlabelled batch at every update?
    sees_features = False  # does it learn from z, so that its verdict can train the student?
    needs_teacher = False

    def __init__(self, args, round, student, targets):
        self.args, self.images, self.student, self.targets = args, round.images, student, targets
        self.generator = generator(args.seed, "query", round.number, device=round.images.device)
        self.networks = nn.ModuleDict()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def score(self, index: Tensor) -> Tensor:
        """One score (B,) for each candidate image (B,): the higher, the sooner it is queried."""
        raise NotImplementedError

    def step(self, z_labeled: Tensor, z_unlabeled: Tensor, x_labeled: Tensor, x_unlabeled: Tensor, noise) -> dict:
        """One update of the sampler's own networks on a labelled and an unlabelled batch; returns its losses."""
        raise NotImplementedError

    def adversarial(self, z_labeled: Tensor, z_unlabeled: Tensor) -> Tensor:
        """The task loss's term that makes z of both pools look labelled to the discriminator."""
        raise NotImplementedError

    def look(self, index: Tensor) -> Tensor:
        """The candidates themselves, (B, 3, S, S), unmirrored and normalized."""
        return augment.batch(self.images.train, index)

    @torch.no_grad()
    def query(self, count: int, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The `count` candidates of highest score and their scores, best first; each candidate at most once.

        Memory: one score a candidate, and one chunk of images at a time. Equal scores keep the candidates' order.
        """
        self.student.eval()
        self.networks.eval()
        scores = torch.cat([self.score(chunk).float() for chunk in candidates.split(CHUNK)])
        best = scores.sort(descending=True, stable=True).indices[:count]
        return candidates[best], scores[best]


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits) (B, classes) -> (B,)."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
