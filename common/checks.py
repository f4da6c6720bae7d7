"""Checks beyond one flag's type: flags that contradict each other are refused, none is silently ignored."""

import argparse
import importlib.util
from pathlib import Path

from common import console, folding, networks, proposal
from common.errors import InputError
from common.losses import BLENDABLE
from common.networks import PAIRS
from common.samplers import SAMPLERS, kind, nets
from common.teachers import precomputed, store


def flags(args: argparse.Namespace) -> None:
    """Checks the flags against each other. Raises InputError."""
    if args.num_images < 2:
        raise InputError("--num_images 1: it takes one to train on and one to validate on; use 2 or more")
    if args.num_val >= args.num_images:
        raise InputError(
            f"--num_val {args.num_val}: must be less than --num_images {args.num_images}; these fit: "
            + proposal.words(proposal.counts(args.num_images, bought=args.val_labels == "bought"), args)
        )
    if not args.num_val and args.keep == "best":
        raise InputError(
            "--num_val 0: --keep best chooses the epoch by validation images; add --keep last, or hold some"
        )
    if args.batch_size > args.num_images:
        raise InputError(
            f"--batch_size {args.batch_size}: an epoch of {args.num_images} images has no update; these fit: "
            + proposal.words(proposal.counts(args.num_images, bought=args.val_labels == "bought"), args)
        )
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: the package is not there; pip install tensorboard, or leave the flag out")
    if args.extra and args.dataset != "svhn":
        raise InputError(f"--extra: only svhn has an extra split, not --dataset {args.dataset}")
    if args.fold_bn and not folding.foldable(args.model, getattr(args, "network", "student")):
        raise InputError(
            f"--fold_bn: {args.model} has its own batch norm, or layers that cannot be folded; leave the flag out"
        )
    if not args.expt or args.expt != Path(args.expt).name or args.expt.startswith("."):
        raise InputError(f"--expt {args.expt!r}: must be a plain folder name")
    if not args.ce_wt and not getattr(args, "logit_wt", 0):
        raise InputError("--ce_wt 0 --logit_wt 0: nothing would train the classifier; one of them must be more")
    if "teacher_labels" in args:
        _check_teacher(args)
    if "sampler_input" in args and args.sampler_input == "images":
        if args.sampler != "vae":
            raise InputError(f"--sampler_input images: only --sampler vae sees images, not {args.sampler}")
        nets.check_halvings(args.image_size)
    if "sampler" in args:
        _check_sampler(args)
    if "warmup_epochs" in args and kind(args).reaches_student and args.warmup_epochs >= args.train_epochs:
        console.note(f"--warmup_epochs {args.warmup_epochs} covers all {args.train_epochs} epochs: no adversarial term")
    if "logit_loss" in args and args.logit_loss != "mse" and 0 < args.logit_wt < 0.01:
        console.note(
            f"--logit_wt {args.logit_wt:g} is the paper's for mse; {args.logit_loss} hardly counts with it; 1 works"
        )


def image_size(args: argparse.Namespace) -> None:
    """Raises InputError for an `--image_size` that leaves a network of the pair nothing after a pool."""
    if args.image_size >= PAIRS[args.model].IMAGE_SIZE:
        return
    parts = [getattr(args, "network", "student")]
    if "teacher_labels" in args and not precomputed.named(args):
        parts.append("teacher")
    least = max(networks.smallest_image(args.model, part) for part in parts)
    if args.image_size < least:
        raise InputError(f"--image_size {args.image_size}: {args.model} needs {least} pixels or more")


def pair(args: argparse.Namespace) -> None:
    """Raises InputError for a pair whose networks do not fit together, before any is trained."""
    parts = [getattr(args, "network", "student")]
    if "teacher_labels" in args and not precomputed.named(args):
        parts += ["teacher", "decoder"] if args.feat_wt else ["teacher"]
    if wrong := networks.misfit(args.model, args.image_size, args.num_classes, tuple(parts)):
        raise InputError(f"common.networks.PAIRS[{args.model!r}]: {wrong}; fix its file in common/networks")


