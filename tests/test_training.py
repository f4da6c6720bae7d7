"""A round of training, what it sees, does and keeps: on a mirrored toy of known values, and on digits."""

import copy
import dataclasses
import itertools
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from common import augment, distillation, evaluation, networks, samplers, schedules, training
from common.augment import View
from common.errors import Diverged
from common.evaluation import accuracy
from common.seeds import generator
from common.streams import Batch, shuffled
from common.training import Session

from . import toys
from .toys import Quiet, toy_session


def session(first_round, tmp_path, method="KD", *words):
    """A session of AlexNet's student on digits."""
    args, run, images, this_round = first_round(method, *words)
    decoder = targets = sampler = None
    net = networks.build(args, "student")
    if method != "Random":
        decoder = networks.build(args, "decoder")
        targets = distillation.cache(networks.build(args, "teacher"), images, tmp_path)
    if method == "EnCoDe":
        sampler = samplers.build(args, this_round, net, targets)
    return Session(args, run, this_round, net, decoder, targets, sampler)


def all_of(views):
    """Every image index and mirror flag in some views, as pairs."""
    return list(itertools.chain(*(zip(v.index.tolist(), v.mirrored.tolist(), strict=True) for v in views)))


# What a batch shows


def test_training_sees_images_and_their_mirror_images_about_equally_often():
    s = toy_session("Random", "--batch_size", "8")
    flags = [mirrored for _ in range(50) for _, mirrored in all_of(b.labeled for b in s.batches())]
    assert 150 < sum(flags) < 250 and len(flags) == 400  # 400 fair coins: 5 standard deviations


def test_what_may_not_be_mirrored_is_not():
    s = toy_session("Random", mirror=False)
    assert all(batch.labeled.mirrored is None for batch in s.batches())


@pytest.mark.parametrize("words", ["", "--distill_on pool --ce_wt 0 --logit_wt 1"])
def test_passes_for_the_sampler_alone_leave_the_students_batch_norms_alone(words):
    """They would change its running statistics: EnCoDe without its term would not be KD for such a student."""
    s = toy_session("EnCoDe", *words.split())
    norm = nn.BatchNorm2d(3, momentum=0.1)
    plain, s.net.norm = s.net.features, norm
    s.net.features = lambda x: plain(norm(x))
    views = [View(torch.tensor(index), torch.tensor([False] * 3)) for index in ([0, 1, 3], [4, 5, 6], [2, 3, 7])]
    batch = Batch(views[0], unlabeled=views[1], pool=views[2] if words else None)
    spread = [augment.pixels(s.images.train, view).transpose(0, 1).flatten(1).var(1) for view in views]
    s.forward(batch, adversarial=False)
    expected = 0.9 + 0.1 * spread[2 if words else 0]  # what the student is trained on, once
    assert torch.allclose(norm.running_var, expected, atol=1e-6) and norm.momentum == 0.1
    s.forward(batch, adversarial=True)  # then it is trained on all of them
    for each in [spread[0], *([spread[2]] if words else []), spread[1]]:
        expected = 0.9 * expected + 0.1 * each
    assert torch.allclose(norm.running_var, expected, atol=1e-6)


def test_the_student_sees_what_the_view_says():
    s = toy_session("KD")
    view = View(torch.tensor([0, 1, 3]), torch.tensor([True, False, True]))
    labeled, distilled, unlabeled = s.forward(Batch(view), adversarial=False)
    assert torch.allclose(labeled.z, toys.levels(view.index, view.mirrored), atol=1e-6)
    assert labeled.y.tolist() == [0, 1, 1] and torch.equal(labeled.x, augment.pixels(s.images.train, view))
    assert distilled is labeled and unlabeled is None


def test_teacher_outputs_are_of_the_view_that_the_student_sees():
    s = toy_session("KD")
    view = View(torch.tensor([0, 1, 3]), torch.tensor([True, False, True]))
    labeled, _, _ = s.forward(Batch(view), adversarial=False)
    assert labeled.teacher.features[:, 0, 0, 0].tolist() == [100, 1, 103]
    assert labeled.teacher.logits.tolist() == [[0, 1], [1, 0], [3, 1]]


