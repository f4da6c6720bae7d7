"""The command line: a script's flags parsed and checked, and whatever goes wrong said in one line."""

import argparse
import difflib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from common import budget, console, data, folding, machine, networks, proposal, recipes, startup, unused_flags
from common.datasets import DATASETS
from common.errors import InputError, LabelsNeeded
from common.experiments import METHODS
from common.flags import Parser, declare
from common.networks import PAIRS
from common.samplers import SAMPLERS, Sampler, nets
from common.teachers import precomputed, store

BLENDED = ("kl", "dkd", "dist")  # logit losses of softened probabilities, which --mixup blends


def start(main: Callable[..., None], doc: str = "", defaults: dict | None = None) -> None:
    """Runs a script's `main`. Bad input ends in one line and status 2, Ctrl-C in a hint how to go on and 130, and a
    run that waits for labels in a line that says for which, and 3.

    With an experiment's docstring and DEFAULTS, `main` gets the parsed flags of a process that is set up for them.
    """
    startup.interruptible()
    console.prepare()
    try:
        if defaults is None:
            main()
        else:
            args = parse(doc, defaults)
            check_image_size(args)
            budget.label_counts(args, data.pool_size(args))
            machine.prepare(args)
            main(args)
    except LabelsNeeded as error:
        console.say(str(error))
        sys.exit(3)
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:  # nobody reads on, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except OSError as error:  # a full disk, say. What was written before is whole
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except torch.OutOfMemoryError:
        _fail("the GPU's memory is full; lower --batch_size")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        _fail(f"memory does not suffice ({_first_line(error)}); lower --batch_size, --num_images or --image_size")
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last finished epoch", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    script = Path(sys.argv[0])
    module = script.stem in ("__main__", "__init__")  # python -m common.export
    print(f"{script.parent.name if module else script.name}: error: {message}", file=sys.stderr)
    sys.exit(2)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def parse(doc: str, defaults: dict, argv: list[str] | None = None) -> argparse.Namespace:
    """This experiment's flags over its recipe's over its DEFAULTS, checked. Changes nothing in the process.

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
        flag = unknown[0].split("=")[0]
        close = difflib.get_close_matches(flag, known, n=1)
        others = [each for each in METHODS if flag in options({"model": defaults["model"], "method": each})]
        hint = f"did you mean {close[0]}?" if close else "see --help"
        if others:
            hint = f"{' and '.join(others)} {'has' if len(others) == 1 else 'have'} it, {defaults['method']} has not"
        parser.error(f"{unknown[0]}: no such flag; {hint}")
    args = _with_recipe(parser, argv)
    _check(args)
    given = {word.split("=")[0].removeprefix("--") for word in argv if word.startswith("--")}
    for note in [*unused_flags.notes(args, given), *unused_flags.averages(args)]:
        _warn(note)
    for name in ("data_dir", "dataset", "labels", "save_path", "log_path", "teacher"):
        if getattr(args, name, "") and not (name == "dataset" and args.dataset.lower() in DATASETS):
            setattr(args, name, os.path.abspath(os.path.expanduser(getattr(args, name))))
    return args


def preset(defaults: dict, words: list[str]) -> argparse.Namespace:
    """The flags of an experiment with these defaults behind a few words, unchecked. Raises InputError."""
    return _with_recipe(_parser("", defaults), words)


def options(defaults: dict) -> set[str]:
    """The flags of an experiment with these defaults, each as `--name`."""
    actions = _parser("", defaults)._actions
    return {option for action in actions for option in action.option_strings if option.startswith("--")}


def _parser(doc: str, defaults: dict) -> Parser:
    for key, known in (("model", PAIRS), ("method", METHODS)):
        if defaults.get(key) not in list(known):
            raise _wrong(defaults, key, f"it must be one of {', '.join(known)}")
    parser = Parser(description=doc, allow_abbrev=False)
    declare(parser, defaults)
    actions = {action.dest: action for action in parser._actions}
    left = sorted(defaults.keys() - actions.keys() - {"model", "method"})
    if left:
        raise InputError(f"DEFAULTS of {defaults['method']}: no such flag: {', '.join(left)}")
    for key in defaults.keys() & actions.keys():
        _check_default(parser, actions[key], defaults)
    return parser


def _with_recipe(parser: Parser, argv: list[str]) -> argparse.Namespace:
    args = parser.parse_args(argv)
    if args.recipe != "own":
        parser.set_defaults(**_recipe(args))
        args = parser.parse_args(argv)
    return args


def _recipe(args: argparse.Namespace) -> dict:
    """The values of `--recipe`. Raises InputError for a teacher's where a student is trained, or the reverse."""
    teacher = getattr(args, "network", "student") == "teacher"
    if teacher != (args.recipe in recipes.TEACHERS):
        raise InputError(f"--recipe {args.recipe}: is a {'student' if teacher else 'teacher'}'s; "
                         f"{'leave out' if teacher else 'add'} --network teacher")  # fmt: skip
    return recipes.TEACHERS[args.recipe](args.model) if teacher else recipes.student(args.recipe, args.method)


