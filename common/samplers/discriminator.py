"""A discriminator straight on the student's features z: FDAL, the authors' 2025 follow-up to EnCoDe."""

import torch
from torch import nn
from torch.nn import functional as F

from common.samplers.base import Sampler
from common.seeds import derive

Tensor = torch.Tensor


class Discriminator(Sampler):
    """D(z): 3x3 convolution to 512 channels, ReLU, max pool 2, mean over the map, 512-64-1."""

    trained = True
    sees_features = True

    def __init__(self, args, round, student, targets):
        super().__init__(args, round, student, targets)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(derive(args.seed, "sampler", round.number))
            first = self.look(round.labeled[:1])
            self._build(tuple(self.student.embed(first).shape[1:]))
        self.networks.to(self.images.device)
        self._optimizers()

    def _build(self, shape: tuple[int, int, int]) -> None:
        """Adds the networks for features of this shape (C, H, W)."""
        self.networks["discriminator"] = nn.Sequential(
            nn.Conv2d(shape[0], 512, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(inplace=True),
            nn.Linear(64, 1),
        )

    def _optimizers(self) -> None:
        parameters = self.networks["discriminator"].parameters()
        self.optimizers["discriminator"] = torch.optim.Adam(parameters, lr=self.args.lr_disc, fused=True)

    def judge(self, z: Tensor) -> Tensor:
        """D's logit (B,) that an image with features z is labelled."""
        return self.networks["discriminator"](z)[:, 0]

    def step(self, z_labeled, z_unlabeled, x_labeled, x_unlabeled, noise):
        return {"disc": self.step_discriminator(self.judge(z_labeled.detach()), self.judge(z_unlabeled.detach()))}

    def step_discriminator(self, labeled: Tensor, unlabeled: Tensor) -> Tensor:
        """D's update from its own logits (B,) of both pools: [BCE(D(L), 1) + BCE(D(U), 0)] / 2."""
        loss = (_bce(labeled, 1) + _bce(unlabeled, 0)) / 2
        self.descend("discriminator", loss)
        return loss.detach()

    def descend(self, name: str, loss: Tensor) -> None:
        """One optimizer step of one of the sampler's networks."""
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()

    def adversarial(self, z_labeled, z_unlabeled):
        self.networks.requires_grad_(False)  # its gradient reaches z, not the sampler's own weights
        try:
            return self.fooled(self.judge(z_labeled), self.judge(z_unlabeled))
        finally:
            self.networks.requires_grad_(True)

    @staticmethod
    def fooled(labeled: Tensor, unlabeled: Tensor) -> Tensor:
        """[BCE(D(L), 1) + BCE(D(U), 1)] / 2 for D's logits (B,) of both pools."""
        return (_bce(labeled, 1) + _bce(unlabeled, 1)) / 2

    def score(self, index):
        return torch.sigmoid(-self.judge(self.student.embed(self.look(index))))  # probability of being unlabelled


def _bce(logits: Tensor, label: int) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