def test_pool_distillation_compares_pool_images_with_their_own_teacher_outputs():
    s = toy_session("KD", "--distill_on", "pool")
    labels = View(torch.tensor([0, 1]), torch.tensor([False, False]))
    pool = View(torch.tensor([5, 4]), torch.tensor([True, False]))
    labeled, distilled, _ = s.forward(Batch(labels, pool), adversarial=False)
    assert torch.allclose(distilled.z, toys.levels(pool.index, pool.mirrored), atol=1e-6)
    assert torch.equal(distilled.x, augment.pixels(s.images.train, pool))
    assert distilled.teacher.features[:, 0, 0, 0].tolist() == [105, 4]
    assert distilled.teacher.logits.tolist() == [[5, 1], [4, 0]]
    assert torch.allclose(labeled.z, toys.levels(labels.index, labels.mirrored), atol=1e-6)
    losses = s.step(Batch(labels, pool))
    assert losses["logit"].item() > 0


def test_pool_distillation_takes_its_batch_from_both_pools():
    s = toy_session("KD", "--distill_on", "pool", "--batch_size", "8")
    drawn = [batch for _ in range(5) for batch in s.batches()]
    assert {index for index, _ in all_of(batch.labeled for batch in drawn)} == set(s.round.labeled.tolist())
    pool = {index for index, _ in all_of(batch.pool for batch in drawn)}
    assert pool == set(s.images.pool.tolist()) and not pool & set(s.images.val.tolist())


def test_the_samplers_stream_is_unlabelled():
    s = toy_session("EnCoDe", "--batch_size", "8")
    drawn = [batch for _ in range(5) for batch in s.batches()]
    assert {index for index, _ in all_of(batch.unlabeled for batch in drawn)} == set(s.round.unlabeled.tolist())
    view = drawn[0].unlabeled
    _, _, unlabeled = s.forward(drawn[0], adversarial=True)
    assert torch.allclose(unlabeled.z, toys.levels(view.index, view.mirrored), atol=1e-6)
    s.sampler.reaches_student = False  # like VAAL's: it looks at the images, z is not used
    _, _, unlabeled = s.forward(drawn[0], adversarial=False)
    assert unlabeled.z is None and torch.equal(unlabeled.x, augment.pixels(s.images.train, view))


def test_the_pool_that_is_distilled_leaves_out_bought_validation_images():
    s = toy_session("KD", "--distill_on", "pool", "--batch_size", "8")
    s.round.images = dataclasses.replace(s.images, pool=torch.arange(8))  # --val_labels bought: 6 and 7 are in it
    seen = {index for index, _ in all_of(batch.pool for batch in s.batches())}
    assert seen == set(range(6))


def test_streams_of_equal_pools_are_drawn_apart():
    """Same places of two pools in the same views would tie the sampler's two batches together."""
    s = toy_session("EnCoDe", "--batch_size", "8", "--distill_on", "pool")
    s.args.shift = 2
    s.round.labeled = s.round.unlabeled = s.images.pool
    batch = next(s.batches())
    for one, other in itertools.combinations([batch.labeled, batch.pool, batch.unlabeled], 2):
        same = [torch.equal(getattr(one, part), getattr(other, part)) for part in ("index", "mirrored", "offsets")]
        assert same == [False] * 3


def test_shifts_go_both_ways_and_reach_the_bound():
    s = toy_session("Random", "--shift", "2", "--batch_size", "8")
    offsets = torch.cat([batch.labeled.offsets for _ in range(30) for batch in s.batches()])
    assert offsets.shape[1] == 2 and all(set(column.tolist()) == {-2, -1, 0, 1, 2} for column in offsets.T)
    assert all(batch.labeled.offsets is None for batch in toy_session("Random").batches())


def test_a_stream_more_does_not_change_the_others():
    kd, encode = toy_session("KD"), toy_session("EnCoDe")
    pairs = zip(kd.batches(), encode.batches(), strict=True)
    assert all(torch.equal(a.labeled.index, b.labeled.index) for a, b in pairs)
    assert all(torch.equal(a.labeled.mirrored, b.labeled.mirrored) for a, b in zip(kd.batches(), encode.batches()))  # noqa: B905


