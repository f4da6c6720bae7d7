"""The samplers' networks compute what the papers specify, start from the seed, and are on the images' device."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common import networks, samplers
from common.samplers import SAMPLERS, nets
from common.seeds import initialization

from .conftest import parse
from .toys import Halves


def weights(net: nn.Module) -> list[torch.Tensor]:
    return [weight.detach() for weight in net.parameters()]


def chain(x: torch.Tensor, *layers: torch.Tensor) -> torch.Tensor:
    """Linear layers with ReLU in between, from their weights and biases."""
    pairs = list(zip(layers[::2], layers[1::2], strict=True))
    for weight, bias in pairs[:-1]:
        x = F.linear(x, weight, bias).relu()
    return F.linear(x, *pairs[-1])


def a_round(device: str = "cpu") -> SimpleNamespace:
    images = SimpleNamespace(
        train=torch.zeros(4, 32, 32, 3, dtype=torch.uint8, device=device), device=torch.device(device), size=32
    )
    index = torch.arange(4, device=device)
    return SimpleNamespace(number=3, images=images, labeled=index[:2], unlabeled=index[2:])


def test_fdals_discriminator():
    """5x5 maps: the last row and column are pooled too."""
    D, z = nets.feature_discriminator(8), torch.randn(3, 8, 5, 5)
    weight, bias, *linear = weights(D)
    assert [list(layer.shape) for layer in (weight, *linear)] == [[512, 8, 3, 3], [64, 512], [64], [1, 64], [1]]
    maps = F.max_pool2d(F.conv2d(z, weight, bias, padding=1).relu(), 2, ceil_mode=True)
    assert torch.allclose(D(z), chain(maps.mean((2, 3)), *linear), atol=1e-6)


def test_the_latents_discriminator():
    D, latent = nets.latent_discriminator(32), torch.randn(3, 32)
    assert [list(weight.shape) for weight in weights(D)[::2]] == [[512, 32], [512, 512], [1, 512]]
    assert torch.allclose(D(latent), chain(latent, *weights(D)), atol=1e-6)


def test_the_vae_of_features():
    vae, z, latent = nets.feature_vae((4, 3, 2), 5), torch.randn(3, 4, 3, 2), torch.randn(3, 5)
    assert [list(weight.shape) for weight in weights(vae)[::2]] == [[256, 24], [10, 256], [256, 5], [24, 256]]
    mean, log_variance = chain(z.flatten(1), *weights(vae)[:4]).chunk(2, dim=1)
    found = vae(z)
    assert torch.allclose(found[0], mean, atol=1e-6) and torch.allclose(found[1], log_variance, atol=1e-6)
    assert torch.allclose(vae.decode(latent), chain(latent, *weights(vae)[4:]).view(3, 4, 3, 2), atol=1e-6)


def test_vaals_vae_of_images():
    """Stride-2 4x4 convolutions and back, batch norm and ReLU; the last layer, 1x1, makes colors."""
    vae, x, latent = nets.image_vae(8, 5, widths=(6, 7)), torch.randn(3, 3, 8, 8), torch.randn(3, 5)
    first, g1, b1, second, g2, b2, moments, moments_bias = weights(vae)[:8]
    assert (first.shape, second.shape, moments.shape) == ((6, 3, 4, 4), (7, 6, 4, 4), (10, 7 * 2 * 2))
    h = F.batch_norm(F.conv2d(x, first, stride=2, padding=1), None, None, g1, b1, training=True).relu()
    h = F.batch_norm(F.conv2d(h, second, stride=2, padding=1), None, None, g2, b2, training=True).relu()
    expected = F.linear(h.flatten(1), moments, moments_bias).chunk(2, dim=1)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(vae(x), expected, strict=True))

    weight, bias, g1, b1, up, g2, b2, colors, colors_bias = weights(vae)[8:]
    assert (weight.shape, up.shape, colors.shape) == ((7 * 4 * 4, 5), (7, 6, 4, 4), (6, 3, 1, 1))
    h = F.linear(latent, weight, bias).view(3, 7, 4, 4)
    h = F.batch_norm(h, None, None, g1, b1, training=True).relu()
    h = F.batch_norm(F.conv_transpose2d(h, up, stride=2, padding=1), None, None, g2, b2, training=True).relu()
    assert torch.allclose(vae.decode(latent), F.conv_transpose2d(h, colors, colors_bias), atol=1e-5)


MADE = {  # what each draws, in this order, from the stream of seed 5 and round 3
    "discriminator": lambda: {"discriminator": nets.feature_discriminator(3)},
    "vae": lambda: {"vae": nets.feature_vae((3, 4, 8), 7), "discriminator": nets.latent_discriminator(7)},
    "images": lambda: {"vae": nets.image_vae(32, 7), "discriminator": nets.latent_discriminator(7)},
}


@pytest.mark.parametrize("name", MADE)
def test_a_sampler_starts_from_the_seed_with_its_flags(name):
    words = ["--sampler_input", "images"] if name == "images" else ["--sampler", name]
    args = parse("EnCoDe", *words, "--latent_dim", "7", "--lr_disc", "0.1", "--lr_vae", "0.2")
    student, targets = Halves(), object()
    sampler = samplers.build(args, a_round(), student, targets)
    assert sampler.args is args and sampler.student is student and sampler.targets is targets
    with initialization(5, "sampler", 3):
        expected = MADE[name]()
    assert list(sampler.networks) == list(expected)  # the names under which a state is saved
    for part, net in expected.items():
        assert networks.fingerprint(sampler.networks[part]) == networks.fingerprint(net)
        optimizer = sampler.optimizers[part]
        assert isinstance(optimizer, torch.optim.Adam)
        assert optimizer.defaults["lr"] == {"discriminator": 0.1, "vae": 0.2}[part]


@pytest.mark.parametrize("name", [*SAMPLERS, "images"])
def test_a_sampler_lives_where_the_images_are(name):
    words = ["--sampler", "vae", "--sampler_input", "images"] if name == "images" else ["--sampler", name]
    words += ["--query_by", "teacher"] if name == "bald" else []
    args = parse("EnCoDe", *words)
    logits = torch.zeros(2, 4, 10, device="meta")
    this_round = a_round("meta")
    sampler = samplers.build(args, this_round, Halves().to("meta"), SimpleNamespace(logits=logits))
    assert all(weight.device.type == "meta" for weight in sampler.networks.parameters())
    assert sampler.look(this_round.labeled).device.type == "meta"
    if name == "random":
        assert sampler.score(this_round.unlabeled).device.type == "meta"
