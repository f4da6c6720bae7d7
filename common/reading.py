"""The text files of one run's folder, checked value by value: a table of impossible numbers is refused."""

import csv
import sys
from pathlib import Path

import pandas as pd

from common import runs
from common.datasets.npz import MOST_CLASSES
from common.errors import InputError
from common.experiments import METHODS
from common.files import read_arrays
from common.networks import PAIRS
from common.schema import LOSSES

KNOWN = {"model": tuple(PAIRS), "method": METHODS, "network": ("student", "teacher")}  # what results.csv may name
WHOLE = {"seed", "round", "epoch", "index", "label", "labeled", "labels_in_all"}
SIGNED = {"loss", *LOSSES}
NEEDED = {  # columns that the report reads, all of them numbers; a table may have others
    "results": ("seed", "round", "percent", "test_accuracy"),
    "history": ("round", "epoch"),
    "queries": ("round", "index", "label"),
    "timing": ("round", "train_seconds"),
}
MAYBE = {  # numbers too, if the column is there and not blank
    "results": ("val_accuracy", "labeled", "labels_in_all", "teacher_accuracy"),
    "history": ("val_accuracy", "loss", *LOSSES),
}
HIGHEST = dict.fromkeys(("percent", "test_accuracy", "val_accuracy", "teacher_accuracy"), 100)
HIGHEST |= {"label": MOST_CLASSES - 1}
LARGEST = {int: 2**63 - 1, float: sys.float_info.max}  # that a column can hold
HUNDREDTH = 0.01  # accuracies are kept in hundredths
NO_CLASSES = pd.DataFrame({"round": pd.Series(dtype="int64"), "class": pd.Series(dtype="int64"), "accuracy": []})


def results(folder: Path) -> pd.DataFrame:
    """results.csv, one row per round, its text columns as they are.

    Raises InputError when it is missing or damaged, holds an impossible accuracy, or names an unknown model or method.
    """
    path = folder / "results.csv"
    if not path.exists():
        raise InputError(f"{path}: is missing; name run folders, such as runs/encode-seed2023")
    frame = _table(path, "results", HIGHEST, ("dataset", *KNOWN))
    for column, known in KNOWN.items():
        if unknown := sorted({*frame[column]} - {*known}):
            raise InputError(f"{path}: unknown {column} {unknown[0]!r}; known: {', '.join(known)}")
    if frame["round"].duplicated().any():
        twice = frame.loc[frame["round"].duplicated(), "round"].iloc[0]
        raise InputError(f"{path}: round {twice} appears twice; each round has one row")
    return frame


def details(folder: Path, name: str, rounds: int, classes: int = 0) -> pd.DataFrame:
    """history.csv, queries.csv or timing.csv of a run with `rounds` finished rounds; no rows if the file is missing.

    Args:
        classes: how many the run's data set has; 0 if unknown.
    Raises InputError when it is damaged, has a round that the run never began, or a label that is not a class.
    """
    highest = HIGHEST | {"round": rounds}  # an unfinished run has rows of its current round
    return _table(folder / f"{name}.csv", name, highest | ({"label": classes - 1} if classes else {}))


def config(folder: Path) -> dict:
    """config.json, empty if there is none. Raises InputError when it is not a run's."""
    path = folder / "config.json"
    found = runs.read_config(path) if path.exists() else {}
    for name in ("num_images", "num_val"):
        if type(count := found.get(name, 0)) is not int or count < 0:
            raise InputError(f"{path}: {name} is {count!r}; must be a whole number from 0")
    return found


def pool(folder: Path, config: dict) -> dict[str, int]:
    """How many images of each class, by name, the run's pool has; 0 if labels were still to come.

    Empty if config.json does not say. Raises InputError when its record is invalid.
    """
    try:
        found = config.get(runs.POOL, {"classes": [], "images": []})
        counts = [0] * len(found["classes"]) if found["images"] is None else found["images"]
        return dict(zip(found["classes"], counts, strict=True))
    except (TypeError, KeyError, ValueError):
        raise InputError(
            f"{folder / 'config.json'}: {runs.POOL} must be the classes' names and how many images each has"
        ) from None


def classes(folder: Path, rounds: pd.DataFrame) -> pd.DataFrame:
    """predictions_NN.npz of each round that has one: round, class, accuracy (percent of the class's test images).

    Args:
        rounds: results.csv, whose test accuracies the predictions must match.
    Raises InputError when a file is damaged, or of another round's network.
    """
    found = []
    for number, tested in zip(rounds["round"], rounds["test_accuracy"], strict=True):
        path = folder / f"predictions_{number:02d}.npz"
        if not path.exists():
            continue
        predicted, labels = read_arrays(path, ("predicted", "labels")).values()
        hits = predicted == labels
        if abs(100 * hits.mean() - tested) > HUNDREDTH:
            raise InputError(f"{path}: {hits.sum()} of its {len(hits)} predictions are right, results.csv has "
                             f"{tested}%; it belongs to another run or round")  # fmt: skip
        right = pd.Series(100.0 * hits).groupby(labels).mean()
        classes = right.index.astype("int64")
        found.append(pd.DataFrame({"round": number, "class": classes, "accuracy": right.to_numpy()}))
    return pd.concat(found, ignore_index=True) if found else NO_CLASSES


def _table(path: Path, name: str, highest: dict[str, int], text: tuple[str, ...] = ()) -> pd.DataFrame:
    """A CSV file whose lines are as long as its header, with the columns that the report reads as numbers.

    For a run that waits for labels, without the queries of its last round that have none yet.
    """
    lines = [[*NEEDED[name], *MAYBE.get(name, ())]]
    if path.exists():
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                lines = list(csv.reader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{path}: not a run's {name} ({error})") from None
    while lines and not lines[-1]:  # empty lines at the end
        lines.pop()
    header, *lines = lines or [[]]
    twice = sorted({column for column in header if header.count(column) > 1})
    missing = [column for column in (*text, *NEEDED[name]) if column not in header]
    if twice or missing:
        what = f"column {', '.join(twice)} is there twice" if twice else f"no column {', '.join(missing)}"
        raise InputError(f"{path}: not a run's {name} ({what})")
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise InputError(f"{path}: line {number} has {len(line)} values under {len(header)} columns")
    frame = pd.DataFrame(lines, columns=header, dtype=str)
    if name == "queries":
        frame = frame[(frame["label"] != "") | (frame["round"] != str(highest["round"]))]
    found = {column: _numbers(path, frame[column], highest) for column in NEEDED[name]}
    blank = pd.Series("", frame.index)
    maybe = {column: frame.get(column, blank).rename(column) for column in MAYBE.get(name, ())}
    maybe = {column: _numbers(path, texts[texts != ""], highest) for column, texts in maybe.items()}
    return frame.assign(**found, **(maybe if name == "history" else {}))  # results.csv keeps the text of these


def _numbers(path: Path, column: pd.Series, highest: dict[str, int]) -> pd.Series:
    """Whole or finite numbers, from 0 unless they are losses."""
    kind = int if column.name in WHOLE else float
    lowest = -LARGEST[kind] if column.name in SIGNED else 0
    values = []
    for line, text in column.items():
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not lowest <= value <= highest.get(column.name, LARGEST[kind]):  # false for NaN, too
            wanted = ("a whole number" if kind is int else "a number") + " from 0" * (lowest == 0)
            wanted += f" to {highest[column.name]}" if column.name in highest else ""
            raise InputError(f"{path}: line {line + 2}: {column.name} is {text!r}; must be {wanted}")
        values.append(value)
    return pd.Series(values, column.index, dtype={int: "int64", float: "float64"}[kind])