def test_each_epoch_is_another_draw_that_follows_from_the_seed():
    s, again, other = (toy_session("Random", "--seed", seed) for seed in ("1", "1", "2"))
    drawn = [[batch.labeled.mirrored.tolist() for batch in each.batches()] for each in (s, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    for each in (s, again):
        each.args.shift = 3
    pairs = zip(s.batches(), again.batches(), strict=True)
    assert all(torch.equal(a.labeled.offsets, b.labeled.offsets) for a, b in pairs)
    s.args.shift = 0
    s.epoch = 1
    assert [batch.labeled.mirrored.tolist() for batch in s.batches()] != drawn[0]


def test_the_samplers_noise_is_drawn_update_by_update_from_seed_round_and_epoch():
    """One draw per image of both pools: an update's numbers do not depend on how many updates there are."""
    s = toy_session("EnCoDe", "--seed", "7", "--latent_dim", "5")
    s.round.number, s.epoch, s.sampler.draws = 3, 2, 2
    source = generator(7, "noise", 3, 2)
    expected = [torch.stack([torch.randn(4, 5, generator=source) for _ in range(2)]) for _ in range(4)]
    assert all(torch.equal(batch.noise, noise) for batch, noise in zip(s.batches(), expected, strict=True))
    s.sampler.draws = 0
    assert all(batch.noise is None for batch in s.batches())
    assert all(batch.noise is None for batch in toy_session("KD").batches())


def test_batches_lie_where_the_images_are():
    s = toy_session("EnCoDe")
    s.images.train = s.images.train.to("meta")
    batch = next(s.batches())
    assert {tensor.device.type for tensor in (*batch.labeled[:2], *batch.unlabeled[:2], batch.noise)} == {"meta"}


def test_an_epoch_is_the_same_number_of_updates_whatever_is_labelled():
    for labeled in (1, 2, 6):
        s = toy_session("Random", labeled=labeled)
        assert s.updates == 8 // 2 and [len(batch.labeled.index) for batch in s.batches()] == [2] * 4


def test_shuffled_uses_every_image_equally():
    drawn = shuffled(torch.arange(10, 15), 13, torch.Generator().manual_seed(0))
    assert drawn[:5].sort().values.tolist() == drawn[5:10].sort().values.tolist() == list(range(10, 15))
    assert len(drawn) == 13 and len(set(drawn[10:].tolist())) == 3
    assert drawn[:5].tolist() != drawn[5:10].tolist()


# What an update does


def one_step(s):
    return s.step(next(s.batches()))


def test_the_losses_of_an_update_are_those_of_the_objective():
    """Cross entropy, features and logits from the toy's known values; their sum is minimized."""
    s = toy_session("KD", "--feat_wt", "3", "--logit_wt", "0.5")
    with torch.no_grad():
        s.decoder.weight.copy_(torch.eye(3)[:, :, None, None])
        s.decoder.bias.zero_()
    view = View(torch.tensor([0, 3]), torch.tensor([True, False]))
    z = toys.levels(view.index, view.mirrored)
    logits = nn.functional.linear(z.flatten(1), s.net.linear.weight, s.net.linear.bias).detach()
    targets = torch.tensor([100.0, 3.0])[:, None, None, None]
    expected = {
        "ce": -logits.log_softmax(1)[torch.arange(2), torch.tensor([0, 1])].mean().item(),
        "feat": 3 * (z - targets).square().mean().item(),
        "logit": 0.5 * (logits - torch.tensor([[0.0, 1.0], [3.0, 0.0]])).square().mean().item(),
    }
    losses = {name: value.item() for name, value in s.step(Batch(view)).items()}
    assert losses == pytest.approx({"loss": sum(expected.values()), **expected}, rel=1e-5)


def test_label_smoothing_reaches_the_loss():
    found = []
    for words in ([], ["--label_smoothing", "0.3"]):
        s = toy_session("Random", *words)
        nn.init.zeros_(s.net.linear.weight)
        s.net.linear.bias.data = torch.tensor([math.log(3), 0.0])  # probabilities 3/4, 1/4
        found.append(s.step(Batch(View(torch.tensor([0, 2]))))["ce"].item())  # both of class 0
    assert found == pytest.approx([math.log(4 / 3), 0.85 * math.log(4 / 3) + 0.15 * math.log(4)], rel=1e-5)


def sgd_by_hand(weight, gradients, lr, decay, nesterov):
    """Sutskever et al. 2013 as torch implements it: momentum 0.9."""
    velocity = torch.zeros_like(weight)
    for number, gradient in enumerate(gradients):
        gradient = gradient + decay * weight
        velocity = gradient if number == 0 else 0.9 * velocity + gradient
        weight = weight - lr * (gradient + 0.9 * velocity if nesterov else velocity)
    return weight


@pytest.mark.parametrize("words", [[], ["--nesterov"], ["--weight_decay", "0.3"]])
def test_updates_are_sgd_with_momentum_weight_decay_and_nesterov(words):
    s = toy_session("Random", "--lr_task", "0.1", "--schedule", "step", *words)
    before, gradients = s.net.linear.weight.detach().clone(), []
    for batch in itertools.islice(s.batches(), 3):
        s.step(batch)
        gradients.append(s.net.linear.weight.grad.clone())
    decay = 0.3 if "--weight_decay" in words else 5e-4
    expected = sgd_by_hand(before, gradients, 0.1, decay, "--nesterov" in words)
    assert torch.allclose(s.net.linear.weight, expected, rtol=1e-5, atol=1e-7)


def test_the_decoder_has_an_optimizer_and_a_rate_of_its_own():
    """The authors' decoder had no optimizer."""
    s = toy_session("KD", "--lr_dec", "0.07", "--lr_task", "0.02")
    before = [weight.clone() for weight in s.decoder.parameters()]
    one_step(s)
    assert all(not torch.equal(old, new) for old, new in zip(before, s.decoder.parameters(), strict=True))
    rates = {id(weight): group["lr"] for group in s.optimizers["task"].param_groups for weight in group["params"]}
    assert {rates[id(weight)] for weight in s.decoder.parameters()} == {0.07}
    assert {rates[id(weight)] for weight in s.net.parameters()} == {0.02}


def test_the_decoders_updates_have_the_same_momentum_and_weight_decay():
    s = toy_session("KD", "--lr_dec", "0.001", "--weight_decay", "0.3", "--schedule", "step")
    before, gradients = s.decoder.weight.detach().clone(), []
    for batch in itertools.islice(s.batches(), 3):
        s.step(batch)
        gradients.append(s.decoder.weight.grad.clone())
    assert torch.allclose(s.decoder.weight, sgd_by_hand(before, gradients, 0.001, 0.3, False), rtol=1e-5, atol=1e-7)


def test_gradients_of_one_update_do_not_leak_into_the_next():
    s = toy_session("Random", "--lr_task", "1e-9")
    batch = next(s.batches())
    s.step(batch)
    first = s.net.linear.weight.grad.clone()
    s.step(batch)
    assert torch.allclose(s.net.linear.weight.grad, first, rtol=1e-4, atol=1e-7)


def test_the_adversarial_term_waits_for_the_warmup_and_then_reaches_the_student():
    s = toy_session("EnCoDe", "--warmup_epochs", "1", "--train_epochs", "3")
    assert set(one_step(s)) == {"loss", "ce", "feat", "logit", "vae", "disc"}
    s.epoch = 1
    batch = next(s.batches())
    with_term = s.step(batch)
    assert "adv" in with_term and with_term["adv"].item() == pytest.approx(0.01 * math.log(2), rel=0.2)
    labeled, _, unlabeled = s.forward(batch, adversarial=True)
    assert unlabeled.z.requires_grad and labeled.z.requires_grad
    assert not s.forward(batch, adversarial=False)[2].z.requires_grad


def test_a_term_of_weight_0_is_left_out_of_the_step():
    s = toy_session("EnCoDe", "--warmup_epochs", "0", "--adv_wt", "0", "--feat_wt", "0", "--ce_wt", "0")
    adversarial, forward = [], s.forward
    s.forward = lambda batch, flag: adversarial.append(flag) or forward(batch, flag)
    assert set(one_step(s)) == {"loss", "logit", "vae", "disc"} and adversarial == [False]


def test_the_sampler_learns_beside_the_student_and_only_where_a_pool_is_left():
    s = toy_session("EnCoDe")
    before = copy.deepcopy(s.sampler.networks.state_dict())
    one_step(s)
    after = s.sampler.networks.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert toy_session("EnCoDe", labeled=6).sampler is None


def test_what_a_bfloat16_step_reports_is_near_float32():
    exact, rounded = (one_step(toy_session("EnCoDe", "--warmup_epochs", "0", "--amp", amp)) for amp in ("off", "bf16"))
    assert set(exact) == set(rounded) and all(value.dtype == torch.float32 for value in rounded.values())
    for name, value in exact.items():
        assert rounded[name].item() == pytest.approx(value.item(), rel=0.03, abs=1e-3), name
    assert rounded["ce"].item() != exact["ce"].item()


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_the_discriminator_sees_the_vae_after_its_step(amp):
    """Regression: autocast cached the rounded weights from before that step for the whole sampler update."""
    s = toy_session("EnCoDe", "--amp", amp)
    latents, features = [], []
    s.sampler.discriminator.register_forward_pre_hook(lambda _, inputs: latents.append(inputs[0]))
    s.sampler.vae.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    one_step(s)
    with s._autocast(), torch.no_grad():
        assert torch.equal(latents[-1], s.sampler.vae(features[-1])[0])


def test_the_vae_rebuilds_with_the_batchs_noise():
    s = toy_session("EnCoDe")
    drawn, rebuild = [], s.sampler.vae.rebuild
    s.sampler.vae.rebuild = lambda mean, log_variance, noise: drawn.append(noise) or rebuild(mean, log_variance, noise)
    batch = next(s.batches())
    s.step(batch)
    assert len(drawn) == 1 and torch.equal(drawn[0], batch.noise[0]) and batch.noise.std() > 0.5


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_reduced_precision_is_bfloat16_on_every_device():
    """On a GPU torch's default would be float16, whose small gradients vanish."""
    s = toy_session("Random", "--amp", "bf16")
    s.images = SimpleNamespace(device=torch.device("cuda"))
    assert s._autocast().fast_dtype == torch.bfloat16


# Schedules


def rates(words, updates, epochs):
    flags = toys.flags("Random", "--train_epochs", str(epochs), *words)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    steps, found = schedules.of(flags, optimizer, updates), []
    for _ in range(updates * epochs):
        assert optimizer.param_groups[0]["momentum"] == 0.9
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        steps.step()
    return found


def test_the_step_schedule_drops_to_a_tenth_at_the_epochs_that_it_names():
    assert rates(["--step_size", "2"], 3, 5) == pytest.approx([1.0] * 6 + [0.1] * 6 + [0.01] * 3)


def test_onecycle_rises_for_a_quarter_from_a_tenth_and_falls_to_a_thousandth():
    """Cosine both ways, over 41 points, the last of which is not used."""
    found = rates(["--schedule", "onecycle"], 4, 10)
    top = 0.25 * 41 - 1
    end = 40
    expected = []
    for update in range(40):
        if update <= top:
            share = (1 + math.cos(math.pi * update / top)) / 2
            expected.append(1 + (0.1 - 1) * share)
        else:
            share = (1 + math.cos(math.pi * (update - top) / (end - top))) / 2
            expected.append(0.001 + (1 - 0.001) * share)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("updates", range(1, 9))
def test_onecycle_of_a_few_updates_begins_low_and_rises(updates):
    """Regression: three updates gave a rise of zero length and a division by zero."""
    found = rates(["--schedule", "onecycle"], updates, 1)
    assert found[0] == pytest.approx(0.1) and max(found) <= 1 + 1e-6
    assert updates == 1 or max(found) > 0.9


def test_the_schedule_moves_once_an_update(tmp_path):
    s = toy_session("Random", "--step_size", "1", "--train_epochs", "2", "--lr_task", "0.5", run=Quiet())
    s.train_epoch(Quiet())
    assert s.optimizers["task"].param_groups[0]["lr"] == pytest.approx(0.05)


def test_each_update_has_the_schedules_rate_for_it():
    words = ["--schedule", "onecycle"]
    s = toy_session("Random", "--train_epochs", "2", "--lr_task", "1", *words, run=Quiet())
    found, step = [], s.step
    s.step = lambda batch: found.append(s.optimizers["task"].param_groups[0]["lr"]) or step(batch)
    for _ in range(2):
        s.train_epoch(Quiet())
    assert found == pytest.approx(rates(words, updates=4, epochs=2))


# What a round keeps


def scripted(monkeypatch, s, accuracies):
    """Makes validation return these accuracies, one per epoch, and records the weights at each."""
    weights, found = [], iter(accuracies)

    def judged(net, images, labels):
        weights.append(net.linear.weight.detach().clone())
        return next(found)

    monkeypatch.setattr(evaluation, "accuracy", judged)
    return weights


def test_the_best_validation_weights_are_kept_the_earliest_of_equals(monkeypatch):
    s = toy_session("Random", "--train_epochs", "4", "--lr_task", "0.1", run=Quiet())
    weights = scripted(monkeypatch, s, [40.0, 60.0, 60.0, 50.0])
    for _ in range(4):
        s.train_epoch(Quiet())
    fitted = s.restore_kept()
    assert (fitted.best_epoch, fitted.validation, fitted.updates) == (2, 60.0, 16)
    assert torch.equal(s.net.linear.weight, weights[1]) and not torch.equal(weights[1], weights[2])
    assert [row["val_accuracy"] for row in s.run.rows] == ["40.00", "60.00", "60.00", "50.00"]
    assert [row["epoch"] for row in s.run.rows] == [1, 2, 3, 4]


def test_the_sampler_is_put_back_with_the_best_weights(monkeypatch):
    s = toy_session("EnCoDe", "--train_epochs", "2", "--lr_task", "1e-3", "--feat_wt", "0", run=Quiet())
    scripted(monkeypatch, s, [60.0, 50.0])
    s.train_epoch(Quiet())
    then = copy.deepcopy(s.sampler.networks.state_dict())
    s.train_epoch(Quiet())
    s.restore_kept()
    assert all(torch.equal(then[name], value) for name, value in s.sampler.networks.state_dict().items())


def test_validation_is_of_the_held_out_images(monkeypatch):
    seen = []
    monkeypatch.setattr(evaluation, "accuracy", lambda net, images, labels: seen.append((images, labels)) or 50.0)
    s = toy_session("Random", run=Quiet())
    s.train_epoch(Quiet())
    (images, labels), data = *seen, s.images
    assert torch.equal(images, data.train[6:]) and labels.tolist() == [0, 1]


class LeftBright(nn.Module):
    """Class 0 if an image's left half is brighter: tells an image from its mirror image."""

    def forward(self, x):
        return torch.stack([x[..., :4].sum((1, 2, 3)), x[..., 4:].sum((1, 2, 3))], dim=1)


def test_accuracy_is_of_unmirrored_images_in_eval_mode_in_percent():
    """The authors mirrored validation images."""
    images = torch.zeros(300, 8, 8, 3, dtype=torch.uint8)
    images[:, :, :4] = 255
    labels = torch.zeros(300, dtype=torch.long)
    labels[:75] = 1
    net = LeftBright().train()
    assert accuracy(net, images, labels) == 75 and accuracy(net, images.flip(2), labels) == 25
    assert net.training
    modes = []
    net.register_forward_pre_hook(lambda module, _: modes.append((module.training, torch.is_grad_enabled())))
    accuracy(net, images, labels)
    assert set(modes) == {(False, False)}


def test_networks_train_in_train_mode(monkeypatch):
    """The authors left networks in eval mode while training."""
    s, modes = toy_session("EnCoDe", "--feat_wt", "0", run=Quiet()), []
    monkeypatch.setattr(evaluation, "accuracy", lambda *_: 50.0)
    step = s.step
    s.step = lambda *batch: modes.append(all(part.training for part in s.modules.modules())) or step(*batch)
    s.modules.eval()
    s.train_epoch(Quiet())
    assert modes == [True] * s.updates


def test_a_mean_over_the_epoch_is_logged(monkeypatch):
    s = toy_session("Random", run=Quiet())
    monkeypatch.setattr(evaluation, "accuracy", lambda *_: 50.0)
    losses, step = [], s.step
    s.step = lambda *batch: losses.append(step(*batch)) or losses[-1]
    s.train_epoch(Quiet())
    mean = sum(each["loss"].item() for each in losses) / 4
    assert float(s.run.rows[0]["loss"]) == pytest.approx(mean, rel=1e-5)
    assert "epoch 1/2" in s.run.message and "val 50.00" in s.run.message


def test_a_loss_that_is_not_finite_stops_the_run(first_round, tmp_path):
    args, run, _, this_round = first_round("Random", "--lr_task", "1e5")
    with pytest.raises(Diverged, match=r"round 1/3 .*epoch 1.*lower --lr_task 100000"):
        training.fit(args, run, this_round, networks.build(args, "student"))
    assert not (run.folder / "state.pt").exists()  # what was saved before is kept


def test_a_diverged_run_names_what_could_be_lowered():
    words = ["--lr_task", "0.1", "--lr_dec", "0.2", "--feat_wt", "5", "--lr_disc", "0.3", "--adv_wt", "0.4"]
    advice = [", --lr_dec 0.2 or --feat_wt 5.0", ", --lr_disc 0.3 or --adv_wt 0.4, --lr_vae 0.0005"]
    losses = {"ce": torch.tensor(1.0), "feat": torch.tensor(math.nan), "loss": torch.tensor(math.inf)}
    for method, count in (("Random", 0), ("KD", 1), ("EnCoDe", 2)):
        s = toy_session(method, *words[: [2, 6, 10][count]])
        s.epoch = 1
        with pytest.raises(Diverged) as stopped:
            s._read(losses, 1)
        assert str(stopped.value) == (
            "round 1/1, epoch 2: loss is not finite (feat, loss); lower --lr_task 0.1"
            f"{''.join(advice[:count])} and start under another --expt"
        )


def test_a_diverged_run_says_the_same_in_another_process():
    error = pickle.loads(pickle.dumps(Diverged("epoch 2", "--lr_task 3")))
    assert str(error) == "epoch 2; lower --lr_task 3 and start under another --expt"


def test_fit_ends_with_the_weights_whose_accuracy_it_reports(first_round):
    args, run, images, this_round = first_round("Random", "--train_epochs", "3", "--lr_task", "0.05")
    net = networks.build(args, "student")
    fitted = training.fit(args, run, this_round, net)
    assert accuracy(net, images.train[images.val], images.labels[images.val]) == pytest.approx(fitted.validation)
    history = [float(value) for value in run.state["history"]["val_accuracy"]]
    assert fitted.validation == pytest.approx(max(history), abs=0.01)
    assert fitted.best_epoch == history.index(max(history)) + 1


def test_a_round_is_recorded_with_what_it_was_trained_on(first_round, monkeypatch):
    args, run, images, this_round = first_round("Random")
    net, lines = networks.build(args, "student"), []
    monkeypatch.setattr(run, "log", lines.append)
    monkeypatch.setattr(evaluation, "hardly_better", lambda labels: 0)  # the network is untrained
    monkeypatch.setattr(evaluation.machine, "peak_memory", lambda device: {"peak_memory_mb": 12.6})
    run.round_changed = "threads 1 > 2"
    logits = torch.zeros(2, len(images.train), 10)
    right = evaluation.predict(net, images.train[images.val])
    logits[0, images.val, torch.where(torch.arange(40) < 30, right, (right + 1) % 10)] = 1  # 30 of 40 as the student
    targets = distillation.Targets(None, None, logits, "81.00", seen=images.origin[images.val[:30].cpu()])
    tested = evaluation.record(args, run, this_round, net, evaluation.Fitted(2, 61.5, 1830.0, 549), targets)
    assert tested == accuracy(net, images.test, images.test_labels)
    row = run.last("results")
    assert (row["labeled"], row["percent"], row["best_epoch"], row["updates"]) == (40, "20", 2, 549)
    assert row["labels_in_all"] == 80  # 40 of these validate, the teacher saw 30 of them
    assert (row["val_accuracy"], row["teacher_accuracy"], row["method"]) == ("61.50", "81.00", "Random")
    assert row["agreement"] == "75.00"
    assert row["test_accuracy"] == f"{tested:.2f}" and row["sampler"] == "random" and row["logit_loss"] == ""
    assert run.last("timing") == {
        "round": 0, "train_seconds": "1830.0", "images_per_second": "12", "query_seconds": "",
        "peak_memory_mb": "13", "peak_gpu_memory_mb": "", "device": "cpu", "threads": 1, "changed": "threads 1 > 2",
    }  # fmt: skip
    kept = torch.load(run.folder / "round_00.pt", weights_only=True)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in kept["state_dict"].items())
    assert kept["record"]["labeled"] == 40
    with np.load(run.folder / "predictions_00.npz") as columns:
        assert {name: column.dtype for name, column in columns.items()} == {"predicted": np.uint8, "labels": np.uint8}
        assert columns["labels"].tolist() == images.test_labels.tolist()
        assert columns["predicted"].tolist() == evaluation.predict(net, images.test).tolist()
        assert 100 * np.mean(columns["predicted"] == columns["labels"]) == pytest.approx(tested)
    said = f"test accuracy {tested:.2f}% (validation 61.50% at epoch 2), trained in 1830 s"
    assert lines == [f"{this_round.label}: {said}, about 1:01:00 left"]  # two rounds as long
    this_round.number = 2
    evaluation.record(args, run, this_round, net, evaluation.Fitted(2, 61.5, 1830.0, 549))
    assert lines[1:] == [f"{this_round.label}: {said}"]


def test_agreement_is_with_the_teachers_class_of_the_image_itself():
    """Not of its mirror image, nor of the mean of its views."""
    s = toy_session("KD")
    logits = torch.zeros(2, toys.COUNT, 2)
    logits[0, 6:, 1], logits[1, 6:, 0] = 1.0, 3.0  # the image's own class is 1, its mirror image's and the mean's 0
    s.net.linear.bias.data = torch.tensor([-100.0, 100.0])
    assert evaluation.agreement(s.net, s.images, dataclasses.replace(s.targets, logits=logits)) == 100


def test_a_training_that_failed_is_mentioned(first_round, monkeypatch, capsys):
    """Of 10 equal classes up to 23.5%, of 2 up to 57.5%; of one with 4 of 5 images and two others up to 83%.

    Regression: a student that fell to one class for all images was a row among others.
    """
    of = [torch.arange(20) % 10, torch.arange(20) % 2, torch.tensor([0] * 8 + [1, 2])]
    assert [evaluation.hardly_better(labels) for labels in of] == pytest.approx([23.5, 57.5, 83])
    args, run, images, this_round = first_round("Random", "--lr_task", "0.3")
    images.test_labels = torch.arange(len(images.test)) % 10
    net, fitted = networks.build(args, "student"), evaluation.Fitted(1, 50.0, 1.0, 1)
    for share, said in ((0.2, True), (0.3, False)):
        right = torch.arange(len(images.test)) < share * len(images.test)
        predicted = torch.where(right, images.test_labels, images.test_labels - 1)
        monkeypatch.setattr(evaluation, "predict", lambda *_, predicted=predicted: predicted)
        capsys.readouterr()
        evaluation.record(args, run, this_round, net, fitted, rate="--teacher_lr")
        note = "% is hardly better than guessing: this training failed; lower --teacher_lr (here 0.3), or train longer"
        assert (note in capsys.readouterr().out) == said


@pytest.mark.parametrize(
    ("method", "words", "network"), [("Single", ["--network", "teacher"], "teacher"), ("KD", [], "student")]
)
def test_a_row_names_the_network_that_was_trained(method, words, network, first_round):
    args, run, _, this_round = first_round(method, *words)
    evaluation.record(args, run, this_round, networks.build(args, "student"), evaluation.Fitted(1, 50.0, 1.0, 1))
    row = run.last("results")
    assert row["network"] == network and row["teacher_accuracy"] == row["agreement"] == ""


@pytest.mark.slow
def test_the_losses_of_the_real_networks_are_the_objectives(first_round, tmp_path):
    """AlexNet's pair with a cached teacher, computed by hand from the same batch."""
    s = session(first_round, tmp_path, "EnCoDe", "--warmup_epochs", "0", "--adv_wt", "0.5", "--feat_wt", "3")
    batch = next(s.batches())
    with torch.no_grad():
        z = s.net.features(augment.pixels(s.images.train, batch.labeled))
        z_unlabeled = s.net.features(augment.pixels(s.images.train, batch.unlabeled))
        logits, index = s.net.classifier(z), batch.labeled.index
        teacher = s.targets.of(batch.labeled)
        verdicts = s.sampler.judge(z), s.sampler.judge(z_unlabeled)
        expected = {
            "ce": nn.functional.cross_entropy(logits, s.images.labels[index]),
            "feat": 3 * (s.decoder(z) - teacher.features).square().mean(),
            "logit": 5e-5 * (logits - s.targets.logits[0, index]).square().mean(),
            "adv": -0.25 * sum(nn.functional.logsigmoid(verdict).mean() for verdict in verdicts),
        }
    losses = s.step(batch)
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert losses["loss"].item() == pytest.approx(sum(expected.values()).item(), rel=1e-4)
    assert set(losses) == {"loss", *expected, "vae", "disc"}
