"""A run's state, which `state.pt` holds: what there is at first, and what is read back checked."""

from collections.abc import Iterable
from pathlib import Path

import torch

from common.errors import InputError
from common.files import read_tensors
from common.schema import TABLES

REMEDY = "delete it to start the run anew"


def fresh() -> dict:
    """Of a run that has not begun: the round's number, the labelled pool, the training that goes on, the tables."""
    tables = {table: {column: [] for column in columns} for table, columns in TABLES.items()}
    return {"round": 0, "labeled": None, "training": None, **tables}


def read(path: Path) -> dict:
    """The state at `path`. Raises InputError when it is damaged, or not what `fresh` becomes."""
    state = read_tensors(path, REMEDY)
    wrong = fault(state)
    if wrong:
        raise InputError(f"{path}: is no run's state ({wrong}); {REMEDY}")
    for table, columns in TABLES.items():
        state[table] = _columns(state[table], columns)
    return state


def fault(state: dict) -> str:
    """What keeps a dictionary from being a run's state, or nothing."""
    missing = fresh().keys() - state.keys()
    if missing:
        return f"it has no {', '.join(sorted(missing))}"
    number, labeled = state["round"], state["labeled"]
    if type(number) is not int or number < 0:
        return f"its round is {number!r}"
    if labeled is None and number:
        return f"it has no labelled pool in round {number + 1}"
    if labeled is not None and not _is_index(labeled):
        return "its labelled pool is no list of images"
    if not isinstance(state["training"], dict | None):
        return "its training is no dictionary"
    for table in TABLES:
        if not _is_table(state[table]):
            return f"its {table} are no table"
    return ""


def _is_index(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.int64 and value.ndim == 1


def _is_table(stored: object) -> bool:
    """Columns of one length by name."""
    if not isinstance(stored, dict) or not all(isinstance(values, list) for values in stored.values()):
        return False
    return len({len(values) for values in stored.values()}) <= 1


def _columns(stored: dict[str, list], columns: Iterable[str]) -> dict[str, list]:
    """A table with all columns of today: one that it has not, in a run begun by earlier code, is empty."""
    count = len(next(iter(stored.values()), []))
    return {column: stored.get(column, [""] * count) for column in columns}
