"""The sampler learns what it should: the faults of the authors' discriminator stay fixed."""

import csv
import shutil
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common import data, networks, objective, samplers
from common.errors import InputError
from common.objective import Forward
from common.samplers import SAMPLERS, Sampler, nets, vaal
from common.samplers.base import CHUNK, entropy

from . import toys
from .conftest import BUDGET, ROOT, TOY, parse
from .launcher import launch

LEARNERS = [["--sampler", "vae"], ["--sampler", "discriminator"]]


class Features(nn.Module):
    """A stand-in student with given features, one row per image; the image's pixel gives the row."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.classifier = rows, nn.Identity()

    def features(self, x):
        return self.rows[x[:, 0, 0, 0].mul(127.5).add(127.5).round().long()]


def a_round(pixels: torch.Tensor, labeled: int, number: int = 0) -> SimpleNamespace:
    """A round on these images (N, S, S, 3), the first `labeled` of them labelled."""
    images = SimpleNamespace(train=pixels, device=pixels.device, size=pixels.shape[1])
    order = torch.arange(len(pixels))
    return SimpleNamespace(number=number, images=images, labeled=order[:labeled], unlabeled=order[labeled:])


def two_pools(count: int = 100, shift: float = 2.0):
    """Features (4, 3, 3), labelled around 0, unlabelled half around 0 and half around `shift`, and their round."""
    rows = torch.randn(2 * count, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    rows[-count // 2 :] += shift
    pixels = torch.arange(2 * count, dtype=torch.uint8)[:, None, None, None].expand(-1, 64, 64, 3)
    return rows, a_round(pixels, count)


def learner(*words: str):
    """A sampler on two pools of given features, the features, and the round."""
    rows, this_round = two_pools()
    return samplers.build(parse("EnCoDe", *words), this_round, Features(rows)), rows, this_round


def source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def noise(sampler: Sampler, images: int) -> torch.Tensor:
    """The noise of one step on `images` images of both pools."""
    return torch.randn(sampler.draws, images, sampler.args.latent_dim, generator=source())


def step(sampler: Sampler, labeled: torch.Tensor, unlabeled: torch.Tensor) -> dict[str, float]:
    drawn = noise(sampler, len(labeled) + len(unlabeled))
    losses = sampler.step(Forward(None, labeled), Forward(None, unlabeled), drawn)
    assert not any(loss.requires_grad for loss in losses.values())
    return {name: loss.item() for name, loss in losses.items()}


@pytest.mark.parametrize("words", LEARNERS)
def test_the_discriminator_separates_shifted_pools_and_queries_the_unlike(words):
    sampler, rows, this_round = learner(*words, "--lr_disc", "0.003")
    losses = [step(sampler, rows[:100], rows[100:])["disc"] for _ in range(40)]
    assert losses[-1] < losses[0]
    chosen, scores = sampler.query(40, this_round.unlabeled)
    assert len(set(chosen.tolist()) & set(range(150, 200))) >= 38
    assert len(set(chosen.tolist())) == 40 and torch.equal(scores, scores.sort(descending=True).values)
    with torch.no_grad():  # the score is the probability of being unlabelled
        assert torch.allclose(scores, 1 - sampler.judge(rows[chosen]).sigmoid(), atol=1e-6)
    assert_a_sure_verdict_still_ranks(sampler, this_round)


def assert_a_sure_verdict_still_ranks(sampler: Sampler, this_round) -> None:
    """In float32 the probabilities of D's logits below -17 are all 1: queries by them would follow the pool's order."""
    candidates = this_round.unlabeled.flip(0)
    before, _ = sampler.query(8, candidates)
    last = [layer for layer in sampler.discriminator if hasattr(layer, "bias")][-1]
    last.bias.data.sub_(40)
    chosen, scores = sampler.query(8, candidates)
    assert torch.equal(chosen, before) and (scores == 1).all()


@pytest.mark.parametrize("words", LEARNERS)
def test_the_discriminator_is_taught_that_unlabelled_is_zero(words):
    """The authors' code gave both pools target 1, so that D learned nothing."""
    sampler, rows, _ = learner(*words)
    if "vae" in sampler.networks:
        sampler.optimizers["vae"].param_groups[0]["lr"] = 0  # D's loss is computed after the VAE's update
    labeled, unlabeled = sampler.judge(rows[:4]), sampler.judge(rows[4:8])
    expected = (-F.logsigmoid(labeled).mean() - F.logsigmoid(-unlabeled).mean()) / 2
    assert step(sampler, rows[:4], rows[4:8])["disc"] == pytest.approx(expected.item(), rel=1e-5)
    after = sampler.judge(rows[:4]).mean() - sampler.judge(rows[4:8]).mean()
    assert after > labeled.mean() - unlabeled.mean()