def _check_default(parser: Parser, action: argparse.Action, defaults: dict) -> None:
    """A flag's value in DEFAULTS, held to what the command line would be: argparse itself checks no default."""
    value = defaults[action.dest]
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise _wrong(defaults, action.dest, "it must be True or False")
        return
    several = action.nargs == "+"
    if several and value is None:
        return
    if several != isinstance(value, list | tuple):
        raise _wrong(defaults, action.dest, "it must be a list" if several else "it must be one value")
    for one in value if several else [value]:
        if action.type is None and not isinstance(one, str):
            raise _wrong(defaults, action.dest, "it must be text")
        try:
            parser._check_value(action, parser._get_value(action, str(one)))
        except argparse.ArgumentError as error:
            raise _wrong(defaults, action.dest, error.message) from None


def _wrong(defaults: dict, key: str, reason: str) -> InputError:
    where = f"DEFAULTS of {defaults.get('model')} {defaults.get('method')}"
    return InputError(f'{where}: "{key}": {defaults.get(key)!r}: {reason}')


def _check(args: argparse.Namespace) -> None:
    """What one flag's type cannot see. Raises InputError."""
    if args.num_images < 2:
        raise InputError("--num_images 1: it takes one to train on and one to validate on; use 2 or more")
    if args.num_val >= args.num_images:
        raise InputError(
            f"--num_val {args.num_val}: must be less than --num_images {args.num_images}; these fit: "
            + proposal.words(proposal.counts(args.num_images, bought=args.val_labels == "bought"), args)
        )
    if args.batch_size > args.num_images:
        raise InputError(
            f"--batch_size {args.batch_size}: an epoch of {args.num_images} images has no update; these fit: "
            + proposal.words(proposal.counts(args.num_images, bought=args.val_labels == "bought"), args)
        )
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: the package is not there; pip install tensorboard, or leave the flag out")
    if args.extra and args.dataset.lower() != "svhn":
        raise InputError(f"--extra: only svhn has an extra split, not --dataset {args.dataset}")
    if args.fold_bn and not folding.foldable(args.model, getattr(args, "network", "student")):
        raise InputError(f"--fold_bn: {args.model} has its own batch norm; leave the flag out")
    if not args.expt or args.expt != Path(args.expt).name or args.expt.startswith("."):
        raise InputError(f"--expt {args.expt!r}: must be a plain folder name")
    if not args.ce_wt and not getattr(args, "logit_wt", 0):
        raise InputError("--ce_wt 0 --logit_wt 0: nothing would train the classifier; one of them must be more")
    if "teacher_labels" in args:
        _check_teacher(args)
    if "sampler_input" in args and args.sampler_input == "images" and args.sampler != "vae":
        raise InputError(f"--sampler_input images: only --sampler vae sees images, not {args.sampler}")
    if "sampler_input" in args and args.sampler_input == "images":
        nets.check_halvings(args.image_size)
    if "sampler" in args:
        _check_sampler(args, SAMPLERS[args.sampler])
    if "warmup_epochs" in args and SAMPLERS[args.sampler].reaches_student and args.warmup_epochs >= args.train_epochs:
        _warn(f"--warmup_epochs {args.warmup_epochs} covers all {args.train_epochs} epochs: no adversarial term")
    if "logit_loss" in args and args.logit_loss != "mse" and 0 < args.logit_wt < 0.01:
        _warn(f"--logit_wt {args.logit_wt:g} is the paper's for mse; {args.logit_loss} hardly counts with it, 1 works")


def check_image_size(args: argparse.Namespace) -> None:
    """Raises InputError for `--image_size` where a network of the pair has nothing left behind a pool."""
    if args.image_size >= PAIRS[args.model].IMAGE_SIZE:
        return
    parts = [getattr(args, "network", "student")]
    if "teacher_labels" in args and not precomputed.named(args):
        parts.append("teacher")
    least = max(networks.smallest_image(args.model, part) for part in parts)
    if args.image_size < least:
        raise InputError(f"--image_size {args.image_size}: {args.model} needs {least} pixels or more")


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
    if args.mixup and args.distill_on != "pool":
        raise InputError(f"--mixup {args.mixup:g}: blends the pool's images; add --distill_on pool")
    if args.mixup and args.logit_loss not in BLENDED:
        raise InputError(
            f"--mixup {args.mixup:g}: blends softened probabilities, which --logit_loss {args.logit_loss} does not "
            f"compare; use {' or '.join(BLENDED)}"
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


def _check_sampler(args: argparse.Namespace, kind: type[Sampler]) -> None:
    """Can the strategy ask the network that it is to ask? Raises InputError."""
    if kind.oracle and args.labels:
        raise InputError(
            f"--sampler {args.sampler}: reads labels before it buys them, and --labels {args.labels} has them "
            "afterwards; leave one out"
        )
    asked = getattr(args, "query_by", "student")
    if asked == "teacher" and not kind.asks:
        able = ", ".join(name for name, other in SAMPLERS.items() if other.asks)
        raise InputError(f"--query_by teacher: --sampler {args.sampler} does not ask one network; these do: {able}")
    if asked == "teacher" and precomputed.named(args) and (kind.uses_features or kind.runs_teacher):
        raise InputError(
            f"--query_by teacher: --sampler {args.sampler} needs more than the logits in --teacher {args.teacher}; use "
            "--query_by student"
        )
    part = "teacher" if asked == "teacher" else getattr(args, "network", "student")
    if kind.needs_dropout and not networks.drops(args.model, part):
        able = ", ".join(model for model in networks.PAIRS if networks.drops(model, "teacher"))
        raise InputError(
            f"--sampler {args.sampler}: the {part} of {args.model} has no dropout to draw functions by; ask a teacher, "
            f"of {able} (--query_by teacher, or --network teacher)"
        )


def _warn(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)
