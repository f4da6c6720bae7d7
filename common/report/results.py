"""The runs' text files as tables, checked: what falls into one cell was configured alike."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from common.errors import InputError
from common.report import builds, reading
from common.runs import ELSEWHERE
from common.samplers import SAMPLERS
from common.schema import BEFORE, VARIANTS

# The rows of the paper's Table I and the full-data ones, in the order shown, by what results.csv says was trained.
NAMES = {
    ("Single", "teacher"): "Single teacher",
    ("Random", "teacher"): "Baseline",
    ("Single", "student"): "Single",
    ("Random", "student"): "CM",
    ("KD", "student"): "CM+KD",
    ("EnCoDe", "student"): "EnCoDe",
}
DISTILLED = ("KD", "EnCoDe")  # methods with a teacher
ORACLES = [name for name, kind in SAMPLERS.items() if kind.oracle]  # these read the labels that they ask for
PAPER_NETWORK = {"VGG": "VGG11"}  # the paper's name for it
# Keys of config.json that may differ in a cell: where a run was made and with what, and which cells it has.
OWN = ELSEWHERE | {"expt", "seed", "rounds", "teacher", "percents", "initial_budget", "budget"}
OWN |= {"made_with", "teacher_sha256", "pool", "labels", "data", "dataset", "recipe", "amp", "fast", "compile"}
# Flags beside --teacher_* that a fair teacher depends on.
TEACHER = {"num_images", "num_val", "num_classes", "image_size", "take", "extra", "flip", "val_labels"}


@dataclass
class Results:
    """What the runs' folders hold; `label` names a row of the tables, `setting` is (model, dataset)."""

    rows: pd.DataFrame  # results.csv: a row a round of a run, with columns label and run
    history: pd.DataFrame  # history.csv with label, model, dataset, seed, percent
    queries: pd.DataFrame  # queries.csv likewise, with the round's queried images
    classes: pd.DataFrame  # class and accuracy likewise: test accuracy of each class, where predictions were kept
    pools: dict[str, dict[str, int]]  # run folder -> class name -> images in its pool, empty where there is no record
    configs: dict[str, dict]  # run folder -> config.json, empty where there is none
    made: dict[str, builds.Made]  # run folder -> what it was made with
    paper: pd.DataFrame  # network, dataset, label, percent, accuracy

    def settings(self) -> list[tuple[str, str]]:
        """(model, dataset) in order of appearance."""
        return list(dict.fromkeys(zip(self.rows["model"], self.rows["dataset"], strict=True)))

    def unfinished(self) -> list[str]:
        """The runs without a finished round, of which no table has a row."""
        return [run for run in self.configs if run not in set(self.rows["run"])]

    def of(self, setting: tuple[str, str], frame: str = "rows") -> pd.DataFrame:
        """The rows of one setting."""
        return of(getattr(self, frame), setting)

    def class_names(self, dataset: str, count: int) -> list[str]:
        """Of the first `count` classes of a data set, in their order; their numbers where no run has a record."""
        runs = self.rows.loc[self.rows["dataset"] == dataset, "run"].unique()
        names = next((list(self.pools[run]) for run in runs if self.pools[run]), [])
        return [*names, *map(str, range(len(names), count))][:count]


def of(table: pd.DataFrame, setting: tuple[str, str]) -> pd.DataFrame:
    """The rows of a table with columns model and dataset that are of one setting."""
    return table[(table["model"] == setting[0]) & (table["dataset"] == setting[1])]


def read(folders: list[Path]) -> Results:
    """All runs, the paper's rows first.

    Raises InputError when a file of one is damaged or missing, or two of one cell have other flags or the same seed.
    """
    frames, configs, pools = [], {}, {}
    extra: dict[str, list[pd.DataFrame]] = {"history": [], "queries": [], "classes": []}
    for folder in map(Path, folders):
        if folder.resolve() in {Path(run).resolve() for run in configs}:
            raise InputError(f"{folder}: is named twice; name each run once")
        frame = reading.results(folder)
        columns = list(dict.fromkeys([*frame.columns, *VARIANTS]))
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
    own = len(rows)  # the rows of networks that were trained for themselves
    rows = _labels(pd.concat([rows, _fair_teachers(rows, configs)], ignore_index=True))
    rows["own"] = rows.index < own
    rows["label"] = _told_apart(rows, configs)
    _check(rows, configs)
    shared = rows.drop_duplicates("run").set_index("run")["shared_teacher"]
    made = {run: builds.made(run, configs[run], bool(shared[run])) for run in shared.index}
    heads = [list(NAMES).index(pair) for pair in zip(rows["method"], rows["network"], strict=True)]
    rows = rows.iloc[pd.Series(heads).argsort(kind="stable")].reset_index(drop=True)
    keys = rows.loc[rows["own"], ["run", "round", "label", "model", "dataset", "seed", "percent"]]
    history, queries, classes = (
        pd.concat(found, ignore_index=True).merge(keys, on=["run", "round"]) for found in extra.values()
    )
    return Results(rows, history, queries, classes, pools, configs, made, paper())


