"""A mirrored data set and networks so small that losses can be computed by hand, and what trains them without a disk.

Image i is 8x8: its left half has the gray level 16 i, its right half 255 - 16 i. The network's features are the mean
levels of the two halves in the three (equal) channels, and its classifier is a linear layer.
"""

from types import SimpleNamespace

import torch
from torch import nn

from common import samplers
from common.data import Images
from common.distillation import Targets
from common.networks import SplitNet
from common.training import Session

from .conftest import parse

COUNT = 8
METHODS = {"Random": [], "KD": ["--distill_on", "pool"], "EnCoDe": ["--warmup_epochs", "1", "--adv_wt", "1"]}
GENTLE = ["--feat_wt", "0.01", "--lr_dec", "0.003"]  # for targets of 100


class Halves(SplitNet):
    """z (B, 3, 1, 2): the means of the left and right halves, times a weight; logits (B, 2) are linear in z."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.linear = nn.Linear(6, 2)
        with torch.no_grad():
            self.linear.weight.copy_(torch.arange(12).view(2, 6) / 10)
            self.linear.bias.copy_(torch.tensor([0.1, -0.1]))

    def features(self, x):
        return nn.functional.avg_pool2d(x, (8, 4)) * self.scale

    def classifier(self, z):
        return self.linear(z.flatten(1))


def levels(index: torch.Tensor, mirrored: torch.Tensor | None = None) -> torch.Tensor:
    """z (B, 3, 1, 2) of images `index`, by hand."""
    halves = torch.stack([16.0 * index, 255 - 16.0 * index], dim=1)
    if mirrored is not None:
        halves = torch.where(mirrored[:, None], halves.flip(1), halves)
    return (halves / 127.5 - 1)[:, None, None, :].expand(-1, 3, 1, 2)


def images(mirror: bool = True) -> Images:
    """Images 0 to 5 are the pool, 6 and 7 are held out; the label is the index's parity. The test set is the pool."""
    index = torch.arange(COUNT)
    pixels = torch.empty(COUNT, 8, 8, 3, dtype=torch.uint8)
    pixels[:, :, :4] = (16 * index)[:, None, None, None].to(torch.uint8)
    pixels[:, :, 4:] = (255 - 16 * index)[:, None, None, None].to(torch.uint8)
    fields = {
        "name": "toy", "classes": ["even", "odd"], "train": pixels, "labels": index % 2, "test": pixels[:6],
        "test_labels": index[:6] % 2, "val": index[6:], "pool": index[:6], "origin": index, "available": COUNT,
        "mirror": mirror, "source": "s" * 64, "order": "o" * 64, "fingerprint": "f" * 64, "test_fingerprint": "t" * 64,
    }  # fmt: skip
    return Images(**fields)


def targets(views: int = 2) -> Targets:
    """Teacher outputs that identify image and view: features (3, 1, 2) all i + 100 view, logits (i, view)."""
    z = torch.stack([torch.arange(COUNT) + 100.0 * view for view in range(views)])
    logits = torch.stack([torch.stack([torch.arange(COUNT), torch.full((COUNT,), view)], 1) for view in range(views)])
    return Targets(nn.Identity(), z[:, :, None, None, None].expand(-1, -1, 3, 1, 2).contiguous(), logits.float())


def this_round(data: Images, labeled: int = 2) -> SimpleNamespace:
    """A round in which the pool's first images are labelled."""
    return SimpleNamespace(
        number=0, label="round 1/1", counts=[labeled], images=data,
        labeled=data.pool[:labeled], unlabeled=data.pool[labeled:], percent=25.0,
    )  # fmt: skip


def flags(method: str, *words: str):
    """Flags for the toy: eight images, four updates of two in an epoch."""
    return parse(method, "--num_images", "8", "--num_val", "2", "--batch_size", "2", "--num_classes", "2", *words)


class Quiet:
    """Stands in for a run and a progress bar."""

    n = 0

    def __init__(self):
        self.rows = []

    def add(self, table, **row):
        self.rows.append(row)

    def log(self, message):
        self.message = message

    def set_postfix(self, **_):
        pass

    def update(self, count):
        self.n += count


def parts(method: str, *words: str, mirror: bool = True, labeled: int = 2) -> tuple:
    """(flags, round, Halves as student, a decoder that adds nothing, the toy's targets, sampler) of a method."""
    args = flags(method, *words)
    data = images(mirror)
    toy_round = this_round(data, labeled)
    distils = method in ("KD", "EnCoDe")
    decoder = nn.Conv2d(3, 3, 1) if distils else None
    outputs = targets(2 if mirror else 1) if distils else None
    net = Halves()
    sampler = samplers.build(args, toy_round, net, outputs) if method == "EnCoDe" else None
    return args, toy_round, net, decoder, outputs, sampler


def toy_session(method: str = "KD", *words: str, mirror: bool = True, labeled: int = 2, run=None) -> Session:
    """A session on the toy."""
    args, *others = parts(method, *words, mirror=mirror, labeled=labeled)
    return Session(args, run, *others)


def trained(method: str, *words: str) -> tuple[list[dict], dict]:
    """The toy's losses at each update, and its weights after three epochs."""
    torch.manual_seed(0)
    words = [*METHODS[method], *(GENTLE if method != "Random" else []), "--schedule", "onecycle", *words]
    s = toy_session(method, "--train_epochs", "3", "--lr_task", "0.003", *words, run=Quiet())
    found, step = [], s.step
    s.step = lambda batch: found.append(step(batch)) or found[-1]
    for _ in range(3):
        s.train_epoch(Quiet())
    return [{name: value.item() for name, value in losses.items()} for losses in found], s.modules.state_dict()
