"""Names the given flags that change nothing, so that nobody compares two runs that are the same."""

import argparse

from common import recipes
from common.losses import UNSOFTENED
from common.samplers import kind
from common.teachers import precomputed

MOST_LEFT = 0.05


def notes(args: argparse.Namespace, given: set[str]) -> list[str]:
    """A line for each of the flags `given` on the command line that the others leave without effect.

    They are not errors: a grid gives the same flags to different methods.
    """
    idle = _training(args)
    if "teacher_labels" in args:
        idle |= _teacher(args) | _distillation(args)
    if "adv_wt" in args:
        idle |= _sampler(args)
    return [f"--{name} changes nothing here: {idle[name]}" for name in idle if name in given]


def averages(args: argparse.Namespace) -> list[str]:
    """A line if `--keep ema` would end with much of the average's initial weights."""
    updates = args.num_images // args.batch_size * args.train_epochs
    left = args.ema_decay ** (updates - 1)
    if args.keep != "ema" or left < MOST_LEFT:
        return []
    return [
        f"--keep ema: after {updates} updates {left:.0%} of the average is still what it began with; train longer, or "
        f"with --ema_decay {max(0.0, 1 - 5 / updates):.4g} it is 1%"
    ]


def _training(args: argparse.Namespace) -> dict[str, str]:
    idle = {} if getattr(args, "fold_bn", True) else {"feature_rms": "without --fold_bn nothing is scaled"}
    if args.schedule == "onecycle":
        idle["step_size"] = "--schedule onecycle has no steps"
    if args.keep != "ema":
        idle["ema_decay"] = f"--keep {args.keep} averages no weights"
    if not args.ce_wt:
        idle["label_smoothing"] = "with --ce_wt 0 no label is learned"
    if getattr(args, "percents", None):
        idle |= dict.fromkeys(("initial_budget", "budget"), "--percents says how many labels there are")
    return idle


def _teacher(args: argparse.Namespace) -> dict[str, str]:
    if args.teacher:
        training = "seed epochs batch_size lr passes feature_rms weight_decay more_epochs pool_epochs".split()  # noqa: SIM905
        idle = {f"teacher_{name}": "--teacher names one that is trained" for name in training}
        return idle | ({"views": "a --teacher of logits has them without views"} if precomputed.named(args) else {})
    idle = {}
    if args.teacher_labels == "labeled":
        idle["teacher_seed"] = "a teacher of --teacher_labels labeled has the run's --seed"
    if args.teacher_start == "anew":
        idle["teacher_more_epochs"] = "with --teacher_start anew no teacher goes on"
    if not args.feat_wt and args.teacher_labels == "labeled":  # a shared teacher may also serve a run that has features
        idle["teacher_feature_rms"] = "with --feat_wt 0 no features are compared"
    if not recipes.quick(args.model)["fold_bn"]:
        idle["teacher_feature_rms"] = f"{args.model}'s teacher keeps its batch norm"
    if args.teacher_pool == "none":
        idle["teacher_pool_epochs"] = "with --teacher_pool none no teacher learns the pool"
    return idle


def _distillation(args: argparse.Namespace) -> dict[str, str]:
    idle = {}
    if not args.feat_wt:
        idle |= dict.fromkeys(("feature_loss", "lr_dec"), "with --feat_wt 0 no features are compared")
    if args.logit_loss in UNSOFTENED:
        idle["temperature"] = f"--logit_loss {args.logit_loss} softens nothing"
    if not args.logit_wt:
        idle |= dict.fromkeys(("logit_loss", "temperature"), "with --logit_wt 0 no logits are compared")
    return idle


def _sampler(args: argparse.Namespace) -> dict[str, str]:
    chosen = kind(args)
    if not chosen.learns:
        names = ("adv_wt", "warmup_epochs", "lr_disc", "lr_vae", "latent_dim", "beta")
        return dict.fromkeys(names, f"--sampler {args.sampler} trains no network")
    idle = (
        {} if chosen.draws else dict.fromkeys(("lr_vae", "latent_dim", "beta"), f"--sampler {args.sampler} has no VAE")
    )
    if not chosen.reaches_student:
        idle["warmup_epochs"] = "no adversarial term reaches the student"
    elif not args.adv_wt:
        idle["warmup_epochs"] = "with --adv_wt 0 there is no adversarial term"
    return idle
