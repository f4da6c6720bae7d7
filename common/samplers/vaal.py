"""VAAL: a VAE of the images, and a discriminator D on its latent mean.

Sinha, Ebrahimi & Darrell 2019, Variational Adversarial Active Learning, https://arxiv.org/abs/1904.00370. The authors'
code has `--adv_wt 1 --lr_disc 0.0005`, and passes the two pools through the VAE one after the other; here one batch
holds both, so its batch norms see both at once. Their KL term is summed over the batch and the latent, but the
reconstruction loss is a mean: in batches of 64 with 32 latent dimensions that is `--beta 2048`. And each of their VAE
updates has a batch of its own; here both have the same one.
"""

import torch

from common.objective import adversarial_loss, frozen, sampler_loss, vae_loss
from common.samplers.base import Sampler, descend
from common.samplers.nets import image_vae, latent_discriminator
from common.seeds import initialization

VAE_STEPS = 2  # VAE updates per update of D


class VAAL(Sampler):
    """Queries the images that D judges unlabelled. D does not reach the student: the VAE is the adversary."""

    learns = scores_are_logits = True
    draws = VAE_STEPS

    def __init__(self, args, this_round, student, targets):
        super().__init__(args, this_round, student, targets)
        with initialization(args.seed, "sampler", this_round.number):
            self.vae = self.own("vae", image_vae(self.images.size, args.latent_dim), args.lr_vae)
            self.discriminator = self.own("discriminator", latent_discriminator(args.latent_dim), args.lr_disc)

    def step(self, labeled, unlabeled, noise):
        x, split = torch.cat([labeled.x, unlabeled.x]), len(labeled.x)
        for epsilon in noise:
            mean, log_variance = self.vae(x)
            loss = vae_loss(x, self.vae.rebuild(mean, log_variance, epsilon), mean, log_variance, self.args.beta)
            with frozen(self.discriminator):
                fooled = adversarial_loss(*self.discriminator(mean)[:, 0].split(split))
            vae = descend(self.optimizers["vae"], loss + self.args.adv_wt * fooled)
        with torch.no_grad():  # D's loss is not the VAE's
            mean, _ = self.vae(x)
        verdicts = self.discriminator(mean)[:, 0].split(split)
        return {"vae": vae, "disc": descend(self.optimizers["discriminator"], sampler_loss(*verdicts))}

    def score(self, index):
        mean, _ = self.vae(self.look(index))
        return -self.discriminator(mean)[:, 0]
