"""What one round of training does to the networks, seen from outside."""

import pytest
import torch
from torch import nn

from common import augment, distillation, networks, samplers, training
from common.errors import Diverged
from common.training import Session, accuracy, shuffled


def session(first_round, tmp_path, method="KD", *words):
    args, images, round = first_round(method, *words)
    decoder = targets = sampler = None
    net = networks.build(args, "student")
    if method != "Random":
        decoder = networks.build(args, "decoder")
        targets = distillation.cache(networks.build(args, "teacher"), images, tmp_path)
    if method == "EnCoDe":
        sampler = samplers.build(args, round, net, targets)
    return Session(args, round, net, decoder, targets, sampler)


def one_step(session):
    return session.step(next(session.batches()), torch.Generator().manual_seed(0))


def test_the_decoder_has_an_optimizer_and_learns(first_round, tmp_path):
    """No optimizer owned the authors' decoder."""
    s = session(first_round, tmp_path, "KD", "--lr_dec", "0.07")
    before = [weight.clone() for weight in s.decoder.parameters()]
    one_step(s)
    assert all(not torch.equal(old, new) for old, new in zip(before, s.decoder.parameters(), strict=True))
    rates = {id(weight): group["lr"] for group in s.optimizers["task"].param_groups for weight in group["params"]}
    assert {rates[id(weight)] for weight in s.decoder.parameters()} == {0.07}


def test_networks_train_in_train_mode_and_are_judged_in_eval_mode(first_round, tmp_path):
    """The authors left networks in eval mode while training."""
    s = session(first_round, tmp_path, "EnCoDe", "--train_epochs", "1")
    modes = {"steps": set(), "validation": set()}
    forward, step = s.net.maps, s.step

    def spy_step(batch, noise):
        modes["steps"].add(all(part.training for part in s.modules.modules()))
        return step(batch, noise)

    def spy_maps(x):
        if not torch.is_grad_enabled() and len(x) != s.args.batch_size:
            modes["validation"].add(s.net.training)
        return forward(x)

    s.step, s.net.maps = spy_step, spy_maps
    s.modules.eval()
    with s.round.run.bar(1, 0, "") as bar:
        s.train_epoch(bar)
    accuracy(s.net, s.images.test, s.images.test_labels)
    assert modes == {"steps": {True}, "validation": {False}}
    assert s.net.training  # judging puts the mode back


