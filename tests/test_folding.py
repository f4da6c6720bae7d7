"""A network trained with batch norm and folded is a plain network that computes the same function."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common import augment, data, folding, networks, training
from common.augment import View
from common.errors import InputError
from common.evaluation import accuracy

from .conftest import parse

# Folding's tolerance relative to the largest value. The inverse of a pool's matrix is kept in float32.
EXACT = {
    ("AlexNet", "teacher"): (torch.float64, 1e-7),  # the pool makes 36 copies of a value
    ("AlexNet", "student"): (torch.float64, 1e-12),  # four
    ("VGG", "teacher"): (torch.float32, 1e-4),  # it blends 2x2 to 7x7; in float64 this network is too large for a test
    ("VGG", "student"): (torch.float64, 1e-12),  # it shrinks 8x8 to 7x7, which cannot be undone
}


@pytest.fixture
def dtype():
    """A function that sets torch's default dtype until the test ends."""
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def unwritten(args, part: str) -> nn.Module:
    """A plain network of NaN: what folding does not write shows."""
    with torch.device("meta"):
        net = getattr(networks.PAIRS[args.model], part)(10)
    net.to_empty(device="cpu")
    for weight in net.parameters():
        nn.init.constant_(weight, torch.nan)
    return net


def train(net: nn.Module, steps: int = 2) -> None:
    """A few updates on noise, so that weights and batch norm's statistics leave their start; then eval mode."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        loss = F.cross_entropy(net(torch.randn(8, 3, 64, 64)), torch.arange(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for layer in net.eval().modules():
        if isinstance(layer, nn.BatchNorm2d):
            with torch.no_grad():
                layer.weight.mul_(torch.empty_like(layer.weight).uniform_(0.5, 1.5))
                layer.bias.add_(torch.randn_like(layer.bias) / 10)


def off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize(("model", "part"), EXACT)
def test_folding_keeps_the_function(model, part, dtype):
    kind, tolerance = EXACT[model, part]
    dtype(kind)
    args = parse("Single", "--network", part, "--fold_bn", model=model)
    net = unwritten(args, part)
    trained = folding.with_batch_norm(args, net, 0)
    torch.manual_seed(0)
    train(trained)
    kept = networks.fingerprint(trained)
    sample, others = torch.randn(8, 3, 64, 64), torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        z, logits = trained.features(others), trained(others)
    for feature_rms in (0.1, 0):
        assert folding.fold(trained, net, sample, feature_rms) is net
        net.eval()
        with torch.no_grad():
            assert off(net(others), logits) < tolerance
            if feature_rms:
                factor = 0.1 / trained.features(sample).square().mean().sqrt()
                assert net.features(sample).square().mean().sqrt().item() == pytest.approx(0.1, rel=1e-5)
            else:
                factor = 1
            assert off(net.features(others), factor * z) < tolerance
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())
    assert networks.fingerprint(trained) == kept


def test_features_that_are_all_0_are_folded_as_they_are():
    """Regression: they have no scale, so the weights became infinite and the logits NaN."""
    args = parse("Single", "--fold_bn")
    net = networks.build(args, "student")
    trained = folding.with_batch_norm(args, net, 0).eval()
    for norm in folding._layers(trained.features, nn.BatchNorm2d):
        nn.init.constant_(norm.bias, -100)
    folding.fold(trained, net, torch.zeros(2, 3, 64, 64), 0.1)
    with torch.no_grad():
        sample = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        assert not net.eval().features(sample).any() and torch.equal(net(sample), trained(sample))


@pytest.mark.parametrize("part", ["teacher", "student"])
def test_a_network_with_its_own_batch_norm_is_refused(part):
    with pytest.raises(InputError, match=r"^--fold_bn: ResNet has its own batch norm"):
        parse("Single", "--fold_bn", "--network", part, model="ResNet")
    assert not folding.foldable("ResNet", part)
    assert folding.foldable("AlexNet", part) and folding.foldable("VGG", part)


@pytest.mark.parametrize(
    ("features", "head", "may"),
    [
        ((nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2)), (nn.Dropout(), nn.Linear(4, 2)), True),
        ((nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), (nn.Linear(4, 2),), False),
        ((nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),), (nn.Linear(4, 2),), False),  # it was trained and not copied
        ((nn.Conv2d(3, 4, 3), nn.GELU()), (nn.Linear(4, 2),), False),  # of twice z it is not twice
        ((nn.Conv2d(3, 4, 3, bias=False), nn.ReLU()), (nn.Linear(4, 2),), False),
        ((nn.Conv2d(3, 4, 3), nn.ReLU()), (nn.Sequential(nn.Linear(4, 2)),), False),
        ((nn.Conv2d(3, 4, 3), nn.ReLU()), (nn.LayerNorm(4), nn.Linear(4, 2)), False),
    ],
)
def test_only_layers_that_can_be_folded_are(features, head, may, monkeypatch):
    """Regression: a user's networks with other layers were folded into another function without an error."""

    def net(num_classes):
        return networks.SequentialNet(nn.Sequential(*features), 1, head)

    monkeypatch.setitem(networks.PAIRS, "Own", SimpleNamespace(student=net))
    assert folding.foldable("Own", "student") == may


