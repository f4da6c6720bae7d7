"""A run's state, which `state.pt` holds: what there is at first, and what is read back."""

from pathlib import Path

from common.errors import InputError
from common.files import read_tensors
from common.schema import TABLES

REMEDY = "delete it to start the run anew"


def fresh() -> dict:
    """Of a run that has not begun: the round's number, the labelled pool, the training that goes on, the tables."""
    tables = {table: {column: [] for column in columns} for table, columns in TABLES.items()}
    return {"round": 0, "labeled": None, "training": None, **tables}


def read(path: Path) -> dict:
    """The state at `path`, its tables with all columns of today. Raises InputError when it is damaged, or is none."""
    state = read_tensors(path, REMEDY)
    if missing := sorted(fresh().keys() - state.keys()):
        raise InputError(f"{path}: is not a run's state (it has no {', '.join(missing)}); {REMEDY}")
    for table, columns in TABLES.items():
        count = len(next(iter(state[table].values()), []))
        state[table] = {column: state[table].get(column, [""] * count) for column in columns}  # earlier code had fewer
    return state