@pytest.mark.parametrize("words", LEARNERS)
def test_the_adversarial_term_reaches_z_and_not_the_samplers_weights(words):
    sampler, rows, _ = learner(*words, "--adv_wt", "0.5")
    args = sampler.args
    args.ce_wt = args.feat_wt = args.logit_wt = 0.0
    labeled, unlabeled = (Forward(None, rows[part].clone().requires_grad_()) for part in (slice(3), slice(3, 8)))
    terms = objective.task_loss(args, sampler.student, None, sampler, labeled, None, unlabeled)
    assert list(terms) == ["adv"]
    verdicts = sampler.judge(rows[:3]), sampler.judge(rows[3:8])
    expected = -0.5 * sum(F.logsigmoid(verdict).mean() for verdict in verdicts) / 2  # target 1 for both pools
    assert terms["adv"].item() == pytest.approx(expected.item(), rel=1e-5)
    terms["adv"].backward()
    assert all((seen.z.grad.flatten(1).abs().sum(1) > 0).all() for seen in (labeled, unlabeled))
    assert all(weight.grad is None and weight.requires_grad for weight in sampler.networks.parameters())
    with torch.no_grad():  # along the gradient both pools come to look labelled
        for seen, verdict in zip((labeled, unlabeled), verdicts, strict=True):
            assert sampler.judge(seen.z - 0.1 * seen.z.grad).mean() > verdict.mean()


@pytest.mark.parametrize("words", LEARNERS)
def test_a_step_moves_all_of_the_sampler_and_leaves_the_student_alone(words):
    sampler, rows, _ = learner(*words)
    z = rows[:8].clone().requires_grad_()
    before = [weight.detach().clone() for weight in sampler.networks.parameters()]
    step(sampler, z[:4], z[4:])
    assert z.grad is None
    assert all(not torch.equal(old, new) for old, new in zip(before, sampler.networks.parameters(), strict=True))
    owned = [weight for optimizer in sampler.optimizers.values() for weight in optimizer.param_groups[0]["params"]]
    assert {id(weight) for weight in owned} == {id(weight) for weight in sampler.networks.parameters()}
    assert len(owned) == len(before)


def test_the_vaes_kl_and_reconstruction_are_means():
    """A sum against a mean, as in VAAL's code, would swamp the reconstruction."""
    sampler, _, _ = learner("--beta", "3")
    for layer, value in ((sampler.vae.moments, None), (sampler.vae.decode[2], 3.0)):
        nn.init.zeros_(layer.weight)
        if value is not None:
            nn.init.constant_(layer.bias, value)
    with torch.no_grad():
        sampler.vae.moments.bias.copy_(torch.tensor([2.0] * 32 + [0.0] * 32))  # means and log-variances
    loss = step(sampler, torch.ones(2, 4, 3, 3), torch.ones(2, 4, 3, 3))["vae"]
    assert loss == pytest.approx((3 - 1) ** 2 + 3 * 2.0**2 / 2, rel=1e-5)


def test_the_vae_rebuilds_from_a_sample_of_its_latent():
    vae = nets.feature_vae((4, 3, 3), 32)
    mean, log_variance = torch.randn(2, 32), torch.randn(2, 32)
    epsilon = torch.randn(2, 32, generator=source())
    expected = vae.decode(mean + epsilon * log_variance.exp().sqrt())
    assert torch.allclose(vae.rebuild(mean, log_variance, epsilon), expected, atol=1e-6)


