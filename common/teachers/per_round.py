"""Teachers trained on the bought labels alone (`--teacher_labels labeled`), each once for all runs that share it."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from common import distillation, recipes
from common.data import Images
from common.distillation import Targets
from common.files import sha256
from common.networks import SplitNet
from common.runs import configuration, contents
from common.teachers import trainer
from common.teachers.store import folder


def fair(args, images: Images, labeled: Tensor, before: Sequence[Tensor] = ()) -> tuple[SplitNet, float]:
    """A teacher trained on these labels alone, and its test accuracy: a function of labels, recipe and seed.

    It is kept under the SHA-256 of the three, so that runs that agree on them share the teacher and its outputs; a run
    that needs it while another trains it waits. With `--teacher_pool self_training` it teaches a second one, which is
    returned.

    Args:
        before: the labels of earlier rounds, if each teacher starts from the last one's (`--teacher_start before`).
    """
    start = None
    for labels in (*before, labeled):
        labels = labels.sort().values  # regardless of the order they were bought in
        first, *others = stages(args, len(labels), start)
        net, accuracy, start = _kept(first, images, labels, start)
    for flags in others:
        net, accuracy, start = _kept(flags, images, labels, start, _outputs(args, net, images, start))
    return net, accuracy


def _outputs(args, net: SplitNet, images: Images, where: Path) -> Targets:
    """What a second teacher learns from the first: outputs for image and mirror image, or the means a student gets."""
    if args.targets == "view":
        return distillation.cache(net, images, where, features=False)
    views = distillation.fixed_views(args, images)
    return distillation.cache(net, images, where, views=views, features=False).averaged()


def stages(args, labels: int, start: Path | None = None) -> list[argparse.Namespace]:
    """The flags of a fair teacher's stages of training, each of which learns from the one before.

    If every training image is labelled, the pool adds nothing. `start` is the folder of the teacher that the first
    stage starts from, which is part of its identity.
    """
    flags = fair_recipe(args, labels)
    if start is not None:
        flags.start, flags.lr_task, flags.train_epochs = start.name, flags.lr_task / 2, args.teacher_more_epochs
    if args.teacher_pool == "none" or labels == args.num_images - args.num_val:
        return [flags]
    on_pool = argparse.Namespace(**{**vars(flags), **recipes.POOL[args.teacher_pool](args)})
    if "own_outputs" in on_pool:
        return [on_pool]
    return [flags, on_pool]


def fair_recipe(args, labels: int) -> argparse.Namespace:
    """The flags of a teacher trained on this many labels; no other label influences it."""
    flags = trainer.recipe(args, args.seed, labels)
    flags.keep = "last"
    return flags


def _kept(
    args, images: Images, labeled: Tensor, start: Path | None = None, targets: Targets | None = None
) -> tuple[SplitNet, float, Path]:
    """A fair teacher, its test accuracy and its folder, whose name depends on all that determines the teacher.

    `start` is the folder of the teacher it starts from; with `targets`, the outputs of that one, it is a second stage.
    """
    config = {**configuration(vars(args)), **contents(images)}
    parts = [json.dumps(config, sort_keys=True).encode(), images.origin[labeled.cpu()].numpy()]
    if images.files is not None:  # with --labels the data's fingerprint leaves the labels out
        parts.append(images.labels[labeled].cpu().numpy())
    digest = sha256(*parts)[:12]
    name = f"{args.model}-{images.name}-{args.image_size}px-{len(labeled)}labels-{digest}"
    place = folder(args) / name if targets is None else start / f"second-{digest}"
    net, accuracy, run = trainer.teacher(args, images, labeled, place, targets, start, unfolded=targets is None)
    run.close()
    return net, accuracy, place
