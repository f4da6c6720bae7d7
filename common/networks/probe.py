"""What a network computes, kept beside its weights: they alone say nothing of a layer that was changed since.

A ReLU in place of a ReLU6, another stride or another pool take the same weights and give other answers. A file of
weights therefore has the logits of one fixed image, and whoever reads it compares.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.seeds import generator

NEAR = 1e-2  # of the largest logit: above what TF32, threads and quicker layers change


@torch.no_grad()
def probe(net: nn.Module, image_size: int) -> list[float]:
    """The logits, in eval mode and float32, of one image of noise: the same image for each `image_size`."""
    weight = next(net.parameters())
    shape, source = (1, 3, image_size, image_size), generator(0, "probe", image_size)
    image = torch.randn(shape, generator=source, dtype=torch.float32, device="cpu")  # whatever a notebook's defaults
    training = net.training
    with torch.autocast(weight.device.type, enabled=False):
        logits = net.eval()(image.to(weight.device))[0]
    net.train(training)
    return logits.float().tolist()


def near(found: Tensor, kept: Tensor) -> bool:
    """Are two logits of one image the same but for rounding? What is not finite must be so in both."""
    finite = kept[kept.isfinite()].abs()
    room = NEAR * finite.max().item() if len(finite) else 0.0
    return found.shape == kept.shape and torch.allclose(found, kept, rtol=0, atol=room, equal_nan=True)


def check(net: nn.Module, record: Mapping, image_size: int, named: str, remedy: str) -> None:
    """Raises InputError where `net` does not compute what the network did whose weights and record it has.

    Args:
        record: what was saved with the weights; one of before `probe` was kept says nothing.
        named: opens the message: the flag or the file.
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
