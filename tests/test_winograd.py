"""Minimal filtering is a convolution: the same numbers and gradients, to rounding."""

import pytest
import torch
from torch.nn import functional as F

from common.networks import winograd


@pytest.mark.parametrize("size", range(2, winograd.LARGEST + 1))
def test_it_is_a_convolution(size):
    """In float64 to its last digits; in float32 within a few times the convolution's own rounding error."""
    torch.manual_seed(size)
    x, weight, bias = torch.randn(3, 16, size, size), torch.randn(8, 16, 3, 3), torch.randn(8)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert torch.allclose(winograd.conv3x3(x.double(), weight.double(), bias.double()), exact, rtol=1e-10, atol=1e-10)
    assert (winograd.conv3x3(x, weight, bias) - exact).abs().max() < 5e-5 * exact.abs().max()
    assert torch.equal(winograd.conv3x3(x, weight, None) + bias[:, None, None], winograd.conv3x3(x, weight, bias))


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


def test_the_short_way_is_for_small_maps_in_full_precision(monkeypatch):
    taken = []
    monkeypatch.setattr(winograd, "conv3x3", lambda x, *rest: taken.append(x.shape[2]) or F.conv2d(x, *rest, padding=1))
    layer = winograd.Conv3x3(4, 4)
    assert set(layer.state_dict()) == {"weight", "bias"}
    for size in (1, 6, 9):
        layer(torch.randn(2, 4, size, size))
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(2, 4, 6, 6))
    assert taken == [6]
