"""The experiment's teacher: found or trained, checked against this experiment's data, its outputs cached."""

import argparse
import hashlib
import json
from pathlib import Path

import torch

from common import budget, data, datasets, distillation, evaluation, fast, networks, provenance
from common.data import Images
from common.distillation import Targets
from common.errors import InputError
from common.files import read_tensors
from common.networks import PAIRS, SplitNet
from common.runs import Run, configuration, contents, save_weights
from common.samplers import SAMPLERS
from common.teachers import recipes, training

Tensor = torch.Tensor
KEPT = "train_epochs batch_size lr_task schedule fold_bn feature_rms shift label_smoothing num_images num_val seed"


def folder(args) -> Path:
    """Where teachers and their cached outputs lie, for all runs under one `--save_path`."""
    return Path(args.save_path) / "teachers"


def shared_path(args, images: Images) -> Path:
    """Where `Single --network teacher` puts a teacher and KD and EnCoDe look for it."""
    return folder(args) / f"{args.model}-{images.name}-{args.image_size}px.pt"


def needed(args) -> Path | None:
    """The shared teacher that a run with these flags learns from, found without reading images; None for any other."""
    if "teacher" not in args or args.teacher or args.teacher_labels != "all":
        return None
    return published(args)


def published(args) -> Path:
    """`shared_path` before the images are read."""
    return folder(args) / f"{args.model}-{datasets.name(args.dataset)}-{args.image_size}px.pt"


def provide(args) -> None:
    """Trains the shared teacher that a KD or EnCoDe run with these flags needs, unless it is there."""
    path = needed(args)
    if path is not None and not path.exists():
        _train_shared(args, path)


