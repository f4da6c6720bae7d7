"""Keeps teachers for all runs under one `--save_path`, and reads them, checked against the experiment."""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from common import augment, datasets, evaluation, fast, networks
from common.data import Images
from common.errors import InputError
from common.files import locked, read_tensors, replacing
from common.networks import SplitNet
from common.runs import Run, save_weights

KEPT = "train_epochs batch_size lr_task weight_decay schedule fold_bn feature_rms shift label_smoothing"
KEPT += " num_images take num_val seed"


def folder(args) -> Path:
    """The folder of teachers and their cached outputs, for all runs under one `--save_path`."""
    return Path(args.save_path) / "teachers"


def shared_path(args) -> Path:
    """Where `Single --network teacher` puts a teacher and KD and EnCoDe look for it."""
    return folder(args) / f"{args.model}-{datasets.name(args)}-{args.image_size}px.pt"


def needed(args) -> Path | None:
    """Path of the shared teacher that a run with these flags learns from, found without images; None if it has none."""
    if "teacher" not in args or args.teacher or args.teacher_labels != "all":
        return None
    return shared_path(args)


def replaced(path: Path, key: str) -> Path:
    """Where the shared teacher with this fingerprint is kept once another has taken its place at `path`."""
    return path.with_name(f"{path.stem}-{key[:12]}.pt")


def identity(args, images: Images) -> dict:
    """What a teacher must share with the experiment that uses it."""
    found = {
        "model": args.model,
        "dataset": images.name,
        "data": images.source,
        "classes": images.classes,
        "image_size": args.image_size,
    }
    return found | ({"label_values": images.label_values} if images.label_values else {})


def publish_run(args, run: Run, images: Images) -> None:
    """Publishes the teacher of a finished run, again if its file is gone or another took its place.

    Raises InputError if both that file and the run's own copy are gone.
    """
    path, weights = shared_path(args), run.folder / "round_00.pt"
    if weights.exists():
        net, record = load(args, images, weights)
        publish(args, run, images, net, float(record["test_accuracy"]))
    elif not path.exists():
        raise InputError(f"{weights}: is gone, and so is {path}; delete {run.folder} to train this teacher again")


def publish(args, run: Run, images: Images, net: SplitNet, accuracy: float) -> None:
    """Saves a teacher trained on all labels where KD and EnCoDe look, with the record of how it was trained.

    A different one that is there is kept beside it, for the runs that began with it.
    """
    path = shared_path(args)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.stem}.lock"), "another process that publishes a teacher"):
        found = _fingerprint(path) if path.exists() else None
        if found == networks.fingerprint(net):
            return
        before = "" if found is None else _set_aside(path, found)
        trained = {name: getattr(args, name) for name in KEPT.split()} | {"amp": args.precision}
        save_weights(
            path,
            net,
            **identity(args, images),
            network="teacher",
            normalization=augment.NORMALIZATION,
            test_accuracy=f"{accuracy:.2f}",
            labels=len(images.pool),
            seen=evaluation.seen(args, images, images.pool),
            trained=trained,
            probe=networks.probe(net, images.size),
        )
        run.log(f"teacher of {accuracy:.2f}% test accuracy saved to {path}{before}")


def _fingerprint(path: Path) -> str:
    """The fingerprint of the teacher in a file; empty if the file is damaged or holds no teacher."""
    try:
        return networks.fingerprint(read(path)[0])
    except InputError:
        return ""


def _set_aside(path: Path, key: str) -> str:
    """Copies the teacher at `path`, with this fingerprint, to where runs that began with it look.

    Returns what the log says about it.
    """
    if not key:
        return ", in place of a file that was no teacher"
    with replacing(replaced(path, key)) as temporary:
        shutil.copyfile(path, temporary)
    return f", in place of another, which is now {replaced(path, key).name}"


def load(args, images: Images, path: Path) -> tuple[SplitNet, dict]:
    """A teacher in eval mode and its record, which is empty for a bare state dict such as the authors' release.

    Raises InputError when the file is missing or unreadable, or belongs to other data, classes or image size.
    """
    weights, record = read(path)
    check(args, images, path, record)
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    net = networks.loaded(args.model, "teacher", args.num_classes, weights, f"--teacher {path}")
    remedy = "train the teacher again, or check the commit out that it was made with"
    networks.check(net, record, images.size, f"--teacher {path}", remedy)
    return fast.apply(net.to(images.device), args.fast).eval(), record


def there(path: Path) -> None:
    """Raises InputError unless `path` is a file."""
    if path.is_dir():
        raise InputError(f"--teacher {path}: is a folder; name a file of weights, as {path / 'round_00.pt'} of a run")
    if not path.is_file():
        raise InputError(f"--teacher {path}: no such file; leave the flag out to train a teacher")


def read(path: Path) -> tuple[dict, dict]:
    """Weights by name, and their record, empty if there is none."""
    there(path)
    content = read_tensors(path, "name another with --teacher, or delete it to have one trained")
    weights, record = content.get("state_dict", content), content.get("record", {})
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()
    ):
        raise InputError(f"--teacher {path}: holds no network's state dict of tensors by name")
    if not isinstance(record, dict):
        raise InputError(f"--teacher {path}: its record of how it was trained is not valid; save the state dict alone")
    kinds = {_kind(tensor) for tensor in weights.values()} - {"float32", "int64"}  # int64: batch norm's counter
    if kinds:
        raise InputError(f"--teacher {path}: its weights are {', '.join(sorted(kinds))}; save them as float32")
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise InputError(f"--teacher {path}: {broken[0]} has values that are not finite; train the teacher again")
    return weights, record


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype if tensor.layout is torch.strided else tensor.layout).removeprefix("torch.")


def check(args, images: Images, path: Path, record: dict) -> None:
    """Raises InputError if a teacher's record says that it does not fit this experiment."""
    for name, value in identity(args, images).items():
        if record and record.get(name, value) != value:
            if name in ("data", "label_values"):
                what = "images" if name == "data" else "labels"
                raise InputError(f"--teacher {path}: was trained on other {what} under the name {images.name}")
            raise InputError(f"--teacher {path}: was trained with {name} {record[name]}, this experiment has {value}")
