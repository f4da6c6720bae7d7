"""Counts that fit a data set, as flags: suggested when a command's counts do not fit, and printed by `common.data`."""

import os
import shlex
from itertools import pairwise
from pathlib import Path

BUDGETS = ("initial_budget", "budget", "subset")


def counts(images: int, classes: int = 0, validation: int = 0, bought: bool = False) -> dict[str, int]:
    """Flags for this many training images: a tenth to validate on, a tenth labelled per round, 64 updates per epoch.

    Args:
        images: training images, validation included.
        classes: 0 leaves num_classes out.
        validation: held out; 0 takes a tenth.
        bought: they come first among the bought labels (`--val_labels bought`), a tenth of the first round's.
    The paper's counts are the maximum: 5,000 validation images, 5,000 labels per round, batches of 128.
    """
    tenth = min(5000, max(1, images // 10))
    if bought:
        budget = min(images, max(2, tenth, 2 * validation))
        validation = validation or max(1, budget // 10)
    else:
        validation = validation or tenth
        budget = max(1, min(tenth, images - validation))
    batch_size = min(128, max(16, 2 ** ((images // 64).bit_length() - 1) if images >= 64 else 1), images)
    found = {"num_images": images, "num_val": validation, "num_classes": classes}
    found |= {"initial_budget": budget, "budget": budget, "subset": 2 * budget, "batch_size": batch_size}
    return {name: value for name, value in found.items() if value}


def words(found: dict, args, names: tuple[str, ...] = ()) -> str:
    """`--num_images 1438 --num_val 143 ...`: the flags that the method has, only those in `names` if given.

    With `--percents`, which replace the budgets, the subset holds the labels of the largest step.
    For a user's own data set, whose counts nobody knows by heart, adds the command that prints whole commands.
    """
    if getattr(args, "percents", None) and "subset" in found:
        labels = [round(found["num_images"] * percent / 100) for percent in args.percents]
        steps = [after - before for before, after in pairwise(labels)]
        found = {name: value for name, value in found.items() if name not in ("initial_budget", "budget")}
        found["subset"] = max([found["subset"], *steps])
    said = " ".join(f"--{name} {found[name]}" for name in found if name in args and name in (names or found))
    own = Path(os.path.expanduser(args.dataset))
    return said + (
        f"; `python -m common.data {shlex.quote(str(own))}` at the repository's root prints whole commands"
        if own.exists()
        else ""
    )