def _check_teacher(args: argparse.Namespace) -> None:
    """Do the flags of views and of fair teachers have what they need? Raises InputError: none is silently ignored."""
    if args.shift and args.views < 2 and args.targets == "view":  # the first view is the image itself
        raise InputError(
            f"--shift {args.shift}: the teacher's outputs are of unmoved images; add --views 4, say, which has them "
            "for moved ones"
        )
    if args.targets == "mean" and args.feat_wt:
        raise InputError(
            f"--targets mean: is of logits, and features of one view do not fit another; add --feat_wt 0 (now "
            f"{args.feat_wt:g}), or leave it out"
        )
    if args.distill_on == "pool" and not args.feat_wt and not args.logit_wt:
        raise InputError(
            "--distill_on pool --feat_wt 0 --logit_wt 0: nothing is distilled; give one of them a weight, or add "
            "--distill_on labeled"
        )
    asks = args.query_by == "teacher" or kind(args).needs_teacher
    if args.method == "KD" and not (args.feat_wt or args.logit_wt or asks):
        console.note("--feat_wt 0 --logit_wt 0: nothing is distilled; Random does the same without a teacher")
    if args.mixup and args.distill_on != "pool":
        raise InputError(f"--mixup {args.mixup:g}: blends the pool's images; add --distill_on pool")
    if args.mixup and args.logit_loss not in BLENDABLE:
        raise InputError(
            f"--mixup {args.mixup:g}: blends the teacher's softened probabilities, and --logit_loss {args.logit_loss} "
            f"needs its logits for each image; use one of {', '.join(BLENDABLE)}"
        )
    if args.teacher_labels == "labeled" and args.teacher:
        raise InputError(
            f"--teacher {args.teacher}: --teacher_labels labeled trains one for each round; add "
            "--teacher_labels all, or leave --teacher out"
        )
    if args.teacher_labels == "all" and args.teacher_start != "anew":
        raise InputError(
            f"--teacher_start {args.teacher_start}: one teacher serves all rounds; add --teacher_labels labeled, or "
            "leave it out"
        )
    if args.teacher_labels == "all" and args.teacher_pool != "none":
        raise InputError(
            f"--teacher_pool {args.teacher_pool}: a teacher that saw every label has no pool to learn; add "
            "--teacher_labels labeled, or --teacher_pool none"
        )
    if precomputed.named(args) and (args.feat_wt or args.targets != "mean"):
        raise InputError(
            f"--teacher {args.teacher}: has an image's logits, whatever its view, and no features; add --feat_wt 0 "
            "--targets mean"
        )
    if args.teacher:
        store.there(Path(args.teacher).expanduser())


def _check_sampler(args: argparse.Namespace) -> None:
    """Raises InputError if the strategy cannot ask the network that it is told to ask."""
    strategy = kind(args)
    if strategy.oracle and args.labels:
        raise InputError(
            f"--sampler {args.sampler}: reads labels before it buys them, and --labels {args.labels} has them "
            "afterwards; leave one out"
        )
    asked = getattr(args, "query_by", "student")
    if asked == "teacher" and not strategy.asks:
        able = ", ".join(name for name, other in SAMPLERS.items() if other.asks)
        raise InputError(f"--query_by teacher: --sampler {args.sampler} does not ask one network; these do: {able}")
    if asked == "teacher" and precomputed.named(args) and (strategy.uses_features or strategy.needs_dropout):
        raise InputError(
            f"--query_by teacher: --sampler {args.sampler} needs more than the logits in --teacher {args.teacher}; use "
            "--query_by student"
        )
    part = "teacher" if asked == "teacher" else getattr(args, "network", "student")
    if strategy.needs_dropout and not networks.drops(args.model, part):
        able = ", ".join(model for model in networks.PAIRS if networks.drops(model, "teacher"))
        raise InputError(
            f"--sampler {args.sampler}: the {part} of {args.model} has no dropout to draw functions by; ask a teacher, "
            f"of {able} (--query_by teacher, or --network teacher)"
        )
