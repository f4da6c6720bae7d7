"""Sizes as the design says, counted; and the light form of a teacher is the same function."""

import pytest
import torch
from torch import nn

from common import networks

from .conftest import parse

COSTS = {"teacher": (57_044_810, 94_089_920), "student": (600_714, 1_361_240)}


@pytest.mark.parametrize("part", COSTS)
def test_parameters_and_macs_are_the_papers(part):
    assert networks.cost(networks.build(parse("Single"), part), 64) == COSTS[part]


def test_parameter_names_are_torchvisions():
    student = networks.build(parse("Single"), "student").state_dict()
    layers = ("features.0", "features.3", "classifier.0", "classifier.2")
    assert set(student) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert "classifier.6.weight" in networks.build(parse("Single"), "teacher").state_dict()


def test_features_and_classifier_compose_to_the_network():
    args = parse("Single")
    x = torch.randn(2, 3, 64, 64)
    for part, shape in (("teacher", (2, 256, 6, 6)), ("student", (2, 32, 6, 6))):
        net = networks.build(args, part).eval()
        z = net.embed(x)
        assert z.shape == shape
        assert torch.equal(net.classify(z), net(x))
        assert torch.allclose(z, net.avgpool(net.maps(x)))  # the copies are what adaptive average pooling gives
    assert networks.build(args, "decoder")(z).shape == (2, 256, 6, 6)


def test_expand_gives_the_light_networks_function():
    net = networks.build(parse("Single"), "teacher")
    torch.manual_seed(0)
    light = networks.compact(net, 64)
    x = torch.randn(8, 3, 64, 64)
    for _ in range(3):
        light(x)  # moves the batch norm's statistics off their start
    networks.expand(light.eval(), net, x)
    net.eval()
    assert torch.allclose(light(x), net(x), atol=1e-4)
    assert net.embed(x).square().mean().sqrt().item() == pytest.approx(networks.split.FEATURE_RMS, rel=1e-4)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())


def test_weights_follow_the_seed_and_the_round_alone():
    args = parse("Single")
    first = networks.fingerprint(networks.build(args, "student"))
    torch.rand(1)  # somebody else draws a number
    assert networks.fingerprint(networks.build(args, "student")) == first
    assert networks.fingerprint(networks.build(args, "student", 1)) != first
