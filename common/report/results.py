"""The runs' text files as tables, checked: what falls into one cell was configured alike."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from common.errors import InputError
from common.runs import ELSEWHERE

# The rows of the paper's Table I, by what results.csv says was trained.
NAMES = {("Random", "teacher"): "Baseline", ("Random", "student"): "CM", ("KD", "student"): "CM+KD"}
ORDER = ("Single teacher", "Baseline", "Single", "CM", "CM+KD", "EnCoDe")
PAPER_NETWORK = {"VGG": "VGG11"}  # the paper's name for it
VARIANTS = ("sampler", "distill_on", "logit_loss", "teacher_labels")  # columns of results.csv that make a row another
TEXT = ("model", "dataset", "method", "network", *VARIANTS)
OWN = ELSEWHERE | {"expt", "seed", "rounds", "teacher", "percents", "initial_budget", "budget"}  # may differ in a cell


@dataclass
class Results:
    """What the runs' folders hold; `label` names a row of the tables, `setting` is (model, dataset)."""

    rows: pd.DataFrame  # results.csv: a row a round of a run, with columns label and run
    history: pd.DataFrame  # history.csv with label, model, dataset, seed, percent
    queries: pd.DataFrame  # queries.csv likewise, with the round's queried images
    configs: dict[str, dict]  # run folder -> config.json, empty where there is none
    paper: pd.DataFrame  # network, dataset, label, percent, accuracy

    def settings(self) -> list[tuple[str, str]]:
        """(model, dataset) in order of appearance."""
        return list(dict.fromkeys(zip(self.rows["model"], self.rows["dataset"], strict=True)))

    def of(self, setting: tuple[str, str], frame: str = "rows") -> pd.DataFrame:
        """The rows of one setting."""
        table = getattr(self, frame)
        return table[(table["model"] == setting[0]) & (table["dataset"] == setting[1])]


def read(folders: list[Path]) -> Results:
    """All runs. Raises InputError when one has no results, or two of one cell have other flags or the same seed."""
    frames, extra, configs = [], {"history": [], "queries": []}, {}
    for folder in map(Path, folders):
        frame = _table(folder / "results.csv", dtype=dict.fromkeys(TEXT, str))
        try:
            frame[["percent", "test_accuracy"]] = frame[["percent", "test_accuracy"]].astype(float)
            frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, *TEXT]))).fillna(dict.fromkeys(TEXT, ""))
        except (ValueError, KeyError) as error:
            raise InputError(f"{folder / 'results.csv'}: not a run's results ({error})") from None
        frames.append(frame.assign(run=str(folder)))
        configs[str(folder)] = _config(folder / "config.json")
        for name, found in extra.items():
            path = folder / f"{name}.csv"
            if path.exists():
                found.append(_table(path).rename(columns={"label": "class"}).assign(run=str(folder)))
    rows = pd.concat(frames, ignore_index=True)
    if rows.empty:
        raise InputError(f"{', '.join(map(str, folders))}: no finished round yet")
    rows = rows.assign(label=_labels(rows))
    _check(rows, configs)
    heads = rows["label"].str.replace(r"†| \(.*", "", regex=True).map(ORDER.index)
    rows = rows.iloc[heads.argsort(kind="stable")].reset_index(drop=True)
    keys = rows[["run", "round", "label", "model", "dataset", "seed", "percent"]] if "round" in rows else None
    joined = {
        name: pd.concat(found).merge(keys, on=["run", "round"]) if found and keys is not None else pd.DataFrame()
        for name, found in extra.items()
    }
    return Results(rows, joined["history"], joined["queries"], configs, paper())


def paper() -> pd.DataFrame:
    """Table I of the paper: network, dataset (as DATASETS names them), label, percent, accuracy."""
    wide = pd.read_csv(Path(__file__).with_name("table1.csv"))
    long = wide.melt(["network", "method", "dataset"], var_name="percent", value_name="accuracy")
    long["percent"] = long["percent"].str.removeprefix("p").astype(float)
    long["dataset"] = long["dataset"].str.lower()
    return long.rename(columns={"method": "label"})


def paper_accuracy(found: Results, setting: tuple[str, str], row: pd.Series) -> float | None:
    """The paper's number for a row of `rows`, which must be one of the paper's own rows (Single: its 100% column)."""
    table = found.paper
    label = row["label"].removesuffix("†")
    label = {"Single": "CM", "Single teacher": "Baseline"}.get(label, label)
    network = PAPER_NETWORK.get(setting[0], setting[0])
    match = table[(table["network"] == network) & (table["dataset"] == setting[1])]
    match = match[(match["label"] == label) & (match["percent"] == row["percent"])]
    return None if match.empty else float(match["accuracy"].iloc[0])


def _table(path: Path, **options) -> pd.DataFrame:
    try:
        return pd.read_csv(path, keep_default_na=False, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a run's results ({error})") from None


def _config(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _labels(rows: pd.DataFrame) -> pd.Series:
    """A row's name in the tables: the paper's, what sets it apart, a dagger for a teacher that saw more labels."""

    def varies(row: pd.Series, name: str) -> bool:
        same = (rows["method"] == row["method"]) & (rows["network"] == row["network"])
        usual = {"sampler": ("random", "vae"), "distill_on": ("labeled",), "logit_loss": ("mse",)}
        return rows.loc[same, name].nunique() > 1 and row[name] not in (*usual.get(name, ("all",)), "")

    def label(row: pd.Series) -> str:
        head = NAMES.get((row["method"], row["network"]), row["method"])
        if row["method"] == "Single" and row["network"] == "teacher":
            head = "Single teacher"
        varying = [row[name] for name in VARIANTS if varies(row, name)]
        dagger = "†" if row["teacher_labels"] == "all" else ""
        return head + (f" ({', '.join(varying)})" if varying else "") + dagger

    return rows.apply(label, axis=1)


def _check(rows: pd.DataFrame, configs: dict[str, dict]) -> None:
    """Refuses two runs of one cell that differ in more than the seed, or in less."""
    for (model, dataset, label, percent), cell in rows.groupby(["model", "dataset", "label", "percent"], sort=False):
        where = f"{label} of {model} on {dataset} at {percent:g}%"
        first, *others = cell["run"]
        for other in others:
            before, after = configs[first], configs[other]
            flags = sorted((before.keys() | after) - OWN)
            differing = [name for name in flags if before.get(name) != after.get(name) and name != "data"]
            if before and after and differing:
                changes = ", ".join(f"--{name} {before.get(name)} and {after.get(name)}" for name in differing)
                raise InputError(f"{first} and {other} are both {where} but differ in {changes}; report them apart")
        if cell["seed"].duplicated().any():
            twice = cell[cell["seed"].duplicated(keep=False)]
            raise InputError(f"{' and '.join(twice['run'])} are both {where} with one seed; name one of them")