def publish(args, run: Run, images: Images, net: SplitNet, accuracy: float) -> None:
    """Puts a teacher trained on all labels where KD and EnCoDe look, with the record of how it was trained."""
    path = shared_path(args, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = ", in place of another" if path.exists() else ""
    trained = {name: getattr(args, name) for name in KEPT.split()} | {"amp": args.precision}
    save_weights(
        path, net, **identity(args, images), test_accuracy=f"{accuracy:.2f}", labels=len(images.pool), trained=trained
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
    """One teacher for all rounds that saw every label; with `--teacher_labels labeled` one for each round's labels."""

    def __init__(self, args, run: Run, images: Images):
        self.args, self.run, self.images = args, run, images
        self.views = distillation.fixed_views(args, images)
        self._targets: Targets | None = None
        if args.teacher:  # refuse a wrong one before anything is trained
            _check(args, images, Path(args.teacher), _read(Path(args.teacher))[1])

    def targets(self, this_round: budget.Round) -> Targets:
        """The teacher's outputs for the round's training views; trains the teacher first when there is none."""
        if self.args.teacher_labels == "labeled":
            return self._fair(this_round)
        if self._targets is None:
            self._targets = self._shared()
        return self._targets

    def _fair(self, this_round: budget.Round) -> Targets:
        """Of the teacher of this round's labels: found by them, its recipe and seed, or trained, once for all runs."""
        net, accuracy = fair(self.args, self.images, this_round.labeled)
        key = networks.fingerprint(net)
        self.run.record_teacher(key, this_round.number)
        self.run.log(f"{this_round.label}: its teacher has {accuracy:.2f}% test accuracy")
        return self._cache(net, key, f"{accuracy:.2f}", len(this_round.bought))

    def _cache(self, net: SplitNet, key: str, accuracy: str, labels: int | None) -> Targets:
        features = self.args.feat_wt > 0
        found = distillation.cache(net, self.images, folder(self.args), key, accuracy, self.views, features)
        found.labels = labels
        if self.args.targets == "mean":
            found = found.averaged()
        if SAMPLERS[self.args.sampler].runs_teacher:
            found.net = net
        return found

    def _shared(self) -> Targets:
        """Of the teacher at `--teacher`, or in `<save_path>/teachers`, where it is trained if it is missing."""
        args, images, run = self.args, self.images, self.run
        path = Path(args.teacher) if args.teacher else shared_path(args, images)
        if not path.exists():
            run.log(
                f"no teacher at {path}: training one first ({args.teacher_epochs} one-cycle epochs, seed "
                f"{args.teacher_seed}); Single --network teacher trains another, --teacher PATH names one"
            )
            _train_shared(args, path)
        net, record = load(args, images, path)
        accuracy = record.get("test_accuracy", "")
        same = record.get("trained", {}).get("seed") == args.seed
        run.log(
            f"teacher {path}: {accuracy or 'unknown'}% test accuracy, {record.get('labels', 'unknown')} labels"
            + ("" if same else "; its validation split is another seed's, so it has seen some of this run's")
        )
        key = networks.fingerprint(net)
        if run.state.setdefault("teacher", key) != key:
            raise InputError(
                f"{path}: is not the teacher this run began with; restore it or start under another --expt"
            )
        run.record_teacher(key)
        seen = record.get("labels"), record.get("trained", {}).get("num_val")
        return self._cache(net, key, accuracy, None if None in seen else sum(seen))


def _train_shared(args, path: Path) -> None:
    """Trains the teacher for all runs, on its own seed's split, and publishes it: the same whoever comes first."""
    args = recipe(args, args.teacher_seed)
    images = data.load(args)
    net, accuracy, run = _train(args, images, images.pool, path.with_name(f"{path.stem}-seed{args.seed}-training"))
    if not path.exists():  # another process may have trained it while this one waited
        publish(args, run, images, net, accuracy)
    run.close()


def fair(args, images: Images, labeled: Tensor) -> tuple[SplitNet, float]:
    """A teacher that saw these labels alone, and its test accuracy: a function of labels, recipe and seed.

    It is kept under their SHA-256, so that runs which share the three share the teacher and its outputs; a run that
    comes while another trains it waits. With `--teacher_pool` it is the teacher of a second one, which is returned.
    """
    labeled = labeled.sort().values  # whatever the order they were bought in
    first, *others = stages(args, len(labeled))
    net, accuracy, where = _kept(first, images, labeled)
    for flags in others:
        targets = _outputs(flags, net, images, where)
        net, accuracy, where = _kept(flags, images, labeled, targets, where)
    return net, accuracy


def _outputs(args, net: SplitNet, images: Images, where: Path) -> Targets:
    """What a second teacher learns of the first."""
    if args.targets == "view":
        return distillation.cache(net, images, where, features=False)
    views = distillation.fixed_views(
        argparse.Namespace(seed=args.seed, views=args.mean_of, shift=args.mean_shift), images
    )
    return distillation.cache(net, images, where, views=views, features=False).averaged()


def stages(args, labels: int) -> list[argparse.Namespace]:
    """The flags of a fair teacher's trainings, each of which learns from the one before.

    Where every image that may be trained on is labelled, the pool has nothing more to say.
    """
    flags = fair_recipe(args, labels)
    if args.teacher_pool == "none" or labels == args.num_images - args.num_val:
        return [flags]
    on_pool = argparse.Namespace(**{**vars(flags), **recipes.POOL[args.teacher_pool](args)})
    if "own_outputs" in on_pool:
        return [on_pool]
    return [flags, on_pool]


def fair_recipe(args, labels: int) -> argparse.Namespace:
    """The flags of a teacher of so many labels: no other decides anything, and few are passed over less often."""
    flags = recipe(args, args.seed)
    flags.keep = "last"
    if args.teacher_passes:
        an_epoch = flags.num_images // flags.batch_size * flags.batch_size
        flags.train_epochs = min(flags.train_epochs, max(1, round(args.teacher_passes * labels / an_epoch)))
    return flags


def _kept(
    args, images: Images, labeled: Tensor, targets: Targets | None = None, where: Path | None = None
) -> tuple[SplitNet, float, Path]:
    """A fair teacher, its test accuracy and its folder, whose name says what it is a function of."""
    config = {**configuration(vars(args)), **contents(images)}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    digest.update(images.origin[labeled.cpu()].numpy().tobytes())
    if images.files is not None:  # with --labels the data's fingerprint leaves the labels out
        digest.update(images.labels[labeled].cpu().numpy().tobytes())
    name = f"{args.model}-{images.name}-{args.image_size}px-{len(labeled)}labels-{digest.hexdigest()[:12]}"
    place = (where or folder(args)) / (name if targets is None else f"second-{digest.hexdigest()[:12]}")
    net, accuracy, run = _train(args, images, labeled, place, targets, start=where, unfolded=targets is None)
    run.close()
    return net, accuracy, place


def _train(
    args,
    images: Images,
    labeled: Tensor,
    where: Path,
    targets: Targets | None = None,
    start: Path | None = None,
    unfolded: bool = False,
) -> tuple[SplitNet, float, Run]:
    """A teacher trained on these labels, its test accuracy, and its run in `where`, which resumes like any other.

    `targets` are another teacher's outputs, which this one learns on the whole pool; `start` is that one's folder.
    `unfolded` keeps what such a one goes on from.
    """
    config = {**vars(args), "labels": len(labeled), **contents(images)}
    remedy = f"use its --teacher_* flags, or delete {where} to train another teacher"
    run = Run(where, config, provenance.describe(args), args.amp, wait=True, remedy=remedy)
    net = networks.build(args, "teacher")
    if run.state["round"] == 0:
        run.state["labeled"] = labeled.cpu()
        this_round = budget.Round(args, run, images, [len(labeled)])
        this_round.label = f"teacher ({len(labeled)} labels{'' if targets is None else ', second'})"
        fitted = training.fit(args, run, this_round, net, targets, start, unfolded)
        evaluation.record(args, run, this_round, net, fitted)
        run.commit_round()
    else:
        net.load_state_dict(_read(where / "round_00.pt")[0])
    return net, float(run.last("results")["test_accuracy"]), run


def recipe(args, seed: int) -> argparse.Namespace:
    """The flags of `Single --network teacher --recipe quick`, on the data and the machine of KD or EnCoDe."""
    same = "model dataset data_dir data_source labels num_images take extra num_val num_classes image_size flip"
    same += " save_path device threads amp precision fast compile"
    flags = {name: getattr(args, name) for name in same.split()}
    flags |= {"expt": "teacher", "method": "Single", "network": "teacher", "seed": seed, "ce_wt": 1.0, "step_size": 80}
    flags |= {"keep": "best", "ema_decay": 0.999, "cutout": 0, "val_labels": "extra"}
    flags |= recipes.quick(args.model)
    flags |= {
        "train_epochs": args.teacher_epochs,
        "batch_size": min(args.teacher_batch_size, args.num_images),
        "lr_task": args.teacher_lr,
        "feature_rms": args.teacher_feature_rms,
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
    return fast.apply(net.to(images.device), args.fast).eval(), record


def _read(path: Path) -> tuple[dict, dict]:
    """Weights by name, and the record they came with, if any."""
    if not path.is_file():
        raise InputError(f"--teacher {path}: no such file; leave the flag out to train a teacher")
    content = read_tensors(path, "name another with --teacher, or delete it to have one trained")
    weights, record = content.get("state_dict", content), content.get("record", {})
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise InputError(f"--teacher {path}: holds no network's state dict of tensors by name")
    kinds = {str(t.dtype).removeprefix("torch.") for t in weights.values() if t.is_floating_point()} - {"float32"}
    if kinds:
        raise InputError(f"--teacher {path}: its weights are {', '.join(sorted(kinds))}; save them as float32")
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise InputError(f"--teacher {path}: {broken[0]} has values that are not finite; train the teacher again")
    return weights, record if isinstance(record, dict) else {}


def _check(args, images: Images, path: Path, record: dict) -> None:
    for name, value in identity(args, images).items():
        if record and record.get(name, value) != value:
            if name == "data":
                raise InputError(f"--teacher {path}: was trained on other images under the name {images.name}")
            raise InputError(f"--teacher {path}: was trained with {name} {record[name]}, this experiment has {value}")
