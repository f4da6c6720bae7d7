"""Labels given by a person during the run: it stops at each query with what to label, and resumes with the labels."""

import os
from pathlib import Path

import torch

from common.datasets import labels as given
from common.datasets.labels import COLUMNS
from common.errors import InputError, LabelsNeeded
from common.files import sha256, write_csv

TO_LABEL = "to_label.csv"


def check(args, run) -> None:
    """Raises InputError if `--labels` is the run's own list of what to label, whose answers would be replaced."""
    if args.labels and os.path.realpath(args.labels) == os.path.realpath(run.folder / TO_LABEL):
        raise InputError(
            f"--labels {args.labels}: is this run's list of what to label, which it replaces; name the file that has "
            "all labels: the answers in the list are added to it"
        )


def hold(args, run, images) -> None:
    """Raises InputError if a label that an earlier round of the run used has since changed or gone."""
    if images.files is None:
        return
    place, labels = images.places(), images.labels.cpu()
    table = run.state["queries"]
    before = dict(zip(table["index"], table["label"], strict=True)) | run.state.get("val_labels", {})
    for index, label in before.items():
        now = int(labels[place[index]])
        if label not in ("", now):
            changed = f"it is {images.classes[now]}" if now >= 0 else "it has none"
            raise InputError(
                f"--labels {args.labels}: {images.files[place[index]]} was {images.classes[label]} when this run was "
                f"trained on it, now {changed}; restore it, or start under another --expt"
            )


def await_labels(args, run, this_round) -> None:
    """Stops the run before a round whose labels are incomplete; records them once they are complete.

    The round needs those of its labelled pool and of the validation images. Answers in `to_label.csv` in the run's
    folder are first added to `--labels`. Raises LabelsNeeded after writing the files without a label to it.
    """
    images = this_round.images
    if images.files is None:
        return
    to_label = run.folder / TO_LABEL
    _collect(args, images, to_label)
    labels = images.labels.cpu()
    wanted = torch.cat([this_round.labeled.cpu(), images.val.cpu()])
    missing = wanted[labels[wanted] < 0].tolist()
    if missing:
        write_csv(to_label, [COLUMNS, *([images.files[index], ""] for index in missing)])
        raise LabelsNeeded(
            f"{this_round.label}: {len(missing)} images need a label: fill in {to_label} and run the same command "
            f"again, which adds them to {args.labels} (classes: {', '.join(images.classes)})"
        )
    to_label.unlink(missing_ok=True)
    _take_over(run, images, labels)


def need_all(args, images) -> None:
    """Raises InputError if labels are missing, which a teacher of all of them needs."""
    if unknown := int((images.labels < 0).sum()):
        raise InputError(
            f"--teacher_labels all: {unknown} training images have no label in {args.labels}; add --teacher_labels "
            "labeled, which trains a teacher on each round's labels, or name a --teacher"
        )


def _collect(args, images, to_label: Path) -> None:
    """Adds the filled-in answers to `--labels` and to the images. Raises InputError for an invalid answer."""
    if not to_label.exists():
        return
    before = images.labels.cpu().numpy()
    filled = given.fill(to_label, images.files, before, images.classes)
    new = ((before < 0) & (filled >= 0)).nonzero()[0].tolist()
    if new:
        given.add(Path(args.labels), [(images.files[index], images.classes[filled[index]]) for index in new])
        images.labels.copy_(torch.from_numpy(filled))
        if len(filled) == images.available and (filled >= 0).all():  # as if they had been complete when loaded
            images.label_values = sha256(filled)


def _take_over(run, images, labels: torch.Tensor) -> None:
    """Notes the labels in queries.csv, and those of the validation images in the state."""
    place, table = images.places(), run.state["queries"]
    table["label"] = [int(labels[place[index]]) for index in table["index"]]
    run.state["val_labels"] = {index: int(labels[place[index]]) for index in images.origin[images.val.cpu()].tolist()}
