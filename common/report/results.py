"""The runs' text files as tables, checked: runs in one cell must be configured alike."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from common import reading
from common.errors import InputError
from common.networks import PAIRS
from common.report import builds, naming
from common.runs import OTHER
from common.schema import BEFORE, VARIANTS

PAPER_IMAGES = 50000  # training and validation images in the paper, for both CIFAR-10 and SVHN
PAPER_NETWORK = {"VGG": "VGG11"}  # the paper's name


@dataclass
class Results:
    """The contents of the runs' folders; `label` names a row of the tables, `setting` is (model, dataset)."""

    rows: pd.DataFrame  # results.csv: a row per round of a run, with columns label and run
    history: pd.DataFrame  # history.csv, with label, model, dataset, seed, percent
    queries: pd.DataFrame  # queries.csv, likewise: each round's queried images
    classes: pd.DataFrame  # class and accuracy, likewise: test accuracy by class, where predictions were kept
    pools: dict[str, dict[str, int]]  # run folder -> class name -> images in its pool, empty without a record
    configs: dict[str, dict]  # run folder -> config.json, empty without one
    made: dict[str, builds.Made]  # run folder -> what it was made with
    paper: pd.DataFrame  # network, dataset, label, percent, accuracy

    def settings(self) -> list[tuple[str, str]]:
        """(model, dataset) in order of appearance."""
        return list(dict.fromkeys(zip(self.rows["model"], self.rows["dataset"], strict=True)))

    def unfinished(self) -> list[str]:
        """The runs without a finished round, which have no row in the tables."""
        return [run for run in self.configs if run not in set(self.rows["run"])]

    def of(self, setting: tuple[str, str]) -> pd.DataFrame:
        """The rows of one setting."""
        return of(self.rows, setting)

    def shape(self, run: str, model: str) -> tuple[int, int]:
        """A run's number of classes and image size; the paper's if its config.json does not say."""
        config = self.configs[run]
        return int(config.get("num_classes", 10)), int(config.get("image_size", PAIRS[model].IMAGE_SIZE))

    def class_names(self, dataset: str, count: int) -> list[str]:
        """The names of a data set's first `count` classes, in order; their numbers where no run has a record."""
        runs = self.rows.loc[self.rows["dataset"] == dataset, "run"].unique()
        names = next((list(self.pools[run]) for run in runs if self.pools[run]), [])
        return [*names, *map(str, range(len(names), count))][:count]


def of(table: pd.DataFrame, setting: tuple[str, str]) -> pd.DataFrame:
    """The rows of one setting, from a table with columns model and dataset."""
    return table[(table["model"] == setting[0]) & (table["dataset"] == setting[1])]


def read(folders: list[Path], ablation: bool = False, names: dict[Path, str] | None = None) -> Results:
    """All runs, the paper's rows first.

    Args:
        ablation: runs of one cell with different flags become separate rows, named by the flags (`naming.named`).
        names: the row names given to some of the runs.
    Raises InputError when a file is damaged or missing, or two runs of a cell have different flags or the same seed.
    """
    frames, configs, pools = [], {}, {}
    extra: dict[str, list[pd.DataFrame]] = {"history": [], "queries": [], "classes": []}
    for folder in map(Path, folders):
        if folder.resolve() in {Path(run).resolve() for run in configs}:
            raise InputError(f"{folder}: is named twice; name each run once")
        frame = reading.results(folder)
        columns = list(dict.fromkeys([*frame.columns, *VARIANTS, "labeled", "updates"]))
        frames.append(frame.reindex(columns=columns, fill_value="").assign(run=str(folder)))
        configs[str(folder)] = reading.config(folder)
        pools[str(folder)] = reading.pool(folder, configs[str(folder)])
        for name in ("history", "queries"):
            table = reading.details(folder, name, len(frame), len(pools[str(folder)]))
            extra[name].append(table.rename(columns={"label": "class"}).assign(run=str(folder)))
        extra["classes"].append(reading.classes(folder, frame).assign(run=str(folder)))
    rows = pd.concat(frames, ignore_index=True)
    if rows.empty:
        raise InputError(f"{', '.join(map(str, folders))}: no finished round yet")
    own = len(rows)  # the rows of the runs' own networks
    rows = pd.concat([rows, _fair_teachers(rows, configs)], ignore_index=True)
    rows["own"] = rows.index < own
    rows = naming.labeled(rows, configs, ablation, {str(run): name for run, name in (names or {}).items()})
    _check(rows, configs)
    shared = rows.drop_duplicates("run").set_index("run")["shared_teacher"]
    teachers = {run: naming.logits_file(configs[run]) or "the pair's" for run in shared[shared].index}
    made = {run: builds.made(configs[run], teachers.get(run, "")) for run in shared.index}
    heads = [list(naming.NAMES).index(pair) for pair in zip(rows["method"], rows["network"], strict=True)]
    rows = rows.iloc[pd.Series(heads).argsort(kind="stable")].reset_index(drop=True)
    keys = rows.loc[rows["own"], ["run", "round", "label", "model", "dataset", "seed", "percent"]]
    history, queries, classes = (
        pd.concat(found, ignore_index=True).merge(keys, on=["run", "round"]) for found in extra.values()
    )
    return Results(rows, history, queries, classes, pools, configs, made, paper())