def _fair_teachers(rows: pd.DataFrame, configs: dict[str, dict]) -> pd.DataFrame:
    """Baseline rows: the teachers of KD's random labels, which were trained on these labels alone, each once.

    Where runs of one seed chose other random labels at a percent, as with other --percents, the run with most rounds
    counts, then the first by name.
    """
    if "teacher_accuracy" not in rows:
        return rows.iloc[:0]
    accuracy = pd.to_numeric(rows["teacher_accuracy"], errors="coerce")
    fair = (rows["method"] == "KD") & (rows["teacher_labels"] == "labeled") & (rows["sampler"] == "random")
    found = rows[fair & accuracy.between(0, 100)].copy()
    found["test_accuracy"] = accuracy[found.index]
    found = found.assign(method="Random", network="teacher")
    if "labels_in_all" in found and "labeled" in found:  # images that chose the student's epoch chose nothing of its
        known = found["labels_in_all"].ne("") & found["labeled"].ne("")
        held_out = found["run"].map(lambda run: _held_out(configs[run]))
        found.loc[known, "labels_in_all"] = (pd.to_numeric(found["labeled"]) - held_out)[known].astype(str)
    # flags of the student say nothing about its teacher, but that a second teacher may learn the means of its views
    seen = ["views", "targets"]
    means = found["teacher_pool"].eq("self_training") & found["targets"].eq("mean")
    alike = len(found.loc[means, seen].drop_duplicates()) < 2  # then no name needs them
    found.loc[~means | alike, seen] = ""
    decides = ("sampler", "teacher_labels", "teacher_start", "teacher_pool", *seen)
    found[[name for name in VARIANTS if name not in decides]] = ""
    keys = ["model", "dataset", "seed", "percent"]
    flags = found["run"].map(lambda run: json.dumps(_teacher_flags(BEFORE | configs[run]), sort_keys=True))
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
    """The paper's accuracy by percent for a row's label; empty unless it is one of the paper's (Single: CM's)."""
    table = found.paper
    label = label.removesuffix("†")
    label = {"Single": "CM", "Single teacher": "Baseline"}.get(label, label)
    network = PAPER_NETWORK.get(setting[0], setting[0])
    match = table[(table["network"] == network) & (table["dataset"] == setting[1]) & (table["label"] == label)]
    return match.set_index("percent")["accuracy"].dropna().sort_index()


def paper_accuracy(found: Results, setting: tuple[str, str], row: pd.Series) -> float | None:
    """The paper's number for a row of `rows`; None where it has none."""
    return paper_curve(found, setting, row["label"]).get(row["percent"])


def _said(name: str, value: str, alone: bool) -> str:
    """A flag's value in a row's name; with the flag where it is a number, or not `alone` in having this value."""
    if name == "teacher_labels" and value == "labeled":  # the word is the usual one for what is distilled on
        return "fair"
    try:
        return f"{name} {float(value):g}"
    except ValueError:
        return value if alone else f"{name} {value}"


