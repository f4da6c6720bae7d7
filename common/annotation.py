"""Labels that somebody gives while the run goes on: it stops at each query with what to label, and goes on with it."""

import csv
import io
from pathlib import Path

import torch

from common.datasets.labels import COLUMNS
from common.errors import InputError, LabelsNeeded
from common.files import write_text

TO_LABEL = "to_label.csv"


def await_labels(args, run, this_round) -> None:
    """Stops the run before a round whose labels are not all in `--labels`; takes them over when they are.

    The round needs those of its labelled pool and of the validation images. Raises LabelsNeeded after writing the
    files without one to `to_label.csv` in the run's folder, and InputError where a label that was used is another now.
    """
    images = this_round.images
    if images.files is None:
        return
    labels, to_label = images.labels.cpu(), run.folder / TO_LABEL
    wanted = torch.cat([this_round.labeled.cpu(), images.val.cpu()])
    missing = wanted[labels[wanted] < 0].tolist()
    if missing:
        _write(to_label, [images.files[index] for index in missing])
        raise LabelsNeeded(
            f"{this_round.label}: {len(missing)} images need a label: fill in {to_label} and add its lines to "
            f"{args.labels}, then run the same command again (classes: {', '.join(images.classes)})"
        )
    to_label.unlink(missing_ok=True)
    _take_over(args, run, images, labels)


def check_teacher(args, images) -> None:
    """Raises InputError where a teacher of all labels is wanted and they are not all there."""
    unknown = 0 if images.files is None else int((images.labels < 0).sum())
    if unknown and "teacher" in args and args.teacher_labels == "all" and not args.teacher:
        raise InputError(
            f"--teacher_labels all: {unknown} training images have no label in {args.labels}; add --teacher_labels "
            "labeled, which trains a teacher on each round's labels, or name a --teacher"
        )


def _write(path: Path, files: list[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *([file, ""] for file in files)])
    write_text(path, text.getvalue())


def _take_over(args, run, images, labels: torch.Tensor) -> None:
    """Notes the labels in queries.csv, and holds those of earlier rounds to what they were."""
    place = {index: number for number, index in enumerate(images.origin.tolist())}
    table, validation = run.state["queries"], images.origin[images.val.cpu()].tolist()
    now = {index: int(labels[place[index]]) for index in [*table["index"], *validation]}
    before = dict(zip(table["index"], table["label"], strict=True)) | run.state.get("val_labels", {})
    for index, label in before.items():
        if label not in ("", now[index]):
            raise InputError(
                f"--labels {args.labels}: {images.files[place[index]]} was {images.classes[label]} when this run was "
                f"trained on it, now it is {images.classes[now[index]]}; restore it, or start under another --expt"
            )
    table["label"] = [now[index] for index in table["index"]]
    run.state["val_labels"] = {index: now[index] for index in validation}
