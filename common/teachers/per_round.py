"""Teachers that saw the bought labels alone (`--teacher_labels labeled`), each made once for all runs that share it."""

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
    """A teacher that saw these labels alone, and its test accuracy: a function of labels, recipe and seed.

    It is kept under their SHA-256, so that runs which share the three share the teacher and its outputs; a run that
    comes while another trains it waits. With `--teacher_pool` it is the teacher of a second one, which is returned.

    Args:
        before: the labels of earlier rounds, where it goes on from the teacher of the last of them, as that one does.
    """
    start = None
    for labels in (*before, labeled):
        labels = labels.sort().values  # whatever the order they were bought in
        first, *others = stages(args, len(labels), start)
        net, accuracy, start = _kept(first, images, labels, start)
    for flags in others:
        net, accuracy, start = _kept(flags, images, labels, start, _outputs(args, net, images, start))
    return net, accuracy


def _outputs(args, net: SplitNet, images: Images, where: Path) -> Targets:
    """What a second teacher learns of the first: outputs for image and mirror, or the means that a student gets."""
    if args.targets == "view":
        return distillation.cache(net, images, where, features=False)
    views = distillation.fixed_views(args, images)
    return distillation.cache(net, images, where, views=views, features=False).averaged()


def stages(args, labels: int, start: Path | None = None) -> list[argparse.Namespace]:
    """The flags of a fair teacher's trainings, each of which learns from the one before.

    Where every image that may be trained on is labelled, the pool has nothing more to say. `start` is the folder of
    the teacher that the first one goes on from, which is part of what it is.
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
    """The flags of a teacher of so many labels, of which no other decides anything."""
    flags = trainer.recipe(args, args.seed, labels)
    flags.keep = "last"
    return flags


def _kept(
    args, images: Images, labeled: Tensor, start: Path | None = None, targets: Targets | None = None
) -> tuple[SplitNet, float, Path]:
    """A fair teacher, its test accuracy and its folder, whose name says what it is a function of.

    `start` is the folder of the one it goes on from; with `targets`, that one's outputs, it is a second stage.
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
