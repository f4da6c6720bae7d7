"""Measures how good a network is, and records it in results.csv."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from common import augment, machine, networks
from common.augment import View
from common.data import Images
from common.networks import SplitNet
from common.runs import save_predictions, save_weights
from common.schema import VARIANTS

OTHER_NETWORK = "elsewhere"  # the teacher is not the pair's, whose cost does not describe it


@dataclass
class Fitted:
    """How a round's training went."""

    best_epoch: int
    validation: float  # accuracy in percent at that epoch; NaN without validation images
    seconds: float
    updates: int


@torch.no_grad()
def logits(net: torch.nn.Module, images: Tensor, batch_size: int = 250) -> Tensor:
    """Logits (N, classes) of `net`, in eval mode, for unmirrored images (N, S, S, 3) uint8."""
    training = net.training
    net.eval()
    index = torch.arange(len(images), device=images.device)
    found = torch.cat([net(augment.pixels(images, View(part))) for part in index.split(batch_size)])
    net.train(training)
    return found


def predict(net: torch.nn.Module, images: Tensor, batch_size: int = 250) -> Tensor:
    """The classes (N,) int64 that `net`, in eval mode, predicts for unmirrored images (N, S, S, 3) uint8."""
    return logits(net, images, batch_size).argmax(1)


def accuracy(net: torch.nn.Module, images: Tensor, labels: Tensor, batch_size: int = 250) -> float:
    """Percent of unmirrored images (N, S, S, 3) uint8 that `net`, in eval mode, classifies as labels (N,).

    NaN if there are no images.
    """
    return _percent(predict(net, images, batch_size), labels) if len(images) else math.nan


def validate(net: torch.nn.Module, images: Images) -> float:
    """Percent of the validation images that `net`, in eval mode, classifies correctly; NaN if there are none."""
    return accuracy(net, images.train[images.val], images.labels[images.val])


def hundredths(percent: float) -> str:
    """An accuracy as the tables have it; empty if it is NaN."""
    return "" if math.isnan(percent) else f"{percent:.2f}"


def agreement(net: torch.nn.Module, images: Images, targets) -> float:
    """Percent of the validation images for which `net` predicts the teacher's class: how much of it was learned."""
    return accuracy(net, images.train[images.val], targets.logits[0, images.val].argmax(1))


def _percent(predicted: Tensor, labels: Tensor) -> float:
    return 100 * (predicted == labels).sum().item() / len(labels)


def seen(args, images: Images, bought: Tensor) -> Tensor:
    """Data-set indices of the images whose labels a network trained on `bought` saw, (n,) int64 on the CPU.

    They include the validation images if the best epoch is chosen by them.
    """
    chooses = images.val if args.keep == "best" else images.val[:0]
    return images.origin[torch.cat([bought, chooses]).cpu().unique()]


def labels_in_all(args, this_round, targets=None) -> int | None:
    """How many labels the round's networks saw, each counted once: its own, the teacher's, and those that validate.

    None when the teacher's are unknown.
    """
    own = seen(args, this_round.images, this_round.bought)
    if targets is None:
        return len(own)
    return None if targets.seen is None else len(torch.cat([own, targets.seen]).unique())


def hardly_better(labels: Tensor) -> float:
    """Accuracy in percent, on images with these labels (N,), below which a network's training is taken to have failed.

    Guessing means always predicting the most common class.
    """
    guessing = 100 * labels.cpu().bincount().max().item() / len(labels)  # it is nondeterministic on a GPU
    return guessing + 0.15 * (100 - guessing)


def record(args, run, this_round, net: SplitNet, fitted: Fitted, targets=None, rate: str = "--lr_task") -> float:
    """Tests a round's network, once, and saves its weights and table rows; returns the test accuracy in percent.

    `rate` is the flag of its learning rate, named in a note if its training failed.
    """
    images, number = this_round.images, this_round.number
    predicted = predict(net, images.test)
    tested = _percent(predicted, images.test_labels)
    row = _row(args, this_round, net, fitted, targets) | {"test_accuracy": f"{tested:.2f}"}
    save_weights(run.folder / f"round_{number:02d}.pt", net, **row, **_to_use_it_alone(args, this_round, net, targets))
    save_predictions(run.folder / f"predictions_{number:02d}.npz", predicted, images.test_labels)
    run.add("results", **row)
    run.add(
        "timing",
        round=number,
        train_seconds=f"{fitted.seconds:.1f}",
        images_per_second=f"{fitted.updates * args.batch_size / fitted.seconds:.0f}",
        device=str(images.device),
        threads=torch.get_num_threads(),
        changed=run.round_changed,
        **{name: f"{value:.0f}" for name, value in machine.peak_memory(images.device).items()},
    )
    left = (len(this_round.counts) - number - 1) * fitted.seconds
    validation = hundredths(fitted.validation)
    at = f"validation {validation}% at epoch {fitted.best_epoch}" if validation else f"at epoch {fitted.best_epoch}"
    run.log(
        f"{this_round.label}: test accuracy {tested:.2f}% ({at}), trained in {fitted.seconds:.0f} s"
        + (f", about {tqdm.format_interval(left)} left" if left else "")
    )
    if tested < hardly_better(images.test_labels):
        run.log(
            f"note: {tested:.2f}% is hardly better than guessing: this training failed; lower {rate} (here "
            f"{args.lr_task:g}), or train longer"
        )
    return tested


def _row(args, this_round, net: SplitNet, fitted: Fitted, targets) -> dict:
    """The round's row of results.csv, except for the test accuracy."""
    row = {
        "model": args.model,
        "dataset": this_round.images.name,
        "method": args.method,
        "network": getattr(args, "network", "student"),
        "seed": args.seed,
        "round": this_round.number,
        "labeled": len(this_round.bought),
        "labels_in_all": labels_in_all(args, this_round, targets),
        "percent": f"{this_round.percent:g}",
        "epochs": args.train_epochs,
        "updates": fitted.updates,
        "best_epoch": fitted.best_epoch,
        "val_accuracy": hundredths(fitted.validation),
        "teacher_accuracy": "" if targets is None else targets.accuracy,
        "agreement": "" if targets is None else hundredths(agreement(net, this_round.images, targets)),
    }
    return row | {name: getattr(args, name) for name in VARIANTS if name in args}


def _to_use_it_alone(args, this_round, net: SplitNet, targets) -> dict:
    """What makes a file of weights usable without its run's folder, besides the row, which names the pair."""
    images = this_round.images
    use = {"classes": images.classes, "image_size": images.size, "normalization": augment.NORMALIZATION}
    use["probe"] = networks.probe(net, images.size)
    if targets is not None and targets.precomputed:
        use["teacher"] = OTHER_NETWORK
    if getattr(args, "network", "student") == "teacher":  # its students count these labels as their own
        use["seen"] = seen(args, images, this_round.bought)
        use["data"] = images.source  # and must not be taken for the teacher of other images of the same name
    return use