def _fair_teachers(rows: pd.DataFrame, configs: dict[str, dict]) -> pd.DataFrame:
    """Baseline rows: the teachers of KD runs with random labels, trained on these labels alone, each once.

    If runs of one seed drew different random labels at a percent, as with other --percents, the run with the most
    rounds counts, then the first by name.
    """
    if "teacher_accuracy" not in rows:
        return rows.iloc[:0]
    accuracy = pd.to_numeric(rows["teacher_accuracy"], errors="coerce")
    fair = (rows["method"] == "KD") & (rows["teacher_labels"] == "labeled") & (rows["sampler"] == "random")
    found = rows[fair & accuracy.between(0, 100)].copy()
    found["test_accuracy"] = accuracy[found.index]
    found = found.assign(method="Random", network="teacher")
    if "labels_in_all" in found:  # validation images chose the student's epoch, not the teacher's
        known = found["labels_in_all"].ne("") & found["labeled"].ne("")
        held_out = found["run"].map(lambda run: _held_out(configs[run]))
        found.loc[known, "labels_in_all"] = (pd.to_numeric(found["labeled"]) - held_out)[known].astype(str)
    # the student's flags do not affect its teacher, except that a second teacher may learn the means of its views
    seen = ["views", "targets"]
    means = found["teacher_pool"].eq("self_training") & found["targets"].eq("mean")
    alike = len(found.loc[means, seen].drop_duplicates()) < 2  # then names do not need them
    found.loc[~means | alike, seen] = ""
    decides = ("sampler", "teacher_labels", "teacher_start", "teacher_pool", *seen)
    found[[name for name in VARIANTS if name not in decides]] = ""
    keys = ["model", "dataset", "seed", "percent"]
    flags = found["run"].map(lambda run: json.dumps(naming.teacher_flags(BEFORE | configs[run]), sort_keys=True))
    rounds = found["run"].map(rows["run"].value_counts())
    found = found.assign(flags=flags, rounds=-rounds).sort_values(["rounds", "run"], kind="stable")
    found = found[~found[[*keys, *decides, "flags"]].duplicated()]
    return found.drop(columns=["flags", "rounds"]).sort_index()


def paper() -> pd.DataFrame:
    """Table I of the paper: network, dataset (as DATASETS names them), label, percent, accuracy."""
    wide = pd.read_csv(Path(__file__).with_name("table1.csv"))
    long = wide.melt(["network", "method", "dataset"], var_name="percent", value_name="accuracy")
    long["percent"] = long["percent"].str.removeprefix("p").astype(float)
    long["dataset"] = long["dataset"].str.lower()
    return long.rename(columns={"method": "label"})


def paper_curve(found: Results, setting: tuple[str, str], label: str) -> pd.Series:
    """The paper's accuracy by percent for a row's label; empty unless the paper has the row (Single: CM's).

    Also empty if runs of the setting have another number of images than the paper, whose percents are then other
    counts.
    """
    table = found.paper
    if any(found.configs[run].get("num_images", PAPER_IMAGES) != PAPER_IMAGES for run in found.of(setting)["run"]):
        return pd.Series(dtype=float)
    label = label.removesuffix("†")
    label = {"Single": "CM", "Single teacher": "Baseline"}.get(label, label)
    network = PAPER_NETWORK.get(setting[0], setting[0])
    match = table[(table["network"] == network) & (table["dataset"] == setting[1]) & (table["label"] == label)]
    return match.set_index("percent")["accuracy"].dropna().sort_index()


def _check(rows: pd.DataFrame, configs: dict[str, dict]) -> None:
    """Refuses two runs of one cell that differ in more than the seed, or not even in the seed."""
    for (model, dataset, label, percent), cell in rows.groupby(["model", "dataset", "label", "percent"], sort=False):
        where = f"{label} of {model} on {dataset} at {percent:g}%"
        own = cell["own"].all()
        for first, other in itertools.combinations(cell["run"], 2):
            # A flag that only one has was added later; BEFORE has the earlier behaviour where it was different.
            before, after = (
                naming.shared(BEFORE | configs[run], own) if configs[run] else {} for run in (first, other)
            )
            differing = [name for name in sorted(before.keys() & after.keys()) if before[name] != after[name]]
            if differing:
                changes = ", ".join(OTHER.get(name, f"--{name} {before[name]} and {after[name]}") for name in differing)
                raise InputError(f"{first} and {other} are both {where} but differ in {changes}; report "
                                 "them apart, or --ablation makes them rows of their own")  # fmt: skip
            if counts := _other_rounds(rows, first, other, percent):
                raise InputError(f"{first} and {other} are both {where} but came to it by other rounds, of {counts} "
                                 "labels; report them apart")  # fmt: skip
        if cell["seed"].duplicated().any():
            twice = cell[cell["seed"].duplicated(keep=False)]
            raise InputError(f"{' and '.join(twice['run'])} are both {where} with one seed; name one of them")


def _other_rounds(rows: pd.DataFrame, first: str, other: str, percent: float) -> str:
    """The label counts of two runs' rounds up to this percent, if they differ and queries or teachers depend on them.

    Random labels are equally good whatever the rounds were, and all labels are the same set, unless a round's teacher
    starts from the one before.
    """
    depends = rows["teacher_start"].eq("before") | (~rows["sampler"].isin(["random", ""]) & (percent < 100))
    own = rows[(rows["percent"] <= percent) & rows["run"].isin(rows.loc[depends, "run"])].drop_duplicates(
        ["run", "percent"]
    )
    ours, theirs = (own.loc[own["run"] == run, "labeled"].astype(str).tolist() for run in (first, other))
    known = "" not in ours + theirs  # files older than the column have none
    return f"{' '.join(ours)} and of {' '.join(theirs)}" if known and ours != theirs else ""


def _held_out(config: dict) -> int:
    """The number of a run's labels that its teacher never sees."""
    return config.get("num_val", 0) if config.get("val_labels") == "bought" else 0
