"""The text files of one run's folder, checked value by value: a table of numbers that nobody measured is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd

from common.datasets.npz import MOST_CLASSES
from common.errors import InputError
from common.experiments import METHODS
from common.files import read_arrays
from common.networks import PAIRS
from common.runs import POOL
from common.schema import LOSSES

KNOWN = {"model": tuple(PAIRS), "method": METHODS, "network": ("student", "teacher")}  # what results.csv may name
WHOLE = {"seed", "round", "epoch", "index", "label", "labeled", "labels_in_all"}
PERCENT = {"percent", "test_accuracy", "val_accuracy", "teacher_accuracy"}
NEEDED = {  # columns that the report reads, all of them numbers; a table may have others
    "results": ("seed", "round", "percent", "test_accuracy"),
    "history": ("round", "epoch"),
    "queries": ("round", "index", "label"),
    "timing": ("round", "train_seconds"),
}
MAYBE = {  # numbers too, where the column is there and not blank
    "results": ("val_accuracy", "labeled", "labels_in_all", "teacher_accuracy"),
    "history": ("val_accuracy", "loss", *LOSSES),
}
LARGEST = 2**63 - 1  # of the whole numbers that a column holds
HUNDREDTH = 0.01  # accuracies are kept in hundredths
NO_CLASSES = pd.DataFrame({"round": pd.Series(dtype="int64"), "class": pd.Series(dtype="int64"), "accuracy": []})


def results(folder: Path) -> pd.DataFrame:
    """results.csv, a row a round, its text columns as they are.

    Raises InputError when it is missing, damaged, holds what is no accuracy, or names an unknown model or method.
    """
    path = folder / "results.csv"
    if not path.exists():
        raise InputError(f"{path}: is not there; name the folders of runs, as runs/encode-seed2023")
    frame = _table(path, "results", ("dataset", *KNOWN))
    for column, known in KNOWN.items():
        for number, value in enumerate(frame[column]):
            if value not in known:
                raise InputError(f"{path}: line {number + 2}: unknown {column} {value!r}; known: {', '.join(known)}")
    for column in MAYBE["results"]:
        if column in frame:
            _numbers(path, frame[column], blank=True)
    if frame["round"].duplicated().any():
        twice = frame.loc[frame["round"].duplicated(), "round"].iloc[0]
        raise InputError(f"{path}: round {twice} is there twice; one row a round")
    return frame


def details(folder: Path, name: str, rounds: int, classes: int = 0) -> pd.DataFrame:
    """history.csv, queries.csv or timing.csv of a run with so many finished rounds; no rows where the file is missing.

    Args:
        classes: of the run's data set; 0 where that is not known.
    Raises InputError when it is damaged, has a round that the run never began, or a label that is no class.
    """
    path = folder / f"{name}.csv"
    if not path.exists():
        columns = (*NEEDED[name], *MAYBE.get(name, ()))
        return pd.DataFrame({column: pd.Series(dtype=_kind(column)) for column in columns})
    frame = _table(path, name, rounds=rounds)
    beyond = frame["round"] > rounds  # a run that goes on has rows of the round it is in
    if beyond.any():
        raise InputError(f"{path}: line {beyond.idxmax() + 2}: there is no round {frame['round'][beyond.idxmax()]}; "
                         f"results.csv has {rounds}, counted from 0")  # fmt: skip
    if classes and name == "queries" and (none := frame["label"] >= classes).any():
        raise InputError(f"{path}: line {none.idxmax() + 2}: there is no class {frame['label'][none.idxmax()]}; the "
                         f"data set has {classes}, counted from 0")  # fmt: skip
    return frame


def config(folder: Path) -> dict:
    """config.json, empty where there is none. Raises InputError when it is no JSON object of counts and flags."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a run's flags ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a run's flags (must be a JSON object of flags and values)")
    for name in ("num_images", "num_val"):
        if type(count := found.get(name, 0)) is not int or count < 0:
            raise InputError(f"{path}: {name} is {count!r}; must be a whole number from 0")
    return found


