"""The teacher and student of each pair, and the decoder between their features.

A pair is a module with `IMAGE_SIZE`, `teacher(num_classes)`, `student(num_classes)`, `decoder()` and the teacher's
quick recipe `TEACHER`. Adding one is a file here and its line in `PAIRS`.
"""

import hashlib
from importlib import import_module
from types import ModuleType

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.networks.folding import compact, expand
from common.networks.quick import quicken
from common.networks.split import SequentialNet, SplitNet
from common.seeds import derive

__all__ = ["PAIRS", "SequentialNet", "SplitNet", "build", "compact", "cost", "expand", "fingerprint", "quicken"]

PAIRS: dict[str, ModuleType] = {
    "AlexNet": import_module("common.networks.alexnet"),
    "ResNet": import_module("common.networks.resnet"),
    "VGG": import_module("common.networks.vgg"),
}


def build(args, part: str, round_number: int = 0) -> nn.Module:
    """The pair's `teacher`, `student` or `decoder` with fresh weights, the same for equal seeds and rounds."""
    make = getattr(PAIRS[args.model], part)
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn on the CPU, from a stream of their own
        torch.manual_seed(derive(args.seed, part, round_number))
        net = make() if part == "decoder" else make(args.num_classes)
    return quicken(net).to(args.device, memory_format=torch.channels_last)


def cost(net: SplitNet, image_size: int) -> tuple[int, int]:
    """(parameters, multiply-accumulates for one image), both counted, not looked up."""
    training = net.training
    tensors = {name: tensor.to("meta") for name, tensor in net.state_dict().items()}  # shapes alone
    image = torch.zeros(1, 3, image_size, image_size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(net.eval(), tensors, image)
    net.train(training)
    return sum(weight.numel() for weight in net.parameters()), counter.get_total_flops() // 2


def fingerprint(net: nn.Module) -> str:
    """SHA-256 of a network's weights: what a cache of its outputs is keyed by."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
