"""A quickened network is the network it was: names, values, gradients."""

import copy

import pytest
import torch

from common import networks
from common.networks import quick, winograd

from .conftest import MODELS


def test_only_plain_3x3_convolutions_are_quickened():
    options = [{"padding": 1}, {"padding": 1, "stride": 2}, {"padding": 0}, {"padding": 1, "groups": 4}]
    options += [{"padding": 1, "padding_mode": "reflect"}, {"padding": 2, "dilation": 2}]
    net = torch.nn.Sequential(*(torch.nn.Conv2d(4, 4, 3, **option) for option in options), torch.nn.Conv2d(4, 4, 1))
    before = dict(net.state_dict())
    networks.quicken(net)
    assert [type(layer) is winograd.Conv3x3 for layer in net] == [True] + 6 * [False]
    after = net.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("model", MODELS)
def test_students_keep_values_gradients_and_names(model):
    """40 images, so that the short convolution is taken; in float64, where its rounding does not show."""
    torch.manual_seed(0)
    plain = networks.PAIRS[model].student(10).double()
    ours = networks.quicken(copy.deepcopy(plain))
    assert any(isinstance(layer, quick.MaxPool | winograd.Conv3x3) for layer in ours.modules())
    assert list(ours.state_dict()) == list(plain.state_dict())
    x = torch.randn(40, 3, networks.PAIRS[model].IMAGE_SIZE, networks.PAIRS[model].IMAGE_SIZE).double()
    ends = []
    for net in (plain, ours):
        logits = net(x)
        logits.square().mean().backward()
        ends.append([logits, *(weight.grad for weight in net.parameters())])
    for mine, other in zip(*ends, strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pool", [torch.nn.MaxPool2d(2), torch.nn.BatchNorm2d(64)])
def test_what_follows_a_short_convolution_is_in_channels_last_memory(pool):
    """In another order these two are several times slower: it once cost ResNet-18 half its speed."""
    net = networks.quicken(torch.nn.Sequential(torch.nn.Conv2d(32, 64, 3, padding=1), pool))
    maps = net[0](torch.randn(32, 32, 8, 8))
    assert not maps.is_contiguous(memory_format=torch.channels_last)
    assert net[1](maps).is_contiguous(memory_format=torch.channels_last)


def test_a_pool_comes_before_the_relu_it_followed():
    net = networks.quicken(networks.PAIRS["VGG"].student(10)).features
    assert [type(layer).__name__ for layer in net] == [
        "Conv3x3", "MaxPool", "ReLU", "Conv3x3", "ReLU", "Conv3x3", "MaxPool", "ReLU",
    ]  # fmt: skip