def _labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `shared_teacher`, whether all rounds had one teacher that saw every label, `oracle` and `label`.

    A row's name in the tables is the paper's, what sets it apart, and a dagger for a shared teacher. A value that is
    missing, as in the files of runs from before its column was there, counts as the usual one.
    """
    values, mentioned = rows[list(VARIANTS)].copy(), pd.DataFrame("", rows.index, list(VARIANTS))
    for name, choices in VARIANTS.items():
        for _, group in values.groupby([rows["method"], rows["network"]], sort=False):
            there = set(group[name])
            usual = [choice for choice in choices if choice in there][-1:] or choices[:1]  # EnCoDe's is vae, not random
            values.loc[group.index, name] = group[name].replace("", usual[0])
            if values.loc[group.index, name].nunique() > 1:
                mentioned.loc[group.index, name] = values.loc[group.index, name].replace(usual[0], "")
    oracle = rows["sampler"].isin(ORACLES)
    mentioned.loc[oracle, "sampler"] = "oracle: " + rows.loc[oracle, "sampler"]  # whatever else is there
    columns_of = {
        value: [name for name in VARIANTS if (mentioned[name] == value).any()]
        for value in set(mentioned.to_numpy().ravel())
    }
    names = []
    for number, pair in enumerate(zip(rows["method"], rows["network"], strict=True)):
        if pair not in NAMES:
            raise InputError(f"{Path(rows['run'].iloc[number]) / 'results.csv'}: {pair[0]} trains no {pair[1]}; "
                             "Single and Random do")  # fmt: skip
        apart = [(name, value) for name, value in mentioned.iloc[number].items() if value]
        apart = [_said(name, value, alone=len(columns_of[value]) == 1) for name, value in apart]
        names.append(NAMES[pair] + (f" ({', '.join(apart)})" if apart else ""))
    shared = rows["method"].isin(DISTILLED) & (values["teacher_labels"] == "all")
    names = pd.Series(names, rows.index) + shared.map({True: "†", False: ""})
    return rows.assign(shared_teacher=shared, oracle=oracle, label=names)


def _told_apart(rows: pd.DataFrame, configs: dict[str, dict]) -> pd.Series:
    """The labels; those of KD runs' teachers with the flags that differ among them, which no student's name has."""
    labels = rows["label"].copy()
    for _, group in rows[~rows["own"]].groupby(["model", "dataset", "label"]):
        flags = {run: _teacher_flags(BEFORE | configs[run]) for run in group["run"].unique()}
        shared = set.intersection(*map(set, flags.values()))
        differing = sorted(name for name in shared if len({json.dumps(each[name]) for each in flags.values()}) > 1)
        for row, label, run in group[["label", "run"]].itertuples() if differing else ():
            apart = ", ".join(_said(name, str(flags[run][name]), alone=False) for name in differing)
            labels[row] = f"{label[:-1]}, {apart})" if label.endswith(")") else f"{label} ({apart})"
    return labels


def _check(rows: pd.DataFrame, configs: dict[str, dict]) -> None:
    """Refuses two runs of one cell that differ in more than the seed, or in less."""
    for (model, dataset, label, percent), cell in rows.groupby(["model", "dataset", "label", "percent"], sort=False):
        where = f"{label} of {model} on {dataset} at {percent:g}%"
        flags = _flags if cell["own"].all() else _teacher_flags
        for first, other in itertools.combinations(cell["run"], 2):
            before, after = flags(configs[first]), flags(configs[other])
            # A flag that only one has was added later, with what was done before as its default.
            differing = [name for name in sorted(before.keys() & after.keys()) if before[name] != after[name]]
            if differing:
                changes = ", ".join(f"--{name} {before[name]} and {after[name]}" for name in differing)
                raise InputError(f"{first} and {other} are both {where} but differ in {changes}; report them apart")
        if cell["seed"].duplicated().any():
            twice = cell[cell["seed"].duplicated(keep=False)]
            raise InputError(f"{' and '.join(twice['run'])} are both {where} with one seed; name one of them")


def _flags(config: dict) -> dict:
    """The flags that runs of one cell share. Runs without a record of amp have it as a flag."""
    kept = {name: value for name, value in config.items() if name not in OWN}
    return kept | ({"amp": config["amp"]} if "amp" in config and "made_with" not in config else {})


def _held_out(config: dict) -> int:
    """Of a run's labels, those that its teacher never sees."""
    return config.get("num_val", 0) if config.get("val_labels") == "bought" else 0


def _teacher_flags(config: dict) -> dict:
    """Those of a KD run that its fair teachers depend on."""
    means = config.get("targets") == "mean" and config.get("teacher_pool") == "self_training"
    names = TEACHER | ({"views", "shift"} if means else set())
    flags = {name: value for name, value in _flags(config).items() if name in names or name.startswith("teacher_")}
    unused = {"teacher_seed"}  # of the teacher that saw every label
    unused |= {"teacher_more_epochs"} if config.get("teacher_start") == "anew" else set()
    unused |= {"teacher_pool_epochs"} if config.get("teacher_pool") == "none" else set()
    # 80 of a recipe and 80.0 of the command line are one value
    number = {name: float(value) for name, value in flags.items() if type(value) is int}
    return {name: value for name, value in (flags | number).items() if name not in unused}
