"""What a data set holds, and commands that fit it.

    python -m common.data PATH        a folder with train/<class>/ and test/<class>/, an .npz, or a data set's name

Counts images and classes, and finds test images that are training images too. The commands are for the root folder.
"""

import hashlib
import os
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from common import datasets, proposal, recipes
from common.datasets import folder
from common.datasets.source import Source
from common.experiments import ROOT
from common.networks import PAIRS
from common.parsing import Parser

KEPT = str(ROOT / "data")  # where the experiments look for named data sets, too
SHOWN = 20  # classes, and pairs of equal images
UPDATES = 1500  # per round, for a short look
FEATURE_WEIGHT = {"ResNet": 10}  # tried; 100 for teachers whose features the quick recipe scales
RATES = {"ResNet": (0.1, 0.1, 0.01)}  # tried (svhn2k-resnet): of the student alone, distilled, of the decoder
SMALL = (0.01, 0.004, 0.004)  # for a student without batch norm


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("dataset", help="path or name of a data set")
    parser.add_argument("--model", choices=PAIRS, default="AlexNet", help="pair of networks that the commands train")
    parser.add_argument("--labels", default="", help="CSV file of a folder's labels; need not exist yet")
    parser.add_argument("--data_dir", default=KEPT, help="where named data sets are kept")
    args = parser.parse_args(argv)
    args.image_size, args.data_source, args.extra = PAIRS[args.model].IMAGE_SIZE, "auto", False
    source = datasets.load(args)
    path = Path(os.path.expanduser(args.dataset))
    found = folder.listing(path) if args.dataset.lower() not in datasets.DATASETS and path.is_dir() else None
    held = [*_what(args, source, found, path), *_classes(source), *_equal(source, found, path)]
    print("\n".join([*held, "", *_next(args, source)]))


def _next(args, source: Source) -> list[str]:
    """The commands, or why there are none."""
    if len(source.classes) < 2:
        return ["warning     one class: there is nothing to tell apart; a run needs two"]
    if len(source.x_train) < 2:
        return ["warning     one training image: a run needs one to train on and one to validate on"]
    return commands(args, source)


def _what(args, source: Source, found: folder.Listing | None, path: Path) -> list[str]:
    lines = [f"{args.dataset}: {len(source.x_train)} training and {len(source.x_test)} test images, "
             f"{len(source.classes)} classes"]  # fmt: skip
    size = args.image_size
    if found is None:
        height, width = source.x_train.shape[1:3]
        return [*lines, f"size        {width}x{height}, resized to {size}x{size}"]
    sizes, modes = [], Counter()
    for file in [*found.train, *found.test]:
        with Image.open(file) as image:  # reads only its header
            sizes.append(image.size)
            modes[image.mode] += 1
    least, most = min(sizes, key=sorted), max(sizes, key=sorted)  # by the shorter side, then by the longer one
    square = sum(width == height for width, height in sizes)
    lines.append(f"sizes       from {least[0]}x{least[1]} to {most[0]}x{most[1]}, {len(sizes) - square} not square: "
                 f"the shorter side is resized to {size}, the longer one cut at both ends")  # fmt: skip
    lines.append(f"modes       {', '.join(f'{mode} {count}' for mode, count in modes.most_common())}")
    if out := folder.left_out(path):
        kinds = Counter(file.suffix.lower() or file.name for file in out)
        named = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(SHOWN))
        lines.append(f"left out    {len(out)} files whose names are no image's ({named}; the first: "
                     f"{out[0].relative_to(path)}): save pictures among them as PNG or JPEG")  # fmt: skip
    return lines


def _classes(source: Source) -> list[str]:
    """How many images each class has, and how many times as many the largest has as the smallest."""
    train, test = (np.bincount(y[y >= 0], minlength=len(source.classes)) for y in (source.y_train, source.y_test))
    order = np.argsort(-train, kind="stable")[:SHOWN]
    parts = [f"{source.classes[n]} {train[n]} + {test[n]}" for n in order]
    more = len(source.classes) - len(order)
    lines = [f"classes     {', '.join(parts)}{f' and {more} more' if more else ''} (training + test)"]
    unlabeled = int((source.y_train < 0).sum())
    if unlabeled:
        lines.append(f"unlabeled   {unlabeled} training images: a run asks for the labels that it needs")
    if train.min() and train.max() > train.min():
        lines.append(f"balance     the largest class has {train.max() / train.min():.3g} times the smallest's images")
    empty = [source.classes[n] for n in np.flatnonzero((train == 0) & (not unlabeled))]
    lines += [f"warning     no training image of {', '.join(empty[:SHOWN])}"] if empty else []
    first = proposal.counts(len(source.x_train))["initial_budget"]
    if first < len(source.classes):
        lines.append(f"warning     the {first} labels of a first round are fewer than the {len(source.classes)} "
                     "classes: a network cannot learn one without a label; raise --initial_budget")  # fmt: skip
    return lines


