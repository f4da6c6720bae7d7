"""The logits of one fixed image, kept with a network's weights: the weights alone do not reveal a changed layer.

A ReLU in place of a ReLU6, another stride or another pool take the same weights and give other answers. Every file of
weights therefore has these logits, and whoever reads it compares.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.seeds import generator

NEAR = 1e-2  # relative to the largest logit: above what TF32, threads and quicker layers change


@torch.no_grad()
def probe(net: nn.Module, image_size: int) -> list[float]:
    """The logits, in eval mode and float32, of one image of noise, always the same for an `image_size`."""
    weight = next(net.parameters())
    shape, source = (1, 3, image_size, image_size), generator(0, "probe", image_size)
    image = torch.randn(shape, generator=source, dtype=torch.float32, device="cpu")  # whatever a notebook's defaults
    training = net.training
    with torch.autocast(weight.device.type, enabled=False):
        logits = net.eval()(image.to(weight.device))[0]
    net.train(training)
    return logits.float().tolist()


def near(found: Tensor, kept: Tensor) -> bool:
    """Are two networks' logits of one image equal up to rounding? Values that are not finite must match."""
    finite = kept[kept.isfinite()].abs()
    room = NEAR * finite.max().item() if len(finite) else 0.0
    return found.shape == kept.shape and torch.allclose(found, kept, rtol=0, atol=room, equal_nan=True)


def check(net: nn.Module, record: Mapping, image_size: int, named: str, remedy: str) -> None:
    """Raises InputError if `net` does not compute what the network that its weights and record came from did.

    Args:
        record: what was saved with the weights; older ones lack `probe` and are not checked.
        named: the flag or the file, which starts the message.
        remedy: what the user can do; it ends the message.
    """
    kept = record.get("probe")
    if kept is not None and not near(_tensor(probe(net, image_size)), _tensor(kept)):
        raise InputError(
            f"{named}: the network of this code computes something else with these weights, which were saved with "
            f"other layers; {remedy}"
        )


def _tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device="cpu")
