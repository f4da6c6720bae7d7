"""The teacher: trained where it is missing, checked against this experiment's data, its outputs cached."""

import argparse
from pathlib import Path

import torch

from common import budget, distillation, networks, training
from common.data import Images
from common.distillation import Targets
from common.errors import InputError
from common.networks import PAIRS, SplitNet
from common.runs import Run, save_weights

Tensor = torch.Tensor


def folder(args) -> Path:
    """Where teachers and their cached outputs lie, for all runs under one `--save_path`."""
    return Path(args.save_path) / "teachers"


def shared_path(args, images: Images) -> Path:
    """Where `Single --network teacher` puts a teacher and KD and EnCoDe look for it."""
    return folder(args) / f"{args.model}-{images.name}-{args.image_size}px.pt"


def publish(args, images: Images, run: Run, net: SplitNet, accuracy: float) -> None:
    """Puts a teacher trained on all labels where KD and EnCoDe look, with the record of how it was trained."""
    path = shared_path(args, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = ", in place of another" if path.exists() else ""
    how = "train_epochs batch_size lr_task schedule fold_bn shift label_smoothing num_images num_val seed amp"
    save_weights(
        path,
        net,
        **identity(args, images),
        test_accuracy=f"{accuracy:.2f}",
        labels=len(images.pool),
        trained={name: getattr(args, name) for name in how.split()},
    )
    run.log(f"teacher of {accuracy:.2f}% test accuracy saved to {path}{before}")


def identity(args, images: Images) -> dict:
    """What a teacher must share with the experiment that uses it."""
    return {
        "model": args.model,
        "dataset": images.name,
        "data": images.source,
        "classes": images.classes,
        "image_size": args.image_size,
    }


class Teacher:
    """The experiment's teacher: one for all rounds, or with `--teacher_labels labeled` one for each."""

    def __init__(self, args, run: Run, images: Images):
        self.args, self.run, self.images = args, run, images
        self._targets: Targets | None = None
        self._accuracy = ""
        if args.teacher:  # refuse a wrong one before anything is trained
            _check(args, images, Path(args.teacher), _read(Path(args.teacher))[1])

    def targets(self, round: budget.Round) -> Targets:
        """The teacher's outputs for the round's training views; trains the teacher first when there is none."""
        if self.args.teacher_labels == "labeled":
            net, accuracy = self._trained_on(round.labeled, self.run.folder / f"teacher_{round.number:02d}")
            self._targets, self._accuracy = distillation.cache(net, self.images, folder(self.args)), f"{accuracy:.2f}"
        elif self._targets is None:
            self._targets = self._shared()
        round.teacher_accuracy = self._accuracy
        return self._targets

    def _shared(self) -> Targets:
        args, images, run = self.args, self.images, self.run
        path = Path(args.teacher) if args.teacher else shared_path(args, images)
        if not path.exists():
            run.log(
                f"no teacher at {path}: training one first ({args.teacher_epochs} one-cycle epochs); "
                "Single --network teacher trains another, --teacher PATH names one"
            )
            net, accuracy = self._trained_on(images.pool, folder(args) / f"{path.stem}-seed{args.seed}-training")
            if not path.exists():  # another run may have waited for the same training
                publish(recipe(args), images, run, net, accuracy)
        net, record = load(args, images, path)
        self._accuracy = record.get("test_accuracy", "")
        same = record.get("trained", {}).get("seed") == args.seed
        run.log(
            f"teacher {path}: {self._accuracy or 'unknown'}% test accuracy, {record.get('labels', 'unknown')} labels"
            + ("" if same else "; its validation split is another seed's, so it has seen some of this run's")
        )
        key = networks.fingerprint(net)
        if run.state.setdefault("teacher", key) != key:
            raise InputError(
                f"{path}: is not the teacher this run began with; restore it or start under another --expt"
            )
        return distillation.cache(net, images, folder(args), key)

    def _trained_on(self, labeled: Tensor, where: Path) -> tuple[SplitNet, float]:
        """A teacher trained on these labels, and its test accuracy; its own run folder resumes like any other."""
        args = recipe(self.args)
        run = Run(where, {**vars(args), "labels": len(labeled), "data": self.images.fingerprint}, wait=True)
        net = networks.build(args, "teacher")
        if run.state["round"] == 0:
            run.state["labeled"] = labeled.cpu()
            round = budget.Round(args, run, self.images, [len(labeled)])
            round.label = f"teacher ({len(labeled)} labels)"
            training.fit(args, round, net)
            round.record(net, "teacher")
            run.commit_round()
        else:
            net.load_state_dict(_read(where / "round_00.pt")[0])
        accuracy = float(run.state["results"][-1][-1])
        run.close()
        return net, accuracy


def recipe(args) -> argparse.Namespace:
    """The flags of `Single --network teacher` with the pair's quick recipe: what KD and EnCoDe train a teacher with."""
    data = "dataset num_images take extra num_val num_classes image_size flip"
    machine = "save_path device threads amp"
    flags = {name: getattr(args, name) for name in f"model seed step_size weight_decay {data} {machine}".split()}
    flags |= {"expt": "teacher", "method": "Single", "network": "teacher", **PAIRS[args.model].TEACHER}
    flags |= {
        "train_epochs": args.teacher_epochs,
        "batch_size": min(args.teacher_batch_size, args.num_images),
        "lr_task": args.teacher_lr,
    }
    return argparse.Namespace(**flags)


def load(args, images: Images, path: Path) -> tuple[SplitNet, dict]:
    """A teacher in eval mode and its record, which is empty for a bare state dict such as the authors' release.

    Raises InputError when the file is missing or unreadable, or belongs to other data, classes or image size.
    """
    weights, record = _read(path)
    _check(args, images, path, record)
    with torch.device("meta"):  # no initial weights for the loaded ones to replace
        net = PAIRS[args.model].teacher(args.num_classes)
    try:
        net.load_state_dict({name.removeprefix("module."): tensor for name, tensor in weights.items()}, assign=True)
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--teacher {path}: not a {args.model} teacher of {args.num_classes} classes ({reason})"
        ) from None
    return networks.quicken(net).to(images.device, memory_format=torch.channels_last).eval(), record


def _read(path: Path) -> tuple[dict, dict]:
    if not path.is_file():
        raise InputError(f"--teacher {path}: no such file; leave the flag out to train a teacher")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load raises whatever a damaged archive makes it raise
        raise InputError(
            f"--teacher {path}: not a readable checkpoint ({' '.join(str(error).split())[:120]})"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"--teacher {path}: holds a {type(content).__name__}, not a network's state dict")
    return content.get("state_dict", content), content.get("record", {})


def _check(args, images: Images, path: Path, record: dict) -> None:
    for name, value in identity(args, images).items():
        if record and record.get(name, value) != value:
            if name == "data":
                raise InputError(f"--teacher {path}: was trained on other images under the name {images.name}")
            raise InputError(f"--teacher {path}: was trained with {name} {record[name]}, this experiment has {value}")
