"""Writes the file of logits for `--teacher FILE.npz`, from any network in any framework.

    from common import logits
    logits.write("logits.npz", network, dataset="cifar10", seen="all")

or from a run's network, for a student that teaches the next one or itself (Furlanello et al. 2018, "Born-Again Neural
Networks", https://arxiv.org/abs/1805.04770):

    python -m common.logits runs/random-seed2023 --views 4 --shift 4 --output logits.npz
"""

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from tqdm import tqdm

from common import data, datasets, distillation, entry, evaluation, predict, reading, recorded
from common.data import Images
from common.errors import InputError
from common.experiments import ROOT
from common.files import write_arrays
from common.parsing import COUNT0, MOST_VIEWS, SHIFT, Parser, number
from common.teachers.precomputed import flaw, misplaced


def write(
    path: str | Path,
    network: Callable[[np.ndarray], np.ndarray],
    dataset: str = "cifar10",
    seen: str | Sequence | None = None,
    image_size: int = 224,
    batch_size: int = 256,
    data_dir: str | Path = ROOT / "data",
    labels: str | Path = "",
    extra: bool = False,
) -> None:
    """Asks `network` for the logits of all training and test images of `--dataset`, in its order, batch by batch.

    Args:
        path: the .npz, which is replaced.
        network: (B, H, W, 3) uint8 RGB images -> (B, classes) logits, a NumPy array or what `np.asarray` takes. It
            resizes and normalizes as it needs.
        seen: which labels it has seen: "all", "none", training-set indices, or a mask (N,) of bool; None if unknown,
            and then the runs' `labels_in_all` stays empty.
        image_size: for a folder's images, which differ in size; others keep their own size.
        labels, extra: as the flags of these names: for a folder that has images without a class, and for SVHN.
    Raises InputError when the data cannot be had, or the network's output is not logits of the images.
    """
    path = _target(path)
    asked = {"dataset": str(dataset), "labels": str(labels), "extra": extra, "image_size": image_size}
    source = datasets.load(SimpleNamespace(**asked, data_dir=str(data_dir), data_source="auto"))
    arrays = {"labels": source.y_train, "images_sha256": np.array(source.order or data.content(source))}
    if seen is not None:
        arrays["seen"] = _places(seen, len(source.x_train))
    for part, images in (("train", source.x_train), ("test", source.x_test)):
        rows = np.empty((len(images), len(source.classes)), np.float32)
        for start in tqdm(range(0, len(images), batch_size), desc=f"logits, {part}", leave=False, disable=None):
            batch = images[start : start + batch_size]
            rows[start : start + batch_size] = _checked(network(batch), len(batch), len(source.classes))
        arrays[part] = rows
    write_arrays(path, arrays)


def write_run(
    path: str | Path,
    run: Path,
    number: int | None = None,
    views: int = 1,
    shift: int = 0,
    data_dir: Path = ROOT / "data",
    dataset: str = "",
) -> None:
    """Writes the file for the network of a run's round, with its mean logits over views of each training image.

    `seen` has the labels of the run and of its fair teacher; if another teacher saw more, it is left out unless that
    one saw all.

    Args:
        number: the round, from 0; None takes the last.
        views, shift: drawn as a KD run of this seed draws them.
        data_dir, dataset: where the run's images are, as `recorded.images` takes them.
    Raises InputError when the run has no such round, its images are missing, or `path` cannot be written.
    """
    path, trained = _target(path), predict.load_student(run, number)
    folder = trained.path.parent
    images, args = recorded.images(folder, data_dir, dataset)
    seen = _seen(args, images, trained.record, folder)
    args.num_images = images.available  # the file has all, in the data set's order
    whole = data.load(args)
    drawn = distillation.fixed_views(Namespace(seed=args.seed, views=views, shift=shift), whole)
    _, train = distillation.compute(trained.net, whole, views=drawn, features=False)
    test = evaluation.logits(trained.net, whole.test)
    arrays = {"labels": whole.labels, "train": train.mean(0), "test": test, **({} if seen is None else {"seen": seen})}
    found = {name: tensor.numpy() for name, tensor in arrays.items()}
    write_arrays(path, found | {"images_sha256": np.array(whole.order)})


def _seen(args: Namespace, images: Images, record: dict, folder: Path) -> torch.Tensor | None:
    """Data-set indices of the labels that the networks of a run's round saw; None if queries.csv cannot tell."""
    if "seen" in record:  # a teacher's
        return record["seen"]
    last = int(record["round"])
    queries = reading.details(folder, "queries", max(predict.rounds(folder)) + 1)
    bought = torch.tensor(queries.loc[queries["round"] <= last, "index"].to_numpy())
    places = torch.isin(images.origin, bought).nonzero().flatten()
    for found in (evaluation.seen(args, images, places), images.origin):
        if str(len(found)) == str(record.get("labels_in_all")):
            return found
    return None


def _target(path: str | Path) -> Path:
    """Raises InputError if no file of logits can be written there, before anything is computed."""
    path = Path(os.path.expanduser(path))
    if path.suffix != ".npz" or not path.absolute().parent.is_dir():
        raise InputError(f"{path}: must be an .npz in a folder that is there")
    return path


def _places(seen: str | Sequence, count: int) -> np.ndarray:
    """`seen` as indices (n,) int64. Raises InputError for invalid ones."""
    named = {"all": np.arange(count), "none": np.arange(0)}
    places = named.get(seen, np.array(seen)) if isinstance(seen, str) else np.array(list(seen))
    if places.dtype == bool and len(places) == count:  # as indices, True and False would be 1 and 0
        places = places.nonzero()[0]
    if why := misplaced(places, count):
        raise InputError(f'seen={seen!r}: must be "all", "none", a mask of the training images or their places, {why}')
    return places.astype(np.int64)


def _checked(found, images: int, classes: int) -> np.ndarray:
    """A network's output for a batch. Raises InputError unless it is the logits of each image."""
    found = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)
    if found.shape != (images, classes):
        raise InputError(f"the network gives {found.shape} for {images} images of {classes} classes")
    if why := flaw(found):
        raise InputError(f"the network gives {why}")
    return found


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run whose network is used")
    parser.add_argument("--round", type=COUNT0, help="round of the network, from 0; default: the last one")
    parser.add_argument("--views", type=number(int, 1, MOST_VIEWS), default=1, help="views of each image to "
                        "average logits over: itself and random ones, shifted, and mirrored where the run's "
                        "data set allows it")  # fmt: skip
    parser.add_argument("--shift", type=SHIFT, default=0, help="shift views by up to this many pixels")
    parser.add_argument("--output", type=Path, default=Path("logits.npz"), help="file to write, for --teacher")
    parser.add_argument("--data_dir", type=os.path.expanduser, default=ROOT / "data", help="where data sets are kept")
    parser.add_argument("--dataset", default="", help="where the run's .npz or folder is now, if it has moved")
    args = parser.parse_args(argv)
    write_run(args.output, args.run, args.round, args.views, args.shift, args.data_dir, args.dataset)
    print(args.output)


if __name__ == "__main__":
    entry.run(main)
