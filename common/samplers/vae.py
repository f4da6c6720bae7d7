"""EnCoDe's sampler: a VAE, and a discriminator on its latent mean, as in VAAL.

Sinha, Ebrahimi & Darrell 2019, Variational Adversarial Active Learning, https://arxiv.org/abs/1904.00370.
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import InputError
from common.samplers.discriminator import Discriminator

Tensor = torch.Tensor


class FeatureVAE(Discriminator):
    """The VAE encodes the student's features z; D reads the latent mean (latent-512-512-1)."""

    vae_steps = 1  # VAE updates for each update of D
    hidden = 256

    def _build(self, shape):
        width, latent = shape[0] * shape[1] * shape[2], self.args.latent_dim
        self.networks["vae"] = nn.ModuleDict(
            {
                "encode": nn.Sequential(nn.Flatten(), nn.Linear(width, self.hidden), nn.ReLU(inplace=True)),
                "moments": nn.Linear(self.hidden, 2 * latent),
                "decode": nn.Sequential(
                    nn.Linear(latent, self.hidden),
                    nn.ReLU(inplace=True),
                    nn.Linear(self.hidden, width),
                    nn.Unflatten(1, shape),
                ),
            }
        )
        self._build_discriminator()

    def _build_discriminator(self) -> None:
        self.networks["discriminator"] = nn.Sequential(
            nn.Linear(self.args.latent_dim, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 1),
        )

    def _optimizers(self):
        super()._optimizers()
        self.optimizers["vae"] = torch.optim.Adam(self.networks["vae"].parameters(), lr=self.args.lr_vae, fused=True)

    def moments(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Latent mean and log-variance, (B, latent) each."""
        vae = self.networks["vae"]
        return vae["moments"](vae["encode"](inputs)).chunk(2, dim=1)

    def judge(self, z):
        return self.networks["discriminator"](self.moments(z)[0])[:, 0]

    def step(self, z_labeled, z_unlabeled, x_labeled, x_unlabeled, noise):
        return self.step_both(z_labeled.detach(), z_unlabeled.detach(), noise)

    def step_both(self, labeled: Tensor, unlabeled: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        """`vae_steps` updates of the VAE on both pools, then one of D on their latent means."""
        both = torch.cat([labeled, unlabeled])
        for _ in range(self.vae_steps):
            loss = self.vae_loss(both, len(labeled), noise)
            self.descend("vae", loss)
        with torch.no_grad():  # D's loss is not the VAE's
            means = self.moments(both)[0]
        logits = self.networks["discriminator"](means)[:, 0]
        return {"vae": loss.detach(), "disc": self.step_discriminator(*logits.split(len(labeled)))}

    def vae_loss(self, inputs: Tensor, labeled: int, noise: torch.Generator) -> Tensor:
        """Reconstruction MSE + beta * KL, both of them means: over values, and over latent dimensions."""
        mean, log_variance = self.moments(inputs)
        return self.evidence_loss(inputs, mean, log_variance, noise)

    def evidence_loss(self, inputs: Tensor, mean: Tensor, log_variance: Tensor, noise: torch.Generator) -> Tensor:
        epsilon = torch.randn(mean.shape, generator=noise, device=mean.device)
        rebuilt = self.networks["vae"]["decode"](mean + epsilon * (log_variance / 2).exp())
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).mean()
        return F.mse_loss(rebuilt, inputs) + self.args.beta * divergence


class ImageVAE(FeatureVAE):
    """VAAL's own: the VAE encodes the images. With no path from D to the student, the VAE plays the adversary."""

    sees_features = False
    vae_steps = 2

    def _build(self, shape):
        size, latent = self.images.size, self.args.latent_dim
        if size % 16:
            raise InputError(
                f"--sampler_input images: the VAE halves the image four times, --image_size {size} does not fit"
            )
        widths = (128, 256, 512, 1024)
        encode, channels = [], 3
        for width in widths:
            encode += [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        start = size // 8
        decode = [nn.Linear(latent, 1024 * start * start), nn.Unflatten(1, (1024, start, start))]
        decode += [nn.BatchNorm2d(1024), nn.ReLU(inplace=True)]
        for width in reversed(widths[:-1]):
            decode += [nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width)]
            decode += [nn.ReLU(inplace=True)]
            channels = width
        self.networks["vae"] = nn.ModuleDict(
            {
                "encode": nn.Sequential(*encode, nn.Flatten()),
                "moments": nn.Linear(1024 * (size // 16) ** 2, 2 * latent),
                "decode": nn.Sequential(*decode, nn.ConvTranspose2d(channels, 3, 1)),
            }
        )
        self._build_discriminator()

    def step(self, z_labeled, z_unlabeled, x_labeled, x_unlabeled, noise):
        return self.step_both(x_labeled, x_unlabeled, noise)

    def vae_loss(self, inputs, labeled, noise):
        mean, log_variance = self.moments(inputs)
        logits = self.networks["discriminator"](mean)[:, 0]
        fooled = self.fooled(*logits.split(labeled))
        return self.evidence_loss(inputs, mean, log_variance, noise) + self.args.adv_wt * fooled

    def score(self, index):
        return torch.sigmoid(-self.judge(self.look(index)))