def pool(folder: Path, config: dict) -> dict[str, int]:
    """How many images of each class, by name, the run's pool has; 0 where labels were still to come.

    Empty where config.json does not say.

    Raises InputError when what it says is no record of that.
    """
    found = config.get(POOL, {"classes": [], "images": []})
    try:
        names, counts = found["classes"], found["images"]
        unknown = counts is None
        counts = [0] * len(names) if unknown else counts
        good = len(names) == len(counts) == len(set(names)) and all(isinstance(name, str) for name in names)
        good = (
            good
            and all(type(count) is int and count >= 0 for count in counts)
            and (sum(counts) > 0 or unknown or not counts)
        )
    except (TypeError, KeyError):
        good = False
    if not good:
        raise InputError(f"{folder / 'config.json'}: {POOL} must be the classes' names and how many images each has")
    return dict(zip(names, counts, strict=True))


def classes(folder: Path, rounds: pd.DataFrame) -> pd.DataFrame:
    """predictions_NN.npz of each round that has one: round, class, accuracy (percent of the class's test images).

    Args:
        rounds: results.csv, whose test accuracy the predictions must have.
    Raises InputError when a file is damaged, its two columns differ in length, or it is of another round's network.
    """
    found = []
    for number, tested in zip(rounds["round"], rounds["test_accuracy"], strict=True):
        path = folder / f"predictions_{number:02d}.npz"
        if not path.exists():
            continue
        predicted, labels = read_arrays(path, ("predicted", "labels")).values()
        if predicted.shape != labels.shape or labels.ndim != 1 or {predicted.dtype.kind, labels.dtype.kind} != {"u"}:
            raise InputError(f"{path}: predicted and labels must be classes of one test set, one an image; they have "
                             f"{predicted.size} and {labels.size}")  # fmt: skip
        hits = predicted == labels
        if not len(hits) or abs(100 * hits.mean() - tested) > HUNDREDTH:
            raise InputError(f"{path}: {hits.sum()} of its {len(hits)} predictions are right, results.csv has "
                             f"{tested}%; it belongs to another run or round")  # fmt: skip
        right = pd.Series(100.0 * hits).groupby(labels).mean()
        classes = right.index.astype("int64")
        found.append(pd.DataFrame({"round": number, "class": classes, "accuracy": right.to_numpy()}))
    return pd.concat(found, ignore_index=True) if found else NO_CLASSES


def _table(path: Path, name: str, text: tuple[str, ...] = (), rounds: int = 0) -> pd.DataFrame:
    """A CSV file whose lines are as long as its header, with the columns that the report reads as numbers.

    Of a run that waits for labels, without the queries of the round after its `rounds` that have none yet.
    """
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
        frame = frame[(frame["label"] != "") | (frame["round"] != str(rounds))]
    found = {column: _numbers(path, frame[column]) for column in NEEDED[name]}
    blank = pd.Series("", frame.index)
    if name == "history":
        accuracy, *losses = MAYBE[name]
        found[accuracy] = _numbers(path, frame.get(accuracy, blank).rename(accuracy), blank=True)
        found |= {column: _losses(path, frame.get(column, blank).rename(column)) for column in losses}
    return frame.assign(**found)


def _numbers(path: Path, column: pd.Series, blank: bool = False) -> pd.Series:
    """Numbers within what the column can hold; with `blank` the lines that have one."""
    whole = column.name in WHOLE
    highest = 100 if column.name in PERCENT else MOST_CLASSES - 1 if column.name == "label" else LARGEST
    values, lines = [], []
    for line, text in column.items():
        if blank and not text:
            continue
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = -1
        if not 0 <= value <= highest:  # NaN is not either
            wanted = ("a whole number from 0" if whole else "a number from 0") + f" to {highest}" * (highest < LARGEST)
            raise InputError(f"{path}: line {line + 2}: {column.name} is {text!r}; must be {wanted}")
        values.append(value)
        lines.append(line)
    return pd.Series(values, lines, dtype=_kind(column.name))


def _losses(path: Path, column: pd.Series) -> pd.Series:
    """Finite numbers, NaN where there is none."""
    values = pd.to_numeric(column.where(column != ""), errors="coerce").astype("float64")
    wrong = ~np.isfinite(values) & (column != "")
    if wrong.any():
        at = wrong.argmax()
        raise InputError(f"{path}: line {at + 2}: {column.name} is {column[at]!r}; must be a number, or blank")
    return values


def _kind(column: str) -> str:
    return "int64" if column in WHOLE else "float64"
