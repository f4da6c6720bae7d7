"""Classifies your images with a trained network.

    python -m common.predict runs/encode-seed2023 photo.jpg scans/ "more/*.png" --top 3

Writes CSV, a line per image: file, class, probability, and with --top 3 the second and third class too. Images may have
any size and format that Pillow reads: the shorter side is resized to the size the network was trained with, and the
middle of the longer one is kept. For images in folders named after a class, it reports on stderr how many are right.
The network is that of a run's last round (or --round), or of a round_NN.pt alone.

In a notebook:

    from common.predict import load_student
    load_student("runs/encode-seed2023").classify(["photo.jpg"], top=3)
"""

import csv
import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from common import entry, files, networks, reading
from common.datasets import folder, pixels
from common.errors import InputError, reason
from common.networks import PAIRS, SplitNet
from common.parsing import COUNT, COUNT0, Parser

REMEDY = "restore it from a copy, or train the run again"  # for a damaged round_NN.pt
OTHER_CODE = "check the commit out that config.json beside it names, or train the run again"
BATCH = 250  # images in memory at once


class OnPixels(nn.Module):
    """A network that takes pixels: uint8 images (B, S, S, 3) -> logits (B, classes), normalization included."""

    def __init__(self, net: nn.Module, mean: float, std: float):
        super().__init__()
        self.net, self.mean, self.std = net, mean, std

    def forward(self, image: Tensor) -> Tensor:
        """Normalizes as `augment.pixels` does: pixels from 0 to 1, minus the mean, over the standard deviation."""
        return self.net(((image.float() - 255 * self.mean) / (255 * self.std)).permute(0, 3, 1, 2))


class Student(NamedTuple):
    """A trained network, ready to use: `net, classes, image_size, *_ = load_student(run)`."""

    net: SplitNet  # plain torch.nn in eval mode; normalized images (B, 3, S, S) float32 -> logits (B, classes)
    classes: list[str]  # in the order of the logits
    image_size: int  # S
    normalization: dict[str, float]  # mean and std of pixels from 0 to 1
    record: dict  # the row of results.csv: model, network, dataset, method, round, percent, test_accuracy, ...
    path: Path  # of the round's file

    def on_pixels(self) -> OnPixels:
        """The network with its normalization: uint8 images (B, S, S, 3) -> logits (B, classes)."""
        return OnPixels(self.net, **self.normalization).eval()

    def classify(self, images: Iterable[str | Path], top: int = 1) -> list[list[tuple[str, float]]]:
        """The `top` classes of each image file, as (class, probability), most probable first.

        Raises InputError naming a file that is not a readable image.
        """
        return [self.name(self.read(image)[None], top)[0] for image in images]

    def read(self, image: str | Path) -> Tensor:
        """An image file in the network's input format: (S, S, 3) uint8. Raises InputError when it cannot be read."""
        try:
            return torch.from_numpy(pixels.read(Path(image), self.image_size))
        except Exception as error:  # anything: each of PIL's formats raises its own
            raise InputError(f"{image}: not a readable image ({reason(error)})") from None

    @torch.no_grad()
    def name(self, images: Tensor, top: int = 1) -> list[list[tuple[str, float]]]:
        """The `top` classes of each of the images (B, S, S, 3) uint8, as (class, probability), most probable first."""
        found = torch.softmax(self.on_pixels()(images), 1).topk(min(top, len(self.classes)))
        both = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [[(self.classes[index], p) for index, p in zip(*pair, strict=True)] for pair in both]


def load_student(run: str | Path, round: int | None = None) -> Student:
    """The network of a run's last finished round, or of `round` (as results.csv counts, from 0), on the CPU.

    Args:
        run: a run's folder, or a round_NN.pt, which needs no other file. If the run trained a teacher, returns that.
    Raises InputError when there is no finished round, or the file is damaged or not a run's.
    """
    path = _round_file(Path(os.path.expanduser(run)), round)
    content = files.read_tensors(path, REMEDY)
    weights, record = content.get("state_dict"), content.get("record")
    if not isinstance(weights, dict) or not isinstance(record, dict) or "classes" not in record:
        raise InputError(f"{path}: is not a run's round_NN.pt, which holds a network's weights and their record")
    model, network = record.get("model"), record.get("network", "student")
    if model not in PAIRS or network not in ("student", "teacher"):
        raise InputError(f"{path}: trained the {network} of {model}; known pairs: {', '.join(PAIRS)}")
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    net = networks.loaded(model, network, len(record["classes"]), weights, str(path))
    networks.check(net, record, record["image_size"], str(path), OTHER_CODE)
    record.pop("probe", None)  # no longer needed
    return Student(net.eval(), record["classes"], record["image_size"], record["normalization"], record, path)


