"""The samplers' networks: VAEs of features and of images, discriminators on latents and on features."""

from torch import Tensor, nn

from common.errors import InputError


class VAE(nn.Module):
    """An encoder, its Gaussian's moments, and a decoder. Kingma & Welling 2014, https://arxiv.org/abs/1312.6114."""

    def __init__(self, encode: nn.Module, moments: nn.Linear, decode: nn.Module):
        super().__init__()
        self.encode, self.moments, self.decode = encode, moments, decode

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x -> the latent's mean and log-variance, (B, latent) each, float32."""
        return self.moments(self.encode(x)).float().chunk(2, dim=1)

    def rebuild(self, mean: Tensor, log_variance: Tensor, epsilon: Tensor) -> Tensor:
        """Decodes a latent drawn from the Gaussian; `epsilon` (B, latent) is standard normal."""
        return self.decode(mean + epsilon * (log_variance / 2).exp())


def feature_vae(shape: tuple[int, int, int], latent_dim: int, hidden: int = 256) -> VAE:
    """A VAE of features of this shape (C, h, w), with one hidden layer each way."""
    width = shape[0] * shape[1] * shape[2]
    encode = nn.Sequential(nn.Flatten(), nn.Linear(width, hidden), nn.ReLU(inplace=True))
    moments = nn.Linear(hidden, 2 * latent_dim)
    decode = nn.Sequential(
        nn.Linear(latent_dim, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, width), nn.Unflatten(1, shape)
    )
    return VAE(encode, moments, decode)


def image_vae(size: int, latent_dim: int, widths: tuple[int, ...] = (128, 256, 512, 1024)) -> VAE:
    """VAAL's VAE of images (3, size, size): 4x4 convolutions of stride 2 with batch norm and ReLU, and back.

    Raises InputError as `check_halvings` does.
    """
    check_halvings(size, len(widths))
    halvings = 2 ** len(widths)
    encode, channels = [], 3
    for width in widths:
        encode += [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    moments = nn.Linear(channels * (size // halvings) ** 2, 2 * latent_dim)
    start = 2 * size // halvings
    decode = [nn.Linear(latent_dim, channels * start * start), nn.Unflatten(1, (channels, start, start))]
    decode += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    for width in reversed(widths[:-1]):
        decode += [nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width)]
        decode += [nn.ReLU(inplace=True)]
        channels = width
    return VAE(
        nn.Sequential(*encode, nn.Flatten()), moments, nn.Sequential(*decode, nn.ConvTranspose2d(channels, 3, 1))
    )


def check_halvings(size: int, times: int = 4) -> None:
    """Raises InputError for an image size that the VAE of images cannot halve this many times."""
    if size % 2**times:
        raise InputError(
            f"--image_size {size}: --sampler_input images halves it {times} times; use a multiple of {2**times}"
        )


def latent_discriminator(latent_dim: int) -> nn.Sequential:
    """D on a VAE's latent mean (B, latent): two hidden layers of 512 (VAAL)."""
    return nn.Sequential(
        nn.Linear(latent_dim, 512), nn.ReLU(inplace=True), nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Linear(512, 1)
    )


def feature_discriminator(channels: int) -> nn.Sequential:
    """D on features (B, channels, h, w): 3x3 convolution to 512, max pool 2, mean over the map, 512-64-1 (FDAL)."""
    return nn.Sequential(
        nn.Conv2d(channels, 512, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(inplace=True),
        nn.Linear(64, 1),
    )
