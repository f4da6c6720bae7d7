"""The networks match the paper and torchvision: sizes, names, functions; weights follow the seed."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from common import checks, networks
from common.errors import InputError

from .conftest import MODELS, parse

# Parameters and multiply-accumulates an image; the shape of z, and of what is distilled: z after the average pool.
PARTS = {
    ("AlexNet", "teacher"): (57_044_810, 94_089_920, (256, 1, 1), (256, 6, 6)),
    ("AlexNet", "student"): (600_714, 1_361_240, (32, 3, 3), (32, 6, 6)),
    ("VGG", "teacher"): (128_807_306, 730_636_288, (512, 2, 2), (512, 7, 7)),
    ("VGG", "student"): (1_634_858, 9_278_464, (64, 8, 8), (64, 7, 7)),
    ("ResNet", "teacher"): (11_173_962, 555_422_720, (512, 4, 4), (512, 4, 4)),
    ("ResNet", "student"): (78_042, 12_501_632, (64, 4, 4), (64, 4, 4)),
}
NAMES = {
    "AlexNet": ["features.0", "features.3", "classifier.0", "classifier.2"],
    "VGG": ["features.0", "features.3", "features.5", "classifier.0", "classifier.2"],
}


def original(model: str) -> nn.Module:
    """torchvision's network of 10 classes; ResNet-18 with a 3x3 stem and without the first max pool."""
    net = {"AlexNet": models.alexnet, "VGG": models.vgg11, "ResNet": models.resnet18}[model](num_classes=10)
    if model == "ResNet":
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return net


@pytest.mark.parametrize(("model", "part"), PARTS)
def test_sizes_and_shapes_are_the_designs(model, part):
    parameters, macs, z_shape, pooled = PARTS[model, part]
    pair = networks.PAIRS[model]
    assert networks.cost(model, part, 10, pair.IMAGE_SIZE) == (parameters, macs)
    with torch.device("meta"):
        net = getattr(pair, part)(7)
        z = net.features(torch.empty(2, 3, pair.IMAGE_SIZE, pair.IMAGE_SIZE))
        assert z.shape == (2, *z_shape)
        assert net.pool(z).shape == (2, *pooled)
        assert net.classifier(z).shape == (2, 7)
        if part == "student":
            assert pair.decoder()(z).shape == (2, *PARTS[model, "teacher"][3])


@pytest.mark.parametrize(
    ("found", "kept", "same"),
    [
        ([1.0, -50.0], [1.49, -50.0], True),  # 1% of the largest
        ([1.0, -50.0], [1.51, -50.0], False),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([0.0, 1e-9], [0.0, 0.0], False),
        ([math.nan, 1.0], [math.nan, 1.0], True),
        ([math.nan, 1.0], [1.0, 1.0], False),
        ([5.0, math.inf], [-3.0, math.inf], False),
        ([5.0, math.inf], [5.0, math.inf], True),
        ([math.nan] * 2, [math.nan] * 2, True),
        ([1.0, 1.0], [1.0], False),
        ([1.0], [], False),
    ],
)
def test_which_logits_are_the_same_but_for_rounding(found, kept, same):
    assert networks.near(torch.tensor(found), torch.tensor(kept)) is same