def dark_and_bright(count: int = 16):
    """Images (16, 16, 3): labelled dark, unlabelled half dark and half bright; and their round.

    Dark ones are so similar that D cannot memorize which of them are labelled.
    """
    pixels = torch.randint(0, 20, (2 * count, 16, 16, 3), generator=torch.Generator().manual_seed(1))
    pixels[-count // 2 :] += 235
    return a_round(pixels.to(torch.uint8), count)


@pytest.fixture
def image_sampler(monkeypatch):
    """A function that builds VAAL's sampler for dark and bright images, with narrow layers."""
    monkeypatch.setattr(vaal, "image_vae", partial(nets.image_vae, widths=(8, 8, 8, 8)))

    def make(*words: str):
        this_round = dark_and_bright()
        args = parse("EnCoDe", "--sampler_input", "images", *words)
        sampler = samplers.build(args, this_round, nn.Identity())
        assert type(sampler) is vaal.VAAL and sampler.learns and not sampler.reaches_student
        seen = Forward(sampler.look(this_round.labeled), None), Forward(sampler.look(this_round.unlabeled), None)
        return sampler, seen, this_round

    return make


def test_vaal_queries_the_images_unlike_the_labelled(image_sampler):
    sampler, seen, this_round = image_sampler("--adv_wt", "0", "--lr_disc", "0.003")
    losses = [sampler.step(*seen, noise(sampler, 32)) for _ in range(30)]
    assert losses[-1]["disc"] < losses[0]["disc"] and losses[-1]["vae"] < losses[0]["vae"]
    chosen, scores = sampler.query(8, this_round.unlabeled)
    assert sorted(chosen.tolist()) == list(range(24, 32))
    with torch.no_grad():
        expected = 1 - sampler.discriminator(sampler.vae(sampler.look(chosen))[0])[:, 0].sigmoid()
    assert torch.allclose(scores, expected, atol=1e-6)
    assert_a_sure_verdict_still_ranks(sampler, this_round)


def test_vaals_vae_is_its_adversary(image_sampler):
    """With D fixed, it moves the latent to where D takes both pools for labelled; without the term it does not."""

    def fooled(adv_wt: float) -> list[float]:
        sampler, seen, _ = image_sampler("--adv_wt", str(adv_wt), "--lr_vae", "0.005")
        sampler.optimizers["discriminator"].param_groups[0]["lr"] = 0
        sampler.discriminator[-1].weight.data.mul_(20)  # verdicts that differ
        before = [weight.detach().clone() for weight in sampler.discriminator.parameters()]
        values = []
        for _ in range(10):
            with torch.no_grad():
                verdicts = [sampler.discriminator(sampler.vae(part.x)[0])[:, 0] for part in seen]
                values.append(objective.adversarial_loss(*verdicts).item())
            sampler.step(*seen, noise(sampler, 32))
        assert all(torch.equal(old, new) for old, new in zip(before, sampler.discriminator.parameters(), strict=True))
        assert all(weight.requires_grad for weight in sampler.discriminator.parameters())
        return values

    without, with_it = fooled(0), fooled(100)
    assert without[0] == with_it[0]
    assert with_it[-1] < 0.5 * with_it[0] and with_it[-1] < 0.5 * without[-1]


def test_vaals_discriminator_is_taught_that_unlabelled_is_zero(image_sampler):
    sampler, seen, _ = image_sampler()
    sampler.optimizers["vae"].param_groups[0]["lr"] = 0
    both = torch.cat([part.x for part in seen])
    labeled, unlabeled = sampler.discriminator(sampler.vae(both)[0])[:, 0].split(16)
    expected = (-F.logsigmoid(labeled).mean() - F.logsigmoid(-unlabeled).mean()) / 2
    assert sampler.step(*seen, noise(sampler, 32))["disc"].item() == pytest.approx(expected.item(), rel=1e-4)
    updates = {name: optimizer.state_dict()["state"][0]["step"] for name, optimizer in sampler.optimizers.items()}
    assert updates == {"vae": 2, "discriminator": 1}


def test_each_update_of_vaals_vae_has_its_noise_and_the_discriminator_sees_the_last(image_sampler):
    sampler, seen, _ = image_sampler()
    drawn, latents, rebuild = [], [], sampler.vae.rebuild
    sampler.vae.rebuild = lambda mean, log_variance, noise: drawn.append(noise) or rebuild(mean, log_variance, noise)
    sampler.discriminator.register_forward_pre_hook(lambda _, inputs: latents.append(inputs[0]))
    both = noise(sampler, 32)
    sampler.step(*seen, both)
    assert len(drawn) == 2 and all(map(torch.equal, drawn, both)) and not torch.equal(*both)
    with torch.no_grad():
        mean, _ = sampler.vae(torch.cat([part.x for part in seen]))
    assert torch.equal(latents[-1], mean)


def test_the_image_vae_is_vaals():
    with torch.device("meta"):
        vae, x = nets.image_vae(64, 32), torch.empty(2, 3, 64, 64)
        mean, log_variance = vae(x)
        assert mean.shape == log_variance.shape == (2, 32) and vae.decode(mean).shape == x.shape
    convolutions = [layer for layer in vae.encode if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [128, 256, 512, 1024]
    assert {(layer.kernel_size, layer.stride) for layer in convolutions} == {((4, 4), (2, 2))}
    assert [layer.out_features for layer in nets.latent_discriminator(32)[::2]] == [512, 512, 1]
    assert vaal.VAE_STEPS == 2
    with pytest.raises(InputError, match=r"--image_size 40: .* use a multiple of 16"):
        nets.image_vae(40, 32)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_strategy_draws_on_the_cpu_from_the_seed_and_leaves_the_student_alone(name):
    """ResNet: a pass in train mode would change its batch norm statistics."""
    asked = ["--query_by", "teacher"] if SAMPLERS[name].needs_dropout else []
    args = parse("EnCoDe", "--sampler", name, *asked, model="AlexNet" if asked else "ResNet")
    this_round = a_round(torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8), 2)
    student = networks.build(args, "student").train()
    before, state = networks.fingerprint(student), torch.get_rng_state()
    sampler = samplers.build(args, this_round, student)
    assert type(sampler) is SAMPLERS[name] and sampler.generator.device.type == "cpu"
    assert networks.fingerprint(student) == before and all(layer.training for layer in student.modules())
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    again = samplers.build(args, this_round, student)
    assert networks.fingerprint(again.networks) == networks.fingerprint(sampler.networks)
    assert torch.equal(again.generator.get_state(), sampler.generator.get_state())
    this_round.number = 1
    later = samplers.build(args, this_round, student)
    assert not torch.equal(later.generator.get_state(), sampler.generator.get_state())
    if sampler.learns:
        assert networks.fingerprint(later.networks) != networks.fingerprint(sampler.networks)


def test_entropy_prefers_the_unsure_and_teacher_confidence_the_sure(images):
    logits = torch.tensor([[9.0, 0, 0], [0, 0, 0], [1, 0, 0]])
    assert entropy(logits)[1].item() == pytest.approx(torch.log(torch.tensor(3.0)).item())
    this_round = a_round(images.train, 2)
    student = nn.Module()
    student.forward = lambda x: logits[: len(x)]
    order = torch.arange(3)
    unsure = samplers.build(parse("KD", "--sampler", "entropy"), this_round, student)
    assert unsure.query(3, order)[0].tolist() == [1, 2, 0]
    targets = SimpleNamespace(logits=torch.stack([logits, logits.flip(0)]))  # the mirrors' are not asked
    confident = samplers.build(parse("KD", "--sampler", "teacher_confidence"), this_round, student, targets)
    chosen, scores = confident.query(3, order)
    assert chosen.tolist() == [0, 2, 1] and torch.equal(scores, -entropy(logits)[chosen])


def test_the_teacher_is_asked_about_the_image_itself():
    """Its cache has the mirror image's outputs as well."""
    sampler = samplers.build(parse("KD", "--sampler", "badge", "--query_by", "teacher"),
                             toys.this_round(toys.images()), None, toys.targets())  # fmt: skip
    features, logits = sampler.outputs(torch.tensor([4, 1]))
    assert features.tolist() == [[4.0] * 3, [1.0] * 3] and logits.tolist() == [[4.0, 0.0], [1.0, 0.0]]


def test_random_queries_without_replacement(images):
    """The authors drew 5,000 labels with replacement and got about 3,935 images."""

    def drawn(number: int) -> list[int]:
        sampler = samplers.build(parse("Random"), a_round(images.train, 2, number), nn.Identity())
        return sampler.query(5000, torch.arange(100, 45100))[0].tolist()

    chosen = drawn(0)
    assert len(set(chosen)) == 5000 and min(chosen) >= 100 and max(chosen) > 44000
    assert drawn(0) == chosen != drawn(1)


def test_a_query_looks_in_eval_mode_chunk_by_chunk(images):
    """Networks must not stay in train mode while querying, and memory must not grow with the pool."""
    seen = []

    class Spy(Sampler):
        def score(self, index):
            modes = self.student.training, self.networks["d"].training, torch.is_grad_enabled()
            seen.append((len(index), modes))
            return (index % 2).double()  # half of them equal

    args = parse("EnCoDe")
    sampler = Spy(args, a_round(images.train, 2), networks.build(args, "student").train(), None)
    sampler.networks["d"] = nn.Dropout()
    candidates = torch.randperm(2410, generator=source())  # the last chunk is a smaller one
    chosen, scores = sampler.query(1250, candidates)
    sizes = [CHUNK] * (2410 // CHUNK) + [2410 % CHUNK]
    assert seen == [(size, (False, False, False)) for size in sizes] and sizes[-1] > 0
    odd = [number for number in candidates.tolist() if number % 2]
    even = [number for number in candidates.tolist() if not number % 2]
    assert chosen.tolist() == odd + even[:45]  # the best first; ties in their original order
    assert scores.tolist() == [1.0] * 1205 + [0.0] * 45 and scores.dtype == torch.float32


def test_no_chunks_scores_are_kept_apart(images):
    """Pieces that stay between a network's freed activations fragment the heap: a million images took 14 GB."""
    alive = []

    class Spy(Sampler):
        def score(self, index):
            assert not [piece for piece in alive if piece() is not None]
            scores = index.float()
            alive.append(weakref.ref(scores))
            return scores

    args = parse("EnCoDe")
    sampler = Spy(args, a_round(images.train, 2), networks.build(args, "student"), None)
    sampler.query(10, torch.arange(4 * CHUNK))
    assert len(alive) == 4


STRATEGY = '''
from common.samplers.base import Sampler

class Darkest(Sampler):
    """Queries dark images."""

    def score(self, index):
        return -self.look(index).flatten(1).mean(1)
'''


@pytest.mark.slow
def test_a_new_strategy_is_a_file_and_its_line(tmp_path):
    """In a copy of the repository: the flag then offers it, and the script queries by it."""
    shutil.copytree(ROOT / "common", tmp_path / "common", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "AlexNet", tmp_path / "AlexNet")
    folder = tmp_path / "common" / "samplers"
    (folder / "darkest.py").write_text(STRATEGY, encoding="utf-8")
    registry = folder / "__init__.py"
    text = registry.read_text(encoding="utf-8")
    line = "from common.samplers.darkest import Darkest\n"
    text = text.replace("from common.samplers.encode", line + "from common.samplers.encode")
    registry.write_text(text.replace('"random": Random,', '"random": Random, "darkest": Darkest,'), encoding="utf-8")
    torch.save(networks.PAIRS["AlexNet"].teacher(10).state_dict(), tmp_path / "teacher.pt")
    words = [*TOY, *BUDGET, "--subset", "120", "--rounds", "2", "--train_epochs", "1", "--sampler", "darkest"]
    words += ["--teacher", str(tmp_path / "teacher.pt"), "--save_path", str(tmp_path)]
    # the process is forked from one with the original package
    forget = "import sys\nfor name in [name for name in sys.modules if name.split('.')[0] == 'common']:\n"
    done = launch("EnCoDe", *words, folder=tmp_path / "AlexNet" / "CIFAR10", code=forget + "    del sys.modules[name]")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "encode-seed5" / "queries.csv").open(encoding="utf-8") as file:
        scores = [float(row["score"]) for row in csv.DictReader(file) if row["round"] == "1"]
    images = data.load(parse("EnCoDe"))
    brightness = images.train[images.pool[40:]].flatten(1).float().mean(1).sub(127.5).div(127.5)
    assert scores == pytest.approx((-brightness).sort(descending=True).values[:60].tolist(), abs=1e-5)
