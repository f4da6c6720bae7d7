"""Trains a teacher by its recipe, plainly or with batch norm that is then folded, and keeps its files."""

import argparse
from pathlib import Path

from torch import Tensor

from common import budget, evaluation, folding, networks, provenance, recipes, training
from common.data import Images
from common.distillation import Targets
from common.errors import Diverged, InputError
from common.evaluation import Fitted
from common.files import read_tensors, sha256, write_tensors
from common.networks import SplitNet
from common.runs import Run, contents
from common.teachers.fixmatch import OwnOutputs

UNFOLDED = "unfolded.pt"  # in a run's folder: the network before folding, for another training to start from


def fit(
    args, run, this_round, net: SplitNet, targets=None, start: Path | None = None, unfolded: bool = False
) -> Fitted:
    """`training.fit` for a teacher, `net`, that may learn from another one or start from its weights.

    `targets` are a teacher's outputs for the pool or, with `own_outputs` among the flags, the network's own. `start` is
    the folder of a run, trained with `unfolded`, whose network this one starts from.
    """
    with folding.folded(args, net, this_round) as trained:
        if start is not None:
            trained.load_state_dict(_kept(start / UNFOLDED))
        if getattr(args, "own_outputs", False):
            targets = OwnOutputs(trained, this_round.images)
        fitted = training.train(args, run, this_round, trained, targets=targets)
        if unfolded:
            write_tensors(run.folder / UNFOLDED, trained.state_dict())
    return fitted


def teacher(
    args,
    images: Images,
    labeled: Tensor,
    where: Path,
    targets: Targets | None = None,
    start: Path | None = None,
    unfolded: bool = False,
) -> tuple[SplitNet, float, Run]:
    """A teacher trained on these labels, its test accuracy, and its run in `where`, which resumes like any other.

    `targets` are another teacher's outputs, learned on the whole pool; `start` is the folder of the teacher to start
    from. `unfolded` keeps the weights that another teacher can start from. Raises Diverged when a loss is not finite.
    """
    config = {**vars(args), "labels": len(labeled), **contents(images)}
    if images.files is not None:  # with --labels the data's SHA-256 leaves them out
        config["label_values"] = sha256(images.labels[labeled].cpu().numpy())
    remedy = f"use its --teacher_* flags, or delete {where} to train another teacher"
    run = Run(where, config, provenance.describe(args), args.amp, wait=True, remedy=remedy)
    with run.closed_on_error():  # releases its lock: the grid's next job in this process would wait for it forever
        net = networks.build(args, "teacher")
        if run.state["round"] == 0:
            run.state["labeled"] = labeled.cpu()
            this_round = budget.Round(args, run, images, [len(labeled)])
            this_round.label = f"teacher ({len(labeled)} labels{'' if targets is None else ', second'})"
            try:
                fitted = fit(args, run, this_round, net, targets, start, unfolded)
            except Diverged as error:  # --lr_task is the student's here
                raise Diverged(error.what, f"--teacher_lr (here {args.lr_task:g})") from None
            evaluation.record(args, run, this_round, net, fitted, rate="--teacher_lr")
            run.commit_round()
        else:
            content = _kept(where / "round_00.pt")
            net.load_state_dict(content["state_dict"])
            networks.check(net, content.get("record", {}), images.size, str(where), _remedy(where))
        return net, float(run.last("results")["test_accuracy"]), run


def _kept(path: Path) -> dict:
    """A finished teacher's weights. If they are lost, only making its whole folder again brings them back."""
    try:
        return read_tensors(path, _remedy(path.parent))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {_remedy(path.parent)}") from None


def _remedy(where: Path) -> str:
    return f"delete {where} to train another teacher"


def recipe(args, seed: int, labels: int) -> argparse.Namespace:
    """The flags of `Single --network teacher --recipe quick`, on the data and the machine of KD or EnCoDe.

    `labels` is how many it is trained on: with few, `--teacher_passes` over them limit the epochs.
    """
    same = "model dataset data_dir data_source labels num_images take extra num_val num_classes image_size flip"
    same += " save_path device threads amp precision fast compile"
    flags = {name: getattr(args, name) for name in same.split()}
    flags |= {"expt": "teacher", "method": "Single", "network": "teacher", "seed": seed, "ce_wt": 1.0, "step_size": 80}
    flags |= {"keep": "best" if args.num_val else "last", "ema_decay": 0.999, "cutout": 0, "val_labels": "extra"}
    flags |= recipes.quick(args.model)
    flags |= {
        "train_epochs": args.teacher_epochs,
        "batch_size": min(args.teacher_batch_size, args.num_images),
        "lr_task": args.teacher_lr,
        "weight_decay": args.teacher_weight_decay,
        "feature_rms": args.teacher_feature_rms,
    }
    if args.teacher_passes:
        an_epoch = flags["num_images"] // flags["batch_size"] * flags["batch_size"]
        flags["train_epochs"] = min(flags["train_epochs"], max(1, round(args.teacher_passes * labels / an_epoch)))
    return argparse.Namespace(**flags)


def shared_recipe(args) -> argparse.Namespace:
    """The flags of the shared teacher. Its validation images are held out of the pool, whatever the run's are."""
    return recipe(args, args.teacher_seed, args.num_images - args.num_val)
