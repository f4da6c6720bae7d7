"""Sizes as the design says, counted; and the light form of a teacher is the same function."""

import pytest
import torch
from torch import nn
from torchvision import models

from common import networks
from common.errors import InputError

from .conftest import parse

# Parameters and multiply-accumulates an image; the maps' and the features' shape.
PARTS = {
    ("AlexNet", "teacher"): (57_044_810, 94_089_920, (256, 1, 1), (256, 6, 6)),
    ("AlexNet", "student"): (600_714, 1_361_240, (32, 3, 3), (32, 6, 6)),
    ("VGG", "teacher"): (128_807_306, 730_636_288, (512, 2, 2), (512, 7, 7)),
    ("VGG", "student"): (1_634_858, 9_278_464, (64, 8, 8), (64, 7, 7)),
    ("ResNet", "teacher"): (11_173_962, 555_422_720, (512, 4, 4), (512, 4, 4)),
    ("ResNet", "student"): (78_042, 12_501_632, (64, 8, 8), (64, 4, 4)),
}


@pytest.mark.parametrize(("model", "part"), PARTS)
def test_sizes_and_shapes_are_the_designs(model, part):
    parameters, macs, maps_shape, z_shape = PARTS[model, part]
    args = parse("Single", model=model)
    net = networks.build(args, part).eval()
    assert networks.cost(net, args.image_size) == (parameters, macs)
    x = torch.randn(2, 3, args.image_size, args.image_size)
    maps = net.maps(x)
    assert maps.shape == (2, *maps_shape)
    z = net.embed(x)
    assert z.shape == (2, *(maps_shape if model == "AlexNet" else z_shape))  # there the pool only repeats values
    features = net.spread(z)
    assert features.shape == (2, *z_shape) and torch.equal(net.spread(features), features)
    assert torch.allclose(features, net.avgpool(maps), atol=1e-6)  # whatever the way, it is adaptive average pooling
    assert torch.allclose(net.classify(z), net(x), atol=1e-6)
    assert torch.allclose(net.classify(features), net(x), atol=1e-6)
    if part == "student":
        assert networks.build(args, "decoder")(features).shape == (2, *PARTS[model, "teacher"][3])


@pytest.mark.parametrize(("height", "size"), [(1, 6), (3, 6), (8, 7), (8, 4), (2, 7), (4, 4), (5, 3)])
def test_spreading_is_adaptive_average_pooling_and_so_is_its_gradient(height, size):
    pool = nn.AdaptiveAvgPool2d(size)
    maps = torch.randn(2, 3, height, height, requires_grad=True)
    weights = torch.randn(2, 3, size, size)
    ours, theirs = networks.split.spread(pool, maps), pool(maps)
    assert torch.allclose(ours, theirs, atol=1e-6)
    gradients = (torch.autograd.grad((z * weights).sum(), maps)[0] for z in (ours, theirs))
    assert torch.allclose(*gradients, atol=1e-6)


def test_parameter_names_are_torchvisions():
    student = networks.build(parse("Single"), "student").state_dict()
    layers = ("features.0", "features.3", "classifier.0", "classifier.2")
    assert set(student) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    with torch.device("meta"):
        originals = {"AlexNet": models.alexnet, "VGG": models.vgg11, "ResNet": models.resnet18}
        for model, original in originals.items():
            ours = networks.PAIRS[model].teacher(10).state_dict()
            theirs = original(num_classes=10).state_dict()
            assert list(ours) == list(theirs), model
            others = [name for name in ours if ours[name].shape != theirs[name].shape]
            assert others == (["conv1.weight"] if model == "ResNet" else [])  # the stem for small images


def test_the_resnet_teacher_is_torchvisions_with_a_small_stem():
    teacher = networks.PAIRS["ResNet"].teacher(10).eval()
    original = models.resnet18(num_classes=10)
    original.conv1, original.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    original.load_state_dict(teacher.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher(x), original.eval()(x))


def test_pooling_resnet8s_map_leaves_its_logits_alone():
    student = networks.PAIRS["ResNet"].student(10).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(student(x), student.fc(student.maps(x).mean((2, 3))), atol=1e-5)


@pytest.mark.parametrize("model", ["AlexNet", "VGG"])
def test_expand_gives_the_light_networks_function(model):
    net = networks.build(parse("Single", model=model), "teacher")
    torch.manual_seed(0)
    light = networks.compact(net, 64)
    assert networks.cost(light, 64)[0] < networks.cost(net, 64)[0] / 2  # the copies' weights are gone
    x = torch.randn(8, 3, 64, 64)
    for _ in range(3):
        light(x)  # moves the batch norm's statistics off their start
    networks.expand(light.eval(), net, x)
    net.eval()
    assert torch.allclose(light(x), net(x), atol=1e-4)
    assert net.embed(x).square().mean().sqrt().item() == pytest.approx(networks.folding.FEATURE_RMS, rel=1e-4)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())


def test_a_network_with_its_own_batch_norm_is_not_folded():
    with pytest.raises(InputError, match="--fold_bn: ResNet has its own batch norm"):
        parse("Single", "--fold_bn", model="ResNet")


def test_weights_follow_the_seed_and_the_round_alone():
    args = parse("Single")
    first = networks.fingerprint(networks.build(args, "student"))
    torch.rand(1)  # somebody else draws a number
    assert networks.fingerprint(networks.build(args, "student")) == first
    assert networks.fingerprint(networks.build(args, "student", 1)) != first