def test_a_probe_is_of_eval_mode_in_float32_and_changes_nothing():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2))
    state = copy.deepcopy(net.state_dict())
    generator = torch.get_rng_state()
    found = networks.probe(net, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert networks.probe(net, 8) == found == networks.probe(net.eval(), 8)
    assert len(found) == 2
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    torch.set_default_dtype(torch.float64)
    try:
        assert networks.probe(net, 8) == found
    finally:
        torch.set_default_dtype(torch.float32)


def test_cost_leaves_nothing_behind():
    """Counted on shapes alone: no random numbers, no weights, at any size."""
    state = torch.get_rng_state()
    parameters, macs = networks.cost("AlexNet", "student", 3, 128)
    assert parameters == PARTS["AlexNet", "student"][0] - 7 * 513 and macs > 2 * PARTS["AlexNet", "student"][1]
    assert torch.equal(torch.get_rng_state(), state) and torch.empty(1).device.type == "cpu"


@pytest.mark.parametrize("model", MODELS)
def test_a_teacher_is_torchvisions(model):
    """Its names in their order, its function, and the features that are distilled, after its own average pool."""
    with torch.device("meta"):
        teacher, theirs = networks.PAIRS[model].teacher(10).eval(), original(model).eval()
    teacher.to_empty(device="cpu")
    drawn = torch.randn(10_007, generator=torch.Generator().manual_seed(0))
    for tensor in teacher.state_dict().values():  # repeated numbers suffice and are faster than initial weights
        width = max(tensor[0].numel(), 1) if tensor.dim() > 1 else 100
        tensor.copy_(drawn.repeat(tensor.numel() // len(drawn) + 1)[: tensor.numel()].view(tensor.shape) / width**0.5)
    for name, tensor in teacher.named_buffers():
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    assert list(teacher.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(teacher.state_dict(), assign=True)
    size = networks.PAIRS[model].IMAGE_SIZE
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(teacher(x), theirs(x))
        cut = -1 if model != "ResNet" else -2  # before the flattening; ResNet's average is its classifier's
        features = nn.Sequential(*list(theirs.children())[:cut])(x)
        assert torch.equal(teacher.pool(teacher.features(x)), features) and features.std() > 0


@pytest.mark.parametrize(
    ("parts", "changed", "said"),
    [
        (("student", "teacher", "decoder"), {}, ""),
        (("student", "teacher", "decoder"), {"decoder": lambda: nn.AdaptiveAvgPool2d(6)},
         "its decoder makes (1, 32, 6, 6) of a batch of (1, 32, 3, 3), wanted is (1, 256, 6, 6)"),
        (("student", "teacher", "decoder"), {"decoder": lambda: nn.Conv2d(16, 256, 1)},
         "its decoder does not take a batch of (1, 32, 3, 3) (Invalid channel dimensions)"),
        (("student", "teacher"), {"decoder": lambda: None}, ""),  # no features are distilled
        (("teacher",), {"teacher": lambda classes: networks.PAIRS["AlexNet"].teacher(classes - 1)},
         "its teacher makes (1, 9) of a batch of (1, 3, 64, 64), wanted is (1, 10)"),
    ],
)  # fmt: skip
def test_a_pair_that_does_not_fit_is_refused_before_its_teacher_is_trained(parts, changed, said, monkeypatch):
    pair = SimpleNamespace(**{**vars(networks.PAIRS["AlexNet"]), **changed})
    monkeypatch.setitem(networks.PAIRS, "Odd", pair)
    assert networks.misfit.__wrapped__("Odd", 64, 10, parts) == said


@pytest.mark.parametrize(
    ("method", "words", "parts"),
    [
        ("KD", [], ("student", "teacher", "decoder")),
        ("KD", ["--feat_wt", "0", "--logit_wt", "1"], ("student", "teacher")),
        ("Random", [], ("student",)),
        ("Single", ["--network", "teacher"], ("teacher",)),
    ],
)
def test_the_parts_that_a_run_uses_are_looked_at(method, words, parts, monkeypatch):
    monkeypatch.setattr(networks, "misfit", lambda *found: str(found))
    with pytest.raises(InputError) as refused:
        checks.pair(parse(method, *words))
    assert str(refused.value).startswith(f"common.networks.PAIRS['AlexNet']: {('AlexNet', 64, 10, parts)}; fix")


@pytest.mark.parametrize("model", ["AlexNet", "VGG"])
def test_a_student_is_the_papers(model):
    """Drawn with the ReLU before the max pool, as the paper has it; here they are swapped, which changes nothing."""
    student = networks.build(parse("Single", model=model), "student")
    kinds = ("weight", "bias")
    assert list(student.state_dict()) == [f"{layer}.{kind}" for layer in NAMES[model] for kind in kinds]
    weights = [student.get_parameter(f"{layer}.{kind}") for layer in NAMES[model] for kind in kinds]
    x = torch.randn(4, 3, 64, 64)
    if model == "AlexNet":
        z = F.max_pool2d(F.conv2d(x, *weights[:2], stride=4, padding=2).relu(), 3, 2)
        z = F.adaptive_avg_pool2d(F.max_pool2d(F.conv2d(z, *weights[2:4], padding=1).relu(), 3, 2), 6)
    else:
        z = F.max_pool2d(F.conv2d(x, *weights[:2], padding=1).relu(), 4)
        z = F.conv2d(F.conv2d(z, *weights[2:4], padding=1).relu(), *weights[4:6], padding=1).relu()
        z = F.adaptive_avg_pool2d(F.max_pool2d(z, 2), 7)
    assert torch.allclose(student.pool(student.features(x)), z, atol=1e-6)
    logits = F.linear(F.linear(z.flatten(1), *weights[-4:-2]).relu(), *weights[-2:])
    assert torch.allclose(student(x), logits, atol=1e-6)


def test_pooling_resnet8s_last_map_leaves_its_logits_alone():
    """z is 4x4, like the teacher's; the classifier's mean over it is the mean over the 8x8 map."""
    student = networks.PAIRS["ResNet"].student(10).eval()
    maps = []
    student.layer3.register_forward_hook(lambda layer, x, y: maps.append(y))
    logits = student(torch.randn(2, 3, 32, 32))
    assert maps[0].shape == (2, 64, 8, 8)
    assert torch.allclose(logits, student.fc(maps[0].mean((2, 3))), atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_phi_is_two_convolutions_on_what_the_paper_calls_the_students_features(model):
    phi = networks.build(parse("KD", model=model), "decoder")
    assert list(phi.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    _, _, shape, pooled = PARTS[model, "student"]
    z = torch.randn(2, *shape)
    expected = F.adaptive_avg_pool2d(z, pooled[1:])
    for number in (0, 2):
        expected = F.conv2d(
            expected, *(phi.get_parameter(f"{number}.{kind}") for kind in ("weight", "bias")), padding=1
        )
        expected = expected.relu()
    assert torch.allclose(phi(z), expected, atol=1e-5)


def test_weights_follow_the_seed_and_the_round_alone():
    args = parse("Single")
    first = networks.fingerprint(networks.build(args, "student"))
    state = torch.get_rng_state()
    assert networks.fingerprint(networks.build(args, "student")) == first
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)  # other code draws a number
    assert networks.fingerprint(networks.build(args, "student")) == first
    others = networks.build(args, "student", 1), networks.build(parse("Single", "--seed", "6"), "student")
    assert len({first, *map(networks.fingerprint, others)}) == 3


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(2), nn.BatchNorm2d(2)])
def test_any_batch_norms_statistics_stay_where_they_are(norm):
    x = torch.arange(8.0).view(4, 2)[(..., *[None] * (2 if isinstance(norm, nn.BatchNorm2d) else 0))]
    with networks.still(norm):
        norm(x)
    assert norm.running_mean.tolist() == [0, 0] and norm.momentum == 0.1
    norm(x)
    assert norm.running_mean.tolist() == pytest.approx([0.3, 0.4])  # a tenth of the columns' means


def test_a_fingerprint_is_of_all_weights_and_of_nothing_else():
    net = networks.PAIRS["ResNet"].student(10)
    first = networks.fingerprint(net)
    assert networks.fingerprint(net.eval().to(memory_format=torch.channels_last)) == first
    for tensor in (net.conv1.weight, net.fc.bias, net.bn1.running_mean):
        before = tensor.detach().clone()
        with torch.no_grad():
            first_value = tensor[(0,) * tensor.dim()]
            first_value.copy_(torch.nextafter(first_value, torch.tensor(9.0)))
            assert networks.fingerprint(net) != first
            tensor.copy_(before)
    assert networks.fingerprint(net) == first
