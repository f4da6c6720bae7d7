"""The command line of an experiment: its flags over its recipe's over its DEFAULTS."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from common import budget, checks, console, data, entry, machine, recipes, unused_flags
from common.datasets import DATASETS
from common.errors import InputError
from common.experiments import METHODS
from common.flags import declare
from common.networks import PAIRS
from common.parsing import Parser


def start(main: Callable[[argparse.Namespace], None], doc: str, defaults: dict) -> None:
    """Runs an experiment's `main` with its parsed flags, in a process set up for them."""

    def experiment() -> None:
        args = parse(doc, defaults)
        checks.image_size(args)
        checks.pair(args)
        budget.label_counts(args, data.pool_size(args))
        machine.prepare(args)
        main(args)

    stopped = "stopped; the same command goes on from the last finished epoch"
    entry.run(experiment, stopped, "a smaller --batch_size, --num_images or --image_size")


def parse(doc: str, defaults: dict, argv: list[str] | None = None) -> argparse.Namespace:
    """This experiment's flags over its recipe's over its DEFAULTS, checked. Changes nothing in the process.

    Args:
        doc: the script's docstring, shown by --help.
        defaults: `model` and `method`, which choose the flags, and this experiment's values of them.
        argv: the words of the command line; None takes this process's.
    Raises InputError naming the flag that is wrong.
    """
    argv = sys.argv[1:] if argv is None else argv
    # the paper's README has ---flag
    argv = ["--" + word.lstrip("-") if word.startswith("---") else word for word in argv]
    parser = _parser(doc, defaults)
    words = [word for word in argv if word not in ("-h", "--help")]
    if words != argv:
        with suppress(InputError):  # help is shown even if other flags are wrong
            _with_recipe(parser, words)  # its values are then the defaults that help shows
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        flag = unknown[0].split("=")[0]
        close = difflib.get_close_matches(flag, known, n=1)
        others = [each for each in METHODS if flag in options({"model": defaults["model"], "method": each})]
        hint = f"did you mean {close[0]}?" if close else "see --help"
        if others:
            hint = f"{', '.join(others)} {'has' if len(others) == 1 else 'have'} it, {defaults['method']} has not"
        parser.error(f"{unknown[0]}: no such flag; {hint}")
    args = _with_recipe(parser, argv)
    if args.dataset.lower() in DATASETS:  # one name for records, commands and teachers, however it was typed
        args.dataset = args.dataset.lower()
    checks.flags(args)
    given = {word.split("=")[0].removeprefix("--") for word in argv if word.startswith("--")}
    for note in [*unused_flags.notes(args, given), *unused_flags.averages(args)]:
        console.note(note)
    for name in ("data_dir", "dataset", "labels", "save_path", "log_path", "teacher"):
        if getattr(args, name, "") and not (name == "dataset" and args.dataset in DATASETS):
            setattr(args, name, os.path.abspath(os.path.expanduser(getattr(args, name))))
    return args


def preset(defaults: dict, words: list[str]) -> argparse.Namespace:
    """The flags of an experiment with these defaults, as a few words change them, unchecked. Raises InputError."""
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
        if why := _flaw(parser, actions[key], defaults[key]):
            raise _wrong(defaults, key, why)
    return parser


def _with_recipe(parser: Parser, argv: list[str]) -> argparse.Namespace:
    args = parser.parse_args(argv)
    if args.recipe != "own":
        parser.set_defaults(**_checked(parser, args, _recipe(args)))
        args = parser.parse_args(argv)
    return args


def _recipe(args: argparse.Namespace) -> dict:
    """The values of `--recipe`. Raises InputError for a teacher's recipe when a student is trained, or the reverse."""
    teacher = getattr(args, "network", "student") == "teacher"
    if teacher != (args.recipe in recipes.TEACHERS):
        raise InputError(f"--recipe {args.recipe}: is a {'student' if teacher else 'teacher'}'s; "
                         f"{'leave out' if teacher else 'add'} --network teacher")  # fmt: skip
    return (
        recipes.TEACHERS[args.recipe](args.model) if teacher else recipes.student(args.recipe, args.method, args.model)
    )


def _checked(parser: Parser, args: argparse.Namespace, recipe: dict) -> dict:
    """The recipe's flags that this experiment has. Raises InputError for one that none has, or a value it refuses."""
    actions, where = {action.dest: action for action in parser._actions}, f"--recipe {args.recipe}: common/recipes.py"
    others = [name for name in recipe if name not in actions]
    if others:  # EnCoDe's, say, in a recipe that KD has too
        known = set().union(*(options({"model": args.model, "method": method}) for method in METHODS))
        if unknown := sorted(name for name in others if f"--{name}" not in known):
            raise InputError(f"{where} gives it {', '.join(unknown)}; there is no such flag, see --help")
    found = {name: value for name, value in recipe.items() if name in actions}
    for name, value in found.items():
        if why := _flaw(parser, actions[name], value):
            raise InputError(f'{where} gives it "{name}": {value!r}: {why}')
    return found


def _flaw(parser: Parser, action: argparse.Action, value) -> str:
    """Why the command line would refuse this value of a flag, empty if it would not: argparse checks no default."""
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return "" if isinstance(value, bool) else "it must be True or False"
    several = action.nargs == "+"
    if several and value is None:
        return ""
    if several != isinstance(value, list | tuple):
        return "it must be a list" if several else "it must be one value"
    for one in value if several else [value]:
        if action.type is None and not isinstance(one, str):
            return "it must be text"
        try:
            parser._check_value(action, parser._get_value(action, str(one)))
        except argparse.ArgumentError as error:
            return error.message
    return ""


def _wrong(defaults: dict, key: str, reason: str) -> InputError:
    where = f"DEFAULTS of {defaults.get('model')} {defaults.get('method')}"
    return InputError(f'{where}: "{key}": {defaults.get(key)!r}: {reason}')