def rounds(run: Path) -> list[int]:
    """The numbers of a run's finished rounds. Raises InputError when there is none, or no such folder."""
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; name a run's, such as runs/encode-seed2023")
    found = sorted(int(path.stem[6:]) for path in run.glob("round_*.pt") if path.stem[6:].isdigit())
    if (run / "results.csv").exists():  # a run begun again in this folder may not have reached all of them
        finished = set(reading.results(run)["round"])
        found = [number for number in found if number in finished]
    if not found:
        raise InputError(
            f"{run}: has no finished round (no round_NN.pt that results.csv knows); let the run finish its first one"
        )
    return found


def _round_file(run: Path, number: int | None) -> Path:
    if run.is_file() and number is None:
        return run
    if run.is_file():
        raise InputError(f"--round {number}: {run} is a round's file already; name its folder or leave the flag out")
    found = rounds(run)
    last = max(reading.results(run)["round"]) if (run / "results.csv").exists() else found[-1]
    if number is None and last not in found:
        raise InputError(
            f"{run}: round_{last:02d}.pt is not there, though results.csv has this round; put it back, or take another "
            f"with --round ({', '.join(map(str, found))})"
        )
    if number is not None and number not in found:
        raise InputError(f"--round {number}: {run} has finished the rounds {', '.join(map(str, found))}, from 0")
    return run / f"round_{last if number is None else number:02d}.pt"


def image_files(named: Iterable[str]) -> list[Path]:
    """The named files, the images in named folders (recursively), and what patterns match; each once.

    Raises InputError naming what is missing.
    """
    kinds = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found: list[Path] = []
    for word in named:
        path = Path(os.path.expanduser(word))
        if not word:
            here = []
        elif path.is_dir():
            here = sorted(file for file in folder.walk(path) if file.suffix.lower() in kinds
                          and not folder.is_hidden(file.relative_to(path)))  # fmt: skip
        elif path.exists():
            here = [path]
        else:
            here = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
        if not here:
            raise InputError(f"{word}: no image there; name files, a folder or a pattern")
        found += here
    return list(dict.fromkeys(found))


def table(student: Student, images: list[Path], top: int, unreadable: list[str]) -> Iterator[list[str]]:
    """Yields the lines of the CSV as they are computed, header first; errors of unreadable files go to `unreadable`."""
    numbers = ["", *(f"_{number}" for number in range(2, min(top, len(student.classes)) + 1))]
    yield ["file", *(name + number for number in numbers for name in ("class", "probability"))]
    for start in range(0, len(images), BATCH):
        squares: dict[Path, Tensor] = {}
        for path in images[start : start + BATCH]:
            try:
                squares[path] = student.read(path)
            except InputError as error:
                unreadable.append(str(error))
        named = student.name(torch.stack(list(squares.values())), top) if squares else []
        for path, classes in zip(squares, named, strict=True):
            yield [str(path), *(text for name, p in classes for text in (name, f"{p:.4f}"))]


def compared(lines: Iterable[list[str]], classes: list[str], right: list[bool]) -> Iterator[list[str]]:
    """Passes the lines on; `right` gets a verdict on each image in a folder named after a class."""
    for line in lines:
        name = Path(os.path.abspath(line[0])).parent.name  # by its given name: a link may lead elsewhere
        if name in classes:
            right.append(line[1] == name)
        yield line


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("run", help="a run's folder, or a round_NN.pt")
    parser.add_argument("images", nargs="+", help="image files, folders, or patterns in quotes")
    parser.add_argument("--round", type=COUNT0, help="round of the network, from 0; default: the last one")
    parser.add_argument("--top", type=COUNT, default=1, help="number of classes to print for each image")
    parser.add_argument("--output", type=Path, help="CSV file to write; default: print the lines")
    args = parser.parse_args(argv)
    student, images = load_student(args.run, args.round), image_files(args.images)
    if args.output is not None:  # before anything is computed that could not be kept
        args.output.parent.mkdir(parents=True, exist_ok=True)
    unreadable: list[str] = []
    right: list[bool] = []
    lines = compared(table(student, images, args.top, unreadable), student.classes, right)
    if args.output is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(lines)
        sys.stdout.flush()
    elif args.output.exists() and not args.output.is_file():  # /dev/null, a pipe
        with open(args.output, "w", **files.CSV) as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
    else:
        files.write_csv(args.output, lines)
    if right:
        print(f"{100 * sum(right) / len(right):.2f}% right, of {len(right)} images in folders that have a class's name",
              file=sys.stderr)  # fmt: skip
    if unreadable:
        raise InputError(f"{len(unreadable)} of the files could not be read: {'; '.join(unreadable)}")


if __name__ == "__main__":
    entry.run(main)