def test_what_is_trained_has_a_batch_norm_behind_each_convolution_and_its_pool_where_it_shrinks():
    args = parse("Single", model="VGG")
    net = networks.build(args, "student")
    before = networks.fingerprint(net)
    trained = folding.with_batch_norm(args, net, 0)
    kinds = [layer for layer in trained.features if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    assert [isinstance(layer, nn.BatchNorm2d) for layer in kinds] == [False, True] * 3
    assert all(layer.bias is None for layer in kinds[::2])
    z = trained.features(torch.randn(2, 3, 64, 64))
    assert z.shape == (2, 64, 8, 8) and trained.pool(z).shape == (2, 64, 7, 7)
    assert networks.fingerprint(net) == before  # it is written by `fold` alone


def test_what_is_trained_follows_the_seed_and_the_round_whatever_is_fast():
    args = parse("Single")
    plain = copy.copy(args)
    plain.fast = "off"

    def weights(args, number: int = 0) -> str:
        net = networks.build(args, "student", number)
        nn.init.zeros_(net.classifier[2].weight)  # the plain network's own weights do not matter
        torch.rand(1)
        return networks.fingerprint(folding.with_batch_norm(args, net, number))

    assert weights(args) == weights(plain) != weights(args, 1)
    layers = folding.with_batch_norm(plain, networks.build(plain, "student"), 0).modules()
    assert not any(type(layer).__module__.startswith("common.fast") for layer in layers)


def test_dropout_is_left_out_before_the_first_linear_layer_alone():
    """On 36 copies of a value it hardly drops anything, and here no copies are made."""
    args = parse("Single", "--network", "teacher")
    trained = folding.with_batch_norm(args, unwritten(args, "teacher"), 0)
    kinds = [type(layer) for layer in trained.classifier if isinstance(layer, nn.Linear | nn.Dropout)]
    assert kinds == [nn.Linear, nn.Dropout, nn.Linear, nn.Linear]


@pytest.mark.parametrize("feature_rms", [0.1, 0.3])
def test_fit_ends_with_the_plain_network_at_its_best(first_round, feature_rms):
    words = ["--fold_bn", "--lr_task", "0.02", "--train_epochs", "2", "--feature_rms", str(feature_rms)]
    args, run, images, this_round = first_round("Single", *words)
    net = networks.build(args, "student")
    names = list(net.state_dict())
    fitted = training.fit(args, run, this_round, net)
    assert list(net.state_dict()) == names
    assert accuracy(net, images.train[images.val], images.labels[images.val]) == pytest.approx(fitted.validation)
    with torch.no_grad():
        z = net.features(augment.pixels(images.train, View(this_round.labeled)))
    assert z.square().mean().sqrt().item() == pytest.approx(feature_rms, rel=1e-4)


def test_a_distilled_student_is_folded_too_and_its_features_keep_their_size(tmp_path, teacher, monkeypatch):
    """KD's decoder and EnCoDe's sampler learn from the kept features: those of the network with batch norm."""
    seen = {}
    args = parse("EnCoDe", "--fold_bn", "--teacher", str(teacher), "--save_path", str(tmp_path))
    images = data.load(args)
    this_round = SimpleNamespace(number=0, images=images, labeled=images.pool[:40])
    net = networks.build(args, "student")
    x = augment.pixels(images.train, View(this_round.labeled))

    def trained(args, run, this_round, network, *rest):
        train(network)
        seen["z"], seen["logits"] = network.features(x), network(x)
        return network, rest

    monkeypatch.setattr(training, "train", trained)
    kept, rest = training.fit(args, None, this_round, net, "decoder", "targets", "sampler")
    assert rest == ("decoder", "targets", "sampler") and kept is not net
    assert torch.allclose(net.eval().features(x), seen["z"], rtol=1e-3, atol=1e-5)
    assert torch.allclose(net(x), seen["logits"], rtol=1e-3, atol=1e-4)


def test_without_the_flag_the_network_itself_is_trained(first_round):
    args, run, images, this_round = first_round("Single", "--feature_rms", "0.1", "--train_epochs", "1")
    net = networks.build(args, "student")
    before = [weight.detach().clone() for weight in net.parameters()]
    fitted = training.fit(args, run, this_round, net)
    assert all(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))
    assert accuracy(net, images.train[images.val], images.labels[images.val]) == pytest.approx(fitted.validation)


def test_what_is_trained_begins_with_hes_weights_and_a_small_last_layer():
    """He et al. 2015: a standard deviation of sqrt(2 / fan in), which batch norm needs no depth to find."""
    args = parse("Single", "--network", "teacher", "--fold_bn")
    trained = folding.with_batch_norm(args, networks.build(args, "teacher"), 0)
    *layers, last = [each for each in trained.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    assert len(layers) == 7 and last.weight.std().item() == pytest.approx(0.01, rel=0.02)
    for layer in layers:
        he = (2 / layer.weight[0].numel()) ** 0.5
        assert layer.weight.std().item() == pytest.approx(he, rel=0.02)
        assert layer.bias is None or not layer.bias.any()
