"""Minimal filtering equals a convolution: the same values and gradients, up to rounding."""

import pytest
import torch
from torch.nn import functional as F

from common import fast
from common.fast import winograd


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (2, 2), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (16, 16), (5, 9), (4, 7)]
)
def test_it_is_a_convolution(height, width):
    """In float64 to the last digits; in float32 to four: a tile of 8 loses two to rounding."""
    torch.manual_seed(height)
    x, weight, bias = torch.randn(3, 16, height, width), torch.randn(8, 16, 3, 3), torch.randn(8)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    y = winograd.conv3x3(x, weight, bias)
    assert (y - exact).abs().max() < 1e-4 * exact.abs().max()
    assert torch.allclose(winograd.conv3x3(x.double(), weight.double(), bias.double()), exact, rtol=1e-10, atol=1e-10)
    assert torch.allclose(winograd.conv3x3(x, weight) + bias[:, None, None], y)


@pytest.mark.parametrize("size", [3, 6, 7])
def test_its_gradients_are_a_convolutions(size):
    torch.manual_seed(0)
    inputs = torch.randn(2, 4, size, size), torch.randn(5, 4, 3, 3), torch.randn(5)
    inputs = [tensor.double().requires_grad_() for tensor in inputs]
    weights = torch.randn(2, 5, size, size).double()
    ours = torch.autograd.grad((winograd.conv3x3(*inputs) * weights).sum(), inputs)
    theirs = torch.autograd.grad((F.conv2d(*inputs, padding=1) * weights).sum(), inputs)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-9)


def test_the_short_way_is_for_many_images_on_small_maps_of_many_channels_in_full_precision(monkeypatch):
    taken = []
    monkeypatch.setattr(winograd, "conv3x3", lambda x, *rest: taken.append(x.shape) or F.conv2d(x, *rest, padding=1))
    narrow, wide = (fast.apply(torch.nn.Conv2d(channels, 64, 3, padding=1)) for channels in (8, 32))
    for size in (1, 6, 33):
        narrow(torch.randn(32, 8, size, size))
        wide(torch.randn(32, 32, size, size))
        wide(torch.randn(31, 32, size, size))
    with torch.autocast("cpu", torch.bfloat16):
        wide(torch.randn(32, 32, 6, 6))
    assert taken == [(32, 32, 6, 6)]
