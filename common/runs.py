"""A run's folder: configuration, state, results and log. The CSV files are derived from `state.pt`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from common import console, provenance, state
from common.board import Board
from common.errors import InputError
from common.files import lock, write_arrays, write_csv, write_tensors, write_text
from common.schema import BEFORE, TABLES

# Flags that say where and how to run, not what is computed: a run may resume with others. What they came to is in
# config.json under made_with.
ELSEWHERE = {
    *("data_dir", "data_source", "save_path", "log_path", "device", "threads", "amp", "precision", "fast", "dry_run"),
    *("compile", "tensorboard"),
    "labels",  # the labels that were used are in queries.csv and in the state
    "recipe",  # it stands for values of other flags
}
BAR = "{desc}{postfix} |{bar}| {percentage:.0f}%, {remaining} left"  # fits 80 columns
# keys of config.json that are not flags
MADE_WITH, TEACHER, POOL, TRAIN_DATA = "made_with", "teacher_sha256", "pool", "train_data"
TEACHER_FLAGS = "teacher_flags"  # in which a shared teacher differs from the one that the run would have trained
OTHER = {  # how a difference in the SHA-256 of two runs' data is worded
    **dict.fromkeys(("data", TRAIN_DATA), "other training images under this --dataset"),
    **{"test_data": "other test images or class names", "label_values": "other labels of them in --labels"},
}


class Run:
    """One folder, owned by one process. Opening it resumes what is there.

    Args:
        folder: the run's own.
        config: what is computed: flags by name, and the fingerprints of the data.
        made_with: what it is computed with (`provenance.describe`).
        amp: `--amp` as the user gave it; with `auto` a run does not resume in another precision.
        log_path: another folder for the log.
        wait: wait for a process that owns the folder.
        remedy: what users can do whose flags differ from those the run was begun with.
    Raises InputError when the folder cannot be written, belongs to a running process (unless `wait`), was begun with
    another configuration (naming the flags that differ), or holds a state that cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        config: dict,
        made_with: dict,
        amp: str = "auto",
        log_path: str = "",
        wait: bool = False,
        remedy: str = "use its flags or another --expt",
    ):
        self.folder, self._remedy = Path(folder), remedy
        self.board: Board | None = None  # where `--tensorboard` writes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.folder / ".lock", wait, "another process that trains this")
            # a path may have bytes that are not UTF-8
            self._log = open(log_file(self.folder, log_path), "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - kept open
        except OSError as error:
            raise InputError(f"{error.filename or self.folder}: cannot be written ({error.strerror}); name another "
                             "--save_path or --log_path") from None  # fmt: skip
        if self._lock is None:
            raise InputError(
                f"{self.folder}: another process is running this; wait for it, or choose another --expt or --seed"
            )
        self._open_config(configuration(config), made_with, amp)
        path = self.folder / "state.pt"
        self.state = state.read(path) if path.exists() else state.fresh()
        earlier = (self.state["training"] or {}).get("changed", "")  # in earlier sessions of the round in progress
        self.round_changed = "; ".join(dict.fromkeys(each for each in (*earlier.split("; "), self.changed) if each))
        self._write_tables()

    def close(self) -> None:
        """Releases the folder to the next process."""
        self._log.close()
        if self.board:
            self.board.close()
        self._lock.close()

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Within, an error releases the folder, even while something still refers to the run."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def save(self) -> None:
        """Writes the state: everything so far survives the process and is shown by TensorBoard."""
        if self._unnoted:  # before this session's first results; a session that only reads is not noted
            self._write_config()
        if self.state["training"] is not None:
            self.state["training"]["changed"] = self.round_changed
        write_tensors(self.folder / "state.pt", self.state)
        if self.board:
            self.board.show(self.state)

    def commit_round(self) -> None:
        """Ends a round: the next one starts from fresh weights, and the tables show this one."""
        self.state["round"] += 1
        self.state["training"] = None
        self.round_changed = self.changed
        self.save()
        self._write_tables()

    def add(self, table: str, **row: object) -> None:
        """Adds a row to a table of `schema.TABLES`; `save` keeps it. Raises KeyError for an unknown column."""
        unknown = row.keys() - set(TABLES[table])
        if unknown:
            raise KeyError(f"{table}.csv has no column {', '.join(sorted(unknown))}")
        for column, values in self.state[table].items():
            values.append(row.get(column, ""))

    def last(self, table: str) -> dict:
        """The last row of a table."""
        return {column: values[-1] for column, values in self.state[table].items()}

    def amend(self, table: str, **row: object) -> None:
        """Fills columns of a table's last row."""
        for column, value in row.items():
            self.state[table][column][-1] = value

    def record_teacher(self, fingerprint: str, round_number: int | None = None) -> None:
        """Notes a teacher's SHA-256 in config.json, for all rounds or for one.

        Raises InputError if a partly trained round began with another.
        """
        found = fingerprint
        if round_number is not None:
            noted = self.config.get(TEACHER, [])
            if self.state["training"] is not None and noted[round_number:] not in ([], [fingerprint]):
                raise InputError(
                    f"{self.folder}: its round {round_number + 1} began with another teacher of these labels; restore "
                    "that one, or start under another --expt"
                )
            found = [*noted[:round_number], fingerprint]
        self.note(TEACHER, found)

    def note(self, name: str, found: object) -> None:
        """Keeps something other than a flag in config.json, under a key of its own."""
        if self.config.get(name) != found:
            self.config[name] = found
            self._write_config()

    def bar(self, total: int, done: int, label: str) -> tqdm:
        """A progress bar of the run's updates, as wide as the terminal; off a terminal the log's lines suffice."""
        name = label.split(" (")[0]  # how many labels the round has is in the log
        shown = {"bar_format": BAR, "disable": None, "leave": False, "dynamic_ncols": True, "mininterval": 0.5}
        return tqdm(total=total, initial=done, desc=name, **shown)

    def log(self, message: str) -> None:
        """Writes a line to the screen and to log.txt."""
        console.say(message)
        try:
            self._log.write(message + "\n")
            self._log.flush()
        except OSError as error:  # a full disk's error names no file
            error.filename = self._log.name
            raise

    def _open_config(self, config: dict, made_with: dict, amp: str) -> None:
        path = self.folder / "config.json"
        self.changed = ""  # what differs from the code and machine the run began with
        self.config = config | {MADE_WITH: [made_with]}
        self._unnoted = False  # is this session not in config.json yet?
        begun = (self.folder / "state.pt").exists()
        if not begun and not _has_rows(self.folder / "results.csv"):  # nothing done yet that could be mixed up
            self._write_config()
            return
        before = read_config(path)
        if "data" not in before and "data" in config:  # every run writes `data`: without it, this is not a run's
            raise _not_a_config(path)
        if changes := differing(before, config):
            raise InputError(
                f"{self.folder} holds a run with other flags or data: {', '.join(changes)}; {self._remedy}"
            )
        if not begun:
            self.log(f"{self.folder}: state.pt, from which it would resume, is gone; it starts over")
            self._write_config()
            return
        first, *others = before.get(MADE_WITH, [{}])
        begun_amp = first.get("amp", before.get("amp", made_with["amp"]))
        if amp == "auto" and begun_amp != made_with["amp"]:
            raise InputError(
                f"--amp auto: {self.folder} was started with {begun_amp}, this machine would use {made_with['amp']}; "
                f"add --amp {begun_amp} to resume it, or --amp {made_with['amp']} to change"
            )
        self.config = before | config | {MADE_WITH: [first, *others]}
        self.changed = provenance.changes(first, made_with) if first else "begun without a record of code and machine"
        if made_with not in [first, *others]:
            self.config[MADE_WITH].append(made_with)
            self._unnoted = True
        if self.changed:
            self.log(f"{self.folder}: {'going on with ' if first else ''}{self.changed}")

    def _write_config(self) -> None:
        self._unnoted = False
        write_text(self.folder / "config.json", json.dumps(self.config, indent=1, sort_keys=True) + "\n")

    def _write_tables(self) -> None:
        for table in TABLES:
            columns = self.state[table]
            write_csv(self.folder / f"{table}.csv", [columns, *zip(*columns.values(), strict=True)])


def begin(args, images) -> Run:
    """Opens or resumes the run folder `<save_path>/<expt>-seed<seed>`."""
    folder = Path(args.save_path) / f"{args.expt}-seed{args.seed}"
    config = {**vars(args), **contents(images), TRAIN_DATA: images.source}
    run = Run(folder, config, provenance.describe(args), args.amp, args.log_path)
    labels, counts = images.labels[images.pool].cpu(), None
    if (labels >= 0).all():  # with --labels, the number of images per class may not be known yet
        counts = torch.bincount(labels, minlength=len(images.classes)).tolist()
    run.note(POOL, {"classes": images.classes, "images": counts})
    if args.labels:
        run.note("labels", args.labels)  # decides no row, but is needed to open the images again
    if args.tensorboard:
        run.board = Board(run.folder / "tensorboard", images, args.train_epochs)
        run.board.show(run.state)
    return run


def contents(images) -> dict[str, str]:
    """The SHA-256 of what a run trains on and of what it is tested on, under config.json's keys for them."""
    return {"data": images.fingerprint, "test_data": images.test_fingerprint}


def configuration(config: dict) -> dict:
    """The flags that say what is computed, as config.json keeps them."""
    return {name: value for name, value in config.items() if name not in ELSEWHERE}


def differing(before: dict, config: dict) -> list[str]:
    """What differs between a config.json and a new configuration, as `--flag (was x, now y)`.

    A flag that the file lacks was added later; `schema.BEFORE` has what was done before.
    """
    before = BEFORE | before
    if "dataset" in before and "dataset" in config:  # older files have paths, and names' capitals, as they were typed
        typed = str(before["dataset"])
        same = config["dataset"] in (typed.lower(), os.path.abspath(os.path.expanduser(typed)))
        before["dataset"] = config["dataset"] if same else before["dataset"]
    names = [name for name in sorted(config) if before.get(name, config[name]) != config[name]]
    names = [name for name in names if name != TRAIN_DATA or "data" not in names]  # one line for the same images
    return [OTHER.get(name, f"--{name} (was {before[name]}, now {config[name]})") for name in names]


def read_config(path: Path) -> dict:
    """A run's config.json. Raises InputError when it is not one."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    records = config.get(MADE_WITH, [{}]) if isinstance(config, dict) else None
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise _not_a_config(path)
    return config


def _has_rows(table: Path) -> bool:
    return table.exists() and table.read_bytes().count(b"\n") > 1


def _not_a_config(path: Path) -> InputError:
    return InputError(f"{path}: not readable; put a copy back or delete the folder")


def log_file(folder: Path, log_path: str) -> Path:
    """Where a run's log goes: `log.txt` in its folder, or under its folder's name in `--log_path`."""
    if not log_path:
        return folder / "log.txt"
    Path(log_path).mkdir(parents=True, exist_ok=True)
    return Path(log_path) / f"{folder.name}.txt"


def save_predictions(path: Path, predicted: torch.Tensor, labels: torch.Tensor) -> None:
    """Saves a round's predicted and true classes of the test images, (M,) each: a byte per image before compression."""
    kind = np.min_scalar_type(int(max(predicted.max(), labels.max())))
    columns = {"predicted": predicted.cpu().numpy().astype(kind), "labels": labels.cpu().numpy().astype(kind)}
    write_arrays(path, columns, compress=True)


def save_weights(path: Path, net: torch.nn.Module, **record: object) -> None:
    """Saves a network's weights with their record; loads with `weights_only=True`."""
    weights = {name: tensor.cpu() for name, tensor in net.state_dict().items()}
    write_tensors(path, {"state_dict": weights, "record": record})