def _equal(source: Source, found: folder.Listing | None, path: Path) -> list[str]:
    """Duplicate images, by the SHA-256 of their pixels as loaded."""

    def name(part: str, number: int) -> str:
        return f"{part} image {number}" if found is None else str(getattr(found, part)[number].relative_to(path))

    seen: dict[bytes, int] = {}
    twice, leaked = [], []
    for number, image in enumerate(source.x_train):
        first = seen.setdefault(hashlib.sha256(image.tobytes()).digest(), number)
        if first != number:
            twice.append((name("train", number), name("train", first), source.y_train[[number, first]]))
    for number, image in enumerate(source.x_test):
        first = seen.get(hashlib.sha256(image.tobytes()).digest())
        if first is not None:
            leaked.append((name("test", number), name("train", first), (source.y_test[number], source.y_train[first])))
    lines = []
    for pairs, what in ((leaked, "test images are training images too: accuracy is too high by what they add"),
                        (twice, "training images are there a second time")):  # fmt: skip
        if not pairs:
            continue
        other = sum(bool(min(labels) >= 0 and labels[0] != labels[1]) for *_, labels in pairs)
        shown = ", ".join([f"{one} = {two}" for one, two, _ in pairs[:5]] + ["..."] * (len(pairs) > 5))
        what += f", {other} with another class" if other else ""
        lines.append(f"duplicates  {len(pairs)} {what} ({shown})")
    return lines or ["duplicates  none"]


def commands(args, source: Source) -> list[str]:
    """Short runs of the teacher, of the student alone, distilled, with the sampler, and with labels counted once.

    If labels are still to come, there is no teacher of all of them: each round trains its own.
    """
    found = proposal.counts(len(source.x_train), len(source.classes))
    named = args.dataset.lower() in datasets.DATASETS
    data = f"--dataset {args.dataset if named else _quoted(args.dataset)}"
    data += f" --data_dir {_quoted(args.data_dir)}" if named and args.data_dir != KEPT else ""
    data += f" --labels {_quoted(args.labels)}" if args.labels else ""
    data += "".join(f" --{name} {found[name]}" for name in ("num_images", "num_val", "num_classes"))
    budget = " ".join(f"--{name} {found[name]}" for name in proposal.BUDGETS)
    epochs = max(5, min(60, round(UPDATES / (found["num_images"] // found["batch_size"]))))
    batch = min(64, 2 * found["batch_size"], found["num_images"])
    quick = recipes.quick(args.model)  # its rate is for its batch size: smaller batches want less in proportion
    rate = f"{quick['lr_task'] * batch / quick['batch_size']:.2g}"
    short = f"--batch_size {found['batch_size']} --train_epochs {epochs} --schedule onecycle"
    alone, distilled, decoder = RATES.get(args.model, SMALL)
    distil = f"--lr_task {distilled} --lr_dec {decoder} --feat_wt {FEATURE_WEIGHT.get(args.model, 100)}"
    if args.labels:
        distil += (
            f" --teacher_labels labeled --teacher_epochs {epochs} --teacher_batch_size {batch} --teacher_lr {rate}"
        )
    fair = recipes.student("fair", "KD", args.model)  # its rates are for its batch sizes, too
    fair_batch = min(found["batch_size"], fair["teacher_batch_size"])
    rates = (
        f"--lr_task {fair['lr_task'] * found['batch_size'] / fair['batch_size']:.2g}",
        f"--teacher_lr {fair['teacher_lr'] * fair_batch / fair['teacher_batch_size']:.2g}",
    )
    lines = [
        ("Single", f"--network teacher --recipe quick --batch_size {batch} --train_epochs {epochs} --lr_task {rate}"),
        ("Random", f"{budget} {short} --lr_task {alone}"),
        ("KD", f"{budget} {short} {distil}"),
        ("EnCoDe", f"{budget} {short} {distil} --warmup_epochs {max(1, epochs // 5)}"),
        ("KD", f"{budget} --recipe fair --expt fair --batch_size {found['batch_size']} --train_epochs {epochs} "
               f"{rates[0]} --teacher_batch_size {fair_batch} {rates[1]}"),
    ]  # fmt: skip
    lines = lines[1:] if args.labels else lines
    return [f"(cd {args.model}/CIFAR10/{method} && python main.py {data} {words})" for method, words in lines]


def _quoted(path: str) -> str:
    return shlex.quote(os.path.realpath(os.path.expanduser(path)))
