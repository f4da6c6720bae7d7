"""`--labels FILE`: the classes of training images outside class folders, as far as they have been labelled."""

import csv
import io
import os
from pathlib import Path

import numpy as np

from common.errors import InputError
from common.files import locked, write_text

COLUMNS = ["file", "label"]


def fill(path: Path, files: list[str], known: np.ndarray, classes: list[str]) -> np.ndarray:
    """`known` (N,) int64, completed from the file; -1 where an image has no label yet.

    Args:
        path: a CSV file with columns file and label (a class name); labels may be empty, and the file may be missing.
        files: the training images' names, relative to train/.
        known: -1 where no folder gives the class.
    Raises InputError with the line that names an unknown file or class, or contradicts what is known.
    """
    filled, place = known.copy(), {name: number for number, name in enumerate(files)}
    for line, (name, label) in rows(path):
        # strip blanks, unless the name or label is known with them
        name = name if name in place else name.strip()
        label = label if label in classes else label.strip()
        if name not in place:
            raise InputError(f"--labels {path}, line {line}: there is no training image {name!r}; names are relative "
                             f"to train/, as {files[-1]!r}")  # fmt: skip
        if not label:
            continue
        if label not in classes:
            raise InputError(f"--labels {path}, line {line}: {label!r} is not a class; use {', '.join(classes[:20])}")
        before = filled[place[name]]
        if before >= 0 and classes[before] != label:
            raise InputError(f"--labels {path}, line {line}: {name} is {label}, but {classes[before]} by its folder or "
                             "an earlier line; keep one")  # fmt: skip
        filled[place[name]] = classes.index(label)
    return filled


def add(path: Path, answers: list[tuple[str, str]]) -> None:
    """Appends (file, label) rows to a labels file, in the order of its columns; creates the file if it is missing."""
    path = Path(os.path.realpath(path))  # one lock for the file, whatever links lead to it
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock"), "another run that adds labels"):
        before = path.read_text(encoding="utf-8-sig") if path.exists() else ",".join(COLUMNS)
        text, head = io.StringIO(), next(csv.reader(io.StringIO(before)))
        writer = csv.DictWriter(text, head, lineterminator="\n")  # the file's other columns stay empty
        writer.writerows(dict(zip(COLUMNS, answer, strict=True)) for answer in answers)
        write_text(path, before.rstrip("\r\n") + "\n" + text.getvalue())


def rows(path: Path) -> list[tuple[int, tuple[str, str]]]:
    """(line, (file, label)) of each row, without empty rows and repeated headers (of concatenated files)."""
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {*COLUMNS} <= {*(reader.fieldnames or [])}:
                first = ",".join(reader.fieldnames or [])[:60]
                raise InputError(f"--labels {path}: its first line must be {','.join(COLUMNS)}, with a comma, it is "
                                 f"{first!r}; save it as CSV with commas")  # fmt: skip
            if twice := [name for name in COLUMNS if reader.fieldnames.count(name) > 1]:
                raise InputError(f"--labels {path}: has two columns {twice[0]}; keep one")
            found = []
            for row in reader:
                if any(text.strip() for text in row.pop(None, [])):  # Excel's empty columns are none
                    raise InputError(f"--labels {path}, line {reader.line_num}: has more values than the first line "
                                     "has columns; put a name that has a comma in quotes, keep one label")  # fmt: skip
                found.append((reader.line_num, tuple(row[name] or "" for name in COLUMNS)))
            idle = ((*COLUMNS,), ("", ""))  # a repeated header, and Excel's empty rows
            return [(line, row) for line, row in found if tuple(map(str.strip, row)) not in idle]
    except UnicodeDecodeError:
        raise InputError(f"--labels {path}: is not UTF-8 text; save it as CSV in UTF-8") from None
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"--labels {path}: is not a readable CSV file ({error})") from None
