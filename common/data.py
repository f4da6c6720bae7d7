"""A data set in memory: uint8, resized once, split into validation images and a pool by the seed alone."""

import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common import console, datasets, memory, proposal
from common.datasets import pixels
from common.datasets.source import Source
from common.errors import InputError
from common.files import sha256
from common.seeds import generator


@dataclass
class Images:
    """`num_images` training images (validation and pool) and the test images, on the device they are used on."""

    name: str
    classes: list[str]
    train: Tensor  # (num_images, S, S, 3) uint8: channels last, so that a gathered batch is too
    labels: Tensor  # (num_images,) int64; -1 where --labels does not have it yet
    test: Tensor  # (M, S, S, 3) uint8
    test_labels: Tensor  # (M,) int64
    val: Tensor  # (num_val,) int64, indices into train, held out
    pool: Tensor  # int64, indices into train, in the order of random labelling: without val, or beginning with it
    origin: Tensor  # (num_images,) int64 on the CPU, each training image's index in the data set
    available: int  # number of training images in the data set
    mirror: bool  # may a training view be the mirror image?
    source: str  # SHA-256 of the data set's training images and labels, whatever was taken from it
    order: str  # SHA-256 by which the data set's training images are known to be the same, in the same order
    fingerprint: str  # SHA-256 of the content of `train`: the source, the images taken and their size
    test_fingerprint: str  # SHA-256 of the test images and labels as decoded, their size here and the classes' names
    files: list[str] | None = None  # with --labels: the training images' names
    label_values: str = ""  # with --labels, if complete: their SHA-256, which `source` leaves out

    @property
    def size(self) -> int:
        return self.train.shape[1]

    @property
    def device(self) -> torch.device:
        return self.train.device

    def places(self) -> dict[int, int]:
        """The index into `train` of each image, by its index in the data set."""
        return {index: place for place, index in enumerate(self.origin.tolist())}


def pool_size(args) -> int:
    """The size of the pool of images whose labels are bought."""
    return args.num_images - (args.num_val if args.val_labels == "extra" else 0)


def load(args, source: Source | None = None) -> Images:
    """`--dataset` at `--image_size`, its drawn or first `--num_images`, `--num_val` of them held out.

    The split and the pool's order depend on `--seed` and the counts alone: runs of one seed are paired. `source` is the
    data set, if it is read already. Raises InputError when the data cannot be had or the counts do not fit.
    """
    source = datasets.load(args) if source is None else source
    _check(args, source)
    _fits(args, source)
    kept = torch.arange(args.num_images)
    if args.num_images < len(source.x_train) and args.take == "drawn":
        kept = torch.randperm(len(source.x_train), generator=generator(args.seed, "images"))[: args.num_images]
    order = torch.randperm(args.num_images, generator=generator(args.seed, "split"))
    if source.foldered is not None:  # known labels are used before anybody is asked for others
        known = torch.from_numpy(source.foldered)[kept][order]
        order = torch.cat([order[known], order[~known]])
        absent = np.setdiff1d(range(len(source.classes)), source.y_train[source.foldered])
        if len(absent) and source.foldered.any():
            console.note(
                f"--labels {args.labels}: the images in class folders, which validate and train first, have none of "
                f"{len(absent)} of {len(source.classes)} classes; to draw from all alike, move them into train/ itself "
                "and name their labels in the file"
            )
    labels = torch.from_numpy(source.y_train)[kept]
    without = np.setdiff1d(source.y_train[source.y_train >= 0], labels)
    if len(without) and args.take == "first":  # a folder's images are in the order of the classes
        console.note(
            f"--take first: the first {args.num_images} images have none of {len(without)} of {len(source.classes)} "
            "classes; --take drawn, the default, draws them from all"
        )
    device = torch.device(args.device)
    whole = content(source)
    taken = torch.from_numpy(source.x_train)
    if args.num_images < len(taken):
        taken = taken[kept]
    train = pixels.resize(taken, args.image_size)
    return Images(
        name=source.name,
        classes=source.classes,
        train=train.to(device),
        labels=labels.to(device),
        test=pixels.resize(torch.from_numpy(source.x_test), args.image_size).to(device),
        test_labels=torch.from_numpy(source.y_test).to(device),
        val=order[: args.num_val].sort().values.to(device),
        pool=order[args.num_val if args.val_labels == "extra" else 0 :].to(device),
        origin=kept,
        available=len(source.x_train),
        mirror={"yes": True, "no": False, "auto": source.mirror is not False}[args.flip],
        source=whole,
        order=source.order or whole,
        fingerprint=sha256(kept.numpy(), str((whole, args.image_size)).encode()),
        test_fingerprint=tests_content(source, args.image_size),
        files=None if source.files is None else [source.files[index] for index in kept.tolist()],
        label_values=sha256(source.y_train) if source.files is not None and (source.y_train >= 0).all() else "",
    )


def content(source: Source) -> str:
    """SHA-256 of a data set's training images and labels; with --labels, of the images and their names: labels added
    later must not make it another data set."""
    return sha256(source.x_train, source.y_train if source.files is None else json.dumps(source.files).encode())


def tests_content(source: Source, size: int) -> str:
    """SHA-256 of a data set's test images and labels as decoded, their `size` in the run and the classes' names."""
    more = json.dumps([source.x_test.shape, size, source.classes]).encode()
    return sha256(source.x_test, source.y_test, more)


def _check(args, source: datasets.Source) -> None:
    """Raises InputError, with all the counts that would fit, if one does not."""
    available, classes, wrong = len(source.x_train), len(source.classes), []
    fitting, names = proposal.counts(available, classes, bought=args.val_labels == "bought"), ("num_classes",)
    if classes < 2:
        raise InputError(f"--dataset {args.dataset}: has one class, there is nothing to tell apart; a run needs two")
    if args.num_images > available:
        wrong, names = [f"--num_images {args.num_images}: {source.name} has {available} training images"], ()
    if classes != args.num_classes:
        wrong.append(f"--num_classes {args.num_classes}: {source.name} has {classes} classes")
    if wrong:
        raise InputError(f"{'; '.join(wrong)}; these fit: {proposal.words(fitting, args, names)}")


def _fits(args, source: datasets.Source) -> None:
    """Raises InputError when the resized images would not leave a tenth of the memory free."""
    bytes_ = (args.num_images + len(source.x_test)) * args.image_size**2 * 3
    resident = source.x_train.shape[1:3] != (args.image_size, args.image_size) or args.num_images < len(source.x_train)
    if resident and bytes_ > 0.9 * memory.available():
        raise InputError(
            f"--num_images {args.num_images} --image_size {args.image_size}: the images take "
            f"{memory.megabytes(bytes_)}, {memory.megabytes(memory.available())} are available; lower one of them"
        )


if __name__ == "__main__":  # python -m common.data PATH
    from common import entry, survey

    entry.run(survey.main)
