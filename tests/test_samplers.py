"""The sampler learns what it must: the faults of the authors' discriminator do not come back."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from common import networks, samplers
from common.samplers import Sampler
from common.samplers.base import entropy

from .conftest import parse


class Features(torch.nn.Module):
    """A stand-in student whose features are given, one row an image."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def embed(self, x):
        return self.rows[x[:, 0, 0, 0].mul(127.5).add(127.5).round().long()]  # the pixel says which row


def gaussians(count: int = 100, shift: float = 2.0):
    """Two pools of features (4, 3, 3): labelled around 0, and unlabelled half around 0 and half around `shift`."""
    source = torch.Generator().manual_seed(1)
    rows = torch.randn(2 * count, 4, 3, 3, generator=source)
    rows[-count // 2 :] += shift
    pixels = torch.arange(2 * count, dtype=torch.uint8)[:, None, None, None].expand(-1, 64, 64, 3)
    images = SimpleNamespace(train=pixels, device=rows.device, size=64)
    order = torch.arange(2 * count)
    return rows, SimpleNamespace(number=0, images=images, labeled=order[:count], unlabeled=order[count:])


@pytest.mark.parametrize("words", [["--sampler", "vae"], ["--sampler", "discriminator"]])
def test_discriminator_separates_shifted_pools_and_queries_the_unlike(words):
    rows, round = gaussians()
    args = parse("EnCoDe", *words)
    sampler = samplers.build(args, round, Features(rows))
    noise = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(150):
        losses.append(sampler.step(rows[:100], rows[100:], None, None, noise)["disc"].item())
    chosen, scores = sampler.query(40, round.unlabeled)
    unlike = set(range(150, 200))
    assert len(unlike & set(chosen.tolist())) >= 38
    assert losses[-1] < losses[0]
    assert len(set(chosen.tolist())) == 40 and torch.equal(scores, scores.sort(descending=True).values)


def test_discriminator_is_taught_that_unlabelled_is_zero():
    """The authors' code gave both pools target 1, so that D learnt nothing."""
    rows, round = gaussians()
    sampler = samplers.build(parse("EnCoDe", "--sampler", "discriminator"), round, Features(rows))
    labeled, unlabeled = sampler.judge(rows[:4]), sampler.judge(rows[4:8])
    expected = (-F.logsigmoid(labeled).mean() - F.logsigmoid(-unlabeled).mean()) / 2
    assert sampler.step_discriminator(labeled, unlabeled).item() == pytest.approx(expected.item(), rel=1e-5)


def test_adversarial_term_reaches_the_features_and_not_the_sampler():
    rows, round = gaussians()
    for name in ("vae", "discriminator"):
        sampler = samplers.build(parse("EnCoDe", "--sampler", name), round, Features(rows))
        z_labeled, z_unlabeled = rows[:4].clone().requires_grad_(), rows[4:8].clone().requires_grad_()
        loss = sampler.adversarial(z_labeled, z_unlabeled)
        expected = -(F.logsigmoid(sampler.judge(rows[:4])).mean() + F.logsigmoid(sampler.judge(rows[4:8])).mean()) / 2
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        loss.backward()
        assert z_labeled.grad.abs().sum() > 0 and z_unlabeled.grad.abs().sum() > 0
        assert all(weight.grad is None and weight.requires_grad for weight in sampler.networks.parameters())


def test_sampler_step_leaves_the_student_alone():
    rows, round = gaussians()
    sampler = samplers.build(parse("EnCoDe"), round, Features(rows))
    z = rows[:8].clone().requires_grad_()
    before = [weight.clone() for weight in sampler.networks.parameters()]
    sampler.step(z[:4], z[4:], None, None, torch.Generator().manual_seed(0))
    assert z.grad is None
    assert all(not torch.equal(old, new) for old, new in zip(before, sampler.networks.parameters(), strict=True))


def test_vae_kl_and_reconstruction_are_means():
    rows, round = gaussians()
    sampler = samplers.build(parse("EnCoDe", "--beta", "3"), round, Features(rows))
    mean, log_variance = torch.full((2, 32), 2.0), torch.zeros(2, 32)
    inputs = torch.zeros(2, 4, 3, 3)
    for layer in (sampler.networks["vae"]["decode"][2],):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.ones_(layer.bias)
    loss = sampler.evidence_loss(inputs, mean, log_variance, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(1 + 3 * 2.0, rel=1e-5)  # (1 - 0)^2, and 0.5 * 2^2 a dimension


def test_image_vae_is_vaals(images):
    round = SimpleNamespace(number=0, images=images, labeled=images.pool[:4], unlabeled=images.pool[4:12])
    args = parse("EnCoDe", "--sampler_input", "images")
    sampler = samplers.build(args, round, networks.build(args, "student"))
    widths = [layer.out_channels for layer in sampler.networks["vae"]["encode"] if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [128, 256, 512, 1024] and sampler.vae_steps == 2
    x = sampler.look(round.labeled)
    losses = sampler.step(None, None, x[:2], x[2:], torch.Generator().manual_seed(0))
    assert all(torch.isfinite(loss) for loss in losses.values())
    mean, _ = sampler.moments(x)
    assert mean.shape == (4, 32) and sampler.networks["vae"]["decode"](mean).shape == x.shape
    chosen, _ = sampler.query(5, round.unlabeled)
    assert len(set(chosen.tolist())) == 5


def test_entropy_prefers_the_unsure_and_teacher_confidence_the_sure(images):
    logits = torch.tensor([[9.0, 0, 0], [0, 0, 0], [1, 0, 0]])
    assert entropy(logits)[1].item() == pytest.approx(torch.log(torch.tensor(3.0)).item())
    targets = SimpleNamespace(logits=logits[None])
    round = SimpleNamespace(number=0, images=images, labeled=images.pool[:2], unlabeled=images.pool[2:])
    student = torch.nn.Module()
    student.forward = lambda x: logits[: len(x)]
    order = torch.arange(3)
    assert samplers.build(parse("KD", "--sampler", "entropy"), round, student).query(3, order)[0].tolist() == [1, 2, 0]
    confident = samplers.build(parse("KD", "--sampler", "teacher_confidence"), round, student, targets)
    assert confident.query(3, order)[0].tolist() == [0, 2, 1]


def test_random_queries_without_replacement(images):
    """The authors drew 5,000 labels with replacement and got about 3,935 images."""
    round = SimpleNamespace(number=0, images=images, labeled=images.pool[:2], unlabeled=images.pool[2:])
    sampler = samplers.build(parse("Random"), round, torch.nn.Identity())
    chosen, _ = sampler.query(5000, torch.arange(45000))
    assert len(set(chosen.tolist())) == 5000


def test_query_looks_in_eval_mode_chunk_by_chunk(images):
    """Networks were left in train mode while querying; and memory must not grow with the pool."""
    seen = []

    class Spy(Sampler):
        def score(self, index):
            seen.append((len(index), self.student.training, self.networks.training, torch.is_grad_enabled()))
            return -index.float()

    round = SimpleNamespace(number=0, images=images, labeled=images.pool[:2], unlabeled=images.pool[2:])
    args = parse("EnCoDe")
    sampler = Spy(args, round, networks.build(args, "student").train(), None)
    sampler.networks.train()
    chosen, scores = sampler.query(3, torch.arange(2500))
    assert chosen.tolist() == [0, 1, 2] and scores.tolist() == [0, -1, -2]
    assert seen == [(1000, False, False, False), (1000, False, False, False), (500, False, False, False)]