@pytest.mark.parametrize("size", [7, 8])  # an image's bytes divide by eight, or do not
def test_a_batch_is_gathered_mirrored_and_scaled_image_by_image(size):
    images = torch.randint(0, 256, (5, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = augment.batch(images, torch.tensor([3, 0, 3]), torch.tensor([True, False, False]))
    expected = [images[3].flip(1), images[0], images[3]]
    for mine, image in zip(seen, expected, strict=True):
        assert torch.allclose(mine, image.permute(2, 0, 1) / 127.5 - 1, atol=1e-6)


def test_validation_images_are_not_mirrored():
    """The authors mirrored them: a network that sees left from right must score 100% on left-bright images."""

    class LeftOrRight(nn.Module):
        def forward(self, x):
            return torch.stack([x[..., :4].sum((1, 2, 3)), x[..., 4:].sum((1, 2, 3))], dim=1)

    images = torch.zeros(64, 8, 8, 3, dtype=torch.uint8)
    images[:, :, :4] = 255
    assert accuracy(LeftOrRight(), images, torch.zeros(64, dtype=torch.long)) == 100
    assert accuracy(LeftOrRight(), images.flip(2), torch.zeros(64, dtype=torch.long)) == 0


def test_losses_are_those_of_the_paper(first_round, tmp_path):
    """The weighted sum of an update, put together by hand from the same batch."""
    s = session(first_round, tmp_path, "EnCoDe", "--warmup_epochs", "0", "--adv_wt", "0.5", "--feat_wt", "3")
    batch = next(s.batches())
    index, mirrored, _ = batch["labeled"]
    with torch.no_grad():
        z = s.net.embed(augment.batch(s.images.train, index))
        z_unlabeled = s.net.embed(augment.batch(s.images.train, batch["unlabeled"][0]))
        logits = s.net.classify(z)
        expected = {
            "ce": nn.functional.cross_entropy(logits, s.images.labels[index]),
            "feat": 3 * (s.decoder(s.net.spread(z)) - s.targets.features(index, mirrored)).square().mean(),
            "logit": 5e-5 * (logits - s.targets.logits[0, index]).square().mean(),
            "adv": 0.5 * s.sampler.adversarial(z, z_unlabeled),
        }
    losses = s.step(batch, torch.Generator().manual_seed(0))
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert losses["loss"].item() == pytest.approx(sum(expected.values()).item(), rel=1e-4)
    assert set(losses) == {"loss", *expected, "vae", "disc"}


def test_bfloat16_losses_are_near_the_float32_ones(first_round, tmp_path):
    """Emulated on most CPUs, hence the few images; what autocast must not touch is the sum that comes out."""
    words = ["--batch_size", "4", "--warmup_epochs", "0"]
    exact = one_step(session(first_round, tmp_path, "EnCoDe", *words))
    rounded = one_step(session(first_round, tmp_path, "EnCoDe", *words, "--amp", "bf16", "--expt", "bf16"))
    assert set(exact) == set(rounded)
    for name, value in exact.items():
        assert rounded[name].item() == pytest.approx(value.item(), rel=0.03, abs=1e-4), name


def test_the_adversarial_term_waits_for_the_warmup(first_round, tmp_path):
    s = session(first_round, tmp_path, "EnCoDe", "--warmup_epochs", "1")
    assert "adv" not in one_step(s)
    s.epoch = 1
    assert "adv" in one_step(s)


def test_pool_distillation_takes_its_batch_from_both_pools(first_round, tmp_path):
    s = session(first_round, tmp_path, "KD", "--distill_on", "pool")
    labeled, pooled = set(), set()
    for batch in s.batches():
        labeled |= set(batch["labeled"][0].tolist())
        pooled |= set(batch["pool"][0].tolist())
    assert labeled <= set(s.round.labeled.tolist())
    assert pooled == set(s.round.labeled.tolist()) | set(s.round.unlabeled.tolist())  # 200 draws, 160 images
    assert not pooled & set(s.images.val.tolist())


def test_an_epoch_is_the_same_number_of_updates_whatever_is_labelled(first_round, tmp_path):
    s = session(first_round, tmp_path, "Random")
    assert len(s.round.labeled) == 40 and s.updates == 200 // 40
    assert sum(1 for _ in s.batches()) == s.updates


def test_shuffled_uses_every_image_equally():
    drawn = shuffled(torch.arange(10, 15), 13, torch.Generator().manual_seed(0))
    assert drawn[:5].sort().values.tolist() == drawn[5:10].sort().values.tolist() == list(range(10, 15))
    assert len(drawn) == 13 and len(set(drawn[10:].tolist())) == 3


def test_best_validation_weights_are_kept(first_round):
    args, images, round = first_round("Random", "--train_epochs", "3", "--lr_task", "0.05")
    net = networks.build(args, "student")
    training.fit(args, round, net)
    assert accuracy(net, images.train[images.val], images.labels[images.val]) == pytest.approx(round.validation)
    history = [float(row[3]) for row in round.run.state["history"]]
    assert round.validation == pytest.approx(max(history), abs=0.01)
    assert round.best_epoch == history.index(max(history)) + 1


def test_schedules(first_round):
    args, _, _ = first_round("Random", "--step_size", "2", "--train_epochs", "5")
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    steps = training.schedule(args, optimizer, updates=3)
    rates = []
    for _ in range(15):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        steps.step()
    assert rates == pytest.approx([1.0] * 6 + [0.1] * 6 + [0.01] * 3)


def test_a_loss_that_is_not_finite_stops_the_run(first_round):
    args, _, round = first_round("Random", "--lr_task", "1e5")
    with pytest.raises(Diverged, match=r"round 1/3 .*epoch 1.*lower --lr_task 100000"):
        training.fit(args, round, networks.build(args, "student"))
    assert not (round.run.folder / "state.pt").exists()  # what was saved before stays


def test_augmentation_mirrors_shifts_and_normalizes():
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    images[:, 1, 0] = 255
    plain = augment.batch(images, torch.tensor([1]))
    assert plain.shape == (1, 3, 4, 4) and plain.is_contiguous(memory_format=torch.channels_last)
    assert plain[0, :, 1, 0].tolist() == [1, 1, 1] and plain[0, 0].sum().item() == 1 - 15
    mirrored = augment.batch(images, torch.tensor([0, 1]), torch.tensor([False, True]))
    assert torch.equal(mirrored[0], plain[0]) and torch.equal(mirrored[1], plain[0].flip(2))
    moved = augment.batch(images, torch.tensor([0]), None, torch.tensor([[1, 2]]))  # down 1, right 2
    assert moved[0, 0, 2].tolist() == [1, 1, 1, -1]  # the border is repeated
