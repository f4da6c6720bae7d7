"""The command-line parser, and the types of its numbers."""

import argparse
import sys
from collections.abc import Callable

from common.errors import InputError


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows each flag's default, if it has one; keeps the docstring's line breaks."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default in ("", []):
            return action.help
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Raises InputError instead of printing the usage of forty flags around one line."""

    def __init__(self, **options) -> None:
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if spec is not None and spec.name.startswith("common."):  # python -m common.report
            options.setdefault("prog", f"python -m {spec.name.removesuffix('.__main__')}")
        super().__init__(formatter_class=Help, **options)

    def error(self, message: str) -> None:
        raise InputError(message)


def number(kind: type, low: float, high: float = float("inf"), above: bool = False) -> Callable:
    bounds = f"{'more than' if above else 'at least'} {low:g}"
    if high != float("inf"):
        bounds += f" and at most {high:g}"

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


COUNT, COUNT0 = number(int, 1), number(int, 0)
SEED = number(int, 0, 2**53)  # a report stores it as a float
RATE, WEIGHT = number(float, 0, 1e6, above=True), number(float, 0, 1e12)
MOST_VIEWS = 127
SHIFT = number(int, 0, 64)  # pixels; distances are kept as int8
SWITCH = argparse.BooleanOptionalAction
