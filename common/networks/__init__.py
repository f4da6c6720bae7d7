"""The teacher and student of each pair, and the decoder between their features: plain torch.nn, as in the paper.

A pair is a module with `IMAGE_SIZE`, `teacher(num_classes)`, `student(num_classes)` and `decoder()`, which maps the
student's z (B, c, h, w) to the teacher's features after its pool, (B, C, H, W). To add one, write its file here and
list it in `PAIRS`. What makes them fast is in `common.fast`.
"""

import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common import fast
from common.errors import InputError, reason
from common.networks.probe import check, near, probe
from common.networks.split import SequentialNet, SplitNet
from common.seeds import initialization

__all__ = [
    "PAIRS", "SequentialNet", "SplitNet", "build", "check", "cost", "drops", "fingerprint", "loaded", "misfit",
    "near", "probe", "smallest_image", "still",
]  # fmt: skip

PAIRS: dict[str, ModuleType] = {
    "AlexNet": import_module("common.networks.alexnet"),
    "ResNet": import_module("common.networks.resnet"),
    "VGG": import_module("common.networks.vgg"),
}


def build(args, part: str, round_number: int = 0) -> nn.Module:
    """The pair's `teacher`, `student` or `decoder` with fresh weights, the same for equal seeds and rounds."""
    make = getattr(PAIRS[args.model], part)
    with initialization(args.seed, part, round_number):
        net = make() if part == "decoder" else make(args.num_classes)
    return fast.apply(net.to(args.device), args.fast)


def loaded(model: str, part: str, num_classes: int, weights: dict[str, torch.Tensor], named: str) -> nn.Module:
    """The pair's `teacher` or `student` with these weights. If they do not fit, an InputError begins with `named`."""
    with torch.device("meta"):  # no initial weights for the loaded ones to replace
        net = getattr(PAIRS[model], part)(num_classes)
    try:
        net.load_state_dict(weights, assign=True)
    except (RuntimeError, AttributeError) as error:
        raise InputError(
            f"{named}: not the weights of {model}'s {part} for {num_classes} classes ({reason(error)})"
        ) from None
    return net


def cost(model: str, part: str, num_classes: int, image_size: int) -> tuple[int, int]:
    """(parameters, multiply-accumulates for one image) of a pair's teacher or student, counted on shapes alone."""
    with torch.device("meta"):
        net = getattr(PAIRS[model], part)(num_classes).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, 3, image_size, image_size))
    return sum(weight.numel() for weight in net.parameters()), counter.get_total_flops() // 2


def drops(model: str, part: str) -> bool:
    """Does the classifier of a pair's `teacher` or `student` have dropout layers?"""
    with torch.device("meta"):
        classifier = getattr(PAIRS[model], part)(2).classifier
    return isinstance(classifier, nn.Sequential) and any(isinstance(layer, nn.Dropout) for layer in classifier)


@functools.cache
def smallest_image(model: str, part: str) -> int:
    """The smallest image side, from 8 pixels up, that a pair's `teacher` or `student` accepts."""
    with torch.device("meta"):
        net = getattr(PAIRS[model], part)(2).eval()
        for size in range(8, PAIRS[model].IMAGE_SIZE):
            try:
                net(torch.zeros(1, 3, size, size))
            except (RuntimeError, ValueError):  # a pool or a convolution has nothing left
                continue
            return size
    return PAIRS[model].IMAGE_SIZE


@functools.cache
def misfit(model: str, size: int, num_classes: int, parts: tuple[str, ...]) -> str:
    """What does not fit together in a pair, found from shapes alone; empty if everything does.

    Args:
        size: an image's side.
        parts: which of `student`, `teacher` and `decoder` are used; the decoder comes after both others.
    """
    with torch.device("meta"), torch.no_grad():
        x, pair, nets = torch.zeros(1, 3, size, size), PAIRS[model], {}
        for part in parts:
            given = x
            try:
                if part == "decoder":
                    net, given = pair.decoder(), nets["student"].features(x)
                    wanted = tuple(nets["teacher"].pool(nets["teacher"].features(x)).shape)
                else:
                    net, wanted = getattr(pair, part)(num_classes), (1, num_classes)
                nets[part] = net.eval()
                found = tuple(net(given).shape)
            except (RuntimeError, ValueError) as error:
                return f"its {part} does not take a batch of {tuple(given.shape)} ({reason(error)})"
            if found != wanted:
                return f"its {part} makes {found} of a batch of {tuple(given.shape)}, wanted is {wanted}"
    return ""


@contextmanager
def still(net: nn.Module, on: bool = True) -> Iterator[None]:
    """Within, passes through `net` leave its batch norms' running statistics alone: they serve another network."""
    norms = [layer for layer in net.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)] if on else []
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def fingerprint(net: nn.Module | dict[str, torch.Tensor]) -> str:
    """SHA-256 of a network's weights, or of its state dict: the key for a cache of its outputs."""
    digest = hashlib.sha256()
    for name, tensor in sorted((net.state_dict() if isinstance(net, nn.Module) else net).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
