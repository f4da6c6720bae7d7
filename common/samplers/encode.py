"""EnCoDe's sampler: a VAE on the student's features, and a discriminator D on its latent mean."""

import torch

from common.objective import sampler_loss, vae_loss
from common.samplers.base import Sampler, descend
from common.samplers.nets import feature_vae, latent_discriminator
from common.seeds import initialization


class EnCoDe(Sampler):
    """Queries the images that D judges unlabelled; D's logit on z enters the task loss as the adversarial term."""

    learns = reaches_student = scores_are_logits = True
    draws = 1

    def __init__(self, args, this_round, student, targets):
        super().__init__(args, this_round, student, targets)
        shape = self.z_shape()
        with initialization(args.seed, "sampler", this_round.number):
            self.vae = self.own("vae", feature_vae(shape, args.latent_dim), args.lr_vae)
            self.discriminator = self.own("discriminator", latent_discriminator(args.latent_dim), args.lr_disc)

    def judge(self, z):
        mean, _ = self.vae(z)
        return self.discriminator(mean)[:, 0]

    def step(self, labeled, unlabeled, noise):
        z = torch.cat([labeled.z, unlabeled.z]).detach()
        mean, log_variance = self.vae(z)
        loss = vae_loss(z, self.vae.rebuild(mean, log_variance, noise[0]), mean, log_variance, self.args.beta)
        vae = descend(self.optimizers["vae"], loss)
        with torch.no_grad():  # D's loss is not the VAE's
            mean, _ = self.vae(z)
        verdicts = self.discriminator(mean)[:, 0].split(len(labeled.z))
        return {"vae": vae, "disc": descend(self.optimizers["discriminator"], sampler_loss(*verdicts))}

    def score(self, index):
        return -self.judge(self.student.features(self.look(index)))
