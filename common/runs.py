"""A run's folder: configuration, state, results and log. `state.pt` is the truth, the CSV files are written from it."""

import csv
import io
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from common.errors import InputError
from common.files import lock, write_tensors, write_text

# Flags that say where and how to run, not what is computed: a run may go on with others.
ELSEWHERE = {"data_dir", "data_source", "save_path", "log_path", "device", "threads", "dry_run"}
TABLES = {
    "results": "model dataset method network sampler distill_on logit_loss teacher_labels teacher_accuracy seed round "
    "labeled percent epochs updates best_epoch val_accuracy test_accuracy",
    "queries": "round index score label",
    "history": "round epoch loss val_accuracy",
    "timing": "round train_seconds images_per_second query_seconds peak_memory_mb peak_gpu_memory_mb device threads",
}


class Run:
    """One folder, owned by one process. Opening it resumes what is there.

    Raises InputError when the folder cannot be written, belongs to a running process (unless `wait`), was begun with
    another configuration (naming the flags that differ), or holds a state that cannot be read.
    """

    def __init__(self, folder: Path, config: dict, log_path: str = "", wait: bool = False):
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.folder / ".lock", wait)
            self._log = open(log_file(self.folder, log_path), "a", encoding="utf-8")  # noqa: SIM115 - kept open
        except OSError as error:
            raise InputError(f"{error.filename or self.folder}: cannot be written ({error.strerror}); name another "
                             "--save_path or --log_path") from None  # fmt: skip
        if self._lock is None:
            raise InputError(
                f"{self.folder}: another process is running this; wait for it, or choose another --expt or --seed"
            )
        self._same_config(config)
        self.state = self._read_state()
        self._write_tables()

    def close(self) -> None:
        """Gives the folder up to the next process."""
        self._log.close()
        self._lock.close()

    def save(self) -> None:
        """Writes the state: everything up to here survives the process."""
        write_tensors(self.folder / "state.pt", self.state)

    def commit_round(self) -> None:
        """Ends a round: the next one starts from fresh weights, and the tables show this one."""
        self.state["round"] += 1
        self.state["training"] = None
        self.save()
        self._write_tables()

    def add(self, table: str, **row: object) -> None:
        """Adds a row to results, queries, history or timing; `save` keeps it."""
        self.state[table].append([row.get(column, "") for column in TABLES[table].split()])

    def bar(self, total: int, done: int, description: str) -> tqdm:
        """A progress bar on a terminal; elsewhere the log's lines do."""
        return tqdm(total=total, initial=done, desc=description, unit="update", disable=None, leave=False)

    def log(self, message: str) -> None:
        """One line on the screen and in log.txt."""
        tqdm.write(message, file=sys.stdout)
        sys.stdout.flush()
        self._log.write(message + "\n")
        self._log.flush()

    def _same_config(self, config: dict) -> None:
        config = configuration(config)
        path = self.folder / "config.json"
        if not path.exists() or not (self.folder / "state.pt").exists():  # nothing done yet that could be mixed up
            write_text(path, json.dumps(config, indent=1, sort_keys=True) + "\n")
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{path}: not readable; choose another --expt or delete the folder") from None
        differing = [name for name in sorted(before.keys() | config) if before.get(name) != config.get(name)]
        if differing:
            changes = ", ".join(f"--{name} (was {before.get(name)}, now {config.get(name)})" for name in differing)
            raise InputError(f"{self.folder} holds a run with other flags: {changes}; use its flags or another --expt")

    def _read_state(self) -> dict:
        path = self.folder / "state.pt"
        if not path.exists():
            return {"round": 0, "labeled": None, "training": None, **{table: [] for table in TABLES}}
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever a damaged archive makes it raise
            raise InputError(f"{path}: not readable ({error}); delete it to start the run anew") from None

    def _write_tables(self) -> None:
        for table, columns in TABLES.items():
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(columns.split())
            writer.writerows(self.state[table])
            write_text(self.folder / f"{table}.csv", text.getvalue())


def begin(args, images) -> Run:
    """Opens, or goes on with, the run folder `<save_path>/<expt>-seed<seed>`."""
    folder = Path(args.save_path) / f"{args.expt}-seed{args.seed}"
    return Run(folder, {**vars(args), "data": images.fingerprint}, args.log_path)


def configuration(config: dict) -> dict:
    """The flags that say what is computed, as config.json keeps them."""
    return {name: value for name, value in config.items() if name not in ELSEWHERE}


def log_file(folder: Path, log_path: str) -> Path:
    """Where a run's log goes: `log.txt` in its folder, or under its folder's name in `--log_path`."""
    if not log_path:
        return folder / "log.txt"
    Path(log_path).mkdir(parents=True, exist_ok=True)
    return Path(log_path) / f"{folder.name}.txt"


def save_weights(path: Path, net: torch.nn.Module, **record: object) -> None:
    """A network's weights with their record; loads with `weights_only=True`."""
    weights = {name: tensor.cpu() for name, tensor in net.state_dict().items()}
    write_tensors(path, {"state_dict": weights, "record": record})
