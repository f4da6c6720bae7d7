"""A run's state, kept in `state.pt`: a fresh one, and one read back."""

from pathlib import Path

from common.errors import InputError
from common.files import read_tensors
from common.schema import TABLES

REMEDY = "delete it to start the run anew"


def fresh() -> dict:
    """The state of a new run: the round's number, the labelled pool, the training in progress, the tables."""
    tables = {table: {column: [] for column in columns} for table, columns in TABLES.items()}
    return {"round": 0, "labeled": None, "training": None, **tables}


def read(path: Path) -> dict:
    """The state at `path`, with all current columns in its tables. Raises InputError when damaged, or not a state."""
    state = read_tensors(path, REMEDY)
    if missing := sorted(fresh().keys() - state.keys()):
        raise InputError(f"{path}: is not a run's state (it has no {', '.join(missing)}); {REMEDY}")
    for table, columns in TABLES.items():
        count = len(next(iter(state[table].values()), []))
        state[table] = {column: state[table].get(column, [""] * count) for column in columns}  # earlier code had fewer
    return state
