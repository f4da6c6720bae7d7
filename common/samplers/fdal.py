"""FDAL, the authors' 2025 follow-up to EnCoDe: a discriminator D directly on the student's features."""

from common.objective import sampler_loss
from common.samplers.base import Sampler, descend
from common.samplers.nets import feature_discriminator
from common.seeds import initialization


class FDAL(Sampler):
    """Queries the images that D judges unlabelled; D's logit on z enters the task loss as the adversarial term."""

    learns = reaches_student = scores_are_logits = True

    def __init__(self, args, this_round, student, targets):
        super().__init__(args, this_round, student, targets)
        channels = self.z_shape()[0]
        with initialization(args.seed, "sampler", this_round.number):
            self.discriminator = self.own("discriminator", feature_discriminator(channels), args.lr_disc)

    def judge(self, z):
        return self.discriminator(z)[:, 0]

    def step(self, labeled, unlabeled, noise):
        loss = sampler_loss(self.judge(labeled.z.detach()), self.judge(unlabeled.z.detach()))
        return {"disc": descend(self.optimizers["discriminator"], loss)}

    def score(self, index):
        return -self.judge(self.student.features(self.look(index)))
